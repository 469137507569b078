//! Any processor: arrays of eight, which the compiler turns into what vector registers the target has.

use super::{After, Kernel, Lanes, QuantisedMatrix, gelu};
use crate::layout::{GROUP, PANEL};
use crate::weights::Linear;

/// The kernel that is portable code and runs on every processor.
pub struct Plain;

/// Eight floats that the compiler may put where it likes.
#[derive(Clone, Copy)]
pub struct Eight([f32; 8]);

impl Eight {
    #[inline(always)]
    fn each(self, y: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], y.0[i])))
    }
}

impl Lanes for Eight {
    const WIDTH: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for eight floats.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const i8) -> Self {
        // SAFETY: the caller's pointer is good for eight bytes.
        Self(unsafe { from.cast::<[i8; 8]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's pointer is good for eight floats.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut i8) {
        // SAFETY: the caller's pointer is good for eight bytes.
        unsafe { to.cast::<[i8; 8]>().write_unaligned(self.0.map(|x| x as i8)) }
    }

    #[inline(always)]
    unsafe fn add(self, y: Self) -> Self {
        self.each(y, |x, y| x + y)
    }

    #[inline(always)]
    unsafe fn sub(self, y: Self) -> Self {
        self.each(y, |x, y| x - y)
    }

    #[inline(always)]
    unsafe fn mul(self, y: Self) -> Self {
        self.each(y, |x, y| x * y)
    }

    #[inline(always)]
    unsafe fn div(self, y: Self) -> Self {
        self.each(y, |x, y| x / y)
    }

    /// Not fused: without the instruction, fusing is a slow function call.
    #[inline(always)]
    unsafe fn mul_add(self, y: Self, z: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * y.0[i] + z.0[i]))
    }

    #[inline(always)]
    unsafe fn min(self, y: Self) -> Self {
        self.each(y, |x, y| if x < y { x } else { y })
    }

    #[inline(always)]
    unsafe fn max(self, y: Self) -> Self {
        self.each(y, |x, y| if x > y { x } else { y })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding and taking away 1.5 * 2^23 rounds to a whole number, and needs no instruction of its own.
        Self(self.0.map(|x| (x + 12_582_912.0) - 12_582_912.0))
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, power: Self) -> Self {
        self.each(power, |x, power| x * f32::from_bits(((power as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        self.0.iter().sum()
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0.iter().copied().fold(f32::MIN, f32::max)
    }
}

impl Kernel for Plain {
    type Lanes = Eight;

    unsafe fn product(linear: &Linear<'_>, x: &QuantisedMatrix<'_>, out: &mut [f32], after: After) {
        let groups = linear.rows / GROUP;
        let panels = linear.values.chunks_exact(PANEL * linear.rows).zip(linear.scales.chunks_exact(PANEL * groups));
        for (panel, (values, scales)) in panels.enumerate() {
            for row in 0..x.rows {
                let mut sums = [0.0; PANEL];
                for group in 0..groups {
                    let at = row * groups + group;
                    let inputs = &x.values[at * GROUP..(at + 1) * GROUP];
                    let weights = &values[group * GROUP * PANEL..(group + 1) * GROUP * PANEL];
                    let dots = dots(weights, inputs, x.corrections[at]);
                    let scales = &scales[group * PANEL..(group + 1) * PANEL];
                    for column in 0..PANEL {
                        sums[column] += dots[column] as f32 * (x.scales[at] * scales[column]);
                    }
                }
                let columns = panel * PANEL..(panel + 1) * PANEL;
                sums.iter_mut().zip(&linear.bias[columns.clone()]).for_each(|(sum, bias)| *sum += bias);
                if after == After::Gelu {
                    for eight in sums.as_chunks_mut::<8>().0 {
                        // SAFETY: plain code runs anywhere, and the pointer is to eight floats.
                        unsafe { gelu(Eight(*eight)).store(eight.as_mut_ptr()) };
                    }
                }
                out[row * linear.columns..][columns].copy_from_slice(&sums);
            }
        }
    }
}

/// The dot products of a group's inputs with each column of a panel.
#[inline(always)]
fn dots(weights: &[u8], inputs: &[i8], correction: i32) -> [i32; PANEL] {
    let mut sums = [correction; PANEL];
    let (fours, _) = inputs.as_chunks::<4>();
    for (weights, inputs) in weights.chunks_exact(PANEL * 4).zip(fours) {
        let [a, b, c, d] = inputs.map(i32::from);
        let (columns, _) = weights.as_chunks::<4>();
        for (sum, column) in sums.iter_mut().zip(columns) {
            let [w, x, y, z] = column.map(i32::from);
            *sum += w * a + x * b + y * c + z * d;
        }
    }
    sums
}
