//! What the packet filter costs: the kernel runs it on one frame many times over, and the same for an empty program.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cluster::dispatch::{ClusterAddress, HashKey, Owner, Port, PortUse, Reason, Side, SideConfig, Subnet, Tables};
use gateway::dispatch::{Dispatch, Entry};
use rustix::thread::{CpuSet, sched_setaffinity};
use wire::{Prefix, Slot, Time, WorkSet};

use crate::figures::{Bound, Figures, median};

const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);
const CLUSTER_MAC: [u8; 6] = [0x02, 0xcc, 192, 0, 2, 1];
const HOSTS: u32 = 10_000;
const PREFIXES: u32 = 1_000;
/// Destinations that are measured in turn, so that no look-up is always the same.
const SAMPLES: u32 = 64;
const REPEAT: u32 = 3_000;
const ROUNDS: usize = 31;

/// Measures the program as attached: tc and XDP, each less its empty program.
pub(super) fn run() -> Result<Figures> {
    let mut figures = Figures::new("dispatch");
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).context("stay on one processor")?;
    let dispatch = Dispatch::unattached(tables()).context("the bench loads BPF programs, so it must run as root")?;
    let filled = Instant::now();
    for n in 0..HOSTS {
        dispatch.put_inner(Prefix::host(inner_host(n).into()), WorkSet::from_low_bits(n.into()))?;
    }
    for n in 0..PREFIXES {
        let prefix = Prefix::new(inner_prefix(n).into(), 24).context("a prefix")?;
        dispatch.put_inner(prefix, WorkSet::from_low_bits(n.into()))?;
    }
    let filled = filled.elapsed();

    let mine = WorkSet::new(2).context("a work set")?;
    let esp = udp(CLIENT, CLUSTER, 4500, &[&[0xab, 0xcd, 0x04, 0x02][..], &[0; 60]].concat());
    let other = udp(CLIENT, CLUSTER, 4500, &[&[0xab, 0xcd, 0x04, 0x03][..], &[0; 60]].concat());
    let ike = udp(CLIENT, CLUSTER, 500, &[&[7; 8][..], &[0; 8], &[33, 0x20, 34, 8], &[0; 60]].concat());
    let tcp = ipv4(CLIENT, CLUSTER, 6, &[&[0x30, 0x39, 0x01, 0xbb][..], &[0; 60]].concat());
    let to_host: Vec<_> = (0..SAMPLES).map(|n| udp(HOST, inner_host(n * 157 % HOSTS), 9, &[0; 60])).collect();
    let to_prefix: Vec<_> = (0..SAMPLES)
        .map(|n| udp(HOST, Ipv4Addr::from_bits(inner_prefix(n * 31 % PREFIXES).to_bits() | 7), 9, &[0; 60]))
        .collect();
    let elsewhere: Vec<_> =
        (0..SAMPLES).map(|n| udp(HOST, Ipv4Addr::from_bits(0x0808_0000 | n), 9, &[0; 60])).collect();
    let from_cluster = udp(CLUSTER, CLIENT, 4500, &[&[0xab, 0xcd, 0x04, 0x02][..], &[0; 60]].concat());
    let from_inner: Vec<_> = (0..SAMPLES).map(|n| udp(inner_host(n * 157 % HOSTS), HOST, 9, &[0; 60])).collect();

    ensure!(dispatch.explain(Side::Outside, &esp)?.set == Some(mine), "the bench's frame is not what it should be");
    for frame in &to_host {
        let reason = dispatch.explain(Side::Inside, frame)?.reason;
        ensure!([Reason::Owned, Reason::OtherOwner].contains(&reason), "a routed frame was judged {reason:?}");
    }

    let (cluster, routed) = (Some(Bound::AtMost(25.0)), Some(Bound::AtMost(60.0)));
    let one = |frame: &Vec<u8>| vec![frame.clone()];
    let rows = [
        ("tc_esp_in_udp_owned", Entry::TcInOutside, one(&esp), cluster),
        ("tc_esp_in_udp_other_owner", Entry::TcInOutside, one(&other), cluster),
        ("tc_ike_new", Entry::TcInOutside, one(&ike), cluster),
        ("tc_tcp_service", Entry::TcInOutside, one(&tcp), cluster),
        ("xdp_esp_in_udp_owned", Entry::XdpOutside, one(&esp), cluster),
        ("tc_routed_to_host", Entry::TcInInside, to_host.clone(), routed),
        ("tc_routed_to_prefix", Entry::TcInInside, to_prefix.clone(), routed),
        ("tc_routed_elsewhere", Entry::TcInInside, elsewhere, routed),
        ("xdp_routed_to_host", Entry::XdpInside, to_host, routed),
        ("xdp_routed_to_prefix", Entry::XdpInside, to_prefix, routed),
        ("tc_out_from_cluster", Entry::TcOutOutside, one(&from_cluster), None),
        ("tc_out_from_inner", Entry::TcOutOutside, from_inner, None),
    ];
    let mut costs: Vec<Vec<Cost>> = rows.iter().map(|(_, _, frames, _)| vec![Cost::default(); frames.len()]).collect();
    for _ in 0..ROUNDS {
        for ((name, entry, frames, _), costs) in rows.iter().zip(&mut costs) {
            let empty = if name.starts_with("xdp") { Entry::EmptyXdp } else { Entry::EmptyTc };
            for (frame, cost) in frames.iter().zip(costs) {
                cost.measure(&dispatch, *entry, empty, frame)?;
            }
        }
    }
    for ((name, _, _, bound), costs) in rows.iter().zip(&costs) {
        let net: f64 = costs.iter().map(|cost| cost.whole - cost.empty).sum();
        figures.add(name, net / f64::from(u32::try_from(costs.len())?), "ns", *bound);
    }
    figures.add("owners_1024", owners_cost(&dispatch), "us", Some(Bound::AtMost(1_000.0)));
    let entries = f64::from(HOSTS + PREFIXES);
    figures.add("inner_entry", filled.as_secs_f64() * 1e6 / entries, "us", None);
    Ok(figures)
}

