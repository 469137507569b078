//! The most that is taken of a provider's reply. Nothing of it is trusted: a model, or whoever answers in its place,
//! may send anything at all.

/// A reply's text, calls and reasoning may have this many bytes together; a model that goes on is stopped with
/// [`super::Error::TooLarge`].
pub const REPLY_BYTES_MAX: usize = 1 << 20;
/// A provider's stream may have this many bytes: JSON and deltas around a reply of [`REPLY_BYTES_MAX`].
pub const STREAM_BYTES_MAX: usize = 64 * REPLY_BYTES_MAX;
/// One event of a stream, and a reply that comes as one document, may have this many bytes.
pub const EVENT_BYTES_MAX: usize = 4 * REPLY_BYTES_MAX;
/// Of the body of an error this many bytes are read.
pub const ERROR_BYTES_MAX: usize = 16 << 10;
/// Of what a provider says of an error this many characters are shown.
pub const ERROR_CHARS_MAX: usize = 400;
/// One reply may ask for this many calls; the turn takes fewer.
pub const CALLS_MAX: usize = 128;
/// One reply may have this many blocks of Anthropic's kind.
pub const BLOCKS_MAX: usize = 256;
/// The arguments of a call may be nested this deep. What is stored with a turn has them inside, and serde_json reads
/// back 128 levels.
pub const ARGUMENTS_DEPTH_MAX: usize = 64;
/// A name that a model calls may have this many bytes, and so may the name by which a model calls itself.
pub const NAME_BYTES_MAX: usize = 256;
/// A provider's own id of a call may have this many bytes; some sign the call in it. A longer one is not kept.
pub const ID_BYTES_MAX: usize = 16 << 10;
/// What has to be sent back of a reply may have this many bytes as JSON; of more, nothing is kept.
pub const ECHO_BYTES_MAX: usize = 2 * REPLY_BYTES_MAX;
/// More tokens than this, read or written, no reply has used, whatever its provider says: it is counted as so many.
pub const USAGE_TOKENS_MAX: u64 = 10_000_000;
/// A request is put in other words, as its refusals ask for, this many times.
pub const REWORDINGS_MAX: usize = 8;
/// Providers and models of which a node remembers what they refused; with more, it forgets and learns again.
pub const LESSONS_MAX: usize = 4_096;
/// How many pieces of a reply wait for a reader before the model's stream is held back.
pub const DELTAS_WAITING_MAX: usize = 256;
