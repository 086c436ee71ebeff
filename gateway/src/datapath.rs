//! The way of a packet through the node: TUN device, ESP, UDP sockets, one plain thread per core.
//!
//! Control talks to it through a [`Datapath`]: SA pairs go in and out, leases are extended, IKE datagrams sent; what the
//! workers notice comes back as [`Event`]s. Each worker has its own tables, fed by a queue of commands that it looks at once
//! per batch, so no packet meets a lock, an allocation or a log line.
//!
//! # A planned move of a work set
//! 1. The old owner [watches](Datapath::watch_set) the set: it keeps digests of the plain packets that it processes.
//! 2. The new owner [holds](Datapath::hold_set) it, installs its pairs from the replicated records ([`esp::Start::TakeOver`]),
//!    and, once its workers [know](Datapath::await_workers), says so: from now on packets that reach it wait in bounded queues.
//! 3. The old owner [stops](Datapath::stop_set) it: its workers empty their queues once more, then process no packet of the
//!    set, and the exact state comes back as a [`SetState`].
//! 4. The new owner installs the pairs again ([`esp::Start::HandOver`]) and [starts](Datapath::start_set) the set: plain
//!    packets that the old one had processed leave the queue, and ESP packets that it had received are replays; the rest
//!    goes on in order.

mod checksum;
mod coalesce;
mod counters;
mod mailbox;
mod moving;
mod offload;
mod open;
mod outlet;
mod seal;
mod socket;
mod table;
mod train;
mod tun;
mod worker;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail};
use crypto::CbcIvSource;
use esp::{HandOver, ImportError, InboundSa, Initial, OutboundSa, Selectors, Start};
use ike::Path;
use wire::{Prefix, Slot, Spi, Tenure, UnknownFields, WorkSet};

pub use counters::{DropReason, Heartbeat, PairCounters};

use counters::WorkerCounters;
use mailbox::{Command, Mailbox, Origin, Stopped};
use moving::{Processed, last_of};
use offload::VnetHeader;
use socket::{PORT_IKE, PORT_NAT_T, UdpSocket, worker_of};
use table::{Inbound, Outbound, PairShared, Waiting};
use tun::TunQueue;
use worker::{Parts, Worker};

/// How long the workers may take to stop a set; they need far less than a millisecond when they are well.
const STOP_MAX: Duration = Duration::from_millis(500);
/// In front of IKE on port 4500 (RFC 3948 §2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// What a datapath needs to start.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Name of the TUN device.
    pub tun: String,
    /// Its MTU: what fits into a tunnel packet on the outside network.
    pub mtu: u16,
    /// Prefixes that are routed into the TUN device: the pools and the networks of branches.
    pub routes: Vec<Prefix>,
    /// The cluster's outside addresses; ports 500 and 4500 of each are opened.
    pub addresses: Vec<IpAddr>,
    /// How many threads; one per core.
    pub workers: NonZeroUsize,
}

/// A pair of ESP SAs to install.
#[derive(Clone, Debug)]
pub struct SaPair {
    /// What is fixed about it.
    pub initial: Initial,
    /// Under which tenure this node holds its work set.
    pub tenure: Tenure,
    /// From where it goes on.
    pub start: Start,
}

/// Where a [`Datapath`] tells what it noticed. Called by the workers, so it must not block.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// What a worker noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An IKE datagram came in; the non-ESP marker is off.
    Ike {
        /// Its way.
        path: Path,
        /// Its octets.
        datagram: Vec<u8>,
    },
    /// An SA has used half of its sequence lease, or has none: store a longer one, then [`Datapath::extend_lease`].
    LeaseLow {
        /// The pair.
        spi_in: Spi,
        /// The edge that the next lease should have.
        edge: u64,
    },
    /// The newest authenticated packet of a pair came by another way; [`Datapath::set_path`] ends the repetition.
    PathChanged {
        /// The pair.
        spi_in: Spi,
        /// The new way.
        path: Path,
    },
    /// A pair needs to be rekeyed: its sequence numbers run out.
    Exhausted {
        /// The pair.
        spi_in: Spi,
    },
    /// Inbound edges that have risen, to be stored every 10 to 20 ms.
    InboundEdges(Vec<(Spi, u64)>),
    /// An ESP packet of no pair here: another node's, or nobody's.
    UnknownSpi {
        /// Its SPI; the low bits name the work set.
        spi: Spi,
        /// Its way.
        path: Path,
        /// Its octets.
        datagram: Vec<u8>,
    },
    /// An inner packet for which no pair is here: another node's, or nobody's.
    UnknownDestination {
        /// The inner packet, its checksums complete.
        packet: Vec<u8>,
    },
    /// A worker's device or socket failed and the worker has ended: the node cannot go on.
    WorkerFailed {
        /// Which one.
        worker: usize,
        /// What failed.
        error: String,
    },
}

