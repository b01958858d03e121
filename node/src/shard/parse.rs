//! From messages to checked values. An error names the place by a JSON pointer into the message.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use vectorsphere_index::{Metric, StorageType, norm};
use vectorsphere_proto::internal::{self as proto, operation::Kind};
use vectorsphere_proto::v1;

use super::replica::ReadRule;
use crate::document::{Document, Metadata, vector_from_bytes};
use crate::error_code::{Error, Violation};
use crate::filter::{KeyPath, Matcher, wire};
use crate::ids::{DocumentId, Epoch, Lsn, OpId, ShardId, ShardIndex, TableId};
use crate::search::{Consistency, GROUP_LIMIT_MAX, GroupBy, METADATA_FIELDS_MAX, MetadataChoice};
use crate::storage::Operation;

/// Operations of one batch, at most.
const OPERATIONS_MAX: usize = 1_000;
/// Largest magnitude of a vector's value: squares of 65,536 of them fit a double.
const MAGNITUDE_MAX: f32 = 1e18;
/// Metadata of one document, bytes.
const METADATA_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of metadata; the object itself is depth 1.
const METADATA_DEPTH_MAX: usize = 32;

/// Shard and epoch that a request is for.
pub(super) fn shard(shard: Option<&proto::ShardRef>) -> Result<(ShardId, Epoch), Error> {
    let shard = shard.ok_or_else(|| Error::invalid("/shard", "shard is missing"))?;
    let table = TableId::parse(&shard.table_id)
        .ok_or_else(|| Error::invalid("/shard/table_id", "table_id is not a UUID"))?;
    Ok((ShardId { table, index: ShardIndex(shard.shard) }, Epoch(shard.epoch)))
}

/// What a read must reflect.
pub(super) fn read_rule(rule: Option<&proto::ReadRule>) -> Result<ReadRule, Error> {
    let rule = rule.ok_or_else(|| Error::invalid("/rule", "rule is missing"))?;
    let most = Duration::from_millis(u64::from(rule.max_staleness_ms));
    let consistency = match rule.level() {
        proto::Level::Strong => Consistency::Strong,
        proto::Level::StrongNoclock => Consistency::StrongNoClock,
        proto::Level::Session => Consistency::Session,
        proto::Level::Bounded if most.is_zero() => {
            return Err(Error::invalid("/rule/max_staleness_ms", "max_staleness_ms is missing"));
        }
        proto::Level::Bounded => Consistency::Bounded(most),
        proto::Level::Eventual => Consistency::Eventual,
        proto::Level::Unspecified => {
            let message = format!("level {} is missing or not known", rule.level);
            return Err(Error::invalid("/rule/level", message));
        }
    };
    Ok(ReadRule { consistency, min_lsn: Lsn(rule.min_lsn), incarnation: rule.incarnation })
}

/// Key of an operation.
pub(super) fn op_id(bytes: &[u8]) -> Result<OpId, Error> {
    let message = format!("op_id has {} bytes, must have 16", bytes.len());
    bytes.try_into().map(OpId).map_err(|_| Error::invalid("/op_id", message))
}

/// A document's id.
pub(super) fn document_id(pointer: &str, id: &str) -> Result<DocumentId, Error> {
    DocumentId::parse(id).map_err(|error| Error::invalid(pointer, error.to_string()))
}

/// Values of a vector.
pub(super) fn values(pointer: &str, bytes: &[u8]) -> Result<Vec<f32>, Error> {
    let message = || format!("vector has {} bytes, must be a multiple of 4", bytes.len());
    vector_from_bytes(bytes).ok_or_else(|| Error::invalid(pointer, message()))
}

/// The filter of a search, ready for its rows.
pub(super) fn filter(filter: Option<v1::Filter>) -> Result<Option<Arc<Matcher>>, Error> {
    let Some(filter) = filter else { return Ok(None) };
    let filter = wire::draft(filter).validate("/filter").map_err(Error::invalid_all)?;
    Ok((!filter.is_empty()).then(|| Arc::new(Matcher::new(Arc::new(filter)))))
}

