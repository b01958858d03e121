//! Judges what clients of a cluster were told. Pure: facts in, a verdict out; it knows no cluster, clock or network.
//!
//! A test records what its clients did in a [`History`], or as plain lists of facts, and asks afterwards:
//!
//! | question | answered by |
//! |---|---|
//! | could one document in one place have given these answers? | [`check`] |
//! | did every session see its own writes, and never go back? | [`session::check`] |
//! | did exact searches show what was there, and nothing else? | [`visibility::check`] |
//! | is every acknowledged insert there, and nothing that nobody wrote? | [`set::check`] |
//! | did batches happen as a whole or not at all? | [`batch::check`] |
//! | does a sum that batches only move about stay the same? | [`bank::check`] |
//!
//! An operation of unknown outcome (its answer was lost) may take effect at any time after it was sent, or never; each
//! checker allows both.

pub mod bank;
pub mod batch;
mod bits;
mod history;
mod left;
mod linearizable;
mod problem;
mod register;
mod ring;
mod search;
pub mod session;
pub mod set;
mod text;
pub mod visibility;

#[cfg(test)]
mod tests;

pub use history::{Client, Entry, Fate, History, OpRef, Operation, Outcome, Seen, Value, Version};
pub use linearizable::{Stats, Violation, check};
pub use text::ParseError;
