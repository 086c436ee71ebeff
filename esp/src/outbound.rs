//! Packets to the peer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crypto::{CbcIvSource, IvSpace, PacketKey};
use wire::{Slot, Spi, Tenure, Time};

use crate::records::{ImportError, Initial, Start};
use crate::sequence::{Sequence, SequenceRange, Sequences, Wait};
use crate::{HEADER_LEN, NEXT_HEADER_DUMMY, NEXT_HEADER_IPV4};

/// Octets behind the inner packet that [`OutboundSa::seal`] writes over for a moment: padding, its length and the next
/// header, of the widest cipher block.
pub const TRAILER_MAX: usize = 17;

/// The sending half of an SA pair in one tenure of its work set. Threads share it without a lock.
pub struct OutboundSa {
    spi: Spi,
    key: PacketKey,
    ivs: IvSpace,
    sequences: Sequences,
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// The packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The input has no room behind the packet, or the output is too short.
    #[error("a buffer is too short")]
    Buffer,
    /// No explicit IV is left; the sequence numbers end long before.
    #[error("no explicit IV is left")]
    IvSpace,
}

impl OutboundSa {
    /// Goes on from `start`, under the tenure in which this node holds the work set.
    ///
    /// # Errors
    /// The record does not make an SA, or its IVs are used up.
    pub fn new(initial: &Initial, tenure: Tenure, start: &Start) -> Result<Self, ImportError> {
        let (encryption, integrity) = initial.suite()?;
        let key = PacketKey::new(encryption, integrity, &initial.key_out, &initial.integrity_key_out)?;
        let ivs = IvSpace::new(tenure, initial.birth_count).ok_or(ImportError::IvSpace)?;
        let (next, edge) = start.outbound();
        let (packets, bytes) = match start {
            Start::HandOver(state) => (state.packets_out, state.bytes_out),
            Start::New { .. } | Start::TakeOver { .. } => (0, 0),
        };
        Ok(Self {
            spi: initial.spi_out,
            key,
            ivs,
            sequences: Sequences::new(next, edge),
            packets: AtomicU64::new(packets),
            bytes: AtomicU64::new(bytes),
        })
    }

    /// Gives out up to `count` consecutive sequence numbers, at least one; a batch may get fewer than it asked for.
    ///
    /// # Errors
    /// The lease or the whole number space is used up.
    #[inline]
    pub fn reserve(&self, count: u64) -> Result<SequenceRange, Wait> {
        self.sequences.reserve(count)
    }

    /// Moves the lease's edge up, after the new one is committed.
    pub fn extend_lease(&self, edge: u64) {
        self.sequences.extend(edge);
    }

    /// From the committed edge on, uses only the blocks of numbers that belong to `slot`: this node's side of a split is
    /// unproven, and the other side may use the same SA.
    pub fn restrict_to_slot(&self, slot: Slot) {
        self.sequences.restrict(slot);
    }

    /// Uses only the blocks of `slot` from the next number on: the SA was taken from another node while somebody else may
    /// have used its numbers, and where the common ones ended is not known here.
    pub fn restrict_wholly_to_slot(&self, slot: Slot) {
        self.sequences.restrict_wholly(slot);
    }

    /// The edge that the next lease should have, at the rate of late.
    #[must_use]
    pub fn propose_edge(&self, now: Time) -> u64 {
        self.sequences.propose(now)
    }