/// What a search returns of metadata; `place` is that of its message.
pub(super) fn metadata_choice(
    place: &str,
    is_wanted: bool,
    fields: &[String],
) -> Result<MetadataChoice, Error> {
    match fields.len() {
        _ if !is_wanted => return Ok(MetadataChoice::Nothing),
        0 => return Ok(MetadataChoice::All),
        1..=METADATA_FIELDS_MAX => {}
        count => {
            let message =
                format!("metadata_fields has {count} items, at most {METADATA_FIELDS_MAX} are allowed");
            return Err(Error::invalid(format!("{place}/metadata_fields"), message));
        }
    }
    let path = |(index, text): (usize, &String)| {
        KeyPath::parse(text).map_err(|why| Error::invalid(format!("{place}/metadata_fields/{index}"), why))
    };
    Ok(MetadataChoice::Fields(fields.iter().enumerate().map(path).collect::<Result<_, _>>()?))
}

/// How hits are grouped; `place` is that of its message.
pub(super) fn group_by(place: &str, key: &str, limit: u32) -> Result<Option<GroupBy>, Error> {
    if key.is_empty() {
        return Ok(None);
    }
    let key = KeyPath::parse(key).map_err(|why| Error::invalid(format!("{place}/group_key"), why))?;
    if !(1..=GROUP_LIMIT_MAX).contains(&limit) {
        let message = format!("group_limit is {limit}, must be 1 to {GROUP_LIMIT_MAX}");
        return Err(Error::invalid(format!("{place}/group_limit"), message));
    }
    Ok(Some(GroupBy { key, limit }))
}

/// Checks a vector against its table.
pub(super) fn check_vector(
    pointer: &str,
    vector: &[f32],
    dimension: u32,
    metric: Metric,
) -> Result<(), Error> {
    if vector.len() != dimension as usize {
        let message = format!("vector has {} values, the table's dimension is {dimension}", vector.len());
        return Err(Error::invalid(pointer, message));
    }
    // NaN fails every comparison.
    if let Some(index) = vector.iter().position(|value| !matches!(value.abs(), 0.0..=MAGNITUDE_MAX)) {
        let message =
            format!("value {} is {}, must be finite and at most 1e18 in magnitude", index, vector[index]);
        return Err(Error::invalid(format!("{pointer}/{index}"), message));
    }
    if metric == Metric::Cosine && norm(vector) == 0.0 {
        return Err(Error::invalid(pointer, "vector is zero, which has no direction to compare by cosine"));
    }
    Ok(())
}

/// The operations of a batch; all broken rules at once.
pub(super) fn operations(
    operations: Vec<proto::Operation>,
    dimension: u32,
    storage_type: StorageType,
    metric: Metric,
) -> Result<Vec<Operation>, Error> {
    if !(1..=OPERATIONS_MAX).contains(&operations.len()) {
        let message = format!("batch has {} operations, must have 1 to {OPERATIONS_MAX}", operations.len());
        return Err(Error::invalid("/operations", message));
    }
    let mut parsed = Vec::with_capacity(operations.len());
    let mut violations: Vec<Violation> = Vec::new();
    for (index, operation) in operations.into_iter().enumerate() {
        match parse_operation(&format!("/operations/{index}"), operation, dimension, storage_type, metric) {
            Ok(operation) => parsed.push(operation),
            Err(error) => violations.extend(error.violations),
        }
    }
    if violations.is_empty() { Ok(parsed) } else { Err(Error::invalid_all(violations)) }
}

