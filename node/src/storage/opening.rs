//! Opening a replica: segments of its manifest, then its log, then away with what an interrupted checkpoint or snapshot
//! left.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::StorageError;
use super::applied::Applied;
use super::data_dir::{generation_directory, is_generation};
use super::documents::Documents;
use super::log::{Log, Record, RecoveryPoint, Scanned};
use super::manifest::{Manifest, ManifestSegment};
use super::pending::{Outlook, Pending};
use super::reigns::Reigns;
use super::replica_meta::{ReplicaIdentity, ReplicaMeta};
use super::segment::file::{self, Shape};
use super::segment::{SegmentId, index_paths, is_index_name};
use super::store::{OpenReport, Store, StorePlace, StoreReader, log_place};
use super::transfer::{DESCRIPTION_NAME, Pins};
use crate::ids::Lsn;
use crate::runtime::sync::{ArcSwap, RwLock};

pub(super) fn open(place: StorePlace, mut meta: ReplicaMeta) -> Result<(Store, OpenReport), StorageError> {
    // An earlier process may have ended between renaming `replica.meta` and syncing its directory. What the cache shows
    // must be on the platter before anything is removed that only the older one needs.
    place.disk.sync_dir(&place.directory).map_err(StorageError::sync(&place.directory))?;
    let home = generation_directory(&place.directory, meta.generation);
    let (manifest, mut replay) = load(&place, &home, &meta)?;
    let log_place = log_place(&place, &home, &meta.identity);
    let log_directory = log_place.directory.clone();
    let damaged = |reason| StorageError::damaged(&log_directory, reason);
    let point = RecoveryPoint { checkpoint: meta.checkpoint, durable: meta.durable };
    let scanned = Log::scan(log_place, point, &mut |record| replay.take(&record, damaged))?;
    if replay.applied.digest.lsn < meta.commit {
        let (end, commit) = (replay.applied.digest.lsn, meta.commit);
        return Err(damaged(format!("applied up to {end}, but {commit} was committed")));
    }
    let reigns = reigns_of(&meta, &scanned).ok_or_else(|| damaged("reigns are out of order".to_owned()))?;
    let (records, cut_bytes, clean_stop) = (scanned.records, scanned.cut_bytes, meta.clean_stop);
    if cut_bytes > 0 && !meta.tail_was_cut {
        // Before the log is changed: the next opening finds no trace of the tail.
        meta.tail_was_cut = true;
        meta.write(place.disk.as_ref(), &place.directory)?;
    }
    let log = scanned.open()?;
    remove_leftovers(&place, &home, &manifest);

    let snapshot = replay.documents.snapshot();
    let report = OpenReport {
        records,
        cut_bytes,
        tail_was_cut: meta.tail_was_cut,
        clean_stop,
        documents: snapshot.documents,
        applied: snapshot.lsn,
        end: log.end(),
    };
    let store = Store {
        place,
        home,
        reigns,
        membership: meta.membership.clone(),
        torn_at: meta.tail_was_cut.then_some(log.end()),
        meta,
        log,
        leads: None,
        pending: replay.pending,
        applied: replay.applied,
        shared: StoreReader {
            documents: Arc::new(RwLock::new(replay.documents)),
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        },
        next_segment: SegmentId(manifest.next_segment.0 + 1),
        manifest,
        is_checkpointing: false,
        keep_from: Lsn::MAX,
        pins: Pins::default(),
        leftovers: Vec::new(),
    };
    Ok((store, report))
}

