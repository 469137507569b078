//! The model, read in place: every field is a slice of the bytes inside the binary. Only for a kernel that needs its weights in
//! another order are those copied, once.

use crate::layout::{ALIGN, CHECKSUM, GROUP, HIDDEN, INNER, LAYERS, LEN, PIECES, TOKENS_MAX};
#[cfg(target_arch = "x86_64")]
use crate::packed::PackedWeights;

#[cfg(target_endian = "big")]
compile_error!("the model file is little-endian and read in place; this target is not");

/// Bytes that begin at a cache line.
#[repr(C, align(64))]
pub struct AlignedBytes<B> {
    bytes: B,
}

/// The model file that the build script made. Its length is part of the type: another layout does not compile.
pub static MODEL: AlignedBytes<[u8; LEN]> =
    AlignedBytes { bytes: *include_bytes!(concat!(env!("OUT_DIR"), "/model.bin")) };
/// The model file's own checksum, its last bytes.
pub fn checksum() -> [u8; CHECKSUM] {
    *MODEL.bytes.last_chunk().unwrap_or(&[0; CHECKSUM])
}

/// The published vocabulary.
pub static VOCABULARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vocab.txt"));

/// A matrix product with a bias.
pub struct Linear<'a> {
    /// How many numbers a row of its input has.
    pub rows: usize,
    /// How many numbers a row of its output has.
    pub columns: usize,
    /// What an input is multiplied by before it is quantised.
    pub smooth: &'a [f32],
    /// Panels of values, each 128 too large.
    pub values: &'a [u8],
    /// Of each group of each column, panel by panel.
    pub scales: &'a [f32],
    /// Added at the end.
    pub bias: &'a [f32],
    /// The values once more as the kernel wants them that was chosen; empty if it reads them as they are.
    #[cfg(target_arch = "x86_64")]
    pub packed: PackedWeights,
}

/// What layer normalisation multiplies by and adds.
pub struct Norm<'a> {
    /// What each normalised number is multiplied by.
    pub gain: &'a [f32],
    /// What is added to each number after that.
    pub bias: &'a [f32],
}

/// One transformer layer.
pub struct Layer<'a> {
    /// Queries (already divided by the root of the head's width), keys and values.
    pub attention: Linear<'a>,
    /// What mixes the heads.
    pub mix: Linear<'a>,
    /// Normalises what attention gave back, with its input added.
    pub attention_norm: Norm<'a>,
    /// From the width of the residual stream to that of the feed-forward part.
    pub widen: Linear<'a>,
    /// From the width of the feed-forward part back to that of the residual stream.
    pub narrow: Linear<'a>,
    /// After the feed-forward part.
    pub narrow_norm: Norm<'a>,
}

/// The whole model.
pub struct Model<'a> {
    /// A row for each piece of the vocabulary.
    pub pieces: &'a [i8],
    /// A scale for each of those rows.
    pub piece_scales: &'a [f32],
    /// A row for each position, with the only token type's row added.
    pub positions: &'a [f32],
    /// After those were added.
    pub norm: Norm<'a>,
    /// The transformer's layers, the first of them first.
    pub layers: [Layer<'a>; LAYERS],
}

impl<'a> Layer<'a> {
    /// The matrices of a layer, in the order in which they are used.
    #[cfg(target_arch = "x86_64")]
    pub fn linears(&mut self) -> [&mut Linear<'a>; 4] {
        [&mut self.attention, &mut self.mix, &mut self.widen, &mut self.narrow]
    }
}

impl<'a> Model<'a> {
    /// Finds the sections; does not read them.
    pub fn new(file: &'a AlignedBytes<[u8; LEN]>) -> Self {
        let mut sections = Sections { rest: &file.bytes };
        let model = Self {
            pieces: sections.signed(PIECES * HIDDEN),
            piece_scales: sections.floats(PIECES),
            positions: sections.floats(TOKENS_MAX * HIDDEN),
            norm: sections.norm(),
            layers: std::array::from_fn(|_| Layer {
                attention: sections.linear(HIDDEN, 3 * HIDDEN),
                mix: sections.linear(HIDDEN, HIDDEN),
                attention_norm: sections.norm(),
                widen: sections.linear(HIDDEN, INNER),
                narrow: sections.linear(INNER, HIDDEN),
                narrow_norm: sections.norm(),
            }),
        };
        debug_assert_eq!(sections.rest.len(), CHECKSUM);
        model
    }
}

struct Sections<'a> {
    rest: &'a [u8],
}

impl<'a> Sections<'a> {
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (section, rest) = self.rest.split_at(len.next_multiple_of(ALIGN));
        self.rest = rest;
        &section[..len]
    }

    fn signed(&mut self, len: usize) -> &'a [i8] {
        // SAFETY: every byte is a valid `i8`, of the same size and alignment.
        let (_, values, _) = unsafe { self.bytes(len).align_to::<i8>() };
        values
    }

    fn floats(&mut self, len: usize) -> &'a [f32] {
        // SAFETY: any four bytes are a valid `f32`; the file begins at a cache line, and so does each section.
        let (before, values, after) = unsafe { self.bytes(len * 4).align_to::<f32>() };
        debug_assert!(before.is_empty() && after.is_empty());
        values
    }

    fn linear(&mut self, rows: usize, columns: usize) -> Linear<'a> {
        Linear {
            rows,
            columns,
            smooth: self.floats(rows),
            values: self.bytes(rows * columns),
            scales: self.floats(rows / GROUP * columns),
            bias: self.floats(columns),
            #[cfg(target_arch = "x86_64")]
            packed: PackedWeights::default(),
        }
    }

    fn norm(&mut self) -> Norm<'a> {
        Norm { gain: self.floats(HIDDEN), bias: self.floats(HIDDEN) }
    }
}
