//! What filters mean, slow and obvious, on parsed JSON, and how they are written. Tests and fuzzing compare with it.

use std::ops::Bound;

use serde_json::{Map, Value, json};

use super::{Condition, DateTime, Filter, GeoPoint, Number, Range, Scalar, Step, Test, Values};

/// True when the object passes the filter.
pub(crate) fn passes(filter: &Filter, object: &Map<String, Value>) -> bool {
    let holds = |condition: &Condition| holds(condition, object);
    filter.must.iter().all(holds)
        && (filter.should.is_empty() || filter.should.iter().any(holds))
        && !filter.must_not.iter().any(holds)
}

fn holds(condition: &Condition, object: &Map<String, Value>) -> bool {
    match condition {
        Condition::Filter(filter) => passes(filter, object),
        Condition::Nested(key, filter) => values(key.steps(), object)
            .iter()
            .any(|value| value.as_object().is_some_and(|inner| passes(filter, inner))),
        Condition::Field(key, test) => {
            let values = values(key.steps(), object);
            let some = |wanted: &dyn Fn(&Value) -> bool| values.iter().any(|value| wanted(value));
            match test {
                Test::Match(list) => some(&|value| is_in(list, value) == Some(true)),
                Test::Except(list) => some(&|value| is_in(list, value) == Some(false)),
                Test::Numbers(range) => {
                    some(&|value| number(value).is_some_and(|number| range.contains(&number)))
                }
                Test::DateTimes(range) => some(&|value| {
                    value.as_str().and_then(DateTime::parse).is_some_and(|point| range.contains(&point))
                }),
                Test::Exists(wanted) => some(&|value| !value.is_null()) == *wanted,
                Test::IsNull(wanted) => some(&|value| value.is_null()) == *wanted,
                Test::GeoCircle(circle) => {
                    some(&|value| place(value).is_some_and(|place| circle.contains(place)))
                }
                Test::GeoBox(area) => some(&|value| place(value).is_some_and(|place| area.contains(place))),
            }
        }
    }
}

/// The values that a path reaches; an array at its end stands for its elements.
fn values<'v>(steps: &[Step], object: &'v Map<String, Value>) -> Vec<&'v Value> {
    let whole: Vec<&Value> = match &steps[0] {
        Step::Field(name) => object.get(&**name).into_iter().collect(),
        Step::Each => Vec::new(),
    };
    let reached = steps[1..].iter().fold(whole, |values, step| {
        let next = values.into_iter().flat_map(|value| match step {
            Step::Field(name) => {
                value.get(&**name).filter(|_| value.is_object()).into_iter().collect::<Vec<_>>()
            }
            Step::Each => value.as_array().map(|items| items.iter().collect()).unwrap_or_default(),
        });
        next.collect::<Vec<&Value>>()
    });
    let elements = reached.into_iter().flat_map(|value| match value {
        Value::Array(items) => items.iter().collect(),
        value => vec![value],
    });
    elements.collect()
}

fn is_in(values: &Values, value: &Value) -> Option<bool> {
    match value {
        Value::String(text) => Some(values.texts().iter().any(|known| **known == **text)),
        Value::Bool(word) => Some(values.has_bool(*word)),
        Value::Number(_) => number(value).map(|number| values.numbers().contains(&number)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn number(value: &Value) -> Option<Number> {
    let number = value.as_number()?;
    match (number.as_i64(), number.as_u64()) {
        (Some(whole), _) => Some(Number::from(whole)),
        (None, Some(whole)) => Some(Number::from(whole)),
        (None, None) => number.as_f64().and_then(Number::from_f64),
    }
}

fn place(value: &Value) -> Option<GeoPoint> {
    let object = value.as_object()?;
    GeoPoint::new(object.get("lat")?.as_f64()?, object.get("lon")?.as_f64()?)
}

/// A filter as REST takes it.
pub(crate) fn to_json(filter: &Filter) -> Value {
    let list = |conditions: &[Condition]| conditions.iter().map(condition_to_json).collect::<Vec<Value>>();
    let Filter { must, should, must_not } = filter;
    json!({"must": list(must), "should": list(should), "must_not": list(must_not)})
}

fn condition_to_json(condition: &Condition) -> Value {
    let (key, test) = match condition {
        Condition::Filter(filter) => return to_json(filter),
        Condition::Nested(key, filter) => {
            return json!({"nested": {"key": key.to_string(), "filter": to_json(filter)}});
        }
        Condition::Field(key, test) => (key.to_string(), test),
    };
    let list = |values: &Values| values.scalars().map(scalar_to_json).collect::<Vec<Value>>();
    let point = |point: GeoPoint| json!({"lat": point.lat, "lon": point.lon});
    let number = |number: Number| scalar_to_json(Scalar::Number(number));
    let (name, value) = match test {
        Test::Match(values) => ("match", json!({"any": list(values)})),
        Test::Except(values) => ("match", json!({"except": list(values)})),
        Test::Numbers(range) => ("range", range_to_json(range, number)),
        Test::DateTimes(range) => ("range", range_to_json(range, |point| json!(point.to_string()))),
        Test::Exists(wanted) => ("exists", json!(wanted)),
        Test::IsNull(wanted) => ("is_null", json!(wanted)),
        Test::GeoCircle(circle) => {
            ("geo_radius", json!({"center": point(circle.center), "radius_m": circle.radius_m}))
        }
        Test::GeoBox(area) => {
            ("geo_box", json!({"top_left": point(area.top_left), "bottom_right": point(area.bottom_right)}))
        }
    };
    json!({"key": key, name: value})
}

fn scalar_to_json(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Text(text) => json!(text),
        Scalar::Bool(word) => json!(word),
        Scalar::Number(Number::Double(value)) => json!(value),
        Scalar::Number(Number::Integer(whole)) => match i64::try_from(whole) {
            Ok(whole) => json!(whole),
            Err(_) => json!(u64::try_from(whole).expect("an integer of 64 bits")),
        },
    }
}

fn range_to_json<T: Copy>(range: &Range<T>, end: impl Fn(T) -> Value) -> Value {
    let mut bounds = Map::new();
    match range.from {
        Bound::Excluded(from) => drop(bounds.insert("gt".to_owned(), end(from))),
        Bound::Included(from) => drop(bounds.insert("gte".to_owned(), end(from))),
        Bound::Unbounded => {}
    }
    match range.to {
        Bound::Excluded(to) => drop(bounds.insert("lt".to_owned(), end(to))),
        Bound::Included(to) => drop(bounds.insert("lte".to_owned(), end(to))),
        Bound::Unbounded => {}
    }
    Value::Object(bounds)
}
