//! Time, networks, nodes and clients of one simulated run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use cluster::membership::{Config, Output, Peer};
use cluster::replication::{Bounds, Output as Replicated};
use cluster::{Addresses, Identity, LoneSurvivor, Membership, Name, Network, Policy, Replication, StartId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::{Epoch, Time, WorkSet};

use crate::app::{App, AppBug, Sent, home};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1000 * MS;

/// What a run consists of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) networks: usize,
    pub(crate) minutes: u64,
    pub(crate) policy: Policy,
    pub(crate) bug: AppBug,
    pub(crate) script: Script,
}

/// Which faults a run injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Any, at random.
    Random,
    /// Two views in quick succession, of which the second removes an owner that the first still leaned on.
    QuickViews,
}

#[derive(Debug)]
enum Event {
    Timer { node: usize, armed: u64 },
    Datagram { to: usize, network: u8, from: usize, sender: StartId, bytes: Vec<u8> },
    Message { from: (usize, StartId), to: (usize, StartId), session: u64 },
    Links,
    Request { client: usize },
    Answer { session: u64, message: u64, answer: u64 },
    Data,
    Fault,
    Heal(Heal),
}

/// What ends a fault.
#[derive(Clone, Debug)]
pub(crate) enum Heal {
    Start(usize),
    Resume(usize),
    Cuts,
    Air,
    Kill(usize),
    Split(usize, usize),
}

pub(crate) struct Node {
    pub(crate) alive: bool,
    pub(crate) paused: bool,
    pub(crate) membership: Membership,
    pub(crate) replication: Replication,
    app: App,
    armed_at: u64,
    backlog: Vec<Event>,
    drift: i64,
    offset: u64,
}

struct Client {
    session: u64,
    message: u64,
    asked: u64,
}

/// Connections between replication cores.
struct Stream {
    id: u64,
    a: (usize, StartId),
    b: (usize, StartId),
    queue: [VecDeque<Vec<u8>>; 2],
    free_at: [u64; 2],
    broken_since: Option<u64>,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    pub(crate) rng: StdRng,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    bodies: Vec<Option<Event>>,
    free: Vec<usize>,
    sequence: u64,
    pub(crate) nodes: Vec<Node>,
    clients: Vec<Client>,
    streams: BTreeMap<u64, Stream>,
    pub(crate) cut: HashSet<(u8, usize, usize)>,
    pub(crate) client_cut: HashSet<usize>,
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    pub(crate) reorder: u32,
    pool: Vec<Vec<u8>>,
    pub(crate) check: Check,
    pub(crate) quiet_from: u64,
    pub(crate) trace: bool,
}

/// The invariants' memory.
#[derive(Default)]
pub(crate) struct Check {
    pub(crate) violations: Vec<String>,
    answers: HashMap<(u64, u64), u64>,
    sequences: HashSet<(u64, u64)>,
    vectors: HashSet<(u64, u8, Epoch, u64)>,
    newest: HashMap<WorkSet, (Epoch, usize)>,
    views: HashMap<u64, u64>,
    pub(crate) packets: u64,
    pub(crate) answered: u64,
    pub(crate) takeovers: u64,
    pub(crate) moves: u64,
    pub(crate) events: u64,
    pub(crate) datagrams: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) gap_max: u64,
    heard_at: HashMap<u64, u64>,
}

