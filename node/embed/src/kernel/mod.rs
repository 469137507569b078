//! What a processor has to offer the forward pass, and which of it this one has.
//!
//! Everything above is written once over [`Lanes`] (a register of floats) and [`Kernel`] (a matrix product of bytes)
//! and compiled once for each instruction set; the choice is made when the model is loaded. Matrix products are exact
//! in every kernel (sums of bytes in 32 bits), so they differ only in how floats round.

#[cfg(target_arch = "aarch64")]
pub mod arm;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
mod plain;
#[cfg(target_arch = "x86_64")]
pub mod x86;

use crate::weights::Linear;
pub use plain::Plain;

/// Rows of activations, quantised: each group of a row has its own scale.
pub struct QuantisedMatrix<'a> {
    /// Row after row.
    pub values: &'a [i8],
    /// What a group's values are multiplied by.
    pub scales: &'a [f32],
    /// The sum of a group's values times -128: what corrects for weights that are stored 128 too large.
    pub corrections: &'a [i32],
    /// How many rows.
    pub rows: usize,
}

/// What follows a matrix product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The product is left as it is.
    Keep,
    /// The activation function of the feed-forward part.
    Gelu,
}

/// A register of floats.
///
/// # Safety
/// Each function may be called only where the instruction set of its type is there, and a pointer must be good for
/// [`Lanes::WIDTH`] numbers of its type. Functions that use it are `#[inline(always)]`, so that they become part of
/// the one function that switched the instruction set on.
pub trait Lanes: Copy {
    /// How many floats.
    const WIDTH: usize;
    /// The same number in each lane.
    unsafe fn splat(x: f32) -> Self;
    /// Reads as many floats as it has lanes.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads signed bytes.
    unsafe fn load_bytes(from: *const i8) -> Self;
    /// Writes as many floats as it has lanes.
    unsafe fn store(self, to: *mut f32);
    /// Writes signed bytes. Lanes must be whole numbers within -127 and 127.
    unsafe fn store_bytes(self, to: *mut i8);
    /// The sum, lane by lane.
    unsafe fn add(self, y: Self) -> Self;
    /// The difference `self - y`, lane by lane.
    unsafe fn sub(self, y: Self) -> Self;
    /// The product, lane by lane.
    unsafe fn mul(self, y: Self) -> Self;
    /// The quotient `self / y`, lane by lane.
    unsafe fn div(self, y: Self) -> Self;
    /// `self * y + z`
    unsafe fn mul_add(self, y: Self, z: Self) -> Self;
    /// The smaller of each pair.
    unsafe fn min(self, y: Self) -> Self;
    /// The larger of each pair.
    unsafe fn max(self, y: Self) -> Self;
    /// The absolute value of each lane.
    unsafe fn abs(self) -> Self;
    /// Rounded to whole numbers.
    unsafe fn round(self) -> Self;
    /// `self * 2^power` for whole powers between -126 and 127.
    unsafe fn scale_by_power(self, power: Self) -> Self;
    /// The sum of the lanes.
    unsafe fn total(self) -> f32;
    /// The largest lane.
    unsafe fn largest(self) -> f32;
}

/// An instruction set: a register of floats, and a matrix product of bytes.
pub trait Kernel {
    /// The register that its arithmetic on floats uses.
    type Lanes: Lanes;
    /// `out = x * linear + bias`, row by row.
    ///
    /// # Safety
    /// The processor has the instruction set, and `out` has `x.rows * linear.columns` numbers.
    unsafe fn product(linear: &Linear<'_>, x: &QuantisedMatrix<'_>, out: &mut [f32], after: After);
}

/// `e` to the power of each lane: Cody and Waite's reduction, then the polynomial of Cephes; within two units in the
/// last place.
#[inline(always)]
pub unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise, that the instruction set is there.
    unsafe {
        let x = x.min(L::splat(88.0)).max(L::splat(-87.0));
        let power = x.mul(L::splat(std::f32::consts::LOG2_E)).round();
        let rest = power.mul_add(L::splat(-0.693_359_4), x);
        let rest = power.mul_add(L::splat(2.121_944_4e-4), rest);
        let mut sum = L::splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            sum = sum.mul_add(rest, L::splat(coefficient));
        }
        sum.mul_add(rest.mul(rest), rest).add(L::splat(1.0)).scale_by_power(power)
    }
}

/// `x * P(X <= x)` for a normal X, by a rational function for the error function (the one that Eigen uses).
#[inline(always)]
pub unsafe fn gelu<L: Lanes>(x: L) -> L {
    const ODD: [f32; 6] = [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906e-4, -2.954_6e-3, -1.609_603_3e-2];
    const EVEN: [f32; 4] = [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
    // SAFETY: the caller's promise, that the instruction set is there.
    unsafe {
        let z = x.mul(L::splat(std::f32::consts::FRAC_1_SQRT_2)).min(L::splat(4.0)).max(L::splat(-4.0));
        let square = z.mul(z);
        let mut over = L::splat(-2.726_142_3e-10);
        for coefficient in ODD {
            over = over.mul_add(square, L::splat(coefficient));
        }
        let mut under = L::splat(-1.456_607_2e-5);
        for coefficient in EVEN {
            under = under.mul_add(square, L::splat(coefficient));
        }
        let half = x.mul(L::splat(0.5));
        half.mul_add(z.mul(over).div(under), half)
    }
}

#[cfg(test)]
mod tests;
