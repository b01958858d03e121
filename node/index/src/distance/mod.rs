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
mod avx2_halves;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_codes;
#[cfg(target_arch = "x86_64")]
mod avx512_halves;
pub(crate) mod codes;
pub(crate) mod halves;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_codes;
#[cfg(target_arch = "aarch64")]
mod neon_halves;
mod scalar;
#[cfg(test)]
mod tests;

use self::codes::{CodeLine, CodeWidth, QueryLine};
use self::halves::{HalfKind, HalfLine};
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
    #[cfg(target_arch = "aarch64")]
    NeonDotProd(neon::Neon, neon_codes::DotProd),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
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
    /// The best kernels of this processor, or those of the tier asked for: `avx512vnni`, `avx512`, `avxvnni` or `avx2`,
    /// on 64-bit Arm `neondotprod` or `neon`, and `scalar` everywhere.
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
            #[cfg(target_arch = "aarch64")]
            neon::Neon::detect()
                .zip(neon_codes::DotProd::detect())
                .map(|(floats, codes)| Tier::NeonDotProd(floats, codes)),
            #[cfg(target_arch = "aarch64")]
            neon::Neon::detect().map(Tier::Neon),
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
            #[cfg(target_arch = "aarch64")]
            Tier::NeonDotProd(..) => "neondotprod",
            #[cfg(target_arch = "aarch64")]
            Tier::Neon(_) => "neon",
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
            #[cfg(target_arch = "aarch64")]
            Tier::NeonDotProd(proof, _) | Tier::Neon(proof) => proof.dots(query, rows, out),
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
            #[cfg(target_arch = "aarch64")]
            Tier::NeonDotProd(proof, _) | Tier::Neon(proof) => proof.squared_distances(query, rows, out),
            Tier::Scalar => scalar::squared_distances(query, rows, out),
        }
    }

    /// Estimates the dot product of `query` with each row of `rows`, two-byte floats that lie one after the other, into
    /// `out`; `query` has two lines for each line of a row ([`halves::append_query`]).
    ///
    /// # Panics
    /// Unless `rows` has exactly `out.len()` rows of the query's dimension.
    pub(crate) fn half_dots(self, kind: HalfKind, query: &[Line], rows: &[HalfLine], out: &mut [f32]) {
        assert_eq!(2 * rows.len(), query.len() * out.len(), "rows of another dimension or number");
        assert!(query.len().is_multiple_of(2), "a query has two lines for each line of a row");
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni(proof, _) | Tier::Avx512(proof, _) => {
                avx512_halves::dots(proof, kind, query, rows, out);
            }
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni(proof, _) | Tier::Avx2(proof) => avx2_halves::dots(proof, kind, query, rows, out),
            #[cfg(target_arch = "aarch64")]
            Tier::NeonDotProd(proof, _) | Tier::Neon(proof) => {
                neon_halves::dots(proof, kind, query, rows, out);
            }
            Tier::Scalar => scalar::half_dots(kind, query, rows, out),
        }
    }

    /// Estimates the squared Euclidean distance of `query`, as for [`Kernels::half_dots`], to each row of `rows` into `out`.
    ///
    /// # Panics
    /// Unless `rows` has exactly `out.len()` rows of the query's dimension.
    pub(crate) fn half_squared_distances(
        self,
        kind: HalfKind,
        query: &[Line],
        rows: &[HalfLine],
        out: &mut [f32],
    ) {
        assert_eq!(2 * rows.len(), query.len() * out.len(), "rows of another dimension or number");
        assert!(query.len().is_multiple_of(2), "a query has two lines for each line of a row");
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni(proof, _) | Tier::Avx512(proof, _) => {
                avx512_halves::squared_distances(proof, kind, query, rows, out);
            }
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni(proof, _) | Tier::Avx2(proof) => {
                avx2_halves::squared_distances(proof, kind, query, rows, out);
            }
            #[cfg(target_arch = "aarch64")]
            Tier::NeonDotProd(proof, _) | Tier::Neon(proof) => {
                neon_halves::squared_distances(proof, kind, query, rows, out);
            }
            Tier::Scalar => scalar::half_squared_distances(kind, query, rows, out),
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
            #[cfg(target_arch = "aarch64")]
            Tier::NeonDotProd(_, proof) => proof.code_dots(width, query, codes, rows, out),
            #[cfg(target_arch = "aarch64")]
            Tier::Neon(proof) => neon_codes::code_dots(proof, width, query, codes, rows, out),
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
            // All code for 64-bit Arm is compiled for NEON.
            #[cfg(target_arch = "aarch64")]
            Tier::NeonDotProd(..) | Tier::Neon(_) => work(),
            Tier::Scalar => work(),
        }
    }
}
