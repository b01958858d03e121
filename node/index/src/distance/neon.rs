//! Kernels for 64-bit Arm with NEON: four groups of four sums of four lanes, so that one add does not wait for the last,
//! over one row after the other: memory is read as one stream.
#![allow(unsafe_code)]

use std::arch::aarch64::{float32x4_t, vaddq_f32, vaddvq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vsubq_f32};
use std::arch::is_aarch64_feature_detected;

use crate::line::{LINE, Line};

/// Lines whose sums run side by side: sixteen registers, what four units need whose adds take four cycles.
const SUMS: usize = 4;
/// Registers of a line.
const QUARTERS: usize = 4;

/// Proof that this processor has NEON; [`Neon::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon(());

impl Neon {
    pub(super) fn detect() -> Option<Neon> {
        is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }

    pub(super) fn dots(self, query: &[Line], rows: &[Line], out: &mut [f32]) {
        // SAFETY: `self` exists only if `detect` found NEON.
        unsafe { each_row::<false>(query, rows, out) }
    }

    pub(super) fn squared_distances(self, query: &[Line], rows: &[Line], out: &mut [f32]) {
        // SAFETY: `self` exists only if `detect` found NEON.
        unsafe { each_row::<true>(query, rows, out) }
    }
}

/// Sums of a·b, or of (a − b)² when `SQUARED_DISTANCE`, of the query and each row.
#[target_feature(enable = "neon")]
fn each_row<const SQUARED_DISTANCE: bool>(query: &[Line], rows: &[Line], out: &mut [f32]) {
    for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
        *estimate = sum::<SQUARED_DISTANCE>(query, row);
    }
}

/// The sum of one row, which is as long as the query.
#[inline]
#[target_feature(enable = "neon")]
fn sum<const SQUARED_DISTANCE: bool>(query: &[Line], row: &[Line]) -> f32 {
    let mut sums = [[vdupq_n_f32(0.0); QUARTERS]; SUMS];
    let (query_groups, query_rest) = query.as_chunks::<SUMS>();
    let (row_groups, row_rest) = row.as_chunks::<SUMS>();
    for (a, b) in query_groups.iter().zip(row_groups) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = add_terms::<SQUARED_DISTANCE>(*sum, a, b);
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(query_rest.iter().zip(row_rest)) {
        *sum = add_terms::<SQUARED_DISTANCE>(*sum, a, b);
    }
    let [first, second, third, fourth] = sums.map(|sum| total_of_registers(sum));
    vaddvq_f32(vaddq_f32(vaddq_f32(first, second), vaddq_f32(third, fourth)))
}

#[inline]
#[target_feature(enable = "neon")]
fn add_terms<const SQUARED_DISTANCE: bool>(
    mut sum: [float32x4_t; QUARTERS],
    a: &Line,
    b: &Line,
) -> [float32x4_t; QUARTERS] {
    for (sum, (a, b)) in sum.iter_mut().zip(load(a).into_iter().zip(load(b))) {
        *sum = add_term::<SQUARED_DISTANCE>(*sum, a, b);
    }
    sum
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_term<const SQUARED_DISTANCE: bool>(
    sum: float32x4_t,
    a: float32x4_t,
    b: float32x4_t,
) -> float32x4_t {
    if SQUARED_DISTANCE {
        let difference = vsubq_f32(a, b);
        vfmaq_f32(sum, difference, difference)
    } else {
        vfmaq_f32(sum, a, b)
    }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn total_of_registers([a, b, c, d]: [float32x4_t; QUARTERS]) -> float32x4_t {
    vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load(line: &Line) -> [float32x4_t; QUARTERS] {
    const { assert!(LINE == 4 * QUARTERS) };
    let (quarters, _) = line.0.as_chunks::<4>();
    // SAFETY: a quarter is four floats.
    std::array::from_fn(|quarter| unsafe { vld1q_f32(quarters[quarter].as_ptr()) })
}
