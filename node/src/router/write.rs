//! Writes: split by the hash of the document id, sent to each shard's primary, answered when all are durable.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures::future::join_all;
use vectorsphere_proto::internal::{self as proto, operation::Kind};

use super::attempts::with_deadline;
use super::session_token::SessionToken;
use super::{RequestContext, Router, WriteReceipt};
use crate::document::{Document, Metadata, vector_to_bytes};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{DocumentId, Lsn, OpId, ShardId, ShardIndex};
use crate::table::Table;

impl Router {
    /// Inserts or replaces documents, `1..=1_000`; of equal ids the last wins.
    pub async fn upsert(
        &self,
        context: &RequestContext,
        table: &Table,
        documents: Vec<Document>,
        op: OpId,
    ) -> Result<WriteReceipt, Error> {
        let last: HashMap<DocumentId, usize> =
            documents.iter().enumerate().map(|(index, document)| (document.id.clone(), index)).collect();
        let mut parts = Parts::default();
        for (index, document) in documents.into_iter().enumerate() {
            if last[&document.id] == index {
                parts.add(table, &document.id, Kind::Upsert(to_proto(&document)));
            }
        }
        self.write(context, table, parts, op).await
    }

    /// Replaces the metadata of one document, which must exist.
    pub async fn update_metadata(
        &self,
        context: &RequestContext,
        table: &Table,
        id: DocumentId,
        metadata: Metadata,
        op: OpId,
    ) -> Result<WriteReceipt, Error> {
        let mut parts = Parts::default();
        let change = proto::SetMetadata { id: id.to_string(), metadata: metadata.to_bytes() };
        parts.add(table, &id, Kind::SetMetadata(change));
        self.write(context, table, parts, op).await
    }

    /// Deletes documents; ids that do not exist are no error.
    pub async fn delete(
        &self,
        context: &RequestContext,
        table: &Table,
        mut ids: Vec<DocumentId>,
        op: OpId,
    ) -> Result<WriteReceipt, Error> {
        ids.sort_unstable();
        ids.dedup();
        let mut parts = Parts::default();
        for id in ids {
            parts.add(table, &id, Kind::Delete(id.to_string()));
        }
        self.write(context, table, parts, op).await
    }

    async fn write(
        &self,
        context: &RequestContext,
        table: &Table,
        parts: Parts,
        op: OpId,
    ) -> Result<WriteReceipt, Error> {
        let writes = parts.by_shard.into_iter().map(async |(index, operations)| {
            let answer = self.write_shard(context, ShardId { table: table.id, index }, operations, op).await;
            (index, answer)
        });
        receipt(table, join_all(writes).await)
    }

    async fn write_shard(
        &self,
        context: &RequestContext,
        shard: ShardId,
        operations: Vec<proto::Operation>,
        op: OpId,
    ) -> Result<proto::WriteResponse, Error> {
        // The operation id makes a second try safe, also when the first one did arrive. Cloning the operations is
        // cheap: vectors and metadata are shared bytes.
        let op_id = Bytes::copy_from_slice(&op.0);
        self.on_primary(context, shard, |mut client, shard| {
            let message = proto::WriteRequest {
                shard: Some(shard),
                op_id: op_id.clone(),
                operations: operations.clone(),
            };
            let request = with_deadline(context, message);
            async move { client.write(request).await }
        })
        .await
        .map_err(|mut error| {
            if error.code == ErrorCode::NodeUnreachable {
                error.code = ErrorCode::OutcomeUnknown;
            }
            error
        })
    }
}

/// Operations by shard, each shard's in the order of the request.
#[derive(Default)]
struct Parts {
    by_shard: BTreeMap<ShardIndex, Vec<proto::Operation>>,
}

impl Parts {
    fn add(&mut self, table: &Table, id: &DocumentId, kind: Kind) {
        let shard = id.shard(table.schema.shards);
        self.by_shard.entry(shard).or_default().push(proto::Operation { kind: Some(kind) });
    }
}

fn to_proto(document: &Document) -> proto::Document {
    proto::Document {
        id: document.id.to_string(),
        vector: vector_to_bytes(&document.vector),
        metadata: document.metadata.to_bytes(),
    }
}

/// One receipt for all shards, or one error that says how far the write went.
fn receipt(
    table: &Table,
    answers: Vec<(ShardIndex, Result<proto::WriteResponse, Error>)>,
) -> Result<WriteReceipt, Error> {
    let mut token = SessionToken { table: table.id, positions: BTreeMap::new() };
    let (mut count, mut durable_copies, mut failures) = (0, u32::MAX, Vec::new());
    let shards = answers.len();
    for (shard, answer) in answers {
        match answer {
            Ok(answer) => {
                token.positions.insert(shard, Lsn(answer.lsn));
                count += answer.affected;
                durable_copies = durable_copies.min(answer.durable_copies);
            }
            Err(error) => failures.push(error),
        }
    }
    if failures.is_empty() {
        return Ok(WriteReceipt { count, durable_copies, session_token: token.encode() });
    }
    Err(partial_failure(shards, failures))
}

/// The gravest failure speaks: one whose outcome is unknown before one that certainly did not happen.
fn partial_failure(shards: usize, mut failures: Vec<Error>) -> Error {
    let failed = failures.len();
    let unknown =
        |error: &Error| matches!(error.code, ErrorCode::OutcomeUnknown | ErrorCode::DeadlineExceeded);
    failures.sort_by_key(|error| !unknown(error));
    let mut error = failures.swap_remove(0);
    if shards > 1 {
        let done = shards - failed;
        error.message = format!(
            "{done} of {shards} shards took their part of the batch, sending it again is safe: {}",
            error.message
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{TableId, TableName};
    use crate::table::{IndexKind, Metric, TableSchema, TableState};

    fn table() -> Table {
        let name = TableName::parse("t").expect("valid");
        let schema = TableSchema {
            name,
            dimension: 1,
            metric: Metric::L2,
            index: IndexKind::Flat,
            shards: 4,
            replicas: 1,
            min_isr: 1,
        };
        Table { id: TableId::random(), schema, state: TableState::Active }
    }

    fn written(lsn: u64, durable_copies: u32) -> Result<proto::WriteResponse, Error> {
        Ok(proto::WriteResponse { lsn, affected: 2, durable_copies })
    }

    #[test]
    fn a_receipt_tells_the_weakest_durability_and_every_position() {
        let table = table();
        let answers = vec![(ShardIndex(0), written(7, 2)), (ShardIndex(3), written(9, 1))];
        let receipt = receipt(&table, answers).expect("all shards answered");
        assert_eq!((receipt.count, receipt.durable_copies), (4, 1));
        let token = SessionToken::decode(&receipt.session_token, table.id).expect("ours");
        assert_eq!((token.position(ShardIndex(3)), token.position(ShardIndex(1))), (Lsn(9), Lsn::ZERO));
    }

    #[test]
    fn an_unknown_outcome_speaks_before_a_definite_failure() {
        let definite = Error::new(ErrorCode::ShardUnavailable, "shard 0 has no primary");
        let unknown = Error::new(ErrorCode::OutcomeUnknown, "connection lost");
        let answers = vec![
            (ShardIndex(0), Err(definite)),
            (ShardIndex(1), written(1, 1)),
            (ShardIndex(2), Err(unknown)),
        ];
        let error = receipt(&table(), answers).expect_err("two shards failed");
        assert_eq!(error.code, ErrorCode::OutcomeUnknown);
        assert!(error.message.starts_with("1 of 3 shards took"), "{}", error.message);
    }
}
