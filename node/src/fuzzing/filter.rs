//! A filter and the metadata that it reads. Metadata is what a disk or a peer says: it may be broken.

use std::sync::Arc;

use prost::Message as _;
use vectorsphere_proto::v1;

use crate::document::Metadata;
use crate::filter::{Matcher, reference, wire};
use crate::gateway;

/// Checks the JSON text of a filter; behind a line break may stand metadata.
pub fn filter(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (text, metadata) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let Ok(filter) = gateway::read_filter(text) else { return false };
    let message = wire::message(&filter).encode_to_vec();
    let received = v1::Filter::decode(&*message).expect("just written");
    assert_eq!(wire::draft(received).validate(""), Ok(filter.clone()));
    let written = reference::to_json(&filter).to_string();
    assert_eq!(gateway::read_filter(written.as_bytes()), Ok(filter.clone()));
    let matcher = Matcher::new(Arc::new(filter));
    matcher.matches(metadata);
    if let Ok(object) = Metadata::parse_object(metadata) {
        // As it is stored: the text that came may name a key twice.
        let stored = Metadata::from_object(&object);
        let expected = reference::passes(matcher.filter(), &object);
        assert_eq!(matcher.matches(stored.as_json().as_bytes()), expected, "{}", stored.as_json());
    }
    true
}
