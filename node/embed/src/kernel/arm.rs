//! 64-bit Arm: NEON with the dot product of bytes, and NEON alone.
//!
//! Weights are stored 128 too large; turning their top bit makes them signed again, so that the rows' corrections are not
//! used here. A tile of rows by sixteen columns stays in the 32 registers while it walks down a panel.

use super::{After, Kernel, Lanes, QuantisedMatrix, gelu};
use crate::layout::{GROUP, PANEL};
use crate::weights::Linear;
use std::arch::aarch64::*;
use std::arch::asm;

/// Bytes of four rows of a panel.
const STEP: usize = PANEL * 4;
/// Columns of a tile: a cache line of four rows.
const COLUMNS: usize = 16;
/// Registers of four sums that the columns of a tile take.
const QUARTERS: usize = COLUMNS / 4;

/// NEON with the dot product of bytes.
pub struct NeonDot;
/// NEON without the dot product of bytes.
pub struct Neon;

/// Writes the functions of [`Lanes`] that are one instruction for each half.
macro_rules! instructions {
    ($($name:ident($($argument:ident),*) = $instruction:ident;)*) => {
        $(#[inline(always)]
        unsafe fn $name(self $(, $argument: Self)*) -> Self {
            // SAFETY: the caller's promise, that the instruction set is there.
            unsafe { Self($instruction(self.0 $(, $argument.0)*), $instruction(self.1 $(, $argument.1)*)) }
        })*
    };
}

/// Eight floats, in two registers.
#[derive(Clone, Copy)]
pub struct Eight(float32x4_t, float32x4_t);

// SAFETY (every block below): the caller promises the instruction set and good pointers; see `Lanes`.
impl Lanes for Eight {
    const WIDTH: usize = 8;

