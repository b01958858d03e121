//! What operators ask for, from drafts to domain values, and the answers that REST and gRPC have in common.

use std::time::Duration;

use super::ApiGateway;
use super::violations::Violations;
use crate::cluster::view::{ClusterView, Drain};
use crate::coordinator::plan::{DrainProgress, drain_progress};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, ShardId, ShardIndex};
use crate::table::Table;

/// Longest time after which a drain may end by itself: 30 days.
const TTL_MS_MAX: u64 = 30 * 86_400_000;
/// Longest reason, bytes.
const REASON_BYTES_MAX: usize = 512;

/// A drain as the caller asks for it; `None` and empty mean the default.
#[derive(Clone, Debug, Default)]
pub(super) struct DrainDraft {
    pub(super) ttl_ms: Option<u64>,
    pub(super) reason: String,
}

/// A move as the caller asks for it.
#[derive(Clone, Debug, Default)]
pub(super) struct MoveDraft {
    pub(super) from: String,
    pub(super) to: String,
}

/// A hand-over as the caller asks for it; empty: the primary chooses.
#[derive(Clone, Debug, Default)]
pub(super) struct HandOverDraft {
    pub(super) to: String,
}

/// A forced recovery as the caller asks for it.
#[derive(Clone, Debug, Default)]
pub(super) struct ForceDraft {
    pub(super) node: String,
    pub(super) confirmation: String,
}

/// How a node stands that is to be emptied, or is not.
pub(super) struct DrainStatus {
    pub(super) drain: Option<Drain>,
    pub(super) progress: DrainProgress,
}

impl ApiGateway {
    /// How far the drain of a node is.
    ///
    /// # Errors
    /// When nothing is known of such a node.
    pub(super) fn drain_status(&self, node: &NodeId) -> Result<DrainStatus, Error> {
        let view = self.view();
        let (progress, drain) = (drain_progress(&view, node), view.drains.get(node).cloned());
        if !view.nodes.contains_key(node) && drain.is_none() && progress == DrainProgress::default() {
            return Err(Error::new(ErrorCode::NodeNotFound, format!("there is no node {node}")));
        }
        Ok(DrainStatus { drain, progress })
    }
}

/// A node's name in a path or message.
pub(super) fn node_id(pointer: &str, text: &str) -> Result<NodeId, Error> {
    let message = |error: crate::ids::IdError| match text.is_empty() {
        true => format!("{} is missing", pointer.trim_start_matches('/')),
        false => error.to_string(),
    };
    NodeId::parse(text).map_err(|error| Error::invalid(pointer, message(error)))
}

/// A shard of a table.
pub(super) fn shard(table: &Table, index: u32) -> Result<ShardId, Error> {
    if index < table.schema.shards {
        return Ok(ShardId { table: table.id, index: ShardIndex(index) });
    }
    let (name, shards) = (&table.schema.name, table.schema.shards);
    let message = format!("table {name} has no shard {index}, but the shards 0 to {}", shards - 1);
    Err(Error::new(ErrorCode::ShardNotFound, message))
}

/// Time limit (`None`: none) and reason of a drain.
pub(super) fn drain(draft: DrainDraft) -> Result<(Option<Duration>, String), Error> {
    let DrainDraft { ttl_ms, reason } = draft;
    let mut violations = Violations::default();
    if let Some(ms) = ttl_ms.filter(|ms| !(1..=TTL_MS_MAX).contains(ms)) {
        violations.add("/ttl_ms", format!("ttl_ms is {ms}, must be 1 to {TTL_MS_MAX}"));
    }
    let bytes = reason.len();
    if bytes > REASON_BYTES_MAX {
        violations
            .add("/reason", format!("reason has {bytes} bytes, at most {REASON_BYTES_MAX} are allowed"));
    }
    violations.into_result()?;
    Ok((ttl_ms.map(Duration::from_millis), reason))
}

/// The nodes of a move.
pub(super) fn move_between(draft: &MoveDraft) -> Result<(NodeId, NodeId), Error> {
    let (from, to) = (node_id("/from", &draft.from)?, node_id("/to", &draft.to)?);
    if from == to {
        return Err(Error::invalid("/to", "to is the node that the copy is on"));
    }
    Ok((from, to))
}

/// The node that a hand-over goes to; `None`: one of the primary's choice.
pub(super) fn hand_over(draft: &HandOverDraft) -> Result<Option<NodeId>, Error> {
    (!draft.to.is_empty()).then(|| node_id("/to", &draft.to)).transpose()
}

/// The node whose copy a shard goes on from. The confirmation is typed by a person, who names what is at stake.
pub(super) fn force(draft: &ForceDraft, table: &Table, shard: ShardId) -> Result<NodeId, Error> {
    let node = node_id("/node", &draft.node)?;
    let wanted = format!("{}/{}", table.schema.name, shard.index);
    if draft.confirmation != wanted {
        let message = format!("confirmation must be {wanted}: acknowledged writes of this shard may be lost");
        return Err(Error::invalid("/confirmation", message));
    }
    Ok(node)
}

/// The name of a shard's table.
pub(super) fn table_name_of(view: &ClusterView, shard: ShardId) -> String {
    view.tables_by_id.get(&shard.table).map(|table| table.schema.name.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer<T: std::fmt::Debug>(refused: Result<T, Error>) -> String {
        refused.expect_err("refused").violations[0].pointer.clone()
    }

    #[test]
    fn a_drain_has_a_bounded_time_and_reason() {
        let draft = |ttl_ms, bytes| DrainDraft { ttl_ms, reason: "x".repeat(bytes) };
        assert_eq!(drain(draft(None, 0)).expect("allowed"), (None, String::new()));
        let (ttl, _) = drain(draft(Some(1), REASON_BYTES_MAX)).expect("allowed");
        assert_eq!(ttl, Some(Duration::from_millis(1)));
        assert_eq!(pointer(drain(draft(Some(0), 0))), "/ttl_ms");
        assert_eq!(pointer(drain(draft(Some(TTL_MS_MAX + 1), 0))), "/ttl_ms");
        assert_eq!(pointer(drain(draft(None, REASON_BYTES_MAX + 1))), "/reason");
    }

    #[test]
    fn a_move_is_between_two_nodes() {
        let between = |from: &str, to: &str| {
            let (from, to) = (from.to_owned(), to.to_owned());
            move_between(&MoveDraft { from, to })
        };
        assert!(between("a", "b").is_ok());
        assert_eq!(pointer(between("", "b")), "/from");
        assert_eq!(pointer(between("a", "../b")), "/to");
        assert_eq!(pointer(between("a", "a")), "/to");
        let missing = between("", "b").expect_err("refused");
        assert_eq!(missing.message, "from is missing");
    }
}
