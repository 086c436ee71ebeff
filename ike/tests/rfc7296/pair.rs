//! Two endpoints, a clock and a network between them; the drivers keep records as a cluster would.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crypto::{Encryption, Group, Integrity, Prf, SigningKey};
use ike::{
    ChildSa, Config, Connection, Endpoint, EspProposal, Event, IkeProposal, Lifetimes, LocalAuth, NoAddress, Output,
    Path, RemoteAuth, RemoteIdentity, RemoteSelectors, Retransmission, SignError, UniqueIds,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::{Change, CommitId, Epoch, RecordId, Secret, Slot, Spi, Tenure, Time, TrafficSelector, WorkSet};

pub(crate) const INITIATOR: usize = 0;
pub(crate) const RESPONDER: usize = 1;

/// One end: an endpoint and what its driver does for it.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: Arc<Config>,
    pub(crate) records: BTreeMap<RecordId, Box<[u8]>>,
    pub(crate) children: HashMap<Spi, ChildSa>,
    pub(crate) events: Vec<Event>,
    pub(crate) outputs_seen: usize,
    /// After so many outputs the node dies; its heir knows what was stored until then.
    pub(crate) dies_at: Option<usize>,
    pub(crate) deaths: usize,
    pub(crate) addresses_out: usize,
    pub(crate) pool_empty: bool,
    pub(crate) keys: HashMap<String, Arc<SigningKey>>,
    last_commit: CommitId,
    seed: u8,
    epoch: u32,
}

struct Flight {
    at: Time,
    to: usize,
    path: Path,
    datagram: Vec<u8>,
}

pub(crate) struct Pair {
    pub(crate) now: Time,
    pub(crate) nodes: [Node; 2],
    pub(crate) home: WorkSet,
    pub(crate) delivered: usize,
    /// In 256ths.
    pub(crate) loss: u32,
    pub(crate) duplicates: u32,
    /// Every datagram that left, for those who look at the wire.
    pub(crate) wire: Vec<(usize, Vec<u8>)>,
    /// The address translation in front of the initiator: its port outside.
    pub(crate) nat_port: Option<u16>,
    flights: VecDeque<Flight>,
    rng: StdRng,
}

pub(crate) fn psk(secret: &[u8]) -> (LocalAuth, RemoteAuth) {
    (LocalAuth::Psk(Secret::from_slice(secret)), RemoteAuth::Psk(Secret::from_slice(secret)))
}

pub(crate) const GCM: IkeProposal = IkeProposal {
    encryption: Encryption::AesGcm16(128),
    integrity: None,
    prf: Prf::HmacSha2_256,
    group: Group::Curve25519,
};
pub(crate) const CBC: IkeProposal = IkeProposal {
    encryption: Encryption::AesCbc(256),
    integrity: Some(Integrity::HmacSha2_512_256),
    prf: Prf::HmacSha2_512,
    group: Group::Ecp256,
};
pub(crate) const ESP_GCM: EspProposal =
    EspProposal { encryption: Encryption::AesGcm16(128), integrity: None, group: None };

pub(crate) fn lifetimes() -> Lifetimes {
    Lifetimes {
        ike_rekey: Duration::from_secs(4 * 3600),
        ike_max: Duration::from_secs(5 * 3600),
        child_rekey: Duration::from_secs(3600),
        child_max: Duration::from_secs(4000),
        jitter: Duration::ZERO,
    }
}

pub(crate) fn any_network() -> TrafficSelector {
    TrafficSelector::from_prefix("0.0.0.0/0".parse().unwrap())
}

pub(crate) fn initiator_connection() -> Connection {
    let (local_auth, remote_auth) = psk(b"a secret of both");
    Connection {
        name: "home".into(),
        local_identity: "carol@example.org".parse().unwrap(),
        remote_identity: RemoteIdentity::Exact("gw.example.org".parse().unwrap()),
        local_auth,
        remote_auth,
        ike_proposals: vec![GCM],
        esp_proposals: vec![ESP_GCM],
        local_selectors: vec![],
        remote_selectors: RemoteSelectors::Networks(vec![any_network()]),
        request_address: true,
        dns: vec![],
        lifetimes: lifetimes(),
        liveness_interval: Duration::ZERO,
        unique_ids: UniqueIds::OnInitialContact,
    }
}

pub(crate) fn responder_connection() -> Connection {
    let (local_auth, remote_auth) = psk(b"a secret of both");
    Connection {
        name: "road".into(),
        local_identity: "gw.example.org".parse().unwrap(),
        remote_identity: RemoteIdentity::Suffix("@example.org".into()),
        local_auth,
        remote_auth,
        ike_proposals: vec![GCM, CBC],
        esp_proposals: vec![ESP_GCM],
        local_selectors: vec![TrafficSelector::from_prefix("10.0.0.0/16".parse().unwrap())],
        remote_selectors: RemoteSelectors::Pool("pool".into()),
        request_address: false,
        dns: vec!["10.0.0.53".parse().unwrap()],
        lifetimes: lifetimes(),
        liveness_interval: Duration::ZERO,
        unique_ids: UniqueIds::OnInitialContact,
    }
}