fn parse_operation(
    pointer: &str,
    operation: proto::Operation,
    dimension: u32,
    storage_type: StorageType,
    metric: Metric,
) -> Result<Operation, Error> {
    let kind = operation.kind.ok_or_else(|| Error::invalid(pointer, "operation is empty"))?;
    let if_version = operation.if_version.map(Lsn);
    match kind {
        Kind::Upsert(proto::Document { id, vector, metadata }) => {
            let id = document_id(&format!("{pointer}/upsert/id"), &id)?;
            let place = format!("{pointer}/upsert/vector");
            let mut vector = values(&place, &vector)?;
            check_vector(&place, &vector, dimension, metric)?;
            // A gateway has rounded it already; what goes to the log must be what is kept.
            if let Err(index) = storage_type.round(&mut vector) {
                let (value, word, largest) = (vector[index], storage_type.as_str(), storage_type.largest());
                let message =
                    format!("value {index} is {value}, {word} holds at most {largest} in magnitude");
                return Err(Error::invalid(format!("{place}/{index}"), message));
            }
            if metric == Metric::Cosine && vector.iter().all(|value| *value == 0.0) {
                let message = format!("vector has only values that are zero as {}", storage_type.as_str());
                return Err(Error::invalid(place, message));
            }
            let metadata = parse_metadata(&format!("{pointer}/upsert/metadata"), metadata)?;
            Ok(Operation::Upsert { document: Document { id, vector, metadata }, if_version })
        }
        Kind::Delete(id) => {
            let id = document_id(&format!("{pointer}/delete"), &id)?;
            Ok(Operation::Delete { id, if_version })
        }
        Kind::SetMetadata(proto::SetMetadata { id, metadata }) => {
            let id = document_id(&format!("{pointer}/set_metadata/id"), &id)?;
            let metadata = parse_metadata(&format!("{pointer}/set_metadata/metadata"), metadata)?;
            Ok(Operation::SetMetadata { id, metadata, if_version })
        }
    }
}

fn parse_metadata(pointer: &str, json: Bytes) -> Result<Metadata, Error> {
    if json.len() > METADATA_BYTES_MAX {
        let message = format!("metadata has {} bytes, at most {METADATA_BYTES_MAX} are allowed", json.len());
        return Err(Error::invalid(pointer, message));
    }
    if json.is_empty() {
        return Ok(Metadata::empty());
    }
    let object = Metadata::parse_object(&json)
        .map_err(|error| Error::invalid(pointer, format!("metadata is no JSON object: {error}")))?;
    if object.values().any(|value| is_deeper_than(value, METADATA_DEPTH_MAX - 1)) {
        let message = format!("metadata is nested deeper than {METADATA_DEPTH_MAX} levels");
        return Err(Error::invalid(pointer, message));
    }
    // Text as it was given: white space around the object would be the only thing that storage minds.
    let stored = Metadata::from_stored(json);
    Ok(stored.unwrap_or_else(|| Metadata::from_object(&object)))
}

