//! Two ends of an SA pair: what one seals the other opens, once, whoever owns it by then.

use std::collections::HashSet;

use crypto::CbcIvSource;
use esp::{HandOver, InboundSa, Initial, OutboundSa, Refusal, Start, TRAILER_MAX, Wait};
use proptest::prelude::*;
use wire::{Epoch, Record, Secret, Slot, Spi, Tenure, TrafficSelector, UnknownFields};

fn selector(text: &str) -> Vec<TrafficSelector> {
    vec![TrafficSelector::from_prefix(text.parse().unwrap())]
}

/// Encryption, key bits, integrity, as IANA numbers.
const SUITES: [(u16, u16, Option<u16>); 6] =
    [(20, 128, None), (20, 192, None), (20, 256, None), (12, 128, Some(12)), (12, 192, Some(13)), (12, 256, Some(14))];

fn ours(suite: (u16, u16, Option<u16>)) -> Initial {
    let (encryption, key_bits, integrity) = suite;
    let salt = if integrity.is_none() { 4 } else { 0 };
    let key = |fill| Secret::new(vec![fill; usize::from(key_bits / 8) + salt]);
    let mac = |fill| Secret::new(vec![fill; integrity.map_or(0, |id| usize::from(id - 10) * 16)]);
    Initial {
        session: 7,
        spi_in: Spi(0x1001),
        spi_out: Spi(0x2002),
        encryption,
        key_bits,
        integrity,
        key_in: key(1),
        key_out: key(2),
        integrity_key_in: mac(3),
        integrity_key_out: mac(4),
        local: selector("10.9.0.0/16"),
        remote: selector("10.8.0.2/32"),
        birth_count: 0,
        replaces: None,
        opened_by_peer: false,
        path_local: "192.0.2.1:4500".parse().unwrap(),
        path_remote: "192.0.2.2:4500".parse().unwrap(),
        unknown: UnknownFields::default(),
    }
}

fn theirs(initial: &Initial) -> Initial {
    Initial {
        spi_in: initial.spi_out,
        spi_out: initial.spi_in,
        key_in: initial.key_out.clone(),
        key_out: initial.key_in.clone(),
        integrity_key_in: initial.integrity_key_out.clone(),
        integrity_key_out: initial.integrity_key_in.clone(),
        local: initial.remote.clone(),
        remote: initial.local.clone(),
        ..initial.clone()
    }
}

fn tenure(count: u32, slot: u8) -> Tenure {
    Tenure { epoch: Epoch { count, master: Slot::new(0).unwrap() }, slot: Slot::new(slot).unwrap() }
}

fn inner(source: [u8; 4], destination: [u8; 4], payload: usize) -> Vec<u8> {
    let len = u16::try_from(20 + payload).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, 59, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    packet.extend((0..payload).map(|i| u8::try_from(i % 251).unwrap()));
    packet
}

const TO_PEER: ([u8; 4], [u8; 4]) = ([10, 9, 0, 1], [10, 8, 0, 2]);

fn seal(sa: &OutboundSa, packet: &[u8]) -> Option<Vec<u8>> {
    let sequence = sa.reserve(1).ok()?.take()?;
    let mut buffer = [packet, &[0xee; TRAILER_MAX]].concat();
    let mut out = vec![0; 2000];
    let mut ivs = CbcIvSource::new([5; 32]);
    let len = sa.seal(sequence, &mut buffer, packet.len(), &mut out, &mut ivs).unwrap();
    assert_eq!(buffer, [packet, &[0xee; TRAILER_MAX]].concat(), "the buffer is restored");
    assert_eq!(len, sa.sealed_len(packet.len()));
    out.truncate(len);
    Some(out)
}

#[test]
fn every_suite_and_length_goes_through() {
    for suite in SUITES {
        let initial = ours(suite);
        let out = OutboundSa::new(&initial, tenure(0, 0), &Start::New { edge: 1000 }).unwrap();
        let mut back = InboundSa::new(&theirs(&initial), &Start::New { edge: 1000 }).unwrap();
        for payload in 0..40 {
            let packet = inner(TO_PEER.0, TO_PEER.1, payload);
            let mut datagram = seal(&out, &packet).unwrap();
            let opened = back.open(&mut datagram).unwrap();
            assert_eq!(datagram[opened.inner], packet, "{suite:?}, payload {payload}");
            assert!(opened.newest);
        }
    }
}

