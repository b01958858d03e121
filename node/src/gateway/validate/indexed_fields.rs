//! Fields of metadata that a table has indexes of, as callers write them.

use std::collections::BTreeMap;

use super::super::violations::{Violations, nearest, quoted, step};
use crate::error_code::{Error, ErrorCode};
use crate::filter::KeyPath;
use crate::filter::index::{FIELDS_MAX, FieldKind, IndexedFields};

/// Field to type, as the caller wrote them.
pub(in crate::gateway) type IndexedFieldsDraft = BTreeMap<String, String>;

/// The indexes of a new table.
pub(super) fn indexed_fields(draft: &IndexedFieldsDraft, violations: &mut Violations) -> IndexedFields {
    if draft.len() > FIELDS_MAX {
        let message = format!("metadata_indexes has more than {FIELDS_MAX} fields");
        violations.add("/metadata_indexes", message);
        return IndexedFields::new();
    }
    let mut fields = IndexedFields::new();
    for (key, word) in draft {
        let pointer = || format!("/metadata_indexes/{}", step(key));
        let (field, kind) = (field(key), kind(word));
        for broken in [field.as_ref().err(), kind.as_ref().err()].into_iter().flatten() {
            violations.add(pointer(), broken.clone());
        }
        let (Ok(field), Ok(kind)) = (field, kind) else { continue };
        if fields.insert(field, kind).is_some() {
            violations.add(pointer(), format!("field {} is given twice, in other words", quoted(key)));
        }
    }
    fields
}

/// One index: its field, and its type unless it is to go.
pub(in crate::gateway) fn metadata_index(
    key: &str,
    word: Option<&str>,
) -> Result<(KeyPath, Option<FieldKind>), Error> {
    let mut violations = Violations::default();
    let field = field(key).map_err(|message| violations.add("/field", message)).ok();
    let kind = word.map(|word| kind(word).map_err(|message| violations.add("/type", message)).ok());
    violations.into_result()?;
    let field = field.ok_or_else(|| Error::new(ErrorCode::Internal, "a broken rule was not recorded"))?;
    Ok((field, kind.flatten()))
}

fn field(key: &str) -> Result<KeyPath, String> {
    KeyPath::parse(key)
}

fn kind(word: &str) -> Result<FieldKind, String> {
    let words = FieldKind::ALL.map(FieldKind::as_str);
    let allowed = words.join(", ");
    FieldKind::parse(word).ok_or_else(|| match word {
        "" => format!("type is missing, must be one of {allowed}"),
        word => {
            let (given, hint) = (quoted(word), nearest(word, &words));
            format!("type {given} must be one of {allowed}{hint}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_broken_index_is_told() {
        let draft = [
            ("a", "keyword"),
            ("b[].c", "datetime"),
            ("\"b\"[].c", "geo"),
            ("c/d", "int"),
            ("e.", "float"),
            ("", "bol"),
        ];
        let draft = draft.into_iter().map(|(key, word)| (key.to_owned(), word.to_owned())).collect();
        let mut violations = Violations::default();
        let fields = indexed_fields(&draft, &mut violations);
        assert_eq!(fields.len(), 2);
        let error = violations.into_result().expect_err("broken");
        let pointers: Vec<&str> = error.violations.iter().map(|violation| &*violation.pointer).collect();
        let expected = [
            "/metadata_indexes/",
            "/metadata_indexes/",
            "/metadata_indexes/b[].c",
            "/metadata_indexes/c~1d",
            "/metadata_indexes/e.",
        ];
        assert_eq!(pointers, expected);
        let allowed = "keyword, bool, integer, float, datetime, geo";
        assert_eq!(
            error.violations[1].message,
            format!("type \"bol\" must be one of {allowed}, did you mean bool?")
        );
        let many = (0..=FIELDS_MAX).map(|number| (number.to_string(), "bool".to_owned())).collect();
        let mut violations = Violations::default();
        indexed_fields(&many, &mut violations);
        assert!(violations.into_result().expect_err("too many").message.contains("more than 64"));
        assert!(metadata_index("a[", Some("")).expect_err("both").violations.len() == 2);
        assert!(metadata_index("a", None).expect("to go").1.is_none());
    }
}
