//! Numbers of JSON, compared by value.

use std::cmp::Ordering;

/// An integer of up to 64 bits or a finite double. `3` and `3.0` are one number, and integers beyond 2^53 are never
/// rounded to compare them.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// `-2^63 ..= 2^64 - 1`: everything whole in that range, however it was written.
    Integer(i128),
    /// Finite; has a fraction, or is outside of that range.
    Double(f64),
}

/// 2^64, which a double holds exactly.
const INTEGER_END: f64 = 18_446_744_073_709_551_616.0;
/// -2^63, which a double holds exactly.
const INTEGER_FIRST: f64 = -9_223_372_036_854_775_808.0;

impl Number {
    /// The number that a double is; `None` unless it is finite.
    pub fn from_f64(value: f64) -> Option<Number> {
        if !value.is_finite() {
            return None;
        }
        let is_whole = value.trunc() == value && (INTEGER_FIRST..INTEGER_END).contains(&value);
        Some(if is_whole { Number::Integer(value as i128) } else { Number::Double(value) })
    }

    /// The number of a JSON text; `None` when it is none, or too large for a double.
    pub(super) fn parse(text: &[u8]) -> Option<Number> {
        // Up to 18 digits always fit an i64: nearly all numbers end here.
        let (negative, digits) = match text {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        if !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit) {
            let size = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
            return Some(Number::from(if negative { -size } else { size }));
        }
        let text = std::str::from_utf8(text).ok()?;
        match text.parse::<i128>() {
            Ok(whole) if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&whole) => {
                Some(Number::Integer(whole))
            }
            _ => Number::from_f64(text.parse().ok()?),
        }
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Integer(whole) => whole as f64,
            Number::Double(value) => value,
        }
    }
}

impl From<i64> for Number {
    fn from(whole: i64) -> Number {
        Number::Integer(i128::from(whole))
    }
}

impl From<u64> for Number {
    fn from(whole: u64) -> Number {
        Number::Integer(i128::from(whole))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        match (*self, *other) {
            (Number::Integer(a), Number::Integer(b)) => a.cmp(&b),
            // Finite, and no zeros: those are integers.
            (Number::Double(a), Number::Double(b)) => a.total_cmp(&b),
            (Number::Integer(a), Number::Double(b)) => compare(a, b),
            (Number::Double(a), Number::Integer(b)) => compare(b, a).reverse(),
        }
    }
}

/// An integer against a double that is no integer of that range: they are never equal.
fn compare(whole: i128, double: f64) -> Ordering {
    if double >= INTEGER_END {
        Ordering::Less
    } else if double < INTEGER_FIRST {
        Ordering::Greater
    } else if whole <= double.floor() as i128 {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text.as_bytes()).expect("a number")
    }

    #[test]
    fn numbers_are_equal_by_value_and_never_by_rounding() {
        assert_eq!(number("3"), number("3.0"));
        assert_eq!(number("-0"), number("0.0"));
        assert_eq!(number("1e3"), number("1000"));
        assert_eq!(number("18446744073709551615"), Number::from(u64::MAX));
        assert!(number("9007199254740993") > number("9007199254740992.0"));
        assert!(number("18446744073709551615") < number("18446744073709551616.0"));
        assert!(number("-9223372036854775808") > number("-9223372036854777856.0"));
        assert!(number("-2") < number("-1.5") && number("-1.5") < number("-1"));
        for none in ["", "-", "1e999", "NaN", "inf", "x", "1 "] {
            assert_eq!(Number::parse(none.as_bytes()), None, "{none:?}");
        }
    }

    fn any_number() -> impl Strategy<Value = Number> {
        prop_oneof![
            any::<i64>().prop_map(Number::from),
            any::<u64>().prop_map(Number::from),
            (-4i64..4).prop_map(Number::from),
            (-16i32..16).prop_map(|x| Number::from_f64(f64::from(x) / 4.0).expect("finite")),
            any::<f64>().prop_filter_map("finite", Number::from_f64),
        ]
    }

    proptest! {
        #[test]
        fn the_order_is_total((a, b, c) in (any_number(), any_number(), any_number())) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
            // Rounding to doubles never turns an order round.
            prop_assert!(a > b || a.to_f64() <= b.to_f64());
        }

        #[test]
        fn a_number_is_what_the_parser_of_json_says(text in "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,6})?(e[0-9]{1,2})?") {
            let parsed: serde_json::Number = serde_json::from_str(&text).expect("a number");
            let expected = match (parsed.as_i64(), parsed.as_u64(), parsed.as_f64()) {
                (Some(whole), _, _) => Some(Number::from(whole)),
                (None, Some(whole), _) => Some(Number::from(whole)),
                (None, None, double) => double.and_then(Number::from_f64),
            };
            prop_assert_eq!(Number::parse(text.as_bytes()), expected);
        }
    }
}
