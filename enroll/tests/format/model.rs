//! The independent model of the format agrees, byte for byte, in both directions.
//!
//! `tests/enroll_model.py` is asked through `tests/enroll_oracle.py`. It needs Python 3 with the package
//! `cryptography`, 45 or newer; if that is missing it is put into `target/enroll-python`.

use enroll::{
    Algorithm, Code, CompleteReply, FullReply, GatewayName, Parity, Pending, PrivateKey, Profile, PublicKey, Reader,
    Rejection, RejectionReason, Reply, Request, RequestedKey, Role, Serial, ShortReply, ShortTerms, Terms, TicketKeys,
    TicketNumber, Validity, Words, peek,
};
use enroll::{ClientName, ClusterName};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::damage;
use crate::oracle::{Oracle, hex, unhex};

/// Cases of each direction.
const CASES: usize = 1000;
/// Fewer for the words, which cost both sides twice 65536 hashes.
const WORD_CASES: usize = 100;

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Node => "node",
    }
}

struct Case {
    code: Code,
    role: Role,
    keys: TicketKeys,
    private: PrivateKey,
    terms: Terms,
    ca_algorithm: Algorithm,
}

fn pick<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

fn case(rng: &mut StdRng) -> Case {
    let role = pick(rng, &[Role::Client, Role::Node]);
    let ticket = TicketNumber::draw(rng);
    let code = Code::draw(role, ticket, rng);
    let algorithm = pick(rng, &[Algorithm::Ed25519, Algorithm::P256]);
    let start = rng.random_range(0..=61_000);
    let names = ["alice-laptop", "bob@example.org", "a", "x_1.y-z", "1234567890123456789012345678901"];
    let clusters = ["hq-vpn", "c", "1234567890123456789012345678901"];
    let gateways =
        ["vpn.example.org", "2001:db8::1", "g", "a.very-long.gateway.name.example.org/of_sixty_three.octets:4500"];
    Case {
        keys: TicketKeys::derive(&code),
        private: PrivateKey::draw(algorithm, rng).unwrap(),
        terms: Terms {
            serial: Serial::draw(rng),
            validity: Validity::new(start, rng.random_range(1..=4095)).unwrap(),
            cluster: ClusterName::new(pick(rng, &clusters)).unwrap(),
            client: ClientName::new(pick(rng, &names)).unwrap(),
            gateway: GatewayName::new(pick(rng, &gateways)).unwrap(),
            profile: Profile::new(rng.random_range(0..16)).unwrap(),
        },
        ca_algorithm: pick(rng, &[Algorithm::Ed25519, Algorithm::P256]),
        code,
        role,
    }
}

fn algorithm_word(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Ed25519 => "ed25519",
        Algorithm::P256 => "p256",
    }
}

fn symbols(lines: &str) -> Vec<enroll::Symbol> {
    let mut reader = Reader::default();
    reader.add(&lines.replace('|', "\n").replace('_', " "));
    reader.resolve(|symbols| Ok(symbols.to_vec())).unwrap().message
}

fn numbers(words: &Words) -> String {
    words.numbers().map(|number| number.to_string()).join(",")
}

