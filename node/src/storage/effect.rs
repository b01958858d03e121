//! What a record of the log does to the documents: effects, never intentions.
//!
//! An effect is final: ids are resolved, vectors and metadata are those that will be stored. Replaying it never looks at
//! anything that could have changed. Bodies are protobuf messages; fields are only ever added.

use bytes::Bytes;
use prost::Message;

use super::log::{Record, RecordKind};
use crate::document::{Document, Metadata, vector_from_bytes, vector_to_bytes};
use crate::ids::DocumentId;

/// One effect. The document's new version is the record's position.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Writes a document, in place of an older version if there is one.
    Upsert(Document),
    /// Deletes a document, which exists.
    Delete(DocumentId),
    /// Replaces the metadata of a document, which exists.
    SetMetadata(DocumentId, Metadata),
    /// Begins a reign.
    EpochStart,
    /// Nothing.
    Noop,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UpsertBody {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "bytes", tag = "2")]
    vector: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    metadata: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteBody {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SetMetadataBody {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "bytes", tag = "2")]
    metadata: Bytes,
}

impl Effect {
    /// Kind and body of the record.
    pub fn encode(&self) -> (RecordKind, Bytes) {
        match self {
            Effect::Upsert(document) => {
                let body = UpsertBody {
                    id: document.id.as_str().to_owned(),
                    vector: vector_to_bytes(&document.vector),
                    metadata: document.metadata.to_bytes(),
                };
                (RecordKind::Upsert, body.encode_to_vec().into())
            }
            Effect::Delete(id) => {
                let body = DeleteBody { id: id.as_str().to_owned() };
                (RecordKind::Delete, body.encode_to_vec().into())
            }
            Effect::SetMetadata(id, metadata) => {
                let body = SetMetadataBody { id: id.as_str().to_owned(), metadata: metadata.to_bytes() };
                (RecordKind::SetMetadata, body.encode_to_vec().into())
            }
            Effect::EpochStart => (RecordKind::EpochStart, Bytes::new()),
            Effect::Noop => (RecordKind::Noop, Bytes::new()),
        }
    }

    /// The document that is written or deleted, and whether it exists then.
    pub fn touches(&self) -> Option<(&DocumentId, bool)> {
        match self {
            Effect::Upsert(document) => Some((&document.id, true)),
            Effect::SetMetadata(id, _) => Some((id, true)),
            Effect::Delete(id) => Some((id, false)),
            Effect::EpochStart | Effect::Noop => None,
        }
    }

    /// Bytes of the vector, in single precision, and the metadata that it brings.
    pub fn content_bytes(&self) -> usize {
        match self {
            Effect::Upsert(document) => document.vector.len() * 4 + document.metadata.as_json().len(),
            Effect::SetMetadata(_, metadata) => metadata.as_json().len(),
            Effect::Delete(_) | Effect::EpochStart | Effect::Noop => 0,
        }
    }

    /// True when a document is written or deleted.
    pub fn is_of_document(&self) -> bool {
        self.touches().is_some()
    }

    /// The effect of a record; the error says what is wrong with its body.
    pub fn decode(record: &Record) -> Result<Effect, String> {
        let body = record.body.clone();
        let text = |error: prost::DecodeError| error.to_string();
        let id = |id: &str| DocumentId::parse(id).map_err(|error| error.to_string());
        let metadata = |json| Metadata::from_stored(json).ok_or("metadata is no JSON object".to_owned());
        match record.kind {
            RecordKind::Upsert => {
                let body = UpsertBody::decode(body).map_err(text)?;
                let vector = vector_from_bytes(&body.vector).ok_or("vector is cut off".to_owned())?;
                Ok(Effect::Upsert(Document { id: id(&body.id)?, vector, metadata: metadata(body.metadata)? }))
            }
            RecordKind::Delete => Ok(Effect::Delete(id(&DeleteBody::decode(body).map_err(text)?.id)?)),
            RecordKind::SetMetadata => {
                let body = SetMetadataBody::decode(body).map_err(text)?;
                Ok(Effect::SetMetadata(id(&body.id)?, metadata(body.metadata)?))
            }
            RecordKind::EpochStart => Ok(Effect::EpochStart),
            RecordKind::Noop => Ok(Effect::Noop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Lsn};
    use crate::storage::op_window::OpKey;

    #[test]
    fn effects_round_trip() {
        let id = DocumentId::parse("ä").expect("valid");
        let metadata = Metadata::from_stored(Bytes::from_static(br#"{"a":1}"#)).expect("object");
        let effects = [
            Effect::Upsert(Document {
                id: id.clone(),
                vector: vec![-0.0, 1e-40],
                metadata: metadata.clone(),
            }),
            Effect::Delete(id.clone()),
            Effect::SetMetadata(id, metadata),
            Effect::EpochStart,
            Effect::Noop,
        ];
        for effect in effects {
            let (kind, body) = effect.encode();
            let record =
                Record { kind, batch_end: true, epoch: Epoch(1), lsn: Lsn(1), op: OpKey::NONE, body };
            assert_eq!(Effect::decode(&record).as_ref(), Ok(&effect));
        }
    }
}
