//! Which of the phrases around a message it belongs to: kernel ridge regression among the nearest ones.
//!
//! A similarity looks at one phrase at a time. Here the phrases explain the message together: ten that say the same share
//! what one would have had, and of two that are as near, the one whose place no other phrase has counts more. What comes
//! out orders candidates; whether one is good enough is said by its score.

use super::vectors::PackedVector;

/// How many phrases are looked at, the nearest: twice as many find hardly more, and take four times as long.
pub const NEIGHBOURS_MAX: usize = 32;
/// How soon two phrases stop being neighbours: the exponent of the kernel `exp(-STEEPNESS (1 - cosine))`.
const STEEPNESS: f32 = 2.0;
/// What is added to the kernel's diagonal: how far the phrases are from explaining everything.
const RIDGE: f32 = 0.3;

/// A phrase and the offer that it belongs to.
pub struct Neighbour<'i> {
    pub offer: usize,
    pub phrase: &'i PackedVector,
    /// Its similarity to the message.
    pub similarity: f32,
}

/// How much of the message each neighbour explains, in their order; at most [`NEIGHBOURS_MAX`] of them are looked at.
pub fn explain(mut neighbours: Vec<Neighbour<'_>>) -> Vec<(usize, f32)> {
    if neighbours.len() > NEIGHBOURS_MAX {
        let order = |a: &Neighbour<'_>, b: &Neighbour<'_>| b.similarity.total_cmp(&a.similarity);
        neighbours.select_nth_unstable_by(NEIGHBOURS_MAX, order);
        neighbours.truncate(NEIGHBOURS_MAX);
    }
    let count = neighbours.len();
    let kernel = |cosine: f32| (STEEPNESS * (cosine - 1.0)).exp();
    let mut matrix = vec![0.0; count * count];
    for (row, one) in neighbours.iter().enumerate() {
        for (column, other) in neighbours[..row].iter().enumerate() {
            matrix[row * count + column] = kernel(one.phrase.similarity(other.phrase));
        }
        matrix[row * count + row] = 1.0 + RIDGE;
    }
    let mut shares: Vec<f32> = neighbours.iter().map(|neighbour| kernel(neighbour.similarity)).collect();
    solve(&mut matrix, &mut shares);
    neighbours.iter().map(|neighbour| neighbour.offer).zip(shares).collect()
}

/// Solves `matrix x = right` in place by Cholesky's decomposition; only the lower half of the matrix is read.
fn solve(matrix: &mut [f32], right: &mut [f32]) {
    let count = right.len();
    for row in 0..count {
        let (above, this) = matrix.split_at_mut(row * count);
        for column in 0..row {
            let other = &above[column * count..column * count + column + 1];
            let known: f32 = this[..column].iter().zip(other).map(|(x, y)| x * y).sum();
            this[column] = (this[column] - known) / other[column];
        }
        let known: f32 = this[..row].iter().map(|x| x * x).sum();
        // The ridge keeps this far from zero.
        this[row] = (this[row] - known).max(f32::EPSILON).sqrt();
        let done: f32 = this[..row].iter().zip(&right[..row]).map(|(x, y)| x * y).sum();
        right[row] = (right[row] - done) / this[row];
    }
    for row in (0..count).rev() {
        let later: f32 = (row + 1..count).map(|below| matrix[below * count + row] * right[below]).sum();
        right[row] = (right[row] - later) / matrix[row * count + row];
    }
}

#[cfg(test)]
mod tests {
    use caxton_embed::Vector;

    use super::*;

    #[test]
    fn a_system_of_equations_is_solved() {
        // 4x + 2y = 10 and 2x + 3y = 9, whose upper half is never read.
        let (mut matrix, mut right) = ([4.0, f32::NAN, 2.0, 3.0], [10.0, 9.0]);
        solve(&mut matrix, &mut right);
        assert!((right[0] - 1.5).abs() < 1e-5 && (right[1] - 2.0).abs() < 1e-5, "{right:?}");
        solve(&mut [], &mut []);
    }

    #[test]
    fn phrases_that_say_the_same_share_what_one_would_have_had() {
        let packed = |values: [f32; 3]| PackedVector::from(&Vector::new(values));
        let (twin, other) = (packed([1.0, 0.2, 0.0]), packed([1.0, -0.2, 0.0]));
        let neighbour = |offer, phrase| Neighbour { offer, phrase, similarity: 0.98 };
        let shares = explain(vec![neighbour(0, &twin), neighbour(0, &twin), neighbour(1, &other)]);
        let [(0, first), (0, second), (1, alone)] = shares.as_slice() else { panic!("{shares:?}") };
        assert!((first - second).abs() < 1e-5 && alone > first && *alone < first + second, "{shares:?}");
    }

    #[test]
    fn only_the_nearest_are_looked_at() {
        let phrases: Vec<PackedVector> =
            (0..100).map(|turn| PackedVector::from(&Vector::new([1.0, turn as f32 / 50.0, 0.3]))).collect();
        let near = |(offer, phrase)| Neighbour { offer, phrase, similarity: 1.0 - offer as f32 / 100.0 };
        let shares = explain(phrases.iter().enumerate().map(near).collect());
        assert_eq!(shares.len(), NEIGHBOURS_MAX);
        assert!(shares.iter().all(|(offer, share)| *offer < NEIGHBOURS_MAX && share.is_finite()), "{shares:?}");
        assert!(explain(Vec::new()).is_empty());
    }
}
