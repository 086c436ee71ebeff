//! What a command says. `println!` panics where nobody reads to the end (`| head`), and a panic ends the work behind it.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

use anyhow::anyhow;

/// Prints a line, as `println!` does, for a reader that may be gone.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::line(format_args!($($text)*)) };
}
pub(super) use say;

/// Why standard output takes no more.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line.
pub(super) fn line(text: Arguments<'_>) {
    put(format_args!("{text}\n"));
}

/// Prints a text as it is.
pub(super) fn write(text: &str) {
    put(format_args!("{text}"));
}

/// Whether all that was said could be written. A reader that went away has had enough.
///
/// # Errors
/// The answer was lost in another way, such as on a full disk.
pub(super) fn check() -> anyhow::Result<()> {
    match FAILED.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(anyhow!(
            "what was asked for is done, but standard output does not take the answer ({error}): see that it can be written \
             to, and look at what there is now before you do it again"
        )),
        Some(_) | None => Ok(()),
    }
}

/// Says a line on standard error. Where nobody listens there, nobody can be told.
pub(super) fn tell(text: &str) {
    let _unheard = writeln!(io::stderr(), "{text}");
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
