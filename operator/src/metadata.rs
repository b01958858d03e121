//! What the metadata store says about a cluster: who leads, which nodes are registered, who holds which shard.
//! Pure: takes records, gives a view. [`crate::metadata_client`] reads them.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use vectorsphere_proto::keys::{Key, Keys};
use vectorsphere_proto::meta::{MasterCandidate, NodeRecord, ReplicaRole, ShardRecord, TableRecord};

/// A record as it is stored.
#[derive(Clone, Debug)]
pub struct Record {
    /// Whole key.
    pub key: Vec<u8>,
    /// Revision at which the key was made.
    pub create_revision: i64,
    /// Encoded record.
    pub value: Vec<u8>,
}

/// One consistent look at the metadata of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataView {
    /// The elected Master.
    pub leader: Option<Leader>,
    /// Version that each registered node reports, by node id.
    pub nodes: BTreeMap<String, String>,
    /// Every shard of every table.
    pub shards: Vec<Shard>,
    /// Version that etcd reports, if it tells.
    pub store_version: Option<String>,
}

/// Oldest patch of each line of etcd that is free of known faults in what nodes use.
pub static STORE_VERSIONS: [semver::Version; 3] =
    [semver::Version::new(3, 5, 33), semver::Version::new(3, 6, 14), semver::Version::new(3, 7, 1)];

/// Whether etcd of `version` is new enough; later lines are. `None` for what is no version.
pub fn is_supported(version: &str) -> Option<bool> {
    let version = semver::Version::parse(version).ok()?;
    let line = |of: &semver::Version| (of.major, of.minor);
    let [.., newest] = &STORE_VERSIONS;
    let same = STORE_VERSIONS.iter().find(|oldest| line(oldest) == line(&version));
    Some(same.map_or_else(|| line(&version) > line(newest), |oldest| version >= *oldest))
}

/// The elected Master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its node id, which is the name of its pod.
    pub node_id: String,
    /// Create-revision of its election key.
    pub epoch: i64,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// Nodes that hold a copy, in sync or not.
    pub holders: BTreeSet<String>,
    /// Nodes that hold a copy in sync.
    pub in_sync: BTreeSet<String>,
    /// Whether a primary was ever elected.
    pub has_primary: bool,
    /// Copies that the table asks for.
    pub wanted: u32,
}

/// Why the records could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// A key that is not text.
    #[error("a key under the prefix is not UTF-8")]
    Key,
    /// A record that does not decode.
    #[error("failed to decode the record `{key}`")]
    Record {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
}

impl MetadataView {
    /// Understands the records under the prefix of `keys`. Keys of unknown kinds are passed over: a newer version
    /// of the nodes may have added them.
    pub fn of_records(keys: &Keys, records: &[Record]) -> Result<MetadataView, MetadataError> {
        let mut view = MetadataView::default();
        let mut replicas_of_table = BTreeMap::new();
        let mut shards = Vec::new();
        for record in records {
            let key = std::str::from_utf8(&record.key).map_err(|_| MetadataError::Key)?;
            match keys.parse(key) {
                Some(Key::Master { .. }) => {
                    let candidate: MasterCandidate = decode(key, &record.value)?;
                    view.campaign(candidate.node_id, record.create_revision);
                }
                Some(Key::Node { node_id }) => {
                    let node: NodeRecord = decode(key, &record.value)?;
                    view.nodes.insert(node_id.to_owned(), node.version);
                }
                Some(Key::Table { table_id }) => {
                    let table: TableRecord = decode(key, &record.value)?;
                    replicas_of_table.insert(table_id.to_owned(), table.replicas);
                }
                Some(Key::Shard { table_id, .. }) => {
                    shards.push((table_id.to_owned(), decode::<ShardRecord>(key, &record.value)?));
                }
                Some(
                    Key::Meta | Key::Restored | Key::Alias { .. } | Key::Drain { .. } | Key::Disk { .. },
                )
                | None => {}
            }
        }
        view.shards = shards
            .into_iter()
            .map(|(table, record)| Shard::new(&record, replicas_of_table.get(&table).copied().unwrap_or(1)))
            .collect();
        Ok(view)
    }

    /// Lowest create-revision leads.
    fn campaign(&mut self, node_id: String, epoch: i64) {
        if self.leader.as_ref().is_none_or(|leader| epoch < leader.epoch) {
            self.leader = Some(Leader { node_id, epoch });
        }
    }

    /// Shards of which `node_id` holds a copy.
    pub fn shards_on(&self, node_id: &str) -> usize {
        self.shards.iter().filter(|shard| shard.holders.contains(node_id)).count()
    }

    /// Shards that can serve: a copy in sync is on a registered node.
    pub fn available_shards(&self) -> usize {
        self.shards
            .iter()
            .filter(|shard| shard.in_sync.iter().any(|node| self.nodes.contains_key(node)))
            .count()
    }

    /// The version that all registered nodes report, when they agree.
    pub fn common_version(&self) -> Option<String> {
        let versions: BTreeSet<&String> = self.nodes.values().collect();
        (versions.len() == 1).then(|| versions.first().map(|version| (*version).clone())).flatten()
    }
}