pub(crate) fn config(connection: Connection) -> Config {
    Config {
        connections: vec![connection],
        trust_anchors: Default::default(),
        cookie_secret: Secret::from_slice(&[9; 32]),
        cookie_threshold: 100,
        half_open_max: 1000,
        half_open_time: Duration::from_secs(30),
        sas_max: 10_000,
        retransmission: Retransmission {
            first: Duration::from_millis(500),
            interval_max: Duration::from_secs(8),
            attempts: 8,
        },
        fragment_len_max: 1200,
        force_encapsulation: true,
    }
}

impl Node {
    fn new(config: Config, seed: u8, home: WorkSet) -> Self {
        let config = Arc::new(config);
        let mut node = Self {
            endpoint: Endpoint::new(Arc::clone(&config), [seed; 32]),
            config,
            records: BTreeMap::new(),
            children: HashMap::new(),
            events: Vec::new(),
            outputs_seen: 0,
            dies_at: None,
            deaths: 0,
            addresses_out: 0,
            pool_empty: false,
            keys: HashMap::new(),
            last_commit: CommitId(0),
            seed,
            epoch: 0,
        };
        node.adopt(Time::ZERO, home);
        node
    }

    fn adopt(&mut self, now: Time, home: WorkSet) {
        self.epoch += 1;
        let slot = Slot::new(u8::try_from(self.epoch % 16).unwrap()).unwrap();
        let tenure = Tenure { epoch: Epoch { count: self.epoch, master: Slot::default() }, slot };
        let mut records = self.records.iter().map(|(id, bytes)| (*id, &**bytes));
        self.endpoint.set_wall_clock(now, WALL_CLOCK);
        assert_eq!(self.endpoint.adopt_set(now, home, tenure, &mut records), []);
    }

    /// The node is gone; another one takes its place with what was stored.
    pub(crate) fn fail_over(&mut self, now: Time, home: WorkSet) {
        self.deaths += 1;
        let mut seed = [self.seed; 32];
        seed[1] = u8::try_from(self.deaths % 251).unwrap();
        seed[2] = u8::try_from(self.deaths / 251).unwrap();
        self.endpoint = Endpoint::new(Arc::clone(&self.config), seed);
        self.last_commit = CommitId(0);
        self.adopt(now, home);
        // The gateway removes ESP SAs that no IKE SA knows.
        let endpoint = &self.endpoint;
        self.children.retain(|spi, _| endpoint.has_child(*spi));
    }

    pub(crate) fn ups(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, Event::Up { .. })).count()
    }

    pub(crate) fn closed(&self) -> Vec<ike::Reason> {
        let reason = |e: &Event| if let Event::Closed { reason, .. } = e { Some(*reason) } else { None };
        self.events.iter().filter_map(reason).collect()
    }

    pub(crate) fn refused(&self) -> Vec<ike::Refusal> {
        let refusal = |e: &Event| if let Event::Refused { refusal, .. } = e { Some(*refusal) } else { None };
        self.events.iter().filter_map(refusal).collect()
    }
}

