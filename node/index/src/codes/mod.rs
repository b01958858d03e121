//! Codes: small integers that stand for a vector, so that a search touches a fraction of the bytes.
//!
//! A vector is rotated ([`Rotation`]), which spreads what it says evenly over its values, and each value becomes an
//! integer of one, four or eight bits on a scale of the vector's own. The estimate of a dot product is scaled so that it is
//! unbiased over rotations (Gao and Long, RaBitQ, SIGMOD 2024, 3.2; Gao et al., Practical and Asymptotically Optimal
//! Quantization, SIGMOD 2025, 4): with c the centred code of x, ⟨q, x⟩ ≈ ⟨q, c⟩ · |x|² / ⟨c, x⟩. Nothing is learnt
//! from the data, so what is added later is coded like the rest.

mod rotation;

pub(crate) use self::rotation::{Rotation, padded, shuffle};
use crate::Kernels;
use crate::distance::codes::{CODE_LINE, CodeLine, CodeWidth, QUERY_MAX, QueryLine};

/// Scales that are tried for a vector's 4-bit codes.
const SCALES: usize = 15;
/// Values that are treated side by side; rotated vectors have a multiple of them.
const LANES: usize = 16;
/// Pushes what follows the point out of a float, and leaves room for a sign: 1.5 · 2²³.
const ROUND: f32 = 12_582_912.0;

/// Middle of the codes' range: code c stands for the value (c − middle) on the vector's scale.
const fn middle(width: CodeWidth) -> f32 {
    match width {
        CodeWidth::One => 0.5,
        CodeWidth::Four => 7.5,
        CodeWidth::Eight => 127.5,
    }
}

/// What the codes of a vector are worth.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coded {
    /// The factor f for which f · ⟨q, c⟩ estimates the dot product of q with the vector; 0 for the zero vector.
    pub(crate) factor: f32,
    /// Expected square of the estimate's error, over random rotations, for queries of length 1.
    pub(crate) variance: f64,
    /// Squared norm of the vector.
    pub(crate) square: f64,
}

/// Writes the codes of a rotated vector to whole lines.
pub(crate) fn encode(kernels: Kernels, width: CodeWidth, rotated: &[f32], lines: &mut [CodeLine]) -> Coded {
    kernels.vectorized(
        #[inline(always)]
        || encode_portable(width, rotated, lines),
    )
}

#[inline(always)]
fn encode_portable(width: CodeWidth, rotated: &[f32], lines: &mut [CodeLine]) -> Coded {
    let inverse = best_inverse(width, rotated, largest(rotated));
    for (line, values) in lines.iter_mut().zip(rotated.chunks(width.values_per_line())) {
        line.0 = [0; CODE_LINE];
        for (plane, values) in values.chunks(CODE_LINE).enumerate() {
            let shift = plane * width.bits() as usize;
            for (byte, x) in line.0.iter_mut().zip(values) {
                *byte |= (integer(code_value(width, *x, inverse)) as u8) << shift;
            }
        }
    }
    let mut sums = [[0.0f64; LANES]; 3];
    for values in rotated.chunks(LANES) {
        for (lane, x) in values.iter().enumerate() {
            let (x, code) = (f64::from(*x), code_value(width, *x, inverse));
            let centred = f64::from(code - middle(width));
            sums[0][lane] += centred * x;
            sums[1][lane] += x * x;
            sums[2][lane] += centred * centred;
        }
    }
    let [product, square, code_square] = sums.map(|lanes| lanes.iter().sum::<f64>());
    if product <= 0.0 {
        return Coded { square, ..Coded::default() };
    }
    // The error is the query's part along what the code has beside the vector's direction, which is random.
    let beside = (code_square * square / (product * product) - 1.0).max(0.0);
    let variance = square * beside / (rotated.len() - 1) as f64;
    Coded { factor: (square / product) as f32, variance, square }
}

/// Codes per unit of the value: so that the largest value gets the last code, or less, when clipping it makes the code's
/// direction closer to the vector's.
#[inline(always)]
fn best_inverse(width: CodeWidth, rotated: &[f32], largest: f32) -> f32 {
    let widest = middle(width) / largest;
    if !widest.is_finite() {
        return 0.0;
    }
    if width != CodeWidth::Four {
        return widest;
    }
    let mut best = (0.0f32, widest);
    for step in 0..SCALES {
        let inverse = widest * (1.0 + 0.1 * step as f32);
        let (mut products, mut squares) = ([0.0f32; LANES], [0.0f32; LANES]);
        for values in rotated.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                let centred = code_value(width, values[lane], inverse) - middle(width);
                products[lane] += centred * values[lane];
                squares[lane] += centred * centred;
            }
        }
        let (product, square): (f32, f32) = (products.iter().sum(), squares.iter().sum());
        let closeness = product / square.sqrt();
        if closeness > best.0 {
            best = (closeness, inverse);
        }
    }
    best.1
}

#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let mut largest = [0.0f32; LANES];
    for values in values.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let size = values[lane].abs();
            largest[lane] = if size > largest[lane] { size } else { largest[lane] };
        }
    }
    largest.iter().fold(0.0, |a, b| a.max(*b))
}

