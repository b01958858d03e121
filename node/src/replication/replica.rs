//! [`Replica`]: the state machine of one copy of a shard.

use std::collections::VecDeque;
use std::time::Duration;

use super::configuration::{Change, Configuration};
use super::follower::Following;
use super::log_shape::LogShape;
use super::message::{DiskCondition, Message};
use super::primary::{NotAdmitted, Primary};
use super::rules::{Rule, Rules};
use super::timing::{EtcdPolicy, Now, Timing};
use crate::ids::{Epoch, Lsn, ReplicaId, Revision, Session};

/// What a replica is opened with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opening {
    /// Which copy.
    pub id: ReplicaId,
    /// Its log.
    pub log: LogShape,
    /// Everything up to here is known to be committed.
    pub commit: Lsn,
    /// The epoch that it has promised, durably.
    pub promised: Epoch,
    /// Its opening cut records off that no sync had proven.
    pub tail_was_cut: bool,
    /// The last process of this node closed it in order, or has ended for certain.
    pub predecessor_ended: bool,
    /// Intervals.
    pub timing: Timing,
    /// What to do without the metadata store.
    pub policy: EtcdPolicy,
    /// The rules of the protocol.
    pub rules: Rules,
}

/// One copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub(super) id: ReplicaId,
    pub(super) timing: Timing,
    pub(super) policy: EtcdPolicy,
    pub(super) rules: Rules,
    pub(super) log: LogShape,
    pub(super) commit: Lsn,
    pub(super) promised: Epoch,
    pub(super) promised_durable: Epoch,
    /// On the monotonic clock: until then it has promised to obey nobody but those it heard.
    pub(super) promise_until: Duration,
    /// Session of the node, and until when it is certain, on the boot-time clock.
    pub(super) session: Option<(Session, Duration)>,
    pub(super) configuration: Option<Configuration>,
    pub(super) disk: DiskCondition,
    pub(super) standing: Standing,
    /// No reign up to this one is begun any more.
    pub(super) begun: Epoch,
    /// On the monotonic clock: until then an earlier process of its node may go on over the same volume.
    pub(super) predecessor_until: Duration,
    /// It lacks what another copy knows to be committed: its disk went back to an earlier state.
    pub(super) lacks_committed: bool,
    tail_was_cut: bool,
    /// Since it was opened it has had all that was acknowledged: its disk forgot nothing.
    pub(super) is_proven: bool,
    request: Option<Request>,
    /// Since when it knows that nobody has led the shard yet, on the monotonic clock.
    fresh_since: Option<Duration>,
    /// The last reign that the record showed, with its primary and the session that led it.
    pub(super) former: Option<(Epoch, ReplicaId, Session)>,
    tickets: VecDeque<(Ticket, LogEffect)>,
    next_ticket: Ticket,
    pub(super) next_proposal: u64,
}

/// What a replica is at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It has heard nobody yet.
    Idle,
    /// It follows a primary.
    Following(Following),
    /// It leads.
    Primary(Box<Primary>),
}

/// A change that was asked for by one that does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Request {
    number: u64,
    /// When to ask again if there is no answer, on the monotonic clock.
    again_at: Duration,
}

/// Number of an operation that was given to the log; they become durable in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What becomes true when an operation is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LogEffect {
    Promised(Epoch),
    Written(Lsn),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The shard's record, as a watch or a read shows it. An older one than is known is passed over.
    Configured(Configuration),
    /// The node's session, and until when it is certain on the boot-time clock.
    Session(Option<(Session, Duration)>),
    /// Every operation up to this ticket is durable, but of records those up to this position only: a batch is durable as a
    /// whole.
    Durable(Ticket, Lsn),
    /// Batches were added to the log in this reign; ascending positions of their ends.
    Staged(Epoch, Vec<Lsn>),
    /// Older records than this were removed from the log.
    Released(Lsn),
    /// Another replica said something.
    Received(ReplicaId, Message),
    /// Records from this position on were not sent: the connection is full, or was lost.
    Unsent(ReplicaId, Lsn),
    /// A change of the record was made, or not.
    Proposed(u64, Outcome),
    /// Somebody wants another copy to lead; `None`: any.
    HandOver(Option<ReplicaId>),
    /// A reader wants to know whether this replica still leads.
    Confirm(u64),
    /// The content of another copy is not what it must be.
    Distrust(ReplicaId),
    /// The disk of this replica changed its condition.
    Disk(DiskCondition),
    /// Time passed.
    Tick,
}

