//! Objects and filters at random, from few names and values, so that they meet.

use std::ops::Bound;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    Condition, DateTime, Filter, GeoBox, GeoCircle, GeoPoint, KeyPath, Number, Range, Scalar, Test, Values,
};

const NAMES: [&str; 6] = ["a", "b", "c", "a.b", "lat", "\"\\\né"];
/// Longer than what indexes hold.
const LONG: &str = match std::str::from_utf8(&[b'x'; 300]) {
    Ok(text) => text,
    Err(_) => "never",
};
const TEXTS: [&str; 9] =
    ["", "x", LONG, "y", "\"q\\", "é\n", "2024-05-01", "2024-05-01T12:00:00.5Z", "2024-06-01T00:00:00+02:00"];

/// Metadata.
pub(crate) fn object() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        3 => number().prop_map(|number| match number {
            Number::Integer(whole) => i64::try_from(whole).map_or_else(|_| json!(whole as u64), |whole| json!(whole)),
            Number::Double(value) => json!(value),
        }),
        1 => (-3i32..4).prop_map(|whole| json!(f64::from(whole))),
        3 => prop::sample::select(&TEXTS[..]).prop_map(Value::from),
        1 => point().prop_map(|point| json!({"lat": point.lat, "lon": point.lon})),
        1 => (-200i32..200).prop_map(|lat| json!({"lon": 0, "lat": lat, "more": [1]})),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            fields(inner).prop_map(Value::from),
        ]
    });
    fields(value)
}

fn fields(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((prop::sample::select(&NAMES[..]), value), 0..5)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A path; one without steps through arrays is the more likely one.
pub(crate) fn key() -> impl Strategy<Value = KeyPath> {
    let part = (prop::sample::select(&NAMES[..]), prop_oneof![4 => Just(0usize), 2 => Just(1), 1 => Just(2)]);
    prop::collection::vec(part, 1..4).prop_map(|parts| {
        let texts = parts.into_iter().map(|(name, each)| {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{quoted}\"{}", "[]".repeat(each))
        });
        KeyPath::parse(&texts.collect::<Vec<_>>().join(".")).expect("a path")
    })
}

pub(crate) fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        6 => (-3i64..4).prop_map(Number::from),
        2 => (-6i32..7).prop_map(|x| Number::from_f64(f64::from(x) / 2.0).expect("finite")),
        1 => any::<i64>().prop_map(Number::from),
        1 => any::<u64>().prop_map(Number::from),
        1 => prop::sample::select(&[1e300, -1e300, 9_007_199_254_740_992.0, 1.8e19, 1e-300][..])
            .prop_map(|x| Number::from_f64(x).expect("finite")),
        1 => Just(Number::from(9_007_199_254_740_993i64)),
    ]
}

fn date_time() -> impl Strategy<Value = DateTime> {
    prop::sample::select(&TEXTS[6..]).prop_map(|text| DateTime::parse(text).expect("a date-time"))
}

fn point() -> impl Strategy<Value = GeoPoint> {
    let degrees = |most: i32| prop_oneof![4 => (-most..=most).prop_map(f64::from), 1 => prop::sample::select(vec![-f64::from(most), f64::from(most)])];
    (degrees(90), degrees(180)).prop_map(|(lat, lon)| GeoPoint::new(lat, lon).expect("a place"))
}

fn values() -> impl Strategy<Value = Values> {
    let scalar = prop_oneof![
        prop::sample::select(&TEXTS[..]).prop_map(|text| Scalar::Text(text.into())),
        number().prop_map(Scalar::Number),
        any::<bool>().prop_map(Scalar::Bool),
    ];
    prop::collection::vec(scalar, 0..14).prop_map(Values::new)
}

fn range<T: Clone + std::fmt::Debug>(
    end: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Range<T>> {
    let bound = || {
        prop_oneof![
            end.clone().prop_map(Bound::Included),
            end.clone().prop_map(Bound::Excluded),
            Just(Bound::Unbounded),
        ]
    };
    let bounded =
        |range: &Range<T>| !matches!((&range.from, &range.to), (Bound::Unbounded, Bound::Unbounded));
    (bound(), bound()).prop_map(|(from, to)| Range { from, to }).prop_filter("bounded", bounded)
}

pub(crate) fn test() -> impl Strategy<Value = Test> {
    let circle = (point(), prop_oneof![Just(0.0), 1e3..2e7]);
    let area = (point(), point()).prop_map(|(a, b)| GeoBox {
        top_left: GeoPoint { lat: a.lat.max(b.lat), ..a },
        bottom_right: GeoPoint { lat: a.lat.min(b.lat), ..b },
    });
    prop_oneof![
        4 => values().prop_map(Test::Match),
        2 => values().prop_map(Test::Except),
        4 => range(number().boxed()).prop_map(Test::Numbers),
        2 => range(date_time().boxed()).prop_map(Test::DateTimes),
        2 => any::<bool>().prop_map(Test::Exists),
        2 => any::<bool>().prop_map(Test::IsNull),
        1 => circle.prop_map(|(center, radius_m)| Test::GeoCircle(GeoCircle { center, radius_m })),
        1 => area.prop_map(Test::GeoBox),
    ]
}

/// A filter of some conditions.
pub(crate) fn filter() -> impl Strategy<Value = Filter> {
    let condition = (key(), test()).prop_map(|(key, test)| Condition::Field(key, test));
    let condition = condition.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            lists(inner.clone()).prop_map(Condition::Filter),
            (key(), lists(inner)).prop_map(|(key, filter)| Condition::Nested(key, filter)),
        ]
    });
    lists(condition)
}

fn lists(condition: impl Strategy<Value = Condition> + Clone) -> impl Strategy<Value = Filter> {
    let list = || prop::collection::vec(condition.clone(), 0..3);
    (list(), list(), list()).prop_map(|(must, should, must_not)| Filter { must, should, must_not })
}
