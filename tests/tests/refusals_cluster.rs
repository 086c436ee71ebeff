//! Who may not log in, start or join: each is told in one clear sentence, is counted, and disturbs nobody who is at work.

use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use lab::cluster::{Client, Cluster, Ended, Guest, Proof, SERVER};
use lab::echo::{EchoServer, Prober};
use lab::pki::{Authority, KeyKind};
use lab::run;
use time::OffsetDateTime;

const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVER, 7);
const MACHINE: Option<i32> = Some(4);

/// A cluster with a client at work in it.
struct Scene {
    prober: Prober,
    begun: Instant,
    _echo: EchoServer,
    client: Client,
    cluster: Cluster,
}

impl Scene {
    /// Three nodes are configured, the first `running` of them run.
    fn set(running: usize, configure: impl FnOnce(&Cluster)) -> Self {
        let mut cluster = Cluster::build(3).unwrap();
        configure(&cluster);
        for node in cluster.nodes.iter_mut().take(running) {
            node.start().unwrap();
        }
        cluster.await_formed(Duration::from_secs(20)).unwrap();
        let client = cluster.client(1).unwrap();
        let address = client.charon.connect().unwrap();
        let echo = EchoServer::start(&cluster.server, ECHO.into()).unwrap();
        let prober = Prober::start(&client.namespace, address, ECHO.into(), 100).unwrap();
        run::wait_for("the first probes", Duration::from_secs(5), || {
            let now = Instant::now();
            let account = prober
                .account(now.checked_sub(Duration::from_millis(300))?, now.checked_sub(Duration::from_millis(100))?);
            (account.sent > 10 && account.lost == 0).then_some(())
        })
        .unwrap();
        Self { prober, begun: Instant::now(), _echo: echo, client, cluster }
    }

    /// Waits until a node's log has a line with all of `words`, and returns it.
    #[track_caller]
    fn logged(&self, words: &[&str]) -> String {
        let line = run::wait_for(&format!("{words:?} in a log"), Duration::from_secs(10), || {
            let logs = self.cluster.nodes.iter().map(lab::cluster::Node::log).collect::<String>();
            logs.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        });
        let line = line.unwrap();
        println!("log: {line}");
        line
    }

    /// The sum of a counter over all running nodes.
    fn counted(&self, name: &str) -> u64 {
        let statuses = self.cluster.nodes.iter().filter_map(|node| node.status().ok());
        statuses.map(|status| status.counters.get(name).copied().unwrap_or(0)).sum()
    }

    /// The client that was at work is so still, and has noticed nothing.
    #[track_caller]
    fn assert_untouched(&self) {
        let end = Instant::now();
        run::wait_for("the last probes", Duration::from_secs(2), || {
            (end.elapsed() > Duration::from_millis(300)).then_some(())
        })
        .unwrap();
        let account = self.prober.account(self.begun, end);
        assert_eq!((account.lost, account.doubled), (0, 0), "{account:?}");
        let history = self.client.charon.history();
        assert!(history.is_one_undisturbed_session(), "{history:?}");
        println!("untouched: {} probes, longest gap {:?}", account.sent, account.gap_max);
    }
}

#[track_caller]
fn assert_refused(ended: &Ended, words: &[&str]) {
    let said: Vec<&str> = ended.said.lines().filter(|line| line.starts_with("cryptocluster: ")).collect();
    let [sentence] = said[..] else { panic!("one sentence was expected: {}", ended.said) };
    println!("said: {sentence}");
    for word in words {
        assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
    }
    assert_eq!(ended.code, MACHINE);
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from:?} is not in {}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn each_refused_login_is_told_with_its_remedy_and_touches_no_session() {
    // The connection by secret takes any identity in the lab's own file.
    let scene = Scene::set(3, |cluster| edit(&cluster.config_file(), "id = \"any\"", "id = \"*.lab.test\""));
    let tomorrow = OffsetDateTime::now_utc() + time::Duration::days(1);
    let early = scene.cluster.authority().issue_from("guest.lab.test", KeyKind::EcdsaP256, &[], tomorrow).unwrap();
    let foreign = Authority::new("Another CA").unwrap().issue("guest.lab.test", KeyKind::EcdsaP256, &[]).unwrap();
    let rows = [
        (
            "wrong secret",
            Guest { proof: Proof::PreSharedKey("not the secret"), ..Guest::default() },
            "auth_failed",
            ["the pre-shared keys of the two sides differ", "psk_file"],
            "AUTHENTICATION_FAILED",
        ),
        (
            "unknown peer",
            Guest { identity: "guest.example.org", ..Guest::default() },
            "unknown_identity",
            ["unknown peer", "remote.id"],
            "AUTHENTICATION_FAILED",
        ),
        (
            "no common IKE proposal",
            Guest { ike_proposal: "aes256-sha512-modp4096", ..Guest::default() },
            "no_proposal_chosen",
            ["no common proposal", "compare its proposals"],
            "NO_PROPOSAL_CHOSEN",
        ),
        (
            "certificate that begins tomorrow",
            Guest { proof: Proof::Own(&early), ..Guest::default() },
            "certificate",
            ["not valid yet", "check the clocks"],
            "AUTHENTICATION_FAILED",
        ),
        (
            "certificate of another CA",
            Guest { proof: Proof::Own(&foreign), ..Guest::default() },
            "certificate",
            ["issuer is unknown", "add its CA certificate"],
            "AUTHENTICATION_FAILED",
        ),
        (
            "connection of another kind",
            Guest { identity: "guest.bench.test", proof: Proof::PreSharedKey("x"), ..Guest::default() },
            "unknown_identity",
            ["unknown peer", "correct the peer's own identity"],
            "AUTHENTICATION_FAILED",
        ),
    ];
    for ((what, guest, reason, words, told), number) in rows.into_iter().zip(2..) {
        let counter = format!("ike_refused_{reason}");
        let before = scene.counted(&counter);
        let client = scene.cluster.guest(number, &guest).unwrap();
        assert!(client.charon.connect().is_err(), "{what}: it may not connect");
        println!("{what}:");
        // One that came before has the same line in some log; its node may be another, or keep quiet about a second one.
        scene.logged(&["login refused", words[0], words[1]]);
        assert!(client.charon.log().contains(told), "{what}: strongSwan is told {told}: {}", client.charon.log());
        assert!(scene.counted(&counter) > before, "{what}: {counter} counts it");
    }
    scene.assert_untouched();
    assert_eq!(scene.cluster.sessions().iter().filter(|session| session.identity.is_some()).count(), 1);
}

