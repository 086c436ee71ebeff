//! The thread that owns replication and the sessions, between the real-time thread and the node's runtime.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::StartId;
use cluster::membership::{self, Act, How, Link, Probe};
use cluster::replication::{Output, Replication};
use tokio::sync::{mpsc, oneshot};
use wire::{Change, CommitId, Epoch, Record, RecordId, RecordKind, Slot, Tenure, WorkSet};

use super::keys::{Keys, Shown};
use super::realtime::thread::boot_time;
use super::realtime::{Notice, Order, RealTime};
use super::transport::{self, Peer, Transport};
use super::{ActError, Apply, Config, CurrentView, Engine, Event, NeighbourStatus, Note, Records, Status};

/// What stands in front of each message of a session, and says for whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Replication = 0,
    Key = 1,
    HandOn = 2,
    Word = 3,
}

/// Inputs of each kind that are taken before anything is sent.
const BATCH: usize = 64;
/// Sleep without a deadline.
const IDLE: Duration = Duration::from_secs(3600);
/// Octets that may wait for a neighbour before a packet handed on to it is dropped instead.
const HAND_ON_QUEUED_MAX: usize = 256 << 10;

/// What the node's runtime asks for.
#[derive(Debug)]
pub(super) enum Command {
    Put {
        engine: Engine,
        commit: CommitId,
        id: RecordId,
        change: Change,
    },
    Prepared(WorkSet, Epoch),
    HandOver {
        set: WorkSet,
        to: StartId,
        tenure: Tenure,
        state: Vec<u8>,
    },
    Taken(WorkSet, Epoch),
    HandOn(WorkSet, Vec<u8>),
    Ask(WorkSet, Vec<u8>),
    Say(StartId, Vec<u8>),
    Records {
        set: WorkSet,
        answer: oneshot::Sender<Records>,
    },
    Tally {
        kind: RecordKind,
        answer: oneshot::Sender<Vec<(WorkSet, usize)>>,
    },
    OutsideLink(Link),
    Probed(Probe),
    Act {
        name: String,
        act: Act,
        answer: oneshot::Sender<Result<(), ActError>>,
    },
    Stop,
    #[cfg(test)]
    Die,
}

/// How the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Goodbye,
    #[cfg(test)]
    Silent,
}

/// A change of an engine that waits to be committed.
#[derive(Debug)]
struct Waiting {
    core: CommitId,
    engine: Engine,
    commit: CommitId,
}

/// The state of the thread.
pub(super) struct Control {
    config: Config,
    /// This node's own start id.
    start: StartId,
    realtime: RealTime,
    transport: Transport,
    replication: Replication,
    keys: Keys,
    apply: Apply,
    events: mpsc::UnboundedSender<Event>,
    status: Arc<Mutex<Status>>,
    /// Whose session is open, and under which start id.
    peers: Vec<Option<StartId>>,
    /// Which group key each of them showed last.
    shown: Vec<Option<u64>>,
    /// Who asks to join, and under which start id.
    asked: Vec<Option<StartId>>,
    view: Option<CurrentView>,
    owners: BTreeMap<WorkSet, Slot>,
    owned: BTreeMap<WorkSet, Tenure>,
    waiting: VecDeque<Waiting>,
}

