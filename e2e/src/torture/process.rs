//! A process on a host of the run, which can be killed and stopped. It dies with the run, however that ends.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::network::Network;
use crate::wait::until;

/// How long the kernel may take to stop, continue or end a process.
const AT_ONCE: Duration = Duration::from_secs(10);

/// What to start, again and again.
#[derive(Clone, Debug)]
pub struct Program {
    /// The host that it runs on.
    pub host: String,
    /// The binary and its arguments.
    pub command: Vec<String>,
    /// Environment beside the PATH.
    pub environment: Vec<(String, String)>,
    /// Takes what it says; grows with each start.
    pub log: PathBuf,
}

/// A program, running or not.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Option<Child>,
}

impl Process {
    /// Does not start it yet.
    #[must_use]
    pub fn new(program: Program) -> Process {
        Process { program, child: None }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.program.host);
        let Program { host, command, environment, log } = &self.program;
        let log = File::options().create(true).append(true).open(log)?;
        // Each of these replaces itself by the next: the process is the program in the end.
        let mut started = Command::new("nsenter");
        started.arg(format!("--net={}", Network::namespace(host).display()));
        started.args(["setpriv", "--pdeathsig", "KILL", "env"]);
        started.args(environment.iter().map(|(name, value)| format!("{name}={value}"))).args(command);
        started.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.child = Some(started.spawn().with_context(|| format!("cannot start {command:?}"))?);
        Ok(())
    }

    /// True from its start on until it was killed.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL, as the kernel's out-of-memory killer would; waits for the end and says how it ended.
    ///
    /// # Errors
    /// When it does not run, or did not end by this signal: then it had ended before.
    pub async fn kill(&mut self) -> Result<String> {
        let host = &self.program.host;
        let mut child = self.child.take().with_context(|| format!("{host} does not run"))?;
        let pid = child.id();
        child.start_kill()?;
        let status = tokio::time::timeout(AT_ONCE, child.wait()).await.context("it does not end")??;
        ensure!(
            status.signal() == Some(Signal::SIGKILL as i32),
            "{host} had ended by itself before it was killed: {status}; its log ends with\n{}",
            self.last_words()
        );
        Ok(format!("{host} (process {}) ended by signal 9", pid.unwrap_or_default()))
    }

    /// SIGKILL, where it may have ended by itself: its disk is gone.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub async fn end(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.program.host))?;
        let _ = child.start_kill();
        tokio::time::timeout(AT_ONCE, child.wait()).await.context("it does not end")??;
        Ok(())
    }

    /// Stops it in its tracks (SIGSTOP); returns when the kernel says that it stands still.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn freeze(&self) -> Result<String> {
        self.signal(Signal::SIGSTOP)?;
        self.in_state("stands still", |state| state == 'T').await?;
        Ok(format!("{} is in state T", self.program.host))
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub async fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        self.in_state("goes on", |state| state != 'T').await
    }

    /// An error with its last words when it has ended by itself.
    ///
    /// # Errors
    /// It has ended although nobody killed it.
    pub fn check(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended by itself: {status}\n{}", self.program.host, self.last_words())
            }
        }
    }

    /// The end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = fs::read(&self.program.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log[log.len().saturating_sub(6_000)..]).into_owned();
        let lines: Vec<&str> = text.lines().rev().take(25).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// How much it has said so far.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn said(&self) -> Result<u64> {
        Ok(fs::metadata(&self.program.log)?.len())
    }

    /// What it has said since.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn says_since(&self, said: u64) -> Result<String> {
        let mut log = File::open(&self.program.log)?;
        log.seek(SeekFrom::Start(said))?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn pid(&self) -> Result<i32> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.program.host))?;
        Ok(child.id().with_context(|| format!("{} has ended", self.program.host))?.cast_signed())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()?), signal).with_context(|| format!("{signal} to {}", self.program.host))
    }

    async fn in_state(&self, what: &str, is_right: impl Fn(char) -> bool) -> Result<()> {
        let pid = self.pid()?;
        until(&format!("{} {what}", self.program.host), AT_ONCE, async || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // The name before it stands in parentheses and may hold anything.
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
            ensure!(is_right(state), "it is in state {state}");
            Ok(())
        })
        .await
    }
}
