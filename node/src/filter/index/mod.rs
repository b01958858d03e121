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

pub use row_set::RowMask;
pub use selection::{Applied, FilterReport, Selection};

use self::field::{FieldBuilder, FieldIndex};
use super::KeyPath;
use super::walk::PathTree;

/// Rows between two looks at whether the indexes are still wanted.
const ROWS_A_STEP: u32 = 4_096;

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
#[derive(Debug)]
pub struct FieldIndexes {
    rows: u32,
    fields: BTreeMap<KeyPath, (FieldKind, FieldIndex)>,
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

impl FieldIndexes {
    /// The indexes of a segment with so many rows; `metadata` gives a row's JSON text. `None` when `is_wanted` says so on
    /// the way.
    pub fn build<'m>(
        fields: &IndexedFields,
        rows: u32,
        metadata: impl Fn(u32) -> &'m [u8],
        is_wanted: impl Fn() -> bool,
    ) -> Option<FieldIndexes> {
        let mut paths = PathTree::default();
        let mut builders: Vec<FieldBuilder> = Vec::with_capacity(fields.len());
        for (key, kind) in fields {
            let leaf = u16::try_from(builders.len()).expect("a table has few indexes");
            paths.add(key, leaf);
            builders.push(FieldBuilder::new(*kind));
        }
        for row in 0..rows {
            if row % ROWS_A_STEP == 0 && !is_wanted() {
                return None;
            }
            paths.walk(metadata(row), &mut |leaf, value| builders[usize::from(leaf)].add(value, row));
        }
        let finished = fields.iter().zip(builders);
        let fields = finished.map(|((key, kind), builder)| (key.clone(), (*kind, builder.finish(rows))));
        Some(FieldIndexes { rows, fields: fields.collect() })
    }

    /// Rows of the segment.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// True when there is an index for each of these fields, and no other.
    pub fn are_for(&self, fields: &IndexedFields) -> bool {
        self.fields.len() == fields.len()
            && fields.iter().all(|(key, kind)| self.fields.get(key).is_some_and(|(own, _)| own == kind))
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        self.fields.values().map(|(_, field)| field.bytes()).sum()
    }

    fn field(&self, key: &KeyPath) -> Option<&FieldIndex> {
        self.fields.get(key).map(|(_, field)| field)
    }
}

#[cfg(test)]
mod tests;
