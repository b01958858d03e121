//! What a search returns of the metadata of its hits.

use serde_json::{Map, Value};

use crate::document::Metadata;
use crate::filter::{KeyPath, Step};

/// Most paths of a choice.
pub const METADATA_FIELDS_MAX: usize = 64;

/// What of a document's metadata is returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MetadataChoice {
    /// Nothing.
    #[default]
    Nothing,
    /// All of it, as it is stored.
    All,
    /// What these paths reach, with the objects and arrays around it; `1..=64`. `[]` goes through an array's elements; one
    /// in which nothing is reached is left out, as is an object.
    Fields(Vec<KeyPath>),
}

impl MetadataChoice {
    /// True when something is returned, be it an empty object.
    pub fn is_some(&self) -> bool {
        *self != MetadataChoice::Nothing
    }

    /// The chosen part of metadata.
    pub fn of(&self, metadata: impl FnOnce() -> Metadata) -> Option<Metadata> {
        match self {
            MetadataChoice::Nothing => None,
            MetadataChoice::All => Some(metadata()),
            MetadataChoice::Fields(paths) => {
                let paths: Vec<&[Step]> = paths.iter().map(KeyPath::steps).collect();
                Some(Metadata::from_object(&fields(metadata().to_object(), &paths)))
            }
        }
    }
}

/// What paths reach in an object.
fn fields(object: Map<String, Value>, paths: &[&[Step]]) -> Map<String, Value> {
    let chosen = object.into_iter().filter_map(|(name, value)| {
        let inside = behind(paths, |step| matches!(step, Step::Field(field) if **field == *name));
        Some((name, chosen(value, &inside)?))
    });
    chosen.collect()
}

/// What paths reach in a value; `None`: nothing.
fn chosen(value: Value, paths: &[&[Step]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value);
    }
    match value {
        Value::Object(object) if !paths.is_empty() => {
            Some(fields(object, paths)).filter(|object| !object.is_empty()).map(Value::Object)
        }
        Value::Array(items) => {
            let inside = behind(paths, |step| *step == Step::Each);
            let items: Vec<Value> = items.into_iter().filter_map(|item| chosen(item, &inside)).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        _ => None,
    }
}

/// The rest of the paths that go on with a step.
fn behind<'p>(paths: &[&'p [Step]], goes_on: impl Fn(&Step) -> bool) -> Vec<&'p [Step]> {
    let rest = paths.iter().filter_map(|path| path.split_first()).filter(|(step, _)| goes_on(step));
    rest.map(|(_, rest)| rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_with_what_is_around_them_and_nothing_else() {
        let stored = r#"{"a":{"b":1,"c":[1,2]},"a.b":{"x":null},"d":[],"items":[{"n":1,"s":"x"},{"s":"y"},7,[{"n":2}]],"z":18446744073709551615}"#;
        let stored = Metadata::from_stored(stored.into()).expect("an object");
        let chosen = |paths: &[&str]| {
            let paths = paths.iter().map(|path| KeyPath::parse(path).expect("a path")).collect();
            MetadataChoice::Fields(paths).of(|| stored.clone()).expect("some").as_json().to_owned()
        };
        for (paths, expected) in [
            (&["z"][..], r#"{"z":18446744073709551615}"#),
            (&["a.b"], r#"{"a":{"b":1}}"#),
            (&["a.b", "a.c"], r#"{"a":{"b":1,"c":[1,2]}}"#),
            (&["a", "a.b"], r#"{"a":{"b":1,"c":[1,2]}}"#),
            (&["a.c[]"], r#"{"a":{"c":[1,2]}}"#),
            (&["\"a.b\""], r#"{"a.b":{"x":null}}"#),
            (&["\"a.b\".x"], r#"{"a.b":{"x":null}}"#),
            (&["d"], r#"{"d":[]}"#),
            (&["d[]", "a[]", "a.b.c", "nothing"], "{}"),
            (&["items[].n"], r#"{"items":[{"n":1}]}"#),
            (&["items[][].n", "items[].n"], r#"{"items":[{"n":1},[{"n":2}]]}"#),
            (&["items.n"], "{}"),
        ] {
            assert_eq!(chosen(paths), expected, "{paths:?}");
        }
        assert_eq!(MetadataChoice::Nothing.of(|| stored.clone()), None);
        assert_eq!(MetadataChoice::All.of(|| stored.clone()), Some(stored));
    }
}
