//! Names of tools as a provider takes them: OpenAI and others refuse what does not match `^[a-zA-Z0-9_-]{1,64}$`, and MCP
//! servers have functions with dots, slashes and long names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use caxton_proto::Digest;

use super::super::{Message, ToolDefinition};

/// The longest name that the pattern takes.
const NAME_CHARS_MAX: usize = 64;
/// Of a name that had to be changed beyond recognition, so much is kept before the part that makes it unique.
const KEPT_CHARS: usize = 55;
/// What some models put before every name.
const PREFIX: &str = "functions.";

/// The names of a request's tools, there and back.
#[derive(Debug, Default)]
pub struct Names {
    /// The provider's name by ours, for those that differ.
    there: BTreeMap<String, String>,
    /// Ours by the provider's.
    back: BTreeMap<String, String>,
}

impl Names {
    /// The names of these tools, and of those that were called before.
    pub fn of(tools: &[ToolDefinition], messages: &[Message], strict: bool) -> Names {
        let mut names = Names::default();
        let called = messages.iter().flat_map(|message| match message {
            Message::Assistant { calls, .. } => calls.as_slice(),
            Message::System { .. } | Message::User { .. } | Message::Tool { .. } => &[],
        });
        let own = tools.iter().map(|tool| tool.name.as_str()).chain(called.map(|call| call.tool.as_str()));
        let own: std::collections::BTreeSet<&str> = own.collect();
        for name in own.iter().copied() {
            let there = match strict && !fits(name) {
                true => names.new_name(name, |wanted| own.contains(wanted)),
                false => name.to_owned(),
            };
            names.back.insert(there.clone(), name.to_owned());
            if there != name {
                names.there.insert(name.to_owned(), there);
            }
        }
        names
    }

    fn new_name(&self, name: &str, is_own: impl Fn(&str) -> bool) -> String {
        let plain: String = name.chars().map(|c| if fits_char(c) { c } else { '_' }).take(NAME_CHARS_MAX + 1).collect();
        if (1..=NAME_CHARS_MAX).contains(&plain.len()) && !is_own(&plain) && !self.back.contains_key(&plain) {
            return plain;
        }
        let kept: String = plain.chars().take(KEPT_CHARS).collect();
        let unique: String =
            Digest::of(name.as_bytes()).to_string().chars().filter(char::is_ascii_hexdigit).take(8).collect();
        format!("{kept}_{unique}")
    }

    /// A name as the provider takes it.
    pub fn there<'n>(&'n self, name: &'n str) -> &'n str {
        self.there.get(name).map_or(name, String::as_str)
    }

    /// A name that the model wrote, as we know it. One that nobody has stays as it is, and the model is told so.
    pub fn back(&self, name: &str) -> String {
        let name = name.trim();
        let known = self.back.get(name).or_else(|| self.back.get(name.strip_prefix(PREFIX)?));
        known.map_or(Cow::Borrowed(name), |known| Cow::Borrowed(known.as_str())).into_owned()
    }
}

fn fits(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(fits_char)
}

fn fits_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn tools(names: &[String]) -> Vec<ToolDefinition> {
        let tool = |name: &String| ToolDefinition {
            name: name.clone(),
            description: String::new(),
            parameters: Arc::new(Value::Null),
        };
        names.iter().map(tool).collect()
    }

    #[test]
    fn only_what_does_not_fit_is_changed() {
        let own = ["read_file", "files.read", "files/read", "files_read", "é"].map(str::to_owned);
        let names = Names::of(&tools(&own), &[], true);
        assert_eq!(names.there("read_file"), "read_file");
        let there: BTreeSet<&str> = own.iter().map(|name| names.there(name)).collect();
        assert_eq!(there.len(), own.len(), "{there:?}");
        assert_eq!(names.back("functions.read_file"), "read_file");
        assert_eq!(names.back("nobody"), "nobody");
        let plain = Names::of(&tools(&own), &[], false);
        assert_eq!(plain.there("files.read"), "files.read");
    }

    proptest! {
        /// Whatever tools are called: what is sent matches the pattern, no two are the same, and the way back leads home.
        #[test]
        fn every_name_has_a_way_there_and_back(own in prop::collection::btree_set("[a._/é-]{0,70}", 1..12)) {
            let own: Vec<String> = own.into_iter().collect();
            let names = Names::of(&tools(&own), &[], true);
            let there: BTreeSet<&str> = own.iter().map(|name| names.there(name)).collect();
            prop_assert_eq!(there.len(), own.len());
            for name in &own {
                let there = names.there(name);
                prop_assert!(fits(there), "{}", there);
                prop_assert_eq!(names.back(there), name.clone());
            }
        }
    }
}