    /// The next sequence number and the lease's edge.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        (self.sequences.next(), self.sequences.edge())
    }

    /// Packets sealed, and octets of inner packets in them.
    #[must_use]
    pub fn counters(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// Octets of the ESP packet around an inner packet of that length.
    #[inline]
    #[must_use]
    pub fn sealed_len(&self, inner_len: usize) -> usize {
        let plaintext = inner_len.saturating_add(2).next_multiple_of(self.key.block_len());
        plaintext.saturating_add(HEADER_LEN).saturating_add(self.key.iv_len()).saturating_add(self.key.icv_len())
    }

    /// Seals the inner packet `buffer[..inner_len]` into `out` and returns the ESP packet's length.
    ///
    /// `buffer` must hold [`TRAILER_MAX`] octets more; they are overwritten and restored, so the next packet of a train may
    /// stand there. The caller counts with [`OutboundSa::count`].
    ///
    /// # Errors
    /// A buffer is too short; the sequence number is lost then.
    #[inline]
    pub fn seal(
        &self,
        sequence: Sequence,
        buffer: &mut [u8],
        inner_len: usize,
        out: &mut [u8],
        ivs: &mut CbcIvSource,
    ) -> Result<usize, SealError> {
        self.seal_as(NEXT_HEADER_IPV4, sequence, buffer, inner_len, out, ivs)
    }

    /// Seals a dummy packet of that many octets, which the peer discards (RFC 4303 §2.6); `buffer` is as for
    /// [`OutboundSa::seal`].
    ///
    /// # Errors
    /// As for [`OutboundSa::seal`].
    pub fn seal_dummy(
        &self,
        sequence: Sequence,
        buffer: &mut [u8],
        len: usize,
        out: &mut [u8],
        ivs: &mut CbcIvSource,
    ) -> Result<usize, SealError> {
        self.seal_as(NEXT_HEADER_DUMMY, sequence, buffer, len, out, ivs)
    }

    /// Counts sealed packets, once per batch.
    pub fn count(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn seal_as(
        &self,
        next_header: u8,
        Sequence(sequence): Sequence,
        buffer: &mut [u8],
        inner_len: usize,
        out: &mut [u8],
        ivs: &mut CbcIvSource,
    ) -> Result<usize, SealError> {
        let plaintext_len = inner_len.saturating_add(2).next_multiple_of(self.key.block_len());
        let trailer_len = plaintext_len.saturating_sub(inner_len);
        let sealed_len = self.sealed_len(inner_len);

        // RFC 4303 §2: SPI and the low half of the sequence number.
        let [s0, s1, s2, s3] = self.spi.0.to_be_bytes();
        let [_, _, _, _, n0, n1, n2, n3] = sequence.to_be_bytes();
        let header = [s0, s1, s2, s3, n0, n1, n2, n3];
        let out = out.get_mut(..sealed_len).ok_or(SealError::Buffer)?;
        let (head, out) = out.split_at_mut_checked(HEADER_LEN).ok_or(SealError::Buffer)?;
        let (iv, out) = out.split_at_mut_checked(self.key.iv_len()).ok_or(SealError::Buffer)?;
        let (ciphertext, icv) = out.split_at_mut_checked(plaintext_len).ok_or(SealError::Buffer)?;
        head.copy_from_slice(&header);
        match iv.len() {
            8 => iv.copy_from_slice(&self.ivs.iv(sequence).ok_or(SealError::IvSpace)?.0),
            _ => iv.copy_from_slice(ivs.draw().get(..iv.len()).ok_or(SealError::Buffer)?),
        }

        let plaintext = buffer.get_mut(..plaintext_len).ok_or(SealError::Buffer)?;
        let (_, trailer) = plaintext.split_at_mut_checked(inner_len).ok_or(SealError::Buffer)?;
        let mut saved = [0; TRAILER_MAX];
        let saved = saved.get_mut(..trailer_len).ok_or(SealError::Buffer)?;
        saved.copy_from_slice(trailer);
        // RFC 4303 §2.4: padding is 1, 2, 3 …, then its length and the next header.
        let padding_len = trailer_len.saturating_sub(2);
        for (value, octet) in (1..).zip(trailer.iter_mut().take(padding_len)) {
            *octet = value;
        }
        if let [.., length, next] = trailer {
            *length = u8::try_from(padding_len).unwrap_or(0);
            *next = next_header;
        }
        let sealed = self.key.seal(header, iv, plaintext, ciphertext, icv);
        if let Some(trailer) = plaintext.get_mut(inner_len..) {
            trailer.copy_from_slice(saved);
        }
        sealed.map(|()| sealed_len).map_err(|_| SealError::Buffer)
    }
}
