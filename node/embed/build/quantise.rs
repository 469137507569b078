//! f32 weights to the model file: eight bits each, in the order in which the kernels read them.
//!
//! A few channels of a transformer's activations are far larger than the others, and one scale for all would leave
//! the small ones no bits. So part of each channel's size moves from the activations into the weights, which are
//! known in advance and easier to quantise (SmoothQuant, Xiao et al. 2023, with alpha one half).

use crate::layout::{ALIGN, CHECKSUM, FOUR_MAX, FOURS, GROUP, HEAD, HIDDEN, LAYERS, LEN, PANEL, PIECES, TOKENS_MAX};
use crate::reference::{Peaks, Weights};

/// Below this, a channel counts as silent.
const QUIET: f32 = 1e-3;
/// The largest absolute value of an eight-bit weight; -128 is not used, so that negation stays exact.
const STEPS: f32 = 127.0;

/// The model file without its checksum.
pub fn model(weights: &Weights, peaks: &[Peaks]) -> Vec<u8> {
    assert_eq!(peaks.len(), LAYERS);
    let mut file = File { bytes: Vec::with_capacity(LEN) };
    file.embeddings(weights);
    file.norm([weights.tensor("embeddings.LayerNorm.weight"), weights.tensor("embeddings.LayerNorm.bias")]);
    for (layer, peaks) in peaks.iter().enumerate() {
        let tensor = |name: &str| weights.of_layer(layer, name);
        // Attention divides by the root of a head's width; done here, it costs nothing later.
        let scaled = |name: &str| tensor(name).iter().map(|x| x / (HEAD as f32).sqrt()).collect::<Vec<_>>();
        let queries = [scaled("attention.self.query.weight"), scaled("attention.self.query.bias")];
        let joined = |query: &[f32], part: &str| {
            [query, tensor(&format!("attention.self.key.{part}")), tensor(&format!("attention.self.value.{part}"))]
                .concat()
        };
        file.linear(&joined(&queries[0], "weight"), &joined(&queries[1], "bias"), &peaks.attention);
        let linear = |file: &mut File, name: &str, peaks: &[f32]| {
            file.linear(tensor(&format!("{name}.weight")), tensor(&format!("{name}.bias")), peaks);
        };
        let norm = |file: &mut File, name: &str| {
            file.norm([tensor(&format!("{name}.LayerNorm.weight")), tensor(&format!("{name}.LayerNorm.bias"))]);
        };
        linear(&mut file, "attention.output.dense", &peaks.mix);
        norm(&mut file, "attention.output");
        linear(&mut file, "intermediate.dense", &peaks.widen);
        linear(&mut file, "output.dense", &peaks.narrow);
        norm(&mut file, "output");
    }
    assert_eq!(file.bytes.len(), LEN - CHECKSUM, "layout.rs and quantise.rs disagree");
    file.bytes
}

struct File {
    bytes: Vec<u8>,
}

impl File {
    fn embeddings(&mut self, weights: &Weights) {
        let pieces = weights.tensor("embeddings.word_embeddings.weight");
        assert_eq!(pieces.len(), PIECES * HIDDEN);
        let (mut values, mut scales) = (Vec::with_capacity(pieces.len()), Vec::with_capacity(PIECES));
        for row in pieces.chunks_exact(HIDDEN) {
            let scale = scale_of(row.iter().copied());
            values.extend(row.iter().map(|x| (x / scale).round() as i8 as u8));
            scales.push(scale);
        }
        self.section(&values);
        self.floats(&scales);
        let kind = weights.tensor("embeddings.token_type_embeddings.weight");
        let positions = weights.tensor("embeddings.position_embeddings.weight");
        let places: Vec<f32> =
            positions[..TOKENS_MAX * HIDDEN].iter().enumerate().map(|(i, x)| x + kind[i % HIDDEN]).collect();
        self.floats(&places);
    }

    fn norm(&mut self, parts: [&[f32]; 2]) {
        parts.iter().for_each(|part| self.floats(part));
    }

    /// A matrix whose rows are outputs, and how large its inputs get.
    fn linear(&mut self, matrix: &[f32], bias: &[f32], peaks: &[f32]) {
        let (inputs, outputs) = (peaks.len(), bias.len());
        let at = |output: usize, input: usize| matrix[output * inputs + input];
        let smooth: Vec<f32> = (0..inputs)
            .map(|input| {
                let weight = (0..outputs).map(|output| at(output, input).abs()).fold(QUIET, f32::max);
                (peaks[input].max(QUIET) / weight).sqrt()
            })
            .collect();
        let smoothed = |output: usize, input: usize| at(output, input) * smooth[input];

        let (mut values, mut scales) = (Vec::with_capacity(matrix.len()), Vec::with_capacity(matrix.len() / GROUP));
        for panel in (0..outputs).step_by(PANEL) {
            for group in (0..inputs).step_by(GROUP) {
                let group_scales: [f32; PANEL] = std::array::from_fn(|column| {
                    group_scale(&std::array::from_fn(|row| smoothed(panel + column, group + row)))
                });
                for four in (group..group + GROUP).step_by(4) {
                    for (column, scale) in group_scales.iter().enumerate() {
                        values.extend(
                            (four..four + 4).map(|input| {
                                (i16::from(quantised(smoothed(panel + column, input), *scale)) + 128) as u8
                            }),
                        );
                    }
                }
                scales.extend(group_scales);
            }
        }
        self.floats(&smooth.iter().map(|factor| 1.0 / factor).collect::<Vec<_>>());
        self.section(&values);
        self.floats(&scales);
        self.floats(bias);
    }

    fn floats(&mut self, values: &[f32]) {
        self.section(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    }

    fn section(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

fn scale_of(values: impl Iterator<Item = f32>) -> f32 {
    match values.map(f32::abs).fold(0.0, f32::max) / STEPS {
        0.0 => 1.0,
        scale => scale,
    }
}

fn quantised(value: f32, scale: f32) -> i8 {
    (value / scale).round().clamp(-STEPS, STEPS) as i8
}

/// The finest scale with which no four that are summed in 16 bits are too large. That of about half of all groups is
/// the one that their largest value alone would have; on average it is coarser by a sixteenth.
fn group_scale(values: &[f32; GROUP]) -> f32 {
    let mut scale = scale_of(values.iter().copied());
    loop {
        let sums = values.as_chunks::<8>().0.iter().flat_map(|eight| {
            FOURS
                .map(|four| four.iter().map(|row| u32::from(quantised(eight[*row], scale).unsigned_abs())).sum::<u32>())
        });
        match sums.max() {
            Some(most) if most > FOUR_MAX => scale *= (most as f32 / FOUR_MAX as f32).max(1.001),
            Some(_) | None => return scale,
        }
    }
}
