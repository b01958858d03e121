//! From drafts to filters: the rules, one set for REST, gRPC and messages between nodes.

use std::ops::Bound;

use super::draft::{
    ConditionDraft, FilterDraft, GeoBoxDraft, GeoCircleDraft, GeoPointDraft, MatchDraft, NestedDraft,
    RangeDraft, ScalarDraft,
};
use super::{
    CONDITIONS_MAX, Condition, DEPTH_MAX, DateTime, Filter, GeoBox, GeoCircle, GeoPoint, KeyPath, Number,
    Range, Scalar, Test, VALUES_MAX, Values,
};
use crate::error_code::Violation;

const KINDS: &str = "one of match, range, exists, is_null, geo_radius, geo_box, nested, or a filter of must, should and must_not";

impl FilterDraft {
    /// The filter, when no rule is broken. `pointer` is the draft's own place in the request.
    ///
    /// # Errors
    /// All broken rules; when the filter is too large or too deep, this alone.
    pub fn validate(self, pointer: &str) -> Result<Filter, Vec<Violation>> {
        let mut rules =
            Rules { root: pointer, pointer: pointer.to_owned(), conditions: 0, broken: Vec::new() };
        match rules.filter(self, 1) {
            Err(TooLarge(violation)) => Err(vec![violation]),
            Ok(filter) if rules.broken.is_empty() => Ok(filter),
            Ok(_) => Err(rules.broken),
        }
    }
}

/// Ends the validation: the rest is not looked at.
struct TooLarge(Violation);

/// One validation. A part with a broken rule is left out, or some stand-in for it is made: the whole is refused anyway.
struct Rules<'r> {
    /// Place of the whole filter.
    root: &'r str,
    /// Place of what is being looked at.
    pointer: String,
    conditions: usize,
    broken: Vec<Violation>,
}

