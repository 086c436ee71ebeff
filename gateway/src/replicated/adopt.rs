//! What an heir makes of a work set's records.

use std::collections::BTreeMap;

use esp::{HandOver, InboundEdges, Initial, OutboundLease, Start};
use wire::{DecodeError, Record, RecordId, RecordKind, Spi, record};

use super::pool::PoolLease;
use crate::datapath::SetState;

/// The state of one work set, read from its records.
#[derive(Debug, Default)]
pub struct Adopted {
    /// IKE SAs, as the engine reads them.
    pub ike: Vec<(RecordId, Box<[u8]>)>,
    /// Pairs of ESP SAs, and from where each goes on.
    pub pairs: Vec<(Initial, Start)>,
    /// How far their packets were received.
    pub edges: InboundEdges,
    /// Addresses given out of pools that live in this set.
    pub leases: Vec<(RecordId, PoolLease)>,
    /// Records that cannot be read.
    pub unreadable: Vec<(RecordId, DecodeError)>,
}

impl Adopted {
    /// Sorts and reads the records of one set. With the exact state of a planned move the pairs go on from there.
    #[must_use]
    pub fn read(records: impl IntoIterator<Item = (RecordId, Box<[u8]>)>, handed: Option<SetState>) -> Self {
        let mut adopted = Self::default();
        let mut pairs: BTreeMap<Spi, Initial> = BTreeMap::new();
        let mut leases: BTreeMap<u128, u64> = BTreeMap::new();
        for (id, bytes) in records {
            let read = match id.kind {
                RecordKind::IKE_SA => {
                    adopted.ike.push((id, bytes));
                    Ok(())
                }
                RecordKind::ESP_INITIAL => Initial::from_bytes(&bytes).map(|pair| {
                    pairs.insert(pair.spi_in, pair);
                }),
                RecordKind::ESP_OUTBOUND => OutboundLease::from_bytes(&bytes).map(|lease| {
                    leases.insert(id.key, lease.edge);
                }),
                RecordKind::ESP_INBOUND => InboundEdges::from_bytes(&bytes).map(|edges| adopted.edges = edges),
                RecordKind::POOL_LEASE => PoolLease::from_bytes(&bytes).map(|lease| adopted.leases.push((id, lease))),
                // Dispatch has inner prefixes already; a newer version's kinds are its own.
                RecordKind(_) => Ok(()),
            };
            if let Err(error) = read {
                adopted.unreadable.push((id, error));
            }
        }
        let mut exact: BTreeMap<Spi, HandOver> =
            handed.into_iter().flat_map(|state| state.pairs).map(|pair| (pair.spi_in, pair)).collect();
        for (spi_in, initial) in pairs {
            // A pair without a committed lease was never used: its peer has not seen it.
            let Some(edge) = leases.get(&u128::from(spi_in.0)).copied() else { continue };
            let start = match exact.remove(&spi_in) {
                Some(state) => Start::HandOver(state),
                None if cfg!(feature = "planted-double-use") => Start::New { edge },
                None => Start::TakeOver { edge, inbound_edge: adopted.edges.edge(spi_in) },
            };
            adopted.pairs.push((initial, start));
        }
        adopted
    }
}

record! {
    /// What the old owner of a set in a planned move says besides the records.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FinalState {
        /// Its pairs.
        1 => pub pairs: Vec<HandOver>,
        /// Digests of the plain packets that were processed in the overlap.
        2 => pub digests: Vec<u64>,
    }
}

impl From<SetState> for FinalState {
    fn from(state: SetState) -> Self {
        Self { pairs: state.pairs, digests: state.digests, unknown: wire::UnknownFields::default() }
    }
}

impl From<FinalState> for SetState {
    fn from(state: FinalState) -> Self {
        Self { pairs: state.pairs, digests: state.digests }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Secret, UnknownFields, WorkSet};

    fn pair(spi: u32) -> Initial {
        Initial {
            session: 1,
            spi_in: Spi(spi),
            spi_out: Spi(9),
            encryption: 20,
            key_bits: 128,
            integrity: None,
            key_in: Secret::from_slice(&[1; 20]),
            key_out: Secret::from_slice(&[2; 20]),
            integrity_key_in: Secret::default(),
            integrity_key_out: Secret::default(),
            local: Vec::new(),
            remote: Vec::new(),
            birth_count: 1,
            replaces: None,
            opened_by_peer: true,
            path_local: "192.0.2.1:4500".parse().unwrap(),
            path_remote: "192.0.2.2:4500".parse().unwrap(),
            unknown: UnknownFields::default(),
        }
    }

    fn records() -> Vec<(RecordId, Box<[u8]>)> {
        let id = |kind, key: u32| RecordId { set: WorkSet::new(0).unwrap(), kind, key: key.into() };
        let mut edges = InboundEdges::default();
        edges.advance(Spi(0x400), 77);
        let lease = OutboundLease { edge: 500, unknown: UnknownFields::default() };
        vec![
            (id(RecordKind::ESP_INBOUND, 0), edges.to_bytes()),
            (id(RecordKind::ESP_OUTBOUND, 0x400), lease.to_bytes()),
            (id(RecordKind::ESP_INITIAL, 0x400), pair(0x400).to_bytes()),
            (id(RecordKind::ESP_INITIAL, 0x800), pair(0x800).to_bytes()),
            (id(RecordKind::IKE_SA, 5), Box::from(*b"ike")),
            (id(RecordKind::ESP_OUTBOUND, 0xc00), Box::from(*b"rubbish")),
        ]
    }

    #[test]
    fn a_take_over_starts_at_the_committed_edges() {
        let adopted = Adopted::read(records(), None);
        assert_eq!(adopted.pairs, [(pair(0x400), Start::TakeOver { edge: 500, inbound_edge: 77 })]);
        assert_eq!((adopted.ike.len(), adopted.unreadable.len()), (1, 1));
    }

    #[test]
    fn a_planned_move_goes_on_exactly() {
        let exact = HandOver {
            spi_in: Spi(0x400),
            next: 123,
            edge: 500,
            window: Box::from([1, 2]),
            sending: true,
            packets_in: 1,
            bytes_in: 2,
            packets_out: 3,
            bytes_out: 4,
            unknown: UnknownFields::default(),
        };
        let state = SetState { pairs: vec![exact.clone()], digests: vec![1, 2] };
        let bytes = FinalState::from(state.clone()).to_bytes();
        let read: SetState = FinalState::from_bytes(&bytes).unwrap().into();
        assert_eq!(read, state);
        assert_eq!(Adopted::read(records(), Some(read)).pairs, [(pair(0x400), Start::HandOver(exact))]);
    }
}
