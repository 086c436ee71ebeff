//! What a command says. `println!` panics where nobody reads to the end (`| head`), and a panic ends the work behind it.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

use anyhow::{Context as _, anyhow};
use serde::Serialize;

/// Prints a line, as `println!` does, for a reader that may be gone.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

/// Why standard output takes no more.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line.
pub fn line(text: Arguments<'_>) {
    put(format_args!("{text}\n"));
}

/// Prints a text as it is.
pub fn write(text: &str) {
    put(format_args!("{text}"));
}

/// Whether all that was said could be written. A reader that went away has had enough.
///
/// # Errors
/// The answer was lost in another way, such as on a full disk.
pub fn check() -> anyhow::Result<()> {
    match FAILED.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(anyhow!(
            "what was asked for is done, but standard output does not take the answer ({error}): see that it can be written \
             to, and look at what there is now before you do it again"
        )),
        Some(_) | None => Ok(()),
    }
}

/// Says a line on standard error. Where nobody listens there, nobody can be told.
pub fn tell(text: &str) {
    let _unheard = writeln!(io::stderr(), "{text}");
}

/// Answers in JSON, or with what `text` says.
///
/// # Errors
/// The value is none that JSON knows.
pub fn answer<T: Serialize>(json: bool, value: &T, text: impl FnOnce(&T)) -> anyhow::Result<()> {
    if json {
        say!("{}", serde_json::to_string(value).context("write JSON")?);
    } else {
        text(value);
    }
    Ok(())
}

/// What follows a failure is for nobody, and the command goes on with its work.
fn put(text: Arguments<'_>) {
    if FAILED.get().is_some() {
        return;
    }
    let mut output = io::stdout().lock();
    if let Err(error) = output.write_fmt(text).and_then(|()| output.flush()) {
        // The first failure is the one that is told.
        let _first = FAILED.set(error);
    }
}
