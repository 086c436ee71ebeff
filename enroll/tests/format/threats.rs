//! Each threat that the format names, as its own test.

use enroll::{
    Alarm, Answer, Approval, CompleteReply, Effect, KeyRefusal, KeyStanding, Parity, PrivateKey, PublicKey, Refusal,
    RejectionReason, Reply, Request, Role, Status, Symbol, TicketKeys, VoidReason, Words,
};

use crate::scene::{START, Scene};

#[test]
fn stolen_code_thief_first_the_honest_request_raises_the_alarm() {
    let mut scene = Scene::new(1, Role::Client, Approval::Auto);
    let stolen = scene.read(&scene.request_of(&scene.thief).0);
    let honest = scene.read(&scene.request_of(&scene.client).0);
    assert_eq!(scene.ticket.handle_request(START, &stolen, KeyStanding::New), Answer::Consume(stolen.hash));
    let grant = scene.grant(&stolen);
    scene.ticket.consume(START, grant).unwrap();
    let answer = scene.ticket.handle_request(START, &honest, KeyStanding::New);
    assert_eq!(answer, Answer::Reject(RejectionReason::Used));
    assert_eq!(scene.ticket.poll_effect(), Some(Effect::Alarm(Alarm::UsedAgain)));
    scene.ticket.void(VoidReason::Administrator);
    assert_eq!(scene.ticket.poll_effect(), Some(Effect::Revoke { serial: grant.serial, key: None }));
}

#[test]
fn stolen_code_with_approval_by_words_gives_the_thief_nothing() {
    let mut scene = Scene::new(2, Role::Client, Approval::Ask);
    let stolen = scene.read(&scene.request_of(&scene.thief).0);
    let honest = scene.read(&scene.request_of(&scene.client).0);
    scene.ticket.handle_request(START, &stolen, KeyStanding::New);
    scene.ticket.handle_request(START, &honest, KeyStanding::New);
    let read_out = Words::of_request(Role::Client, &honest.hash).to_string();
    assert_eq!(scene.ticket.handle_words(START, &Words::parse(&read_out).unwrap()), Ok(honest.hash));
    let grant = scene.grant(&stolen);
    assert!(scene.ticket.consume(START, grant).is_err());
}

#[test]
fn a_replaced_request_without_the_code_is_not_from_its_holder() {
    let scene = Scene::new(3, Role::Client, Approval::Auto);
    let other_code = Scene::new(4, Role::Client, Approval::Auto);
    let (forged, _) = other_code.request_of(&scene.thief);
    let refusal = Request::decode(&scene.keys().request, forged.symbols()).unwrap_err();
    assert_eq!(refusal, Refusal::OtherTicket);
    // With the right ticket number, which is public, the MAC still fails.
    let mut symbols = scene.request_of(&scene.client).0.symbols().to_vec();
    symbols.splice(10..40, forged.symbols()[10..40].iter().copied());
    assert_eq!(Request::decode(&scene.keys().request, &symbols), Err(Refusal::Mac));
    assert!(!Refusal::Mac.is_of_a_proven_sender(), "the answer is one fixed sentence, no oracle");
}

#[test]
fn a_replayed_request_gets_the_same_reply_and_no_second_certificate() {
    let mut scene = Scene::new(5, Role::Client, Approval::Auto);
    let request = scene.read(&scene.request_of(&scene.client).0);
    scene.ticket.handle_request(START, &request, KeyStanding::New);
    let grant = scene.grant(&request);
    scene.ticket.consume(START, grant).unwrap();
    let replies = scene.replies(&grant, &scene.client);
    scene.ticket.store_replies(&grant, replies.clone()).unwrap();
    for _ in 0..3 {
        let answer = scene.ticket.handle_request(START, &request, KeyStanding::Known);
        assert_eq!(answer, Answer::Again(&replies));
    }
    let second = scene.grant(&request);
    assert!(scene.ticket.consume(START, second).is_err());
}

