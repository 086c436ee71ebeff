//! Damaged datagrams by the million: nothing crashes, nothing grows, no session ends.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lab::cluster::{Cluster, Node, OUTSIDE_ADDRESS};
use lab::echo::{EchoServer, Prober};
use lab::hostile::{Specimens, Tally};
use lab::run;

/// More than this no node may grow while it is attacked, in KiB: what its bounded tables and buffers take.
const GROWTH_MAX: u64 = 24 * 1024;
/// Rounds, each of so many datagrams to the peers' ports and to the nodes' own.
const ROUNDS: u64 = 10;
const TO_CLUSTER: usize = 60_000;
const TO_NODES: usize = 40_000;
/// Where keepalives come from and go to.
const KEEPALIVES: u16 = 4511;

#[test]
fn a_million_damaged_ike_esp_and_cluster_datagrams_harm_nothing() {
    let mut cluster = Cluster::build(3).unwrap();
    let link = cluster.link.clone();
    let between = Specimens::collect(&link, &[4510, 4511], || cluster.start()).unwrap();
    let client = cluster.client(1).unwrap();
    let echo = cluster.server_address(7);
    let _echo = EchoServer::start(&cluster.server, echo).unwrap();
    let mut prober = None;
    let outside = cluster.outside.clone();
    let from_peers = Specimens::collect(&outside, &[500, 4500], || {
        let address = client.charon.connect()?;
        client.charon.swanctl(&["--rekey", "--child", "lab"])?;
        client.charon.swanctl(&["--rekey", "--ike", "lab"])?;
        let started = prober.insert(Prober::start(&client.namespace, address, echo, 100)?);
        // ESP is to be among the specimens.
        let begun = Instant::now();
        run::wait_for("probes", Duration::from_secs(5), || {
            let account = started.account(begun, Instant::now());
            (account.sent - account.lost > 50).then_some(())
        })
    })
    .unwrap();
    let prober = prober.unwrap();
    let attacker = cluster.outside_host("attacker", 250).unwrap();
    let insider = cluster.link_host("insider", 250).unwrap();
    run::wait_for("the rekeyings", Duration::from_secs(5), || {
        (client.charon.history().create_child_sa >= 2).then_some(())
    })
    .unwrap();
    let history = client.charon.history();
    let sessions = identities(&cluster);
    let (counted, lost) = (counters(&cluster), full_sockets(&cluster));
    let before = resident(&mut cluster);

    let begun = Instant::now();
    let nodes: Vec<IpAddr> = (11..=13).map(|host| [10, 255, 0, host].into()).collect();
    // Nobody looks at keepalives from elsewhere.
    let member = SocketAddr::new(nodes[0], KEEPALIVES);
    let mut sent = Tally::default();
    for round in 0..ROUNDS {
        let (ours, theirs) = std::thread::scope(|scope| {
            let ours = scope.spawn(|| from_peers.attack(&attacker, &[OUTSIDE_ADDRESS.into()], None, TO_CLUSTER, round));
            let theirs = scope.spawn(|| between.attack(&insider, &nodes, Some(member), TO_NODES, round));
            (ours.join().unwrap().unwrap(), theirs.join().unwrap().unwrap())
        });
        sent.add(&ours);
        sent.add(&theirs);
        for node in &mut cluster.nodes {
            assert!(node.is_running(), "{} ended in round {round}: {}", node.name(), node.log());
        }
    }
    let took = begun.elapsed();
    let after = resident(&mut cluster);

    println!("{} damaged datagrams in {:.1} s, by port: {:?}", sent.total(), took.as_secs_f64(), sent.sent);
    println!("damages: {:?}", sent.damages);
    println!("{} found a full socket; what the nodes counted:", full_sockets(&cluster) - lost);
    for (name, count) in counters(&cluster) {
        let more = count.saturating_sub(counted.get(&name).copied().unwrap_or(0));
        if more > 0 {
            println!("  {name} {more}");
        }
    }
    for ((node, before), after) in cluster.nodes.iter().zip(&before).zip(&after) {
        println!("{}: {before} KiB before, {after} KiB after", node.name());
        assert!(*after < before + GROWTH_MAX, "{} grew from {before} to {after} KiB", node.name());
    }
    assert!(sent.total() >= 1_000_000);
    let refused = |name: &str| counters(&cluster).get(name).copied().unwrap_or(0);
    assert!(
        refused("link_keepalives_forged") + refused("link_keepalives_malformed") > 10_000,
        "keepalives were not looked at"
    );

    run::wait_for("probes to flow undisturbed", Duration::from_secs(10), || {
        let end = Instant::now().checked_sub(Duration::from_millis(200))?;
        let account = prober.account(end.checked_sub(Duration::from_millis(500))?, end);
        (account.lost == 0 && account.sent > 20).then_some(())
    })
    .unwrap();
    assert_eq!(client.charon.history(), history, "the client has noticed nothing");
    assert_eq!(identities(&cluster), sessions);
    cluster.await_formed(Duration::from_secs(5)).unwrap();
}

/// The sessions whose peers have proven who they are.
fn identities(cluster: &Cluster) -> Vec<(String, Option<String>)> {
    let sessions = cluster.sessions().into_iter().filter(|session| session.identity.is_some());
    sessions.map(|session| (session.session, session.identity)).collect()
}

/// All counters, summed over the nodes.
fn counters(cluster: &Cluster) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (name, count) in cluster.nodes.iter().filter_map(|node| node.status().ok()).flat_map(|status| status.counters) {
        *sum.entry(name).or_default() += count;
    }
    sum
}

fn resident(cluster: &mut Cluster) -> Vec<u64> {
    cluster.nodes.iter_mut().map(|node| node.process().unwrap().resident_kib()).collect()
}

/// Datagrams that the nodes' kernels dropped because a socket was full.
fn full_sockets(cluster: &Cluster) -> u64 {
    cluster.nodes.iter().map(Node::full_sockets).sum()
}
