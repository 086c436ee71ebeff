//! Whatever goes wrong is told in one sentence with the next step, and with the exit code that scripts rely on.

use enroll::{
    Authority, ClientName, ClusterName, CompleteReply, GatewayName, PrivateKey, Profile, Rank, Serial, SigningRequest,
    Terms, UnixTime, Validity, pem_block, pem_blocks,
};
use lab::enrollment::{Party, Said, text};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::desk::{Asked, Desk};

/// The one line on standard error; it names the program, and says what to do behind a colon or "then".
fn sentence(said: &Said, code: i32) -> String {
    assert_eq!(said.code, Some(code), "{said:?}");
    let lines: Vec<&str> = said.err.lines().collect();
    let [line] = lines.as_slice() else { panic!("one sentence is expected: {said:?}") };
    let (program, rest) = line.split_once(": ").unwrap();
    assert!(matches!(program, "ccvpn" | "cryptocluster"), "{line}");
    assert!(rest.contains(": ") || rest.contains("then "), "no next step: {line}");
    rest.to_owned()
}

/// The one object on standard error, which has the same sentence; standard output says nothing.
fn sentence_in_json(said: &Said, code: i32) -> String {
    assert_eq!((said.code, said.out.as_str(), said.err.lines().count()), (Some(code), "", 1), "{said:?}");
    let object: serde_json::Value = serde_json::from_str(&said.err).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let told = text(&object, "error").unwrap();
    assert_eq!(object, serde_json::json!({ "error": told, "exit_code": code }));
    told
}

fn accept(desk: &Desk, text: &str) -> Said {
    desk.admin.run(&["enroll", "accept", "-"], text).unwrap()
}

/// A device that has asked with this code; what it printed.
fn ask(desk: &Desk, device: &Party, code: &str) -> String {
    let file = desk.scratch.put("code", code).unwrap();
    text(&device.json(&["enroll", "--file", &file]).unwrap(), "request").unwrap()
}

#[test]
fn a_wrong_code_names_the_group_and_keeps_nothing() {
    let desk = Desk::new("wrong-code");
    let (_, code) = desk.ticket("alice", &[]);
    let device = desk.device("alice");
    let last = if code.ends_with('7') { "8" } else { "7" };
    let wrong = format!("{}{last}", &code[..code.len() - 1]);
    let said = sentence(&device.run(&["enroll", "--file", "-"], &wrong).unwrap(), 5);
    assert!(said.contains("look at group 5 first"), "{said}");
    let said = sentence(&device.run(&["enroll", "--file", "-"], "BHP5N-40BAQ").unwrap(), 5);
    assert!(said.contains("25 characters"), "{said}");
    assert_eq!(device.json(&["profile", "list"]).unwrap()["waiting"].as_array().unwrap().len(), 0);
}

#[test]
fn a_code_or_passphrase_on_the_command_line_is_refused() {
    let desk = Desk::new("argv");
    let refused = |said: Said| {
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains("on the command line can be read by every user"), "{said:?}");
    };
    refused(desk.device("alice").run(&["enroll", "BHP5N-40BAQ-PAAQS-PP7FT-4Y575"], "").unwrap());
    refused(desk.admin.run(&["enroll", "accept", "-", "--passphrase", "horse"], "").unwrap());
    refused(desk.admin.run(&["cert", "export", "a", "--export-passphrase", "horse"], "").unwrap());
}

#[test]
fn what_clap_refuses_it_says_in_its_own_words_with_json_too() {
    let desk = Desk::new("usage");
    for party in [&desk.admin, &desk.device("a")] {
        let said = party.run(&["profile", "list", "--json", "--nonsense"], "").unwrap();
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{said:?}");
        assert!(said.err.starts_with("error: unexpected argument '--nonsense'"), "{said:?}");
    }
}

