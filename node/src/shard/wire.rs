//! Replication messages as they travel. Everything from the wire is checked here.

use std::time::Duration;

use bytes::Bytes;
use vectorsphere_proto::internal::{self as proto, replication_message::Body, reply};

use crate::error_code::Error;
use crate::ids::{Epoch, Lsn, OpId, ReplicaId, Revision, Session, ShardId, ShardIndex, TableId};
use crate::replication::driver::{Enclosed, Letter};
use crate::replication::{Append, DiskCondition, EpochHistory, Message, Position, Reply, ReplyOutcome};
use crate::storage::log::BODY_BYTES_MAX;
use crate::storage::op_window::OpKey;
use crate::storage::{Digest, Record, RecordKind};

/// A message to a copy of a shard, as it travels.
pub(super) fn letter_to_proto(shard: ShardId, letter: Letter) -> proto::ReplicationMessage {
    let Letter { from, to, message, records, enclosed } = letter;
    let body = match message {
        Message::Append(append) => Body::Append(append_to_proto(append, records, enclosed)),
        Message::Reply(reply) => Body::Reply(reply_to_proto(reply, enclosed)),
        Message::Install { epoch, judged } => {
            Body::Install(proto::Install { epoch: epoch.0, judged_lsn: judged.0 })
        }
    };
    proto::ReplicationMessage {
        table_id: shard.table.to_string(),
        shard: shard.index.0,
        from: Bytes::copy_from_slice(&from.0),
        to: Bytes::copy_from_slice(&to.0),
        body: Some(body),
    }
}

/// The message that has travelled, and the shard that it is for.
pub(super) fn letter_from_proto(message: proto::ReplicationMessage) -> Result<(ShardId, Letter), Error> {
    let table = TableId::parse(&message.table_id).ok_or_else(|| invalid("table_id", "must be a UUID"))?;
    let shard = ShardId { table, index: ShardIndex(message.shard) };
    let (from, to) = (replica_id("from", &message.from)?, replica_id("to", &message.to)?);
    let body = message.body.ok_or_else(|| invalid("body", "is missing"))?;
    let (message, records, enclosed) = match body {
        Body::Append(append) => append_from_proto(append)?,
        Body::Reply(reply) => {
            let (reply, enclosed) = reply_from_proto(reply)?;
            (Message::Reply(reply), Vec::new(), enclosed)
        }
        Body::Install(proto::Install { epoch, judged_lsn }) => {
            let install = Message::Install { epoch: Epoch(epoch), judged: Lsn(judged_lsn) };
            (install, Vec::new(), Enclosed::default())
        }
    };
    Ok((shard, Letter { from, to, message, records, enclosed }))
}
fn append_to_proto(append: Append, records: Vec<Record>, enclosed: Enclosed) -> proto::Append {
    let (configuration, isr) = enclosed.membership.unwrap_or_default();
    proto::Append {
        epoch: append.epoch.0,
        start: append.start.0,
        prev: Some(position_to_proto(append.prev)),
        records: records.into_iter().map(record_to_proto).collect(),
        commit_lsn: append.commit.0,
        beacon: append.beacon,
        fresh: append
            .fresh
            .map(|(session, clock)| proto::Fresh { session: session.0, clock_ns: clock.as_nanos() as u64 }),
        configuration: configuration.0,
        isr: isr.iter().map(|id| Bytes::copy_from_slice(&id.0)).collect(),
        incarnation: 0,
        digest: enclosed.digest.map(digest_to_proto),
    }
}

fn append_from_proto(append: proto::Append) -> Result<(Message, Vec<Record>, Enclosed), Error> {
    let prev = append.prev.map(position_from_proto).unwrap_or_default();
    let mut records = Vec::with_capacity(append.records.len());
    let (mut lsn, mut epoch, mut starts) = (prev.lsn, prev.epoch, Vec::new());
    for record in append.records {
        lsn =
            Lsn(lsn.0.checked_add(1).ok_or_else(|| invalid("prev", "is the last position that there is"))?);
        let record = record_from_proto(record, lsn)?;
        if record.epoch < epoch || record.epoch.0 > append.epoch {
            return Err(invalid("records", "their epochs fall, or are later than their primary's"));
        }
        if record.epoch > epoch {
            epoch = record.epoch;
            starts.push((epoch, lsn));
        }
        records.push(record);
    }
    let isr = append.isr.iter().map(|id| replica_id("isr", id)).collect::<Result<_, _>>()?;
    let message = Message::Append(Append {
        epoch: Epoch(append.epoch),
        start: Lsn(append.start),
        prev,
        last: lsn,
        starts,
        commit: Lsn(append.commit_lsn),
        beacon: append.beacon,
        fresh: append.fresh.map(|fresh| (Session(fresh.session), Duration::from_nanos(fresh.clock_ns))),
    });
    let enclosed = Enclosed {
        membership: Some((Revision(append.configuration), isr)),
        digest: append.digest.map(digest_from_proto).transpose()?,
        applied: Lsn::ZERO,
    };
    Ok((message, records, enclosed))
}

