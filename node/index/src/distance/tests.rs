//! Every kernel against what it means.

use proptest::prelude::*;

use super::codes::{CODE_LINE, QUERY_MAX};
use super::*;
use crate::line::{self, LINE};

const KINDS: [HalfKind; 2] = [HalfKind::Float16, HalfKind::Bfloat16];
const WIDTHS: [CodeWidth; 3] = [CodeWidth::One, CodeWidth::Four, CodeWidth::Eight];

/// Dimensions 1 to 4,096. Under an emulator, where all of them take minutes, every n-th and those around whole lines
/// that are told apart by what loops leave over.
fn dimensions() -> impl Iterator<Item = usize> {
    let step = std::env::var_os("KERNEL_TESTS_EVERY")
        .map_or(1, |text| text.to_str().and_then(|text| text.parse().ok()).expect("a number"));
    let around_lines = |dimension: usize| dimension <= 8 * LINE + 1 && (dimension + 1) % LINE <= 2;
    (1..=4_096).filter(move |dimension| dimension % step == 0 || around_lines(*dimension))
}

/// A sum in double precision, and that of the terms' magnitudes.
#[derive(Clone, Copy, Debug, Default)]
struct Exact {
    sum: f64,
    absolute: f64,
}

impl Exact {
    fn of(query: &[f32], row: &[f32], term: impl Fn(f64, f64) -> f64) -> Exact {
        query.iter().zip(row).fold(Exact::default(), |all, (a, b)| {
            let term = term(f64::from(*a), f64::from(*b));
            Exact { sum: all.sum + term, absolute: all.absolute + term.abs() }
        })
    }

    /// A kernel's result lies within the bound that `scan` relies on: γ·Σ|term| around the exact sum.
    #[track_caller]
    fn check(self, estimate: f32, dimension: usize, what: &str) {
        let bound = (dimension as f64 + 4.0) * f64::from(f32::EPSILON) / 2.0 * 1.01 * self.absolute
            + dimension as f64 * f64::from(f32::MIN_POSITIVE);
        let error = (f64::from(estimate) - self.sum).abs();
        assert!(error <= bound, "{what}, {dimension} dimensions: {estimate} for {self:?}, bound {bound}");
    }
}

/// Checks the kernels over rows of floats, all of one dimension.
fn check(query: &[f32], rows: &[f32]) {
    let (mut query_lines, mut row_lines) = (Vec::new(), Vec::new());
    line::append(query, &mut query_lines);
    rows.chunks_exact(query.len()).for_each(|row| line::append(row, &mut row_lines));
    check_estimates(query, rows, "f32", |kernels, dots, distances| {
        kernels.dots(&query_lines, &row_lines, dots);
        kernels.squared_distances(&query_lines, &row_lines, distances);
    });
    for kind in KINDS {
        check_halves(query, rows, kind);
    }
}

/// Checks the kernels over rows of two-byte floats, against what is left of `rows` in them.
fn check_halves(query: &[f32], rows: &[f32], kind: HalfKind) {
    let (mut query_lines, mut row_lines) = (Vec::new(), Vec::new());
    halves::append_query(query, &mut query_lines);
    for row in rows.chunks_exact(query.len()) {
        row_lines.extend(row.chunks(halves::HALF_LINE).map(|values| kind.line(values)));
    }
    let widened: Vec<f32> = rows.iter().map(|value| kind.widened(kind.rounded(*value))).collect();
    check_estimates(query, &widened, &format!("{kind:?}"), |kernels, dots, distances| {
        kernels.half_dots(kind, &query_lines, &row_lines, dots);
        kernels.half_squared_distances(kind, &query_lines, &row_lines, distances);
    });
}

