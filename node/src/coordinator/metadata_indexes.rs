//! Changes of the indexes that a table has of its documents' metadata. Shards follow the record by themselves.

use std::time::Instant;

use prost::Message as _;
use tracing::info;

use super::{Coordinator, unavailable};
use crate::cluster::meta_store::{Condition, Operation, Txn, TxnOutcome};
use crate::error_code::{Error, ErrorCode};
use crate::filter::KeyPath;
use crate::filter::index::{FIELDS_MAX, FieldKind};
use crate::ids::TableId;
use crate::table::{Table, TableState};

/// How often a change is tried whose record somebody else changes at the same time.
const TRIES_MAX: usize = 5;

impl Coordinator {
    /// Lets a field have an index of this type, or none. Returns the table when every node knows; one that is so already is
    /// not written again.
    ///
    /// # Errors
    /// When there is no such table, it has too many indexes, this node is not the Master, or the store does not answer.
    pub async fn set_metadata_index(
        &self,
        id: TableId,
        field: &KeyPath,
        kind: Option<FieldKind>,
        deadline: Instant,
    ) -> Result<Table, Error> {
        for _ in 0..TRIES_MAX {
            let guard = self.guard()?;
            let missing = || Error::new(ErrorCode::TableNotFound, "the table does not exist any more");
            let (mut table, modified) =
                self.stored_table(id).await.map_err(unavailable)?.ok_or_else(missing)?;
            if table.state == TableState::Deleting {
                return Err(missing());
            }
            if !change(&mut table, field, kind)? {
                return Ok(table);
            }
            let key = self.keys.table(&id.to_string());
            let txn = Txn {
                conditions: vec![guard, Condition::ModifiedAt(key.clone(), modified)],
                operations: vec![Operation::Put {
                    key,
                    value: table.to_record().encode_to_vec().into(),
                    lease: None,
                }],
            };
            if let TxnOutcome::Committed(revision) = self.meta.commit(txn).await.map_err(unavailable)? {
                let kind = kind.map_or("none", FieldKind::as_str);
                info!(table = %table.schema.name, %field, kind, "changed a metadata index");
                self.comm.broadcast_revision(revision, deadline).await;
                return Ok(table);
            }
        }
        Err(self.not_master())
    }
}

/// Changes a table's indexes; whether they were others before.
fn change(table: &mut Table, field: &KeyPath, kind: Option<FieldKind>) -> Result<bool, Error> {
    let fields = &mut table.schema.metadata_indexes;
    let before = match kind {
        Some(_) if fields.len() >= FIELDS_MAX && !fields.contains_key(field) => {
            let name = &table.schema.name;
            let message = format!("table {name} has {FIELDS_MAX} metadata indexes, more are not allowed");
            return Err(Error::invalid("/field", message));
        }
        Some(kind) => fields.insert(field.clone(), kind),
        None => fields.remove(field),
    };
    Ok(before != kind)
}
