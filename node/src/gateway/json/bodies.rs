//! The bodies of the REST API.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::limits::BATCH_DOCUMENTS_MAX;
use super::super::validate::{self, DocumentDraft, TableDraft};
use super::super::violations::Place;
use super::metadata;
use super::object::{At, IdText, Object, ObjectSeed, WholeNumber};
use super::vector::VectorSeed;
use super::{Reader, Segment, parse};
use super::{index_options, indexed_fields};
use crate::document::Metadata;
use crate::error_code::{Error, ErrorCode};
use crate::ids::DocumentId;
use crate::router::Upsert;
use crate::table::TableSchema;

/// `POST /api/v1/tables`.
pub(in crate::gateway) fn table(body: &[u8]) -> Result<TableDraft, Error> {
    let reader = Reader::default();
    parse(body, object(TableDraft::default(), &reader), &reader)
}

/// `POST …/documents`: one document, or `{"documents": […]}`; in the order of the body.
pub(in crate::gateway) fn upserts(body: &[u8], schema: &TableSchema) -> Result<Vec<Upsert>, Error> {
    let reader = Reader::default();
    let target = UpsertBody { schema, documents: None, single: DocumentBody::new(schema), has_single: false };
    let body = parse(body, object(target, &reader), &reader)?;
    match (body.documents, body.has_single) {
        (Some(documents), false) => Ok(documents),
        (Some(_), true) => {
            Err(Error::invalid("/documents", "documents excludes the fields of a document beside it"))
        }
        (None, _) => Ok(vec![valid(body.single.draft, schema)?]),
    }
}

/// `PUT …/documents/{id}`: the document without its id, or with the same one.
pub(in crate::gateway) fn upsert(
    body: &[u8],
    schema: &TableSchema,
    id: &DocumentId,
) -> Result<Upsert, Error> {
    let reader = Reader::default();
    let mut draft = parse(body, object(DocumentBody::new(schema), &reader), &reader)?.draft;
    if draft.id.as_deref().is_some_and(|given| given != id.as_str()) {
        return Err(Error::invalid("/document_id", "document_id differs from the one in the path"));
    }
    draft.id = Some(id.to_string());
    valid(draft, schema)
}

fn valid(draft: DocumentDraft, schema: &TableSchema) -> Result<Upsert, Error> {
    let mut violations = super::Violations::default();
    let upsert = validate::upsert(draft, schema, Place::Body, &mut violations);
    violations.into_result()?;
    upsert.ok_or_else(|| Error::new(ErrorCode::Internal, "a broken rule was not recorded"))
}

/// `PATCH …/documents/{id}`: the new metadata, and the version that must be current.
pub(in crate::gateway) fn metadata_change(
    body: &[u8],
    schema: &TableSchema,
) -> Result<(Metadata, Option<u64>), Error> {
    let reader = Reader::default();
    let change = parse(body, object(MetadataBody::default(), &reader), &reader)?;
    match change.metadata {
        Some(Ok(metadata)) => Ok((validate::metadata_change(metadata, schema)?, change.if_version)),
        Some(Err(message)) => Err(Error::invalid("/metadata", message)),
        None => Err(Error::invalid("/metadata", "metadata is missing")),
    }
}

/// What `POST …/documents:delete` carries.
#[derive(Debug, Default)]
pub(in crate::gateway) struct DeleteBody {
    /// `1..=1_000` ids.
    pub(in crate::gateway) ids: Vec<DocumentId>,
}

/// `POST …/documents:delete`.
pub(in crate::gateway) fn delete(body: &[u8]) -> Result<DeleteBody, Error> {
    let reader = Reader::default();
    let body = parse(body, object(DeleteBody::default(), &reader), &reader)?;
    if body.ids.is_empty() {
        return Err(Error::invalid("/document_ids", empty_batch("document_ids")));
    }
    Ok(body)
}

pub(super) fn object<T>(target: T, reader: &Reader) -> ObjectSeed<'_, T> {
    ObjectSeed { target, reader, at: At::Body }
}

fn empty_batch(name: &str) -> String {
    format!("{name} is empty or missing, must hold 1 to {BATCH_DOCUMENTS_MAX} items")
}

/// The refusal of a batch over its limit, raised before the rest of it is read.
pub(in crate::gateway) fn batch_too_large(name: &str) -> Error {
    let message = format!("{name} holds more than {BATCH_DOCUMENTS_MAX} items, send several batches");
    Error::new(ErrorCode::PayloadTooLarge, message)
}

impl<'de> Object<'de> for TableDraft {
    const FIELDS: &'static [&'static str] = &[
        "table_name",
        "dimension",
        "index_type",
        "metric",
        "storage_type",
        "tenant_key",
        "expected_documents",
        "rows",
        "shards",
        "replicas",
        "min_isr",
        "metadata_indexes",
        "index_options",
    ];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "table_name" => self.table_name = text(map)?,
            "dimension" => self.dimension = number(map)?,
            "index_type" => self.index_type = text(map)?,
            "metric" => self.metric = text(map)?,
            "storage_type" => self.storage_type = text(map)?,
            "tenant_key" => self.tenant_key = text(map)?,
            "expected_documents" => self.expected_documents = number(map)?,
            "rows" => self.rows = text(map)?,
            "shards" => self.shards = number(map)?,
            "replicas" => self.replicas = number(map)?,
            "min_isr" => self.min_isr = number(map)?,
            "index_options" => self.index_options = index_options::read(map, reader)?,
            _ => self.metadata_indexes = indexed_fields::read(map, reader)?,
        }
        Ok(())
    }
}

