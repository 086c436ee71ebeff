//! The dispatch program on real interfaces: three nodes share an address, one dies, one comes back. Needs root.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "dispatch/node.rs"]
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use cluster::dispatch::{HashKey, Reason};
use gateway::dispatch::{Dispatch, DispatchError, Keeper, cluster_mac};
use lab::run::wait_for;
use lab::{Lab, Namespace, Process, Switch};

use node::{CLUSTER, INSIDE_CLUSTER, NODES, TCP, UDP};

const FLOWS: u16 = 100;
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const PATIENCE: Duration = Duration::from_millis(700);

/// Three nodes between an outside and an inside switch, a client outside and a host inside.
struct Cluster {
    client: Namespace,
    host: Namespace,
    nodes: Vec<(Namespace, Option<Process>)>,
    outside: Switch,
    keeper: Keeper,
    // Last, so that the programs end before their namespaces go.
    lab: Lab,
}

impl Cluster {
    fn start(keeper: Keeper) -> Self {
        let lab = Lab::new().expect("this test builds a network and loads BPF programs, so it must run as root");
        let (outside, inside) = (lab.switch("out").unwrap(), lab.switch("in").unwrap());
        let (client, host) = (lab.namespace("client").unwrap(), lab.namespace("host").unwrap());
        outside.plug("client", &client, "out").unwrap();
        inside.plug("host", &host, "in").unwrap();
        // Ten more addresses, so that one of them is any node's to answer.
        let addresses = (100..111).map(|n| format!("addr add 192.0.2.{n}/24 dev out"));
        client.ip(&addresses.collect::<Vec<_>>()).unwrap();
        host.ip(&[format!("addr add {HOST}/24 dev in"), format!("route add default via {INSIDE_CLUSTER}")]).unwrap();
        let mut cluster = Self { client, host, nodes: Vec::new(), outside, keeper, lab };
        for number in 0..NODES {
            let namespace = cluster.lab.namespace(&format!("n{number}")).unwrap();
            cluster.outside.plug(&format!("n{number}"), &namespace, "out").unwrap();
            inside.plug(&format!("n{number}"), &namespace, "in").unwrap();
            let own = number + 11;
            let lines = [format!("addr add 192.0.2.{own}/24 dev out"), format!("addr add 10.1.0.{own}/24 dev in")];
            namespace.ip(&lines).unwrap();
            cluster.nodes.push((namespace, None));
            cluster.start_node(number);
        }
        cluster
    }

    /// Starts the program of a node, and waits until it serves.
    fn start_node(&mut self, number: u8) {
        let directory = self.pins(number);
        let log = self.lab.directory().join(format!("n{number}.log"));
        let before = std::fs::read_to_string(&log).unwrap_or_default().matches("serving").count();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "node::runs_as_a_process_of_its_own", "--ignored", "--nocapture"]);
        command.env(node::NUMBER, number.to_string()).env(node::PINS, directory);
        command.env(node::KEEPER, format!("{:?}", self.keeper));
        let (namespace, process) = &mut self.nodes[usize::from(number)];
        let mut started = Process::start(namespace, &mut command, &log).unwrap();
        wait_for("a node that serves", Duration::from_secs(10), || {
            assert!(started.status().is_none(), "node {number} ended: {}", started.said());
            (started.said().matches("serving").count() > before).then_some(())
        })
        .unwrap();
        *process = Some(started);
    }

    fn pins(&self, number: u8) -> String {
        format!("/sys/fs/bpf/{}/n{number}", self.lab.prefix())
    }

    fn said(&self, number: u8) -> String {
        std::fs::read_to_string(self.lab.directory().join(format!("n{number}.log"))).unwrap()
    }

    /// Waits until each node has reported its counters as they are now: the report after the next was read whole after this
    /// call.
    fn await_reports(&self) {
        let reports = |number| self.said(number).matches("counters ").count();
        let before: Vec<usize> = (0..NODES).map(reports).collect();
        wait_for("two more reports of each node", Duration::from_secs(10), || {
            (0..NODES).zip(&before).all(|(number, before)| reports(number) >= before + 2).then_some(())
        })
        .unwrap();
    }

    fn kill(&mut self, number: u8) {
        self.nodes[usize::from(number)].1.take().unwrap().kill();
    }

    /// A counter of `/proc/net/snmp`.
    fn snmp(namespace: &Namespace, protocol: &str, counter: &str) -> u64 {
        let text = namespace.output("cat", &["/proc/net/snmp"]).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("{protocol}: ")))
            .map(|line| line.split(' ').collect())
            .collect();
        let [names, values] = &rows[..] else { panic!("{text}") };
        let at = names.iter().position(|name| *name == counter).unwrap();
        values[at].parse().unwrap()
    }

    fn resets_sent(&self) -> Vec<u64> {
        self.nodes.iter().map(|(namespace, _)| Self::snmp(namespace, "Tcp", "OutRsts")).collect()
    }

    /// Sends a datagram from each of [`FLOWS`] ports and returns who answered each, every answer of it.
    fn ask_by_udp(&self) -> Vec<Vec<u8>> {
        self.client
            .within(|| {
                let sockets: Vec<UdpSocket> =
                    (0..FLOWS).map(|n| UdpSocket::bind((CLIENT, 20_000 + n)).unwrap()).collect();
                for socket in &sockets {
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    socket.send_to(b"who", (CLUSTER, UDP)).unwrap();
                }
                std::thread::sleep(PATIENCE);
                Ok(sockets.iter().map(answers).collect())
            })
            .unwrap()
    }
}