impl Rules<'_> {
    fn broken(&mut self, message: impl Into<String>) {
        self.broken.push(Violation { pointer: self.pointer.clone(), message: message.into() });
    }

    /// Looks at a part, whose place is `step` further.
    fn at<T>(&mut self, step: impl std::fmt::Display, look: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&step.to_string());
        let found = look(self);
        self.pointer.truncate(length);
        found
    }

    /// Looks at a part that must be there.
    fn required<D, T>(
        &mut self,
        name: &str,
        part: Option<D>,
        look: impl FnOnce(&mut Self, D) -> Option<T>,
    ) -> Option<T> {
        self.at(name, |rules| match part {
            Some(part) => look(rules, part),
            None => {
                rules.broken(format!("{name} is missing"));
                None
            }
        })
    }

    fn filter(&mut self, draft: FilterDraft, depth: usize) -> Result<Filter, TooLarge> {
        if depth > DEPTH_MAX {
            let message = format!("filter is nested deeper than {DEPTH_MAX} levels");
            return Err(TooLarge(Violation { pointer: self.pointer.clone(), message }));
        }
        let FilterDraft { must, should, must_not } = draft;
        Ok(Filter {
            must: self.at("must", |rules| rules.conditions(must, depth))?,
            should: self.at("should", |rules| rules.conditions(should, depth))?,
            must_not: self.at("must_not", |rules| rules.conditions(must_not, depth))?,
        })
    }

    fn conditions(&mut self, drafts: Vec<ConditionDraft>, depth: usize) -> Result<Vec<Condition>, TooLarge> {
        let mut conditions = Vec::with_capacity(drafts.len().min(CONDITIONS_MAX));
        for (index, draft) in drafts.into_iter().enumerate() {
            self.conditions += 1;
            if self.conditions > CONDITIONS_MAX {
                let message = format!("filter has more than {CONDITIONS_MAX} conditions");
                return Err(TooLarge(Violation { pointer: self.root.to_owned(), message }));
            }
            conditions.extend(self.at(index, |rules| rules.condition(draft, depth))?);
        }
        Ok(conditions)
    }

    fn condition(&mut self, draft: ConditionDraft, depth: usize) -> Result<Option<Condition>, TooLarge> {
        let ConditionDraft { key, matches, range, exists, is_null, geo_radius, geo_box, nested, filter } =
            draft;
        let kinds = [
            ("match", matches.is_some()),
            ("range", range.is_some()),
            ("exists", exists.is_some()),
            ("is_null", is_null.is_some()),
            ("geo_radius", geo_radius.is_some()),
            ("geo_box", geo_box.is_some()),
            ("nested", nested.is_some()),
            ("a filter", filter.is_some()),
        ];
        let given: Vec<&str> = kinds.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if given.len() != 1 {
            self.broken(match given.as_slice() {
                [] => format!("condition tests nothing, must have {KINDS}"),
                several => format!("condition has {}, must have only {KINDS}", several.join(" and ")),
            });
            return Ok(None);
        }
        if let Some(filter) = filter {
            self.no_key(&key, "a filter");
            return self.filter(*filter, depth + 1).map(|filter| Some(Condition::Filter(filter)));
        }
        if let Some(nested) = nested {
            self.no_key(&key, "nested");
            return self.at("nested", |rules| rules.nested(*nested, depth + 2));
        }
        let key = self.key(key);
        let test = if let Some(matches) = matches {
            self.at("match", |rules| rules.matches(matches))?
        } else if let Some(range) = range {
            self.at("range", |rules| rules.range(range))
        } else if let Some(circle) = geo_radius {
            self.at("geo_radius", |rules| rules.circle(circle)).map(Test::GeoCircle)
        } else if let Some(area) = geo_box {
            self.at("geo_box", |rules| rules.geo_box(&area)).map(Test::GeoBox)
        } else {
            exists.map(Test::Exists).or(is_null.map(Test::IsNull))
        };
        Ok(key.zip(test).map(|(key, test)| Condition::Field(key, test)))
    }

    fn no_key(&mut self, key: &Option<String>, kind: &str) {
        if key.as_ref().is_some_and(|key| !key.is_empty()) {
            self.at("key", |rules| rules.broken(format!("key does not belong to {kind}")));
        }
    }

    fn nested(&mut self, draft: NestedDraft, depth: usize) -> Result<Option<Condition>, TooLarge> {
        let key = self.key(draft.key);
        let Some(filter) = draft.filter else {
            self.at("filter", |rules| rules.broken("filter is missing"));
            return Ok(None);
        };
        let filter = self.at("filter", |rules| rules.filter(filter, depth))?;
        Ok(key.map(|key| Condition::Nested(key, filter)))
    }

    /// An empty key is as if it were missing: gRPC cannot tell them apart.
    fn key(&mut self, key: Option<String>) -> Option<KeyPath> {
        let key = key.filter(|key| !key.is_empty());
        self.required("key", key, |rules, key| {
            KeyPath::parse(&key).map_err(|message| rules.broken(message)).ok()
        })
    }

    fn matches(&mut self, draft: MatchDraft) -> Result<Option<Test>, TooLarge> {
        Ok(match (draft.value, draft.any, draft.except) {
            (Some(value), None, None) => {
                self.at("value", |rules| rules.scalar(value)).map(|value| Test::Match(Values::new([value])))
            }
            (None, Some(any), None) => Some(Test::Match(self.at("any", |rules| rules.values(any))?)),
            (None, None, Some(except)) => {
                Some(Test::Except(self.at("except", |rules| rules.values(except))?))
            }
            _ => {
                self.broken("match must have one of value, any, except");
                None
            }
        })
    }

    fn values(&mut self, drafts: Vec<ScalarDraft>) -> Result<Values, TooLarge> {
        if drafts.len() > VALUES_MAX {
            let message = format!("list has more than {VALUES_MAX} values");
            return Err(TooLarge(Violation { pointer: self.pointer.clone(), message }));
        }
        let scalars = drafts.into_iter().enumerate();
        let scalars = scalars.filter_map(|(index, draft)| self.at(index, |rules| rules.scalar(draft)));
        Ok(Values::new(scalars.collect::<Vec<_>>()))
    }

    fn scalar(&mut self, draft: ScalarDraft) -> Option<Scalar> {
        match draft {
            ScalarDraft::Text(text) => Some(Scalar::Text(text.into())),
            ScalarDraft::Bool(word) => Some(Scalar::Bool(word)),
            ScalarDraft::Nothing => {
                self.broken("value is missing");
                None
            }
            number @ (ScalarDraft::Integer(_) | ScalarDraft::Double(_)) => {
                self.number(&number).map(Scalar::Number)
            }
        }
    }

    /// The number of a draft that is one.
    fn number(&mut self, draft: &ScalarDraft) -> Option<Number> {
        match draft {
            ScalarDraft::Integer(whole) => Some(Number::Integer(*whole)),
            ScalarDraft::Double(value) => {
                let number = Number::from_f64(*value);
                if number.is_none() {
                    self.broken(format!("number is {value}, must be finite"));
                }
                number
            }
            ScalarDraft::Text(_) | ScalarDraft::Bool(_) | ScalarDraft::Nothing => None,
        }
    }

    fn range(&mut self, draft: RangeDraft) -> Option<Test> {
        let before = self.broken.len();
        let bounds = [("gt", draft.gt), ("gte", draft.gte), ("lt", draft.lt), ("lte", draft.lte)];
        let [gt, gte, lt, lte] = bounds.map(|(name, bound)| {
            let bound = bound?;
            self.at(name, |rules| rules.bound(name, bound))
        });
        if gt.is_some() && gte.is_some() {
            self.at("gte", |rules| rules.broken("gt and gte exclude each other"));
        }
        if lt.is_some() && lte.is_some() {
            self.at("lte", |rules| rules.broken("lt and lte exclude each other"));
        }
        let (from, to) = (either(gt, gte), either(lt, lte));
        let test = match (from, to) {
            _ if self.broken.len() > before => return None,
            (Bound::Unbounded, Bound::Unbounded) => Err("range must have one of gt, gte, lt, lte"),
            (from, to) => both(from, to).ok_or("bounds of a range must be both numbers or both date-times"),
        };
        test.map_err(|message| self.broken(message)).ok()
    }

    fn bound(&mut self, name: &str, draft: ScalarDraft) -> Option<End> {
        let end = match &draft {
            ScalarDraft::Integer(_) | ScalarDraft::Double(_) => return self.number(&draft).map(End::Number),
            ScalarDraft::Text(text) => DateTime::parse(text).map(End::DateTime),
            ScalarDraft::Bool(_) | ScalarDraft::Nothing => None,
        };
        if end.is_none() {
            let kinds = "a number or an RFC 3339 date-time such as 2024-05-01T12:00:00Z";
            self.broken(format!("{name} must be {kinds}"));
        }
        end
    }

    fn circle(&mut self, draft: GeoCircleDraft) -> Option<GeoCircle> {
        let center = self.required("center", draft.center, Self::point);
        let radius_m = self.required("radius_m", draft.radius_m, |rules, radius_m| {
            if !(radius_m.is_finite() && radius_m >= 0.0) {
                rules.broken(format!("radius_m is {radius_m}, must be finite and at least 0"));
                return None;
            }
            Some(radius_m)
        });
        Some(GeoCircle { center: center?, radius_m: radius_m? })
    }

    fn geo_box(&mut self, draft: &GeoBoxDraft) -> Option<GeoBox> {
        let top_left = self.required("top_left", draft.top_left, Self::point);
        let bottom_right = self.required("bottom_right", draft.bottom_right, Self::point);
        let (top_left, bottom_right) = top_left.zip(bottom_right)?;
        if top_left.lat < bottom_right.lat {
            self.broken("top_left is south of bottom_right");
            return None;
        }
        Some(GeoBox { top_left, bottom_right })
    }

    fn point(&mut self, draft: GeoPointDraft) -> Option<GeoPoint> {
        let mut degrees = |name: &str, given: Option<f64>, most: f64| {
            self.required(name, given, |rules, given| {
                if !(-most..=most).contains(&given) {
                    rules.broken(format!("{name} is {given}, must be -{most} to {most}"));
                    return None;
                }
                Some(given)
            })
        };
        let (lat, lon) = (degrees("lat", draft.lat, 90.0), degrees("lon", draft.lon, 180.0));
        GeoPoint::new(lat?, lon?)
    }
}

