//! The Notify payload (RFC 7296 §3.10).

use wire::{Cause, DecodeError, Reader, Spi, Writer};

/// Notify Message Types that we act on, by IANA number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NotifyType(pub(crate) u16);

impl NotifyType {
    pub(crate) const UNSUPPORTED_CRITICAL_PAYLOAD: Self = Self(1);
    pub(crate) const INVALID_MAJOR_VERSION: Self = Self(5);
    pub(crate) const INVALID_SYNTAX: Self = Self(7);
    pub(crate) const NO_PROPOSAL_CHOSEN: Self = Self(14);
    pub(crate) const INVALID_KE_PAYLOAD: Self = Self(17);
    pub(crate) const AUTHENTICATION_FAILED: Self = Self(24);
    pub(crate) const TEMPORARY_FAILURE: Self = Self(43);
    pub(crate) const CHILD_SA_NOT_FOUND: Self = Self(44);
    pub(crate) const INITIAL_CONTACT: Self = Self(16384);
    pub(crate) const NAT_DETECTION_SOURCE_IP: Self = Self(16388);
    pub(crate) const NAT_DETECTION_DESTINATION_IP: Self = Self(16389);
    pub(crate) const COOKIE: Self = Self(16390);
    pub(crate) const REKEY_SA: Self = Self(16393);
    pub(crate) const IKEV2_FRAGMENTATION_SUPPORTED: Self = Self(16430);
    pub(crate) const SIGNATURE_HASH_ALGORITHMS: Self = Self(16431);

    /// Whether it reports an error (RFC 7296 §3.10.1: types below 16384).
    pub(crate) const fn is_error(self) -> bool {
        self.0 < 16384
    }
}

/// A Notify payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notify<'a> {
    /// The child SA that it is about, if any.
    pub(crate) spi: Option<Spi>,
    pub(crate) kind: NotifyType,
    /// Notification Data.
    pub(crate) data: &'a [u8],
}

const PROTOCOL_ESP: u8 = 3;

impl<'a> Notify<'a> {
    pub(crate) const fn new(kind: NotifyType, data: &'a [u8]) -> Self {
        Self { spi: None, kind, data }
    }

    pub(crate) fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let protocol = r.u8("Protocol ID")?;
        let spi_len = usize::from(r.u8("SPI Size")?);
        let kind = NotifyType(r.u16("Notify Message Type")?);
        let range = r.error("SPI", Cause::Range);
        let spi = match (protocol, r.bytes("SPI", spi_len)?) {
            (PROTOCOL_ESP, spi) => Some(Spi(u32::from_be_bytes(spi.try_into().map_err(|_| range)?))),
            (_, _) => None,
        };
        Ok(Self { spi, kind, data: r.take_rest() })
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        match self.spi {
            None => {
                w.u8(0);
                w.u8(0);
                w.u16(self.kind.0);
            }
            Some(spi) => {
                w.u8(PROTOCOL_ESP);
                w.u8(4);
                w.u16(self.kind.0);
                w.u32(spi.0);
            }
        }
        w.bytes(self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REKEY_SA for the ESP SA c9f1a2b3.
    const REAL: [u8; 8] = [3, 4, 0x40, 0x09, 0xc9, 0xf1, 0xa2, 0xb3];

    #[test]
    fn real_octets_decode_and_values_round_trip() {
        let notify = Notify { spi: Some(Spi(0xc9f1_a2b3)), kind: NotifyType::REKEY_SA, data: &[] };
        assert_eq!(Notify::decode(Reader::new(&REAL)), Ok(notify));
        for notify in [notify, Notify::new(NotifyType::COOKIE, b"cookie")] {
            let mut w = Writer::new();
            notify.encode(&mut w);
            assert_eq!(Notify::decode(Reader::new(w.as_slice())), Ok(notify));
        }
    }

    #[test]
    fn cut_anywhere_is_short() {
        for len in 0..REAL.len() {
            assert_eq!(Notify::decode(Reader::new(&REAL[..len])).unwrap_err().cause, Cause::Short, "cut at {len}");
        }
    }

    #[test]
    fn an_esp_spi_of_another_length_is_out_of_range() {
        for len in [0, 3, 5] {
            let mut bytes = REAL.to_vec();
            bytes.push(0);
            bytes[1] = len;
            assert_eq!(Notify::decode(Reader::new(&bytes)).unwrap_err().cause, Cause::Range, "{len}");
        }
    }
}
