//! The way of a packet through the node: TUN device, ESP, UDP sockets, one plain thread per core.
//!
//! Control talks to it through a datapath: SA pairs go in and out, leases are extended, IKE datagrams sent; what the
//! workers notice comes back as [`Event`]s. Each worker has its own tables, fed by a queue of commands that it looks at once
//! per batch, so no packet meets a lock, an allocation or a log line.
//!
//! # A planned move of a work set
//! 1. The old owner watches the set: it keeps digests of the plain packets that it processes.
//! 2. The new owner holds it, installs its pairs from the replicated records ([`esp::Start::TakeOver`])
//!    and says so: from now on packets that reach it wait in bounded queues.
//! 3. The old owner stops it: its workers empty their queues once more, then process no packet of the
//!    set, and the exact state comes back as a [`SetState`].
//! 4. The new owner installs the pairs again ([`esp::Start::HandOver`]) and starts the set: plain
//!    packets that the old one had processed leave the queue, and ESP packets that it had received are replays; the rest
//!    goes on in order.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use esp::{HandOver, Initial, Start};
use ike::Path;
use wire::{Prefix, Spi, Tenure, WorkSet};

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
    /// Where session keys are written for the lab's observer; refused without the build feature `key-log`.
    pub key_log: Option<PathBuf>,
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

/// Where a datapath tells what it noticed. Called by the workers, so it must not block.
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
    /// An SA has used half of its sequence lease, or has none: store a longer one, then extend the lease.
    LeaseLow {
        /// The pair.
        spi_in: Spi,
        /// The edge that the next lease should have.
        edge: u64,
    },
    /// The newest authenticated packet of a pair came by another way.
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

/// The exact state of a work set whose owner has stopped it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetState {
    /// Its pairs.
    pub pairs: Vec<HandOver>,
    /// Digests of the plain packets that were processed since the set was watched.
    pub digests: Vec<u64>,
}
