//! Filters as messages: of callers, which are drafts, and between nodes.

use std::ops::Bound;

use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::condition::Kind;

use super::draft::{
    ConditionDraft, FilterDraft, GeoBoxDraft, GeoCircleDraft, GeoPointDraft, MatchDraft, NestedDraft,
    RangeDraft, ScalarDraft,
};
use super::{Condition, Filter, GeoPoint, Number, Range, Scalar, Test, Values};

/// What a message says; nothing of it is checked yet.
pub fn draft(filter: proto::Filter) -> FilterDraft {
    let conditions = |list: Vec<proto::Condition>| list.into_iter().map(condition_draft).collect();
    let proto::Filter { must, should, must_not } = filter;
    FilterDraft { must: conditions(must), should: conditions(should), must_not: conditions(must_not) }
}

fn condition_draft(condition: proto::Condition) -> ConditionDraft {
    let mut draft = ConditionDraft { key: Some(condition.key), ..ConditionDraft::default() };
    match condition.kind {
        None => {}
        Some(Kind::Match(matches)) => draft.matches = Some(match_draft(matches)),
        Some(Kind::Range(range)) => draft.range = Some(range_draft(range)),
        Some(Kind::Exists(wanted)) => draft.exists = Some(wanted),
        Some(Kind::IsNull(wanted)) => draft.is_null = Some(wanted),
        Some(Kind::GeoRadius(circle)) => {
            let center = circle.center.map(point_draft);
            draft.geo_radius = Some(GeoCircleDraft { center, radius_m: Some(circle.radius_m) });
        }
        Some(Kind::GeoBox(area)) => {
            let (top_left, bottom_right) =
                (area.top_left.map(point_draft), area.bottom_right.map(point_draft));
            draft.geo_box = Some(GeoBoxDraft { top_left, bottom_right });
        }
        Some(Kind::Nested(nested)) => {
            let filter = nested.filter.map(self::draft);
            draft.nested = Some(Box::new(NestedDraft { key: Some(nested.key), filter }));
        }
        Some(Kind::Filter(filter)) => draft.filter = Some(Box::new(self::draft(filter))),
    }
    draft
}

