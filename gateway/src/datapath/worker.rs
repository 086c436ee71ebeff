//! One worker: a thread with its own TUN queue, sockets and tables.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crypto::CbcIvSource;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use wire::{Spi, Time, WorkSet};

use super::coalesce::Inner;
use super::counters::{DropReason, WorkerCounters};
use super::mailbox::{Command, Mailbox, Origin, Stopped};
use super::moving::{Held, Hold, Mode, Processed, SETTLE};
use super::offload::VnetHeader;
use super::outlet::Outlet;
use super::socket::UdpSocket;
use super::table::Table;
use super::tun::TunQueue;
use super::{Event, EventSink};

/// The longest IP packet behind its offload header, and room for a trailer.
const INNER_BUFFER: usize = VnetHeader::LEN + 65_535 + esp::TRAILER_MAX;
/// The longest train of datagrams.
const OUTER_BUFFER: usize = 65_535;
/// Reads from one source before the others are looked at.
const TURN_READS_MAX: usize = 16;
/// Rounds in which a worker empties its queues when a set is stopped or started.
const DRAIN_ROUNDS_MAX: usize = 1024;
/// How often inbound edges are told: what came after the last of them can be repeated once after a crash (invariant I3).
const EDGES_PERIOD: Duration = Duration::from_millis(10);
/// The longest sleep; nothing depends on it.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Packets without a pair that are told in one period of the edges; others are counted only.
const UNKNOWN_PER_PERIOD: u32 = 256;

/// What a worker is given when it starts.
pub(super) struct Parts {
    pub(super) index: usize,
    pub(super) tun: TunQueue,
    pub(super) sockets: Arc<[UdpSocket]>,
    pub(super) mailboxes: Arc<[Mailbox]>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) sink: EventSink,
    pub(super) ivs: CbcIvSource,
}

/// The thread's state.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) mailboxes: Arc<[Mailbox]>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) sink: EventSink,
    pub(super) table: Table,
    /// Only sets that are moving; empty nearly always.
    pub(super) modes: HashMap<WorkSet, Mode>,
    pub(super) outlet: Outlet,
    pub(super) now: Time,
    inner_buffer: Box<[u8]>,
    outer_buffer: Box<[u8]>,
    pub(super) opened: Vec<Inner>,
    pub(super) dirty: Vec<Spi>,
    edges_told: Time,
    pub(super) unknown_left: u32,
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Turn,
    End,
}

impl Worker {
    pub(super) fn new(parts: Parts) -> Self {
        let outlet = Outlet::new(parts.tun, parts.sockets, Arc::clone(&parts.counters), parts.ivs);
        Self {
            index: parts.index,
            mailboxes: parts.mailboxes,
            counters: parts.counters,
            sink: parts.sink,
            table: Table::default(),
            modes: HashMap::new(),
            outlet,
            now: boot_time(),
            inner_buffer: vec![0; INNER_BUFFER].into(),
            outer_buffer: vec![0; OUTER_BUFFER].into(),
            opened: Vec::with_capacity(super::coalesce::RUN_MAX * 2),
            dirty: Vec::new(),
            edges_told: Time::ZERO,
            unknown_left: UNKNOWN_PER_PERIOD,
        }
    }

    /// Works until told to end; a device that fails ends the worker with an event.
    pub(super) fn run(mut self) {
        if let Err(error) = self.work() {
            (self.sink)(Event::WorkerFailed { worker: self.index, error: error.to_string() });
        }
    }

    fn work(&mut self) -> io::Result<()> {
        // By place: the TUN queue, then the sockets.
        let mut ready = vec![true; 1 + self.outlet.sockets.len()];
        loop {
            self.now = boot_time();
            self.counters.beat(false);
            for command in self.mailboxes[self.index].take() {
                if self.handle_command(command)? == Next::End {
                    return Ok(());
                }
            }
            self.read(&mut ready)?;
            self.outlet.flush();
            self.tick();
            self.wait(&mut ready)?;
        }
    }

    /// Reads from what is ready, a bounded number of times each.
    fn read(&mut self, ready: &mut [bool]) -> io::Result<()> {
        for (place, ready) in ready.iter_mut().enumerate() {
            for _ in 0..TURN_READS_MAX {
                if !*ready {
                    break;
                }
                *ready = if place == 0 { self.read_inner()? } else { self.read_outer(place - 1)? };
            }
        }
        Ok(())
    }

