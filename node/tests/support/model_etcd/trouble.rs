//! How an etcd goes wrong, within what it promises.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use tonic::{Response, Status};

use super::{ModelEtcd, State};

/// etcd gives a request up after this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);
/// The longest delay of a request whose client may have given it up: it is carried out all the same.
const LATE: Duration = Duration::from_secs(6);

/// What may happen to each call; the shares are of 1,000.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    /// Longest delay before a request is carried out, and again before its answer.
    pub(crate) delay: Duration,
    /// Requests that never arrive; their callers hear nothing.
    pub(crate) lost_requests: u32,
    /// Requests that are carried out, and whose answers never arrive.
    pub(crate) lost_answers: u32,
    /// Requests that are carried out seconds later, when their callers may have given up.
    pub(crate) late_requests: u32,
    /// Requests that are refused although nothing is wrong with them.
    pub(crate) refused_requests: u32,
    /// Answers of keep-alives that come twice.
    pub(crate) doubled_answers: u32,
    /// Leases live so much longer than they should.
    pub(crate) leases_end_late_by: Duration,
}

/// What happens to a call.
enum Fate {
    Plain,
    LostRequest,
    LostAnswer,
    Late(Duration),
    Refused,
}

impl ModelEtcd {
    /// From now on things go wrong like this.
    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.lock().trouble = trouble;
    }

    /// There is no leader for a while; all streams end; then every lease has its whole time again.
    pub(crate) fn change_leader(&self, gap: Duration) {
        let mut state = self.lock();
        state.term += 1;
        let led_from = Instant::now() + gap;
        state.leaderless_until = Some(led_from);
        state.leases.begin_again(led_from);
        drop(state);
        self.interruptions.send_modify(|count| *count += 1);
    }

    /// Ends some lease before its time, as an old leader may; `false`: there is none.
    pub(crate) fn end_some_lease(&self) -> bool {
        let mut state = self.lock();
        let leases = state.leases.ids();
        if leases.is_empty() {
            return false;
        }
        let lease = leases[state.random.random_range(0..leases.len())];
        let ended = state.revoke(lease);
        self.changed(&state);
        ended
    }

    /// Carries out a call, or what the trouble makes of it.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut State) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let (fate, before, after) = {
            let mut state = self.lock();
            (state.fate(), state.some_delay(), state.some_delay())
        };
        pass(before).await;
        self.await_leader().await?;
        match fate {
            Fate::Plain => {
                let answer = self.run(run);
                pass(after).await;
                answer.map(Response::new)
            }
            Fate::Refused => Err(Status::unavailable("etcdserver: leader changed")),
            Fate::LostRequest => std::future::pending().await,
            Fate::LostAnswer => {
                let _ = self.run(run);
                std::future::pending().await
            }
            Fate::Late(by) => {
                let etcd = self.clone();
                // On its own: a caller that gives up takes only its wait away.
                let late = tokio::spawn(async move {
                    tokio::time::sleep(by).await;
                    etcd.run(run)
                });
                late.await.expect("it does not panic").map(Response::new)
            }
        }
    }

    fn run<T>(&self, run: impl FnOnce(&mut State) -> Result<T, Status>) -> Result<T, Status> {
        let mut state = self.lock();
        let answer = run(&mut state);
        self.changed(&state);
        answer
    }

    pub(super) async fn await_leader(&self) -> Result<(), Status> {
        let until = self.lock().leaderless_until;
        let Some(until) = until.filter(|until| Instant::now() < *until) else { return Ok(()) };
        let patience = Instant::now() + REQUEST_TIMEOUT;
        tokio::time::sleep_until(until.min(patience)).await;
        if until <= patience { Ok(()) } else { Err(Status::unavailable("etcdserver: request timed out")) }
    }

    /// Returns when streams end because the leader is gone.
    pub(super) async fn interrupted(&self) -> Status {
        let mut interruptions = self.interruptions.subscribe();
        interruptions.changed().await.expect("the model outlives its streams");
        Status::unavailable("etcdserver: no leader")
    }

    /// True when the answer of a keep-alive comes twice.
    pub(super) fn doubles(&self) -> bool {
        let mut state = self.lock();
        let share = state.trouble.doubled_answers;
        state.random.random_range(0..1_000) < share
    }
}

impl State {
    fn fate(&mut self) -> Fate {
        let trouble = self.trouble;
        let mut die: u32 = self.random.random_range(0..1_000);
        let kinds = [
            (trouble.lost_requests, Fate::LostRequest),
            (trouble.lost_answers, Fate::LostAnswer),
            (trouble.late_requests, Fate::Late(LATE.mul_f64(self.random.random_range(0.0..1.0)))),
            (trouble.refused_requests, Fate::Refused),
        ];
        for (share, fate) in kinds {
            if die < share {
                return fate;
            }
            die -= share;
        }
        Fate::Plain
    }

    pub(super) fn some_delay(&mut self) -> Duration {
        let share = self.random.random_range(0.0..1.0);
        self.trouble.delay.mul_f64(share)
    }
}

/// No delay is no pause at all.
pub(super) async fn pass(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}
