//! Bodies of searches: one, or many of them.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::super::validate::{
    GroupByDraft, MetadataDraft, ReadDraft, SearchDraft, SearchRequestDraft, too_many_queries,
};
use super::bodies::{flag, number, object, text};
use super::object::{At, IdText, Object, ObjectSeed, OptionalSeed};
use super::vector::VectorSeed;
use super::{Reader, Segment, filter, parse};
use crate::error_code::Error;
use crate::search::{METADATA_FIELDS_MAX, QUERIES_MAX};
use crate::table::TableSchema;

/// `POST …/search`: the search, and what holds for the request. The schema says how long the vector may be; it is validated
/// later, with the rest.
pub(in crate::gateway) fn search(
    body: &[u8],
    schema: &TableSchema,
) -> Result<(SearchDraft, (bool, ReadDraft)), Error> {
    let reader = Reader::default();
    let target =
        SearchBody { query: QueryBody::new(schema, At::Inside("group_by")), terms: Terms::default() };
    let SearchBody { query, terms } = parse(body, object(target, &reader), &reader)?;
    Ok((query.draft, (terms.allow_partial, terms.read)))
}

/// `POST …/search:batch`.
pub(in crate::gateway) fn search_batch(
    body: &[u8],
    schema: &TableSchema,
) -> Result<SearchRequestDraft, Error> {
    let reader = Reader::default();
    let target = BatchBody { schema, queries: Vec::new(), terms: Terms::default() };
    let BatchBody { queries, terms, .. } = parse(body, object(target, &reader), &reader)?;
    Ok(SearchRequestDraft { queries, allow_partial: terms.allow_partial, read: terms.read })
}

/// What holds for all searches of a request.
#[derive(Default)]
struct Terms {
    allow_partial: bool,
    read: ReadDraft,
}

impl Terms {
    fn take<'de, A: MapAccess<'de>>(&mut self, field: &'static str, map: &mut A) -> Result<(), A::Error> {
        match field {
            "allow_partial" => self.allow_partial = flag(map)?,
            "consistency" => self.read.consistency = text(map)?,
            "max_staleness_ms" => self.read.max_staleness_ms = number(map)?,
            _ => self.read.session_token = text(map)?,
        }
        Ok(())
    }
}

/// One of several searches.
struct QueryBody {
    draft: SearchDraft,
    dimension: usize,
    groups_at: At,
}

impl QueryBody {
    fn new(schema: &TableSchema, groups_at: At) -> QueryBody {
        QueryBody { draft: SearchDraft::default(), dimension: schema.dimension as usize, groups_at }
    }
}

impl<'de> Object<'de> for QueryBody {
    const FIELDS: &'static [&'static str] = &[
        "vector",
        "document_id",
        "top_k",
        "offset",
        "exact",
        "ef",
        "target_recall",
        "threshold",
        "filter",
        "with_metadata",
        "with_vector",
        "group_by",
        "explain",
    ];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        let draft = &mut self.draft;
        match field {
            "vector" => {
                draft.vector = map.next_value_seed(VectorSeed { dimension: self.dimension, reader })?;
            }
            "document_id" => draft.document_id = map.next_value::<IdText>()?.0,
            "top_k" => draft.top_k = number(map)?,
            "offset" => draft.offset = number(map)?,
            "exact" => draft.exact = flag(map)?,
            "ef" => draft.ef = number(map)?,
            "target_recall" => draft.target_recall = map.next_value()?,
            "threshold" => draft.threshold = map.next_value()?,
            "filter" => draft.filter = filter::read(map, reader)?,
            "with_metadata" => draft.metadata = map.next_value_seed(MetadataSeed { reader })?,
            "with_vector" => draft.with_vector = flag(map)?,
            "group_by" => {
                let seed = ObjectSeed { target: GroupByDraft::default(), reader, at: self.groups_at };
                draft.group_by = map.next_value_seed(OptionalSeed(seed))?;
            }
            _ => draft.explain = flag(map)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for GroupByDraft {
    const FIELDS: &'static [&'static str] = &["key", "limit"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        _: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "key" => self.key = text(map)?,
            _ => self.limit = number(map)?,
        }
        Ok(())
    }
}

/// What of metadata the caller wants: a flag, or paths of which no more are kept than may be there. Null: nothing.
struct MetadataSeed<'a> {
    reader: &'a Reader,
}

impl<'de> DeserializeSeed<'de> for MetadataSeed<'_> {
    type Value = MetadataDraft;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed<'_> {
    type Value = MetadataDraft;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a boolean, or an array of paths")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(MetadataDraft::Nothing)
    }

    fn visit_bool<E>(self, is_wanted: bool) -> Result<Self::Value, E> {
        Ok(if is_wanted { MetadataDraft::All } else { MetadataDraft::Nothing })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut paths, mut given) = (Vec::new(), 0);
        while let Some(path) = self.reader.passing(seq.next_element::<String>(), Segment::Item(given))? {
            if given < METADATA_FIELDS_MAX {
                paths.push(path);
            }
            given += 1;
        }
        Ok(MetadataDraft::Fields { name: "with_metadata", paths, given })
    }
}

/// A search that is the whole request.
struct SearchBody {
    query: QueryBody,
    terms: Terms,
}

impl<'de> Object<'de> for SearchBody {
    const FIELDS: &'static [&'static str] = &[
        "vector",
        "document_id",
        "top_k",
        "offset",
        "exact",
        "ef",
        "target_recall",
        "threshold",
        "filter",
        "with_metadata",
        "with_vector",
        "group_by",
        "explain",
        "allow_partial",
        "consistency",
        "max_staleness_ms",
        "session_token",
    ];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "allow_partial" | "consistency" | "max_staleness_ms" | "session_token" => {
                self.terms.take(field, map)
            }
            field => self.query.take(field, map, reader),
        }
    }
}

/// Many searches.
struct BatchBody<'a> {
    schema: &'a TableSchema,
    queries: Vec<SearchDraft>,
    terms: Terms,
}

impl<'de> Object<'de> for BatchBody<'_> {
    const FIELDS: &'static [&'static str] =
        &["queries", "allow_partial", "consistency", "max_staleness_ms", "session_token"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        if field != "queries" {
            return self.terms.take(field, map);
        }
        self.queries = map.next_value_seed(QueriesSeed { schema: self.schema, reader })?;
        Ok(())
    }
}

/// The items of `queries`.
struct QueriesSeed<'a> {
    schema: &'a TableSchema,
    reader: &'a Reader,
}

impl<'de> DeserializeSeed<'de> for QueriesSeed<'_> {
    type Value = Vec<SearchDraft>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for QueriesSeed<'_> {
    type Value = Vec<SearchDraft>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of searches")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut queries = Vec::new();
        for index in 0.. {
            let target = QueryBody::new(self.schema, At::InsideQuery(index, "group_by"));
            let seed = ObjectSeed { target, reader: self.reader, at: At::Query(index) };
            // Each has a filter of its own.
            self.reader.conditions.set(0);
            let place = format_args!("queries/{index}");
            let item = filter::inside(self.reader, place, || seq.next_element_seed(seed));
            let Some(item) = self.reader.passing(item, Segment::Item(index))? else { break };
            if index == QUERIES_MAX {
                return Err(self.reader.refuse(too_many_queries()));
            }
            queries.push(item.draft);
        }
        Ok(queries)
    }
}
