//! Table changes: forwarded to the Master, tried again while mastership moves.

use futures::future::join_all;
use vectorsphere_proto::{internal as proto, meta};

use super::attempts::with_deadline;
use super::{RequestContext, Router};
use crate::error_code::{Error, ErrorCode};
use crate::filter::KeyPath;
use crate::filter::index::FieldKind;
use crate::ids::{NodeId, TableId, TableName};
use crate::table::{Table, TableSchema, TableState};

impl Router {
    /// Creates a table and returns when its shards are ready and every node knows it.
    ///
    /// # Errors
    /// [`ErrorCode::MemoryFull`] when the slaves have too little memory left for the documents that are expected.
    pub async fn create_table(
        &self,
        context: &RequestContext,
        schema: TableSchema,
        expected_documents: Option<u64>,
    ) -> Result<Table, Error> {
        if let Some(documents) = expected_documents {
            self.check_memory(context, &schema, documents).await?;
        }
        // Chosen here, so that the Master knows a retry from another table of this name.
        let table = Table { id: TableId::random(), schema, state: TableState::Creating };
        let request = proto::CreateTableRequest { table: Some(table.to_record()) };
        let answer = self.on_master(context, ErrorCode::is_transient, |mut client| {
            let request = with_deadline(context, request.clone());
            async move { client.create_table(request).await }
        });
        answered(answer.await.map_err(|failure| failure.error)?.table)
    }

    /// Refuses a table for whose documents the slaves have too little memory left.
    async fn check_memory(
        &self,
        context: &RequestContext,
        schema: &TableSchema,
        documents: u64,
    ) -> Result<(), Error> {
        let view = self.view();
        let slaves: Vec<&NodeId> =
            view.nodes.values().filter(|node| node.node_type != "master").map(|node| &node.id).collect();
        let answers = join_all(slaves.iter().map(|slave| self.memory_of(context, slave))).await;
        let known: Vec<proto::NodeMemory> = answers.into_iter().flatten().collect();
        let free = |memory: &proto::NodeMemory| {
            memory.limit.saturating_sub(memory.held).saturating_sub(memory.reserved)
        };
        let free: u64 = known.iter().map(free).fold(0, u64::saturating_add);
        let (one, copies) = (schema.memory_bytes(documents), u64::from(schema.replicas));
        let needed = one.saturating_mul(copies);
        if needed <= free {
            return Ok(());
        }
        let (name, known, slaves) = (&schema.name, known.len(), slaves.len());
        let message = format!(
            "table {name} needs about {needed} bytes of memory: {documents} documents take {one} in each of {copies} \
             copies, without their metadata; {known} of {slaves} slaves told that they have {free} left"
        );
        Err(Error::new(ErrorCode::MemoryFull, message))
    }

    async fn memory_of(&self, context: &RequestContext, node: &NodeId) -> Option<proto::NodeMemory> {
        let mut client = self.shard_client(node).ok()?;
        let request = with_deadline(context, proto::StatisticsRequest { shards: Vec::new() });
        self.answer_of(context, node, client.statistics(request)).await.ok()?.memory
    }

    /// Lets a field of the table's metadata have an index of a type, or none; the table as it is then.
    pub async fn set_metadata_index(
        &self,
        context: &RequestContext,
        table: &Table,
        field: &KeyPath,
        kind: Option<FieldKind>,
    ) -> Result<Table, Error> {
        let r#type = kind.map_or("", FieldKind::as_str).to_owned();
        let index = Some(meta::MetadataIndex { field: field.to_string(), r#type });
        let request = proto::SetMetadataIndexRequest { table_id: table.id.to_string(), index };
        let answer = self.on_master(context, ErrorCode::is_transient, |mut client| {
            let request = with_deadline(context, request.clone());
            async move { client.set_metadata_index(request).await }
        });
        answered(answer.await.map_err(|failure| failure.error)?.table)
    }

    /// Deletes a table with all its documents.
    pub async fn delete_table(&self, context: &RequestContext, name: &TableName) -> Result<(), Error> {
        let table_id = self.view().tables.get(name).map(|table| table.id.to_string()).unwrap_or_default();
        let request = proto::DeleteTableRequest { name: name.to_string(), table_id };
        let answer = self.on_master(context, ErrorCode::is_transient, |mut client| {
            let request = with_deadline(context, request.clone());
            async move { client.delete_table(request).await }
        });
        match answer.await {
            Ok(_) => Ok(()),
            // An earlier try did it, and its answer was lost.
            Err(failure) if failure.maybe_done && failure.error.code == ErrorCode::TableNotFound => Ok(()),
            Err(failure) => Err(failure.error),
        }
    }
}

fn answered(record: Option<meta::TableRecord>) -> Result<Table, Error> {
    Table::from_record(&record.unwrap_or_default()).map_err(|why| {
        Error::new(ErrorCode::Internal, format!("the Master answered with a broken table: {why}"))
    })
}
