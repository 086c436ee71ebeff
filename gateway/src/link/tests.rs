//! Three whole links in one process, on loopback addresses: they found a cluster, replicate, lose a node, take it back.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster::Role;

use super::transport::tests::Ca;
use super::*;

const ENGINE: Engine = Engine(1);
/// Generous: a shared machine may stop us for long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the runtime of a node would know.
#[derive(Default)]
struct Seen {
    view: Option<CurrentView>,
    owned: BTreeMap<WorkSet, (Tenure, How, usize)>,
    committed: CommitId,
    notes: Vec<String>,
}

struct Node {
    link: ClusterLink,
    seen: Arc<Mutex<Seen>>,
    applied: Arc<Mutex<BTreeMap<RecordId, Change>>>,
    lease: Arc<AtomicU64>,
}

impl Node {
    fn start(test: u8, node: u8, nodes: u8, identity: &Identity) -> Self {
        let others = (1..=nodes).filter(|other| *other != node);
        Self::start_among(test, node, others.map(|other| (other, other)), Probe::Held, identity)
    }

    /// Starts a node that looks for each of the others at the address of another number.
    fn start_among(
        test: u8,
        node: u8,
        others: impl Iterator<Item = (u8, u8)>,
        probe: Probe,
        identity: &Identity,
    ) -> Self {
        let address = |node| IpAddr::V4(Ipv4Addr::new(127, 80, test, node));
        let name = |node: u8| format!("node{node}");
        let members = others.map(|(n, at)| Member { name: name(n), addresses: vec![Some(address(at))] });
        let config = Config {
            cluster: "lab".into(),
            name: name(node),
            configuration_version: 1,
            configuration_hash: [1; 32],
            networks: vec![address(node)],
            members: members.collect(),
            port: 4700,
            weight: 1,
            lone_survivor: LoneSurvivor::Serve,
            policy: Policy::default(),
            bounds: Bounds::default(),
            applied: vec![RecordKind::INNER_PREFIX],
        };
        let lease = Arc::new(AtomicU64::new(0));
        let fence = Arc::clone(&lease);
        let hooks = Hooks {
            lease: Box::new(move |until| fence.store(until.nanos, Ordering::Relaxed)),
            owner: Box::new(|_, _| {}),
            progress: Box::new(|_| true),
        };
        let applied: Arc<Mutex<BTreeMap<RecordId, Change>>> = Arc::default();
        let table = Arc::clone(&applied);
        let apply: Apply = Box::new(move |id, change| {
            table.lock().unwrap().insert(id, change.clone());
        });
        let (events, inbox) = mpsc::unbounded_channel();
        let link = ClusterLink::start(config, identity, hooks, apply, events).unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (handle, state) = (link.handle(), Arc::clone(&seen));
        std::thread::spawn(move || run(inbox, &handle, &state, probe));
        Self { link, seen, applied, lease }
    }

    fn full(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.view.as_ref().map_or(0, |v| v.view.members().iter().filter(|m| m.role == Role::Full).count())
    }

    fn owned(&self) -> usize {
        self.seen.lock().unwrap().owned.len()
    }

    fn records(&self) -> usize {
        self.seen.lock().unwrap().owned.values().map(|(_, _, records)| records).sum()
    }

    fn committed(&self) -> CommitId {
        self.seen.lock().unwrap().committed
    }

    fn notes(&self) -> Vec<String> {
        self.seen.lock().unwrap().notes.clone()
    }
}

/// Plays the node's runtime.
fn run(mut inbox: mpsc::UnboundedReceiver<Event>, handle: &Handle, seen: &Mutex<Seen>, probe: Probe) {
    while let Some(event) = inbox.blocking_recv() {
        let mut seen = seen.lock().unwrap();
        match event {
            Event::View(view) => seen.view = view,
            Event::Acquire { set, tenure, how, records } => {
                seen.owned.insert(set, (tenure, how, records.len()));
            }
            Event::Release(set) => {
                seen.owned.remove(&set);
            }
            Event::Prepare { set, tenure, .. } => handle.prepared(set, tenure.epoch),
            Event::Stop { set, to, tenure } => {
                seen.owned.remove(&set);
                handle.hand_over(set, to, tenure, b"final".to_vec());
            }
            Event::HandOver { set, tenure, state, .. } => {
                assert_eq!(state, b"final");
                handle.taken(set, tenure.epoch);
            }
            Event::Committed(_, commit) => seen.committed = commit,
            Event::Probe => handle.probed(probe),
            Event::Abandon(_) | Event::HandedOn { .. } | Event::Said { .. } => {}
            Event::Note(note) => seen.notes.push(format!("{note:?}")),
        }
    }
}

