//! Objects with known fields: each at most once, unknown ones are told with the nearest known name.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::violations::{nearest, quoted, step};
use super::{Reader, Segment};

/// An object that takes its fields one by one.
pub(super) trait Object<'de> {
    /// Every field that the object may have.
    const FIELDS: &'static [&'static str];

    /// Takes the value of `FIELDS[index]`.
    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error>;
}

/// Reads an object into `target`.
pub(super) struct ObjectSeed<'a, T> {
    pub(super) target: T,
    pub(super) reader: &'a Reader,
    pub(super) at: At,
}

/// An object's own place.
#[derive(Clone, Copy)]
pub(super) enum At {
    /// It is the body itself.
    Body,
    /// A document in a batch.
    Document(usize),
    /// A search in a batch.
    Query(usize),
    /// The value of a field of the body.
    Inside(&'static str),
    /// The value of a field of a search in a batch.
    InsideQuery(usize, &'static str),
    /// Somewhere inside the filter of a search: the reader knows where.
    Filter,
}

impl At {
    /// JSON pointer of a field of the object.
    fn field(self, name: &str, reader: &Reader) -> String {
        match self {
            At::Body => format!("/{name}"),
            At::Document(index) => format!("/documents/{index}/{name}"),
            At::Query(index) => format!("/queries/{index}/{name}"),
            At::Inside(field) => format!("/{field}/{name}"),
            At::InsideQuery(index, field) => format!("/queries/{index}/{field}/{name}"),
            At::Filter => format!("{}/{name}", reader.inside.borrow()),
        }
    }
}

/// Reads an object where null means that it is not there.
pub(super) struct OptionalSeed<'a, T>(pub(super) ObjectSeed<'a, T>);

impl<'de, T: Object<'de>> DeserializeSeed<'de> for OptionalSeed<'_, T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for OptionalSeed<'_, T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_none<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

impl<'de, T: Object<'de>> DeserializeSeed<'de> for ObjectSeed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for ObjectSeed<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<T, A::Error> {
        let mut seen = 0u32;
        while let Some(field) = map.next_key_seed(FieldSeed(T::FIELDS))? {
            match field {
                Field::Known(index) if seen & (1 << index) == 0 => {
                    seen |= 1 << index;
                    let name = T::FIELDS[index];
                    let taken = self.target.take(name, &mut map, self.reader);
                    self.reader.passing(taken, Segment::Field(name))?;
                }
                Field::Known(index) => {
                    let name = T::FIELDS[index];
                    let pointer = self.at.field(name, self.reader);
                    self.reader.violation(pointer, format!("{name} is given twice"));
                    map.next_value::<IgnoredAny>()?;
                }
                Field::Unknown(name) => {
                    let pointer = self.at.field(&step(&name), self.reader);
                    let known = T::FIELDS.join(", ");
                    let hint = nearest(&name, T::FIELDS);
                    let end = if hint.is_empty() { ";" } else { "" };
                    let message = format!("unknown field {}{hint}{end} known fields: {known}", quoted(&name));
                    self.reader.violation(pointer, message);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(self.target)
    }
}

enum Field {
    Known(usize),
    Unknown(String),
}

struct FieldSeed(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldSeed {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Field, E> {
        Ok(match self.0.iter().position(|known| *known == name) {
            Some(index) => Field::Known(index),
            None => Field::Unknown(name.to_owned()),
        })
    }
}

/// A whole number of 0 or more; null is as if the field were not there.
pub(super) struct WholeNumber(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WholeNumber, D::Error> {
        deserializer.deserialize_any(WholeNumberVisitor)
    }
}

struct WholeNumberVisitor;

impl Visitor<'_> for WholeNumberVisitor {
    type Value = WholeNumber;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_unit<E: de::Error>(self) -> Result<WholeNumber, E> {
        Ok(WholeNumber(None))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<WholeNumber, E> {
        Ok(WholeNumber(Some(value)))
    }
}

/// A document id: a string, or a whole number that stands for its decimal text. Null: not there.
pub(super) struct IdText(pub(super) Option<String>);

impl<'de> Deserialize<'de> for IdText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IdText, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = IdText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or a whole number of at most 64 bits")
    }

    fn visit_unit<E: de::Error>(self) -> Result<IdText, E> {
        Ok(IdText(None))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<IdText, E> {
        Ok(IdText(Some(text.to_owned())))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<IdText, E> {
        Ok(IdText(Some(number.to_string())))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<IdText, E> {
        Ok(IdText(Some(number.to_string())))
    }

    // Integers beyond 64 bits arrive here too, already rounded: an id must not change on its way in.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<IdText, E> {
        Err(E::invalid_type(Unexpected::Float(number), &self))
    }
}
