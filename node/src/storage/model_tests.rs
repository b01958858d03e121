//! One replica against a model in memory: thousands of random operations, crashes at any operation of the disk, and
//! retries of whatever got no answer.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::checkpoint::CheckpointJob;
use super::store::Outcome;
use super::*;
use crate::document::{Document, Metadata};
use crate::ids::{DocumentId, Epoch, OpId, ReplicaId, ShardId, ShardIndex, TableId};
use crate::runtime::disk::{DiskOperation, MemoryDisk};

const DIMENSION: u32 = 3;

/// Vector and metadata of each live document.
pub(super) type State = BTreeMap<String, (Vec<f32>, String)>;

fn place(disk: &MemoryDisk) -> StorePlace {
    StorePlace { disk: Arc::new(disk.clone()), directory: PathBuf::from("shards/t/0") }
}

pub(super) fn format(disk: &MemoryDisk) {
    let identity = ReplicaIdentity {
        cluster_uid: "cluster".to_owned(),
        shard: ShardId { table: TableId::random(), index: ShardIndex(0) },
        replica: ReplicaId([1; 16]),
        dimension: DIMENSION,
    };
    Store::format(&place(disk), identity).expect("formatted");
}

pub(super) fn open(disk: &MemoryDisk) -> Result<(Store, OpenReport), StorageError> {
    let place = place(disk);
    let meta = ReplicaMeta::read(disk, &place.directory)?;
    let missing = || StorageError::damaged(&place.directory, "replica.meta is missing");
    Store::open(place.clone(), meta.ok_or_else(missing)?)
}

pub(super) fn open_and_lead(disk: &MemoryDisk) -> Result<Store, StorageError> {
    let (mut store, _) = open(disk)?;
    let epoch = Epoch(store.meta().promised_epoch.0 + 1);
    store.start_epoch(epoch)?;
    Ok(store)
}

pub(super) fn documents_of(snapshot: &Snapshot) -> State {
    let (documents, more) = snapshot.list("", 1 << 20, usize::MAX, true);
    assert!(!more);
    assert_eq!(documents.len() as u64, snapshot.documents);
    let entry = |document: Document| {
        (document.id.to_string(), (document.vector, document.metadata.as_json().to_owned()))
    };
    documents.into_iter().map(entry).collect()
}

pub(super) fn apply_to(state: &mut State, batch: &Batch) -> Result<u64, ()> {
    let mut after = state.clone();
    let mut affected = 0;
    for operation in &batch.operations {
        match operation {
            Operation::Upsert(document) => {
                let value = (document.vector.clone(), document.metadata.as_json().to_owned());
                after.insert(document.id.to_string(), value);
                affected += 1;
            }
            Operation::Delete(id) => affected += u64::from(after.remove(id.as_str()).is_some()),
            Operation::SetMetadata(id, metadata) => {
                after.get_mut(id.as_str()).ok_or(())?.1 = metadata.as_json().to_owned();
                affected += 1;
            }
        }
    }
    *state = after;
    Ok(affected)
}

