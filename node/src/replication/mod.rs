//! The protocol of a shard's replicas: who leads, what is committed, who is in sync. Pure.
//!
//! [`Replica`] is a state machine: [`Replica::step`] takes an event and the time and returns commands in the order in
//! which they are to be carried out. It does no IO, reads no clock and holds no records: a driver owns log, network and
//! metadata store and tells what happened. The same code runs in a node, in the model checker and in the simulator.
//!
//! The rules that keep acknowledged data are named in [`Rule`]; the code asks for a rule where it applies.

pub mod configuration;
pub(crate) mod driver;
mod follower;
mod log_shape;
pub mod message;
#[cfg(test)]
mod model;
mod primary;
mod replica;
mod rules;
mod timing;

pub use configuration::{Change, Configuration, Member};
pub use log_shape::{EpochHistory, LogShape, Position};
pub use message::{Append, DiskCondition, Message, Reply, ReplyOutcome};
pub use primary::{Grant, NotAdmitted, PeerState, PeerView};
pub use replica::{Alarm, Command, Event, Given, LogOperation, Opening, Outcome, Replica, Standing, Ticket};
pub use rules::{Rule, Rules};
pub use timing::{EtcdPolicy, Now, Timing};