/// The outcome of a change of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Made, at this revision.
    Made(Revision),
    /// Not made, and never will be: the comparison failed.
    NotMade,
    /// Made, not made, or made later.
    Unknown,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Give an operation to the log.
    Log(Ticket, LogOperation),
    /// Send a message; of an append with its records. A message may be lost.
    Send(ReplicaId, Message),
    /// Everything up to here may be applied.
    Commit(Lsn),
    /// Change the record by compare-and-swap on its revision, while the node's session and the named replicas' node
    /// sessions last, and no named replica's node is being drained.
    Propose {
        /// Comes back with the outcome.
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
    /// The replica leads from now on: it takes writes.
    Lead(Epoch),
    /// It leads no more: what was written and is not committed has an unknown outcome.
    Resign(Epoch),
    /// An answer to [`Event::Confirm`]: it led at some time since it was asked, and a read at this position or a later
    /// one sees all that was acknowledged before; `None`: it may lead no more.
    Confirmed(u64, Option<Lsn>),
    /// An answer to [`Event::HandOver`].
    HandedOver(Result<Epoch, NotAdmitted>),
    /// Fetch a snapshot, from this replica or another one in sync.
    Fetch(ReplicaId),
    /// Something is wrong that a person should know.
    Alarm(Alarm),
}

/// An operation on the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogOperation {
    /// Make a promise durable.
    Promise(Epoch),
    /// Remove every record behind this one.
    Cut(Lsn),
    /// Append the records up to this one of the message that the event carried.
    Receive(Lsn),
    /// Append the record that begins a reign.
    StartEpoch(Epoch),
}

/// Something that should not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// A replica came back without records that it had said to be durable.
    DiskLied(ReplicaId),
    /// This replica was made primary, but lacks records that another one knows to be committed.
    LacksCommitted,
    /// The metadata store shows an older reign than this replica has promised: it was put back to an older state.
    StoreWentBack {
        /// What the store shows.
        shown: Epoch,
        /// What was promised.
        promised: Epoch,
    },
}

/// What is needed to carry a step out.
pub struct Given<'a> {
    /// The time.
    pub now: Now,
    /// Where commands go.
    pub out: &'a mut Vec<Command>,
}

impl Given<'_> {
    pub(super) fn command(&mut self, command: Command) {
        self.out.push(command);
    }
}

impl Replica {
    /// A replica that was just opened.
    pub fn open(opening: Opening, now: Now) -> Replica {
        let Opening { id, log, commit, promised, tail_was_cut, predecessor_ended, timing, policy, rules } =
            opening;
        // A copy that never promised anything has nothing to wait for.
        let promise = if promised == Epoch::default() { Duration::ZERO } else { timing.promise };
        let predecessor = if predecessor_ended { Duration::ZERO } else { Duration::MAX };
        Replica {
            id,
            timing,
            policy,
            rules,
            log,
            commit,
            promised,
            promised_durable: promised,
            promise_until: now.monotonic + promise,
            session: None,
            configuration: None,
            disk: DiskCondition::Well,
            standing: Standing::Idle,
            begun: promised,
            predecessor_until: predecessor,
            lacks_committed: false,
            tail_was_cut,
            is_proven: false,
            request: None,
            fresh_since: None,
            former: None,
            tickets: VecDeque::new(),
            next_ticket: Ticket(1),
            next_proposal: 1,
        }
    }

