//! Writes: split by the hash of the document id, sent to each shard's primary, answered when all are durable.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures::future::join_all;
use vectorsphere_proto::internal::{self as proto, operation::Kind};

use super::attempts::{Attempts, graver, revision_of, with_deadline};
use super::session_token::{SeenPosition, SessionToken};
use super::{RequestContext, Router, WriteReceipt};
use crate::comm::ShardClient;
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
        upserts: Vec<Upsert>,
        op: OpId,
    ) -> Result<WriteReceipt, Error> {
        let ids = upserts.iter().map(|upsert| upsert.document.id.clone());
        let last: HashMap<DocumentId, usize> = ids.enumerate().map(|(index, id)| (id, index)).collect();
        let mut parts = Parts::default();
        for (index, Upsert { document, if_version }) in upserts.into_iter().enumerate() {
            if last[&document.id] == index {
                parts.add(table, &document.id, Kind::Upsert(to_proto(&document)), if_version);
            }
        }
        self.write(context, table, parts, op).await
    }

    /// Replaces the metadata of one document, which must exist, at version `if_version` when that is given.
    pub async fn update_metadata(
        &self,
        context: &RequestContext,
        table: &Table,
        (id, if_version): (DocumentId, Option<u64>),
        metadata: Metadata,
        op: OpId,
    ) -> Result<WriteReceipt, Error> {
        let mut parts = Parts::default();
        let change = proto::SetMetadata { id: id.to_string(), metadata: metadata.to_bytes() };
        parts.add(table, &id, Kind::SetMetadata(change), if_version);
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
            parts.add(table, &id, Kind::Delete(id.to_string()), None);
        }
        self.write(context, table, parts, op).await
    }

    /// Deletes one document, if it is at this version.
    pub async fn delete_at(
        &self,
        context: &RequestContext,
        table: &Table,
        (id, if_version): (DocumentId, u64),
        op: OpId,
    ) -> Result<WriteReceipt, Error> {
        let mut parts = Parts::default();
        parts.add(table, &id, Kind::Delete(id.to_string()), Some(if_version));
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

    /// Writes one shard's part, again while it certainly did not happen and may yet, or while nobody knows: the operation id
    /// makes a second try safe, also when the first one did arrive.
    ///
    /// Once an outcome is unknown, no later failure makes it known: the first try may still be on its way.
    async fn write_shard(
        &self,
        context: &RequestContext,
        shard: ShardId,
        operations: Vec<proto::Operation>,
        op: OpId,
    ) -> Result<proto::WriteResponse, Error> {
        let op_id = Bytes::copy_from_slice(&op.0);
        let base_lsn = self.known.position(shard).0;
        let call = |mut client: ShardClient, shard: proto::ShardRef| {
            // Cheap: vectors and metadata are shared bytes.
            let (op_id, operations) = (op_id.clone(), operations.clone());
            let message = proto::WriteRequest { shard: Some(shard), op_id, operations, base_lsn };
            let request = with_deadline(context, message);
            async move { client.write(request).await }
        };
        let (mut attempts, mut unknown) = (Attempts::new(self, context), None);
        loop {
            let tried = self.revision_of(shard);
            let answer = match self.primary(shard) {
                Ok(primary) => self.ask(context, &primary, &call).await,
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(answer) => {
                    self.known.see(&self.view(), shard, position_of(&answer));
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let is_open = leaves_outcome_open(error.code);
            let may_try = is_open || error.code.is_transient();
            if is_open {
                attempts.insist();
                unknown = Some(error.message.clone());
            }
            if !may_try || !attempts.again(|view| revision_of(view, shard) != tried).await {
                return Err(unknown.map_or(error, |why| Error::new(ErrorCode::OutcomeUnknown, why)));
            }
            if is_open {
                self.metrics.repeated_writes.inc();
            }
        }
    }
}

/// A document to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Upsert {
    /// The document.
    pub document: Document,
    /// The version that must be current; 0: the document must not exist. `None`: any.
    pub if_version: Option<u64>,
}

/// Operations by shard, each shard's in the order of the request.
#[derive(Default)]
struct Parts {
    by_shard: BTreeMap<ShardIndex, Vec<proto::Operation>>,
}

impl Parts {
    fn add(&mut self, table: &Table, id: &DocumentId, kind: Kind, if_version: Option<u64>) {
        let shard = id.shard(table.schema.shards);
        self.by_shard.entry(shard).or_default().push(proto::Operation { kind: Some(kind), if_version });
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
    let mut token = SessionToken::empty(table.id);
    let (mut count, mut durable_copies, mut failures) = (0, u32::MAX, Vec::new());
    let shards = answers.len();
    for (shard, answer) in answers {
        match answer {
            Ok(answer) => {
                token.see(shard, position_of(&answer));
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
fn partial_failure(shards: usize, failures: Vec<Error>) -> Error {
    let done = shards - failures.len();
    let unknown = failures.iter().find(|error| error.code == ErrorCode::OutcomeUnknown).cloned();
    let gravest = unknown.or_else(|| failures.into_iter().reduce(graver));
    let mut error = gravest.expect("a part has failed");
    if shards > 1 {
        // The same again would be refused again where it was refused for what the documents are.
        let again = match error.code.is_transient() || leaves_outcome_open(error.code) {
            true => ", sending it again with the same request id is safe",
            false => "",
        };
        let message = error.message;
        error.message = format!("{done} of {shards} shards took their part of the batch{again}: {message}");
    }
    error
}

/// True when a call that failed like this may have been carried out.
fn leaves_outcome_open(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NodeUnreachable | ErrorCode::OutcomeUnknown | ErrorCode::DeadlineExceeded)
}

fn position_of(answer: &proto::WriteResponse) -> SeenPosition {
    SeenPosition { incarnation: answer.incarnation, lsn: Lsn(answer.lsn) }
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
            storage_type: Default::default(),
            rows: Default::default(),
            index: IndexKind::Flat,
            shards: 4,
            replicas: 1,
            min_isr: 1,
            metadata_indexes: Default::default(),
            unknown_indexes: Default::default(),
            tenant_key: None,
        };
        Table { id: TableId::random(), schema, state: TableState::Active }
    }

    fn written(lsn: u64, durable_copies: u32) -> Result<proto::WriteResponse, Error> {
        Ok(proto::WriteResponse { lsn, affected: 2, durable_copies, incarnation: 3 })
    }

    #[test]
    fn a_receipt_tells_the_weakest_durability_and_every_position() {
        let table = table();
        let answers = vec![(ShardIndex(0), written(7, 2)), (ShardIndex(3), written(9, 1))];
        let receipt = receipt(&table, answers).expect("all shards answered");
        assert_eq!((receipt.count, receipt.durable_copies), (4, 1));
        let token = SessionToken::decode(&receipt.session_token, table.id).expect("ours");
        let seen = SeenPosition { incarnation: 3, lsn: Lsn(9) };
        assert_eq!(token.position(ShardIndex(3)), seen);
        assert_eq!(token.position(ShardIndex(1)), SeenPosition::default());
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