/// 2026-11-21.
pub(crate) const WALL_CLOCK: Duration = Duration::from_secs(1_795_219_200);
const LATENCY: Duration = Duration::from_millis(10);

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(config(initiator_connection()), config(responder_connection()))
    }

    pub(crate) fn with(initiator: Config, responder: Config) -> Self {
        let home = WorkSet::new(7).unwrap();
        Self {
            now: Time::from_millis(1000),
            nodes: [Node::new(initiator, 1, home), Node::new(responder, 2, home)],
            home,
            delivered: 0,
            loss: 0,
            duplicates: 0,
            wire: Vec::new(),
            nat_port: None,
            flights: VecDeque::new(),
            rng: StdRng::seed_from_u64(7),
        }
    }

    pub(crate) fn seed(&mut self, seed: u64) {
        self.rng = StdRng::seed_from_u64(seed);
    }

    pub(crate) fn initiate(&mut self) -> u64 {
        let path = Path { local: "192.0.2.1:500".parse().unwrap(), remote: "198.51.100.1:500".parse().unwrap() };
        let name = self.nodes[INITIATOR].config.connections[0].name.clone();
        let session = self.nodes[INITIATOR].endpoint.initiate(self.now, &name, path, self.home).unwrap();
        self.drive(INITIATOR);
        session
    }

    /// Does what an endpoint asks, in order.
    pub(crate) fn drive(&mut self, at: usize) {
        loop {
            if self.nodes[at].dies_at == Some(self.nodes[at].outputs_seen) {
                self.nodes[at].dies_at = None;
                let (now, home) = (self.now, self.home);
                self.nodes[at].fail_over(now, home);
            }
            let Some(output) = self.nodes[at].endpoint.poll_output() else { return };
            self.nodes[at].outputs_seen += 1;
            self.carry_out(at, output);
        }
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        let now = self.now;
        let node = &mut self.nodes[at];
        match output {
            Output::Transmit { path, datagram, after } => {
                assert!(after.is_none_or(|c| c <= node.last_commit), "a datagram left before its state was stored");
                self.send(at, path, datagram);
            }
            Output::Store { id, change, commit } => {
                assert!(commit > node.last_commit, "commits rise");
                node.last_commit = commit;
                match change {
                    Change::Put(bytes) => {
                        node.records.insert(id, bytes);
                    }
                    Change::Delete => {
                        node.records.remove(&id);
                    }
                }
            }
            Output::InstallChild(child) => {
                assert_eq!(child.spi_in.work_set(), self.home);
                node.children.insert(child.spi_in, *child);
            }
            Output::RemoveChild { spi_in, .. } => {
                assert!(node.children.remove(&spi_in).is_some(), "only what was installed is removed");
            }
            Output::MovePath { spi_in, path } => node.children.get_mut(&spi_in).unwrap().path = path,
            Output::RequestAddress { request, identity, .. } => {
                let address = if node.pool_empty {
                    Err(NoAddress)
                } else {
                    node.addresses_out += 1;
                    // The same identity always gets the same address.
                    let octets = crypto::sha256(&[identity.to_string().as_bytes()]);
                    Ok(IpAddr::V4(Ipv4Addr::new(10, 77, octets[0], octets[1])))
                };
                node.endpoint.handle_address(now, request, address);
            }
            Output::ReleaseAddress { .. } => node.addresses_out -= 1,
            Output::Sign { request, key, scheme, message } => {
                let signature = match node.keys.get(&key) {
                    Some(key) => key.sign(scheme, &message).map_err(|_| SignError),
                    None => Err(SignError),
                };
                node.endpoint.handle_signature(now, request, signature);
            }
            Output::Event(event) => node.events.push(event),
        }
    }

    fn send(&mut self, from: usize, path: Path, datagram: Vec<u8>) {
        self.wire.push((from, datagram.clone()));
        let mut seen = Path { local: path.remote, remote: path.local };
        if let Some(port) = self.nat_port {
            if from == INITIATOR {
                seen.remote.set_port(port);
            } else {
                seen.local.set_port(if path.local.port() == 500 { 500 } else { 4500 });
                let inside = if path.local.port() == 500 { 500 } else { 4500 };
                seen = Path { local: std::net::SocketAddr::new(path.remote.ip(), inside), remote: path.local };
            }
        }
        let copies = if self.rng.next_u32() % 256 < self.duplicates { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.next_u32() % 256 >= self.loss {
                let jitter = Duration::from_millis(u64::from(self.rng.next_u32() % 20));
                let at = self.now + LATENCY + if self.loss + self.duplicates > 0 { jitter } else { Duration::ZERO };
                self.flights.push_back(Flight { at, to: 1 - from, path: seen, datagram: datagram.clone() });
            }
        }
    }

    /// Does the next thing that happens until `until`; `false` if nothing does.
    pub(crate) fn step(&mut self, until: Time) -> bool {
        let flight = self.flights.iter().enumerate().min_by_key(|(_, f)| f.at).map(|(i, f)| (f.at, i));
        let timer = (0..2).filter_map(|n| self.nodes[n].endpoint.poll_timeout().map(|t| (t.max(self.now), n))).min();
        let (flight_at, timer_at) = (flight.map(|f| f.0), timer.map(|t| t.0));
        let Some(at) = [flight_at, timer_at].into_iter().flatten().min().filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        if flight_at == Some(at) {
            let flight = self.flights.remove(flight.unwrap().1).unwrap();
            self.deliver(flight.to, flight.path, &flight.datagram);
        } else {
            let node = timer.unwrap().1;
            self.nodes[node].endpoint.handle_timeout(self.now);
            self.drive(node);
        }
        true
    }

    pub(crate) fn deliver(&mut self, to: usize, path: Path, datagram: &[u8]) {
        self.delivered += 1;
        let (now, home) = (self.now, self.home);
        self.nodes[to].endpoint.handle_datagram(now, path, home, datagram);
        self.drive(to);
    }

    pub(crate) fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(steps < 100_000, "the pair never comes to rest");
        }
    }

    /// Throws away what is on its way.
    pub(crate) fn cut(&mut self) {
        self.flights.clear();
    }

    /// Both ends have the same children, with keys that fit.
    pub(crate) fn assert_children_fit(&self, count: usize) {
        let [a, b] = &self.nodes;
        assert_eq!((a.children.len(), b.children.len()), (count, count));
        for ours in a.children.values() {
            let theirs = b.children.get(&ours.spi_out).expect("the peer has the other end");
            assert_eq!(theirs.spi_out, ours.spi_in);
            assert_eq!((&ours.key_out, &ours.key_in), (&theirs.key_in, &theirs.key_out));
            assert_eq!((&ours.integ_out, &ours.integ_in), (&theirs.integ_in, &theirs.integ_out));
            assert_eq!((&ours.local, &ours.remote), (&theirs.remote, &theirs.local));
            assert_ne!(ours.key_in, ours.key_out);
            assert_eq!(ours.inner_address, theirs.inner_address);
        }
        for node in [a, b] {
            let known: usize = node.endpoint.sessions(self.now).map(|s| s.children.len()).sum();
            assert_eq!(known, count);
        }
    }
}
