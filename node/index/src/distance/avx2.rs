//! Kernels for AVX2 with fused multiply-add: four pairs of sums of eight lanes, so that one add does not wait for the
//! last, over one row after the other: memory is read as one stream.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, _MM_HINT_T0, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm_prefetch,
    _mm256_add_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_load_ps,
    _mm256_setzero_ps, _mm256_sub_ps,
};

use crate::line::Line;

/// Pairs of sums that run side by side.
const SUMS: usize = 4;
/// Distance of the software prefetch: past the end of a page, where the hardware's prefetcher stops.
const AHEAD_BYTES: usize = 4096;

/// Proof that this processor has AVX2, FMA and F16C, which came together; [`Avx2::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Avx2> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }

    /// Runs `work`, compiled for this instruction set.
    #[inline(always)]
    pub(super) fn run<T>(self, work: impl FnOnce() -> T) -> T {
        // SAFETY: `self` exists only if `detect` found the features.
        unsafe { call(work) }
    }

    pub(super) fn dots(self, query: &[Line], rows: &[Line], out: &mut [f32]) {
        // SAFETY: `self` exists only if `detect` found AVX2 and FMA.
        unsafe { each_row::<false>(query, rows, out) }
    }

    pub(super) fn squared_distances(self, query: &[Line], rows: &[Line], out: &mut [f32]) {
        // SAFETY: `self` exists only if `detect` found AVX2 and FMA.
        unsafe { each_row::<true>(query, rows, out) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn call<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Sums of a·b, or of (a − b)² when `SQUARED_DISTANCE`, of the query and each row.
#[target_feature(enable = "avx2,fma")]
fn each_row<const SQUARED_DISTANCE: bool>(query: &[Line], rows: &[Line], out: &mut [f32]) {
    for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
        *estimate = sum::<SQUARED_DISTANCE>(query, row);
    }
}

/// The sum of one row, which is as long as the query.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum<const SQUARED_DISTANCE: bool>(query: &[Line], row: &[Line]) -> f32 {
    let mut sums = [[_mm256_setzero_ps(); 2]; SUMS];
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
    let [first, second, third, fourth] = sums.map(|[low, high]| _mm256_add_ps(low, high));
    total_of_lanes(_mm256_add_ps(_mm256_add_ps(first, second), _mm256_add_ps(third, fourth)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_terms<const SQUARED_DISTANCE: bool>(mut sum: [__m256; 2], a: &Line, b: &Line) -> [__m256; 2] {
    prefetch(b);
    for (sum, (a, b)) in sum.iter_mut().zip(load(a).into_iter().zip(load(b))) {
        *sum = add_term::<SQUARED_DISTANCE>(*sum, a, b);
    }
    sum
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_term<const SQUARED_DISTANCE: bool>(sum: __m256, a: __m256, b: __m256) -> __m256 {
    if SQUARED_DISTANCE {
        let difference = _mm256_sub_ps(a, b);
        _mm256_fmadd_ps(difference, difference, sum)
    } else {
        _mm256_fmadd_ps(a, b, sum)
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn total_of_lanes(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn load(line: &Line) -> [__m256; 2] {
    let (low, high) = line.0.split_at(8);
    // SAFETY: a line is sixteen floats at an address that is a multiple of 64: each half is eight, at one of 32.
    unsafe { [_mm256_load_ps(low.as_ptr()), _mm256_load_ps(high.as_ptr())] }
}

/// Asks for what lies a page behind `line`.
#[inline(always)]
pub(super) fn prefetch<T>(line: &T) {
    // SAFETY: a prefetch neither reads nor faults, so it may name any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).wrapping_byte_add(AHEAD_BYTES).cast()) };
}
