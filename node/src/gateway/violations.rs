//! Broken rules of one request, collected so that the caller sees all of them at once.

use crate::error_code::{Error, Violation};

use super::limits::VIOLATIONS_MAX;

/// Where in a request a value stands, without the cost of a text until a rule is broken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// The request itself: `/field`.
    Body,
    /// An item of a batch: `/documents/3/field`.
    Document(usize),
}

/// The broken rules so far; at most [`VIOLATIONS_MAX`] are kept, the rest is counted.
#[derive(Debug, Default)]
pub(super) struct Violations {
    kept: Vec<Violation>,
    dropped: usize,
}

impl Place {
    /// JSON pointer of a field at this place.
    pub(super) fn field(self, name: &str) -> String {
        match self {
            Place::Body => format!("/{name}"),
            Place::Document(index) => format!("/documents/{index}/{name}"),
        }
    }
}

impl Violations {
    /// Adds one.
    pub(super) fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        if self.kept.len() < VIOLATIONS_MAX {
            self.kept.push(Violation { pointer: pointer.into(), message: message.into() });
        } else {
            self.dropped += 1;
        }
    }

    /// Adds those of a part of the request, which stands at `place`.
    pub(super) fn add_all(&mut self, place: &str, part: Violations) {
        for Violation { pointer, message } in part.kept {
            self.add(format!("{place}{pointer}"), message);
        }
        self.dropped += part.dropped;
    }

    /// True when no rule was broken.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// `Ok` when no rule was broken, all of them as one error otherwise.
    pub(super) fn into_result(self) -> Result<(), Error> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let dropped = self.dropped;
        let mut error = Error::invalid_all(self.kept);
        if dropped > 0 {
            let all = VIOLATIONS_MAX + dropped;
            error.message = format!(
                "{all} rules are broken, the first {VIOLATIONS_MAX} are listed; first: {}",
                error.violations[0].message
            );
        }
        Err(error)
    }
}

/// ", did you mean x?" when a known word is near `word`; empty otherwise.
pub(super) fn nearest(word: &str, known: &[&str]) -> String {
    // Long words are no typing errors, and comparing them costs.
    if word.len() > 64 {
        return String::new();
    }
    let scored = known.iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate));
    match scored.min() {
        Some((distance, candidate)) if distance <= 1 + candidate.len() / 3 => {
            format!(", did you mean {candidate}?")
        }
        _ => String::new(),
    }
}

/// A name as a step of a JSON pointer, cut when it is long.
pub(super) fn step(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    short.replace('~', "~0").replace('/', "~1")
}

/// `text` for a message: quoted, cut after 64 characters.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(64) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_code::ErrorCode;

    #[test]
    fn every_broken_rule_is_listed_up_to_the_limit() {
        let mut violations = Violations::default();
        for index in 0..VIOLATIONS_MAX + 7 {
            violations.add(Place::Document(index).field("vector"), "is wrong");
        }
        let error = violations.into_result().expect_err("broken");
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert_eq!(error.violations.len(), VIOLATIONS_MAX);
        assert_eq!(error.violations[3].pointer, "/documents/3/vector");
        assert_eq!(error.message, "107 rules are broken, the first 100 are listed; first: is wrong");
        assert!(Violations::default().into_result().is_ok());
    }

    #[test]
    fn a_typing_error_gets_a_suggestion() {
        let known = ["table_name", "dimension", "top_k"];
        assert_eq!(nearest("topk", &known), ", did you mean top_k?");
        assert_eq!(nearest("dimensions", &known), ", did you mean dimension?");
        assert_eq!(nearest("colour", &known), "");
        assert_eq!(nearest(&"dimension".repeat(20), &known), "");
    }

    #[test]
    fn long_texts_are_cut_in_messages() {
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
        assert_eq!(quoted(&"ä".repeat(100)), format!("\"{}\"…", "ä".repeat(64)));
    }
}