#[test]
fn a_train_is_opened_up_to_the_next_sa() {
    let initial = ours(SUITES[0]);
    let out = OutboundSa::new(&initial, tenure(0, 0), &Start::New { edge: 1000 }).unwrap();
    let mut back = InboundSa::new(&theirs(&initial), &Start::New { edge: 1000 }).unwrap();
    let packet = inner(TO_PEER.0, TO_PEER.1, 100);
    let mut train: Vec<u8> = (0..3).flat_map(|_| seal(&out, &packet).unwrap()).collect();
    let segment = train.len() / 3;
    let replay = train[..segment].to_vec();
    train.extend(&replay);
    let mut foreign = replay.clone();
    foreign[3] ^= 1;
    train.extend(&foreign);
    train.extend(&replay);
    let mut seen = Vec::new();
    let through = back.open_train(&mut train, segment, |place, outcome| seen.push((place, outcome.map(|o| o.newest))));
    assert_eq!(through, 4 * segment);
    let expected = [Ok(true), Ok(true), Ok(true), Err(Refusal::Replayed)];
    let places = (0..4).map(|i| i * segment..(i + 1) * segment);
    assert_eq!(seen, places.zip(expected).collect::<Vec<_>>());
}

#[test]
fn each_fault_has_its_refusal() {
    let initial = ours(SUITES[0]);
    let out = OutboundSa::new(&initial, tenure(0, 0), &Start::New { edge: 1000 }).unwrap();
    let mut back = InboundSa::new(&theirs(&initial), &Start::New { edge: 1000 }).unwrap();
    let good = seal(&out, &inner(TO_PEER.0, TO_PEER.1, 64)).unwrap();
    for len in 0..good.len() {
        let refusal = back.open(&mut good[..len].to_vec()).unwrap_err();
        assert!(matches!(refusal, Refusal::Length | Refusal::Integrity), "cut at {len}: {refusal:?}");
    }
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(back.open(&mut forged), Err(Refusal::Integrity));
    assert!(back.open(&mut good.clone()).is_ok(), "a forgery does not use up its number");
    assert_eq!(back.open(&mut good.clone()), Err(Refusal::Replayed));

    let spoofed = inner([10, 7, 0, 1], TO_PEER.1, 10);
    assert_eq!(back.open(&mut seal(&out, &spoofed).unwrap()), Err(Refusal::Selector));
    let mut version_6 = inner(TO_PEER.0, TO_PEER.1, 10);
    version_6[0] = 0x65;
    assert_eq!(back.open(&mut seal(&out, &version_6).unwrap()), Err(Refusal::Inner));

    let sequence = out.reserve(1).unwrap().take().unwrap();
    let (mut buffer, mut datagram) = ([0; 100 + TRAILER_MAX], [0; 200]);
    let len = out.seal_dummy(sequence, &mut buffer, 100, &mut datagram, &mut CbcIvSource::new([0; 32])).unwrap();
    assert_eq!(back.open(&mut datagram[..len]), Err(Refusal::Dummy));
}

#[test]
fn padding_is_checked() {
    // The trailer is made by hand, with the cipher alone.
    let initial = ours(SUITES[0]);
    let (encryption, integrity) = initial.suite().unwrap();
    let key = crypto::PacketKey::new(encryption, integrity, &initial.key_out, &initial.integrity_key_out).unwrap();
    let mut sequence = 0_u32;
    let mut sealed = |trailer: &[u8]| {
        sequence += 1;
        let header: [u8; 8] = [initial.spi_out.0.to_be_bytes(), sequence.to_be_bytes()].concat().try_into().unwrap();
        let plaintext = [&inner(TO_PEER.0, TO_PEER.1, 8)[..], trailer].concat();
        let (mut ciphertext, mut icv) = (vec![0; plaintext.len()], [0; 16]);
        key.seal(header, &[0; 8], &plaintext, &mut ciphertext, &mut icv).unwrap();
        [&header[..], &[0; 8], &ciphertext, &icv].concat()
    };
    let mut back = InboundSa::new(&theirs(&initial), &Start::New { edge: 1000 }).unwrap();
    for (trailer, expected) in [
        (&[1, 2, 2, 4][..], None),
        (&[1, 1, 2, 4], Some(Refusal::Padding)),
        (&[0, 0, 2, 4], Some(Refusal::Padding)),
        (&[1, 2, 200, 4], Some(Refusal::Padding)),
        (&[1, 2, 2, 41], Some(Refusal::NextHeader)),
        (&[1, 2, 2, 59], Some(Refusal::Dummy)),
        // RFC 4303 §2.7: TFC padding stands between the inner packet and the ESP padding.
        (&[0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 4], None),
    ] {
        let mut datagram = sealed(trailer);
        let opened = back.open(&mut datagram);
        assert_eq!(opened.as_ref().err(), expected.as_ref(), "{trailer:?}");
        if let Ok(opened) = opened {
            assert_eq!(opened.inner.len(), 28, "{trailer:?}");
        }
    }
}