    /// Takes one event. Commands are appended to `out`.
    pub fn step(&mut self, event: Event, now: Now, out: &mut Vec<Command>) {
        let mut given = Given { now, out };
        match event {
            Event::Configured(configuration) => self.on_configured(configuration, &mut given),
            Event::Session(session) => self.on_session(session, &mut given),
            Event::Durable(ticket, end) => self.on_durable(ticket, end, &mut given),
            Event::Staged(epoch, ends) => self.on_staged(epoch, &ends, &mut given),
            Event::Released(first) => self.log.first = self.log.first.max(first),
            Event::Received(from, message) => self.on_received(from, message, &mut given),
            Event::Unsent(to, from) => {
                if let Standing::Primary(primary) = &mut self.standing {
                    primary.unsent(to, from);
                }
            }
            Event::Proposed(number, outcome) => self.on_proposed(number, outcome, &mut given),
            Event::HandOver(to) => self.on_hand_over(to, &mut given),
            Event::Confirm(id) => self.on_confirm(id, &mut given),
            Event::Distrust(other) => {
                if let Standing::Primary(primary) = &mut self.standing {
                    primary.distrust(other);
                }
            }
            Event::Disk(condition) => self.disk = condition,
            Event::Tick => self.on_tick(&mut given),
        }
    }

    /// Which copy this is.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Its log.
    pub fn log(&self) -> &LogShape {
        &self.log
    }

    /// Everything up to here is committed.
    pub fn commit(&self) -> Lsn {
        self.commit
    }

    /// The epoch that it has promised.
    pub fn promised(&self) -> Epoch {
        self.promised
    }

    /// What it is.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The record as it knows it.
    pub fn configuration(&self) -> Option<&Configuration> {
        self.configuration.as_ref()
    }

    /// Its opening cut records off that no sync had proven.
    pub fn tail_was_cut(&self) -> bool {
        self.tail_was_cut
    }

    /// True when it has had all that was acknowledged at some time since it was opened. One that was not proven yet may have
    /// forgotten what it had said to be durable.
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// The replica to fetch a snapshot from, when one is needed.
    pub fn wants_snapshot(&self) -> Option<ReplicaId> {
        match &self.standing {
            Standing::Following(following) if following.installing => Some(following.primary),
            _ => None,
        }
    }

    /// When it wants to look at the clock again, on the monotonic clock.
    pub fn wakes_at(&self, now: Now) -> Duration {
        match &self.standing {
            Standing::Primary(primary) => {
                primary.wakes_at(self.promise_until.max(self.predecessor_until), now)
            }
            Standing::Idle | Standing::Following(_) => now.monotonic + self.timing.resend,
        }
    }

    /// The last ticket that was given out.
    pub fn last_ticket(&self) -> Ticket {
        Ticket(self.next_ticket.0 - 1)
    }

    pub(super) fn give_to_log(&mut self, operation: LogOperation, given: &mut Given<'_>) {
        let effect = match operation {
            LogOperation::Promise(epoch) => LogEffect::Promised(epoch),
            LogOperation::Cut(to) => LogEffect::Written(to),
            LogOperation::Receive(last) => LogEffect::Written(last),
            LogOperation::StartEpoch(_) => LogEffect::Written(self.log.end),
        };
        let ticket = self.take_ticket(effect);
        given.command(Command::Log(ticket, operation));
    }