#[test]
fn half_a_message_names_the_line_and_another_clusters_texts_are_told_apart() {
    let desk = Desk::new("half");
    let elsewhere = Desk::of("elsewhere", "branch");
    let (_, code) = desk.ticket("alice", &[]);
    let alice = desk.device("alice");
    let request = ask(&desk, &alice, &code);
    let half: String = request.lines().take(2).collect::<Vec<_>>().join("\n");
    assert!(sentence(&accept(&desk, &half), 5).contains("line 03 of the request"));
    assert!(sentence(&accept(&elsewhere, &request), 5).contains("no request of any ticket here"));
    let reply = text(&accept_json(&desk, &request), "reply").unwrap();
    assert!(sentence(&accept(&desk, &reply), 5).contains("this is a reply"));
    let half: String = reply.lines().take(7).collect::<Vec<_>>().join("\n");
    let said = sentence(&alice.run(&["enroll", "--yes", "--file", "-"], &half).unwrap(), 5);
    assert!(said.contains("08 of the reply"), "{said}");
    let foreign = elsewhere.request("mallory", 9);
    let other = elsewhere.admin.json(&["enroll", "accept", &foreign.file]).unwrap();
    let said = alice.run(&["enroll", "--yes", "--file", "-"], &text(&other, "reply").unwrap()).unwrap();
    assert!(sentence(&said, 5).contains("no reply to your request"), "{said:?}");
    assert_eq!(alice.run(&["enroll", "--yes", "--file", "-"], &reply).unwrap().code, Some(0));
    let said = sentence(&alice.run(&["enroll", "--yes", "--file", "-"], &reply).unwrap(), 6);
    assert!(said.contains("no enrollment waits"), "{said}");
}

fn accept_json(desk: &Desk, request: &str) -> serde_json::Value {
    desk.admin.run(&["enroll", "accept", "-", "--json"], request).unwrap().json().unwrap()
}

#[test]
fn used_and_voided_tickets_are_rejected_and_the_device_is_told_why() {
    let desk = Desk::new("used");
    for (name, how, told) in [
        ("used", "used", "another request used this ticket"),
        ("void", "void", "the administrator withdrew this ticket"),
    ] {
        let (number, code) = desk.ticket(name, &[]);
        let late = desk.device(&format!("{name}-late"));
        let request = ask(&desk, &late, &code);
        if how == "void" {
            desk.admin.good(&["ticket", "void", &number]).unwrap();
        } else {
            accept_json(&desk, &ask(&desk, &desk.device(name), &code));
        }
        let said = accept(&desk, &request);
        assert_eq!((said.code, said.out.contains("REJECTED")), (Some(5), true), "{said:?}");
        let told_to = late.run(&["enroll", "--file", "-"], &said.out).unwrap();
        assert!(sentence(&told_to, 5).contains(told), "{told_to:?}");
        assert_eq!(late.json(&["profile", "list"]).unwrap()["waiting"].as_array().unwrap().len(), 1);
    }
}

/// A complete reply as a gateway would write it whose clock is so many days from ours.
fn reply_from(days: i64, asked: &Asked) -> String {
    let mut rng = StdRng::seed_from_u64(3);
    let ca = PrivateKey::draw(enroll::Algorithm::P256, &mut rng).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let start = UnixTime { seconds: now }.day() as i64 - 1 + days;
    let terms = Terms {
        serial: Serial::draw(&mut rng),
        validity: Validity::new(start as u16, 30).unwrap(),
        cluster: ClusterName::new("hq-vpn").unwrap(),
        client: ClientName::new("alice").unwrap(),
        gateway: GatewayName::new("vpn.example.org").unwrap(),
        profile: Profile::default(),
    };
    let enroll::RequestedKey::Whole(key) = asked.pending.key else { panic!("a whole key") };
    let template = terms.template(asked.pending.role(), key, *ca.public());
    let signature = ca.sign(&template.tbs()).unwrap();
    let reply = CompleteReply { issuer_key: *ca.public(), terms, signature };
    reply.compose(&asked.pending.reply, &asked.pending.hash).to_string()
}

