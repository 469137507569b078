//! The forward pass: token ids to the last layer's rows, in buffers that the caller keeps.
//!
//! Activations are quantised row by row just before each matrix product and come out of it as floats; attention and
//! normalisation work in floats. Nothing here allocates once the buffers are large enough.

use crate::kernel::{After, Kernel, Lanes, QuantisedMatrix, exp};
use crate::layout::{GROUP, HEAD, HEADS, HIDDEN, INNER};
use crate::weights::{Linear, Model, Norm};

/// Rows that attention works on together.
const ROWS: usize = 4;
/// Buffers are made for a multiple of this many tokens: two registers of any kernel.
const PAD: usize = 32;
/// So small that its exponential is nothing.
const NEVER: f32 = -1e30;

/// A thread's buffers.
#[derive(Default)]
pub struct Scratch {
    /// A row of the residual stream for each token.
    pub x: Vec<f32>,
    /// Queries, keys and values of each token, side by side.
    attention: Vec<f32>,
    /// What attention made of them.
    attended: Vec<f32>,
    /// The feed-forward part's wide rows.
    inner: Vec<f32>,
    /// What a part of a layer gives back, before it is added to `x`.
    change: Vec<f32>,
    quantised: QuantisedRows,
    heads: Heads,
}

#[derive(Default)]
struct QuantisedRows {
    values: Vec<i8>,
    scales: Vec<f32>,
    corrections: Vec<i32>,
}

#[derive(Default)]
struct Heads {
    /// A head's keys, transposed.
    keys: Vec<f32>,
    /// Of [`ROWS`] tokens for every token.
    scores: Vec<f32>,
}

impl Scratch {
    fn reserve(&mut self, tokens: usize) {
        if self.x.len() >= tokens * HIDDEN {
            return;
        }
        let tokens = tokens.next_multiple_of(PAD);
        self.x.resize(tokens * HIDDEN, 0.0);
        self.attention.resize(tokens * 3 * HIDDEN, 0.0);
        self.attended.resize(tokens * HIDDEN, 0.0);
        self.inner.resize(tokens * INNER, 0.0);
        self.change.resize(tokens * HIDDEN, 0.0);
        self.quantised.values.resize(tokens * INNER, 0);
        self.quantised.scales.resize(tokens * INNER / GROUP, 0.0);
        self.quantised.corrections.resize(tokens * INNER / GROUP, 0);
        self.heads.keys.resize(tokens * HEAD, 0.0);
        self.heads.scores.resize(tokens * ROWS, 0.0);
    }
}

/// Runs the model; `scratch.x` then begins with a row for each id.
///
/// # Safety
/// The processor has the kernel's instruction set, and the calling function switched it on.
#[inline(always)]
pub unsafe fn run<K: Kernel>(model: &Model<'_>, ids: &[u32], scratch: &mut Scratch) {
    let tokens = ids.len();
    scratch.reserve(tokens);
    let Scratch { x, attention, attended, inner, change, quantised, heads } = scratch;
    let x = &mut x[..tokens * HIDDEN];
    let attention = &mut attention[..tokens * 3 * HIDDEN];
    let attended = &mut attended[..tokens * HIDDEN];
    let inner = &mut inner[..tokens * INNER];
    let change = &mut change[..tokens * HIDDEN];
    // SAFETY: the caller's promise.
    unsafe {
        embed::<K::Lanes>(model, ids, x);
        for layer in &model.layers {
            quantised.multiply::<K>(&layer.attention, x, attention, After::Keep);
            for head in 0..HEADS {
                heads.attend::<K::Lanes>(attention, head, attended);
            }
            quantised.multiply::<K>(&layer.mix, attended, change, After::Keep);
            add_and_normalise::<K::Lanes>(x, change, &layer.attention_norm);
            quantised.multiply::<K>(&layer.widen, x, inner, After::Gelu);
            quantised.multiply::<K>(&layer.narrow, inner, change, After::Keep);
            add_and_normalise::<K::Lanes>(x, change, &layer.narrow_norm);
        }
    }
}

/// The rows of the pieces and of their places.
#[inline(always)]
unsafe fn embed<L: Lanes>(model: &Model<'_>, ids: &[u32], x: &mut [f32]) {
    for (row, id) in x.chunks_exact_mut(HIDDEN).zip(ids) {
        let id = *id as usize;
        let piece = &model.pieces[id * HIDDEN..(id + 1) * HIDDEN];
        // SAFETY: the caller has the instruction set, and both slices have HIDDEN numbers, a multiple of the width.
        unsafe {
            let scale = L::splat(model.piece_scales[id]);
            for at in (0..HIDDEN).step_by(L::WIDTH) {
                L::load_bytes(piece.as_ptr().add(at)).mul(scale).store(row.as_mut_ptr().add(at));
            }
        }
    }
    // SAFETY: the caller has the instruction set.
    unsafe { add_and_normalise::<L>(x, &model.positions[..x.len()], &model.norm) };
}

