//! What is asked on the terminal, and how texts are read.

use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use enroll::Paper;

use crate::fault::Fault;

/// Asks on the terminal, also after what was pasted there has ended.
pub(crate) fn prompt(question: &str) -> Result<String, Fault> {
    let terminal = Path::new("/dev/tty");
    let mut opened = fs::OpenOptions::new().read(true).write(true).open(terminal).map_err(|_| Fault::NoTerminal)?;
    write!(opened, "{question}").map_err(Fault::file(terminal))?;
    let mut typed = String::new();
    std::io::BufReader::new(opened).read_line(&mut typed).map_err(Fault::file(terminal))?;
    Ok(typed.trim().to_owned())
}

/// Whether a person sits at both ends.
pub(crate) fn attended() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The text of a file, or of the standard input for `-`.
pub(crate) fn read_text(file: &Path) -> Result<String, Fault> {
    let mut octets = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().take(TEXT_MAX).read_to_end(&mut octets).map_err(Fault::file(file))?;
    } else {
        let opened = fs::File::open(file).map_err(Fault::file(file))?;
        opened.take(TEXT_MAX).read_to_end(&mut octets).map_err(Fault::file(file))?;
    }
    // Mail may come in any encoding; the lines are ASCII.
    Ok(String::from_utf8(octets).unwrap_or_else(|error| {
        error.into_bytes().into_iter().map(|octet| if octet.is_ascii() { char::from(octet) } else { ' ' }).collect()
    }))
}

/// How QR codes are drawn: with colours where they show, with characters alone in a file.
pub(crate) fn paper() -> Paper {
    if std::io::stdout().is_terminal() { Paper::Colours } else { Paper::Plain }
}

/// Octets of a text that are read.
const TEXT_MAX: u64 = 4 << 20;
