//! Finds `NN:` and what may be the 30 symbols behind it.

use std::collections::BTreeMap;

use crate::line::{LINE, LineNumber};
use crate::symbol::Symbol;

/// What stands behind one line number, wherever it stands in the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    /// Texts of 29 to 31 symbols, in order; `None` for `?`.
    pub(super) texts: Vec<Vec<Option<Symbol>>>,
    /// Whether one of them looks like a damaged line rather than like a clock time.
    pub(super) looks_like_a_line: bool,
}

/// Every line number of an unmangled text with its candidates. Clock times look like line numbers too, and a quoted
/// older mail has the same ones: all are kept.
pub(super) fn candidates(text: &str) -> BTreeMap<LineNumber, Candidates> {
    let marks = marks(text.as_bytes());
    let mut found: BTreeMap<LineNumber, Candidates> = BTreeMap::new();
    for (at, mark) in marks.iter().enumerate() {
        let Some(number) = LineNumber::new(mark.number) else {
            continue;
        };
        let next = marks.get(at.saturating_add(1)).map_or(text.len(), |next| next.start);
        let end = next.min(mark.end.saturating_add(REGION_MAX)).min(text.len());
        let region = text.get(mark.end..end).unwrap_or_default();
        let entry = found.entry(number).or_default();
        for candidate in of_region(region) {
            if !entry.texts.contains(&candidate) && entry.texts.len() < CANDIDATES_MAX {
                entry.texts.push(candidate);
            }
        }
        entry.looks_like_a_line |= looks_like_a_line(region);
    }
    found
}

/// `NN:` in a text.
struct Mark {
    number: u8,
    start: usize,
    end: usize,
}

/// Two digits (O, I and l are digits) before a colon, not right behind another word or colon.
fn marks(text: &[u8]) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut before = b' ';
    let mut start = 0;
    while let Some(rest) = text.get(start..) {
        let Some(&first) = rest.first() else {
            break;
        };
        if !is_word(before)
            && before != b':'
            && let Some((number, len)) = mark(rest)
        {
            marks.push(Mark { number, start, end: start.saturating_add(len) });
            before = b':';
            start = start.saturating_add(len);
            continue;
        }
        before = first;
        start = start.saturating_add(1);
    }
    marks
}

fn mark(text: &[u8]) -> Option<(u8, usize)> {
    let (&[tens, ones], rest) = text.split_first_chunk::<2>()?;
    let number = digit(tens)?.checked_mul(10)?.checked_add(digit(ones)?)?;
    let spaces = rest.iter().take_while(|octet| octet.is_ascii_whitespace()).take(SPACES_MAX).count();
    (rest.get(spaces) == Some(&b':')).then(|| (number, spaces.saturating_add(3)))
}

const fn digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => octet.checked_sub(b'0'),
        b'O' | b'o' => Some(0),
        b'I' | b'l' => Some(1),
        _ => None,
    }
}

const fn is_word(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet == b'?'
}

/// The texts that a region may mean: the first 30 symbols; 29 or 31 where a group ends there; and the first 30
/// without `?` if these stand between whole groups, where a mailer lost a special space.
fn of_region(region: &str) -> Vec<Vec<Option<Symbol>>> {
    let mut all = String::new();
    let mut lengths = Vec::new();
    for word in words(region) {
        all.push_str(word);
        if matches!(all.len().abs_diff(LINE), 0 | 1) {
            lengths.push(all.len());
        }
        if all.len() > LONGEST {
            break;
        }
    }
    lengths.push(LINE);
    let mut texts: Vec<_> = lengths.into_iter().filter_map(|length| all.get(..length)).map(symbols).collect();
    let groups: Vec<_> = all.splitn(GROUPS.saturating_add(1), '?').collect();
    if let [g1, g2, g3, g4, g5, last, ..] = groups.as_slice()
        && [g1, g2, g3, g4, g5].iter().all(|group| group.len() == GROUP)
        && let Some(g6) = last.get(..GROUP)
    {
        texts.push(symbols(&[g1, g2, g3, g4, g5, g6].map(|group| (*group).to_owned()).concat()));
    }
    texts
}

/// Six words of about five characters: more than a clock time and a sentence would have.
fn looks_like_a_line(region: &str) -> bool {
    let first: Vec<_> = words(region).take(GROUPS).collect();
    first.len() == GROUPS && first.iter().all(|word| matches!(word.len(), 4..=6))
}

fn words(region: &str) -> impl Iterator<Item = &str> {
    region.split(|c: char| !(c.is_ascii_alphanumeric() || c == '?')).filter(|word| !word.is_empty())
}

fn symbols(text: &str) -> Vec<Option<Symbol>> {
    text.chars().map(Symbol::from_char).collect()
}

/// Octets behind a line number within which its symbols stand.
const REGION_MAX: usize = 400;
/// Symbols of a line with a `?` between its groups; what is behind them cannot belong to it.
const LONGEST: usize = LINE + GROUPS;
/// White space between the number and its colon.
const SPACES_MAX: usize = 3;
/// Different candidates kept of one line number.
const CANDIDATES_MAX: usize = 4000;
/// Groups of a line, and characters of a group.
const GROUPS: usize = 6;
const GROUP: usize = 5;
