//! [`Driver`]: the protocol of one replica with the records that belong to it. Sans-IO.
//!
//! The protocol knows positions only. Here its commands become operations on a [`Store`] with their records ([`Job`]), and
//! messages with their records; writes and reads wait here until the protocol proves what they need. Whoever owns a
//! driver brings events, the time and the store, and carries out [`Effect`]s: a task in a node, a simulator in tests.
//!
//! Writes and readers are known by tokens of the owner's choice.

mod answers;
mod digests;
mod job;
mod readers;
mod sending;
mod tail;
mod turn;

use std::collections::{BTreeSet, VecDeque};

pub(crate) use self::answers::{NotWritten, WriteReceipt};
pub(crate) use self::job::{Job, Prelude};
pub(crate) use self::sending::{Enclosed, Letter};
pub(crate) use self::turn::Write;

use self::answers::Answers;
use self::digests::Digests;
use self::job::LogTask;
use self::readers::{Readers, Waiting};
use self::tail::Tail;
use super::{
    Alarm, Append, Change, Command, EpochHistory, EtcdPolicy, Event, LogShape, Message, NotAdmitted, Now,
    Opening, Replica, Rules, Timing,
};
use crate::ids::{Epoch, Lsn, ReplicaId, Revision, Session};
use crate::storage::{Membership, Positions, Record};

/// One replica with what waits for it. `W` names a write to its owner, `R` a reader.
pub(crate) struct Driver<W, R> {
    core: Replica,
    message_bytes: usize,
    effects: VecDeque<Effect<W, R>>,
    /// Operations for the log that no job has taken yet, and where the log will end after them.
    tasks: Vec<LogTask>,
    log_end: Lsn,
    tail: Tail,
    /// Copies for which records are being read from the log's files.
    reading: BTreeSet<ReplicaId>,
    /// The writes of the job that is under way, in order.
    judged: Vec<W>,
    answers: Answers<W>,
    readers: Readers<W, R>,
    digests: Digests,
    /// Who was in sync when the primary was heard last; saved with the next job (R3).
    membership: Option<Membership>,
    /// Everything up to here is applied.
    applied: Lsn,
    /// How far the last job tried to apply: an open batch is no reason for another one.
    apply_tried: Lsn,
}

/// How a replica takes part in the protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The opening of its store cut a tail.
    pub(crate) tail_was_cut: bool,
    /// No earlier process over its volume can be running.
    pub(crate) predecessor_ended: bool,
    /// Intervals.
    pub(crate) timing: Timing,
    /// What to do without the metadata store.
    pub(crate) policy: EtcdPolicy,
    /// The rules of the protocol.
    pub(crate) rules: Rules,
    /// Bytes of records of one message, about.
    pub(crate) message_bytes: usize,
}

/// What the owner of a driver is to do, in this order.
#[derive(Debug)]
pub(crate) enum Effect<W, R> {
    /// Hand a message to the connection. If it does not leave: [`Driver::not_sent`], for an append. It may be lost.
    Post {
        /// To whom.
        to: ReplicaId,
        /// What.
        message: Message,
        /// The records of an append.
        records: Vec<Record>,
        /// What goes along.
        enclosed: Enclosed,
    },
    /// Read the first records of this append from the log's files, then [`Driver::on_read`].
    Read(ReplicaId, Append),
    /// Change the record; see [`Command::Propose`].
    Propose {
        /// Comes back in [`Event::Proposed`].
        number: u64,
        /// The record that was seen.
        compared: Revision,
        /// What to change.
        change: Change,
        /// Replicas that the change counts on.
        guards: Vec<(ReplicaId, Session)>,
    },
    /// Read the record, linearizable.
    Reload,
    /// The outcome of a write.
    Answer(W, Result<WriteReceipt, NotWritten>),
    /// The replica led since the reader asked: a snapshot at this position or a later one sees all that was acknowledged
    /// before; `None`: it may lead no more.
    Confirmed(R, Option<Lsn>),
    /// The outcome of every hand-over that was asked for.
    HandedOver(Result<Epoch, NotAdmitted>),
    /// A reign begins.
    Lead(Epoch),
    /// A reign ends.
    Resign(Epoch),
    /// The replica needs a snapshot: close it, fetch one, open it again.
    Fetch(ReplicaId),
    /// Records that are not in the primary's log are cut: what follows `to`, up to `end`.
    Cut {
        /// The last position that stays.
        to: Lsn,
        /// The last position that was there.
        end: Lsn,
    },
    /// Something is wrong that a person should know.
    Alarm(Alarm),
    /// The content of another copy differs at this position. With a third copy the odd one out is known; with two nobody
    /// knows who is right, and this one stops.
    Differs {
        /// Which copy.
        other: ReplicaId,
        /// Where.
        at: Lsn,
        /// This one stops.
        stops: bool,
    },
}

