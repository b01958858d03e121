//! Structured logs on standard error, as text or JSON, with a level that changes while the process runs.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::LogFormat;

/// Changes the level of the running process.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

/// Why logs cannot be had as asked for.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a level and not directives.
    #[error("log level {0:?} is not understood")]
    Level(String),
    /// Another subscriber is there.
    #[error("logs are set up already")]
    SetUp,
}

impl LogHandle {
    /// Sets up the logs of this process, once.
    ///
    /// # Errors
    /// When the level is not understood, or logs were set up before.
    pub fn install(level: &str, format: LogFormat) -> Result<LogHandle, LogError> {
        let (filter, handle) = reload::Layer::new(parse(level)?);
        let json = match format {
            LogFormat::Auto => !stderr().is_terminal(),
            LogFormat::Json => true,
            LogFormat::Text => false,
        };
        let registry = tracing_subscriber::registry().with(filter);
        let installed = match json {
            true => registry.with(fmt::layer().json().flatten_event(true).with_writer(stderr)).try_init(),
            false => registry.with(fmt::layer().with_target(false).with_writer(stderr)).try_init(),
        };
        installed.map_err(|_| LogError::SetUp)?;
        Ok(LogHandle(handle))
    }

    /// Changes the level.
    ///
    /// # Errors
    /// When the level is not understood.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        self.0.reload(parse(level)?).map_err(|_| LogError::SetUp)
    }
}

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    level.parse().map_err(|_| LogError::Level(level.to_owned()))
}
