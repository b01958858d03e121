//! The index of one field in one segment.

use roaring::RoaringBitmap;

use super::FieldKind;
use super::bounds::Bounds;
use super::keywords::{Keywords, KeywordsBuilder, TERM_BYTES_MAX};
use super::ordered::Ordered;
use super::places::Places;
use super::row_set::bytes_of;
use crate::filter::matcher::{date_time, number, place};
use crate::filter::text::Value;
use crate::filter::{DateTime, GeoPoint, Number, Range, Test, Values};

/// What the rows of a segment have at one path.
#[derive(Debug)]
pub(super) struct FieldIndex {
    /// Rows with a value that is not null.
    exists: RoaringBitmap,
    /// Rows with a null.
    null: RoaringBitmap,
    held: Held,
    /// Rows with a text, number or boolean that `held` can be asked for.
    scalars: RoaringBitmap,
    /// Rows with several values.
    several: RoaringBitmap,
    others: Others,
    /// In memory.
    bytes: usize,
}

/// Rows with values that `held` does not answer for: those of other types, and numbers that do not fit.
#[derive(Debug, Default)]
struct Others {
    texts: RoaringBitmap,
    /// None of those texts has fewer bytes.
    texts_from: usize,
    numbers: RoaringBitmap,
    bools: RoaringBitmap,
}

/// Values and their rows.
#[derive(Debug)]
enum Held {
    Keywords(Keywords),
    /// False, true.
    Bools([RoaringBitmap; 2]),
    Integers(Ordered<i64>),
    Floats(Ordered<f64>),
    DateTimes(Ordered<DateTime>),
    Places(Places),
}

/// Values as they come, row by row.
#[derive(Debug)]
pub(super) struct FieldBuilder {
    exists: RoaringBitmap,
    null: RoaringBitmap,
    entries: Entries,
    scalars: RoaringBitmap,
    several: RoaringBitmap,
    others: Others,
    /// Texts that should be held are not.
    lacks_short_texts: bool,
    last_row: Option<u32>,
}

#[derive(Debug)]
enum Entries {
    Keywords(KeywordsBuilder),
    Bools([RoaringBitmap; 2]),
    Integers(Vec<(i64, u32)>),
    Floats(Vec<(f64, u32)>),
    DateTimes(Vec<(DateTime, u32)>),
    Places(Vec<(GeoPoint, u32)>),
}

fn of_integer(value: i64) -> Number {
    Number::from(value)
}

fn of_float(value: f64) -> Number {
    Number::from_f64(value).expect("only finite ones are held")
}

fn of_date_time(value: DateTime) -> DateTime {
    value
}

impl FieldBuilder {
    pub(super) fn new(kind: FieldKind) -> FieldBuilder {
        let entries = match kind {
            FieldKind::Keyword => Entries::Keywords(KeywordsBuilder::default()),
            FieldKind::Bool => Entries::Bools(Default::default()),
            FieldKind::Integer => Entries::Integers(Vec::new()),
            FieldKind::Float => Entries::Floats(Vec::new()),
            FieldKind::DateTime => Entries::DateTimes(Vec::new()),
            FieldKind::Geo => Entries::Places(Vec::new()),
        };
        FieldBuilder {
            exists: RoaringBitmap::new(),
            null: RoaringBitmap::new(),
            entries,
            scalars: RoaringBitmap::new(),
            several: RoaringBitmap::new(),
            others: Others::default(),
            lacks_short_texts: false,
            last_row: None,
        }
    }

    /// Adds a value that a row has at the path; rows come in ascending order.
    pub(super) fn add(&mut self, value: Value<'_>, row: u32) {
        if self.last_row.replace(row) == Some(row) {
            self.several.insert(row);
        }
        if matches!(value, Value::Null) {
            self.null.insert(row);
            return;
        }
        self.exists.insert(row);
        if self.hold(value, row) {
            self.scalars.insert(row);
            return;
        }
        // What cannot be read, of a broken disk or peer, is no value of its type: neither equal to another one nor different.
        match value {
            Value::Text(text) if text.decoded().is_some() => self.others.texts.insert(row),
            Value::Number(_) if number(value).is_some() => self.others.numbers.insert(row),
            Value::Bool(_) => self.others.bools.insert(row),
            Value::Text(_) | Value::Number(_) | Value::Null | Value::Array | Value::Object(_) => false,
        };
    }

