//! The closed set of outcomes that a caller can meet, and the error that carries one.
//!
//! Inner modules have error enums of their own and turn them into [`Error`] where a request ends. The gateway maps
//! [`ErrorCode`] once to HTTP and once to gRPC by the table below; it knows no other source of status codes.

use std::fmt;
use std::time::Duration;

/// What went wrong, as a stable word. New variants may come; the meaning of one never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request breaks a documented rule; nothing was written.
    InvalidArgument,
    /// No or wrong credentials.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// No table of this name.
    TableNotFound,
    /// No document of this id.
    DocumentNotFound,
    /// No node of this name.
    NodeNotFound,
    /// No shard of this number.
    ShardNotFound,
    /// No such path or method.
    RouteNotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// A table of this name exists.
    TableAlreadyExists,
    /// The id of an earlier write was given to another one; nothing was written.
    RequestIdReused,
    /// The document is at another version than the write asked for; nothing of its shard's part was written.
    VersionMismatch,
    /// The write may be a repeat of one that the shard no longer remembers. Whether that one happened cannot be told by
    /// repeating it: read first. This one was not carried out.
    RetryTooLate,
    /// The session token is from before a forced recovery of the shard, which may have lost what the token names.
    SessionExpired,
    /// Body, batch or answer over its limit.
    PayloadTooLarge,
    /// The body's type is not understood.
    UnsupportedMediaType,
    /// The caller's rate is over its limit; retry later.
    RateLimited,
    /// The node is at its limit of concurrent work; retry later.
    Overloaded,
    /// Fewer slaves are there than the table needs copies.
    NotEnoughSlaves,
    /// The addressed replica does not lead this epoch; route again.
    NotPrimary,
    /// The addressed node is not the Master; route again.
    NotMaster,
    /// No Master is elected at present; table changes wait.
    NoMaster,
    /// A shard that the request needs cannot answer.
    ShardUnavailable,
    /// Another node could not be reached, or the connection broke: whether it did the work is unknown.
    NodeUnreachable,
    /// A shard found its own data damaged and refuses to serve it.
    ShardDamaged,
    /// The disk is too full for more data; deletes still work.
    DiskFull,
    /// Shards hold as much memory as they may; deletes still work.
    MemoryFull,
    /// The metadata store cannot be reached.
    MetaStoreUnavailable,
    /// The deadline passed; a write may or may not have happened.
    DeadlineExceeded,
    /// The write may or may not have happened; retry with the same request id.
    OutcomeUnknown,
    /// The node is starting or stopping.
    NotReady,
    /// A bug of ours; the log has more.
    Internal,
}

impl ErrorCode {
    /// Every code, for tables in docs and tests.
    pub const ALL: [ErrorCode; 32] = [
        ErrorCode::InvalidArgument,
        ErrorCode::Unauthenticated,
        ErrorCode::PermissionDenied,
        ErrorCode::TableNotFound,
        ErrorCode::DocumentNotFound,
        ErrorCode::NodeNotFound,
        ErrorCode::ShardNotFound,
        ErrorCode::RouteNotFound,
        ErrorCode::MethodNotAllowed,
        ErrorCode::TableAlreadyExists,
        ErrorCode::RequestIdReused,
        ErrorCode::VersionMismatch,
        ErrorCode::RetryTooLate,
        ErrorCode::SessionExpired,
        ErrorCode::PayloadTooLarge,
        ErrorCode::UnsupportedMediaType,
        ErrorCode::RateLimited,
        ErrorCode::Overloaded,
        ErrorCode::NotEnoughSlaves,
        ErrorCode::NotPrimary,
        ErrorCode::NotMaster,
        ErrorCode::NoMaster,
        ErrorCode::ShardUnavailable,
        ErrorCode::NodeUnreachable,
        ErrorCode::ShardDamaged,
        ErrorCode::DiskFull,
        ErrorCode::MemoryFull,
        ErrorCode::MetaStoreUnavailable,
        ErrorCode::DeadlineExceeded,
        ErrorCode::OutcomeUnknown,
        ErrorCode::NotReady,
        ErrorCode::Internal,
    ];

