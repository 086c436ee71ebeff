//! The thread that keeps time for the cluster: it sends and hears keepalives, owns the membership core, and writes the
//! end of the lease and the owners of the work sets where the kernel reads them. It waits for nothing but datagrams,
//! messages and its clock: replication, TLS, records and logs live elsewhere.

mod sockets;
pub mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use cluster::dispatch::Owner;
use cluster::membership::{Act, Link, Membership, Output, Probe};
use cluster::seal::{GroupKey, Seal, SealError};
use cluster::{Handoff, Network, StartId, Table, View, membership};
use tokio::sync::mpsc::UnboundedSender;
use wire::{Epoch, Slot, Time, WorkSet};

use self::sockets::{DATAGRAM_MAX, Sockets};
use self::thread::{Inside, Outside, Scheduling, boot_time};

/// How often the thread tells the control side how it stands.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Datagrams taken from one network before the clock is looked at again.
const BURST: usize = 64;
/// A neighbour unheard for so long has returned when it is heard again; its session is then formed anew.
const SILENCE: Duration = Duration::from_millis(300);
/// A network on which a node is unheard for so long, while it is heard on another, carries its session no more.
const NETWORK_SILENCE: Duration = Duration::from_millis(200);
/// Senders and addresses kept before old ones are forgotten …
const HEARD_MAX: usize = 256;
/// … if they were not heard for so long.
const FORGET: Duration = Duration::from_secs(10);
/// The longest sleep: bounds what a missed wake-up could cost.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// What the thread acts on directly, because it cannot wait for anybody: all of it must be quick and never block.
pub struct Hooks {
    /// Writes the lease's end to the kernel's fence.
    pub lease: Box<dyn FnMut(Time) + Send>,
    /// Writes the owner of a work set to the packet filter.
    pub owner: Box<dyn FnMut(WorkSet, Owner) + Send>,
    /// Says whether the datapath's workers make progress. While they do not, this node vouches for nothing: it sends no
    /// keepalive, and is voted out.
    pub progress: Box<dyn FnMut(Time) -> bool + Send>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// What the control side tells the thread.
#[derive(Debug)]
pub(super) enum Order {
    UseKey(GroupKey),
    ReadKey(GroupKey),
    JoinVerdict(StartId, Result<(), String>),
    Counted(StartId),
    Slow(StartId),
    Prepared(WorkSet, Epoch),
    Taken(WorkSet, Epoch),
    OutsideLink(Link),
    Probe(Probe),
    Act(Slot, Act),
    Stop,
}

/// What the thread tells the control side, in order.
#[derive(Debug)]
pub(super) enum Notice {
    /// An output of membership, but for the lease.
    Membership(Output),
    /// That node is heard again, at that address, after such a silence.
    Returned(StartId, SocketAddr, Duration),
    /// That node is no longer heard at that address, but at another one.
    NetworkSilent(StartId, SocketAddr),
    /// How it stands.
    Report(Box<Report>),
}

/// How the thread and the membership core stand.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The view in force.
    pub view: Option<Arc<View>>,
    /// The owners of the work sets.
    pub table: Option<Table>,
    /// The least time that was left of the lease when it was renewed, since the last report.
    pub margin_min: Option<Duration>,
    /// How it was renewed since the thread's start.
    pub renewals: Renewals,
    /// The longest that the thread came late to a deadline of its own, since its start.
    pub late_max: Duration,
    /// Keepalives sent, opened, and refused by reason.
    pub datagrams: Datagrams,
    /// Whether the datapath's workers are stuck.
    pub stuck: bool,
    /// Members that an operator has drained.
    pub drained: Vec<Slot>,
}

impl Report {
    /// The name of the member that owns `set`.
    #[must_use]
    pub fn owner(&self, set: WorkSet) -> Option<String> {
        let owner = self.table.as_ref()?.assignment(set).owner;
        Some(self.view.as_ref()?.member(owner)?.identity.name.as_str().to_owned())
    }
}

/// How the lease was renewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewals {
    /// The least time that was left when it was renewed in time.
    pub margin_min: Option<Duration>,
    /// How often it was renewed after its end: packets were dropped in between.
    pub lapses: u64,
    /// For how long it was over, in all.
    pub lapsed: Duration,
}

