//! The model as it was published, run plainly in f32 over the calibration sentences to see how large activations get.

use crate::layout::{HEAD, HEADS, HIDDEN, INNER, LAYERS, TOKENS_MAX};
use crate::tokens::Vocabulary;
use crate::{Failure, read};
use std::collections::HashMap;
use std::path::Path;

/// Independent sums, so that the compiler may use vector registers without reordering one.
const SUMS: usize = 16;

/// Tensors by name.
pub struct Weights {
    tensors: HashMap<String, Vec<f32>>,
}

/// For each input of a layer's four matrices, the largest absolute value that any calibration token gave it.
#[derive(Clone)]
pub struct Peaks {
    pub attention: Vec<f32>,
    pub mix: Vec<f32>,
    pub widen: Vec<f32>,
    pub narrow: Vec<f32>,
}

impl Weights {
    /// Reads a safetensors file whose hash was checked: a length, a JSON header, and the numbers.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let file = read(path)?;
        let broken = || format!("{} is not a safetensors file\nhelp: delete it and build again", path.display());
        let length = file.first_chunk::<8>().ok_or_else(broken)?;
        let body_at = 8 + u64::from_le_bytes(*length) as usize;
        let header = file.get(8..body_at).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(broken)?;
        let mut tensors = HashMap::new();
        // Each entry reads `"name":{"dtype":"F32","shape":[..],"data_offsets":[from,to]}`.
        for entry in header.split("},").filter(|entry| entry.contains("\"F32\"")) {
            let name = entry.split('"').nth(1).ok_or_else(broken)?;
            let (_, offsets) = entry.split_once("\"data_offsets\":[").ok_or_else(broken)?;
            let (from, to) = offsets.split(']').next().and_then(|pair| pair.split_once(',')).ok_or_else(broken)?;
            let parse = |number: &str| number.trim().parse::<usize>().map_err(|_| broken());
            let bytes = file.get(body_at + parse(from)?..body_at + parse(to)?).ok_or_else(broken)?;
            let (words, _) = bytes.as_chunks::<4>();
            tensors.insert(name.to_owned(), words.iter().map(|word| f32::from_le_bytes(*word)).collect());
        }
        Ok(Self { tensors })
    }

    /// A tensor that the model is known to have.
    pub fn tensor(&self, name: &str) -> &[f32] {
        self.tensors.get(name).unwrap_or_else(|| panic!("the published model has no tensor `{name}`"))
    }

    /// A layer's tensor.
    pub fn of_layer(&self, layer: usize, name: &str) -> &[f32] {
        self.tensor(&format!("encoder.layer.{layer}.{name}"))
    }
}

/// Runs every sentence, and a few long runs of them.
pub fn peaks(weights: &Weights, vocabulary: &Vocabulary<'_>, sentences: &str) -> Vec<Peaks> {
    let mut texts: Vec<String> = sentences.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let long: Vec<String> = texts.chunks(12).step_by(4).map(|run| run.join(" ")).collect();
    texts.extend(long);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let share = texts.len().div_ceil(threads);
    let parts: Vec<Vec<Peaks>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            texts.chunks(share).map(|part| scope.spawn(move || peaks_of(weights, vocabulary, part))).collect();
        running.into_iter().map(|thread| thread.join().expect("the calibration thread panicked")).collect()
    });
    parts.into_iter().reduce(larger).expect("there are calibration sentences")
}

fn larger(mut one: Vec<Peaks>, other: Vec<Peaks>) -> Vec<Peaks> {
    let raise = |one: &mut [f32], other: &[f32]| one.iter_mut().zip(other).for_each(|(a, b)| *a = a.max(*b));
    for (one, other) in one.iter_mut().zip(&other) {
        raise(&mut one.attention, &other.attention);
        raise(&mut one.mix, &other.mix);
        raise(&mut one.widen, &other.widen);
        raise(&mut one.narrow, &other.narrow);
    }
    one
}

fn peaks_of(weights: &Weights, vocabulary: &Vocabulary<'_>, texts: &[String]) -> Vec<Peaks> {
    let none = Peaks {
        attention: vec![0.0; HIDDEN],
        mix: vec![0.0; HIDDEN],
        widen: vec![0.0; HIDDEN],
        narrow: vec![0.0; INNER],
    };
    let mut peaks = vec![none; LAYERS];
    let mut ids = Vec::new();
    for text in texts {
        vocabulary.encode(text, TOKENS_MAX, &mut ids);
        run(weights, &ids, &mut peaks);
    }
    peaks
}

