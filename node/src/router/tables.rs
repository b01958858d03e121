//! Table changes: forwarded to the Master, tried again while mastership moves.

use tonic::transport::Channel;
use vectorsphere_proto::internal as proto;
use vectorsphere_proto::internal::coordinator_service_client::CoordinatorServiceClient;

use super::attempts::{Attempts, before, with_deadline};
use super::{RequestContext, Router};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{TableId, TableName};
use crate::table::{Table, TableSchema, TableState};

impl Router {
    /// Creates a table and returns when its shards are ready and every node knows it.
    pub async fn create_table(&self, context: &RequestContext, schema: TableSchema) -> Result<Table, Error> {
        // Chosen here, so that the Master knows a retry from another table of this name.
        let table = Table { id: TableId::random(), schema, state: TableState::Creating };
        let request = proto::CreateTableRequest { table: Some(table.to_record()) };
        let mut attempts = Attempts::new(self, context);
        loop {
            let answer = match self.coordinator() {
                Ok(mut client) => {
                    before(context, client.create_table(with_deadline(context, request.clone()))).await
                }
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return created(answer),
                Err(error) if attempts.again(&error).await => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes a table with all its documents.
    pub async fn delete_table(&self, context: &RequestContext, name: &TableName) -> Result<(), Error> {
        let table_id = self.view().tables.get(name).map(|table| table.id.to_string()).unwrap_or_default();
        let request = proto::DeleteTableRequest { name: name.to_string(), table_id };
        let mut maybe_done = false;
        let mut attempts = Attempts::new(self, context);
        loop {
            let answer = match self.coordinator() {
                Ok(mut client) => {
                    before(context, client.delete_table(with_deadline(context, request.clone()))).await
                }
                Err(error) => Err(error),
            };
            match answer {
                Ok(_) => return Ok(()),
                // An earlier try did it, and its answer was lost.
                Err(error) if maybe_done && error.code == ErrorCode::TableNotFound => return Ok(()),
                Err(error) if attempts.again(&error).await => {
                    maybe_done |=
                        matches!(error.code, ErrorCode::NodeUnreachable | ErrorCode::MetaStoreUnavailable);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Router {
    /// A client of the Master, who may be this node.
    fn coordinator(&self) -> Result<CoordinatorServiceClient<Channel>, Error> {
        match &self.view().master {
            Some(master) => self.comm.coordinator_client(&master.node),
            None => Err(Error::new(ErrorCode::NoMaster, "no Master is elected at present")),
        }
    }
}

fn created(answer: proto::CreateTableResponse) -> Result<Table, Error> {
    let record = answer.table.unwrap_or_default();
    Table::from_record(&record).map_err(|why| {
        Error::new(ErrorCode::Internal, format!("the Master answered with a broken table: {why}"))
    })
}
