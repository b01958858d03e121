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
    /// How hits were looked for; `None`: nothing was looked at.
    pub search: Option<SegmentSearch>,
}

/// How hits were looked for in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSearch {
    /// In which way.
    pub plan: SearchPlan,
    /// Vertices whose neighbours were looked at.
    pub hops: u64,
    /// Vertices that codes were compared with.
    pub vertices: u64,
    /// Rows that were compared exactly, or by a scan.
    pub rows: u64,
    /// Time of all threads.
    pub elapsed: Duration,
}

/// A way to look for hits in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchPlan {
    /// Comparing rows: all, or those that may pass the filter.
    Scan,
    /// A walk through the graph with so many candidates.
    Walk(u32),
    /// The same, wider, that keeps rows that pass.
    FilteredWalk(u32),
    /// A walk from one row that passes to the next.
    TwoHopWalk,
    /// Comparing the codes of all rows that pass.
    ScanCodes,
    /// Comparing the rows that an index of FAISS names.
    Faiss,
}

impl SegmentSearch {
    /// Adds what another piece of the same search did.
    pub fn add(&mut self, other: &SegmentSearch) {
        self.hops += other.hops;
        self.vertices += other.vertices;
        self.rows += other.rows;
        self.elapsed += other.elapsed;
    }
}

impl SearchPlan {
    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            SearchPlan::Scan => "scan",
            SearchPlan::Walk(_) => "walk",
            SearchPlan::FilteredWalk(_) => "filtered_walk",
            SearchPlan::TwoHopWalk => "two_hop_walk",
            SearchPlan::ScanCodes => "scan_codes",
            SearchPlan::Faiss => "faiss",
        }
    }

    /// Candidates of a walk over everything.
    pub const fn width(self) -> Option<u32> {
        match self {
            SearchPlan::Walk(width) | SearchPlan::FilteredWalk(width) => Some(width),
            SearchPlan::Scan | SearchPlan::TwoHopWalk | SearchPlan::ScanCodes | SearchPlan::Faiss => None,
        }
    }

    fn parse(word: &str, width: u32) -> Option<SearchPlan> {
        Some(match word {
            "scan" => SearchPlan::Scan,
            "walk" => SearchPlan::Walk(width),
            "filtered_walk" => SearchPlan::FilteredWalk(width),
            "two_hop_walk" => SearchPlan::TwoHopWalk,
            "scan_codes" => SearchPlan::ScanCodes,
            "faiss" => SearchPlan::Faiss,
            _ => return None,
        })
    }
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
        let search = self.search.map(|search| proto::SegmentSearch {
            plan: search.plan.as_str().to_owned(),
            width: search.plan.width().unwrap_or_default(),
            hops: search.hops,
            vertices: search.vertices,
            rows: search.rows,
            elapsed_us: search.elapsed.as_micros() as u64,
        });
        proto::SegmentExplanation { rows: self.rows, filter, search }
    }

    /// What another node said; the part about the filter, or the search, is left out when a newer one says what is not known here.
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
        let search = |search: proto::SegmentSearch| {
            Some(SegmentSearch {
                plan: SearchPlan::parse(&search.plan, search.width)?,
                hops: search.hops,
                vertices: search.vertices,
                rows: search.rows,
                elapsed: Duration::from_micros(search.elapsed_us),
            })
        };
        let (filter, search) = (message.filter.and_then(report), message.search.and_then(search));
        SegmentExplanation { rows, filter, search }
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
            let segment = SegmentExplanation { rows: 7, filter: Some(report), search: None };
            assert_eq!(SegmentExplanation::from_proto(segment.to_proto()), segment);
        }
        use SearchPlan::{FilteredWalk, Scan, ScanCodes, TwoHopWalk, Walk};
        for plan in [Scan, Walk(96), FilteredWalk(300), TwoHopWalk, ScanCodes] {
            let elapsed = Duration::from_micros(9);
            let search = Some(SegmentSearch { plan, hops: 1, vertices: 2, rows: 3, elapsed });
            let segment = SegmentExplanation { rows: 1, filter: None, search };
            assert_eq!(SegmentExplanation::from_proto(segment.to_proto()), segment);
        }
    }
}
