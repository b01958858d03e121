//! Snapshots on their way from one copy to another, part by part; the receiver goes on where an earlier try ended.

use std::sync::Arc;
use std::time::Duration;

use super::network::Place;
use super::node::{CopyId, Fetching, Purpose, Sending, Transfer};
use super::world::{Body, Event, World};
use crate::cluster::view::Shard;
use crate::ids::{NodeId, ReplicaId, ShardId};
use crate::shard::decide::snapshot_source;
use crate::storage::{SnapshotDescription, SnapshotWriter, StorageError};

/// Bytes of one part.
const PART_BYTES: usize = 2 << 10;
/// A snapshot that takes longer is given up.
const FETCH_LIMIT: Duration = Duration::from_secs(15);
/// Between two parts.
const PACE: Duration = Duration::from_millis(20);

impl World {
    /// A copy is to fetch a snapshot: from one in sync that does not lead, if there is one, and at every second try from the
    /// primary.
    pub(super) fn fetch(&mut self, node: usize, copy: CopyId, record: &Arc<Shard>, from: ReplicaId) {
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let asks_primary = &mut process.slots.entry(copy).or_default().asks_primary;
        let is_turn_of_primary = std::mem::replace(asks_primary, !*asks_primary);
        let is_there = |node: &NodeId| process.view.nodes.contains_key(node);
        let source = snapshot_source(record, copy.1, is_turn_of_primary, is_there);
        let Some(source) = source.or_else(|| record.replica(from)) else { return };
        self.tell_of(node, copy, || format!("fetches a snapshot from {}", source.node));
        let to = Place::Node(self.index_of(&source.node));
        let body = |number| Body::Fetch(number, copy.0);
        let question = self.ask(Place::Node(node), to, FETCH_LIMIT, body);
        let process = self.nodes[node].process.as_mut().expect("it runs");
        process.asked.insert(question, Purpose::Fetch(copy));
        let slot = process.slots.entry(copy).or_default();
        (slot.is_busy, slot.fetching) = (true, Some(Fetching { question, writer: None }));
    }

    /// A node is asked for its newest checkpoint of a shard.
    pub(super) fn begin_sending(&mut self, node: usize, to: Place, question: u64, shard: ShardId) {
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let open = process.slots.iter_mut().find(|(copy, slot)| copy.0 == shard && slot.open.is_some());
        let pinned = open.and_then(|(_, slot)| slot.open.as_mut()?.store.pin_checkpoint());
        let described = pinned.and_then(|pinned| Some((pinned.description().ok()?.clone(), pinned)));
        let Some((description, pinned)) = described else {
            return self.send(Place::Node(node), to, Body::Part(question, Transfer::Refused));
        };
        let encoded = description.encode();
        let sending = Sending { to, pinned, description, file: 0, offset: 0 };
        let process = self.nodes[node].process.as_mut().expect("it runs");
        process.sending.insert(question, sending);
        self.send(Place::Node(node), to, Body::Part(question, Transfer::Description(encoded)));
        self.schedule.at(self.time + PACE, Event::SendPart(node, question));
    }

    /// The next part of a snapshot leaves.
    pub(super) fn send_part(&mut self, node: usize, question: u64) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(sending) = process.sending.get_mut(&question) else { return };
        let sizes: Vec<u64> = sending.description.files.iter().map(|file| file.bytes).collect();
        while sizes.get(sending.file as usize).is_some_and(|size| sending.offset >= *size) {
            (sending.file, sending.offset) = (sending.file + 1, 0);
        }
        let (to, file, offset) = (sending.to, sending.file, sending.offset);
        let part = if file as usize >= sizes.len() {
            Transfer::End
        } else {
            match sending.pinned.read(file, offset, PART_BYTES) {
                Ok(bytes) => {
                    sending.offset += bytes.len() as u64;
                    Transfer::Bytes { file, offset, bytes }
                }
                Err(_) => Transfer::Refused,
            }
        };
        let is_last = !matches!(part, Transfer::Bytes { .. });
        if is_last {
            process.sending.remove(&question);
        } else {
            self.schedule.at(self.time + PACE, Event::SendPart(node, question));
        }
        self.send(Place::Node(node), to, Body::Part(question, part));
    }

    /// A part of a snapshot arrives.
    pub(super) fn part_arrives(&mut self, node: usize, question: u64, part: Transfer) {
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let Some(Purpose::Fetch(copy)) = process.asked.get(&question).copied() else { return };
        match self.take_part(node, copy, question, part) {
            Ok(false) => {}
            Ok(true) => {
                let process = self.nodes[node].process.as_mut().expect("it runs");
                process.asked.remove(&question);
                let slot = process.slots.entry(copy).or_default();
                (slot.is_busy, slot.fetching, slot.needs_snapshot) = (false, None, None);
                self.took_effect("snapshot fetched");
            }
            Err(error) => {
                let now = self.nodes[node].now(self.time);
                let process = self.nodes[node].process.as_mut().expect("it runs");
                process.asked.remove(&question);
                if !matches!(error, StorageError::Refused { .. }) {
                    process.slots.entry(copy).or_default().failing_since.get_or_insert(now.monotonic);
                }
                self.fetch_failed(node, copy);
            }
        }
    }

    /// True: that was all, and it counts.
    fn take_part(
        &mut self,
        node: usize,
        copy: CopyId,
        question: u64,
        part: Transfer,
    ) -> Result<bool, StorageError> {
        let (place, identity) = (self.place(node, copy), self.identity(copy));
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let fetching = process.slots.get_mut(&copy).and_then(|slot| slot.fetching.as_mut());
        let Some(fetching) = fetching.filter(|fetching| fetching.question == question) else {
            return Ok(false);
        };
        match (part, &mut fetching.writer) {
            (Transfer::Description(description), writer) => {
                let description = SnapshotDescription::decode(&description)?;
                *writer = Some(SnapshotWriter::begin(&place, &identity, description)?);
                Ok(false)
            }
            (Transfer::Bytes { file, offset, bytes }, Some(writer)) => {
                // What an earlier try has brought is there.
                if writer.progress()[file as usize] <= offset && !bytes.is_empty() {
                    writer.write(file, offset, &bytes)?;
                }
                Ok(false)
            }
            (Transfer::End, writer) => {
                let writer =
                    writer.take().ok_or_else(|| StorageError::refused("snapshot", "it has no part"))?;
                let meta = writer.finish()?;
                self.ledger.installed(copy, meta.checkpoint);
                Ok(true)
            }
            (Transfer::Refused | Transfer::Bytes { .. }, _) => {
                Err(StorageError::refused("snapshot", "it is not there"))
            }
        }
    }

    /// A snapshot could not be fetched: later again.
    pub(super) fn fetch_failed(&mut self, node: usize, copy: CopyId) {
        self.tell_of(node, copy, || "gets no snapshot".to_owned());
        let now = self.nodes[node].now(self.time);
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let slot = process.slots.entry(copy).or_default();
        (slot.is_busy, slot.fetching) = (false, None);
        slot.rest(now);
    }
}
