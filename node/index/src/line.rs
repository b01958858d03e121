//! Cache lines of floats: how vectors lie in memory.
//!
//! A vector fills whole lines, the rest of its last line is zeros. So every vector starts on a cache line, no load
//! crosses one, and a kernel has no remainder to treat: zeros add nothing to a dot product or a distance.

use bytemuck::{Pod, Zeroable};

/// Floats of a line.
pub(crate) const LINE: usize = 16;

/// Sixteen floats that fill one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; LINE]);

/// Lines that a vector of `dimension` values fills.
pub(crate) const fn lines_of(dimension: usize) -> usize {
    dimension.div_ceil(LINE)
}

/// Appends a vector to `lines`, filled up with zeros.
pub(crate) fn append(vector: &[f32], lines: &mut Vec<Line>) {
    let (whole, rest) = vector.as_chunks::<LINE>();
    lines.extend(whole.iter().map(|values| Line(*values)));
    if !rest.is_empty() {
        let mut last = Line::zeroed();
        last.0[..rest.len()].copy_from_slice(rest);
        lines.push(last);
    }
}

/// The values that lie in `lines`, the zeros at the end included.
pub(crate) fn values(lines: &[Line]) -> &[f32] {
    bytemuck::cast_slice(lines)
}
