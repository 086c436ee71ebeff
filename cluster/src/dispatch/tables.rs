//! What the rule looks things up in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use wire::{Prefix, Slot, Time, WorkSet};

use super::HashKey;

/// Which side of the cluster an interface is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Where clients and branches come from.
    Outside,
    /// The network that is protected.
    Inside,
}

/// Who has a work set, as this node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Nobody yet, or somebody that this node does not know.
    #[default]
    Nobody,
    /// Another member.
    Other(Slot),
    /// This node, under that slot.
    Myself(Slot),
    /// Another member still; this node receives too and queues, since the set moves to it.
    Queueing(Slot),
}

/// An address that the cluster as a whole has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// The side where ARP for it is answered. Packets for it are taken from both.
    pub side: Side,
}

/// An IPv4 subnet that an interface is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Any address of it.
    pub address: Ipv4Addr,
    /// The length of its prefix, 1 to 32.
    pub length: u8,
}

/// What the rule must know about one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideConfig {
    /// The MAC address that all nodes share there.
    pub cluster_mac: [u8; 6],
    /// This node's own.
    pub node_mac: [u8; 6],
    /// The subnet there, in which ARP for inner addresses is answered.
    pub subnet: Option<Subnet>,
    /// Whether packets for inner addresses may come from there in the clear.
    pub carries_inner: bool,
}

/// How a port is used, for one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortUse {
    /// A TCP service of the cluster.
    TcpService,
    /// A UDP service that knows nothing of moves: only the owner receives.
    UdpService,
    /// A UDP service whose engine queues for a set that moves to this node.
    UdpServiceQueueing,
    /// A TCP socket from which we asked somebody.
    TcpAsked,
    /// A UDP socket from which we asked somebody.
    UdpAsked,
}

/// The uses of one port, as bits of `cluster/bpf/dispatch.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port(u8);

impl Port {
    const TCP_SERVICE: u8 = 0x01;
    const UDP_SERVICE: u8 = 0x02;
    const TCP_ASKED: u8 = 0x04;
    const UDP_ASKED: u8 = 0x08;
    const UDP_QUEUES: u8 = 0x10;

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// This port with one use more.
    #[must_use]
    pub const fn with(self, port_use: PortUse) -> Self {
        Self(self.0 | Self::bits_of(port_use))
    }

    /// This port without that use.
    #[must_use]
    pub const fn without(self, port_use: PortUse) -> Self {
        Self(self.0 & !Self::bits_of(port_use))
    }

    pub(super) const fn tcp_service(self) -> bool {
        self.0 & Self::TCP_SERVICE != 0
    }

    pub(super) const fn tcp_open(self) -> bool {
        self.0 & (Self::TCP_SERVICE | Self::TCP_ASKED) != 0
    }

    pub(super) const fn udp_service(self) -> bool {
        self.0 & Self::UDP_SERVICE != 0
    }

    pub(super) const fn udp_open(self) -> bool {
        self.0 & (Self::UDP_SERVICE | Self::UDP_ASKED) != 0
    }

    pub(super) const fn udp_queues(self) -> bool {
        self.0 & Self::UDP_QUEUES != 0
    }

    const fn bits_of(port_use: PortUse) -> u8 {
        match port_use {
            PortUse::TcpService => Self::TCP_SERVICE,
            PortUse::UdpService => Self::UDP_SERVICE,
            PortUse::UdpServiceQueueing => Self::UDP_SERVICE | Self::UDP_QUEUES,
            PortUse::TcpAsked => Self::TCP_ASKED,
            PortUse::UdpAsked => Self::UDP_ASKED,
        }
    }
}

/// The IP protocols besides TCP, UDP and ICMP that an engine of ours speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// ESP (50), not in UDP.
    pub esp: bool,
    /// AH (51).
    pub ah: bool,
    /// GRE (47), as PPTP uses it.
    pub gre: bool,
}

/// What is known of an inner address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inner {
    /// The home of the SA that carries it, if there is one.
    pub set: Option<WorkSet>,
    /// Whether it must never travel in the clear, also while nobody is there.
    pub protected: bool,
    /// Whether only the prefix of length 0 matched, which says nothing about who a source is.
    pub default: bool,
}

/// Inner prefixes: those of clients and branches that are there, and those that are protected whether or not.
#[derive(Clone, Debug, Default)]
pub struct InnerTable {
    hosts: BTreeMap<u32, Inner>,
    /// By length and first address.
    prefixes: BTreeMap<(u8, u32), Inner>,
}

impl InnerTable {
    /// Says what the exact prefix holds.
    #[must_use]
    pub fn exact(&self, prefix: Prefix) -> Option<Inner> {
        let (length, address) = v4_key(prefix)?;
        if length == 32 { self.hosts.get(&address).copied() } else { self.prefixes.get(&(length, address)).copied() }
    }

    /// Sets or clears the home of a prefix; returns what the exact prefix now holds, `None` if it went.
    pub fn set_home(&mut self, prefix: Prefix, home: Option<WorkSet>) -> Option<Inner> {
        self.update(prefix, |inner| inner.set = home)
    }

