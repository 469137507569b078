//! Values of labels that tenants choose: so many are told apart, and the rest is one.
//!
//! A label's value costs memory in this process and in whoever scrapes it, for as long as the process lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex, PoisonError};

/// So many values of a label are told apart.
pub const VALUES_MAX: usize = 256;
/// The longest value, in bytes.
const VALUE_BYTES_MAX: usize = 128;
/// What stands for all the others.
pub const OTHER: &str = "(other)";

static KNOWN: LazyLock<Mutex<BTreeMap<&'static str, BTreeSet<String>>>> = LazyLock::new(Mutex::default);

/// The value itself, as long as the label has not too many.
pub fn bounded(label: &'static str, value: &str) -> String {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let values = known.entry(label).or_default();
    let fits = value.len() <= VALUE_BYTES_MAX;
    if fits && (values.contains(value) || values.len() < VALUES_MAX) {
        if !values.contains(value) {
            values.insert(value.to_owned());
        }
        return value.to_owned();
    }
    OTHER.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_so_many_values_and_one_for_the_rest() {
        let told: BTreeSet<String> = (0..VALUES_MAX * 2).map(|n| bounded("test-many", &n.to_string())).collect();
        assert_eq!(told.len(), VALUES_MAX + 1);
        assert_eq!(bounded("test-many", "0"), "0", "those that were first stay");
        assert_eq!(bounded("test-many", "new"), OTHER);
        assert_eq!(bounded("test-long", &"x".repeat(VALUE_BYTES_MAX + 1)), OTHER);
    }
}