pub(super) fn random_batch(random: &mut SmallRng) -> Batch {
    let operation = |random: &mut SmallRng| {
        let id = DocumentId::parse(&format!("id{}", random.random_range(0..40))).expect("valid");
        let json = format!("{{\"n\":{}}}", random.random_range(0..1000));
        let metadata = Metadata::from_stored(json.into()).expect("object");
        match random.random_range(0..10) {
            0..6 => {
                let vector = (0..DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect();
                Operation::Upsert(Document { id, vector, metadata })
            }
            6..9 => Operation::Delete(id),
            _ => Operation::SetMetadata(id, metadata),
        }
    };
    let count = random.random_range(1..5);
    Batch { op_id: OpId(random.random()), operations: (0..count).map(|_| operation(random)).collect() }
}

/// A replica beside what it must hold.
struct World {
    disk: MemoryDisk,
    random: SmallRng,
    store: Store,
    job: Option<CheckpointJob>,
    state: State,
    /// Snapshots taken at some time, with what they showed.
    snapshots: Vec<(Arc<Snapshot>, State)>,
    operations: usize,
    crashes: usize,
    checkpoints: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = MemoryDisk::new(seed);
        format(&disk);
        let store = open_and_lead(&disk).expect("fresh");
        World {
            disk,
            random: SmallRng::seed_from_u64(seed),
            store,
            job: None,
            state: State::new(),
            snapshots: Vec::new(),
            operations: 0,
            crashes: 0,
            checkpoints: 0,
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..74 => self.write(),
            74..82 => {
                let result = self.begin_checkpoint();
                self.survive(result);
            }
            82..90 => {
                let result = self.finish_checkpoint();
                self.survive(result);
            }
            90..92 => self.reopen(&[]),
            92..94 => {
                self.disk.crash();
                self.reopen(&[]);
            }
            94..97 => {
                let operations = self.random.random_range(0..40);
                self.disk.power_off_after(operations);
            }
            97..99 => {
                let faults = [DiskOperation::Append, DiskOperation::Sync, DiskOperation::Directory];
                let fault = faults[self.random.random_range(0..faults.len())];
                let count = self.random.random_range(0..8);
                self.disk.fail_after(count, fault, io::ErrorKind::StorageFull);
            }
            _ => self.snapshots.push((self.store.reader().snapshot(), self.state.clone())),
        }
    }

    fn write(&mut self) {
        let batches: Vec<Batch> =
            (0..self.random.random_range(1..4)).map(|_| random_batch(&mut self.random)).collect();
        self.operations += batches.iter().map(|batch| batch.operations.len()).sum::<usize>();
        match self.store.commit(batches.clone()) {
            Ok(outcomes) => {
                for (batch, outcome) in batches.iter().zip(&outcomes) {
                    let expected = apply_to(&mut self.state, batch);
                    assert_eq!(outcome.as_ref().map(|receipt| receipt.affected).map_err(|_| ()), expected);
                }
                self.check();
            }
            Err(_) => self.reopen(&batches),
        }
    }

    fn begin_checkpoint(&mut self) -> Result<(), StorageError> {
        if let Some(job) = self.store.begin_checkpoint()? {
            self.job = Some(job);
        }
        Ok(())
    }

    fn finish_checkpoint(&mut self) -> Result<(), StorageError> {
        if let Some(job) = self.job.take() {
            self.store.finish_checkpoint(job.run())?;
            self.checkpoints += 1;
        }
        Ok(())
    }

    /// A failed checkpoint does no harm to a process that lives; nothing that was acknowledged depends on it.
    fn survive(&mut self, result: Result<(), StorageError>) {
        if result.is_err() && self.store.is_poisoned() {
            self.reopen(&[]);
        }
        self.check();
    }

    /// Opens the replica again, after a crash or a fault. Each unanswered batch is there or not, in order; sent again,
    /// all are.
    fn reopen(&mut self, unanswered: &[Batch]) {
        self.job = None;
        // A fault may strike while opening, too.
        self.store = loop {
            match open_and_lead(&self.disk) {
                Ok(store) => break store,
                Err(error) => {
                    assert!(!error.is_lasting(), "{error}");
                    self.crashes += 1;
                    self.disk.crash();
                }
            }
        };
        let found = documents_of(&self.store.reader().snapshot());
        let mut possible = vec![self.state.clone()];
        for batch in unanswered {
            let mut next = possible.last().expect("not empty").clone();
            apply_to(&mut next, batch).ok();
            possible.push(next);
        }
        assert!(possible.contains(&found), "after {} operations: {found:?}", self.operations);
        self.disk.heal();
        let outcomes: Vec<Outcome> = self.store.commit(unanswered.to_vec()).expect("the disk is well");
        for (batch, outcome) in unanswered.iter().zip(outcomes) {
            let expected = apply_to(&mut self.state, batch);
            assert_eq!(outcome.is_ok(), expected.is_ok());
        }
        self.check();
    }

    fn check(&self) {
        let reader = self.store.reader();
        assert_eq!(documents_of(&reader.snapshot()), self.state, "after {} operations", self.operations);
        for number in 0..40 {
            let id = format!("id{number}");
            let found = reader.get(&id, true).map(|(document, version)| {
                assert!(version <= self.store.applied());
                (document.vector, document.metadata.as_json().to_owned())
            });
            assert_eq!(found.as_ref(), self.state.get(&id));
        }
    }
}

/// Says how to run a seed again when it fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {} failed; run it alone: make soak SEEDS=1 FROM={}", self.0, self.0);
        }
    }
}

/// Seeds to run: ten, or as many as `make soak SEEDS=… FROM=…` says.
#[expect(clippy::disallowed_methods, reason = "a test has no other way to be told by `make soak`")]
fn seeds() -> std::ops::Range<u64> {
    let told = |name: &str, otherwise: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
        Err(_) => otherwise,
    };
    let (count, from) = (told("VECTORSPHERE_SOAK_SEEDS", 10), told("VECTORSPHERE_SOAK_FROM", 0));
    from..from + count
}

/// Two thousand operations for each seed, with crashes at any operation of the disk, and faults of the disk.
#[test]
fn thousands_of_operations_with_crashes_lose_nothing_and_halve_nothing() {
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    let (mut operations, mut crashes, mut checkpoints) = (0, 0, 0);
    for seed in seeds {
        let _replay = Replay(seed);
        let mut world = World::new(seed);
        while world.operations < 2_000 {
            world.step();
        }
        for (snapshot, state) in &world.snapshots {
            assert_eq!(&documents_of(snapshot), state, "a snapshot changed");
        }
        operations += world.operations;
        crashes += world.crashes;
        checkpoints += world.checkpoints;
    }
    println!("{count} seeds, {operations} operations, {crashes} crashes, {checkpoints} checkpoints");
    assert!(
        count < 10 || (crashes as u64 > 5 * count && checkpoints as u64 > 5 * count),
        "{crashes} crashes, {checkpoints} checkpoints: too kind a test"
    );
}
