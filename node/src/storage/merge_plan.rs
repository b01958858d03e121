//! Which segments a checkpoint merges. Pure.

use super::segment::SegmentId;

/// A segment with this share of dead rows is written again, in percent.
const DEAD_PERCENT_MAX: u64 = 25;

/// Size of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentSize {
    pub(super) id: SegmentId,
    pub(super) live_rows: u64,
    pub(super) dead_rows: u64,
    /// Of its file.
    pub(super) bytes: u64,
}

/// Which segments to merge with `fresh_rows` new rows; their live rows have `room_bytes` together at most.
///
/// Decayed ones; then from the smallest on each one that is no larger than what is merged already. What stays at least
/// doubles from one segment to the next up to the largest size, so their number is logarithmic and each row is rewritten
/// as often.
pub(super) fn merge_plan(fresh_rows: u64, segments: &[SegmentSize], room_bytes: u64) -> Vec<SegmentId> {
    let mut segments = segments.to_vec();
    segments.sort_by_key(|segment| (segment.live_rows, segment.id));
    let (mut merged_rows, mut room_bytes) = (fresh_rows, room_bytes);
    let mut plan = Vec::new();
    for segment in segments {
        let rows = segment.live_rows + segment.dead_rows;
        let is_decayed = segment.dead_rows * 100 >= rows * DEAD_PERCENT_MAX;
        let live_bytes = (segment.bytes as f64 * segment.live_rows as f64 / rows.max(1) as f64) as u64;
        if (is_decayed || segment.live_rows <= merged_rows) && live_bytes <= room_bytes {
            merged_rows += segment.live_rows;
            room_bytes -= live_bytes;
            plan.push(segment.id);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(id: u32, live_rows: u64, dead_rows: u64) -> SegmentSize {
        SegmentSize { id: SegmentId(id), live_rows, dead_rows, bytes: (live_rows + dead_rows) * 10 }
    }

    #[test]
    fn small_and_decayed_segments_are_merged() {
        let plan = |fresh_rows, segments: &[SegmentSize]| merge_plan(fresh_rows, segments, u64::MAX);
        assert_eq!(plan(10, &[size(1, 100, 0), size(2, 11, 0)]), []);
        assert_eq!(plan(10, &[size(1, 100, 0), size(2, 10, 0), size(3, 20, 0)]), [2, 3].map(SegmentId));
        assert_eq!(plan(10, &[size(1, 75, 25), size(2, 1000, 10)]), [SegmentId(1)]);
        assert_eq!(plan(0, &[size(1, 0, 5)]), [SegmentId(1)]);
    }

    #[test]
    fn merged_segments_stay_within_the_room_that_there_is() {
        let segments = [size(1, 75, 25), size(2, 10, 0), size(3, 20, 0)];
        let plan = |room_bytes| merge_plan(100, &segments, room_bytes);
        assert_eq!(plan(1_050), [2, 3, 1].map(SegmentId), "live rows of all three");
        assert_eq!(plan(1_049), [2, 3].map(SegmentId));
        assert_eq!(plan(299), [SegmentId(2)]);
        assert_eq!(plan(99), []);
        assert_eq!(merge_plan(100, &[size(1, 0, 5)], 0), [SegmentId(1)], "what is dead needs no room");
    }

    #[test]
    fn a_thousand_checkpoints_leave_few_segments_and_rewrite_each_row_rarely() {
        let (mut segments, mut written) = (Vec::new(), 0u64);
        for round in 1..=1000u32 {
            let plan = merge_plan(1, &segments, u64::MAX);
            let merged: u64 = segments
                .iter()
                .filter(|segment| plan.contains(&segment.id))
                .map(|segment| segment.live_rows)
                .sum();
            segments.retain(|segment| !plan.contains(&segment.id));
            segments.push(size(round, merged + 1, 0));
            written += merged + 1;
            assert!(segments.len() <= 10, "{segments:?}");
        }
        assert!(written <= 1000 * 11, "each row was written {} times", written / 1000);
    }
}
