//! Files, records and tokens as the product writes them, from a seed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use prost::Message as _;
use rand::RngExt;
use rand::rngs::SmallRng;
use vectorsphere_index::StorageType;
use vectorsphere_proto::meta;

use crate::filter::{reference, strategies};
use crate::fuzzing::manifest::ID;
use crate::fuzzing::session_token::table;
use crate::ids::{Epoch, Lsn, OpId, ReplicaId, Revision, ShardId, ShardIndex};
use crate::router::session_token::{SeenPosition, SessionToken};
use crate::runtime::disk::{Disk as _, MemoryDisk};
use crate::storage::log::{Log, LogPlace};
use crate::storage::manifest::{Manifest, ManifestSegment};
use crate::storage::op_window::{OpKey, OpWindow};
use crate::storage::segment::SegmentId;
use crate::storage::{
    Digest, Membership, Receipt, Record, RecordKind, Reign, Reigns, ReplicaIdentity, ReplicaMeta,
};

/// A segment with some groups of some batches; now and then a reign begins, perhaps within a batch.
pub(super) fn log_segment(random: &mut SmallRng) -> Vec<u8> {
    let directory = Path::new("wal").to_owned();
    let disk = Arc::new(MemoryDisk::new(1));
    disk.create_dir_all(&directory).expect("well");
    let place = LogPlace { disk: disk.clone(), directory, replica: ReplicaId(random.random()) };
    let (before, mut epoch) = (random.random_range(0..1_000), random.random_range(0..5));
    let mut log = Log::create(place, Lsn(before), Epoch(epoch)).expect("well");
    for _ in 0..random.random_range(0..5) {
        for _ in 0..random.random_range(1..8) {
            let kind = match random.random_range(0..8) {
                0 => RecordKind::EpochStart,
                1 => RecordKind::Delete,
                2 => RecordKind::Noop,
                3 => RecordKind::SetMetadata,
                _ => RecordKind::Upsert,
            };
            epoch += u64::from(kind == RecordKind::EpochStart);
            let length = random.random_range(0..60);
            let record = Record {
                kind,
                batch_end: kind == RecordKind::EpochStart || random.random_bool(0.6),
                epoch: Epoch(epoch),
                lsn: log.end().next(),
                op: OpKey { id: OpId(random.random()), digest: random.random() },
                body: (0..length).map(|_| random.random::<u8>()).collect::<Bytes>(),
            };
            log.append([record]).expect("well");
        }
        log.sync().expect("well");
    }
    drop(log);
    let mut bytes = disk.written(Path::new("wal/0000000000000001.log"));
    // The segment's own random number, which keeps other segments' bytes out.
    bytes[52..60].copy_from_slice(&random.random::<[u8; 8]>());
    crate::fuzzing::log_segment::repair(&mut bytes);
    bytes
}

pub(super) fn replica_meta(random: &mut SmallRng) -> Vec<u8> {
    let mut lsns: [u64; 3] = std::array::from_fn(|_| random.random_range(0..1_000));
    lsns.sort_unstable();
    let meta = ReplicaMeta {
        identity: ReplicaIdentity {
            cluster_uid: "c".repeat(random.random_range(0..20)),
            shard: ShardId { table: table(), index: ShardIndex(random.random_range(0..9)) },
            replica: ReplicaId(random.random()),
            dimension: random.random_range(1..5_000),
            storage_type: StorageType::ALL[random.random_range(0..StorageType::ALL.len())],
        },
        generation: random.random_range(1..9),
        promised_epoch: Epoch(random.random_range(0..99)),
        reigns: reigns(random),
        checkpoint: Lsn(lsns[0]),
        manifest: random.random_range(0..9),
        commit: Lsn(lsns[1]),
        durable: Lsn(lsns[2]),
        clean_stop: random.random(),
        tail_was_cut: random.random(),
        membership: Membership {
            epoch: Epoch(random.random_range(0..99)),
            configuration: Revision(random.random_range(0..9_999)),
            isr: replica_ids(random),
        },
    };
    let disk = MemoryDisk::new(1);
    disk.create_dir_all(Path::new("r")).expect("well");
    meta.write(&disk, Path::new("r")).expect("well");
    disk.read(Path::new("r/replica.meta")).expect("there")
}