/// The model issues, Rust reads.
fn model_to_rust(oracle: &mut Oracle, case: &Case) {
    let Case { role, keys, private, terms, .. } = case;
    let (code, role_word) = (case.code.expose(), role_word(*role));
    let derived = oracle.ask(&["keys", &code, role_word]);
    let ours = [keys.request.secret(), keys.reply.secret(), keys.reject.secret()].map(|key| hex(key.expose()));
    assert_eq!(derived, ours.join(" "));

    let answer = oracle.ask(&["request", &code, role_word, &hex(private.to_pkcs8().unwrap().expose())]);
    let (lines, hash) = answer.split_once(' ').unwrap();
    let key = RequestedKey::Whole(*private.public());
    let request = Request::decode(&keys.request, &symbols(lines)).unwrap();
    assert_eq!((request.key, hex(request.hash.octets()).as_str()), (Ok(key), hash));
    let (written, _) = Request::compose(&keys.request, &key);
    assert_eq!(plain(&written), lines);

    let spki = hex(&private.public().spki());
    let answer = oracle.ask(&[
        "replies",
        &code,
        role_word,
        hash,
        &spki,
        algorithm_word(case.ca_algorithm),
        terms.cluster.as_str(),
        terms.client.as_str(),
        terms.gateway.as_str(),
        &terms.serial.value().to_string(),
        &terms.validity.start_day().to_string(),
        &terms.validity.days().to_string(),
        &terms.profile.value().to_string(),
    ]);
    let parts: Vec<_> = answer.split(' ').collect();
    let [complete, der, ca_spki, short, full, reject] = parts.as_slice() else {
        panic!("{answer}");
    };
    let pending = Pending { reply: keys.reply.clone(), reject: keys.reject.clone(), hash: request.hash, key };
    let Ok(Reply::Complete(reply)) = pending.open(&symbols(complete), &[]) else {
        panic!("the model's complete reply is refused: {complete}");
    };
    assert_eq!(&reply.terms, terms);
    assert_eq!(hex(&reply.issuer_key.spki()), *ca_spki);
    assert_eq!(hex(&reply.certificate(*role, *private.public()).unwrap()), *der);
    assert_eq!(plain(&reply.compose(&keys.reply, &request.hash)), *complete);

    let short_terms = ShortTerms {
        ca_hash: ShortTerms::ca_hash(&reply.issuer_key.spki_hash()),
        serial: terms.serial,
        expiry_day: terms.validity.expiry_day(),
        gateway: terms.gateway.clone(),
    };
    assert_eq!(pending.open(&symbols(short), &[]), Ok(Reply::Short(ShortReply { terms: short_terms.clone() })));
    let blocks = vec![unhex(der), vec![b'x'; terms.profile.value().into()]];
    assert_eq!(pending.open(&symbols(full), &blocks), Ok(Reply::Full(FullReply { blocks })));
    let Ok(Reply::Rejection(rejection)) = pending.open(&symbols(reject), &[]) else {
        panic!("the model's rejection is refused");
    };
    assert_eq!(rejection.reason.number(), terms.profile.value() % 7 + 1);
}

#[test]
fn the_words_of_random_cases_are_the_same() {
    let mut oracle = Oracle::start();
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..WORD_CASES {
        let Case { role, keys, private, terms, .. } = case(&mut rng);
        let (_, hash) = Request::compose(&keys.request, &RequestedKey::Whole(*private.public()));
        let short_terms = ShortTerms {
            ca_hash: ShortTerms::ca_hash(&private.public().spki_hash()),
            serial: terms.serial,
            expiry_day: terms.validity.expiry_day(),
            gateway: terms.gateway.clone(),
        };
        let answer = oracle.ask(&[
            "words",
            role_word(role),
            &hex(hash.octets()),
            &hex(&private.public().spki()),
            &terms.serial.value().to_string(),
            &terms.validity.expiry_day().to_string(),
            terms.gateway.as_str(),
        ]);
        let both = [Words::of_request(role, &hash), Words::of_issue(role, &hash, &short_terms)];
        assert_eq!(answer, both.map(|words| numbers(&words)).join(" "));
    }
}

/// Rust issues, the model reads.
fn rust_to_model(oracle: &mut Oracle, rng: &mut StdRng, case: &Case) {
    let Case { role, keys, private, terms, .. } = case;
    let (code, role_word) = (case.code.expose(), role_word(*role));
    let spki = hex(&private.public().spki());
    let (request, hash) = Request::compose(&keys.request, &RequestedKey::Whole(*private.public()));
    let answer = oracle.ask(&["read_request", &code, role_word, &plain(&request)]);
    assert_eq!(answer, format!("{} {spki}", hex(hash.octets())));

    let ca = PrivateKey::draw(case.ca_algorithm, rng).unwrap();
    let template = terms.template(*role, *private.public(), *ca.public());
    let signature = ca.sign(&template.tbs()).unwrap();
    let reply = CompleteReply { issuer_key: *ca.public(), terms: terms.clone(), signature };
    let message = reply.compose(&keys.reply, &hash);
    let answer = oracle.ask(&["open_complete", &code, role_word, &hex(hash.octets()), &spki, &plain(&message)]);
    let der = template.certificate(&signature).unwrap();
    assert_eq!(answer, format!("{} {} {}", hex(&der), terms.gateway, terms.profile.value()));

    let short_terms = ShortTerms {
        ca_hash: ShortTerms::ca_hash(&ca.public().spki_hash()),
        serial: terms.serial,
        expiry_day: terms.validity.expiry_day(),
        gateway: terms.gateway.clone(),
    };
    let block = (0..rng.random_range(1..600)).map(|_| rng.next_u32() as u8).collect();
    let full = FullReply { blocks: vec![der, block] };
    let reasons = [RejectionReason::Used, RejectionReason::Voided, RejectionReason::Other];
    let rejection = Rejection { reason: pick(rng, &reasons) };
    let answer = oracle.ask(&[
        "others",
        &code,
        role_word,
        &hex(hash.octets()),
        &hex(&ca.public().spki()),
        &terms.serial.value().to_string(),
        &terms.validity.expiry_day().to_string(),
        terms.gateway.as_str(),
        &full.blocks.iter().map(|block| hex(block)).collect::<Vec<_>>().join(","),
        &rejection.reason.number().to_string(),
    ]);
    let ours = [
        ShortReply { terms: short_terms }.compose(&keys.reply, &hash),
        full.compose(&keys.reply, &hash).unwrap(),
        rejection.compose(&keys.reject, &hash),
    ];
    assert_eq!(answer, ours.map(|message| plain(&message)).join(" "));
}