/// The code of a value, as a float.
#[inline(always)]
fn code_value(width: CodeWidth, x: f32, inverse: f32) -> f32 {
    (x * inverse + middle(width)).clamp(0.0, 2.0 * middle(width)) + ROUND - ROUND
}

/// The integer that a float of at most 2²² is nearest to: in the low bits once what follows the point is pushed out.
#[inline(always)]
fn integer(x: f32) -> u32 {
    (x + ROUND).to_bits()
}

/// A vector as the kernels take queries.
#[derive(Clone, Debug, Default)]
pub(crate) struct EncodedQuery {
    pub(crate) lines: Vec<QueryLine>,
    /// What an integer stands for.
    pub(crate) scale: f32,
    /// Middle of the codes' range times the sum of the integers: what a dot product has too much.
    pub(crate) offset: f32,
}

impl EncodedQuery {
    /// Takes the place of what was encoded before.
    pub(crate) fn encode(&mut self, kernels: Kernels, width: CodeWidth, rotated: &[f32]) {
        let count = width.query_lines(rotated.len());
        self.lines.clear();
        self.lines.resize(count, bytemuck::Zeroable::zeroed());
        let EncodedQuery { lines, scale, offset } = self;
        let sum = kernels.vectorized(
            #[inline(always)]
            || {
                let inverse = f32::from(QUERY_MAX) / largest(rotated);
                let inverse = if inverse.is_finite() { inverse } else { 0.0 };
                *scale = if inverse > 0.0 { 1.0 / inverse } else { 0.0 };
                let mut sum = 0i32;
                for (line, values) in lines.iter_mut().zip(rotated.chunks(CODE_LINE)) {
                    for (value, x) in line.0.iter_mut().zip(values) {
                        *value = integer(x * inverse) as i8;
                    }
                    sum += line.0.iter().map(|value| i32::from(*value)).sum::<i32>();
                }
                sum
            },
        );
        *offset = middle(width) * sum as f32;
    }

    /// The query that 8-bit codes are nearly, for distances between rows; `sum` is that of its integers.
    pub(crate) fn decode(&mut self, kernels: Kernels, codes: &[CodeLine], factor: f32, sum: i32) {
        self.lines.resize(codes.len(), bytemuck::Zeroable::zeroed());
        let lines = &mut self.lines;
        kernels.vectorized(
            #[inline(always)]
            || {
                for (line, codes) in lines.iter_mut().zip(codes) {
                    for (value, code) in line.0.iter_mut().zip(&codes.0) {
                        *value = halved(*code);
                    }
                }
            },
        );
        self.scale = 2.0 * factor;
        self.offset = middle(CodeWidth::Eight) * sum as f32;
    }
}

/// Sum of the integers of the query that 8-bit codes are nearly.
pub(crate) fn sum_of_halved(codes: &[CodeLine]) -> i32 {
    codes.iter().flat_map(|line| line.0).map(|code| i32::from(halved(code))).sum()
}

/// Half of what a code stands for, rounded alternately: −64 to 64.
#[inline(always)]
fn halved(code: u8) -> i8 {
    (((i16::from(code) + 1) >> 1) - 64) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMENSION: usize = 384;
    const WIDTHS: [CodeWidth; 3] = [CodeWidth::One, CodeWidth::Four, CodeWidth::Eight];

    fn vector(salt: usize) -> Vec<f32> {
        (0..DIMENSION).map(|i| ((i * i * 31 + salt * (i + 17)) % 101) as f32 / 50.5 - 1.0).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    }

    /// Over random rotations, estimates are right on the average and err as much as the code says.
    #[test]
    fn estimates_are_unbiased_and_err_as_they_say() {
        const ROTATIONS: u32 = 400;
        let kernels = Kernels::available().next().expect("scalar");
        let (row, query) = (vector(3), vector(8));
        let (exact, norm) = (dot(&row, &query), dot(&query, &query).sqrt());
        for width in WIDTHS {
            let mut lines = vec![CodeLine([0xff; CODE_LINE]); width.lines_of(DIMENSION)];
            let (mut rotated, mut encoded) = (Vec::new(), EncodedQuery::default());
            let (mut bias, mut square, mut told) = (0.0, 0.0, 0.0);
            for seed in 0..ROTATIONS {
                let rotation = Rotation::new(DIMENSION, u64::from(seed));
                rotation.rotate(kernels, &row, &mut rotated);
                let coded = encode(kernels, width, &rotated, &mut lines);
                rotation.rotate(kernels, &query, &mut rotated);
                encoded.encode(kernels, width, &rotated);
                let mut product = [0];
                kernels.code_dots(width, &encoded.lines, &lines, &[0], &mut product);
                let estimate = coded.factor * encoded.scale * (product[0] as f32 - encoded.offset);
                let error = f64::from(estimate) - exact;
                (bias, square, told) = (bias + error, square + error * error, told + coded.variance);
            }
            let count = f64::from(ROTATIONS);
            let rounding = f64::from(encoded.scale).powi(2) * dot(&row, &row) / 12.0;
            let (bias, error) = (bias / count, (square / count).sqrt());
            let told = (told / count * norm * norm + rounding).sqrt();
            assert!(bias.abs() < 4.0 * told / count.sqrt(), "{width:?}: {bias} beside {told}");
            assert!((0.8..1.25).contains(&(error / told)), "{width:?}: {error}, told {told}");
        }
    }
}
