//! Dot products with codes for AVX2, where products of bytes go through sums of 16 bits, and for AVX-VNNI, where they do
//! not.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_shuffle_epi32, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_and_si256, _mm256_castsi256_si128, _mm256_dpbusd_avx_epi32, _mm256_extracti128_si256,
    _mm256_load_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_setzero_si256, _mm256_srli_epi16,
};

use super::avx2::Avx2;
use super::codes::{CODE_LINE, CodeLine, CodeWidth, QUERY_MAX, QueryLine, code_of};

/// Lines of 4-bit codes whose products fit sums of 16 bits: a line adds four products of at most 15 · 63 to a lane.
const NARROW_LINES: usize = 8;
const _: () = assert!(NARROW_LINES as i32 * 4 * 15 * QUERY_MAX as i32 <= i16::MAX as i32);
/// The same for 1-bit codes: a line adds sixteen values to a lane.
const NARROW_LINES_OF_BITS: usize = 16;
const _: () = assert!(NARROW_LINES_OF_BITS as i32 * 16 * QUERY_MAX as i32 <= i16::MAX as i32);

/// Proof that this processor has AVX-VNNI; [`AvxVnni::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AvxVnni(());

impl AvxVnni {
    pub(super) fn detect() -> Option<AvxVnni> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni")).then_some(AvxVnni(()))
    }

    pub(super) fn code_dots(
        self,
        width: CodeWidth,
        query: &[QueryLine],
        codes: &[CodeLine],
        rows: &[u32],
        out: &mut [i32],
    ) {
        match width {
            // SAFETY: `self` exists only if `detect` found the features.
            CodeWidth::One => unsafe { gather_vnni::<1>(query, codes, rows, out) },
            // SAFETY: as above.
            CodeWidth::Four => unsafe { gather_vnni::<4>(query, codes, rows, out) },
            // SAFETY: as above.
            CodeWidth::Eight => unsafe { gather_vnni::<8>(query, codes, rows, out) },
        }
    }
}

/// See [`super::Kernels::code_dots`].
pub(super) fn code_dots(
    _: Avx2,
    width: CodeWidth,
    query: &[QueryLine],
    codes: &[CodeLine],
    rows: &[u32],
    out: &mut [i32],
) {
    match width {
        // SAFETY: the proof exists only if AVX2 was found.
        CodeWidth::One => unsafe { gather_one(query, codes, rows, out) },
        // SAFETY: as above.
        CodeWidth::Four => unsafe { gather_four(query, codes, rows, out) },
        // SAFETY: as above.
        CodeWidth::Eight => unsafe { gather_eight(query, codes, rows, out) },
    }
}

#[target_feature(enable = "avx2")]
fn gather_one(query: &[QueryLine], codes: &[CodeLine], rows: &[u32], out: &mut [i32]) {
    let (mask, ones) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    let stride = CodeWidth::One.lines_for(query.len());
    for (row, out) in rows.iter().zip(out) {
        let code = code_of(codes, stride, *row);
        let mut wide = _mm256_setzero_si256();
        for (query, code) in query.chunks(8 * NARROW_LINES_OF_BITS).zip(code.chunks(NARROW_LINES_OF_BITS)) {
            let mut narrow = [_mm256_setzero_si256(); 2];
            for (planes, line) in query.chunks(8).zip(code) {
                for (half, narrow) in narrow.iter_mut().enumerate() {
                    let mut bytes = load(line.0.as_ptr(), half);
                    for plane in planes {
                        let values = _mm256_and_si256(bytes, mask);
                        let products = _mm256_maddubs_epi16(values, load(plane.0.as_ptr().cast(), half));
                        *narrow = _mm256_add_epi16(*narrow, products);
                        bytes = _mm256_srli_epi16::<1>(bytes);
                    }
                }
            }
            for sums in narrow {
                wide = _mm256_add_epi32(wide, _mm256_madd_epi16(sums, ones));
            }
        }
        *out = reduce(wide);
    }
}

