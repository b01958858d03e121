//! An index gives what reading every row gives.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::filter::{
    Condition, ConditionDraft, Filter, FilterDraft, MatchDraft, Matcher, ScalarDraft, strategies,
};

fn build(fields: &IndexedFields, texts: &[String]) -> FieldIndexes {
    let metadata = |row: u32| texts[row as usize].as_bytes();
    FieldIndexes::build(fields, texts.len() as u32, metadata)
}

fn kind() -> impl Strategy<Value = FieldKind> {
    prop::sample::select(&FieldKind::ALL[..])
}

fn texts(objects: &[Map<String, Value>]) -> Vec<String> {
    objects.iter().map(|object| serde_json::to_string(object).expect("JSON")).collect()
}

/// The keys that a filter asks for.
fn keys(filter: &Filter, into: &mut Vec<KeyPath>) {
    for condition in filter.must().iter().chain(filter.should()).chain(filter.must_not()) {
        match condition {
            Condition::Field(key, _) => into.push(key.clone()),
            Condition::Nested(_, _) => {}
            Condition::Filter(filter) => keys(filter, into),
        }
    }
}

fn check(indexes: &FieldIndexes, filter: Filter, texts: &[String]) -> Result<(), TestCaseError> {
    let matcher = Matcher::new(Arc::new(filter));
    let mut selection = indexes.select(matcher.filter());
    let metadata = |row: u32| texts[row as usize].as_bytes();
    let mut passing = 0;
    for row in 0..texts.len() as u32 {
        let expected = matcher.matches(metadata(row));
        passing += u64::from(expected);
        let text = &texts[row as usize];
        prop_assert_eq!(selection.passes(row, || metadata(row)), expected, "{}", text);
        let is_possible = selection.possible().contains(row);
        prop_assert_eq!(is_possible && selection.passes_possible(row, || metadata(row)), expected);
        prop_assert!(!selection.sure().contains(row) || expected);
    }
    if selection.is_exact() {
        prop_assert_eq!(selection.possible().len(), passing);
    }
    let estimate = selection.estimate(metadata);
    prop_assert!((selection.sure().len()..=selection.possible().len()).contains(&estimate));
    selection.resolve(metadata);
    prop_assert!(selection.is_exact());
    prop_assert_eq!(selection.estimate(metadata), passing);
    prop_assert_eq!(selection.report(passing, Duration::ZERO).how, Applied::Index);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_filter_means_the_same_with_indexes(
        objects in prop::collection::vec(strategies::object(), 0..25),
        filter in strategies::filter(),
        kinds in prop::collection::vec(prop::option::weighted(0.8, kind()), 30),
    ) {
        let mut asked = Vec::new();
        keys(&filter, &mut asked);
        let fields = asked.into_iter().zip(kinds).filter_map(|(key, kind)| Some((key, kind?))).collect();
        let texts = texts(&objects);
        check(&build(&fields, &texts), filter, &texts)?;
    }

    #[test]
    fn each_test_means_the_same_with_each_kind(
        objects in prop::collection::vec(strategies::object(), 0..25),
        key in strategies::key(),
        test in strategies::test(),
        kind in kind(),
    ) {
        let fields = [(key.clone(), kind)].into();
        let texts = texts(&objects);
        let filter = Filter { must: vec![Condition::Field(key, test)], ..Filter::default() };
        check(&build(&fields, &texts), filter, &texts)?;
    }
}

fn path(text: &str) -> KeyPath {
    KeyPath::parse(text).expect("a path")
}

fn any_of(key: &str, any: &[&str]) -> ConditionDraft {
    let any = any.iter().map(|text| ScalarDraft::Text((*text).to_owned())).collect();
    let matches = Some(MatchDraft { any: Some(any), ..MatchDraft::default() });
    ConditionDraft { key: Some(key.to_owned()), matches, ..ConditionDraft::default() }
}

/// Rows `0`, `1`, …: three sections in turn, a number, a name of its own.
fn packages(rows: u32) -> Vec<String> {
    let package = |row: u32| {
        let section = ["libs", "doc", "net"][row as usize % 3];
        json!({"section": section, "size": row, "name": format!("package-{row}")})
    };
    (0..rows).map(|row| package(row).to_string()).collect()
}

