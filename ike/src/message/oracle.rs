//! What we encode, read by a parser that others wrote (ipsec-parser).

use crypto::{Encryption, Group, Integrity, Prf};
use ipsec_parser::{IkePayloadType, IkeV2Payload, IkeV2PayloadContent, parse_ikev2_header, parse_ikev2_payload_list};
use wire::{Spi, TrafficSelector, Writer};

use super::auth::{Auth, encode_certificate, encode_certificate_request, encode_identity};
use super::delete::Delete;
use super::header::{ExchangeType, Header};
use super::notify::{Notify, NotifyType};
use super::payload::{KeyExchange, PayloadType, PayloadWriter};
use super::{proposal, selectors};
use crate::config::{EspProposal, IkeProposal};

fn read(w: &PayloadWriter) -> Vec<IkeV2Payload<'_>> {
    let (rest, payloads) = parse_ikev2_payload_list(w.as_slice(), IkePayloadType(w.first())).unwrap();
    assert!(rest.is_empty());
    let mut payloads = payloads.unwrap();
    payloads.remove(0); // Its first is a dummy.
    payloads
}

#[test]
fn the_oracle_reads_our_header() {
    let header = Header {
        spi_i: 0x0102_0304_0506_0708,
        spi_r: 0x1112_1314_1516_1718,
        next_payload: 33,
        version: Header::VERSION_2,
        exchange: ExchangeType::CreateChildSa,
        flags: Header::INITIATOR | Header::RESPONSE,
        message_id: 7,
        length: 28,
    };
    let mut w = Writer::new();
    header.encode(&mut w);
    let (_, theirs) = parse_ikev2_header(w.as_slice()).unwrap();
    assert_eq!((theirs.init_spi, theirs.resp_spi), (header.spi_i, header.spi_r));
    assert_eq!((theirs.next_payload.0, theirs.maj_ver, theirs.min_ver), (33, 2, 0));
    assert_eq!((theirs.exch_type.0, theirs.flags, theirs.msg_id, theirs.length), (36, 0x28, 7, 28));
}

#[test]
fn the_oracle_reads_our_proposals() {
    let gcm = IkeProposal {
        encryption: Encryption::AesGcm16(256),
        integrity: None,
        prf: Prf::HmacSha2_384,
        group: Group::Ecp256,
    };
    let cbc = IkeProposal {
        encryption: Encryption::AesCbc(128),
        integrity: Some(Integrity::HmacSha2_256_128),
        prf: Prf::HmacSha2_256,
        group: Group::Curve25519,
    };
    let esp = EspProposal { encryption: Encryption::AesGcm16(128), integrity: None, group: Some(Group::Modp2048) };
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::SecurityAssociation, |w| proposal::encode_ike(w, &[gcm, cbc], Some(9)));
    w.payload(PayloadType::SecurityAssociation, |w| {
        proposal::encode_esp(w, &[esp], Spi(0x1234), proposal::WithGroup::Yes);
    });
    let mut seen = Vec::new();
    for payload in read(&w) {
        let IkeV2PayloadContent::SA(proposals) = payload.content else { panic!("no SA payload") };
        for p in proposals {
            let transforms: Vec<(u8, u16)> =
                p.transforms.iter().map(|t| (t.transform_type.0, t.transform_id)).collect();
            seen.push((p.proposal_num, p.protocol_id.0, p.spi.map(<[u8]>::to_vec), transforms));
        }
    }
    assert_eq!(
        seen,
        [
            (1, 1, Some(vec![0, 0, 0, 0, 0, 0, 0, 9]), vec![(1, 20), (2, 6), (4, 19)]),
            (2, 1, Some(vec![0, 0, 0, 0, 0, 0, 0, 9]), vec![(1, 12), (2, 5), (3, 12), (4, 31)]),
            (1, 3, Some(vec![0, 0, 0x12, 0x34]), vec![(1, 20), (4, 14), (5, 0)]),
        ]
    );
}

