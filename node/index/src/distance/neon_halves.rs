//! Kernels over rows of two-byte floats for 64-bit Arm.
#![allow(unsafe_code)]

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddvq_f32, vcvt_f32_f16, vcvt_high_f32_f16, vdupq_n_f32, vget_low_f16,
    vget_low_u16, vld1q_u16, vreinterpretq_f16_u16, vreinterpretq_f32_u32, vshll_high_n_u16, vshll_n_u16,
};

use super::halves::{HalfKind, HalfLine};
use super::neon::{Neon, add_term, load, total_of_registers};
use crate::line::Line;

/// Registers of eight values that make a line; each is two when widened.
const QUARTERS: usize = 4;

/// See [`super::Kernels::half_dots`].
pub(super) fn dots(_: Neon, kind: HalfKind, query: &[Line], rows: &[HalfLine], out: &mut [f32]) {
    match kind {
        // SAFETY: the proof exists only if NEON was found.
        HalfKind::Float16 => unsafe { each_row::<true, false>(query, rows, out) },
        // SAFETY: as above.
        HalfKind::Bfloat16 => unsafe { each_row::<false, false>(query, rows, out) },
    }
}

/// See [`super::Kernels::half_squared_distances`].
pub(super) fn squared_distances(_: Neon, kind: HalfKind, query: &[Line], rows: &[HalfLine], out: &mut [f32]) {
    match kind {
        // SAFETY: the proof exists only if NEON was found.
        HalfKind::Float16 => unsafe { each_row::<true, true>(query, rows, out) },
        // SAFETY: as above.
        HalfKind::Bfloat16 => unsafe { each_row::<false, true>(query, rows, out) },
    }
}

#[target_feature(enable = "neon")]
fn each_row<const FLOAT16: bool, const SQUARED_DISTANCE: bool>(
    query: &[Line],
    rows: &[HalfLine],
    out: &mut [f32],
) {
    let (query, _) = query.as_chunks::<2>();
    for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
        *estimate = sum::<FLOAT16, SQUARED_DISTANCE>(query, row);
    }
}

/// The sum of one row, for which `query` has two lines for each of its lines.
#[inline]
#[target_feature(enable = "neon")]
fn sum<const FLOAT16: bool, const SQUARED_DISTANCE: bool>(query: &[[Line; 2]], row: &[HalfLine]) -> f32 {
    let mut sums = [[vdupq_n_f32(0.0); 2]; QUARTERS];
    for ([first, second], line) in query.iter().zip(row) {
        let [a, b, c, d] = load(first);
        let [e, f, g, h] = load(second);
        for (quarter, (sum, pair)) in sums.iter_mut().zip([[a, b], [c, d], [e, f], [g, h]]).enumerate() {
            let widened = widen::<FLOAT16>(line, quarter);
            for (sum, (query, row)) in sum.iter_mut().zip(pair.into_iter().zip(widened)) {
                *sum = add_term::<SQUARED_DISTANCE>(*sum, query, row);
            }
        }
    }
    vaddvq_f32(total_of_registers(sums.map(|[low, high]| vaddq_f32(low, high))))
}

/// The values of quarter `quarter` (0 to 3) of a line.
#[inline]
#[target_feature(enable = "neon")]
fn widen<const FLOAT16: bool>(line: &HalfLine, quarter: usize) -> [float32x4_t; 2] {
    let (quarters, _) = line.0.as_chunks::<8>();
    // SAFETY: a quarter of a line is eight values.
    let bits = unsafe { vld1q_u16(quarters[quarter].as_ptr()) };
    if FLOAT16 {
        let values = vreinterpretq_f16_u16(bits);
        [vcvt_f32_f16(vget_low_f16(values)), vcvt_high_f32_f16(values)]
    } else {
        [vshll_n_u16::<16>(vget_low_u16(bits)), vshll_high_n_u16::<16>(bits)]
            .map(|bits| vreinterpretq_f32_u32(bits))
    }
}