impl Renewals {
    /// Notes that the lease which ends at `end` was renewed at `now`.
    fn note(&mut self, end: Time, now: Time) {
        if now < end {
            let margin = end - now;
            self.margin_min = Some(self.margin_min.map_or(margin, |least| least.min(margin)));
        } else {
            self.lapses = self.lapses.saturating_add(1);
            self.lapsed = self.lapsed.saturating_add(now - end);
        }
    }
}

/// Counters of the keepalives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Datagrams {
    /// Sealed and given to the kernel.
    pub sent: u64,
    /// Opened.
    pub received: u64,
    /// Too short, or of another version.
    pub malformed: u64,
    /// Sealed under a key that this node does not hold.
    pub other_key: u64,
    /// Changed on the way, or sealed by somebody else.
    pub forged: u64,
    /// Opened before.
    pub repeated: u64,
    /// From an address that is no member's.
    pub strange: u64,
    /// Not taken by the kernel.
    pub unsent: u64,
}

/// The end of this node's lease, readable by anyone at any time.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseEnd(Arc<AtomicU64>);

impl LeaseEnd {
    /// Until when this node may send.
    pub(super) fn time(&self) -> Time {
        Time { nanos: self.0.load(Ordering::Relaxed) }
    }
}

/// A handle on the running thread.
#[derive(Debug)]
pub(super) struct RealTime {
    orders: Outside<Order>,
    lease: LeaseEnd,
    pub(super) scheduling: Scheduling,
    thread: Option<JoinHandle<()>>,
}

impl RealTime {
    /// Opens the keepalive sockets and starts the thread.
    pub(super) fn start(
        config: membership::Config,
        key: GroupKey,
        hooks: Hooks,
        notices: UnboundedSender<Notice>,
    ) -> anyhow::Result<Self> {
        let own: Vec<_> = config.identity.addresses.iter().map_while(|address| *address).collect();
        let addresses = config.peers.iter().flat_map(|peer| peer.addresses).flatten();
        let neighbours = addresses.map(|address| (address.ip(), address.port())).collect();
        let sockets = Sockets::open(&own)?;
        let seal = Seal::new(&config.identity.name, config.identity.start, key).context("make the keepalives' seal")?;
        let (orders, inside) = thread::queue().context("make the real-time thread's queue")?;
        let lease = LeaseEnd::default();
        let (told, scheduling) = std::sync::mpsc::sync_channel(1);
        let published = Arc::clone(&lease.0);
        let thread = std::thread::Builder::new().name("realtime".into()).stack_size(1 << 20).spawn(move || {
            let _ = told.send(thread::become_real_time());
            let membership = Membership::new(boot_time(), config);
            Loop {
                membership,
                seal,
                sockets,
                neighbours,
                hooks,
                notices,
                published,
                own: None,
                heard: Heard::default(),
                report: Report::default(),
                plain: Vec::with_capacity(DATAGRAM_MAX),
                sealed: Vec::with_capacity(DATAGRAM_MAX),
            }
            .run(&inside);
        });
        let thread = thread.context("start the real-time thread")?;
        let scheduling = scheduling.recv().context("the real-time thread ended at once")?;
        Ok(Self { orders, lease, scheduling, thread: Some(thread) })
    }

    /// Gives an order. Never blocks.
    pub(super) fn order(&self, order: Order) {
        self.orders.send(order);
    }

