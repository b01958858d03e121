//! Tables: their schema and life.

mod index_kind;

use vectorsphere_proto::meta;

pub use vectorsphere_index::Metric;

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

/// What a user asks for when creating a table; defaults are filled in, ranges are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Unique name.
    pub name: TableName,
    /// Values of each vector, `1..=65_536`.
    pub dimension: u32,
    /// How vectors are compared.
    pub metric: Metric,
    /// How they are searched.
    pub index: IndexKind,
    /// `1..=1_024`.
    pub shards: u32,
    /// Copies of each shard, `1..=7`.
    pub replicas: u32,
    /// In-sync copies that a write needs, `1..=replicas`.
    pub min_isr: u32,
    /// Fields of metadata that every segment has an index of, at most [`FIELDS_MAX`].
    pub metadata_indexes: IndexedFields,
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
        if record.shard_hash != 1 || record.vector_type != "f32" {
            let (hash, kind) = (record.shard_hash, &record.vector_type);
            return Err(format!("shard hash {hash} or vector type {kind:?} is not known"));
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
            vector_type: "f32".to_owned(),
            metadata_indexes: self.metadata_indexes.iter().map(index_record).collect(),
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
        let schema = TableSchema {
            name: TableName::parse(&record.name).map_err(|error| error.to_string())?,
            dimension: record.dimension,
            metric,
            index: index.with_options(options.unwrap_or_default()),
            shards: record.shards,
            replicas: record.replicas,
            min_isr: record.min_isr,
            metadata_indexes: record.metadata_indexes.iter().map(indexed_field).collect::<Result<_, _>>()?,
        };
        schema.check()?;
        Ok(schema)
    }

    /// The metadata indexes as users write them: field, type.
    pub fn metadata_index_words(&self) -> impl Iterator<Item = (String, String)> {
        let words = |(field, kind): (&KeyPath, &FieldKind)| (field.to_string(), kind.as_str().to_owned());
        self.metadata_indexes.iter().map(words)
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
        match self.metadata_indexes.len() {
            0..=FIELDS_MAX => Ok(()),
            count => Err(format!("table has {count} metadata indexes, at most {FIELDS_MAX} are allowed")),
        }
    }
}

/// The stored form of an indexed field.
pub fn index_record((field, kind): (&KeyPath, &FieldKind)) -> meta::MetadataIndex {
    meta::MetadataIndex { field: field.to_string(), r#type: kind.as_str().to_owned() }
}

fn indexed_field(record: &meta::MetadataIndex) -> Result<(KeyPath, FieldKind), String> {
    let kind =
        FieldKind::parse(&record.r#type).ok_or_else(|| format!("index of type {:?}", record.r#type))?;
    Ok((KeyPath::parse(&record.field)?, kind))
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
                index: IndexKind::Hnsw(IndexOptions { m: Some(24), ..IndexOptions::default() }),
                shards: 3,
                replicas: 1,
                min_isr: 1,
                metadata_indexes: [(KeyPath::parse("a[].\"b.c\"").expect("a path"), FieldKind::DateTime)]
                    .into(),
            },
            state: TableState::Active,
        };
        assert_eq!(Table::from_record(&table.to_record()), Ok(table.clone()));
        let newer = meta::TableRecord { shard_hash: 2, ..table.to_record() };
        assert!(Table::from_record(&newer).is_err());
        let mut unknown = table.to_record();
        unknown.metadata_indexes[0].r#type = "text".to_owned();
        assert!(Table::from_record(&unknown).expect_err("unknown").contains("text"));
    }
}
