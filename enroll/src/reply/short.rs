//! The short reply: what a client must find when it fetches its certificate over TLS.

use subtle::ConstantTimeEq;

use crate::bits::MessageBits;
use crate::mac::{ReplyKey, RequestHash};
use crate::message::{Header, Message, MessageKind, open, seal};
use crate::name::{GATEWAY_LENGTH_BITS, GatewayName, push_text, take_text};
use crate::refusal::Refusal;
use crate::symbol::Symbol;
use crate::template::Serial;

/// What names a certificate to a client and in the final words: CA, serial, expiry day, gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortTerms {
    /// The first 192 bits of SHA-256 of the CA's SPKI.
    pub ca_hash: [u8; 24],
    /// The certificate's serial.
    pub serial: Serial,
    /// The day since 1970 on which the certificate ends.
    pub expiry_day: u16,
    /// Where to connect, and the name that the gateway's certificate must show.
    pub gateway: GatewayName,
}

impl ShortTerms {
    /// Cuts SHA-256 of a CA's SPKI to the 192 bits that are sent.
    #[must_use]
    pub fn ca_hash(spki_hash: &[u8; 32]) -> [u8; 24] {
        let mut cut = [0; 24];
        for (to, from) in cut.iter_mut().zip(spki_hash) {
            *to = *from;
        }
        cut
    }

    /// Whether a fetched certificate's CA, serial and expiry day are the promised ones.
    #[must_use]
    pub fn matches(&self, ca_spki_hash: &[u8; 32], serial: Serial, expiry_day: u16) -> bool {
        let same_ca = bool::from(self.ca_hash.ct_eq(&Self::ca_hash(ca_spki_hash)));
        same_ca && self.serial == serial && self.expiry_day == expiry_day
    }
}

/// A short reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortReply {
    /// What to find.
    pub terms: ShortTerms,
}

impl ShortReply {
    /// Writes the reply to the request R.
    #[must_use]
    pub fn compose(&self, mac: &ReplyKey, hash: &RequestHash) -> Message {
        let mut body = Header::without_key(MessageKind::Short).start(mac.ticket());
        body.push_octets(&self.terms.ca_hash);
        body.push(self.terms.serial.value(), Serial::BITS);
        body.push(self.terms.expiry_day.into(), u16::BITS);
        push_text(&mut body, self.terms.gateway.as_str(), GATEWAY_LENGTH_BITS);
        seal::<TAG_LEN>(body, &mac.0, LABEL, &[hash.octets()], &[]).0
    }

    /// Reads the reply to the request R.
    ///
    /// # Errors
    /// It is malformed, for another ticket or request, or its MAC does not hold.
    pub fn decode(mac: &ReplyKey, hash: &RequestHash, symbols: &[Symbol]) -> Result<Self, Refusal> {
        let message = MessageBits::new(symbols);
        let mut bits = message.reader();
        let header = Header::expect(&mut bits, MessageKind::Short, &mac.0)?;
        let ca_hash = bits.take_octets::<24>()?;
        let serial = bits.take(Serial::BITS)?;
        let expiry_day = bits.take(u16::BITS)?;
        let gateway = take_text(&mut bits, GATEWAY_LENGTH_BITS)?;
        open::<TAG_LEN>(bits, &mac.0, LABEL, &[hash.octets()], &[])?;
        header.has_no_key()?;
        Ok(Self {
            terms: ShortTerms {
                ca_hash,
                serial: Serial::new(serial).ok_or(Refusal::Serial)?,
                expiry_day: u16::try_from(expiry_day).map_err(|_| Refusal::Days)?,
                gateway: GatewayName::new(&gateway)?,
            },
        })
    }
}

const LABEL: &[u8] = b"short-reply";
/// Octets of the tag.
const TAG_LEN: usize = 10;