fn match_draft(matches: proto::Match) -> MatchDraft {
    let list = |scalars: proto::Scalars| Some(scalars.values.into_iter().map(scalar_draft).collect());
    let nothing = MatchDraft::default();
    match matches.kind {
        None => nothing,
        Some(proto::r#match::Kind::Value(value)) => {
            MatchDraft { value: Some(scalar_draft(value)), ..nothing }
        }
        Some(proto::r#match::Kind::Any(any)) => MatchDraft { any: list(any), ..nothing },
        Some(proto::r#match::Kind::Except(except)) => MatchDraft { except: list(except), ..nothing },
    }
}

fn range_draft(range: proto::Range) -> RangeDraft {
    let proto::Range { gt, gte, lt, lte } = range;
    let [gt, gte, lt, lte] = [gt, gte, lt, lte].map(|bound| bound.map(scalar_draft));
    RangeDraft { gt, gte, lt, lte }
}

fn scalar_draft(scalar: proto::Scalar) -> ScalarDraft {
    match scalar.kind {
        None => ScalarDraft::Nothing,
        Some(proto::scalar::Kind::StringValue(text)) => ScalarDraft::Text(text),
        Some(proto::scalar::Kind::IntValue(whole)) => ScalarDraft::Integer(whole.into()),
        Some(proto::scalar::Kind::UintValue(whole)) => ScalarDraft::Integer(whole.into()),
        Some(proto::scalar::Kind::DoubleValue(value)) => ScalarDraft::Double(value),
        Some(proto::scalar::Kind::BoolValue(word)) => ScalarDraft::Bool(word),
    }
}

fn point_draft(point: proto::GeoPoint) -> GeoPointDraft {
    GeoPointDraft { lat: Some(point.lat), lon: Some(point.lon) }
}

/// The message of a filter; [`draft`] and validation make the same filter of it.
pub fn message(filter: &Filter) -> proto::Filter {
    let conditions = |list: &[Condition]| list.iter().map(condition_message).collect();
    let Filter { must, should, must_not } = filter;
    proto::Filter { must: conditions(must), should: conditions(should), must_not: conditions(must_not) }
}

fn condition_message(condition: &Condition) -> proto::Condition {
    let (key, kind) = match condition {
        Condition::Field(key, test) => (key.to_string(), test_message(test)),
        Condition::Nested(key, filter) => {
            let nested = proto::Nested { key: key.to_string(), filter: Some(message(filter)) };
            (String::new(), Kind::Nested(nested))
        }
        Condition::Filter(filter) => (String::new(), Kind::Filter(message(filter))),
    };
    proto::Condition { key, kind: Some(kind) }
}

fn test_message(test: &Test) -> Kind {
    let matches = |kind| Kind::Match(proto::Match { kind: Some(kind) });
    match test {
        Test::Match(values) => matches(proto::r#match::Kind::Any(scalars(values))),
        Test::Except(values) => matches(proto::r#match::Kind::Except(scalars(values))),
        Test::Numbers(range) => Kind::Range(range_message(range, |number| scalar(Scalar::Number(number)))),
        Test::DateTimes(range) => {
            Kind::Range(range_message(range, |point| scalar(Scalar::Text(point.to_string().into()))))
        }
        Test::Exists(wanted) => Kind::Exists(*wanted),
        Test::IsNull(wanted) => Kind::IsNull(*wanted),
        Test::GeoCircle(circle) => {
            let center = Some(point_message(circle.center));
            Kind::GeoRadius(proto::GeoRadius { center, radius_m: circle.radius_m })
        }
        Test::GeoBox(area) => {
            let (top_left, bottom_right) = (point_message(area.top_left), point_message(area.bottom_right));
            Kind::GeoBox(proto::GeoBox { top_left: Some(top_left), bottom_right: Some(bottom_right) })
        }
    }
}

fn scalars(values: &Values) -> proto::Scalars {
    proto::Scalars { values: values.scalars().map(scalar).collect() }
}

fn scalar(scalar: Scalar) -> proto::Scalar {
    let kind = match scalar {
        Scalar::Text(text) => proto::scalar::Kind::StringValue(text.into()),
        Scalar::Bool(word) => proto::scalar::Kind::BoolValue(word),
        Scalar::Number(Number::Double(value)) => proto::scalar::Kind::DoubleValue(value),
        Scalar::Number(Number::Integer(whole)) => match i64::try_from(whole) {
            Ok(whole) => proto::scalar::Kind::IntValue(whole),
            Err(_) => proto::scalar::Kind::UintValue(u64::try_from(whole).expect("an integer of 64 bits")),
        },
    };
    proto::Scalar { kind: Some(kind) }
}

fn range_message<T: Copy>(range: &Range<T>, scalar: impl Fn(T) -> proto::Scalar) -> proto::Range {
    let mut message = proto::Range::default();
    match range.from {
        Bound::Excluded(end) => message.gt = Some(scalar(end)),
        Bound::Included(end) => message.gte = Some(scalar(end)),
        Bound::Unbounded => {}
    }
    match range.to {
        Bound::Excluded(end) => message.lt = Some(scalar(end)),
        Bound::Included(end) => message.lte = Some(scalar(end)),
        Bound::Unbounded => {}
    }
    message
}

fn point_message(point: GeoPoint) -> proto::GeoPoint {
    proto::GeoPoint { lat: point.lat, lon: point.lon }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::strategies;

    proptest! {
        #[test]
        fn a_filter_survives_its_message(filter in strategies::filter()) {
            prop_assert_eq!(draft(message(&filter)).validate(""), Ok(filter));
        }
    }
}
