//! Indexes of metadata: an object of fields and types, and the body of one.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::super::validate::IndexedFieldsDraft;
use super::super::violations::step;
use super::bodies::{object, text};
use super::object::Object;
use super::{Reader, Segment, parse};
use crate::error_code::Error;
use crate::filter::index::FIELDS_MAX;

/// `PUT …/metadata_indexes/{field}`: the type.
pub(in crate::gateway) fn index_type(body: &[u8]) -> Result<String, Error> {
    let reader = Reader::default();
    Ok(parse(body, object(IndexBody::default(), &reader), &reader)?.index_type)
}

/// Reads the field `metadata_indexes`. Null: not there.
pub(super) fn read<'de, A: MapAccess<'de>>(
    map: &mut A,
    reader: &Reader,
) -> Result<IndexedFieldsDraft, A::Error> {
    map.next_value_seed(Fields { reader })
}

#[derive(Default)]
struct IndexBody {
    index_type: String,
}

impl<'de> Object<'de> for IndexBody {
    const FIELDS: &'static [&'static str] = &["type"];

    fn take<A: MapAccess<'de>>(&mut self, _: &'static str, map: &mut A, _: &Reader) -> Result<(), A::Error> {
        self.index_type = text(map)?;
        Ok(())
    }
}

/// Field to type. Beyond the limit only one more is kept, for the rules to find.
struct Fields<'a> {
    reader: &'a Reader,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = IndexedFieldsDraft;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = IndexedFieldsDraft;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of fields and types, such as {\"section\": \"keyword\"}")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(IndexedFieldsDraft::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = IndexedFieldsDraft::new();
        while let Some(field) = map.next_key::<String>()? {
            if fields.len() > FIELDS_MAX {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let pointer = step(&field);
            let kind = self.reader.passing(map.next_value::<String>(), Segment::Name(pointer))?;
            if let Some(_first) = fields.insert(field.clone(), kind) {
                let pointer = format!("/metadata_indexes/{}", step(&field));
                self.reader.violation(pointer, "field is given twice");
            }
        }
        Ok(fields)
    }
}
