//! Which rows have a place in some area.

use roaring::RoaringBitmap;

use crate::filter::{GeoBox, GeoCircle, GeoPoint};

/// Places with their rows, ordered by latitude: an area looks through those between its parallels.
#[derive(Debug, Default)]
pub(super) struct Places {
    entries: Box<[(GeoPoint, u32)]>,
}

impl Places {
    /// From places in any order.
    pub(super) fn new(mut entries: Vec<(GeoPoint, u32)>) -> Places {
        entries.sort_unstable_by(|(a, a_row), (b, b_row)| a.lat.total_cmp(&b.lat).then(a_row.cmp(b_row)));
        Places { entries: entries.into() }
    }

    pub(super) fn rows_in_circle(&self, circle: &GeoCircle, found: &mut RoaringBitmap) {
        self.rows_between(circle.latitudes(), |point| circle.contains(point), found);
    }

    pub(super) fn rows_in_box(&self, area: &GeoBox, found: &mut RoaringBitmap) {
        let latitudes = (area.bottom_right.lat, area.top_left.lat);
        self.rows_between(latitudes, |point| area.contains(point), found);
    }

    fn rows_between(
        &self,
        (south, north): (f64, f64),
        is_in: impl Fn(GeoPoint) -> bool,
        found: &mut RoaringBitmap,
    ) {
        let first = self.entries.partition_point(|(point, _)| point.lat < south);
        let between = self.entries[first..].iter().take_while(|(point, _)| point.lat <= north);
        found.extend(between.filter(|(point, _)| is_in(*point)).map(|(_, row)| row));
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.entries)
    }
}
