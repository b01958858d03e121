//! What the charts copy from the types: the definition, the schema of a cluster's values, the version.
//!
//! A chart is used where this crate is not, so each copy is a file of the chart; here it is compared with its source.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use vectorsphere_crds::{definitions, to_yaml};

/// Keywords of the definition's schema that a JSON Schema of values has too. The others are the API server's: CEL
/// rules, merge strategies, formats of integers.
const KEYWORDS: [&str; 16] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
];

fn charts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts")
}

fn committed(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn the_operator_chart_carries_the_definitions() {
    for (file, definition) in definitions() {
        let copy = charts().join("vectorsphere-operator/files").join(file);
        assert!(
            committed(&copy) == to_yaml(&definition),
            "charts/vectorsphere-operator/files/{file} is stale; run: cargo run -p vectorsphere-operator -- crd > \
             crds/{file} && cp crds/{file} charts/vectorsphere-operator/files/{file}"
        );
    }
}

/// A value that the chart accepts is one that the definition accepts, but for its CEL rules.
#[test]
fn the_cluster_chart_takes_the_values_that_the_definition_takes() {
    let name = "values.schema.json";
    let expected = serde_json::to_string_pretty(&values_schema()).expect("plain data") + "\n";
    if committed(&charts().join("vectorsphere-cluster").join(name)) == expected {
        return;
    }
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&fresh, expected).expect("the folder for tests can be written");
    panic!(
        "charts/vectorsphere-cluster/{name} is stale; run: cp {} charts/vectorsphere-cluster/{name}",
        fresh.display()
    );
}

#[test]
fn charts_install_the_version_of_this_workspace() {
    for chart in ["vectorsphere-operator", "vectorsphere-cluster"] {
        let text = committed(&charts().join(chart).join("Chart.yaml"));
        let chart_yaml: Value = serde_yaml::from_str(&text).expect("a chart is YAML");
        for key in ["version", "appVersion"] {
            assert_eq!(chart_yaml[key], env!("CARGO_PKG_VERSION"), "`{key}` of {chart}");
        }
    }
}

/// The schema of a spec as the schema of values. The chart fills in `version` and `etcd`, and takes what stands in the
/// metadata of the object.
fn values_schema() -> Value {
    let (_, definition) = definitions().remove(0);
    let definition = serde_json::to_value(definition).expect("plain data");
    let object = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut schema = strict(&object["properties"]["spec"]);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "Values of the chart vectorsphere-cluster".into();
    schema["description"] = "Made of the custom resource by crds/tests/charts.rs.".into();
    schema["required"] = json!(["slaves"]);
    let of_the_chart = json!({
        "annotations": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Annotations of the object.",
        },
        "global": {"type": "object", "description": "Helm's own, when another chart depends on this one."},
        "labels": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Labels of the object.",
        },
        "name": {
            "type": "string",
            "description": "Name of the object; the name of the release when left out.",
            "minLength": 1,
            "maxLength": 40,
            "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$",
        },
    });
    let fields = schema["properties"].as_object_mut().expect("a spec has fields");
    for (key, value) in of_the_chart.as_object().expect("made above") {
        let taken = fields.insert(key.clone(), value.clone());
        assert!(taken.is_none(), "the spec has a field `{key}` of its own");
    }
    schema
}

/// Keeps what a JSON Schema knows, and lets no object have fields that the definition would drop.
fn strict(schema: &Value) -> Value {
    let mut kept = Map::new();
    for (keyword, value) in schema.as_object().expect("a schema is an object") {
        if !KEYWORDS.contains(&keyword.as_str()) {
            assert!(keyword.starts_with("x-kubernetes-") || keyword == "format", "`{keyword}` is new");
            continue;
        }
        let value = match keyword.as_str() {
            "properties" => {
                let fields = value.as_object().expect("fields by name");
                fields.iter().map(|(name, field)| (name.clone(), strict(field))).collect()
            }
            "items" | "additionalProperties" => strict(value),
            _ => value.clone(),
        };
        kept.insert(keyword.clone(), value);
    }
    if kept.contains_key("properties") {
        kept.insert("additionalProperties".to_owned(), false.into());
    }
    kept.into()
}
