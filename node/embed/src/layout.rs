//! The model file's shape, which the build script writes and the crate reads in place.
//!
//! Sections follow one another in the order of [`crate::weights::Model`]'s fields, each padded to begin at a multiple
//! of [`ALIGN`], numbers little-endian. A matrix is stored as `(value + 128)` bytes in panels of [`PANEL`] columns;
//! inside a panel four consecutive rows of a column lie together, so that one dot-product instruction reads them.
//! Each [`GROUP`] of a column's rows has a scale of its own, chosen so that [`FOURS`] keep to [`FOUR_MAX`]. The last 32 bytes
//! are the SHA-256 of the others.

/// Pieces of the vocabulary.
pub const PIECES: usize = 30_522;
/// Numbers that stand for a token between layers, and for a sentence at the end.
pub const HIDDEN: usize = 384;
/// How many transformer layers the model has.
pub const LAYERS: usize = 6;
/// Attention heads of a layer.
pub const HEADS: usize = 12;
/// Numbers that a head works on.
pub const HEAD: usize = HIDDEN / HEADS;
/// Numbers inside a layer's feed-forward part.
pub const INNER: usize = 1_536;
/// The longest sequence that the model was trained on.
pub const TOKENS_MAX: usize = 256;
/// Rows of a column that share a scale.
pub const GROUP: usize = 128;
/// Of eight consecutive rows of a column, counted from a multiple of eight, those whose products a kernel without a dot product
/// of bytes sums in 16 bits.
#[allow(dead_code, reason = "the build script keeps to it, and a test looks")]
pub const FOURS: [[usize; 4]; 2] = [[0, 1, 4, 5], [2, 3, 6, 7]];
/// The most that the absolute values of such four may sum to: with inputs of at most 128 the sum of their products fits.
#[allow(dead_code, reason = "the build script keeps to it, and a test looks")]
pub const FOUR_MAX: u32 = i16::MAX as u32 / 128;
/// Columns stored together.
pub const PANEL: usize = 32;
/// Where sections begin: a cache line, and the widest vector register.
pub const ALIGN: usize = 64;
/// Of the checksum at the end.
pub const CHECKSUM: usize = 32;

/// Bytes of a whole model file.
pub const LEN: usize = {
    let norm = [HIDDEN * 4, HIDDEN * 4];
    let mut at = 0;
    at = after(at, &[PIECES * HIDDEN, PIECES * 4, TOKENS_MAX * HIDDEN * 4]);
    at = after(at, &norm);
    let mut layer = 0;
    while layer < LAYERS {
        at = after(at, &matrix(HIDDEN, 3 * HIDDEN));
        at = after(at, &matrix(HIDDEN, HIDDEN));
        at = after(at, &norm);
        at = after(at, &matrix(HIDDEN, INNER));
        at = after(at, &matrix(INNER, HIDDEN));
        at = after(at, &norm);
        layer += 1;
    }
    at + CHECKSUM
};

/// The sections of a matrix of `rows` inputs and `columns` outputs: smoothing, values, scales, bias.
const fn matrix(rows: usize, columns: usize) -> [usize; 4] {
    [rows * 4, rows * columns, rows / GROUP * columns * 4, columns * 4]
}

const fn after(mut at: usize, sections: &[usize]) -> usize {
    let mut i = 0;
    while i < sections.len() {
        at = (at + sections[i]).next_multiple_of(ALIGN);
        i += 1;
    }
    at
}
