//! The sessions, their sockets and their tunnels: one turn takes in what has come and does what is due.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use crypto::{CbcIvSource, SigningKey};
use esp::{InboundSa, Initial, OutboundSa, Start, TRAILER_MAX};
use ike::{ChildSa, Config, Endpoint, Event, Output, Path, Role, SignError};
use rustix::event::{PollFd, PollFlags, poll};
use wire::{Epoch, Slot, Spi, Tenure, Time, UnknownFields, WorkSet};

use super::packet::{self, Probe};
use super::stream::{Stream, Streamed};
use super::{Counts, connection_name, socket_address};
use crate::namespace::Namespace;

/// All sessions.
pub(super) struct Core {
    start: Instant,
    endpoint: Endpoint,
    key: Option<SigningKey>,
    /// Ports 500 and 4500.
    sockets: [UdpSocket; 2],
    local: Ipv4Addr,
    path: Path,
    tenure: Tenure,
    ivs: CbcIvSource,
    waiting: usize,
    at_once: usize,
    opening: usize,
    identities: usize,
    next: usize,
    tunnels: BTreeMap<Ipv4Addr, Tunnel>,
    by_spi: HashMap<Spi, Ipv4Addr>,
    up: HashSet<u64>,
    answered: HashSet<Ipv4Addr>,
    streams: HashMap<Ipv4Addr, Stream>,
    counts: Counts,
    complaint: String,
}

struct Tunnel {
    session: u64,
    outbound: OutboundSa,
    inbound: InboundSa,
    remote: std::net::SocketAddr,
}

/// Sleeps until something comes in.
pub(super) struct Waiter {
    sockets: [UdpSocket; 2],
}

impl Waiter {
    pub(super) fn wait(&self, limit: Duration) -> Result<()> {
        let mut fds = self.sockets.each_ref().map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
        let limit = rustix::event::Timespec::try_from(limit).context("a wait")?;
        poll(&mut fds, Some(&limit)).context("wait for packets")?;
        Ok(())
    }
}

impl Core {
    pub(super) fn open(
        namespace: &Namespace,
        config: Config,
        key: Option<SigningKey>,
        local: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> Result<Self> {
        let sockets = namespace.within(|| Ok([socket(local, 500)?, socket(local, 4500)?]))?;
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| anyhow!("no randomness"))?;
        let identities = config.connections.len();
        let mut endpoint = Endpoint::new(Arc::new(config), seed);
        let tenure = Tenure { epoch: Epoch { count: 0, master: Slot::default() }, slot: Slot::default() };
        let start = Instant::now();
        for set in WorkSet::all() {
            endpoint.adopt_set(Time::ZERO, set, tenure, &mut std::iter::empty());
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).context("the wall clock is before 1970")?;
        endpoint.set_wall_clock(Time::ZERO, unix);
        let path = Path { local: socket_address(local, 500), remote: socket_address(gateway, 500) };
        Ok(Self {
            start,
            endpoint,
            key,
            sockets,
            local,
            path,
            tenure,
            ivs: CbcIvSource::new(seed),
            waiting: 0,
            at_once: 0,
            opening: 0,
            identities,
            next: 0,
            tunnels: BTreeMap::new(),
            by_spi: HashMap::new(),
            up: HashSet::new(),
            answered: HashSet::new(),
            streams: HashMap::new(),
            counts: Counts::default(),
            complaint: String::new(),
        })
    }

    pub(super) fn waiter(&self) -> Result<Waiter> {
        let [ike, nat_t] = &self.sockets;
        Ok(Waiter { sockets: [ike.try_clone()?, nat_t.try_clone()?] })
    }

    /// How long nothing is due.
    pub(super) fn idle_for(&self) -> Duration {
        let now = self.now();
        let ike = self.endpoint.poll_timeout().map(|due| due.since(now));
        let streams = self.streams.values().map(|stream| stream.due().saturating_duration_since(Instant::now()));
        streams.chain(ike).chain([TURN_MAX]).min().unwrap_or(TURN_MAX)
    }