    /// Stable word, HTTP status, gRPC status number, and a title for people.
    const fn row(self) -> (&'static str, u16, i32, &'static str) {
        match self {
            ErrorCode::InvalidArgument => ("invalid_argument", 400, 3, "Invalid argument"),
            ErrorCode::Unauthenticated => ("unauthenticated", 401, 16, "Unauthenticated"),
            ErrorCode::PermissionDenied => ("permission_denied", 403, 7, "Permission denied"),
            ErrorCode::TableNotFound => ("table_not_found", 404, 5, "Table not found"),
            ErrorCode::DocumentNotFound => ("document_not_found", 404, 5, "Document not found"),
            ErrorCode::NodeNotFound => ("node_not_found", 404, 5, "Node not found"),
            ErrorCode::ShardNotFound => ("shard_not_found", 404, 5, "Shard not found"),
            ErrorCode::RouteNotFound => ("route_not_found", 404, 12, "Route not found"),
            ErrorCode::MethodNotAllowed => ("method_not_allowed", 405, 12, "Method not allowed"),
            ErrorCode::TableAlreadyExists => ("table_already_exists", 409, 6, "Table already exists"),
            ErrorCode::RequestIdReused => ("request_id_reused", 422, 9, "Request id reused"),
            ErrorCode::VersionMismatch => ("version_mismatch", 409, 10, "Version mismatch"),
            ErrorCode::RetryTooLate => ("retry_too_late", 409, 10, "Retry too late"),
            ErrorCode::SessionExpired => ("session_expired", 409, 9, "Session expired"),
            ErrorCode::PayloadTooLarge => ("payload_too_large", 413, 11, "Payload too large"),
            ErrorCode::UnsupportedMediaType => ("unsupported_media_type", 415, 3, "Unsupported media type"),
            ErrorCode::RateLimited => ("rate_limited", 429, 8, "Rate limited"),
            ErrorCode::Overloaded => ("overloaded", 503, 8, "Overloaded"),
            ErrorCode::NotEnoughSlaves => ("not_enough_slaves", 503, 9, "Not enough slaves"),
            ErrorCode::NotPrimary => ("not_primary", 503, 14, "Not the primary"),
            ErrorCode::NotMaster => ("not_master", 503, 14, "Not the Master"),
            ErrorCode::NoMaster => ("no_master", 503, 14, "No Master elected"),
            ErrorCode::ShardUnavailable => ("shard_unavailable", 503, 14, "Shard unavailable"),
            ErrorCode::NodeUnreachable => ("node_unreachable", 503, 14, "Node unreachable"),
            ErrorCode::ShardDamaged => ("shard_damaged", 500, 15, "Shard damaged"),
            ErrorCode::DiskFull => ("disk_full", 507, 8, "Disk full"),
            ErrorCode::MemoryFull => ("memory_full", 507, 8, "Memory full"),
            ErrorCode::MetaStoreUnavailable => {
                ("meta_store_unavailable", 503, 14, "Metadata store unavailable")
            }
            ErrorCode::DeadlineExceeded => ("deadline_exceeded", 504, 4, "Deadline exceeded"),
            ErrorCode::OutcomeUnknown => ("outcome_unknown", 503, 2, "Outcome unknown"),
            ErrorCode::NotReady => ("not_ready", 503, 14, "Not ready"),
            ErrorCode::Internal => ("internal", 500, 13, "Internal error"),
        }
    }

    /// The stable word of this code.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub const fn http_status(self) -> u16 {
        self.row().1
    }

    /// The gRPC status number.
    pub const fn grpc_status(self) -> i32 {
        self.row().2
    }

    /// A short title for people, the same for every error of this code.
    pub const fn title(self) -> &'static str {
        self.row().3
    }

    /// The code of a stable word.
    pub fn parse(word: &str) -> Option<ErrorCode> {
        ErrorCode::ALL.into_iter().find(|code| code.as_str() == word)
    }

    /// True when a read may be tried again elsewhere or later with hope.
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            ErrorCode::RateLimited
                | ErrorCode::Overloaded
                | ErrorCode::NotPrimary
                | ErrorCode::NotMaster
                | ErrorCode::NoMaster
                | ErrorCode::ShardUnavailable
                | ErrorCode::NodeUnreachable
                | ErrorCode::MetaStoreUnavailable
                | ErrorCode::NotReady
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One broken rule in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer into the request, such as `/documents/3/vector`.
    pub pointer: String,
    /// What was wrong and what is allowed.
    pub message: String,
}

/// The end of a request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The outcome.
    pub code: ErrorCode,
    /// What happened to what, for people; lower case, no full stop, no secrets.
    pub message: String,
    /// For [`ErrorCode::InvalidArgument`]: every broken rule that was found.
    pub violations: Vec<Violation>,
    /// When a retry is worth it.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error of this code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), violations: Vec::new(), retry_after: None }
    }

    /// One broken rule at a JSON pointer.
    pub fn invalid(pointer: impl Into<String>, message: impl Into<String>) -> Error {
        let violation = Violation { pointer: pointer.into(), message: message.into() };
        Error::invalid_all(vec![violation])
    }

    /// Several broken rules; `violations` is not empty.
    pub fn invalid_all(violations: Vec<Violation>) -> Error {
        let message = match violations.as_slice() {
            [one] => one.message.clone(),
            many => format!("{} rules are broken, first: {}", many.len(), many[0].message),
        };
        Error { code: ErrorCode::InvalidArgument, message, violations, retry_after: None }
    }

    /// The same error with a hint when to retry.
    pub fn retry_after(mut self, after: Duration) -> Error {
        self.retry_after = Some(after);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_parse_back() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
            assert!((400..600).contains(&code.http_status()), "{code}");
            assert!((1..=16).contains(&code.grpc_status()), "{code}");
        }
    }

    #[test]
    fn every_code_is_explained_with_its_numbers() {
        let page = include_str!("../../docs/reference/errors.md");
        let explained = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(explained, ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let line = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{code}` |")))
                .unwrap_or_else(|| panic!("{code} is not explained"));
            let has = |cell: String| line.split('|').any(|other| other.trim().ends_with(&cell));
            assert!(
                has(code.http_status().to_string()) && has(format!("({})", code.grpc_status())),
                "{line}"
            );
        }
    }
}
