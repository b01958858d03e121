//! Kernels: estimates of dot products and squared distances in single precision, as fast as memory delivers rows, and exact
//! dot products of small integers, the codes that stand for rows.
//!
//! One table of functions for each instruction set, chosen once. An estimate's error is bounded whatever the order of
//! its sums (see [`crate::scan`]), so the kernels need not agree with each other to the last bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_codes;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_codes;
pub(crate) mod codes;
mod scalar;

use self::codes::{CodeLine, CodeWidth, QueryLine};
use crate::line::Line;

/// The kernels of one instruction set. Holding a value proves that the processor has it.
#[derive(Clone, Copy, Debug)]
pub struct Kernels(Tier);

#[derive(Clone, Copy, Debug)]
enum Tier {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(avx512::Avx512, avx512_codes::Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512, avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(avx2::Avx2, avx2_codes::AvxVnni),
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
    /// The best kernels of this processor, or those of the tier asked for: `avx512vnni`, `avx512`, `avxvnni`, `avx2` or
    /// `scalar`.
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
            avx512::Avx512::detect()
                .zip(avx512_codes::Avx512Vnni::detect())
                .map(|(floats, codes)| Tier::Avx512Vnni(floats, codes)),
            #[cfg(target_arch = "x86_64")]
            avx512::Avx512::detect()
                .zip(avx2::Avx2::detect())
                .map(|(floats, codes)| Tier::Avx512(floats, codes)),
            #[cfg(target_arch = "x86_64")]
            avx2::Avx2::detect()
                .zip(avx2_codes::AvxVnni::detect())
                .map(|(floats, codes)| Tier::AvxVnni(floats, codes)),
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
            Tier::Avx512Vnni(..) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(..) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni(..) => "avxvnni",
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
            Tier::Avx512Vnni(proof, _) | Tier::Avx512(proof, _) => proof.dots(query, rows, out),
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni(proof, _) | Tier::Avx2(proof) => proof.dots(query, rows, out),
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
            Tier::Avx512Vnni(proof, _) | Tier::Avx512(proof, _) => proof.squared_distances(query, rows, out),
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni(proof, _) | Tier::Avx2(proof) => proof.squared_distances(query, rows, out),
            Tier::Scalar => scalar::squared_distances(query, rows, out),
        }
    }

    /// The dot products of a query with the codes of `rows`, numbers of rows in `codes`, into `out`: exact.
    ///
    /// # Panics
    /// Unless there are as many results as rows, and a row is in `codes`.
    #[inline]
    pub(crate) fn code_dots(
        self,
        width: CodeWidth,
        query: &[QueryLine],
        codes: &[CodeLine],
        rows: &[u32],
        out: &mut [i32],
    ) {
        assert_eq!(rows.len(), out.len(), "a result for each row");
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni(_, proof) => proof.code_dots(width, query, codes, rows, out),
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni(_, proof) => proof.code_dots(width, query, codes, rows, out),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(_, proof) | Tier::Avx2(proof) => {
                avx2_codes::code_dots(proof, width, query, codes, rows, out);
            }
            Tier::Scalar => scalar::code_dots(width, query, codes, rows, out),
        }
    }

    /// Runs a loop over numbers with this processor's widest vectors. The loop's result does not depend on that: nothing
    /// is fused or reordered.
    #[inline(always)]
    pub(crate) fn vectorized<T>(self, work: impl FnOnce() -> T) -> T {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni(proof, _) | Tier::Avx512(proof, _) => proof.run(work),
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni(proof, _) | Tier::Avx2(proof) => proof.run(work),
            Tier::Scalar => work(),
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

    #[test]
    fn code_dots_are_the_same_integers_everywhere() {
        // Extremes too: sums of the widest products.
        let number = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8;
        let cases = [(1, false), (2, false), (3, true), (7, false), (16, true), (17, true), (64, true)];
        for (lines, extreme) in cases {
            let code = |i| CodeLine(std::array::from_fn(|j| if extreme { 255 } else { number(i * 64 + j) }));
            let codes: Vec<CodeLine> = (0..lines * 11).map(code).collect();
            for width in [CodeWidth::Four, CodeWidth::Eight] {
                let value = |i: usize| {
                    if extreme { codes::QUERY_MAX } else { (i16::from(number(i * 31 + 5) % 129) - 64) as i8 }
                };
                let query: Vec<QueryLine> = (0..width.query_lines(lines))
                    .map(|i| QueryLine(std::array::from_fn(|j| value(i * 64 + j))))
                    .collect();
                for rows in [&[][..], &[3], &[0, 10, 5], &[1, 2, 3, 4], &[9, 8, 7, 6, 5, 4, 3, 2, 1]] {
                    let mut expected = vec![0; rows.len()];
                    scalar::code_dots(width, &query, &codes, rows, &mut expected);
                    for kernels in Kernels::available() {
                        let mut dots = vec![-1; rows.len()];
                        kernels.code_dots(width, &query, &codes, rows, &mut dots);
                        assert_eq!(dots, expected, "{} {width:?} {lines} lines", kernels.name());
                    }
                }
            }
        }
    }
}