    /// Takes in all that has come, and does all that is due.
    pub(super) fn turn(&mut self) -> Result<()> {
        let mut buffer = [0; 2048];
        for port in [500, 4500] {
            for _ in 0..BATCH_MAX {
                let [ike, nat_t] = &self.sockets;
                let socket = if port == 500 { ike } else { nat_t };
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        let path = Path { local: (self.path.local.ip(), port).into(), remote: from };
                        self.take(path, buffer.get_mut(..length).unwrap_or_default());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // An ICMP error for something sent before: the gateway is away just now.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error).context("receive"),
                }
            }
        }
        let now = self.now();
        if self.endpoint.poll_timeout().is_some_and(|due| due <= now) {
            self.endpoint.handle_timeout(now);
        }
        self.act()?;
        self.send_streams();
        Ok(())
    }

    pub(super) const fn local(&self) -> Ipv4Addr {
        self.local
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { up: self.up.len(), ..self.counts }
    }

    pub(super) fn complaint(&self) -> &str {
        &self.complaint
    }

    /// The SPI that the gateway sends to the session with that inner address.
    pub(super) fn spi_of(&self, address: Ipv4Addr) -> Option<Spi> {
        self.by_spi.iter().find(|(_, of)| **of == address).map(|(spi, _)| *spi)
    }

    pub(super) fn inner_addresses(&self) -> Vec<Ipv4Addr> {
        self.tunnels.keys().copied().collect()
    }

    pub(super) fn open_sessions(&mut self, count: usize, at_once: usize) -> Result<()> {
        self.waiting = count;
        self.at_once = at_once;
        self.open_more()?;
        self.act()
    }

    pub(super) fn delete_sessions(&mut self) {
        let now = self.now();
        for tunnel in self.tunnels.values() {
            // One that ended in this moment needs no end.
            self.endpoint.delete(now, tunnel.session).ok();
        }
    }

    pub(super) fn forget_echoes(&mut self) {
        self.answered.clear();
    }

    pub(super) fn sessions_without_echo(&self) -> usize {
        self.tunnels.keys().filter(|address| !self.answered.contains(address)).count()
    }

    pub(super) fn send_echoes(&mut self, server: SocketAddrV4) {
        let silent: Vec<Ipv4Addr> = self.tunnels.keys().filter(|a| !self.answered.contains(a)).copied().collect();
        for address in silent {
            self.send_inner(address, server, &Probe { number: ECHO });
        }
    }

    pub(super) fn probe_sessions(&mut self) {
        let now = self.now();
        for tunnel in self.tunnels.values() {
            // One that has ended will be counted as silent.
            self.endpoint.probe(now, tunnel.session).ok();
        }
    }

    /// Sessions whose peer has not been heard, authenticated, since `moment`.
    pub(super) fn silent_since(&self, moment: Instant) -> usize {
        let now = self.now();
        let age = moment.elapsed();
        let heard = self.endpoint.sessions(now).filter(|session| session.idle.is_some_and(|idle| idle < age)).count();
        self.tunnels.len().saturating_sub(heard)
    }

    pub(super) fn start_stream(&mut self, from: Ipv4Addr, to: SocketAddrV4, rate: u32) -> Result<()> {
        anyhow::ensure!(self.tunnels.contains_key(&from), "no session has the inner address {from}");
        self.streams.insert(from, Stream::new(to, rate));
        Ok(())
    }

    pub(super) fn end_stream(&mut self, from: Ipv4Addr) -> Streamed {
        self.streams.remove(&from).map(Stream::finish).unwrap_or_default()
    }

    fn now(&self) -> Time {
        Time { nanos: u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX) }
    }

    fn open_more(&mut self) -> Result<()> {
        let now = self.now();
        while self.waiting > 0 && self.opening < self.at_once {
            let home = WorkSet::from_low_bits(self.next as u64);
            let connection = connection_name(self.next % self.identities);
            self.endpoint.initiate(now, &connection, self.path, home)?;
            self.next += 1;
            self.waiting -= 1;
            self.opening += 1;
        }
        Ok(())
    }

    fn take(&mut self, path: Path, datagram: &mut [u8]) {
        if path.local.port() == 500 {
            self.take_ike(path, datagram);
            return;
        }
        // RFC 3948 §2.2: four zero octets tell IKE from ESP.
        match datagram.split_first_chunk::<4>() {
            Some(([0, 0, 0, 0], message)) => self.take_ike(path, message),
            Some((spi, _)) => self.take_esp(Spi(u32::from_be_bytes(*spi)), datagram),
            None => {}
        }
    }

    fn take_ike(&mut self, path: Path, message: &[u8]) {
        // RFC 7296 §3.1: with the initiator flag set, ours is the responder's SPI.
        let Some((spis, flags)) = message.get(..16).zip(message.get(19)) else { return };
        let (spi_i, spi_r) = spis.split_at(8);
        let own = if flags & 0x08 == 0 { spi_i } else { spi_r };
        let home = WorkSet::from_low_bits(own.iter().fold(0, |value, octet| value << 8 | u64::from(*octet)));
        self.endpoint.handle_datagram(self.now(), path, home, message);
    }

    fn take_esp(&mut self, spi: Spi, datagram: &mut [u8]) {
        let Some(address) = self.by_spi.get(&spi).copied() else {
            self.counts.refused += 1;
            return;
        };
        let Some(tunnel) = self.tunnels.get_mut(&address) else { return };
        let Ok(opened) = tunnel.inbound.open(datagram) else {
            self.counts.refused += 1;
            return;
        };
        let Some(probe) = datagram.get(opened.inner).and_then(packet::read) else { return };
        if probe.number == ECHO {
            self.answered.insert(address);
        } else if let Some(stream) = self.streams.get_mut(&address) {
            stream.take(&probe);
        }
    }

    /// Carries out what the endpoint asks for.
    fn act(&mut self) -> Result<()> {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { path, datagram, after: _ } => self.send_ike(path, &datagram),
                Output::InstallChild(child) => self.install(&child)?,
                Output::RemoveChild { spi_in, reason: _ } => {
                    if let Some(address) = self.by_spi.remove(&spi_in)
                        && !self.by_spi.values().any(|other| *other == address)
                    {
                        self.tunnels.remove(&address);
                    }
                }
                Output::MovePath { spi_in, path } => {
                    let tunnel = self.by_spi.get(&spi_in).and_then(|address| self.tunnels.get_mut(address));
                    if let Some(tunnel) = tunnel {
                        tunnel.remote = path.remote;
                    }
                }
                Output::Sign { request, key: _, scheme, message } => {
                    let signature = self
                        .key
                        .as_ref()
                        .ok_or(SignError)
                        .and_then(|key| key.sign(scheme, &message).map_err(|_| SignError));
                    self.endpoint.handle_signature(self.now(), request, signature);
                }
                Output::Event(event) => self.note(event)?,
                // Nothing is replicated, and only a responder asks for addresses.
                Output::Store { .. } | Output::RequestAddress { .. } | Output::ReleaseAddress { .. } => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Up { session, .. } => {
                self.counts.opened += 1;
                self.up.insert(session);
                self.opening = self.opening.saturating_sub(1);
                self.open_more()?;
            }
            Event::IkeRekeyed { .. } | Event::ChildRekeyed { .. } => self.counts.rekeyed += 1,
            Event::Closed { session, reason } => {
                self.counts.closed += 1;
                self.up.remove(&session);
                self.complaint = format!("closed: {reason}");
            }
            Event::Refused { refusal, .. } => self.complaint = format!("refused: {refusal}"),
            Event::Moved { .. } => {}
        }
        Ok(())
    }

    fn install(&mut self, child: &ChildSa) -> Result<()> {
        let Some(IpAddr::V4(address)) = child.inner_address else { anyhow::bail!("a session got no inner address") };
        let initial = Initial {
            session: child.session,
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            encryption: child.encryption.iana(),
            key_bits: child.encryption.key_bits(),
            integrity: child.integrity.map(crypto::Integrity::iana),
            key_in: child.key_in.clone(),
            key_out: child.key_out.clone(),
            integrity_key_in: child.integ_in.clone(),
            integrity_key_out: child.integ_out.clone(),
            local: child.local.clone(),
            remote: child.remote.clone(),
            birth_count: 0,
            replaces: child.replaces,
            opened_by_peer: child.role == Role::Responder,
            path_local: child.path.local,
            path_remote: child.path.remote,
            unknown: UnknownFields::default(),
        };
        // One node, no heir: the whole number space is the first lease.
        let start = Start::New { edge: u64::MAX };
        let tunnel = Tunnel {
            session: child.session,
            outbound: OutboundSa::new(&initial, self.tenure, &start)?,
            inbound: InboundSa::new(&initial, &start)?,
            remote: child.path.remote,
        };
        self.by_spi.insert(child.spi_in, address);
        self.tunnels.insert(address, tunnel);
        Ok(())
    }

    fn send_ike(&mut self, path: Path, message: &[u8]) {
        let [ike, nat_t] = &self.sockets;
        // A failed send is a lost packet, which IKE repeats.
        if path.local.port() == 500 {
            ike.send_to(message, path.remote).ok();
        } else {
            nat_t.send_to(&[&[0; 4], message].concat(), path.remote).ok();
        }
    }

    fn send_streams(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (address, stream) in &mut self.streams {
            while let Some(probe) = stream.take_due(now) {
                due.push((*address, stream.to(), probe));
            }
        }
        for (from, to, probe) in due {
            self.send_inner(from, to, &probe);
        }
    }

    fn send_inner(&mut self, from: Ipv4Addr, to: SocketAddrV4, probe: &Probe) {
        let Some(tunnel) = self.tunnels.get_mut(&from) else { return };
        let mut inner = packet::write(from, to, probe);
        let length = inner.len();
        inner.resize(length + TRAILER_MAX, 0);
        let mut sealed = [0; 256];
        let Some(sequence) = tunnel.outbound.reserve(1).ok().and_then(|mut range| range.take()) else { return };
        if let Ok(length) = tunnel.outbound.seal(sequence, &mut inner, length, &mut sealed, &mut self.ivs) {
            let [_, nat_t] = &self.sockets;
            // What is not sent is lost, and must not be blamed on the gateway.
            if nat_t.send_to(sealed.get(..length).unwrap_or_default(), tunnel.remote).is_err() {
                self.counts.unsent += 1;
            }
        }
    }
}

fn socket(local: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((local, port)).with_context(|| format!("bind to {local}:{port}"))?;
    socket.set_nonblocking(true)?;
    let tuned = socket2::SockRef::from(&socket);
    tuned.set_recv_buffer_size(BUFFER_SIZE)?;
    tuned.set_send_buffer_size(BUFFER_SIZE)?;
    Ok(socket)
}

/// The number of a probe that is no part of a stream.
const ECHO: u32 = u32::MAX;
const BATCH_MAX: usize = 256;
const TURN_MAX: Duration = Duration::from_millis(50);
const BUFFER_SIZE: usize = 8 << 20;
