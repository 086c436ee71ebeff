//! The worked example of the format, exactly.

use enroll::{
    Algorithm, ClientName, ClusterName, Code, CompleteReply, FullReply, GatewayName, Message, Pending, Profile,
    PublicKey, Read, Reader, Rejection, RejectionReason, Reply, Request, RequestedKey, Role, Serial, ShortReply,
    ShortTerms, Terms, TicketKeys, Validity, Words, pem_block, pem_blocks,
};
use sha2::{Digest, Sha256};

const CODE: &str = "BHP5N-40BAQ-PAAQS-PP7FT-4Y575";

const REQUEST: &str = "\
01: 42BHP 5N58N PH1H3 R6A6H ZD28V N67PW
02: BZ2C4 73Z9Q 1W8TT DE8X1 BCADF 1YZ6H
03: H6WRF Z4VA7 8WJSV BEQBD 3J1TG 19VCE
";

const COMPLETE: &str = "\
01: 4JBHP 5NW0A 5X7MK V0F1C N2055 RPQG2
02: 34K1N 2EH78 9XNY6 QBFMT 0H81V TJV9C
03: ENMT7 72B02 H5HVV YFENG GM9A3 8MXJC
04: 3HJDR 0GPV5 GRQA3 J00Q6 6VXMV 596H2
05: 7RBDJ 188SH GVBM0 5MX91 GT9AP 26DKD
06: 5ABT3 XJVZD G3P1N 1B0ZT JBTXC 7BT4N
07: 58J6B QY3PE GNVC3 NWTJE ZVFZV 88JX3
08: XMK80 WBY5B CESSG SQ4D6 Q9N5Y 8PC5T
09: T7S88 6V6GR T1ZWB SVY72 ZE9QP DNEPA
10: YC7QE J0B4B HCMH3 GHW19 3B100 9JKKR
";

const SHORT: &str = "\
01: 5YBHP 5NVE1 NN8WG 3P0AN 3MG3J A4CFX
02: ZFPHV JCEHT JXCX0 2VGRH R18JR B3HN4
03: XXZ7Q AR8AA W3W5P S0M4C RRDNT ANMJA
04: 02TEM K701X X2NN5 84GYH 3R000 D9SCG
";

const FULL: &str = "01: 6EBHP 5N51W WM0AS 7XDPD 10FA0 FGP9T\n";
const REJECTION: &str = "01: 5EBHP 5N3JC V9DQX 04KWC A7TY0 CNEYJ\n";

const SERIAL: u64 = 0x00a2_58ef_7e7b_ab08;

fn keys() -> TicketKeys {
    TicketKeys::derive(&Code::parse(CODE).unwrap())
}

fn request() -> (Request, PublicKey) {
    let mut reader = Reader::default();
    reader.add(REQUEST);
    let Read { message, repairs } = reader.resolve(|symbols| Request::decode(&keys().request, symbols)).unwrap();
    assert_eq!(repairs, []);
    match message.key.unwrap() {
        RequestedKey::Whole(key) => (message, key),
        RequestedKey::Hashed(_) => panic!("the example has a whole key"),
    }
}

fn pending() -> Pending {
    let (request, key) = request();
    Pending { reply: keys().reply, reject: keys().reject, hash: request.hash, key: RequestedKey::Whole(key) }
}

fn read(text: &str) -> Reply {
    let mut reader = Reader::default();
    reader.add(text);
    let blocks = pem_blocks(text);
    reader.resolve(|symbols| pending().open(symbols, &blocks)).unwrap().message
}

fn complete() -> CompleteReply {
    match read(COMPLETE) {
        Reply::Complete(reply) => reply,
        other @ (Reply::Short(_) | Reply::Full(_) | Reply::Rejection(_)) => panic!("{other:?}"),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn text(message: &Message) -> String {
    message.to_string()
}

#[test]
fn the_request_reads_and_is_written_again_exactly() {
    let (request, key) = request();
    assert_eq!((key.algorithm(), hex(&key.octets()[..8]).as_str()), (Algorithm::P256, "2a2b688623c19468"));
    assert_eq!(hex(&request.hash.octets()[..8]), "44a32f1c3a203aa0");
    let (message, hash) = Request::compose(&keys().request, &RequestedKey::Whole(key));
    assert_eq!((text(&message).as_str(), hash), (REQUEST, request.hash));
}

#[test]
fn the_complete_reply_rebuilds_the_certificate_and_is_written_again_exactly() {
    let reply = complete();
    let terms = Terms {
        serial: Serial::new(SERIAL).unwrap(),
        validity: Validity::new(20_778, 398).unwrap(),
        cluster: ClusterName::new("hq-vpn").unwrap(),
        client: ClientName::new("alice-laptop").unwrap(),
        gateway: GatewayName::new("vpn.example.org").unwrap(),
        profile: Profile::new(1).unwrap(),
    };
    assert_eq!(reply.terms, terms);
    let der = reply.certificate(Role::Client, request().1).unwrap();
    assert_eq!((der.len(), hex(&Sha256::digest(&der)[..8]).as_str()), (420, "8b06ec80f6bbcf7c"));
    assert_eq!(text(&reply.compose(&keys().reply, &pending().hash)), COMPLETE);
}

#[test]
fn the_short_reply_reads_and_is_written_again_exactly() {
    let terms = short_terms();
    match read(SHORT) {
        Reply::Short(reply) => assert_eq!(reply.terms, terms),
        other @ (Reply::Complete(_) | Reply::Full(_) | Reply::Rejection(_)) => panic!("{other:?}"),
    }
    assert_eq!(text(&ShortReply { terms }.compose(&keys().reply, &pending().hash)), SHORT);
}

fn short_terms() -> ShortTerms {
    ShortTerms {
        ca_hash: ShortTerms::ca_hash(&complete().issuer_key.spki_hash()),
        serial: Serial::new(SERIAL).unwrap(),
        expiry_day: 20_778 + 398,
        gateway: GatewayName::new("vpn.example.org").unwrap(),
    }
}

#[test]
fn the_full_reply_reads_with_its_blocks_and_is_written_again_exactly() {
    let der = complete().certificate(Role::Client, request().1).unwrap();
    let full = FullReply { blocks: vec![der.clone(), b"routes=10.0.0.0/8\n".to_vec()] };
    assert_eq!(text(&full.compose(&keys().reply, &pending().hash).unwrap()), FULL);
    let mail = format!("{FULL}\n{}{}", pem_block("CERTIFICATE", &der), pem_block("PROFILE", b"routes=10.0.0.0/8\n"));
    assert_eq!(read(&mail), Reply::Full(full));
}

#[test]
fn the_rejection_reads_and_is_written_again_exactly() {
    let rejection = Rejection { reason: RejectionReason::Expired };
    assert_eq!(read(REJECTION), Reply::Rejection(rejection));
    assert_eq!(text(&rejection.compose(&keys().reject, &pending().hash)), REJECTION);
}

#[test]
fn the_words_are_those_of_the_example() {
    let request_words = Words::of_request(Role::Client, &pending().hash);
    assert_eq!(request_words.numbers(), &[712, 1234, 971, 1181, 980, 1690]);
    let final_words = Words::of_issue(Role::Client, &pending().hash, &short_terms());
    assert_eq!(final_words.numbers(), &[305, 463, 1782, 440, 723, 927]);
}