#[test]
fn a_planned_move_loses_and_repeats_nothing() {
    let initial = ours(SUITES[0]);
    let sender = OutboundSa::new(&theirs(&initial), tenure(0, 9), &Start::New { edge: 100_000 }).unwrap();
    let mut first = InboundSa::new(&initial, &Start::New { edge: 100 }).unwrap();
    let out = OutboundSa::new(&initial, tenure(0, 0), &Start::New { edge: 100 }).unwrap();
    let packet = inner(TO_PEER.1, TO_PEER.0, 10);
    let mut datagrams: Vec<_> = (0..20).map(|_| seal(&sender, &packet).unwrap()).collect();
    let late = datagrams.split_off(18);
    for (i, datagram) in datagrams.iter_mut().enumerate().filter(|(i, _)| i % 3 != 0) {
        assert!(first.open(&mut datagram.clone()).is_ok(), "{i}");
    }
    out.reserve(41).unwrap();
    let state = HandOver {
        spi_in: initial.spi_in,
        next: out.position().0,
        edge: out.position().1,
        window: first.window().to_bytes(),
        sending: true,
        packets_in: 0,
        bytes_in: 0,
        packets_out: 0,
        bytes_out: 0,
        unknown: UnknownFields::default(),
    };
    let state = HandOver::from_bytes(&state.to_bytes()).unwrap();
    let start = Start::HandOver(state);
    let mut second = InboundSa::new(&initial, &start).unwrap();
    for (i, datagram) in datagrams.iter().chain(&late).enumerate() {
        let expected = if i % 3 == 0 || i >= 18 { None } else { Some(Refusal::Replayed) };
        assert_eq!(second.open(&mut datagram.clone()).err(), expected, "{i}");
    }
    let mut range = OutboundSa::new(&initial, tenure(1, 1), &start).unwrap().reserve(100).unwrap();
    assert_eq!(range.left(), 58);
    assert!(range.take().is_some());
}

#[test]
fn an_sa_without_ivs_left_is_not_taken_over() {
    let start = Start::TakeOver { edge: 100, inbound_edge: 3 };
    assert!(OutboundSa::new(&ours(SUITES[0]), tenure(0xffff, 0), &start).is_ok());
    let ended = OutboundSa::new(&ours(SUITES[0]), tenure(0x1_0000, 0), &start);
    assert_eq!(ended.err(), Some(esp::ImportError::IvSpace));
}

proptest! {
    /// Owners come and go without a hand-over; some of their leases were stored, some were not, and the dead go on sending.
    #[test]
    fn no_sequence_number_or_iv_leaves_twice_over_take_overs(
        owners in proptest::collection::vec((0_u8..16, 0_u64..40, 1_u64..60), 1..12),
    ) {
        let initial = ours(SUITES[0]);
        let packet = inner(TO_PEER.0, TO_PEER.1, 4);
        let (mut sequences, mut ivs) = (HashSet::new(), HashSet::new());
        let mut committed = 1;
        let mut alive: Vec<OutboundSa> = Vec::new();
        for (count, (slot, sends, lease)) in (0..).zip(owners) {
            let start = Start::TakeOver { edge: committed, inbound_edge: 0 };
            let sa = OutboundSa::new(&initial, tenure(count, slot), &start).unwrap();
            committed += lease;
            sa.extend_lease(committed);
            alive.push(sa);
            for sa in &alive {
                for _ in 0..sends {
                    match seal(sa, &packet) {
                        Some(datagram) => {
                            prop_assert!(sequences.insert(datagram[4..8].to_vec()));
                            prop_assert!(ivs.insert(datagram[8..16].to_vec()));
                        }
                        None => prop_assert_eq!(sa.reserve(1).err(), Some(Wait::Lease { ask: false })),
                    }
                }
            }
        }
    }

    #[test]
    fn random_bytes_are_refused_and_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut sa = InboundSa::new(&ours(SUITES[3]), &Start::New { edge: 9 }).unwrap();
        let mut bytes = bytes;
        if let Some(head) = bytes.first_chunk_mut::<4>() {
            *head = 0x1001_u32.to_be_bytes();
        }
        prop_assert!(sa.open(&mut bytes).is_err());
        prop_assert_eq!(sa.edge(), 0);
    }
}
