//! Indexes of metadata: for each indexed field of a segment, which rows have which values.
//!
//! Built in one pass over a segment whose rows do not change, deleted ones among them: visibility is for the reader to
//! check. An index of one type answers for values of that type, and knows which rows have others, so that a filter means
//! the same with it and without. What it cannot answer it narrows: see [`Selection`].

mod bounds;
mod field;
mod keywords;
mod ordered;
mod places;
mod row_set;
mod selection;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use selection::{Applied, FilterReport, Selection};

use self::field::{FieldBuilder, FieldIndex};
use super::KeyPath;
use super::walk::PathTree;

/// Most indexed fields of a table.
pub const FIELDS_MAX: usize = 64;

/// What an index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldKind {
    /// Texts, for `match`.
    Keyword,
    /// Booleans.
    Bool,
    /// Whole numbers of 64 bits with a sign, for `match` and `range`.
    Integer,
    /// Numbers that are doubles, for `match` and `range`.
    Float,
    /// Texts that are date-times, for `range`.
    DateTime,
    /// Places.
    Geo,
}

/// The fields that a table has indexes of.
pub type IndexedFields = BTreeMap<KeyPath, FieldKind>;

/// The indexes of one segment.
#[derive(Clone, Debug)]
pub struct FieldIndexes {
    rows: u32,
    fields: BTreeMap<KeyPath, (FieldKind, Arc<FieldIndex>)>,
}

/// Builds the indexes of one segment, some rows at a time.
#[derive(Debug)]
pub struct FieldIndexesBuilder {
    paths: PathTree,
    fields: Vec<(KeyPath, FieldKind, FieldBuilder)>,
    row: u32,
    rows: u32,
}

impl FieldKind {
    /// Every kind, for messages that say what is allowed.
    pub const ALL: [FieldKind; 6] = [
        FieldKind::Keyword,
        FieldKind::Bool,
        FieldKind::Integer,
        FieldKind::Float,
        FieldKind::DateTime,
        FieldKind::Geo,
    ];

    /// The word that users write.
    pub const fn as_str(self) -> &'static str {
        match self {
            FieldKind::Keyword => "keyword",
            FieldKind::Bool => "bool",
            FieldKind::Integer => "integer",
            FieldKind::Float => "float",
            FieldKind::DateTime => "datetime",
            FieldKind::Geo => "geo",
        }
    }

    /// The kind of a word.
    pub fn parse(word: &str) -> Option<FieldKind> {
        FieldKind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl FieldIndexesBuilder {
    /// Begins the indexes of a segment with so many rows; at most [`FIELDS_MAX`] fields.
    pub fn new(fields: &IndexedFields, rows: u32) -> FieldIndexesBuilder {
        let mut builder =
            FieldIndexesBuilder { paths: PathTree::default(), fields: Vec::new(), row: 0, rows };
        for (key, kind) in fields {
            let leaf = u16::try_from(builder.fields.len()).expect("a table has few indexes");
            builder.paths.add(key, leaf);
            builder.fields.push((key.clone(), *kind, FieldBuilder::new(*kind)));
        }
        builder
    }

    /// Reads the next rows, up to `count`; `metadata` gives a row's JSON text. True when all are read.
    pub fn read<'m>(&mut self, count: u32, metadata: impl Fn(u32) -> &'m [u8]) -> bool {
        let FieldIndexesBuilder { paths, fields, row, rows } = self;
        let end = row.saturating_add(count).min(*rows);
        for row in *row..end {
            paths.walk(metadata(row), &mut |leaf, value| fields[usize::from(leaf)].2.add(value, row));
        }
        *row = end;
        end == *rows
    }

    /// The indexes, when all rows are read.
    pub fn finish(self) -> FieldIndexes {
        assert_eq!(self.row, self.rows, "an index knows every row");
        let fields = self.fields.into_iter();
        let fields = fields.map(|(key, kind, builder)| (key, (kind, Arc::new(builder.finish(self.rows)))));
        FieldIndexes { rows: self.rows, fields: fields.collect() }
    }
}

impl FieldIndexes {
    /// The indexes of a segment with so many rows; `metadata` gives a row's JSON text.
    pub fn build<'m>(fields: &IndexedFields, rows: u32, metadata: impl Fn(u32) -> &'m [u8]) -> FieldIndexes {
        let mut builder = FieldIndexesBuilder::new(fields, rows);
        builder.read(rows, metadata);
        builder.finish()
    }

    /// No index at all, of a segment with so many rows.
    pub fn none(rows: u32) -> FieldIndexes {
        FieldIndexes { rows, fields: BTreeMap::new() }
    }

    /// Rows of the segment.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The fields of these that there is no index for.
    pub fn missing(&self, fields: &IndexedFields) -> IndexedFields {
        let is_missing = |(key, kind): &(&KeyPath, &FieldKind)| !self.has(key, **kind);
        fields.iter().filter(is_missing).map(|(key, kind)| (key.clone(), *kind)).collect()
    }

    /// Takes over indexes of the same segment, and drops those that are not for one of `fields`.
    pub fn take_over(&mut self, other: FieldIndexes, fields: &IndexedFields) {
        assert_eq!(self.rows, other.rows, "indexes of the same segment");
        self.fields.extend(other.fields);
        self.fields.retain(|key, (kind, _)| fields.get(key) == Some(kind));
    }

    /// True when every index is for one of these fields, and none is missing.
    pub fn are_for(&self, fields: &IndexedFields) -> bool {
        self.fields.len() == fields.len() && self.missing(fields).is_empty()
    }

    fn has(&self, key: &KeyPath, kind: FieldKind) -> bool {
        self.fields.get(key).is_some_and(|(own, _)| *own == kind)
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        self.fields.values().map(|(_, field)| field.bytes()).sum()
    }

    fn field(&self, key: &KeyPath) -> Option<&FieldIndex> {
        self.fields.get(key).map(|(_, field)| &**field)
    }
}

#[cfg(test)]
mod tests;
