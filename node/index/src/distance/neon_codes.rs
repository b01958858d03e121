//! Dot products with codes for 64-bit Arm: with the dot product instruction, where a processor has it, and through sums
//! of 16 bits where not.
//!
//! Both multiply signed bytes alone. An 8-bit code c is the signed byte c − 128, its highest bit flipped, so each dot
//! product lacks 128 times the sum of the query, which is added once. 4-bit codes are signed bytes as they are.
#![allow(unsafe_code)]

use std::arch::aarch64::{
    int8x16_t, int32x4_t, uint8x16_t, vaddq_s32, vaddvq_s32, vandq_u8, vdupq_n_s16, vdupq_n_s32, vdupq_n_u8,
    veorq_u8, vget_low_s8, vld1q_s8, vld1q_u8, vmlal_high_s8, vmlal_s8, vmull_s8, vpadalq_s16,
    vreinterpretq_s8_u8, vshrq_n_u8,
};
use std::arch::{asm, is_aarch64_feature_detected};

use super::codes::{CODE_LINE, CodeLine, CodeWidth, QUERY_MAX, QueryLine, code_of};
use super::neon::Neon;

/// Registers of a line.
const QUARTERS: usize = 4;
/// What an 8-bit code has more than the signed byte that stands for it.
const SHIFT: i32 = 128;
// A lane of 16 bits takes two products of 8-bit codes, or four of 4-bit codes, or sixteen of 1-bit codes.
const _: () = assert!(2 * SHIFT * QUERY_MAX as i32 <= i16::MAX as i32);
const _: () = assert!(4 * 15 * QUERY_MAX as i32 <= i16::MAX as i32);
const _: () = assert!(16 * QUERY_MAX as i32 <= i16::MAX as i32);

/// Proof that this processor has the dot product instructions; [`DotProd::detect`] is the only way to obtain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DotProd(());

impl DotProd {
    pub(super) fn detect() -> Option<DotProd> {
        let found = is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod");
        found.then_some(DotProd(()))
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
            // SAFETY: `self` exists only if `detect` found the instructions.
            CodeWidth::One => unsafe { gather_dot_product::<1>(query, codes, rows, out) },
            // SAFETY: as above.
            CodeWidth::Four => unsafe { gather_dot_product::<4>(query, codes, rows, out) },
            // SAFETY: as above.
            CodeWidth::Eight => unsafe { gather_dot_product::<8>(query, codes, rows, out) },
        }
    }
}

/// See [`super::Kernels::code_dots`].
pub(super) fn code_dots(
    _: Neon,
    width: CodeWidth,
    query: &[QueryLine],
    codes: &[CodeLine],
    rows: &[u32],
    out: &mut [i32],
) {
    match width {
        // SAFETY: the proof exists only if NEON was found.
        CodeWidth::One => unsafe { gather_one(query, codes, rows, out) },
        // SAFETY: as above.
        CodeWidth::Four => unsafe { gather_four(query, codes, rows, out) },
        // SAFETY: as above.
        CodeWidth::Eight => unsafe { gather_eight(query, codes, rows, out) },
    }
}

#[target_feature(enable = "neon,dotprod")]
fn gather_dot_product<const BITS: usize>(
    query: &[QueryLine],
    codes: &[CodeLine],
    rows: &[u32],
    out: &mut [i32],
) {
    let stride = query.len().div_ceil(8 / BITS);
    let lacking = if BITS == 8 { lacking(query) } else { 0 };
    for (row, out) in rows.iter().zip(out) {
        let mut sums = [vdupq_n_s32(0); QUARTERS];
        for (index, line) in code_of(codes, stride, *row).iter().enumerate() {
            for (quarter, sum) in sums.iter_mut().enumerate() {
                if BITS == 1 {
                    let mut bytes = bytes_of(line, quarter);
                    for plane in query[8 * index..].iter().take(8) {
                        let values = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(1)));
                        *sum = add_dot_product(*sum, values, query_values(plane, quarter));
                        bytes = vshrq_n_u8::<1>(bytes);
                    }
                } else if BITS == 4 {
                    let [low, high] = halves(line, quarter);
                    *sum = add_dot_product(*sum, low, query_values(&query[2 * index], quarter));
                    *sum = add_dot_product(*sum, high, query_values(&query[2 * index + 1], quarter));
                } else {
                    let query = query_values(&query[index], quarter);
                    *sum = add_dot_product(*sum, shifted(line, quarter), query);
                }
            }
        }
        *out = total(sums) + lacking;
    }
}

