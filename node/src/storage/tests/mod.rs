//! Replicas under crashes, faults and cuts.

mod broken_disks;
mod checkpoints;
mod decoders;
#[cfg(feature = "faiss")]
mod faiss_indexes;
mod followers;
mod graphs;
mod interleavings;
mod primaries;
mod rows_on_disk;
mod snapshots;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use vectorsphere_index::StorageType;

use super::segment::{RowCache, RowCacheMetrics, RowPlace};
use super::*;
use crate::document::{Document, Metadata};
use crate::ids::{DocumentId, Epoch, Lsn, OpId, ReplicaId, Revision, ShardId, ShardIndex, TableId};
use crate::runtime::disk::{Disk, DiskOperation, MemoryDisk};

pub(super) const DIMENSION: u32 = 3;

/// Vector and metadata of each live document.
type State = BTreeMap<String, (Vec<f32>, String)>;
/// What became of a batch.
type Outcome = Result<Receipt, Refusal>;

/// Where vectors are kept must make no difference: it changes with what is on the disk.
pub(super) fn place(disk: &MemoryDisk) -> StorePlace {
    let on_disk = |bytes_max| RowPlace::Disk(RowCache::new(bytes_max, RowCacheMetrics::default()));
    let rows = match disk.files().len() % 3 {
        0 => RowPlace::Memory,
        1 => on_disk(0),
        _ => on_disk(1 << 20),
    };
    StorePlace { disk: Arc::new(disk.clone()), directory: PathBuf::from("shards/t/0/r"), rows }
}

/// Where reads of a disk without power cannot fail.
pub(super) fn in_memory(disk: &MemoryDisk) -> StorePlace {
    StorePlace { rows: RowPlace::Memory, ..place(disk) }
}

pub(super) fn identity(replica: u8) -> ReplicaIdentity {
    ReplicaIdentity {
        cluster_uid: "cluster".to_owned(),
        shard: ShardId {
            table: TableId::parse("6f5f4f5e-9d1c-4b1b-8f3e-0d2c7b1a0001").expect("a UUID"),
            index: ShardIndex(0),
        },
        replica: ReplicaId([replica; 16]),
        dimension: DIMENSION,
        storage_type: StorageType::F32,
    }
}

fn format(disk: &MemoryDisk) {
    Store::format(&place(disk), identity(1)).expect("formatted");
}

pub(super) fn open(disk: &MemoryDisk) -> Result<(Store, OpenReport), StorageError> {
    open_at(place(disk), disk)
}

pub(super) fn open_at(place: StorePlace, disk: &MemoryDisk) -> Result<(Store, OpenReport), StorageError> {
    let meta = ReplicaMeta::read(disk, &place.directory)?;
    let missing = || StorageError::damaged(&place.directory, "replica.meta is missing");
    Store::open(place.clone(), meta.ok_or_else(missing)?)
}

/// Begins the next reign and commits everything, as the only replica.
fn lead(store: &mut Store) -> Result<Epoch, StorageError> {
    let epoch = Epoch(store.meta().promised_epoch.0 + 1);
    store.promise(epoch)?;
    store.start_epoch(epoch)?;
    store.sync()?;
    store.apply(store.end()).expect("rows can be read");
    Ok(epoch)
}

fn open_and_lead(disk: &MemoryDisk) -> Result<Store, StorageError> {
    let (mut store, _) = open(disk)?;
    lead(&mut store)?;
    Ok(store)
}

/// A group of the only replica: staged, durable, applied.
fn commit(store: &mut Store, batches: Vec<Batch>) -> Result<Vec<Outcome>, StorageError> {
    let staged = store.stage(store.meta().promised_epoch, batches)?;
    store.sync()?;
    assert_eq!(store.apply(store.end())?, store.end());
    Ok(staged.verdicts.into_iter().map(|verdict| verdict.outcome).collect())
}

fn id(text: &str) -> DocumentId {
    DocumentId::parse(text).expect("valid")
}

fn document(text: &str, value: f32) -> Document {
    Document { id: id(text), vector: vec![value; DIMENSION as usize], metadata: Metadata::empty() }
}

/// A batch whose request id is new.
fn batch(operations: Vec<Operation>) -> Batch {
    Batch { op_id: OpId(rand::random()), base: None, operations }
}

fn upsert(document: Document) -> Operation {
    Operation::Upsert { document, if_version: None }
}

fn delete(id: DocumentId) -> Operation {
    Operation::Delete { id, if_version: None }
}

/// The durable records from `from` on; `None` when the log does not reach back.
pub(super) fn read_log(store: &Store, from: u64) -> Result<Option<Vec<Record>>, StorageError> {
    let (mut reader, mut found) = (store.log_reader(), Vec::new());
    loop {
        let next = found.last().map_or(Lsn(from), |record: &Record| record.lsn.next());
        match reader.read(next, 1 << 20)? {
            LogRead::Gone => return Ok(None),
            LogRead::Records(records) if records.is_empty() => return Ok(Some(found)),
            LogRead::Records(records) => found.extend(records),
        }
    }
}

fn documents_of(snapshot: &Snapshot) -> State {
    let (documents, more) = snapshot.list("", 1 << 20, usize::MAX, true).expect("rows can be read");
    assert!(!more);
    assert_eq!(documents.len() as u64, snapshot.documents);
    let entry = |document: Document| {
        (document.id.to_string(), (document.vector, document.metadata.as_json().to_owned()))
    };
    documents.into_iter().map(entry).collect()
}

fn apply_to(state: &mut State, batch: &Batch) -> Result<u64, ()> {
    let mut after = state.clone();
    let mut affected = 0;
    for operation in &batch.operations {
        match operation {
            Operation::Upsert { document, .. } => {
                let value = (document.vector.clone(), document.metadata.as_json().to_owned());
                after.insert(document.id.to_string(), value);
                affected += 1;
            }
            Operation::Delete { id, .. } => affected += u64::from(after.remove(id.as_str()).is_some()),
            Operation::SetMetadata { id, metadata, .. } => {
                after.get_mut(id.as_str()).ok_or(())?.1 = metadata.as_json().to_owned();
                affected += 1;
            }
        }
    }
    *state = after;
    Ok(affected)
}

fn random_batch(random: &mut SmallRng) -> Batch {
    let operation = |random: &mut SmallRng| {
        let id = DocumentId::parse(&format!("id{}", random.random_range(0..40))).expect("valid");
        let json = format!("{{\"n\":{}}}", random.random_range(0..1000));
        let metadata = Metadata::from_stored(json.into()).expect("object");
        match random.random_range(0..10) {
            0..6 => {
                let vector = (0..DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect();
                upsert(Document { id, vector, metadata })
            }
            6..9 => delete(id),
            _ => Operation::SetMetadata { id, metadata, if_version: None },
        }
    };
    let count = random.random_range(1..5);
    let operations = (0..count).map(|_| operation(random)).collect();
    Batch { op_id: OpId(random.random()), base: None, operations }
}