    /// Marks a prefix as protected or not; returns what the exact prefix now holds, `None` if it went.
    pub fn set_protected(&mut self, prefix: Prefix, protected: bool) -> Option<Inner> {
        self.update(prefix, |inner| inner.protected = protected)
    }

    /// Every prefix with what it holds.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Inner)> {
        let hosts = self.hosts.iter().map(|(address, inner)| ((32, *address), *inner));
        let all = self.prefixes.iter().map(|(key, inner)| (*key, *inner)).chain(hosts);
        all.filter_map(|((length, address), inner)| {
            Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(address)), length).map(|prefix| (prefix, inner))
        })
    }

    /// Looks up the longest prefix that holds `address`.
    #[must_use]
    pub fn lookup(&self, address: Ipv4Addr) -> Option<Inner> {
        let bits = address.to_bits();
        if let Some(host) = self.hosts.get(&bits) {
            return Some(*host);
        }
        (0..32_u8).rev().find_map(|length| self.prefixes.get(&(length, bits & mask(length))).copied())
    }

    fn update(&mut self, prefix: Prefix, change: impl FnOnce(&mut Inner)) -> Option<Inner> {
        let (length, address) = v4_key(prefix)?;
        let mut inner = self.exact(prefix).unwrap_or_default();
        change(&mut inner);
        inner.default = length == 0;
        let kept = (inner.set.is_some() || inner.protected).then_some(inner);
        match (length, kept) {
            (32, Some(inner)) => self.hosts.insert(address, inner),
            (32, None) => self.hosts.remove(&address),
            (_, Some(inner)) => self.prefixes.insert((length, address), inner),
            (_, None) => self.prefixes.remove(&(length, address)),
        };
        kept
    }
}

/// All that a verdict depends on, besides the frame.
#[derive(Clone)]
pub struct Tables {
    /// The cluster's dispatch key.
    pub key: HashKey,
    /// The cluster's addresses, [`Tables::ADDRESSES_MAX`] at most.
    pub addresses: Vec<ClusterAddress>,
    /// The outside.
    pub outside: SideConfig,
    /// The inside.
    pub inside: SideConfig,
    /// Protocols that an engine of ours speaks.
    pub protocols: Protocols,
    /// When the lease ends, on the boot-time clock.
    pub lease_until: Time,
    /// Inner prefixes.
    pub inner: InnerTable,
    owners: Box<[Owner]>,
    ports: BTreeMap<u16, Port>,
}

impl Tables {
    /// Cluster addresses that the BPF program has room for.
    pub const ADDRESSES_MAX: usize = 4;

    /// Starts with nothing but a key: no address, no lease, no owner.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self {
            key,
            addresses: Vec::new(),
            outside: SideConfig::default(),
            inside: SideConfig::default(),
            protocols: Protocols::default(),
            lease_until: Time::ZERO,
            inner: InnerTable::default(),
            owners: vec![Owner::Nobody; WorkSet::COUNT].into_boxed_slice(),
            ports: BTreeMap::new(),
        }
    }

    /// What is known of a side.
    #[must_use]
    pub const fn side(&self, side: Side) -> &SideConfig {
        match side {
            Side::Outside => &self.outside,
            Side::Inside => &self.inside,
        }
    }

    /// Who has `set`.
    #[must_use]
    pub fn owner(&self, set: WorkSet) -> Owner {
        self.owners.get(usize::from(set.index())).copied().unwrap_or_default()
    }

    /// Says who has `set`.
    pub fn set_owner(&mut self, set: WorkSet, owner: Owner) {
        if let Some(entry) = self.owners.get_mut(usize::from(set.index())) {
            *entry = owner;
        }
    }

    /// The uses of a port.
    #[must_use]
    pub fn port(&self, number: u16) -> Port {
        self.ports.get(&number).copied().unwrap_or_default()
    }

    /// Sets the uses of a port.
    pub fn set_port(&mut self, number: u16, port: Port) {
        if port == Port::default() {
            self.ports.remove(&number);
        } else {
            self.ports.insert(number, port);
        }
    }

    /// Every port with a use.
    pub fn ports(&self) -> impl Iterator<Item = (u16, Port)> {
        self.ports.iter().map(|(number, port)| (*number, *port))
    }

    /// Whether `address` is one of the cluster's.
    #[must_use]
    pub fn is_cluster_address(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|a| a.address == address)
    }

    pub(super) fn is_inner_source(&self, address: Ipv4Addr) -> bool {
        self.inner.lookup(address).is_some_and(|inner| !inner.default)
    }
}

impl Subnet {
    /// Whether `address` lies in the subnet.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = mask(self.length);
        address.to_bits() & mask == self.address.to_bits() & mask
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shr(u32::from(length)).map_or(u32::MAX, |host| !host)
}

fn v4_key(prefix: Prefix) -> Option<(u8, u32)> {
    match prefix.address() {
        IpAddr::V4(address) => Some((prefix.len(), address.to_bits())),
        IpAddr::V6(_) => None,
    }
}
