//! Vectors in three grains: a sign for each number to look through all, a byte to order what is near, and two bytes on
//! disk to say exactly how near.
//!
//! All vectors have length 1, so that a product of two is the cosine of their angle.

/// A vector's grain on disk: how large one step is, and steps of two bytes. The error of a product is below 0.00002.
const STEPS: f32 = FINE as f32;
const FINE: i32 = 32_767;
/// A byte's steps.
const COARSE: i32 = 127;

/// Scales to length 1; nothing where there is no direction.
pub fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    (length.is_finite() && length > 0.0).then(|| vector.iter().map(|value| value / length).collect())
}

/// A vector as it is kept on disk.
pub fn to_bytes(vector: &[f32]) -> Vec<u8> {
    let step = largest(vector) / STEPS;
    let steps = vector.iter().flat_map(|value| ((value / step).round() as i16).to_le_bytes());
    step.to_le_bytes().into_iter().chain(steps).collect()
}

/// What [`to_bytes`] wrote, if it has so many numbers.
pub fn from_bytes(bytes: &[u8], dimensions: usize) -> Option<Vec<f32>> {
    let (step, steps) = stored(bytes, dimensions)?;
    Some(steps.iter().map(|value| f32::from(i16::from_le_bytes(*value)) * step).collect())
}

/// The step and the steps of a vector on disk, if it has so many numbers.
fn stored(bytes: &[u8], dimensions: usize) -> Option<(f32, &[[u8; 2]])> {
    let (step, steps) = bytes.split_first_chunk::<4>()?;
    let step = f32::from_le_bytes(*step);
    let (steps, []) = steps.as_chunks::<2>() else { return None };
    let right = steps.len() == dimensions && step.is_finite() && step > 0.0;
    right.then_some((step, steps))
}

fn largest(vector: &[f32]) -> f32 {
    vector.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()))
}

/// The product of two.
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

/// A vector in the two grains that are kept in memory. Whether it was made just now or comes from disk, it is the same.
pub struct Grains {
    signs: Vec<u64>,
    bytes: Vec<i8>,
    step: f32,
}

impl Grains {
    /// Of a vector of length 1.
    pub fn of(unit: &[f32]) -> Grains {
        let step = largest(unit) / STEPS;
        Grains::new(step, unit.iter().map(|value| (value / step).round() as i16))
    }

    /// Of what [`to_bytes`] wrote, if it has so many numbers.
    pub fn from_bytes(bytes: &[u8], dimensions: usize) -> Option<Grains> {
        let (step, steps) = stored(bytes, dimensions)?;
        Some(Grains::new(step, steps.iter().map(|value| i16::from_le_bytes(*value))))
    }

    fn new(step: f32, steps: impl ExactSizeIterator<Item = i16>) -> Grains {
        let mut signs = vec![0_u64; steps.len().div_ceil(64)];
        let mut bytes = Vec::with_capacity(steps.len());
        for (at, value) in steps.enumerate() {
            signs[at / 64] |= u64::from(value > 0) << (at % 64);
            let half = if value < 0 { -(FINE / 2) } else { FINE / 2 };
            bytes.push(((i32::from(value) * COARSE + half) / FINE) as i8);
        }
        Grains { signs, bytes, step: step * FINE as f32 / COARSE as f32 }
    }
}

/// Slots of one chunk: an index grows without moving what it has.
const CHUNK: usize = 1_024;

/// The vectors of some slots that follow each other.
#[derive(Default)]
struct Chunk {
    signs: Vec<u64>,
    bytes: Vec<i8>,
    /// How large a step of the bytes is; 0 where a memory has no vector yet.
    steps: Vec<f32>,
}

/// The vectors of an index's memories, by slot.
pub struct Vectors {
    dimensions: usize,
    /// Words of 64 signs of each vector.
    words: usize,
    chunks: Vec<Chunk>,
    present: usize,
}

/// A vector to look for.
pub struct Needle {
    exact: Vec<f32>,
    grains: Grains,
}

impl Needle {
    /// The exact numbers.
    pub fn exact(&self) -> &[f32] {
        &self.exact
    }

    /// A vector of length 1.
    pub fn new(vector: Vec<f32>) -> Needle {
        Needle { grains: Grains::of(&vector), exact: vector }
    }
}

impl Vectors {
    /// None yet, of so many numbers each.
    pub fn new(dimensions: usize) -> Vectors {
        Vectors { dimensions, words: dimensions.div_ceil(64), chunks: Vec::new(), present: 0 }
    }

    /// How many memories have a vector.
    pub fn present(&self) -> usize {
        self.present
    }