/// All answers that wait in a socket, without waiting for more.
fn answers(socket: &UdpSocket) -> Vec<u8> {
    socket.set_nonblocking(true).unwrap();
    let mut from = Vec::new();
    let mut buffer = [0; 16];
    while let Ok((1.., _)) = socket.recv_from(&mut buffer) {
        from.push(buffer[0]);
    }
    from
}

fn shares(answered: impl IntoIterator<Item = u8>) -> BTreeMap<u8, u16> {
    let mut shares = BTreeMap::new();
    answered.into_iter().for_each(|node| *shares.entry(node).or_default() += 1);
    shares
}

/// Connects and returns the stream with the node that greeted.
fn connect(port: u16) -> std::io::Result<(TcpStream, u8)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((CLIENT, port)).into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect_timeout(&SocketAddr::from((CLUSTER, TCP)).into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    let mut greeting = [0; 1];
    stream.read_exact(&mut greeting)?;
    Ok((stream, greeting[0]))
}

/// Whether the cluster address answers an ICMP echo to `source`.
fn answers_echo(client: &Namespace, source: Ipv4Addr) -> bool {
    client
        .within(|| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::ICMPV4))?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
            socket.set_read_timeout(Some(Duration::from_millis(150)))?;
            // Type 8, code 0, checksum, identifier 0x6363, sequence number 1.
            let echo = [8, 0, 0x94, 0x9b, 0x63, 0x63, 0, 1];
            socket.send_to(&echo, &SocketAddr::from((CLUSTER, 0)).into())?;
            let (mut socket, mut packet) = (socket, [0; 128]);
            Ok(socket.read(&mut packet).is_ok_and(|read| read >= 28 && packet[20] == 0))
        })
        .unwrap()
}

#[test]
fn each_flow_is_answered_once_by_one_of_three() {
    for keeper in node::KEEPERS {
        let cluster = Cluster::start(keeper);
        let resets = cluster.resets_sent();
        let answered = cluster.ask_by_udp();
        assert!(answered.iter().all(|from| from.len() == 1), "{answered:?}");
        let udp = shares(answered.into_iter().flatten());
        let connected: Vec<u8> = cluster
            .client
            .within(|| Ok((0..FLOWS).map(|n| connect(30_000 + n).expect("connects").1).collect()))
            .unwrap();
        let tcp = shares(connected);
        for shares in [&udp, &tcp] {
            assert_eq!(shares.len(), 3, "{shares:?}");
            assert!(shares.values().all(|flows| *flows >= 15), "{shares:?}");
        }
        assert_eq!(cluster.resets_sent(), resets, "some kernel reset what another node answered");
        println!("answered by each node: UDP {udp:?}, TCP {tcp:?}, no resets");
    }
}

