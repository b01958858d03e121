//! What the answers to requests mean.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::rest::CallError;

/// What a call came to, by the meaning that the documentation gives to the answer.
#[derive(Debug)]
pub enum Outcome {
    /// The answer.
    Done(Value),
    /// There is no such document.
    Absent,
    /// The condition did not hold: the document has this version, 0 when there is none.
    Mismatch(u64),
    /// There is no such table.
    NoTable,
    /// There is a table of this name.
    TableExists,
    /// Certainly did not happen.
    Refused,
    /// May have happened, or happen later.
    Unknown,
}

/// What an answer means.
///
/// # Errors
/// When a right request must never get it.
pub(super) fn judge(answer: Result<Value, CallError>) -> Result<Outcome> {
    let problem = match answer {
        Ok(answer) => return Ok(Outcome::Done(answer)),
        // Nobody took the connection, so nobody has got the request.
        Err(CallError::Transport(error)) if error.is_connect() => return Ok(Outcome::Refused),
        Err(CallError::Transport(_)) => return Ok(Outcome::Unknown),
        Err(CallError::Garbled(what)) => bail!("not an answer: {what}"),
        Err(CallError::Problem(problem)) => problem,
    };
    match problem.code.as_str() {
        "document_not_found" => Ok(Outcome::Absent),
        "table_not_found" => Ok(Outcome::NoTable),
        "table_already_exists" => Ok(Outcome::TableExists),
        "version_mismatch" => Ok(Outcome::Mismatch(version_found(&problem.detail)?)),
        "rate_limited" | "overloaded" | "not_primary" | "not_master" | "no_master" | "shard_unavailable"
        | "not_ready" | "disk_full" | "memory_full" | "retry_too_late" | "shard_damaged"
        | "not_enough_slaves" => Ok(Outcome::Refused),
        // Of a change of tables the unreachable node may have heard.
        "deadline_exceeded" | "outcome_unknown" | "meta_store_unavailable" | "node_unreachable" => {
            Ok(Outcome::Unknown)
        }
        _ => bail!("a right request was answered with {problem:?}"),
    }
}

/// The version that a mismatch names.
fn version_found(detail: &str) -> Result<u64> {
    if detail.ends_with("does not exist") {
        return Ok(0);
    }
    let version = detail.rsplit_once("has version ").and_then(|(_, version)| version.parse().ok());
    version.with_context(|| format!("no version in {detail:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::Problem;

    fn judged(code: &str, detail: &str) -> Result<Outcome> {
        let problem = Problem { status: 503, code: code.to_owned(), detail: detail.to_owned() };
        judge(Err(CallError::Problem(problem)))
    }

    #[test]
    fn an_answer_means_what_the_documentation_says() {
        assert!(matches!(judged("overloaded", ""), Ok(Outcome::Refused)));
        assert!(matches!(judged("outcome_unknown", ""), Ok(Outcome::Unknown)));
        let found = judged("version_mismatch", "shard 1 on node a: document \"r\" has version 17");
        assert!(matches!(found, Ok(Outcome::Mismatch(17))));
        assert!(matches!(
            judged("version_mismatch", "document \"r\" does not exist"),
            Ok(Outcome::Mismatch(0))
        ));
        for mistake in ["invalid_argument", "internal", "a new one"] {
            assert!(judged(mistake, "").is_err(), "{mistake}");
        }
    }

    #[test]
    fn every_code_of_the_documentation_is_judged_by_its_column() {
        let errors = include_str!("../../../../docs/reference/errors.md");
        let rows = errors.lines().filter(|line| line.starts_with("| `"));
        let judged_otherwise = [
            "document_not_found",
            "version_mismatch",
            "node_unreachable",
            "meta_store_unavailable",
            "table_not_found",
            "table_already_exists",
        ];
        for row in rows {
            let columns: Vec<&str> = row.split('|').map(str::trim).collect();
            let (code, written) = (columns[1].trim_matches('`'), columns[4].trim_matches('*'));
            let (Ok(outcome), false) = (judged(code, ""), judged_otherwise.contains(&code)) else { continue };
            let is_nothing = written.starts_with("nothing");
            assert_eq!(matches!(outcome, Outcome::Refused), is_nothing, "{code} is documented as {written}");
        }
    }
}
