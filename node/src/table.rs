//! Tables: their schema and life.

mod index_kind;

use std::collections::BTreeMap;

use vectorsphere_proto::meta;

pub use vectorsphere_index::{Metric, StorageType};

pub use self::index_kind::{IndexKind, IndexOptions};

use crate::filter::KeyPath;
use crate::filter::index::{FIELDS_MAX, FieldKind, IndexedFields};
use crate::ids::{TableId, TableName};

/// Largest dimension of a vector.
pub const DIMENSION_MAX: u32 = 65_536;
/// Most shards of a table.
pub const SHARDS_MAX: u32 = 1_024;
/// Most copies of a shard.
pub const REPLICAS_MAX: u32 = 7;

/// Bytes of a document in memory beside its vector, id and metadata: norm, positions, ends of texts, and where it is.
const ENTRY_BYTES: u64 = 8 + 16 + 8 + 14;
/// Bytes in memory of a vector that is in a file: its digest, and its share of a page's checksum.
const ON_DISK_BYTES: u64 = 16 + 4;

/// Where the vectors of a table are kept, beside their files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowStorage {
    /// All in memory.
    #[default]
    Memory,
    /// In files but for the newest; what was read of late is in a cache.
    Disk,
}

impl RowStorage {
    /// Every way, for messages that say what is allowed.
    pub const ALL: [RowStorage; 2] = [RowStorage::Memory, RowStorage::Disk];

    /// The word that users write.
    pub const fn as_str(self) -> &'static str {
        match self {
            RowStorage::Memory => "memory",
            RowStorage::Disk => "disk",
        }
    }

    /// The way of a word; empty means the default.
    pub fn parse(word: &str) -> Option<RowStorage> {
        match word {
            "" => Some(RowStorage::Memory),
            word => RowStorage::ALL.into_iter().find(|rows| rows.as_str() == word),
        }
    }
}

/// What a user asks for when creating a table; defaults are filled in, ranges are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Unique name.
    pub name: TableName,
    /// Values of each vector, `1..=65_536`.
    pub dimension: u32,
    /// How vectors are compared.
    pub metric: Metric,
    /// How their values are kept.
    pub storage_type: StorageType,
    /// Where they are kept.
    pub rows: RowStorage,
    /// How they are searched.
    pub index: IndexKind,
    /// `1..=1_024`.
    pub shards: u32,
    /// Copies of each shard, `1..=7`.
    pub replicas: u32,
    /// In-sync copies that a write needs, `1..=replicas`.
    pub min_isr: u32,
    /// Where each document's metadata says whose it is, without `[]`; a keyword index of it is one of those below.
    pub tenant_key: Option<KeyPath>,
    /// Fields of metadata that every segment has an index of, at most [`FIELDS_MAX`].
    pub metadata_indexes: IndexedFields,
    /// Indexes that a newer version wrote into the record, type by field: not built here, kept for those who know them. They
    /// count for [`FIELDS_MAX`], and their fields are none of the above.
    pub unknown_indexes: BTreeMap<String, String>,
}

/// A table of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Identity.
    pub id: TableId,
    /// Schema.
    pub schema: TableSchema,
    /// Where it stands in its life.
    pub state: TableState,
}

/// Where a table stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableState {
    /// Shards are being made.
    Creating,
    /// Ready.
    Active,
    /// Shards are being removed.
    Deleting,
}

impl TableState {
    /// The word that users read.
    pub const fn as_str(self) -> &'static str {
        match self {
            TableState::Creating => "creating",
            TableState::Active => "active",
            TableState::Deleting => "deleting",
        }
    }
}

/// The word of a metric, as in requests and answers.
pub const fn metric_as_str(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "cosine",
        Metric::L2 => "l2",
        Metric::Dot => "dot",
    }
}

/// The metric of a word; empty means cosine.
pub fn parse_metric(word: &str) -> Option<Metric> {
    match word {
        "" | "cosine" => Some(Metric::Cosine),
        "l2" => Some(Metric::L2),
        "dot" => Some(Metric::Dot),
        _ => None,
    }
}

