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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Code;
    use crate::mac::TicketKeys;

    /// What is read from any octets under a good MAC, as a thief of the code can write them.
    fn sealed(algorithm: u8, parity: u8, octets: [u8; 32]) -> Result<RequestedKey, KeyRefusal> {
        let mac = TicketKeys::derive(&Code::parse("BHP5N-40BAQ-PAAQS-PP7FT-4Y575").unwrap()).request;
        let mut body = Header { kind: MessageKind::Request, algorithm, parity }.start(mac.ticket());
        body.push_octets(&octets);
        let (message, _) = seal::<TAG_LEN>(body, &mac.0, LABEL, &[], &[]);
        Request::decode(&mac, message.symbols()).unwrap().key
    }

    #[test]
    fn a_key_that_may_not_be_used_is_told_apart_though_its_mac_holds() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(sealed(7, 0, identity), Ok(RequestedKey::Hashed(identity)));
        for (algorithm, parity, octets, refusal) in [
            (0, 0, identity, KeyRefusal::SmallOrder),
            (1, 0, [0xff; 32], KeyRefusal::NotReduced),
            (2, 0, identity, KeyRefusal::Algorithm),
            (6, 1, identity, KeyRefusal::Algorithm),
            (0, 1, identity, KeyRefusal::NotCanonical),
            (7, 1, identity, KeyRefusal::NotCanonical),
        ] {
            assert_eq!(sealed(algorithm, parity, octets), Err(refusal), "{algorithm} {parity}");
        }
    }
}
