//! A random rotation that costs n·log n: signs, then Hadamard transforms of two windows that overlap.
//!
//! One transform needs a power of two. Two of them over the first and the last 2^m values mix any dimension between
//! 2^m and 2^(m+1) after two rounds, without the memory of padding to the next power.

use crate::Kernels;

/// Rounds of signs and transforms.
const ROUNDS: usize = 2;
/// Values of a padded vector come in lines of this many.
const PAD: usize = 64;

/// A rotation of vectors of one dimension, given by a seed.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    dimension: usize,
    seed: u64,
    /// Largest power of two that is not larger than the padded dimension.
    window: usize,
    /// Factors of each round, of both windows: signs, and what keeps lengths.
    factors: Vec<f32>,
}

/// Values of a rotated vector.
pub(crate) const fn padded(dimension: usize) -> usize {
    dimension.next_multiple_of(PAD)
}

impl Rotation {
    /// For vectors of `dimension` values.
    pub(crate) fn new(dimension: usize, seed: u64) -> Rotation {
        let padded = padded(dimension);
        let window = 1 << padded.ilog2();
        let mut state = seed;
        let factors = (0..ROUNDS * 2 * window)
            .map(|_| {
                let sign = if split_mix(&mut state) >> 63 == 0 { 1.0 } else { -1.0 };
                sign / (window as f32).sqrt()
            })
            .collect();
        Rotation { dimension, seed, window, factors }
    }

    /// Values of a vector.
    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    /// What it was made of.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Values of a rotated vector: the dimension, filled up to a multiple of 64.
    pub(crate) fn padded(&self) -> usize {
        self.dimension.next_multiple_of(PAD)
    }

    /// Rotates `vector` into `out`, in place of what was there.
    pub(crate) fn rotate(&self, kernels: Kernels, vector: &[f32], out: &mut Vec<f32>) {
        assert_eq!(vector.len(), self.dimension, "a vector of another dimension");
        out.clear();
        out.extend_from_slice(vector);
        out.resize(self.padded(), 0.0);
        let last = out.len() - self.window;
        for factors in self.factors.chunks_exact(2 * self.window) {
            let (first_factors, last_factors) = factors.split_at(self.window);
            kernels.vectorized(
                #[inline(always)]
                || transform(&mut out[..self.window], first_factors),
            );
            kernels.vectorized(
                #[inline(always)]
                || transform(&mut out[last..], last_factors),
            );
        }
    }
}

/// Multiplies by `factors`, then the unnormalised Hadamard transform; a power of two of values, 64 or more.
#[inline(always)]
fn transform(values: &mut [f32], factors: &[f32]) {
    for (x, factor) in values.iter_mut().zip(factors) {
        *x *= factor;
    }
    // Distances below a line first, within arrays that stay in registers.
    let (lines, _) = values.as_chunks_mut::<16>();
    for line in lines {
        butterflies::<1>(line);
        butterflies::<2>(line);
        butterflies::<4>(line);
        butterflies::<8>(line);
    }
    let mut half = 16;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

#[inline(always)]
fn butterflies<const HALF: usize>(line: &mut [f32; 16]) {
    let old = *line;
    for (i, x) in line.iter_mut().enumerate() {
        let partner = old[i ^ HALF];
        *x = if i & HALF == 0 { old[i] + partner } else { partner - old[i] };
    }
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A random order, given by a seed (Fisher and Yates).
pub(crate) fn shuffle(values: &mut [u32], seed: u64) {
    let mut state = seed;
    for last in (1..values.len()).rev() {
        let other = ((u128::from(split_mix(&mut state)) * (last as u128 + 1)) >> 64) as usize;
        values.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_angles_stay() {
        for dimension in [1, 31, 64, 65, 100, 127, 128, 384, 700, 1_536, 4_096] {
            let rotation = Rotation::new(dimension, 7);
            let vector = |salt: usize| -> Vec<f32> {
                (0..dimension).map(|i| ((i * 31 + salt * 17) % 101) as f32 / 50.5 - 1.0).collect()
            };
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
            };
            let (a, b) = (vector(1), vector(2));
            let (mut rotated_a, mut rotated_b) = (Vec::new(), Vec::new());
            for kernels in Kernels::available() {
                rotation.rotate(kernels, &a, &mut rotated_a);
                rotation.rotate(kernels, &b, &mut rotated_b);
                assert_eq!(rotated_a.len(), rotation.padded());
                let scale = (dot(&a, &a) * dot(&b, &b)).sqrt();
                assert!((dot(&a, &b) - dot(&rotated_a, &rotated_b)).abs() < 1e-5 * scale, "{dimension}");
                assert!((dot(&a, &a) / dot(&rotated_a, &rotated_a) - 1.0).abs() < 1e-5, "{dimension}");
            }
        }
    }

    #[test]
    fn a_single_value_is_spread() {
        let rotation = Rotation::new(384, 7);
        let mut vector = vec![0.0; 384];
        vector[200] = 1.0;
        let mut rotated = Vec::new();
        rotation.rotate(Kernels::available().next().expect("scalar"), &vector, &mut rotated);
        let largest = rotated.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert!(largest < 0.3, "{largest}");
    }
}
