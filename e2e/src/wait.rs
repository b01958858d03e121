//! Waiting for a condition: with a deadline, and with the last state seen in the error.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

const PACE: Duration = Duration::from_millis(100);

/// A state that no waiting can mend; [`until`] returns it at once.
#[derive(Debug)]
pub struct Hopeless(pub String);

impl fmt::Display for Hopeless {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Hopeless {}

/// Calls `probe` until it answers `Ok`, and returns that. An `Err` means "not yet, because".
///
/// # Errors
/// After `deadline`, with what was awaited and the last state seen; at once when the probe says [`Hopeless`].
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let last = match tokio::time::timeout(left.max(PACE), probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) if state.is::<Hopeless>() => {
                return Err(state.context(format!("waiting until {what}")));
            }
            Ok(Err(state)) => state,
            Err(_) => anyhow!("the last look did not return in time"),
        };
        if Instant::now() >= end {
            return Err(anyhow!("waited {} s until {what}; last seen: {last:#}", deadline.as_secs()));
        }
        tokio::time::sleep(PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn returns_as_soon_as_the_condition_holds() {
        let mut looks = 0;
        let seen = until("three looks", Duration::from_secs(5), async || {
            looks += 1;
            ensure!(looks == 3, "{looks} looks");
            Ok(looks)
        });
        assert_eq!(seen.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_timeout_tells_the_last_state() {
        let probe = async || -> Result<()> { Err(anyhow!("2 of 3")) };
        let error = until("all are there", Duration::ZERO, probe).await.unwrap_err().to_string();
        assert_eq!(error, "waited 0 s until all are there; last seen: 2 of 3");
    }

    #[tokio::test]
    async fn a_hopeless_state_ends_the_wait() {
        let probe = async || -> Result<()> { Err(Hopeless("it died".into()).into()) };
        let error = until("it lives", Duration::from_secs(60), probe).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "waiting until it lives: it died");
    }
}
