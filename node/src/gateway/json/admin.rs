//! The bodies of calls for operators.

use serde::de::MapAccess;

use super::bodies::{number, object, text};
use super::object::Object;
use super::{Reader, parse};
use crate::error_code::Error;

use super::super::admin::{DrainDraft, ForceDraft, HandOverDraft, MoveDraft};

/// `POST …/drain`.
pub(in crate::gateway) fn drain(body: &[u8]) -> Result<DrainDraft, Error> {
    read(body)
}

/// `POST …/shards/{shard}:move`.
pub(in crate::gateway) fn move_replica(body: &[u8]) -> Result<MoveDraft, Error> {
    read(body)
}

/// `POST …/shards/{shard}:handover`.
pub(in crate::gateway) fn hand_over(body: &[u8]) -> Result<HandOverDraft, Error> {
    read(body)
}

/// `POST …/shards/{shard}:force-primary`.
pub(in crate::gateway) fn force_primary(body: &[u8]) -> Result<ForceDraft, Error> {
    read(body)
}

fn read<'de, T: Object<'de> + Default>(body: &'de [u8]) -> Result<T, Error> {
    let reader = Reader::default();
    parse(body, object(T::default(), &reader), &reader)
}

impl<'de> Object<'de> for DrainDraft {
    const FIELDS: &'static [&'static str] = &["ttl_ms", "reason"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        _: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "ttl_ms" => self.ttl_ms = number(map)?,
            _ => self.reason = text(map)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for MoveDraft {
    const FIELDS: &'static [&'static str] = &["from", "to"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        _: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "from" => self.from = text(map)?,
            _ => self.to = text(map)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for HandOverDraft {
    const FIELDS: &'static [&'static str] = &["to"];

    fn take<A: MapAccess<'de>>(&mut self, _: &'static str, map: &mut A, _: &Reader) -> Result<(), A::Error> {
        self.to = text(map)?;
        Ok(())
    }
}

impl<'de> Object<'de> for ForceDraft {
    const FIELDS: &'static [&'static str] = &["node", "confirmation"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        _: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "node" => self.node = text(map)?,
            _ => self.confirmation = text(map)?,
        }
        Ok(())
    }
}
