//! The sentence model as this crate knows it: who makes vectors, and how vectors of two models are told apart.

/// A sentence model by its hash: vectors of two models never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// The hash of all that its vectors depend on.
    pub hash: [u8; 32],
    /// How many numbers each of its vectors has.
    pub dimensions: usize,
}

/// What makes vectors.
pub trait Embedder: Send + Sync {
    /// Which model it is.
    fn model(&self) -> Model;
    /// The direction of a text's meaning; its length does not matter.
    fn embed(&self, text: &str) -> Vec<f32>;
}
