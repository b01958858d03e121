//! The generated definition: it is what is committed, and it keeps the conventions of the group.

use std::path::PathBuf;

use serde_json::Value;
use vectorsphere_crds::{definitions, to_yaml};

fn spec_schema() -> Value {
    let (_, definition) = definitions().remove(0);
    let definition = serde_json::to_value(definition).expect("plain data");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// Calls `visit` with each schema below `schema` and its path.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            walk(&format!("{path}.{name}"), property, visit);
        }
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&format!("{path}{mark}"), &schema[key], visit);
        }
    }
}

fn violations(broken: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    walk("spec", &spec_schema(), &mut |path, schema| {
        if broken(schema) {
            found.push(path.to_owned());
        }
    });
    found
}

#[test]
fn the_committed_yaml_is_what_the_types_say() {
    for (file, definition) in definitions() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            committed,
            to_yaml(&definition),
            "{file} is stale; run: cargo run -p vectorsphere-operator -- crd > crds/{file}"
        );
    }
}

#[test]
fn every_string_list_map_and_number_of_the_spec_is_bounded() {
    let unbounded = violations(|schema| match schema["type"].as_str() {
        Some("string") => schema["maxLength"].is_null() && schema["enum"].is_null(),
        Some("array") => schema["maxItems"].is_null(),
        Some("integer") => schema["minimum"].is_null() || schema["maximum"].is_null(),
        Some("object") => schema["properties"].is_null() && schema["maxProperties"].is_null(),
        _ => false,
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn integers_have_formats_that_the_server_knows_and_there_are_no_floats() {
    let odd = violations(|schema| match schema["type"].as_str() {
        Some("integer") => !matches!(schema["format"].as_str(), Some("int32" | "int64")),
        Some("number") => true,
        _ => false,
    });
    assert_eq!(odd, Vec::<String>::new());
}

#[test]
fn every_field_is_described_and_none_is_nullable() {
    let mut poor = Vec::new();
    walk("spec", &spec_schema(), &mut |path, schema| {
        let is_field = !path.ends_with("[]") && !path.ends_with("{}");
        if is_field && schema["description"].as_str().is_none_or(str::is_empty)
            || !schema["nullable"].is_null()
        {
            poor.push(path.to_owned());
        }
    });
    assert_eq!(poor, Vec::<String>::new());
}

#[test]
fn every_list_says_how_it_merges() {
    let unsaid = violations(|schema| {
        schema["type"].as_str() == Some("array") && schema["x-kubernetes-list-type"].is_null()
    });
    assert_eq!(unsaid, Vec::<String>::new());
}

#[test]
fn replica_counts_have_no_default_in_the_schema() {
    let schema = spec_schema();
    for group in ["masters", "slaves"] {
        let replicas = &schema["properties"][group]["properties"]["replicas"];
        assert_eq!(replicas["type"], "integer", "{group}");
        assert!(replicas["default"].is_null(), "{group}");
    }
}