/// True when containers nest deeper than `depth`. The parser has bounded the depth before (128).
fn is_deeper_than(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(|item| is_deeper_than(item, depth - 1)),
        Value::Object(items) => depth == 0 || items.values().any(|item| is_deeper_than(item, depth - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::vector_to_bytes;

    fn upsert(id: &str, vector: &[f32], metadata: &'static str) -> proto::Operation {
        let document = proto::Document {
            id: id.to_owned(),
            vector: vector_to_bytes(vector),
            metadata: Bytes::from_static(metadata.as_bytes()),
        };
        proto::Operation { kind: Some(Kind::Upsert(document)), if_version: None }
    }

    #[test]
    fn a_batch_with_bad_items_is_refused_whole_with_a_pointer_for_each() {
        let batch = vec![
            upsert("a", &[1.0, 2.0], "{}"),
            upsert("", &[1.0, 2.0], ""),
            upsert("b", &[1.0], ""),
            upsert("c", &[1.0, f32::NAN], ""),
            upsert("d", &[f32::INFINITY, 1.0], ""),
            upsert("e", &[1.0, -1.1e18], ""),
            upsert("f", &[0.0, -0.0], ""),
            upsert("g", &[1.0, 1.0], "[1]"),
            upsert("h", &[1.0, 1.0], r#"{"a":}"#),
            proto::Operation::default(),
            proto::Operation { kind: Some(Kind::Delete("x\0".to_owned())), if_version: None },
        ];
        let error = operations(batch, 2, StorageType::F32, Metric::Cosine).expect_err("bad");
        let pointers: Vec<&str> =
            error.violations.iter().map(|violation| violation.pointer.as_str()).collect();
        let expected = [
            "/operations/1/upsert/id",
            "/operations/2/upsert/vector",
            "/operations/3/upsert/vector/1",
            "/operations/4/upsert/vector/0",
            "/operations/5/upsert/vector/1",
            "/operations/6/upsert/vector",
            "/operations/7/upsert/metadata",
            "/operations/8/upsert/metadata",
            "/operations/9",
            "/operations/10/delete",
        ];
        assert_eq!(pointers, expected);
        let parse = |vector: &[f32], storage_type, metric| {
            operations(vec![upsert("f", vector, "")], 2, storage_type, metric)
        };
        assert!(parse(&[0.0, -0.0], StorageType::F32, Metric::Dot).is_ok());
        assert!(operations(Vec::new(), 2, StorageType::F32, Metric::Dot).is_err());
        // What goes to the log is what is kept, whoever sent it.
        let parsed = parse(&[0.1, 65_519.0], StorageType::F16, Metric::Dot).expect("good");
        let [Operation::Upsert { document, .. }] = &parsed[..] else { panic!("{parsed:?}") };
        assert_eq!(document.vector, [0.099_975_586, 65_504.0]);
        let not_kept: [(&[f32], _); 4] = [
            (&[0.1, 65_520.0], "/1"),
            (&[f32::NAN, 1.0], "/0"),
            (&[1.0, f32::INFINITY], "/1"),
            (&[1e-9, 0.0], ""),
        ];
        for (vector, place) in not_kept {
            let error = parse(vector, StorageType::F16, Metric::Cosine).expect_err("bad");
            assert_eq!(
                error.violations[0].pointer,
                format!("/operations/0/upsert/vector{place}"),
                "{vector:?}"
            );
        }
    }

    #[test]
    fn a_read_says_how_fresh_it_must_be() {
        let level = |level: i32| {
            let rule = proto::ReadRule { level, min_lsn: 7, incarnation: 1, max_staleness_ms: 0 };
            read_rule(Some(&rule))
        };
        let session = level(proto::Level::Session.into()).expect("complete");
        let expected = ReadRule { consistency: Consistency::Session, min_lsn: Lsn(7), incarnation: 1 };
        assert_eq!(session, expected);
        let pointer =
            |refused: Result<ReadRule, Error>| refused.expect_err("refused").violations[0].pointer.clone();
        assert_eq!(pointer(level(0)), "/rule/level");
        assert_eq!(pointer(level(99)), "/rule/level");
        assert_eq!(pointer(level(proto::Level::Bounded.into())), "/rule/max_staleness_ms");
        assert_eq!(pointer(read_rule(None)), "/rule");
    }

    #[test]
    fn metadata_is_kept_as_given_and_its_depth_is_bounded() {
        let parse = |json: &str| parse_metadata("/m", Bytes::copy_from_slice(json.as_bytes()));
        assert_eq!(parse("").expect("empty").as_json(), "{}");
        assert_eq!(parse(r#"{"a": 1e3}"#).expect("object").as_json(), r#"{"a": 1e3}"#);
        assert_eq!(parse(" {\"a\":1} ").expect("object").as_json(), r#"{"a":1}"#);
        let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert!(parse(&nested(METADATA_DEPTH_MAX)).is_ok());
        assert!(parse(&nested(METADATA_DEPTH_MAX + 1)).is_err());
        assert!(parse(&nested(10_000)).is_err(), "no stack is overrun");
    }
}