impl Table {
    /// The stored form.
    pub fn to_record(&self) -> meta::TableRecord {
        let state = match self.state {
            TableState::Creating => meta::TableState::Creating,
            TableState::Active => meta::TableState::Active,
            TableState::Deleting => meta::TableState::Deleting,
        };
        meta::TableRecord { table_id: self.id.to_string(), state: state.into(), ..self.schema.to_record() }
    }

    /// From the stored form; the error names the field that this version cannot read.
    pub fn from_record(record: &meta::TableRecord) -> Result<Table, String> {
        if record.shard_hash != 1 {
            return Err(format!("shard hash {} is not known", record.shard_hash));
        }
        let state = match record.state() {
            meta::TableState::Creating => TableState::Creating,
            meta::TableState::Active => TableState::Active,
            meta::TableState::Deleting => TableState::Deleting,
            meta::TableState::Unspecified => return Err("state is missing".to_owned()),
        };
        let id = TableId::parse(&record.table_id).ok_or_else(|| format!("id {:?}", record.table_id))?;
        Ok(Table { id, schema: TableSchema::from_record(record)?, state })
    }
}

impl TableSchema {
    /// A record without id and state: a request to the Master.
    pub fn to_record(&self) -> meta::TableRecord {
        let metric = match self.metric {
            Metric::Cosine => meta::Metric::Cosine,
            Metric::L2 => meta::Metric::L2,
            Metric::Dot => meta::Metric::Dot,
        };
        meta::TableRecord {
            name: self.name.to_string(),
            dimension: self.dimension,
            metric: metric.into(),
            index_type: self.index.to_string(),
            shards: self.shards,
            replicas: self.replicas,
            min_isr: self.min_isr,
            shard_hash: 1,
            vector_type: self.storage_type.as_str().to_owned(),
            rows: self.rows.as_str().to_owned(),
            metadata_indexes: self.metadata_index_words().map(index_record).collect(),
            tenant_key: self.tenant_key.as_ref().map(KeyPath::to_string).unwrap_or_default(),
            index_options: self.index.options().and_then(IndexOptions::to_record),
            ..meta::TableRecord::default()
        }
    }

    /// The schema in a record, whose id and state may be empty: a request to the Master.
    pub fn from_record(record: &meta::TableRecord) -> Result<TableSchema, String> {
        let metric = match record.metric() {
            meta::Metric::Cosine => Metric::Cosine,
            meta::Metric::L2 => Metric::L2,
            meta::Metric::Dot => Metric::Dot,
            meta::Metric::Unspecified => return Err("metric is missing".to_owned()),
        };
        let index = IndexKind::parse(&record.index_type)
            .ok_or_else(|| format!("index type {:?}", record.index_type))?;
        let options = record.index_options.as_ref().map(IndexOptions::from_record).transpose()?;
        let mut schema = TableSchema {
            name: TableName::parse(&record.name).map_err(|error| error.to_string())?,
            dimension: record.dimension,
            metric,
            storage_type: StorageType::parse(&record.vector_type)
                .ok_or_else(|| format!("vector type {:?} is not known", record.vector_type))?,
            rows: RowStorage::parse(&record.rows).ok_or_else(|| format!("rows {:?}", record.rows))?,
            index: index.with_options(options.unwrap_or_default()),
            shards: record.shards,
            replicas: record.replicas,
            min_isr: record.min_isr,
            tenant_key: match record.tenant_key.as_str() {
                "" => None,
                key => Some(KeyPath::parse(key).map_err(|_| format!("tenant key {key:?} is no path"))?),
            },
            metadata_indexes: IndexedFields::new(),
            unknown_indexes: BTreeMap::new(),
        };
        for meta::MetadataIndex { field, r#type } in &record.metadata_indexes {
            match (KeyPath::parse(field), FieldKind::parse(r#type)) {
                (Ok(key), Some(kind)) => drop(schema.metadata_indexes.insert(key, kind)),
                _ => drop(schema.unknown_indexes.insert(field.clone(), r#type.clone())),
            }
        }
        schema.check()?;
        Ok(schema)
    }

    /// The metadata indexes as users write them, unknown ones too: field, type.
    pub fn metadata_index_words(&self) -> impl Iterator<Item = (String, String)> {
        let words = |(field, kind): (&KeyPath, &FieldKind)| (field.to_string(), kind.as_str().to_owned());
        let unknown = self.unknown_indexes.iter().map(|(field, kind)| (field.clone(), kind.clone()));
        self.metadata_indexes.iter().map(words).chain(unknown)
    }

    /// Bytes of memory that so many documents take in one copy of the table, about, beyond those of their ids and metadata.
    pub fn memory_bytes(&self, documents: u64) -> u64 {
        let vector = match self.rows {
            RowStorage::Memory => self.storage_type.row_bytes(self.dimension as usize) as u64,
            RowStorage::Disk => ON_DISK_BYTES,
        };
        let row = vector + ENTRY_BYTES;
        let index = self.index.bytes(documents, self.dimension, self.metric);
        documents.saturating_mul(row).saturating_add(index)
    }

    /// Checks every range; the error says which field, its value, and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        let within = |field: &str, value: u32, max: u32| {
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err(format!("{field} is {value}, must be 1 to {max}"))
            }
        };
        within("dimension", self.dimension, DIMENSION_MAX)?;
        within("shards", self.shards, SHARDS_MAX)?;
        within("replicas", self.replicas, REPLICAS_MAX)?;
        within("min_isr", self.min_isr, self.replicas)?;
        match self.metadata_indexes.len() + self.unknown_indexes.len() {
            0..=FIELDS_MAX => Ok(()),
            count => Err(format!("table has {count} metadata indexes, at most {FIELDS_MAX} are allowed")),
        }
    }
}