#[test]
fn a_reply_to_another_request_is_refused() {
    let mut scene = Scene::new(6, Role::Client, Approval::Auto);
    let (message, first) = scene.request_of(&scene.client);
    let (_, second) = scene.request_of(&scene.thief);
    let grant = {
        let request = scene.read(&message);
        scene.grant(&request)
    };
    let replies = scene.replies(&grant, &scene.client);
    let (full, blocks) = replies.full.unwrap();
    for message in [&replies.complete.unwrap(), &replies.short, &full] {
        assert!(first.open(message.symbols(), &blocks).is_ok());
        assert_eq!(second.open(message.symbols(), &blocks), Err(Refusal::Mac));
    }
    let rejection = scene.ticket.rejection(&first.hash, RejectionReason::Policy).unwrap();
    assert!(first.open(rejection.symbols(), &[]).is_ok());
    assert_eq!(second.open(rejection.symbols(), &[]), Err(Refusal::Mac));
}

#[test]
fn a_reply_of_another_cluster_is_refused() {
    let mut other = Scene::new(7, Role::Client, Approval::Auto);
    let (_, pending) = Scene::new(8, Role::Client, Approval::Auto).request_of(&other.client);
    let request = other.read(&other.request_of(&other.client).0);
    let grant = other.grant(&request);
    let reply = other.replies(&grant, &other.client).complete.unwrap();
    assert_eq!(pending.open(reply.symbols(), &[]), Err(Refusal::OtherTicket));
}

#[test]
fn a_code_of_one_role_gives_no_key_of_the_other() {
    let client = Scene::new(9, Role::Client, Approval::Ask).keys();
    let node = Scene::new(9, Role::Node, Approval::Ask).keys();
    assert_ne!(client.request.secret(), node.request.secret());
    // The same secret under the other role still makes other tags.
    let (ticket, secret) = (client.request.ticket(), client.request.secret().clone());
    let confused = enroll::RequestKey::from_parts(ticket, Role::Node, secret).unwrap();
    let scene = Scene::new(9, Role::Client, Approval::Ask);
    let (message, _) = scene.request_of(&scene.client);
    assert!(Request::decode(&client.request, message.symbols()).is_ok());
    assert_eq!(Request::decode(&confused, message.symbols()), Err(Refusal::Mac));
}

#[test]
fn keys_of_one_direction_do_not_serve_the_other() {
    let keys = Scene::new(10, Role::Client, Approval::Auto).keys();
    let all = [keys.request.secret(), keys.reply.secret(), keys.reject.secret()];
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
}

#[test]
fn a_restored_backup_voids_open_tickets() {
    let mut scene = Scene::new(11, Role::Client, Approval::Auto);
    let request = scene.read(&scene.request_of(&scene.client).0);
    scene.ticket.handle_restore();
    let answer = scene.ticket.handle_request(START, &request, KeyStanding::New);
    assert_eq!(answer, Answer::Reject(RejectionReason::Voided));
}

#[test]
fn two_halves_of_a_cluster_that_use_one_ticket_differently_lose_both_certificates() {
    let mut left = Scene::new(12, Role::Client, Approval::Auto);
    let mut right = left.ticket.clone();
    let requests = [left.read(&left.request_of(&left.client).0), left.read(&left.request_of(&left.thief).0)];
    let grants = [left.grant(&requests[0]), left.grant(&requests[1])];
    left.ticket.handle_request(START, &requests[0], KeyStanding::New);
    left.ticket.consume(START, grants[0]).unwrap();
    right.handle_request(START, &requests[1], KeyStanding::New);
    right.consume(START, grants[1]).unwrap();
    left.ticket.handle_other_grant(right.state().used().unwrap());
    let effects: Vec<_> = std::iter::from_fn(|| left.ticket.poll_effect()).collect();
    let revoked = grants.map(|grant| Effect::Revoke { serial: grant.serial, key: None });
    assert_eq!(effects, [revoked[0], revoked[1], Effect::Alarm(Alarm::TwoIssues)]);
    assert_eq!(left.ticket.state().status(), Status::Voided);
}

