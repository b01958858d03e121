//! What the public API takes in and gives out at most. Every number is checked before anything is written, and has a
//! test.

use std::time::Duration;

/// Largest answer of a search; a larger one is refused with the advice to ask for less.
pub(super) use crate::search::ANSWER_BYTES_MAX;

/// Largest body of a REST request, and largest message of a gRPC request.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;
/// Most bytes of a REST request that are read at all, those beyond [`BODY_BYTES_MAX`] only to be forgotten.
pub(super) const DISCARDED_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
/// Most documents, or ids, of one write.
pub(super) const BATCH_DOCUMENTS_MAX: usize = 1_000;
/// Most documents of one page of a listing.
pub(super) const PAGE_DOCUMENTS_MAX: u32 = 1_000;
/// Documents of a page when the caller does not say.
pub(super) const PAGE_DOCUMENTS_DEFAULT: u32 = 100;
/// Hits of a search when the caller does not say.
pub(super) const TOP_K_DEFAULT: u32 = 10;
/// Largest magnitude of a vector's value: squares of 65,536 of them still fit a double.
pub(super) const MAGNITUDE_MAX: f32 = 1e18;
/// Deepest nesting of metadata; the object itself is depth 1.
pub(super) const METADATA_DEPTH_MAX: usize = 32;
/// Most bytes of a document's metadata as compact JSON.
pub(super) const METADATA_BYTES_MAX: usize = 1 << 20;
/// Most broken rules that one answer lists; more are counted.
pub(super) const VIOLATIONS_MAX: usize = 100;
/// Longest `X-Request-Id` that is taken over.
pub(super) const REQUEST_ID_BYTES_MAX: usize = 128;
/// Longest bearer token that is looked at.
pub(super) const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Longest deadline that a caller may ask for; longer ones are cut to it.
pub(super) const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// Largest head of a request; also the largest header list over HTTP/2.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
/// Time that a kept connection may wait for, or dribble, its next head. Longer than the 60 s of common proxies, so
/// that it is they who close idle connections and no request meets a closing one.
pub(super) const NEXT_HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Concurrent streams of one HTTP/2 connection.
pub(super) const STREAMS_MAX: u32 = 256;
/// Open connections of one listener; more wait in the kernel's queue.
pub(super) const CONNECTIONS_MAX: usize = 8_192;

// The sum of squares of the longest vector of the largest values is finite.
const _: () = assert!((MAGNITUDE_MAX as f64) * (MAGNITUDE_MAX as f64) * 65_536.0 < f64::MAX);
