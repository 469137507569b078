//! Vectors in three grains: a sign for each number to look through all, a byte to order what is near, and two bytes on
//! disk to say exactly how near.
//!
//! All vectors have length 1, so that a product of two is the cosine of their angle.

/// A vector's grain on disk: how large one step is, and steps of two bytes. The error of a product is below 0.00002.
const STEPS: f32 = 32_767.0;
/// A byte's steps.
const BYTE_STEPS: f32 = 127.0;

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
    let (step, steps) = bytes.split_first_chunk::<4>()?;
    let step = f32::from_le_bytes(*step);
    let (steps, []) = steps.as_chunks::<2>() else { return None };
    let right = steps.len() == dimensions && step.is_finite() && step > 0.0;
    right.then(|| steps.iter().map(|value| f32::from(i16::from_le_bytes(*value)) * step).collect())
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

/// The vectors of an index's memories, by slot.
pub struct Vectors {
    dimensions: usize,
    /// Words of 64 signs of each vector.
    words: usize,
    signs: Vec<u64>,
    bytes: Vec<i8>,
    /// How large a step of the bytes is; 0 where a memory has no vector yet.
    steps: Vec<f32>,
    present: usize,
}

/// A vector to look for.
pub struct Needle {
    exact: Vec<f32>,
    signs: Vec<u64>,
    bytes: Vec<i8>,
    step: f32,
}

impl Needle {
    /// The exact numbers.
    pub fn exact(&self) -> &[f32] {
        &self.exact
    }

    /// A vector of length 1.
    pub fn new(vector: Vec<f32>) -> Needle {
        let (bytes, step) = to_i8(&vector);
        Needle { signs: signs(&vector), bytes, step, exact: vector }
    }
}

fn signs(vector: &[f32]) -> Vec<u64> {
    let word = |part: &[f32]| part.iter().enumerate().fold(0, |word, (at, value)| word | u64::from(*value > 0.0) << at);
    vector.chunks(64).map(word).collect()
}

fn to_i8(vector: &[f32]) -> (Vec<i8>, f32) {
    let step = largest(vector) / BYTE_STEPS;
    (vector.iter().map(|value| (value / step).round() as i8).collect(), step)
}

impl Vectors {
    /// None yet, of so many numbers each.
    pub fn new(dimensions: usize) -> Vectors {
        let words = dimensions.div_ceil(64);
        Vectors { dimensions, words, signs: Vec::new(), bytes: Vec::new(), steps: Vec::new(), present: 0 }
    }

    /// How many memories have a vector.
    pub fn present(&self) -> usize {
        self.present
    }

    /// Makes room for a memory, without a vector.
    pub fn push(&mut self) {
        self.signs.resize(self.signs.len() + self.words, 0);
        self.bytes.resize(self.bytes.len() + self.dimensions, 0);
        self.steps.push(0.0);
    }

    /// Gives a memory its vector.
    pub fn set(&mut self, slot: u32, vector: &[f32]) {
        let slot = slot as usize;
        let (bytes, step) = to_i8(vector);
        self.present += usize::from(self.steps[slot] == 0.0);
        self.signs[slot * self.words..][..self.words].copy_from_slice(&signs(vector));
        self.bytes[slot * self.dimensions..][..self.dimensions].copy_from_slice(&bytes);
        self.steps[slot] = step;
    }

    /// Takes a memory's vector away.
    pub fn clear(&mut self, slot: u32) {
        self.present -= usize::from(self.has(slot));
        self.steps[slot as usize] = 0.0;
    }

    /// Whether a memory has a vector.
    pub fn has(&self, slot: u32) -> bool {
        self.steps[slot as usize] > 0.0
    }

    /// Keeps only some slots, in their order.
    pub fn keep(&mut self, kept: &[u32]) {
        let (mut signs, mut bytes, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        for &slot in kept {
            let slot = slot as usize;
            signs.extend_from_slice(&self.signs[slot * self.words..][..self.words]);
            bytes.extend_from_slice(&self.bytes[slot * self.dimensions..][..self.dimensions]);
            steps.push(self.steps[slot]);
        }
        self.present = steps.iter().filter(|step| **step > 0.0).count();
        (self.signs, self.bytes, self.steps) = (signs, bytes, steps);
    }

    /// How near a memory is, to about two places; nothing where it has no vector.
    pub fn near(&self, needle: &Needle, slot: u32) -> Option<f32> {
        let at = slot as usize;
        let step = self.steps[at];
        let bytes = &self.bytes[at * self.dimensions..][..self.dimensions];
        (step > 0.0).then(|| dot_i8(&needle.bytes, bytes) as f32 * step * needle.step)
    }

    /// Of the memories that `allowed` lets through, about `most` whose signs agree with the needle's in most places.
    pub fn nearest(&self, needle: &Needle, most: usize, allowed: impl Fn(u32) -> bool) -> Vec<u32> {
        if self.present == 0 {
            return Vec::new();
        }
        let mut differ = vec![u16::MAX; self.steps.len()];
        let mut counts = vec![0_u32; self.dimensions + 1];
        differences(&needle.signs, &self.signs, self.words, &mut differ);
        for (slot, differ) in differ.iter_mut().enumerate() {
            if self.steps[slot] > 0.0 && allowed(slot as u32) {
                counts[usize::from(*differ).min(self.dimensions)] += 1;
            } else {
                *differ = u16::MAX;
            }
        }
        let (mut sum, mut most_different) = (0, 0);
        for (differ, count) in counts.iter().enumerate() {
            sum += *count as usize;
            most_different = differ;
            if sum >= most {
                break;
            }
        }
        let near = |(slot, differ): (usize, &u16)| (usize::from(*differ) <= most_different).then_some(slot as u32);
        differ.iter().enumerate().filter_map(near).collect()
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.signs.capacity() * 8 + self.bytes.capacity() + self.steps.capacity() * 4
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
    fn the_nearest_of_many_is_among_those_that_signs_find_and_bytes_order() {
        for dimensions in [100, 384] {
            let mut all = Vectors::new(dimensions);
            for seed in 0..2_000 {
                all.push();
                if seed != 7 {
                    all.set(seed, &vector(seed, dimensions));
                }
            }
            let exact = vector(3, dimensions);
            let needle = Needle::new(exact.clone());
            let found = all.nearest(&needle, 50, |slot| slot != 3);
            assert!(found.len() >= 50 && !found.contains(&3) && !found.contains(&7));
            for &slot in &found {
                let near = all.near(&needle, slot).unwrap();
                assert!((near - dot(&exact, &vector(slot, dimensions))).abs() < 0.01);
            }
            assert_eq!(all.nearest(&needle, 1, |_| true), [3]);
            assert_eq!((all.near(&needle, 7), all.present()), (None, 1_999));
            all.clear(3);
            all.keep(&[3, 4, 5]);
            assert_eq!((all.present(), all.has(0), all.has(1)), (2, false, true));
        }
    }
}