/// `x = normalised(x + change)`, row by row.
#[inline(always)]
unsafe fn add_and_normalise<L: Lanes>(x: &mut [f32], change: &[f32], norm: &Norm<'_>) {
    let (gain, bias) = (norm.gain.as_ptr(), norm.bias.as_ptr());
    debug_assert!(norm.gain.len() == HIDDEN && norm.bias.len() == HIDDEN);
    for (row, change) in x.chunks_exact_mut(HIDDEN).zip(change.chunks_exact(HIDDEN)) {
        let (row, change) = (row.as_mut_ptr(), change.as_ptr());
        // SAFETY: the caller has the instruction set, and each pointer is to HIDDEN floats, a multiple of the width.
        unsafe {
            let (mut sum, mut squares) = (L::splat(0.0), L::splat(0.0));
            for at in (0..HIDDEN).step_by(L::WIDTH) {
                let value = L::load(row.add(at)).add(L::load(change.add(at)));
                value.store(row.add(at));
                sum = sum.add(value);
                squares = value.mul_add(value, squares);
            }
            let mean = sum.total() / HIDDEN as f32;
            let variance = (squares.total() / HIDDEN as f32 - mean * mean).max(0.0);
            let factor = 1.0 / (variance + 1e-12).sqrt();
            let (factor, shift) = (L::splat(factor), L::splat(-mean * factor));
            for at in (0..HIDDEN).step_by(L::WIDTH) {
                let value = L::load(row.add(at)).mul_add(factor, shift);
                value.mul_add(L::load(gain.add(at)), L::load(bias.add(at))).store(row.add(at));
            }
        }
    }
}

impl QuantisedRows {
    /// `out = x * linear`, through eight bits.
    #[inline(always)]
    unsafe fn multiply<K: Kernel>(&mut self, linear: &Linear<'_>, x: &[f32], out: &mut [f32], after: After) {
        let rows = x.len() / linear.rows;
        // SAFETY: the caller has the instruction set; `reserve` made room for the rows.
        unsafe {
            self.fill::<K::Lanes>(linear, x);
            let groups = linear.rows / GROUP;
            let quantised = QuantisedMatrix {
                values: &self.values[..rows * linear.rows],
                scales: &self.scales[..rows * groups],
                corrections: &self.corrections[..rows * groups],
                rows,
            };
            K::product(linear, &quantised, out, after);
        }
    }

    #[inline(always)]
    unsafe fn fill<L: Lanes>(&mut self, linear: &Linear<'_>, x: &[f32]) {
        let mut smoothed = [0.0_f32; GROUP];
        let groups = self.values.chunks_exact_mut(GROUP).zip(self.scales.iter_mut().zip(&mut self.corrections));
        let smooth = linear.smooth.chunks_exact(GROUP).cycle();
        for ((x, smooth), (values, (scale, correction))) in x.chunks_exact(GROUP).zip(smooth).zip(groups) {
            // SAFETY: the caller has the instruction set, and each pointer is to GROUP numbers.
            unsafe {
                let mut most = L::splat(0.0);
                for at in (0..GROUP).step_by(L::WIDTH) {
                    let value = L::load(x.as_ptr().add(at)).mul(L::load(smooth.as_ptr().add(at)));
                    value.store(smoothed.as_mut_ptr().add(at));
                    most = most.max(value.abs());
                }
                let most = most.largest();
                let factor = L::splat(if most > 0.0 { 127.0 / most } else { 0.0 });
                let mut sum = L::splat(0.0);
                for at in (0..GROUP).step_by(L::WIDTH) {
                    let value = L::load(smoothed.as_ptr().add(at)).mul(factor).round();
                    value.store_bytes(values.as_mut_ptr().add(at));
                    sum = sum.add(value);
                }
                *scale = most / 127.0;
                // Sums of so many whole numbers are exact in floats, in any order.
                *correction = -128 * sum.total() as i32;
            }
        }
    }
}

