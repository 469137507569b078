//! x86-64 with the dot product of bytes: that of AVX-512, and that of AVX2.
//!
//! The microkernels keep a tile of rows by columns in registers and walk down a panel once, so that each weight is
//! read once for up to fourteen rows: for a short message the time is that of reading the weights.

use super::{After, Kernel, Lanes, QuantisedMatrix, gelu};
use crate::layout::{GROUP, PANEL};
use crate::weights::Linear;
use std::arch::x86_64::*;

/// How far ahead of the arithmetic weights are asked for, in bytes.
const PREFETCH: usize = 2_048;
/// Bytes of four rows of a panel.
const STEP: usize = PANEL * 4;

/// AVX-512 with VNNI.
pub struct Avx512Vnni;
/// AVX2 with VNNI.
pub struct AvxVnni;

/// Writes the functions of [`Lanes`] that are one instruction each.
macro_rules! instructions {
    ($($name:ident($($argument:ident),*) = $instruction:ident;)*) => {
        $(#[inline(always)]
        unsafe fn $name(self $(, $argument: Self)*) -> Self {
            // SAFETY: the caller's promise, that the instruction set is there.
            Self(unsafe { $instruction(self.0 $(, $argument.0)*) })
        })*
    };
}

/// A register of sixteen floats.
#[derive(Clone, Copy)]
pub struct Sixteen(__m512);

// SAFETY (every block below): the caller promises the instruction set and good pointers; see `Lanes`.
impl Lanes for Sixteen {
    const WIDTH: usize = 16;

    instructions! {
        add(y) = _mm512_add_ps;
        sub(y) = _mm512_sub_ps;
        mul(y) = _mm512_mul_ps;
        div(y) = _mm512_div_ps;
        mul_add(y, z) = _mm512_fmadd_ps;
        min(y) = _mm512_min_ps;
        max(y) = _mm512_max_ps;
        abs() = _mm512_abs_ps;
        scale_by_power(power) = _mm512_scalef_ps;
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const i8) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(self.0) })
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}

/// A register of eight floats.
#[derive(Clone, Copy)]
pub struct Eight(pub(super) __m256);

// SAFETY (every block below): the caller promises the instruction set and good pointers; see `Lanes`.
impl Lanes for Eight {
    const WIDTH: usize = 8;

    instructions! {
        add(y) = _mm256_add_ps;
        sub(y) = _mm256_sub_ps;
        mul(y) = _mm256_mul_ps;
        div(y) = _mm256_div_ps;
        mul_add(y, z) = _mm256_fmadd_ps;
        min(y) = _mm256_min_ps;
        max(y) = _mm256_max_ps;
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const i8) -> Self {
        Self(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        unsafe {
            let whole = _mm256_cvtps_epi32(self.0);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            _mm_storel_epi64(to.cast(), _mm_packs_epi16(words, words));
        }
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, power: Self) -> Self {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(power.0), _mm256_set1_epi32(127));
            Self(_mm256_mul_ps(self.0, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))))
        }
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

/// A part of a product: some rows by some columns of one panel.
struct Tile {
    groups: usize,
    /// The rows' inputs, `groups * GROUP` apart, and their scales and corrections, `groups` apart.
    inputs: *const i8,
    scales: *const f32,
    corrections: *const i32,
    /// The panel's values and scales, from the tile's first column on.
    weights: *const u8,
    weight_scales: *const f32,
    bias: *const f32,
    /// Where the first row goes, and how far the next is.
    out: *mut f32,
    stride: usize,
    after: After,
}

