//! Stock strongSwan before one node of ours: suites, ways to prove an identity, rekeying, fragments, NAT, refusals and ends.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use lab::cluster::{Client, Cluster, GATEWAY_ID, OUTSIDE_ADDRESS, POOL, PROTECTED, SERVER, client_settings};
use lab::echo::{EchoServer, Prober};
use lab::nat::Nat;
use lab::pki::KeyKind;
use lab::run;
use lab::strongswan::{Credential, Role, Settings};

const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVER, 7);
const ID: &str = "c1.lab.test";
const PATIENCE: Duration = Duration::from_secs(15);

/// How both ends prove who they are.
#[derive(Clone, Copy, Debug)]
enum Proof {
    Secret,
    Keys { gateway: KeyKind, client: KeyKind },
}

const ECDSA: Proof = Proof::Keys { gateway: KeyKind::EcdsaP256, client: KeyKind::EcdsaP256 };

/// One meeting of the two.
struct Case {
    proof: Proof,
    /// strongSwan's proposals.
    ike: &'static str,
    esp: &'static str,
    /// Ours; as strongSwan's if empty.
    our_ike: &'static str,
    our_esp: &'static str,
    /// More lines of our connection and of our `[ike]` section.
    connection: &'static str,
    ike_section: &'static str,
    /// More settings of strongSwan.
    extra: &'static str,
    connection_extra: &'static str,
    child_extra: &'static str,
    /// What strongSwan asks to reach.
    asks: &'static str,
    /// Where strongSwan takes the gateway to be.
    gateway: Ipv4Addr,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            proof: ECDSA,
            ike: "aes128gcm16-prfsha256-x25519",
            esp: "aes128gcm16",
            our_ike: "",
            our_esp: "",
            connection: "",
            ike_section: "",
            extra: "",
            connection_extra: "",
            child_extra: "",
            asks: PROTECTED,
            gateway: OUTSIDE_ADDRESS,
        }
    }
}

/// Both, set up by a [`Case`].
struct Meeting {
    client: Client,
    _echo: EchoServer,
    nodes: Cluster,
}

impl Case {
    fn meet(&self) -> Meeting {
        let mut nodes = Cluster::build(1).unwrap();
        self.configure(&nodes);
        nodes.start().unwrap();
        let own = nodes.authority().issue(ID, self.client_key(), &[]).unwrap();
        let authority = nodes.authority().pem();
        let credential = match self.proof {
            Proof::Secret => Credential::PreSharedKey(nodes.pre_shared_key()),
            Proof::Keys { .. } => Credential::Certificate { own: &own, authority: &authority },
        };
        let settings = Settings {
            ike_proposal: self.ike,
            esp_proposal: self.esp,
            remote_selector: Some(self.asks),
            extra: self.extra,
            connection_extra: self.connection_extra,
            child_extra: self.child_extra,
            role: Role::Client { gateway: self.gateway.into(), liveness_s: 0 },
            ..client_settings(ID, credential)
        };
        let client = nodes.client_as(1, &settings).unwrap();
        let echo = EchoServer::start(&nodes.server, ECHO.into()).unwrap();
        Meeting { client, _echo: echo, nodes }
    }

    const fn client_key(&self) -> KeyKind {
        match self.proof {
            Proof::Secret => KeyKind::EcdsaP256,
            Proof::Keys { client, .. } => client,
        }
    }

    /// Replaces the lab's connections by this case's.
    fn configure(&self, nodes: &Cluster) {
        let file = nodes.config_file();
        let text = fs::read_to_string(&file).unwrap();
        let (head, _) = text.split_once("[[pools]]").unwrap();
        let mut text =
            head.replace("cookie_threshold = 5000\nhalf_open_max = 20000\n", &format!("{}\n", self.ike_section));
        assert_ne!(text, head, "the lab's [ike] section has other lines");
        let proof = match self.proof {
            Proof::Secret => "local = { id = \"vpn.lab.test\", psk_file = \"bench.psk\" }\n\
                              remote = { id = \"any\", auth = \"psk\" }"
                .to_owned(),
            Proof::Keys { gateway, .. } => {
                let directory = file.parent().unwrap();
                let own = nodes.authority().issue(GATEWAY_ID, gateway, &[]).unwrap();
                own.write(&directory.join("own.crt"), &directory.join("own.key")).unwrap();
                "local = { id = \"vpn.lab.test\", certificate = \"own.crt\", key = \"own.key\" }\n\
                 remote = { id = \"*.lab.test\", auth = \"certificate\" }"
                    .to_owned()
            }
        };
        let ours = |own: &'static str, theirs: &'static str| if own.is_empty() { theirs } else { own };
        write!(
            text,
            "[[pools]]\nname = \"clients\"\nprefix = \"{POOL}\"\n[[connections]]\nname = \"road\"\n{proof}\n\
             local_networks = [\"{PROTECTED}\"]\npool = \"clients\"\nike = [\"{ike}\"]\nesp = [\"{esp}\"]\n{more}\n",
            ike = ours(self.our_ike, self.ike),
            esp = ours(self.our_esp, self.esp),
            more = self.connection,
        )
        .unwrap();
        fs::write(file, text).unwrap();
    }

