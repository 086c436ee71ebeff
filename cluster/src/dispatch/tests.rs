//! The rule by itself; that the BPF program says the same is tested where it can be loaded, in the gateway.

use std::net::Ipv4Addr;

use wire::{Slot, Time, WorkSet};

use super::*;

const KEY: [u8; 16] = *b"dispatch-test-ke";
const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const CLUSTER_MAC: [u8; 6] = [2, 0xcc, 0, 0, 0, 1];
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// This node owns the even work sets, holds a lease until 1 s, and has IKE, a UDP service and a TCP service.
fn tables() -> Tables {
    let mut tables = Tables::new(HashKey::new(KEY));
    tables.addresses = vec![ClusterAddress { address: CLUSTER, side: Side::Outside }];
    tables.outside = SideConfig { cluster_mac: CLUSTER_MAC, node_mac: NODE_MAC, subnet: None, carries_inner: false };
    tables.inside = SideConfig {
        cluster_mac: CLUSTER_MAC,
        node_mac: NODE_MAC,
        subnet: Some(Subnet { address: Ipv4Addr::new(10, 1, 0, 0), length: 24 }),
        carries_inner: true,
    };
    tables.lease_until = Time::from_millis(1000);
    for set in WorkSet::all() {
        let slot = Slot::new(u8::from(set.index() % 2 == 1)).unwrap();
        tables.set_owner(set, if set.index() % 2 == 0 { Owner::Myself(slot) } else { Owner::Other(slot) });
    }
    for number in [500, 4500] {
        tables.set_port(number, Port::default().with(PortUse::UdpServiceQueueing));
    }
    tables.set_port(443, Port::default().with(PortUse::TcpService).with(PortUse::UdpService));
    tables.set_port(40002, Port::default().with(PortUse::UdpAsked));
    tables
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, place: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&u16::try_from(payload.len() + 20).unwrap().to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(&place.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

fn frame(to: [u8; 6], protocol: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &[2, 0, 0, 0, 0, 0x77], &protocol.to_be_bytes(), payload].concat()
}

fn udp(to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap();
    [&7777_u16.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

fn ike(spi_i: u64, spi_r: u64, flags: u8) -> Vec<u8> {
    [&spi_i.to_be_bytes()[..], &spi_r.to_be_bytes(), &[33, 0x20, 34, flags], &[0; 8]].concat()
}

/// What becomes of an IPv4 packet from the client to the cluster.
fn verdict(tables: &Tables, protocol: u8, place: u16, payload: &[u8]) -> Verdict {
    let frame = frame(CLUSTER_MAC, 0x0800, &ipv4(CLIENT, CLUSTER, protocol, place, payload));
    tables.ingress(Side::Outside, &frame, Time::ZERO)
}

fn set(index: u16) -> Option<WorkSet> {
    WorkSet::new(index)
}

#[test]
fn ike_goes_to_the_set_of_our_spi_whichever_end_opened_it() {
    let tables = tables();
    let rows = [
        ("their request", ike(0xaaaa, 0x1234_0004, 0x08), 4),
        ("their answer to us", ike(0x1234_0006, 0xbbbb, 0x20), 6),
        ("a cookie for us", ike(0x1234_0008, 0, 0x20), 8),
        ("a new request", ike(0xaaaa, 0, 0x08), tables.key.home_of_new_ike(0xaaaa, CLIENT.into()).index()),
    ];
    for (name, message, home) in rows {
        let marked = [&[0; 4], &message[..]].concat();
        assert_eq!(verdict(&tables, 17, 0, &udp(500, &message)).set, set(home), "{name}");
        assert_eq!(verdict(&tables, 17, 0, &udp(4500, &marked)).set, set(home), "{name} on 4500");
    }
}

#[test]
fn a_port_change_and_nat_rebinding_never_move_esp() {
    let tables = tables();
    let esp = [0x12, 0x34, 0x00, 0x0a, 0, 0, 0, 1];
    assert_eq!(verdict(&tables, 17, 0, &udp(4500, &esp)), Verdict { reason: Reason::Owned, set: set(10) });
    let from_elsewhere = ipv4(Ipv4Addr::new(203, 0, 113, 9), CLUSTER, 17, 0, &udp(4500, &esp));
    let frame = frame(CLUSTER_MAC, 0x0800, &from_elsewhere);
    assert_eq!(tables.ingress(Side::Outside, &frame, Time::ZERO).set, set(10));
}

#[test]
fn a_closed_port_or_protocol_is_dropped_so_that_no_kernel_answers() {
    let tables = tables();
    assert_eq!(verdict(&tables, 17, 0, &udp(53, b"query...")).reason, Reason::ClosedPort);
    assert_eq!(verdict(&tables, 17, 0x2000, &udp(53, b"query...")).reason, Reason::ClosedPort, "first fragment");
    assert_eq!(verdict(&tables, 6, 0, &[0; 20]).reason, Reason::ClosedPort);
    assert_eq!(verdict(&tables, 50, 0, &[0; 20]).reason, Reason::ClosedProtocol, "ESP without an engine");
    assert_eq!(verdict(&tables, 132, 0, &[0; 20]).reason, Reason::ClosedProtocol);
}

#[test]
fn an_answer_finds_the_set_that_its_port_was_chosen_in() {
    assert_eq!(verdict(&tables(), 17, 0, &udp(40002, b"answer")).set, set(40002 & 0x3ff));
}

#[test]
fn fragments_go_to_all_but_those_of_tcp_to_none() {
    let tables = tables();
    assert_eq!(verdict(&tables, 17, 0x2000, &udp(4500, &[0; 8])).reason, Reason::Fragment);
    assert_eq!(verdict(&tables, 17, 100, &[0; 8]).reason, Reason::Fragment);
    assert_eq!(verdict(&tables, 6, 0x2000, &[0; 20]).reason, Reason::TcpFragment);
    assert_eq!(verdict(&tables, 1, 100, &[0; 20]).set, verdict(&tables, 1, 0, &[8, 0, 0, 0, 0, 0, 0, 0]).set);
}

#[test]
fn a_nat_keepalive_ends_at_the_filter() {
    assert_eq!(verdict(&tables(), 17, 0, &udp(4500, &[0xff])).reason, Reason::NatKeepalive);
    assert_eq!(verdict(&tables(), 17, 0, &udp(4500, &[0xfe])).reason, Reason::Truncated);
}

#[test]
fn nothing_is_taken_or_answered_once_the_lease_is_over() {
    let tables = tables();
    let esp = frame(CLUSTER_MAC, 0x0800, &ipv4(CLIENT, CLUSTER, 17, 0, &udp(4500, &[0, 0, 1, 2, 0, 0, 0, 1])));
    let icmp_error = frame(CLUSTER_MAC, 0x0800, &ipv4(CLIENT, CLUSTER, 1, 0, &[3, 4, 0, 0, 0, 0, 0, 0]));
    for (frame, before) in [(esp, Reason::Owned), (icmp_error, Reason::IcmpError)] {
        assert_eq!(tables.ingress(Side::Outside, &frame, Time { nanos: 999_999_999 }).reason, before);
        assert_eq!(tables.ingress(Side::Outside, &frame, Time::from_millis(1000)).reason, Reason::LeaseOver);
    }
    let own = frame(NODE_MAC, 0x0800, &ipv4(CLIENT, Ipv4Addr::new(192, 0, 2, 11), 6, 0, &[0; 20]));
    assert_eq!(tables.ingress(Side::Outside, &own, Time::from_millis(2000)).reason, Reason::NotOurs);
}

#[test]
fn a_queueing_node_receives_what_its_engines_process_but_nothing_that_a_kernel_answers() {
    let mut tables = tables();
    let slot = Slot::new(1).unwrap();
    WorkSet::all().for_each(|set| tables.set_owner(set, Owner::Queueing(slot)));
    assert_eq!(verdict(&tables, 17, 0, &udp(4500, &[0, 0, 1, 2, 0, 0, 0, 1])).reason, Reason::Queueing);
    assert_eq!(verdict(&tables, 1, 0, &[8, 0, 0, 0, 0, 0, 0, 0]).reason, Reason::OtherOwner);
    assert_eq!(verdict(&tables, 17, 0, &udp(443, b"datagram")).reason, Reason::OtherOwner);
    let header = [&[0, 80, 1, 187][..], &[0; 16]].concat();
    assert_eq!(verdict(&tables, 6, 0, &header).reason, Reason::OtherOwner);
}

/// A client 10.9.0.5 in set 2, a branch 172.16.0.0/16 in set 3, the pool 10.9.0.0/16 protected.
fn with_inner() -> Tables {
    let mut tables = tables();
    tables.inner.set_protected("10.9.0.0/16".parse().unwrap(), true);
    tables.inner.set_home("10.9.0.5".parse().unwrap(), set(2));
    tables.inner.set_home("172.16.0.0/16".parse().unwrap(), set(3));
    tables
}

fn routed(tables: &Tables, side: Side, source: [u8; 4], destination: [u8; 4]) -> Verdict {
    let packet = ipv4(source.into(), destination.into(), 17, 0, &udp(1, &[]));
    tables.ingress(side, &frame(CLUSTER_MAC, 0x0800, &packet), Time::ZERO)
}

#[test]
fn a_routed_packet_goes_where_the_inner_address_lives() {
    let tables = with_inner();
    let host = [10, 1, 0, 50];
    let inside = |to| routed(&tables, Side::Inside, host, to);
    assert_eq!(inside([10, 9, 0, 5]), Verdict { reason: Reason::Owned, set: set(2) });
    assert_eq!(inside([172, 16, 3, 4]), Verdict { reason: Reason::OtherOwner, set: set(3) });
    assert_eq!(inside([10, 9, 0, 6]).reason, Reason::NoInner);
    assert_eq!(inside([8, 8, 8, 8]).set, Some(tables.key.home_of_pair(host.into(), [8, 8, 8, 8].into())));
    assert_eq!(routed(&tables, Side::Outside, [8, 8, 8, 8], [10, 9, 0, 5]).reason, Reason::InnerUnprotected);
    assert_eq!(routed(&tables, Side::Outside, [10, 9, 0, 5], host).reason, Reason::InnerSource);
}

#[test]
fn an_inner_prefix_that_goes_leaves_the_protection_behind() {
    let mut table = InnerTable::default();
    let pool = "10.9.0.0/16".parse().unwrap();
    table.set_protected(pool, true);
    assert!(table.set_home(pool, set(7)).is_some());
    let left = table.set_home(pool, None);
    assert_eq!(left, Some(Inner { set: None, protected: true, default: false }));
    assert_eq!(table.set_protected(pool, false), None);
    assert_eq!(table.lookup([10, 9, 1, 1].into()), None);
}

fn arp(operation: u8, mac: [u8; 6], asking: [u8; 4], asked: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &asking, &[0; 6], &asked].concat();
    frame([0xff; 6], 0x0806, &body)
}

#[test]
fn one_node_answers_arp_for_the_cluster_and_no_switch_learns_its_mac() {
    let (host, mac) = ([192, 0, 2, 200], [2, 0, 0, 0, 0, 0x77]);
    let mut tables = tables();
    let question = arp(1, mac, host, CLUSTER.octets());
    let home = tables.key.home_of_pair(host.into(), CLUSTER);
    tables.set_owner(home, Owner::Myself(Slot::new(0).unwrap()));
    assert_eq!(tables.ingress(Side::Outside, &question, Time::ZERO).reason, Reason::ArpAnswered);
    let answer = tables.arp_answer(Side::Outside, &question).unwrap();
    assert_eq!((&answer[0..6], &answer[6..12], &answer[22..28]), (&mac[..], &NODE_MAC[..], &CLUSTER_MAC[..]));
    assert_eq!((&answer[28..32], &answer[38..42]), (&CLUSTER.octets()[..], &host[..]));
    assert_eq!(tables.ingress(Side::Inside, &question, Time::ZERO).reason, Reason::ArpNobody);
    tables.set_owner(home, Owner::Other(Slot::new(1).unwrap()));
    assert_eq!(tables.ingress(Side::Outside, &question, Time::ZERO).reason, Reason::OtherOwner);
}

#[test]
fn a_claim_on_a_cluster_address_is_told_from_a_peers_answer() {
    let tables = tables();
    let own = CLUSTER.octets();
    let stranger = arp(1, [2, 0, 0, 0, 0, 0x66], own, own);
    assert_eq!(tables.ingress(Side::Outside, &stranger, Time::ZERO).reason, Reason::ArpConflict);
    let peer = arp(2, CLUSTER_MAC, own, [192, 0, 2, 200]);
    assert_eq!(tables.ingress(Side::Outside, &peer, Time::ZERO).reason, Reason::ArpPeer);
}

#[test]
fn a_client_inside_the_attached_subnet_is_found_by_arp_while_it_is_there() {
    let mut tables = tables();
    let pool = "10.1.0.128/25".parse().unwrap();
    tables.inner.set_protected(pool, true);
    let question = arp(1, [2, 0, 0, 0, 0, 0x77], [10, 1, 0, 5], [10, 1, 0, 130]);
    let ask = |tables: &Tables| tables.ingress(Side::Inside, &question, Time::ZERO).reason;
    assert_eq!(ask(&tables), Reason::ArpNobody);
    tables.inner.set_home("10.1.0.130".parse().unwrap(), set(4));
    assert_eq!(ask(&tables), Reason::ArpAnswered);
    tables.inner.set_home("10.1.0.130".parse().unwrap(), set(5));
    assert_eq!(ask(&tables), Reason::OtherOwner);
}

#[test]
fn without_a_lease_only_the_nodes_own_business_leaves() {
    let tables = with_inner();
    let own = [192, 0, 2, 11];
    let host = [10, 1, 0, 50];
    let rows = [
        ("ESP of the cluster", CLUSTER.octets(), CLIENT.octets(), Reason::OutCluster, Reason::OutLeaseOver),
        ("a client's packet", [10, 9, 0, 5], host, Reason::OutInner, Reason::OutLeaseOver),
        ("a branch's packet", [172, 16, 0, 5], host, Reason::OutInner, Reason::OutLeaseOver),
        ("a keepalive", own, [192, 0, 2, 12], Reason::OutOwn, Reason::OutOwn),
        ("a clear packet to a client", host, [10, 9, 0, 5], Reason::OutUnprotected, Reason::OutUnprotected),
    ];
    for (name, source, destination, with, without) in rows {
        let frame = frame([2; 6], 0x0800, &ipv4(source.into(), destination.into(), 17, 0, &udp(4500, &[0; 8])));
        let at = |now| tables.egress(Side::Outside, &frame, Origin::Local, now).reason;
        assert_eq!((at(Time::ZERO), at(Time::from_millis(1000))), (with, without), "{name}");
    }
}

#[test]
fn a_default_route_through_a_tunnel_leaves_the_nodes_own_business_alone() {
    let mut tables = tables();
    tables.inner.set_home("0.0.0.0/0".parse().unwrap(), set(2));
    let frame = frame([2; 6], 0x0800, &ipv4([192, 0, 2, 11].into(), [192, 0, 2, 12].into(), 17, 0, &udp(9, &[])));
    assert_eq!(tables.egress(Side::Outside, &frame, Origin::Local, Time::ZERO).reason, Reason::OutOwn);
    assert_eq!(tables.egress(Side::Outside, &frame, Origin::Forwarded, Time::ZERO).reason, Reason::OutUnprotected);
    assert_eq!(routed(&tables, Side::Inside, [10, 1, 0, 50], [8, 8, 8, 8]).set, set(2));
}

#[test]
fn a_kernel_never_resets_or_refuses_in_the_clusters_name() {
    let tables = tables();
    let reset = [&[0; 13][..], &[0x14], &[0; 6]].concat();
    let syn_ack = [&[0; 13][..], &[0x12], &[0; 6]].concat();
    let rows: [(&str, u8, &[u8], Reason); 6] = [
        ("reset", 6, &reset, Reason::OutReset),
        ("SYN-ACK", 6, &syn_ack, Reason::OutCluster),
        ("port unreachable", 1, &[3, 3, 0, 0], Reason::OutIcmp),
        ("fragmentation needed", 1, &[3, 4, 0, 0], Reason::OutCluster),
        ("reassembly time exceeded", 1, &[11, 1, 0, 0], Reason::OutIcmp),
        ("echo reply", 1, &[0, 0, 0, 0], Reason::OutCluster),
    ];
    for (name, protocol, payload, reason) in rows {
        let frame = frame([2; 6], 0x0800, &ipv4(CLUSTER, CLIENT, protocol, 0, payload));
        assert_eq!(tables.egress(Side::Outside, &frame, Origin::Local, Time::ZERO).reason, reason, "{name}");
    }
}

#[test]
fn what_a_tunnel_brings_for_another_node_is_told_by_the_same_rule() {
    let tables = with_inner();
    let to_client = ipv4([10, 9, 0, 9].into(), [10, 9, 0, 5].into(), 17, 0, &udp(1, &[]));
    assert_eq!(tables.packet(&to_client).unwrap().set, set(2));
    let esp = [0, 0, 1, 3, 0, 0, 0, 1];
    let source = std::net::SocketAddrV4::new(CLIENT, 7777);
    assert_eq!(tables.datagram(source, 4500, &esp), Verdict { reason: Reason::OtherOwner, set: set(0x103) });
    assert_eq!(tables.packet(&[0x60; 40]), None);
}
