//! The filter of a search. What it may hold is checked later, with the rest; here it is only kept from growing.

use std::fmt::{self, Display, Write as _};

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::object::{At, Object, ObjectSeed};
use super::{Reader, Segment};
use crate::filter::{
    CONDITIONS_MAX, ConditionDraft, FilterDraft, GeoBoxDraft, GeoCircleDraft, GeoPointDraft, MatchDraft,
    NestedDraft, RangeDraft, ScalarDraft, VALUES_MAX,
};

/// Reads the filter of a search. Null: not there.
pub(super) fn read<'de, A: MapAccess<'de>>(
    map: &mut A,
    reader: &Reader,
) -> Result<Option<FilterDraft>, A::Error> {
    part(map, reader, "filter")
}

/// The filter of a text that is nothing else.
#[cfg(any(test, fuzzing))]
pub(crate) fn filter(text: &[u8]) -> Result<crate::filter::Filter, crate::error_code::Error> {
    let reader = Reader::default();
    let draft: FilterDraft = super::parse(text, object(&reader), &reader)?;
    draft.validate("").map_err(crate::error_code::Error::invalid_all)
}

/// Reads a field that is an object.
fn part<'de, A: MapAccess<'de>, T: Object<'de> + Default>(
    map: &mut A,
    reader: &Reader,
    name: &str,
) -> Result<Option<T>, A::Error> {
    inside(reader, name, || map.next_value_seed(Optional(object(reader))))
}

fn object<'de, T: Object<'de> + Default>(reader: &Reader) -> ObjectSeed<'_, T> {
    ObjectSeed { target: T::default(), reader, at: At::Filter }
}

/// Reads something whose place is `step` further.
pub(super) fn inside<T>(reader: &Reader, step: impl Display, read: impl FnOnce() -> T) -> T {
    let length = reader.inside.borrow().len();
    write!(reader.inside.borrow_mut(), "/{step}").expect("a String takes every text");
    let found = read();
    reader.inside.borrow_mut().truncate(length);
    found
}

impl<'de> Object<'de> for FilterDraft {
    const FIELDS: &'static [&'static str] = &["must", "should", "must_not"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        let list = match field {
            "must" => &mut self.must,
            "should" => &mut self.should,
            _ => &mut self.must_not,
        };
        let given = inside(reader, field, || map.next_value_seed(Optional(Conditions { reader })))?;
        *list = given.unwrap_or_default();
        Ok(())
    }
}

impl<'de> Object<'de> for ConditionDraft {
    const FIELDS: &'static [&'static str] = &[
        "key",
        "match",
        "range",
        "exists",
        "is_null",
        "geo_radius",
        "geo_box",
        "nested",
        "must",
        "should",
        "must_not",
    ];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "key" => self.key = map.next_value()?,
            "match" => self.matches = part(map, reader, field)?,
            "range" => self.range = part(map, reader, field)?,
            "exists" => self.exists = map.next_value()?,
            "is_null" => self.is_null = map.next_value()?,
            "geo_radius" => self.geo_radius = part(map, reader, field)?,
            "geo_box" => self.geo_box = part(map, reader, field)?,
            "nested" => self.nested = part(map, reader, field)?.map(Box::new),
            _ => self.filter.get_or_insert_default().take(field, map, reader)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for MatchDraft {
    const FIELDS: &'static [&'static str] = &["value", "any", "except"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "value" => self.value = map.next_value_seed(Optional(Scalar))?,
            "any" => self.any = map.next_value_seed(Optional(Scalars { reader }))?,
            _ => self.except = map.next_value_seed(Optional(Scalars { reader }))?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for RangeDraft {
    const FIELDS: &'static [&'static str] = &["gt", "gte", "lt", "lte"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        _: &Reader,
    ) -> Result<(), A::Error> {
        let bound = map.next_value_seed(Optional(Scalar))?;
        match field {
            "gt" => self.gt = bound,
            "gte" => self.gte = bound,
            "lt" => self.lt = bound,
            _ => self.lte = bound,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for GeoCircleDraft {
    const FIELDS: &'static [&'static str] = &["center", "radius_m"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "center" => self.center = part(map, reader, field)?,
            _ => self.radius_m = map.next_value()?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for GeoBoxDraft {
    const FIELDS: &'static [&'static str] = &["top_left", "bottom_right"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        let corner = part(map, reader, field)?;
        match field {
            "top_left" => self.top_left = corner,
            _ => self.bottom_right = corner,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for GeoPointDraft {
    const FIELDS: &'static [&'static str] = &["lat", "lon"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        _: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "lat" => self.lat = map.next_value()?,
            _ => self.lon = map.next_value()?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for NestedDraft {
    const FIELDS: &'static [&'static str] = &["key", "filter"];

    fn take<A: MapAccess<'de>>(
        &mut self,
        field: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        match field {
            "key" => self.key = map.next_value()?,
            _ => self.filter = part(map, reader, field)?,
        }
        Ok(())
    }
}

/// What a seed reads, or null: not there.
struct Optional<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// A list of conditions. Beyond the limit of the whole filter only one more is kept, for the rules to find.
struct Conditions<'a> {
    reader: &'a Reader,
}

impl<'de> DeserializeSeed<'de> for Conditions<'_> {
    type Value = Vec<ConditionDraft>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Conditions<'_> {
    type Value = Vec<ConditionDraft>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of conditions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Conditions { reader } = self;
        let mut conditions = Vec::new();
        for index in 0.. {
            if reader.conditions.get() > CONDITIONS_MAX {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
            let next = inside(reader, index, || seq.next_element_seed(object(reader)));
            let Some(condition) = reader.passing(next, Segment::Item(index))? else { break };
            reader.conditions.set(reader.conditions.get() + 1);
            conditions.push(condition);
        }
        Ok(conditions)
    }
}

/// A list of values. Beyond the limit only one more is kept, for the rules to find.
struct Scalars<'a> {
    reader: &'a Reader,
}

impl<'de> DeserializeSeed<'de> for Scalars<'_> {
    type Value = Vec<ScalarDraft>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Scalars<'_> {
    type Value = Vec<ScalarDraft>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut scalars = Vec::new();
        for index in 0.. {
            let next = self.reader.passing(seq.next_element_seed(Scalar), Segment::Item(index))?;
            let Some(scalar) = next else { break };
            if scalars.len() <= VALUES_MAX {
                scalars.push(scalar);
            }
        }
        Ok(scalars)
    }
}

