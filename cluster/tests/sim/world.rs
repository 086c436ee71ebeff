//! Time, nodes and what happens to them in one simulated run.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;

use cluster::membership::{How, Output, Probe};
use cluster::replication::Output as Replicated;
use cluster::{LoneSurvivor, Network, Policy, StartId};
use wire::{CommitId, Tenure, WorkSet};

use crate::air::Air;
use crate::app::{App, Request};
use crate::bugs::Bug;
use crate::clients::Client;
use crate::faults::{self, Heal};
use crate::judge::Check;
use crate::node::{BACKLOG_MAX, Node, address};
use crate::operator::Operator;
use crate::queue::{Dice, Queue};
use crate::streams::Stream;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1000 * MS;
/// The faults stop this long before they are judged to have left no trace.
const CALM: u64 = 10 * S;
/// How often they do.
const CALM_EVERY: u64 = 120 * S;
/// What three probes take.
const PROBE: u64 = 300 * MS;
const CLIENTS: usize = 8;
/// A cluster that has so much to say answers its own answers.
const STORM: usize = 100_000;

/// What a run consists of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) networks: usize,
    pub(crate) minutes: u64,
    pub(crate) policy: Policy,
    pub(crate) lone: LoneSurvivor,
    /// No association lives longer, in nanoseconds.
    pub(crate) life: u64,
    pub(crate) bug: Bug,
    pub(crate) script: Script,
}

impl Plan {
    /// Whether parts may go on alone here, unproven.
    pub(crate) fn is_lone(&self) -> bool {
        self.lone == LoneSurvivor::Serve
    }

    pub(crate) fn end(&self) -> u64 {
        self.minutes * 60 * S
    }
}

/// Which faults a run injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Any, at random.
    Random,
    /// Two views in quick succession, of which the second removes an owner that the first still leaned on.
    QuickViews,
    /// One node fails while the processors of all are taken away in bursts.
    Stolen,
}

