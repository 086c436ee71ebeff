//! What all messages share: the header, the tag, the lines.

use std::fmt;

use crate::bits::{BitReader, BitString, MessageBits};
use crate::code::TicketNumber;
use crate::line::{DATA, LineNumber, encode};
use crate::mac::MacKey;
use crate::refusal::Refusal;
use crate::symbol::Symbol;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// A client's request.
    Request,
    /// A reply from which the certificate is rebuilt.
    Complete,
    /// A gateway's no.
    Rejection,
    /// A reply short enough for the telephone.
    Short,
    /// A reply with blocks of PEM behind it.
    Full,
}

impl MessageKind {
    const fn number(self) -> u64 {
        match self {
            Self::Request => 0,
            Self::Complete => 1,
            Self::Rejection => 2,
            Self::Short => 3,
            Self::Full => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Request),
            1 => Some(Self::Complete),
            2 => Some(Self::Rejection),
            3 => Some(Self::Short),
            4 => Some(Self::Full),
            _ => None,
        }
    }
}

/// A message ready to be shown: whole lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    symbols: Vec<Symbol>,
}

impl Message {
    /// Fills up to whole lines. A message that is longer than the 31 lines there are numbers for cannot be made of
    /// the fields of this format: the longest reply has 15.
    fn new(bits: &BitString) -> Self {
        let mut symbols = bits.symbols();
        symbols.resize(symbols.len().next_multiple_of(DATA), Symbol::ZERO);
        Self { symbols }
    }

    /// Brings back a message from the text that [`Self::to_string`] gave to a store; `None` if it is anything else.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        let mut symbols = Vec::new();
        for line in text.lines() {
            let (_, data) = line.split_once(':')?;
            symbols.extend(data.chars().filter(|c| *c != ' ').take(DATA).filter_map(Symbol::from_char));
        }
        let message = Self { symbols };
        (!text.is_empty() && message.to_string() == text).then_some(message)
    }

    /// The lines without spaces, for a QR code: `01:42BHP5N58N…`.
    #[must_use]
    pub fn compact(&self) -> String {
        self.lines().map(|line| line.replace(' ', "")).collect::<Vec<_>>().join(" ")
    }

    /// The data symbols of all lines.
    #[must_use]
    pub fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }

    /// The lines as they are printed, photographed or read out: `01: 42BHP 5N58N …`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        (1..=LineNumber::MAX).filter_map(LineNumber::new).zip(self.symbols.chunks(DATA)).map(|(number, data)| {
            let mut line = format!("{number}:");
            for (at, symbol) in encode(number, data).into_iter().enumerate() {
                if at.is_multiple_of(5) {
                    line.push(' ');
                }
                line.push(symbol.to_char());
            }
            line
        })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Tells kind and ticket of a message before any key is at hand; both are public and unproven.
///
/// # Errors
/// The symbols are too few, of another version, or of no kind.
pub fn peek(symbols: &[Symbol]) -> Result<(MessageKind, TicketNumber), Refusal> {
    // Header and ticket are 35 bits: seven symbols, read without touching the rest.
    let head = MessageBits::new(symbols.get(..7).ok_or(Refusal::Short)?);
    let (header, ticket) = Header::decode(&mut head.reader())?;
    Ok((header.kind, ticket))
}

/// Version, kind, and what belongs to the key in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: MessageKind,
    pub(crate) algorithm: u8,
    pub(crate) parity: u8,
}

impl Header {
    /// The header of a message without a key.
    pub(crate) const fn without_key(kind: MessageKind) -> Self {
        Self { kind, algorithm: crate::key::HASHED, parity: 0 }
    }

    /// Starts a message.
    pub(crate) fn start(self, ticket: TicketNumber) -> BitString {
        let mut bits = BitString::default();
        bits.push(VERSION, 3);
        bits.push(self.kind.number(), 3);
        bits.push(u64::from(self.algorithm), 3);
        bits.push(u64::from(self.parity), 1);
        bits.push(u64::from(ticket.value()), TicketNumber::BITS);
        bits
    }

    fn decode(bits: &mut BitReader<'_>) -> Result<(Self, TicketNumber), Refusal> {
        if bits.take(3)? != VERSION {
            return Err(Refusal::Version);
        }
        let kind = MessageKind::from_number(bits.take_u8(3)?).ok_or(Refusal::Kind)?;
        let header = Self { kind, algorithm: bits.take_u8(3)?, parity: bits.take_u8(1)? };
        let ticket = bits.take(TicketNumber::BITS)?;
        let ticket = u32::try_from(ticket).ok().and_then(TicketNumber::new).ok_or(Refusal::OtherTicket)?;
        Ok((header, ticket))
    }

    /// Reads a header and checks kind and ticket.
    pub(crate) fn expect(bits: &mut BitReader<'_>, kind: MessageKind, key: &MacKey) -> Result<Self, Refusal> {
        let (header, ticket) = Self::decode(bits)?;
        if header.kind != kind {
            return Err(Refusal::Kind);
        }
        if ticket != key.ticket {
            return Err(Refusal::OtherTicket);
        }
        Ok(header)
    }

    /// Checks that nothing stands where a message without a key has nothing to say.
    pub(crate) fn has_no_key(self) -> Result<(), Refusal> {
        if self == Self::without_key(self.kind) { Ok(()) } else { Err(Refusal::Algorithm) }
    }
}

/// Closes a message with its tag.
pub(crate) fn seal<const N: usize>(
    mut body: BitString,
    key: &MacKey,
    label: &[u8],
    before: &[&[u8]],
    after: &[&[u8]],
) -> (Message, BitString) {
    let fields: Vec<&[u8]> = before.iter().copied().chain([body.octets()]).chain(after.iter().copied()).collect();
    let tag = key.tag::<N>(label, &fields);
    body.push_octets(&tag);
    (Message::new(&body), body)
}

/// Reads the tag behind a body, checks the padding, then the tag.
///
/// # Errors
/// Bits are missing or left over, the padding is not zero, or the tag differs.
pub(crate) fn open<const N: usize>(
    mut bits: BitReader<'_>,
    key: &MacKey,
    label: &[u8],
    before: &[&[u8]],
    after: &[&[u8]],
) -> Result<(), Refusal> {
    let body = bits.so_far();
    let tag = bits.take_octets::<N>()?;
    bits.finish()?;
    let fields: Vec<&[u8]> = before.iter().copied().chain([body.as_slice()]).chain(after.iter().copied()).collect();
    key.verify(label, &fields, &tag)
}

/// This is version 1.
const VERSION: u64 = 1;
