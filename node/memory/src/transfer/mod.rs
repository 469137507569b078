//! Export and import: one JSON document a line under a version, written and read line by line.
//!
//! The first line of an export says what the file is. Ids, times and sources go along, so that an import elsewhere gives the
//! same memories under the same ids, and the same ranking. Imports also read the files of other systems; what of them has no
//! place here is reported and not dropped in silence.

mod foreign;
mod line;
mod lines;

pub use line::{Line, LineError, Report};
pub use lines::{Reader, export};

/// The version of an export that this build writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// The most bytes of a line.
pub const LINE_BYTES_MAX: usize = 1 << 20;