/// Checks what `estimate` writes, dot products and squared distances, with the kernels of each tier.
fn check_estimates(
    query: &[f32],
    rows: &[f32],
    what: &str,
    estimate: impl Fn(Kernels, &mut [f32], &mut [f32]),
) {
    let exact: Vec<(Exact, Exact)> = rows
        .chunks_exact(query.len())
        .map(|row| {
            let dot = Exact::of(query, row, |a, b| a * b);
            (dot, Exact::of(query, row, |a, b| (a - b) * (a - b)))
        })
        .collect();
    for kernels in Kernels::available() {
        let (mut dots, mut distances) = (vec![f32::NAN; exact.len()], vec![f32::NAN; exact.len()]);
        estimate(kernels, &mut dots, &mut distances);
        for (index, (dot, distance)) in exact.iter().enumerate() {
            dot.check(dots[index], query.len(), &format!("{} {what} dot", kernels.name()));
            distance.check(distances[index], query.len(), &format!("{} {what} distance", kernels.name()));
        }
    }
}

/// Lines of a query, about `lines`, that a kernel takes.
fn whole(width: CodeWidth, lines: usize) -> usize {
    width.query_lines(lines * CODE_LINE)
}

/// Checks that every tier gives the integers of the scalar kernel.
fn check_codes(width: CodeWidth, query: &[QueryLine], codes: &[CodeLine], rows: &[u32]) {
    let mut expected = vec![0; rows.len()];
    scalar::code_dots(width, query, codes, rows, &mut expected);
    for kernels in Kernels::available() {
        let mut dots = vec![-1; rows.len()];
        kernels.code_dots(width, query, codes, rows, &mut dots);
        assert_eq!(dots, expected, "{} {width:?}, {} query lines", kernels.name(), query.len());
    }
}

/// Values of all magnitudes that stay finite in a sum of squares, and often the same.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -1e3f32..1e3,
        2 => prop_oneof![Just(0.5f32), Just(-0.5), Just(1.0)],
        1 => prop_oneof![Just(0.0f32), Just(-0.0), Just(6e-8), Just(-1e-5), Just(1e-40), Just(-6e4)],
    ]
}

