//! Three nodes of ours, one address, and strongSwan, which must not notice what happens to them.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use lab::cluster::{Client, Cluster, SERVER, planted_program};
use lab::echo::{EchoServer, Prober};
use lab::observer::{Observer, Report, Rule};
use lab::run;

const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVER, 7);
const CLIENT_ID: &str = "c1.lab.test";

/// A cluster with a client that sends probes through it, under observation.
struct Scene {
    prober: Prober,
    observer: Observer,
    _echo: EchoServer,
    client: Client,
    cluster: Cluster,
}

impl Scene {
    fn set() -> Self {
        Self::set_in(Cluster::build(3).unwrap())
    }

    fn set_in(mut cluster: Cluster) -> Self {
        let client = cluster.client(1).unwrap();
        let observer = Observer::start(&cluster.outside, cluster.rules()).unwrap();
        cluster.start().unwrap();
        let address = client.charon.connect().unwrap();
        let echo = EchoServer::start(&cluster.server, ECHO.into()).unwrap();
        let prober = Prober::start(&client.namespace, address, ECHO.into(), 200).unwrap();
        let scene = Self { prober, observer, _echo: echo, client, cluster };
        scene.flow_for(Duration::from_millis(500));
        scene
    }

    fn flow_for(&self, time: Duration) {
        let end = Instant::now() + time;
        run::wait_for("traffic to flow", time * 2, || (Instant::now() >= end).then_some(())).unwrap();
    }

    /// Ends the scene: whatever happened, strongSwan saw one session and the wire no violation.
    fn end(self) -> Report {
        let history = self.client.charon.history();
        assert!(history.is_one_undisturbed_session(), "{history:?}");
        let report = self.observer.finish().unwrap();
        report.print();
        assert_eq!((report.broken, report.dropped), (0, 0));
        report
    }
}

#[test]
fn the_owner_of_a_session_is_killed_and_the_client_does_not_notice() {
    let mut scene = Scene::set();
    let owner = scene.cluster.owner_of(CLIENT_ID).unwrap();
    let start = Instant::now();
    scene.cluster.node(&owner).unwrap().kill();
    scene.flow_for(Duration::from_secs(2));
    let gap = scene.prober.account(start, Instant::now()).gap_max;
    assert!(gap < Duration::from_millis(500), "nothing flowed for {gap:?}");
    assert_ne!(scene.cluster.owner_of(CLIENT_ID).unwrap(), owner);
    scene.cluster.node(&owner).unwrap().start().unwrap();
    scene.cluster.await_formed(Duration::from_secs(20)).unwrap();
    scene.end();
}

#[test]
fn a_drained_node_hands_its_session_over_without_loss_or_doubles() {
    let mut scene = Scene::set();
    let owner = scene.cluster.owner_of(CLIENT_ID).unwrap();
    let start = Instant::now();
    scene.cluster.node(&owner).unwrap().drain(&owner).unwrap();
    let end = Instant::now();
    scene.flow_for(Duration::from_millis(500));
    let account = scene.prober.account(start, end);
    assert_eq!((account.lost, account.doubled), (0, 0), "{account:?}");
    assert_ne!(scene.cluster.owner_of(CLIENT_ID).unwrap(), owner);
    scene.end();
}

#[test]
fn an_owner_that_stood_still_sends_nothing_of_what_it_no_longer_owns() {
    let mut scene = Scene::set();
    let owner = scene.cluster.owner_of(CLIENT_ID).unwrap();
    scene.cluster.node(&owner).unwrap().process().unwrap().pause();
    scene.flow_for(Duration::from_secs(2));
    scene.cluster.node(&owner).unwrap().process().unwrap().resume();
    scene.flow_for(Duration::from_secs(2));
    let report = scene.end();
    assert_eq!(report.count(Rule::StaleOwner), 0);
}

#[test]
fn a_node_that_is_cut_off_stays_silent_and_comes_back_to_those_that_went_on() {
    let mut scene = Scene::set();
    let owner = scene.cluster.owner_of(CLIENT_ID).unwrap();
    scene.cluster.node(&owner).unwrap().cut().unwrap();
    // Twice as long as the smaller part of a split waits before it looks for others.
    let end = Instant::now() + Duration::from_secs(4);
    run::wait_for("the cut to last", Duration::from_secs(10), || {
        let status = scene.cluster.node(&owner).unwrap().status().unwrap();
        assert!(status.view.is_none_or(|view| view.members.len() > 1), "it went on alone");
        (Instant::now() >= end).then_some(())
    })
    .unwrap();
    let heir = scene.cluster.owner_of(CLIENT_ID).unwrap();
    assert_ne!(heir, owner);
    scene.cluster.node(&owner).unwrap().restore().unwrap();
    scene.cluster.await_formed(Duration::from_secs(20)).unwrap();
    scene.flow_for(Duration::from_millis(500));
    scene.end();
}

#[test]
fn an_heir_that_uses_sequence_numbers_again_is_found_by_the_observer() {
    let mut cluster = Cluster::build(3).unwrap();
    cluster.run_program(&planted_program().unwrap());
    let mut scene = Scene::set_in(cluster);
    assert_eq!(scene.observer.broken(), 0);
    let owner = scene.cluster.owner_of(CLIENT_ID).unwrap();
    scene.cluster.node(&owner).unwrap().kill();
    run::wait_for("a double use on the wire", Duration::from_secs(10), || (scene.observer.broken() > 0).then_some(()))
        .unwrap();
    assert!(scene.observer.finish().unwrap().count(Rule::SequenceTwice) > 0);
}