#[target_feature(enable = "neon")]
fn gather_one(query: &[QueryLine], codes: &[CodeLine], rows: &[u32], out: &mut [i32]) {
    let stride = CodeWidth::One.lines_for(query.len());
    for (row, out) in rows.iter().zip(out) {
        let mut sums = [vdupq_n_s32(0); QUARTERS];
        for (planes, line) in query.chunks(8).zip(code_of(codes, stride, *row)) {
            for (quarter, sum) in sums.iter_mut().enumerate() {
                let mut bytes = bytes_of(line, quarter);
                let mut narrow = vdupq_n_s16(0);
                for plane in planes {
                    let values = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(1)));
                    let query = query_values(plane, quarter);
                    narrow = vmlal_high_s8(
                        vmlal_s8(narrow, vget_low_s8(values), vget_low_s8(query)),
                        values,
                        query,
                    );
                    bytes = vshrq_n_u8::<1>(bytes);
                }
                *sum = vpadalq_s16(*sum, narrow);
            }
        }
        *out = total(sums);
    }
}

#[target_feature(enable = "neon")]
fn gather_four(query: &[QueryLine], codes: &[CodeLine], rows: &[u32], out: &mut [i32]) {
    let (pairs, _) = query.as_chunks::<2>();
    for (row, out) in rows.iter().zip(out) {
        let mut sums = [vdupq_n_s32(0); QUARTERS];
        for ([low_query, high_query], line) in pairs.iter().zip(code_of(codes, pairs.len(), *row)) {
            for (quarter, sum) in sums.iter_mut().enumerate() {
                let [low, high] = halves(line, quarter);
                let (a, b) = (query_values(low_query, quarter), query_values(high_query, quarter));
                let narrow = vmlal_high_s8(vmull_s8(vget_low_s8(low), vget_low_s8(a)), low, a);
                let narrow = vmlal_high_s8(vmlal_s8(narrow, vget_low_s8(high), vget_low_s8(b)), high, b);
                *sum = vpadalq_s16(*sum, narrow);
            }
        }
        *out = total(sums);
    }
}

#[target_feature(enable = "neon")]
fn gather_eight(query: &[QueryLine], codes: &[CodeLine], rows: &[u32], out: &mut [i32]) {
    let lacking = lacking(query);
    for (row, out) in rows.iter().zip(out) {
        let mut sums = [vdupq_n_s32(0); QUARTERS];
        for (query, line) in query.iter().zip(code_of(codes, query.len(), *row)) {
            for (quarter, sum) in sums.iter_mut().enumerate() {
                let (code, query) = (shifted(line, quarter), query_values(query, quarter));
                let narrow = vmull_s8(vget_low_s8(code), vget_low_s8(query));
                *sum = vpadalq_s16(*sum, vmlal_high_s8(narrow, code, query));
            }
        }
        *out = total(sums) + lacking;
    }
}

/// What dot products lack whose 8-bit codes are taken as signed bytes.
fn lacking(query: &[QueryLine]) -> i32 {
    SHIFT * query.iter().flat_map(|line| line.0).map(i32::from).sum::<i32>()
}

/// Adds to each lane the dot product of four signed bytes with four others.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dot_product(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // The standard library's function for it is not stable yet.
    // SAFETY: the instruction is there with the feature, and touches these registers alone.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

#[inline]
#[target_feature(enable = "neon")]
fn total([a, b, c, d]: [int32x4_t; QUARTERS]) -> i32 {
    vaddvq_s32(vaddq_s32(vaddq_s32(a, b), vaddq_s32(c, d)))
}

/// The low and the high 4-bit codes of a quarter.
#[inline]
#[target_feature(enable = "neon")]
fn halves(line: &CodeLine, quarter: usize) -> [int8x16_t; 2] {
    let bytes = bytes_of(line, quarter);
    [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)].map(|codes| vreinterpretq_s8_u8(codes))
}

/// The 8-bit codes of a quarter, less 128 each.
#[inline]
#[target_feature(enable = "neon")]
fn shifted(line: &CodeLine, quarter: usize) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(bytes_of(line, quarter), vdupq_n_u8(SHIFT as u8)))
}

#[inline]
#[target_feature(enable = "neon")]
fn bytes_of(line: &CodeLine, quarter: usize) -> uint8x16_t {
    let bytes = quarter_of(&line.0, quarter);
    // SAFETY: a quarter is sixteen bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn query_values(line: &QueryLine, quarter: usize) -> int8x16_t {
    let values = quarter_of(&line.0, quarter);
    // SAFETY: a quarter is sixteen bytes.
    unsafe { vld1q_s8(values.as_ptr()) }
}

#[inline(always)]
fn quarter_of<T>(line: &[T; CODE_LINE], quarter: usize) -> &[T; CODE_LINE / QUARTERS] {
    &line.as_chunks().0[quarter]
}
