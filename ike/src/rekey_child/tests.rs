//! A peer that asks for ever more SAs and deletes none.

use crypto::{Encryption, Prf};
use wire::{Reader, TrafficSelector, WorkSet};

use super::*;
use crate::config::{
    Config, IkeProposal, Lifetimes, LocalAuth, RemoteAuth, RemoteIdentity, RemoteSelectors, UniqueIds,
};
use crate::init::new_state;
use crate::keys::{Freshness, Keys};
use crate::rekey_ike;

const IKE: IkeProposal = IkeProposal {
    encryption: Encryption::AesGcm16(128),
    integrity: None,
    prf: Prf::HmacSha2_256,
    group: Group::Curve25519,
};
const ESP: EspProposal = EspProposal { encryption: Encryption::AesGcm16(128), integrity: None, group: None };

fn everything() -> Vec<TrafficSelector> {
    vec![TrafficSelector::from_prefix("0.0.0.0/0".parse().unwrap())]
}

fn connection() -> Connection {
    let (day, secret) = (Duration::from_secs(86_400), Secret::from_slice(b"secret"));
    Connection {
        name: "road".into(),
        local_identity: "gw.example.org".parse().unwrap(),
        remote_identity: RemoteIdentity::Any,
        local_auth: LocalAuth::Psk(secret.clone()),
        remote_auth: RemoteAuth::Psk(secret),
        ike_proposals: vec![IKE],
        esp_proposals: vec![ESP],
        local_selectors: everything(),
        remote_selectors: RemoteSelectors::Networks(everything()),
        request_address: false,
        dns: vec![],
        lifetimes: Lifetimes { ike_rekey: day, ike_max: day, child_rekey: day, child_max: day, jitter: Duration::ZERO },
        liveness_interval: Duration::ZERO,
        unique_ids: UniqueIds::Shared,
    }
}

/// An SA that is up, with one child, whose packets to the peer carry that SPI.
fn established(core: &mut Core, spi_out: Spi) -> Sa {
    let home = WorkSet::new(7).unwrap();
    core.tenures.insert(home, wire::Tenure::default());
    let path = Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "192.0.2.2:4500".parse().unwrap() };
    let spi_r = core.draw_ike_spi(home);
    let mut state = new_state(Role::Responder, 5, spi_r, path, 0);
    let fresh = Freshness { nonce_i: &[1; 32], nonce_r: &[2; 32], spi_i: 5, spi_r };
    state.keys = Some(Keys::first(&IKE, fresh, &Secret::from_slice(&[3; 32])));
    (state.suite, state.connection) = (Some(IKE), "road".into());
    let mut sa = Sa::new(state, Time::ZERO);
    let spi_in = core.draw_child_spi(home);
    let nonces = (&[1_u8; 32][..], &[2_u8; 32][..]);
    let made = Made { suite: ESP, spi_out, local: everything(), remote: everything(), nonces, shared: None };
    child::install(core, Time::ZERO, &mut sa, &connection(), Role::Responder, spi_in, made, None);
    sa
}

fn core() -> Core {
    Core::new(Arc::new(Config { connections: vec![connection()], ..Config::default() }), [1; 32])
}

#[test]
fn children_that_a_peer_replaces_and_never_deletes_are_bounded() {
    let mut core = core();
    let mut newest = Spi(0x1000);
    let mut sa = established(&mut core, newest);
    let mut refused = 0;
    for number in 1..=100 {
        let next = Spi(newest.0 + number);
        let mut w = PayloadWriter::new();
        w.payload(PayloadType::SecurityAssociation, |w| proposal::encode_esp(w, &[ESP], next, WithGroup::Yes));
        w.payload(PayloadType::Nonce, |w| w.bytes(&[7; 32]));
        w.payload(PayloadType::TsInitiator, |w| selectors::encode(w, &everything()));
        w.payload(PayloadType::TsResponder, |w| selectors::encode(w, &everything()));
        let payloads = Payloads::decode(w.first(), &mut Reader::new(w.as_slice())).unwrap();
        match on_request(&mut core, Time::ZERO, &mut sa, &payloads, newest) {
            Ok(_) => newest = next,
            Err(RekeyRefusal(refusal, _)) => {
                assert_eq!(refusal, Refusal::TemporaryFailure);
                refused += 1;
            }
        }
    }
    assert_eq!((sa.state.children.len(), refused), (CHILDREN_MAX, 101 - CHILDREN_MAX));
}

#[test]
fn a_peer_that_keeps_the_replaced_ike_sa_gets_no_third() {
    let mut core = core();
    let mut sa = established(&mut core, Spi(0x1000));
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::SecurityAssociation, |w| proposal::encode_ike(w, &[IKE], Some(9)));
    w.payload(PayloadType::Nonce, |w| w.bytes(&[7; 32]));
    let public = DhPrivate::new(IKE.group, &[4; 32]).public();
    w.payload(PayloadType::KeyExchange, |w| KeyExchange { group: IKE.group.iana(), data: &public }.encode(w));
    let payloads = Payloads::decode(w.first(), &mut Reader::new(w.as_slice())).unwrap();
    assert!(rekey_ike::on_request(&mut core, Time::ZERO, &mut sa, &payloads).is_ok());
    let mut second = core.spawned.pop().unwrap();
    let refused = rekey_ike::on_request(&mut core, Time::ZERO, &mut second, &payloads);
    assert_eq!(refused.err().map(|RekeyRefusal(refusal, _)| refusal), Some(Refusal::TemporaryFailure));
    // Once the first is deleted, the endpoint says so.
    second.state.predecessor = None;
    assert!(rekey_ike::on_request(&mut core, Time::ZERO, &mut second, &payloads).is_ok());
}
