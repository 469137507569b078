//! Facts about kernels: each multiplies exactly, and its functions are as exact as floats allow.

use proptest::prelude::*;

use super::*;
use crate::choice::Choice;
use crate::layout::{FOUR_MAX, FOURS, GROUP, HIDDEN, INNER, PANEL};
use crate::weights::{MODEL, Model};

/// A kernel that a test can run here, whichever instructions the processor has.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tried {
    Chosen(Choice),
    /// That of AVX2's dot product of bytes, with other instructions in its place.
    #[cfg(target_arch = "x86_64")]
    AvxVnniWithout,
}

fn tried() -> Vec<Tried> {
    let tried: Vec<Tried> = Choice::available().into_iter().map(Tried::Chosen).collect();
    #[cfg(target_arch = "x86_64")]
    let tried = tried
        .iter()
        .copied()
        .chain(Choice::available().contains(&Choice::Avx2).then_some(Tried::AvxVnniWithout))
        .collect();
    tried
}

/// One product by one kernel that runs here.
fn product(tried: Tried, linear: &Linear<'_>, x: &QuantisedMatrix<'_>, after: After) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.rows * linear.columns];
    // SAFETY: the kernel is among those that run here, and `out` is as long as it has to be.
    unsafe {
        match tried {
            #[cfg(target_arch = "x86_64")]
            Tried::Chosen(Choice::Avx512Vnni) => x86::Avx512Vnni::product(linear, x, &mut out, after),
            #[cfg(target_arch = "x86_64")]
            Tried::Chosen(Choice::AvxVnni) => x86::AvxVnni::product(linear, x, &mut out, after),
            #[cfg(target_arch = "x86_64")]
            Tried::AvxVnniWithout => x86::AvxVnniWithout::product(linear, x, &mut out, after),
            #[cfg(target_arch = "x86_64")]
            Tried::Chosen(Choice::Avx2) => avx2::Avx2::product(linear, x, &mut out, after),
            #[cfg(target_arch = "aarch64")]
            Tried::Chosen(Choice::NeonDot) => arm::NeonDot::product(linear, x, &mut out, after),
            #[cfg(target_arch = "aarch64")]
            Tried::Chosen(Choice::Neon) => arm::Neon::product(linear, x, &mut out, after),
            Tried::Chosen(Choice::Plain) => Plain::product(linear, x, &mut out, after),
            Tried::Chosen(other) => panic!("{other:?} does not run here"),
        }
    }
    out
}

/// A matrix in the file's layout, and rows to multiply with it.
struct Case {
    rows: usize,
    columns: usize,
    tokens: usize,
    weights: Vec<u8>,
    weight_scales: Vec<f32>,
    bias: Vec<f32>,
    inputs: Vec<i8>,
    input_scales: Vec<f32>,
}

impl Case {
    /// With all scales 1 and no bias, where sums stay below 2^24 and floats are exact. `draw` gives random numbers.
    fn new([groups, panels, tokens]: [usize; 3], draw: &mut impl FnMut() -> u64) -> Case {
        let (rows, columns) = (groups * GROUP, panels * PANEL);
        let mut weights = vec![0; rows * columns];
        for panel in weights.chunks_exact_mut(rows * PANEL) {
            for eight in panel.chunks_exact_mut(8 * PANEL) {
                for column in 0..PANEL {
                    for four in FOURS {
                        // Sizes of all kinds: spread evenly, or all in one or two of the four.
                        let mut left = if draw().is_multiple_of(4) { FOUR_MAX } else { draw() as u32 % (FOUR_MAX + 1) };
                        let first = draw() as usize % 4;
                        for turn in 0..4 {
                            let row = four[(first + turn) % 4];
                            let most = left.min(127);
                            let size = if draw().is_multiple_of(2) { most } else { draw() as u32 % (most + 1) };
                            left -= size;
                            let value = if draw().is_multiple_of(2) { size as i32 } else { -(size as i32) };
                            eight[row / 4 * PANEL * 4 + column * 4 + row % 4] = (value + 128) as u8;
                        }
                    }
                }
            }
        }
        let mut input = || match draw() % 4 {
            0 => 127,
            1 => -127,
            _ => (draw() % 255) as i8 ^ i8::MIN,
        };
        let inputs = (0..tokens * rows).map(|_| input().max(-127)).collect();
        Case {
            rows,
            columns,
            tokens,
            weights,
            weight_scales: vec![1.0; groups * columns],
            bias: vec![0.0; columns],
            inputs,
            input_scales: vec![1.0; tokens * groups],
        }
    }

    fn run(&self, tried: Tried, after: After) -> Vec<f32> {
        let sums = self.inputs.chunks(GROUP).map(|group| group.iter().map(|value| i32::from(*value)).sum::<i32>());
        let corrections: Vec<i32> = sums.map(|sum| -128 * sum).collect();
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut linear = Linear {
            rows: self.rows,
            columns: self.columns,
            smooth: &[],
            values: &self.weights,
            scales: &self.weight_scales,
            bias: &self.bias,
            #[cfg(target_arch = "x86_64")]
            packed: crate::packed::PackedWeights::default(),
        };
        #[cfg(target_arch = "x86_64")]
        if tried == Tried::Chosen(Choice::Avx2) {
            linear.packed = crate::packed::PackedWeights::new(linear.values, linear.rows, linear.columns);
        }
        let (values, scales) = (&self.inputs, &self.input_scales);
        let x = QuantisedMatrix { values, scales, corrections: &corrections, rows: self.tokens };
        product(tried, &linear, &x, after)
    }