/// One end of a range.
#[derive(Clone, Copy)]
enum End {
    Number(Number),
    DateTime(DateTime),
}

/// The bound of whichever is given.
fn either(open: Option<End>, closed: Option<End>) -> Bound<End> {
    match (open, closed) {
        (Some(end), _) => Bound::Excluded(end),
        (None, Some(end)) => Bound::Included(end),
        (None, None) => Bound::Unbounded,
    }
}

/// The test of two ends of one kind.
fn both(from: Bound<End>, to: Bound<End>) -> Option<Test> {
    let of_numbers = |bound: Bound<End>| {
        sort(bound, |end| if let End::Number(number) = end { Some(number) } else { None })
    };
    let of_times =
        |bound: Bound<End>| sort(bound, |end| if let End::DateTime(time) = end { Some(time) } else { None });
    if let (Some(from), Some(to)) = (of_numbers(from), of_numbers(to)) {
        return Some(Test::Numbers(Range { from, to }));
    }
    Some(Test::DateTimes(Range { from: of_times(from)?, to: of_times(to)? }))
}

/// A bound of one kind; `None` when it is of the other.
fn sort<T>(bound: Bound<End>, of_kind: impl Fn(End) -> Option<T>) -> Option<Bound<T>> {
    Some(match bound {
        Bound::Included(end) => Bound::Included(of_kind(end)?),
        Bound::Excluded(end) => Bound::Excluded(of_kind(end)?),
        Bound::Unbounded => Bound::Unbounded,
    })
}

#[cfg(test)]
mod tests;
