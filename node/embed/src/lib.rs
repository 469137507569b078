//! A sentence model: a text to a vector whose direction is its meaning.
//!
//! The one inside the binary is all-MiniLM-L6-v2 in eight bits, run by kernels of our own that are chosen for the
//! processor at run time. Nothing of it is fetched, read or allocated at run time but a thread's scratch. Texts are cut
//! at [`TOKENS_MAX`] pieces. [`Model`] is that one or another out of a folder, which candle runs; vectors of different
//! models are never compared.

#![warn(missing_docs)]

mod choice;
mod folder;
mod forward;
mod kernel;
mod layout;
mod model;
#[cfg(target_arch = "x86_64")]
mod packed;
mod tokens;
mod transformer;
mod weights;

pub use choice::Choice as Kernel;
pub use folder::{OpenError, TensorProblem};
pub use layout::{HIDDEN as DIMENSIONS, TOKENS_MAX};
pub use model::Model;
pub use tokens::Vocabulary;

use forward::Scratch;
use std::cell::RefCell;
use std::sync::LazyLock;

thread_local! {
    /// Kept between sentences: up to 5 MB for the longest, 0.6 MB for a message.
    static SCRATCH: RefCell<(Vec<u32>, Scratch)> = RefCell::default();
}

/// A text's meaning: a direction, so its length is 1 (or 0 for [`Vector::ZERO`]). How many numbers it has depends on the
/// model.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector(Vec<f32>);

impl Vector {
    /// No direction and no numbers; similar to nothing.
    pub const ZERO: Self = Self(Vec::new());

    /// Scales numbers to length 1. All zeros, and what is not finite, have no direction.
    pub fn new(values: impl Into<Vec<f32>>) -> Self {
        let mut values = values.into();
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        if !length.is_finite() || length == 0.0 {
            return Self::ZERO;
        }
        values.iter_mut().for_each(|value| *value /= length);
        Self(values)
    }

    /// The vector's numbers, as many as the model has dimensions.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// The cosine of the angle between the two: 1 for the same meaning, about 0 for unrelated ones.
    pub fn similarity(&self, other: &Self) -> f32 {
        dot(&self.0, &other.0)
    }

    /// Little-endian, four bytes each.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// What [`Vector::to_bytes`] wrote; nothing if it did not.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<4>() else { return None };
        let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        values.iter().all(|value| value.is_finite()).then_some(Self(values))
    }
}

/// What a model makes of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What it means: the model's last layer.
    pub meaning: Vector,
    /// How it is put, which tells apart what is meant alike: an earlier layer. A model out of a folder does not say, and
    /// this is [`Vector::ZERO`]. Two texts' wordings are similar, by 0.5 on average, even if they have nothing in common.
    pub wording: Vector,
}

/// The sum of products, in sixteen parts so that the compiler may use vector registers.
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let (x, x_rest) = x.as_chunks::<16>();
    let (y, y_rest) = y.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for (x, y) in x.iter().zip(y) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// The sum of products of bytes, of which there are fewer than 100,000 so that it does not overflow.
pub fn dot_bytes(x: &[i8], y: &[i8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature.
        return unsafe { dot_bytes_avx2(x, y) };
    }
    sum_of_products(x, y)
}

/// The same for the compiler to put into registers of 32 bytes: four times as fast.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dot_bytes_avx2(x: &[i8], y: &[i8]) -> i32 {
    sum_of_products(x, y)
}

#[inline(always)]
fn sum_of_products(x: &[i8], y: &[i8]) -> i32 {
    x.iter().zip(y).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum()
}

/// The model, ready to use from any thread.
pub struct Embedder {
    model: weights::Model<'static>,
    vocabulary: Vocabulary<'static>,
    kernel: Kernel,
}

impl Embedder {
    /// The one that a process needs; loaded by the first call, in a few milliseconds.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Embedder> = LazyLock::new(Embedder::load);
        &SHARED
    }

    /// With the fastest kernel that runs here.
    pub fn load() -> Self {
        Self::with(Kernel::best()).unwrap_or_else(|| unreachable!("the best kernel runs here"))
    }

    /// With a given kernel, if it runs here.
    pub fn with(kernel: Kernel) -> Option<Self> {
        Kernel::available().contains(&kernel).then(|| {
            let mut model = weights::Model::new(&weights::MODEL);
            kernel.prepare(&mut model);
            Self { model, vocabulary: Vocabulary::new(weights::VOCABULARY), kernel }
        })
    }

    /// Which kernel it uses.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The pieces that it knows.
    pub fn vocabulary(&self) -> &Vocabulary<'static> {
        &self.vocabulary
    }

    /// A text's meaning, from its first [`TOKENS_MAX`] tokens.
    pub fn embed(&self, text: &str) -> Vector {
        self.embed_start(text, TOKENS_MAX)
    }

    /// A text's meaning, from its first `tokens_max` tokens (at least 3, at most [`TOKENS_MAX`]): the time that a long
    /// text takes grows with them.
    pub fn embed_start(&self, text: &str, tokens_max: usize) -> Vector {
        SCRATCH.with_borrow_mut(|(ids, scratch)| {
            self.vocabulary.encode(text, tokens_max.clamp(3, TOKENS_MAX), ids);
            self.embed_ids(ids, scratch)
        })
    }

    /// A text's meaning and wording, from its first `tokens_max` tokens: takes as long as the meaning alone.
    pub fn read_start(&self, text: &str, tokens_max: usize) -> Reading {
        SCRATCH.with_borrow_mut(|(ids, scratch)| {
            self.vocabulary.encode(text, tokens_max.clamp(3, TOKENS_MAX), ids);
            let meaning = self.embed_ids(ids, scratch);
            Reading { meaning, wording: Vector::new(scratch.wording) }
        })
    }

    fn embed_ids(&self, ids: &[u32], scratch: &mut Scratch) -> Vector {
        self.kernel.run(&self.model, ids, scratch);
        Vector::new(forward::sum_of_rows(&scratch.x[..ids.len() * DIMENSIONS]))
    }
}