    /// Connects, and passes probes both ways.
    fn must_pass(&self) -> Meeting {
        let meeting = self.meet();
        meeting.connect();
        meeting
    }
}

impl Meeting {
    fn connect(&self) -> Ipv4Addr {
        let address = self.client.charon.connect().unwrap();
        let prober = Prober::start(&self.client.namespace, address, ECHO.into(), 200).unwrap();
        let start = Instant::now();
        run::wait_for("twenty probes to come back", PATIENCE, || {
            let account = prober.account(start, Instant::now());
            (account.sent - account.lost >= 20).then_some(())
        })
        .unwrap();
        match address {
            std::net::IpAddr::V4(address) => address,
            std::net::IpAddr::V6(address) => panic!("the client was given {address}"),
        }
    }

    fn log_has(&self, words: &str) -> bool {
        self.client.charon.log().contains(words)
    }

    fn await_log(&self, words: &str) {
        run::wait_for(&format!("strongSwan to say {words:?}"), PATIENCE, || self.log_has(words).then_some(())).unwrap();
    }

    fn await_sessions(&self, count: usize) {
        run::wait_for(&format!("{count} sessions"), PATIENCE, || (self.nodes.sessions().len() == count).then_some(()))
            .unwrap();
    }

    /// Probes go both ways while `condition` comes true and a little longer; none may be lost or doubled.
    fn lossless_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let address = self.client.charon.inner_address().unwrap();
        let prober = Prober::start(&self.client.namespace, address, ECHO.into(), 500).unwrap();
        let start = Instant::now();
        run::wait_for(what, Duration::from_secs(40), || condition(self).then_some(())).unwrap();
        let end = Instant::now() + Duration::from_millis(500);
        run::wait_for("the last answers", PATIENCE, || {
            (Instant::now() > end + Duration::from_millis(300)).then_some(())
        })
        .unwrap();
        let account = prober.account(start, end);
        assert_eq!((account.lost, account.doubled), (0, 0), "{account:?}");
        assert!(account.sent > 200, "{account:?}");
    }
}

#[test]
fn suites_with_another_cipher_group_and_hash_carry_packets() {
    Case { ike: "aes256-sha512-modp2048", esp: "aes256-sha512", ..Case::default() }.must_pass();
    Case { ike: "aes256gcm16-prfsha384-ecp256", esp: "aes256gcm16-ecp256", proof: Proof::Secret, ..Case::default() }
        .must_pass();
}

#[test]
#[ignore = "the whole matrix of suites takes minutes"]
fn every_suite_carries_packets() {
    for ike in ["aes128gcm16", "aes192gcm16", "aes256gcm16"] {
        for prf in ["prfsha256", "prfsha384", "prfsha512"] {
            for group in ["x25519", "ecp256", "modp2048"] {
                let ike: &'static str = format!("{ike}-{prf}-{group}").leak();
                Case { ike, ..Case::default() }.must_pass();
            }
        }
    }
    for cipher in ["aes128", "aes192", "aes256"] {
        for hash in ["sha256", "sha384", "sha512"] {
            let ike: &'static str = format!("{cipher}-{hash}-x25519").leak();
            let esp: &'static str = format!("{cipher}-{hash}").leak();
            Case { ike, esp, ..Case::default() }.must_pass();
        }
    }
    for esp in ["aes192gcm16", "aes256gcm16"] {
        Case { esp, ..Case::default() }.must_pass();
    }
}

#[test]
fn rsa_and_ecdsa_prove_identities_in_both_directions() {
    use KeyKind::{EcdsaP256, Rsa2048};
    for (gateway, client) in [(Rsa2048, EcdsaP256), (EcdsaP256, Rsa2048)] {
        let meeting = Case { proof: Proof::Keys { gateway, client }, ..Case::default() }.must_pass();
        assert!(meeting.client.charon.history().is_one_undisturbed_session());
    }
}

#[test]
fn a_wrong_group_and_a_demanded_cookie_cost_one_more_request_each() {
    let meeting = Case {
        ike: "aes128gcm16-prfsha256-modp2048-x25519",
        our_ike: "aes128gcm16-prfsha256-x25519",
        ike_section: "cookie_threshold = 0",
        ..Case::default()
    }
    .must_pass();
    assert!(meeting.log_has("N(COOKIE)"), "no cookie was demanded");
    assert!(meeting.log_has("N(INVAL_KE)"), "no other group was demanded");
    assert_eq!(meeting.client.charon.history().ike_auth, 1);
}

