//! The datapath in network namespaces, with a peer that speaks ESP by the `esp` crate: leases, paths, refusals, moves.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use cluster::SKEW;
use crypto::CbcIvSource;
use esp::{InboundSa, Initial, OutboundSa, Start, TRAILER_MAX};
use gateway::datapath::{Datapath, DatapathConfig, DropReason, Event, SaPair};
use ike::Path;
use lab::{Lab, Namespace};
use wire::{Epoch, Secret, Slot, Spi, Tenure, TrafficSelector, UnknownFields};

const SPI_IN: Spi = Spi(0x0001_2345);
const SPI_OUT: Spi = Spi(0x00ab_cdef);
const CLUSTER: &str = "198.51.100.1";
const CLIENT_INNER: [u8; 4] = [10, 8, 0, 2];
const SERVER_INNER: [u8; 4] = [10, 9, 0, 1];
const APP_PORT: u16 = 7000;
const MOVES: u32 = 15;
const WAIT: Duration = Duration::from_secs(5);

/// A node's side of the pair; the client has the same with the ends swapped.
fn initial(client: SocketAddr) -> Initial {
    let selector = |text: &str| vec![TrafficSelector::from_prefix(text.parse().unwrap())];
    Initial {
        session: 1,
        spi_in: SPI_IN,
        spi_out: SPI_OUT,
        encryption: 20,
        key_bits: 128,
        integrity: None,
        key_in: Secret::new(vec![1; 20]),
        key_out: Secret::new(vec![2; 20]),
        integrity_key_in: Secret::default(),
        integrity_key_out: Secret::default(),
        local: selector("10.9.0.0/16"),
        remote: selector("10.8.0.2/32"),
        birth_count: 0,
        replaces: None,
        opened_by_peer: false,
        path_local: SocketAddr::new(CLUSTER.parse().unwrap(), 4500),
        path_remote: client,
        unknown: UnknownFields::default(),
    }
}

fn tenure(count: u32, slot: u8) -> Tenure {
    Tenure { epoch: Epoch { count, master: Slot::default() }, slot: Slot::new(slot).unwrap() }
}

/// A node: a namespace with the cluster address, a datapath, and an application behind it.
struct Node {
    datapath: Arc<Datapath>,
    events: mpsc::Receiver<Event>,
    app: UdpSocket,
    address: SocketAddr,
}

impl Node {
    /// `number` tells the nodes' own addresses apart; the client reaches each by it.
    fn start(namespace: &Namespace, address: &str) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let config = DatapathConfig {
            tun: "esp0".into(),
            mtu: 1400,
            routes: vec!["10.8.0.0/16".parse()?],
            addresses: vec![address.parse()?],
            workers: NonZeroUsize::new(2).unwrap(),
        };
        let sink = move |event| drop(sender.send(event));
        let datapath = namespace.within(|| Datapath::start(&config, Arc::new(sink)))?;
        namespace.ip(&["addr add 10.9.0.1/32 dev esp0".to_owned()])?;
        let app = namespace.within(|| Ok(UdpSocket::bind((std::net::Ipv4Addr::from(SERVER_INNER), APP_PORT))?))?;
        app.set_read_timeout(Some(WAIT))?;
        Ok(Self { datapath: Arc::new(datapath), events, app, address: SocketAddr::new(address.parse()?, 4500) })
    }

    fn install(&self, client: SocketAddr, tenure: Tenure, start: Start) {
        let initial = Initial { path_local: self.address, ..initial(client) };
        self.datapath.install(&SaPair { initial, tenure, start }).unwrap();
    }

    fn event<T>(&self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let end = Instant::now() + WAIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("the event did not come");
            if let Some(value) = wanted(event) {
                return value;
            }
        }
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.datapath.drops().into_iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| count)
    }

    fn say(&self, number: u32) {
        say(&self.app, number);
    }

    fn hear(&self) -> u32 {
        let mut bytes = [0; 4];
        self.app.recv_from(&mut bytes).unwrap();
        u32::from_be_bytes(bytes)
    }
}