impl Shard {
    fn new(record: &ShardRecord, wanted: u32) -> Shard {
        let full = |role: i32| role == i32::from(ReplicaRole::Full);
        Shard {
            // A copy that leaves is needed no more.
            holders: record
                .replicas
                .iter()
                .filter(|replica| replica.role() != ReplicaRole::Leaving)
                .map(|replica| replica.node_id.clone())
                .collect(),
            in_sync: record
                .replicas
                .iter()
                .filter(|replica| full(replica.role) && record.isr.contains(&replica.replica_id))
                .map(|replica| replica.node_id.clone())
                .collect(),
            has_primary: !record.primary.is_empty(),
            wanted,
        }
    }
}

fn decode<M: Message + Default>(key: &str, value: &[u8]) -> Result<M, MetadataError> {
    M::decode(value).map_err(|source| MetadataError::Record { key: key.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use vectorsphere_proto::meta::Replica;

    use super::*;

    fn record(key: String, create_revision: i64, value: &impl Message) -> Record {
        Record { key: key.into_bytes(), create_revision, value: value.encode_to_vec() }
    }

    fn candidate(node: &str) -> MasterCandidate {
        MasterCandidate { node_id: node.to_owned(), ..MasterCandidate::default() }
    }

    fn shard(holders: &[(&str, bool)]) -> ShardRecord {
        let id = |node: &str| node.as_bytes().to_vec();
        let replica = |node: &str| Replica {
            replica_id: id(node),
            node_id: node.to_owned(),
            role: ReplicaRole::Full.into(),
            ..Replica::default()
        };
        ShardRecord {
            primary: holders.first().map(|(node, _)| id(node)).unwrap_or_default(),
            replicas: holders.iter().map(|(node, _)| replica(node)).collect(),
            isr: holders.iter().filter(|(_, in_sync)| *in_sync).map(|(node, _)| id(node)).collect(),
            ..ShardRecord::default()
        }
    }

    #[test]
    fn each_line_of_etcd_has_an_oldest_patch() {
        for (version, expected) in [
            ("3.4.40", Some(false)),
            ("3.5.32", Some(false)),
            ("3.5.33", Some(true)),
            ("3.6.13", Some(false)),
            ("3.6.15", Some(true)),
            ("3.7.0", Some(false)),
            ("3.7.1", Some(true)),
            ("3.8.0", Some(true)),
            ("4.0.0", Some(true)),
            ("", None),
        ] {
            assert_eq!(is_supported(version), expected, "{version}");
        }
    }

    #[test]
    fn the_lowest_create_revision_leads_and_is_the_epoch() {
        let keys = Keys::of_service("a");
        let records =
            [record(keys.master(1), 9, &candidate("late")), record(keys.master(7), 5, &candidate("first"))];
        let view = MetadataView::of_records(&keys, &records).expect("good records");
        assert_eq!(view.leader, Some(Leader { node_id: "first".into(), epoch: 5 }));
    }

    #[test]
    fn shards_are_counted_on_every_holder_and_available_on_registered_ones_in_sync() {
        let keys = Keys::of_service("a");
        let node = |version: &str| NodeRecord { version: version.to_owned(), ..NodeRecord::default() };
        let records = [
            record(keys.node("s-0"), 1, &node("0.1.0")),
            record(keys.table("t"), 2, &TableRecord { replicas: 2, ..TableRecord::default() }),
            record(keys.shard("t", 0), 3, &shard(&[("s-0", true), ("s-1", false)])),
            record(keys.shard("t", 1), 3, &shard(&[("s-1", true), ("s-0", false)])),
            record(keys.shard("t", 2), 3, &shard(&[])),
        ];
        let view = MetadataView::of_records(&keys, &records).expect("good records");
        assert_eq!((view.shards_on("s-0"), view.shards_on("s-1"), view.shards_on("s-2")), (2, 2, 0));
        assert_eq!(view.available_shards(), 1, "the second one's copy in sync is on a node that is gone");
        assert!(view.shards.iter().all(|shard| shard.wanted == 2));
        assert_eq!(view.shards.iter().filter(|shard| !shard.has_primary).count(), 1);
        assert_eq!(view.common_version().as_deref(), Some("0.1.0"));
    }

    #[test]
    fn keys_of_other_clusters_and_later_kinds_are_passed_over_and_broken_records_are_errors() {
        let keys = Keys::of_service("a");
        let broken = Record { key: keys.node("s-0").into_bytes(), create_revision: 1, value: vec![0xff] };
        let foreign = Record { key: b"/vectorsphere/b/nodes/x".to_vec(), ..broken.clone() };
        let later = Record { key: b"/vectorsphere/a/drain/x".to_vec(), ..broken.clone() };
        assert_eq!(
            MetadataView::of_records(&keys, &[foreign, later]).expect("passed over"),
            MetadataView::default()
        );
        let error = MetadataView::of_records(&keys, &[broken]).expect_err("broken");
        assert!(error.to_string().contains("nodes/s-0"));
    }
}