    /// Holds a value, when it is of this kind; whether `match` can be answered for it then.
    fn hold(&mut self, value: Value<'_>, row: u32) -> bool {
        match (&mut self.entries, value) {
            (Entries::Keywords(keywords), Value::Text(text)) => match text.decoded() {
                Some(text) if text.len() <= TERM_BYTES_MAX => {
                    let has_room = keywords.add(&text, row);
                    self.lacks_short_texts |= !has_room;
                    has_room
                }
                Some(_) | None => false,
            },
            (Entries::Bools(rows), Value::Bool(word)) => {
                rows[usize::from(word)].insert(row);
                true
            }
            (Entries::Integers(entries), value) => {
                let whole = number(value).and_then(|number| match number {
                    Number::Integer(whole) => i64::try_from(whole).ok(),
                    Number::Double(_) => None,
                });
                entries.extend(whole.map(|whole| (whole, row)));
                whole.is_some()
            }
            (Entries::Floats(entries), value) => {
                let exact = number(value).filter(|number| of_float(number.to_f64()) == *number);
                entries.extend(exact.map(|number| (number.to_f64(), row)));
                exact.is_some()
            }
            // As texts they are asked for by `match`, which this kind does not answer.
            (Entries::DateTimes(entries), value) => {
                entries.extend(date_time(value).map(|point| (point, row)));
                false
            }
            (Entries::Places(entries), value) => {
                entries.extend(place(value).map(|point| (point, row)));
                false
            }
            (Entries::Keywords(_) | Entries::Bools(_), _) => false,
        }
    }

    /// The index of a segment with so many rows.
    pub(super) fn finish(self, rows: u32) -> FieldIndex {
        let FieldBuilder { mut exists, mut null, entries, mut scalars, mut several, mut others, .. } = self;
        others.texts_from = match entries {
            Entries::Keywords(_) if !self.lacks_short_texts => TERM_BYTES_MAX + 1,
            _ => 0,
        };
        let held = match entries {
            Entries::Keywords(keywords) => Held::Keywords(keywords.finish()),
            Entries::Bools(mut bools) => {
                bools.iter_mut().for_each(|rows| _ = rows.optimize());
                Held::Bools(bools)
            }
            Entries::Integers(entries) => Held::Integers(Ordered::new(entries, &several, rows, of_integer)),
            Entries::Floats(entries) => Held::Floats(Ordered::new(entries, &several, rows, of_float)),
            Entries::DateTimes(entries) => {
                Held::DateTimes(Ordered::new(entries, &several, rows, of_date_time))
            }
            Entries::Places(entries) => Held::Places(Places::new(entries)),
        };
        let sets = [&mut exists, &mut null, &mut scalars, &mut several];
        let others_sets = [&mut others.texts, &mut others.numbers, &mut others.bools];
        sets.into_iter().chain(others_sets).for_each(|set| _ = set.optimize());
        let mut index = FieldIndex { exists, null, held, scalars, several, others, bytes: 0 };
        index.bytes = index.count_bytes();
        index
    }
}

#[cfg(test)]
impl FieldBuilder {
    /// Of texts, with room for none.
    pub(super) fn without_room() -> FieldBuilder {
        let entries = Entries::Keywords(KeywordsBuilder::full());
        FieldBuilder { entries, ..FieldBuilder::new(FieldKind::Keyword) }
    }
}

impl FieldIndex {
    /// What is known of a test; `all` are the rows of the segment.
    pub(super) fn bounds(&self, test: &Test, all: &RoaringBitmap) -> Bounds {
        let mut found = RoaringBitmap::new();
        let unsure = match (test, &self.held) {
            (Test::Exists(true), _) => return Bounds::exact(self.exists.clone()),
            (Test::Exists(false), _) => return Bounds::exact(all - &self.exists),
            (Test::IsNull(true), _) => return Bounds::exact(self.null.clone()),
            (Test::IsNull(false), _) => return Bounds::exact(all - &self.null),
            (Test::Match(values), _) => {
                self.listed(values, &mut found);
                return Bounds::between(found, &self.others.of_types_in(values));
            }
            (Test::Except(values), _) => return self.except(values),
            (Test::Numbers(range), Held::Integers(numbers)) => {
                numbers.rows_within(range, &of_integer, &mut found);
                &self.others.numbers
            }
            (Test::Numbers(range), Held::Floats(numbers)) => {
                numbers.rows_within(range, &of_float, &mut found);
                &self.others.numbers
            }
            (Test::Numbers(_), _) => &self.others.numbers,
            (Test::DateTimes(range), Held::DateTimes(points)) => {
                points.rows_within(range, &of_date_time, &mut found);
                return Bounds::exact(found);
            }
            (Test::DateTimes(_), Held::Keywords(_)) => {
                return Bounds::between(found, &(&self.scalars | &self.others.texts));
            }
            (Test::DateTimes(_), _) => &self.others.texts,
            (Test::GeoCircle(circle), Held::Places(places)) => {
                places.rows_in_circle(circle, &mut found);
                return Bounds::exact(found);
            }
            (Test::GeoBox(area), Held::Places(places)) => {
                places.rows_in_box(area, &mut found);
                return Bounds::exact(found);
            }
            (Test::GeoCircle(_) | Test::GeoBox(_), _) => &self.exists,
        };
        Bounds::between(found, unsure)
    }

