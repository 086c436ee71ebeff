//! A terminal with somebody who types.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::run::wait_for;

/// A command on a pseudo-terminal (of util-linux's `script`), so that it asks as it asks a person.
pub struct Terminal {
    child: Child,
    keyboard: Option<ChildStdin>,
    screen: Arc<Mutex<String>>,
    /// How much of the screen was looked at.
    seen: usize,
}

impl Terminal {
    pub(super) fn start(command: &Command) -> Result<Self> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<String> =
            words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))).collect();
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"])
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("start script, of the package bsdutils")?;
        let keyboard = child.stdin.take();
        let mut output = child.stdout.take().context("the terminal's output")?;
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut octets = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                octets.extend_from_slice(&buffer[..count]);
                *shown.lock().unwrap_or_else(PoisonError::into_inner) = String::from_utf8_lossy(&octets).into_owned();
            }
        });
        Ok(Self { child, keyboard, screen, seen: 0 })
    }

    /// All that was shown so far.
    #[must_use]
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).replace('\r', "")
    }

    /// Waits until a text shows, after what was waited for before.
    ///
    /// # Errors
    /// It does not show.
    pub fn expect(&mut self, text: &str) -> Result<()> {
        let found = wait_for(text, SHOW_MAX, || {
            let screen = self.screen();
            screen.get(self.seen..)?.find(text).map(|at| self.seen + at + text.len())
        });
        match found {
            Ok(end) => self.seen = end,
            Err(error) => bail!("{error}; the screen shows: {}", self.screen()),
        }
        Ok(())
    }

    /// Types a line and Enter.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn enter(&mut self, line: &str) -> Result<()> {
        let keyboard = self.keyboard.as_mut().context("the keyboard")?;
        keyboard.write_all(line.as_bytes())?;
        keyboard.write_all(b"\n")?;
        Ok(keyboard.flush()?)
    }

    /// Waits for the command's end and gives its exit code and the whole screen.
    ///
    /// # Errors
    /// It does not end.
    pub fn finish(mut self) -> Result<(Option<i32>, String)> {
        let status = wait_for("the command on the terminal to end", SHOW_MAX, || self.child.try_wait().ok().flatten())?;
        self.keyboard = None;
        // The reader has it all once the pipe is closed, which the end of the command brings about.
        let mut before = String::new();
        let screen = wait_for("the screen to stand still", SHOW_MAX, || {
            let now = self.screen();
            let still = now == before;
            before.clone_from(&now);
            still.then_some(now)
        })?;
        Ok((status.code(), screen))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Time that a command has to show something.
const SHOW_MAX: Duration = Duration::from_secs(20);
