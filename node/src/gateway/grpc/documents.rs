//! `DocumentService`.

use tonic::{Request, Response, Status};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::document_service_server::DocumentService;

use super::super::json::batch_too_large;
use super::super::limits::BATCH_DOCUMENTS_MAX;
use super::super::validate::{self, PageDraft};
use super::super::violations::{Place, Violations};
use super::Api;
use super::convert::{document_draft, document_message, metadata, read_draft, receipt_message};
use crate::error_code::{Error, ErrorCode};
use crate::ids::DocumentId;
use crate::search::Consistency;

#[tonic::async_trait]
impl DocumentService for Api {
    async fn upsert_documents(
        &self,
        request: Request<proto::UpsertDocumentsRequest>,
    ) -> Result<Response<proto::WriteResponse>, Status> {
        self.call("DocumentService/UpsertDocuments", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let op = validate::operation_id(Some(&request.request_id), "request_id")?;
            check_batch("documents", request.documents.len())?;
            let mut violations = Violations::default();
            let mut upserts = Vec::with_capacity(request.documents.len());
            for (index, document) in request.documents.into_iter().enumerate() {
                let draft = document_draft(document);
                upserts.extend(validate::upsert(
                    draft,
                    &table.schema,
                    Place::Document(index),
                    &mut violations,
                ));
            }
            violations.into_result()?;
            let ids = upserts.iter().map(|upsert| upsert.document.id.to_string()).collect();
            let receipt = gateway.router().upsert(&context, &table, upserts, op).await?;
            Ok(receipt_message(ids, receipt))
        })
        .await
    }

    async fn update_metadata(
        &self,
        request: Request<proto::UpdateMetadataRequest>,
    ) -> Result<Response<proto::WriteResponse>, Status> {
        self.call("DocumentService/UpdateMetadata", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let op = validate::operation_id(Some(&request.request_id), "request_id")?;
            let id = document_id(&request.document_id)?;
            let change = request.metadata.ok_or_else(|| "metadata is missing".to_owned()).and_then(metadata);
            let change = change.map_err(|why| Error::invalid("/metadata", why))?;
            let change = validate::metadata_change(change, &table.schema)?;
            let target = (id.clone(), request.if_version);
            let receipt = gateway.router().update_metadata(&context, &table, target, change, op).await?;
            Ok(receipt_message(vec![id.to_string()], receipt))
        })
        .await
    }

    async fn get_document(
        &self,
        request: Request<proto::GetDocumentRequest>,
    ) -> Result<Response<proto::GetDocumentResponse>, Status> {
        self.call("DocumentService/GetDocument", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let id = document_id(&request.document_id)?;
            let mut violations = Violations::default();
            let draft = read_draft(request.read)?;
            let read = validate::read_options(draft, Consistency::Strong, &mut violations);
            violations.into_result()?;
            let with_vector = !request.without_vector;
            match gateway.router().get(&context, &table, &id, with_vector, &read).await? {
                Some(stored) => Ok(proto::GetDocumentResponse {
                    document: Some(document_message(&stored.document)),
                    version: stored.version,
                    session_token: stored.session_token,
                }),
                None => {
                    let message = format!("document {id} does not exist in table {}", table.schema.name);
                    Err(Error::new(ErrorCode::DocumentNotFound, message))
                }
            }
        })
        .await
    }

    async fn delete_documents(
        &self,
        request: Request<proto::DeleteDocumentsRequest>,
    ) -> Result<Response<proto::WriteResponse>, Status> {
        self.call("DocumentService/DeleteDocuments", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let op = validate::operation_id(Some(&request.request_id), "request_id")?;
            check_batch("document_ids", request.document_ids.len())?;
            let mut violations = Violations::default();
            let mut ids = Vec::with_capacity(request.document_ids.len());
            for (index, id) in request.document_ids.iter().enumerate() {
                ids.extend(validate::document_id(id, || format!("/document_ids/{index}"), &mut violations));
            }
            violations.into_result()?;
            let receipt = match (request.if_version, ids.as_slice()) {
                (None, _) => gateway.router().delete(&context, &table, ids, op).await?,
                (Some(version), [id]) => {
                    gateway.router().delete_at(&context, &table, (id.clone(), version), op).await?
                }
                (Some(_), _) => {
                    return Err(Error::invalid("/if_version", "if_version is for a delete of one document"));
                }
            };
            Ok(receipt_message(request.document_ids, receipt))
        })
        .await
    }

    async fn list_documents(
        &self,
        request: Request<proto::ListDocumentsRequest>,
    ) -> Result<Response<proto::ListDocumentsResponse>, Status> {
        self.call("DocumentService/ListDocuments", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let draft = PageDraft {
                limit: (request.limit > 0).then_some(u64::from(request.limit)),
                cursor: request.cursor,
                with_vector: request.with_vector,
            };
            let (page, read) = validate::page(draft, read_draft(request.read)?, &table.schema)?;
            let page = gateway.router().list(&context, &table, page, &read).await?;
            Ok(proto::ListDocumentsResponse {
                documents: page.documents.iter().map(document_message).collect(),
                next_cursor: page.next_cursor.unwrap_or_default(),
                session_token: page.session_token,
            })
        })
        .await
    }
}

fn document_id(text: &str) -> Result<DocumentId, Error> {
    DocumentId::parse(text).map_err(|error| Error::invalid("/document_id", error.to_string()))
}

fn check_batch(name: &str, items: usize) -> Result<(), Error> {
    match items {
        0 => Err(Error::invalid(
            format!("/{name}"),
            format!("{name} is empty, must hold 1 to {BATCH_DOCUMENTS_MAX} items"),
        )),
        items if items > BATCH_DOCUMENTS_MAX => Err(batch_too_large(name)),
        _ => Ok(()),
    }
}