/// When the kernel took in the packet that was read last, since 1970: a thread that is woken late must not turn the order of
/// two sockets round. `None` if it has not noted that.
fn arrived(app: &UdpSocket) -> Option<Duration> {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec through the pointer, which outlives the call (socket(7)).
    let result = unsafe { libc::ioctl(app.as_raw_fd(), SIOCGSTAMPNS, &raw mut at) };
    let (seconds, nanoseconds) = (u64::try_from(at.tv_sec).ok()?, u32::try_from(at.tv_nsec).ok()?);
    (result == 0).then(|| Duration::new(seconds, nanoseconds))
}

/// `linux/sockios.h`.
const SIOCGSTAMPNS: libc::c_ulong = 0x8907;

/// Sends a numbered packet to the client's inner address.
fn say(app: &UdpSocket, number: u32) {
    app.send_to(&number.to_be_bytes(), SocketAddr::from((CLIENT_INNER, APP_PORT))).unwrap();
}

/// The client: one ESP pair by hand.
struct Client {
    namespace: Namespace,
    socket: UdpSocket,
    outbound: OutboundSa,
    inbound: InboundSa,
    ivs: CbcIvSource,
}

impl Client {
    fn start(namespace: &Namespace, address: &str) -> Result<Self> {
        let local: SocketAddr = SocketAddr::new(address.parse()?, 4500);
        let socket = namespace.within(|| Ok(UdpSocket::bind(local)?))?;
        socket.set_read_timeout(Some(WAIT))?;
        let node = initial(local);
        let mirrored = Initial {
            spi_in: node.spi_out,
            spi_out: node.spi_in,
            key_in: node.key_out.clone(),
            key_out: node.key_in.clone(),
            local: node.remote.clone(),
            remote: node.local.clone(),
            ..node
        };
        let start = Start::New { edge: 1 << 30 };
        Ok(Self {
            namespace: namespace.clone(),
            socket,
            outbound: OutboundSa::new(&mirrored, tenure(0, 9), &start)?,
            inbound: InboundSa::new(&mirrored, &start)?,
            ivs: CbcIvSource::new([0; 32]),
        })
    }

    fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Makes an ESP datagram with a numbered UDP packet in it.
    fn seal(&mut self, number: u32) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0];
        packet.extend(CLIENT_INNER);
        packet.extend(SERVER_INNER);
        let checksum = !packet.chunks(2).fold(0_u32, |sum, pair| {
            let sum = sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]));
            (sum & 0xffff) + (sum >> 16)
        });
        packet[10..12].copy_from_slice(&u16::try_from(checksum & 0xffff).unwrap().to_be_bytes());
        for field in [APP_PORT, APP_PORT, 12, 0] {
            packet.extend(field.to_be_bytes());
        }
        packet.extend(number.to_be_bytes());
        let len = packet.len();
        packet.extend([0; TRAILER_MAX]);
        let sequence = self.outbound.reserve(1).unwrap().take().unwrap();
        let mut datagram = vec![0; self.outbound.sealed_len(len)];
        self.outbound.seal(sequence, &mut packet, len, &mut datagram, &mut self.ivs).unwrap();
        datagram
    }

    fn say(&mut self, node: &Node, number: u32) {
        let datagram = self.seal(number);
        self.socket.send_to(&datagram, node.address).unwrap();
    }

    fn hear(&mut self) -> u32 {
        let mut datagram = [0; 2000];
        let (len, _) = self.socket.recv_from(&mut datagram).unwrap();
        self.open(&mut datagram[..len])
    }

    fn open(&mut self, datagram: &mut [u8]) -> u32 {
        let opened = self.inbound.open(datagram).unwrap();
        u32::from_be_bytes(*datagram[opened.inner][28..].first_chunk().unwrap())
    }
}

/// One node and one client on a LAN.
fn pair() -> Result<(Lab, Node, Client)> {
    let lab = Lab::new()?;
    let lan = lab.switch("out")?;
    let (inside, outside) = (lab.namespace("n1")?, lab.namespace("c1")?);
    lan.plug("n1", &inside, "out")?;
    lan.plug("c1", &outside, "out")?;
    inside.ip(&[format!("addr add {CLUSTER}/24 dev out")])?;
    outside.ip(&["addr add 198.51.100.101/24 dev out".to_owned()])?;
    let node = Node::start(&inside, CLUSTER)?;
    let client = Client::start(&outside, "198.51.100.101")?;
    Ok((lab, node, client))
}