    /// The end of the lease.
    pub(super) fn lease(&self) -> LeaseEnd {
        self.lease.clone()
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// When each sender was last heard at each of its addresses.
#[derive(Debug, Default)]
struct Heard {
    last: BTreeMap<(StartId, SocketAddr), Time>,
    told: BTreeSet<(StartId, SocketAddr)>,
}

impl Heard {
    /// Notes a proven datagram; returns for how long its sender was not heard anywhere.
    fn note(&mut self, now: Time, sender: StartId, from: SocketAddr) -> Option<Duration> {
        let latest = self.addresses(sender).map(|(_, last)| last).max();
        if self.last.len() >= HEARD_MAX {
            self.last.retain(|_, last| now - *last < FORGET);
        }
        self.last.insert((sender, from), now);
        self.told.remove(&(sender, from));
        latest.map(|latest| now - latest)
    }

    /// Names, once each, the addresses that fell silent while their node is heard elsewhere.
    fn fell_silent(&mut self, now: Time) -> Vec<(StartId, SocketAddr)> {
        let alive = |sender| self.addresses(sender).any(|(_, last)| now - last < NETWORK_SILENCE / 2);
        let silent = self.last.iter().filter(|((sender, _), last)| now - **last > NETWORK_SILENCE && alive(*sender));
        let news: Vec<_> = silent.map(|(key, _)| *key).filter(|key| !self.told.contains(key)).collect();
        self.told.retain(|key| self.last.contains_key(key));
        self.told.extend(&news);
        news
    }

    fn addresses(&self, sender: StartId) -> impl Iterator<Item = (SocketAddr, Time)> {
        self.last.iter().filter(move |((s, _), _)| *s == sender).map(|((_, address), last)| (*address, *last))
    }
}

struct Loop {
    membership: Membership,
    seal: Seal,
    sockets: Sockets,
    /// Where the other members' keepalives come from.
    neighbours: BTreeSet<(IpAddr, u16)>,
    hooks: Hooks,
    notices: UnboundedSender<Notice>,
    published: Arc<AtomicU64>,
    /// This node's slot, while it is in a view.
    own: Option<Slot>,
    heard: Heard,
    report: Report,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Loop {
    fn run(mut self, inside: &Inside<Order>) {
        let mut next_report = boot_time();
        loop {
            let now = boot_time();
            self.report.stuck = !(self.hooks.progress)(now);
            while let Some(order) = inside.take() {
                if matches!(order, Order::Stop) {
                    return;
                }
                self.on_order(now, order);
            }
            self.receive();
            let now = boot_time();
            let due = self.membership.poll_timeout();
            if due <= now {
                if due > Time::ZERO {
                    self.report.late_max = self.report.late_max.max(now - due);
                }
                self.membership.handle_timeout(now);
            }
            self.transmit();
            self.act();
            if next_report <= now {
                next_report = now + REPORT_EVERY;
                self.tell();
            }
            let now = boot_time();
            let until = self.membership.poll_timeout().min(next_report);
            inside.wait(self.sockets.descriptors(), (until - now).min(SLEEP_MAX));
        }
    }

    fn on_order(&mut self, now: Time, order: Order) {
        match order {
            Order::UseKey(key) => {
                // Fails for no key of 32 octets.
                let _ = self.seal.use_group(key);
            }
            Order::ReadKey(key) => self.seal.accept_group(key),
            Order::JoinVerdict(start, verdict) => self.membership.handle_join_verdict(now, start, verdict),
            Order::Counted(start) => self.membership.handle_counted(now, start),
            Order::Slow(start) => self.membership.handle_slow(now, start),
            Order::Prepared(set, epoch) => self.on_prepared(now, set, epoch),
            Order::Taken(set, epoch) => self.membership.handle_taken(now, set, epoch),
            Order::OutsideLink(link) => self.membership.handle_outside_link(now, link),
            Order::Probe(probe) => self.membership.handle_probe(now, probe),
            Order::Act(slot, act) => self.membership.handle_act(now, slot, act),
            Order::Stop => {}
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; DATAGRAM_MAX];
        for (index, network) in (0..self.sockets.count()).zip(Network::all()) {
            for _ in 0..BURST {
                let Some((from, len)) = self.sockets.receive(index, &mut buffer) else { break };
                let now = boot_time();
                let counters = &mut self.report.datagrams;
                // A key is derived for each stranger: who floods this thread must at least know whose addresses to forge.
                if !self.neighbours.contains(&(from.ip(), from.port())) {
                    counters.strange += 1;
                    continue;
                }
                match self.seal.open(&mut buffer[..len]) {
                    Ok((sender, datagram)) => {
                        counters.received += 1;
                        self.membership.handle_datagram(now, network, from, sender, datagram);
                        if let Some(silence) = self.heard.note(now, sender, from).filter(|s| *s > SILENCE) {
                            let _ = self.notices.send(Notice::Returned(sender, from, silence));
                        }
                    }
                    Err(SealError::Malformed(_)) => counters.malformed += 1,
                    Err(SealError::Generation(_)) => counters.other_key += 1,
                    Err(SealError::Forged | SealError::Exhausted) => counters.forged += 1,
                    Err(SealError::Replayed) => counters.repeated += 1,
                }
            }
        }
    }

    /// Sends what membership wants to send, unless the workers are stuck.
    fn transmit(&mut self) {
        while let Some(to) = self.membership.poll_transmit(&mut self.plain) {
            if !self.report.stuck && self.seal.seal(&self.plain, &mut self.sealed).is_ok() {
                self.report.datagrams.sent += 1;
                self.sockets.send(usize::from(to.network.number()), to.to, &self.sealed);
            }
        }
    }

    /// Acts on what the kernel must know at once, and passes the rest on.
    fn act(&mut self) {
        while let Some(output) = self.membership.poll_output() {
            match &output {
                Output::Lease(until) => {
                    self.on_lease(*until);
                    continue;
                }
                Output::Owner { set, owner, .. } => {
                    if Some(*owner) != self.own {
                        (self.hooks.owner)(*set, Owner::Other(*owner));
                    }
                }
                Output::View { own, .. } => self.own = Some(*own),
                Output::Acquire { set, tenure, .. } => (self.hooks.owner)(*set, Owner::Myself(tenure.slot)),
                Output::Release { set } | Output::Stop { set, .. } | Output::Abandon { set } => self.on_loss(*set),
                Output::Left { start, .. } => {
                    self.own = None;
                    // What comes next is a first lease, not a late renewal.
                    self.published.store(0, Ordering::Relaxed);
                    // Fails only without a group key, and there always is one.
                    let _ = self.seal.set_start(*start);
                    for set in WorkSet::all() {
                        (self.hooks.owner)(set, Owner::Nobody);
                    }
                }
                // The filter lets the set's packets in once the datapath queues them.
                Output::Prepare { .. } | Output::JoinAsked(_) | Output::Probe | Output::Event(_) => {}
            }
            let _ = self.notices.send(Notice::Membership(output));
        }
    }

    /// The datapath queues the packets of a set that moves here: let them in.
    fn on_prepared(&mut self, now: Time, set: WorkSet, epoch: Epoch) {
        let assignment = self.membership.table().map(|table| *table.assignment(set));
        let here = |handoff: Handoff| Some(handoff.to) == self.own && handoff.epoch == epoch;
        let comes = |a: &cluster::Assignment| Some(a.owner) != self.own && a.handoff.is_some_and(here);
        if let Some(assignment) = assignment.filter(comes) {
            (self.hooks.owner)(set, Owner::Queueing(assignment.owner));
        }
        self.membership.handle_prepared(now, set, epoch);
    }

    fn on_lease(&mut self, until: Time) {
        (self.hooks.lease)(until);
        let before = Time { nanos: self.published.swap(until.nanos, Ordering::Relaxed) };
        if before > Time::ZERO {
            let now = boot_time();
            let margin = before - now;
            self.report.margin_min = Some(self.report.margin_min.map_or(margin, |least| least.min(margin)));
            self.report.renewals.note(before, now);
        }
    }

    /// This node no longer works for `set`: its packets are the next owner's, if one is known.
    fn on_loss(&mut self, set: WorkSet) {
        let assignment = self.membership.table().map(|table| *table.assignment(set));
        let next = assignment.and_then(|assignment| {
            // Of a queue that was given up the set stays where it was.
            let candidates = [assignment.handoff.map(|handoff| handoff.to), Some(assignment.owner)];
            candidates.into_iter().flatten().find(|slot| Some(*slot) != self.own)
        });
        (self.hooks.owner)(set, next.map_or(Owner::Nobody, Owner::Other));
    }

    fn tell(&mut self) {
        self.report.view = self.membership.view().cloned();
        self.report.table = self.membership.table().cloned();
        let members = self.report.view.iter().flat_map(|view| view.members());
        let drained = |slot: &Slot| self.membership.status(*slot).is_some_and(|status| status.drained);
        self.report.drained = members.map(|member| member.slot).filter(drained).collect();
        self.report.datagrams.unsent = self.sockets.refused().iter().sum();
        let _ = self.notices.send(Notice::Report(Box::new(self.report.clone())));
        self.report.margin_min = None;
        for (sender, address) in self.heard.fell_silent(boot_time()) {
            let _ = self.notices.send(Notice::NetworkSilent(sender, address));
        }
    }
}
