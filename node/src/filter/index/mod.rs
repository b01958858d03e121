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

pub use selection::{Applied, FilterReport, Selection, UNINDEXED_MAX};

use self::field::{FieldBuilder, FieldIndex};
use super::KeyPath;
use super::walk::PathTree;

/// Most indexed fields of a table.
pub const FIELDS_MAX: usize = 64;
/// Rows, and bytes of their metadata, that a step reads: some milliseconds.
const STEP_ROWS: u32 = 4_096;
const STEP_BYTES: usize = 4 << 20;

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

/// Builds the indexes of one segment, step by step.
#[derive(Debug)]
pub struct FieldIndexesBuilder {
    paths: PathTree,
    /// By the numbers of the leaves in `paths`, until all rows are read.
    fields: Vec<(KeyPath, FieldKind, FieldBuilder)>,
    row: u32,
    finished: FieldIndexes,
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
        let mut paths = PathTree::default();
        let builder = |(leaf, (key, kind)): (usize, (&KeyPath, &FieldKind))| {
            paths.add(key, u16::try_from(leaf).expect("a table has few indexes"));
            (key.clone(), *kind, FieldBuilder::new(*kind))
        };
        let fields = fields.iter().enumerate().map(builder).collect();
        FieldIndexesBuilder { paths, fields, row: 0, finished: FieldIndexes::none(rows) }
    }

    /// Reads the next rows, or finishes the next field when all are read; `metadata` gives a row's JSON text. The indexes,
    /// when this was the last step.
    pub fn step<'m>(&mut self, metadata: impl Fn(u32) -> &'m [u8]) -> Option<FieldIndexes> {
        let rows = self.finished.rows;
        if self.row < rows {
            self.read(metadata);
        } else if let Some((key, kind, builder)) = self.fields.pop() {
            self.finished.fields.insert(key, (kind, Arc::new(builder.finish(rows))));
        }
        let is_done = self.row == rows && self.fields.is_empty();
        is_done.then(|| std::mem::replace(&mut self.finished, FieldIndexes::none(rows)))
    }

    fn read<'m>(&mut self, metadata: impl Fn(u32) -> &'m [u8]) {
        let FieldIndexesBuilder { paths, fields, row, finished } = self;
        let end = row.saturating_add(STEP_ROWS).min(finished.rows);
        let mut bytes = 0;
        while *row < end && bytes < STEP_BYTES {
            let text = metadata(*row);
            bytes += text.len();
            paths.walk(text, &mut |leaf, value| fields[usize::from(leaf)].2.add(value, *row));
            *row += 1;
        }
    }
}

impl FieldIndexes {
    /// The indexes of a segment with so many rows; `metadata` gives a row's JSON text.
    pub fn build<'m>(fields: &IndexedFields, rows: u32, metadata: impl Fn(u32) -> &'m [u8]) -> FieldIndexes {
        let mut builder = FieldIndexesBuilder::new(fields, rows);
        loop {
            if let Some(finished) = builder.step(&metadata) {
                return finished;
            }
        }
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

    /// Takes over indexes of the same segment, in place of those that it has of the same fields.
    pub fn take_over(&mut self, other: FieldIndexes) {
        assert_eq!(self.rows, other.rows, "indexes of the same segment");
        self.fields.extend(other.fields);
    }

    /// Those of some fields, whatever their type; `None` when there are no others.
    pub fn only(&self, fields: &IndexedFields) -> Option<FieldIndexes> {
        let mut only = self.clone();
        only.fields.retain(|key, _| fields.contains_key(key));
        (only.fields.len() < self.fields.len()).then_some(only)
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
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