#[test]
fn a_node_that_may_not_start_or_join_says_why_and_the_cluster_goes_on() {
    let mut scene = Scene::set(2, |_| {});
    let files = scene.cluster.part_files(3).unwrap();

    let port = scene.cluster.nodes[2].namespace().within(|| Ok(UdpSocket::bind("0.0.0.0:4500")?)).unwrap();
    assert_refused(&scene.cluster.nodes[2].run_to_end(&[]).unwrap(), &["port 4500", "taken", "ss -ulpn"]);
    drop(port);
    let port = scene.cluster.nodes[2].namespace().within(|| Ok(UdpSocket::bind("10.255.0.13:4510")?)).unwrap();
    assert_refused(&scene.cluster.nodes[2].run_to_end(&[]).unwrap(), &["port 4510", "10.255.0.13", "taken"]);
    drop(port);

    let hide = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$0\" \"$@\""];
    assert_refused(&scene.cluster.nodes[2].run_to_end(&hide).unwrap(), &["/dev/net/tun", "modprobe tun"]);

    // The same machine image twice: the copy must not fight with the first for every packet.
    let copy = scene.cluster.copy_of(2).unwrap();
    let words = ["another machine", "10.255.0.12", "node n2", "stop it"];
    let ended = copy.run_to_end(&[]).unwrap();
    assert!(["198.51.100.12", "10.1.0.12", "10.255.0.12"].iter().any(|address| ended.said.contains(address)));
    assert_refused(&ended, &[words[0], words[2], words[3]]);

    // A second program on one machine.
    let ended = scene.cluster.nodes[1].run_to_end(&[]).unwrap();
    assert_refused(&ended, &["another node runs here already", "run_directory"]);

    let authority = Authority::new("Lab cluster CA").unwrap();
    let tomorrow = OffsetDateTime::now_utc() + time::Duration::days(1);
    let early = authority.issue_from("n3", KeyKind::EcdsaP256, &[], tomorrow).unwrap();
    let (good, key) = (files.join("n3.crt"), files.join("n3.key"));
    let kept = (fs::read(&good).unwrap(), fs::read(&key).unwrap());
    early.write(&good, &key).unwrap();
    assert_refused(&scene.cluster.nodes[2].run_to_end(&[]).unwrap(), &["n3.crt", "not valid yet", "check the clocks"]);

    // It starts, because only the others can know that it may not join.
    authority.issue("n3", KeyKind::EcdsaP256, &[]).unwrap().write(&good, &key).unwrap();
    scene.cluster.nodes[2].start().unwrap();
    scene.logged(&["no link to", "CA"]);
    scene.cluster.nodes[2].kill();

    fs::write(&good, kept.0).unwrap();
    fs::write(&key, kept.1).unwrap();
    edit(&files.join("cluster.toml"), "version = 1", "version = 2");
    scene.cluster.nodes[2].start().unwrap();
    let hash = |at: usize| scene.cluster.nodes[at].status().unwrap().config_hash;
    let (ours, theirs) = (hash(0), hash(2));
    scene.logged(&["configuration", &ours, &theirs]);
    assert_eq!(scene.cluster.nodes[2].status().unwrap().state, "joining");
    scene.cluster.nodes[2].kill();
    scene.assert_untouched();
    let view = scene.cluster.nodes[0].status().unwrap().view.unwrap();
    assert_eq!(view.members.len(), 2, "nobody was let in");
}
