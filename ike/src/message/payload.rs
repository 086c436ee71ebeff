//! The chain of payloads (RFC 7296 §3.2) and the simple payloads: KE, nonce.

use wire::{Cause, DecodeError, Reader, Writer};

/// The payload types that we know, by IANA number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PayloadType {
    SecurityAssociation,
    KeyExchange,
    IdInitiator,
    IdResponder,
    Certificate,
    CertificateRequest,
    Authentication,
    Nonce,
    Notify,
    Delete,
    VendorId,
    TsInitiator,
    TsResponder,
    Encrypted,
    Configuration,
    EncryptedFragment,
}

impl PayloadType {
    pub(crate) const fn from_iana(number: u8) -> Option<Self> {
        Some(match number {
            33 => Self::SecurityAssociation,
            34 => Self::KeyExchange,
            35 => Self::IdInitiator,
            36 => Self::IdResponder,
            37 => Self::Certificate,
            38 => Self::CertificateRequest,
            39 => Self::Authentication,
            40 => Self::Nonce,
            41 => Self::Notify,
            42 => Self::Delete,
            43 => Self::VendorId,
            44 => Self::TsInitiator,
            45 => Self::TsResponder,
            46 => Self::Encrypted,
            47 => Self::Configuration,
            53 => Self::EncryptedFragment,
            _ => return None,
        })
    }

    pub(crate) const fn iana(self) -> u8 {
        match self {
            Self::SecurityAssociation => 33,
            Self::KeyExchange => 34,
            Self::IdInitiator => 35,
            Self::IdResponder => 36,
            Self::Certificate => 37,
            Self::CertificateRequest => 38,
            Self::Authentication => 39,
            Self::Nonce => 40,
            Self::Notify => 41,
            Self::Delete => 42,
            Self::VendorId => 43,
            Self::TsInitiator => 44,
            Self::TsResponder => 45,
            Self::Encrypted => 46,
            Self::Configuration => 47,
            Self::EncryptedFragment => 53,
        }
    }
}

/// Payloads in one message at the most. Our bound: strongSwan with a long chain and many CERTREQs stays below 40.
pub(crate) const PAYLOADS_MAX: usize = 64;

/// The payloads of one message, in order; those of unknown type left out.
#[derive(Debug, Default)]
pub(crate) struct Payloads<'a> {
    items: Vec<(PayloadType, Reader<'a>)>,
    /// Type of the first payload inside the Encrypted payload, if there is one.
    pub(crate) inner: u8,
}

/// A chain of payloads that could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainError {
    /// The bytes are malformed.
    Decode(DecodeError),
    /// A critical payload of this unknown type (RFC 7296 §2.5).
    UnknownCritical(u8),
}

impl From<DecodeError> for ChainError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl<'a> Payloads<'a> {
    /// Reads the chain that begins with a payload of type `first`.
    ///
    /// # Errors
    /// A payload is malformed, there are too many, or an unknown one is critical.
    pub(crate) fn decode(first: u8, r: &mut Reader<'a>) -> Result<Self, ChainError> {
        let mut payloads = Self::default();
        let mut next = first;
        let mut count = 0_usize;
        while next != 0 {
            count = count.saturating_add(1);
            if count > PAYLOADS_MAX {
                return Err(r.error("Next Payload", Cause::Range).into());
            }
            let this = next;
            next = r.u8("Next Payload")?;
            let critical = r.u8("Critical")? & 0x80 != 0;
            let len = usize::from(r.u16("Payload Length")?);
            let Some(body_len) = len.checked_sub(usize::from(GENERIC_HEADER_LEN)) else {
                return Err(r.error("Payload Length", Cause::Range).into());
            };
            let body = r.sub("Payload", body_len)?;
            match PayloadType::from_iana(this) {
                Some(kind @ (PayloadType::Encrypted | PayloadType::EncryptedFragment)) => {
                    // RFC 7296 §3.14: its Next Payload names the first one inside; it is the last of its message.
                    payloads.items.push((kind, body));
                    payloads.inner = next;
                    r.finish("Encrypted payload")?;
                    return Ok(payloads);
                }
                Some(kind) => payloads.items.push((kind, body)),
                None if critical => return Err(ChainError::UnknownCritical(this)),
                None => {}
            }
        }
        r.finish("payloads")?;
        Ok(payloads)
    }

    /// The only payload of that type, if there is one.
    ///
    /// # Errors
    /// There is more than one.
    pub(crate) fn at_most_one(&self, kind: PayloadType) -> Result<Option<Reader<'a>>, DecodeError> {
        let mut all = self.all(kind);
        let first = all.next();
        match all.next() {
            Some(second) => Err(second.error("Payload", Cause::Conflict)),
            None => Ok(first),
        }
    }

    /// The only payload of that type.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(crate) fn exactly_one(&self, kind: PayloadType) -> Result<Reader<'a>, DecodeError> {
        let missing = DecodeError { field: "Payload", offset: 0, cause: Cause::Missing };
        self.at_most_one(kind)?.ok_or(missing)
    }

    /// All payloads of that type, in order.
    pub(crate) fn all(&self, kind: PayloadType) -> impl Iterator<Item = Reader<'a>> {
        self.items.iter().filter(move |(k, _)| *k == kind).map(|(_, body)| *body)
    }
}

/// Octets of the generic payload header.
pub(crate) const GENERIC_HEADER_LEN: u16 = 4;

/// Writes a chain of payloads, each behind its generic header.
#[derive(Debug, Default)]
pub(crate) struct PayloadWriter {
    writer: Writer,
    first: u8,
    /// Where the Next Payload field of the last payload stands.
    last: Option<usize>,
}

