//! What is asked on the terminal, and how texts are read.

use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use enroll::Paper;

use crate::fault::Fault;

/// What a person says of two lots of six words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They agree.
    Agree,
    /// They differ.
    Differ,
}

/// Asks whether the six words agree, until that is answered: a slip of the finger is no answer.
pub(crate) fn compare() -> Result<Verdict, Fault> {
    loop {
        let answer = prompt("Compare all six by telephone, then type \"they agree\" or \"they differ\": ")?;
        if let Some(verdict) = verdict(&answer) {
            return Ok(verdict);
        }
    }
}

fn verdict(answer: &str) -> Option<Verdict> {
    match answer.to_ascii_lowercase().trim() {
        "they agree" | "agree" | "yes" => Some(Verdict::Agree),
        "they differ" | "differ" | "no" => Some(Verdict::Differ),
        _ => None,
    }
}

/// Asks on the terminal, also after what was pasted there has ended. Nothing more to read is no answer.
pub(crate) fn prompt(question: &str) -> Result<String, Fault> {
    let terminal = Path::new("/dev/tty");
    let mut opened = fs::OpenOptions::new().read(true).write(true).open(terminal).map_err(|_| Fault::NoTerminal)?;
    write!(opened, "{question}").map_err(Fault::file(terminal))?;
    let mut typed = String::new();
    match std::io::BufReader::new(opened).read_line(&mut typed).map_err(Fault::file(terminal))? {
        0 => Err(Fault::NoTerminal),
        _ => Ok(typed.trim().to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_says_that_words_agree_or_differ() {
        for (answer, said) in [
            ("they agree", Some(Verdict::Agree)),
            (" YES ", Some(Verdict::Agree)),
            ("They differ", Some(Verdict::Differ)),
            ("no", Some(Verdict::Differ)),
            ("they agre", None),
            ("", None),
        ] {
            assert_eq!(verdict(answer), said, "{answer:?}");
        }
    }
}
