//! Kernels for AVX-512: four sums of sixteen lanes, so that one add does not wait for the last, over one row after the
//! other: memory is read as one stream.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_reduce_add_ps,
    _mm512_setzero_ps, _mm512_sub_ps,
};

use crate::line::Line;

/// Sums that run side by side.
const SUMS: usize = 4;
/// Distance of the software prefetch: past the end of a page, where the hardware's prefetcher stops.
const AHEAD_BYTES: usize = 4096;

/// Proof that this processor has AVX-512F; [`Avx512::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Avx512> {
        is_x86_feature_detected!("avx512f").then_some(Avx512(()))
    }

    /// Runs `work`, compiled for this instruction set.
    #[inline(always)]
    pub(super) fn run<T>(self, work: impl FnOnce() -> T) -> T {
        // SAFETY: `self` exists only if `detect` found the features.
        unsafe { call(work) }
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

#[target_feature(enable = "avx512f")]
fn call<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Sums of a·b, or of (a − b)² when `SQUARED_DISTANCE`, of the query and each row.
#[target_feature(enable = "avx512f")]
fn each_row<const SQUARED_DISTANCE: bool>(query: &[Line], rows: &[Line], out: &mut [f32]) {
    for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
        *estimate = sum::<SQUARED_DISTANCE>(query, row);
    }
}

/// The sum of one row, which is as long as the query.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum<const SQUARED_DISTANCE: bool>(query: &[Line], row: &[Line]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); SUMS];
    let (query_groups, query_rest) = query.as_chunks::<SUMS>();
    let (row_groups, row_rest) = row.as_chunks::<SUMS>();
    for (a, b) in query_groups.iter().zip(row_groups) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            prefetch(b);
            *sum = add_term::<SQUARED_DISTANCE>(*sum, load(a), load(b));
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(query_rest.iter().zip(row_rest)) {
        prefetch(b);
        *sum = add_term::<SQUARED_DISTANCE>(*sum, load(a), load(b));
    }
    let [first, second, third, fourth] = sums;
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(first, second), _mm512_add_ps(third, fourth)))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_term<const SQUARED_DISTANCE: bool>(sum: __m512, a: __m512, b: __m512) -> __m512 {
    if SQUARED_DISTANCE {
        let difference = _mm512_sub_ps(a, b);
        _mm512_fmadd_ps(difference, difference, sum)
    } else {
        _mm512_fmadd_ps(a, b, sum)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(line: &Line) -> __m512 {
    // SAFETY: a line is sixteen floats at an address that is a multiple of 64.
    unsafe { _mm512_load_ps(line.0.as_ptr()) }
}

/// Asks for what lies a page behind `line`.
#[inline(always)]
pub(super) fn prefetch<T>(line: &T) {
    // SAFETY: a prefetch neither reads nor faults, so it may name any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).wrapping_byte_add(AHEAD_BYTES).cast()) };
}
