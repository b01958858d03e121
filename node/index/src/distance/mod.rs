//! Single-precision kernels: estimates of dot products and squared distances, as fast as memory delivers rows.
//!
//! One table of functions for each instruction set, chosen once. An estimate's error is bounded whatever the order of
//! its sums (see [`crate::scan`]), so the kernels need not agree with each other to the last bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use crate::line::Line;

/// The kernels of one instruction set. Holding a value proves that the processor has it.
#[derive(Clone, Copy, Debug)]
pub struct Kernels(Tier);

#[derive(Clone, Copy, Debug)]
enum Tier {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    Scalar,
}

/// A tier that was asked for and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel tier {wanted:?} is not one of those that this processor has: {}", available.join(", "))]
pub struct UnknownTier {
    /// What was asked for.
    pub wanted: String,
    /// What there is, the best first.
    pub available: Vec<&'static str>,
}

impl Kernels {
    /// The best kernels of this processor, or those of the tier asked for: `avx512`, `avx2` or `scalar`.
    ///
    /// # Errors
    /// When the tier does not exist or the processor lacks it.
    pub fn detect(tier: Option<&str>) -> Result<Kernels, UnknownTier> {
        let mut available = Kernels::available();
        let found = match tier {
            None => available.next(),
            Some(wanted) => available.find(|kernels| kernels.name() == wanted),
        };
        found.ok_or_else(|| UnknownTier {
            wanted: tier.unwrap_or_default().to_owned(),
            available: Kernels::available().map(Kernels::name).collect(),
        })
    }

    /// All kernels that this processor can run, the best first; scalar is always among them.
    pub fn available() -> impl Iterator<Item = Kernels> {
        let tiers = [
            #[cfg(target_arch = "x86_64")]
            avx512::Avx512::detect().map(Tier::Avx512),
            #[cfg(target_arch = "x86_64")]
            avx2::Avx2::detect().map(Tier::Avx2),
            Some(Tier::Scalar),
        ];
        tiers.into_iter().flatten().map(Kernels)
    }

    /// The tier's name.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(_) => "avx2",
            Tier::Scalar => "scalar",
        }
    }

    /// Estimates the dot product of `query` with each row of `rows`, which lie one after the other, into `out`.
    ///
    /// # Panics
    /// Unless `rows` has exactly `out.len()` rows of the query's dimension.
    pub(crate) fn dots(self, query: &[Line], rows: &[Line], out: &mut [f32]) {
        assert_eq!(rows.len(), query.len() * out.len(), "rows of another dimension or number");
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(proof) => proof.dots(query, rows, out),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(proof) => proof.dots(query, rows, out),
            Tier::Scalar => scalar::dots(query, rows, out),
        }
    }

    /// Estimates the squared Euclidean distance of `query` to each row of `rows` into `out`.
    ///
    /// # Panics
    /// Unless `rows` has exactly `out.len()` rows of the query's dimension.
    pub(crate) fn squared_distances(self, query: &[Line], rows: &[Line], out: &mut [f32]) {
        assert_eq!(rows.len(), query.len() * out.len(), "rows of another dimension or number");
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(proof) => proof.squared_distances(query, rows, out),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(proof) => proof.squared_distances(query, rows, out),
            Tier::Scalar => scalar::squared_distances(query, rows, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::line;

    /// A kernel's result lies within the bound that `scan` relies on: γ·Σ|term| around the exact sum.
    fn within_bound(estimate: f32, terms: impl Iterator<Item = f64> + Clone, dimension: usize) -> bool {
        let (exact, absolute): (f64, f64) = (terms.clone().sum(), terms.map(f64::abs).sum());
        let bound = (dimension as f64 + 4.0) * f64::from(f32::EPSILON) / 2.0 * 1.01 * absolute
            + dimension as f64 * f64::from(f32::MIN_POSITIVE);
        (f64::from(estimate) - exact).abs() <= bound
    }

    fn check(query: &[f32], rows: &[f32], count: usize) {
        let mut query_lines = Vec::new();
        line::append(query, &mut query_lines);
        let mut row_lines = Vec::new();
        rows.chunks_exact(query.len()).for_each(|row| line::append(row, &mut row_lines));
        for kernels in Kernels::available() {
            let (mut dots, mut distances) = (vec![f32::NAN; count], vec![f32::NAN; count]);
            kernels.dots(&query_lines, &row_lines, &mut dots);
            kernels.squared_distances(&query_lines, &row_lines, &mut distances);
            for (index, row) in rows.chunks_exact(query.len()).enumerate() {
                let pairs = query.iter().zip(row).map(|(a, b)| (f64::from(*a), f64::from(*b)));
                let products = pairs.clone().map(|(a, b)| a * b);
                assert!(within_bound(dots[index], products, query.len()), "{} dot {index}", kernels.name());
                let squares = pairs.map(|(a, b)| (a - b) * (a - b));
                assert!(
                    within_bound(distances[index], squares, query.len()),
                    "{} l2 {index}",
                    kernels.name()
                );
            }
        }
    }

    proptest! {
        #[test]
        fn every_kernel_keeps_its_bound(
            (dimension, values) in (1usize..=300).prop_flat_map(|dimension| {
                (Just(dimension), prop::collection::vec(-1e3f32..1e3, dimension * 8))
            }),
        ) {
            check(&values[..dimension], &values[dimension..], 7);
        }
    }

    #[test]
    fn odd_dimensions_up_to_4096_keep_their_bound() {
        for dimension in
            [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129, 383, 384, 385, 1023, 4095, 4096]
        {
            let value = |i: usize| ((i * 2_654_435_761) % 10_007) as f32 / 5_003.5 - 1.0;
            let query: Vec<f32> = (0..dimension).map(value).collect();
            let rows: Vec<f32> = (0..dimension * 5).map(|i| value(i + 77)).collect();
            check(&query, &rows, 5);
        }
    }

    #[test]
    fn a_tier_can_be_forced() {
        assert_eq!(Kernels::detect(Some("scalar")).map(Kernels::name), Ok("scalar"));
        let error = Kernels::detect(Some("abacus")).expect_err("no such tier");
        assert!(error.to_string().contains("abacus") && error.to_string().contains("scalar"), "{error}");
    }
}
