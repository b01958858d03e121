//! Cache lines of floats of two bytes: rows at half the memory, compared with queries that stay in single precision.
//!
//! A kernel widens a row's values to single precision, which loses nothing, and goes on as for floats of four bytes. So
//! its estimate of the widened row keeps the bound that [`crate::scan`] relies on. Instructions that multiply two-byte
//! floats are not for that: they would round the query as well.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use crate::line::{self, LINE, Line};

/// Values of a cache line.
pub(crate) const HALF_LINE: usize = 2 * LINE;

/// A cache line of floats of two bytes, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct HalfLine(pub(crate) [u16; HALF_LINE]);

/// How two bytes hold a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(not(test), expect(dead_code, reason = "rows are kept in single precision alone so far"))]
pub(crate) enum HalfKind {
    /// IEEE 754 binary16: 11 bits of precision, magnitudes up to 65,504.
    Float16,
    /// bfloat16, the upper half of a single-precision float: 8 bits of precision, all its magnitudes.
    Bfloat16,
}

impl HalfKind {
    /// The float of two bytes that is nearest to `value`, as bits.
    pub(crate) fn rounded(self, value: f32) -> u16 {
        match self {
            HalfKind::Float16 => f16::from_f32_const(value).to_bits(),
            HalfKind::Bfloat16 => bf16::from_f32_const(value).to_bits(),
        }
    }

    /// The value of a float of two bytes.
    #[inline(always)]
    pub(crate) fn widened(self, bits: u16) -> f32 {
        match self {
            HalfKind::Float16 => f16::from_bits(bits).to_f32_const(),
            HalfKind::Bfloat16 => bf16::from_bits(bits).to_f32_const(),
        }
    }

    /// Appends a row to `lines`: each value rounded, filled up with zeros.
    #[cfg_attr(not(test), expect(dead_code, reason = "rows are kept in single precision alone so far"))]
    pub(crate) fn append(self, row: &[f32], lines: &mut Vec<HalfLine>) {
        lines.extend(row.chunks(HALF_LINE).map(|values| {
            let mut line = HalfLine::zeroed();
            for (bits, value) in line.0.iter_mut().zip(values) {
                *bits = self.rounded(*value);
            }
            line
        }));
    }
}

/// Appends a query for rows of two-byte floats to `lines`: filled up with zeros to two lines for each of a row.
#[cfg_attr(not(test), expect(dead_code, reason = "rows are kept in single precision alone so far"))]
pub(crate) fn append_query(query: &[f32], lines: &mut Vec<Line>) {
    line::append(query, lines);
    if query.len().div_ceil(LINE) % 2 == 1 {
        lines.push(Line::zeroed());
    }
}
