//! Kernels over rows of two-byte floats for AVX2 with F16C.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, _mm_load_si128, _mm256_add_ps, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_setzero_ps, _mm256_slli_epi32,
};

use super::avx2::{Avx2, add_term, load, prefetch, total_of_lanes};
use super::halves::{HalfKind, HalfLine};
use crate::line::Line;

/// Lines of a row whose sums run side by side, four sums each.
const GROUP: usize = 2;

/// See [`super::Kernels::half_dots`].
pub(super) fn dots(_: Avx2, kind: HalfKind, query: &[Line], rows: &[HalfLine], out: &mut [f32]) {
    match kind {
        // SAFETY: the proof exists only if AVX2, FMA and F16C were found.
        HalfKind::Float16 => unsafe { each_row::<true, false>(query, rows, out) },
        // SAFETY: as above.
        HalfKind::Bfloat16 => unsafe { each_row::<false, false>(query, rows, out) },
    }
}

/// See [`super::Kernels::half_squared_distances`].
pub(super) fn squared_distances(_: Avx2, kind: HalfKind, query: &[Line], rows: &[HalfLine], out: &mut [f32]) {
    match kind {
        // SAFETY: the proof exists only if AVX2, FMA and F16C were found.
        HalfKind::Float16 => unsafe { each_row::<true, true>(query, rows, out) },
        // SAFETY: as above.
        HalfKind::Bfloat16 => unsafe { each_row::<false, true>(query, rows, out) },
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
fn sum<const FLOAT16: bool, const SQUARED_DISTANCE: bool>(query: &[[Line; 2]], row: &[HalfLine]) -> f32 {
    let mut sums = [[_mm256_setzero_ps(); 4]; GROUP];
    let (query_groups, query_rest) = query.as_chunks::<GROUP>();
    let (row_groups, row_rest) = row.as_chunks::<GROUP>();
    for (a, b) in query_groups.iter().zip(row_groups) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = add_terms::<FLOAT16, SQUARED_DISTANCE>(*sum, a, b);
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(query_rest.iter().zip(row_rest)) {
        *sum = add_terms::<FLOAT16, SQUARED_DISTANCE>(*sum, a, b);
    }
    let [first, second] = sums.map(|[a, b, c, d]| _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
    total_of_lanes(_mm256_add_ps(first, second))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_terms<const FLOAT16: bool, const SQUARED_DISTANCE: bool>(
    [a, b, c, d]: [__m256; 4],
    query: &[Line; 2],
    row: &HalfLine,
) -> [__m256; 4] {
    prefetch(row);
    let [[first, second], [third, fourth]] = [load(&query[0]), load(&query[1])];
    [
        add_term::<SQUARED_DISTANCE>(a, first, widen::<FLOAT16>(row, 0)),
        add_term::<SQUARED_DISTANCE>(b, second, widen::<FLOAT16>(row, 1)),
        add_term::<SQUARED_DISTANCE>(c, third, widen::<FLOAT16>(row, 2)),
        add_term::<SQUARED_DISTANCE>(d, fourth, widen::<FLOAT16>(row, 3)),
    ]
}

/// The values of quarter `quarter` (0 to 3) of a line.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen<const FLOAT16: bool>(line: &HalfLine, quarter: usize) -> __m256 {
    let (quarters, _) = line.0.as_chunks::<8>();
    // SAFETY: a quarter of a line is 16 bytes at an address that is a multiple of 16.
    let bits = unsafe { _mm_load_si128(quarters[quarter].as_ptr().cast()) };
    if FLOAT16 {
        _mm256_cvtph_ps(bits)
    } else {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }
}
