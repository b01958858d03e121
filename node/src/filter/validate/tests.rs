//! Rules of filters: each broken one is told, with its place.

use super::*;

fn field(key: &str, change: impl FnOnce(&mut ConditionDraft)) -> ConditionDraft {
    let mut draft = ConditionDraft { key: Some(key.to_owned()), ..ConditionDraft::default() };
    change(&mut draft);
    draft
}

fn exists() -> ConditionDraft {
    field("a", |draft| draft.exists = Some(true))
}

fn must(must: Vec<ConditionDraft>) -> FilterDraft {
    FilterDraft { must, ..FilterDraft::default() }
}

/// The only broken rule of a filter.
fn broken(draft: FilterDraft) -> (String, String) {
    let mut all = draft.validate("/filter").expect_err("a broken rule");
    assert_eq!(all.len(), 1, "{all:?}");
    let Violation { pointer, message } = all.remove(0);
    (pointer, message)
}

#[test]
fn a_filter_has_so_many_conditions_and_levels_and_no_more() {
    let many = |count: usize| must(vec![exists(); count]);
    assert!(many(CONDITIONS_MAX).validate("/filter").is_ok());
    let (pointer, message) = broken(many(CONDITIONS_MAX + 1));
    assert_eq!((pointer.as_str(), message.as_str()), ("/filter", "filter has more than 1000 conditions"));
    let inside =
        ConditionDraft { filter: Some(Box::new(many(CONDITIONS_MAX - 1))), ..ConditionDraft::default() };
    assert!(must(vec![inside.clone()]).validate("").is_ok());
    assert_eq!(broken(must(vec![inside, exists()])).0, "/filter");

    let deeper = |filter: FilterDraft| {
        must(vec![ConditionDraft { filter: Some(Box::new(filter)), ..ConditionDraft::default() }])
    };
    let nested = |filter: FilterDraft| {
        let nested = NestedDraft { key: Some("a".to_owned()), filter: Some(filter) };
        must(vec![ConditionDraft { nested: Some(Box::new(nested)), ..ConditionDraft::default() }])
    };
    let deep = |levels: usize| (1..levels).fold(FilterDraft::default(), |inner, _| deeper(inner));
    assert!(deep(DEPTH_MAX).validate("").is_ok());
    let (pointer, message) = broken(deep(DEPTH_MAX + 1));
    assert_eq!(message, "filter is nested deeper than 32 levels");
    assert_eq!(pointer, format!("/filter{}", "/must/0".repeat(DEPTH_MAX)));
    let nest = |levels: usize| (0..levels).fold(FilterDraft::default(), |inner, _| nested(inner));
    assert!(nest(15).validate("").is_ok());
    assert!(nest(16).validate("").is_err());
}

#[test]
fn a_list_has_so_many_values_and_no_more() {
    let list = |count: usize| {
        let any = Some((0..count as i128).map(ScalarDraft::Integer).collect());
        must(vec![field("a", |draft| draft.matches = Some(MatchDraft { any, ..MatchDraft::default() }))])
    };
    assert!(list(VALUES_MAX).validate("").is_ok());
    assert_eq!(
        broken(list(VALUES_MAX + 1)),
        ("/filter/must/0/match/any".to_owned(), "list has more than 10000 values".to_owned(),)
    );
}

fn nested(own_key: Option<&str>, key: Option<&str>, has_filter: bool) -> ConditionDraft {
    let filter = has_filter.then(FilterDraft::default);
    let nested = NestedDraft { key: key.map(str::to_owned), filter };
    let key = own_key.map(str::to_owned);
    ConditionDraft { key, nested: Some(Box::new(nested)), ..ConditionDraft::default() }
}

