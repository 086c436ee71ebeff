//! What a command says. `println!` panics where nobody reads to the end (`| head`), and a panic ends the work behind it.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
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

/// Says on standard error in one line why a command ends with `code`: a sentence behind the program's name, or an object.
#[must_use]
pub fn fail(program: &str, json: bool, sentence: &str, code: u8) -> ExitCode {
    tell(&failure(program, json, sentence, code));
    ExitCode::from(code)
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

fn failure(program: &str, json: bool, sentence: &str, code: u8) -> String {
    if json {
        serde_json::json!({ "error": sentence, "exit_code": code }).to_string()
    } else {
        format!("{program}: {sentence}")
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_a_sentence_or_one_line_of_json() {
        let sentence = "there is no ticket \"A\nB\": look";
        assert_eq!(failure("ccvpn", false, "no: look", 5), "ccvpn: no: look");
        let line = failure("ccvpn", true, sentence, 6);
        assert_eq!(line.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read, serde_json::json!({ "error": sentence, "exit_code": 6 }));
    }
}
