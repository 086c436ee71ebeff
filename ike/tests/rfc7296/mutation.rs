//! Mutated datagrams by the hundred thousand: no panic, no session ended, nothing grows.

use std::time::Duration;

use ike::{Event, Output, Path};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::pair::{INITIATOR, Pair, RESPONDER, config, initiator_connection, responder_connection};

const DATAGRAMS: usize = 250_000;
const HALF_OPEN_MAX: usize = 50;

/// `IKE_MUTATION_SEED` repeats a run.
fn seed() -> u64 {
    std::env::var("IKE_MUTATION_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x1ce)
}

fn mutate(rng: &mut StdRng, datagram: &mut Vec<u8>) {
    let pick =
        |rng: &mut StdRng, len: usize| usize::try_from(rng.next_u64() % u64::try_from(len.max(1)).unwrap()).unwrap();
    for _ in 0..=pick(rng, 3) {
        let at = pick(rng, datagram.len());
        let octet = rng.next_u32().to_be_bytes()[0];
        match pick(rng, 7) {
            0 => datagram.truncate(at),
            1 => datagram.insert(at, octet),
            2 => datagram.extend((0..pick(rng, 40)).map(|_| octet)),
            3 if !datagram.is_empty() => {
                let end = at + pick(rng, datagram.len() - at);
                datagram.drain(at..end);
            }
            4 => datagram.iter_mut().skip(at).take(2).for_each(|o| *o = 0xff),
            5 => datagram.iter_mut().skip(at).take(1).for_each(|o| *o = octet),
            _ => datagram.iter_mut().skip(at).take(1).for_each(|o| *o ^= 1 << (octet % 8)),
        }
    }
    // Half of them with a length that fits, or few would come past the header.
    if rng.next_u32() & 1 == 0 && datagram.len() >= 28 {
        let len = u32::try_from(datagram.len()).unwrap();
        datagram[24..28].copy_from_slice(&len.to_be_bytes());
    }
}

#[test]
fn mutated_datagrams_end_no_session_and_make_nothing_grow() {
    let mut responder = config(responder_connection());
    responder.half_open_max = HALF_OPEN_MAX;
    let mut pair = Pair::with(config(initiator_connection()), responder);
    let session = pair.initiate();
    pair.run(Duration::from_secs(1));
    pair.nodes[INITIATOR].endpoint.rekey_child(pair.now, session).unwrap();
    pair.drive(INITIATOR);
    pair.run(Duration::from_secs(1));
    let mut rng = StdRng::seed_from_u64(seed());
    let corpus = pair.wire.clone();
    let paths = [
        Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "198.51.100.1:4500".parse().unwrap() },
        Path { local: "198.51.100.1:4500".parse().unwrap(), remote: "192.0.2.1:4500".parse().unwrap() },
    ];
    for n in 0..DATAGRAMS {
        let (from, datagram) = &corpus[n % corpus.len()];
        let mut mutated = datagram.clone();
        mutate(&mut rng, &mut mutated);
        if mutated == *datagram {
            continue;
        }
        let to = 1 - *from;
        let endpoint = &mut pair.nodes[to].endpoint;
        endpoint.handle_datagram(pair.now, paths[to], pair.home, &mutated);
        while let Some(output) = endpoint.poll_output() {
            match output {
                Output::Event(Event::Closed { .. }) | Output::RemoveChild { .. } => {
                    panic!("seed {}, datagram {n}: {output:?}", seed());
                }
                Output::Transmit { .. }
                | Output::Store { .. }
                | Output::InstallChild(_)
                | Output::MovePath { .. }
                | Output::RequestAddress { .. }
                | Output::ReleaseAddress { .. }
                | Output::Sign { .. }
                | Output::Event(_) => {}
            }
        }
    }
    assert!(pair.nodes[RESPONDER].endpoint.sessions(pair.now).count() <= HALF_OPEN_MAX + 1);
    assert_eq!(pair.nodes[INITIATOR].endpoint.sessions(pair.now).count(), 1);
    pair.nodes[INITIATOR].endpoint.probe(pair.now, session).unwrap();
    pair.drive(INITIATOR);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.nodes[RESPONDER].endpoint.sessions(pair.now).count(), 1, "half-open ones are gone");
    pair.assert_children_fit(1);
}
