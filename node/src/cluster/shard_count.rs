//! A node's own copy of how many shards its cluster has, which the deploy log says: it has to take part in the shards before it
//! hears from the deploy log's leader.

use std::num::NonZeroU32;
use std::path::Path;

use crate::files::{FileError, write_private};

/// The file with the copy.
const FILE: &str = "shards";

/// Notes how many shards there are.
pub fn note(dir: &Path, shards: NonZeroU32) -> Result<(), FileError> {
    write_private(&dir.join(FILE), format!("{shards}\n").as_bytes())
}

/// The copy, if there is one that can be read.
pub fn known(dir: &Path) -> Option<NonZeroU32> {
    std::fs::read_to_string(dir.join(FILE)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_read_as_it_was_noted_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(known(dir.path()), None);
        note(dir.path(), NonZeroU32::new(8).expect("not zero")).expect("noted");
        assert_eq!(known(dir.path()), NonZeroU32::new(8));
        std::fs::write(dir.path().join(FILE), "eight").expect("written");
        assert_eq!(known(dir.path()), None);
    }
}