    /// True when a test asks for values of the type that this index holds, or for any at all.
    pub(super) fn is_for(&self, test: &Test) -> bool {
        match (test, &self.held) {
            (Test::Exists(_) | Test::IsNull(_), _) => true,
            (Test::Match(values) | Test::Except(values), held) => match held {
                Held::Keywords(_) => !values.texts().is_empty(),
                Held::Bools(_) => values.has_bool(false) || values.has_bool(true),
                Held::Integers(_) | Held::Floats(_) => !values.numbers().is_empty(),
                Held::DateTimes(_) | Held::Places(_) => false,
            },
            (Test::Numbers(_), held) => matches!(held, Held::Integers(_) | Held::Floats(_)),
            (Test::DateTimes(_), held) => matches!(held, Held::DateTimes(_)),
            (Test::GeoCircle(_) | Test::GeoBox(_), held) => matches!(held, Held::Places(_)),
        }
    }

    /// A row whose only value is listed has no other one; one with several values may.
    fn except(&self, values: &Values) -> Bounds {
        let mut listed = RoaringBitmap::new();
        self.listed(values, &mut listed);
        let sure = (&self.scalars - &listed) | self.others.of_types_not_in(values);
        Bounds::between(sure, &((listed & &self.several) | self.others.of_types_in(values)))
    }

    /// Adds the rows that hold one of some values.
    fn listed(&self, values: &Values, found: &mut RoaringBitmap) {
        match &self.held {
            Held::Keywords(keywords) => {
                values.texts().iter().for_each(|text| keywords.rows_of(text.as_bytes(), found));
            }
            Held::Bools(bools) => {
                let wanted = [false, true].into_iter().filter(|word| values.has_bool(*word));
                wanted.for_each(|word| *found |= &bools[usize::from(word)]);
            }
            Held::Integers(numbers) => {
                let ranges = values.numbers().iter().map(|number| Range::only(*number));
                ranges.for_each(|range| numbers.rows_within(&range, &of_integer, found));
            }
            Held::Floats(numbers) => {
                let ranges = values.numbers().iter().map(|number| Range::only(*number));
                ranges.for_each(|range| numbers.rows_within(&range, &of_float, found));
            }
            Held::DateTimes(_) | Held::Places(_) => {}
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn count_bytes(&self) -> usize {
        let held = match &self.held {
            Held::Keywords(keywords) => keywords.bytes(),
            Held::Bools(bools) => bools.iter().map(bytes_of).sum(),
            Held::Integers(numbers) => numbers.bytes(),
            Held::Floats(numbers) => numbers.bytes(),
            Held::DateTimes(points) => points.bytes(),
            Held::Places(places) => places.bytes(),
        };
        let Others { texts, texts_from: _, numbers, bools } = &self.others;
        let sets = [&self.exists, &self.null, &self.scalars, &self.several, texts, numbers, bools];
        held + sets.into_iter().map(bytes_of).sum::<usize>()
    }
}

impl Others {
    /// Rows with values of a type that is among some values: they may be equal. A text is only if it may be one of `texts`.
    fn of_types_in(&self, values: &Values) -> RoaringBitmap {
        self.of_types(values, true)
    }

    /// Rows with values of a type that is not among some values: they differ from all of them.
    fn of_types_not_in(&self, values: &Values) -> RoaringBitmap {
        self.of_types(values, false)
    }

    fn of_types(&self, values: &Values, are_in: bool) -> RoaringBitmap {
        let types = [
            (values.texts().iter().any(|text| text.len() >= self.texts_from), &self.texts),
            (!values.numbers().is_empty(), &self.numbers),
            (values.has_bool(false) || values.has_bool(true), &self.bools),
        ];
        let chosen = types.into_iter().filter(|(is_in, _)| *is_in == are_in);
        chosen.fold(RoaringBitmap::new(), |sum, (_, rows)| sum | rows)
    }
}
