//! The state of an SA pair that crosses from node to node.

use std::net::SocketAddr;

use crypto::{Encryption, Integrity, KeyError};
use wire::{Secret, Spi, TrafficSelector};

use crate::window::ReplayWindow;

wire::record! {
    /// What is fixed when a pair of SAs is made: the record `ESP_INITIAL`, by inbound SPI. Only the path may be rewritten.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Initial {
        /// The session that the pair belongs to.
        1 => pub session: u64,
        /// SPI of packets to us; its low bits name the work set.
        2 => pub spi_in: Spi,
        /// SPI of packets to the peer.
        3 => pub spi_out: Spi,
        /// IANA number of the encryption algorithm.
        4 => pub encryption: u16,
        /// Its Key Length attribute.
        5 => pub key_bits: u16,
        /// IANA number of the integrity algorithm, if it has one of its own.
        6 => pub integrity: Option<u16>,
        /// Encryption key inbound, with its salt.
        7 => pub key_in: Secret,
        /// Encryption key outbound, with its salt.
        /// Packets to the peer so far.
        8 => pub key_out: Secret,
        /// Integrity key inbound; empty for an AEAD.
        9 => pub integrity_key_in: Secret,
        /// Integrity key outbound; empty for an AEAD.
        10 => pub integrity_key_out: Secret,
        /// What lies on our side.
        11 => pub local: Vec<TrafficSelector>,
        /// What lies on the peer's side.
        12 => pub remote: Vec<TrafficSelector>,
        /// The count of the work set's epochs when the keys were made.
        13 => pub birth_count: u32,
        /// The inbound SPI of the pair that this one replaces.
        14 => pub replaces: Option<Spi>,
        /// Whether the peer asked for the pair. We then send on the replaced one until the peer has used this one, or the
        /// replaced one is gone (RFC 7296 §2.8).
        15 => pub opened_by_peer: bool,
        /// Our address and port.
        16 => pub path_local: SocketAddr,
        /// The peer's address and port, as far as known when this was written.
        17 => pub path_remote: SocketAddr,
    }
}

wire::record! {
    /// How far sequence numbers may be used: the record `ESP_OUTBOUND`, by inbound SPI.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OutboundLease {
        /// The first number that may not be used yet; a take-over starts there.
        1 => pub edge: u64,
    }
}

wire::record! {
    /// How far one SA's packets were received.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct InboundEdge {
        /// The SA.
        1 => pub spi_in: Spi,
        /// The highest sequence number that was authenticated.
        2 => pub edge: u64,
    }
}

wire::record! {
    /// The edges of all SAs of a work set: the record `ESP_INBOUND`, key 0.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct InboundEdges {
        /// By rising SPI.
        1 => pub edges: Vec<InboundEdge>,
    }
}

impl InboundEdges {
    /// Notes an edge; one that is lower than the known changes nothing.
    pub fn advance(&mut self, spi_in: Spi, edge: u64) {
        match self.edges.binary_search_by_key(&spi_in, |known| known.spi_in) {
            Ok(place) => {
                if let Some(known) = self.edges.get_mut(place) {
                    known.edge = known.edge.max(edge);
                }
            }
            Err(place) => {
                self.edges.insert(place, InboundEdge { spi_in, edge, unknown: wire::UnknownFields::default() })
            }
        }
    }

    /// Forgets an SA that is gone.
    pub fn remove(&mut self, spi_in: Spi) {
        self.edges.retain(|known| known.spi_in != spi_in);
    }

    /// The edge of that SA; 0 if none was noted.
    #[must_use]
    pub fn edge(&self, spi_in: Spi) -> u64 {
        let place = self.edges.binary_search_by_key(&spi_in, |known| known.spi_in);
        place.ok().and_then(|place| self.edges.get(place)).map_or(0, |known| known.edge)
    }
}

wire::record! {
    /// The exact state of a pair that its owner has stopped using, for a planned move.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HandOver {
        /// Which pair.
        1 => pub spi_in: Spi,
        /// The next outbound sequence number.
        2 => pub next: u64,
        /// The committed edge of the outbound lease.
        3 => pub edge: u64,
        /// The whole replay window.
        4 => pub window: Box<[u8]>,
        /// Whether we already send on this pair.
        5 => pub sending: bool = true,
        /// Packets from the peer so far.
        6 => pub packets_in: u64 = 0,
        /// Octets of the inner packets in them.
        7 => pub bytes_in: u64 = 0,
        /// Packets to the peer so far.
        8 => pub packets_out: u64 = 0,
        /// Octets of the inner packets in them.
        9 => pub bytes_out: u64 = 0,
    }
}

/// From where an SA pair goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It was just made; nothing was sent or received on it.
    New {
        /// The edge of its first lease, committed together with it.
        edge: u64,
    },
    /// Its owner is gone: sending starts at the last committed edge, and what lies up to the inbound edge counts as seen.
    TakeOver {
        /// The edge of the last lease that was stored.
        edge: u64,
        /// The last inbound edge that was stored.
        inbound_edge: u64,
    },
    /// Its owner has stopped and handed it over.
    HandOver(HandOver),
}

/// A record does not make an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// An algorithm is unknown here, or a key has the wrong length for it.
    #[error("the algorithms are unknown here or do not fit the keys")]
    Suite,
    /// The IV space of the key is used up: too many epochs passed since it was made.
    #[error("no explicit IVs are left for this key")]
    IvSpace,
    /// The replay window is malformed.
    #[error("the replay window is malformed")]
    Window,
}

impl From<KeyError> for ImportError {
    fn from(_: KeyError) -> Self {
        Self::Suite
    }
}

impl Initial {
    /// The algorithms, if we have them.
    ///
    /// # Errors
    /// [`ImportError::Suite`].
    pub fn suite(&self) -> Result<(Encryption, Option<Integrity>), ImportError> {
        let encryption = Encryption::from_iana(self.encryption, Some(self.key_bits)).ok_or(ImportError::Suite)?;
        let integrity = match self.integrity {
            Some(id) => Some(Integrity::from_iana(id).ok_or(ImportError::Suite)?),
            None => None,
        };
        Ok((encryption, integrity))
    }
}

impl Start {
    /// The next sequence number and the edge of the lease.
    pub(crate) const fn outbound(&self) -> (u64, u64) {
        match self {
            Self::New { edge } => (1, *edge),
            Self::TakeOver { edge, .. } => (*edge, *edge),
            Self::HandOver(state) => (state.next, state.edge),
        }
    }

    pub(crate) fn window(&self) -> Result<ReplayWindow, ImportError> {
        match self {
            Self::New { .. } => Ok(ReplayWindow::seen_up_to(0)),
            Self::TakeOver { inbound_edge, .. } => Ok(ReplayWindow::seen_up_to(*inbound_edge)),
            Self::HandOver(state) => ReplayWindow::from_bytes(&state.window).ok_or(ImportError::Window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_a_set_rise_and_are_forgotten_with_their_sa() {
        let mut edges = InboundEdges::default();
        for (spi, edge) in [(9, 5), (3, 7), (9, 4), (3, 8)] {
            edges.advance(Spi(spi), edge);
        }
        assert_eq!((edges.edge(Spi(9)), edges.edge(Spi(3)), edges.edge(Spi(1))), (5, 8, 0));
        edges.remove(Spi(9));
        assert_eq!((edges.edge(Spi(9)), edges.edges.len()), (0, 1));
    }
}