    /// Makes room for a memory, without a vector.
    pub fn push(&mut self) {
        if self.chunks.last().is_none_or(|chunk| chunk.steps.len() == CHUNK) {
            self.chunks.push(Chunk::default());
        }
        let (words, dimensions) = (self.words, self.dimensions);
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.signs.resize(chunk.signs.len() + words, 0);
            chunk.bytes.resize(chunk.bytes.len() + dimensions, 0);
            chunk.steps.push(0.0);
        }
    }

    /// Gives a memory its vector.
    pub fn set(&mut self, slot: u32, grains: &Grains) {
        self.present += usize::from(!self.has(slot));
        let (chunk, at) = (&mut self.chunks[slot as usize / CHUNK], slot as usize % CHUNK);
        chunk.signs[at * self.words..][..self.words].copy_from_slice(&grains.signs);
        chunk.bytes[at * self.dimensions..][..self.dimensions].copy_from_slice(&grains.bytes);
        chunk.steps[at] = grains.step;
    }

    /// Takes a memory's vector away.
    pub fn clear(&mut self, slot: u32) {
        self.present -= usize::from(self.has(slot));
        self.chunks[slot as usize / CHUNK].steps[slot as usize % CHUNK] = 0.0;
    }

    /// Whether a memory has a vector.
    pub fn has(&self, slot: u32) -> bool {
        self.step(slot) > 0.0
    }

    fn step(&self, slot: u32) -> f32 {
        self.chunks[slot as usize / CHUNK].steps[slot as usize % CHUNK]
    }

    /// Keeps only some slots, in their order.
    pub fn keep(&mut self, kept: &[u32]) {
        let mut new = Vectors::new(self.dimensions);
        for &slot in kept {
            new.push();
            let (old, at) = (&self.chunks[slot as usize / CHUNK], slot as usize % CHUNK);
            if let Some(chunk) = new.chunks.last_mut().filter(|_| old.steps[at] > 0.0) {
                let to = chunk.steps.len() - 1;
                let words = at * self.words..(at + 1) * self.words;
                chunk.signs[to * self.words..].copy_from_slice(&old.signs[words]);
                let bytes = at * self.dimensions..(at + 1) * self.dimensions;
                chunk.bytes[to * self.dimensions..].copy_from_slice(&old.bytes[bytes]);
                chunk.steps[to] = old.steps[at];
                new.present += 1;
            }
        }
        *self = new;
    }

    /// How near a memory is, to about two places; nothing where it has no vector.
    pub fn near(&self, needle: &Needle, slot: u32) -> Option<f32> {
        let (chunk, at) = (&self.chunks[slot as usize / CHUNK], slot as usize % CHUNK);
        let step = chunk.steps[at];
        let bytes = &chunk.bytes[at * self.dimensions..][..self.dimensions];
        (step > 0.0).then(|| dot_i8(&needle.grains.bytes, bytes) as f32 * step * needle.grains.step)
    }

    /// How far [`Vectors::near`] may be from the truth: six times the error to expect where each number of both vectors is
    /// off by up to half of a step.
    pub fn doubt(&self, needle: &Needle, slot: u32) -> f32 {
        6.0 / 12.0_f32.sqrt() * self.step(slot).hypot(needle.grains.step)
    }

    /// In how many places each memory's signs differ from the needle's. It says little where a memory has no vector.
    pub fn differences(&self, needle: &Needle, differ: &mut Vec<u16>) {
        differ.resize(self.chunks.len() * CHUNK, 0);
        for (chunk, differ) in self.chunks.iter().zip(differ.chunks_mut(CHUNK)) {
            differences(&needle.grains.signs, &chunk.signs, self.words, differ);
        }
        differ.truncate(self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.steps.len()));
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> usize {
        let chunk =
            |it: &Chunk| it.signs.capacity() * 8 + it.bytes.capacity() + it.steps.capacity() * 4 + size_of::<Chunk>();
        self.chunks.iter().map(chunk).sum()
    }
}

/// Adds to each of `sums` how near the meaning is, times `weight`, as the signs say: of vectors of so many numbers that are
/// turned by a part of half a circle, that part of the signs differs. It is off by up to about a quarter.
pub fn add_estimates(differ: &[u16], dimensions: usize, weight: f32, sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature.
        return unsafe { add_estimates_avx2(differ, dimensions, weight, sums) };
    }
    add_estimates_plain(differ, dimensions, weight, sums);
}

/// The same for the compiler to put into registers of 32 bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_estimates_avx2(differ: &[u16], dimensions: usize, weight: f32, sums: &mut [f32]) {
    add_estimates_plain(differ, dimensions, weight, sums);
}