fn reply_to_proto(reply: Reply, enclosed: Enclosed) -> proto::Reply {
    let outcome = match reply.outcome {
        ReplyOutcome::Accepted { flushed } => reply::Outcome::Accepted(proto::Accepted {
            flushed_lsn: flushed.0,
            applied_lsn: enclosed.applied.0,
            digest: enclosed.digest.map(digest_to_proto),
        }),
        ReplyOutcome::Mismatch { epochs, end } => {
            let position = |(epoch, lsn)| position_to_proto(Position { epoch, lsn });
            reply::Outcome::Mismatch(proto::Mismatch {
                epochs: epochs.0.into_iter().map(position).collect(),
                end_lsn: end.0,
            })
        }
        ReplyOutcome::Refused => reply::Outcome::Refused(proto::Refused {}),
        ReplyOutcome::Contradicted => reply::Outcome::Contradicted(proto::Contradicted {}),
        ReplyOutcome::Installing => reply::Outcome::Installing(proto::Installing {}),
    };
    let disk = match reply.disk {
        DiskCondition::Well => proto::DiskCondition::Unspecified,
        DiskCondition::Full => proto::DiskCondition::Full,
        DiskCondition::Leaving => proto::DiskCondition::Leaving,
    };
    proto::Reply {
        session: reply.session.0,
        clock_ns: reply.clock.as_nanos() as u64,
        epoch: reply.epoch.0,
        beacon: reply.beacon,
        outcome: Some(outcome),
        disk: disk.into(),
    }
}

fn reply_from_proto(reply: proto::Reply) -> Result<(Reply, Enclosed), Error> {
    let mut enclosed = Enclosed::default();
    let disk = match reply.disk() {
        proto::DiskCondition::Unspecified => DiskCondition::Well,
        proto::DiskCondition::Leaving => DiskCondition::Leaving,
        proto::DiskCondition::Full | proto::DiskCondition::Failed => DiskCondition::Full,
    };
    let outcome = match reply.outcome.ok_or_else(|| invalid("outcome", "is missing"))? {
        reply::Outcome::Accepted(accepted) => {
            enclosed.applied = Lsn(accepted.applied_lsn);
            enclosed.digest = accepted.digest.map(digest_from_proto).transpose()?;
            ReplyOutcome::Accepted { flushed: Lsn(accepted.flushed_lsn) }
        }
        reply::Outcome::Mismatch(mismatch) => {
            let epochs: Vec<_> =
                mismatch.epochs.into_iter().map(|start| (Epoch(start.epoch), Lsn(start.lsn))).collect();
            if !epochs.is_sorted_by(|(a, a_first), (b, b_first)| a < b && a_first < b_first) {
                return Err(invalid("epochs", "do not ascend"));
            }
            ReplyOutcome::Mismatch { epochs: EpochHistory(epochs), end: Lsn(mismatch.end_lsn) }
        }
        reply::Outcome::Refused(proto::Refused {}) => ReplyOutcome::Refused,
        reply::Outcome::Contradicted(proto::Contradicted {}) => ReplyOutcome::Contradicted,
        reply::Outcome::Installing(proto::Installing {}) => ReplyOutcome::Installing,
    };
    let (session, epoch) = (Session(reply.session), Epoch(reply.epoch));
    let clock = Duration::from_nanos(reply.clock_ns);
    Ok((Reply { session, clock, epoch, beacon: reply.beacon, outcome, disk }, enclosed))
}

fn record_to_proto(record: Record) -> proto::LogRecord {
    proto::LogRecord {
        kind: record.kind as u32,
        batch_end: record.batch_end,
        epoch: record.epoch.0,
        op_id: Bytes::copy_from_slice(&record.op.id.0),
        op_digest: record.op.digest,
        body: record.body,
    }
}

fn record_from_proto(record: proto::LogRecord, lsn: Lsn) -> Result<Record, Error> {
    let kind = u8::try_from(record.kind).ok().and_then(RecordKind::from_number);
    let kind = kind.ok_or_else(|| invalid("kind", "is not known to this version"))?;
    let id = record.op_id.as_ref().try_into().map(OpId);
    let id = id.map_err(|_| invalid("op_id", "must have 16 bytes"))?;
    if record.body.len() > BODY_BYTES_MAX {
        return Err(invalid("body", "is over the limit of a record"));
    }
    let op = OpKey { id, digest: record.op_digest };
    let (batch_end, epoch) = (record.batch_end, Epoch(record.epoch));
    Ok(Record { kind, batch_end, epoch, lsn, op, body: record.body })
}

fn position_to_proto(position: Position) -> proto::Position {
    proto::Position { epoch: position.epoch.0, lsn: position.lsn.0 }
}

fn position_from_proto(position: proto::Position) -> Position {
    Position { epoch: Epoch(position.epoch), lsn: Lsn(position.lsn) }
}

pub(super) fn digest_to_proto(digest: Digest) -> proto::Digest {
    let Digest { lsn, content, log } = digest;
    proto::Digest { lsn: lsn.0, content: Bytes::copy_from_slice(&content.to_le_bytes()), log }
}

fn digest_from_proto(digest: proto::Digest) -> Result<Digest, Error> {
    let content = digest.content.as_ref().try_into().map(u128::from_le_bytes);
    let content = content.map_err(|_| invalid("digest", "must have 16 bytes"))?;
    Ok(Digest { lsn: Lsn(digest.lsn), content, log: digest.log })
}

fn replica_id(field: &str, bytes: &[u8]) -> Result<ReplicaId, Error> {
    ReplicaId::from_bytes(bytes).ok_or_else(|| invalid(field, "must have 16 bytes"))
}

fn invalid(field: &str, why: &str) -> Error {
    Error::invalid(format!("/{field}"), format!("{field} {why}"))
}
