//! The kernel's program and its Rust twin say the same of the same frames: real ones, made-up ones, cut at every length,
//! with octets changed. Needs root.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

#[path = "dispatch/frames.rs"]
mod frames;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::dispatch::{
    Action, ClusterAddress, HashKey, Origin, Owner, Port, PortUse, Protocols, Reason, Side, SideConfig, Subnet, Tables,
    Verdict,
};
use gateway::dispatch::{Dispatch, Entry, boot_time};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::{Slot, Time, WorkSet};

use frames::{CLUSTER_MAC, Maker, NODE_MAC};

fn tables(lease_until: Time) -> Tables {
    let mut tables = Tables::new(HashKey::new(*b"a key for tests!"));
    tables.addresses = vec![
        ClusterAddress { address: frames::OUTSIDE, side: Side::Outside },
        ClusterAddress { address: frames::INSIDE, side: Side::Inside },
    ];
    tables.outside = SideConfig { cluster_mac: CLUSTER_MAC, node_mac: NODE_MAC, subnet: None, carries_inner: false };
    tables.inside = SideConfig {
        cluster_mac: CLUSTER_MAC,
        node_mac: NODE_MAC,
        subnet: Some(Subnet { address: frames::INSIDE, length: 24 }),
        carries_inner: true,
    };
    tables.protocols = Protocols { esp: true, ah: true, gre: true };
    tables.lease_until = lease_until;
    let slot = Slot::new(3).unwrap();
    for set in WorkSet::all() {
        let owners = [Owner::Myself(slot), Owner::Other(slot), Owner::Queueing(slot), Owner::Nobody];
        tables.set_owner(set, owners[usize::from(set.index() % 4)]);
    }
    let both = Port::default().with(PortUse::TcpService).with(PortUse::UdpService);
    for number in [500, 4500, 1701] {
        tables.set_port(number, Port::default().with(PortUse::UdpServiceQueueing));
    }
    tables.set_port(443, both);
    tables.set_port(1723, Port::default().with(PortUse::TcpService));
    tables.set_port(40_001, Port::default().with(PortUse::UdpAsked).with(PortUse::TcpAsked));
    for (prefix, home) in frames::INNER {
        tables.inner.set_home(prefix.parse().unwrap(), WorkSet::new(home));
    }
    for prefix in frames::PROTECTED {
        tables.inner.set_protected(prefix.parse().unwrap(), true);
    }
    tables
}

/// Both halves, and what both have counted.
struct Twins {
    dispatch: Dispatch,
    tables: Tables,
    counted: BTreeMap<Reason, u64>,
}

impl Twins {
    fn new(lease_until: Time) -> Self {
        let dispatch = match Dispatch::unattached(tables(lease_until)) {
            Ok(dispatch) => dispatch,
            Err(error) => panic!("this test loads BPF programs, so it must run as root: {error:?}"),
        };
        Self { dispatch, tables: tables(lease_until), counted: BTreeMap::new() }
    }

    fn count(&mut self, verdict: Verdict) {
        *self.counted.entry(verdict.reason).or_default() += 1;
    }

