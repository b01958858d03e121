//! Histories that people wrote, with what is right or wrong in each.

use std::collections::BTreeSet;

use super::reference::has_an_order;
use crate::{History, check};

const FILES: [(&str, &str); 8] = [
    ("reads_and_writes", include_str!("../../tests/histories/reads_and_writes.txt")),
    ("stale_reads", include_str!("../../tests/histories/stale_reads.txt")),
    ("deletes", include_str!("../../tests/histories/deletes.txt")),
    ("unknown", include_str!("../../tests/histories/unknown.txt")),
    ("conditions", include_str!("../../tests/histories/conditions.txt")),
    ("versions", include_str!("../../tests/histories/versions.txt")),
    ("overlaps", include_str!("../../tests/histories/overlaps.txt")),
    ("failover", include_str!("../../tests/histories/failover.txt")),
];
/// Operations up to which every order can be tried.
const FEW: usize = 8;

/// A history as it stands in a file.
struct Case {
    /// Where, and what it is about.
    name: String,
    is_legal: bool,
    history: History,
}

/// Cases are separated by empty lines and begin with `legal: what it is about` or `illegal: …`.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (file, text) in FILES {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for block in lines.split(|line| line.is_empty()).filter(|block| !block.is_empty()) {
            let (verdict, about) = block[0].split_once(": ").expect("a verdict and what it is about");
            let name = format!("{file}: {about}");
            assert!(["legal", "illegal"].contains(&verdict), "{name}");
            let mut history = History::default();
            history.parse("d", &block[1..].join("\n")).unwrap_or_else(|error| panic!("{name}: {error}"));
            cases.push(Case { name, is_legal: verdict == "legal", history });
        }
    }
    cases
}

#[test]
fn every_history_gets_the_verdict_that_its_author_gave() {
    for Case { name, is_legal, history } in cases() {
        assert_eq!(check(&history).is_ok(), is_legal, "{name}");
    }
}

#[test]
fn every_order_was_tried_for_the_short_ones() {
    for Case { name, is_legal, history } in cases() {
        let entries = history.entries("d");
        if entries.len() <= FEW {
            assert_eq!(has_an_order(entries), is_legal, "{name}");
        }
    }
}

#[test]
fn there_are_two_hundred_half_of_them_illegal() {
    let cases = cases();
    let legal = cases.iter().filter(|case| case.is_legal).count();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!((legal, cases.len() - legal, names.len()), (100, 100, 200));
}
