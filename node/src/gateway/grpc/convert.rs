//! Between messages and drafts, and between domain values and messages.

use serde_json::{Map, Number, Value};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::value::Kind;

use super::super::limits::METADATA_DEPTH_MAX;
use super::super::validate::{self, CodeBits, DocumentDraft, IndexOptionsDraft, ReadDraft, VectorDraft};
use super::metadata::metadata_message;
use crate::document::{Document, Metadata, vector_from_bytes, vector_to_bytes};
use crate::error_code::Error;
use crate::router::{CopyDescription, ShardDescription, ShardStatistics, WriteReceipt};
use crate::table::{IndexOptions, Metric, Table};

pub(super) fn document_draft(document: proto::Document) -> DocumentDraft {
    DocumentDraft {
        id: Some(document.document_id),
        vector: document.vector.map(vector_draft),
        metadata: document.metadata.map(metadata),
        if_version: document.if_version,
    }
}

pub(super) fn vector_draft(vector: proto::Vector) -> VectorDraft {
    match vector.data {
        Some(proto::vector::Data::Floats(floats)) => {
            VectorDraft::Values { given: floats.values.len(), kept: floats.values }
        }
        Some(proto::vector::Data::LittleEndianF32(bytes)) => match vector_from_bytes(&bytes) {
            Some(kept) => VectorDraft::Values { given: kept.len(), kept },
            None => {
                VectorDraft::Broken(format!("vector has {} bytes, which is no multiple of 4", bytes.len()))
            }
        },
        None => VectorDraft::Broken("vector has neither floats nor bytes".to_owned()),
    }
}

/// Validated metadata, or what is wrong with it.
pub(super) fn metadata(metadata: proto::Metadata) -> Result<Metadata, String> {
    validate::metadata(&object(metadata, 1)?)
}

/// `depth` is that of the object itself.
fn object(metadata: proto::Metadata, depth: usize) -> Result<Map<String, Value>, String> {
    check_depth(depth)?;
    let fields = metadata.fields.into_iter().map(|(key, field)| Ok((key, value(field, depth + 1)?)));
    fields.collect()
}

fn check_depth(depth: usize) -> Result<(), String> {
    if depth > METADATA_DEPTH_MAX {
        return Err(format!("metadata is nested deeper than {METADATA_DEPTH_MAX} levels"));
    }
    Ok(())
}

/// `depth` is that of the value if it holds others.
fn value(value: proto::Value, depth: usize) -> Result<Value, String> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(word)) => Value::Bool(word),
        Some(Kind::IntValue(number)) => Value::from(number),
        Some(Kind::UintValue(number)) => Value::from(number),
        Some(Kind::DoubleValue(number)) => match Number::from_f64(number) {
            Some(number) => Value::Number(number),
            None => return Err(format!("metadata has the number {number}, must be finite")),
        },
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => {
            check_depth(depth)?;
            let items = list.values.into_iter().map(|item| self::value(item, depth + 1));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Some(Kind::ObjectValue(inner)) => Value::Object(object(inner, depth)?),
    })
}

pub(super) fn vector_message(vector: &[f32]) -> proto::Vector {
    proto::Vector { data: Some(proto::vector::Data::LittleEndianF32(vector_to_bytes(vector).into())) }
}

/// Without a vector when it was not asked for.
pub(super) fn document_message(document: &Document) -> proto::Document {
    proto::Document {
        document_id: document.id.to_string(),
        vector: (!document.vector.is_empty()).then(|| vector_message(&document.vector)),
        metadata: Some(metadata_message(&document.metadata)),
        if_version: None,
    }
}

/// What a read must reflect; an enum value of a newer client is an error.
pub(super) fn read_draft(read: Option<proto::ReadOptions>) -> Result<ReadDraft, Error> {
    let read = read.unwrap_or_default();
    let consistency = match proto::Consistency::try_from(read.consistency) {
        Ok(proto::Consistency::Unspecified) => "",
        Ok(proto::Consistency::Strong) => "strong",
        Ok(proto::Consistency::StrongNoclock) => "strong-noclock",
        Ok(proto::Consistency::Session) => "session",
        Ok(proto::Consistency::Bounded) => "bounded",
        Ok(proto::Consistency::Eventual) => "eventual",
        Err(_) => {
            let message = format!("consistency {} is not known, must be 1 to 5", read.consistency);
            return Err(Error::invalid("/consistency", message));
        }
    };
    Ok(ReadDraft {
        consistency: consistency.to_owned(),
        max_staleness_ms: (read.max_staleness_ms > 0).then_some(u64::from(read.max_staleness_ms)),
        session_token: read.session_token,
    })
}

pub(super) fn receipt_message(document_ids: Vec<String>, receipt: WriteReceipt) -> proto::WriteResponse {
    proto::WriteResponse {
        document_ids,
        count: receipt.count,
        durable_copies: receipt.durable_copies,
        session_token: receipt.session_token,
    }
}

