//! Pieces of schema that the derive cannot say: bounded maps, and optional enums with a description of their own.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Settings of nodes: text values up to 4,096 characters.
pub(crate) fn config_map_schema(_: &mut SchemaGenerator) -> Schema {
    text_map(4096)
}

/// Labels: text values up to 63 characters.
pub(crate) fn label_map_schema(_: &mut SchemaGenerator) -> Schema {
    text_map(63)
}

/// Annotations: text values up to 4,096 characters.
pub(crate) fn annotation_map_schema(_: &mut SchemaGenerator) -> Schema {
    text_map(4096)
}

fn text_map(max_length: u32) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": "string", "maxLength": max_length } })
}

/// The schema of an enum without the description of its type, so that an optional field keeps its own.
pub(crate) fn plain_enum<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    schema.remove("description");
    schema
}