impl Control {
    #[expect(clippy::too_many_arguments, reason = "it carries things between that many")]
    pub(super) fn new(
        config: Config,
        start: StartId,
        realtime: RealTime,
        transport: Transport,
        keys: Keys,
        apply: Apply,
        events: mpsc::UnboundedSender<Event>,
        status: Arc<Mutex<Status>>,
    ) -> Self {
        let replication = Replication::new(start, config.applied.clone(), config.bounds.clone());
        let count = config.members.len();
        let (peers, shown, asked) = (vec![None; count], vec![None; count], vec![None; count]);
        Self {
            config,
            start,
            realtime,
            transport,
            replication,
            keys,
            apply,
            events,
            status,
            peers,
            shown,
            asked,
            view: None,
            owners: BTreeMap::new(),
            owned: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Carries things until the runtime says stop.
    pub(super) async fn run(
        mut self,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        mut sessions: transport::Events,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        loop {
            let due = self.replication.poll_timeout().map(|at| at - boot_time());
            let command = tokio::select! {
                // What membership says comes first: it may take away what a command or message is about.
                biased;
                notice = notices.recv() => match notice {
                    Some(notice) => {
                        self.on_notice(notice);
                        None
                    }
                    None => return,
                },
                event = sessions.next() => match event {
                    Some(event) => {
                        self.on_session(event);
                        None
                    }
                    None => return,
                },
                command = commands.recv() => Some(command.unwrap_or(Command::Stop)),
                () = tokio::time::sleep(due.unwrap_or(IDLE)), if due.is_some() => {
                    self.replication.handle_timeout(boot_time());
                    None
                }
            };
            let mut ended = command.map(|command| self.on_command(command));
            // What else has come goes into the same messages.
            for _ in 0..BATCH {
                while let Ok(notice) = notices.try_recv() {
                    self.on_notice(notice);
                }
                let event = sessions.try_next();
                let command = commands.try_recv().ok();
                if event.is_none() && command.is_none() {
                    break;
                }
                if let Some(event) = event {
                    self.on_session(event);
                }
                if let Some(command) = command {
                    ended = ended.filter(|flow| flow.is_break()).or_else(|| Some(self.on_command(command)));
                }
            }
            self.act();
            match ended {
                Some(ControlFlow::Break(Ending::Goodbye)) => break,
                #[cfg(test)]
                Some(ControlFlow::Break(Ending::Silent)) => return,
                Some(ControlFlow::Continue(())) | None => {}
            }
        }
        self.transport.close().await;
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Membership(output) => self.on_membership(output),
            Notice::Returned(start, address, silence) => {
                if let Some(peer) = self.peer(start).or_else(|| self.peer_at(address)) {
                    self.transport.returned(peer, silence);
                }
            }
            Notice::NetworkSilent(start, address) => {
                if let Some(peer) = self.peer(start) {
                    self.transport.network_silent(peer, address.ip());
                }
            }
            Notice::Report(report) => {
                // Who once had reason not to take this node's key over may have none any more.
                self.show_key_to(|peer| self.shown[peer] != Some(self.keys.shown().id));
                let neighbours = self.config.members.iter().enumerate().map(|(peer, member)| NeighbourStatus {
                    name: member.name.clone(),
                    session: self.transport.status(peer),
                });
                let neighbours = neighbours.collect();
                let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
                status.report = *report;
                status.neighbours = neighbours;
                status.uncommitted = self.waiting.len().try_into().unwrap_or(u64::MAX);
                status.refusals = self.transport.refusals();
            }
        }
    }

    fn on_membership(&mut self, output: membership::Output) {
        use membership::Output as Told;
        let now = boot_time();
        match output {
            Told::View { view, own } => {
                self.replication.handle_view(now, &view, own);
                self.view = Some(CurrentView { view, own });
                self.tell(Event::View(self.view.clone()));
                if self.keys.handle_view(true) {
                    self.show_key();
                }
            }
            Told::Acquire { set, tenure, how } => {
                self.replication.acquire(now, set, tenure);
                self.owned.insert(set, tenure);
                self.owners.insert(set, tenure.slot);
                let records = match how {
                    How::Founded | How::Unplanned => self.records(set),
                    How::Planned => Vec::new(),
                };
                self.tell(Event::Acquire { set, tenure, how, records });
            }
            Told::Release { set } => self.lose(set),
            Told::Prepare { set, tenure, from } => {
                let records = self.records(set);
                self.tell(Event::Prepare { set, tenure, from, records });
            }
            Told::Stop { set, to, tenure } => self.tell(Event::Stop { set, to, tenure }),
            Told::Abandon { set } => self.tell(Event::Abandon(set)),
            Told::JoinAsked(identity) => {
                let named = |member: &super::Member| member.name == identity.name.as_str();
                if let Some(peer) = self.config.members.iter().position(named) {
                    self.asked[peer] = Some(identity.start);
                    self.admit(peer);
                }
            }
            Told::Left { reason, start } => {
                for set in WorkSet::all() {
                    self.lose(set);
                }
                for peer in self.peers.iter_mut().filter_map(Option::take) {
                    self.replication.handle_peer_disconnected(now, peer);
                }
                self.start = start;
                self.replication.restart(start);
                self.transport.set_start(start.0);
                self.view = None;
                self.owners.clear();
                self.waiting.clear();
                self.keys.handle_view(false);
                self.tell(Event::View(None));
                self.tell(Event::Note(Note::Left(reason)));
            }
            Told::Probe => self.tell(Event::Probe),
            Told::Event(event) => self.tell(Event::Note(Note::Membership(event))),
            Told::Owner { set, owner, .. } => {
                self.owners.insert(set, owner);
            }
            Told::Lease(_) => {} // The real-time thread keeps it.
        }
    }

    fn on_session(&mut self, event: transport::Event) {
        let now = boot_time();
        match event {
            transport::Event::Connected { peer, start, address } => {
                self.peers[peer] = Some(StartId(start));
                self.shown[peer] = None;
                self.send(peer, Port::Key, &self.keys.shown().to_bytes());
                self.replication.handle_peer_connected(now, StartId(start));
                self.tell(Event::Note(Note::Connected { name: self.name(peer), address }));
            }
            transport::Event::Disconnected { peer, why } => {
                if let Some(start) = self.peers[peer].take() {
                    self.replication.handle_peer_disconnected(now, start);
                }
                self.tell(Event::Note(Note::Disconnected { name: self.name(peer), why }));
            }
            transport::Event::Message { peer, bytes } => self.on_message(peer, &bytes),
            transport::Event::Refused { peer, address, why } => {
                self.tell(Event::Note(Note::Refused { name: peer.map(|peer| self.name(peer)), address, why }));
            }
        }
    }

    /// Takes a message of a session. One that this version cannot read is skipped: a newer neighbour may send it.
    fn on_message(&mut self, peer: Peer, bytes: &[u8]) {
        let (Some(start), Some((port, body))) = (self.peers[peer], bytes.split_first()) else { return };
        if *port == Port::Replication as u8 {
            self.replication.handle_message(boot_time(), start, body);
        } else if *port == Port::Key as u8 {
            if let Ok(shown) = Shown::from_bytes(body) {
                self.on_shown(peer, shown);
            }
        } else if *port == Port::HandOn as u8
            && let Some((set, packet)) = body.split_first_chunk::<2>()
            && let Some(set) = WorkSet::new(u16::from_be_bytes(*set))
            && self.owned.contains_key(&set)
        {
            self.tell(Event::HandedOn { set, packet: packet.to_vec() });
        } else if *port == Port::Word as u8 {
            self.tell(Event::Said { from: start, word: body.to_vec() });
        }
    }

    fn on_shown(&mut self, peer: Peer, shown: Shown) {
        self.shown[peer] = Some(shown.id);
        if let Some(key) = self.keys.founded_apart(&shown) {
            self.realtime.order(Order::ReadKey(key));
        }
        if self.keys.handle_shown(shown) {
            self.realtime.order(Order::UseKey(self.keys.group()));
            self.show_key();
        }
        self.admit(peer);
    }

    /// Lets a node in that asks to join once it has shown its certificate, under the start id under which it asks, and has the
    /// cluster's group key, which alone says that somebody is a node, not which, and not that it lives.
    fn admit(&mut self, peer: Peer) {
        let has_key = self.shown[peer] == Some(self.keys.shown().id);
        if let Some(start) = self.asked[peer].take_if(|start| has_key && self.peers[peer] == Some(*start)) {
            self.realtime.order(Order::JoinVerdict(start, Ok(())));
        }
    }

    fn on_command(&mut self, command: Command) -> ControlFlow<Ending> {
        match command {
            Command::Put { engine, commit, id, change } => self.put(engine, commit, id, change),
            Command::Prepared(set, epoch) => self.realtime.order(Order::Prepared(set, epoch)),
            Command::HandOver { set, to, tenure, state } => {
                // Refused only if the set was lost meanwhile, and then membership has decided otherwise.
                if self.replication.hand_over(boot_time(), set, to, tenure, &state).is_ok() {
                    self.owned.remove(&set);
                }
            }
            Command::Taken(set, epoch) => self.realtime.order(Order::Taken(set, epoch)),
            Command::HandOn(set, packet) => self.hand_on(set, &packet),
            Command::Ask(set, word) => {
                if let Some(owner) = self.owner(set) {
                    self.say(owner, word);
                }
            }
            Command::Say(to, word) => self.say(to, word),
            Command::Records { set, answer } => {
                let _ = answer.send(self.records(set));
            }
            Command::Tally { kind, answer } => {
                let count = |set| self.replication.records(set).filter(|(id, _)| id.kind == kind).count();
                let _ = answer.send(WorkSet::all().map(|set| (set, count(set))).collect());
            }
            Command::OutsideLink(link) => self.realtime.order(Order::OutsideLink(link)),
            Command::Probed(probe) => self.realtime.order(Order::Probe(probe)),
            Command::Act { name, act, answer } => {
                let _ = answer.send(self.on_act(name, act));
            }
            Command::Stop => return ControlFlow::Break(Ending::Goodbye),
            #[cfg(test)]
            Command::Die => return ControlFlow::Break(Ending::Silent),
        }
        ControlFlow::Continue(())
    }

    fn put(&mut self, engine: Engine, commit: CommitId, id: RecordId, change: Change) {
        let applied = self.is_applied(id.kind).then(|| change.clone());
        if let Ok(core) = self.replication.put(boot_time(), id, change) {
            self.waiting.push_back(Waiting { core, engine, commit });
            if let Some(change) = applied {
                (self.apply)(id, &change);
            }
        }
    }

    fn on_act(&mut self, name: String, act: Act) -> Result<(), ActError> {
        let view = self.view.as_ref().ok_or(ActError::NoView)?;
        let member = view.view.members().iter().find(|member| member.identity.name.as_str() == name);
        let slot = member.map(|member| member.slot).ok_or(ActError::Unknown(name))?;
        self.realtime.order(Order::Act(slot, act));
        Ok(())
    }

    /// Does what replication asks for.
    fn act(&mut self) {
        let mut applied = false;
        while let Some(output) = self.replication.poll_output() {
            match output {
                Output::Send { to, message } => {
                    if let Some(peer) = self.peer(to) {
                        self.send(peer, Port::Replication, &message);
                    }
                }
                Output::Committed(up_to) => self.on_committed(up_to),
                Output::Apply { id, change } => {
                    (self.apply)(id, &change);
                    applied = true;
                }
                Output::HandOver { set, tenure, state } => {
                    let records = self.records(set);
                    self.tell(Event::HandOver { set, tenure, records, state });
                }
                Output::Counted(peer) => self.realtime.order(Order::Counted(peer)),
                Output::Slow(peer) => self.realtime.order(Order::Slow(peer)),
                Output::Deposed { set, .. } => self.lose(set),
            }
            if applied {
                applied = false;
                self.replication.handle_applied(boot_time());
            }
        }
    }

    fn on_committed(&mut self, up_to: CommitId) {
        let mut engines: BTreeMap<Engine, CommitId> = BTreeMap::new();
        while let Some(waiting) = self.waiting.front()
            && waiting.core <= up_to
        {
            engines.insert(waiting.engine, waiting.commit);
            self.waiting.pop_front();
        }
        for (engine, commit) in engines {
            self.tell(Event::Committed(engine, commit));
        }
    }

    fn lose(&mut self, set: WorkSet) {
        self.replication.release(set);
        if self.owned.remove(&set).is_some() {
            self.tell(Event::Release(set));
        }
    }

    fn hand_on(&self, set: WorkSet, packet: &[u8]) {
        let Some(peer) = self.owner(set).and_then(|owner| self.peer(owner)) else { return };
        if self.transport.queued(peer) < HAND_ON_QUEUED_MAX {
            let mut body = set.index().to_be_bytes().to_vec();
            body.extend_from_slice(packet);
            self.send(peer, Port::HandOn, &body);
        }
    }

    fn say(&self, to: StartId, word: Vec<u8>) {
        if to == self.start {
            self.tell(Event::Said { from: to, word });
        } else if let Some(peer) = self.peer(to) {
            self.send(peer, Port::Word, &word);
        }
    }

    /// The member that works for `set`, as far as this node knows.
    fn owner(&self, set: WorkSet) -> Option<StartId> {
        let view = &self.view.as_ref()?.view;
        Some(view.member(*self.owners.get(&set)?)?.identity.start)
    }

    fn show_key(&self) {
        self.show_key_to(|_| true);
    }

    fn show_key_to(&self, whom: impl Fn(Peer) -> bool) {
        let shown = self.keys.shown().to_bytes();
        for (peer, start) in self.peers.iter().enumerate() {
            if start.is_some() && whom(peer) {
                self.send(peer, Port::Key, &shown);
            }
        }
    }

    fn send(&self, peer: Peer, port: Port, body: &[u8]) {
        let mut message = Vec::with_capacity(1 + body.len());
        message.push(port as u8);
        message.extend_from_slice(body);
        self.transport.send(peer, &message);
    }

    fn records(&self, set: WorkSet) -> Records {
        self.replication.records(set).map(|(id, bytes)| (id, bytes.into())).collect()
    }

    fn is_applied(&self, kind: RecordKind) -> bool {
        self.config.applied.contains(&kind)
    }

    fn peer(&self, start: StartId) -> Option<Peer> {
        self.peers.iter().position(|peer| *peer == Some(start))
    }

    fn peer_at(&self, address: SocketAddr) -> Option<Peer> {
        self.config.members.iter().position(|member| member.addresses.contains(&Some(address.ip())))
    }

    fn name(&self, peer: Peer) -> String {
        self.config.members[peer].name.clone()
    }

    fn tell(&self, event: Event) {
        // Fails only when the runtime has ended, and then the link is about to.
        let _ = self.events.send(event);
    }
}
