//! Kernels for AVX-512: four rows at once, one sum of sixteen lanes each, so that one add does not wait for the last.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_fmadd_ps, _mm512_load_ps, _mm512_reduce_add_ps,
    _mm512_setzero_ps, _mm512_sub_ps,
};

use crate::line::Line;

/// Rows that are summed at once.
const ROWS: usize = 4;
/// Distance of the software prefetch: past the end of a page, where the hardware's prefetcher stops.
const AHEAD_BYTES: usize = 4096;

/// Proof that this processor has AVX-512F; [`Avx512::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Avx512> {
        is_x86_feature_detected!("avx512f").then_some(Avx512(()))
    }

    pub(super) fn dots(self, query: &[Line], rows: &[Line], out: &mut [f32]) {
        // SAFETY: `self` exists only if `detect` found AVX-512F.
        unsafe { each_row::<false>(query, rows, out) }
    }

    pub(super) fn squared_distances(self, query: &[Line], rows: &[Line], out: &mut [f32]) {
        // SAFETY: `self` exists only if `detect` found AVX-512F.
        unsafe { each_row::<true>(query, rows, out) }
    }
}

/// Sums of a·b, or of (a − b)² when `SQUARED_DISTANCE`, of the query and each row.
#[target_feature(enable = "avx512f")]
fn each_row<const SQUARED_DISTANCE: bool>(query: &[Line], rows: &[Line], out: &mut [f32]) {
    let stride = query.len();
    let (groups, rest) = out.as_chunks_mut::<ROWS>();
    let (grouped, ungrouped) = rows.split_at(groups.len() * ROWS * stride);
    for (group, estimates) in grouped.chunks_exact(ROWS * stride).zip(groups) {
        let rows = std::array::from_fn(|row| &group[row * stride..][..stride]);
        *estimates = sums::<SQUARED_DISTANCE, ROWS>(query, rows);
    }
    for (row, estimate) in ungrouped.chunks_exact(stride).zip(rest) {
        [*estimate] = sums::<SQUARED_DISTANCE, 1>(query, [row]);
    }
}

/// The sums of `N` rows, each as long as the query.
#[inline]
#[target_feature(enable = "avx512f")]
fn sums<const SQUARED_DISTANCE: bool, const N: usize>(query: &[Line], rows: [&[Line]; N]) -> [f32; N] {
    let rows = rows.map(|row| &row[..query.len()]); // one check of the bounds, not one for each line
    let mut sums = [_mm512_setzero_ps(); N];
    for (index, line) in query.iter().enumerate() {
        let a = load(line);
        for (sum, row) in sums.iter_mut().zip(rows) {
            prefetch(&row[index]);
            let b = load(&row[index]);
            *sum = if SQUARED_DISTANCE {
                let difference = _mm512_sub_ps(a, b);
                _mm512_fmadd_ps(difference, difference, *sum)
            } else {
                _mm512_fmadd_ps(a, b, *sum)
            };
        }
    }
    let mut totals = [0.0; N];
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total = _mm512_reduce_add_ps(sum);
    }
    totals
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512 {
    // SAFETY: a line is sixteen floats at an address that is a multiple of 64.
    unsafe { _mm512_load_ps(line.0.as_ptr()) }
}

/// Asks for what lies a page behind `line`.
#[inline(always)]
fn prefetch(line: &Line) {
    // SAFETY: a prefetch neither reads nor faults, so it may name any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).wrapping_byte_add(AHEAD_BYTES).cast()) };
}