#[test]
fn no_switch_learns_the_clusters_mac_and_one_node_answers_arp() {
    for keeper in node::KEEPERS {
        let cluster = Cluster::start(keeper);
        cluster.ask_by_udp();
        let mac: Vec<String> = cluster_mac(CLUSTER).iter().map(|octet| format!("{octet:02x}")).collect();
        let mac = mac.join(":");
        let neighbours = cluster.client.output("ip", &["neigh", "show", &CLUSTER.to_string()]).unwrap();
        assert!(neighbours.contains(&mac), "{neighbours}");
        let learned = cluster.outside.namespace().output("bridge", &["fdb", "show"]).unwrap();
        assert!(!learned.contains(&mac), "{learned}");
        cluster.await_reports();
        let answers: u64 = (0..NODES).map(|n| node::counter(&cluster.said(n), Reason::ArpAnswered)).sum();
        let asked: u64 = (0..NODES).map(|n| node::counter(&cluster.said(n), Reason::OtherOwner)).sum();
        assert!(answers >= 1 && asked >= 2, "{answers} answers");
        // Each question reaches three filters: one answers, two leave it to that one. ARP is the only traffic to the inside.
        cluster.host.within(|| Ok(UdpSocket::bind((HOST, 0))?.send_to(b"?", (INSIDE_CLUSTER, UDP))?)).unwrap();
        cluster.await_reports();
        let more: u64 = (0..NODES).map(|n| node::counter(&cluster.said(n), Reason::ArpAnswered)).sum();
        assert_eq!(more, answers + 1);
    }
}

#[test]
fn a_host_finds_a_client_inside_its_subnet_while_it_is_there() {
    for keeper in node::KEEPERS {
        let cluster = Cluster::start(keeper);
        let resolve = |address: &str| {
            let asked = (HOST, 0);
            let target: Ipv4Addr = address.parse().unwrap();
            cluster.host.within(|| Ok(UdpSocket::bind(asked)?.send_to(b"?", (target, 9)).map(drop)?)).unwrap();
            // The host's kernel says so too when nobody answered, after three questions.
            wait_for("an end of the resolution", Duration::from_secs(10), || {
                let entry = cluster.host.output("ip", &["neigh", "show", address]).unwrap();
                (entry.contains("lladdr") || entry.contains("FAILED")).then_some(entry)
            })
            .unwrap()
        };
        let mac: Vec<String> = cluster_mac(INSIDE_CLUSTER).iter().map(|octet| format!("{octet:02x}")).collect();
        let there = resolve(node::PRESENT);
        assert!(there.contains(&mac.join(":")), "{there}");
        let absent = resolve(node::ABSENT);
        assert!(absent.contains("FAILED"), "{absent}");
    }
}

#[test]
fn a_killed_node_neither_resets_nor_refuses_and_its_lease_ends() {
    for keeper in node::KEEPERS {
        let mut cluster = Cluster::start(keeper);
        let victim = 1;
        let victims_address = (100..111)
            .map(|n| Ipv4Addr::new(192, 0, 2, n))
            .find(|address| {
                HashKey::new(node::KEY).home_of_pair(*address, CLUSTER).index() % u16::from(NODES) == u16::from(victim)
            })
            .unwrap();
        assert!(answers_echo(&cluster.client, victims_address));
        let streams: Vec<(TcpStream, u8)> =
            cluster.client.within(|| Ok((0..FLOWS).map(|n| connect(30_000 + n).expect("connects")).collect())).unwrap();
        let refused = Cluster::snmp(&cluster.client, "Icmp", "InDestUnreachs");

        cluster.kill(victim);
        let died = Instant::now();
        // Its kernel lives on, and the lease that it was given last has some time to go.
        assert!(answers_echo(&cluster.client, victims_address), "the lease ended early");
        let mut errors = BTreeSet::new();
        for (mut stream, _) in streams.into_iter().filter(|(_, node)| *node == victim) {
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            for _ in 0..2 {
                if let Err(error) = stream.write_all(b"still there?") {
                    errors.insert(error.kind());
                }
                if let Err(error) = stream.read(&mut [0; 8]) {
                    errors.insert(error.kind());
                }
            }
        }
        assert!(!errors.contains(&ErrorKind::ConnectionReset), "{errors:?}");
        let answered = cluster.ask_by_udp();
        assert!(answered.iter().flatten().all(|node| *node != victim), "{answered:?}");
        assert!(answered.iter().all(|from| from.len() <= 1), "{answered:?}");
        let attempts: Vec<ErrorKind> = cluster
            .client
            .within(|| Ok((0..40).filter_map(|n| connect(40_000 + n).err()).map(|error| error.kind()).collect()))
            .unwrap();
        assert!(!attempts.is_empty(), "the victim owned a third of these");
        assert!(attempts.iter().all(|kind| *kind != ErrorKind::ConnectionRefused), "{attempts:?}");
        assert_eq!(
            Cluster::snmp(&cluster.client, "Icmp", "InDestUnreachs"),
            refused,
            "some kernel refused in its name"
        );

        std::thread::sleep(node::LEASE.saturating_sub(died.elapsed()));
        assert!(!answers_echo(&cluster.client, victims_address), "a node without a lease still answers");

        cluster.start_node(victim);
        assert!(cluster.said(victim).contains("taken over: true"), "{}", cluster.said(victim));
        let answered = cluster.ask_by_udp();
        assert!(answered.iter().all(|from| from.len() == 1), "{answered:?}");
        assert_eq!(Cluster::snmp(&cluster.client, "Icmp", "InDestUnreachs"), refused);
    }
}

