//! Deadlines as gRPC carries them.

use std::time::Duration;

/// gRPC allows no more digits.
const DIGITS_MAX: usize = 8;
/// Longest deadline that is believed: no request of ours takes longer.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The value of a `grpc-timeout` header, such as `250m` for 250 ms: 1 to 8 digits and a unit. At most one hour; `None` when
/// it is none.
pub fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout.min(TIMEOUT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_travel_in_every_unit() {
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(grpc_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(grpc_timeout("99999999H"), Some(TIMEOUT_MAX));
    }

    #[test]
    fn what_is_no_deadline_is_none() {
        for text in ["", "5", "x5m", "m", "+5m", "-5m", "100000000m", "18446744073709551615H", "5\u{b5}"] {
            assert_eq!(grpc_timeout(text), None, "{text}");
        }
    }
}