#[test]
fn fragments_go_both_ways() {
    let meeting = Case {
        extra: "fragment_size = 400",
        ike_section: "fragment_len_max = 400",
        proof: Proof::Keys { gateway: KeyKind::Rsa2048, client: KeyKind::Rsa2048 },
        ..Case::default()
    }
    .must_pass();
    assert!(meeting.log_has("splitting IKE message"), "strongSwan sent no fragments");
    assert!(meeting.log_has("received fragment #1 of"), "we sent no fragments");
}

#[test]
fn our_rekeyings_with_new_keys_lose_nothing() {
    let meeting = Case {
        esp: "aes128gcm16-x25519",
        connection: "child_rekey = \"2s\"\nchild_max = \"60s\"\nike_rekey = \"3s\"\nike_max = \"60s\"\njitter = \"0s\"",
        ..Case::default()
    }
    .must_pass();
    meeting.lossless_until("six rekeyings that we began", |meeting| {
        meeting.client.charon.log().matches("parsed CREATE_CHILD_SA request").count() >= 6
    });
    assert_eq!(meeting.client.charon.history().ike_auth, 1);
    assert_eq!(meeting.nodes.sessions().len(), 1);
}

#[test]
fn rekeyings_that_both_ends_begin_at_once_lose_nothing() {
    let meeting = Case {
        esp: "aes128gcm16-x25519",
        connection: "child_rekey = \"2s\"\nchild_max = \"60s\"\nike_rekey = \"5s\"\nike_max = \"60s\"\njitter = \"0s\"",
        connection_extra: "rekey_time = 5s\n over_time = 60s\n rand_time = 0s",
        child_extra: "rekey_time = 2s\n life_time = 60s\n rand_time = 0s",
        ..Case::default()
    }
    .must_pass();
    meeting.lossless_until("rekeyings from both ends", |meeting| {
        let log = meeting.client.charon.log();
        log.matches("parsed CREATE_CHILD_SA request").count() >= 3
            && log.matches("generating CREATE_CHILD_SA request").count() >= 3
    });
    assert_eq!(meeting.client.charon.history().ike_auth, 1);
    assert_eq!(meeting.nodes.sessions().len(), 1);
}

#[test]
fn a_client_behind_a_nat_is_followed_when_its_mapping_changes() {
    const NAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 220);
    let case = Case { gateway: NAT, ..Case::default() };
    let meeting = case.meet();
    let between = meeting.nodes.outside_host("nat", 220).unwrap();
    let nat = Nat::start(&between, NAT, OUTSIDE_ADDRESS).unwrap();
    let address = meeting.connect();
    let made = nat.mappings_made();
    nat.forget();
    let prober = Prober::start(&meeting.client.namespace, address.into(), ECHO.into(), 200).unwrap();
    let start = Instant::now();
    run::wait_for("probes to come back over the new mapping", PATIENCE, || {
        let account = prober.account(start, Instant::now());
        (nat.mappings_made() > made && account.sent - account.lost >= 20).then_some(())
    })
    .unwrap();
    assert!(meeting.client.charon.history().is_one_undisturbed_session(), "{:?}", meeting.client.charon.history());
}

#[test]
fn a_client_that_asks_for_more_gets_what_it_may_have() {
    let meeting = Case { asks: "10.0.0.0/8", ..Case::default() }.must_pass();
    let sas = meeting.client.charon.swanctl(&["--list-sas"]).unwrap();
    assert!(sas.contains(&format!("remote {PROTECTED}")), "{sas}");
}

#[test]
fn a_session_ends_when_the_client_says_so_and_its_address_is_free_again() {
    let meeting = Case::default().must_pass();
    let first = meeting.client.charon.inner_address();
    meeting.await_sessions(1);
    meeting.client.charon.swanctl(&["--terminate", "--ike", "lab"]).unwrap();
    meeting.await_sessions(0);
    meeting.connect();
    assert_eq!(meeting.client.charon.inner_address(), first);
    meeting.await_sessions(1);
}

#[test]
fn a_client_that_died_is_noticed_and_may_come_back() {
    let mut meeting = Case {
        connection: "liveness = \"1s\"",
        ike_section: "retransmit_first = \"200ms\"\nretransmit_attempts = 3",
        ..Case::default()
    }
    .must_pass();
    meeting.await_sessions(1);
    meeting.client.charon.process().kill();
    meeting.await_sessions(0);
}

#[test]
fn a_peer_without_a_common_suite_is_told_so() {
    let meeting =
        Case { ike: "aes128gcm16-prfsha256-ecp256", our_ike: "aes128gcm16-prfsha256-x25519", ..Case::default() }.meet();
    assert!(meeting.client.charon.connect().is_err());
    meeting.await_log("N(NO_PROP)");
    let meeting = Case { esp: "aes256-sha256", our_esp: "aes128gcm16", ..Case::default() }.meet();
    assert!(meeting.client.charon.connect().is_err());
    meeting.await_log("N(NO_PROP)");
}