#[test]
fn the_oracle_reads_every_other_payload_as_we_meant_it() {
    let network = TrafficSelector::from_prefix("10.9.0.0/16".parse().unwrap());
    let identity = "carol@example.org".parse().unwrap();
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::KeyExchange, |w| KeyExchange { group: 31, data: &[5; 32] }.encode(w));
    w.payload(PayloadType::Nonce, |w| w.bytes(&[6; 32]));
    w.payload(PayloadType::IdInitiator, |w| encode_identity(w, &identity));
    w.payload(PayloadType::IdResponder, |w| encode_identity(w, &identity));
    w.payload(PayloadType::Certificate, |w| encode_certificate(w, &[0x30, 0]));
    w.payload(PayloadType::CertificateRequest, |w| encode_certificate_request(w, &[7; 20]));
    w.payload(PayloadType::Authentication, |w| Auth::SharedKey(&[8; 32]).encode(w));
    w.payload(PayloadType::Notify, |w| {
        Notify { spi: Some(Spi(0x99)), kind: NotifyType::REKEY_SA, data: &[] }.encode(w)
    });
    w.payload(PayloadType::Notify, |w| Notify::new(NotifyType::COOKIE, b"cookie").encode(w));
    w.payload(PayloadType::Delete, |w| Delete::Children(vec![Spi(1), Spi(2)]).encode(w));
    w.payload(PayloadType::TsInitiator, |w| selectors::encode(w, &[network]));
    w.payload(PayloadType::TsResponder, |w| selectors::encode(w, &[network]));
    let mut count = 0;
    for payload in read(&w) {
        count += 1;
        match payload.content {
            IkeV2PayloadContent::KE(ke) => assert_eq!((ke.dh_group.0, ke.kex_data), (31, &[5; 32][..])),
            IkeV2PayloadContent::Nonce(n) => assert_eq!(n.nonce_data, [6; 32]),
            IkeV2PayloadContent::IDi(id) | IkeV2PayloadContent::IDr(id) => {
                assert_eq!((id.id_type.0, id.ident_data), (3, &b"carol@example.org"[..]));
            }
            IkeV2PayloadContent::Certificate(c) => assert_eq!((c.cert_encoding.0, c.cert_data), (4, &[0x30, 0][..])),
            IkeV2PayloadContent::CertificateRequest(c) => assert_eq!((c.cert_encoding.0, c.ca_data), (4, &[7; 20][..])),
            IkeV2PayloadContent::Authentication(a) => {
                // The oracle takes RESERVED (RFC 7296 §3.8) for data and loses as many octets at the end.
                assert_eq!((a.auth_method.0, &a.auth_data[..3], &a.auth_data[3..]), (2, &[0; 3][..], &[8; 29][..]));
            }
            IkeV2PayloadContent::Notify(n) => match n.notify_type.0 {
                16393 => assert_eq!((n.protocol_id.0, n.spi), (3, Some(&[0, 0, 0, 0x99][..]))),
                // The oracle takes the generic header off twice.
                16390 => assert_eq!((n.spi, n.notify_data), (None, Some(&b"co"[..]))),
                other => panic!("notify {other}"),
            },
            IkeV2PayloadContent::Delete(d) => {
                // Here too.
                assert_eq!((d.protocol_id.0, d.spi_size, d.num_spi, d.spi), (3, 4, 2, &[0, 0, 0, 1][..]));
            }
            IkeV2PayloadContent::TSi(ts) | IkeV2PayloadContent::TSr(ts) => {
                assert_eq!((ts.num_ts, ts.ts.len()), (1, 1));
                assert_eq!(ts.ts[0].start_addr, [10, 9, 0, 0]);
                assert_eq!(ts.ts[0].end_addr, [10, 9, 255, 255]);
                assert_eq!((ts.ts[0].start_port, ts.ts[0].end_port), (0, u16::MAX));
            }
            IkeV2PayloadContent::SA(_)
            | IkeV2PayloadContent::VendorID(_)
            | IkeV2PayloadContent::Encrypted(_)
            | IkeV2PayloadContent::Unknown(_)
            | IkeV2PayloadContent::Dummy => panic!("unexpected payload"),
        }
    }
    assert_eq!(count, 12);
}
