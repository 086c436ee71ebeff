//! The tolerant reader: finds a message's lines in whatever a mail program, a chat or a person made of them.

mod scan;
mod unmangle;

use std::collections::{BTreeMap, BTreeSet};

use crate::line::{self, Decoded, LineNumber, Repair};
use crate::refusal::Refusal;
use crate::symbol::Symbol;

pub(crate) use unmangle::unmangle;

/// Collects lines from one text or from several, and lets a MAC choose among their readings.
///
/// Good lines stay until [`Self::clear`], so that a person types only the line that could not be read.
///
/// ```
/// # use enroll::{Code, Reader, Request, TicketKeys};
/// let keys = TicketKeys::derive(&Code::parse("BHP5N-40BAQ-PAAQS-PP7FT-4Y575")?);
/// let mut reader = Reader::default();
/// reader.add(
///     "On Nov 21 at 10:02 Alice wrote:
///     > 01: 42bhp 5n58n phlh3 r6a6h zd28v n67pw
///     > 02: BZ2C4 73Z9Q 1W8TT DE?X1 BCADF 1YZ6H
///     > 03: H6WRF Z4VA7 8WJSV BEQBD 3J1TG 91VCE",
/// );
/// let request = reader.resolve(|symbols| Request::decode(&keys.request, symbols))?.message;
/// assert_eq!(request.hash.octets()[..4], [0x44, 0xa3, 0x2f, 0x1c]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Every reading of every line, in the order of the text.
    lines: BTreeMap<LineNumber, Vec<Decoded>>,
    /// Lines that were seen and not understood.
    unreadable: BTreeSet<LineNumber>,
}

/// A message and what was repaired on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// What the MAC accepted.
    pub message: T,
    /// Lines that needed repair.
    pub repairs: Vec<(LineNumber, Repair)>,
}

/// Why no message was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// These lines are missing or cannot be read; the others are kept.
    #[error("{} again, the others are kept", list(.0))]
    Unreadable(Vec<LineNumber>),
    /// Every line is readable, but together they are no message for this code: wrong code, or lines of two messages.
    #[error("every line is readable, but together they are no message for this code ({0}): start afresh")]
    NoMessage(Refusal),
    /// The MAC holds, and yet the message is refused.
    #[error("{0}")]
    Refused(Refusal),
}

impl Reader {
    /// Octets of a text that are looked at; the rest is ignored.
    pub const TEXT_MAX: usize = 1 << 20;
    /// Readings kept of one line; later ones are ignored.
    pub const READINGS_MAX: usize = 1000;
    /// Combinations of readings that are tried.
    pub const COMBINATIONS_MAX: usize = 1000;

    /// Takes the lines out of a text.
    pub fn add(&mut self, text: &str) {
        let end = text.floor_char_boundary(Self::TEXT_MAX);
        let text = unmangle(text.get(..end).unwrap_or_default());
        for (number, candidates) in scan::candidates(&text) {
            let readings = self.lines.entry(number).or_default();
            for candidate in &candidates.texts {
                // What is ignored anyway is not decoded: a mail may hold thousands of lines with thirty readings each.
                if readings.len() >= Self::READINGS_MAX {
                    break;
                }
                for decoded in line::decode(number, candidate) {
                    if let Some(known) = readings.iter_mut().find(|known| known.data == decoded.data) {
                        known.repair = known.repair.cheaper(decoded.repair);
                    } else if readings.len() < Self::READINGS_MAX {
                        readings.push(decoded);
                    }
                }
            }
            if readings.is_empty() {
                self.lines.remove(&number);
                if candidates.looks_like_a_line {
                    self.unreadable.insert(number);
                }
            }
        }
    }