fn run(weights: &Weights, ids: &[u32], peaks: &mut [Peaks]) {
    let row = |name: &str, at: usize| &weights.tensor(name)[at * HIDDEN..(at + 1) * HIDDEN];
    let mut x = Vec::with_capacity(ids.len() * HIDDEN);
    for (position, id) in ids.iter().enumerate() {
        let piece = row("embeddings.word_embeddings.weight", *id as usize);
        let place = row("embeddings.position_embeddings.weight", position);
        let kind = row("embeddings.token_type_embeddings.weight", 0);
        x.extend((0..HIDDEN).map(|i| piece[i] + place[i] + kind[i]));
    }
    normalise(&mut x, weights.tensor("embeddings.LayerNorm.weight"), weights.tensor("embeddings.LayerNorm.bias"));
    for (layer, peaks) in peaks.iter_mut().enumerate() {
        let tensor = |name: &str| weights.of_layer(layer, name);
        let linear =
            |x: &[f32], name: &str| multiply(x, tensor(&format!("{name}.weight")), tensor(&format!("{name}.bias")));
        note(&x, &mut peaks.attention);
        let [q, k, v] = ["query", "key", "value"].map(|name| linear(&x, &format!("attention.self.{name}")));
        let attended = attend(&q, &k, &v);
        note(&attended, &mut peaks.mix);
        add(&mut x, &linear(&attended, "attention.output.dense"));
        normalise(&mut x, tensor("attention.output.LayerNorm.weight"), tensor("attention.output.LayerNorm.bias"));
        note(&x, &mut peaks.widen);
        let mut inner = linear(&x, "intermediate.dense");
        inner.iter_mut().for_each(|value| *value = gelu(*value));
        note(&inner, &mut peaks.narrow);
        add(&mut x, &linear(&inner, "output.dense"));
        normalise(&mut x, tensor("output.LayerNorm.weight"), tensor("output.LayerNorm.bias"));
    }
}

fn note(x: &[f32], peaks: &mut [f32]) {
    for row in x.chunks_exact(peaks.len()) {
        peaks.iter_mut().zip(row).for_each(|(peak, value)| *peak = peak.max(value.abs()));
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `x` times the transpose of `matrix`, whose rows are outputs, plus `bias`.
fn multiply(x: &[f32], matrix: &[f32], bias: &[f32]) -> Vec<f32> {
    let inputs = matrix.len() / bias.len();
    let mut out = vec![0.0; x.len() / inputs * bias.len()];
    for (column, weights) in matrix.chunks_exact(inputs).enumerate() {
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            out[row * bias.len() + column] = dot(x, weights) + bias[column];
        }
    }
    out
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0.0; SUMS];
    for (x, y) in x.chunks_exact(SUMS).zip(y.chunks_exact(SUMS)) {
        for i in 0..SUMS {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum()
}

fn attend(q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let tokens = q.len() / HIDDEN;
    let mut out = vec![0.0; q.len()];
    let mut scores = vec![0.0; tokens];
    for head in 0..HEADS {
        let part =
            |x: &[f32], token: usize| -> [f32; HEAD] { std::array::from_fn(|i| x[token * HIDDEN + head * HEAD + i]) };
        for token in 0..tokens {
            let query = part(q, token);
            for (other, score) in scores.iter_mut().enumerate() {
                *score = dot(&query, &part(k, other)) / (HEAD as f32).sqrt();
            }
            let most = scores.iter().copied().fold(f32::MIN, f32::max);
            scores.iter_mut().for_each(|score| *score = (*score - most).exp());
            let total: f32 = scores.iter().sum();
            for (other, score) in scores.iter().enumerate() {
                for (i, value) in part(v, other).into_iter().enumerate() {
                    out[token * HIDDEN + head * HEAD + i] += value * score / total;
                }
            }
        }
    }
    out
}

fn normalise(x: &mut [f32], gain: &[f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(HIDDEN) {
        let mean = row.iter().sum::<f32>() / HIDDEN as f32;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / HIDDEN as f32;
        let factor = 1.0 / (variance + 1e-12).sqrt();
        row.iter_mut().zip(gain.iter().zip(bias)).for_each(|(x, (gain, bias))| *x = (*x - mean) * factor * gain + bias);
    }
}

/// Only a calibration: the tanh form is within a thousandth of the exact one.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh())
}