/// A datagram on its way.
pub(crate) struct Arrival {
    pub(crate) to: usize,
    pub(crate) network: u8,
    pub(crate) from: usize,
    pub(crate) sender: StartId,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) enum Event {
    Timer { node: usize, armed: u64 },
    Datagram(Arrival),
    Message { stream: u64, side: usize },
    Links,
    Request { client: usize },
    Answer { from: usize, of: Request },
    Data,
    Fault,
    Heal(Heal),
    Calm,
    Judge,
    Operate,
    Probed { node: usize, start: StartId, held: bool },
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    pub(crate) queue: Queue<Event>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) streams_opened: u64,
    /// Last words that were on a stream, where a bug lets them be said only once.
    pub(crate) last_words: HashSet<Vec<u8>>,
    pub(crate) air: Air,
    pub(crate) check: Check,
    /// Dies as soon as an entry of it has reached one of the others.
    pub(crate) doomed: Option<usize>,
    /// No faults until then.
    pub(crate) calm_until: u64,
    pub(crate) ticks: u64,
    pub(crate) operator: Operator,
    pool: Vec<Vec<u8>>,
    events: u64,
    datagrams: u64,
    trace: bool,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut world = Self {
            now: 0,
            dice: Dice::new(plan.seed),
            queue: Queue::new(),
            nodes: Vec::new(),
            clients: Vec::new(),
            streams: Vec::new(),
            streams_opened: 0,
            last_words: HashSet::new(),
            air: Air::default(),
            check: Check::default(),
            doomed: None,
            calm_until: 0,
            ticks: 0,
            operator: Operator::default(),
            pool: Vec::new(),
            events: 0,
            datagrams: 0,
            plan,
            trace: std::env::var_os("SIM_TRACE").is_some(),
        };
        for node in 0..world.plan.nodes {
            let started = Node::start(&world.plan, &mut world.dice, node, world.now);
            world.nodes.push(started);
            world.arm(node, 1);
        }
        for client in 0..CLIENTS {
            let fresh = world.log_in();
            world.clients.push(fresh);
            let at = 5 * S + world.dice.below(200 * MS);
            world.queue.push(at, Event::Request { client });
        }
        world.queue.push(S, Event::Data);
        world.queue.push(10 * MS, Event::Links);
        world.queue.push(10 * S, Event::Fault);
        if !world.plan.is_lone() && world.plan.script == Script::Random {
            world.queue.push(20 * S, Event::Operate);
        }
        let end = world.plan.end();
        let calms = (1..=end / CALM_EVERY).map(|calm| calm * CALM_EVERY).filter(|at| at + CALM < end);
        for judged in calms.chain([end]) {
            world.queue.push(judged - CALM, Event::Calm);
            world.queue.push(judged, Event::Judge);
        }
        world
    }

    pub(crate) fn heal_at(&mut self, after: u64, heal: Heal) {
        self.queue.push(self.now + after, Event::Heal(heal));
    }

    pub(crate) fn log(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10.3} {}", self.now as f64 / 1e6, what());
        }
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) {
        let end = self.plan.end();
        while let Some((at, event)) = self.queue.pop() {
            if at > end || !self.check.violations.is_empty() {
                break;
            }
            self.now = at;
            self.events += 1;
            self.handle(event);
            if self.queue.len() > STORM {
                self.violate(format!("I12: {} datagrams are under way", self.queue.len()));
            }
        }
        self.check.counts.insert("events", self.events);
        self.check.counts.insert("datagrams", self.datagrams);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Timer { node, armed } => self.timer(node, armed),
            Event::Datagram(arrival) => self.arrive(arrival),
            Event::Message { stream, side } => self.deliver(stream, side),
            Event::Links => {
                self.links();
                self.queue.push(self.now + 10 * MS, Event::Links);
            }
            Event::Request { client } => self.request(client),
            Event::Answer { from, of } => self.answer(from, of),
            Event::Data => self.data(),
            Event::Fault => self.fault(),
            Event::Heal(heal) => faults::heal(self, heal),
            Event::Calm => {
                self.log(|| "calm".into());
                self.calm_until = self.now + CALM;
                self.doomed = None;
                faults::heal_all(self);
            }
            Event::Judge => self.judge_calm(),
            Event::Operate => self.operate(),
            Event::Probed { node, start, held } => self.probed(node, start, held),
        }
    }

    fn timer(&mut self, node: usize, armed: u64) {
        if self.nodes[node].armed_at != armed {
            return;
        }
        self.nodes[node].armed_at = u64::MAX;
        if self.nodes[node].is_running() {
            let now = self.nodes[node].clock(self.now);
            let state = &mut self.nodes[node];
            state.membership.handle_timeout(now);
            if state.replication.poll_timeout().is_some_and(|at| at <= now) {
                state.replication.handle_timeout(now);
            }
            self.drain(node);
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let node = &mut self.nodes[arrival.to];
        if node.paused {
            if node.backlog.len() < BACKLOG_MAX {
                node.backlog.push_back(arrival);
            }
            return;
        }
        if node.alive {
            let now = node.clock(self.now);
            let network = Network::new(arrival.network).unwrap();
            let source = address(arrival.from, arrival.network.into());
            node.membership.handle_datagram(now, network, source, arrival.sender, &arrival.bytes);
            self.drain(arrival.to);
        }
        self.pool.push(arrival.bytes);
    }

    fn fault(&mut self) {
        let wait = if self.now < self.calm_until {
            self.calm_until - self.now
        } else {
            match self.plan.script {
                Script::Random => {
                    faults::inject(self);
                    S + self.dice.below(5 * S)
                }
                Script::Stolen => {
                    faults::steal(self);
                    4 * S
                }
                Script::QuickViews => {
                    faults::quick_views(self);
                    3 * S
                }
            }
        };
        self.queue.push(self.now + wait, Event::Fault);
    }

    pub(crate) fn start(&mut self, node: usize) {
        if !self.nodes[node].alive {
            self.log(|| format!("start n{node}"));
            self.nodes[node] = Node::start(&self.plan, &mut self.dice, node, self.now);
            self.arm(node, 1);
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

    pub(crate) fn resume(&mut self, node: usize) {
        if !self.nodes[node].alive || !self.nodes[node].paused {
            return;
        }
        self.log(|| format!("resume n{node}"));
        self.nodes[node].paused = false;
        if self.nodes[node].app.is_busy() && !self.nodes[node].is_leased(self.now) {
            self.check.count("stale owners that woke up");
        }
        // The stale owner's workers run before membership hears anything: only the fence stops them.
        self.data_of(node, true);
        let mut backlog = std::mem::take(&mut self.nodes[node].backlog);
        if self.dice.below(2) == 0 {
            backlog = backlog.into_iter().rev().collect::<VecDeque<_>>();
        }
        self.arm(node, 1);
        for arrival in backlog {
            self.arrive(arrival);
        }
    }

    fn arm(&mut self, node: usize, at: u64) {
        let at = at.max(self.now + 1);
        let armed = self.nodes[node].armed_at;
        if armed > at || armed <= self.now {
            self.nodes[node].armed_at = at;
            self.queue.push(at, Event::Timer { node, armed: at });
        }
    }

    /// Takes everything that a node has to say.
    pub(crate) fn drain(&mut self, node: usize) {
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
        let state = &mut self.nodes[node];
        state.thinks_leased = state.is_leased(self.now);
        let (membership, replication) = (state.membership.poll_timeout(), state.replication.poll_timeout());
        let at = state.real(replication.map_or(membership, |at| at.min(membership)));
        self.arm(node, at);
    }

    /// Takes what replication has to say.
    pub(crate) fn flush(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].replication.poll_output() {
            self.on_replicated(node, output);
        }
    }

    fn transmit(&mut self, node: usize) {
        let mut buffer = self.pool.pop().unwrap_or_default();
        while let Some(to) = self.nodes[node].membership.poll_transmit(&mut buffer) {
            let SocketAddr::V4(v4) = to.to else { continue };
            let target = usize::from(v4.ip().octets()[3]) - 1;
            let network = to.network.number();
            self.datagrams += 1;
            if self.air.is_cut(network.into(), node, target) {
                self.check.count("datagrams cut");
                continue;
            }
            if self.dice.chance(faults::loss(self)) {
                self.check.count("datagrams lost");
                continue;
            }
            let sender = self.nodes[node].start_id();
            let doubled = self.dice.chance(self.air.duplicate);
            for copy in 0..1 + u8::from(doubled) {
                let mut delay = 50_000 + self.dice.below(300_000);
                if copy == 1 {
                    self.check.count("datagrams doubled");
                }
                if copy == 1 || self.dice.chance(self.air.reorder) {
                    delay += if self.dice.chance(20) { self.dice.below(5 * S) } else { self.dice.below(20 * MS) };
                    self.check.count("datagrams out of order");
                }
                let mut bytes = self.pool.pop().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(&buffer);
                let arrival = Arrival { to: target, network, from: node, sender, bytes };
                self.queue.push(self.now + delay, Event::Datagram(arrival));
            }
        }
        self.pool.push(buffer);
    }

    fn on_output(&mut self, node: usize, output: Output) {
        let now = self.nodes[node].clock(self.now);
        match output {
            Output::Lease(_) | Output::Owner { .. } => {}
            Output::View { view, own } => {
                self.log(|| {
                    let members =
                        view.members().iter().map(|m| format!("{}:{}:{:?}", m.slot.number(), m.identity.name, m.role));
                    let members: Vec<_> = members.collect();
                    let (number, master, missing) = (view.id().number, view.master().number(), view.absentees());
                    let (own, lineage) = (own.number(), view.lineage());
                    format!(
                        "n{node} view {number} of {lineage:x} own {own} master {master} {members:?} missing {missing:?}"
                    )
                });
                let state = &mut self.nodes[node];
                state.app.enter(view.shares_numbers().then_some(own));
                state.replication.handle_view(now, &view, own);
                self.links();
                faults::view_entered(self, node);
            }
            Output::Acquire { set, tenure, how } => self.acquire(node, set, tenure, how),
            Output::Release { set } => {
                self.nodes[node].app.release(set);
                self.nodes[node].replication.release(set);
            }
            Output::Abandon { set } => {
                self.nodes[node].app.release(set);
                if self.plan.bug == Bug::BegunWithoutLease {
                    self.nodes[node].replication.release(set);
                }
            }
            Output::Prepare { set, tenure, .. } => {
                self.log(|| format!("n{node} prepares {set} {tenure:?}"));
                self.nodes[node].app.prepare(set, tenure);
                self.nodes[node].membership.handle_prepared(now, set, tenure.epoch);
            }
            Output::Stop { set, to, tenure } => {
                self.log(|| format!("n{node} stops {set} {tenure:?}"));
                let state = &mut self.nodes[node];
                let last = state.app.stop(set);
                let _ = state.replication.hand_over(now, set, to, tenure, &last);
                faults::hand_over(self, node, to);
            }
            Output::JoinAsked(identity) => {
                self.nodes[node].membership.handle_join_verdict(now, identity.start, Ok(()));
            }
            Output::Left { reason, start } => {
                self.log(|| format!("n{node} left: {reason:?}"));
                self.drop_streams(node);
                self.nodes[node].replication.restart(start);
                self.nodes[node].app = App::new(self.plan.life);
            }
            Output::Probe => {
                self.check.count("probes for the cluster's addresses");
                let (start, held) = (self.nodes[node].start_id(), self.is_held_elsewhere(node));
                self.queue.push(self.now + PROBE, Event::Probed { node, start, held });
            }
            Output::Event(event) => self.log(|| format!("n{node} {event:?}")),
        }
    }

    fn acquire(&mut self, node: usize, set: WorkSet, tenure: Tenure, how: How) {
        let bug = self.plan.bug;
        if bug == Bug::BegunWithoutLease && self.nodes[node].app.tenure(set) == Some(tenure) {
            return;
        }
        self.check.count(match how {
            How::Unplanned => "sets taken over",
            How::Planned => "sets moved",
            How::Founded => "sets founded",
        });
        self.judge_acquisition(node, set, tenure.epoch, how);
        let now = self.nodes[node].clock(self.now);
        let state = &mut self.nodes[node];
        state.app.acquire(set, tenure, how, &state.replication, bug);
        let published = state.replication.acquire(now, set, tenure);
        state.app.adopted(set, published);
    }

    /// Whether a node that looks for another holder of the cluster's addresses would find one now.
    fn is_held_elsewhere(&self, node: usize) -> bool {
        let answers = |other: usize| self.nodes[other].is_running() && self.nodes[other].is_leased(self.now);
        (0..self.nodes.len()).any(|other| other != node && answers(other) && self.air.share_lan(node, other))
    }

    fn probed(&mut self, node: usize, start: StartId, held: bool) {
        if !self.nodes[node].alive || self.nodes[node].start_id() != start {
            return;
        }
        if self.nodes[node].paused {
            self.queue.push(self.now + PROBE, Event::Probed { node, start, held });
            return;
        }
        let held = (held || self.is_held_elsewhere(node)) && self.plan.bug != Bug::DeafProbe;
        self.log(|| format!("n{node} probed: held elsewhere {held}"));
        let now = self.nodes[node].clock(self.now);
        self.nodes[node].membership.handle_probe(now, if held { Probe::Held } else { Probe::Free });
        self.drain(node);
    }

    fn on_replicated(&mut self, node: usize, output: Replicated) {
        let now = self.nodes[node].clock(self.now);
        match output {
            Replicated::Send { to, message } => self.send(node, to, message),
            Replicated::Committed(upto) => self.committed(node, upto),
            Replicated::Apply { .. } => self.nodes[node].replication.handle_applied(now),
            Replicated::HandOver { set, tenure, state } => {
                self.log(|| format!("n{node} takes {set} {tenure:?}"));
                if self.nodes[node].app.take(set, tenure, &state) {
                    if self.plan.bug == Bug::BegunWithoutLease {
                        self.acquire(node, set, tenure, How::Planned);
                    }
                    self.nodes[node].membership.handle_taken(now, set, tenure.epoch);
                }
            }
            Replicated::Counted(start) => self.nodes[node].membership.handle_counted(now, start),
            Replicated::Slow(start) => self.nodes[node].membership.handle_slow(now, start),
            Replicated::Deposed { set, .. } => self.nodes[node].app.release(set),
        }
    }

    pub(crate) fn committed(&mut self, node: usize, upto: CommitId) {
        for sent in self.nodes[node].app.committed(upto) {
            self.leave(node, sent);
        }
    }
}
