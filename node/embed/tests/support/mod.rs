//! The model as it was published, run by candle in f32: what our own forward pass is measured against.

use anyhow::{Context, Result};
use candle_core::{D, Device, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The folder where the build left what was published; `CAXTON_MODEL_SOURCE` names another.
pub fn source() -> Result<PathBuf> {
    let named = std::env::var_os("CAXTON_MODEL_SOURCE").map(PathBuf::from);
    let dir = named.or_else(|| option_env!("CAXTON_MODEL_SOURCE").map(PathBuf::from));
    let dir = dir.context("set CAXTON_MODEL_SOURCE to the folder `source` of the model cache")?;
    anyhow::ensure!(
        dir.join("model.safetensors").exists(),
        "the published weights are not in {}: delete the minilm-*.bin beside that folder and build again",
        dir.display()
    );
    Ok(dir)
}

/// BERT in f32.
pub struct Reference {
    tensors: HashMap<String, Tensor>,
    layers: usize,
    heads: usize,
}

impl Reference {
    pub fn load() -> Result<Self> {
        Self::read(&source()?.join("model.safetensors"), 6, 12)
    }

    /// Any BERT of so many layers and heads.
    pub fn read(file: &Path, layers: usize, heads: usize) -> Result<Self> {
        Ok(Self { tensors: candle_core::safetensors::load(file, &Device::Cpu)?, layers, heads })
    }

    /// The mean of the last layer's rows, of length 1.
    pub fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let tokens = ids.len();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let pieces = self.tensor("embeddings.word_embeddings.weight")?.index_select(&ids, 0)?;
        let places = self.tensor("embeddings.position_embeddings.weight")?.narrow(0, 0, tokens)?;
        let kind = self.tensor("embeddings.token_type_embeddings.weight")?.narrow(0, 0, 1)?;
        let mut x = self.norm(&(pieces + places)?.broadcast_add(&kind)?, "embeddings.LayerNorm")?;
        let (width, heads_all) = (x.dim(1)?, self.heads);
        for layer in 0..self.layers {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let heads = |part: &str| -> Result<Tensor> {
                let rows = self.linear(&x, &name(&format!("attention.self.{part}")))?;
                Ok(rows.reshape((tokens, heads_all, width / heads_all))?.transpose(0, 1)?.contiguous()?)
            };
            let (queries, keys, values) = (heads("query")?, heads("key")?, heads("value")?);
            let scores = (queries.matmul(&keys.t()?.contiguous()?)? / ((width / heads_all) as f64).sqrt())?;
            let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
            let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
            let attended = weights.matmul(&values)?.transpose(0, 1)?.reshape((tokens, width))?;
            let mixed = (self.linear(&attended, &name("attention.output.dense"))? + &x)?;
            x = self.norm(&mixed, &name("attention.output.LayerNorm"))?;
            let inner = self.linear(&x, &name("intermediate.dense"))?.gelu_erf()?;
            x = self.norm(&(self.linear(&inner, &name("output.dense"))? + &x)?, &name("output.LayerNorm"))?;
        }
        let mean = x.mean(0)?;
        Ok(mean.broadcast_div(&mean.sqr()?.sum_all()?.sqrt()?)?.to_vec1()?)
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("no tensor {name}"))
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let weight = self.tensor(&format!("{name}.weight"))?.t()?;
        Ok(x.matmul(&weight)?.broadcast_add(self.tensor(&format!("{name}.bias"))?)?)
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
        let scaled = centred.broadcast_div(&deviation)?.broadcast_mul(self.tensor(&format!("{name}.weight"))?)?;
        Ok(scaled.broadcast_add(self.tensor(&format!("{name}.bias"))?)?)
    }
}