#[test]
fn every_flipped_bit_of_every_message_is_refused_padding_included() {
    let mut scene = Scene::new(13, Role::Client, Approval::Auto);
    let (message, pending) = scene.request_of(&scene.client);
    let request = scene.read(&message);
    let grant = scene.grant(&request);
    let replies = scene.replies(&grant, &scene.client);
    let rejection = scene.ticket.rejection(&request.hash, RejectionReason::Policy).unwrap();
    let flipped = |symbols: &[Symbol]| {
        let symbols = symbols.to_vec();
        (0..symbols.len() * 5).map(move |bit| {
            let mut changed = symbols.clone();
            changed[bit / 5] = Symbol::from_low_bits(changed[bit / 5].value() ^ 1 << (bit % 5));
            changed
        })
    };
    for changed in flipped(message.symbols()) {
        assert!(Request::decode(&scene.keys().request, &changed).is_err());
    }
    let (full, blocks) = replies.full.unwrap();
    for reply in [&replies.complete.unwrap(), &replies.short, &full, &rejection] {
        assert!(pending.open(reply.symbols(), &blocks).is_ok());
        for changed in flipped(reply.symbols()) {
            assert!(pending.open(&changed, &blocks).is_err());
        }
        let longer: Vec<_> = reply.symbols().iter().copied().chain([Symbol::ZERO; 25]).collect();
        assert_eq!(pending.open(&longer, &blocks), Err(Refusal::Long));
    }
}

#[test]
fn a_changed_block_of_a_full_reply_is_refused() {
    let mut scene = Scene::new(14, Role::Client, Approval::Auto);
    let (message, pending) = scene.request_of(&scene.client);
    let request = scene.read(&message);
    let grant = scene.grant(&request);
    let (line, blocks) = scene.replies(&grant, &scene.client).full.unwrap();
    let open = |blocks: &[Vec<u8>]| pending.open(line.symbols(), blocks);
    assert!(open(&blocks).is_ok());
    assert_eq!(open(&blocks[..1]), Err(Refusal::Blocks));
    let mut swapped = blocks.clone();
    swapped.swap(0, 1);
    assert_eq!(open(&swapped), Err(Refusal::Mac));
    // The border between blocks is part of the MAC.
    let mut shifted = blocks.clone();
    let octet = shifted[1].remove(0);
    shifted[0].push(octet);
    assert_eq!(open(&shifted), Err(Refusal::Mac));
    assert_eq!(open(&[vec![0; 65_536], vec![0]]), Err(Refusal::BlockLength));
}

#[test]
fn a_key_that_the_cluster_knows_already_is_refused_and_the_ticket_stays_open() {
    let mut scene = Scene::new(15, Role::Client, Approval::Auto);
    let request = scene.read(&scene.request_of(&scene.client).0);
    let answer = scene.ticket.handle_request(START, &request, KeyStanding::Known);
    assert_eq!(answer, Answer::Reject(RejectionReason::Key));
    assert_eq!(scene.ticket.state().status(), Status::Open);
}

#[test]
fn small_order_and_invalid_keys_are_refused_though_their_mac_holds() {
    let scene = Scene::new(16, Role::Client, Approval::Auto);
    // A thief with the code can put any octets under a good MAC; reading the request tells them as a refusal.
    let mut identity = [0; 32];
    identity[0] = 1;
    assert_eq!(PublicKey::ed25519(identity), Err(KeyRefusal::SmallOrder));
    assert_eq!(PublicKey::p256([0xff; 32], Parity::Even), Err(KeyRefusal::NotReduced));
    let mut ticket = scene.ticket.clone();
    for refusal in [KeyRefusal::SmallOrder, KeyRefusal::NotReduced, KeyRefusal::NoPoint, KeyRefusal::NotCanonical] {
        let (_, pending) = scene.request_of(&scene.client);
        let request = Request { ticket: ticket.number(), hash: pending.hash, key: Err(refusal) };
        let answer = ticket.handle_request(START, &request, KeyStanding::New);
        assert_eq!(answer, Answer::Reject(RejectionReason::Key), "{refusal}");
    }
}