/// Nanoseconds that one frame costs, and the same with an empty program: for each the best of several short runs, since
/// whatever else the machine does only adds. The rounds go over all frames in turn, so that a slow moment of the machine
/// takes one run from each, not all runs from one.
#[derive(Clone, Copy)]
struct Cost {
    whole: f64,
    empty: f64,
}

impl Default for Cost {
    fn default() -> Self {
        Self { whole: f64::INFINITY, empty: f64::INFINITY }
    }
}

impl Cost {
    fn measure(&mut self, dispatch: &Dispatch, entry: Entry, empty: Entry, frame: &[u8]) -> Result<()> {
        self.whole = self.whole.min(nanos(dispatch.rehearse(entry, frame, REPEAT)?.duration));
        self.empty = self.empty.min(nanos(dispatch.rehearse(empty, frame, REPEAT)?.duration));
        Ok(())
    }
}

/// Microseconds to write all owners.
fn owners_cost(dispatch: &Dispatch) -> f64 {
    let fence = dispatch.fence();
    let rounds: Vec<f64> = (0..100)
        .map(|_| {
            let start = Instant::now();
            WorkSet::all().for_each(|set| fence.set_owner(set, Owner::Nobody));
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    median(&rounds)
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

fn tables() -> Tables {
    let mut tables = Tables::new(HashKey::new(*b"a key for tests!"));
    tables.addresses = vec![ClusterAddress { address: CLUSTER, side: Side::Outside }];
    tables.outside = SideConfig { cluster_mac: CLUSTER_MAC, node_mac: [2; 6], subnet: None, carries_inner: false };
    let subnet = Some(Subnet { address: HOST, length: 24 });
    tables.inside = SideConfig { cluster_mac: CLUSTER_MAC, node_mac: [2; 6], subnet, carries_inner: true };
    tables.lease_until = Time { nanos: u64::MAX };
    for set in WorkSet::all() {
        let slot = Slot::default();
        tables.set_owner(set, if set.index() % 2 == 0 { Owner::Myself(slot) } else { Owner::Other(slot) });
    }
    for number in [500, 4500] {
        tables.set_port(number, Port::default().with(PortUse::UdpServiceQueueing));
    }
    tables.set_port(443, Port::default().with(PortUse::TcpService));
    tables
}

/// A client's address out of 10.9.0.0/16.
fn inner_host(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a09_0000 + n)
}

/// A branch's network out of 172.16.0.0/12, next to others.
fn inner_prefix(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xac10_0000 + (n << 8))
}

fn udp(source: Ipv4Addr, destination: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let header = [&7_777_u16.to_be_bytes()[..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload];
    ipv4(source, destination, 17, &header.concat())
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 20).unwrap_or(u16::MAX).to_be_bytes();
    let header = [&[0x45, 0][..], &length, &[0, 0, 0x40, 0, 64, protocol, 0, 0]].concat();
    let ethernet = [&CLUSTER_MAC[..], &[2, 0, 0, 0, 0, 0x77], &[8, 0]].concat();
    [&ethernet[..], &header, &source.octets(), &destination.octets(), payload].concat()
}
