//! Kernels over rows of two-byte floats for AVX-512.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512, _mm256_load_si256, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_slli_epi32,
};

use super::avx512::{Avx512, add_term, load, prefetch};
use super::halves::{HalfKind, HalfLine};
use crate::line::{LINE, Line};

/// Lines of a row whose sums run side by side, two sums each.
const GROUP: usize = 2;

/// See [`super::Kernels::half_dots`].
pub(super) fn dots(_: Avx512, kind: HalfKind, query: &[Line], rows: &[HalfLine], out: &mut [f32]) {
    match kind {
        // SAFETY: the proof exists only if AVX-512F was found.
        HalfKind::Float16 => unsafe { each_row::<true, false>(query, rows, out) },
        // SAFETY: as above.
        HalfKind::Bfloat16 => unsafe { each_row::<false, false>(query, rows, out) },
    }
}

/// See [`super::Kernels::half_squared_distances`].
pub(super) fn squared_distances(
    _: Avx512,
    kind: HalfKind,
    query: &[Line],
    rows: &[HalfLine],
    out: &mut [f32],
) {
    match kind {
        // SAFETY: the proof exists only if AVX-512F was found.
        HalfKind::Float16 => unsafe { each_row::<true, true>(query, rows, out) },
        // SAFETY: as above.
        HalfKind::Bfloat16 => unsafe { each_row::<false, true>(query, rows, out) },
    }
}

#[target_feature(enable = "avx512f")]
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
#[target_feature(enable = "avx512f")]
fn sum<const FLOAT16: bool, const SQUARED_DISTANCE: bool>(query: &[[Line; 2]], row: &[HalfLine]) -> f32 {
    let mut sums = [[_mm512_setzero_ps(); 2]; GROUP];
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
    let [first, second] = sums.map(|[low, high]| _mm512_add_ps(low, high));
    _mm512_reduce_add_ps(_mm512_add_ps(first, second))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_terms<const FLOAT16: bool, const SQUARED_DISTANCE: bool>(
    [low, high]: [__m512; 2],
    [a, b]: &[Line; 2],
    row: &HalfLine,
) -> [__m512; 2] {
    prefetch(row);
    [
        add_term::<SQUARED_DISTANCE>(low, load(a), widen::<FLOAT16>(row, 0)),
        add_term::<SQUARED_DISTANCE>(high, load(b), widen::<FLOAT16>(row, 1)),
    ]
}

/// The values of half `half` (0 or 1) of a line.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen<const FLOAT16: bool>(line: &HalfLine, half: usize) -> __m512 {
    let (halves, _) = line.0.as_chunks::<LINE>();
    // SAFETY: half a line is 32 bytes at an address that is a multiple of 32.
    let bits = unsafe { _mm256_load_si256(halves[half].as_ptr().cast()) };
    if FLOAT16 {
        _mm512_cvtph_ps(bits)
    } else {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
    }
}