impl PayloadWriter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Appends a payload whose body `body` writes.
    pub(crate) fn payload(&mut self, kind: PayloadType, body: impl FnOnce(&mut Writer)) {
        match self.last {
            None => self.first = kind.iana(),
            Some(offset) => {
                // The critical bit of what we send is always 0 (RFC 7296 §2.5), so both octets may be written.
                self.writer.patch_u16(offset, usize::from(kind.iana()) << 8);
            }
        }
        let start = self.writer.len();
        self.last = Some(start);
        self.writer.u16(0);
        self.writer.u16(0);
        body(&mut self.writer);
        self.writer.patch_u16(start.saturating_add(2), self.writer.len().saturating_sub(start));
    }

    /// Type of the first payload; 0 if there is none.
    pub(crate) const fn first(&self) -> u8 {
        self.first
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.writer.as_slice()
    }
}

/// A Key Exchange payload (RFC 7296 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyExchange<'a> {
    /// Diffie-Hellman Group Num, by IANA number.
    pub(crate) group: u16,
    /// Key Exchange Data.
    pub(crate) data: &'a [u8],
}

impl<'a> KeyExchange<'a> {
    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let group = r.u16("Diffie-Hellman Group Num")?;
        r.u16("RESERVED")?;
        if r.is_empty() {
            return Err(r.error("Key Exchange Data", Cause::Short));
        }
        Ok(Self { group, data: r.take_rest() })
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u16(self.group);
        w.u16(0);
        w.bytes(self.data);
    }
}

/// Reads a Nonce payload (RFC 7296 §3.9).
///
/// # Errors
/// It has fewer than 16 or more than 256 octets.
pub(crate) fn decode_nonce<'a>(mut r: Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let range = r.error("Nonce Data", Cause::Range);
    let nonce = r.take_rest();
    if (16..=256).contains(&nonce.len()) { Ok(nonce) } else { Err(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> PayloadWriter {
        let mut w = PayloadWriter::new();
        w.payload(PayloadType::Nonce, |w| w.bytes(&[7; 16]));
        w.payload(PayloadType::KeyExchange, |w| KeyExchange { group: 31, data: &[9; 32] }.encode(w));
        w.payload(PayloadType::VendorId, |_| {});
        w
    }

    #[test]
    fn a_chain_reads_back_in_order() {
        let w = chain();
        let payloads = Payloads::decode(w.first(), &mut Reader::new(w.as_slice())).unwrap();
        let nonce = decode_nonce(payloads.exactly_one(PayloadType::Nonce).unwrap()).unwrap();
        assert_eq!(nonce, [7; 16]);
        let ke = KeyExchange::decode(payloads.exactly_one(PayloadType::KeyExchange).unwrap()).unwrap();
        assert_eq!(ke, KeyExchange { group: 31, data: &[9; 32] });
        assert!(payloads.exactly_one(PayloadType::VendorId).unwrap().is_empty());
        assert_eq!(payloads.at_most_one(PayloadType::Notify).unwrap().map(|_| ()), None);
    }

    #[test]
    fn a_chain_cut_anywhere_is_an_error() {
        let w = chain();
        for len in 0..w.as_slice().len() {
            assert!(Payloads::decode(w.first(), &mut Reader::new(&w.as_slice()[..len])).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn an_unknown_payload_is_skipped_unless_it_is_critical() {
        // RFC 7296 §2.5.
        let plain = [0, 0, 0, 4];
        assert!(Payloads::decode(200, &mut Reader::new(&plain)).is_ok());
        let critical = [0, 0x80, 0, 4];
        assert_eq!(Payloads::decode(200, &mut Reader::new(&critical)).unwrap_err(), ChainError::UnknownCritical(200));
        // The bit means nothing on a payload that we know.
        assert!(Payloads::decode(43, &mut Reader::new(&critical)).is_ok());
    }

    #[test]
    fn a_payload_shorter_than_its_header_and_octets_behind_the_last_are_refused() {
        for bytes in [&[0, 0, 0, 3][..], &[0, 0, 0, 4, 0], &[0, 0, 0, 5]] {
            assert!(Payloads::decode(43, &mut Reader::new(bytes)).is_err());
        }
    }

    #[test]
    fn no_more_than_the_bound_are_read() {
        let mut w = PayloadWriter::new();
        for _ in 0..PAYLOADS_MAX {
            w.payload(PayloadType::VendorId, |_| {});
        }
        assert!(Payloads::decode(w.first(), &mut Reader::new(w.as_slice())).is_ok());
        w.payload(PayloadType::VendorId, |_| {});
        assert!(Payloads::decode(w.first(), &mut Reader::new(w.as_slice())).is_err());
    }

    #[test]
    fn two_of_what_stands_once_conflict() {
        let mut w = PayloadWriter::new();
        w.payload(PayloadType::Nonce, |w| w.bytes(&[7; 16]));
        w.payload(PayloadType::Nonce, |w| w.bytes(&[8; 16]));
        let payloads = Payloads::decode(w.first(), &mut Reader::new(w.as_slice())).unwrap();
        assert_eq!(payloads.exactly_one(PayloadType::Nonce).unwrap_err().cause, Cause::Conflict);
    }

    #[test]
    fn nonces_have_16_to_256_octets() {
        for (len, ok) in [(15, false), (16, true), (256, true), (257, false)] {
            assert_eq!(decode_nonce(Reader::new(&vec![0; len])).is_ok(), ok, "{len}");
        }
    }
}
