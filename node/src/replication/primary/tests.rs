//! A primary alone, with the others played by the test.

use std::time::Duration;

use super::*;
use crate::ids::Revision;
use crate::replication::configuration::{Change, Member};
use crate::replication::message::{Message, Reply, ReplyOutcome};
use crate::replication::replica::{Event, Opening, Outcome, Ticket};
use crate::replication::rules::Rules;
use crate::replication::timing::{EtcdPolicy, Timing};
use crate::replication::{EpochHistory, LogShape};

const MS: Duration = Duration::from_millis(1);

fn id(number: u8) -> ReplicaId {
    ReplicaId([number; 16])
}

fn isr(numbers: &[u8]) -> Vec<ReplicaId> {
    numbers.iter().copied().map(id).collect()
}

/// Replica 1 of three, whose node has session 1 for ever.
struct Bench {
    core: Replica,
    now: Now,
    out: Vec<Command>,
}

impl Bench {
    /// It leads reign 1 with these copies in sync.
    fn leading(in_sync: &[u8], min_isr: usize) -> Bench {
        let opening = Opening {
            id: id(1),
            log: LogShape::default(),
            commit: Lsn::ZERO,
            promised: Epoch::default(),
            tail_was_cut: false,
            predecessor_ended: true,
            timing: Timing::default(),
            policy: EtcdPolicy::Strict,
            rules: Rules::default(),
        };
        let now = Now::at(Duration::from_secs(100));
        let mut bench = Bench { core: Replica::open(opening, now), now, out: Vec::new() };
        bench.step(Event::Session(Some((Session(1), Duration::MAX))));
        bench.step(Event::Configured(Configuration {
            revision: Revision(1),
            epoch: Epoch(1),
            primary: Some(id(1)),
            primary_session: Session(1),
            isr: isr(in_sync),
            min_isr,
            members: isr(&[1, 2, 3]).into_iter().map(|id| Member { id, damaged: false }).collect(),
        }));
        bench.sync();
        bench
    }

