//! Reads of documents by id and page by page, and statistics.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use vectorsphere_proto::internal as proto;

use super::attempts::with_deadline;
use super::session_token::SessionToken;
use super::traffic::ReadKind;
use super::{
    Page, PageRequest, RequestContext, Router, ShardCounts, ShardStatistics, StoredDocument, TableStatistics,
    Totals,
};
use crate::document::{Document, Metadata, vector_from_bytes};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{DocumentId, Lsn, ShardId, ShardIndex};
use crate::search::{ANSWER_BYTES_MAX, Consistency, ReadOptions};
use crate::table::{Table, TableState};

impl Router {
    /// One document; its vector is empty unless `with_vector`.
    pub async fn get(
        &self,
        context: &RequestContext,
        table: &Table,
        id: &DocumentId,
        with_vector: bool,
        read: &ReadOptions,
    ) -> Result<Option<StoredDocument>, Error> {
        let mut token = session(table, read)?;
        let found = self.look_up(context, table, id, with_vector, (read.consistency, &mut token)).await?;
        let stored =
            |(document, version)| StoredDocument { document, version, session_token: token.encode() };
        Ok(found.map(stored))
    }

    /// A document and its version, by a read that sees what `token` names and adds to it what it saw.
    pub(super) async fn look_up(
        &self,
        context: &RequestContext,
        table: &Table,
        id: &DocumentId,
        with_vector: bool,
        (consistency, token): (Consistency, &mut SessionToken),
    ) -> Result<Option<(Document, u64)>, Error> {
        let index = id.shard(table.schema.shards);
        let shard = ShardId { table: table.id, index };
        let rule = self.rule(consistency, token, shard);
        let answer = self
            .read(context, shard, (ReadKind::Get, consistency), |mut client, shard| {
                let (shard, id) = (Some(shard), id.to_string());
                let message = proto::GetRequest { shard, id, with_vector, rule: Some(rule) };
                let request = with_deadline(context, message);
                async move { client.get(request).await }
            })
            .await?;
        token.see(index, self.seen(shard, answer.position));
        let document = answer.document.map(from_proto).transpose()?;
        Ok(document.map(|document| (document, answer.version)))
    }

    /// One page of documents, shard by shard, each shard's by id. It ends early before it is too large
    /// for an answer.
    pub async fn list(
        &self,
        context: &RequestContext,
        table: &Table,
        page: PageRequest,
        read: &ReadOptions,
    ) -> Result<Page, Error> {
        let mut token = session(table, read)?;
        let mut at = match &page.cursor {
            None => Cursor { shard: ShardIndex(0), after: String::new() },
            Some(text) => Cursor::decode(text, table)
                .ok_or_else(|| Error::invalid("/cursor", "cursor is not one that this table returned"))?,
        };
        let (mut documents, mut bytes) = (Vec::new(), 0);
        while at.shard.0 < table.schema.shards {
            let (wanted, room) =
                (page.limit - documents.len() as u32, ANSWER_BYTES_MAX.saturating_sub(bytes));
            let shard = ShardId { table: table.id, index: at.shard };
            let request = proto::ListRequest {
                shard: None,
                after_id: at.after.clone(),
                limit: wanted,
                with_vector: page.with_vector,
                rule: Some(self.rule(read.consistency, &token, shard)),
                bytes_max: room as u64,
            };
            let answer = self.list_shard(context, shard, read.consistency, request).await?;
            token.see(at.shard, self.seen(shard, answer.position));
            for document in answer.documents {
                at.after.clone_from(&document.id);
                let document = from_proto(document)?;
                bytes += document.answer_bytes();
                documents.push(document);
            }
            if answer.more {
                break;
            }
            at = Cursor { shard: ShardIndex(at.shard.0 + 1), after: String::new() };
            if documents.len() as u32 >= page.limit || bytes >= ANSWER_BYTES_MAX {
                break;
            }
        }
        let next_cursor = (at.shard.0 < table.schema.shards).then(|| at.encode());
        Ok(Page { documents, next_cursor, session_token: token.encode() })
    }