/// Cuts a product into tiles of at most `$rows_max` rows and `$columns` columns, and calls `$tile` with the number of
/// rows as a constant.
macro_rules! tiled {
    ($linear:ident, $x:ident, $out:ident, $after:ident, $columns:literal, $tile:ident, [$($rows:literal)*], $rows_max:literal) => {{
        let groups = $linear.rows / GROUP;
        let parts = $x.rows.div_ceil($rows_max);
        assert!($out.len() >= $x.rows * $linear.columns && $x.values.len() >= $x.rows * $linear.rows);
        for first in (0..$linear.columns).step_by($columns) {
            let (panel, column) = (first / PANEL, first % PANEL);
            let mut row = 0;
            for part in 0..parts {
                let end = (part + 1) * $x.rows / parts;
                let tile = Tile {
                    groups,
                    inputs: $x.values.as_ptr().add(row * $linear.rows),
                    scales: $x.scales.as_ptr().add(row * groups),
                    corrections: $x.corrections.as_ptr().add(row * groups),
                    weights: $linear.values.as_ptr().add(panel * PANEL * $linear.rows + column * 4),
                    weight_scales: $linear.scales.as_ptr().add(panel * PANEL * groups + column),
                    bias: $linear.bias.as_ptr().add(first),
                    out: $out.as_mut_ptr().add(row * $linear.columns + first),
                    stride: $linear.columns,
                    after: $after,
                };
                match end - row {
                    $($rows => $tile::<$rows>(&tile),)*
                    _ => unreachable!("a tile has at most {} rows", $rows_max),
                }
                row = end;
            }
        }
    }};
}

impl Kernel for Avx512Vnni {
    type Lanes = Sixteen;

