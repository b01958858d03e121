//! Vectors in JSON: an array of numbers, or a base64 string of little-endian f32.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserializer;
use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};

use super::super::validate::VectorDraft;
use super::{Reader, Segment};
use crate::document::vector_from_bytes;

/// Padding may be there or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a vector of `dimension` values; those beyond are counted and not kept. Null: not there.
pub(super) struct VectorSeed<'a> {
    pub(super) dimension: usize,
    pub(super) reader: &'a Reader,
}

impl<'de> DeserializeSeed<'de> for VectorSeed<'_> {
    type Value = Option<VectorDraft>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for VectorSeed<'_> {
    type Value = Option<VectorDraft>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers, or a base64 string of little-endian f32")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::with_capacity(self.dimension);
        let mut given = 0;
        // `f32` is asked for by name: the parser then rounds the decimal text once, straight to the nearest f32.
        while let Some(value) = self.reader.passing(seq.next_element::<f32>(), Segment::Item(given))? {
            if kept.len() < self.dimension {
                kept.push(value);
            }
            given += 1;
        }
        Ok(Some(VectorDraft::Values { kept, given }))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(match BASE64.decode(text) {
            Ok(bytes) => from_bytes(&bytes),
            Err(error) => VectorDraft::Broken(format!("vector is not base64 of little-endian f32: {error}")),
        }))
    }
}

/// A vector of little-endian bytes, from REST or gRPC.
pub(in crate::gateway) fn from_bytes(bytes: &[u8]) -> VectorDraft {
    match vector_from_bytes(bytes) {
        Some(kept) => VectorDraft::Values { given: kept.len(), kept },
        None => VectorDraft::Broken(format!("vector has {} bytes, which is no multiple of 4", bytes.len())),
    }
}
