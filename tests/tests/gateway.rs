//! One node of ours with strongSwan and with our own load tool before it.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use lab::cluster::{Cluster, SERVER};
use lab::echo::{EchoServer, Prober};
use lab::http::{Download, Server, expected_sha256};
use lab::load::Counts;
use lab::observer::Observer;
use lab::run;

const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVER, 7);

fn one_node() -> Cluster {
    let mut cluster = Cluster::build(1).unwrap();
    cluster.start().unwrap();
    cluster
}

#[test]
fn strongswan_connects_by_certificate_and_downloads_through_one_node() {
    let mut cluster = Cluster::build(1).unwrap();
    let client = cluster.client(1).unwrap();
    let observer = Observer::start(&cluster.outside, cluster.rules()).unwrap();
    cluster.start().unwrap();
    let address = client.charon.connect().unwrap();
    let web = cluster.server_address(8080);
    let _server = Server::start(&cluster.server, web).unwrap();
    let bytes = 20_000_000;
    let download = Download::start(&client.namespace, address, web, bytes, Duration::ZERO).unwrap();
    assert_eq!(download.finish().unwrap().sha256, expected_sha256(bytes));
    assert!(client.charon.history().is_one_undisturbed_session(), "{:?}", client.charon.history());
    let report = observer.finish().unwrap();
    assert_eq!((report.broken, report.dropped), (0, 0), "{:?}", report.violations);
    assert!(report.ports["n1"].esp > bytes / 1_360, "{:?}", report.ports);
}

#[test]
fn strongswan_rekeys_both_sas_and_no_packet_is_lost() {
    let cluster = one_node();
    let client = cluster.client(1).unwrap();
    let address = client.charon.connect().unwrap();
    let _echo = EchoServer::start(&cluster.server, ECHO.into()).unwrap();
    let start = Instant::now();
    let prober = Prober::start(&client.namespace, address, ECHO.into(), 200).unwrap();
    client.charon.swanctl(&["--rekey", "--child", "lab"]).unwrap();
    client.charon.swanctl(&["--rekey", "--ike", "lab"]).unwrap();
    run::wait_for("both rekeyings", Duration::from_secs(10), || {
        (client.charon.history().create_child_sa >= 2).then_some(())
    })
    .unwrap();
    let end = Instant::now() + Duration::from_secs(1);
    run::wait_for("a second of traffic after them", Duration::from_secs(5), || (Instant::now() > end).then_some(()))
        .unwrap();
    let account = prober.account(start, end - Duration::from_millis(300));
    assert_eq!((account.lost, account.doubled), (0, 0), "{account:?}");
    assert!(account.sent > 100, "{account:?}");
}

#[test]
fn a_hundred_sessions_come_up_by_pre_shared_key_and_each_passes_traffic() {
    let cluster = one_node();
    let outside = cluster.outside_host("load", 200).unwrap();
    let _echo = EchoServer::start(&cluster.server, ECHO.into()).unwrap();
    let load = cluster.load(&outside, 200, cluster.pre_shared_key()).unwrap();
    load.open(100, 20, Duration::from_secs(20)).unwrap();
    assert_eq!(load.echo_all(ECHO, Duration::from_secs(5)).unwrap(), 0, "sessions without an echo");
    assert_eq!(load.probe_all(Duration::from_secs(5)).unwrap(), 0, "sessions without a liveness exchange");
    assert_eq!(load.counts(), Counts { up: 100, opened: 100, ..Counts::default() });
}

#[test]
fn a_wrong_secret_is_refused_and_running_sessions_are_untouched() {
    let cluster = one_node();
    let outside = cluster.outside_host("load", 200).unwrap();
    let _echo = EchoServer::start(&cluster.server, ECHO.into()).unwrap();
    let load = cluster.load(&outside, 200, cluster.pre_shared_key()).unwrap();
    load.open(1, 1, Duration::from_secs(10)).unwrap();
    let intruder = cluster.outside_host("intruder", 201).unwrap();
    let refused = cluster.load(&intruder, 201, "not the secret").unwrap();
    assert!(refused.open(1, 1, Duration::from_secs(10)).is_err());
    assert_eq!(load.echo_all(ECHO, Duration::from_secs(5)).unwrap(), 0);
    assert_eq!(load.counts(), Counts { up: 1, opened: 1, ..Counts::default() });
}
