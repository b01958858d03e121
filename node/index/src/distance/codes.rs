//! Dot products of a query of signed bytes with rows of unsigned codes, gathered by their numbers.
//!
//! A query's values lie within ±64: the widest product pair of 8-bit codes, 2 · 255 · 64, fits the 16-bit sums that AVX2
//! has to go through, so that every instruction set gives the same integers. The widest sum, 65,536 · 255 · 64, fits 32 bits.

use bytemuck::{Pod, Zeroable};

/// Bytes of a cache line.
pub(crate) const CODE_LINE: usize = 64;
/// Largest magnitude of a query's value.
pub(crate) const QUERY_MAX: i8 = 64;
const _: () = assert!(2 * 255 * QUERY_MAX as i32 <= i16::MAX as i32);

/// A cache line of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct CodeLine(pub(crate) [u8; CODE_LINE]);

/// A cache line of a query's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct QueryLine(pub(crate) [i8; CODE_LINE]);

/// How wide the codes of a row are. A line holds several planes of 64 values each: byte j has the codes of value j of
/// every plane, the first plane's in its lowest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeWidth {
    /// One bit, the value's sign: eight planes a line.
    One,
    /// Four bits: two planes.
    Four,
    /// Eight bits: one plane.
    Eight,
}

impl CodeWidth {
    /// The width of so many bits: 1, 4 or 8.
    pub const fn of_bits(bits: u64) -> Option<CodeWidth> {
        match bits {
            1 => Some(CodeWidth::One),
            4 => Some(CodeWidth::Four),
            8 => Some(CodeWidth::Eight),
            _ => None,
        }
    }

    /// Bits of a code.
    pub const fn bits(self) -> u32 {
        match self {
            CodeWidth::One => 1,
            CodeWidth::Four => 4,
            CodeWidth::Eight => 8,
        }
    }

    /// Planes of a line.
    pub(crate) const fn planes(self) -> usize {
        (u8::BITS / self.bits()) as usize
    }

    /// Values of a cache line.
    pub(crate) const fn values_per_line(self) -> usize {
        self.planes() * CODE_LINE
    }

    /// Lines of a row of `dimension` values.
    pub(crate) const fn lines_of(self, dimension: usize) -> usize {
        dimension.div_ceil(self.values_per_line())
    }

    /// Lines of a query of `dimension` values: one for each plane. The last line of 1-bit codes, which would have many more,
    /// may lack some of its planes.
    pub(crate) const fn query_lines(self, dimension: usize) -> usize {
        match self {
            CodeWidth::One => dimension.div_ceil(CODE_LINE),
            CodeWidth::Four | CodeWidth::Eight => self.planes() * self.lines_of(dimension),
        }
    }

    /// Lines of a row whose query has `query_lines`.
    #[inline(always)]
    pub(crate) const fn lines_for(self, query_lines: usize) -> usize {
        query_lines.div_ceil(self.planes())
    }
}

/// Row `number` of rows of `stride` lines each.
#[inline(always)]
pub(crate) fn code_of(codes: &[CodeLine], stride: usize, number: u32) -> &[CodeLine] {
    &codes[number as usize * stride..][..stride]
}