    instructions! {
        add(y) = vaddq_f32;
        sub(y) = vsubq_f32;
        mul(y) = vmulq_f32;
        div(y) = vdivq_f32;
        min(y) = vminq_f32;
        max(y) = vmaxq_f32;
        abs() = vabsq_f32;
        round() = vrndnq_f32;
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Self(vdupq_n_f32(x), vdupq_n_f32(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const i8) -> Self {
        unsafe {
            let words = vmovl_s8(vld1_s8(from));
            Self(vcvtq_f32_s32(vmovl_s16(vget_low_s16(words))), vcvtq_f32_s32(vmovl_high_s16(words)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            vst1q_f32(to, self.0);
            vst1q_f32(to.add(4), self.1);
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        unsafe {
            let (low, high) = (vcvtnq_s32_f32(self.0), vcvtnq_s32_f32(self.1));
            vst1_s8(to, vmovn_s16(vcombine_s16(vmovn_s32(low), vmovn_s32(high))));
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, y: Self, z: Self) -> Self {
        unsafe { Self(vfmaq_f32(z.0, self.0, y.0), vfmaq_f32(z.1, self.1, y.1)) }
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, power: Self) -> Self {
        unsafe {
            let factor = |power| {
                let exponent = vaddq_s32(vcvtnq_s32_f32(power), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
            };
            Self(vmulq_f32(self.0, factor(power.0)), vmulq_f32(self.1, factor(power.1)))
        }
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        unsafe { vaddvq_f32(vaddq_f32(self.0, self.1)) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe { vmaxvq_f32(vmaxq_f32(self.0, self.1)) }
    }
}

/// A part of a product: some rows by [`COLUMNS`] columns of one panel.
struct Tile {
    groups: usize,
    /// The rows' inputs, `groups * GROUP` apart, and their scales, `groups` apart.
    inputs: *const i8,
    scales: *const f32,
    /// The panel's values and scales, from the tile's first column on.
    weights: *const u8,
    weight_scales: *const f32,
    bias: *const f32,
    /// Where the first row goes, and how far the next is.
    out: *mut f32,
    stride: usize,
    after: After,
}

/// Cuts a product into tiles of at most `rows_max` rows, and calls `work` with each and its number of rows.
///
/// # Safety
/// `out` has `x.rows * linear.columns` numbers. The tiles' pointers then stay inside the slices, whose lengths are those
/// that `layout.rs` gives the matrix and `QuantisedMatrix` its rows.
#[inline(always)]
unsafe fn tiled(
    linear: &Linear<'_>,
    x: &QuantisedMatrix<'_>,
    out: &mut [f32],
    after: After,
    rows_max: usize,
    work: impl Fn(&Tile, usize),
) {
    let groups = linear.rows / GROUP;
    let parts = x.rows.div_ceil(rows_max);
    assert!(out.len() >= x.rows * linear.columns && x.values.len() >= x.rows * linear.rows);
    for first in (0..linear.columns).step_by(COLUMNS) {
        let (panel, column) = (first / PANEL, first % PANEL);
        let mut row = 0;
        for part in 0..parts {
            let end = (part + 1) * x.rows / parts;
            // SAFETY: the caller's promise.
            let tile = unsafe {
                Tile {
                    groups,
                    inputs: x.values.as_ptr().add(row * linear.rows),
                    scales: x.scales.as_ptr().add(row * groups),
                    weights: linear.values.as_ptr().add(panel * PANEL * linear.rows + column * 4),
                    weight_scales: linear.scales.as_ptr().add(panel * PANEL * groups + column),
                    bias: linear.bias.as_ptr().add(first),
                    out: out.as_mut_ptr().add(row * linear.columns + first),
                    stride: linear.columns,
                    after,
                }
            };
            work(&tile, end - row);
            row = end;
        }
    }
}

impl Kernel for NeonDot {
    type Lanes = Eight;

    #[inline(always)]
    unsafe fn product(linear: &Linear<'_>, x: &QuantisedMatrix<'_>, out: &mut [f32], after: After) {
        // SAFETY: the caller's promise; the processor has the instruction set.
        unsafe {
            tiled(linear, x, out, after, 5, |tile, rows| match rows {
                1 => tile_neon_dot::<1>(tile),
                2 => tile_neon_dot::<2>(tile),
                3 => tile_neon_dot::<3>(tile),
                4 => tile_neon_dot::<4>(tile),
                5 => tile_neon_dot::<5>(tile),
                _ => unreachable!("a tile has at most 5 rows"),
            });
        }
    }
}

impl Kernel for Neon {
    type Lanes = Eight;

    #[inline(always)]
    unsafe fn product(linear: &Linear<'_>, x: &QuantisedMatrix<'_>, out: &mut [f32], after: After) {
        // SAFETY: the caller's promise; the processor has the instruction set.
        unsafe {
            tiled(linear, x, out, after, 2, |tile, rows| match rows {
                1 => tile_neon::<1>(tile),
                2 => tile_neon::<2>(tile),
                _ => unreachable!("a tile has at most 2 rows"),
            });
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn tile_neon_dot<const ROWS: usize>(tile: &Tile) {
    // SAFETY: see `tiled`.
    unsafe {
        tile_128::<ROWS>(tile, |tile, group, weights| {
            let inputs = tile.inputs.add(group * GROUP);
            let mut dots = [[vdupq_n_s32(0); QUARTERS]; ROWS];
            for sixteen in (0..GROUP).step_by(16) {
                let mut rows = [vdupq_n_s8(0); ROWS];
                for (row, values) in rows.iter_mut().enumerate() {
                    *values = vld1q_s8(inputs.add(row * tile.groups * GROUP + sixteen));
                }
                let weights = weights.add(sixteen * PANEL);
                dot_four::<0, ROWS>(&mut dots, weights, &rows);
                dot_four::<1, ROWS>(&mut dots, weights, &rows);
                dot_four::<2, ROWS>(&mut dots, weights, &rows);
                dot_four::<3, ROWS>(&mut dots, weights, &rows);
            }
            dots
        });
    }
}

/// Adds what four inputs of each row, the `FOUR`th of its sixteen, make with a tile's columns.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_four<const FOUR: usize, const ROWS: usize>(
    dots: &mut [[int32x4_t; QUARTERS]; ROWS],
    weights: *const u8,
    rows: &[int8x16_t; ROWS],
) {
    for quarter in 0..QUARTERS {
        // SAFETY: see `tiled`.
        let columns = unsafe { signed(weights.add(FOUR * STEP + quarter * 16)) };
        for (dots, row) in dots.iter_mut().zip(rows) {
            // The intrinsic is not stable yet.
            // SAFETY: the caller has the instruction set, and the instruction only works on these registers.
            unsafe {
                asm!(
                    "sdot {sums:v}.4s, {columns:v}.16b, {row:v}.4b[{four}]",
                    sums = inout(vreg) dots[quarter],
                    columns = in(vreg) columns,
                    row = in(vreg) *row,
                    four = const FOUR,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
    }
}

#[target_feature(enable = "neon")]
unsafe fn tile_neon<const ROWS: usize>(tile: &Tile) {
    // SAFETY: see `tiled`.
    unsafe {
        tile_128::<ROWS>(tile, |tile, group, weights| {
            let inputs = tile.inputs.add(group * GROUP);
            // Of each column the sum of its odd pairs and that of its even ones: two columns a register.
            let mut pairs = [[[vdupq_n_s32(0); 2]; QUARTERS]; ROWS];
            for eight in (0..GROUP).step_by(8) {
                let mut rows = [[vdupq_n_s8(0); 2]; ROWS];
                for (row, fours) in rows.iter_mut().enumerate() {
                    let from = inputs.add(row * tile.groups * GROUP + eight).cast::<i32>();
                    for (i, four) in fours.iter_mut().enumerate() {
                        *four = vreinterpretq_s8_s32(vdupq_n_s32(from.add(i).read_unaligned()));
                    }
                }
                let weights = weights.add(eight * PANEL);
                for quarter in 0..QUARTERS {
                    let columns = [signed(weights.add(quarter * 16)), signed(weights.add(STEP + quarter * 16))];
                    for (pairs, row) in pairs.iter_mut().zip(&rows) {
                        // With values of at most 127, the sum of two products fits its 16 bits.
                        let low = vmull_s8(vget_low_s8(columns[0]), vget_low_s8(row[0]));
                        let low = vmlal_s8(low, vget_low_s8(columns[1]), vget_low_s8(row[1]));
                        let high = vmlal_high_s8(vmull_high_s8(columns[0], row[0]), columns[1], row[1]);
                        pairs[quarter][0] = vpadalq_s16(pairs[quarter][0], low);
                        pairs[quarter][1] = vpadalq_s16(pairs[quarter][1], high);
                    }
                }
            }
            let mut dots = [[vdupq_n_s32(0); QUARTERS]; ROWS];
            for (dots, pairs) in dots.iter_mut().zip(&pairs) {
                for (dots, pairs) in dots.iter_mut().zip(pairs) {
                    *dots = vpaddq_s32(pairs[0], pairs[1]);
                }
            }
            dots
        });
    }
}

/// Sixteen weights with their signs.
#[inline(always)]
unsafe fn signed(weights: *const u8) -> int8x16_t {
    // SAFETY: the caller's pointer is good for sixteen bytes.
    unsafe { vreinterpretq_s8_u8(veorq_u8(vld1q_u8(weights), vdupq_n_u8(128))) }
}

/// What both kernels do around the dot products of a group.
#[inline(always)]
unsafe fn tile_128<const ROWS: usize>(
    tile: &Tile,
    group_dots: impl Fn(&Tile, usize, *const u8) -> [[int32x4_t; QUARTERS]; ROWS],
) {
    // SAFETY: see `tiled`.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); QUARTERS]; ROWS];
        for group in 0..tile.groups {
            let dots = group_dots(tile, group, tile.weights.add(group * GROUP * PANEL));
            let scales = tile.weight_scales.add(group * PANEL);
            for row in 0..ROWS {
                let scale = *tile.scales.add(row * tile.groups + group);
                for quarter in 0..QUARTERS {
                    let scales = vmulq_n_f32(vld1q_f32(scales.add(quarter * 4)), scale);
                    sums[row][quarter] = vfmaq_f32(sums[row][quarter], vcvtq_f32_s32(dots[row][quarter]), scales);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for half in 0..QUARTERS / 2 {
                let bias = Eight::load(tile.bias.add(half * 8));
                let sum = Eight(sums[half * 2], sums[half * 2 + 1]).add(bias);
                let sum = if tile.after == After::Gelu { gelu(sum) } else { sum };
                sum.store(tile.out.add(row * tile.stride + half * 8));
            }
        }
    }
}