#[test]
fn packets_go_both_ways_and_each_fault_is_counted() -> Result<()> {
    let (_lab, node, mut client) = pair()?;
    node.install(client.local(), tenure(0, 0), Start::New { edge: 65_537 });
    client.say(&node, 1);
    assert_eq!(node.hear(), 1);
    node.say(2);
    assert_eq!(client.hear(), 2);
    let counters = node.datapath.pair_counters(SPI_IN).unwrap();
    assert_eq!((counters.packets_in, counters.bytes_in, counters.packets_out, counters.bytes_out), (1, 32, 1, 32));
    assert_eq!(
        node.event(|event| if let Event::InboundEdges(edges) = event { Some(edges) } else { None }),
        [(SPI_IN, 1)]
    );

    let replayed = client.seal(3);
    let mut forged = client.seal(4);
    *forged.last_mut().unwrap() ^= 1;
    let mut unknown = client.seal(5);
    unknown[1] ^= 0x10;
    let ike = [&[0; 4][..], b"an IKE message"].concat();
    for datagram in [&replayed, &replayed, &forged, &unknown, &ike, &vec![0xff], &vec![1, 2]] {
        client.socket.send_to(datagram, node.address)?;
    }
    assert_eq!(node.hear(), 3);
    let spi = node
        .event(|event| if let Event::UnknownSpi { spi, datagram, .. } = event { Some((spi, datagram)) } else { None });
    assert_eq!(spi, (Spi(SPI_IN.0 ^ 0x10_0000), unknown));
    let heard =
        node.event(|event| if let Event::Ike { path, datagram } = event { Some((path, datagram)) } else { None });
    let path = Path { local: node.address, remote: client.local() };
    assert_eq!(heard, (path, b"an IKE message".to_vec()));
    lab::run::wait_for("the faults to be counted", WAIT, || {
        let reasons = [
            DropReason::Refused(esp::Refusal::Replayed),
            DropReason::Refused(esp::Refusal::Integrity),
            DropReason::Keepalive,
            DropReason::NotEsp,
        ];
        reasons.iter().all(|reason| node.drops(*reason) == 1).then_some(())
    })?;

    node.datapath.send_ike(path, b"its answer")?;
    let mut answer = [0; 100];
    let (len, from) = client.socket.recv_from(&mut answer)?;
    assert_eq!((&answer[..len], from), ([&[0; 4][..], b"its answer"].concat().as_slice(), node.address));

    node.datapath.remove(SPI_IN);
    client.say(&node, 6);
    node.event(|event| matches!(event, Event::UnknownSpi { spi: SPI_IN, .. }).then_some(()));
    node.say(7);
    node.event(|event| matches!(event, Event::UnknownDestination { .. }).then_some(()));
    Ok(())
}

