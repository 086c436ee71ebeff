//! Runs commands and waits for conditions; nothing in the lab sleeps for a guessed time.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Where a program of this workspace was built: beside the running one.
///
/// # Errors
/// It was not built; the error says how it is: `build`.
pub fn program(name: &str, build: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the running program")?;
    // Test programs are one directory deeper.
    let found = own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.exists());
    found.with_context(|| format!("the program {name} is not built: run `{build}`"))
}

/// Runs a command to its end and returns what it wrote to standard output.
///
/// # Errors
/// The command cannot be started, or ends with a failure; the error holds what it wrote to standard error.
pub fn output(command: &mut Command) -> Result<String> {
    finish(command, None)
}

/// Runs a command that reads `input`, and returns what it wrote to standard output.
///
/// # Errors
/// As [`output`].
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    finish(command, Some(input))
}

/// Runs `ip` with a batch of lines, in the namespace `namespace` or in the one of the calling thread.
///
/// # Errors
/// A line fails; the error names it.
pub fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-batch", "-"]);
    feed(&mut command, &(lines.join("\n") + "\n")).with_context(|| format!("ip batch: {}", lines.join(" ; ")))?;
    Ok(())
}

/// Asks `condition` every few milliseconds until it gives a value.
///
/// # Errors
/// It gives none within `limit`; the error names what was awaited.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Time between two looks at an awaited condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

fn finish(command: &mut Command, input: Option<&str>) -> Result<String> {
    let name = format!("{command:?}");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {name}"))?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(input.as_bytes()).with_context(|| format!("feed {name}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let also = String::from_utf8_lossy(&output.stdout);
        bail!("{name} ended with {}: {}{}", output.status, said.trim(), also.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