    /// Compares verdict, effect and answer, on both sides and both ways.
    fn compare(&mut self, frame: &[u8]) {
        for side in [Side::Outside, Side::Inside] {
            let verdict = self.tables.ingress(side, frame, Time::ZERO);
            let kernel = self.dispatch.explain(side, frame).unwrap();
            assert_eq!(kernel, verdict, "{side:?} {frame:02x?}");
            let (tc, xdp) = match side {
                Side::Outside => (Entry::TcInOutside, Entry::XdpOutside),
                Side::Inside => (Entry::TcInInside, Entry::XdpInside),
            };
            let (next, shot, redirect) = (u32::MAX, 2, 7);
            let (drop, pass, send) = (1, 2, 3);
            let (tc_value, xdp_value) = match verdict.reason.action() {
                Action::Pass | Action::Take => (next, pass),
                Action::Drop => (shot, drop),
                Action::Answer => (redirect, send),
            };
            let mut left = frame.to_vec();
            if verdict.reason == Reason::ArpAnswered {
                left[..42].copy_from_slice(&self.tables.arp_answer(side, frame).unwrap());
            }
            for (entry, value) in [(tc, tc_value), (xdp, xdp_value)] {
                if entry == tc && refused_by_kernel(frame) {
                    continue;
                }
                let run = self.dispatch.rehearse(entry, frame, 1).unwrap();
                assert_eq!((run.value, &run.frame), (value, &left), "{entry:?} {verdict:?} {frame:02x?}");
                self.count(verdict);
            }
        }
        let origins = [(Entry::ExplainOutForwarded, Origin::Forwarded), (Entry::ExplainOutLocal, Origin::Local)];
        for (entry, origin) in origins {
            let verdict = self.tables.egress(Side::Outside, frame, origin, Time::ZERO);
            let explained = self.dispatch.rehearse(entry, frame, 1).unwrap().value;
            assert_eq!(Verdict::from_bits(explained), Some(verdict), "{origin:?} {frame:02x?}");
        }
        if !refused_by_kernel(frame) {
            let verdict = self.tables.egress(Side::Outside, frame, Origin::Local, Time::ZERO);
            let out = self.dispatch.rehearse(Entry::TcOutOutside, frame, 1).unwrap();
            assert_eq!(out.value == u32::MAX, verdict.reason.action() != Action::Drop, "{verdict:?} {frame:02x?}");
            self.count(verdict);
        }
    }

    /// Compares the counters, and checks that every reason in `expected` was met.
    fn finish(self, expected: &[Reason]) {
        let kernel: BTreeMap<_, _> =
            self.dispatch.counters().unwrap().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(kernel, self.counted);
        for reason in expected {
            assert!(self.counted.contains_key(reason), "{reason:?} never came up");
        }
    }
}

/// The kernel runs no tc program by hand on an IP packet without a whole header.
fn refused_by_kernel(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => frame.len() < 14 + 20,
        [0x86, 0xdd] => frame.len() < 14 + 40,
        _ => false,
    }
}

#[test]
fn real_frames_cut_anywhere_are_judged_alike() {
    let mut twins = Twins::new(Time { nanos: u64::MAX });
    let real = frames::captured();
    assert!(real.len() > 10);
    for (_name, frame) in &real {
        for length in 14..=frame.len() {
            twins.compare(&frame[..length]);
        }
    }
    twins.finish(&[]);
}

#[test]
fn made_up_frames_are_judged_alike() {
    let mut twins = Twins::new(Time { nanos: u64::MAX });
    let mut maker = Maker::new(1);
    for _ in 0..60_000 {
        twins.compare(&maker.frame());
    }
    let met: Vec<Reason> = Reason::ALL
        .iter()
        .copied()
        .filter(|reason| !matches!(reason, Reason::LeaseOver | Reason::OutLeaseOver))
        .collect();
    twins.finish(&met);
}

#[test]
fn made_up_frames_cut_anywhere_are_judged_alike() {
    let mut twins = Twins::new(Time { nanos: u64::MAX });
    let mut maker = Maker::new(2);
    for _ in 0..600 {
        let frame = maker.frame();
        for length in 14..=frame.len().min(130) {
            twins.compare(&frame[..length]);
        }
    }
    twins.finish(&[Reason::Truncated]);
}

#[test]
fn frames_with_changed_octets_are_judged_alike() {
    let mut twins = Twins::new(Time { nanos: u64::MAX });
    let mut maker = Maker::new(3);
    let mut rng = StdRng::seed_from_u64(4);
    for _ in 0..40_000 {
        let mut frame = maker.frame();
        for _ in 0..=rng.next_u32() % 3 {
            let at = usize::try_from(rng.next_u32()).unwrap() % frame.len().min(80);
            frame[at] = rng.next_u32().to_be_bytes()[0];
        }
        twins.compare(&frame);
    }
    twins.finish(&[]);
}

