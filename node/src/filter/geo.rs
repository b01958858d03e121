//! Places on the earth, and areas that hold some of them.

/// Mean radius of the earth, metres (IUGG).
const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// A place: degrees, latitude within ±90, longitude within ±180.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeoPoint {
    /// North is positive.
    pub lat: f64,
    /// East is positive.
    pub lon: f64,
}

/// All places at most this far from the centre, along the surface of a sphere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeoCircle {
    /// The middle.
    pub center: GeoPoint,
    /// Finite, 0 or more.
    pub radius_m: f64,
}

/// All places between two parallels and two meridians, those on the edges too. When the left meridian is east of the right
/// one, the box lies across the antimeridian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeoBox {
    /// North-west; at least as far north as the other corner.
    pub top_left: GeoPoint,
    /// South-east.
    pub bottom_right: GeoPoint,
}

impl GeoPoint {
    /// A place; `None` when there is none of these degrees.
    pub fn new(lat: f64, lon: f64) -> Option<GeoPoint> {
        ((-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)).then_some(GeoPoint { lat, lon })
    }

    /// Metres along the surface (haversine formula).
    pub fn distance_m(self, other: GeoPoint) -> f64 {
        let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
        let (lat, other_lat) = (self.lat.to_radians(), other.lat.to_radians());
        let h = half(self.lat, other.lat) + lat.cos() * other_lat.cos() * half(self.lon, other.lon);
        2.0 * EARTH_RADIUS_M * h.sqrt().min(1.0).asin()
    }
}

impl GeoCircle {
    /// True when the place is in it.
    pub fn contains(&self, point: GeoPoint) -> bool {
        self.center.distance_m(point) <= self.radius_m
    }

    /// Latitudes that no place in it is beyond, with room for rounding.
    pub(super) fn latitudes(&self) -> (f64, f64) {
        let reach = (self.radius_m / EARTH_RADIUS_M).to_degrees() * (1.0 + 1e-9) + 1e-7;
        (self.center.lat - reach, self.center.lat + reach)
    }
}

impl GeoBox {
    /// True when the place is in it.
    pub fn contains(&self, point: GeoPoint) -> bool {
        let (left, right) = (self.top_left.lon, self.bottom_right.lon);
        let is_between =
            |lon: f64| if left <= right { left <= lon && lon <= right } else { left <= lon || lon <= right };
        // Both names of the antimeridian mean the same line.
        let is_within = is_between(point.lon) || point.lon.abs() == 180.0 && is_between(-point.lon);
        is_within && self.bottom_right.lat <= point.lat && point.lat <= self.top_left.lat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lat: f64, lon: f64) -> GeoPoint {
        GeoPoint::new(lat, lon).expect("a place")
    }

    #[test]
    fn distances_are_those_of_a_sphere() {
        let (berlin, paris) = (at(52.5200, 13.4050), at(48.8566, 2.3522));
        let km = berlin.distance_m(paris) / 1_000.0;
        assert!((876.0..879.0).contains(&km), "{km}");
        let half = at(0.0, -90.0).distance_m(at(0.0, 90.0)) / 1_000.0;
        assert!((20_015.0..20_016.0).contains(&half), "{half}");
        assert!(at(10.0, 179.9).distance_m(at(10.0, -179.9)) < 22_000.0, "across the antimeridian");
        assert_eq!(berlin.distance_m(berlin), 0.0);
        assert_eq!(GeoPoint::new(90.1, 0.0), None);
        assert_eq!(GeoPoint::new(0.0, f64::NAN), None);
    }

    #[test]
    fn a_box_may_lie_across_the_antimeridian() {
        let plain = GeoBox { top_left: at(10.0, 10.0), bottom_right: at(0.0, 20.0) };
        assert!(
            plain.contains(at(10.0, 10.0)) && plain.contains(at(0.0, 20.0)) && plain.contains(at(5.0, 15.0))
        );
        assert!(!plain.contains(at(5.0, 9.9)) && !plain.contains(at(10.1, 15.0)));
        let fiji = GeoBox { top_left: at(-12.0, 176.0), bottom_right: at(-21.0, -178.0) };
        assert!(
            fiji.contains(at(-18.0, 178.0))
                && fiji.contains(at(-18.0, -179.0))
                && fiji.contains(at(-18.0, 180.0))
        );
        assert!(!fiji.contains(at(-18.0, 0.0)) && !fiji.contains(at(-18.0, -177.0)));
        let up_to_the_line = GeoBox { top_left: at(1.0, 170.0), bottom_right: at(-1.0, 180.0) };
        assert!(up_to_the_line.contains(at(0.0, -180.0)));
    }

    #[test]
    fn no_place_of_a_circle_is_beyond_its_latitudes() {
        for (lat, radius_m) in [(0.0, 0.0), (52.5, 1_000.0), (-89.0, 500_000.0), (10.0, 3e7)] {
            let circle = GeoCircle { center: at(lat, 30.0), radius_m };
            let (south, north) = circle.latitudes();
            for step in 0..=18_000 {
                let point = at(f64::from(step) / 100.0 - 90.0, 30.0);
                assert!(!circle.contains(point) || (south..=north).contains(&point.lat));
            }
            assert!(circle.contains(circle.center));
        }
    }
}
