//! BERT and DistilBERT with anyone's weights, run by candle in 32-bit floats.
//!
//! The two differ in the names of their tensors and in token types, which DistilBERT does not have. Every shape is
//! checked when the weights are read, so that a forward pass has nothing left to fail by.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{D, DType, Device, Result, Tensor};

use crate::folder::{Activation, Family, OpenError, Pooling, Shape, TensorProblem};

/// A model with its weights.
pub struct Transformer {
    shape: Shape,
    /// A row for each piece.
    pieces: Tensor,
    /// A row for each position; the first token type's row is part of it.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    mix: Linear,
    attention_norm: Norm,
    widen: Linear,
    narrow: Linear,
    narrow_norm: Norm,
}

/// A matrix, a column for each output, and what is added.
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

struct Norm {
    gain: Tensor,
    bias: Tensor,
}

/// What the parts of a layer are called: query, key, value, what mixes the heads, its norm, the two halves of the
/// feed-forward part, its norm.
const BERT_LAYER: [&str; 8] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];
const DISTILBERT_LAYER: [&str; 8] = [
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
];

/// The tensors of a file, by the names that the family gives them.
struct Tensors<'a> {
    file: &'a Path,
    by_name: HashMap<String, Tensor>,
    /// What stands before every name, where the model is a part of a larger one.
    prefix: &'static str,
}

impl Tensors<'_> {
    /// A tensor of a shape, in 32-bit floats. Older files call a norm's parts by other names.
    fn take(&mut self, name: &str, wanted: &[usize]) -> std::result::Result<Tensor, OpenError> {
        let old = match name.rsplit_once('.') {
            Some((norm, "weight")) => format!("{}{norm}.gamma", self.prefix),
            Some((norm, "bias")) => format!("{}{norm}.beta", self.prefix),
            Some(_) | None => String::new(),
        };
        let full = format!("{}{name}", self.prefix);
        let found = self.by_name.remove(&full).or_else(|| self.by_name.remove(&old));
        let bad = |found| OpenError::Tensor {
            file: self.file.to_owned(),
            tensor: full.clone(),
            wanted: wanted.to_vec(),
            found,
        };
        let tensor = found.ok_or_else(|| bad(TensorProblem::Nothing))?;
        if tensor.dims() != wanted {
            return Err(bad(TensorProblem::Shape(tensor.dims().to_vec())));
        }
        tensor.to_dtype(DType::F32).map_err(|error| form(self.file, error))
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> std::result::Result<Linear, OpenError> {
        let weight = self.take(&format!("{name}.weight"), &[outputs, inputs])?;
        let weight = weight.t().and_then(|weight| weight.contiguous()).map_err(|error| form(self.file, error))?;
        Ok(Linear { weight, bias: self.take(&format!("{name}.bias"), &[outputs])? })
    }

    fn norm(&mut self, name: &str, width: usize) -> std::result::Result<Norm, OpenError> {
        let gain = self.take(&format!("{name}.weight"), &[width])?;
        Ok(Norm { gain, bias: self.take(&format!("{name}.bias"), &[width])? })
    }
}

fn form(file: &Path, error: candle_core::Error) -> OpenError {
    OpenError::Form { file: file.to_owned(), source: error.into() }
}

impl Transformer {
    /// Takes the weights out of `bytes`, which `file` holds.
    pub fn read(shape: Shape, file: &Path, bytes: &[u8]) -> std::result::Result<Transformer, OpenError> {
        let by_name = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|error| form(file, error))?;
        let prefix = ["bert.", "distilbert."]
            .into_iter()
            .find(|prefix| by_name.contains_key(&format!("{prefix}embeddings.word_embeddings.weight")));
        let mut tensors = Tensors { file, by_name, prefix: prefix.unwrap_or_default() };
        let (width, inner) = (shape.width, shape.inner);
        let pieces = tensors.take("embeddings.word_embeddings.weight", &[shape.pieces, width])?;
        let mut positions = tensors.take("embeddings.position_embeddings.weight", &[shape.positions, width])?;
        if shape.kinds > 0 {
            let kinds = tensors.take("embeddings.token_type_embeddings.weight", &[shape.kinds, width])?;
            let first = kinds.narrow(0, 0, 1).and_then(|first| positions.broadcast_add(&first));
            positions = first.map_err(|error| form(file, error))?;
        }
        let norm = tensors.norm("embeddings.LayerNorm", width)?;
        let (place, names) = match shape.family {
            Family::Bert => ("encoder.layer", BERT_LAYER),
            Family::DistilBert => ("transformer.layer", DISTILBERT_LAYER),
        };
        let mut layers = Vec::with_capacity(shape.layers);
        for layer in 0..shape.layers {
            let [query, key, value, mix, attention_norm, widen, narrow, narrow_norm] =
                names.map(|name| format!("{place}.{layer}.{name}"));
            layers.push(Layer {
                query: tensors.linear(&query, width, width)?,
                key: tensors.linear(&key, width, width)?,
                value: tensors.linear(&value, width, width)?,
                mix: tensors.linear(&mix, width, width)?,
                attention_norm: tensors.norm(&attention_norm, width)?,
                widen: tensors.linear(&widen, width, inner)?,
                narrow: tensors.linear(&narrow, inner, width)?,
                narrow_norm: tensors.norm(&narrow_norm, width)?,
            });
        }
        Ok(Transformer { shape, pieces, positions, norm, layers })
    }

    /// What the folder's settings say of its layers and their widths.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The sentence that the ids are, of any length; ids are below the number of pieces, and not more than positions.
    pub fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let tokens = ids.len();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let rows = self.pieces.index_select(&ids, 0)?.add(&self.positions.narrow(0, 0, tokens)?)?;
        let mut x = self.norm.apply(&rows, self.shape.epsilon)?;
        for layer in &self.layers {
            let mixed = layer.mix.apply(&self.attend(layer, &x)?)?;
            x = layer.attention_norm.apply(&mixed.add(&x)?, self.shape.epsilon)?;
            let inner = layer.widen.apply(&x)?;
            let inner = match self.shape.activation {
                Activation::Gelu => inner.gelu_erf()?,
                Activation::GeluTanh => inner.gelu()?,
                Activation::Relu => inner.relu()?,
            };
            x = layer.narrow_norm.apply(&layer.narrow.apply(&inner)?.add(&x)?, self.shape.epsilon)?;
        }
        match self.shape.pooling {
            Pooling::Mean => x.mean(0)?.to_vec1(),
            Pooling::First => x.get(0)?.to_vec1(),
        }
    }

    fn attend(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let heads = self.shape.heads;
        let split =
            |linear: &Linear| linear.apply(x)?.reshape((tokens, heads, width / heads))?.transpose(0, 1)?.contiguous();
        let (queries, keys, values) = (split(&layer.query)?, split(&layer.key)?, split(&layer.value)?);
        let scores = (queries.matmul(&keys.t()?.contiguous()?)? / ((width / heads) as f64).sqrt())?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&values)?.transpose(0, 1)?.reshape((tokens, width))
    }
}

impl Linear {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Norm {
    fn apply(&self, x: &Tensor, epsilon: f64) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?;
        centred.broadcast_div(&deviation)?.broadcast_mul(&self.gain)?.broadcast_add(&self.bias)
    }
}