#[test]
fn what_is_missing_is_said_in_one_sentence() {
    let lab = Lab::new().expect("this test loads BPF programs, so it must run as root");
    let namespace = lab.namespace("e").unwrap();
    let switch = lab.switch("s").unwrap();
    switch.plug("port1", &namespace, "out").unwrap();
    switch.plug("port2", &namespace, "in").unwrap();
    for keeper in node::KEEPERS {
        namespace
            .within(|| {
                let pins = format!("/sys/fs/bpf/{}/e", lab.prefix());
                let good = node::config(pins.clone(), keeper);
                let mut absent = good.clone();
                absent.outside.name = "absent".to_owned();
                let refused = Dispatch::attach(&absent);
                assert!(matches!(refused, Err(DispatchError::NoInterface { name }) if name == "absent"));
                let mut elsewhere = good.clone();
                elsewhere.directory = lab.directory().join("pins");
                assert!(matches!(Dispatch::attach(&elsewhere), Err(DispatchError::NoBpffs { .. })));
                let mut many = good.clone();
                many.addresses = (0..5).map(|n| node::address(Ipv4Addr::new(192, 0, 2, n))).collect();
                assert!(matches!(Dispatch::attach(&many), Err(DispatchError::TooManyAddresses { count: 5, max: 4 })));
                let first = Dispatch::attach(&good).unwrap();
                assert!(first.attached().iter().all(|attached| attached.keeper == keeper));
                assert!(matches!(Dispatch::attach(&good), Err(DispatchError::InUse { .. })));
                first.detach().unwrap();
                assert!(!std::path::Path::new(&pins).exists());
                let again = Dispatch::attach(&good).unwrap();
                assert!(again.attached().iter().all(|attached| !attached.taken_over));
                again.detach().unwrap();
                Ok(())
            })
            .unwrap();
        assert_eq!(filters(&namespace), 0, "{keeper:?}");
    }
}

#[test]
fn the_other_way_to_hold_the_program_leaves_nothing_of_the_first() {
    let lab = Lab::new().expect("this test loads BPF programs, so it must run as root");
    let namespace = lab.namespace("o").unwrap();
    let switch = lab.switch("s").unwrap();
    switch.plug("port1", &namespace, "out").unwrap();
    switch.plug("port2", &namespace, "in").unwrap();
    let pins = format!("/sys/fs/bpf/{}/o", lab.prefix());
    let attach = |keeper| {
        let mut config = node::config(pins.clone(), Keeper::Tcx);
        config.keeper = keeper;
        namespace.within(|| Ok(Dispatch::attach(&config).unwrap())).unwrap()
    };
    // Each is dropped as a crash would: what it attached stays.
    drop(attach(Some(Keeper::Clsact)));
    assert_eq!(filters(&namespace), 4, "a filter for each direction of both interfaces");
    let chosen = attach(None);
    assert!(chosen.attached().iter().all(|attached| attached.keeper == Keeper::Tcx), "this kernel has TCX links");
    assert_eq!(filters(&namespace), 0);
    drop(chosen);
    let last = attach(Some(Keeper::Clsact));
    let left: Vec<_> = std::fs::read_dir(&pins).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let left: Vec<_> = left.iter().filter_map(|name| name.to_str()).filter(|name| name.contains('-')).collect();
    assert!(left.len() == 4 && left.iter().all(|name| name.starts_with("filter-")), "{left:?}");
    namespace.within(|| last.detach().map_err(Into::into)).unwrap();
    assert_eq!(filters(&namespace), 0);
}

/// The filters on the clsact qdiscs of both interfaces.
fn filters(namespace: &Namespace) -> usize {
    let count = |interface, direction| {
        let shown = namespace.output("tc", &["filter", "show", "dev", interface, direction]).unwrap();
        shown.lines().filter(|line| line.contains("direct-action")).count()
    };
    ["out", "in"].iter().map(|interface| count(interface, "ingress") + count(interface, "egress")).sum()
}
