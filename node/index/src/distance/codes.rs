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

/// How wide the codes of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeWidth {
    /// Four bits: byte j of a line holds values j (low) and 64 + j (high) of 128.
    Four,
    /// Eight bits.
    Eight,
}

impl CodeWidth {
    /// Values of a cache line.
    pub(crate) const fn values_per_line(self) -> usize {
        match self {
            CodeWidth::Four => 2 * CODE_LINE,
            CodeWidth::Eight => CODE_LINE,
        }
    }

    /// Lines of a row of `dimension` values.
    pub(crate) const fn lines_of(self, dimension: usize) -> usize {
        dimension.div_ceil(self.values_per_line())
    }

    /// Lines of a query for rows of `lines` lines.
    pub(crate) const fn query_lines(self, lines: usize) -> usize {
        match self {
            CodeWidth::Four => 2 * lines,
            CodeWidth::Eight => lines,
        }
    }
}

/// Row `number` of rows of `stride` lines each.
#[inline(always)]
pub(crate) fn code_of(codes: &[CodeLine], stride: usize, number: u32) -> &[CodeLine] {
    &codes[number as usize * stride..][..stride]
}