/// Reads the manifest that counts and its segments.
fn load(place: &StorePlace, home: &Path, meta: &ReplicaMeta) -> Result<(Manifest, Replay), StorageError> {
    let (manifest, window) = Manifest::read(place.disk.as_ref(), home, meta.manifest)?;
    let path = Manifest::path_of(home, manifest.id);
    if manifest.lsn() != meta.checkpoint {
        let reason = format!("is at {}, the checkpoint at {}", manifest.lsn(), meta.checkpoint);
        return Err(StorageError::damaged(&path, reason));
    }
    let ReplicaIdentity { dimension, storage_type, .. } = meta.identity;
    let mut documents = Documents::new(dimension, storage_type, manifest.next_segment, manifest.lsn());
    for segment in &manifest.segments {
        load_segment(place, home, meta, segment, &mut documents)?;
    }
    if documents.content_digest() != manifest.digest.content {
        return Err(StorageError::damaged(&path, "the digest of its rows does not fit"));
    }
    let applied = Applied::new(manifest.digest, window);
    let replay = Replay { documents, applied, pending: Pending::default(), commit: meta.commit };
    Ok((manifest, replay))
}

fn load_segment(
    place: &StorePlace,
    home: &Path,
    meta: &ReplicaMeta,
    segment: &ManifestSegment,
    documents: &mut Documents,
) -> Result<(), StorageError> {
    let path = file::path_of(home, segment.id);
    let ReplicaIdentity { dimension, storage_type, .. } = meta.identity;
    let shape = Shape { dimension, storage_type };
    let rows = match file::read(place.disk.as_ref(), &path, segment.id, shape, &place.rows) {
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

/// Takes the records of the log behind the checkpoint: applies what is known to be committed, keeps the rest.
struct Replay {
    documents: Documents,
    applied: Applied,
    pending: Pending,
    commit: Lsn,
}

impl Replay {
    fn take(
        &mut self,
        record: &Record,
        damaged: impl Fn(String) -> StorageError,
    ) -> Result<(), StorageError> {
        let at = |reason| damaged(format!("record {}: {reason}", record.lsn));
        let Some(batch) = self.pending.open.add(record).map_err(at)? else { return Ok(()) };
        if batch.last() <= self.commit {
            let fetched = self.documents.fetch(batch.effects())?;
            return self.applied.apply(&mut self.documents, &batch, &fetched).map_err(damaged);
        }
        Outlook::new(&self.documents, &self.pending).take(&batch).map_err(at)?;
        self.pending.push(batch);
        Ok(())
    }
}

/// The reigns of the log: of what lies before it from `replica.meta`, the others from its records. `None` when they do
/// not fit.
fn reigns_of(meta: &ReplicaMeta, scanned: &Scanned) -> Option<Reigns> {
    let mut earlier = meta.reigns.clone();
    earlier.cut(Lsn(scanned.first.0 - 1));
    Reigns::from_ordered(earlier.as_slice().iter().chain(&scanned.reigns).copied().collect())
}

/// Removes files that nothing names: other generations, what a checkpoint left that did not come to count, or the one
/// before it.
fn remove_leftovers(place: &StorePlace, home: &Path, manifest: &Manifest) {
    let StorePlace { disk, directory, .. } = place;
    // What cannot be removed costs space, not truth; the next opening tries again.
    for name in disk.list(directory).unwrap_or_default() {
        let path = directory.join(&name);
        if is_generation(&name) && path != *home {
            let _: io::Result<()> = disk.remove_dir_all(&path);
        } else if name.ends_with(".tmp") {
            let _: io::Result<()> = disk.remove(&path);
        }
    }
    let is_needed = |path: &Path| {
        let is_of = |segment: &ManifestSegment| {
            file::path_of(home, segment.id) == path
                || index_paths(home, segment.id).iter().any(|index| index == path)
        };
        manifest.segments.iter().any(is_of) || Manifest::path_of(home, manifest.id) == path
    };
    let is_ours = |name: &str| {
        name.ends_with(".rows")
            || is_index_name(name)
            || name.ends_with(".tmp")
            || name.starts_with("manifest-")
            || name == DESCRIPTION_NAME
    };
    for folder in [home.to_path_buf(), home.join("segments")] {
        for name in disk.list(&folder).unwrap_or_default() {
            let path = folder.join(&name);
            if is_ours(&name) && !is_needed(&path) {
                let _: io::Result<()> = disk.remove(&path);
            }
        }
    }
}
