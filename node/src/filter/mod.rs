//! Filters: which documents a search looks at, by their metadata.
//!
//! REST and gRPC give a [`FilterDraft`]; [`FilterDraft::validate`] makes a [`Filter`] of it, which is proof that the limits
//! hold. A filter travels to shards as the message of the public API ([`wire`]). There a [`Matcher`] reads the metadata of
//! rows as the text that is stored, once and without a tree. What each test means is written down in
//! `docs/reference/filters.md`, and once more, slow and obvious, in `reference`, which the tests compare with.
//!
//! Knows JSON text and numbers, but no segment, no table and no request.

mod date_time;
mod draft;
mod geo;
pub mod index;
mod key_path;
mod matcher;
mod number;
#[cfg(any(test, fuzzing))]
pub(crate) mod reference;
#[cfg(test)]
pub(crate) mod strategies;
mod text;
mod validate;
mod values;
mod walk;
pub mod wire;

use std::ops::{Bound, RangeBounds};

pub use date_time::DateTime;
pub use draft::{
    ConditionDraft, FilterDraft, GeoBoxDraft, GeoCircleDraft, GeoPointDraft, MatchDraft, NestedDraft,
    RangeDraft, ScalarDraft,
};
pub use geo::{GeoBox, GeoCircle, GeoPoint};
pub use key_path::{KeyPath, PATH_BYTES_MAX, PATH_STEPS_MAX, Step};
pub use matcher::Matcher;
pub use number::Number;
pub use values::{Scalar, Values};
pub use walk::{first_scalar, only_text};

/// Most conditions of a filter, those of filters inside it too.
pub const CONDITIONS_MAX: usize = 1_000;
/// Deepest nesting: the filter itself is level 1, one in a list of it is a level deeper, one inside `nested` two.
pub const DEPTH_MAX: usize = 32;
/// Most values of one `any` or `except`.
pub const VALUES_MAX: usize = 10_000;

/// Conditions on metadata. All of `must` hold, none of `must_not` does, and of `should`, unless it is empty, one or more.
///
/// Made by [`FilterDraft::validate`] alone: at most [`CONDITIONS_MAX`] conditions, nested at most [`DEPTH_MAX`] deep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    must: Vec<Condition>,
    should: Vec<Condition>,
    must_not: Vec<Condition>,
}

/// What holds for an object or does not.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A test of the values that a path reaches.
    Field(KeyPath, Test),
    /// One object that the path reaches, of an array or alone, passes the filter.
    Nested(KeyPath, Filter),
    /// The object itself passes the filter.
    Filter(Filter),
}

/// A test of the values that a path reaches; a value that is an array stands for its elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// One of them is one of these.
    Match(Values),
    /// One of them is a text, a number or a boolean, and none of these.
    Except(Values),
    /// One of them is a number within.
    Numbers(Range<Number>),
    /// One of them is the text of a date-time within.
    DateTimes(Range<DateTime>),
    /// One of them is not null; or the opposite.
    Exists(bool),
    /// One of them is null; or the opposite.
    IsNull(bool),
    /// One of them is a place within.
    GeoCircle(GeoCircle),
    /// One of them is a place within.
    GeoBox(GeoBox),
}

/// From where to where; at least one end is bounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range<T> {
    /// The lower end.
    pub from: Bound<T>,
    /// The upper end.
    pub to: Bound<T>,
}

impl Filter {
    /// Conditions that must hold.
    pub fn must(&self) -> &[Condition] {
        &self.must
    }

    /// Conditions of which one must hold, if there are any.
    pub fn should(&self) -> &[Condition] {
        &self.should
    }

    /// Conditions that must not hold.
    pub fn must_not(&self) -> &[Condition] {
        &self.must_not
    }

    /// True when every document passes.
    pub fn is_empty(&self) -> bool {
        self.must.is_empty() && self.should.is_empty() && self.must_not.is_empty()
    }
}

impl<T: Copy> Range<T> {
    /// This value alone.
    pub fn only(value: T) -> Range<T> {
        Range { from: Bound::Included(value), to: Bound::Included(value) }
    }
}

impl<T: Ord> Range<T> {
    /// True when the value is within.
    pub fn contains(&self, value: &T) -> bool {
        RangeBounds::contains(&(self.from.as_ref(), self.to.as_ref()), value)
    }
}
