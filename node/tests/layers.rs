//! The layers of the node: a module imports only what stands below it, and what decides does no IO.
//!
//! The table in `src/lib.rs` is the same as [`LAYERS`] here.

use std::fs;
use std::path::{Path, PathBuf};

/// Module path prefixes and their layer. The longest prefix that fits counts.
const LAYERS: &[(&str, u8)] = &[
    ("ids", 0),
    ("error_code", 0),
    ("document", 0),
    ("filter", 0),
    ("table", 0),
    ("search", 0),
    ("recovery", 0),
    ("config", 0),
    ("telemetry", 0),
    ("runtime", 0),
    ("storage", 1),
    ("replication", 2),
    ("cluster::election", 2),
    ("cluster::placement", 2),
    ("cluster::view", 2),
    ("cluster", 3),
    ("comm", 3),
    ("shard", 4),
    ("router", 5),
    ("coordinator", 5),
    ("gateway", 6),
    ("app_launcher", 7),
    ("simulation", 8),
    // Calls whatever reads bytes from outside; not in the product.
    ("fuzzing", 8),
];

/// Modules that decide: events or values in, commands or values out.
const PURE: &[&str] = &[
    "cluster::election",
    "cluster::placement",
    "cluster::view",
    "coordinator::edits",
    "coordinator::plan",
    "document",
    "error_code",
    "filter",
    "gateway::health",
    "gateway::validate",
    "gateway::violations",
    "ids",
    "recovery",
    "replication",
    "router::merge",
    "router::readers",
    "router::session_token",
    "search",
    "shard::decide",
    "table",
];

/// What a pure module must not mention.
const IMPURE: &[&str] =
    &["async fn", ".await", "Instant::now", "SystemTime", "std::fs", "std::net", "tokio::", "tracing::"];

#[test]
fn modules_import_only_what_stands_below_them() {
    let mut wrong = Vec::new();
    for (module, text) in modules() {
        let Some(layer) = layer_of(&module) else {
            wrong.push(format!("{module}: add it to LAYERS"));
            continue;
        };
        for import in imports(&text) {
            let same_part = import.split("::").next() == module.split("::").next();
            match layer_of(&import) {
                Some(below) if below < layer || same_part && below <= layer => {}
                // Layers inside one folder: `cluster` (effects) may use `cluster::view` (pure), not the other way.
                Some(_) if same_part && layer_of(&module) >= layer_of(&import) => {}
                Some(0) if layer == 0 => {}
                Some(same) => wrong.push(format!("{module} (L{layer}) imports {import} (L{same})")),
                None => wrong.push(format!("{module} imports {import}, which has no layer")),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_do_no_io() {
    let mut wrong = Vec::new();
    for (module, text) in modules() {
        let pure = PURE.iter().any(|pure| module == *pure || module.starts_with(&format!("{pure}::")));
        for word in IMPURE.iter().filter(|word| pure && text.contains(**word)) {
            wrong.push(format!("{module} mentions {word}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Module path and code (without comments and test modules) of every file below `src`.
fn modules() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let found: Vec<_> = files
        .iter()
        .filter_map(|file| {
            let relative = file.strip_prefix(&root).expect("below src").with_extension("");
            let path = relative.to_str().expect("UTF-8").replace('/', "::");
            let module = path.strip_suffix("::mod").unwrap_or(&path).to_owned();
            // The program stands on top of the library and cannot be imported.
            let is_program = matches!(module.split("::").next(), Some("lib" | "main" | "cli" | "admin"));
            (!is_program).then(|| (module, code(file)))
        })
        .collect();
    assert!(found.len() > 10, "the sources are not where this test looks: {}", root.display());
    found
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            collect(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}

fn code(file: &Path) -> String {
    without_tests(&fs::read_to_string(file).expect("readable"))
}

/// The text without comments and without what is compiled for tests only: one item after each `#[cfg(test)]`, which
/// ends at its semicolon, or at the brace in the first column that closes it.
fn without_tests(text: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            lines.by_ref().find(|line| *line == "}" || line.ends_with(';') && !line.starts_with(' '));
        } else if !line.trim_start().starts_with("//") {
            kept.push(line);
        }
    }
    kept.join("\n")
}

/// Module paths after `crate::`, as far as they are lower case; grouped imports one by one.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in text.split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let group = group.split('}').next().unwrap_or_default();
            found.extend(group.split(',').filter_map(|item| lower_path(item.trim())));
        } else {
            found.extend(lower_path(part));
        }
    }
    found
}

fn lower_path(text: &str) -> Option<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let parts: Vec<_> = text[..end]
        .split("::")
        .take_while(|part| part.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    (!parts.is_empty()).then(|| parts.join("::"))
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS
        .iter()
        .filter(|(prefix, _)| module == *prefix || module.starts_with(&format!("{prefix}::")))
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(_, layer)| *layer)
}

#[test]
fn the_check_itself_looks_at_what_stands_after_tests() {
    let text =
        "use a;\n#[cfg(test)]\nmod tests;\nuse b;\n#[cfg(test)]\nmod more {\n    use c;\n}\n// d\nuse e;";
    assert_eq!(without_tests(text), "use a;\nuse b;\nuse e;");
}

#[test]
fn the_check_itself_finds_imports() {
    let text = "use crate::gateway::http::Server;\nuse crate::{ids, cluster::view::Shard};";
    assert_eq!(imports(text), ["gateway::http", "ids", "cluster::view"]);
    assert_eq!(layer_of("cluster::view"), Some(2));
    assert_eq!(layer_of("cluster::meta_store::etcd"), Some(3));
}