#[test]
fn every_broken_rule_is_told_with_its_place() {
    let range = |range: RangeDraft| field("a", |draft| draft.range = Some(range));
    let number = || Some(ScalarDraft::Integer(1));
    let text = |text: &str| Some(ScalarDraft::Text(text.to_owned()));
    let point = |lat: f64, lon: f64| Some(GeoPointDraft { lat: Some(lat), lon: Some(lon) });
    let geo_box = |top_left, bottom_right| {
        field("a", |draft| draft.geo_box = Some(GeoBoxDraft { top_left, bottom_right }))
    };
    let circle =
        |center, radius_m| field("a", |draft| draft.geo_radius = Some(GeoCircleDraft { center, radius_m }));
    let matches = |matches: MatchDraft| field("a", |draft| draft.matches = Some(matches));
    let bad: Vec<(ConditionDraft, &str)> = vec![
        (ConditionDraft::default(), ""),
        (field("a", |_| {}), ""),
        (field("", |draft| draft.exists = Some(true)), "/key"),
        (field("a..b", |draft| draft.exists = Some(true)), "/key"),
        (field("a", |draft| (draft.exists, draft.is_null) = (Some(true), Some(false))), ""),
        (field("a", |draft| draft.filter = Some(Box::default())), "/key"),
        (nested(Some("a"), Some("b"), true), "/key"),
        (nested(None, Some("b"), false), "/nested/filter"),
        (nested(None, None, true), "/nested/key"),
        (matches(MatchDraft::default()), "/match"),
        (matches(MatchDraft { value: number(), any: Some(Vec::new()), except: None }), "/match"),
        (
            matches(MatchDraft { value: Some(ScalarDraft::Double(f64::NAN)), ..MatchDraft::default() }),
            "/match/value",
        ),
        (
            matches(MatchDraft {
                except: Some(vec![ScalarDraft::Bool(true), ScalarDraft::Nothing]),
                ..MatchDraft::default()
            }),
            "/match/except/1",
        ),
        (range(RangeDraft::default()), "/range"),
        (range(RangeDraft { gt: number(), gte: number(), ..RangeDraft::default() }), "/range/gte"),
        (range(RangeDraft { lt: number(), lte: number(), ..RangeDraft::default() }), "/range/lte"),
        (range(RangeDraft { gt: number(), lt: text("2024-05-01"), ..RangeDraft::default() }), "/range"),
        (range(RangeDraft { gt: text("yesterday"), ..RangeDraft::default() }), "/range/gt"),
        (range(RangeDraft { lte: Some(ScalarDraft::Bool(true)), ..RangeDraft::default() }), "/range/lte"),
        (
            range(RangeDraft { lt: Some(ScalarDraft::Double(f64::INFINITY)), ..RangeDraft::default() }),
            "/range/lt",
        ),
        (circle(None, Some(1.0)), "/geo_radius/center"),
        (circle(point(0.0, 0.0), None), "/geo_radius/radius_m"),
        (circle(point(0.0, 0.0), Some(-1.0)), "/geo_radius/radius_m"),
        (circle(point(0.0, 0.0), Some(f64::NAN)), "/geo_radius/radius_m"),
        (circle(point(91.0, 0.0), Some(1.0)), "/geo_radius/center/lat"),
        (geo_box(point(0.0, 181.0), point(0.0, 0.0)), "/geo_box/top_left/lon"),
        (
            geo_box(point(0.0, 0.0), Some(GeoPointDraft { lat: Some(0.0), lon: None })),
            "/geo_box/bottom_right/lon",
        ),
        (geo_box(point(0.0, 0.0), point(1.0, 0.0)), "/geo_box"),
    ];
    for (draft, place) in &bad {
        let (pointer, message) = broken(must(vec![exists(), draft.clone()]));
        assert_eq!(pointer, format!("/filter/must/1{place}"), "{draft:?}: {message}");
    }
    let all =
        FilterDraft { should: bad.into_iter().map(|(draft, _)| draft).collect(), ..FilterDraft::default() };
    assert_eq!(all.validate("/filter").expect_err("broken").len(), 28, "all at once");
}