/// A work set that the workers were told to stop.
pub struct Stopping {
    /// Its pairs. This node may own the set again by the time that the workers answer, and then has others.
    pairs: Vec<(Spi, Registered)>,
    replies: mpsc::Receiver<Stopped>,
}

/// The exact state of a work set whose owner has stopped it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetState {
    /// Its pairs.
    pub pairs: Vec<HandOver>,
    /// Digests of the plain packets that were processed last since the set was watched.
    pub digests: Vec<u64>,
}

/// The workers, as the control side sees them.
pub struct Datapath {
    mailboxes: Arc<[Mailbox]>,
    /// The first worker's, for IKE.
    sockets: Arc<[UdpSocket]>,
    counters: Vec<Arc<WorkerCounters>>,
    threads: Vec<JoinHandle<()>>,
    pairs: Mutex<Pairs>,
}

/// What the control side knows of installed pairs.
#[derive(Default)]
struct Pairs {
    by_spi: HashMap<Spi, Registered>,
    unproven: Option<Slot>,
}

#[derive(Clone)]
struct Registered {
    outbound: Arc<OutboundSa>,
    pair: Arc<PairShared>,
    replaces: Option<Spi>,
}

impl Datapath {
    /// Makes the TUN device, opens the sockets and starts the workers.
    ///
    /// # Errors
    /// A device, a socket or a right is missing; the text says which and what to do.
    pub fn start(config: &DatapathConfig, sink: EventSink) -> anyhow::Result<Self> {
        let workers = config.workers.get();
        let locals: Vec<SocketAddr> = config
            .addresses
            .iter()
            .flat_map(|address| [PORT_NAT_T, PORT_IKE].map(|port| SocketAddr::new(*address, port)))
            .collect();
        if locals.is_empty() || locals.len() + 2 > worker::FDS_MAX {
            bail!(
                "{} outside addresses are configured: 1 to {} are allowed",
                config.addresses.len(),
                worker::FDS_MAX / 2 - 1
            );
        }
        let tuns: Vec<TunQueue> = (0..workers).map(|_| TunQueue::open(&config.tun)).collect::<anyhow::Result<_>>()?;
        for tun in &tuns {
            if !tun.offload()? {
                tracing::info!("the kernel segments no UDP for TUN devices: it is older than 6.2");
            }
        }
        tun::bring_up(&config.tun, config.mtu)?;
        for prefix in &config.routes {
            tun::route(&config.tun, *prefix)?;
        }
        let sockets: Vec<Arc<[UdpSocket]>> = (0..workers)
            .map(|_| locals.iter().map(|local| UdpSocket::open(*local)).collect::<anyhow::Result<_>>())
            .collect::<anyhow::Result<_>>()?;
        for socket in sockets.iter().take(1).flat_map(|sockets| sockets.iter()) {
            if socket.local().port() == PORT_NAT_T {
                socket.steer(workers)?;
            } else {
                socket.steer(1)?;
            }
        }
        let mailboxes: Arc<[Mailbox]> = (0..workers).map(|_| Mailbox::new()).collect::<anyhow::Result<_>>()?;
        let mut datapath = Self {
            mailboxes: Arc::clone(&mailboxes),
            sockets: Arc::clone(&sockets[0]),
            counters: (0..workers).map(|_| Arc::new(WorkerCounters::new())).collect(),
            threads: Vec::new(),
            pairs: Mutex::default(),
        };
        for (index, (tun, sockets)) in tuns.into_iter().zip(sockets).enumerate() {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("draw random octets: {error}"))?;
            let parts = Parts {
                index,
                tun,
                sockets,
                mailboxes: Arc::clone(&mailboxes),
                counters: Arc::clone(&datapath.counters[index]),
                sink: Arc::clone(&sink),
                ivs: CbcIvSource::new(seed),
            };
            let thread = thread::Builder::new().name(format!("esp-{index}")).spawn(move || Worker::new(parts).run());
            datapath.threads.push(thread.context("start a worker thread")?);
        }
        Ok(datapath)
    }

    /// Installs a pair, in place of one with the same inbound SPI.
    ///
    /// # Errors
    /// The record makes no SA here; an installed pair stays as it was.
    pub fn install(&self, pair: &SaPair) -> Result<(), ImportError> {
        let SaPair { initial, tenure, start } = pair;
        let sa = Arc::new(OutboundSa::new(initial, *tenure, start)?);
        let inbound = InboundSa::new(initial, start)?;
        let (spi_in, path) = (initial.spi_in, Path { local: initial.path_local, remote: initial.path_remote });
        let mut pairs = self.pairs();
        if let Some(slot) = pairs.unproven {
            match start {
                Start::New { .. } => sa.restrict_to_slot(slot),
                Start::TakeOver { .. } | Start::HandOver(_) => sa.restrict_wholly_to_slot(slot),
            }
        }
        let (sending, packets_in, bytes_in) = match start {
            Start::HandOver(state) => (state.sending, state.packets_in, state.bytes_in),
            Start::New { .. } | Start::TakeOver { .. } => {
                let replaced = initial.replaces.is_some_and(|replaced| pairs.by_spi.contains_key(&replaced));
                (!(initial.opened_by_peer && replaced), 0, 0)
            }
        };
        let shared = Arc::new(PairShared {
            sending: AtomicBool::new(sending),
            packets_in: AtomicU64::new(packets_in),
            bytes_in: AtomicU64::new(bytes_in),
        });
        let registered =
            Registered { outbound: Arc::clone(&sa), pair: Arc::clone(&shared), replaces: initial.replaces };
        pairs.by_spi.insert(spi_in, registered);

        let selectors = Arc::new(Selectors::new(&initial.local, &initial.remote));
        let remote: Arc<[_]> = initial.remote.as_slice().into();
        let home = worker_of(spi_in, self.mailboxes.len());
        let mut inbound =
            Some(Box::new(Inbound { sa: inbound, pair: Arc::clone(&shared), path, told_at: None, dirty: false }));
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            let outbound = Outbound {
                spi_in,
                sa: Arc::clone(&sa),
                pair: Arc::clone(&shared),
                selectors: Arc::clone(&selectors),
                remote: Arc::clone(&remote),
                path,
                socket: 0,
                waiting: Waiting::default(),
            };
            let inbound = if index == home { inbound.take() } else { None };
            mailbox.put(Command::Install { outbound: Box::new(outbound), inbound });
        }
        Ok(())
    }

    /// Removes a pair. One that replaces it is sent on from now on.
    pub fn remove(&self, spi_in: Spi) {
        self.pairs().remove(spi_in);
        self.tell(|| Command::Remove(spi_in));
    }

    /// Lets a pair use its sequence numbers up to `edge`, which is committed. Packets that waited leave.
    pub fn extend_lease(&self, spi_in: Spi, edge: u64) {
        if let Some(registered) = self.pairs().by_spi.get(&spi_in) {
            registered.outbound.extend_lease(edge);
        }
        self.tell(|| Command::LeaseExtended(spi_in));
    }

    /// Sends a pair's packets another way from now on.
    pub fn set_path(&self, spi_in: Spi, path: Path) {
        self.tell(|| Command::Path(spi_in, path));
    }

    /// Sends an IKE datagram from port 500 or 4500, as the path says.
    ///
    /// # Errors
    /// The path's local end is none of ours, or the socket does not take the datagram now.
    pub fn send_ike(&self, path: Path, datagram: &[u8]) -> std::io::Result<()> {
        let socket = self.sockets.iter().find(|socket| socket.local() == path.local);
        let socket = socket.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        if path.local.port() == PORT_NAT_T {
            let marked = [&NON_ESP_MARKER, datagram].concat();
            socket.send(path.remote, 0, &marked, marked.len())
        } else {
            socket.send(path.remote, 0, datagram, datagram.len())
        }
    }

    /// While somebody else may use, or may have used, the same numbers: uses, above each committed edge, only the blocks
    /// of sequence numbers of that slot. `None` lifts it for pairs that are installed from now on.
    pub fn set_unproven(&self, slot: Option<Slot>) {
        let mut pairs = self.pairs();
        pairs.unproven = slot;
        if let Some(slot) = slot {
            for registered in pairs.by_spi.values() {
                registered.outbound.restrict_to_slot(slot);
            }
        }
    }

    /// Old owner of a planned move: keeps digests of the set's plain packets from now on.
    pub fn watch_set(&self, set: WorkSet) {
        self.tell(|| Command::Watch(set));
    }

    /// New owner of a planned move: queues packets of the set from now on. Plain ones are known by the pairs that are
    /// installed behind this.
    pub fn hold_set(&self, set: WorkSet) {
        self.tell(|| Command::Hold(set));
    }

    /// Waits until the workers have done all that they were told before, at most half a second.
    ///
    /// # Errors
    /// A worker does not answer.
    pub fn await_workers(&self) -> anyhow::Result<()> {
        self.await_all(&self.order(Command::Answer))?;
        Ok(())
    }

    /// Old owner of a planned move: has the workers process what the node holds of the set, and stop it. What they are told
    /// behind this they do behind it, whenever somebody waits for the [exact state](Self::stopped).
    #[must_use]
    pub fn stop_set(&self, set: WorkSet) -> Stopping {
        let pairs = self.pairs().of(set);
        Stopping { pairs, replies: self.order(|reply| Command::Stop(set, reply)) }
    }

    /// The exact state of a set that stops. Waits until the workers have stopped it, at most half a second for each.
    ///
    /// # Errors
    /// A worker does not answer; the set is then stopped in the others, and must be taken over without a hand-over.
    pub fn stopped(&self, stopping: &Stopping) -> anyhow::Result<SetState> {
        let mut windows = HashMap::new();
        let mut noted = Vec::new();
        for stopped in self.await_all(&stopping.replies)? {
            windows.extend(stopped.windows);
            noted.push(stopped.digests);
        }
        let mut states = Vec::new();
        for (spi_in, registered) in &stopping.pairs {
            let window =
                windows.remove(spi_in).with_context(|| format!("no worker has the replay window of {spi_in}"))?;
            let (next, edge) = registered.outbound.position();
            let counters = registered.counters();
            states.push(HandOver {
                spi_in: *spi_in,
                next,
                edge,
                window,
                sending: registered.pair.sending.load(Relaxed),
                packets_in: counters.packets_in,
                bytes_in: counters.bytes_in,
                packets_out: counters.packets_out,
                bytes_out: counters.bytes_out,
                unknown: UnknownFields::default(),
            });
        }
        states.sort_unstable_by_key(|state| state.spi_in);
        Ok(SetState { pairs: states, digests: last_of(&noted) })
    }

    /// New owner of a planned move: goes on with the set, whose pairs were installed again from the hand-over. Held packets
    /// that the old owner has processed, by their digests, are dropped. Without digests this ends any hold.
    pub fn start_set(&self, set: WorkSet, digests: &[u64]) {
        let processed = Processed::new(digests);
        self.tell(|| Command::Start(set, processed.clone()));
    }

    /// Removes all pairs of a set: another node has it.
    pub fn forget_set(&self, set: WorkSet) {
        let mut pairs = self.pairs();
        for (spi_in, _) in pairs.of(set) {
            pairs.remove(spi_in);
        }
        drop(pairs);
        self.tell(|| Command::Forget(set));
    }

    /// Takes an ESP packet in that another node has handed on. It is not handed on again. `false` if too many wait.
    pub fn handle_esp(&self, path: Path, datagram: Vec<u8>) -> bool {
        let Some(spi) = datagram.first_chunk().map(|spi| Spi(u32::from_be_bytes(*spi))) else {
            return false;
        };
        let mailbox = &self.mailboxes[worker_of(spi, self.mailboxes.len())];
        mailbox.put_packet(Command::Outer { path, tos: 0, datagram: datagram.into(), origin: Origin::Node })
    }

    /// Takes an inner packet in that another node has handed on. `false` if too many wait, or it is too long.
    pub fn handle_inner(&self, packet: &[u8]) -> bool {
        if packet.len() > usize::from(u16::MAX) {
            return false;
        }
        // Always the same worker, so that the order stays.
        let packet = [&VnetHeader::default().to_bytes(), packet].concat();
        self.mailboxes[0].put_packet(Command::Inner(packet.into()))
    }

    /// What a pair has carried.
    #[must_use]
    pub fn pair_counters(&self, spi_in: Spi) -> Option<PairCounters> {
        self.pairs().by_spi.get(&spi_in).map(Registered::counters)
    }

    /// How many packets were dropped for each reason.
    #[must_use]
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let mut sums: Vec<(DropReason, u64)> = DropReason::all().map(|reason| (reason, 0)).collect();
        for worker in &self.counters {
            for (sum, (_, count)) in sums.iter_mut().zip(worker.drops()) {
                sum.1 += count;
            }
        }
        sums
    }

    /// The workers' signs of life: one is well if it is idle or its turns rise.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        self.counters.iter().map(|worker| worker.heartbeat()).collect()
    }

    fn pairs(&self) -> MutexGuard<'_, Pairs> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for mailbox in self.mailboxes.iter() {
            mailbox.put(command());
        }
    }

    /// Tells all workers, each of which answers.
    fn order<T>(&self, command: impl Fn(mpsc::Sender<T>) -> Command) -> mpsc::Receiver<T> {
        let (reply, replies) = mpsc::channel();
        self.tell(|| command(reply.clone()));
        replies
    }

    fn await_all<T>(&self, replies: &mpsc::Receiver<T>) -> anyhow::Result<Vec<T>> {
        let answer = || replies.recv_timeout(STOP_MAX).context("a worker thread does not answer");
        self.mailboxes.iter().map(|_| answer()).collect()
    }
}