    /// Takes one packet from the TUN device; `false` if there is none.
    fn read_inner(&mut self) -> io::Result<bool> {
        let mut buffer = mem::take(&mut self.inner_buffer);
        let room = INNER_BUFFER - esp::TRAILER_MAX;
        let outcome = self.outlet.tun.read(&mut buffer[..room]);
        if let Ok(Some(len)) = outcome {
            self.handle_inner(&mut buffer, len);
        }
        self.inner_buffer = buffer;
        Ok(outcome?.is_some())
    }

    /// Takes one train from a socket; `false` if there is none.
    fn read_outer(&mut self, socket: usize) -> io::Result<bool> {
        let mut buffer = mem::take(&mut self.outer_buffer);
        let outcome = self.outlet.sockets[socket].receive(&mut buffer);
        if let Ok(Some(received)) = outcome {
            self.handle_train(socket, &received, &mut buffer[..received.len]);
        }
        self.outer_buffer = buffer;
        Ok(outcome?.is_some())
    }

    /// Sleeps until something is ready; only looks if something still is.
    fn wait(&mut self, ready: &mut [bool]) -> io::Result<()> {
        let busy = ready.contains(&true);
        let sleep = if busy { Duration::ZERO } else { self.sleep() };
        let timeout =
            Timespec { tv_sec: sleep.as_secs().try_into().unwrap_or(0), tv_nsec: sleep.subsec_nanos().into() };
        let mut fds: [PollFd<'_>; FDS_MAX] = std::array::from_fn(|_| PollFd::new(&self.outlet.tun, PollFlags::IN));
        let sources = 1 + self.outlet.sockets.len();
        for (fd, socket) in fds[1..].iter_mut().zip(self.outlet.sockets.iter()) {
            *fd = PollFd::new(socket, PollFlags::IN);
        }
        fds[sources] = PollFd::new(&self.mailboxes[self.index], PollFlags::IN);
        if !busy {
            self.counters.beat(true);
        }
        match poll(&mut fds[..=sources], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for (ready, fd) in ready.iter_mut().zip(&fds) {
            *ready |= !fd.revents().is_empty();
        }
        Ok(())
    }

    fn sleep(&self) -> Duration {
        let mut sleep = SLEEP_MAX;
        if !self.dirty.is_empty() || self.unknown_left < UNKNOWN_PER_PERIOD {
            sleep = sleep.min((self.edges_told + EDGES_PERIOD).since(self.now));
        }
        for mode in self.modes.values() {
            if let Mode::Settling(_, until) = mode {
                sleep = sleep.min(until.since(self.now));
            }
        }
        // Never 0: what is due now is done in the next turn all the same.
        sleep.max(Duration::from_micros(50))
    }

    /// Does what is due.
    fn tick(&mut self) {
        if self.now >= self.edges_told + EDGES_PERIOD {
            self.edges_told = self.now;
            self.unknown_left = UNKNOWN_PER_PERIOD;
            if !self.dirty.is_empty() {
                let mut edges = Vec::with_capacity(self.dirty.len());
                for spi in self.dirty.drain(..) {
                    if let Some(inbound) = self.table.inbound(spi) {
                        inbound.dirty = false;
                        edges.push((spi, inbound.sa.edge()));
                    }
                }
                (self.sink)(Event::InboundEdges(edges));
            }
        }
        if !self.modes.is_empty() {
            let now = self.now;
            self.modes.retain(|_, mode| !matches!(mode, Mode::Settling(_, until) if *until <= now));
        }
    }

    fn handle_command(&mut self, command: Command) -> io::Result<Next> {
        match command {
            Command::Install { mut outbound, inbound } => {
                outbound.socket = self.outlet.socket_of(outbound.path.local);
                let spi_in = outbound.spi_in;
                self.table.put_outbound(*outbound);
                if let Some(inbound) = inbound {
                    self.table.put_inbound(*inbound);
                }
                self.send_waiting(spi_in);
            }
            Command::Remove(spi_in) => self.remove(spi_in),
            Command::Path(spi_in, path) => {
                let socket = self.outlet.socket_of(path.local);
                if let Some(outbound) = self.table.outbound(spi_in) {
                    (outbound.path, outbound.socket) = (path, socket);
                }
                if let Some(inbound) = self.table.inbound(spi_in) {
                    inbound.path = path;
                }
            }
            Command::LeaseExtended(spi_in) => self.send_waiting(spi_in),
            Command::Outer { path, tos, mut datagram, origin } => {
                self.handle_datagram(path, tos, &mut datagram, origin)
            }
            Command::Inner(packet) => self.handle_copy(&packet),
            Command::Watch(set) => {
                // Told again, it has noted already what the new owner may queue.
                if !matches!(self.modes.get(&set), Some(Mode::Watched(_))) {
                    self.modes.insert(set, Mode::Watched(Vec::new()));
                }
            }
            Command::Hold(set) => {
                self.modes.insert(set, Mode::Held(Hold::default()));
            }
            Command::Answer(reply) => {
                // Who asked may have given up by now.
                let _ = reply.send(());
            }
            Command::Stop(set, reply) => {
                self.drain()?;
                let stopped = self.stop(set);
                // Who asked may have given up by now.
                let _ = reply.send(stopped);
            }
            Command::Start(set, processed) => {
                self.drain()?;
                self.start(set, processed);
            }
            Command::Forget(set) => {
                self.modes.remove(&set);
                for spi_in in self.table.pairs_of(set) {
                    self.remove(spi_in);
                }
            }
            Command::Shutdown => return Ok(Next::End),
        }
        self.outlet.flush();
        Ok(Next::Turn)
    }

    fn remove(&mut self, spi_in: Spi) {
        self.table.take_inbound(spi_in);
        if let Some(mut outbound) = self.table.take_outbound(spi_in) {
            // The pair that replaces it, if there is one, can carry what still waits.
            for packet in outbound.waiting.take() {
                self.handle_copy(&packet);
            }
        }
    }

    /// Processes what the kernel holds for this worker now.
    fn drain(&mut self) -> io::Result<()> {
        let mut ready = vec![true; 1 + self.outlet.sockets.len()];
        for _ in 0..DRAIN_ROUNDS_MAX {
            self.read(&mut ready)?;
            if !ready.contains(&true) {
                break;
            }
        }
        self.outlet.flush();
        Ok(())
    }

    fn stop(&mut self, set: WorkSet) -> Stopped {
        let digests = match self.modes.insert(set, Mode::Stopped) {
            Some(Mode::Watched(digests)) => digests,
            Some(Mode::Held(_) | Mode::Stopped | Mode::Settling(..)) | None => Vec::new(),
        };
        let windows = self.table.inbound_of(set).map(|inbound| (inbound.sa.spi(), inbound.sa.window().to_bytes()));
        Stopped { windows: windows.collect(), digests }
    }

    fn start(&mut self, set: WorkSet, processed: Processed) {
        let held = self.modes.insert(set, Mode::Settling(processed, self.now + SETTLE));
        let Some(Mode::Held(hold)) = held else { return };
        for packet in hold.into_packets() {
            match packet {
                Held::Outer { path, tos, mut datagram } => {
                    self.handle_datagram(path, tos, &mut datagram, Origin::Worker)
                }
                Held::Inner(packet) => self.handle_copy(&packet),
            }
        }
    }

    fn send_waiting(&mut self, spi_in: Spi) {
        let Some(outbound) = self.table.outbound(spi_in) else { return };
        for packet in outbound.waiting.take() {
            self.handle_copy(&packet);
        }
    }

    /// Processes a packet that was queued as it came from the TUN device.
    fn handle_copy(&mut self, packet: &[u8]) {
        let mut buffer = mem::take(&mut self.inner_buffer);
        // A worker that is in the middle of a packet has no buffer; then the copy brings its own.
        if buffer.is_empty() {
            buffer = vec![0; INNER_BUFFER].into();
        }
        buffer[..packet.len()].copy_from_slice(packet);
        self.handle_inner(&mut buffer, packet.len());
        self.inner_buffer = buffer;
    }

    /// Counts a packet of no pair, unless it may be told as an event.
    pub(super) fn may_tell_unknown(&mut self, reason: DropReason) -> bool {
        if self.unknown_left == 0 {
            self.counters.count_drop(reason, 1);
            return false;
        }
        self.unknown_left -= 1;
        true
    }
}

/// The TUN queue, two sockets for each of 15 addresses, and the mailbox.
pub(super) const FDS_MAX: usize = 32;

fn boot_time() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Time { nanos: seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) }
}