#[test]
fn random_octets_are_judged_alike() {
    let mut twins = Twins::new(Time { nanos: u64::MAX });
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..10_000 {
        let mut frame = vec![0; 14 + usize::try_from(rng.next_u32()).unwrap() % 120];
        rng.fill_bytes(&mut frame);
        twins.compare(&frame);
    }
    twins.finish(&[]);
}

#[test]
fn without_a_lease_both_are_silent() {
    let mut twins = Twins::new(Time::ZERO);
    let mut maker = Maker::new(6);
    for _ in 0..10_000 {
        twins.compare(&maker.frame());
    }
    let silent = [Action::Take, Action::Answer];
    assert!(twins.counted.keys().all(|reason| !silent.contains(&reason.action())), "{:?}", twins.counted);
    twins.finish(&[Reason::LeaseOver, Reason::OutLeaseOver]);
}

#[test]
fn a_lease_ends_on_time_and_a_withdrawn_one_at_once() {
    let twins = Twins::new(Time::ZERO);
    let fence = twins.dispatch.fence();
    let mut maker = Maker::new(10);
    let owned = std::iter::repeat_with(|| maker.new_ike().2)
        .find(|frame| twins.tables.ingress(Side::Outside, frame, Time::ZERO).set == WorkSet::new(0))
        .unwrap();
    let reason = || twins.dispatch.explain(Side::Outside, &owned).unwrap().reason;
    for _ in 0..5 {
        let end = boot_time() + Duration::from_millis(40);
        fence.set_lease(end);
        loop {
            let before = boot_time();
            let reason = reason();
            let after = boot_time();
            assert!(reason == Reason::Owned || after >= end, "{reason:?} {:?} early", end - after);
            assert!(reason == Reason::LeaseOver || before < end, "{reason:?} {:?} late", before - end);
            if before >= end {
                break;
            }
        }
        fence.set_lease(Time { nanos: u64::MAX });
        assert_eq!(reason(), Reason::Owned);
        fence.set_lease(Time::ZERO);
        assert_eq!(reason(), Reason::LeaseOver);
    }
}

#[test]
fn inner_prefixes_that_come_and_go_are_looked_up_alike() {
    let mut twins = Twins::new(Time { nanos: u64::MAX });
    let mut maker = Maker::new(7);
    let mut rng = StdRng::seed_from_u64(8);
    for _ in 0..3_000 {
        let prefix = maker.inner_prefix();
        let home = WorkSet::from_low_bits(u64::from(rng.next_u32()));
        match rng.next_u32() % 4 {
            0 => {
                twins.dispatch.put_inner(prefix, home).unwrap();
                twins.tables.inner.set_home(prefix, Some(home));
            }
            1 => {
                twins.dispatch.remove_inner(prefix).unwrap();
                twins.tables.inner.set_home(prefix, None);
            }
            2 => {
                twins.dispatch.protect(prefix).unwrap();
                twins.tables.inner.set_protected(prefix, true);
            }
            _ => {
                twins.dispatch.unprotect(prefix).unwrap();
                twins.tables.inner.set_protected(prefix, false);
            }
        }
        for _ in 0..4 {
            twins.compare(&maker.routed());
        }
    }
    twins.finish(&[Reason::NoInner, Reason::InnerUnprotected, Reason::InnerSource, Reason::OutUnprotected]);
}

#[test]
fn a_home_that_is_computed_is_where_the_kernel_sends_the_request() {
    let twins = Twins::new(Time { nanos: u64::MAX });
    let mut maker = Maker::new(9);
    for _ in 0..1_000 {
        let (spi_i, source, frame) = maker.new_ike();
        let home = twins.tables.key.home_of_new_ike(spi_i, source.into());
        assert_eq!(twins.dispatch.explain(Side::Outside, &frame).expect("as root").set, Some(home));
    }
}
