//! Kernels for AVX2 with fused multiply-add: four sums of eight lanes hide the latency of the adds.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    _mm256_storeu_ps, _mm256_sub_ps,
};

const LANES: usize = 8;
/// Distance of the software prefetch: past the end of a page, where the hardware's prefetcher stops.
const AHEAD_BYTES: usize = 4096;
const LINE_BYTES: usize = 64;

/// Proof that this processor has AVX2 and FMA; [`Avx2::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }

    pub(super) fn dots(self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
            // SAFETY: `self` exists only if `detect` found AVX2 and FMA; `chunks_exact` made the lengths equal.
            *estimate = unsafe { sum::<false>(query, row) };
        }
    }

    pub(super) fn squared_distances(self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
            // SAFETY: as in `dots`.
            *estimate = unsafe { sum::<true>(query, row) };
        }
    }
}

/// Sum of a·b, or of (a − b)² when `SQUARED_DISTANCE`.
///
/// # Safety
/// The processor has AVX2 and FMA, and `b` is as long as `a`.
#[target_feature(enable = "avx2,fma")]
unsafe fn sum<const SQUARED_DISTANCE: bool>(a: &[f32], b: &[f32]) -> f32 {
    let [mut s0, mut s1, mut s2, mut s3] = [_mm256_setzero_ps(); 4];
    let blocks = a.len() / (4 * LANES);
    for block in 0..blocks {
        let at = block * 4 * LANES;
        // SAFETY: `at + 4 · LANES <= a.len()`, and `b` is as long; a prefetch reads nothing and may name any address.
        unsafe {
            let (a, b) = (a.as_ptr().add(at), b.as_ptr().add(at));
            for line in 0..4 * LANES * size_of::<f32>() / LINE_BYTES {
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_byte_add(AHEAD_BYTES + line * LINE_BYTES).cast());
            }
            s0 = step::<SQUARED_DISTANCE>(_mm256_loadu_ps(a), _mm256_loadu_ps(b), s0);
            s1 = step::<SQUARED_DISTANCE>(_mm256_loadu_ps(a.add(LANES)), _mm256_loadu_ps(b.add(LANES)), s1);
            s2 = step::<SQUARED_DISTANCE>(
                _mm256_loadu_ps(a.add(2 * LANES)),
                _mm256_loadu_ps(b.add(2 * LANES)),
                s2,
            );
            s3 = step::<SQUARED_DISTANCE>(
                _mm256_loadu_ps(a.add(3 * LANES)),
                _mm256_loadu_ps(b.add(3 * LANES)),
                s3,
            );
        }
    }
    let mut at = blocks * 4 * LANES;
    while at + LANES <= a.len() {
        // SAFETY: `at + LANES <= a.len()`, and `b` is as long.
        let (x, y) = unsafe { (_mm256_loadu_ps(a.as_ptr().add(at)), _mm256_loadu_ps(b.as_ptr().add(at))) };
        s0 = step::<SQUARED_DISTANCE>(x, y, s0);
        at += LANES;
    }
    let whole = _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3));
    let mut lanes = [0.0f32; LANES];
    // SAFETY: `lanes` has room for eight floats.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), whole) };
    let rest =
        a[at..].iter().zip(&b[at..]).map(|(a, b)| if SQUARED_DISTANCE { (a - b) * (a - b) } else { a * b });
    lanes.iter().sum::<f32>() + rest.sum::<f32>()
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn step<const SQUARED_DISTANCE: bool>(a: __m256, b: __m256, sum: __m256) -> __m256 {
    if SQUARED_DISTANCE {
        let difference = _mm256_sub_ps(a, b);
        _mm256_fmadd_ps(difference, difference, sum)
    } else {
        _mm256_fmadd_ps(a, b, sum)
    }
}