    fn take_ticket(&mut self, effect: LogEffect) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = Ticket(ticket.0 + 1);
        self.tickets.push_back((ticket, effect));
        ticket
    }

    /// Removes records behind `to`, which are not committed.
    pub(super) fn cut(&mut self, to: Lsn, given: &mut Given<'_>) {
        assert!(to >= self.commit, "{} would cut {to} below what is committed, {}", self.id, self.commit);
        self.log.cut(to, self.commit);
        // What was being written behind it will not be there.
        for (_, effect) in &mut self.tickets {
            if let LogEffect::Written(last) = effect {
                *last = (*last).min(to);
            }
        }
        self.give_to_log(LogOperation::Cut(to), given);
    }

    pub(super) fn save_promise(&mut self, epoch: Epoch, given: &mut Given<'_>) {
        assert!(epoch >= self.promised, "a promise never falls");
        self.promised = epoch;
        if self.rules.hold(Rule::PromiseIsDurable) {
            self.give_to_log(LogOperation::Promise(epoch), given);
        } else {
            self.promised_durable = epoch;
        }
    }

    fn on_durable(&mut self, ticket: Ticket, end: Lsn, given: &mut Given<'_>) {
        let before = self.tickets.len();
        while let Some((_, effect)) = self.tickets.pop_front_if(|(given_out, _)| *given_out <= ticket) {
            match effect {
                LogEffect::Promised(epoch) => self.promised_durable = self.promised_durable.max(epoch),
                LogEffect::Written(last) => self.log.durable = self.log.durable.max(last.min(end)),
            }
        }
        match &self.standing {
            Standing::Primary(_) => self.advance_commit(given),
            Standing::Following(_) if self.tickets.len() == before => {}
            Standing::Following(_) => self.reply_when_durable(given),
            Standing::Idle => {}
        }
    }

    fn on_staged(&mut self, epoch: Epoch, ends: &[Lsn], given: &mut Given<'_>) {
        let Some(last) = ends.last().copied() else { return };
        assert_eq!(self.log.last().epoch, epoch, "batches are added in the reign that the log is in");
        self.log.extend(last);
        self.take_ticket(LogEffect::Written(last));
        if let Standing::Primary(primary) = &mut self.standing
            && primary.epoch == epoch
        {
            primary.batch_ends.extend(ends);
            self.pump_all(given);
        }
    }

    fn on_received(&mut self, from: ReplicaId, message: Message, given: &mut Given<'_>) {
        match message {
            Message::Append(append) => self.on_append(from, &append, given),
            Message::Install { epoch, judged } => self.on_install(from, epoch, judged, given),
            Message::Reply(reply) => {
                if reply.epoch > self.promised {
                    self.learn_of_later_reign(given);
                } else {
                    self.on_reply(from, reply, given);
                }
            }
        }
    }

    /// Somebody else leads a later reign.
    fn learn_of_later_reign(&mut self, given: &mut Given<'_>) {
        if matches!(self.standing, Standing::Primary(_)) {
            self.resign(given);
            given.command(Command::Reload);
        }
    }

    fn on_configured(&mut self, configuration: Configuration, given: &mut Given<'_>) {
        if self.configuration.as_ref().is_some_and(|known| known.revision >= configuration.revision) {
            return;
        }
        // A copy that may lack records never helps a primary of an earlier reign.
        if configuration.epoch > self.promised && !configuration.is_in_sync(self.id) {
            self.save_promise(configuration.epoch, given);
        }
        if let Some(Configuration { epoch, primary: Some(primary), primary_session, .. }) =
            &self.configuration
            && *epoch < configuration.epoch
        {
            self.former = Some((*epoch, *primary, *primary_session));
        }
        self.fresh_since = configuration.is_fresh().then(|| self.fresh_since.unwrap_or(given.now.monotonic));
        self.configuration = Some(configuration);
        self.request = None;
        self.adopt_configuration(given);
        self.take_the_lead_if_due(given);
    }

    fn on_session(&mut self, session: Option<(Session, Duration)>, given: &mut Given<'_>) {
        self.session = session;
        if session.is_some() && self.predecessor_until == Duration::MAX {
            // The earlier process has renewed its session for the last time before ours began.
            self.predecessor_until = given.now.monotonic + self.timing.session;
        }
        let led_in = match &self.standing {
            Standing::Primary(primary) => Some(primary.session),
            _ => None,
        };
        if let (Some(led_in), Some((session, _))) = (led_in, session)
            && led_in != session
        {
            // The session that the record names has ended: for everybody else this primary is lost.
            self.resign(given);
        }
        self.take_the_lead_if_due(given);
    }

    fn on_tick(&mut self, given: &mut Given<'_>) {
        match &self.standing {
            Standing::Primary(_) => self.lead(given),
            Standing::Idle | Standing::Following(_) => self.take_the_lead_if_due(given),
        }
    }

    /// The session, while it is certain.
    pub(super) fn valid_session(&self, now: Now) -> Option<Session> {
        self.session.filter(|(_, until)| now.boot < *until).map(|(session, _)| session)
    }

    /// Begins the reign that the record gives it, or asks for one that is its to take.
    pub(super) fn take_the_lead_if_due(&mut self, given: &mut Given<'_>) {
        let (Some(session), Some(configuration)) =
            (self.valid_session(given.now), self.configuration.clone())
        else {
            return;
        };
        if matches!(self.standing, Standing::Primary(_))
            || configuration.member(self.id).is_none_or(|me| me.damaged)
        {
            return;
        }
        let is_ours = configuration.primary == Some(self.id);
        if self.lacks_committed {
            if is_ours || configuration.is_in_sync(self.id) {
                self.request(&configuration, Change::Distrust(self.id), given);
            }
            return;
        }
        // What it has promised as a primary it has begun: in this process, or in an earlier one.
        let is_new = configuration.epoch > self.begun && configuration.epoch >= self.promised;
        let begins = is_new && configuration.primary_session == session;
        let resumes = !self.rules.hold(Rule::NeverResume) && configuration.epoch == self.promised;
        if is_ours && (begins || resumes) {
            return self.begin_reign(configuration, session, given);
        }
        let is_sole = configuration.isr == [self.id];
        // What a cut tail held, or what the disk forgot, may be on another one; the Master compares them all. A table that
        // needs one copy accepts that the loss of one disk is the loss of what was written.
        let may_have_forgotten =
            configuration.min_isr > 1 && !self.is_proven && self.rules.hold(Rule::ProvenLead);
        let is_whole = is_sole || !self.tail_was_cut && !may_have_forgotten;
        if (is_ours && is_whole) || self.may_found(&configuration, given.now) {
            self.request(&configuration, Change::Claim { replica: self.id, session }, given);
        } else if is_ours && configuration.primary_session == session {
            // For everybody else it leads: nobody would elect another one.
            self.request(&configuration, Change::Abdicate, given);
        }
    }

    /// True when nobody has led the shard yet and it is this copy's turn to begin: those before it had their time.
    fn may_found(&self, configuration: &Configuration, now: Now) -> bool {
        let well = configuration.members.iter().filter(|member| !member.damaged);
        let rank = well.map(|member| member.id).take_while(|id| *id != self.id).count();
        let turn = self.fresh_since.map(|since| since + self.timing.silent * 2 * rank as u32);
        turn.is_some_and(|turn| now.monotonic >= turn)
    }

    /// Asks for a change of the record without leading, from time to time until the record changes.
    fn request(&mut self, configuration: &Configuration, change: Change, given: &mut Given<'_>) {
        if self.request.is_some_and(|request| given.now.monotonic < request.again_at) {
            return;
        }
        if configuration.epoch < self.promised && !configuration.is_fresh() {
            // Somebody was elected whom the record does not show yet.
            given.command(Command::Reload);
        } else {
            let number = self.take_proposal();
            given.command(Command::Propose {
                number,
                compared: configuration.revision,
                change,
                guards: Vec::new(),
            });
        }
        let again_at = given.now.monotonic + self.timing.propose_again;
        self.request = Some(Request { number: self.next_proposal - 1, again_at });
    }

    pub(super) fn take_proposal(&mut self) -> u64 {
        self.next_proposal += 1;
        self.next_proposal - 1
    }

    fn on_proposed(&mut self, number: u64, outcome: Outcome, given: &mut Given<'_>) {
        if self.request.is_some_and(|request| request.number == number) {
            // The record says what came of it, and the watch may take longer than a read.
            return given.command(Command::Reload);
        }
        self.on_change_proposed(number, outcome, given);
    }

    /// Leads no more.
    pub(super) fn resign(&mut self, given: &mut Given<'_>) {
        let Standing::Primary(primary) = std::mem::replace(&mut self.standing, Standing::Idle) else {
            return;
        };
        for confirmation in primary.confirmations {
            given.command(Command::Confirmed(confirmation.id, None));
        }
        if primary.hand_over.is_some() {
            // The record may show what was asked for before the answer does.
            let next =
                self.configuration.as_ref().filter(|configuration| configuration.epoch > primary.epoch);
            let outcome = next.map_or(Err(NotAdmitted::NotPrimary), |configuration| Ok(configuration.epoch));
            given.command(Command::HandedOver(outcome));
        }
        given.command(Command::Resign(primary.epoch));
    }
}
