//! The kernels in plain Rust: what the others mean, and what runs where they cannot.

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
