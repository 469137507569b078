//! Limits and defaults that the files of a workspace share.

use semver::Version;

/// The version of an agent or tool that does not give one.
pub const FIRST_VERSION: Version = Version::new(0, 1, 0);
/// The longest pattern, example or description, in bytes.
pub const LINE_BYTES_MAX: usize = 2_048;
/// The longest name or version, in bytes.
pub const WORD_BYTES_MAX: usize = 256;
/// The most entries of a fallback list.
pub const FALLBACK_MAX: usize = 8;
