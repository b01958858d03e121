//! Random histories: small ones against the reference, large ones for the work that they take.

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::reference::has_an_order;
use super::world::{Style, World};
use crate::{Entry, History, Operation, Outcome, Seen, Value, Version, check};

fn history<'a>(documents: impl IntoIterator<Item = &'a [Entry]>) -> History {
    let mut history = History::default();
    for (number, entries) in documents.into_iter().enumerate() {
        for entry in entries {
            let op = history.invoke(entry.client, &format!("d{number}"), entry.operation, entry.invoked);
            if let Some(returned) = entry.returned {
                history.complete(op, entry.outcome, returned);
            }
        }
    }
    history
}

/// Gives one of the answered operations that `may_change` another outcome, if that fits.
fn mutate(entries: &mut [Entry], random: &mut SmallRng, may_change: impl Fn(Operation) -> bool) {
    let changeable: Vec<usize> = (0..entries.len())
        .filter(|index| entries[*index].returned.is_some() && may_change(entries[*index].operation))
        .collect();
    let Some(index) = changeable.choose(random) else { return };
    let version = Version(random.random_range(1..8));
    let named = random.random::<bool>().then_some(version);
    let outcome = match random.random_range(0..4) {
        0 => Outcome::Found(None),
        1 => Outcome::Found(Some(Seen { value: Value(random.random_range(1..4)), version: named })),
        2 => Outcome::Done(named),
        _ => Outcome::Mismatch(version),
    };
    if outcome.fits(entries[*index].operation) {
        entries[*index].outcome = outcome;
    }
}

/// Histories of few clients, with few operations where they go to the reference.
fn style(operations: std::ops::Range<u64>) -> impl Strategy<Value = Style> {
    let shares = (0.0..1.0, 0.0..1.0, 0.0..0.6, 0.0..0.8);
    (operations, 1u32..6, prop::option::of(1u64..4), shares).prop_map(
        |(operations, clients, values, shares)| {
            let (named_reads, named_changes, lost, guarded) = shares;
            Style { operations, clients, values, named_reads, named_changes, lost, guarded }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_one_register_answered_is_accepted(seed: u64, style in style(1..60)) {
        let entries = World::play(seed, style);
        let verdict = check(&history([entries.as_slice()]));
        prop_assert!(verdict.is_ok(), "{}", verdict.expect_err("not accepted"));
    }

    #[test]
    fn one_wrong_read_is_refused_exactly_when_no_order_explains_it(seed: u64, style in style(1..9)) {
        let mut entries = World::play(seed, style);
        mutate(&mut entries, &mut SmallRng::seed_from_u64(seed), |operation| operation == Operation::Read);
        prop_assert_eq!(check(&history([entries.as_slice()])).is_ok(), has_an_order(&entries));
    }

    /// The refused beginning is the shortest one: without its last answer there is an order.
    #[test]
    fn wrong_answers_are_refused_exactly_when_no_order_explains_them(seed: u64, style in style(1..9)) {
        let mut entries = World::play(seed, style);
        let mut random = SmallRng::seed_from_u64(seed);
        (0..3).for_each(|_| mutate(&mut entries, &mut random, |_| true));
        let verdict = check(&history([entries.as_slice()]));
        prop_assert_eq!(verdict.is_ok(), has_an_order(&entries));
        if let Err(violation) = verdict {
            prop_assert!(!has_an_order(&violation.entries));
            let last = violation.entries.iter().filter_map(|entry| entry.returned).max().expect("an answer");
            let before = violation.entries.iter().filter_map(|entry| entry.known_at(last - 1));
            prop_assert!(has_an_order(&before.collect::<Vec<_>>()));
        }
    }
}

/// 64 clients on 50 documents, one answer in ten lost.
const BUSY: Style = Style {
    operations: 200,
    clients: 64,
    values: None,
    named_reads: 1.0,
    named_changes: 1.0,
    lost: 0.1,
    guarded: 0.2,
};

fn busy_documents(style: Style) -> Vec<Vec<Entry>> {
    (0..50).map(|seed| World::play(seed, style)).collect()
}

/// How much is told: everything; what reads and conditions tell; nothing.
fn tellings() -> [Style; 3] {
    [
        BUSY,
        Style { named_changes: 0.0, ..BUSY },
        Style { named_reads: 0.0, named_changes: 0.0, guarded: 0.0, ..BUSY },
    ]
}

#[test]
fn many_clients_take_work_in_proportion_to_their_operations() {
    for style in tellings().into_iter().chain([Style { operations: 12_800, ..BUSY }]) {
        let documents = busy_documents(style);
        let documents = &documents[..if style.operations > 200 { 2 } else { 50 }];
        let stats = check(&history(documents.iter().map(Vec::as_slice))).expect("played");
        assert!(stats.places < 4 * stats.operations, "{stats:?} {style:?}");
    }
}

#[test]
fn a_wrong_read_among_many_clients_is_found() {
    for style in tellings() {
        for (seed, mut entries) in busy_documents(style).into_iter().enumerate() {
            entries.sort_by_key(|entry| entry.invoked);
            let is_seen = |entry: &Entry| matches!(entry.outcome, Outcome::Found(Some(_)));
            let first = entries.iter().copied().find(is_seen).expect("a read");
            let last = entries.iter_mut().rfind(|entry| is_seen(entry)).expect("a read");
            // The document was overwritten often since then.
            last.outcome = first.outcome;
            let last = *last;
            let violation = check(&history([entries.as_slice()])).expect_err("a stale read");
            assert!(violation.entries.contains(&last), "{seed} {style:?}");
        }
    }
}
