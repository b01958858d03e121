//! Scores that leave the engine: double precision, one fixed order of operations.
//!
//! Plain loops over eight lanes, never fused multiply-adds, so that the result is equal bit for bit on every processor
//! and build; the compiler may use any vector width without changing it.

use crate::Metric;

const LANES: usize = 8;

/// Euclidean norm of a row of finite values.
#[inline(always)]
pub fn norm(row: &[f32]) -> f64 {
    dot(row, row).sqrt()
}

/// Score of `row` for `query` under `metric`; both have the same dimension and finite values.
///
/// The norms are those that [`norm`] gives. Cosine is clamped to -1..=1, which rounding could leave by one unit in the
/// last place. A zero vector has no direction; its cosine is 0 here, so that no score is ever NaN.
///
/// # Panics
/// When the dimensions differ.
#[inline(always)]
pub fn score(metric: Metric, query: &[f32], query_norm: f64, row: &[f32], row_norm: f64) -> f64 {
    match metric {
        Metric::Cosine if query_norm == 0.0 || row_norm == 0.0 => 0.0,
        Metric::Cosine => (dot(query, row) / (query_norm * row_norm)).clamp(-1.0, 1.0),
        Metric::Dot => dot(query, row),
        Metric::L2 => squared_distance(query, row).sqrt(),
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    lanes(a, b, |x, y| f64::from(x) * f64::from(y))
}

#[inline(always)]
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    lanes(a, b, |x, y| {
        let difference = f64::from(x) - f64::from(y);
        difference * difference
    })
}

/// Sum of `term` over all pairs: pair i is added to lane i mod 8, then the lanes are added in a fixed tree.
#[inline(always)]
fn lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f64) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of different dimensions");
    let mut sums = [0.0; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    for (lane, (x, y)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] += term(*x, *y);
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_scores() {
        let (a, b) = ([3.0, 4.0], [4.0, 3.0]);
        assert_eq!(norm(&a), 5.0);
        assert_eq!(score(Metric::Dot, &a, 5.0, &b, 5.0), 24.0);
        assert_eq!(score(Metric::Cosine, &a, 5.0, &b, 5.0), 24.0 / 25.0);
        assert_eq!(score(Metric::L2, &a, 5.0, &b, 5.0), 2.0f64.sqrt());
    }

    #[test]
    fn a_vector_is_exactly_like_itself() {
        for dimension in 1..200 {
            let row: Vec<f32> = (0..dimension).map(|i| (i as f32 * 0.37).sin() + 0.01).collect();
            let norm = norm(&row);
            assert!((1.0 - score(Metric::Cosine, &row, norm, &row, norm)).abs() < 1e-15);
            assert_eq!(score(Metric::L2, &row, norm, &row, norm), 0.0);
        }
    }

    #[test]
    fn a_zero_vector_is_like_nothing() {
        let (zero, row) = ([0.0, -0.0], [3.0, 4.0]);
        assert_eq!(score(Metric::Cosine, &zero, 0.0, &row, 5.0), 0.0);
        assert_eq!(score(Metric::Cosine, &row, 5.0, &zero, 0.0), 0.0);
        assert_eq!(score(Metric::Cosine, &zero, 0.0, &zero, 0.0), 0.0);
    }

    #[test]
    fn the_largest_allowed_values_do_not_overflow() {
        let row = vec![1e18f32; 65_536];
        let norm = norm(&row);
        assert!(norm.is_finite() && score(Metric::Dot, &row, norm, &row, norm).is_finite());
        assert_eq!(score(Metric::Cosine, &row, norm, &row, norm), 1.0);
    }

    #[test]
    fn the_order_of_operations_is_part_of_the_contract() {
        // Values from an independent computation in the documented order: a change here changes users' scores.
        let a: Vec<f32> = (0..19).map(|i| 1.0 / (i as f32 + 1.0)).collect();
        let b: Vec<f32> = (0..19).map(|i| 1.0 / (i as f32 + 2.0)).collect();
        let mut sums = [0.0f64; 8];
        for (i, (x, y)) in a.iter().zip(&b).enumerate() {
            sums[i % 8] += f64::from(*x) * f64::from(*y);
        }
        let expected =
            ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
        assert_eq!(dot(&a, &b).to_bits(), expected.to_bits());
    }
}
