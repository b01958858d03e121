//! `TableService`.

use tonic::{Request, Response, Status};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::table_service_server::TableService;

use super::super::ApiGateway;
use super::super::admin::{self, ForceDraft, HandOverDraft, MoveDraft};
use super::super::validate::{self, TableDraft};
use super::Api;
use super::convert::{index_options, metric_word, shard_message, shard_statistics, table_message};
use crate::router::Totals;

#[tonic::async_trait]
impl TableService for Api {
    async fn create_table(
        &self,
        request: Request<proto::CreateTableRequest>,
    ) -> Result<Response<proto::Table>, Status> {
        self.call("TableService/CreateTable", request, async |gateway, context, request| {
            // proto3 cannot tell 0 from nothing: 0 means the default.
            let given = |number: u32| (number > 0).then_some(u64::from(number));
            let draft = TableDraft {
                table_name: request.table_name,
                dimension: given(request.dimension),
                metric: metric_word(request.metric)?.to_owned(),
                storage_type: request.storage_type,
                tenant_key: request.tenant_key,
                expected_documents: (request.expected_documents > 0).then_some(request.expected_documents),
                rows: request.rows,
                index_type: request.index_type,
                shards: given(request.shards),
                replicas: given(request.replicas),
                min_isr: given(request.min_isr),
                metadata_indexes: request.metadata_indexes.into_iter().collect(),
                index_options: index_options(request.index_options.unwrap_or_default()),
            };
            let schema = validate::table_schema(&draft, gateway.table_defaults())?;
            let table = gateway.router().create_table(&context, schema, draft.expected_documents).await?;
            Ok(table_message(&table))
        })
        .await
    }

    async fn list_tables(
        &self,
        request: Request<proto::ListTablesRequest>,
    ) -> Result<Response<proto::ListTablesResponse>, Status> {
        self.call("TableService/ListTables", request, async |gateway, _, _| {
            let view = gateway.view();
            let tables = view.tables.values().map(|table| table_message(table)).collect();
            Ok(proto::ListTablesResponse { tables })
        })
        .await
    }

    async fn get_table(
        &self,
        request: Request<proto::GetTableRequest>,
    ) -> Result<Response<proto::Table>, Status> {
        self.call("TableService/GetTable", request, async |gateway, _, request| {
            Ok(table_message(&*gateway.table(&request.table_name)?))
        })
        .await
    }

    async fn delete_table(
        &self,
        request: Request<proto::DeleteTableRequest>,
    ) -> Result<Response<proto::DeleteTableResponse>, Status> {
        self.call("TableService/DeleteTable", request, async |gateway, context, request| {
            let name = ApiGateway::table_name(&request.table_name)?;
            gateway.router().delete_table(&context, &name).await?;
            Ok(proto::DeleteTableResponse {})
        })
        .await
    }

    async fn put_metadata_index(
        &self,
        request: Request<proto::PutMetadataIndexRequest>,
    ) -> Result<Response<proto::Table>, Status> {
        self.call("TableService/PutMetadataIndex", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let (field, kind) = validate::metadata_index(&request.field, Some(&request.r#type))?;
            let table = gateway.router().set_metadata_index(&context, &table, &field, kind).await?;
            Ok(table_message(&table))
        })
        .await
    }

    async fn delete_metadata_index(
        &self,
        request: Request<proto::DeleteMetadataIndexRequest>,
    ) -> Result<Response<proto::Table>, Status> {
        self.call("TableService/DeleteMetadataIndex", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let (field, _) = validate::metadata_index(&request.field, None)?;
            let table = gateway.router().set_metadata_index(&context, &table, &field, None).await?;
            Ok(table_message(&table))
        })
        .await
    }

    async fn get_table_statistics(
        &self,
        request: Request<proto::GetTableStatisticsRequest>,
    ) -> Result<Response<proto::TableStatistics>, Status> {
        self.call("TableService/GetTableStatistics", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let statistics = gateway.router().statistics(&context, &table).await;
            let mut totals = Totals::default();
            totals.add(&statistics);
            Ok(proto::TableStatistics {
                table_name: request.table_name,
                documents: totals.documents,
                deleted_rows: totals.deleted_rows,
                vector_bytes: totals.vector_bytes,
                index_bytes: totals.index_bytes,
                indexed_rows: totals.indexed_rows,
                recall_estimate: totals.recall_estimate(),
                index_type: table.schema.index.of_segments().to_string(),
                disk_bytes: totals.disk_bytes,
                unavailable_shards: totals.unavailable_shards as u32,
                shards: statistics.shards.iter().map(shard_statistics).collect(),
            })
        })
        .await
    }

    async fn list_shards(
        &self,
        request: Request<proto::ListShardsRequest>,
    ) -> Result<Response<proto::ListShardsResponse>, Status> {
        self.call("TableService/ListShards", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let shards = gateway.router().shards(&context, &table).await;
            Ok(proto::ListShardsResponse { shards: shards.iter().map(shard_message).collect() })
        })
        .await
    }

    async fn move_replica(
        &self,
        request: Request<proto::MoveReplicaRequest>,
    ) -> Result<Response<proto::MoveReplicaResponse>, Status> {
        self.call("TableService/MoveReplica", request, async |gateway, context, request| {
            let shard = admin::shard(&*gateway.table(&request.table_name)?, request.shard)?;
            let draft = MoveDraft { from: request.from_node_id, to: request.to_node_id };
            let (from, to) = admin::move_between(&draft)?;
            let replica = gateway.router().move_replica(&context, shard, &from, &to).await?;
            Ok(proto::MoveReplicaResponse { replica_id: replica.to_string() })
        })
        .await
    }

    async fn hand_over_shard(
        &self,
        request: Request<proto::HandOverShardRequest>,
    ) -> Result<Response<proto::HandOverShardResponse>, Status> {
        self.call("TableService/HandOverShard", request, async |gateway, context, request| {
            let shard = admin::shard(&*gateway.table(&request.table_name)?, request.shard)?;
            let to = admin::hand_over(&HandOverDraft { to: request.to_node_id })?;
            let (epoch, node) = gateway.router().hand_over_shard(&context, shard, to.as_ref()).await?;
            Ok(proto::HandOverShardResponse { epoch: epoch.0, node_id: node.to_string() })
        })
        .await
    }

    async fn force_primary(
        &self,
        request: Request<proto::ForcePrimaryRequest>,
    ) -> Result<Response<proto::ForcePrimaryResponse>, Status> {
        self.call("TableService/ForcePrimary", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let shard = admin::shard(&table, request.shard)?;
            let draft = ForceDraft { node: request.node_id, confirmation: request.confirmation };
            let node = admin::force(&draft, &table, shard)?;
            let forced = gateway.router().force_primary(&context, shard, &node, &draft.confirmation).await?;
            let others = forced.others.iter().map(|other| proto::OtherCopy {
                replica_id: other.replica.to_string(),
                node_id: other.node.to_string(),
                reachable: other.log.is_some(),
                last_lsn: other.log.map_or(0, |(last, _)| last.0),
                lost_records: other.log.map_or(0, |(_, lost)| lost),
            });
            Ok(proto::ForcePrimaryResponse {
                epoch: forced.epoch.0,
                incarnation: forced.incarnation,
                last_lsn: forced.last.0,
                others: others.collect(),
            })
        })
        .await
    }
}
