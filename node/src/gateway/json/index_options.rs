//! Options of a table's index.

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::validate::{CodeBits, IndexOptionsDraft};
use super::Reader;
use super::bodies::number;
use super::object::{At, Object, ObjectSeed, OptionalSeed};

/// Reads the field `index_options`. Null: not there.
pub(super) fn read<'de, A: MapAccess<'de>>(
    map: &mut A,
    reader: &Reader,
) -> Result<IndexOptionsDraft, A::Error> {
    let (target, at) = (IndexOptionsDraft::default(), At::Inside("index_options"));
    Ok(map.next_value_seed(OptionalSeed(ObjectSeed { target, reader, at }))?.unwrap_or_default())
}

impl<'de> Object<'de> for IndexOptionsDraft {
    const FIELDS: &'static [&'static str] = &["m", "ef_construction", "code_bits", "alpha"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        _: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "m" => self.m = number(map)?,
            "ef_construction" => self.ef_construction = number(map)?,
            "code_bits" => self.code_bits = map.next_value::<Option<CodeBits>>()?,
            _ => self.alpha = map.next_value()?,
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for CodeBits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CodeBits, D::Error> {
        deserializer.deserialize_any(CodeBitsVisitor)
    }
}

struct CodeBitsVisitor;

impl Visitor<'_> for CodeBitsVisitor {
    type Value = CodeBits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1, 4, 8 or \"auto\"")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<CodeBits, E> {
        Ok(CodeBits::Word(word.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, bits: u64) -> Result<CodeBits, E> {
        Ok(CodeBits::Bits(bits))
    }
}
