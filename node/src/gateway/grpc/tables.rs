//! `TableService`.

use tonic::{Request, Response, Status};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::table_service_server::TableService;

use super::super::ApiGateway;
use super::super::validate::{self, TableDraft};
use super::Api;
use super::convert::{metric_word, shard_statistics, table_message};
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
                index_type: request.index_type,
                shards: given(request.shards),
                replicas: given(request.replicas),
                min_isr: given(request.min_isr),
            };
            let schema = validate::table_schema(&draft, gateway.table_defaults())?;
            let table = gateway.router().create_table(&context, schema).await?;
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
                disk_bytes: totals.disk_bytes,
                unavailable_shards: totals.unavailable_shards as u32,
                shards: statistics.shards.iter().map(shard_statistics).collect(),
            })
        })
        .await
    }
}
