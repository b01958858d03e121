//! How a search was answered, for those who ask.

use std::time::Duration;

use vectorsphere_proto::v1 as proto;

use crate::filter::KeyPath;
use crate::filter::index::{Applied, FilterReport, UNINDEXED_MAX};
use crate::ids::ShardIndex;

/// How a shard answered.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardExplanation {
    /// Its number.
    pub shard: ShardIndex,
    /// In the order in which it has them.
    pub segments: Vec<SegmentExplanation>,
}

/// How a segment was searched.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentExplanation {
    /// Its rows, deleted ones too.
    pub rows: u64,
    /// What became of the filter, if there was one.
    pub filter: Option<FilterReport>,
}

impl ShardExplanation {
    /// As it travels.
    pub fn to_proto(&self) -> proto::ShardExplanation {
        let segments = self.segments.iter().map(SegmentExplanation::to_proto);
        proto::ShardExplanation { shard: self.shard.0, segments: segments.collect() }
    }
}

impl SegmentExplanation {
    /// As it travels.
    pub fn to_proto(&self) -> proto::SegmentExplanation {
        let filter = self.filter.as_ref().map(|report| proto::FilterExplanation {
            passing: report.passing,
            applied: report.how.as_str().to_owned(),
            unindexed_keys: report.unindexed.iter().map(KeyPath::to_string).collect(),
            elapsed_us: report.elapsed.as_micros() as u64,
        });
        proto::SegmentExplanation { rows: self.rows, filter }
    }

    /// What another node said; the part about the filter is left out when a newer one says what is not known here.
    pub fn from_proto(message: proto::SegmentExplanation) -> SegmentExplanation {
        let rows = message.rows;
        let report = |filter: proto::FilterExplanation| {
            let unindexed = filter.unindexed_keys.iter().filter_map(|key| KeyPath::parse(key).ok());
            Some(FilterReport {
                rows,
                passing: filter.passing,
                how: Applied::parse(&filter.applied)?,
                unindexed: unindexed.take(UNINDEXED_MAX).collect(),
                elapsed: Duration::from_micros(filter.elapsed_us),
            })
        };
        SegmentExplanation { rows, filter: message.filter.and_then(report) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_survives_its_message() {
        for how in [Applied::Index, Applied::IndexAndMetadata, Applied::Metadata] {
            let report = FilterReport {
                rows: 7,
                passing: 3,
                how,
                unindexed: vec![KeyPath::parse("a[].b").expect("a path")],
                elapsed: Duration::from_micros(5),
            };
            let segment = SegmentExplanation { rows: 7, filter: Some(report) };
            assert_eq!(SegmentExplanation::from_proto(segment.to_proto()), segment);
        }
        let plain = SegmentExplanation { rows: 1, filter: None };
        assert_eq!(SegmentExplanation::from_proto(plain.to_proto()), plain);
    }
}