    /// Forgets all lines.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Lines that are accepted so far.
    pub fn lines(&self) -> impl Iterator<Item = LineNumber> + '_ {
        self.lines.keys().copied()
    }

    /// Offers the readings to `accept`, which checks the MAC, until it takes one.
    ///
    /// # Errors
    /// Lines are missing, no combination is accepted, or a proven message is refused.
    pub fn resolve<T>(&self, mut accept: impl FnMut(&[Symbol]) -> Result<T, Refusal>) -> Result<Read<T>, ReadError> {
        // A clock time may look like one more line, so what is behind a gap does not hinder.
        let lines: Vec<_> =
            (1..).map_while(LineNumber::new).map_while(|number| Some((number, self.lines.get(&number)?))).collect();
        let mut told: Option<Refusal> = None;
        for combination in combinations(&lines).take(Self::COMBINATIONS_MAX) {
            let symbols: Vec<_> = combination.iter().flat_map(|reading| reading.data.iter().copied()).collect();
            for count in (1..=combination.len()).rev() {
                match accept(symbols.get(..count.saturating_mul(line::DATA)).unwrap_or_default()) {
                    Ok(message) => {
                        let repairs = lines.iter().zip(&combination).take(count);
                        let repairs = repairs.map(|(&(number, _), reading)| (number, reading.repair));
                        return Ok(Read { message, repairs: repairs.filter(|&(_, r)| r != Repair::None).collect() });
                    }
                    Err(refusal) if refusal.is_of_a_proven_sender() => return Err(ReadError::Refused(refusal)),
                    Err(refusal) if told.is_none_or(|told| refusal.weight() > told.weight()) => told = Some(refusal),
                    Err(_) => {}
                }
            }
        }
        match told {
            Some(Refusal::Short) | None => Err(ReadError::Unreadable(self.missing_after(lines.len()))),
            Some(refusal) => Err(ReadError::NoMessage(refusal)),
        }
    }

    /// The lines to ask for when the first `readable` lines are not enough.
    fn missing_after(&self, readable: usize) -> Vec<LineNumber> {
        let last = self.lines.keys().chain(&self.unreadable).max().map_or(0, |last| usize::from(last.value()));
        let missing = (1..).map_while(LineNumber::new).skip(readable).filter(|number| !self.lines.contains_key(number));
        missing.take_while(|number| usize::from(number.value()) <= last.max(readable.saturating_add(1))).collect()
    }
}

/// First the first reading of every line, the second of every line and so on, since messages stand in a text one
/// behind the other; then all combinations, the cheapest repairs first.
fn combinations<'a>(lines: &'a [(LineNumber, &'a Vec<Decoded>)]) -> impl Iterator<Item = Vec<&'a Decoded>> {
    let most = lines.iter().map(|(_, readings)| readings.len()).max().unwrap_or(0);
    let whole_messages = (0..most.min(WHOLE_MESSAGES_MAX))
        .map(|place| lines.iter().filter_map(|(_, readings)| readings.get(place).or(readings.last())).collect());
    let cheapest_first: Vec<Vec<&Decoded>> = lines
        .iter()
        .map(|(_, readings)| {
            let mut readings: Vec<_> = readings.iter().collect();
            readings.sort_by_key(|reading| reading.repair.cost());
            readings
        })
        .collect();
    let total = cheapest_first.iter().fold(1_usize, |total, readings| total.saturating_mul(readings.len()));
    let all = (0..if most == 0 { 0 } else { total }).map(move |number| {
        let mut rest = number;
        let mut combination = Vec::with_capacity(cheapest_first.len());
        for readings in cheapest_first.iter().rev() {
            let count = readings.len().max(1);
            combination.extend(readings.get(rest % count));
            rest /= count;
        }
        combination.reverse();
        combination
    });
    whole_messages.chain(all)
}

fn list(lines: &[LineNumber]) -> String {
    let numbers = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if lines.len() == 1 {
        return format!("line {numbers} cannot be read: type it");
    }
    format!("lines {numbers} cannot be read: type them")
}

/// Messages of one text that are tried as a whole before their lines are mixed.
const WHOLE_MESSAGES_MAX: usize = 32;