#[test]
fn a_clock_that_is_off_is_told_and_the_enrollment_still_waits() {
    let desk = Desk::new("clock");
    for (days, code, told) in [(2, 5, "set the clock"), (-40, 5, "ask for a new ticket"), (1, 0, ""), (-1, 0, "")] {
        let name = format!("alice{days}").replace('-', "m");
        let (ticket, code_text) = desk.ticket(&name, &[]);
        let device = desk.device(&name);
        ask(&desk, &device, &code_text);
        // The device's own key, so that the reply is for it.
        let secrets = std::fs::read(desk.scratch.path(&format!("{name}/pending/{ticket}/keys"))).unwrap();
        let key = PrivateKey::from_pkcs8(&secrets[64..]).unwrap();
        let mut asked = desk.request_with(&name, ticket, &code_text, 1);
        asked.pending.key = enroll::RequestedKey::Whole(*key.public());
        let keys = enroll::TicketKeys::derive(&enroll::Code::parse(&code_text).unwrap());
        asked.pending.hash = enroll::Request::compose(&keys.request, &asked.pending.key).1;
        let said = device.run(&["enroll", "--yes", "--file", "-"], &reply_from(days, &asked)).unwrap();
        if code == 0 {
            assert_eq!(said.code, Some(0), "{days}: {said:?}");
        } else {
            assert!(sentence(&said, code).contains(told), "{days}: {said:?}");
            assert_eq!(device.json(&["profile", "list"]).unwrap()["waiting"].as_array().unwrap().len(), 1);
        }
    }
}

#[test]
fn nothing_is_issued_for_a_key_that_cannot_be_written() {
    let desk = Desk::new("key-out");
    let key = desk.scratch.path("no/such/key").display().to_string();
    let said = sentence(&desk.admin.run(&["cert", "issue", "carol", "--key-out", &key], "").unwrap(), 4);
    assert!(said.contains("see that it exists"), "{said}");
    assert_eq!(desk.admin.json(&["cert", "list"]).unwrap().as_array().unwrap().len(), 0);
}

#[test]
fn what_stands_below_a_pasted_reply_is_no_answer_on_the_final_words() {
    let desk = Desk::new("pasted");
    let (_, code) = desk.ticket("alice", &[]);
    let alice = desk.device("alice");
    let reply = text(&accept_json(&desk, &ask(&desk, &alice, &code)), "reply").unwrap();
    let mut terminal = alice.on_terminal(&["enroll"]).unwrap();
    terminal.expect("nothing is lost.").unwrap();
    for line in reply.lines().chain(["Regards, Bob"]) {
        terminal.enter(line).unwrap();
    }
    terminal.expect("they agree").unwrap();
    terminal.enter("they agree").unwrap();
    let (code, screen) = terminal.finish().unwrap();
    assert_eq!(code, Some(0), "{screen}");
}

#[test]
fn a_renewal_by_another_client_that_plays_the_next_ca_is_refused() {
    let desk = Desk::new("renewal");
    let alice = desk.device("alice");
    let (_, code) = desk.ticket("alice", &[]);
    let request = desk.scratch.put("request", &ask(&desk, &alice, &code)).unwrap();
    let accepted = desk.admin.json(&["enroll", "accept", &request, "--form", "full"]).unwrap();
    let reply = desk.scratch.put("reply", &text(&accepted, "reply").unwrap()).unwrap();
    alice.good(&["enroll", "--yes", "--file", &reply]).unwrap();
    let renewal = alice.json(&["request", "--pkcs10", "--renew", "--profile", "hq-vpn"]).unwrap();
    let renewal = pem_blocks(&text(&renewal, "request").unwrap()).remove(0);
    // Mallory has a certificate of the CA that Alice trusts, and makes a CA of the same name with its key.
    let key = desk.scratch.path("mallory.key");
    let mallory = desk.admin.json(&["cert", "issue", "mallory", "--key-out", &key.display().to_string()]).unwrap();
    let key = PrivateKey::from_pkcs8(&pem_blocks(&std::fs::read_to_string(key).unwrap())[0]).unwrap();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let start = UnixTime { seconds: since }.day() as u16 - 1;
    let (days, serial) = (|days| Validity::new(start, days).unwrap(), |number| Serial::new(number).unwrap());
    let cluster = ClusterName::new("hq-vpn").unwrap();
    let forged = Authority::create(cluster, Rank::Sole, key.into(), serial(1), days(300)).unwrap();
    let name = ClientName::new("alice").unwrap();
    let certificate = forged.issue_pkcs10(&renewal, &name, serial(2), days(100)).unwrap();
    let chain = [&certificate[..], forged.certificate()].map(|der| pem_block("CERTIFICATE", der)).concat();
    let file = desk.scratch.put("forged.pem", &(chain + &text(&mallory, "certificate").unwrap())).unwrap();
    let said = alice.run(&["request", "--certificate", &file, "--renew", "--profile", "hq-vpn"], "").unwrap();
    assert!(sentence(&said, 5).contains("comes from another CA"), "{said:?}");
}