pub(super) fn table_message(table: &Table) -> proto::Table {
    let metric = match table.schema.metric {
        Metric::Cosine => proto::Metric::Cosine,
        Metric::L2 => proto::Metric::L2,
        Metric::Dot => proto::Metric::Dot,
    };
    let options = table.schema.index.options().filter(|options| **options != IndexOptions::default());
    proto::Table {
        table_name: table.schema.name.to_string(),
        table_id: table.id.to_string(),
        dimension: table.schema.dimension,
        metric: metric.into(),
        storage_type: table.schema.storage_type.as_str().to_owned(),
        memory_bytes_per_million: table.schema.memory_bytes(1_000_000),
        tenant_key: table.schema.tenant_key.as_ref().map(ToString::to_string).unwrap_or_default(),
        rows: table.schema.rows.as_str().to_owned(),
        index_type: table.schema.index.to_string(),
        shards: table.schema.shards,
        replicas: table.schema.replicas,
        min_isr: table.schema.min_isr,
        state: table.state.as_str().to_owned(),
        metadata_indexes: table.schema.metadata_index_words().collect(),
        index_options: options.map(|options| proto::IndexOptions {
            m: options.m.unwrap_or_default(),
            ef_construction: options.ef_construction.unwrap_or_default(),
            code_bits: options.bits().unwrap_or_default(),
            alpha: options.alpha.unwrap_or_default(),
        }),
    }
}

/// Options of a new table: proto3 cannot tell 0 from nothing, so 0 means the usual.
pub(super) fn index_options(options: proto::IndexOptions) -> IndexOptionsDraft {
    let given = |number: u32| (number > 0).then_some(u64::from(number));
    IndexOptionsDraft {
        m: given(options.m),
        ef_construction: given(options.ef_construction),
        code_bits: given(options.code_bits).map(CodeBits::Bits),
        // Not-a-number is not 0 either, and refused later.
        alpha: (options.alpha != 0.0).then_some(f64::from(options.alpha)),
    }
}

pub(super) fn shard_statistics(shard: &ShardStatistics) -> proto::ShardStatistics {
    let counts = shard.counts.unwrap_or_default();
    proto::ShardStatistics {
        shard: shard.shard.0,
        node_id: shard.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        epoch: shard.epoch.0,
        available: shard.counts.is_some(),
        documents: counts.documents,
        deleted_rows: counts.deleted_rows,
        vector_bytes: counts.vector_bytes,
        index_bytes: counts.index_bytes,
        indexed_rows: counts.indexed_rows,
        disk_bytes: counts.disk_bytes,
        segments: counts.segments,
        last_lsn: counts.last_lsn.0,
    }
}

pub(super) fn shard_message(shard: &ShardDescription) -> proto::Shard {
    let in_sync = shard.copies.iter().filter(|copy| copy.in_sync);
    proto::Shard {
        shard: shard.shard.0,
        epoch: shard.epoch.0,
        incarnation: shard.incarnation,
        primary_node_id: shard.primary_node().map(ToString::to_string).unwrap_or_default(),
        primary_replica_id: shard.primary.as_ref().map(ToString::to_string).unwrap_or_default(),
        min_isr: shard.min_isr,
        isr: in_sync.map(|copy| copy.replica.to_string()).collect(),
        copies: shard.copies.iter().map(copy_message).collect(),
    }
}

fn copy_message(copy: &CopyDescription) -> proto::Copy {
    let status = copy.status.as_ref().map(|status| proto::CopyStatus {
        flushed_lsn: status.flushed.0,
        applied_lsn: status.applied.0,
        lag_records: status.lag_records,
        digest_lsn: status.digest.map_or(0, |(lsn, _)| lsn.0),
        digest: status.digest_text().map(|(_, digest)| digest).unwrap_or_default(),
        failure: status.failure.clone().unwrap_or_default(),
    });
    proto::Copy {
        replica_id: copy.replica.to_string(),
        node_id: copy.node.to_string(),
        zone: copy.zone.clone().unwrap_or_default(),
        node_present: copy.zone.is_some(),
        role: copy.role.as_str().to_owned(),
        damaged: copy.damaged,
        in_sync: copy.in_sync,
        replaces: copy.replaces.as_ref().map(ToString::to_string).unwrap_or_default(),
        status,
    }
}

/// The word of a metric; an enum value of a newer client is an error.
pub(super) fn metric_word(metric: i32) -> Result<&'static str, Error> {
    match proto::Metric::try_from(metric) {
        Ok(proto::Metric::Unspecified) => Ok(""),
        Ok(proto::Metric::Cosine) => Ok("cosine"),
        Ok(proto::Metric::L2) => Ok("l2"),
        Ok(proto::Metric::Dot) => Ok("dot"),
        Err(_) => Err(Error::invalid("/metric", format!("metric {metric} is not known, must be 1 to 3"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_survives_both_ways() {
        let text = r#"{"a":[1,-2,18446744073709551615,0.5,null,true,"x",{"b":{}}]}"#;
        let object: Map<String, Value> = serde_json::from_str(text).expect("valid");
        let stored = Metadata::from_object(&object);
        assert_eq!(metadata(metadata_message(&stored)), Ok(stored));
    }

    #[test]
    fn deep_and_infinite_metadata_is_refused() {
        let nest = |depth: usize| {
            let mut object = proto::Metadata::default();
            for _ in 1..depth {
                let kind = Some(Kind::ObjectValue(std::mem::take(&mut object)));
                object.fields.insert("a".to_owned(), proto::Value { kind });
            }
            object
        };
        assert!(metadata(nest(METADATA_DEPTH_MAX)).is_ok());
        assert!(metadata(nest(METADATA_DEPTH_MAX + 1)).expect_err("too deep").contains("deeper"));
        let infinite = proto::Value { kind: Some(Kind::DoubleValue(f64::INFINITY)) };
        let fields = [("a".to_owned(), infinite)].into();
        assert!(metadata(proto::Metadata { fields }).expect_err("infinite").contains("finite"));
    }
}