fn until(what: &str, nodes: &[&Node], done: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > PATIENCE {
            for node in nodes {
                println!("{:#?}\n{:?}", node.notes(), node.link.handle().status());
            }
            panic!("{what}: not within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    start.elapsed()
}

fn record(set: WorkSet, key: u128) -> RecordId {
    RecordId { set, kind: RecordKind::IKE_SA, key }
}

#[test]
fn three_nodes_found_replicate_lose_one_and_take_it_back() {
    let ca = Ca::new();
    let identities: Vec<_> = (1..=3).map(|n| ca.identity(&format!("node{n}"))).collect();
    let mut nodes: Vec<_> = (1..=3).map(|n| Node::start(1, n, 3, &identities[usize::from(n) - 1])).collect();
    let [one, two, three] = &nodes[..] else { panic!("three nodes") };
    let all = [one, two, three];
    let formed = until("a view of three", &all, || all.iter().all(|n| n.full() == 3));
    println!("view of three after {formed:?}");
    let spread = until("all sets owned", &all, || all.iter().map(|n| n.owned()).sum::<usize>() == WorkSet::COUNT);
    println!("all sets owned {spread:?} later: {:?}", all.map(Node::owned));
    until("leases", &all, || all.iter().all(|n| n.lease.load(Ordering::Relaxed) > 0));

    // One record in each set of node 3, committed one by one.
    let sets: Vec<_> = three.seen.lock().unwrap().owned.keys().copied().collect();
    let handle = three.link.handle();
    let mut waits = Vec::new();
    for (number, set) in (1..).zip(&sets) {
        let id = record(*set, 7);
        handle.put(ENGINE, CommitId(number), id, Change::Put(vec![9; 1500].into()));
        waits.push(until("a commit", &all, || three.committed() >= CommitId(number)));
    }
    waits.sort();
    println!("commit: median {:?}, worst {:?} of {}", waits[waits.len() / 2], waits[waits.len() - 1], waits.len());
    let prefix = RecordId { set: sets[0], kind: RecordKind::INNER_PREFIX, key: 1 };
    handle.put(ENGINE, CommitId(5000), prefix, Change::Put(vec![1].into()));
    until("a commit", &all, || three.committed() >= CommitId(5000));
    for node in all {
        assert!(node.applied.lock().unwrap().contains_key(&prefix), "dispatch knows before the commit");
    }

    // Node 3 dies.
    let dead = nodes.pop().unwrap();
    let killed = Instant::now();
    dead.link.kill();
    let [one, two] = &nodes[..] else { panic!("two nodes") };
    let all = [one, two];
    until("its sets taken over", &all, || all.iter().map(|n| n.owned()).sum::<usize>() == WorkSet::COUNT);
    println!("its {} sets are taken over {:?} after the kill", sets.len(), killed.elapsed());
    assert_eq!(one.records() + two.records(), sets.len() + 1, "with all records");
    assert!(all.iter().all(|n| n.full() == 2));

    // It comes back with nothing.
    nodes.push(Node::start(1, 3, 3, &identities[2]));
    let [one, two, three] = &nodes[..] else { panic!("three nodes") };
    let all = [one, two, three];
    println!("full member again after {:?}", until("a view of three", &all, || all.iter().all(|n| n.full() == 3)));
    println!("has work again after {:?}", until("work", &all, || three.owned() >= 300));
    let handle = three.link.handle();
    let set = *three.seen.lock().unwrap().owned.keys().next().unwrap();
    handle.put(ENGINE, CommitId(1), record(set, 8), Change::Put(vec![1].into()));
    until("a commit", &all, || three.committed() >= CommitId(1));
}

#[test]
fn a_datagram_costs_no_cryptography_unless_it_comes_from_a_members_address() {
    let node = Node::start(2, 1, 2, &Ca::new().identity("node1"));
    let say = |from: ([u8; 4], u16)| {
        UdpSocket::bind(SocketAddr::from(from)).unwrap().send_to(&[1, 2, 3], ("127.80.2.1", 4701)).unwrap();
    };
    let counted = || node.link.handle().status().report.datagrams;
    say(([127, 80, 2, 9], 4701));
    say(([127, 80, 2, 2], 4999));
    until("two strangers", &[&node], || counted().strange == 2);
    assert_eq!(counted().malformed, 0);
    say(([127, 80, 2, 2], 4701));
    until("the member's address", &[&node], || counted().malformed == 1);
    assert_eq!(counted().strange, 2);
}

/// A network that comes up late: carries datagrams between two nodes that look for each other where nobody is.
fn connect(test: u8, (one, seen_as): (u8, u8), (two, also_seen_as): (u8, u8)) {
    for port in [4700, 4701] {
        let address = |node: u8| SocketAddr::from(([127, 80, test, node], port));
        let [first, second] = [seen_as, also_seen_as].map(|node| Arc::new(UdpSocket::bind(address(node)).unwrap()));
        let ways = [(Arc::clone(&second), Arc::clone(&first), address(two)), (first, second, address(one))];
        for (from, by, to) in ways {
            std::thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok((len, _)) = from.recv_from(&mut buffer) {
                    let _ = by.send_to(&buffer[..len], to);
                }
            });
        }
    }
}

#[test]
fn of_two_parts_that_were_founded_apart_one_yields_when_they_meet() {
    let ca = Ca::new();
    let start = |node: u8, other, at| {
        let identity = ca.identity(&format!("node{node}"));
        Node::start_among(3, node, [(other, at)].into_iter(), Probe::Free, &identity)
    };
    let (one, two) = (start(1, 2, 12), start(2, 1, 11));
    let all = [&one, &two];
    until("a cluster of each", &all, || all.iter().all(|node| node.full() == 1));
    connect(3, (1, 11), (2, 12));
    until("the one with the higher address to yield", &all, || two.notes().iter().any(|note| note == "Left(Healing)"));
    assert_eq!(one.full(), 1, "the other one stays");
}
