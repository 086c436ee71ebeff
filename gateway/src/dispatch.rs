//! Packet dispatch in the kernel: loads the BPF program of `cluster/bpf`, pins and attaches it, and keeps its tables.
//!
//! What the program decides is told in [`cluster::dispatch`], its twin. This module adds what only a node has:
//!
//! * **It outlives the process.** TCX links are pinned in a BPF file system; a kernel without them, before Linux 6.6, keeps
//!   the program in a clsact filter instead. A killed process leaves the filter and the fence behind, and its lease runs
//!   out. The next start loads a new program with empty tables and no lease, and puts it into the same links or filters,
//!   each in one step: at no moment does a frame pass unfiltered.
//! * **No change costs a system call**, inner prefixes apart: owners, ports and the lease lie in memory that the kernel
//!   shares, so that the real-time thread can write them ([`Fence`]).
//! * **The kernel does not speak for the cluster by itself**: on the attached interfaces, [`Dispatch::attach`] sets
//!   `arp_ignore` = 1, `arp_announce` = 2, `send_redirects` = 0 (also for `all`) and `accept_redirects` = 0, and
//!   switches `ip_forward` on. The cluster addresses belong on `lo`, as /32, after `attach` has returned; they are taken
//!   away before [`Dispatch::detach`].
//!
//! What a node sends to a cluster address itself never reaches an interface: its own kernel delivers it. The receiving
//! engine finds the owner with [`Dispatch::tables`] and hands it on.

mod attach;
mod error;
mod filter;
mod interface;
mod kernel;
mod state;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use cluster::dispatch::{
    ClusterAddress, HashKey, Owner, PortUse, Protocols, Side, SideConfig, Subnet, Tables, Verdict,
};
use rustix::time::{ClockId, clock_gettime};
use wire::{Prefix, Time, WorkSet};

pub use attach::{Attached, Hook, Keeper};
pub use error::DispatchError;
pub use kernel::{Counters, Entry, Rehearsal};

use attach::PinDirectory;
use interface::Interface;
use kernel::Kernel;
use state::MappedState;

/// What must be known to attach.
#[derive(Clone)]
pub struct DispatchConfig {
    /// Where links and maps are pinned, for one by `/sys/fs/bpf/cryptocluster/CLUSTER/NODE`; one per node.
    pub directory: PathBuf,
    /// The cluster's dispatch key.
    pub key: HashKey,
    /// The cluster's addresses on both sides.
    pub addresses: Vec<ClusterAddress>,
    /// The interface towards clients and branches.
    pub outside: InterfaceConfig,
    /// The interface towards the protected network, if it is another.
    pub inside: Option<InterfaceConfig>,
    /// What keeps the program in tc; `None` for what this kernel does best.
    pub keeper: Option<Keeper>,
}

/// One interface of a [`DispatchConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// The kernel's name for it.
    pub name: String,
    /// The MAC address that all nodes share there; see [`cluster_mac`].
    pub cluster_mac: [u8; 6],
    /// The subnet there: hosts in it find inner addresses of that subnet by ARP.
    pub subnet: Option<Subnet>,
    /// Whether packets for inner addresses may come from there in the clear: from the inside, they do.
    pub carries_inner: bool,
}

/// The program in the kernel, attached to this node's interfaces.
///
/// Dropping it leaves all that is pinned in place, as a crash would.
pub struct Dispatch {
    kernel: Kernel,
    attached: Vec<Attached>,
    pins: Option<PinDirectory>,
    /// While these are open, the interfaces accept frames for the cluster's MAC address.
    _memberships: Vec<OwnedFd>,
}

/// Writes what the real-time thread decides, the lease and the owners: each change is one store to memory, nothing
/// waits, and nothing is refused.
#[derive(Clone)]
pub struct Fence {
    state: Arc<MappedState>,
}

impl Fence {
    /// Says until when this node may take, answer and send for the cluster, on the clock of [`boot_time`].
    pub fn set_lease(&self, until: Time) {
        self.state.set_lease(until);
    }

    /// Says who has a work set.
    pub fn set_owner(&self, set: WorkSet, owner: Owner) {
        self.state.set_owner(set, owner);
    }
}

impl Dispatch {
    /// Loads the program and attaches it, without a lease, an owner or a port: nothing passes for the cluster yet.
    ///
    /// Links and filters that an earlier process left are taken over.
    ///
    /// # Errors
    /// The text of each [`DispatchError`] says what is missing and what to do.
    pub fn attach(config: &DispatchConfig) -> Result<Self, DispatchError> {
        let interfaces = [Some((Side::Outside, &config.outside)), config.inside.as_ref().map(|i| (Side::Inside, i))];
        let mut tables = Tables::new(config.key.clone());
        tables.addresses.clone_from(&config.addresses);
        let mut opened = Vec::new();
        for (side, wanted) in interfaces.into_iter().flatten() {
            let interface = Interface::open(&wanted.name)?;
            let known = match side {
                Side::Outside => &mut tables.outside,
                Side::Inside => &mut tables.inside,
            };
            *known = SideConfig {
                cluster_mac: wanted.cluster_mac,
                node_mac: interface.mac,
                subnet: wanted.subnet,
                carries_inner: wanted.carries_inner,
            };
            opened.push((side, wanted, interface));
        }
        let kernel = Kernel::load(tables)?;
        let pins = PinDirectory::open(&config.directory)?;
        let (mut attached, mut kept, mut memberships) = (Vec::new(), Vec::new(), Vec::new());
        for (side, wanted, interface) in &opened {
            interface.configure()?;
            let (what, names) = attach::attach(&mut kernel.object(), &pins, *side, interface, config.keeper)?;
            let hook = match what.hook {
                Hook::Tc => "tc",
                Hook::Xdp => "native XDP",
            };
            tracing::info!(
                interface = wanted.name,
                hook,
                taken_over = what.taken_over,
                "filter attached: {}",
                what.why
            );
            memberships.push(interface.listen_to(wanted.cluster_mac)?);
            attached.push(what);
            kept.extend(names);
        }
        pins.keep_only(&kept)?;
        kernel.pin_maps(&pins.path)?;
        Ok(Self { kernel, attached, pins: Some(pins), _memberships: memberships })
    }