fn index_record((field, r#type): (String, String)) -> meta::MetadataIndex {
    meta::MetadataIndex { field, r#type }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let table = Table {
            id: TableId::random(),
            schema: TableSchema {
                name: TableName::parse("docs").expect("valid"),
                dimension: 384,
                metric: Metric::L2,
                storage_type: StorageType::Bf16,
                rows: RowStorage::Disk,
                index: IndexKind::Hnsw(IndexOptions { m: Some(24), ..IndexOptions::default() }),
                shards: 3,
                replicas: 1,
                min_isr: 1,
                tenant_key: Some(KeyPath::parse("owner.name").expect("a path")),
                metadata_indexes: [(KeyPath::parse("a[].\"b.c\"").expect("a path"), FieldKind::DateTime)]
                    .into(),
                unknown_indexes: BTreeMap::new(),
            },
            state: TableState::Active,
        };
        assert_eq!(Table::from_record(&table.to_record()), Ok(table.clone()));
        let newer = meta::TableRecord { shard_hash: 2, ..table.to_record() };
        assert!(Table::from_record(&newer).is_err());
        let newer = meta::TableRecord { vector_type: "int8".to_owned(), ..table.to_record() };
        assert!(Table::from_record(&newer).expect_err("unknown").contains("int8"));
    }

    #[test]
    fn indexes_of_a_newer_version_survive() {
        let index = |field: &str, kind: &str| meta::MetadataIndex {
            field: field.to_owned(),
            r#type: kind.to_owned(),
        };
        let known = [index("a", "keyword")];
        let unknown = [index("body", "text"), index("x..y", "keyword")];
        let record = meta::TableRecord {
            name: "docs".to_owned(),
            dimension: 1,
            metric: meta::Metric::Cosine.into(),
            shards: 1,
            replicas: 1,
            min_isr: 1,
            metadata_indexes: [&known[..], &unknown[..]].concat(),
            ..meta::TableRecord::default()
        };
        let schema = TableSchema::from_record(&record).expect("readable");
        assert_eq!((schema.metadata_indexes.len(), schema.unknown_indexes.len()), (1, 2));
        assert_eq!(schema.to_record().metadata_indexes, record.metadata_indexes);
        let many = (0..FIELDS_MAX).map(|field| index(&format!("f{field}"), "text"));
        let full = meta::TableRecord { metadata_indexes: many.chain(known).collect(), ..record };
        assert!(TableSchema::from_record(&full).is_err(), "they count");
    }
}
