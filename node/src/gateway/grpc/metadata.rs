//! Metadata as messages, read from the text that is stored without a tree in between.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::value::Kind;

use crate::document::Metadata;

/// A document's metadata.
pub(super) fn metadata_message(metadata: &Metadata) -> proto::Metadata {
    serde_json::from_str(metadata.as_json()).map(|Object(object)| object).unwrap_or_default()
}

/// One value, JSON text.
pub(super) fn value_message(json: &str) -> Option<proto::Value> {
    serde_json::from_str(json).map(|Item(value)| value).ok()
}

struct Object(proto::Metadata);

struct Item(proto::Value);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        match deserializer.deserialize_any(KindVisitor)? {
            Kind::ObjectValue(object) => Ok(Object(object)),
            _ => Err(D::Error::custom("metadata is an object")),
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item, D::Error> {
        let kind = Some(deserializer.deserialize_any(KindVisitor)?);
        Ok(Item(proto::Value { kind }))
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::NullValue(true))
    }

    fn visit_bool<E>(self, word: bool) -> Result<Kind, E> {
        Ok(Kind::BoolValue(word))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Kind, E> {
        Ok(Kind::IntValue(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Kind, E> {
        Ok(i64::try_from(number).map_or(Kind::UintValue(number), Kind::IntValue))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Kind, E> {
        Ok(Kind::DoubleValue(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::StringValue(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Kind, E> {
        Ok(Kind::StringValue(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut values = Vec::new();
        while let Some(Item(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Kind::ListValue(proto::ListValue { values }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut fields = HashMap::new();
        while let Some((name, Item(value))) = map.next_entry()? {
            fields.insert(name, value);
        }
        Ok(Kind::ObjectValue(proto::Metadata { fields }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_becomes_its_own() {
        let kind = |json: &str| value_message(json).and_then(|value| value.kind);
        for (json, expected) in [
            ("null", Kind::NullValue(true)),
            ("true", Kind::BoolValue(true)),
            ("-9223372036854775808", Kind::IntValue(i64::MIN)),
            ("9223372036854775807", Kind::IntValue(i64::MAX)),
            ("9223372036854775808", Kind::UintValue(1 << 63)),
            ("0.1", Kind::DoubleValue(0.1)),
            ("1.0", Kind::DoubleValue(1.0)),
            (r#""\u0041\n""#, Kind::StringValue("A\n".to_owned())),
            ("[]", Kind::ListValue(proto::ListValue::default())),
            ("{}", Kind::ObjectValue(proto::Metadata::default())),
        ] {
            assert_eq!(kind(json), Some(expected), "{json}");
        }
        let Some(Kind::ObjectValue(object)) = kind(r#"{"a": [1, {"b": "c"}]}"#) else { panic!("an object") };
        let Some(Kind::ListValue(list)) = &object.fields["a"].kind else { panic!("a list") };
        assert_eq!(list.values[0], value_message("1").expect("a value"));
        assert_eq!(list.values[1], value_message(r#"{"b": "c"}"#).expect("a value"));
        assert_eq!(kind("{"), None);
    }
}
