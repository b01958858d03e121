//! The kernels in plain Rust: what the others mean, and what runs where they cannot.

use super::codes::{CodeLine, CodeWidth, QueryLine, code_of};
use super::halves::{HalfKind, HalfLine};
use crate::line::{LINE, Line};

/// See [`super::Kernels::dots`].
pub(super) fn dots(query: &[Line], rows: &[Line], out: &mut [f32]) {
    each_row(query, rows, out, |a, b| a * b);
}

/// See [`super::Kernels::squared_distances`].
pub(super) fn squared_distances(query: &[Line], rows: &[Line], out: &mut [f32]) {
    each_row(query, rows, out, |a, b| (a - b) * (a - b));
}

#[inline(always)]
fn each_row(query: &[Line], rows: &[Line], out: &mut [f32], term: impl Fn(f32, f32) -> f32) {
    for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
        let mut sums = [0.0; LINE];
        for (a, b) in query.iter().zip(row) {
            for (sum, (a, b)) in sums.iter_mut().zip(a.0.iter().zip(&b.0)) {
                *sum += term(*a, *b);
            }
        }
        *estimate = sums.iter().sum();
    }
}

/// See [`super::Kernels::half_dots`].
pub(super) fn half_dots(kind: HalfKind, query: &[Line], rows: &[HalfLine], out: &mut [f32]) {
    each_half_row(kind, query, rows, out, |a, b| a * b);
}

/// See [`super::Kernels::half_squared_distances`].
pub(super) fn half_squared_distances(kind: HalfKind, query: &[Line], rows: &[HalfLine], out: &mut [f32]) {
    each_half_row(kind, query, rows, out, |a, b| (a - b) * (a - b));
}

#[inline(always)]
fn each_half_row(
    kind: HalfKind,
    query: &[Line],
    rows: &[HalfLine],
    out: &mut [f32],
    term: impl Fn(f32, f32) -> f32,
) {
    let (query, _) = query.as_chunks::<2>();
    for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
        let mut sums = [0.0; LINE];
        for (pair, line) in query.iter().zip(row) {
            for (query, bits) in pair.iter().zip(line.0.as_chunks::<LINE>().0) {
                for (sum, (a, bits)) in sums.iter_mut().zip(query.0.iter().zip(bits)) {
                    *sum += term(*a, kind.widened(*bits));
                }
            }
        }
        *estimate = sums.iter().sum();
    }
}

/// See [`super::Kernels::code_dots`].
pub(super) fn code_dots(
    width: CodeWidth,
    query: &[QueryLine],
    codes: &[CodeLine],
    rows: &[u32],
    out: &mut [i32],
) {
    let stride = width.lines_for(query.len());
    let mask = (u16::MAX >> (u16::BITS - width.bits())) as u8;
    for (row, out) in rows.iter().zip(out) {
        let code = code_of(codes, stride, *row);
        let lines = query.chunks(width.planes()).zip(code);
        let planes = lines.flat_map(|(planes, line)| {
            planes
                .iter()
                .zip((0..).step_by(width.bits() as usize))
                .map(move |(plane, shift)| (plane, line, shift))
        });
        *out = planes.map(|(plane, line, shift)| dot(plane, line, |byte| byte >> shift & mask)).sum();
    }
}

#[inline(always)]
fn dot(query: &QueryLine, code: &CodeLine, value: impl Fn(u8) -> u8) -> i32 {
    query.0.iter().zip(&code.0).map(|(q, c)| i32::from(*q) * i32::from(value(*c))).sum()
}