    fn step(&mut self, event: Event) -> Vec<Command> {
        self.core.step(event, self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn sync(&mut self) -> Vec<Command> {
        self.step(Event::Durable(self.core.last_ticket(), Lsn::MAX))
    }

    /// Time passes in beacons; these copies answer each with all that there is.
    fn pass(&mut self, time: Duration, answering: &[u8]) -> Vec<Command> {
        let (end, mut commands) = (self.now.monotonic + time, Vec::new());
        while self.now.monotonic < end {
            self.now = Now::at(self.now.monotonic + 100 * MS);
            commands.extend(self.step(Event::Tick));
            for copy in answering {
                commands.extend(self.accept(*copy));
            }
        }
        commands
    }

    /// A copy says that it has everything.
    fn accept(&mut self, from: u8) -> Vec<Command> {
        let flushed = self.core.log().end;
        self.reply(from, 10 + i64::from(from), ReplyOutcome::Accepted { flushed })
    }

    fn reply(&mut self, from: u8, session: i64, outcome: ReplyOutcome) -> Vec<Command> {
        let Standing::Primary(primary) = self.core.standing() else { panic!("it leads") };
        let (epoch, beacon) = (primary.epoch, primary.beacon);
        let (session, clock, disk) = (Session(session), self.now.monotonic, DiskCondition::Well);
        let reply = Reply { session, clock, epoch, beacon, outcome, disk };
        self.step(Event::Received(id(from), Message::Reply(reply)))
    }

    fn write(&mut self) -> Lsn {
        let lsn = self.core.log().end.next();
        self.step(Event::Staged(Epoch(1), vec![lsn]));
        self.sync();
        lsn
    }

    /// The last change that was asked for among these commands, made at once.
    fn make(&mut self, commands: &[Command]) -> Option<Change> {
        let last = commands.iter().rev().find_map(|command| match command {
            Command::Propose { number, compared, change, .. } => Some((*number, *compared, change.clone())),
            _ => None,
        });
        let (number, compared, change) = last?;
        self.step(Event::Proposed(number, Outcome::Made(Revision(compared.0 + 1))));
        Some(change)
    }

    fn in_sync(&self) -> &[ReplicaId] {
        &self.core.configuration().expect("it leads").isr
    }
}

fn position_after(commands: &[Command], to: u8) -> Option<Lsn> {
    commands.iter().rev().find_map(|command| match command {
        Command::Send(copy, Message::Append(append)) if *copy == id(to) => Some(append.prev.lsn.next()),
        _ => None,
    })
}

#[test]
fn writes_are_admitted_or_refused_before_they_are_appended() {
    let refused = |bench: &Bench| bench.core.admit(true, bench.now).err();
    let bench = Bench::leading(&[1, 2], 2);
    assert_eq!(bench.core.admit(true, bench.now), Ok(Epoch(1)));
    assert_eq!(refused(&Bench::leading(&[1], 2)), Some(NotAdmitted::TooFewInSync { in_sync: 1, needed: 2 }));

    let mut full = Bench::leading(&[1, 2], 1);
    let reply = Reply {
        session: Session(12),
        clock: Duration::ZERO,
        epoch: Epoch(1),
        beacon: 1,
        outcome: ReplyOutcome::Accepted { flushed: Lsn(1) },
        disk: DiskCondition::Full,
    };
    full.step(Event::Received(id(2), Message::Reply(reply)));
    assert_eq!(refused(&full), Some(NotAdmitted::DiskFull));
    assert_eq!(full.core.admit(false, full.now), Ok(Epoch(1)), "deletes make room");

    let mut ended = Bench::leading(&[1, 2], 1);
    ended.step(Event::Session(Some((Session(1), ended.now.boot))));
    assert_eq!(refused(&ended), Some(NotAdmitted::SessionEnded));
    ended.step(Event::Session(Some((Session(2), Duration::MAX))));
    assert_eq!(refused(&ended), Some(NotAdmitted::NotPrimary), "another session is another reign");

    let mut leaving = Bench::leading(&[1, 2], 1);
    leaving.write();
    leaving.step(Event::HandOver(None));
    assert_eq!(refused(&leaving), Some(NotAdmitted::HandingOver));
}

#[test]
fn silent_copies_leave_and_complete_ones_join() {
    // In sync, needed, answering; who is in sync after 1.5 s.
    type Row<'r> = (&'r [u8], usize, &'r [u8], &'r [u8]);
    let table: &[Row<'_>] = &[
        (&[1, 2, 3], 2, &[2, 3], &[1, 2, 3]),
        (&[1, 2, 3], 2, &[2], &[1, 2]),
        (&[1, 2, 3], 2, &[], &[1, 3]),
        (&[1, 2, 3], 1, &[], &[1]),
        (&[1, 2], 2, &[], &[1, 2]),
        (&[1, 2], 2, &[3], &[1, 3]),
        (&[1, 2], 2, &[2, 3], &[1, 2, 3]),
        (&[1], 2, &[3], &[1, 3]),
    ];
    for (before, min_isr, answering, after) in table {
        let mut bench = Bench::leading(before, *min_isr);
        for _ in 0..15 {
            let commands = bench.pass(100 * MS, answering);
            bench.make(&commands);
        }
        assert_eq!(bench.in_sync(), isr(after), "{before:?}, {min_isr} needed, {answering:?} answer");
    }
}

#[test]
fn a_copy_that_answers_but_gets_no_further_leaves() {
    let mut bench = Bench::leading(&[1, 2], 1);
    bench.accept(2);
    let stuck = bench.core.log().end;
    bench.write();
    for _ in 0..35 {
        let commands = bench.pass(100 * MS, &[]);
        bench.reply(2, 12, ReplyOutcome::Accepted { flushed: stuck });
        bench.make(&commands);
    }
    assert_eq!(bench.in_sync(), isr(&[1]));
}

#[test]
fn one_that_leaves_again_and_again_stays_out_for_longer() {
    let mut bench = Bench::leading(&[1, 2, 3], 1);
    let mut stayed_out = Vec::new();
    for _ in 0..4 {
        while bench.in_sync().contains(&id(2)) {
            let commands = bench.pass(100 * MS, &[3]);
            bench.make(&commands);
        }
        let left = bench.now.monotonic;
        while !bench.in_sync().contains(&id(2)) {
            let commands = bench.pass(100 * MS, &[2, 3]);
            bench.make(&commands);
        }
        stayed_out.push((bench.now.monotonic - left).as_secs());
    }
    assert_eq!(stayed_out, [0, 30, 60, 120]);
}

#[test]
fn a_copy_that_is_needed_is_taken_back_at_once() {
    let mut bench = Bench::leading(&[1, 2, 3], 2);
    for _ in 0..4 {
        while bench.in_sync().contains(&id(2)) {
            let commands = bench.pass(100 * MS, &[3]);
            bench.make(&commands);
        }
        for _ in 0..3 {
            let commands = bench.pass(100 * MS, &[2, 3]);
            bench.make(&commands);
        }
        assert!(bench.in_sync().contains(&id(2)), "without it one more loss would stop the shard");
    }
}

#[test]
fn a_hand_over_waits_for_the_successor_and_is_given_up_in_time() {
    let mut bench = Bench::leading(&[1, 2, 3], 1);
    bench.pass(200 * MS, &[2, 3]);
    bench.write();
    bench.accept(3);
    assert!(bench.step(Event::HandOver(Some(id(2)))).is_empty(), "2 lacks a record");
    assert_eq!(bench.step(Event::HandOver(None)), [Command::HandedOver(Err(NotAdmitted::HandingOver))]);
    let commands = bench.pass(2_100 * MS, &[3]);
    assert!(commands.contains(&Command::HandedOver(Err(NotAdmitted::NobodyElse))));
    assert!(bench.core.admit(true, bench.now).is_ok());

    let mut bench = Bench::leading(&[1, 2], 1);
    let unknown = bench.step(Event::HandOver(Some(id(3))));
    assert_eq!(unknown, [Command::HandedOver(Err(NotAdmitted::NobodyElse))], "3 is not in sync");
    bench.step(Event::HandOver(Some(id(2))));
    let mut commands = bench.accept(2);
    commands.extend(bench.step(Event::Tick));
    assert_eq!(bench.make(&commands), Some(Change::HandOver { to: id(2), session: Session(12) }));
    assert_eq!(bench.core.admit(true, bench.now), Err(NotAdmitted::NotPrimary));
}

#[test]
fn a_copy_is_asked_where_its_log_parts_and_gets_what_it_lacks() {
    let mut bench = Bench::leading(&[1], 1);
    for _ in 0..5 {
        bench.write();
    }
    bench.accept(2);
    bench.accept(3);
    let theirs = |epoch: u64| EpochHistory(vec![(Epoch(epoch), Lsn(1))]);
    // Another reign from the beginning: everything is sent.
    let commands = bench.reply(2, 12, ReplyOutcome::Mismatch { epochs: theirs(0), end: Lsn(9) });
    assert_eq!(position_after(&commands, 2), Some(Lsn(1)));
    // The same reign: what follows its end is sent. Answers to older questions change nothing.
    let shorter = ReplyOutcome::Mismatch { epochs: theirs(1), end: Lsn(3) };
    assert_eq!(position_after(&bench.reply(3, 13, shorter.clone()), 3), Some(Lsn(4)));
    assert_eq!(position_after(&bench.reply(3, 13, shorter), 3), None);
    // What an empty copy lacks is not in the log any more: a snapshot.
    let mut bench = Bench::leading(&[1], 1);
    bench.write();
    bench.step(Event::Released(Lsn(2)));
    bench.reply(2, 12, ReplyOutcome::Accepted { flushed: Lsn::ZERO });
    let commands = bench.pass(200 * MS, &[]);
    assert!(
        commands.contains(&Command::Send(id(2), Message::Install { epoch: Epoch(1), judged: Lsn::ZERO }))
    );
}

#[test]
fn a_copy_that_comes_back_with_less_than_it_had_is_trusted_no_more() {
    let mut bench = Bench::leading(&[1, 2, 3], 1);
    bench.write();
    bench.pass(200 * MS, &[2, 3]);
    let epochs = EpochHistory(vec![(Epoch(1), Lsn(1))]);
    let commands = bench.reply(2, 99, ReplyOutcome::Mismatch { epochs, end: Lsn(1) });
    assert!(commands.contains(&Command::Alarm(Alarm::DiskLied(id(2)))));
    let commands = bench.pass(200 * MS, &[3]);
    assert_eq!(bench.make(&commands), Some(Change::Distrust(id(2))));
    let commands = bench.pass(200 * MS, &[3]);
    assert_eq!(bench.make(&commands), Some(Change::InSync(isr(&[1, 3]))));

    // One of whom this reign knows nothing yet: in sync it has all that is committed.
    let mut bench = Bench::leading(&[1, 2, 3], 1);
    bench.write();
    bench.pass(200 * MS, &[2, 3]);
    bench.reply(2, 99, ReplyOutcome::Installing);
    let epochs = EpochHistory(vec![(Epoch(1), Lsn(1))]);
    let commands = bench.reply(2, 99, ReplyOutcome::Mismatch { epochs, end: Lsn(1) });
    assert!(commands.contains(&Command::Alarm(Alarm::DiskLied(id(2)))));
}

#[test]
fn answers_of_an_earlier_process_do_not_count() {
    let mut bench = Bench::leading(&[1, 2], 1);
    bench.pass(200 * MS, &[2]);
    let lsn = bench.write();
    bench.reply(2, 99, ReplyOutcome::Accepted { flushed: Lsn(1) });
    bench.reply(2, 12, ReplyOutcome::Accepted { flushed: lsn });
    assert_eq!(bench.core.commit(), Lsn(1));
    bench.reply(2, 99, ReplyOutcome::Accepted { flushed: lsn });
    assert_eq!(bench.core.commit(), lsn);
}

#[test]
fn the_only_copy_in_sync_decides_nothing_without_its_session() {
    let mut bench = Bench::leading(&[1], 1);
    let lsn = bench.core.log().end.next();
    bench.step(Event::Session(Some((Session(1), bench.now.boot))));
    bench.step(Event::Staged(Epoch(1), vec![lsn]));
    bench.sync();
    let is_confirmed = |command: &Command| matches!(command, Command::Confirmed(..));
    assert!(!bench.step(Event::Confirm(7)).iter().any(is_confirmed));
    assert!(bench.core.commit() < lsn && !bench.core.may_acknowledge(bench.now));
    bench.step(Event::Session(Some((Session(1), Duration::MAX))));
    let commands = bench.pass(100 * MS, &[]);
    assert!(commands.contains(&Command::Confirmed(7, Some(lsn))));
    assert_eq!(bench.core.last_ticket(), Ticket(3));
}
