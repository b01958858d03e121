//! Errors on the wire between nodes: the stable word travels beside the status, so that nothing is guessed from it.

use std::time::Duration;

use tonic::{Code, Status};

use crate::error_code::{Error, ErrorCode, Violation};

/// Metadata keys of an error.
const CODE: &str = "vectorsphere-code";
const RETRY_AFTER_MS: &str = "vectorsphere-retry-after-ms";

/// The status that carries `error` to another node.
pub fn to_status(error: &Error) -> Status {
    let violations: Vec<_> = error.violations.iter().map(|v| (&v.pointer, &v.message)).collect();
    let details = match violations.is_empty() {
        true => Vec::new(),
        false => serde_json::to_vec(&violations).expect("pairs of strings are JSON"),
    };
    let code = Code::from_i32(error.code.grpc_status());
    let mut status = Status::with_details(code, error.message.clone(), details.into());
    let word = error.code.as_str().parse().expect("a stable word is ASCII");
    status.metadata_mut().insert(CODE, word);
    if let Some(after) = error.retry_after {
        status.metadata_mut().insert(RETRY_AFTER_MS, (after.as_millis() as u64).into());
    }
    status
}

/// The error that another node sent, or what a broken connection means.
pub fn from_status(status: &Status) -> Error {
    let word = status.metadata().get(CODE).and_then(|value| value.to_str().ok());
    let Some(code) = word.and_then(ErrorCode::parse) else { return without_word(status) };
    let mut error = Error::new(code, status.message());
    let violations: Vec<(String, String)> = serde_json::from_slice(status.details()).unwrap_or_default();
    error.violations =
        violations.into_iter().map(|(pointer, message)| Violation { pointer, message }).collect();
    let after = status.metadata().get(RETRY_AFTER_MS).and_then(|value| value.to_str().ok()?.parse().ok());
    error.retry_after = after.map(Duration::from_millis);
    error
}

/// A status that no handler of ours made: the transport did.
fn without_word(status: &Status) -> Error {
    let code = match status.code() {
        Code::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        // tonic answers a request whose `grpc-timeout` passed on the server with CANCELLED.
        Code::Cancelled if status.message().contains("Timeout") => ErrorCode::DeadlineExceeded,
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted => ErrorCode::NodeUnreachable,
        // Of this side's connection: HTTP/2 has reasons of its own to end one, which tonic gives any code.
        _ if std::error::Error::source(status).is_some() => ErrorCode::NodeUnreachable,
        Code::OutOfRange | Code::ResourceExhausted => ErrorCode::PayloadTooLarge,
        _ => ErrorCode::Internal,
    };
    Error::new(code, status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_way() {
        for code in ErrorCode::ALL {
            let mut error =
                Error::new(code, "shard 3 has no primary").retry_after(Duration::from_millis(250));
            error.violations =
                vec![Violation { pointer: "/documents/1".to_owned(), message: "no vector".to_owned() }];
            assert_eq!(from_status(&to_status(&error)), error);
        }
    }

    #[test]
    fn a_broken_connection_leaves_the_outcome_open() {
        assert_eq!(from_status(&Status::unavailable("tcp connect error")).code, ErrorCode::NodeUnreachable);
        assert_eq!(from_status(&Status::unknown("transport error")).code, ErrorCode::NodeUnreachable);
        assert_eq!(from_status(&Status::cancelled("Timeout expired")).code, ErrorCode::DeadlineExceeded);
        // A node that had stood still met many calls that had been given up, and closed the connection. The writes on it
        // were told that they are too large.
        let mut calm = Status::resource_exhausted("h2 protocol error: http2 error");
        calm.set_source(std::sync::Arc::new(std::io::Error::other("ENHANCE_YOUR_CALM")));
        assert_eq!(from_status(&calm).code, ErrorCode::NodeUnreachable);
        let large = Status::resource_exhausted("encoded message length too large");
        assert_eq!(from_status(&large).code, ErrorCode::PayloadTooLarge);
    }
}