    async fn list_shard(
        &self,
        context: &RequestContext,
        shard: ShardId,
        consistency: Consistency,
        request: proto::ListRequest,
    ) -> Result<proto::ListResponse, Error> {
        self.read(context, shard, (ReadKind::List, consistency), |mut client, shard| {
            let message = proto::ListRequest { shard: Some(shard), ..request.clone() };
            let request = with_deadline(context, message);
            async move { client.list(request).await }
        })
        .await
    }

    /// Counts and sizes of every shard; one that does not answer is told as such.
    pub async fn statistics(&self, context: &RequestContext, table: &Table) -> TableStatistics {
        let shards = (0..table.schema.shards).map(ShardIndex);
        let asked = shards.map(|index| self.shard_statistics(context, ShardId { table: table.id, index }));
        TableStatistics { shards: join_all(asked).await }
    }

    /// Counts and sizes of all tables that are ready.
    pub async fn cluster_totals(&self, context: &RequestContext) -> Totals {
        let view = self.view();
        let ready = view.tables.values().filter(|table| table.state == TableState::Active);
        let mut totals = Totals::default();
        for table in join_all(ready.map(|table| self.statistics(context, table))).await {
            totals.add(&table);
        }
        totals
    }

    async fn shard_statistics(&self, context: &RequestContext, shard: ShardId) -> ShardStatistics {
        let view = self.view();
        let record = view.shards.get(&shard);
        ShardStatistics {
            shard: shard.index,
            node: record.and_then(|record| record.primary_node()).cloned(),
            epoch: record.map(|record| record.epoch).unwrap_or_default(),
            counts: self.shard_counts(context, shard).await.ok(),
        }
    }

    async fn shard_counts(&self, context: &RequestContext, shard: ShardId) -> Result<ShardCounts, Error> {
        let primary = self.primary(shard)?;
        let mut client = self.shard_client(&primary.node)?;
        let request = with_deadline(context, proto::StatisticsRequest { shards: vec![primary.shard] });
        let answer = self.answer_of(context, &primary.node, client.statistics(request)).await?;
        let counts = answer.shards.into_iter().next().ok_or_else(|| {
            Error::new(ErrorCode::ShardUnavailable, format!("shard {} is not open", shard.index))
        })?;
        Ok(ShardCounts {
            documents: counts.documents,
            deleted_rows: counts.deleted_rows,
            vector_bytes: counts.vector_bytes,
            index_bytes: counts.index_bytes,
            indexed_rows: counts.indexed_rows,
            recall_estimate: counts.recall_estimate,
            disk_bytes: counts.disk_bytes,
            segments: counts.segments,
            last_lsn: Lsn(counts.last_lsn),
        })
    }
}

/// What the caller's session has seen of this table.
pub(super) fn session(table: &Table, read: &ReadOptions) -> Result<SessionToken, Error> {
    SessionToken::decode(&read.session_token, table.id)
        .map_err(|error| Error::invalid("/session_token", error.to_string()))
}

/// A document from another node.
pub(super) fn from_proto(document: proto::Document) -> Result<Document, Error> {
    let broken = |what| Error::new(ErrorCode::Internal, format!("a shard answered with a broken {what}"));
    Ok(Document {
        id: DocumentId::parse(&document.id).map_err(|_| broken("document id"))?,
        vector: vector_from_bytes(&document.vector).ok_or_else(|| broken("vector"))?,
        metadata: Metadata::from_stored(document.metadata).ok_or_else(|| broken("metadata"))?,
    })
}

/// Where a listing goes on: after `after` in `shard`. Opaque to clients.
struct Cursor {
    shard: ShardIndex,
    after: String,
}

impl Cursor {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{}", self.shard, self.after))
    }

    fn decode(text: &str, table: &Table) -> Option<Cursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (shard, after) = str::from_utf8(&bytes).ok()?.split_once(':')?;
        let shard = shard.parse().ok().filter(|shard| *shard < table.schema.shards)?;
        Some(Cursor { shard: ShardIndex(shard), after: after.to_owned() })
    }
}
