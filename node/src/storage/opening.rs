//! Opening a replica: segments of its manifest, then its log, then away with what an interrupted checkpoint left.

use std::io;
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;

use super::StorageError;
use super::documents::Documents;
use super::effect::Effect;
use super::log::{Log, Record, RecoveryPoint};
use super::manifest::{Manifest, ManifestSegment};
use super::op_window::{OpWindow, Receipt};
use super::replica_meta::ReplicaMeta;
use super::segment::{SegmentId, file};
use super::store::{OpenReport, Store, StorePlace, StoreReader, log_place};

pub(super) fn open(place: StorePlace, meta: ReplicaMeta) -> Result<(Store, OpenReport), StorageError> {
    // An earlier process may have ended between renaming `replica.meta` and syncing its directory. What the cache shows
    // must be on the platter before anything is removed that only the older one needs.
    place.disk.sync_dir(&place.directory).map_err(StorageError::sync(&place.directory))?;
    let (manifest, window) = Manifest::read(place.disk.as_ref(), &place.directory, meta.manifest)?;
    if manifest.lsn != meta.checkpoint {
        let path = Manifest::path_of(&place.directory, manifest.id);
        let reason = format!("is at {}, the checkpoint at {}", manifest.lsn, meta.checkpoint);
        return Err(StorageError::damaged(&path, reason));
    }
    let mutable = manifest.next_segment;
    let mut documents = Documents::new(meta.identity.dimension, mutable, manifest.lsn);
    for segment in &manifest.segments {
        load(&place, &meta, segment, &mut documents)?;
    }
    let mut replay = Replay { documents, window, batch_effects: 0 };
    let log_place = log_place(&place, &meta.identity);
    let log_directory = log_place.directory.clone();
    let point = RecoveryPoint { checkpoint: meta.checkpoint, durable: meta.durable };
    let recovered = Log::recover(log_place, point, &mut |record| {
        replay.apply(&record).map_err(|reason| StorageError::damaged(&log_directory, reason))
    })?;
    remove_leftovers(&place, &manifest);

    let snapshot = replay.documents.snapshot();
    let report = OpenReport {
        records: recovered.records,
        cut_bytes: recovered.cut_bytes,
        clean_stop: meta.clean_stop,
        documents: snapshot.documents,
        lsn: recovered.log.end(),
    };
    let store = Store {
        place,
        epoch: recovered.epoch.max(meta.promised_epoch),
        meta,
        log: recovered.log,
        shared: StoreReader {
            documents: Arc::new(RwLock::new(replay.documents)),
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        },
        window: replay.window,
        next_segment: SegmentId(mutable.0 + 1),
        manifest,
        is_checkpointing: false,
        leftovers: Vec::new(),
    };
    Ok((store, report))
}

fn load(
    place: &StorePlace,
    meta: &ReplicaMeta,
    segment: &ManifestSegment,
    documents: &mut Documents,
) -> Result<(), StorageError> {
    let path = file::path_of(&place.directory, segment.id);
    let rows = match file::read(place.disk.as_ref(), &path, segment.id, meta.identity.dimension) {
        Err(StorageError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(StorageError::damaged(&path, "is missing"));
        }
        rows => rows?,
    };
    if rows.len() != segment.rows {
        let reason = format!("has {} rows, its manifest says {}", rows.len(), segment.rows);
        return Err(StorageError::damaged(&path, reason));
    }
    documents.load(rows, &segment.deleted).map_err(|reason| StorageError::damaged(&path, reason))
}

/// Applies the records of the log behind the checkpoint.
struct Replay {
    documents: Documents,
    window: OpWindow,
    /// Documents that the batch touched so far.
    batch_effects: u64,
}

impl Replay {
    fn apply(&mut self, record: &Record) -> Result<(), String> {
        let at = |reason| format!("record {}: {reason}", record.lsn);
        let effect = Effect::decode(record).map_err(at)?;
        self.documents.apply(record.lsn, &effect).map_err(at)?;
        self.batch_effects += u64::from(effect.is_of_document());
        if record.batch_end {
            let receipt = Receipt { lsn: record.lsn, affected: std::mem::take(&mut self.batch_effects) };
            if effect != Effect::EpochStart {
                self.window.insert(record.op, receipt);
            }
        }
        Ok(())
    }
}

/// Removes files that nothing names: of a checkpoint that did not come to count, or of the one before it.
fn remove_leftovers(place: &StorePlace, manifest: &Manifest) {
    let StorePlace { disk, directory } = place;
    let is_needed = |name: &str| {
        manifest.segments.iter().any(|segment| file::path_of(directory, segment.id).ends_with(name))
            || Manifest::path_of(directory, manifest.id).ends_with(name)
    };
    let is_ours =
        |name: &str| name.ends_with(".rows") || name.ends_with(".tmp") || name.starts_with("manifest-");
    for folder in [directory.clone(), directory.join("segments")] {
        for name in disk.list(&folder).unwrap_or_default() {
            if is_ours(&name) && !is_needed(&name) {
                // What cannot be removed costs space, not truth; the next opening tries again.
                let _: io::Result<()> = disk.remove(&folder.join(&name));
            }
        }
    }
}
