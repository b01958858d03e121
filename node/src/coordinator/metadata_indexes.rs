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
                // Whoever wrote it may still wait for the nodes, or have given up.
                self.comm.broadcast_revision(modified, deadline).await;
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
    let schema = &mut table.schema;
    if schema.tenant_key.as_ref() == Some(field) && kind != Some(FieldKind::Keyword) {
        let name = &schema.name;
        let message =
            format!("{field} is the tenant key of table {name}, which has an index of type keyword");
        return Err(Error::invalid("/field", message));
    }
    // One of a type that a newer version knows makes room.
    let was_unknown = schema.unknown_indexes.remove(&field.to_string()).is_some();
    let count = schema.metadata_indexes.len() + schema.unknown_indexes.len();
    let before = match kind {
        Some(_) if count >= FIELDS_MAX && !schema.metadata_indexes.contains_key(field) => {
            let name = &schema.name;
            let message = format!("table {name} has {FIELDS_MAX} metadata indexes, more are not allowed");
            return Err(Error::invalid("/field", message));
        }
        Some(kind) => schema.metadata_indexes.insert(field.clone(), kind),
        None => schema.metadata_indexes.remove(field),
    };
    Ok(before != kind || was_unknown)
}

#[cfg(test)]
mod tests {
    use vectorsphere_proto::meta;

    use super::*;

    #[test]
    fn an_index_that_a_newer_version_made_is_replaced_or_removed_like_any_other() {
        let index =
            |field: usize| meta::MetadataIndex { field: format!("f{field}"), r#type: "text".to_owned() };
        let record = meta::TableRecord {
            table_id: TableId::random().to_string(),
            name: "t".to_owned(),
            dimension: 1,
            metric: meta::Metric::L2.into(),
            shards: 1,
            replicas: 1,
            min_isr: 1,
            state: meta::TableState::Active.into(),
            shard_hash: 1,
            vector_type: "f32".to_owned(),
            metadata_indexes: (0..FIELDS_MAX).map(index).collect(),
            ..meta::TableRecord::default()
        };
        let owned = meta::TableRecord { tenant_key: "f3".to_owned(), ..record.clone() };
        let mut owned = Table::from_record(&owned).expect("readable");
        let tenant = owned.schema.tenant_key.clone().expect("it has one");
        for kind in [None, Some(FieldKind::Integer)] {
            let refused = change(&mut owned, &tenant, kind).expect_err("it is needed");
            assert_eq!(refused.code, ErrorCode::InvalidArgument);
        }
        let mut table = Table::from_record(&record).expect("readable");
        let mut change = |field: &str, kind| {
            let field = KeyPath::parse(field).expect("a path");
            change(&mut table, &field, kind).map_err(|error| error.code)
        };
        assert_eq!(change("more", Some(FieldKind::Bool)), Err(ErrorCode::InvalidArgument));
        assert_eq!(change("f1", Some(FieldKind::Keyword)), Ok(true));
        assert_eq!(change("f1", Some(FieldKind::Keyword)), Ok(false));
        assert_eq!(change("f2", None), Ok(true));
        assert_eq!(change("f2", None), Ok(false));
        let written = table.to_record().metadata_indexes;
        assert_eq!(written.len(), FIELDS_MAX - 1);
        assert_eq!(written.iter().filter(|index| index.r#type == "text").count(), FIELDS_MAX - 2);
    }
}
