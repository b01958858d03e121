//! A filter made ready to read rows.

use std::sync::Arc;

use super::text::{Cursor, Value};
use super::walk::PathTree;
use super::{CONDITIONS_MAX, Condition, DateTime, Filter, GeoPoint, KeyPath, Number, Test, Values};

/// Decides which metadata passes a filter: reads its text once, remembers which tests held, then joins them.
#[derive(Debug)]
pub struct Matcher {
    filter: Arc<Filter>,
    program: Program,
}

impl Matcher {
    /// Makes a filter ready.
    pub fn new(filter: Arc<Filter>) -> Matcher {
        let program = Program::new(&filter);
        Matcher { filter, program }
    }

    /// The filter.
    pub fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }

    /// True when metadata, an object's JSON text as it is stored, passes.
    pub fn matches(&self, metadata: &[u8]) -> bool {
        self.program.matches(metadata)
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        self.filter == other.filter
    }
}

/// The tests of one filter and of the filters in its lists; those inside `nested` are programs of their own.
#[derive(Debug, Default)]
struct Program {
    paths: PathTree,
    /// By the numbers of the leaves in `paths`.
    tests: Vec<Leaf>,
    whole: Group,
}

#[derive(Debug)]
enum Leaf {
    Test(Test),
    Nested(Program),
}

/// A filter as the numbers of its tests.
#[derive(Debug, Default)]
struct Group {
    must: Vec<Term>,
    should: Vec<Term>,
    must_not: Vec<Term>,
}

#[derive(Debug)]
enum Term {
    /// Some value passed the test.
    Held(u16),
    /// None did.
    NeverHeld(u16),
    Group(Group),
}

/// Words of a set of tests.
const WORDS: usize = CONDITIONS_MAX.div_ceil(64);

/// Tests that some value passed.
struct Held([u64; WORDS]);

impl Held {
    fn has(&self, leaf: u16) -> bool {
        self.0[usize::from(leaf) / 64] >> (leaf % 64) & 1 == 1
    }

    fn add(&mut self, leaf: u16) {
        self.0[usize::from(leaf) / 64] |= 1 << (leaf % 64);
    }
}

impl Program {
    fn new(filter: &Filter) -> Program {
        let mut program = Program::default();
        program.whole = program.group(filter);
        program
    }

    fn group(&mut self, filter: &Filter) -> Group {
        let Filter { must, should, must_not } = filter;
        let mut terms = |list: &[Condition]| list.iter().map(|condition| self.term(condition)).collect();
        Group { must: terms(must), should: terms(should), must_not: terms(must_not) }
    }

    fn term(&mut self, condition: &Condition) -> Term {
        match condition {
            Condition::Filter(filter) => Term::Group(self.group(filter)),
            Condition::Nested(key, filter) => Term::Held(self.leaf(key, Leaf::Nested(Program::new(filter)))),
            Condition::Field(key, Test::Exists(false)) => {
                Term::NeverHeld(self.leaf(key, Leaf::Test(Test::Exists(true))))
            }
            Condition::Field(key, Test::IsNull(false)) => {
                Term::NeverHeld(self.leaf(key, Leaf::Test(Test::IsNull(true))))
            }
            Condition::Field(key, test) => Term::Held(self.leaf(key, Leaf::Test(test.clone()))),
        }
    }

    fn leaf(&mut self, key: &KeyPath, leaf: Leaf) -> u16 {
        let number = u16::try_from(self.tests.len()).expect("a filter has at most 1,000 conditions");
        self.paths.add(key, number);
        self.tests.push(leaf);
        number
    }

    fn matches(&self, object: &[u8]) -> bool {
        let mut held = Held([0; WORDS]);
        self.paths.walk(object, &mut |leaf, value| {
            if !held.has(leaf) && self.tests[usize::from(leaf)].holds(value) {
                held.add(leaf);
            }
        });
        self.whole.holds(&held)
    }
}

impl Group {
    fn holds(&self, held: &Held) -> bool {
        let holds = |term: &Term| match term {
            Term::Held(leaf) => held.has(*leaf),
            Term::NeverHeld(leaf) => !held.has(*leaf),
            Term::Group(group) => group.holds(held),
        };
        self.must.iter().all(holds)
            && !self.must_not.iter().any(holds)
            && (self.should.is_empty() || self.should.iter().any(holds))
    }
}

impl Leaf {
    fn holds(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Leaf::Test(test), value) => holds(test, value),
            (Leaf::Nested(program), Value::Object(object)) => program.matches(object),
            (Leaf::Nested(_), _) => false,
        }
    }
}

