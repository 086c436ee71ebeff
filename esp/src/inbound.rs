//! Packets from the peer.

use std::ops::Range;

use crypto::{PacketError, PacketKey};
use wire::Spi;

use crate::inner::{Flow, FlowError, Selectors};
use crate::records::{ImportError, Initial, Start};
use crate::window::{ReplayWindow, Replayed};
use crate::{HEADER_LEN, NEXT_HEADER_DUMMY, NEXT_HEADER_IPV4};

/// The receiving half of an SA pair. It has one writer; nothing of it is shared.
pub struct InboundSa {
    spi: Spi,
    key: PacketKey,
    window: ReplayWindow,
    selectors: Selectors,
}

/// An authenticated inner packet that the selectors permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where the inner packet stands, counted from the start of the ESP packet.
    pub inner: Range<usize>,
    /// What it is.
    pub flow: Flow,
    /// Whether it is the newest of its SA so far: only such a packet may move the peer's address.
    pub newest: bool,
}

/// Why an ESP packet was not passed on. All but [`Refusal::Dummy`] are faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// It is too short, or its length does not fit the cipher.
    #[error("the length is impossible")]
    Length,
    /// Its SPI is of another SA.
    #[error("the SPI is of another SA")]
    Spi,
    /// Its sequence number was seen before.
    #[error("the sequence number was seen before")]
    Replayed,
    /// Its sequence number lies left of the replay window.
    #[error("the sequence number is too old")]
    TooOld,
    /// Its integrity check value is wrong.
    #[error("the integrity check failed")]
    Integrity,
    /// Its padding is not what the RFC demands.
    #[error("the padding is malformed")]
    Padding,
    /// It carries something else than IPv4.
    #[error("the next header is not IPv4")]
    NextHeader,
    /// A dummy packet, discarded as it should be.
    #[error("a dummy packet")]
    Dummy,
    /// The inner packet's header is malformed.
    #[error("the inner packet is malformed")]
    Inner,
    /// The selectors of the SA do not permit the inner packet.
    #[error("the selectors do not permit the inner packet")]
    Selector,
}

impl Refusal {
    /// All refusals, in the order of their discriminants.
    pub const ALL: [Self; 10] = [
        Self::Length,
        Self::Spi,
        Self::Replayed,
        Self::TooOld,
        Self::Integrity,
        Self::Padding,
        Self::NextHeader,
        Self::Dummy,
        Self::Inner,
        Self::Selector,
    ];
}

impl InboundSa {
    /// Goes on from `start`.
    ///
    /// # Errors
    /// The record does not make an SA.
    pub fn new(initial: &Initial, start: &Start) -> Result<Self, ImportError> {
        let (encryption, integrity) = initial.suite()?;
        let key = PacketKey::new(encryption, integrity, &initial.key_in, &initial.integrity_key_in)?;
        let selectors = Selectors::new(&initial.local, &initial.remote);
        Ok(Self { spi: initial.spi_in, key, window: start.window()?, selectors })
    }

    /// The SPI of its packets.
    #[must_use]
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// The highest sequence number that was authenticated.
    #[must_use]
    pub const fn edge(&self) -> u64 {
        self.window.edge()
    }

    /// The replay window, for an exact hand-over.
    #[must_use]
    pub const fn window(&self) -> &ReplayWindow {
        &self.window
    }

    /// Opens, in place, the packets of `segment_len` octets that `train` consists of, the last of which may be shorter.
    ///
    /// Stops in front of a packet with another SPI, and returns how many octets it went through. `each` gets where a packet
    /// stands in the train and what became of it.
    #[inline]
    pub fn open_train(
        &mut self,
        train: &mut [u8],
        segment_len: usize,
        mut each: impl FnMut(Range<usize>, Result<Opened, Refusal>),
    ) -> usize {
        let mut start = 0_usize;
        for packet in train.chunks_mut(segment_len.max(1)) {
            let end = start.saturating_add(packet.len());
            match self.open(packet) {
                Err(Refusal::Spi) => return start,
                outcome => each(start..end, outcome),
            }
            start = end;
        }
        start
    }

    /// Opens one ESP packet in place.
    ///
    /// # Errors
    /// Why the packet must not be passed on.
    #[inline]
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, Refusal> {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER_LEN>().ok_or(Refusal::Length)?;
        let header = *header;
        let [s0, s1, s2, s3, n0, n1, n2, n3] = header;
        if u32::from_be_bytes([s0, s1, s2, s3]) != self.spi.0 {
            return Err(Refusal::Spi);
        }
        let (iv, rest) = rest.split_at_mut_checked(self.key.iv_len()).ok_or(Refusal::Length)?;
        let data_len = rest.len().checked_sub(self.key.icv_len()).ok_or(Refusal::Length)?;
        if data_len < 2 || data_len % self.key.block_len() != 0 {
            return Err(Refusal::Length);
        }
        let (data, icv) = rest.split_at_mut_checked(data_len).ok_or(Refusal::Length)?;

        // Extended sequence numbers are not negotiated, so the 32 bits are the whole number.
        let sequence = u64::from(u32::from_be_bytes([n0, n1, n2, n3]));
        self.window.check(sequence)?;
        self.key.open(header, iv, data, icv)?;
        let newest = self.window.mark(sequence)?;

        let inner_len = strip_trailer(data)?;
        let inner = data.get(..inner_len).ok_or(Refusal::Padding)?;
        let flow = Flow::parse(inner)?;
        if !self.selectors.permit_inbound(&flow) {
            return Err(Refusal::Selector);
        }
        let start = HEADER_LEN.saturating_add(self.key.iv_len());
        Ok(Opened { inner: start..start.saturating_add(flow.total_len), flow, newest })
    }
}

/// Checks the padding (RFC 4303 §2.4) and returns the length of what stands in front of it.
#[inline]
fn strip_trailer(data: &[u8]) -> Result<usize, Refusal> {
    let [payload @ .., padding_len, next_header] = data else {
        return Err(Refusal::Padding);
    };
    let inner_len = payload.len().checked_sub(usize::from(*padding_len)).ok_or(Refusal::Padding)?;
    let padding = payload.get(inner_len..).ok_or(Refusal::Padding)?;
    if !padding.iter().zip(1_u8..).all(|(octet, expected)| *octet == expected) {
        return Err(Refusal::Padding);
    }
    match *next_header {
        NEXT_HEADER_IPV4 => Ok(inner_len),
        NEXT_HEADER_DUMMY => Err(Refusal::Dummy),
        _ => Err(Refusal::NextHeader),
    }
}

impl From<Replayed> for Refusal {
    fn from(replayed: Replayed) -> Self {
        match replayed {
            Replayed::Seen => Self::Replayed,
            Replayed::TooOld => Self::TooOld,
        }
    }
}

impl From<PacketError> for Refusal {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::Integrity => Self::Integrity,
            PacketError::Length => Self::Length,
        }
    }
}

impl From<FlowError> for Refusal {
    fn from(_: FlowError) -> Self {
        Self::Inner
    }
}