/// Lines as the oracle takes them: the groups close together, so that a message is one word.
fn plain(message: &enroll::Message) -> String {
    let lines: Vec<_> = message.lines().map(|line| line.replacen(": ", ":_", 1).replace(' ', "")).collect();
    lines.join("|")
}

#[test]
fn a_thousand_random_cases_from_the_model_are_read_and_written_alike() {
    let mut oracle = Oracle::start();
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..CASES {
        let case = case(&mut rng);
        model_to_rust(&mut oracle, &case);
    }
}

#[test]
fn a_thousand_random_cases_from_rust_are_read_alike_by_the_model() {
    let mut oracle = Oracle::start();
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..CASES {
        let case = case(&mut rng);
        rust_to_model(&mut oracle, &mut rng, &case);
    }
}

#[test]
fn codes_that_the_model_draws_are_read() {
    let mut oracle = Oracle::start();
    for role in [Role::Client, Role::Node] {
        for _ in 0..500 {
            let text = oracle.ask(&["code", role_word(role)]);
            let code = Code::parse(&text).unwrap();
            assert_eq!((code.role(), code.expose().as_str()), (role, text.as_str()));
        }
    }
}

#[test]
fn both_take_and_refuse_the_same_random_keys() {
    let mut oracle = Oracle::start();
    let mut rng = StdRng::seed_from_u64(3);
    let mut taken = 0;
    for case in 0..2000 {
        let mut octets: [u8; 32] = rng.random();
        if case % 5 == 0 {
            // Near the primes and near the small points.
            let fill = if rng.random() { 0xff } else { 0 };
            octets = [fill; 32];
            octets[rng.random_range(0..32)] = rng.random();
        }
        let (algorithm, parity) = (rng.random_range(0..2_u8), rng.random_range(0..2_u8));
        let ours = match (algorithm, parity) {
            (0, 0) => PublicKey::ed25519(octets).ok(),
            (0, _) => None,
            (_, 0) => PublicKey::p256(octets, Parity::Even).ok(),
            (_, _) => PublicKey::p256(octets, Parity::Odd).ok(),
        };
        let answer = oracle.ask(&["load_key", &algorithm.to_string(), &parity.to_string(), &hex(&octets)]);
        match ours {
            Some(key) => assert_eq!(answer, hex(&key.spki()), "{algorithm} {parity} {octets:02x?}"),
            None => assert!(answer.starts_with("refused"), "{algorithm} {parity} {octets:02x?}: {answer}"),
        }
        taken += usize::from(ours.is_some());
    }
    assert!((400..1600).contains(&taken), "{taken} of 2000 taken");
}

#[test]
fn what_the_model_reads_in_a_damaged_mail_is_read_alike() {
    let mut oracle = Oracle::start();
    let mut rng = StdRng::seed_from_u64(4);
    let mut read = 0;
    for _ in 0..300 {
        let case = case(&mut rng);
        let (request, _) = Request::compose(&case.keys.request, &RequestedKey::Whole(*case.private.public()));
        let mail = damage::mail(&mut rng, &request.to_string());
        let answer = oracle.ask(&["decode", &case.code.expose(), role_word(case.role), &hex(mail.as_bytes())]);
        let mut reader = Reader::default();
        reader.add(&mail);
        let ours = reader.resolve(|symbols| {
            peek(symbols)?;
            Request::decode(&case.keys.request, symbols).map(|_| symbols.to_vec())
        });
        if answer != "-" {
            let values: Vec<u8> =
                ours.unwrap_or_else(|e| panic!("{e}: {mail}")).message.iter().map(|s| s.value()).collect();
            assert_eq!(hex(&values), answer);
            read += 1;
        }
    }
    assert!(read >= 250, "the model read only {read} of 300");
}