#[test]
fn packets_wait_for_their_lease_and_leave_in_order() -> Result<()> {
    let (_lab, node, mut client) = pair()?;
    node.install(client.local(), tenure(1, 0), Start::TakeOver { edge: 100, inbound_edge: 0 });
    for number in 0..10 {
        node.say(number);
    }
    let proposed =
        node.event(|event| if let Event::LeaseLow { spi_in, edge } = event { Some((spi_in, edge)) } else { None });
    assert_eq!(proposed, (SPI_IN, 100 + esp::LEASE_MIN));
    node.datapath.extend_lease(SPI_IN, 105);
    assert_eq!((0..5).map(|_| client.hear()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    node.say(10);
    node.datapath.extend_lease(SPI_IN, 200);
    assert_eq!((0..6).map(|_| client.hear()).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
    assert_eq!(client.inbound.edge(), 110);
    Ok(())
}

#[test]
fn only_the_newest_authenticated_packet_moves_the_peer() -> Result<()> {
    let (_lab, node, mut client) = pair()?;
    node.install(client.local(), tenure(0, 0), Start::New { edge: 65_537 });
    let (older, newer) = (client.seal(1), client.seal(2));
    let mut forged = client.seal(3);
    *forged.last_mut().unwrap() ^= 1;
    let here = client.local();
    // A NAT gives the client another port.
    client.socket = client.namespace.within(|| Ok(UdpSocket::bind(SocketAddr::new(here.ip(), 0))?))?;
    client.socket.set_read_timeout(Some(WAIT))?;
    client.socket.send_to(&forged, node.address)?;
    client.socket.send_to(&newer, node.address)?;
    assert_eq!(node.hear(), 2);
    client.socket.send_to(&older, node.address)?;
    assert_eq!(node.hear(), 1);
    let told =
        node.event(|event| if let Event::PathChanged { spi_in, path } = event { Some((spi_in, path)) } else { None });
    let path = Path { local: node.address, remote: client.local() };
    assert_eq!(told, (SPI_IN, path));
    node.datapath.set_path(SPI_IN, path);
    node.say(4);
    assert_eq!(client.hear(), 4);
    let again = node.events.try_iter().any(|event| matches!(event, Event::PathChanged { .. }));
    assert!(!again, "the same path is told once");
    Ok(())
}

/// The new owner may die before the state is known here; then the set is this node's again, and goes on.
#[test]
fn a_set_that_is_owned_again_before_its_stop_is_known_goes_on() -> Result<()> {
    let (_lab, node, mut client) = pair()?;
    let set = SPI_IN.work_set();
    node.install(client.local(), tenure(0, 0), Start::New { edge: 65_537 });
    client.say(&node, 1);
    assert_eq!(node.hear(), 1);

    let stopping = node.datapath.stop_set(set);
    node.install(client.local(), tenure(2, 0), Start::TakeOver { edge: 65_537, inbound_edge: 1 });
    node.datapath.extend_lease(SPI_IN, 131_073);
    node.datapath.start_set(set, &[]);
    let states = node.datapath.stopped(&stopping)?.pairs;
    let reached: Vec<_> = states.iter().map(|state| (state.next, state.edge, state.packets_in)).collect();
    assert_eq!(reached, [(1, 65_537, 1)], "where the set was stopped, not where it goes on");

    // Between its stop and its start a set drops what comes.
    node.datapath.await_workers()?;
    client.say(&node, 2);
    assert_eq!(node.hear(), 2);
    node.say(3);
    assert_eq!(client.hear(), 3);
    Ok(())
}

/// Both nodes get every packet, as in the cluster; the set moves from one to the other and back, again and again.
#[test]
fn planned_moves_under_load_lose_double_and_reorder_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let lan = lab.switch("out")?;
    let outside = lab.namespace("c1")?;
    lan.plug("c1", &outside, "out")?;
    outside.ip(&["addr add 198.51.100.101/24 dev out".to_owned()])?;
    let mut nodes = Vec::new();
    for (name, address) in [("n1", "198.51.100.1"), ("n2", "198.51.100.2")] {
        let namespace = lab.namespace(name)?;
        lan.plug(name, &namespace, "out")?;
        namespace.ip(&[format!("addr add {address}/24 dev out")])?;
        nodes.push(Node::start(&namespace, address)?);
    }
    let (old, new) = (&nodes[0], &nodes[1]);
    // From the first question on the kernel notes when a packet came.
    for node in &nodes {
        let _nothing_yet = arrived(&node.app);
    }
    let mut client = Client::start(&outside, "198.51.100.101")?;
    let there = client.local();
    old.install(there, tenure(0, 0), Start::New { edge: 65_537 });

    let done = AtomicBool::new(false);
    let (inward, outward, sent, apart) = thread::scope(|scope| -> Result<_> {
        let listeners: Vec<_> = nodes
            .iter()
            .map(|node| {
                let (done, app) = (&done, &node.app);
                scope.spawn(move || {
                    app.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                    let (mut heard, mut bytes) = (Vec::new(), [0; 4]);
                    while !done.load(Relaxed) {
                        if app.recv_from(&mut bytes).is_ok() {
                            heard.push((
                                arrived(app).expect("the kernel notes when it came"),
                                u32::from_be_bytes(bytes),
                            ));
                        }
                    }
                    heard
                })
            })
            .collect();
        let done = &done;
        let (old_address, new_address) = (old.address, new.address);
        let receiver = client.socket.try_clone()?;
        receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
        let collector = scope.spawn(move || {
            let (mut heard, mut datagram) = (Vec::new(), [0; 2000]);
            while !done.load(Relaxed) {
                if let Ok((len, _)) = receiver.recv_from(&mut datagram) {
                    heard.push(datagram[..len].to_vec());
                }
            }
            heard
        });
        let apps = [&old.app, &new.app];
        let speaker = scope.spawn(move || {
            let (mut number, mut apart) = (0, Vec::new());
            while !done.load(Relaxed) {
                number += 1;
                let datagram = client.seal(number);
                let start = Instant::now();
                client.socket.send_to(&datagram, old_address).unwrap();
                client.socket.send_to(&datagram, new_address).unwrap();
                for app in apps {
                    say(app, number);
                }
                if start.elapsed() > SKEW {
                    apart.push(number);
                }
                thread::sleep(Duration::from_micros(200));
            }
            (client, number, apart)
        });

        let set = SPI_IN.work_set();
        for (count, (from, to)) in (1..=MOVES).zip([(old, new), (new, old)].into_iter().cycle()) {
            // Longer than a new owner looks for what the old one has processed.
            thread::sleep(Duration::from_millis(150));
            let tenure = tenure(count, u8::from(std::ptr::eq(to, new)));
            from.datapath.watch_set(set);
            from.datapath.await_workers()?;
            thread::sleep(SKEW);
            to.datapath.hold_set(set);
            to.install(there, tenure, Start::TakeOver { edge: 65_537, inbound_edge: 0 });
            to.datapath.await_workers()?;
            thread::sleep(SKEW);
            let state = from.datapath.stopped(&from.datapath.stop_set(set))?;
            assert_eq!(state.pairs.len(), 1);
            for pair in state.pairs {
                to.install(there, tenure, Start::HandOver(pair));
            }
            to.datapath.start_set(set, &state.digests);
            thread::sleep(Duration::from_millis(20));
            from.datapath.forget_set(set);
        }
        thread::sleep(Duration::from_millis(300));

        // Let what is on its way arrive, then end.
        done.store(true, Relaxed);
        let (mut client, sent, apart) = speaker.join().unwrap();
        let mut inward = Vec::new();
        for listener in listeners {
            inward.extend(listener.join().unwrap());
        }
        inward.sort_unstable();
        let outward: Vec<u32> =
            collector.join().unwrap().into_iter().map(|mut datagram| client.open(&mut datagram)).collect();
        Ok((inward.into_iter().map(|(_, number)| number).collect::<Vec<_>>(), outward, sent, apart))
    })?;

    for (name, heard) in [("inward", inward), ("outward", outward)] {
        let mut counts = BTreeMap::new();
        for number in &heard {
            *counts.entry(*number).or_insert(0) += 1;
        }
        let last = *counts.keys().next_back().unwrap();
        assert!(sent - last < 50, "{name}: {last} of {sent}");
        // What this machine itself gave to the nodes too far apart is none of theirs.
        let judged = |number: &u32| !apart.contains(number);
        let lost: Vec<_> = (1..=last).filter(judged).filter(|number| !counts.contains_key(number)).collect();
        let doubled: Vec<_> = counts.iter().filter(|(number, count)| **count > 1 && judged(number)).collect();
        assert!(lost.is_empty() && doubled.is_empty(), "{name}: lost {lost:?}, doubled {doubled:?}");
        let overtaken: Vec<_> = heard.windows(2).filter(|pair| pair[0] > pair[1]).collect();
        assert!(overtaken.is_empty(), "{name}: overtaken {overtaken:?}");
    }
    assert!(new.datapath.pair_counters(SPI_IN).unwrap().packets_out > 100);
    Ok(())
}
