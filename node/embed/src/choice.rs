//! Which kernel runs the forward pass: chosen for the processor when the model is loaded, and the pass compiled once for
//! each of them.

use crate::forward::{self, Scratch};
use crate::kernel::Plain;
#[cfg(target_arch = "aarch64")]
use crate::kernel::arm::{Neon, NeonDot};
#[cfg(target_arch = "x86_64")]
use crate::kernel::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use crate::kernel::x86::{Avx512Vnni, AvxVnni};
#[cfg(target_arch = "x86_64")]
use crate::packed::PackedWeights;
use crate::weights::Model;

/// The kernels there are, the fastest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// x86-64 with AVX-512 and its dot product of bytes.
    Avx512Vnni,
    /// x86-64 with AVX2 and the dot product of bytes.
    AvxVnni,
    /// x86-64 with AVX2.
    Avx2,
    /// 64-bit Arm with NEON and its dot product of bytes.
    NeonDot,
    /// 64-bit Arm with NEON.
    Neon,
    /// Portable code, for any processor.
    Plain,
}

impl Choice {
    /// Those that run here; [`Choice::Plain`] always does.
    pub fn available() -> Vec<Self> {
        let all = [Self::Avx512Vnni, Self::AvxVnni, Self::Avx2, Self::NeonDot, Self::Neon, Self::Plain];
        all.into_iter().filter(|choice| choice.is_here()).collect()
    }

    /// The fastest that runs here.
    pub fn best() -> Self {
        Self::available().first().copied().unwrap_or(Self::Plain)
    }

    #[cfg(target_arch = "x86_64")]
    fn is_here(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match self {
            Self::Avx512Vnni => {
                avx2 && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
            Self::Avx2 => avx2,
            Self::NeonDot | Self::Neon => false,
            Self::Plain => true,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_here(self) -> bool {
        let neon = std::arch::is_aarch64_feature_detected!("neon");
        match self {
            Self::Avx512Vnni | Self::AvxVnni | Self::Avx2 => false,
            Self::NeonDot => neon && std::arch::is_aarch64_feature_detected!("dotprod"),
            Self::Neon => neon,
            Self::Plain => true,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_here(self) -> bool {
        self == Self::Plain
    }

    /// Puts the weights into the order that the kernel reads them in, where that is not the file's.
    pub fn prepare(self, model: &mut Model<'_>) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx2 {
            for linear in model.layers.iter_mut().flat_map(|layer| layer.linears()) {
                linear.packed = PackedWeights::new(linear.values, linear.rows, linear.columns);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = model;
    }

    /// Leaves the last layer's rows for `ids` in `scratch`.
    ///
    /// # Panics
    /// With a choice that is not [available](Self::available), or a model that was not [prepared](Self::prepare) for it.
    pub fn run(self, model: &Model<'_>, ids: &[u32], scratch: &mut Scratch) {
        debug_assert!(self.is_here());
        match self {
            // SAFETY: `available`, the only source of these choices, saw that the processor has what each needs.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => unsafe { avx512_vnni(model, ids, scratch) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => unsafe { avx_vnni(model, ids, scratch) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2(model, ids, scratch) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => unsafe { neon_dot(model, ids, scratch) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { neon(model, ids, scratch) },
            // SAFETY: plain code runs anywhere.
            Self::Plain => unsafe { forward::run::<Plain>(model, ids, scratch) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512Vnni | Self::AvxVnni | Self::Avx2 => unreachable!("not available on this processor"),
            #[cfg(not(target_arch = "aarch64"))]
            Self::NeonDot | Self::Neon => unreachable!("not available on this processor"),
        }
    }
}

/// # Safety
/// The processor has these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn avx512_vnni(model: &Model<'_>, ids: &[u32], scratch: &mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe { forward::run::<Avx512Vnni>(model, ids, scratch) }
}

/// # Safety
/// The processor has these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2,fma")]
unsafe fn avx_vnni(model: &Model<'_>, ids: &[u32], scratch: &mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe { forward::run::<AvxVnni>(model, ids, scratch) }
}

/// # Safety
/// The processor has these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(model: &Model<'_>, ids: &[u32], scratch: &mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe { forward::run::<Avx2>(model, ids, scratch) }
}

/// # Safety
/// The processor has these features.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn neon_dot(model: &Model<'_>, ids: &[u32], scratch: &mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe { forward::run::<NeonDot>(model, ids, scratch) }
}

/// # Safety
/// The processor has this feature.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon(model: &Model<'_>, ids: &[u32], scratch: &mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe { forward::run::<Neon>(model, ids, scratch) }
}
