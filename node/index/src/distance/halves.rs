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

/// Two to the power of 112, by which the bias of single precision's exponent is above binary16's.
const BIAS: f32 = f32::from_bits((112 + 127) << 23);

/// A cache line of floats of two bytes, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct HalfLine(pub(crate) [u16; HALF_LINE]);

/// How two bytes hold a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HalfKind {
    /// IEEE 754 binary16: 11 bits of precision, magnitudes up to 65,504.
    Float16,
    /// bfloat16, the upper half of a single-precision float: 8 bits of precision, all its magnitudes.
    Bfloat16,
}

impl HalfKind {
    /// The float of two bytes that is nearest to `value`, as bits; infinite when `value` is too large.
    pub(crate) fn rounded(self, value: f32) -> u16 {
        match self {
            HalfKind::Float16 => f16::from_f32(value).to_bits(),
            HalfKind::Bfloat16 => bf16::from_f32(value).to_bits(),
        }
    }

    /// True unless the float of two bytes is infinite or not a number.
    pub(crate) fn is_finite(self, bits: u16) -> bool {
        match self {
            HalfKind::Float16 => f16::from_bits(bits).is_finite(),
            HalfKind::Bfloat16 => bf16::from_bits(bits).is_finite(),
        }
    }

    /// The value of a finite float of two bytes. Without a branch, so that the compiler can widen many at once.
    #[inline(always)]
    pub(crate) fn widened(self, bits: u16) -> f32 {
        match self {
            HalfKind::Float16 => {
                // Exponent and fraction in their new places stand for a value that is too small by the difference of the two
                // biases, subnormal ones included; the product is exact.
                let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * BIAS;
                f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
            }
            HalfKind::Bfloat16 => f32::from_bits(u32::from(bits) << 16),
        }
    }

    /// A line of at most [`HALF_LINE`] values: each rounded, filled up with zeros.
    pub(crate) fn line(self, values: &[f32]) -> HalfLine {
        let mut line = HalfLine::zeroed();
        for (bits, value) in line.0.iter_mut().zip(values) {
            *bits = self.rounded(*value);
        }
        line
    }

    /// The values of `lines`, the zeros at the end included, in place of what is in `values`.
    #[inline(always)]
    pub(crate) fn widen(self, lines: &[HalfLine], values: &mut Vec<f32>) {
        values.resize(lines.len() * HALF_LINE, 0.0);
        let (wide, _) = values.as_chunks_mut::<HALF_LINE>();
        match self {
            HalfKind::Float16 => widen_lines(lines, wide, |bits| HalfKind::Float16.widened(bits)),
            HalfKind::Bfloat16 => widen_lines(lines, wide, |bits| HalfKind::Bfloat16.widened(bits)),
        }
    }
}

#[inline(always)]
fn widen_lines(lines: &[HalfLine], wide: &mut [[f32; HALF_LINE]], widened: impl Fn(u16) -> f32) {
    for (line, values) in lines.iter().zip(wide) {
        for (bits, value) in line.0.iter().zip(values) {
            *value = widened(*bits);
        }
    }
}

/// Appends a query for rows of two-byte floats to `lines`: filled up with zeros to two lines for each of a row.
pub(crate) fn append_query(query: &[f32], lines: &mut Vec<Line>) {
    line::append(query, lines);
    if query.len().div_ceil(LINE) % 2 == 1 {
        lines.push(Line::zeroed());
    }
}
