//! Runs programs that end by themselves and turns a failure into an error that quotes the program's own words.

use std::ffi::OsStr;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs a program and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or exits with anything but 0; the message carries the command line and its standard error.
pub async fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, "").await
}

/// Runs a prepared command with `input` on its standard input and returns its standard output.
///
/// # Errors
/// As [`run`].
pub async fn run_command(mut command: Command, input: &str) -> Result<String> {
    let line = command_line(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input closes the pipe: its exit status tells, not this write.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.with_context(|| format!("lost `{line}`"))?;
    succeeded(&line, output)
}

/// Runs `ip` with the words of `arguments`, which hold no spaces of their own.
///
/// # Errors
/// As [`run`].
pub async fn ip(arguments: &str) -> Result<String> {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>()).await
}

fn succeeded(line: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words = if words.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { words };
        bail!("`{line}` failed ({}): {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn command_line(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_quotes_the_program() {
        let error = run("sh", &["-c", "echo no such thing >&2; exit 3"]).await.unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains("exit status: 3"), "{error}");
    }

    #[tokio::test]
    async fn input_reaches_the_program() {
        assert_eq!(run_command(Command::new("cat"), "one\ntwo\n").await.unwrap(), "one\ntwo\n");
    }
}
