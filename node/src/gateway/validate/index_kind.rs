//! The index of a table, as callers write it.

use std::ops::RangeInclusive;

use super::super::violations::{Violations, quoted};
use crate::table::{IndexKind, IndexOptions, Metric};

/// Options of an index, as the caller wrote them; `None` means the usual.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::gateway) struct IndexOptionsDraft {
    pub(in crate::gateway) m: Option<u64>,
    pub(in crate::gateway) ef_construction: Option<u64>,
    pub(in crate::gateway) code_bits: Option<CodeBits>,
    pub(in crate::gateway) alpha: Option<f64>,
}

/// Bits of codes, as the caller wrote them: a number or a word.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::gateway) enum CodeBits {
    Bits(u64),
    Word(String),
}

/// The index of a new table; `None` when a rule is broken. What depends on dimension and metric is left out where those
/// are broken themselves.
pub(super) fn index_kind(
    word: &str,
    draft: &IndexOptionsDraft,
    vectors: Option<(u32, Metric)>,
    violations: &mut Violations,
) -> Option<IndexKind> {
    let Some(kind) = IndexKind::parse(word) else {
        let message = format!("index_type {} must be one of {}", quoted(word), IndexKind::ALLOWED);
        violations.add("/index_type", message);
        return None;
    };
    if kind.options().is_none() {
        let given = [
            ("m", draft.m.is_some()),
            ("ef_construction", draft.ef_construction.is_some()),
            ("code_bits", draft.code_bits.is_some()),
            ("alpha", draft.alpha.is_some()),
        ];
        for (name, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
            let message =
                format!("an index of type {} has no {name}, those of auto and hnsw have", quoted(word));
            violations.add(format!("/index_options/{name}"), message);
        }
    }
    let options = index_options(draft, violations);
    let kind = kind.with_options(options);
    if let Some((dimension, metric)) = vectors
        && let Err(why) = kind.check(dimension, metric)
    {
        violations.add("/index_type", why);
    }
    Some(kind)
}

fn index_options(draft: &IndexOptionsDraft, violations: &mut Violations) -> IndexOptions {
    let mut whole = |name: &str, value: Option<u64>, allowed: RangeInclusive<u32>| {
        let value = value?;
        let fitting = u32::try_from(value).ok().filter(|value| allowed.contains(value));
        if fitting.is_none() {
            let message = format!("{name} is {value}, must be {} to {}", allowed.start(), allowed.end());
            violations.add(format!("/index_options/{name}"), message);
        }
        fitting
    };
    let m = whole("m", draft.m, IndexOptions::M);
    let ef_construction = whole("ef_construction", draft.ef_construction, IndexOptions::EF_CONSTRUCTION);
    let code_bits = match &draft.code_bits {
        None => Ok(None),
        Some(CodeBits::Word(word)) if word == "auto" => Ok(None),
        Some(CodeBits::Word(word)) => {
            Err(format!("code_bits is {}, must be 1, 4, 8 or \"auto\"", quoted(word)))
        }
        Some(CodeBits::Bits(bits)) => IndexOptions::codes_of(*bits).map(Some),
    };
    let code_bits = code_bits.unwrap_or_else(|why| {
        violations.add("/index_options/code_bits", why);
        None
    });
    // As it is stored: a number just outside may round to the bound.
    let alpha = draft.alpha.map(|alpha| alpha as f32);
    if let Some(given) = draft.alpha.filter(|alpha| !IndexOptions::ALPHA.contains(alpha)) {
        let (least, most) = (IndexOptions::ALPHA.start(), IndexOptions::ALPHA.end());
        violations.add("/index_options/alpha", format!("alpha is {given}, must be {least} to {most}"));
        return IndexOptions { m, ef_construction, code_bits, alpha: None };
    }
    IndexOptions { m, ef_construction, code_bits, alpha }
}
