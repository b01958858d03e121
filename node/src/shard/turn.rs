//! The store of a replica, and whatever is done with it at the moment.
//!
//! The store blocks, so it is lent to a blocking thread for one turn at a time and comes back. While a turn syncs, its
//! owner goes on talking to other replicas.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::owner::OwnerFailure;
use crate::replication::Ticket;
use crate::replication::driver::{Job, Prelude};
use crate::runtime::sync::spawn_blocking;
use crate::storage::checkpoint::{CheckpointJob, CheckpointReport};
use crate::storage::{PinnedCheckpoint, StorageError, Store};

/// The store, here or away.
pub(super) enum Lane {
    /// It is here. Boxed: the other state is small.
    Free(Box<Store>),
    /// A turn is under way.
    Away(Turn),
    /// A turn panicked.
    Lost,
}

/// A turn that is under way.
pub(super) struct Turn {
    /// Comes before the sync of a job.
    prelude: Option<oneshot::Receiver<Prelude>>,
    handle: BoxFuture<'static, Result<(Box<Store>, Done), JoinError>>,
    /// Operations up to here are durable when a job ends.
    pub(super) ticket: Ticket,
}

/// Where a pinned checkpoint goes.
pub(super) type PinReply = oneshot::Sender<Option<PinnedCheckpoint>>;

/// What a turn did.
pub(super) enum Done {
    Job(Result<(), StorageError>),
    Marked(Result<(), StorageError>),
    CheckpointBegun(Result<Option<CheckpointJob>, StorageError>),
    CheckpointEnded(Result<CheckpointReport, StorageError>, Duration),
    Pinned(Option<PinnedCheckpoint>, PinReply),
}

/// What happens to a turn.
pub(super) enum Progress {
    Prelude(Prelude),
    Done(Done, Ticket),
}

impl Lane {
    pub(super) fn new(store: Store) -> Lane {
        Lane::Free(Box::new(store))
    }

    /// The store, when it is here.
    pub(super) fn store(&self) -> Option<&Store> {
        match self {
            Lane::Free(store) => Some(store),
            Lane::Away(_) | Lane::Lost => None,
        }
    }

    /// Takes the store for good.
    pub(super) fn into_store(self) -> Option<Box<Store>> {
        match self {
            Lane::Free(store) => Some(store),
            Lane::Away(_) | Lane::Lost => None,
        }
    }

    /// Begins a job.
    ///
    /// # Panics
    /// When the store is away.
    pub(super) fn begin_job(&mut self, job: Job) {
        let (tell, prelude) = oneshot::channel();
        self.begin(Some(prelude), move |store| {
            let begun = job.begin(store);
            // The owner may have gone: then nobody wants to know.
            let told = begun.map(|prelude| drop(tell.send(prelude)));
            Done::Job(told.and_then(|()| store.sync()))
        });
    }

    /// Does a job that touches no file here and now, if it is a small one; it comes back otherwise. What it applies is
    /// durable already.
    ///
    /// # Panics
    /// When the store is away.
    pub(super) fn do_at_once(&mut self, job: Job) -> Result<Result<Prelude, StorageError>, Job> {
        let Lane::Free(store) = self else { panic!("a turn begins when the one before has ended") };
        if job.only_applies() && store.applies_at_once(job.commit()) {
            Ok(job.begin(store))
        } else {
            Err(job)
        }
    }

    /// Begins anything else.
    ///
    /// # Panics
    /// When the store is away.
    pub(super) fn begin_other(&mut self, work: impl FnOnce(&mut Store) -> Done + Send + 'static) {
        self.begin(None, work);
    }

    fn begin(
        &mut self,
        prelude: Option<oneshot::Receiver<Prelude>>,
        work: impl FnOnce(&mut Store) -> Done + Send + 'static,
    ) {
        let Lane::Free(mut store) = std::mem::replace(self, Lane::Lost) else {
            panic!("a turn begins when the one before has ended");
        };
        let handle = spawn_blocking(move || {
            let done = work(&mut store);
            (store, done)
        })
        .boxed();
        *self = Lane::Away(Turn { prelude, handle, ticket: Ticket::default() });
    }

    /// True between the beginning of a job and its prelude: the log is ahead of what the protocol knows.
    pub(super) fn is_in_prelude(&self) -> bool {
        matches!(self, Lane::Away(Turn { prelude: Some(_), .. }))
    }

    /// Sets up to where the log is durable when the turn ends.
    pub(super) fn set_ticket(&mut self, ticket: Ticket) {
        if let Lane::Away(turn) = self {
            turn.ticket = ticket;
        }
    }

    /// Waits until something happens to the turn; for ever when there is none. Cancel-safe.
    pub(super) async fn progress(&mut self) -> Result<Progress, OwnerFailure> {
        let Lane::Away(turn) = self else { return std::future::pending().await };
        if let Some(prelude) = &mut turn.prelude {
            let told = prelude.await;
            turn.prelude = None;
            if let Ok(prelude) = told {
                return Ok(Progress::Prelude(prelude));
            }
        }
        let ended = (&mut turn.handle).await;
        let ticket = turn.ticket;
        *self = Lane::Lost;
        let (store, done) = ended.map_err(|_| OwnerFailure::Panicked)?;
        *self = Lane::Free(store);
        Ok(Progress::Done(done, ticket))
    }
}