impl Heads {
    /// What one head makes of every token's queries, keys and values.
    #[inline(always)]
    unsafe fn attend<L: Lanes>(&mut self, attention: &[f32], head: usize, out: &mut [f32]) {
        let tokens = attention.len() / (3 * HIDDEN);
        let padded = tokens.next_multiple_of(2 * L::WIDTH);
        debug_assert!(self.keys.len() >= padded * HEAD && self.scores.len() >= padded * ROWS);
        for (token, row) in attention.chunks_exact(3 * HIDDEN).enumerate() {
            let key = &row[HIDDEN + head * HEAD..][..HEAD];
            key.iter().enumerate().for_each(|(i, value)| self.keys[i * padded + token] = *value);
        }
        for row in self.keys[..padded * HEAD].chunks_exact_mut(padded) {
            row[tokens..].fill(0.0);
        }
        let (queries, values) = (attention[head * HEAD..].as_ptr(), attention[2 * HIDDEN + head * HEAD..].as_ptr());
        // SAFETY: the caller has the instruction set; rows are below `tokens`, columns below `padded`, and the
        // buffers hold that many, as asserted above and as `run` cut them.
        unsafe {
            for first in (0..tokens).step_by(ROWS) {
                let rows = (tokens - first).min(ROWS);
                // The last block may be short; it then works on its last row several times.
                let row: [usize; ROWS] = std::array::from_fn(|i| first + i.min(rows - 1));
                self.score::<L>(row.map(|row| queries.add(row * 3 * HIDDEN)), padded);
                // A loop and not a closure: what a closure becomes has none of the caller's instruction set.
                let mut shares = [0.0; ROWS];
                for (i, share) in shares.iter_mut().enumerate().take(rows) {
                    *share = self.soften::<L>(i, tokens, padded);
                }
                for column in (0..HEAD).step_by(2 * L::WIDTH) {
                    let mut sums = [[L::splat(0.0); 2]; ROWS];
                    for token in 0..tokens {
                        let value = values.add(token * 3 * HIDDEN + column);
                        let value = [L::load(value), L::load(value.add(L::WIDTH))];
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let weight = L::splat(*self.scores.as_ptr().add(i * padded + token));
                            sums[0] = weight.mul_add(value[0], sums[0]);
                            sums[1] = weight.mul_add(value[1], sums[1]);
                        }
                    }
                    for i in 0..rows {
                        let to = out.as_mut_ptr().add(row[i] * HIDDEN + head * HEAD + column);
                        let share = L::splat(shares[i]);
                        sums[i][0].mul(share).store(to);
                        sums[i][1].mul(share).store(to.add(L::WIDTH));
                    }
                }
            }
        }
    }

    /// Each query by every key.
    #[inline(always)]
    unsafe fn score<L: Lanes>(&mut self, queries: [*const f32; ROWS], padded: usize) {
        // SAFETY: as in `attend`.
        unsafe {
            for column in (0..padded).step_by(2 * L::WIDTH) {
                let mut sums = [[L::splat(0.0); 2]; ROWS];
                for i in 0..HEAD {
                    let key = self.keys.as_ptr().add(i * padded + column);
                    let key = [L::load(key), L::load(key.add(L::WIDTH))];
                    for (query, sums) in queries.iter().zip(&mut sums) {
                        let query = L::splat(*query.add(i));
                        sums[0] = query.mul_add(key[0], sums[0]);
                        sums[1] = query.mul_add(key[1], sums[1]);
                    }
                }
                for (row, sums) in sums.iter().enumerate() {
                    let to = self.scores.as_mut_ptr().add(row * padded + column);
                    sums[0].store(to);
                    sums[1].store(to.add(L::WIDTH));
                }
            }
        }
    }

    /// Scores to their exponentials; returns what these have to be multiplied by to sum to one.
    #[inline(always)]
    unsafe fn soften<L: Lanes>(&mut self, row: usize, tokens: usize, padded: usize) -> f32 {
        let scores = &mut self.scores[row * padded..(row + 1) * padded];
        scores[tokens..].fill(NEVER);
        let scores = scores.as_mut_ptr();
        // SAFETY: the caller has the instruction set, and the pointer is to `padded` floats, a multiple of the width.
        unsafe {
            let mut most = L::splat(NEVER);
            for at in (0..padded).step_by(L::WIDTH) {
                most = most.max(L::load(scores.add(at)));
            }
            let most = L::splat(most.largest());
            let mut sum = L::splat(0.0);
            for at in (0..padded).step_by(L::WIDTH) {
                let weight = exp(L::load(scores.add(at)).sub(most));
                weight.store(scores.add(at));
                sum = sum.add(weight);
            }
            1.0 / sum.total()
        }
    }
}