pub(super) fn manifest(random: &mut SmallRng) -> Vec<u8> {
    let lsn = Lsn(random.random_range(100..1_000));
    let segment = |id: u32| {
        let rows = random.random_range(1..50);
        let deleted = (0..rows).filter(|_| random.random_bool(0.2)).collect::<Vec<u32>>();
        let deleted = deleted.into_iter().map(|row| (row, Lsn(random.random_range(1..=lsn.0)))).collect();
        ManifestSegment { id: SegmentId(id), rows, bytes: random.random_range(1..9_999), deleted }
    };
    let segments: Vec<_> = (1..5).map(segment).collect();
    let mut window = OpWindow::default();
    for _ in 0..random.random_range(0..9) {
        let op = OpKey { id: OpId(random.random()), digest: random.random() };
        window.insert(
            op,
            Receipt { lsn: Lsn(random.random_range(1..=lsn.0)), affected: random.random_range(0..9) },
        );
    }
    let digest = Digest { lsn, content: random.random(), log: random.random() };
    let manifest = Manifest { id: ID, digest, segments, next_segment: SegmentId(random.random_range(5..9)) };
    let disk = MemoryDisk::new(1);
    disk.create_dir_all(Path::new("g1")).expect("well");
    manifest.write(&disk, Path::new("g1"), &window).expect("well");
    disk.read(&Manifest::path_of(Path::new("g1"), ID)).expect("there")
}

pub(super) fn shard_record(random: &mut SmallRng) -> Vec<u8> {
    let ids = replica_ids(random);
    let roles = [meta::ReplicaRole::Full, meta::ReplicaRole::Learner, meta::ReplicaRole::Leaving];
    let replica = |id: &ReplicaId| meta::Replica {
        replica_id: id.0.to_vec(),
        node_id: format!("slave-{}", random.random_range(0..9)),
        role: roles[random.random_range(0..3)].into(),
        damaged: random.random_bool(0.2),
        ..Default::default()
    };
    let replicas: Vec<_> = ids.iter().map(replica).collect();
    let isr = ids.iter().filter(|_| random.random_bool(0.7)).map(|id| id.0.to_vec()).collect();
    let record = meta::ShardRecord {
        epoch: random.random_range(0..99),
        primary: ids.first().map(|id| id.0.to_vec()).unwrap_or_default(),
        primary_session: random.random_range(0..999),
        replicas,
        isr,
        min_isr: random.random_range(1..3),
        incarnation: random.random_range(0..3),
        reason: "made".to_owned(),
    };
    record.encode_to_vec()
}

pub(super) fn session_token(random: &mut SmallRng) -> Vec<u8> {
    let mut token = SessionToken::empty(table());
    for _ in 0..random.random_range(0..9) {
        let lsn = Lsn(random.random::<u64>() >> random.random_range(0..64));
        let position = SeenPosition { incarnation: random.random_range(0..300), lsn };
        token.see(ShardIndex(random.random_range(0..1_024)), position);
    }
    token.encode().into_bytes()
}

/// A filter, a line break, metadata.
pub(super) fn filter(random: &mut SmallRng) -> Vec<u8> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &random.random::<[u8; 32]>());
    let mut runner = TestRunner::new_with_rng(Default::default(), rng);
    let both = (strategies::filter(), strategies::object()).new_tree(&mut runner);
    let (filter, object) = both.expect("nothing is rejected for ever").current();
    let object = serde_json::to_string(&object).expect("JSON");
    format!("{}\n{object}", reference::to_json(&filter)).into_bytes()
}

fn replica_ids(random: &mut SmallRng) -> Vec<ReplicaId> {
    (0..random.random_range(0..4)).map(|_| ReplicaId(random.random())).collect()
}

fn reigns(random: &mut SmallRng) -> Reigns {
    let (mut epoch, mut first) = (0, 0);
    let reign = |_| {
        epoch += random.random_range(1..4);
        first += random.random_range(1..50);
        Reign { epoch: Epoch(epoch), first: Lsn(first) }
    };
    Reigns::from_ordered((0..4).map(reign).collect()).expect("ascending")
}
