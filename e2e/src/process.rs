//! Daemons that outlive the program that started them: each in a session of its own, its log and its identity on disk,
//! ended by that identity and by nothing else.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::wait::{Hopeless, until};

/// One started process. The kernel reuses ids, so the start time belongs to the identity.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// Unique among the daemons of a cluster; names its log as well.
    pub name: String,
    /// Process id.
    pub pid: i32,
    /// Clock ticks between boot and the start of the process.
    start_time: u64,
}

impl Daemon {
    /// The daemon that `pid` is right now.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn running(name: &str, pid: i32) -> Result<Self> {
        let start_time = start_time(pid).with_context(|| format!("{name}: no process {pid}"))?;
        Ok(Self { name: name.to_string(), pid, start_time })
    }

    /// True until the process has ended (a zombie has).
    #[must_use]
    pub fn is_running(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// Sends a signal, if the process is still the one that was started.
    ///
    /// # Errors
    /// When the kernel refuses; a process that is gone is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal {} ({})", self.name, self.pid)),
        }
    }

    /// Asks the process to end, and kills it when `grace` is over.
    ///
    /// # Errors
    /// When it cannot be signalled, or is still there ten seconds after the kill.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        if self.ended(grace).await.is_ok() {
            return Ok(());
        }
        self.signal(Signal::SIGKILL)?;
        self.ended(Duration::from_secs(10)).await
    }

    async fn ended(&self, deadline: Duration) -> Result<()> {
        until(&format!("{} ({}) has ended", self.name, self.pid), deadline, async || {
            reap(self.pid);
            ensure!(!self.is_running(), "still running");
            Ok(())
        })
        .await
    }
}

/// The daemons of one cluster: `pid/<name>.json` and `log/<name>.log` below the state folder.
#[derive(Clone, Debug)]
pub struct Daemons {
    records: PathBuf,
    logs: PathBuf,
    path: String,
}

impl Daemons {
    /// Daemons recorded below `state`; `path` is their `PATH`.
    #[must_use]
    pub fn new(state: &Path, path: String) -> Self {
        Self { records: state.join("pid"), logs: state.join("log"), path }
    }

    /// Starts a daemon in a session of its own, so that it survives the terminal and an interrupt.
    ///
    /// # Errors
    /// When it cannot be started or recorded.
    pub fn spawn(&self, name: &str, program: &Path, arguments: &[String]) -> Result<Daemon> {
        fs::create_dir_all(&self.records)?;
        fs::create_dir_all(&self.logs)?;
        let log = File::create(self.log(name))?;
        let mut command = Command::new("setsid");
        command.arg(program).args(arguments).env_clear().env("PATH", &self.path).env("HOME", "/nonexistent");
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().cast_signed();
        // It may have ended already; until it is waited for, its id is its own.
        let (_, start_time) = state_and_start(pid).with_context(|| format!("{name}: no process {pid}"))?;
        let daemon = Daemon { name: name.to_string(), pid, start_time };
        self.record(&daemon)?;
        Ok(daemon)
    }