/// True when one value passes a test.
fn holds(test: &Test, value: Value<'_>) -> bool {
    match test {
        Test::Match(values) => is_in(values, value) == Some(true),
        Test::Except(values) => is_in(values, value) == Some(false),
        Test::Numbers(range) => number(value).is_some_and(|number| range.contains(&number)),
        Test::DateTimes(range) => date_time(value).is_some_and(|point| range.contains(&point)),
        Test::Exists(wanted) => !matches!(value, Value::Null) == *wanted,
        Test::IsNull(wanted) => matches!(value, Value::Null) == *wanted,
        Test::GeoCircle(circle) => place(value).is_some_and(|point| circle.contains(point)),
        Test::GeoBox(area) => place(value).is_some_and(|point| area.contains(point)),
    }
}

/// Whether a text, number or boolean is among some values; `None` for other values.
fn is_in(values: &Values, value: Value<'_>) -> Option<bool> {
    match value {
        Value::Text(text) => text.decoded().map(|text| values.has_text(&text)),
        Value::Number(_) => number(value).map(|number| values.has_number(number)),
        Value::Bool(word) => Some(values.has_bool(word)),
        Value::Null | Value::Array | Value::Object(_) => None,
    }
}

/// The number that a value is.
pub(super) fn number(value: Value<'_>) -> Option<Number> {
    match value {
        Value::Number(digits) => Number::parse(digits),
        _ => None,
    }
}

/// The point in time that a value is the text of.
pub(super) fn date_time(value: Value<'_>) -> Option<DateTime> {
    let Value::Text(text) = value else { return None };
    DateTime::parse(std::str::from_utf8(&text.decoded()?).ok()?)
}

/// The place that a value is: an object with the numbers `lat` and `lon`, and perhaps more.
pub(super) fn place(value: Value<'_>) -> Option<GeoPoint> {
    let Value::Object(object) = value else { return None };
    let mut cursor = Cursor::new(object);
    cursor.pass(b'{')?;
    let (mut lat, mut lon) = (None, None);
    while let Some(key) = cursor.next_key() {
        let value = cursor.value()?;
        let degrees = || number(value).map(Number::to_f64);
        if key.is(b"lat") {
            lat = degrees();
        } else if key.is(b"lon") {
            lon = degrees();
        }
    }
    GeoPoint::new(lat?, lon?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value as Json};

    use super::*;
    use crate::filter::{reference, strategies};

    /// With white space around everything, and with every letter as an escape: the same object in other words.
    fn other_words(object: &Map<String, Json>) -> [String; 3] {
        let compact = serde_json::to_string(object).expect("JSON");
        let pretty = serde_json::to_string_pretty(object).expect("JSON");
        let mut escaped = String::new();
        let mut in_text = false;
        let mut chars = compact.chars();
        while let Some(char) = chars.next() {
            match char {
                '"' => {
                    in_text = !in_text;
                    escaped.push(char);
                }
                '\\' => {
                    escaped.push(char);
                    escaped.extend(chars.next());
                }
                'a'..='z' if in_text => escaped.push_str(&format!("\\u{:04x}", u32::from(char))),
                char => escaped.push(char),
            }
        }
        [compact, pretty, escaped]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_matcher_agrees_with_the_reference(object in strategies::object(), filter in strategies::filter()) {
            let expected = reference::passes(&filter, &object);
            let matcher = Matcher::new(Arc::new(filter));
            for text in other_words(&object) {
                prop_assert_eq!(matcher.matches(text.as_bytes()), expected, "{}", text);
            }
        }

        #[test]
        fn each_test_agrees_with_the_reference(
            object in strategies::object(),
            key in strategies::key(),
            test in strategies::test(),
        ) {
            let filter = Filter { must: vec![Condition::Field(key, test)], ..Filter::default() };
            let expected = reference::passes(&filter, &object);
            let text = serde_json::to_string(&object).expect("JSON");
            prop_assert_eq!(Matcher::new(Arc::new(filter)).matches(text.as_bytes()), expected, "{}", text);
        }

        #[test]
        fn broken_text_is_no_reason_to_panic(text in any::<Vec<u8>>(), cut in any::<prop::sample::Index>(),
            object in strategies::object(), filter in strategies::filter()) {
            let matcher = Matcher::new(Arc::new(filter));
            matcher.matches(&text);
            let whole = serde_json::to_vec(&object).expect("JSON");
            matcher.matches(&whole[..cut.index(whole.len())]);
        }
    }
}