/// A text, a number or a boolean.
struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = ScalarDraft;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Scalar {
    type Value = ScalarDraft;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ScalarDraft, E> {
        Ok(ScalarDraft::Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, word: bool) -> Result<ScalarDraft, E> {
        Ok(ScalarDraft::Bool(word))
    }

    fn visit_i64<E: de::Error>(self, whole: i64) -> Result<ScalarDraft, E> {
        Ok(ScalarDraft::Integer(whole.into()))
    }

    fn visit_u64<E: de::Error>(self, whole: u64) -> Result<ScalarDraft, E> {
        Ok(ScalarDraft::Integer(whole.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<ScalarDraft, E> {
        Ok(ScalarDraft::Double(value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::filter;
    use crate::filter::{CONDITIONS_MAX, VALUES_MAX, reference, strategies};

    proptest! {
        #[test]
        fn a_filter_survives_its_json(written in strategies::filter()) {
            let text = reference::to_json(&written).to_string();
            prop_assert_eq!(filter(text.as_bytes()).expect("a filter"), written);
        }
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let place = |text: &str| {
            let error = filter(text.as_bytes()).expect_err(text);
            error.violations[0].pointer.clone()
        };
        assert_eq!(place(r#"{"musst":[]}"#), "/musst");
        assert_eq!(
            place(r#"{"must":[{"key":"a","exists":true},{"key":"a","exist":true}]}"#),
            "/must/1/exist"
        );
        assert_eq!(place(r#"{"must":[{"key":"a","exists":true,"key":"b"}]}"#), "/must/0/key");
        assert_eq!(
            place(r#"{"must":[{"nested":{"key":"a","filter":{"should":[{"x":1}]}}}]}"#),
            "/must/0/nested/filter/should/0/x"
        );
        assert_eq!(
            place(r#"{"must":[{"must":[{"key":"a","match":{"text":"b"}}]}]}"#),
            "/must/0/must/0/match/text"
        );
        // Values of the wrong type end the parse.
        assert_eq!(place(r#"{"must":[{"key":"a","match":{"value":null}}]}"#), "/must/0/match");
        assert_eq!(place(r#"{"must":[{"key":"a","match":{"any":[1,"b",{}]}}]}"#), "/must/0/match/any/2");
        assert_eq!(place(r#"{"must":[{"key":1}]}"#), "/must/0/key");
        assert_eq!(place(r#"{"must":{}}"#), "/must");
        assert_eq!(place(r#"{"must":[[]]}"#), "/must/0");
        assert_eq!(place(r#"{"must":[{"key":"a","range":{"gt":[]}}]}"#), "/must/0/range/gt");
        assert_eq!(
            place(r#"{"must":[{"key":"a","geo_radius":{"center":[1,2],"radius_m":3}}]}"#),
            "/must/0/geo_radius/center"
        );
        assert!(filter(br#"{"must":null,"should":[]}"#).expect("nothing").is_empty());
    }

    #[test]
    fn the_rest_of_what_is_too_much_is_not_kept() {
        let conditions = vec![json!({"key": "a", "exists": true}); CONDITIONS_MAX * 200];
        let text = json!({"must_not": [{"must": conditions}], "must": conditions[..10]}).to_string();
        let peak = allocation_counter::measure(|| {
            let error = filter(text.as_bytes()).expect_err("too many");
            assert_eq!(error.violations[0].message, "filter has more than 1000 conditions");
        });
        assert!(peak.bytes_max < 4 << 20, "{} bytes", peak.bytes_max);
        let values: Vec<usize> = (0..VALUES_MAX * 100).collect();
        let text = json!({"must": [{"key": "a", "match": {"any": values}}]}).to_string();
        let peak = allocation_counter::measure(|| {
            let error = filter(text.as_bytes()).expect_err("too many");
            assert_eq!(error.violations[0].pointer, "/must/0/match/any");
        });
        assert!(peak.bytes_max < 2 << 20, "{} bytes", peak.bytes_max);
        let deep = format!("{}{}", r#"{"must":["#.repeat(50), "]}".repeat(50));
        assert!(filter(deep.as_bytes()).expect_err("deep").message.contains("32 levels"));
        let abyss = r#"{"must":["#.repeat(100_000);
        assert!(filter(abyss.as_bytes()).is_err());
    }
}
