//! Names what a long run is doing, and tells how long each part took.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// The parts of one run in order. A terminal shows a spinner while a part runs; each end is one line on standard error.
#[derive(Debug)]
pub struct Phases {
    started: Instant,
    done: Vec<(String, Duration)>,
}

impl Default for Phases {
    fn default() -> Self {
        Self { started: Instant::now(), done: Vec::new() }
    }
}

impl Phases {
    /// Runs one part and records its time.
    ///
    /// # Errors
    /// What the part returns, with the part's name before it.
    pub async fn run<T>(&mut self, name: &str, part: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let spinner = spinner(name);
        let result = part.await;
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        let took = began.elapsed();
        let mark = if result.is_ok() { "ok" } else { "FAILED" };
        say(&format!(
            "{:>7.1} s  {name}: {mark} ({:.1} s)",
            self.started.elapsed().as_secs_f64(),
            took.as_secs_f64()
        ));
        self.done.push((name.to_string(), took));
        result.map_err(|error| error.context(name.to_string()))
    }

    /// One line per part and the sum, for the end of a run.
    #[must_use]
    pub fn summary(&self) -> String {
        let width = self.done.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut lines: Vec<String> = self
            .done
            .iter()
            .map(|(name, took)| format!("  {name:<width$} {:>8.1} s", took.as_secs_f64()))
            .collect();
        lines.push(format!("  {:<width$} {:>8.1} s", "total", self.started.elapsed().as_secs_f64()));
        lines.join("\n")
    }
}

/// Writes one line to standard error; a closed pipe is nobody's loss.
pub fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

fn spinner(name: &str) -> Option<ProgressBar> {
    if !stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}").ok()?;
    let bar = ProgressBar::new_spinner().with_style(style).with_message(name.to_string());
    bar.enable_steady_tick(Duration::from_millis(120));
    Some(bar)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[tokio::test]
    async fn a_failed_part_is_named_and_listed() {
        let mut phases = Phases::default();
        phases.run("first", async { Ok(()) }).await.unwrap();
        let error = phases.run("second", async { Err::<(), _>(anyhow!("broke")) }).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "second: broke");
        let summary = phases.summary();
        assert!(
            summary.contains("first") && summary.contains("second") && summary.contains("total"),
            "{summary}"
        );
    }
}
