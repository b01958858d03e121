//! Operations as lines of text, for people and for histories that tests keep.
//!
//! ```text
//! c1 0-2 write 1 ok@5            client 1 wrote value 1 between ticks 0 and 2, which made version 5
//! c2 3-4 read 1@5                client 2 read it; `read none`: no document
//! c2 5-6 write 2 if@4 mismatch@5 it should have had version 4, but had 5; `if@0`: it should not exist
//! c3 7-9 delete if@5 ok
//! c1 8-9 write 3 failed          certainly did not happen
//! c1 9- write 4 unknown          may happen at any time after tick 9, or never
//! ```

use std::fmt;

use crate::history::{Client, Entry, History, Operation, Outcome, Seen, Value, Version};

/// A line that is no operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line.
    pub line: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl History {
    /// Records operations on document `key` from lines of text, as [`Entry`] displays them. Empty lines are left out; a
    /// semicolon ends a line, too.
    ///
    /// # Errors
    /// The first line that is no operation; those before it are recorded.
    pub fn parse(&mut self, key: &str, text: &str) -> Result<(), ParseError> {
        let lines = text.split(['\n', ';']).map(str::trim);
        for line in lines.filter(|line| !line.is_empty()) {
            let entry = parse_entry(line).map_err(|why| ParseError { line: line.to_owned(), why })?;
            let op = self.invoke(entry.client, key, entry.operation, entry.invoked);
            if let Some(returned) = entry.returned {
                self.complete(op, entry.outcome, returned);
            }
        }
        Ok(())
    }
}

fn parse_entry(line: &str) -> Result<Entry, &'static str> {
    let mut words = line.split_whitespace().peekable();
    let mut word = |missing| words.next().ok_or(missing);
    let client = word("no client")?.strip_prefix('c').and_then(|number| number.parse().ok());
    let client = Client(client.ok_or("the client is not c and a number")?);
    let (invoked, returned) = parse_times(word("no times")?)?;
    let kind = word("no operation")?;
    let value = if kind == "write" { Some(Value(parse_number(word("no value")?)?)) } else { None };
    let condition = words.peek().and_then(|word| word.strip_prefix("if@")).map(parse_number).transpose()?;
    if condition.is_some() {
        words.next();
    }
    let condition = condition.map(Version);
    let operation = match (kind, value) {
        ("read", None) if condition.is_none() => Operation::Read,
        ("write", Some(value)) => Operation::Write { value, condition },
        ("delete", None) => Operation::Delete { condition },
        _ => return Err("the operation is none of read, write, delete"),
    };
    let outcome = parse_outcome(operation, words.next().ok_or("no outcome")?)?;
    if words.next().is_some() {
        return Err("there is more behind the outcome");
    }
    match (outcome == Outcome::Unknown) == returned.is_none() {
        true if !outcome.fits(operation) => Err("the outcome does not fit the operation"),
        true if returned.is_some_and(|returned| returned < invoked) => Err("it ends before it begins"),
        true => Ok(Entry { client, operation, invoked, outcome, returned }),
        false => Err("only what is unknown has no end"),
    }
}

fn parse_times(word: &str) -> Result<(u64, Option<u64>), &'static str> {
    let (invoked, returned) =
        word.split_once('-').ok_or("the times are not two numbers with - between them")?;
    let returned = (!returned.is_empty()).then(|| parse_number(returned)).transpose()?;
    Ok((parse_number(invoked)?, returned))
}

fn parse_outcome(operation: Operation, word: &str) -> Result<Outcome, &'static str> {
    let (word, version) = match word.split_once('@') {
        Some((word, version)) => (word, Some(Version(parse_number(version)?))),
        None => (word, None),
    };
    Ok(match (word, version) {
        ("failed", None) => Outcome::Failed,
        ("unknown", None) => Outcome::Unknown,
        ("ok", version) => Outcome::Done(version),
        ("mismatch", Some(found)) => Outcome::Mismatch(found),
        ("none", None) => Outcome::Found(None),
        (value, version) if operation == Operation::Read => {
            Outcome::Found(Some(Seen { value: Value(parse_number(value)?), version }))
        }
        _ => return Err("the outcome is not known"),
    })
}

fn parse_number(word: &str) -> Result<u64, &'static str> {
    word.parse().map_err(|_| "a number is missing")
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{} {}-", self.client.0, self.invoked)?;
        if let Some(returned) = self.returned {
            write!(f, "{returned}")?;
        }
        let condition = match self.operation {
            Operation::Read => None,
            Operation::Write { condition, .. } | Operation::Delete { condition } => condition,
        };
        match self.operation {
            Operation::Read => f.write_str(" read")?,
            Operation::Write { value, .. } => write!(f, " write {}", value.0)?,
            Operation::Delete { .. } => f.write_str(" delete")?,
        }
        if let Some(condition) = condition {
            write!(f, " if@{}", condition.0)?;
        }
        write!(f, " {}", self.outcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Found(None) => f.write_str("none"),
            Outcome::Found(Some(Seen { value, version: None })) => write!(f, "{}", value.0),
            Outcome::Found(Some(Seen { value, version: Some(version) })) => {
                write!(f, "{}@{}", value.0, version.0)
            }
            Outcome::Done(None) => f.write_str("ok"),
            Outcome::Done(Some(version)) => write!(f, "ok@{}", version.0),
            Outcome::Mismatch(found) => write!(f, "mismatch@{}", found.0),
            Outcome::Failed => f.write_str("failed"),
            Outcome::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.why, self.line)
    }
}

impl std::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_display_as_they_are_read() {
        let text = "c1 0-2 write 1 ok@5\nc2 3-4 read 1@5\nc2 4-4 read 1\nc2 5-6 write 2 if@4 mismatch@5\n\
                    c3 7-9 delete if@5 ok\nc1 8-9 write 3 if@0 failed\nc1 9- write 4 unknown\nc4 9- read unknown\n\
                    c4 9-12 read none\nc4 9-12 read failed";
        let mut history = History::default();
        history.parse("a", text).expect("operations");
        let lines: Vec<_> = history.entries("a").iter().map(Entry::to_string).collect();
        assert_eq!(lines.join("\n"), text);
    }

    #[test]
    fn what_is_no_operation_is_told() {
        for (line, why) in [
            ("1 0-2 read none", "the client is not c and a number"),
            ("c1 0 read none", "the times are not two numbers with - between them"),
            ("c1 x-2 read none", "a number is missing"),
            ("c1 0-2 take none", "the operation is none of read, write, delete"),
            ("c1 0-2 read if@4 none", "the operation is none of read, write, delete"),
            ("c1 0-2 read", "no outcome"),
            ("c1 0-2 read none none", "there is more behind the outcome"),
            ("c1 0-2 read ok", "the outcome does not fit the operation"),
            ("c1 0-2 delete perhaps", "the outcome is not known"),
            ("c1 0-2 write 1 mismatch@4", "the outcome does not fit the operation"),
            ("c1 2-0 read none", "it ends before it begins"),
            ("c1 0- read none", "only what is unknown has no end"),
            ("c1 0-2 write 1 unknown", "only what is unknown has no end"),
        ] {
            let error = History::default().parse("a", line).expect_err(line);
            assert_eq!(error, ParseError { line: line.to_owned(), why });
        }
    }
}
