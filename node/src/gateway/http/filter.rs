//! The filter of a search, for the description of the API.

use serde::Deserialize;
use utoipa::ToSchema;

/// Conditions on metadata: all of `must` hold, none of `must_not` does, and of `should`, unless it is empty, one or more.
/// At most 1,000 conditions, nested at most 32 levels deep; `docs/reference/filters.md` says what each of them means.
#[derive(Deserialize, ToSchema)]
#[schema(as = Filter, example = json!({"must": [{"key": "section", "match": {"value": "libs"}}, {"key": "size_kib", "range": {"gte": 100}}]}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
pub(super) struct FilterText {
    must: Option<Vec<ConditionText>>,
    should: Option<Vec<ConditionText>>,
    must_not: Option<Vec<ConditionText>>,
}

/// One of: a key with one of `match`, `range`, `exists`, `is_null`, `geo_radius`, `geo_box`; or `nested`; or a filter.
#[derive(Deserialize, ToSchema)]
#[schema(as = Condition)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct ConditionText {
    /// Path of the tested field: `a.b`, through arrays `a[].b`, a name with a dot `a."b.c"`.
    key: Option<String>,
    r#match: Option<MatchText>,
    range: Option<RangeText>,
    /// true: some value there is not null; false: none is.
    exists: Option<bool>,
    /// true: some value there is null; false: none is.
    is_null: Option<bool>,
    geo_radius: Option<GeoRadiusText>,
    geo_box: Option<GeoBoxText>,
    nested: Option<NestedText>,
    #[schema(no_recursion)]
    must: Option<Vec<ConditionText>>,
    #[schema(no_recursion)]
    should: Option<Vec<ConditionText>>,
    #[schema(no_recursion)]
    must_not: Option<Vec<ConditionText>>,
}

/// One of the three.
#[derive(Deserialize, ToSchema)]
#[schema(as = Match)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct MatchText {
    value: Option<ScalarText>,
    /// At most 10,000 values.
    any: Option<Vec<ScalarText>>,
    /// At most 10,000 values.
    except: Option<Vec<ScalarText>>,
}

/// A string, a number or a boolean.
#[derive(Deserialize, ToSchema)]
#[schema(as = Scalar)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
enum ScalarText {
    Text(String),
    Number(f64),
    Bool(bool),
}

/// Bounds, all numbers or all RFC 3339 date-times.
#[derive(Deserialize, ToSchema)]
#[schema(as = Range)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct RangeText {
    gt: Option<BoundText>,
    gte: Option<BoundText>,
    lt: Option<BoundText>,
    lte: Option<BoundText>,
}

/// A number, or an RFC 3339 date-time.
#[derive(Deserialize, ToSchema)]
#[schema(as = Bound)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
enum BoundText {
    Number(f64),
    DateTime(String),
}

/// Degrees.
#[derive(Deserialize, ToSchema)]
#[schema(as = GeoPoint)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct GeoPointText {
    /// -90 to 90.
    lat: f64,
    /// -180 to 180.
    lon: f64,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = GeoRadius)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct GeoRadiusText {
    center: GeoPointText,
    radius_m: f64,
}

/// Across the antimeridian when `top_left` is east of `bottom_right`.
#[derive(Deserialize, ToSchema)]
#[schema(as = GeoBox)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct GeoBoxText {
    top_left: GeoPointText,
    bottom_right: GeoPointText,
}

/// One object at the path, alone or in an array, passes the filter.
#[derive(Deserialize, ToSchema)]
#[schema(as = Nested)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct NestedText {
    key: String,
    #[schema(no_recursion)]
    filter: FilterText,
}
