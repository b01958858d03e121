//! Metadata in JSON: any object within depth and size whose numbers survive.

use super::super::limits::METADATA_DEPTH_MAX;
use super::super::validate;
use crate::document::Metadata;

/// Metadata from text that the parser found to be one JSON value.
pub(in crate::gateway) fn parse(text: &str) -> Result<Metadata, String> {
    if !text.starts_with('{') {
        return Err("metadata must be an object".to_owned());
    }
    scan(text)?;
    let object =
        Metadata::parse_object(text.as_bytes()).map_err(|error| format!("metadata is not valid: {error}"))?;
    validate::metadata(&object)
}

/// Finds what the tree would hide or suffer from, without recursion: nesting, and integers that a double would round.
fn scan(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                if depth > METADATA_DEPTH_MAX {
                    return Err(format!("metadata is nested deeper than {METADATA_DEPTH_MAX} levels"));
                }
            }
            b'}' | b']' => depth -= 1,
            b'-' | b'0'..=b'9' => {
                let end = end_of_number(bytes, at);
                exact(&text[at..end])?;
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Index of the quote that ends the string which starts at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// Index after the number that starts at `start`.
fn end_of_number(bytes: &[u8], start: usize) -> usize {
    let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    start + bytes[start..].iter().take_while(|byte| in_number(byte)).count()
}

fn exact(number: &str) -> Result<(), String> {
    let integer = !number.contains(['.', 'e', 'E']);
    // Up to 18 digits always fit; the common case costs no parse.
    if integer && number.len() > 18 && number.parse::<u64>().is_err() && number.parse::<i64>().is_err() {
        let number: String = number.chars().take(40).collect();
        return Err(format!(
            "metadata has the integer {number}, which needs more than 64 bits; write it as a string"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::limits::METADATA_BYTES_MAX;

    fn nested(depth: usize) -> String {
        format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
    }

    #[test]
    fn depth_is_limited_whatever_nests() {
        assert!(parse(&nested(METADATA_DEPTH_MAX)).is_ok());
        let error = parse(&nested(METADATA_DEPTH_MAX + 1)).expect_err("too deep");
        assert_eq!(error, "metadata is nested deeper than 32 levels");
        let lists = format!(r#"{{"a":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
        assert!(parse(&lists).is_err());
        let brackets_in_text = format!(r#"{{"a":"{}\"{}"}}"#, "[{".repeat(100), "}]".repeat(3));
        assert!(parse(&brackets_in_text).is_ok());
    }

    #[test]
    fn size_is_limited() {
        let fits = format!(r#"{{"a":"{}"}}"#, "x".repeat(METADATA_BYTES_MAX - 8));
        assert_eq!(parse(&fits).expect("fits").as_json().len(), METADATA_BYTES_MAX);
        let error =
            parse(&format!(r#"{{"a":"{}"}}"#, "x".repeat(METADATA_BYTES_MAX - 7))).expect_err("too large");
        assert_eq!(error, "metadata has 1048577 bytes as compact JSON, at most 1048576 are allowed");
    }

    #[test]
    fn integers_survive_or_are_refused() {
        let text = r#"{"a":9007199254740993,"b":-9223372036854775808,"c":18446744073709551615,"d":-0.0}"#;
        assert_eq!(parse(text).expect("exact").as_json(), text);
        for lost in ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"] {
            let error = parse(&format!(r#"{{"a":[{lost}]}}"#)).expect_err("would be rounded");
            assert!(error.contains(lost) && error.contains("write it as a string"), "{error}");
        }
        assert!(parse(r#"{"a":"18446744073709551616"}"#).is_ok());
        assert!(parse(r#"{"a":1.8446744073709552e19}"#).is_ok());
        assert!(parse(r#"{"a":1e999}"#).is_err());
    }

    #[test]
    fn only_objects_are_metadata() {
        for other in ["[]", "1", "\"x\"", "true"] {
            assert_eq!(parse(other), Err("metadata must be an object".to_owned()));
        }
        assert_eq!(parse("{ }"), Ok(Metadata::empty()));
    }
}
