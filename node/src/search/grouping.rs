//! Hits that share a value of their metadata count as a group, of which only the best few are returned.

use std::collections::HashMap;

use crate::filter::{KeyPath, first_scalar};

/// Most hits of one group.
pub const GROUP_LIMIT_MAX: u32 = 1_000;

/// Limits the hits of each group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupBy {
    /// Where the value stands that the documents of a group have in common. The first text, number or boolean that it
    /// reaches counts; a document in which it reaches none belongs to no group and is not limited.
    pub key: KeyPath,
    /// Hits of each group, `1..=1_000`.
    pub limit: u32,
}

/// A group: its value as JSON text, in one form for equal values.
pub type Group = Box<str>;

impl GroupBy {
    /// The group of a document with this metadata, JSON text.
    pub fn group_of(&self, metadata: &[u8]) -> Option<Group> {
        first_scalar(&self.key, metadata).map(|scalar| scalar.to_json().into())
    }
}

/// What is left of ranked hits when only the first of each group count.
#[derive(Debug)]
pub struct GroupCounter<'g> {
    limit: u32,
    seen: HashMap<&'g str, u32>,
}

impl<'g> GroupCounter<'g> {
    /// Nothing was seen.
    pub fn new(limit: u32) -> GroupCounter<'g> {
        GroupCounter { limit, seen: HashMap::new() }
    }

    /// Takes the next best hit; false when its group is full.
    pub fn take(&mut self, group: Option<&'g str>) -> bool {
        let Some(group) = group else { return true };
        let seen = self.seen.entry(group).or_default();
        *seen += 1;
        *seen <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_scalar_names_the_group_and_equal_values_are_one() {
        let by = |key: &str| GroupBy { key: KeyPath::parse(key).expect("a path"), limit: 1 };
        let group = |key: &str, json: &str| by(key).group_of(json.as_bytes()).map(String::from);
        for json in [r#"{"a": 1}"#, r#"{"a": 1.0}"#, r#"{"a": [null, {}, 1e0, 2]}"#] {
            assert_eq!(group("a", json).as_deref(), Some("1"), "{json}");
        }
        assert_eq!(group("a", r#"{"a": "\u0041\"b"}"#).as_deref(), Some(r#""A\"b""#));
        assert_eq!(group("a", r#"{"a": 0.5}"#).as_deref(), Some("0.5"));
        assert_eq!(group("a.b", r#"{"a": {"b": true}}"#).as_deref(), Some("true"));
        assert_eq!(group("a[].b", r#"{"a": [{}, {"b": "x"}]}"#).as_deref(), Some(r#""x""#));
        for json in ["{}", r#"{"a": null}"#, r#"{"a": {"b": 1}}"#, r#"{"a": []}"#] {
            assert_eq!(group("a", json), None, "{json}");
        }
    }

    #[test]
    fn a_group_has_as_many_hits_as_its_limit_and_what_has_none_is_not_limited() {
        let mut counter = GroupCounter::new(2);
        let taken = [Some("1"), None, Some("1"), Some("2"), Some("1"), None, Some("2"), Some("2")]
            .map(|group| counter.take(group));
        assert_eq!(taken, [true, true, true, true, false, true, true, false]);
    }
}
