//! Weights in the order and form in which AVX2 multiplies bytes fastest, made once when the model is loaded.
//!
//! AVX2 multiplies bytes without sign by bytes with one. So a weight is its size, and whether it is negative, which turns the
//! input's bits instead: `!x` is `-x - 1`, and the ones that this takes too much are the same for every input, so that they
//! are added up here. Eight columns lie together, from the first row to the last: the cache lines of a tile follow one another.

use crate::layout::{GROUP, PANEL};

/// Columns of a tile: what a register of 32-bit sums holds.
pub const COLUMNS: usize = 8;
/// The bit of a byte that says that a weight is negative; the others are its size.
const NEGATIVE: u8 = 0x80;
/// Chunks of a group of a tile: what is added to its sums, then four rows of each column at a time.
pub const CHUNKS: usize = 1 + GROUP / 4;

/// A register's bytes.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub struct Chunk([u8; 32]);

/// A matrix's values, tile by tile, group by group.
#[derive(Default)]
pub struct PackedWeights(Vec<Chunk>);

impl PackedWeights {
    /// Reads the values of a matrix once; as large as that, and a thirty-second.
    pub fn new(values: &[u8], rows: usize, columns: usize) -> Self {
        let mut chunks = Vec::with_capacity(len(rows, columns));
        for panel in values.chunks_exact(PANEL * rows) {
            for tile in 0..PANEL / COLUMNS {
                for group in panel.chunks_exact(PANEL * GROUP) {
                    let first = chunks.len();
                    chunks.push(Chunk([0; 32]));
                    let mut sums = [0_i32; COLUMNS];
                    let (fours, _) = group.as_chunks::<{ PANEL * 4 }>();
                    for four in fours {
                        let values: [u8; 32] = std::array::from_fn(|i| four[tile * 32 + i]);
                        chunks.push(Chunk(values.map(size_and_sign)));
                        for (sum, column) in sums.iter_mut().zip(values.as_chunks::<4>().0) {
                            *sum += column.iter().map(|value| 128 - i32::from((*value).min(128))).sum::<i32>();
                        }
                    }
                    for (bytes, sum) in chunks[first].0.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
                        *bytes = sum.to_le_bytes();
                    }
                }
            }
        }
        Self(chunks)
    }

    /// The first of its chunks, of which there are as many as a matrix of such a shape has.
    ///
    /// # Panics
    /// If it was not made for a matrix of that shape.
    pub fn start(&self, rows: usize, columns: usize) -> *const Chunk {
        assert_eq!(self.0.len(), len(rows, columns), "the model was not prepared for this kernel");
        self.0.as_ptr()
    }
}

fn len(rows: usize, columns: usize) -> usize {
    columns / COLUMNS * (rows / GROUP) * CHUNKS
}

/// From a value that is 128 too large.
fn size_and_sign(value: u8) -> u8 {
    value.abs_diff(128) | (if value < 128 { NEGATIVE } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_its_size_and_its_sign() {
        for (value, expected) in [(128, 0), (129, 1), (255, 127), (127, 0x81), (1, 0xff)] {
            assert_eq!(size_and_sign(value), expected, "{value}");
        }
    }
}
