//! Filters as callers write them; `None` means that it is not there.

/// A filter.
#[derive(Clone, Debug, Default)]
pub struct FilterDraft {
    /// Conditions that must hold.
    pub must: Vec<ConditionDraft>,
    /// Conditions of which one must hold, if there are any.
    pub should: Vec<ConditionDraft>,
    /// Conditions that must not hold.
    pub must_not: Vec<ConditionDraft>,
}

/// A condition, which must be of one kind.
#[derive(Clone, Debug, Default)]
pub struct ConditionDraft {
    /// Path of a tested field.
    pub key: Option<String>,
    /// Equal to some values, or not.
    pub matches: Option<MatchDraft>,
    /// Between bounds.
    pub range: Option<RangeDraft>,
    /// There, or not.
    pub exists: Option<bool>,
    /// Null, or not.
    pub is_null: Option<bool>,
    /// Near a place.
    pub geo_radius: Option<GeoCircleDraft>,
    /// In a box of degrees.
    pub geo_box: Option<GeoBoxDraft>,
    /// Of one element.
    pub nested: Option<Box<NestedDraft>>,
    /// A filter of its own.
    pub filter: Option<Box<FilterDraft>>,
}

/// Equality: one of the three.
#[derive(Clone, Debug, Default)]
pub struct MatchDraft {
    /// This value.
    pub value: Option<ScalarDraft>,
    /// One of these.
    pub any: Option<Vec<ScalarDraft>>,
    /// None of these.
    pub except: Option<Vec<ScalarDraft>>,
}

/// A value to compare with.
#[derive(Clone, Debug, PartialEq)]
pub enum ScalarDraft {
    /// A text.
    Text(String),
    /// A whole number of at most 64 bits.
    Integer(i128),
    /// Any double.
    Double(f64),
    /// A boolean.
    Bool(bool),
    /// A message of gRPC without a value.
    Nothing,
}

/// Bounds, all numbers or all date-times.
#[derive(Clone, Debug, Default)]
pub struct RangeDraft {
    /// Greater than.
    pub gt: Option<ScalarDraft>,
    /// Greater than or equal.
    pub gte: Option<ScalarDraft>,
    /// Less than.
    pub lt: Option<ScalarDraft>,
    /// Less than or equal.
    pub lte: Option<ScalarDraft>,
}

/// A place, degrees.
#[derive(Clone, Copy, Debug, Default)]
pub struct GeoPointDraft {
    /// Latitude.
    pub lat: Option<f64>,
    /// Longitude.
    pub lon: Option<f64>,
}

/// A circle around a place.
#[derive(Clone, Debug, Default)]
pub struct GeoCircleDraft {
    /// The middle.
    pub center: Option<GeoPointDraft>,
    /// Metres.
    pub radius_m: Option<f64>,
}

/// A box of degrees.
#[derive(Clone, Debug, Default)]
pub struct GeoBoxDraft {
    /// North-west.
    pub top_left: Option<GeoPointDraft>,
    /// South-east.
    pub bottom_right: Option<GeoPointDraft>,
}

/// A filter for one element.
#[derive(Clone, Debug, Default)]
pub struct NestedDraft {
    /// Path of the object or array of objects.
    pub key: Option<String>,
    /// What one of them must pass.
    pub filter: Option<FilterDraft>,
}
