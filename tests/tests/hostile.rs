//! Damaged datagrams by the million: nothing crashes, nothing grows, no session ends.

use std::time::{Duration, Instant};

use lab::cluster::{Cluster, OUTSIDE_ADDRESS};
use lab::echo::{EchoServer, Prober};
use lab::hostile::Specimens;
use lab::run;

/// More than this a node may not grow, in KiB: what its bounded tables and buffers take.
const GROWTH_MAX: u64 = 32 * 1024;

#[test]
fn a_million_damaged_ike_and_esp_datagrams_harm_nothing() {
    let mut cluster = Cluster::build(1).unwrap();
    cluster.start().unwrap();
    let client = cluster.client(1).unwrap();
    let echo = cluster.server_address(7);
    let _echo = EchoServer::start(&cluster.server, echo).unwrap();
    let mut prober = None;
    let specimens = Specimens::collect(&cluster.outside, &[500, 4500], || {
        let address = client.charon.connect()?;
        prober = Some(Prober::start(&client.namespace, address, echo, 100)?);
        client.charon.swanctl(&["--rekey", "--child", "lab"])?;
        Ok(())
    })
    .unwrap();
    let prober = prober.unwrap();
    let attacker = cluster.outside_host("attacker", 250).unwrap();
    run::wait_for("the rekeying", Duration::from_secs(5), || {
        (client.charon.history().create_child_sa == 1).then_some(())
    })
    .unwrap();
    let history = client.charon.history();
    let before = cluster.nodes[0].process().unwrap().resident_kib();
    for round in 0..10 {
        specimens.attack(&attacker, OUTSIDE_ADDRESS.into(), 100_000, round).unwrap();
        assert!(cluster.nodes[0].is_running(), "the node ended in round {round}: {}", cluster.nodes[0].log());
    }
    let after = cluster.nodes[0].process().unwrap().resident_kib();
    assert!(after < before + GROWTH_MAX, "the node grew from {before} to {after} KiB");
    run::wait_for("probes to flow undisturbed", Duration::from_secs(5), || {
        let end = Instant::now().checked_sub(Duration::from_millis(200))?;
        let account = prober.account(end.checked_sub(Duration::from_millis(500))?, end);
        (account.lost == 0 && account.sent > 20).then_some(())
    })
    .unwrap();
    assert_eq!(client.charon.history(), history);
}

#[test]
fn damaged_cluster_datagrams_do_not_disturb_three_nodes() {
    let mut cluster = Cluster::build(3).unwrap();
    let specimens = {
        let link = cluster.link.clone();
        let mut started = Ok(());
        let specimens = Specimens::collect(&link, &[4510], || {
            started = cluster.start();
            Ok(())
        });
        started.unwrap();
        specimens.unwrap()
    };
    let master = cluster.master().unwrap();
    let attacker = cluster.link_host("attacker", 250).unwrap();
    for round in 0..10 {
        for host in 11..=13 {
            specimens.attack(&attacker, [10, 255, 0, host].into(), 10_000, round).unwrap();
        }
    }
    for node in &mut cluster.nodes {
        assert!(node.is_running(), "{} ended: {}", node.name(), node.log());
    }
    cluster.await_formed(Duration::from_secs(2)).unwrap();
    assert_eq!(cluster.master().unwrap(), master);
}