#[target_feature(enable = "avx2")]
fn gather_four(query: &[QueryLine], codes: &[CodeLine], rows: &[u32], out: &mut [i32]) {
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let (pairs, _) = query.as_chunks::<2>();
    for (row, out) in rows.iter().zip(out) {
        let code = code_of(codes, pairs.len(), *row);
        let mut wide = _mm256_setzero_si256();
        for (pairs, code) in pairs.chunks(NARROW_LINES).zip(code.chunks(NARROW_LINES)) {
            let mut narrow = [_mm256_setzero_si256(); 2];
            for ([low, high], line) in pairs.iter().zip(code) {
                for (half, narrow) in narrow.iter_mut().enumerate() {
                    let bytes = load(line.0.as_ptr(), half);
                    let low_values = _mm256_and_si256(bytes, mask);
                    let high_values = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
                    let low = _mm256_maddubs_epi16(low_values, load(low.0.as_ptr().cast(), half));
                    let high = _mm256_maddubs_epi16(high_values, load(high.0.as_ptr().cast(), half));
                    *narrow = _mm256_add_epi16(*narrow, _mm256_add_epi16(low, high));
                }
            }
            for sums in narrow {
                wide = _mm256_add_epi32(wide, _mm256_madd_epi16(sums, ones));
            }
        }
        *out = reduce(wide);
    }
}

#[target_feature(enable = "avx2")]
fn gather_eight(query: &[QueryLine], codes: &[CodeLine], rows: &[u32], out: &mut [i32]) {
    let ones = _mm256_set1_epi16(1);
    for (row, out) in rows.iter().zip(out) {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (query, line) in query.iter().zip(code_of(codes, query.len(), *row)) {
            for (half, sum) in sums.iter_mut().enumerate() {
                let products =
                    _mm256_maddubs_epi16(load(line.0.as_ptr(), half), load(query.0.as_ptr().cast(), half));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(products, ones));
            }
        }
        *out = reduce(_mm256_add_epi32(sums[0], sums[1]));
    }
}

#[target_feature(enable = "avx2,avxvnni")]
fn gather_vnni<const BITS: usize>(query: &[QueryLine], codes: &[CodeLine], rows: &[u32], out: &mut [i32]) {
    let mask = _mm256_set1_epi8(if BITS == 1 { 1 } else { 15 });
    let stride = query.len().div_ceil(8 / BITS);
    for (row, out) in rows.iter().zip(out) {
        let code = code_of(codes, stride, *row);
        let mut sums = [_mm256_setzero_si256(); 2];
        for (index, line) in code.iter().enumerate() {
            for (half, sum) in sums.iter_mut().enumerate() {
                let mut bytes = load(line.0.as_ptr(), half);
                if BITS == 1 {
                    for plane in query[8 * index..].iter().take(8) {
                        let values = _mm256_and_si256(bytes, mask);
                        *sum = _mm256_dpbusd_avx_epi32(*sum, values, load(plane.0.as_ptr().cast(), half));
                        bytes = _mm256_srli_epi16::<1>(bytes);
                    }
                } else if BITS == 4 {
                    let [low, high] = [&query[2 * index], &query[2 * index + 1]];
                    let low_values = _mm256_and_si256(bytes, mask);
                    let high_values = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
                    *sum = _mm256_dpbusd_avx_epi32(*sum, low_values, load(low.0.as_ptr().cast(), half));
                    *sum = _mm256_dpbusd_avx_epi32(*sum, high_values, load(high.0.as_ptr().cast(), half));
                } else {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, bytes, load(query[index].0.as_ptr().cast(), half));
                }
            }
        }
        *out = reduce(_mm256_add_epi32(sums[0], sums[1]));
    }
}

/// The sum of a register's lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn reduce(sums: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

/// Half `half` (0 or 1) of a line.
#[inline]
#[target_feature(enable = "avx2")]
fn load(line: *const u8, half: usize) -> __m256i {
    // SAFETY: callers pass the start of a line, 64 bytes at an address that is a multiple of 64, and a half of it.
    unsafe { _mm256_load_si256(line.add(half * CODE_LINE / 2).cast()) }
}
