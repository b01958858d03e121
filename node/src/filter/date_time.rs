//! Points in time, as RFC 3339 writes them.

use std::fmt;

use jiff::SignedDuration;
use jiff::civil;

/// A point in time of the years 0 to 9999, in UTC: microseconds since 1970, to which finer ones are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime(pub(super) i64);

/// The first moment of year 0; what lies before has no text, though an offset can name it.
const FIRST: DateTime = DateTime(-62_167_219_200_000_000);
/// The last moment of year 9999.
const LAST: DateTime = DateTime(253_402_300_799_999_999);
/// Where microseconds are counted from.
const EPOCH: civil::DateTime = civil::datetime(1970, 1, 1, 0, 0, 0, 0);
/// Bytes of the date.
const DATE_BYTES: usize = 10;
/// Longest text that is looked at: nine digits of a second and an offset.
const BYTES_MAX: usize = 35;

impl DateTime {
    /// The point in time of an RFC 3339 date-time (`2024-05-01T12:00:00Z`), or of midnight UTC of its date alone.
    pub fn parse(text: &str) -> Option<DateTime> {
        let bytes = text.as_bytes();
        let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
        // Most texts are no date: they go before the parser of dates sees them.
        let is_date = (DATE_BYTES..=BYTES_MAX).contains(&bytes.len())
            && digits(0..4)
            && bytes[4] == b'-'
            && digits(5..7)
            && bytes[7] == b'-'
            && digits(8..10);
        if !is_date {
            return None;
        }
        let (local, offset_minutes) = match &bytes[DATE_BYTES..] {
            [] => (text.parse::<civil::Date>().ok()?.at(0, 0, 0, 0), 0),
            time => {
                let (length, offset_minutes) = offset_of(time)?;
                (text[..DATE_BYTES + length].parse::<civil::DateTime>().ok()?, offset_minutes)
            }
        };
        let nanos = local.duration_since(EPOCH).as_nanos() - i128::from(offset_minutes) * 60_000_000_000;
        // Towards the past, also before 1970.
        let point = DateTime(i64::try_from(nanos.div_euclid(1_000)).ok()?);
        (FIRST..=LAST).contains(&point).then_some(point)
    }
}

/// Of `T12:00:00[.123](Z|+01:00)` the bytes before the offset, and the offset in minutes.
fn offset_of(time: &[u8]) -> Option<(usize, i32)> {
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = time else { return None };
    let fraction = match rest {
        [b'.', digits @ ..] => 1 + digits.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 0,
    };
    let are_digits = [h1, h2, m1, m2, s1, s2].iter().all(|byte| byte.is_ascii_digit());
    if fraction == 1 || !are_digits {
        return None;
    }
    let offset_minutes = match &rest[fraction..] {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two_digits([*h1, *h2], 23)?, two_digits([*m1, *m2], 59)?);
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some((time.len() - rest.len() + fraction, offset_minutes))
}

fn two_digits(digits: [u8; 2], most: i32) -> Option<i32> {
    let [tens, ones] = digits.map(|digit| digit.is_ascii_digit().then(|| i32::from(digit - b'0')));
    Some(tens? * 10 + ones?).filter(|number| *number <= most)
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = EPOCH.checked_add(SignedDuration::from_micros(self.0));
        write!(f, "{}Z", local.expect("only moments of these years are made"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime {
        DateTime::parse(text).unwrap_or_else(|| panic!("{text} is a date-time"))
    }

    #[test]
    fn date_times_are_points_in_time() {
        assert_eq!(at("1970-01-01T00:00:00Z"), DateTime(0));
        assert_eq!(at("1970-01-01"), DateTime(0));
        assert_eq!(at("1970-01-01T00:00:00.0000019Z"), DateTime(1));
        assert_eq!(at("1969-12-31T23:59:59.9999999Z"), DateTime(-1));
        assert_eq!(at("2024-05-01t12:00:00.5z"), at("2024-05-01 14:00:00.500+02:00"));
        assert_eq!(at("2024-02-29"), at("2024-02-28T23:00:00-01:00"));
        assert_eq!(at("0000-01-01T01:00:00+01:00"), FIRST);
        assert_eq!(at("9999-12-31T23:59:59.999999999Z"), LAST);
        for point in [FIRST, LAST, at("2024-05-01T12:00:00.000001Z")] {
            assert_eq!(at(&point.to_string()), point);
        }
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "",
            "2024",
            "2024-05",
            "2023-02-29",
            "2024-13-01",
            "2024-05-01T",
            "2024-05-01T12:00:00",
            "2024-05-01T12:00Z",
            "2024-05-01T12:00:00.Z",
            "2024-05-01T25:00:00Z",
            "2024-05-01T12:00:00+0200",
            "2024-05-01T12:00:00Z[Europe/Berlin]",
            "2024-05-01T12:00:00+02:00[Europe/Berlin]",
            "2024-05-01T12:00:00.12345678901234567890123Z",
            "0000-01-01T00:59:59+01:00",
            "9999-12-31T23:59:59-00:01",
            "2024-05-01T12:00:00+24:00",
            "2024-05-01T12:00:00+01:60",
            "２024-05-01",
            "2024-05-0é",
        ] {
            assert_eq!(DateTime::parse(text), None, "{text:?}");
        }
    }
}
