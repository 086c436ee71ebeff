//! ESP (RFC 4303) in tunnel mode, on the caller's buffers, for SAs that move between nodes.
//!
//! An [`OutboundSa`] may be used by many threads: they [`reserve`](OutboundSa::reserve) sequence numbers inside the
//! committed lease and [`seal`](OutboundSa::seal) packets with them. An [`InboundSa`] has one writer, who
//! [opens](InboundSa::open_train) trains of packets in place. Nothing here allocates per packet, does I/O, or asks what
//! time it is. [`Initial`], [`OutboundLease`], [`InboundEdges`] and [`HandOver`] are the records from which another node
//! goes on:
//!
//! * **unplanned** ([`Start::TakeOver`]): outbound from the committed lease's edge, inbound as if everything up to the last
//!   committed edge had been seen, so that no sequence number and no IV is ever used twice;
//! * **planned** ([`Start::HandOver`]): at the next number, with the whole replay window.
//!
//! ```
//! use esp::{Initial, InboundSa, OutboundSa, Start, TRAILER_MAX};
//! # use wire::{Epoch, Secret, Slot, Spi, Tenure, TrafficSelector};
//! # let all = vec![TrafficSelector::from_prefix("0.0.0.0/0".parse().unwrap())];
//! # let key = || Secret::new(vec![1; 20]);
//! # let initial = |spi_in, spi_out| Initial {
//! #     session: 1, spi_in: Spi(spi_in), spi_out: Spi(spi_out), encryption: 20, key_bits: 128, integrity: None,
//! #     key_in: key(), key_out: key(), integrity_key_in: Secret::default(), integrity_key_out: Secret::default(),
//! #     local: all.clone(), remote: all.clone(), birth_count: 0, replaces: None, opened_by_peer: false,
//! #     path_local: "192.0.2.1:4500".parse().unwrap(), path_remote: "192.0.2.2:4500".parse().unwrap(),
//! #     unknown: Default::default(),
//! # };
//! # let tenure = Tenure { epoch: Epoch { count: 0, master: Slot::new(0).unwrap() }, slot: Slot::new(0).unwrap() };
//! # let mut ivs = crypto::CbcIvSource::new([0; 32]);
//! let (ours, theirs) = (initial(0x1000, 0x2000), initial(0x2000, 0x1000));
//! let outbound = OutboundSa::new(&ours, tenure, &Start::New { edge: 65_537 })?;
//! let mut inbound = InboundSa::new(&theirs, &Start::New { edge: 65_537 })?;
//!
//! let mut buffer = *b"\x45\0\0\x14\0\0\0\0\x40\x3b\0\0\x0a\0\0\x01\x0a\0\0\x02.............................";
//! let mut datagram = [0; 128];
//! let sequence = outbound.reserve(1).unwrap().take().unwrap();
//! let len = outbound.seal(sequence, &mut buffer[..20 + TRAILER_MAX], 20, &mut datagram, &mut ivs).unwrap();
//! let opened = inbound.open(&mut datagram[..len]).unwrap();
//! assert_eq!(datagram[opened.inner.clone()], buffer[..20]);
//! assert!(inbound.open(&mut datagram[..len]).is_err(), "the same packet twice is a replay");
//! # Ok::<(), esp::ImportError>(())
//! ```

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions, clippy::panic)
)]

mod inbound;
mod inner;
mod outbound;
mod records;
mod sequence;
mod window;

pub use inbound::{InboundSa, Opened, Refusal};
pub use inner::{Flow, FlowError, Selectors};
pub use outbound::{OutboundSa, SealError, TRAILER_MAX};
pub use records::{HandOver, ImportError, InboundEdge, InboundEdges, Initial, OutboundLease, Start};
pub use sequence::{LEASE_MIN, Sequence, SequenceRange, Wait};
pub use window::{ReplayWindow, Replayed};

/// Octets of the ESP header: SPI and sequence number (RFC 4303 §2).
const HEADER_LEN: usize = 8;
/// Next Header of an IPv4 packet in tunnel mode (RFC 4303 §2.6).
const NEXT_HEADER_IPV4: u8 = 4;
/// Next Header of a dummy packet, which the receiver discards (RFC 4303 §2.6).
const NEXT_HEADER_DUMMY: u8 = 59;