#[test]
fn homogeneous_fields_are_answered_exactly() {
    let texts = packages(10_000);
    let fields =
        [("section", FieldKind::Keyword), ("size", FieldKind::Integer), ("name", FieldKind::Keyword)];
    let fields = fields.into_iter().map(|(key, kind)| (path(key), kind)).collect();
    let indexes = build(&fields, &texts);
    let below = crate::filter::RangeDraft { lt: Some(ScalarDraft::Double(100.5)), ..Default::default() };
    let size = ConditionDraft { key: Some("size".to_owned()), range: Some(below), ..Default::default() };
    let filter = FilterDraft {
        must: vec![size, any_of("section", &["libs", "doc"])],
        must_not: vec![any_of("name", &["package-3", "package-4", "package-5", "none"])],
        ..FilterDraft::default()
    };
    let selection = indexes.select(&filter.validate("").expect("a filter"));
    assert!(selection.is_exact());
    assert_eq!(selection.possible().len(), 68 - 2, "rows 0 to 100 but the third ones, 3 and 4");
    let report = selection.report(66, Duration::ZERO);
    assert_eq!((report.how, report.rows, report.unindexed.len()), (Applied::Index, 10_000, 0));
}

#[test]
fn what_no_index_answers_is_read_in_few_rows() {
    let texts = packages(9_000);
    let indexes = build(&[(path("section"), FieldKind::Keyword)].into(), &texts);
    let filter = FilterDraft {
        must: vec![any_of("section", &["doc"]), any_of("name", &["package-1", "package-2"])],
        ..FilterDraft::default()
    };
    let selection = indexes.select(&filter.validate("").expect("a filter"));
    assert_eq!((selection.sure().len(), selection.possible().len()), (0, 3_000));
    let rest = selection.rest_filter().expect("something is left");
    assert_eq!(rest.must().len(), 1, "the section is known: {rest:?}");
    let report = selection.report(selection.estimate(|row| texts[row as usize].as_bytes()), Duration::ZERO);
    assert_eq!((report.how, report.unindexed), (Applied::IndexAndMetadata, vec![path("name")]));
    let nothing = build(&IndexedFields::new(), &texts);
    let filter = FilterDraft { must: vec![any_of("name", &["x"])], ..FilterDraft::default() };
    let selection = nothing.select(&filter.validate("").expect("a filter"));
    assert_eq!(selection.report(0, Duration::ZERO).how, Applied::Metadata);
}

#[test]
fn indexes_are_built_in_steps_and_change_one_by_one() {
    let texts = packages(10);
    let metadata = |row: u32| texts[row as usize].as_bytes();
    let section: IndexedFields = [(path("section"), FieldKind::Keyword)].into();
    let both: IndexedFields = section.clone().into_iter().chain([(path("size"), FieldKind::Float)]).collect();
    let mut builder = FieldIndexesBuilder::new(&both, 10);
    assert!(builder.step(metadata).is_none(), "reads the rows");
    assert!(builder.step(metadata).is_none(), "finishes a field");
    let built = builder.step(metadata).expect("the last step");
    let mut indexes = FieldIndexes::none(10);
    assert_eq!(indexes.missing(&both), both);
    indexes.take_over(built);
    assert!(indexes.missing(&both).is_empty() && indexes.only(&both).is_none());
    let other: IndexedFields =
        [(path("section"), FieldKind::Keyword), (path("size"), FieldKind::Integer)].into();
    let missing = indexes.missing(&other);
    assert_eq!(missing, [(path("size"), FieldKind::Integer)].into(), "another type is another index");
    assert!(indexes.only(&other).is_none(), "which the old one stands for until it is there");
    indexes.take_over(build(&missing, &texts));
    assert_eq!((indexes.missing(&other).len(), indexes.missing(&both).len()), (0, 1));
    let indexes = indexes.only(&section).expect("one is not wanted");
    assert!(indexes.missing(&section).is_empty() && indexes.missing(&both).len() == 1);
    assert!(indexes.only(&IndexedFields::new()).expect("none is wanted").is_empty());
}

#[test]
fn a_step_reads_so_many_rows_and_so_many_bytes_and_no_more() {
    let fields: IndexedFields = [(path("section"), FieldKind::Keyword)].into();
    // Four of the large ones fill a step.
    let (small, large) = (json!({"section": "a"}).to_string(), "x".repeat(1 << 20));
    let large = json!({"section": "a", "filler": large}).to_string();
    for (text, rows, expected) in
        [(&small, 3 * STEP_ROWS, 3), (&small, 3 * STEP_ROWS + 1, 4), (&large, 12, 3)]
    {
        let mut builder = FieldIndexesBuilder::new(&fields, rows);
        let mut steps = 1;
        let built = loop {
            if let Some(built) = builder.step(|_| text.as_bytes()) {
                break built;
            }
            steps += 1;
        };
        assert_eq!(steps, expected + 1, "the last one finishes the field");
        let filter = FilterDraft { must: vec![any_of("section", &["a"])], ..FilterDraft::default() };
        let selection = built.select(&filter.validate("").expect("a filter"));
        assert_eq!(selection.sure().len(), u64::from(rows));
    }
    assert!(FieldIndexes::build(&fields, 0, |_| unreachable!("no row")).missing(&fields).is_empty());
    assert!(FieldIndexes::build(&IndexedFields::new(), 3, |_| small.as_bytes()).is_empty());
}