    /// Loads the program with what `tables` says and attaches it to nothing: for [`Dispatch::rehearse`].
    ///
    /// # Errors
    /// As for [`Dispatch::attach`], as far as no interface is concerned.
    pub fn unattached(tables: Tables) -> Result<Self, DispatchError> {
        let kernel = Kernel::load(tables)?;
        Ok(Self { kernel, attached: Vec::new(), pins: None, _memberships: Vec::new() })
    }

    /// Leaves the interfaces, so that the kernel alone decides about what they receive.
    ///
    /// # Errors
    /// A pin could not be removed.
    pub fn detach(self) -> Result<(), DispatchError> {
        self.pins.map_or(Ok(()), PinDirectory::remove)
    }

    /// What was attached where, and why.
    #[must_use]
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// The handle that the real-time thread writes lease and owners with.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence { state: Arc::clone(&self.kernel.state) }
    }

    /// Says in which work set an inner prefix lives. The SA that carries it must be installed before.
    ///
    /// # Errors
    /// The kernel's table is full.
    pub fn put_inner(&self, prefix: Prefix, home: WorkSet) -> Result<(), DispatchError> {
        self.kernel.set_home(prefix, Some(home))
    }

    /// Forgets where an inner prefix lives. If it is protected, or lies in a prefix that is, nobody takes its packets.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_inner(&self, prefix: Prefix) -> Result<(), DispatchError> {
        self.kernel.set_home(prefix, None)
    }

    /// Protects a prefix: nothing for it or from it passes in the clear, also while nobody is there. Pools, and what the
    /// policies of branches name.
    ///
    /// # Errors
    /// The kernel's table is full.
    pub fn protect(&self, prefix: Prefix) -> Result<(), DispatchError> {
        self.kernel.set_protected(prefix, true)
    }

    /// Ends the protection of a prefix.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unprotect(&self, prefix: Prefix) -> Result<(), DispatchError> {
        self.kernel.set_protected(prefix, false)
    }

    /// Opens a port of the cluster addresses. The socket must be bound before.
    pub fn open_port(&self, number: u16, port_use: PortUse) {
        self.kernel.change(|tables| {
            let port = tables.port(number).with(port_use);
            tables.set_port(number, port);
            self.kernel.state.set_port(number, port.bits());
        });
    }

    /// Closes a port again, before its socket is closed.
    pub fn close_port(&self, number: u16, port_use: PortUse) {
        self.kernel.change(|tables| {
            let port = tables.port(number).without(port_use);
            tables.set_port(number, port);
            self.kernel.state.set_port(number, port.bits());
        });
    }

    /// Says which services the cluster has; every other port is closed.
    pub fn set_services(&self, services: &[(u16, PortUse)]) {
        let open: Vec<u16> = self.kernel.tables(|tables| tables.ports().map(|(number, _)| number).collect());
        for (number, port_use) in services {
            self.open_port(*number, *port_use);
        }
        self.kernel.change(|tables| {
            for number in open {
                let uses = services.iter().filter(|(service, _)| *service == number);
                let port =
                    uses.fold(Default::default(), |port: cluster::dispatch::Port, (_, port_use)| port.with(*port_use));
                tables.set_port(number, port);
                self.kernel.state.set_port(number, port.bits());
            }
        });
    }

    /// Says which IP protocols an engine of ours speaks.
    pub fn set_protocols(&self, protocols: Protocols) {
        self.kernel.change(|tables| tables.protocols = protocols);
        self.kernel.state.set_protocols(protocols);
    }

    /// How many frames met which verdict since the program was loaded.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counters(&self) -> Result<Counters, DispatchError> {
        self.kernel.counters()
    }

    /// Lets `read` see the twin's tables as they are now.
    pub fn tables<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        self.kernel.tables(read)
    }

    /// Says what the kernel's program itself makes of a frame that comes in.
    ///
    /// # Errors
    /// The frame is shorter than an Ethernet header, or the kernel refuses.
    pub fn explain(&self, side: Side, frame: &[u8]) -> Result<Verdict, DispatchError> {
        let entry = match side {
            Side::Outside => Entry::ExplainInOutside,
            Side::Inside => Entry::ExplainInInside,
        };
        let value = self.rehearse(entry, frame, 1)?.value;
        Verdict::from_bits(value).ok_or(DispatchError::Incomplete { name: "verdict" })
    }

    /// Runs one of the object's programs by hand on a frame, `repeat` times over.
    ///
    /// # Errors
    /// The frame is shorter than an Ethernet header, or the kernel refuses.
    pub fn rehearse(&self, entry: Entry, frame: &[u8], repeat: u32) -> Result<Rehearsal, DispatchError> {
        self.kernel.rehearse(entry, frame, repeat)
    }
}

/// The MAC address that the cluster has by default where `address` is its: locally administered, the same on every node.
#[must_use]
pub fn cluster_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xcc, a, b, c, d]
}

/// The clock that the lease is read against.
#[must_use]
pub fn boot_time() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
    Time { nanos: whole.saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0)) }
}
