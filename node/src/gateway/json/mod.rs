//! JSON bodies, parsed straight into drafts and validated on the way: no tree is built but for metadata.
//!
//! A body that is not JSON, or holds a value of the wrong type, is refused at the first such place, with pointer, line
//! and column. Broken rules beyond that (unknown fields, wrong dimensions, zero vectors) are collected, all of them.
//! Memory is bounded by the body: vectors stop growing at the table's dimension, batches at their limit, nesting is
//! never followed by recursion deeper than [`serde_json`]'s own 128.

mod admin;
mod bodies;
mod filter;
mod index_options;
mod indexed_fields;
mod metadata;
mod object;
mod search;
mod vector;

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;

use serde::de::DeserializeSeed;

use super::violations::Violations;
use crate::error_code::Error;

#[cfg(any(test, fuzzing))]
pub(crate) use self::filter::filter;
pub(super) use admin::{drain, force_primary, hand_over, move_replica};
pub(super) use bodies::{batch_too_large, delete, metadata_change, table, upsert, upserts};
pub(super) use indexed_fields::index_type;
pub(super) use search::{search, search_batch};

/// One parse: what was found on the way, beside the value itself.
#[derive(Default)]
struct Reader {
    violations: RefCell<Violations>,
    /// Ends the parse with this error instead of what the parser says.
    refusal: Cell<Option<Error>>,
    /// Where a failed parse stood, innermost part first: filled while the error passes outwards, so that a parse that
    /// succeeds pays nothing.
    trail: RefCell<Vec<Segment>>,
    /// JSON pointer of the part of a filter that is being read.
    inside: RefCell<String>,
    /// Conditions of a filter so far.
    conditions: Cell<usize>,
}

/// A step of a JSON pointer.
enum Segment {
    Field(&'static str),
    /// A field with a name of the caller's, escaped.
    Name(String),
    Item(usize),
}

impl Reader {
    fn violation(&self, pointer: impl Into<String>, message: impl Into<String>) {
        self.violations.borrow_mut().add(pointer, message);
    }

    /// Notes that an error passed `segment` on its way outwards.
    fn passing<T, E>(&self, result: Result<T, E>, segment: Segment) -> Result<T, E> {
        if result.is_err() {
            self.trail.borrow_mut().push(segment);
        }
        result
    }

    /// Ends the parse with `error`.
    fn refuse<E: serde::de::Error>(&self, error: Error) -> E {
        self.refusal.set(Some(error));
        E::custom("refused")
    }

    /// JSON pointer of the place where the parse failed.
    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for segment in self.trail.borrow().iter().rev() {
            let written = match segment {
                Segment::Field(name) => write!(pointer, "/{name}"),
                Segment::Name(name) => write!(pointer, "/{name}"),
                Segment::Item(index) => write!(pointer, "/{index}"),
            };
            written.expect("a String takes every text");
        }
        pointer
    }
}

/// Parses a whole body; `reader` is the one that `seed` holds.
fn parse<'de, S: DeserializeSeed<'de>>(body: &'de [u8], seed: S, reader: &Reader) -> Result<S::Value, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = seed.deserialize(&mut deserializer);
    let parsed = parsed.and_then(|value| deserializer.end().map(|()| value));
    if let Some(refusal) = reader.refusal.take() {
        return Err(refusal);
    }
    let value = parsed.map_err(|error| Error::invalid(reader.pointer(), describe(&error)))?;
    reader.violations.take().into_result()?;
    Ok(value)
}

/// What the parser says, short, with line and column.
fn describe(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    // The parser quotes the value that it did not expect, which may be as long as the body.
    let text: String = match text.char_indices().nth(200) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    };
    let kind = if error.is_data() { "" } else { "body is not valid JSON: " };
    format!("{kind}{text}, line {line}, column {column}")
}
