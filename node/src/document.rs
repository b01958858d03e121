//! Documents as users store them: an id, a vector, metadata.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::ids::DocumentId;

/// A document whose parts were validated: vector finite and of the table's dimension, metadata within its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The id.
    pub id: DocumentId,
    /// The vector as given, `dimension` values; empty when the reader did not ask for it.
    pub vector: Vec<f32>,
    /// The metadata.
    pub metadata: Metadata,
}

impl Document {
    /// What counts towards [`ANSWER_BYTES_MAX`](crate::search::ANSWER_BYTES_MAX).
    pub fn answer_bytes(&self) -> usize {
        self.id.as_str().len() + size_of_val(self.vector.as_slice()) + self.metadata.as_json().len()
    }
}

/// A JSON object as compact text; numbers keep their kind (integer or double).
///
/// Text rather than a tree: it is stored, sent and answered far more often than it is looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata(Bytes);

impl Metadata {
    /// The empty object.
    pub fn empty() -> Metadata {
        Metadata(Bytes::from_static(b"{}"))
    }

    /// From a parsed object.
    pub fn from_object(object: &Map<String, Value>) -> Metadata {
        if object.is_empty() {
            return Metadata::empty();
        }
        Metadata(serde_json::to_vec(object).expect("a map of JSON values is JSON").into())
    }

    /// From text that [`Metadata::as_json`] gave before: stored records and messages between nodes.
    /// Empty bytes mean the empty object. `None` unless the text is UTF-8 and looks like an object.
    pub fn from_stored(json: Bytes) -> Option<Metadata> {
        if json.is_empty() {
            return Some(Metadata::empty());
        }
        Metadata::is_stored_form(&json).then_some(Metadata(json))
    }

    /// True when bytes are UTF-8 and look like an object.
    pub fn is_stored_form(json: &[u8]) -> bool {
        let object = json.first() == Some(&b'{') && json.last() == Some(&b'}');
        object && std::str::from_utf8(json).is_ok()
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked by every constructor")
    }

    /// The text's bytes, without a copy.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The parsed object.
    pub fn to_object(&self) -> Map<String, Value> {
        Metadata::parse_object(&self.0).unwrap_or_default()
    }

    /// The object in JSON text, every key as data: `serde_json` itself takes an object whose first key is
    /// `$serde_json::private::RawValue` for text to parse, which would let values and nesting pass unseen.
    ///
    /// # Errors
    /// When the text is no JSON object.
    pub fn parse_object(json: &[u8]) -> serde_json::Result<Map<String, Value>> {
        match serde_json::from_slice(json)? {
            Plain(Value::Object(object)) => Ok(object),
            Plain(_) => Err(serde_json::Error::custom("not an object")),
        }
    }
}

/// A JSON value without meaning beyond JSON.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Plain, D::Error> {
        deserializer.deserialize_any(PlainVisitor).map(Plain)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, word: bool) -> Result<Value, E> {
        Ok(Value::Bool(word))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Plain(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Plain(value))) = map.next_entry()? {
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Little-endian bytes of a vector, 4 a value: its form on the wire and on disk.
pub fn vector_to_bytes(vector: &[f32]) -> Bytes {
    if cfg!(target_endian = "little") {
        return Bytes::copy_from_slice(bytemuck::cast_slice(vector));
    }
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The vector of little-endian bytes; `None` when the length is no multiple of 4.
pub fn vector_from_bytes(bytes: &[u8]) -> Option<Vec<f32>> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_keeps_integers_beyond_two_to_the_53() {
        let text =
            r#"{"big":9007199254740993,"neg":-9223372036854775808,"top":18446744073709551615,"x":0.1}"#;
        let object: Map<String, Value> = serde_json::from_str(text).expect("valid");
        let metadata = Metadata::from_object(&object);
        assert_eq!(metadata.as_json(), text);
        assert_eq!(metadata.to_object(), object);
    }

    #[test]
    fn a_private_key_of_the_parser_is_data() {
        let text =
            r#"{"a":{"$serde_json::private::RawValue":"[[1]]"},"b":[{"$serde_json::private::Number":"1"}]}"#;
        let object = Metadata::parse_object(text.as_bytes()).expect("an object");
        assert_eq!(Metadata::from_object(&object).as_json(), text);
        assert!(Metadata::parse_object(b"[1]").is_err());
    }

    #[test]
    fn vectors_round_trip_bit_for_bit() {
        let vector = [0.0, -0.0, 1.5e-45, f32::MAX, -1.0];
        let back = vector_from_bytes(&vector_to_bytes(&vector)).expect("whole");
        assert!(vector.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert_eq!(vector_from_bytes(&[0; 5]), None);
    }
}
