//! The Delete payload (RFC 7296 §3.11).

use wire::{Cause, DecodeError, Reader, Spi, Writer};

/// Child SAs in one Delete payload at the most. Our bound; a peer has one child per IKE SA here.
pub(crate) const DELETES_MAX: usize = 32;

/// What a peer, or we, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delete {
    /// The IKE SA that carries the message.
    IkeSa,
    /// Child SAs, by the SPIs of the packets that the sender of this message expects.
    Children(Vec<Spi>),
}

impl Delete {
    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let protocol = r.u8("Protocol ID")?;
        let spi_len = r.u8("SPI Size")?;
        let count = usize::from(r.u16("Num of SPIs")?);
        match (protocol, spi_len) {
            (1, 0) if count == 0 => {
                r.finish("Delete")?;
                Ok(Self::IkeSa)
            }
            (3, 4) if count <= DELETES_MAX => {
                let spis = (0..count).map(|_| r.u32("SPI").map(Spi)).collect::<Result<_, _>>()?;
                r.finish("Delete")?;
                Ok(Self::Children(spis))
            }
            // AH, of which we have none.
            (2, 4) if count <= DELETES_MAX => Ok(Self::Children(Vec::new())),
            (_, _) => Err(r.error("Protocol ID", Cause::Range)),
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Self::IkeSa => {
                w.u8(1);
                w.u8(0);
                w.u16(0);
            }
            Self::Children(spis) => {
                w.u8(3);
                w.u8(4);
                // Bounded by the children of one IKE SA.
                w.u16(u16::try_from(spis.len()).unwrap_or(u16::MAX));
                spis.iter().for_each(|spi| w.u32(spi.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: [u8; 12] = [3, 4, 0, 2, 0xc9, 0xf1, 0xa2, 0xb3, 0xc0, 1, 2, 3];

    #[test]
    fn real_octets_decode_and_values_round_trip() {
        let two = Delete::Children(vec![Spi(0xc9f1_a2b3), Spi(0xc001_0203)]);
        assert_eq!(Delete::decode(Reader::new(&REAL)), Ok(two.clone()));
        for delete in [two, Delete::IkeSa] {
            let mut w = Writer::new();
            delete.encode(&mut w);
            assert_eq!(Delete::decode(Reader::new(w.as_slice())), Ok(delete));
        }
    }

    #[test]
    fn cut_anywhere_is_an_error() {
        for len in 0..REAL.len() {
            assert!(Delete::decode(Reader::new(&REAL[..len])).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn protocol_size_and_count_out_of_range_are_refused() {
        for bytes in [&[1, 8, 0, 0][..], &[1, 0, 0, 1], &[3, 8, 0, 0], &[4, 4, 0, 0], &[3, 4, 0xff, 0xff]] {
            assert!(Delete::decode(Reader::new(bytes)).is_err(), "{bytes:?}");
        }
    }
}
