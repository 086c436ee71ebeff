//! The request: a client's public key under the MAC of its code.

use crate::bits::MessageBits;
use crate::code::TicketNumber;
use crate::key::RequestedKey;
use crate::mac::{RequestHash, RequestKey};
use crate::message::{Header, Message, MessageKind, open, seal};
use crate::refusal::{KeyRefusal, Refusal};
use crate::symbol::Symbol;

/// A request whose MAC holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The ticket that it is for.
    pub ticket: TicketNumber,
    /// R, which names it.
    pub hash: RequestHash,
    /// The key, or why it cannot be used: its sender knows the code, so a rejection is due.
    pub key: Result<RequestedKey, KeyRefusal>,
}

impl Request {
    /// Writes a request: three lines, and R to keep.
    #[must_use]
    pub fn compose(mac: &RequestKey, key: &RequestedKey) -> (Message, RequestHash) {
        let (algorithm, parity, octets) = key.parts();
        let mut body = Header { kind: MessageKind::Request, algorithm, parity }.start(mac.ticket());
        body.push_octets(octets);
        let (message, bits) = seal::<TAG_LEN>(body, &mac.0, LABEL, &[], &[]);
        (message, RequestHash::of(bits.octets()))
    }

    /// Reads and checks a request.
    ///
    /// # Errors
    /// It is malformed, for another ticket, or its MAC does not hold.
    pub fn decode(mac: &RequestKey, symbols: &[Symbol]) -> Result<Self, Refusal> {
        let message = MessageBits::new(symbols);
        let mut bits = message.reader();
        let header = Header::expect(&mut bits, MessageKind::Request, &mac.0)?;
        let octets = bits.take_octets::<32>()?;
        open::<TAG_LEN>(bits, &mac.0, LABEL, &[], &[])?;
        bits.take_octets::<TAG_LEN>()?;
        Ok(Self {
            ticket: mac.ticket(),
            hash: RequestHash::of(&bits.so_far()),
            key: RequestedKey::from_parts(header.algorithm, header.parity, octets),
        })
    }
}

const LABEL: &[u8] = b"request";
/// Octets of the tag.
const TAG_LEN: usize = 10;
