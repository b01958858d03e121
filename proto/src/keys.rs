//! The layout of the metadata store: one prefix per cluster, one builder per kind of record.
//!
//! | key under the prefix | record | lease |
//! |---|---|---|
//! | `meta` | [`ClusterMeta`](crate::meta::ClusterMeta) | no |
//! | `master/<lease, 16 hex digits>` | [`MasterCandidate`](crate::meta::MasterCandidate) | candidate's |
//! | `nodes/<node_id>` | [`NodeRecord`](crate::meta::NodeRecord) | node's |
//! | `table/<table id>` | [`TableRecord`](crate::meta::TableRecord) | no |
//! | `alias/<name>` | [`AliasRecord`](crate::meta::AliasRecord) | no |
//! | `shard/<table id>/<shard, 8 digits>` | [`ShardRecord`](crate::meta::ShardRecord) | no |
//! | `drain/<node_id>` | [`DrainRecord`](crate::meta::DrainRecord) | no |
//! | `disk/<node_id>` | [`DiskRecord`](crate::meta::DiskRecord) | no |
//! | `restored` | nothing: its revision says when the store was found to be restored | no |

/// The keys of one cluster. All of them start with [`Keys::prefix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// The default prefix `/vectorsphere/<service_name>/`.
    pub fn of_service(service_name: &str) -> Keys {
        Keys::with_prefix(&format!("/vectorsphere/{service_name}"))
    }

    /// A prefix of the user's choice; leading and trailing slashes are supplied when missing.
    pub fn with_prefix(prefix: &str) -> Keys {
        Keys { prefix: format!("/{}/", prefix.trim_matches('/')) }
    }

    /// The prefix with its trailing slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The cluster's identity.
    pub fn meta(&self) -> String {
        format!("{}meta", self.prefix)
    }

    /// That the store was restored: what was changed last before this key was may be out of date.
    pub fn restored(&self) -> String {
        format!("{}restored", self.prefix)
    }

    /// All candidates for mastership.
    pub fn masters(&self) -> String {
        format!("{}master/", self.prefix)
    }

    /// The candidate that holds `lease`.
    pub fn master(&self, lease: i64) -> String {
        format!("{}master/{lease:016x}", self.prefix)
    }

    /// All registered nodes.
    pub fn nodes(&self) -> String {
        format!("{}nodes/", self.prefix)
    }

    /// One registered node.
    pub fn node(&self, node_id: &str) -> String {
        format!("{}nodes/{node_id}", self.prefix)
    }

    /// All tables.
    pub fn tables(&self) -> String {
        format!("{}table/", self.prefix)
    }

    /// One table.
    pub fn table(&self, table_id: &str) -> String {
        format!("{}table/{table_id}", self.prefix)
    }

    /// One table name.
    pub fn alias(&self, name: &str) -> String {
        format!("{}alias/{name}", self.prefix)
    }

    /// All shards of all tables.
    pub fn shards(&self) -> String {
        format!("{}shard/", self.prefix)
    }

    /// All shards of one table.
    pub fn shards_of(&self, table_id: &str) -> String {
        format!("{}shard/{table_id}/", self.prefix)
    }

    /// One shard.
    pub fn shard(&self, table_id: &str, shard: u32) -> String {
        format!("{}shard/{table_id}/{shard:08}", self.prefix)
    }

    /// All nodes that are to be emptied.
    pub fn drains(&self) -> String {
        format!("{}drain/", self.prefix)
    }

    /// A node that is to be emptied.
    pub fn drain(&self, node_id: &str) -> String {
        format!("{}drain/{node_id}", self.prefix)
    }

    /// A node's data directory.
    pub fn disk(&self, node_id: &str) -> String {
        format!("{}disk/{node_id}", self.prefix)
    }

    /// What a key names, if it is one of this cluster's.
    pub fn parse<'k>(&self, key: &'k str) -> Option<Key<'k>> {
        let rest = key.strip_prefix(self.prefix.as_str())?;
        let (kind, name) = match rest.split_once('/') {
            Some(parts) => parts,
            None => {
                return match rest {
                    "meta" => Some(Key::Meta),
                    "restored" => Some(Key::Restored),
                    _ => None,
                };
            }
        };
        match kind {
            "master" => i64::from_str_radix(name, 16).ok().map(|lease| Key::Master { lease }),
            "nodes" => Some(Key::Node { node_id: name }),
            "table" => Some(Key::Table { table_id: name }),
            "alias" => Some(Key::Alias { name }),
            "drain" => Some(Key::Drain { node_id: name }),
            "disk" => Some(Key::Disk { node_id: name }),
            "shard" => {
                let (table_id, shard) = name.split_once('/')?;
                Some(Key::Shard { table_id, shard: shard.parse().ok()? })
            }
            _ => None,
        }
    }
}

/// A parsed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the rows of the table above")]
pub enum Key<'k> {
    Meta,
    Restored,
    Master { lease: i64 },
    Node { node_id: &'k str },
    Table { table_id: &'k str },
    Alias { name: &'k str },
    Shard { table_id: &'k str, shard: u32 },
    Drain { node_id: &'k str },
    Disk { node_id: &'k str },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_parses_back() {
        let keys = Keys::of_service("team.search");
        assert_eq!(keys.prefix(), "/vectorsphere/team.search/");
        assert_eq!(keys.parse(&keys.meta()), Some(Key::Meta));
        assert_eq!(keys.parse(&keys.master(0x7f)), Some(Key::Master { lease: 0x7f }));
        assert_eq!(keys.parse(&keys.node("a-0")), Some(Key::Node { node_id: "a-0" }));
        assert_eq!(keys.parse(&keys.table("t")), Some(Key::Table { table_id: "t" }));
        assert_eq!(keys.parse(&keys.alias("docs")), Some(Key::Alias { name: "docs" }));
        assert_eq!(keys.parse(&keys.shard("t", 7)), Some(Key::Shard { table_id: "t", shard: 7 }));
        assert_eq!(keys.parse(&keys.drain("a-0")), Some(Key::Drain { node_id: "a-0" }));
        assert_eq!(keys.parse(&keys.disk("a-0")), Some(Key::Disk { node_id: "a-0" }));
    }

    #[test]
    fn a_key_of_another_cluster_is_not_ours() {
        let keys = Keys::with_prefix("a/b");
        assert_eq!(keys.prefix(), "/a/b/");
        assert_eq!(keys.parse("/a/c/meta"), None);
        assert_eq!(keys.parse("/a/b/unknown/x"), None);
    }
}
