//! Dot products with codes for AVX-512 with VNNI: one instruction multiplies and adds 64 pairs of bytes.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_add_epi32, _mm_storeu_si128, _mm256_add_epi32, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_castsi512_si256,
    _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64, _mm512_load_si512, _mm512_reduce_add_epi32,
    _mm512_set1_epi8, _mm512_setzero_si512, _mm512_srli_epi16, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::codes::{CodeLine, CodeWidth, QueryLine, code_of};

/// Proof that this processor has AVX-512 with VNNI; [`Avx512Vnni::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512Vnni(());

impl Avx512Vnni {
    pub(super) fn detect() -> Option<Avx512Vnni> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Avx512Vnni(()))
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
            CodeWidth::One => unsafe { gather::<1>(query, codes, rows, out) },
            // SAFETY: as above.
            CodeWidth::Four => unsafe { gather::<4>(query, codes, rows, out) },
            // SAFETY: as above.
            CodeWidth::Eight => unsafe { gather::<8>(query, codes, rows, out) },
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn gather<const BITS: usize>(query: &[QueryLine], codes: &[CodeLine], rows: &[u32], out: &mut [i32]) {
    let stride = query.len().div_ceil(8 / BITS);
    let (groups, rest) = rows.as_chunks::<4>();
    let (group_outs, rest_out) = out.as_chunks_mut::<4>();
    for (group, out) in groups.iter().zip(group_outs) {
        let [a, b, c, d] = group.map(
            #[inline(always)]
            |row| code_of(codes, stride, row),
        );
        let sums =
            [sum::<BITS>(query, a), sum::<BITS>(query, b), sum::<BITS>(query, c), sum::<BITS>(query, d)];
        store(out, reduce(sums));
    }
    for (row, out) in rest.iter().zip(rest_out) {
        *out = _mm512_reduce_add_epi32(sum::<BITS>(query, code_of(codes, stride, *row)));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn sum<const BITS: usize>(query: &[QueryLine], code: &[CodeLine]) -> __m512i {
    let mut sums = [_mm512_setzero_si512(); 2];
    if BITS == 1 {
        let mask = _mm512_set1_epi8(1);
        for (planes, line) in query.chunks(8).zip(code) {
            let mut bytes = load(line.0.as_ptr());
            for (index, plane) in planes.iter().enumerate() {
                let values = _mm512_and_si512(bytes, mask);
                sums[index % 2] = _mm512_dpbusd_epi32(sums[index % 2], values, load(plane.0.as_ptr().cast()));
                bytes = _mm512_srli_epi16::<1>(bytes);
            }
        }
    } else if BITS == 4 {
        let mask = _mm512_set1_epi8(15);
        let (pairs, _) = query.as_chunks::<2>();
        for ([low, high], line) in pairs.iter().zip(code) {
            let bytes = load(line.0.as_ptr());
            let low_values = _mm512_and_si512(bytes, mask);
            let high_values = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
            sums[0] = _mm512_dpbusd_epi32(sums[0], low_values, load(low.0.as_ptr().cast()));
            sums[1] = _mm512_dpbusd_epi32(sums[1], high_values, load(high.0.as_ptr().cast()));
        }
    } else {
        let (query_pairs, query_rest) = query.as_chunks::<2>();
        let (code_pairs, code_rest) = code.as_chunks::<2>();
        for (query, code) in query_pairs.iter().zip(code_pairs) {
            for (sum, (query, line)) in sums.iter_mut().zip(query.iter().zip(code)) {
                *sum = _mm512_dpbusd_epi32(*sum, load(line.0.as_ptr()), load(query.0.as_ptr().cast()));
            }
        }
        for (query, line) in query_rest.iter().zip(code_rest) {
            sums[0] = _mm512_dpbusd_epi32(sums[0], load(line.0.as_ptr()), load(query.0.as_ptr().cast()));
        }
    }
    _mm512_add_epi32(sums[0], sums[1])
}

/// The sums of the lanes of four registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce([a, b, c, d]: [__m512i; 4]) -> __m128i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
    _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: *const u8) -> __m512i {
    // SAFETY: callers pass the start of a line: 64 bytes at an address that is a multiple of 64.
    unsafe { _mm512_load_si512(line.cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn store(out: &mut [i32; 4], sums: __m128i) {
    // SAFETY: `out` is sixteen bytes.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), sums) }
}
