//! Names and numbers that cross modules, each a type of its own, so that two of them cannot be swapped.

use std::fmt;

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// Why a name or id is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The table name does not follow the pattern.
    #[error("table name {0:?} must match [a-z0-9][a-z0-9_-]{{0,62}}")]
    TableName(String),
    /// The document id has no byte or too many.
    #[error("document id of {0} bytes must have 1 to {max} bytes", max = DocumentId::BYTES_MAX)]
    DocumentIdLength(usize),
    /// The document id contains NUL.
    #[error("document id must not contain the character NUL")]
    DocumentIdNul,
    /// The node id does not follow the pattern.
    #[error("node id {0:?} must have 1 to 253 characters of [A-Za-z0-9._-] and start with a letter or digit")]
    NodeId(String),
}

/// A table's name, `[a-z0-9][a-z0-9_-]{0,62}`. Never used as a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(String);

impl TableName {
    /// Checks the pattern.
    pub fn parse(name: &str) -> Result<TableName, IdError> {
        let bytes = name.as_bytes();
        let head = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let tail = |b: u8| head(b) || b == b'_' || b == b'-';
        let valid = (1..=63).contains(&bytes.len()) && head(bytes[0]) && bytes[1..].iter().all(|b| tail(*b));
        if valid { Ok(TableName(name.to_owned())) } else { Err(IdError::TableName(name.to_owned())) }
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A table's identity: a random UUID, never reused, in keys and directory names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(Uuid);

impl TableId {
    /// A new random identity.
    pub fn random() -> TableId {
        TableId(Uuid::new_v4())
    }

    /// The 16 bytes of the UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Parses the text form; `None` when it is not a UUID.
    pub fn parse(text: &str) -> Option<TableId> {
        Uuid::try_parse(text).ok().map(TableId)
    }
}

/// A document's id: 1 to 512 bytes of UTF-8 without NUL, stored as given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(Box<str>);

impl DocumentId {
    /// The longest id, in bytes.
    pub const BYTES_MAX: usize = 512;

    /// Checks length and content.
    pub fn parse(id: &str) -> Result<DocumentId, IdError> {
        if id.is_empty() || id.len() > DocumentId::BYTES_MAX {
            return Err(IdError::DocumentIdLength(id.len()));
        }
        if id.contains('\0') {
            return Err(IdError::DocumentIdNul);
        }
        Ok(DocumentId(id.into()))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shard that holds this id: xxh3-64 (seed 0) of its bytes, multiplied onto `shards` equal ranges.
    ///
    /// This is hash number 1 of the table record.
    pub fn shard(&self, shards: u32) -> ShardIndex {
        let hash = u128::from(xxh3_64(self.0.as_bytes()));
        ShardIndex(((hash * u128::from(shards)) >> 64) as u32)
    }
}

/// A node's name, unique in its cluster; in Kubernetes the pod's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(String);

impl NodeId {
    /// Checks length and characters.
    pub fn parse(id: &str) -> Result<NodeId, IdError> {
        let valid = (1..=253).contains(&id.len())
            && id.as_bytes()[0].is_ascii_alphanumeric()
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if valid { Ok(NodeId(id.to_owned())) } else { Err(IdError::NodeId(id.to_owned())) }
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Number of a shard in its table, `0..shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(pub u32);

/// One shard of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// The table.
    pub table: TableId,
    /// The shard in it.
    pub index: ShardIndex,
}

/// Identity of one copy of a shard: 16 random bytes, new for each formatted directory, so that a wiped volume is
/// never taken for the copy that it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub [u8; 16]);

impl ReplicaId {
    /// A new random identity.
    pub fn random() -> ReplicaId {
        ReplicaId(*Uuid::new_v4().as_bytes())
    }

    /// From a record's bytes; `None` unless there are 16 of them.
    pub fn from_bytes(bytes: &[u8]) -> Option<ReplicaId> {
        bytes.try_into().ok().map(ReplicaId)
    }
}

/// Number of a reign: of a shard's primary (+1 at each change of primary or of its session), or of the Master
/// (create-revision of its election key). 0: none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Position in one shard's log; dense, [`Lsn::ZERO`] precedes the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first record.
    pub const ZERO: Lsn = Lsn(0);
    /// After every record: the deletion position of a live row.
    pub const MAX: Lsn = Lsn(u64::MAX);
    /// No log reaches this position: a file that names a later one is damaged. Counting on from here does not overflow.
    pub const LIMIT: Lsn = Lsn(1 << 62);

    /// The position after this one.
    pub fn next(self) -> Lsn {
        Lsn(self.0.checked_add(1).expect("a u64 log position does not run out"))
    }
}

/// Revision of the metadata store; grows with each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// A node's session: the create-revision of its lease-bound key, new at each process start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub i64);

/// Idempotency key of one client request, 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpId(pub [u8; 16]);

impl OpId {
    /// A new random key, for a caller that gave none.
    pub fn random() -> OpId {
        OpId(*Uuid::new_v4().as_bytes())
    }

    /// From a client's UUID text; `None` when it is not a UUID.
    pub fn parse(text: &str) -> Option<OpId> {
        Uuid::try_parse(text).ok().map(|uuid| OpId(*uuid.as_bytes()))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.table, self.index)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).simple().fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_follow_the_pattern() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "my_vectors", "a-b", longest.as_str()] {
            assert!(TableName::parse(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in ["", "_a", "-a", "A", "a.b", "../x", "a b", "ä", "a\0", too_long.as_str()] {
            assert!(TableName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn document_ids_are_kept_as_given() {
        assert_eq!(DocumentId::parse("  Ä/..\n").expect("valid").as_str(), "  Ä/..\n");
        assert_eq!(DocumentId::parse(""), Err(IdError::DocumentIdLength(0)));
        assert_eq!(DocumentId::parse(&"x".repeat(513)), Err(IdError::DocumentIdLength(513)));
        assert_eq!(DocumentId::parse("a\0b"), Err(IdError::DocumentIdNul));
    }

    #[test]
    fn the_shard_of_an_id_never_changes() {
        // Values of hash number 1, from another implementation: a change would lose documents of existing tables.
        let shard_of = |id: &str, shards| DocumentId::parse(id).expect("valid").shard(shards).0;
        let shards: Vec<u32> =
            ["doc1", "postgresql", "a", "ä", "1", "2"].iter().map(|id| shard_of(id, 1024)).collect();
        assert_eq!(shards, [453, 421, 923, 336, 407, 1006]);
        assert_eq!(shard_of("anything", 1), 0);
    }

    #[test]
    fn documents_spread_evenly() {
        let mut counts = [0u32; 8];
        for i in 0..80_000 {
            counts[DocumentId::parse(&format!("doc{i}")).expect("valid").shard(8).0 as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
