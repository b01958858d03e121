//! Deterministic simulation of a cluster: machines with clocks, disks and processes, a network, a metadata store, clients.
//!
//! What decides is the code of a node: the protocol with its [driver](crate::replication::driver), the
//! [store](crate::storage), the Master's [plans](crate::coordinator::plan), the steps of copies. What lies around it is
//! played: each world follows from one number, its seed. For a while things go wrong ([`faults`]); the promises of the
//! design are checked all the time ([`invariants`]). Then everything is well again, and everything must be available and
//! equal before long; in the end what clients were told must be possible ([`vectorsphere_checker`]).
//!
//! A failing seed prints the command that runs it again. Seeds that failed once are in `seeds.txt`, each with its story.

mod client;
mod copies;
mod fault_kind;
mod faults;
mod invariants;
mod keeper;
mod ledger;
mod master;
mod meta_store;
mod network;
mod node;
mod outcome;
mod random;
mod serving;
mod session;
mod settings;
mod snapshots;
mod tests;
mod time;
mod trace;
mod world;
