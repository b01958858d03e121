//! Tenants: each document of a table with a tenant key says whose it is.

use super::super::violations::{Violations, quoted, step};
use crate::document::Metadata;
use crate::filter::index::{FieldKind, IndexedFields};
use crate::filter::{KeyPath, Step, only_text};
use crate::table::TableSchema;

/// Most bytes of a tenant's name.
const TENANT_BYTES_MAX: usize = 256;

/// The tenant key of a new table, which gets an index like any other field.
pub(super) fn key(text: &str, indexes: &mut IndexedFields, violations: &mut Violations) -> Option<KeyPath> {
    if text.is_empty() {
        return None;
    }
    let key = match KeyPath::parse(text) {
        Ok(key) => key,
        Err(why) => {
            violations.add("/tenant_key", why);
            return None;
        }
    };
    if key.steps().contains(&Step::Each) {
        let message =
            format!("tenant_key {} goes through an array, a document is of one tenant", quoted(text));
        violations.add("/tenant_key", message);
        return None;
    }
    match indexes.insert(key.clone(), FieldKind::Keyword) {
        None | Some(FieldKind::Keyword) => {}
        Some(_) => {
            let message = "the tenant key has an index of type keyword";
            violations.add(format!("/metadata_indexes/{}", step(text)), message);
        }
    }
    Some(key)
}

/// Refuses metadata that do not say whose the document is.
pub(super) fn check(metadata: &Metadata, schema: &TableSchema) -> Result<(), String> {
    let Some(key) = &schema.tenant_key else { return Ok(()) };
    let allowed = format!("metadata must name the tenant at {key}, a text of 1 to {TENANT_BYTES_MAX} bytes");
    match only_text(key, metadata.as_json().as_bytes()) {
        Some(tenant) if (1..=TENANT_BYTES_MAX).contains(&tenant.len()) => Ok(()),
        Some(tenant) => Err(format!("{allowed}, it has {} bytes", tenant.len())),
        None => Err(allowed),
    }
}
