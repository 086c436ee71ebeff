//! Sessions as the operator sees them, over moves and deaths of their nodes, and what becomes of what they hold.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use lab::cluster::{Cluster, Guest, Node, Session};
use lab::run;

const CLIENT_ID: &str = "c1.lab.test";

fn edit(cluster: &Cluster, from: &str, to: &str) {
    let text = fs::read_to_string(cluster.config_file()).unwrap();
    assert!(text.contains(from), "{from:?} is not in cluster.toml");
    fs::write(cluster.config_file(), text.replace(from, to)).unwrap();
}

/// The sessions of an identity, as the running nodes agree on them.
fn of(cluster: &Cluster, identity: &str) -> Vec<Session> {
    let is_it = |session: &Session| session.identity.as_deref() == Some(identity);
    cluster.sessions().into_iter().filter(is_it).collect()
}

#[test]
fn every_node_shows_every_session_and_its_past_survives_its_node() {
    let mut cluster = Cluster::build(3).unwrap();
    cluster.start().unwrap();
    let client = cluster.client(1).unwrap();
    let address = client.charon.connect().unwrap();
    client.charon.swanctl(&["--rekey", "--child", "lab"]).unwrap();
    run::wait_for("the rekeying", Duration::from_secs(5), || {
        of(&cluster, CLIENT_ID).first().filter(|session| session.child_rekeys == 1).map(|_| ())
    })
    .unwrap();
    let owner = cluster.owner_of(CLIENT_ID).unwrap();
    for node in &cluster.nodes {
        let shown = node.sessions().unwrap();
        let [session] = &shown[..] else { panic!("{} shows {shown:?}", node.name()) };
        assert_eq!((&session.owner, session.inner_address), (&owner, Some(address)), "{}", node.name());
        assert_eq!(session.as_of, if node.name() == owner { "owner" } else { "replica" });
    }
    let drained = cluster.nodes[0].drain(&owner).unwrap();
    println!("{drained:?}");
    assert!(drained.moved_sets > 300 && drained.moved_sessions == 1 && drained.duration_ms > 0, "{drained:?}");
    assert_eq!(drained.lost_packets, Some(0));
    let heir = cluster.owner_of(CLIENT_ID).unwrap();
    assert_ne!(heir, owner);
    cluster.node(&heir).unwrap().kill();
    let last = run::wait_for("a node to take the session over", Duration::from_secs(5), || {
        let session = of(&cluster, CLIENT_ID).pop()?;
        (session.owner != heir && session.as_of == "owner").then_some(session)
    })
    .unwrap();
    assert_eq!(last.child_rekeys, 1, "the rekeying was two nodes ago: {last:?}");
    assert!(last.established_s.is_some(), "{last:?}");
}

#[test]
fn names_and_addresses_of_peers_appear_once_the_log_is_set_to_debug() {
    let mut cluster = Cluster::build(1).unwrap();
    cluster.start().unwrap();
    let (quiet, loud) = (cluster.client(1).unwrap(), cluster.client(2).unwrap());
    quiet.charon.connect().unwrap();
    cluster.nodes[0].log_level("debug").unwrap();
    loud.charon.connect().unwrap();
    let log = cluster.nodes[0].log();
    assert_eq!(log.matches("session is up").count(), 2, "{log}");
    assert!(!log.contains(CLIENT_ID) && !log.contains("198.51.100.101"), "{log}");
    assert!(log.contains("c2.lab.test") && log.contains("198.51.100.102"), "{log}");
}

