//! Kernels for AVX2 with fused multiply-add: four rows at once, two sums of eight lanes each, so that one add does not
//! wait for the last.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, _MM_HINT_T0, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm_prefetch,
    _mm256_add_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_load_ps,
    _mm256_setzero_ps, _mm256_sub_ps,
};

use crate::line::Line;

/// Rows that are summed at once.
const ROWS: usize = 4;
/// Distance of the software prefetch: past the end of a page, where the hardware's prefetcher stops.
const AHEAD_BYTES: usize = 4096;

/// Proof that this processor has AVX2 and FMA; [`Avx2::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
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

/// Sums of a·b, or of (a − b)² when `SQUARED_DISTANCE`, of the query and each row.
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
fn sums<const SQUARED_DISTANCE: bool, const N: usize>(query: &[Line], rows: [&[Line]; N]) -> [f32; N] {
    let rows = rows.map(|row| &row[..query.len()]); // one check of the bounds, not one for each line
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (index, line) in query.iter().enumerate() {
        let a = load(line);
        for (sum, row) in sums.iter_mut().zip(rows) {
            prefetch(&row[index]);
            let b = load(&row[index]);
            for half in 0..2 {
                sum[half] = if SQUARED_DISTANCE {
                    let difference = _mm256_sub_ps(a[half], b[half]);
                    _mm256_fmadd_ps(difference, difference, sum[half])
                } else {
                    _mm256_fmadd_ps(a[half], b[half], sum[half])
                };
            }
        }
    }
    let mut totals = [0.0; N];
    for (total, [low, high]) in totals.iter_mut().zip(sums) {
        *total = total_of_lanes(_mm256_add_ps(low, high));
    }
    totals
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn total_of_lanes(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(line: &Line) -> [__m256; 2] {
    let (low, high) = line.0.split_at(8);
    // SAFETY: a line is sixteen floats at an address that is a multiple of 64: each half is eight, at one of 32.
    unsafe { [_mm256_load_ps(low.as_ptr()), _mm256_load_ps(high.as_ptr())] }
}

/// Asks for what lies a page behind `line`.
#[inline(always)]
fn prefetch(line: &Line) {
    // SAFETY: a prefetch neither reads nor faults, so it may name any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).wrapping_byte_add(AHEAD_BYTES).cast()) };
}