    #[inline(always)]
    unsafe fn product(linear: &Linear<'_>, x: &QuantisedMatrix<'_>, out: &mut [f32], after: After) {
        // SAFETY: the caller has the instruction set; the pointers stay inside the slices, whose lengths are those
        // that `layout.rs` gives the matrix and `QuantisedMatrix` its rows.
        unsafe { tiled!(linear, x, out, after, 32, tile_avx512, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], 14) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn tile_avx512<const ROWS: usize>(tile: &Tile) {
    // SAFETY: see `product`.
    unsafe {
        let (mut weights, mut weight_scales) = (tile.weights, tile.weight_scales);
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for group in 0..tile.groups {
            let inputs = tile.inputs.add(group * GROUP);
            let mut dots = [[_mm512_setzero_si512(); 2]; ROWS];
            for (row, dots) in dots.iter_mut().enumerate() {
                *dots = [_mm512_set1_epi32(*tile.corrections.add(row * tile.groups + group)); 2];
            }
            for four in (0..GROUP).step_by(4) {
                let columns = [_mm512_loadu_si512(weights.cast()), _mm512_loadu_si512(weights.add(64).cast())];
                _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(PREFETCH).cast());
                _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(PREFETCH + 64).cast());
                weights = weights.add(STEP);
                for (row, dots) in dots.iter_mut().enumerate() {
                    let four = inputs.add(row * tile.groups * GROUP + four).cast::<i32>().read_unaligned();
                    let four = _mm512_set1_epi32(four);
                    dots[0] = _mm512_dpbusd_epi32(dots[0], columns[0], four);
                    dots[1] = _mm512_dpbusd_epi32(dots[1], columns[1], four);
                }
            }
            let scales = [_mm512_loadu_ps(weight_scales), _mm512_loadu_ps(weight_scales.add(16))];
            weight_scales = weight_scales.add(PANEL);
            for row in 0..ROWS {
                let scale = _mm512_set1_ps(*tile.scales.add(row * tile.groups + group));
                for half in 0..2 {
                    let dots = _mm512_cvtepi32_ps(dots[row][half]);
                    sums[row][half] = _mm512_fmadd_ps(dots, _mm512_mul_ps(scale, scales[half]), sums[row][half]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                let sum = Sixteen(_mm512_add_ps(*sum, _mm512_loadu_ps(tile.bias.add(half * 16))));
                let sum = if tile.after == After::Gelu { gelu(sum) } else { sum };
                sum.store(tile.out.add(row * tile.stride + half * 16));
            }
        }
    }
}

impl Kernel for AvxVnni {
    type Lanes = Eight;

    #[inline(always)]
    unsafe fn product(linear: &Linear<'_>, x: &QuantisedMatrix<'_>, out: &mut [f32], after: After) {
        // SAFETY: as for `Avx512Vnni`.
        unsafe { tiled!(linear, x, out, after, 16, tile_avx_vnni, [1 2 3 4 5 6], 6) }
    }
}

#[target_feature(enable = "avxvnni,avx2,fma")]
unsafe fn tile_avx_vnni<const ROWS: usize>(tile: &Tile) {
    // SAFETY: see `product`.
    unsafe { tile_256::<ROWS>(tile, |dots, weights, inputs| _mm256_dpbusd_avx_epi32(dots, weights, inputs)) }
}

/// Rows by sixteen columns: `dot` adds the products of four unsigned and four signed bytes to each of its sums.
#[inline(always)]
unsafe fn tile_256<const ROWS: usize>(tile: &Tile, dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i) {
    // SAFETY: see `product`.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        for group in 0..tile.groups {
            let inputs = tile.inputs.add(group * GROUP);
            let weights = tile.weights.add(group * GROUP * PANEL);
            let mut dots = [[_mm256_setzero_si256(); 2]; ROWS];
            for (row, dots) in dots.iter_mut().enumerate() {
                *dots = [_mm256_set1_epi32(*tile.corrections.add(row * tile.groups + group)); 2];
            }
            for four in 0..GROUP / 4 {
                let at = weights.add(four * STEP);
                let columns = [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())];
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(PREFETCH).cast());
                for (row, dots) in dots.iter_mut().enumerate() {
                    let four = inputs.add(row * tile.groups * GROUP + four * 4).cast::<i32>().read_unaligned();
                    let four = _mm256_set1_epi32(four);
                    dots[0] = dot(dots[0], columns[0], four);
                    dots[1] = dot(dots[1], columns[1], four);
                }
            }
            let scales = tile.weight_scales.add(group * PANEL);
            let scales = [_mm256_loadu_ps(scales), _mm256_loadu_ps(scales.add(8))];
            for row in 0..ROWS {
                let scale = _mm256_set1_ps(*tile.scales.add(row * tile.groups + group));
                for half in 0..2 {
                    let dots = _mm256_cvtepi32_ps(dots[row][half]);
                    sums[row][half] = _mm256_fmadd_ps(dots, _mm256_mul_ps(scale, scales[half]), sums[row][half]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                let sum = Eight(_mm256_add_ps(*sum, _mm256_loadu_ps(tile.bias.add(half * 8))));
                let sum = if tile.after == After::Gelu { gelu(sum) } else { sum };
                sum.store(tile.out.add(row * tile.stride + half * 8));
            }
        }
    }
}

/// The kernel of AVX2's dot product of bytes, with AVX2's other instructions in the place of that one.
#[cfg(test)]
pub struct AvxVnniWithout;

#[cfg(test)]
impl Kernel for AvxVnniWithout {
    type Lanes = Eight;

    unsafe fn product(linear: &Linear<'_>, x: &QuantisedMatrix<'_>, out: &mut [f32], after: After) {
        // SAFETY: as for `Avx512Vnni`.
        unsafe { tiled!(linear, x, out, after, 16, tile_without, [1 2 3 4 5 6], 6) }
    }
}

#[cfg(test)]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_without<const ROWS: usize>(tile: &Tile) {
    // SAFETY: see `product`.
    unsafe {
        tile_256::<ROWS>(tile, |dots, weights, inputs| {
            let even = _mm256_madd_epi16(
                _mm256_and_si256(weights, _mm256_set1_epi16(255)),
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(inputs)),
            );
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(weights), _mm256_srai_epi16::<8>(inputs));
            _mm256_add_epi32(dots, _mm256_add_epi32(even, odd))
        });
    }
}
