//! Every datagram round-trips, stays within its bound, and is refused when it is cut or changed.

use super::*;
use crate::view::{Absentee, Member, Role};
use proptest::prelude::*;

fn identity(number: u8) -> Identity {
    let mut addresses = Addresses::default();
    for (network, address) in (0..).zip(&mut addresses) {
        *address = Some(SocketAddr::from(([0xfe80, 0, 0, network, 0, 0, 0, u16::from(number)], 4600)));
    }
    let name = Name::new(&format!("{number:032}")).unwrap();
    Identity { name, start: StartId(u64::from(number)), addresses, weight: 100 }
}

fn view(members: u8) -> Box<View> {
    let member = |number| Member { slot: Slot::new(number).unwrap(), role: Role::Full, identity: identity(number) };
    let master = Slot::new(0).unwrap();
    let absentee = |number| Absentee {
        name: identity(number % 16).name,
        slot: Slot::new(number % 3),
        missing: number % 2 == 0,
        apart: true,
        drained: false,
        age_ms: 7,
    };
    let absent = (0..members * 2).map(absentee).collect();
    Box::new(
        View::new(ViewId { number: 4, digest: 9 }, 8, 3, master, (0..members).map(member).collect(), absent).unwrap(),
    )
}

fn samples() -> Vec<Datagram> {
    let id = ViewId { number: 5, digest: 77 };
    let slot = Slot::new(2).unwrap();
    let set = WorkSet::from_low_bits(9);
    let epoch = Epoch { count: 3, master: slot };
    let entry = Assignment { owner: slot, heir: slot, epoch, handoff: None };
    vec![
        Datagram::Keepalive(Keepalive { counter: 7, view: id, hears: SlotMask(7), ..Keepalive::default() }),
        Datagram::Prepare { base: id, ballot: Ballot(18) },
        Datagram::Promise { base: id, ballot: Ballot(18), accepted: Some((Ballot(17), view(3))) },
        Datagram::Promise { base: id, ballot: Ballot(18), accepted: None },
        Datagram::Propose { base: id, ballot: Ballot(18), inherited: true, view: view(3) },
        Datagram::Accept { base: id, ballot: Ballot(18), view: id },
        Datagram::View(view(16)),
        Datagram::WantTable { view: id },
        Datagram::TablePart {
            version: TableVersion { view: id, sequence: 4 },
            part: 7,
            entries: vec![entry; usize::from(PART_LEN)],
        },
        Datagram::TableDelta { view: id, from: 3, to: 4, entries: vec![(set, entry); DELTA_MAX] },
        Datagram::Join(Box::new(Join {
            protocol: PROTOCOL,
            config_version: 1,
            config_hash: [5; 32],
            identity: identity(1),
        })),
        Datagram::JoinProgress,
        Datagram::JoinRefused(Box::new(Refusal::SameIdentity {
            name: Name::new("a").unwrap(),
            address: SocketAddr::from(([10, 0, 0, 1], 4600)),
        })),
        Datagram::JoinRefused(Box::new(Refusal::Veto("no".into()))),
        Datagram::JoinMaster(identity(1).addresses),
        Datagram::Offer,
        Datagram::Grant { offered: StartId(4) },
        Datagram::Announce { view: id, members: 3, leased: true, address: None, answer: 5 },
        Datagram::Hail { nonce: 5 },
        Datagram::Moves { view: id, step: Step::Taken, sets: vec![(set, epoch)] },
        Datagram::Act { view: id, slot, act: Act::Drain },
    ]
}

fn bytes(datagram: &Datagram) -> Vec<u8> {
    let mut w = Writer::new();
    datagram.encode(&mut w);
    w.into_bytes()
}

#[test]
fn datagrams_round_trip_and_stay_within_their_bound() {
    for datagram in samples() {
        let bytes = bytes(&datagram);
        assert!(bytes.len() <= DATAGRAM_MAX, "{} octets: {datagram:?}", bytes.len());
        assert_eq!(Datagram::decode(&bytes), Ok(datagram));
    }
}

#[test]
fn a_datagram_cut_anywhere_is_never_read_as_itself() {
    for datagram in samples() {
        let bytes = bytes(&datagram);
        for len in 0..bytes.len() {
            assert_ne!(Datagram::decode(&bytes[..len]).as_ref(), Ok(&datagram), "cut at {len}");
        }
        assert!(Datagram::decode(&[&bytes[..], &[0xff]].concat()).as_ref() != Ok(&datagram));
    }
}

#[test]
fn a_keepalive_of_three_members_is_below_100_octets() {
    assert!(bytes(&Datagram::Keepalive(Keepalive::default())).len() < 100);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(kind in 0_u8..24, tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Datagram::decode(&[&[kind][..], &tail].concat());
    }

    #[test]
    fn a_changed_datagram_is_read_or_refused(which in 0_usize..21, at in any::<prop::sample::Index>(), by in 1_u8..) {
        let mut changed = bytes(&samples()[which]);
        let at = at.index(changed.len());
        changed[at] ^= by;
        let _ = Datagram::decode(&changed);
    }
}
