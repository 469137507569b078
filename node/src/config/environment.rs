//! The one place that reads this process's environment. Nothing but the settings and the command line asks for it, when they
//! begin.

use std::ffi::OsString;

/// A variable; one that is empty is none.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// All variables that are text, with their names.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
