use super::*;
use crypto::{Group, Prf};

const GCM: IkeProposal = IkeProposal {
    encryption: Encryption::AesGcm16(128),
    integrity: None,
    prf: Prf::HmacSha2_256,
    group: Group::Curve25519,
};
const CBC: IkeProposal = IkeProposal {
    encryption: Encryption::AesCbc(256),
    integrity: Some(Integrity::HmacSha2_384_192),
    prf: Prf::HmacSha2_384,
    group: Group::Modp2048,
};
const ESP_GCM: EspProposal = EspProposal { encryption: Encryption::AesGcm16(256), integrity: None, group: None };
const ESP_CBC: EspProposal = EspProposal {
    encryption: Encryption::AesCbc(128),
    integrity: Some(Integrity::HmacSha2_256_128),
    group: Some(Group::Ecp256),
};

fn bytes(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.into_bytes()
}

fn ike(suites: &[IkeProposal]) -> Vec<u8> {
    bytes(|w| encode_ike(w, suites, Some(0x0102_0304_0506_0708)))
}

#[test]
fn real_octets_decode() {
    // One proposal for ESP: AES-GCM-16-128, no ESN, SPI c9f1a2b3, as strongSwan 5.9.8 writes it.
    let real = [
        0, 0, 0, 0x20, 1, 3, 4, 2, 0xc9, 0xf1, 0xa2, 0xb3, 3, 0, 0, 12, 1, 0, 0, 20, 0x80, 0x0e, 0, 0x80, 0, 0, 0, 8,
        5, 0, 0, 0,
    ];
    let offered = decode(Reader::new(&real)).unwrap();
    let ours = EspProposal { encryption: Encryption::AesGcm16(128), ..ESP_GCM };
    let (proposal, suite) = choose_esp(&offered, &[ESP_CBC, ours], WithGroup::No).unwrap();
    assert_eq!((proposal.number, proposal.child_spi(), suite), (1, Some(Spi(0xc9f1_a2b3)), ours));
    assert_eq!(bytes(|w| encode_esp_choice(w, &ours, Spi(0xc9f1_a2b3), 1)), real);
}

#[test]
fn what_we_offer_we_choose_in_our_own_order() {
    let offered = ike(&[GCM, CBC]);
    let offered = decode(Reader::new(&offered)).unwrap();
    assert_eq!(choose_ike(&offered, &[CBC, GCM]).map(|(p, s)| (p.number, s)), Some((2, CBC)));
    assert_eq!(offered[0].ike_spi(), Some(0x0102_0304_0506_0708));
    for own in [ESP_GCM, ESP_CBC] {
        let offered = bytes(|w| encode_esp(w, &[ESP_GCM, ESP_CBC], Spi(0x100), WithGroup::Yes));
        let offered = decode(Reader::new(&offered)).unwrap();
        assert_eq!(choose_esp(&offered, &[own], WithGroup::Yes).map(|(_, s)| s), Some(own));
    }
}

#[test]
fn a_key_exchange_counts_at_a_rekey_only() {
    let offered = bytes(|w| encode_esp(w, &[ESP_CBC], Spi(0x100), WithGroup::No));
    let offered = decode(Reader::new(&offered)).unwrap();
    assert_eq!(choose_esp(&offered, &[ESP_CBC], WithGroup::Yes), None);
    let (_, suite) = choose_esp(&offered, &[ESP_CBC], WithGroup::No).unwrap();
    assert_eq!(suite, EspProposal { group: None, ..ESP_CBC });
}

#[test]
fn an_unknown_transform_type_or_attribute_is_never_chosen() {
    let mut offered = ike(&[GCM]);
    let at = offered.windows(4).position(|w| w == [0x80, 0x0e, 0, 0x80]).unwrap();
    offered[at + 1] = 0x0f;
    assert_eq!(choose_ike(&decode(Reader::new(&offered)).unwrap(), &[GCM]), None);

    let mut offered = ike(&[GCM]);
    let last = offered.len() - 4;
    offered[last] = 6; // ADDKE1 instead of the group
    assert_eq!(choose_ike(&decode(Reader::new(&offered)).unwrap(), &[GCM]), None);
}

#[test]
fn cut_anywhere_is_an_error_never_a_panic() {
    let whole = ike(&[GCM, CBC]);
    for len in 0..whole.len() {
        assert!(decode(Reader::new(&whole[..len])).is_err(), "cut at {len}");
    }
}

#[test]
fn each_length_and_marker_out_of_range_is_refused() {
    let whole = ike(&[GCM]);
    // Last Substruc, Proposal Length, SPI Size, Num Transforms, the first transform's Last Substruc and length.
    for (octet, value) in [(0, 1), (3, 3), (3, 255), (6, 200), (7, 2), (7, 9), (16, 1), (19, 3), (19, 200)] {
        let mut bytes = whole.clone();
        bytes[octet] = value;
        assert!(decode(Reader::new(&bytes)).is_err(), "octet {octet} = {value}");
    }
}

#[test]
fn no_more_proposals_than_the_bound_are_read() {
    let many = |count| bytes(|w| encode_ike(w, &vec![GCM; count], None));
    assert!(decode(Reader::new(&many(PROPOSALS_MAX))).is_ok());
    assert!(decode(Reader::new(&many(PROPOSALS_MAX + 1))).is_err());
}

#[test]
fn reserved_spis_are_no_child() {
    let offered = bytes(|w| encode_esp(w, &[ESP_GCM], Spi(0xff), WithGroup::No));
    assert_eq!(decode(Reader::new(&offered)).unwrap()[0].child_spi(), None);
}
