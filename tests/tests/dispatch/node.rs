//! A node that owns every third work set for ever and answers with its number: a process of its own, to be killed.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use cluster::dispatch::{ClusterAddress, HashKey, Owner, PortUse, Reason, Side, Subnet};
use gateway::dispatch::{Dispatch, DispatchConfig, InterfaceConfig, Keeper, boot_time, cluster_mac};
use wire::{Slot, WorkSet};

pub(crate) const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const INSIDE_CLUSTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub(crate) const NODES: u8 = 3;
pub(crate) const KEY: [u8; 16] = *b"a key for tests!";
pub(crate) const UDP: u16 = 7000;
pub(crate) const TCP: u16 = 7001;
/// Inner addresses inside the attached subnet: one that a client has, and one that nobody has.
pub(crate) const PRESENT: &str = "10.1.0.130";
pub(crate) const ABSENT: &str = "10.1.0.131";
/// Far longer than a real lease, so that the test sees what happens before it ends.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
pub(crate) const REPORT: Duration = Duration::from_millis(50);

pub(crate) const NUMBER: &str = "DISPATCH_TEST_NODE";
pub(crate) const PINS: &str = "DISPATCH_TEST_PINS";
pub(crate) const KEEPER: &str = "DISPATCH_TEST_KEEPER";

/// Both ways to hold the program on an interface.
pub(crate) const KEEPERS: [Keeper; 2] = [Keeper::Tcx, Keeper::Clsact];

pub(crate) fn address(address: Ipv4Addr) -> ClusterAddress {
    ClusterAddress { address, side: Side::Outside }
}

pub(crate) fn config(pins: String, keeper: Keeper) -> DispatchConfig {
    let interface = |name: &str, address, carries_inner| InterfaceConfig {
        name: name.to_owned(),
        cluster_mac: cluster_mac(address),
        subnet: Some(Subnet { address, length: 24 }),
        carries_inner,
    };
    DispatchConfig {
        directory: pins.into(),
        key: HashKey::new(KEY),
        addresses: vec![address(CLUSTER), ClusterAddress { address: INSIDE_CLUSTER, side: Side::Inside }],
        outside: interface("out", CLUSTER, false),
        inside: Some(interface("in", INSIDE_CLUSTER, true)),
        keeper: Some(keeper),
    }
}

/// The last value of a counter that a node has reported.
pub(crate) fn counter(said: &str, reason: Reason) -> u64 {
    let report = said.lines().rev().find_map(|line| line.strip_prefix("counters ")).unwrap_or_default();
    let mut values = report.split(' ').filter_map(|entry| entry.split_once('='));
    values.find(|(label, _)| *label == reason.label()).map_or(0, |(_, value)| value.parse().unwrap())
}

#[test]
#[ignore = "the program that the other tests start as a node"]
fn runs_as_a_process_of_its_own() {
    // Only a test of this file starts a node.
    let Ok(number) = std::env::var(NUMBER) else { return };
    let number: u8 = number.parse().unwrap();
    let keeper = std::env::var(KEEPER).unwrap();
    let keeper = KEEPERS.into_iter().find(|known| format!("{known:?}") == keeper).unwrap();
    let dispatch = Dispatch::attach(&config(std::env::var(PINS).unwrap(), keeper)).unwrap();
    println!("taken over: {}", dispatch.attached().iter().all(|attached| attached.taken_over));
    for address in [CLUSTER, INSIDE_CLUSTER] {
        // It is there already if this node comes back.
        Command::new("ip").args(["addr", "replace", &format!("{address}/32"), "dev", "lo"]).status().unwrap();
    }
    let udp = UdpSocket::bind((CLUSTER, UDP)).unwrap();
    let tcp = TcpListener::bind((CLUSTER, TCP)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(&[number], from).ok();
        }
    });
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = tcp.accept() {
            stream.write_all(&[number]).ok();
            kept.push(stream);
        }
    });
    let fence = dispatch.fence();
    for set in WorkSet::all() {
        let owner = Slot::new(u8::try_from(set.index() % u16::from(NODES)).unwrap()).unwrap();
        let owner = if owner.number() == number { Owner::Myself(owner) } else { Owner::Other(owner) };
        fence.set_owner(set, owner);
    }
    dispatch.protect("10.1.0.128/25".parse().unwrap()).unwrap();
    dispatch.put_inner(PRESENT.parse().unwrap(), WorkSet::new(7).unwrap()).unwrap();
    dispatch.set_services(&[(UDP, PortUse::UdpService), (TCP, PortUse::TcpService)]);
    fence.set_lease(boot_time() + LEASE);
    println!("serving");
    loop {
        fence.set_lease(boot_time() + LEASE);
        let counters = dispatch.counters().unwrap();
        let counters: Vec<String> =
            counters.iter().map(|(reason, count)| format!("{}={count}", reason.label())).collect();
        println!("counters {}", counters.join(" "));
        std::thread::sleep(REPORT);
    }
}