/// One document.
struct DocumentBody {
    draft: DocumentDraft,
    dimension: usize,
}

impl DocumentBody {
    fn new(schema: &TableSchema) -> DocumentBody {
        DocumentBody { draft: DocumentDraft::default(), dimension: schema.dimension as usize }
    }
}

impl<'de> Object<'de> for DocumentBody {
    const FIELDS: &'static [&'static str] = &["document_id", "vector", "metadata", "if_version"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        let draft = &mut self.draft;
        match field {
            "document_id" => draft.id = map.next_value::<IdText>()?.0,
            "vector" => {
                draft.vector = map.next_value_seed(VectorSeed { dimension: self.dimension, reader })?;
            }
            "metadata" => draft.metadata = metadata_value(map)?,
            _ => draft.if_version = number(map)?,
        }
        Ok(())
    }
}

/// One document, or many.
struct UpsertBody<'a> {
    schema: &'a TableSchema,
    documents: Option<Vec<Upsert>>,
    single: DocumentBody,
    has_single: bool,
}

impl<'de> Object<'de> for UpsertBody<'_> {
    const FIELDS: &'static [&'static str] = &["document_id", "vector", "metadata", "if_version", "documents"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        if field == "documents" {
            let documents = map.next_value_seed(DocumentsSeed { schema: self.schema, reader })?;
            self.documents = Some(documents);
            return Ok(());
        }
        self.has_single = true;
        self.single.take(field, map, reader)
    }
}

#[derive(Default)]
struct MetadataBody {
    metadata: Option<Result<Metadata, String>>,
    if_version: Option<u64>,
}

impl<'de> Object<'de> for MetadataBody {
    const FIELDS: &'static [&'static str] = &["metadata", "if_version"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        _: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "metadata" => self.metadata = metadata_value(map)?,
            _ => self.if_version = number(map)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for DeleteBody {
    const FIELDS: &'static [&'static str] = &["document_ids"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        _: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        self.ids = map.next_value_seed(IdsSeed { reader })?;
        Ok(())
    }
}

pub(super) fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<String, A::Error> {
    Ok(map.next_value::<Option<String>>()?.unwrap_or_default())
}

pub(super) fn number<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<u64>, A::Error> {
    Ok(map.next_value::<WholeNumber>()?.0)
}

pub(super) fn flag<'de, A: MapAccess<'de>>(map: &mut A) -> Result<bool, A::Error> {
    Ok(map.next_value::<Option<bool>>()?.unwrap_or_default())
}

fn metadata_value<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Result<Metadata, String>>, A::Error> {
    Ok(map.next_value::<Option<&'de RawValue>>()?.map(|raw| metadata::parse(raw.get())))
}

/// The items of `documents`, each validated as soon as it is read.
struct DocumentsSeed<'a> {
    schema: &'a TableSchema,
    reader: &'a Reader,
}

impl<'de> DeserializeSeed<'de> for DocumentsSeed<'_> {
    type Value = Vec<Upsert>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for DocumentsSeed<'_> {
    type Value = Vec<Upsert>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of documents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut documents = Vec::new();
        for index in 0.. {
            let target = DocumentBody::new(self.schema);
            let seed = ObjectSeed { target, reader: self.reader, at: At::Document(index) };
            let item = self.reader.passing(seq.next_element_seed(seed), Segment::Item(index))?;
            let Some(item) = item else { break };
            if index == BATCH_DOCUMENTS_MAX {
                return Err(self.reader.refuse(batch_too_large("documents")));
            }
            let mut violations = self.reader.violations.borrow_mut();
            let place = Place::Document(index);
            documents.extend(validate::upsert(item.draft, self.schema, place, &mut violations));
        }
        if documents.is_empty() && self.reader.violations.borrow().is_empty() {
            self.reader.violation("/documents", empty_batch("documents"));
        }
        Ok(documents)
    }
}

/// The items of `document_ids`.
struct IdsSeed<'a> {
    reader: &'a Reader,
}

impl<'de> DeserializeSeed<'de> for IdsSeed<'_> {
    type Value = Vec<DocumentId>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for IdsSeed<'_> {
    type Value = Vec<DocumentId>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of document ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut ids = Vec::new();
        for index in 0.. {
            let item = self.reader.passing(seq.next_element::<IdText>(), Segment::Item(index))?;
            let Some(item) = item else { break };
            if index == BATCH_DOCUMENTS_MAX {
                return Err(self.reader.refuse(batch_too_large("document_ids")));
            }
            let mut violations = self.reader.violations.borrow_mut();
            let pointer = || format!("/document_ids/{index}");
            ids.extend(validate::document_id(&item.0.unwrap_or_default(), pointer, &mut violations));
        }
        Ok(ids)
    }
}