impl<W, R> Driver<W, R> {
    /// Over a store that was just opened.
    pub(crate) fn new(id: ReplicaId, positions: &Positions, terms: Terms, now: Now) -> Driver<W, R> {
        let reigns = positions.reigns.as_slice().iter().map(|reign| (reign.epoch, reign.first));
        let opening = Opening {
            id,
            log: LogShape {
                epochs: EpochHistory(reigns.collect()),
                first: positions.first,
                end: positions.end,
                durable: positions.durable,
            },
            commit: positions.applied,
            promised: positions.promised,
            tail_was_cut: terms.tail_was_cut,
            predecessor_ended: terms.predecessor_ended,
            timing: terms.timing,
            policy: terms.policy,
            rules: terms.rules,
        };
        Driver {
            core: Replica::open(opening, now),
            message_bytes: terms.message_bytes,
            effects: VecDeque::new(),
            tasks: Vec::new(),
            log_end: positions.end,
            tail: Tail::default(),
            reading: BTreeSet::new(),
            judged: Vec::new(),
            answers: Answers::default(),
            readers: Readers::default(),
            digests: Digests::default(),
            membership: None,
            applied: positions.applied,
            apply_tried: positions.applied,
        }
    }

    /// The protocol.
    pub(crate) fn core(&self) -> &Replica {
        &self.core
    }

    /// Digests that are known here.
    pub(crate) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// The next thing to do.
    pub(crate) fn next_effect(&mut self) -> Option<Effect<W, R>> {
        self.effects.pop_front()
    }

    /// Lets the protocol take an event other than a message.
    pub(crate) fn step(&mut self, event: Event, now: Now) {
        self.step_with(event, Vec::new(), now);
    }

    /// A message of another replica, with its records. One for another copy is passed over.
    pub(crate) fn receive(&mut self, letter: Letter, now: Now) {
        let Letter { from, to, message, records, enclosed } = letter;
        if to != self.core.id() {
            return;
        }
        if let (Message::Reply(_), Some(digest)) = (&message, &enclosed.digest)
            && self.digests.differ(digest)
        {
            self.quarantine(from, digest.lsn, now);
        }
        if let (Message::Append(append), Some((configuration, isr))) = (&message, enclosed.membership) {
            self.membership = Some(Membership { epoch: append.epoch, configuration, isr });
        }
        self.step_with(Event::Received(from, message), records, now);
    }

    /// With a third copy the odd one out is known; with two nobody knows who is right.
    fn quarantine(&mut self, other: ReplicaId, at: Lsn, now: Now) {
        let copies = self.core.configuration().map_or(0, |configuration| configuration.isr.len());
        let stops = copies < 3;
        self.effects.push_back(Effect::Differs { other, at, stops });
        if !stops {
            self.step(Event::Distrust(other), now);
        }
    }

    /// A reader wants to know whether this replica still leads.
    pub(crate) fn confirm(&mut self, reader: R, now: Now) {
        let question = self.readers.ask(Waiting::Reader(reader));
        self.ask(question, now);
    }

    fn ask(&mut self, question: Option<u64>, now: Now) {
        if let Some(id) = question {
            self.step(Event::Confirm(id), now);
        }
    }

    fn step_with(&mut self, event: Event, records: Vec<Record>, now: Now) {
        let mut commands = Vec::new();
        self.core.step(event, now, &mut commands);
        let mut records = records;
        for command in commands {
            self.carry_out(command, &mut records, now);
        }
    }

    fn carry_out(&mut self, command: Command, records: &mut Vec<Record>, now: Now) {
        match command {
            Command::Log(_, operation) => self.queue(operation, records),
            Command::Send(to, message) => self.send(to, message, now),
            // The next job applies it.
            Command::Commit(_) => {}
            Command::Propose { number, compared, change, guards } => {
                self.effects.push_back(Effect::Propose { number, compared, change, guards });
            }
            Command::Reload => self.effects.push_back(Effect::Reload),
            Command::Lead(epoch) => self.effects.push_back(Effect::Lead(epoch)),
            Command::Resign(epoch) => {
                self.effects.push_back(Effect::Resign(epoch));
                self.give_up("its primary changed before the write was committed");
            }
            Command::Confirmed(id, position) => self.confirmed(id, position, now),
            Command::HandedOver(outcome) => self.effects.push_back(Effect::HandedOver(outcome)),
            Command::Fetch(from) => self.effects.push_back(Effect::Fetch(from)),
            Command::Alarm(alarm) => self.effects.push_back(Effect::Alarm(alarm)),
        }
    }

    fn confirmed(&mut self, id: u64, position: Option<Lsn>, now: Now) {
        let (waiting, question) = self.readers.answered(id);
        for waiting in waiting {
            match waiting {
                Waiting::Reader(reader) => self.effects.push_back(Effect::Confirmed(reader, position)),
                Waiting::Refused(refused) => {
                    let told = refused.into_iter().map(|refused| refused.told(position.is_some()));
                    self.effects.extend(told);
                }
            }
        }
        self.ask(question, now);
    }
}