#[test]
fn a_foreign_ca_in_a_reply_needs_the_code() {
    let mut scene = Scene::new(17, Role::Client, Approval::Auto);
    let (message, pending) = scene.request_of(&scene.client);
    let request = scene.read(&message);
    let grant = scene.grant(&request);
    // The thief has a CA, but not K_reply.
    let foreign = Scene::new(18, Role::Client, Approval::Auto);
    let keys = TicketKeys::derive(&foreign.code);
    let Reply::Complete(mut reply) =
        pending.open(scene.replies(&grant, &scene.client).complete.unwrap().symbols(), &[]).unwrap()
    else {
        panic!("a complete reply");
    };
    reply.issuer_key = *foreign.ca.public();
    let stolen = enroll::ReplyKey::from_parts(pending.ticket(), Role::Client, keys.reply.secret().clone()).unwrap();
    let forged = reply.compose(&stolen, &pending.hash);
    assert_eq!(pending.open(forged.symbols(), &[]), Err(Refusal::Mac));
    // Under the right key a signature by another CA does not hold over the rebuilt certificate.
    assert_eq!(reply.certificate(Role::Client, *scene.client.public()), Err(Refusal::Signature));
    reply.issuer_key = *scene.client.public();
    assert_eq!(reply.certificate(Role::Client, *scene.client.public()), Err(Refusal::CaKey));
}

#[test]
fn a_certificate_rebuilt_for_another_key_or_role_has_no_good_signature() {
    let mut scene = Scene::new(19, Role::Client, Approval::Auto);
    let (message, pending) = scene.request_of(&scene.client);
    let request = scene.read(&message);
    let grant = scene.grant(&request);
    let complete = scene.replies(&grant, &scene.client).complete.unwrap();
    let reply = CompleteReply::decode(&pending.reply, &pending.hash, complete.symbols()).unwrap();
    assert!(reply.certificate(Role::Client, *scene.client.public()).is_ok());
    assert_eq!(reply.certificate(Role::Client, *scene.thief.public()), Err(Refusal::Signature));
    assert_eq!(reply.certificate(Role::Node, *scene.client.public()), Err(Refusal::Signature));
}

#[test]
fn wrong_words_choose_nothing_and_each_input_changes_them() {
    let scene = Scene::new(20, Role::Client, Approval::Ask);
    let hash = scene.request_of(&scene.client).1.hash;
    let other = scene.request_of(&scene.thief).1.hash;
    let words = Words::of_request(Role::Client, &hash);
    assert!(words.equals(&Words::of_request(Role::Client, &hash)));
    assert!(!words.equals(&Words::of_request(Role::Client, &other)));
    assert!(!words.equals(&Words::of_request(Role::Node, &hash)));
}

#[test]
fn an_unproven_key_is_never_revoked() {
    // Else one enrolls another's public key, which is no secret, to have it revoked.
    let mut scene = Scene::new(21, Role::Client, Approval::Auto);
    let request = scene.read(&scene.request_of(&scene.client).0);
    scene.ticket.handle_request(START, &request, KeyStanding::New);
    let grant = scene.grant(&request);
    scene.ticket.consume(START, grant).unwrap();
    scene.ticket.void(VoidReason::Administrator);
    assert_eq!(scene.ticket.poll_effect(), Some(Effect::Revoke { serial: grant.serial, key: None }));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let scene = Scene::new(22, Role::Client, Approval::Auto);
    let code = scene.code.expose();
    let secret = &code[6..];
    for shown in [format!("{:?}", scene.code), format!("{:?}", scene.keys()), format!("{:?}", scene.ticket)] {
        assert!(!shown.contains(secret) && !shown.contains(&secret[..5]), "{shown}");
    }
    assert!(format!("{:?}", PrivateKey::from_pkcs8(scene.client.to_pkcs8().unwrap().expose()).unwrap()).len() < 30);
}

#[test]
fn tags_keys_and_codes_are_compared_through_subtle_only() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![sources];
    let (mut seen, mut constant_time) = (0, 0);
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let product = text.split("#[cfg(test)]").next().unwrap();
        if path.ends_with("tests.rs") {
            continue;
        }
        seen += 1;
        constant_time += product.matches(".ct_eq(").count();
        for line in product.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            let compares = line.contains("==") || line.contains("!=") || line.contains(".eq(");
            let secret = ["tag", "secret", ".expose()", "mac."].iter().any(|word| line.contains(word));
            let by_subtle = line.contains("self.secret == other.secret");
            let of_kind = line.contains("_tag") || line.contains("secret.len()") || line.contains("secret_len");
            assert!(!compares || !secret || by_subtle || of_kind, "{}: {line}", path.display());
        }
    }
    assert!(seen > 20 && constant_time >= 3, "{seen} files, {constant_time} comparisons in constant time");
}
