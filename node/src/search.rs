//! A search as it travels through the layers, and its answer.

mod explanation;
mod grouping;
mod metadata_choice;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::document::Metadata;
use crate::filter::Filter;
use crate::ids::{DocumentId, NodeId, ShardIndex};

pub use grouping::{GROUP_LIMIT_MAX, Group, GroupBy, GroupCounter};
pub use metadata_choice::{METADATA_FIELDS_MAX, MetadataChoice};

pub use explanation::{SearchPlan, SegmentExplanation, SegmentSearch, ShardExplanation};

/// Most hits of one search.
pub const TOP_K_MAX: u32 = 10_000;

/// Most candidates of a walk.
pub const EF_MAX: u32 = 10_000;

/// Mean recall that a search can ask for.
pub const TARGET_RECALL: RangeInclusive<f64> = 0.5..=0.999;

/// Most bytes of ids, metadata and vectors in one answer. A page of a listing ends early; a search with more is refused,
/// wherever its hits are.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Most queries of one request.
pub const QUERIES_MAX: usize = 1_000;

/// Most hits that the queries of one request may ask for together, those that are left out included.
pub const BATCH_HITS_MAX: u64 = 100_000;

/// Validated searches over one table, answered from one state of each shard.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchRequest {
    /// `1..=1_000`, for at most [`BATCH_HITS_MAX`] hits together.
    pub queries: Vec<SearchQuery>,
    /// Answer with what is there and name the shards that are missing.
    pub allow_partial: bool,
    /// What the answer must reflect.
    pub read: ReadOptions,
}

/// One search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchQuery {
    /// What to look for.
    pub target: SearchTarget,
    /// Hits wanted, `1..=10_000`.
    pub top_k: u32,
    /// Best hits that are left out; with `top_k` at most 10,000.
    pub offset: u32,
    /// Compare with every row.
    pub exact: bool,
    /// Candidates of a walk through a graph, `1..=10_000`; `None`: the default.
    pub ef: Option<u32>,
    /// Instead of `ef`: the recall that walks are to reach, within [`TARGET_RECALL`].
    pub target_recall: Option<f64>,
    /// Cosine and dot: keeps score ≥ threshold; l2: keeps distance ≤ threshold. Finite.
    pub threshold: Option<f64>,
    /// Only documents whose metadata passes.
    pub filter: Option<Arc<Filter>>,
    /// What to return of each hit's metadata.
    pub metadata: MetadataChoice,
    /// Return each hit's vector.
    pub with_vector: bool,
    /// Say how each segment was searched.
    pub explain: bool,
    /// Return only the best few of each group.
    pub group_by: Option<GroupBy>,
}

/// What a search looks for.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchTarget {
    /// A vector of the table's dimension, finite, not zero under cosine.
    Vector(Vec<f32>),
    /// The vector of this document, which the answer leaves out.
    Document(DocumentId),
}

/// What a read must reflect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// How fresh it must be.
    pub consistency: Consistency,
    /// From an earlier answer: the read sees nothing older than that did, at every level. Empty: none.
    pub session_token: String,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Every write that was acknowledged before the read began. Assumes that clocks run at about the same rate.
    Strong,
    /// The same without that assumption, for one more round trip.
    StrongNoClock,
    /// What the session token names.
    Session,
    /// At most this old, `1..=600_000` ms.
    Bounded(Duration),
    /// Whatever a copy has.
    Eventual,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchResult {
    /// One for each query, in order.
    pub queries: Vec<QueryResult>,
    /// Shards that did not answer; only with `allow_partial`.
    pub missing: Vec<MissingShard>,
    /// Makes later reads see nothing older than this answer.
    pub session_token: String,
}

/// What one query found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryResult {
    /// Best first, ties by document id.
    pub hits: Vec<Hit>,
    /// Of the shards that answered, ascending; only when asked for.
    pub explanation: Vec<ShardExplanation>,
}

/// One hit.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document.
    pub id: DocumentId,
    /// Cosine and dot: higher is better; l2: unsquared distance, lower is better.
    pub score: f64,
    /// When asked for.
    pub metadata: Option<Metadata>,
    /// When asked for.
    pub vector: Option<Vec<f32>>,
    /// In which group it is, when hits are grouped and it is in one.
    pub group: Option<Group>,
}

impl Consistency {
    /// True when only the primary may answer.
    pub const fn needs_primary(self) -> bool {
        matches!(self, Consistency::Strong | Consistency::StrongNoClock)
    }
}

impl Hit {
    /// What counts towards [`ANSWER_BYTES_MAX`].
    pub fn answer_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, |metadata| metadata.as_json().len());
        let vector = self.vector.as_ref().map_or(0, |vector| size_of_val(vector.as_slice()));
        self.id.as_str().len() + metadata + vector
    }
}

/// A shard that did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingShard {
    /// Its number.
    pub shard: ShardIndex,
    /// The node of its primary, if it has one.
    pub node: Option<NodeId>,
    /// Why.
    pub reason: String,
}
