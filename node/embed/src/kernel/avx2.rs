//! x86-64 with AVX2 and no dot product of bytes.
//!
//! Two multiplications of bytes make four products a lane of 16 bits before these are widened, which is exact because the weights
//! of such four are small enough together (`layout::FOUR_MAX`, which the build script keeps to). What limits the kernel
//! is how many multiplications a cycle there are: three for 64 products, where a widening after each would take four.

use std::arch::x86_64::*;

use super::x86::Eight;
use super::{After, Kernel, Lanes, QuantisedMatrix, gelu};
use crate::layout::{GROUP, PANEL};
use crate::packed::{CHUNKS, COLUMNS, Chunk};
use crate::weights::Linear;

/// Rows of a tile at most: with a sum for each, all sixteen registers are used.
const ROWS_MAX: usize = 8;
/// How far ahead of the arithmetic weights are asked for, in chunks.
const PREFETCH: usize = 32;

/// AVX2 without the dot product of bytes.
pub struct Avx2;

/// A part of a product: some rows by the eight columns of a tile.
struct Tile {
    groups: usize,
    /// The rows' inputs, `groups * GROUP` apart, and their scales, `groups` apart.
    inputs: *const i8,
    scales: *const f32,
    /// The tile's weights, and the scales of its columns' first group.
    weights: *const Chunk,
    weight_scales: *const f32,
    bias: *const f32,
    /// Where the first row goes, and how far the next is.
    out: *mut f32,
    stride: usize,
    after: After,
}

impl Kernel for Avx2 {
    type Lanes = Eight;

    #[inline(always)]
    unsafe fn product(linear: &Linear<'_>, x: &QuantisedMatrix<'_>, out: &mut [f32], after: After) {
        let groups = linear.rows / GROUP;
        let weights = linear.packed.start(linear.rows, linear.columns);
        assert!(out.len() >= x.rows * linear.columns && x.values.len() >= x.rows * linear.rows);
        let parts = x.rows.div_ceil(ROWS_MAX);
        for first in (0..linear.columns).step_by(COLUMNS) {
            let (panel, column) = (first / PANEL, first % PANEL);
            let mut row = 0;
            for part in 0..parts {
                let end = (part + 1) * x.rows / parts;
                // SAFETY: the caller has the instruction set; the pointers stay inside the slices, whose lengths are those
                // that `layout.rs` gives the matrix and `QuantisedMatrix` its rows.
                unsafe {
                    let tile = Tile {
                        groups,
                        inputs: x.values.as_ptr().add(row * linear.rows),
                        scales: x.scales.as_ptr().add(row * groups),
                        weights: weights.add(first / COLUMNS * groups * CHUNKS),
                        weight_scales: linear.scales.as_ptr().add(panel * PANEL * groups + column),
                        bias: linear.bias.as_ptr().add(first),
                        out: out.as_mut_ptr().add(row * linear.columns + first),
                        stride: linear.columns,
                        after,
                    };
                    match end - row {
                        1 => multiply::<1>(&tile),
                        2 => multiply::<2>(&tile),
                        3 => multiply::<3>(&tile),
                        4 => multiply::<4>(&tile),
                        5 => multiply::<5>(&tile),
                        6 => multiply::<6>(&tile),
                        7 => multiply::<7>(&tile),
                        8 => multiply::<8>(&tile),
                        _ => unreachable!("a tile has at most {ROWS_MAX} rows"),
                    }
                }
                row = end;
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const ROWS: usize>(tile: &Tile) {
    // SAFETY: see `product`.
    unsafe {
        let (zero, ones, sizes) = (_mm256_setzero_si256(), _mm256_set1_epi16(1), _mm256_set1_epi8(i8::MAX));
        let mut sums = [_mm256_setzero_ps(); ROWS];
        for group in 0..tile.groups {
            let inputs = tile.inputs.add(group * GROUP);
            let weights: *const __m256i = tile.weights.add(group * CHUNKS).cast();
            let mut dots = [_mm256_load_si256(weights); ROWS];
            for eight in 0..GROUP / 8 {
                let at = weights.add(1 + eight * 2);
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(PREFETCH).cast());
                let columns = [_mm256_load_si256(at), _mm256_load_si256(at.add(1))];
                let size = [_mm256_and_si256(columns[0], sizes), _mm256_and_si256(columns[1], sizes)];
                let turn = [_mm256_cmpgt_epi8(zero, columns[0]), _mm256_cmpgt_epi8(zero, columns[1])];
                for (row, dots) in dots.iter_mut().enumerate() {
                    let from = inputs.add(row * tile.groups * GROUP + eight * 8).cast::<i32>();
                    let fours = [from.read_unaligned(), from.add(1).read_unaligned()];
                    let turned = [
                        _mm256_xor_si256(_mm256_set1_epi32(fours[0]), turn[0]),
                        _mm256_xor_si256(_mm256_set1_epi32(fours[1]), turn[1]),
                    ];
                    let products = [_mm256_maddubs_epi16(size[0], turned[0]), _mm256_maddubs_epi16(size[1], turned[1])];
                    let products = _mm256_add_epi16(products[0], products[1]);
                    *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(products, ones));
                }
            }
            let scales = _mm256_loadu_ps(tile.weight_scales.add(group * PANEL));
            for (row, sum) in sums.iter_mut().enumerate() {
                let scale = _mm256_set1_ps(*tile.scales.add(row * tile.groups + group));
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[row]), _mm256_mul_ps(scale, scales), *sum);
            }
        }
        let bias = _mm256_loadu_ps(tile.bias);
        for (row, sum) in sums.iter().enumerate() {
            let sum = Eight(_mm256_add_ps(*sum, bias));
            let sum = if tile.after == After::Gelu { gelu(sum) } else { sum };
            sum.store(tile.out.add(row * tile.stride));
        }
    }
}