#[test]
fn orders_that_cannot_be_carried_out_name_the_next_step() {
    let mut cluster = Cluster::build(2).unwrap();
    cluster.nodes[0].start().unwrap();
    cluster.nodes[1].start().unwrap();
    cluster.await_formed(Duration::from_secs(20)).unwrap();
    let node = &cluster.nodes[0];
    let rows = [
        (node.drain("n7").map(|_| ()), ["there is no node n7", "n1, n2"]),
        (node.undrain("n2"), ["n2 was not drained", "work sets"]),
    ];
    for (outcome, words) in rows {
        let error = format!("{:#}", outcome.unwrap_err());
        println!("{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    node.drain("n2").unwrap();
    let error = format!("{:#}", node.drain("n1").unwrap_err());
    println!("{error}");
    assert!(error.contains("last node at work") && error.contains("undrain"), "{error}");
    node.undrain("n2").unwrap();
    cluster.nodes[1].kill();
    run::wait_for("n2 to be voted out", Duration::from_secs(10), || {
        let view = cluster.nodes[0].status().ok()?.view?;
        (view.members.len() == 1).then_some(())
    })
    .unwrap();
    let error = format!("{:#}", cluster.nodes[0].drain("n2").unwrap_err());
    println!("{error}");
    assert!(error.contains("not in the cluster now") && error.contains("its log"), "{error}");
}

#[test]
fn an_identity_that_connects_anew_ends_its_old_session_on_whichever_node() {
    let mut cluster = Cluster::build(3).unwrap();
    edit(&cluster, "unique = \"keep\"", "unique = \"replace\"");
    cluster.start().unwrap();
    let mut homes = BTreeSet::new();
    let mut before: Option<Session> = None;
    // The home of a login is the dice's: some logins until the old and the new one lived on different nodes.
    for number in 1..20 {
        let mut client = cluster.guest(number, &Guest { identity: CLIENT_ID, ..Guest::default() }).unwrap();
        client.charon.connect().unwrap();
        let now = run::wait_for("one session of the identity", Duration::from_secs(5), || {
            let sessions = of(&cluster, CLIENT_ID);
            (sessions.len() == 1).then(|| sessions.into_iter().next())?
        })
        .unwrap();
        if let Some(before) = before.take() {
            assert_ne!(before.session, now.session, "the old session is the one that ended");
            homes.insert((before.owner, now.owner.clone()));
        }
        before = Some(now);
        // It goes without a word, as a machine that lost its power.
        client.charon.process().kill();
        if homes.iter().any(|(old, new)| old != new) {
            println!("{homes:?}");
            let logs: String = cluster.nodes.iter().map(Node::log).collect();
            assert!(logs.contains("the same identity has connected anew"), "{logs}");
            return;
        }
    }
    panic!("no login went to another node: {homes:?}");
}

#[test]
fn addresses_that_come_back_while_their_pool_loses_its_node_are_free_again() {
    let mut cluster = Cluster::build(3).unwrap();
    edit(&cluster, "half_open_max = 20000", "half_open_max = 20000\nhalf_open_time = \"2s\"");
    cluster.start().unwrap();
    let outside = cluster.outside_host("load", 200).unwrap();
    let load = cluster.load(&outside, 200, cluster.pre_shared_key()).unwrap();
    load.open(200, 20, Duration::from_secs(20)).unwrap();
    assert_eq!(pool_used(&cluster), 200);
    // Who gives the pool's addresses dies while all clients go: what the other nodes give back may reach nobody.
    let keeper = cluster.nodes.iter_mut().find(|node| pool_used_at(node).is_some()).unwrap();
    std::thread::scope(|scope| {
        // A client whose answer died with the node asks in vain, and gives up later.
        scope.spawn(|| load.close_all(Duration::from_secs(2)).ok());
        let begun =
            run::wait_for("the first goodbye", Duration::from_secs(5), || (load.counts().up < 200).then_some(()));
        begun.unwrap();
        keeper.kill();
    });
    println!("the clients are gone; {} addresses are in use", pool_used(&cluster));
    let limit = Duration::from_secs(60);
    run::wait_for("all addresses to be free", limit, || (pool_used(&cluster) == 0).then_some(())).unwrap();
    let logs: String = cluster.nodes.iter().map(Node::log).collect();
    println!("{} were reclaimed", logs.matches("an address was given to a session that never came up").count());
    // Nobody's address is taken who is there.
    let load = {
        drop(load);
        cluster.load(&outside, 200, cluster.pre_shared_key()).unwrap()
    };
    load.open(50, 20, Duration::from_secs(20)).unwrap();
    assert_eq!(pool_used(&cluster), 50);
}

/// How many addresses are in use, as the node says that gives them.
fn pool_used(cluster: &Cluster) -> u64 {
    cluster.nodes.iter().filter_map(pool_used_at).sum()
}

fn pool_used_at(node: &Node) -> Option<u64> {
    node.status().ok()?.counters.get("pool_clients_used").copied()
}
