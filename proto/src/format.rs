//! The form in which nodes write what others have to read.

use std::fmt;

/// A form of what is written, counted up. A node reads every form up to the newest that it knows, and writes the one that
/// the cluster's log names, which every member has said it reads. It never goes back to an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Format(u32);

impl Format {
    /// The first: a shard's log, its rows and its documents are JSON. Nodes that say nothing of what they read, read this.
    pub const JSON: Format = Format(1);
    /// The second: they are protobuf, and the deploy log's command that raises the format exists.
    pub const PROTOBUF: Format = Format(2);
    /// The third: workspaces can be deleted, tokens can be for metrics alone, and turns keep what was said as it was said and
    /// the files that came with it.
    pub const DELETION: Format = Format(3);
    /// The newest that this build reads and writes.
    pub const NEWEST: Format = Format::DELETION;

    /// The form of this number; 0 stands for a node that says nothing, which reads the first.
    pub const fn of(number: u32) -> Format {
        if number == 0 { Format::JSON } else { Format(number) }
    }

    /// Its number, from 1.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether this build can read it.
    pub fn is_known(self) -> bool {
        self <= Format::NEWEST
    }
}

impl Default for Format {
    fn default() -> Self {
        Format::JSON
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_ordered_and_a_node_that_says_nothing_reads_the_first() {
        assert!(Format::JSON < Format::PROTOBUF && Format::PROTOBUF < Format::DELETION && Format::NEWEST.is_known());
        assert_eq!(Format::of(0), Format::JSON);
        assert!(!Format::of(Format::NEWEST.number() + 1).is_known());
    }
}