#[test]
fn a_suspension_is_told_with_both_ways_out_and_only_a_suspension_is_released() {
    let desk = Desk::new("suspended");
    desk.suspended("n1", 1);
    let key = PrivateKey::draw(enroll::Algorithm::P256, &mut StdRng::seed_from_u64(9)).unwrap();
    let request = pem_block("CERTIFICATE REQUEST", &SigningRequest::compose(&key).unwrap());
    let request = desk.scratch.put("renewal", &request).unwrap();
    let said = desk.admin.run(&["cert", "renew", "n1", "--request", &request], "").unwrap();
    let told = sentence(&said, 5);
    assert!(told.contains("then revoke it") && told.contains("cryptocluster cert release "), "{told}");
    let release = |which: &str| desk.admin.run(&["cert", "release", which], "").unwrap();
    let said = release("n1");
    assert!(said.code == Some(0) && said.out.contains("of n1 is released. Publish it"), "{said:?}");
    assert!(sentence(&release("n1"), 5).contains("is not suspended"));
    desk.admin.good(&["cert", "revoke", "n1"]).unwrap();
    assert!(sentence(&release("n1"), 5).contains("is revoked already"));
    assert!(sentence(&release("nobody"), 6).contains("cert list"));
}

#[test]
fn what_does_not_exist_and_what_others_can_read_is_told() {
    let desk = Desk::new("missing");
    let nowhere = Party::administrator(&desk.scratch.path("nowhere")).unwrap();
    let (admin, device) = (&desk.admin, &desk.device("a"));
    for (party, arguments, input, code, told) in [
        (&nowhere, &["ticket", "list"][..], "", 6, "init --ca-only"),
        (admin, &["ticket", "show", "ZZZZZ"], "", 6, "ticket list"),
        (admin, &["cert", "revoke", "nobody"], "", 6, "cert list"),
        (admin, &["enroll", "accept", "/no/such"], "", 4, "see that it exists"),
        (admin, &["enroll", "accept", "-"], "hello", 5, "paste the whole request again"),
        (device, &["enroll", "--file", "/no/such"], "", 4, "see that it exists"),
        (device, &["enroll"], "", 5, "no terminal"),
        (device, &["enroll", "--photo", "/etc/passwd"], "", 5, "no PNG or JPEG"),
        (device, &["profile", "show", "x"], "", 6, "profile list"),
    ] {
        let line = sentence(&party.run(arguments, input).unwrap(), code);
        assert!(line.contains(told), "{told}: {line}");
        let arguments = [arguments, &["--json"]].concat();
        assert_eq!(sentence_in_json(&party.run(&arguments, input).unwrap(), code), line);
    }
    let key = desk.scratch.path("store/ca.key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let asked = desk.request("alice", 1);
    let said = sentence(&desk.admin.run(&["enroll", "accept", &asked.file], "").unwrap(), 4);
    assert!(said.contains("chmod 600"), "{said}");
}