impl Pairs {
    fn of(&self, set: WorkSet) -> Vec<(Spi, Registered)> {
        let pairs = self.by_spi.iter().filter(|(spi_in, _)| spi_in.work_set() == set);
        pairs.map(|(spi_in, registered)| (*spi_in, registered.clone())).collect()
    }

    fn remove(&mut self, spi_in: Spi) {
        self.by_spi.remove(&spi_in);
        for heir in self.by_spi.values().filter(|registered| registered.replaces == Some(spi_in)) {
            heir.pair.sending.store(true, Relaxed);
        }
    }
}

impl Registered {
    fn counters(&self) -> PairCounters {
        let (packets_out, bytes_out) = self.outbound.counters();
        let (packets_in, bytes_in) = (self.pair.packets_in.load(Relaxed), self.pair.bytes_in.load(Relaxed));
        PairCounters { packets_in, bytes_in, packets_out, bytes_out }
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.tell(|| Command::Shutdown);
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::{Secret, TrafficSelector};

    use super::*;

    /// A pair of AES-128-GCM SAs between 10.9.0.0/16 here and 10.8.0.0/16 there.
    pub(super) fn initial(spi_in: u32, spi_out: u32) -> Initial {
        Initial {
            session: 1,
            spi_in: Spi(spi_in),
            spi_out: Spi(spi_out),
            encryption: 20,
            key_bits: 128,
            integrity: None,
            key_in: Secret::new(vec![1; 20]),
            key_out: Secret::new(vec![2; 20]),
            integrity_key_in: Secret::default(),
            integrity_key_out: Secret::default(),
            local: vec![TrafficSelector::from_prefix("10.9.0.0/16".parse().unwrap())],
            remote: vec![TrafficSelector::from_prefix("10.8.0.0/16".parse().unwrap())],
            birth_count: 0,
            replaces: None,
            opened_by_peer: false,
            path_local: "192.0.2.1:4500".parse().unwrap(),
            path_remote: "192.0.2.2:4500".parse().unwrap(),
            unknown: UnknownFields::default(),
        }
    }
}