#[inline(always)]
fn add_estimates_plain(differ: &[u16], dimensions: usize, weight: f32, sums: &mut [f32]) {
    let step = 2.0 / dimensions.max(1) as f32;
    for (differ, sum) in differ.iter().zip(sums) {
        // The first terms of the sine of a quarter circle's part.
        let part = 1.0 - f32::from(*differ) * step;
        let square = part * part;
        let sine = part * (std::f32::consts::FRAC_PI_2 - square * (0.645_964 - square * 0.079_692));
        *sum += weight * sine.max(0.0);
    }
}

/// In how many places the signs of each vector differ from the needle's.
fn differences(needle: &[u64], signs: &[u64], words: usize, differ: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has the feature.
        return unsafe { differences_popcnt(needle, signs, words, differ) };
    }
    differences_plain(needle, signs, words, differ);
}

/// The same with the processor's instruction for counting bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn differences_popcnt(needle: &[u64], signs: &[u64], words: usize, differ: &mut [u16]) {
    differences_plain(needle, signs, words, differ);
}

#[inline(always)]
fn differences_plain(needle: &[u64], signs: &[u64], words: usize, differ: &mut [u16]) {
    if let Ok(needle) = <&[u64; 6]>::try_from(needle) {
        for (signs, differ) in signs.as_chunks::<6>().0.iter().zip(differ) {
            *differ = needle.iter().zip(signs).map(|(x, y)| (x ^ y).count_ones() as u16).sum();
        }
        return;
    }
    for (signs, differ) in signs.chunks_exact(words.max(1)).zip(differ) {
        *differ = needle.iter().zip(signs).map(|(x, y)| (x ^ y).count_ones() as u16).sum();
    }
}

/// The product of bytes, of which there are fewer than 100,000 so that it does not overflow.
fn dot_i8(x: &[i8], y: &[i8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature.
        return unsafe { dot_i8_avx2(x, y) };
    }
    dot_i8_plain(x, y)
}

/// The same for the compiler to put into registers of 32 bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dot_i8_avx2(x: &[i8], y: &[i8]) -> i32 {
    dot_i8_plain(x, y)
}

#[inline(always)]
fn dot_i8_plain(x: &[i8], y: &[i8]) -> i32 {
    x.iter().zip(y).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look drawn, the same at every run.
    fn vector(seed: u32, dimensions: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        };
        unit(&(0..dimensions).map(next).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_vector_comes_back_from_disk_as_it_was_to_four_places() {
        for dimensions in [3, 64, 384, 1_000] {
            let (x, y) = (vector(1, dimensions), vector(2, dimensions));
            let back = from_bytes(&to_bytes(&x), dimensions).unwrap();
            assert!((dot(&back, &y) - dot(&x, &y)).abs() < 2e-5);
            assert!(from_bytes(&to_bytes(&x)[1..], dimensions).is_none());
            assert!(from_bytes(&to_bytes(&x), dimensions + 1).is_none());
        }
        assert!(from_bytes(&[], 0).is_none());
        assert!(unit(&[0.0, 0.0]).is_none() && unit(&[f32::NAN]).is_none());
    }

    #[test]
    fn signs_say_about_how_near_and_bytes_nearly_exactly() {
        for dimensions in [100, 384] {
            let mut all = Vectors::new(dimensions);
            for seed in 0..2_000 {
                all.push();
                if seed != 7 {
                    all.set(seed, &Grains::of(&vector(seed, dimensions)));
                }
            }
            let exact = vector(3, dimensions);
            let needle = Needle::new(exact.clone());
            let (mut differ, mut sums) = (Vec::new(), vec![0.0; 2_000]);
            all.differences(&needle, &mut differ);
            add_estimates(&differ, dimensions, 1.0, &mut sums);
            assert_eq!((differ.len(), differ[3]), (2_000, 0));
            for slot in (0..2_000).filter(|slot| *slot != 7) {
                let (near, truth) = (all.near(&needle, slot).unwrap(), dot(&exact, &vector(slot, dimensions)));
                assert!((near - truth).abs() < all.doubt(&needle, slot).min(0.02), "{slot}: {near}, {truth}");
                assert!((sums[slot as usize] - truth.max(0.0)).abs() < 0.5, "{slot}: {}, {truth}", sums[slot as usize]);
            }
            assert_eq!((all.near(&needle, 7), all.present()), (None, 1_999));
            all.clear(3);
            all.keep(&[3, 4, 5]);
            assert_eq!((all.present(), all.has(0), all.has(1)), (2, false, true));
        }
    }
}