/// The values of `count` vectors of one dimension.
fn vectors(count: usize) -> impl Strategy<Value = (usize, Vec<f32>)> {
    prop_oneof![4 => 1usize..=300, 1 => 301usize..=1_100]
        .prop_flat_map(move |dimension| (Just(dimension), prop::collection::vec(value(), dimension * count)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_kernel_keeps_its_bound((dimension, values) in vectors(6)) {
        check(&values[..dimension], &values[dimension..]);
    }

    #[test]
    fn random_code_dots_are_the_same_integers_everywhere(
        lines in 1usize..=40,
        query in prop::collection::vec(-QUERY_MAX..=QUERY_MAX, 40 * CODE_LINE),
        codes in prop::collection::vec(prop_oneof![8 => any::<u8>(), 1 => Just(255), 1 => Just(0)], 120 * CODE_LINE),
        rows in prop::collection::vec(0u32..3, 0..9),
    ) {
        let query: Vec<QueryLine> = query.as_chunks().0.iter().map(|line| QueryLine(*line)).collect();
        let codes: Vec<CodeLine> = codes.as_chunks().0.iter().map(|line| CodeLine(*line)).collect();
        for width in WIDTHS {
            check_codes(width, &query[..whole(width, lines)], &codes, &rows);
        }
    }
}

/// Numbers without a pattern that a kernel could hide behind.
fn number(i: usize) -> usize {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 23
}

#[test]
fn every_dimension_up_to_4096_keeps_its_bound() {
    let value = |i: usize| (number(i) % 10_007) as f32 / 5_003.5 - 1.0;
    let values: Vec<f32> = (0..3 * 4_096).map(value).collect();
    for dimension in dimensions() {
        let (query, rows) = values.split_at(dimension);
        check(query, &rows[..2 * dimension]);
    }
}

#[test]
fn code_dots_of_every_length_are_the_same_integers_everywhere() {
    let value = |i: usize| ((number(i) % 129) as i16 - 64) as i8;
    let query: Vec<QueryLine> =
        (0..128).map(|line| QueryLine(std::array::from_fn(|i| value(line * CODE_LINE + i)))).collect();
    let codes: Vec<CodeLine> = (0..3 * 128)
        .map(|line| CodeLine(std::array::from_fn(|i| number(line * CODE_LINE + i + 99) as u8)))
        .collect();
    for lines in (1..=64).chain(120..=128) {
        for width in WIDTHS {
            for rows in [&[][..], &[1], &[2, 0], &[2, 1, 1, 0], &[0, 2, 1, 0, 2]] {
                check_codes(width, &query[..whole(width, lines)], &codes, rows);
            }
        }
    }
}

#[test]
fn the_widest_code_dots_fit() {
    // The largest dimension; products of one sign are the largest sums, of pairs and of whole rows.
    let lines = 65_536 / CODE_LINE;
    for value in [QUERY_MAX, -QUERY_MAX] {
        let query = vec![QueryLine([value; CODE_LINE]); lines];
        for byte in [0, 127, 128, 240, 255] {
            let codes = vec![CodeLine([byte; CODE_LINE]); lines];
            for width in WIDTHS {
                check_codes(width, &query, &codes, &[0]);
            }
        }
    }
}

#[test]
fn every_two_byte_float_is_read_as_it_is() {
    for kind in KINDS {
        let finite = |bits: &u16| kind.is_finite(*bits);
        let bits: Vec<u16> = (0..=u16::MAX).filter(finite).collect();
        for place in [0, 13, 31] {
            let query: Vec<f32> =
                (0..halves::HALF_LINE).map(|i| if i == place { 1.0 } else { 0.0 }).collect();
            let mut query_lines = Vec::new();
            halves::append_query(&query, &mut query_lines);
            let rows: Vec<HalfLine> = bits
                .iter()
                .map(|bits| HalfLine(std::array::from_fn(|i| if i == place { *bits } else { 0 })))
                .collect();
            for kernels in Kernels::available() {
                let mut values = vec![f32::NAN; rows.len()];
                kernels.half_dots(kind, &query_lines, &rows, &mut values);
                for (value, bits) in values.iter().zip(&bits) {
                    assert_eq!(*value, kind.widened(*bits), "{} {kind:?} {bits:04x}", kernels.name());
                }
            }
        }
    }
}

#[test]
fn widening_agrees_with_the_crate_that_rounds() {
    for bits in 0..=u16::MAX {
        let (float16, bfloat16) = (half::f16::from_bits(bits), half::bf16::from_bits(bits));
        if float16.is_finite() {
            assert_eq!(HalfKind::Float16.widened(bits).to_bits(), float16.to_f32().to_bits(), "{bits:04x}");
        }
        if bfloat16.is_finite() {
            assert_eq!(HalfKind::Bfloat16.widened(bits).to_bits(), bfloat16.to_f32().to_bits(), "{bits:04x}");
        }
    }
}

#[test]
fn rounding_takes_the_nearest_two_byte_float() {
    assert_eq!(HalfKind::Float16.rounded(1.0), 0x3c00);
    assert_eq!(HalfKind::Float16.rounded(65_504.0), 0x7bff);
    assert_eq!(HalfKind::Float16.rounded(1.0 + 1.0 / 2_048.0), 0x3c00, "a tie goes to the even one");
    assert_eq!(HalfKind::Bfloat16.rounded(1.0), 0x3f80);
    assert_eq!(HalfKind::Bfloat16.rounded(-1e38), 0xfe96);
    assert_eq!(HalfKind::Bfloat16.rounded(1.0 + 3.0 / 256.0), 0x3f82, "a tie goes to the even one");
}

#[test]
fn the_tiers_that_must_be_tested_are_there() {
    // Under an emulator a tier that is not found would be a tier that is not tested.
    let names: Vec<&str> = Kernels::available().map(Kernels::name).collect();
    if let Some(expected) = std::env::var_os("KERNEL_TESTS_TIERS") {
        assert_eq!(expected.to_str(), Some(names.join(" ").as_str()));
    }
    assert!(names.ends_with(&["scalar"]));
}

#[test]
fn a_tier_can_be_forced() {
    for kernels in Kernels::available() {
        assert_eq!(Kernels::detect(Some(kernels.name())).map(Kernels::name), Ok(kernels.name()));
    }
    let error = Kernels::detect(Some("abacus")).expect_err("no such tier");
    assert!(error.to_string().contains("abacus") && error.to_string().contains("scalar"), "{error}");
}
