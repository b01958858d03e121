//! Kernels for AVX-512: four sums of sixteen lanes; the rest of a row is read under a mask.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_maskz_loadu_ps, _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

const LANES: usize = 16;
/// Distance of the software prefetch: past the end of a page, where the hardware's prefetcher stops.
const AHEAD_BYTES: usize = 4096;
const LINE_BYTES: usize = 64;

/// Proof that this processor has AVX-512F; [`Avx512::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Avx512> {
        is_x86_feature_detected!("avx512f").then_some(Avx512(()))
    }

    pub(super) fn dots(self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        for (row, estimate) in rows.chunks_exact(query.len()).zip(out) {
            // SAFETY: `self` exists only if `detect` found AVX-512F; `chunks_exact` made the lengths equal.
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
/// The processor has AVX-512F, and `b` is as long as `a`.
#[target_feature(enable = "avx512f")]
unsafe fn sum<const SQUARED_DISTANCE: bool>(a: &[f32], b: &[f32]) -> f32 {
    let [mut s0, mut s1, mut s2, mut s3] = [_mm512_setzero_ps(); 4];
    let blocks = a.len() / (4 * LANES);
    for block in 0..blocks {
        let at = block * 4 * LANES;
        // SAFETY: `at + 4 · LANES <= a.len()`, and `b` is as long; a prefetch reads nothing and may name any address.
        unsafe {
            let (a, b) = (a.as_ptr().add(at), b.as_ptr().add(at));
            for line in 0..4 * LANES * size_of::<f32>() / LINE_BYTES {
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_byte_add(AHEAD_BYTES + line * LINE_BYTES).cast());
            }
            s0 = step::<SQUARED_DISTANCE>(_mm512_loadu_ps(a), _mm512_loadu_ps(b), s0);
            s1 = step::<SQUARED_DISTANCE>(_mm512_loadu_ps(a.add(LANES)), _mm512_loadu_ps(b.add(LANES)), s1);
            s2 = step::<SQUARED_DISTANCE>(
                _mm512_loadu_ps(a.add(2 * LANES)),
                _mm512_loadu_ps(b.add(2 * LANES)),
                s2,
            );
            s3 = step::<SQUARED_DISTANCE>(
                _mm512_loadu_ps(a.add(3 * LANES)),
                _mm512_loadu_ps(b.add(3 * LANES)),
                s3,
            );
        }
    }
    let mut at = blocks * 4 * LANES;
    while at < a.len() {
        let left = (a.len() - at).min(LANES);
        let mask = if left == LANES { u16::MAX } else { (1 << left) - 1 };
        // SAFETY: the mask lets `left` lanes through, which both slices have after `at`; the others are not read.
        let (x, y) = unsafe {
            (_mm512_maskz_loadu_ps(mask, a.as_ptr().add(at)), _mm512_maskz_loadu_ps(mask, b.as_ptr().add(at)))
        };
        s0 = step::<SQUARED_DISTANCE>(x, y, s0);
        at += left;
    }
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn step<const SQUARED_DISTANCE: bool>(a: __m512, b: __m512, sum: __m512) -> __m512 {
    if SQUARED_DISTANCE {
        let difference = _mm512_sub_ps(a, b);
        _mm512_fmadd_ps(difference, difference, sum)
    } else {
        _mm512_fmadd_ps(a, b, sum)
    }
}