    /// The same by the definition.
    fn sum(&self, token: usize, column: usize) -> i32 {
        let panel = &self.weights[column / PANEL * PANEL * self.rows..];
        let weight = |row: usize| i32::from(panel[row / 4 * PANEL * 4 + column % PANEL * 4 + row % 4]) - 128;
        (0..self.rows).map(|row| weight(row) * i32::from(self.inputs[token * self.rows + row])).sum()
    }
}

fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Any shape, and the largest numbers that are allowed: the same bits from every kernel, and those of the definition.
    #[test]
    fn every_kernel_multiplies_exactly(seed: u64, groups in 1_usize..5, panels in 1_usize..4, tokens in 1_usize..40) {
        let case = Case::new([groups, panels, tokens], &mut numbers(seed));
        for tried in tried() {
            let out = case.run(tried, After::Keep);
            for (at, value) in out.iter().enumerate() {
                let expected = case.sum(at / case.columns, at % case.columns) as f32;
                prop_assert_eq!(*value, expected, "{:?} at {} of {:?}", tried, at, (groups, panels, tokens));
            }
        }
    }

    /// With scales and a bias only roundings differ.
    #[test]
    fn scales_and_biases_count_in_every_kernel(seed: u64, groups in 1_usize..5, panels in 1_usize..3, tokens in 1_usize..20) {
        let mut draw = numbers(seed);
        let mut case = Case::new([groups, panels, tokens], &mut draw);
        let mut float = || (draw() % 2_000) as f32 / 1e6;
        case.weight_scales.iter_mut().chain(&mut case.input_scales).for_each(|scale| *scale = float());
        case.bias.iter_mut().for_each(|bias| *bias = float() * 1e3 - 1.0);
        for after in [After::Keep, After::Gelu] {
            let expected = case.run(Tried::Chosen(Choice::Plain), after);
            for tried in tried() {
                for (value, expected) in case.run(tried, after).iter().zip(&expected) {
                    prop_assert!((value - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{:?}: {} {}", tried, value, expected);
                }
            }
        }
    }
}

/// The shapes of the model itself, and every number of rows that tiles are cut for.
#[test]
fn every_kernel_multiplies_the_models_shapes_exactly() {
    let mut draw = numbers(0x9e37_79b9_7f4a_7c15);
    for (rows, columns) in [(HIDDEN, 96), (GROUP, HIDDEN), (INNER, 32)] {
        for tokens in (1..=33).chain([64, 100]) {
            let case = Case::new([rows / GROUP, columns / PANEL, tokens], &mut draw);
            let expected = case.run(Tried::Chosen(Choice::Plain), After::Keep);
            for tried in tried() {
                let same = case.run(tried, After::Keep) == expected;
                assert!(same, "{tried:?} multiplies {tokens} rows of {rows} otherwise");
            }
        }
    }
}

/// What the kernel without a dot product of bytes relies on.
#[test]
fn the_models_weights_keep_to_what_sixteen_bits_can_sum() {
    let model = Model::new(&MODEL);
    for layer in &model.layers {
        for linear in [&layer.attention, &layer.mix, &layer.widen, &layer.narrow] {
            for eight in linear.values.chunks_exact(8 * PANEL) {
                for column in 0..PANEL {
                    for four in FOURS {
                        let size =
                            |row: &usize| u32::from(eight[row / 4 * PANEL * 4 + column * 4 + row % 4].abs_diff(128));
                        let sum: u32 = four.iter().map(size).sum();
                        assert!(sum <= FOUR_MAX && four.iter().all(|row| size(row) < 128), "{sum}");
                    }
                }
            }
        }
    }
}

/// The error function by its series, in double precision.
fn erf(x: f64) -> f64 {
    let (mut sum, mut term) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn functions_are_as_exact_as_floats_allow() {
    for step in -500..=500 {
        let x = step as f32 / 100.0;
        let mut out = [0.0; 8];
        // SAFETY: plain code runs anywhere, and `out` has a register's width.
        unsafe {
            gelu(<Plain as Kernel>::Lanes::splat(x)).store(out.as_mut_ptr());
            let exact = f64::from(x) * 0.5 * (1.0 + erf(f64::from(x) / std::f64::consts::SQRT_2));
            assert!((f64::from(out[0]) - exact).abs() < 2e-6, "gelu({x}) = {}, not {exact}", out[0]);
            exp(<Plain as Kernel>::Lanes::splat(x)).store(out.as_mut_ptr());
            let exact = f64::from(x).exp();
            assert!((f64::from(out[0]) / exact - 1.0).abs() < 3e-7, "exp({x}) = {}, not {exact}", out[0]);
        }
    }
}
