//! [`Ranking`]: the best rows of a snapshot, and [`read_out`]: what becomes of them in an answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use vectorsphere_index::{Metric, TopK};

use super::pieces::Place;
use super::{ShardQuery, reads_files};
use crate::ids::DocumentId;
use crate::search::{ANSWER_BYTES_MAX, Group, GroupCounter, Hit, MetadataChoice, SegmentSearch};
use crate::storage::segment::SegmentView;
use crate::storage::{Snapshot, StorageError};

/// Hits that are read out where the search was, at most, and their bytes: copied, or parsed.
const INLINE_HITS: usize = 256;
const INLINE_COPIED_BYTES: usize = 64 << 10;
const INLINE_PARSED_BYTES: usize = 4 << 10;
/// The best rows of a snapshot, best first, ties by id.
pub struct Ranking {
    pub(super) metric: Metric,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) best: Vec<(f64, Place)>,
    /// The groups of the best, when they are limited; else empty.
    pub(super) groups: Vec<Option<Group>>,
    /// How the segments were searched, by their places in the snapshot; only when asked for.
    pub(super) searched: BTreeMap<usize, SegmentSearch>,
}

impl Ranking {
    /// How the segment at a place in the snapshot was searched; `None`: nothing of it was looked at, or nobody asked.
    pub fn searched(&self, place: usize) -> Option<SegmentSearch> {
        self.searched.get(&place).copied()
    }

    pub(super) fn of(metric: Metric, snapshot: Arc<Snapshot>, piece: PieceBest) -> Ranking {
        let PieceBest { best, searched } = piece;
        let mut ranking = Ranking { metric, snapshot, best, groups: Vec::new(), searched: BTreeMap::new() };
        ranking.add(searched);
        ranking
    }

    fn add(&mut self, searched: Vec<(usize, SegmentSearch)>) {
        for (place, search) in searched {
            self.searched.entry(place).and_modify(|known| known.add(&search)).or_insert(search);
        }
    }
}

/// The best rows of a piece.
#[derive(Default)]
pub(super) struct PieceBest {
    pub(super) best: Vec<(f64, Place)>,
    /// Parts of segments, by their places in the snapshot; only when asked for.
    pub(super) searched: Vec<(usize, SegmentSearch)>,
}

/// The hits of several shards of one table: of each ranking those that are among the best of all.
///
/// Metadata and vectors are read from the best one on until [`ANSWER_BYTES_MAX`] is reached; the hits after that have none.
/// So the hits that count in the end have theirs whenever those fit an answer, on however many nodes the shards are.
/// `bytes` are those of the answer so far.
///
/// # Errors
/// The place of a ranking of which a vector could not be read, or is not what was written; nothing was read out then.
pub fn read_out(
    rankings: &[&Ranking],
    query: &ShardQuery,
    bytes: &mut usize,
) -> Result<Vec<Vec<Hit>>, (usize, StorageError)> {
    let Some(first) = rankings.first() else { return Ok(Vec::new()) };
    let mut total = *bytes;
    // Of each shard no more rows count; those that are too many for their group take no other's place.
    let candidates = if query.group_by.is_some() { rankings.len() * query.top_k } else { query.top_k };
    let mut top = TopK::new(first.metric, candidates);
    for (shard, ranking) in rankings.iter().enumerate() {
        for (rank, (score, (segment, row))) in ranking.best.iter().enumerate() {
            top.offer(*score, RowKey::new(&ranking.snapshot.segments[*segment], *row, (shard, rank)));
        }
    }
    let mut hits: Vec<Vec<Hit>> = rankings.iter().map(|_| Vec::new()).collect();
    let mut counter = query.group_by.as_ref().map(|by| GroupCounter::new(by.limit));
    let group = |shard: usize, rank: usize| rankings[shard].groups.get(rank).and_then(Option::as_deref);
    let best = top.into_sorted().into_iter().filter(|ranked| {
        let (shard, rank) = ranked.key.place;
        counter.as_mut().is_none_or(|counter| counter.take(group(shard, rank)))
    });
    for ranked in best.take(query.top_k) {
        let RowKey { segment, row, place: (shard, rank) } = ranked.key;
        let chosen = match &query.metadata {
            MetadataChoice::All => None,
            fields => fields.of(|| segment.metadata(row)),
        };
        let is_whole = query.metadata == MetadataChoice::All;
        let chosen_bytes = chosen.as_ref().map_or(0, |metadata| metadata.as_json().len());
        total += segment.answer_bytes(row, is_whole, query.with_vector) + chosen_bytes;
        let fits = total <= ANSWER_BYTES_MAX;
        let metadata = if is_whole && fits { Some(segment.metadata(row)) } else { chosen };
        let vector = match fits && query.with_vector {
            true => Some(segment.rows().row(row).map_err(|error| (shard, error))?.into_owned()),
            false => None,
        };
        hits[shard].push(Hit {
            id: DocumentId::parse(segment.document_id(row)).expect("only parsed ids are stored"),
            score: ranked.score,
            metadata: metadata.filter(|_| fits),
            vector,
            group: group(shard, rank).map(Group::from),
        });
    }
    *bytes = total;
    Ok(hits)
}

/// True when [`read_out`] takes no longer than a hand-over between threads would.
pub fn is_read_out_at_once(rankings: &[&Ranking], query: &ShardQuery) -> bool {
    let with_metadata = query.metadata.is_some();
    let bytes_max = match query.metadata {
        MetadataChoice::Fields(_) => INLINE_PARSED_BYTES,
        MetadataChoice::Nothing | MetadataChoice::All => INLINE_COPIED_BYTES,
    };
    let hits: usize = rankings.iter().map(|ranking| ranking.best.len()).sum();
    let bytes = |ranking: &&Ranking| -> usize {
        let of = |(_, (segment, row)): &(f64, Place)| {
            ranking.snapshot.segments[*segment].answer_bytes(*row, with_metadata, query.with_vector)
        };
        ranking.best.iter().map(of).sum()
    };
    let waits = query.with_vector && rankings.iter().any(|ranking| reads_files(&ranking.snapshot));
    !waits && hits <= INLINE_HITS && rankings.iter().map(bytes).sum::<usize>() <= bytes_max
}

/// Orders rows by their documents' ids, wherever they are.
pub(super) struct RowKey<'s, P> {
    pub(super) segment: &'s SegmentView,
    pub(super) row: u32,
    pub(super) place: P,
}

impl<'s, P> RowKey<'s, P> {
    pub(super) fn new(segment: &'s SegmentView, row: u32, place: P) -> RowKey<'s, P> {
        RowKey { segment, row, place }
    }

    /// Read only when two scores are equal.
    fn id(&self) -> &'s str {
        self.segment.document_id(self.row)
    }
}

impl<P> Ord for RowKey<'_, P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id().cmp(other.id())
    }
}

impl<P> PartialOrd for RowKey<'_, P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for RowKey<'_, P> {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl<P> Eq for RowKey<'_, P> {}