#[test]
fn values_that_cannot_be_read_are_neither_equal_to_others_nor_different() {
    let texts = [r#"{"a":1e999}"#, r#"{"a":"\ud800"}"#, r#"{"a":-}"#, r#"{"a":"b"}"#, r#"{"a":2}"#];
    let texts = texts.map(str::to_owned);
    let except = |values: Vec<ScalarDraft>| {
        let matches = Some(MatchDraft { except: Some(values), ..MatchDraft::default() });
        let condition = ConditionDraft { key: Some("a".to_owned()), matches, ..ConditionDraft::default() };
        FilterDraft { must: vec![condition], ..FilterDraft::default() }.validate("").expect("a filter")
    };
    for kind in FieldKind::ALL {
        let indexes = build(&[(path("a"), kind)].into(), &texts);
        for values in [vec![ScalarDraft::Bool(true)], vec![ScalarDraft::Text("b".to_owned())]] {
            check(&indexes, except(values), &texts).expect("as without an index");
        }
    }
}

#[test]
fn texts_without_room_are_read() {
    let texts = ["2024-05-01T00:00:00Z", "2023-05-01T00:00:00Z", "x"].map(|at| json!({"at": at}).to_string());
    let mut builder = FieldIndexesBuilder::new(&[(path("at"), FieldKind::Keyword)].into(), 3);
    builder.fields[0].2 = FieldBuilder::without_room();
    let indexes = loop {
        if let Some(indexes) = builder.step(|row| texts[row as usize].as_bytes()) {
            break indexes;
        }
    };
    let from = ScalarDraft::Text("2024-01-01T00:00:00Z".to_owned());
    let range = crate::filter::RangeDraft { gte: Some(from), ..Default::default() };
    let after = ConditionDraft { key: Some("at".to_owned()), range: Some(range), ..Default::default() };
    for condition in [after, any_of("at", &["x"])] {
        let filter = FilterDraft { must: vec![condition], ..FilterDraft::default() };
        check(&indexes, filter.validate("").expect("a filter"), &texts).expect("as without an index");
    }
}

#[test]
fn a_report_names_keys_whose_index_is_for_something_else() {
    let texts = packages(300);
    let unindexed = |kind: FieldKind, condition: ConditionDraft| {
        let filter = FilterDraft { must: vec![condition], ..FilterDraft::default() };
        let indexes = build(&[(path("size"), kind)].into(), &texts);
        indexes.select(&filter.validate("").expect("a filter")).report(0, Duration::ZERO).unindexed
    };
    let range = || crate::filter::RangeDraft { lt: Some(ScalarDraft::Double(9.5)), ..Default::default() };
    let below =
        || ConditionDraft { key: Some("size".to_owned()), range: Some(range()), ..Default::default() };
    assert_eq!(unindexed(FieldKind::Keyword, below()), [path("size")]);
    assert_eq!(unindexed(FieldKind::Integer, below()), []);
    assert_eq!(unindexed(FieldKind::Keyword, any_of("size", &["9"])), []);
    assert_eq!(unindexed(FieldKind::Integer, any_of("size", &["9"])), [], "no size is a text");
}

#[test]
fn a_report_names_few_keys() {
    let must = (0..100).map(|key| any_of(&format!("k{key}"), &["x"])).collect();
    let filter = FilterDraft { must, ..FilterDraft::default() };
    let selection = FieldIndexes::none(3).select(&filter.validate("").expect("a filter"));
    assert_eq!(selection.report(0, Duration::ZERO).unindexed.len(), UNINDEXED_MAX);
}

#[test]
fn indexes_cost_few_bytes_a_row() {
    let rows = 65_536;
    let texts = packages(rows);
    let bytes = |key: &str, kind: FieldKind| {
        build(&[(path(key), kind)].into(), &texts).bytes() as f64 / f64::from(rows)
    };
    // Of few terms a bit for each and every row, of many their text and two numbers.
    assert!(bytes("section", FieldKind::Keyword) < 0.4, "{}", bytes("section", FieldKind::Keyword));
    assert!(bytes("name", FieldKind::Keyword) < 13.0 + 16.0, "{}", bytes("name", FieldKind::Keyword));
    // Value and row, and before each of the parts a set of half of all rows on average.
    assert!(bytes("size", FieldKind::Integer) < 12.0 + 2.1, "{}", bytes("size", FieldKind::Integer));
}