fn address(node: usize, network: usize) -> SocketAddr {
    SocketAddr::from(([10, u8::try_from(network).unwrap(), 0, u8::try_from(node).unwrap() + 1], 4600))
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut world = Self {
            now: 0,
            rng: StdRng::seed_from_u64(plan.seed),
            events: BinaryHeap::new(),
            bodies: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            nodes: Vec::new(),
            clients: Vec::new(),
            streams: BTreeMap::new(),
            cut: HashSet::new(),
            client_cut: HashSet::new(),
            loss: 0,
            duplicate: 0,
            reorder: 0,
            pool: Vec::new(),
            check: Check::default(),
            quiet_from: (plan.minutes * 60 * S).saturating_sub(20 * S),
            plan,
            trace: std::env::var_os("SIM_TRACE").is_some(),
        };
        for node in 0..world.plan.nodes {
            let fresh = world.fresh(node);
            world.nodes.push(fresh);
            world.at(world.now + 1, Event::Timer { node, armed: 0 });
            world.nodes[node].armed_at = 0;
        }
        for client in 0..8 {
            let session = (u64::from(world.rng.next_u32()) << 10) | (world.random(1024));
            world.clients.push(Client { session, message: 1, asked: 0 });
            let at = 5 * S + world.random(200 * MS);
            world.at(at, Event::Request { client });
        }
        world.at(S, Event::Data);
        world.at(10 * MS, Event::Links);
        world.at(10 * S, Event::Fault);
        world
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        if below == 0 { 0 } else { self.rng.next_u64() % below }
    }

    fn fresh(&mut self, node: usize) -> Node {
        let addresses = |node: usize| -> Addresses {
            let mut addresses = Addresses::default();
            for (network, slot) in addresses.iter_mut().enumerate().take(self.plan.networks) {
                *slot = Some(address(node, network));
            }
            addresses
        };
        let name = |node: usize| Name::new(&format!("n{node}")).unwrap();
        let peers = (0..self.plan.nodes).filter(|peer| *peer != node);
        let peers = peers.map(|peer| Peer { name: name(peer), addresses: addresses(peer) }).collect();
        let (own, name) = (addresses(node), name(node));
        let start = StartId(self.rng.next_u64());
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
        let identity = Identity { name, start, addresses: own, weight: 100 };
        let config = Config {
            identity,
            peers,
            config_version: 1,
            config_hash: [7; 32],
            lone_survivor: LoneSurvivor::Wait,
            policy: self.plan.policy.clone(),
            seed,
        };
        let drift = i64::try_from(self.random(2001)).unwrap() - 1000;
        let offset = S + self.random(1000 * S);
        let mut node = Node {
            alive: true,
            paused: false,
            membership: Membership::new(Time::ZERO, config.clone()),
            replication: Replication::new(start, Vec::new(), Bounds::default()),
            app: App::default(),
            armed_at: u64::MAX,
            backlog: Vec::new(),
            drift,
            offset,
        };
        node.membership = Membership::new(node.clock(self.now), config);
        node
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.bodies.push(None);
            self.bodies.len() - 1
        });
        self.bodies[place] = Some(event);
        self.events.push(Reverse((at, self.sequence, place)));
    }

    pub(crate) fn heal_at(&mut self, after: u64, heal: Heal) {
        self.at(self.now + after, Event::Heal(heal));
    }

    pub(crate) fn violate(&mut self, what: String) {
        let line = format!("seed {} at {} ms: {what}", self.plan.seed, self.now / MS);
        self.check.violations.push(line);
    }

    pub(crate) fn log(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10.3} {}", self.now as f64 / 1e6, what());
        }
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) {
        let end = self.plan.minutes * 60 * S;
        while let Some(Reverse((at, _, place))) = self.events.pop() {
            if at > end || !self.check.violations.is_empty() {
                break;
            }
            self.now = at;
            self.check.events += 1;
            self.free.push(place);
            if let Some(event) = self.bodies[place].take() {
                self.handle(event);
            }
        }
        if self.check.violations.is_empty() {
            self.judge_end();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Timer { node, armed } => {
                if self.nodes[node].armed_at != armed {
                    return;
                }
                self.nodes[node].armed_at = u64::MAX;
                if !self.nodes[node].alive {
                    return;
                }
                if self.nodes[node].paused {
                    self.nodes[node].backlog.push(Event::Timer { node, armed });
                    return;
                }
                let now = self.nodes[node].clock(self.now);
                self.nodes[node].membership.handle_timeout(now);
                self.drain(node);
            }
            Event::Datagram { to, network, from, sender, bytes } => {
                if !self.nodes[to].alive {
                    self.pool.push(bytes);
                } else if self.nodes[to].paused {
                    // A socket's buffer holds so many; the rest is lost.
                    if self.nodes[to].backlog.len() < 300 {
                        self.nodes[to].backlog.push(Event::Datagram { to, network, from, sender, bytes });
                    }
                } else {
                    let now = self.nodes[to].clock(self.now);
                    let network_id = Network::new(network).unwrap();
                    let source = address(from, network.into());
                    self.nodes[to].membership.handle_datagram(now, network_id, source, sender, &bytes);
                    self.pool.push(bytes);
                    self.drain(to);
                }
            }
            Event::Message { from, to, session } => self.deliver(from, to, session),
            Event::Links => {
                self.links();
                self.at(self.now + 10 * MS, Event::Links);
            }
            Event::Request { client } => self.request(client),
            Event::Answer { session, message, answer } => self.answer(session, message, answer),
            Event::Data => self.data(),
            Event::Fault => {
                if self.now < self.quiet_from {
                    let wait = match self.plan.script {
                        Script::Random => {
                            crate::faults::inject(self);
                            S + self.random(6 * S)
                        }
                        Script::QuickViews => {
                            crate::faults::quick_views(self);
                            3 * S
                        }
                    };
                    self.at(self.now + wait, Event::Fault);
                } else {
                    self.cut.clear();
                    self.client_cut.clear();
                    (self.loss, self.duplicate, self.reorder) = (0, 0, 0);
                }
            }
            Event::Heal(heal) => self.heal(heal),
        }
    }

    fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Start(node) => {
                if !self.nodes[node].alive {
                    let fresh = self.fresh(node);
                    self.nodes[node] = fresh;
                    self.log(|| format!("start n{node}"));
                    self.arm(node, 1);
                }
            }
            Heal::Resume(node) => self.resume(node),
            Heal::Cuts => {
                self.cut.clear();
                self.client_cut.clear();
                self.log(|| "cuts healed".into());
            }
            Heal::Air => (self.loss, self.duplicate, self.reorder) = (0, 0, 0),
            Heal::Split(a, b) => crate::faults::split(self, a, b),
            Heal::Kill(node) => {
                if crate::faults::may_disturb(self, &[node], true) {
                    self.kill(node);
                    self.heal_at(2 * S, Heal::Start(node));
                }
            }
        }
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.log(|| format!("kill n{node}"));
        self.nodes[node].alive = false;
        self.nodes[node].paused = false;
        self.nodes[node].backlog.clear();
        self.nodes[node].armed_at = u64::MAX;
        self.drop_streams(node);
    }

    pub(crate) fn pause(&mut self, node: usize) {
        self.log(|| format!("pause n{node}"));
        self.nodes[node].paused = true;
    }

    fn resume(&mut self, node: usize) {
        if !self.nodes[node].alive || !self.nodes[node].paused {
            return;
        }
        self.log(|| format!("resume n{node}"));
        self.nodes[node].paused = false;
        // The stale owner's workers run before membership hears anything: only the fence stops them.
        self.data_of(node);
        let mut backlog = std::mem::take(&mut self.nodes[node].backlog);
        if self.random(2) == 0 {
            backlog.reverse();
        }
        self.arm(node, 1);
        for event in backlog {
            if !matches!(event, Event::Timer { .. }) {
                self.handle(event);
            }
        }
    }

    fn arm(&mut self, node: usize, at: u64) {
        let at = at.max(self.now + 1);
        if self.nodes[node].armed_at > at || self.nodes[node].armed_at <= self.now {
            self.nodes[node].armed_at = at;
            self.at(at, Event::Timer { node, armed: at });
        }
    }

    /// Takes everything that a node has to say.
    fn drain(&mut self, node: usize) {
        loop {
            let mut idle = true;
            while let Some(output) = self.nodes[node].membership.poll_output() {
                idle = false;
                self.on_output(node, output);
            }
            while let Some(output) = self.nodes[node].replication.poll_output() {
                idle = false;
                self.on_replicated(node, output);
            }
            if idle {
                break;
            }
        }
        self.transmit(node);
        let at = self.nodes[node].membership.poll_timeout();
        let at = self.nodes[node].real(at);
        self.arm(node, at);
    }

    fn transmit(&mut self, node: usize) {
        let mut buffer = self.pool.pop().unwrap_or_default();
        while let Some(to) = self.nodes[node].membership.poll_transmit(&mut buffer) {
            let SocketAddr::V4(v4) = to.to else { continue };
            let target = usize::from(v4.ip().octets()[3]) - 1;
            let network = to.network.number();
            self.check.datagrams += 1;
            if self.is_cut(network, node, target) || self.chance(self.loss) {
                continue;
            }
            let sender = self.nodes[node].membership.identity().start;
            let copies = if self.chance(self.duplicate) { 2 } else { 1 };
            for copy in 0..copies {
                let mut delay = 50_000 + self.random(300_000);
                if copy == 1 || self.chance(self.reorder) {
                    delay += if self.chance(20) { self.random(5 * S) } else { self.random(20 * MS) };
                }
                let mut bytes = self.pool.pop().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(&buffer);
                let event = Event::Datagram { to: target, network, from: node, sender, bytes };
                self.at(self.now + delay, event);
            }
        }
        self.pool.push(buffer);
    }

    fn is_cut(&self, network: u8, from: usize, to: usize) -> bool {
        !self.cut.is_empty() && self.cut.contains(&(network, from, to))
    }

    fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && self.random(100) < u64::from(percent)
    }

    fn on_output(&mut self, node: usize, output: Output) {
        let now = self.nodes[node].clock(self.now);
        match output {
            Output::Lease(_) | Output::Owner { .. } | Output::Abandon { .. } | Output::Probe => {}
            Output::View { view, own } => {
                self.log(|| {
                    let members = view.members().iter().map(|m| format!("{}:{:?}", m.identity.name, m.role));
                    let members: Vec<_> = members.collect();
                    format!(
                        "n{node} view {} own {} master {} {members:?}",
                        view.id().number,
                        own.number(),
                        view.master().number()
                    )
                });
                self.nodes[node].replication.handle_view(now, &view, own);
                self.links();
            }
            Output::Acquire { set, tenure, how } => {
                match how {
                    cluster::membership::How::Unplanned => self.check.takeovers += 1,
                    cluster::membership::How::Planned => self.check.moves += 1,
                    cluster::membership::How::Founded => {}
                }
                let state = &mut self.nodes[node];
                state.app.acquire(set, tenure, &state.replication);
                state.replication.acquire(now, set, tenure);
            }
            Output::Release { set } => {
                self.nodes[node].app.release(set);
                self.nodes[node].replication.release(set);
            }
            Output::Prepare { set, .. } => self.nodes[node].membership.handle_prepared(now, set),
            Output::Stop { set, to, tenure } => {
                let state = &mut self.nodes[node];
                let last = state.app.stop(set);
                let _ = state.replication.hand_over(now, set, to, tenure, &last);
            }
            Output::JoinAsked(identity) => {
                self.nodes[node].membership.handle_join_verdict(now, identity.start, Ok(()));
            }
            Output::Left { reason, start } => {
                self.log(|| format!("n{node} left: {reason:?}"));
                self.drop_streams(node);
                self.nodes[node].replication.restart(start);
                self.nodes[node].app = App::default();
            }
            Output::Event(event) => self.log(|| format!("n{node} {event:?}")),
        }
    }

    fn on_replicated(&mut self, node: usize, output: Replicated) {
        let now = self.nodes[node].clock(self.now);
        match output {
            Replicated::Send { to, message } => self.send(node, to, message),
            Replicated::Committed(upto) => {
                for sent in self.nodes[node].app.committed(upto) {
                    self.leave(node, sent);
                }
            }
            Replicated::Apply { .. } => self.nodes[node].replication.handle_applied(now),
            Replicated::HandOver { set, tenure, state } => {
                self.nodes[node].app.take(set, &state);
                self.nodes[node].membership.handle_taken(now, set, tenure.epoch);
            }
            Replicated::Counted(start) => self.nodes[node].membership.handle_counted(now, start),
            Replicated::Slow(start) => self.nodes[node].membership.handle_slow(now, start),
            Replicated::Deposed { set, .. } => self.nodes[node].app.release(set),
        }
    }

    fn linked(&self, a: usize, b: usize) -> bool {
        (0..self.plan.networks).any(|network| {
            let network = u8::try_from(network).unwrap();
            !self.is_cut(network, a, b) && !self.is_cut(network, b, a)
        })
    }

    /// Opens and closes streams as a transport would.
    fn links(&mut self) {
        let mut closed = Vec::new();
        for (id, stream) in &mut self.streams {
            let up = (0..self.plan.networks).any(|network| {
                let network = u8::try_from(network).unwrap();
                let (a, b) = (stream.a.0, stream.b.0);
                !self.cut.contains(&(network, a, b)) && !self.cut.contains(&(network, b, a))
            });
            if up {
                stream.broken_since = None;
            } else if self.now - *stream.broken_since.get_or_insert(self.now) > 2 * S {
                closed.push(*id);
            }
        }
        for id in closed {
            self.close(id);
        }
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let ready = |node: &Node| node.alive && !node.paused;
                if !ready(&self.nodes[a]) || !ready(&self.nodes[b]) || !self.linked(a, b) {
                    continue;
                }
                let (start_a, start_b) =
                    (self.nodes[a].membership.identity().start, self.nodes[b].membership.identity().start);
                let knows =
                    |node: &Node, other| node.membership.view().is_some_and(|view| view.by_start(other).is_some());
                if !knows(&self.nodes[a], start_b) || !knows(&self.nodes[b], start_a) {
                    continue;
                }
                let (end_a, end_b) = ((a, start_a), (b, start_b));
                if self.streams.values().any(|stream| stream.a == end_a && stream.b == end_b) {
                    continue;
                }
                self.sequence += 1;
                let id = self.sequence;
                let stream = Stream {
                    id,
                    a: end_a,
                    b: end_b,
                    queue: [VecDeque::new(), VecDeque::new()],
                    free_at: [0; 2],
                    broken_since: None,
                };
                self.streams.insert(id, stream);
                for (node, peer) in [(a, start_b), (b, start_a)] {
                    let now = self.nodes[node].clock(self.now);
                    self.nodes[node].replication.handle_peer_connected(now, peer);
                    self.flush(node);
                }
            }
        }
    }

    fn flush(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].replication.poll_output() {
            self.on_replicated(node, output);
        }
    }

    fn close(&mut self, id: u64) {
        let Some(stream) = self.streams.remove(&id) else { return };
        for ((node, own), (_, peer)) in [(stream.a, stream.b), (stream.b, stream.a)] {
            if self.nodes[node].alive && self.nodes[node].replication.start() == own {
                let now = self.nodes[node].clock(self.now);
                self.nodes[node].replication.handle_peer_disconnected(now, peer);
            }
        }
    }

    fn drop_streams(&mut self, node: usize) {
        let gone: Vec<u64> = self
            .streams
            .values()
            .filter(|stream| stream.a.0 == node || stream.b.0 == node)
            .map(|stream| stream.id)
            .collect();
        for id in gone {
            self.close(id);
        }
    }

    fn send(&mut self, node: usize, to: StartId, message: Vec<u8>) {
        let own = (node, self.nodes[node].replication.start());
        let delay = 100_000 + self.random(400_000);
        let found = self
            .streams
            .values_mut()
            .find(|stream| (stream.a == own && stream.b.1 == to) || (stream.b == own && stream.a.1 == to));
        let Some(stream) = found else { return };
        let side = usize::from(stream.b == own);
        let peer = if side == 0 { stream.b } else { stream.a };
        stream.queue[side].push_back(message);
        let at = (self.now + delay).max(stream.free_at[side] + 1);
        stream.free_at[side] = at;
        let id = stream.id;
        self.at(at, Event::Message { from: own, to: peer, session: id });
    }

    fn deliver(&mut self, from: (usize, StartId), to: (usize, StartId), id: u64) {
        if !self.streams.contains_key(&id) {
            return;
        }
        let node = to.0;
        let lossy = self.chance(self.loss);
        if !self.linked(from.0, node) || self.nodes[node].paused || lossy {
            // The transport repeats what was lost, in order.
            let wait = 3 * MS + self.random(5 * MS);
            self.at(self.now + wait, Event::Message { from, to, session: id });
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let side = usize::from(stream.b == from);
        let Some(message) = stream.queue[side].pop_front() else { return };
        let now = self.nodes[node].clock(self.now);
        self.nodes[node].replication.handle_message(now, from.1, &message);
        self.drain(node);
    }

    fn request(&mut self, client: usize) {
        let (session, message) = (self.clients[client].session, self.clients[client].message);
        if self.clients[client].asked == 0 {
            self.clients[client].asked = self.now;
        }
        for node in 0..self.nodes.len() {
            let ready = self.nodes[node].alive && !self.nodes[node].paused && !self.client_cut.contains(&node);
            // The fence is closed for what comes in too.
            if !ready || !self.is_leased(node) {
                continue;
            }
            let now = self.nodes[node].clock(self.now);
            let noise = self.rng.next_u64();
            let bug = self.plan.bug;
            let state = &mut self.nodes[node];
            let (sent, lost) = state.app.request(now, &mut state.replication, bug, session, message, noise);
            if let Some(lost) = lost {
                self.violate(format!("I6: n{node}: {lost}"));
            }
            if let Some(sent) = sent {
                self.leave(node, sent);
            }
            self.drain(node);
        }
        let again = 100 * MS + self.random(20 * MS);
        self.at(self.now + again, Event::Request { client });
    }

    fn answer(&mut self, session: u64, message: u64, answer: u64) {
        let Some(client) = self.clients.iter_mut().find(|client| client.session == session) else { return };
        if client.message == message {
            client.message += 1;
            client.asked = 0;
            self.check.answered += 1;
            let _ = answer;
        }
    }

    fn data(&mut self) {
        for node in 0..self.nodes.len() {
            self.data_of(node);
        }
        let interval = match self.plan.script {
            Script::Random => 50 * MS,
            Script::QuickViews => 4 * MS,
        };
        self.at(self.now + interval, Event::Data);
    }

    fn data_of(&mut self, node: usize) {
        if !self.nodes[node].alive || self.nodes[node].paused {
            return;
        }
        let now = self.nodes[node].clock(self.now);
        let state = &mut self.nodes[node];
        let sent = state.app.data(now, &mut state.replication);
        for sent in sent {
            self.leave(node, sent);
        }
        self.flush(node);
    }

    fn is_leased(&self, node: usize) -> bool {
        self.nodes[node].clock(self.now) < self.nodes[node].membership.lease_until()
    }

    /// Something leaves the node, if the kernel's fence lets it: here the invariants are judged.
    fn leave(&mut self, node: usize, sent: Sent) {
        if !self.is_leased(node) {
            return;
        }
        let (Sent::Answer { session, .. } | Sent::Data { session, .. }) = &sent;
        let set = home(*session);
        let Some(tenure) = self.nodes[node].app.held.get(&set).copied() else { return };
        let (id, unproven) = match self.nodes[node].membership.view() {
            Some(view) => (view.id(), view.is_unproven()),
            None => return,
        };
        self.check.packets += 1;
        let newest = self.check.newest.entry(set).or_insert((tenure.epoch, node));
        let (epoch, by) = *newest;
        if tenure.epoch < epoch || (tenure.epoch == epoch && by != node) {
            if !unproven {
                let ours = tenure.epoch;
                self.violate(format!("I1: n{node} sends for set {set} under {ours:?}, n{by} has under {epoch:?}"));
            }
        } else {
            *newest = (tenure.epoch, node);
        }
        if !unproven && *self.check.views.entry(id.number).or_insert(id.digest) != id.digest {
            self.violate(format!("I10: two views {} are in force", id.number));
        }
        match sent {
            Sent::Answer { session, message, answer } => {
                if *self.check.answers.entry((session, message)).or_insert(answer) != answer {
                    self.violate(format!(
                        "I1: request {message} of session {session:x} was answered with different bytes"
                    ));
                }
                if !self.client_cut.contains(&node) {
                    let delay = 100_000 + self.random(MS);
                    self.at(self.now + delay, Event::Answer { session, message, answer });
                }
            }
            Sent::Data { session, sequence, counter } => {
                if !self.check.sequences.insert((session, sequence)) {
                    self.violate(format!("I2: sequence number {sequence} of session {session:x} left twice"));
                }
                let vector = (session, tenure.slot.number(), tenure.epoch, counter);
                if !self.check.vectors.insert(vector) {
                    self.violate(format!("I2: vector {vector:?} left twice"));
                }
                let before = self.check.heard_at.insert(session, self.now).unwrap_or(self.now);
                self.check.gap_max = self.check.gap_max.max(self.now - before);
            }
        }
    }

    /// I11: the faults have stopped; everything must be whole again.
    fn judge_end(&mut self) {
        let views: Vec<_> = self.nodes.iter().map(|node| node.membership.view().map(|view| view.id())).collect();
        if views.iter().any(|view| view.is_none() || *view != views[0]) {
            self.violate(format!("I11: after the faults the nodes are in views {views:?}"));
            return;
        }
        let full = self.nodes[0].membership.view().map_or(0, |view| view.full().len());
        if usize::try_from(full).unwrap() != self.nodes.len() {
            self.violate(format!("I11: only {full} members are full"));
        }
        for set in WorkSet::all() {
            let owners: Vec<usize> =
                (0..self.nodes.len()).filter(|node| self.nodes[*node].app.held.contains_key(&set)).collect();
            if owners.len() != 1 {
                self.violate(format!("I11: set {set} is owned by {owners:?}"));
                return;
            }
            let content =
                |node: &Node| node.replication.records(set).map(|(id, bytes)| (id, bytes.to_vec())).collect::<Vec<_>>();
            let first = content(&self.nodes[0]);
            if self.nodes.iter().any(|node| content(node).len() != first.len()) {
                self.violate(format!("I11: the copies of set {set} differ"));
                return;
            }
        }
        for client in 0..self.clients.len() {
            let asked = self.clients[client].asked;
            if asked != 0 && self.now - asked > 2 * S {
                let session = self.clients[client].session;
                self.violate(format!("I6: session {session:x} gets no answer"));
            }
        }
    }
}

impl Node {
    /// The node's own clock.
    pub(crate) fn clock(&self, now: u64) -> Time {
        let skew = i128::from(now) * i128::from(self.drift) / 1_000_000;
        Time { nanos: u64::try_from(i128::from(now) + skew).unwrap() + self.offset }
    }

    /// When the node's clock shows `at`, rounded up.
    fn real(&self, at: Time) -> u64 {
        let local = i128::from(at.nanos.saturating_sub(self.offset));
        u64::try_from(local * 1_000_000 / (1_000_000 + i128::from(self.drift)) + 1).unwrap()
    }
}
