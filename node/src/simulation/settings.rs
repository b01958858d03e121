//! What kind of world a seed makes: how many machines and copies, what clients do, what goes wrong.

use std::time::Duration;

use vectorsphere_proto::meta;

use super::client::Kind;
use super::fault_kind::FaultKind;
use super::network::Weather;
use super::random::Random;
use super::world::node_id;
use crate::ids::{DocumentId, ShardId, ShardIndex, TableId};
use crate::replication::{EtcdPolicy, Rules, Timing};

/// The cluster's identity.
pub(super) const CLUSTER: &str = "simulated";
/// Values of each vector.
pub(super) const DIMENSION: u32 = 1;
/// How long the data of a copy that leaves is kept.
pub(super) const LEAVING_GRACE: Duration = Duration::from_secs(5);
/// Documents of a group, which are written together.
pub(super) const GROUP_KEYS: usize = 4;
/// Groups of documents of each shard.
const GROUPS: usize = 2;

/// What kind of world it is.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) shard_count: u32,
    pub(super) replicas: usize,
    pub(super) min_isr: u32,
    pub(super) masters: usize,
    pub(super) clients: usize,
    pub(super) key_count: usize,
    pub(super) operations: Vec<Kind>,
    pub(super) think_time: Duration,
    pub(super) policy: EtcdPolicy,
    pub(super) timing: Timing,
    pub(super) rules: Rules,
    pub(super) weather: Weather,
    /// Bytes of records of one message.
    pub(super) message_bytes: usize,
    /// Bytes that start a checkpoint.
    pub(super) checkpoint_bytes: u64,
    /// One message in so many finds its queue full; 0: none.
    pub(super) full_queue_one_in: u32,
    pub(super) faults: Vec<FaultKind>,
    /// Between two faults, about.
    pub(super) fault_pause: Duration,
    /// How long things go wrong.
    pub(super) chaos: Duration,
}

impl Settings {
    /// The kind of world that a seed makes.
    pub(super) fn of_seed(seed: u64) -> Settings {
        let mut random = Random::new(seed ^ 0x5eed_5eed_5eed_5eed);
        let (replicas, min_isr) = *random.pick(&[
            (3, 2),
            (3, 2),
            (3, 2),
            (3, 2),
            (2, 1),
            (2, 1),
            (3, 1),
            (2, 2),
            (1, 1),
            (3, 3),
            (4, 2),
        ]);
        let nodes = replicas + random.index(3);
        let weather = Weather {
            latency: random.between(Duration::from_micros(100), Duration::from_millis(5)),
            lost_one_in: *random.pick(&[0, 0, 200, 40, 10]),
            doubled_one_in: *random.pick(&[0, 0, 100, 20]),
            late_one_in: *random.pick(&[0, 0, 100, 20]),
            late: random.between(Duration::from_millis(50), Duration::from_secs(6)),
        };
        Settings {
            seed,
            nodes,
            shard_count: 1 + random.index(2) as u32,
            replicas,
            min_isr,
            masters: 1 + random.index(2),
            clients: 2 + random.index(5),
            key_count: 2 + random.index(10),
            operations: operations(&mut random),
            think_time: random.between(Duration::from_millis(10), Duration::from_millis(150)),
            policy: if random.one_in(5) { EtcdPolicy::Failsafe } else { EtcdPolicy::Strict },
            timing: Timing {
                readmission_min: Duration::from_secs(2),
                readmission_max: Duration::from_secs(8),
                flapping: Duration::from_secs(20),
                ..Timing::default()
            },
            rules: Rules::default(),
            weather,
            message_bytes: *random.pick(&[1 << 20, 1 << 20, 600, 150]),
            checkpoint_bytes: *random.pick(&[2_000, 8_000, 40_000, 1 << 30]),
            full_queue_one_in: *random.pick(&[0, 0, 0, 50]),
            faults: FaultKind::ALL.iter().copied().filter(|_| random.one_in(2)).collect(),
            fault_pause: random.between(Duration::from_millis(700), Duration::from_secs(6)),
            chaos: random.between(Duration::from_secs(15), Duration::from_secs(45)),
        }
    }

    /// The shards.
    pub(super) fn shards(&self) -> Vec<ShardId> {
        let table = TableId::parse("00000000-0000-4000-8000-00000000da7a").expect("a UUID");
        (0..self.shard_count).map(|index| ShardId { table, index: ShardIndex(index) }).collect()
    }

    /// The record of a shard that nobody has led yet, its copies on different machines.
    pub(super) fn fresh_record(&self, shard: ShardId, random: &mut Random) -> meta::ShardRecord {
        let first = shard.index.0 as usize;
        let replica = |index: usize| meta::Replica {
            replica_id: random.bytes().to_vec(),
            node_id: node_id((first + index) % self.nodes).to_string(),
            role: meta::ReplicaRole::Learner.into(),
            ..meta::Replica::default()
        };
        meta::ShardRecord {
            replicas: (0..self.replicas).map(replica).collect(),
            min_isr: self.min_isr,
            ..meta::ShardRecord::default()
        }
    }

    /// The shard of a document.
    pub(super) fn shard_of(&self, key: &str) -> ShardId {
        let index = match key.strip_prefix('g').and_then(|rest| rest.split('-').next()) {
            // The documents of a group lie in one shard whatever their names are.
            Some(index) => ShardIndex(index.parse().expect("a number")),
            None => DocumentId::parse(key).expect("valid").shard(self.shard_count),
        };
        ShardId { index, ..self.shards()[0] }
    }

    /// A document on its own.
    pub(super) fn key(&self, random: &mut Random) -> String {
        format!("k{}", random.index(self.key_count))
    }

    /// The documents of a group.
    pub(super) fn group(&self, random: &mut Random) -> Vec<String> {
        let (shard, group) = (random.index(self.shard_count as usize), random.index(GROUPS));
        (0..GROUP_KEYS).map(|part| format!("g{shard}-{group}.{part}")).collect()
    }

    /// All documents that there may be.
    pub(super) fn keys(&self) -> Vec<String> {
        let alone = (0..self.key_count).map(|index| format!("k{index}"));
        let groups =
            (0..self.shard_count as usize).flat_map(|shard| (0..GROUPS).map(move |group| (shard, group)));
        let grouped = groups
            .flat_map(|(shard, group)| (0..GROUP_KEYS).map(move |part| format!("g{shard}-{group}.{part}")));
        alone.chain(grouped).collect()
    }
}

/// Something that writes, something that reads, and some of the rest.
fn operations(random: &mut Random) -> Vec<Kind> {
    let mut kinds = vec![Kind::Upsert, Kind::Get];
    let more = [
        Kind::Upsert,
        Kind::Get,
        Kind::ConditionalUpsert,
        Kind::Delete,
        Kind::ConditionalDelete,
        Kind::SessionGet,
        Kind::BoundedGet,
        Kind::Scan,
        Kind::Group,
    ];
    kinds.extend(more.into_iter().filter(|_| random.one_in(2)));
    kinds
}