    /// Remembers a daemon, so that a later run can end it.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn record(&self, daemon: &Daemon) -> Result<()> {
        fs::write(self.records.join(format!("{}.json", daemon.name)), serde_json::to_vec(daemon)?)?;
        Ok(())
    }

    /// All daemons on record, by name. A half-written record of a killed run is left out.
    ///
    /// # Errors
    /// When the records cannot be listed.
    pub fn recorded(&self) -> Result<Vec<Daemon>> {
        if !self.records.exists() {
            return Ok(Vec::new());
        }
        let mut daemons: Vec<Daemon> = Vec::new();
        for entry in fs::read_dir(&self.records)? {
            daemons.extend(serde_json::from_slice::<Daemon>(&fs::read(entry?.path())?).ok());
        }
        daemons.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(daemons)
    }

    /// Stops the recorded daemons that `selected` picks, all at once, and forgets them.
    ///
    /// # Errors
    /// When one of them survives a kill.
    pub async fn stop(&self, grace: Duration, selected: impl Fn(&str) -> bool) -> Result<()> {
        let daemons: Vec<Daemon> =
            self.recorded()?.into_iter().filter(|daemon| selected(&daemon.name)).collect();
        futures::future::try_join_all(daemons.iter().map(|daemon| daemon.stop(grace))).await?;
        for daemon in daemons {
            fs::remove_file(self.records.join(format!("{}.json", daemon.name)))?;
        }
        Ok(())
    }

    /// The error of a wait for `daemon`: hopeless, with the end of its log, once the process has ended.
    ///
    /// # Errors
    /// [`Hopeless`] when the daemon is no longer running.
    pub fn check(&self, daemon: &Daemon) -> Result<()> {
        reap(daemon.pid);
        if daemon.is_running() {
            return Ok(());
        }
        let tail = tail(&self.log(&daemon.name), 1500);
        Err(Hopeless(format!("{} has ended; the end of its log:\n{tail}", daemon.name)).into())
    }

    /// Where the output of a daemon goes.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}

/// Start time of a process in ticks since boot; `None` when it is gone or a zombie.
fn start_time(pid: i32) -> Option<u64> {
    state_and_start(pid).filter(|(state, _)| *state != 'Z').map(|(_, start)| start)
}

/// State (proc(5)) and start time of a process, a zombie too; `None` when it is gone.
fn state_and_start(pid: i32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything; fields count from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.parse().ok()?, fields.nth(18)?.parse().ok()?))
}

/// Collects a child of ours that has ended; for processes of an earlier run there is nothing to collect.
fn reap(pid: i32) {
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

/// The last `limit` bytes of a file, from a line's start.
fn tail(path: &Path, limit: i64) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.seek(SeekFrom::End(-limit));
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemons(folder: &Path) -> Daemons {
        Daemons::new(folder, "/usr/bin:/bin".into())
    }

    #[tokio::test]
    async fn a_daemon_is_recorded_and_stopped_by_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let started = daemons(folder.path()).spawn("sleeper", Path::new("sleep"), &["600".into()]).unwrap();
        assert!(started.is_running());
        // Another run knows it only from disk.
        let later = daemons(folder.path());
        assert_eq!(later.recorded().unwrap(), std::slice::from_ref(&started));
        later.stop(Duration::from_secs(10), |_| true).await.unwrap();
        assert!(!started.is_running());
        assert!(later.recorded().unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_that_ignores_the_request_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; echo armed; while :; do sleep 1; done";
        let daemons = daemons(folder.path());
        let stubborn = daemons.spawn("stubborn", Path::new("sh"), &["-c".into(), script.into()]).unwrap();
        until("the trap is set", Duration::from_secs(10), async || {
            ensure!(tail(&daemons.log("stubborn"), 100).contains("armed"), "no word yet");
            Ok(())
        })
        .await
        .unwrap();
        stubborn.stop(Duration::from_millis(200)).await.unwrap();
        assert!(!stubborn.is_running());
    }

    #[test]
    fn a_reused_id_is_not_the_recorded_process() {
        let own = Daemon::running("test", std::process::id().cast_signed()).unwrap();
        let earlier = Daemon { start_time: own.start_time + 1, ..own.clone() };
        assert!(own.is_running());
        assert!(!earlier.is_running());
        earlier.signal(Signal::SIGKILL).unwrap();
    }

    #[tokio::test]
    async fn a_wait_for_a_dead_daemon_shows_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let daemons = daemons(folder.path());
        let daemon = daemons
            .spawn("brief", Path::new("sh"), &["-c".into(), "echo port in use; exit 1".into()])
            .unwrap();
        let waiting = until("it serves", Duration::from_secs(10), async || {
            daemons.check(&daemon)?;
            anyhow::bail!("not yet")
        });
        let error: Result<()> = waiting.await;
        assert!(format!("{:#}", error.unwrap_err()).contains("port in use"));
    }
}
