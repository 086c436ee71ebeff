//! The IKE header (RFC 7296 §3.1).

use wire::{Cause, DecodeError, Reader, Writer};

/// What two messages are about (RFC 7296 §3.1, Exchange Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ExchangeType {
    /// IKE_SA_INIT, 34.
    IkeSaInit,
    /// IKE_AUTH, 35.
    IkeAuth,
    /// CREATE_CHILD_SA, 36.
    CreateChildSa,
    /// INFORMATIONAL, 37.
    Informational,
    /// Any other number.
    Other(u8),
}

impl ExchangeType {
    pub(crate) const fn from_iana(number: u8) -> Self {
        match number {
            34 => Self::IkeSaInit,
            35 => Self::IkeAuth,
            36 => Self::CreateChildSa,
            37 => Self::Informational,
            other => Self::Other(other),
        }
    }

    pub(crate) const fn iana(self) -> u8 {
        match self {
            Self::IkeSaInit => 34,
            Self::IkeAuth => 35,
            Self::CreateChildSa => 36,
            Self::Informational => 37,
            Self::Other(number) => number,
        }
    }
}

/// The IKE header: 28 octets, network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// IKE SA Initiator's SPI.
    pub(crate) spi_i: u64,
    /// IKE SA Responder's SPI; 0 in the first message.
    pub(crate) spi_r: u64,
    /// Type of the first payload.
    pub(crate) next_payload: u8,
    /// Major version in the high four bits, minor version in the low.
    pub(crate) version: u8,
    /// Exchange Type.
    pub(crate) exchange: ExchangeType,
    /// Flags.
    pub(crate) flags: u8,
    /// Message ID.
    pub(crate) message_id: u32,
    /// Whole message in octets, this header included.
    pub(crate) length: u32,
}

impl Header {
    /// Octets of the header.
    pub(crate) const LEN: u32 = 28;
    /// The version that we speak: 2.0.
    pub(crate) const VERSION_2: u8 = 0x20;
    /// The sender is the original initiator of this IKE SA.
    pub(crate) const INITIATOR: u8 = 0x08;
    /// The message answers one with the same Message ID.
    pub(crate) const RESPONSE: u8 = 0x20;

    /// Reads a header and leaves `r` at the first payload.
    ///
    /// # Errors
    /// The bytes end early, or `length` is not that of the datagram.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let total = r.remaining();
        let header = Self {
            spi_i: r.u64("IKE SA Initiator's SPI")?,
            spi_r: r.u64("IKE SA Responder's SPI")?,
            next_payload: r.u8("Next Payload")?,
            version: r.u8("Version")?,
            exchange: ExchangeType::from_iana(r.u8("Exchange Type")?),
            flags: r.u8("Flags")?,
            message_id: r.u32("Message ID")?,
            length: r.u32("Length")?,
        };
        if usize::try_from(header.length) != Ok(total) {
            return Err(r.error("Length", Cause::Range));
        }
        if header.spi_i == 0 {
            return Err(r.error("IKE SA Initiator's SPI", Cause::Range));
        }
        Ok(header)
    }

    /// Appends the header.
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u64(self.spi_i);
        w.u64(self.spi_r);
        w.u8(self.next_payload);
        w.u8(self.version);
        w.u8(self.exchange.iana());
        w.u8(self.flags);
        w.u32(self.message_id);
        w.u32(self.length);
    }

    pub(crate) const fn is_response(&self) -> bool {
        self.flags & Self::RESPONSE != 0
    }

    pub(crate) const fn is_from_initiator(&self) -> bool {
        self.flags & Self::INITIATOR != 0
    }

    pub(crate) const fn major_version(&self) -> u8 {
        self.version >> 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of an IKE_SA_INIT request that Debian's strongSwan 5.9.8 sent.
    const REAL: [u8; 28] = [
        0x5b, 0x0f, 0x61, 0x4c, 0x2f, 0x57, 0x7f, 0xe6, 0, 0, 0, 0, 0, 0, 0, 0, 0x21, 0x20, 0x22, 0x08, 0, 0, 0, 0, 0,
        0, 0, 28,
    ];

    #[test]
    fn a_real_header_decodes_and_encodes_to_the_same_octets() {
        let header = Header::decode(&mut Reader::new(&REAL)).unwrap();
        assert_eq!((header.exchange, header.next_payload, header.major_version()), (ExchangeType::IkeSaInit, 33, 2));
        assert!(header.is_from_initiator() && !header.is_response());
        let mut w = Writer::new();
        header.encode(&mut w);
        assert_eq!(w.as_slice(), REAL);
    }

    #[test]
    fn a_header_cut_anywhere_is_short_never_a_panic() {
        for len in 0..REAL.len() {
            assert_eq!(Header::decode(&mut Reader::new(&REAL[..len])).unwrap_err().cause, Cause::Short, "cut at {len}");
        }
    }

    #[test]
    fn a_length_unlike_the_datagrams_and_a_zero_spi_are_out_of_range() {
        for (octet, value) in [(27, 27), (27, 29), (24, 1)] {
            let mut bytes = REAL;
            bytes[octet] = value;
            assert_eq!(Header::decode(&mut Reader::new(&bytes)).unwrap_err().field, "Length");
        }
        let mut bytes = REAL;
        bytes[..8].fill(0);
        assert_eq!(Header::decode(&mut Reader::new(&bytes)).unwrap_err().field, "IKE SA Initiator's SPI");
    }

    #[test]
    fn every_exchange_type_keeps_its_number() {
        for number in 0..=255 {
            assert_eq!(ExchangeType::from_iana(number).iana(), number);
        }
    }
}
