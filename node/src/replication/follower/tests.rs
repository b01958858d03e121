//! A follower alone, with its primaries played by the test.

use std::time::Duration;

use crate::ids::{Epoch, Lsn, ReplicaId, Revision, Session};
use crate::replication::{
    Append, Command, Configuration, EpochHistory, EtcdPolicy, Event, LogShape, Member, Message, Now, Opening,
    Position, Replica, ReplyOutcome, Rules, Timing,
};

fn id(number: u8) -> ReplicaId {
    ReplicaId([number; 16])
}

/// Replica 2 of two, whose log was written in reign 1.
struct Bench {
    core: Replica,
    out: Vec<Command>,
}

impl Bench {
    fn following(end: u64, commit: u64) -> Bench {
        let epochs = EpochHistory(vec![(Epoch(1), Lsn(1))]);
        let opening = Opening {
            id: id(2),
            log: LogShape { epochs, first: Lsn(1), end: Lsn(end), durable: Lsn(end) },
            commit: Lsn(commit),
            promised: Epoch(1),
            tail_was_cut: false,
            predecessor_ended: true,
            timing: Timing::default(),
            policy: EtcdPolicy::Strict,
            rules: Rules::default(),
        };
        Bench { core: Replica::open(opening, Now::at(Duration::from_secs(100))), out: Vec::new() }
    }

    /// What it answers: under which epoch, and what it says that it has.
    fn step(&mut self, event: Event) -> Vec<(Epoch, Lsn)> {
        self.core.step(event, Now::at(Duration::from_secs(100)), &mut self.out);
        let answers = std::mem::take(&mut self.out).into_iter().filter_map(|command| match command {
            Command::Send(_, Message::Reply(reply)) => match reply.outcome {
                ReplyOutcome::Accepted { flushed } => Some((reply.epoch, flushed)),
                _ => Some((reply.epoch, Lsn::ZERO)),
            },
            _ => None,
        });
        answers.collect()
    }

    /// The primary of a reign sends what follows `prev`, up to `last`; its reign begins at `start`.
    fn append(&mut self, epoch: u64, prev: (u64, u64), last: u64, start: u64) -> Vec<(Epoch, Lsn)> {
        let append = Append {
            epoch: Epoch(epoch),
            start: Lsn(start),
            prev: Position { epoch: Epoch(prev.0), lsn: Lsn(prev.1) },
            last: Lsn(last),
            starts: if start > prev.1 { vec![(Epoch(epoch), Lsn(start))] } else { Vec::new() },
            commit: Lsn::ZERO,
            beacon: 1,
            fresh: None,
        };
        self.step(Event::Received(id(1), Message::Append(append)))
    }

    fn durable(&mut self, end: u64) -> Vec<(Epoch, Lsn)> {
        self.step(Event::Durable(self.core.last_ticket(), Lsn(end)))
    }
}

/// A batch of four records ends at 14; of a new primary's log it has the first three, which its reign makes void. Files hold
/// whole batches, so of this one nothing is durable any more.
#[test]
fn of_a_batch_that_is_cut_it_claims_nothing() {
    let mut bench = Bench::following(14, 10);
    assert_eq!(bench.append(2, (1, 13), 14, 14), [], "what it has is not known yet");
    assert_eq!(bench.core.log().end, Lsn(14));
    assert_eq!(bench.durable(14), [(Epoch(2), Lsn(14))]);

    let mut bench = Bench::following(14, 10);
    bench.append(2, (1, 13), 14, 14);
    assert_eq!(bench.durable(10), [(Epoch(2), Lsn(10))], "the new record waits");
}

/// It hears from the record that a later reign has begun, in which it is not in sync, while an answer to the earlier one
/// waits for the disk.
#[test]
fn who_has_promised_a_later_reign_says_nothing_more_under_an_earlier_one() {
    let mut bench = Bench::following(10, 10);
    assert_eq!(bench.append(1, (1, 10), 11, 1), [(Epoch(1), Lsn(10))], "a beacon is answered at once");
    bench.step(Event::Configured(Configuration {
        revision: Revision(2),
        epoch: Epoch(2),
        primary: Some(id(1)),
        primary_session: Session(1),
        isr: vec![id(1)],
        min_isr: 1,
        members: [1, 2].map(|number| Member { id: id(number), damaged: false }).to_vec(),
    }));
    assert_eq!(bench.durable(11), []);
    assert_eq!(bench.append(1, (1, 11), 11, 1), [(Epoch(2), Lsn::ZERO)], "it is refused");
}
