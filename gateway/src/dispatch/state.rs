//! The state that the BPF program reads and this process writes, in shared memory: no change costs a system call.
#![expect(unsafe_code, reason = "maps a BPF array into memory")]

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use cluster::dispatch::{Owner, Protocols, Side, SideConfig, Tables};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use wire::{Slot, Time, WorkSet};

/// `struct state` of `cluster/bpf/dispatch.h`.
#[repr(C)]
pub(super) struct State {
    lease_until: AtomicU64,
    /// The program's own memory of the tick, and what fills the cache line.
    ticks: [AtomicU64; 7],
    hash_start: [AtomicU64; 4],
    addresses: [Address; Tables::ADDRESSES_MAX],
    sides: [SideState; 2],
    protocols: AtomicU32,
    reserved: u32,
    owners: [AtomicU32; WorkSet::COUNT],
    coarse_hosts: [AtomicU32; 2048],
    coarse_lengths: [AtomicU32; 1 << 16],
    ports: [AtomicU8; 65536],
}

#[repr(C)]
struct Address {
    address: AtomicU32,
    sides: AtomicU32,
}

#[repr(C)]
struct SideState {
    cluster_mac: [AtomicU8; 6],
    node_mac: [AtomicU8; 6],
    subnet: AtomicU32,
    subnet_mask: AtomicU32,
    carries_inner: AtomicU32,
}

const _: () = {
    assert!(size_of::<SideState>() == 24);
    assert!(std::mem::offset_of!(State, hash_start) == 64);
    assert!(std::mem::offset_of!(State, addresses) == 96);
    assert!(std::mem::offset_of!(State, sides) == 128);
    assert!(std::mem::offset_of!(State, protocols) == 176);
    assert!(std::mem::offset_of!(State, owners) == 184);
    assert!(std::mem::offset_of!(State, coarse_hosts) == 4280);
    assert!(std::mem::offset_of!(State, ports) == 274_616);
    assert!(size_of::<State>() == 340_152);
};

impl State {
    /// Says until when this node may take, answer and send for the cluster.
    pub(super) fn set_lease(&self, until: Time) {
        self.lease_until.store(until.nanos, Release);
    }

    pub(super) fn set_owner(&self, set: WorkSet, owner: Owner) {
        let bits = match owner {
            Owner::Nobody => 0,
            Owner::Other(slot) => entry(slot, OWNER_OTHER),
            Owner::Myself(slot) => entry(slot, OWNER_SELF),
            Owner::Queueing(slot) => entry(slot, OWNER_QUEUEING),
        };
        self.owners[usize::from(set.index())].store(bits, Release);
    }

    /// Reads back who has a work set.
    pub(super) fn owner(&self, set: WorkSet) -> Owner {
        let bits = self.owners[usize::from(set.index())].load(Acquire);
        let [_, _, slot, bits] = bits.to_be_bytes();
        let Some(slot) = Slot::new(slot & 0x0f) else { return Owner::Nobody };
        match bits {
            OWNER_OTHER => Owner::Other(slot),
            OWNER_SELF => Owner::Myself(slot),
            OWNER_QUEUEING => Owner::Queueing(slot),
            _ => Owner::Nobody,
        }
    }

    /// Reads back until when the lease lasts.
    pub(super) fn lease(&self) -> Time {
        Time { nanos: self.lease_until.load(Acquire) }
    }

    pub(super) fn set_port(&self, number: u16, bits: u8) {
        self.ports[usize::from(number)].store(bits, Release);
    }

    pub(super) fn set_protocols(&self, protocols: Protocols) {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let bits = bit(protocols.esp, 1) | bit(protocols.ah, 2) | bit(protocols.gre, 4);
        self.protocols.store(bits, Release);
    }

    /// Says whether any inner prefix of that length touches the /16 number `top`.
    pub(super) fn set_coarse(&self, top: u16, length: u8, touched: bool) {
        let (word, bit) = match 1_u32.checked_shl(length.into()) {
            Some(bit) => (&self.coarse_lengths[usize::from(top)], bit),
            None => (&self.coarse_hosts[usize::from(top >> 5)], 1 << (top & 31)),
        };
        if touched {
            word.fetch_or(bit, Release);
        } else {
            word.fetch_and(!bit, Release);
        }
    }

    /// Writes all that does not change while the program runs.
    pub(super) fn configure(&self, tables: &Tables) {
        for (to, word) in self.hash_start.iter().zip(tables.key.start()) {
            to.store(word, Relaxed);
        }
        // The program looks no further than the first entry of an address.
        let mut sides: BTreeMap<Ipv4Addr, u32> = BTreeMap::new();
        for address in &tables.addresses {
            *sides.entry(address.address).or_default() |= 1 << side_number(address.side);
        }
        for (to, (address, sides)) in self.addresses.iter().zip(sides) {
            to.sides.store(sides, Relaxed);
            to.address.store(network_order(address), Relaxed);
        }
        self.set_side(Side::Outside, &tables.outside);
        self.set_side(Side::Inside, &tables.inside);
        self.set_protocols(tables.protocols);
        for (number, port) in tables.ports() {
            self.set_port(number, port.bits());
        }
        for set in WorkSet::all() {
            self.set_owner(set, tables.owner(set));
        }
        self.set_lease(tables.lease_until);
    }

    fn set_side(&self, side: Side, config: &SideConfig) {
        let to = &self.sides[usize::from(side_number(side))];
        to.cluster_mac.iter().zip(config.cluster_mac).for_each(|(to, octet)| to.store(octet, Relaxed));
        to.node_mac.iter().zip(config.node_mac).for_each(|(to, octet)| to.store(octet, Relaxed));
        if let Some(subnet) = config.subnet {
            let mask = !u32::MAX.checked_shr(u32::from(subnet.length)).unwrap_or(0);
            to.subnet.store((subnet.address.to_bits() & mask).to_be(), Relaxed);
            to.subnet_mask.store(mask.to_be(), Relaxed);
        }
        to.carries_inner.store(u32::from(config.carries_inner), Relaxed);
    }
}

/// A [`State`] inside the kernel's map.
pub(super) struct MappedState {
    at: NonNull<State>,
}

// SAFETY: the memory lives until `drop`, belongs to no thread, and every field that is written is an atomic.
unsafe impl Send for MappedState {}
// SAFETY: as above.
unsafe impl Sync for MappedState {}

impl MappedState {
    /// Maps the only element of the array `map`.
    ///
    /// # Errors
    /// The kernel refuses, for one since the map is no mappable array or too small.
    pub(super) fn new(map: impl AsFd) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; the kernel checks that the array is large enough.
        let at = unsafe {
            mmap(std::ptr::null_mut(), size_of::<State>(), ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map, 0)
        }?;
        NonNull::new(at.cast()).map(|at| Self { at }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Deref for MappedState {
    type Target = State;

    fn deref(&self) -> &State {
        // SAFETY: the mapping is that large, page-aligned, lives as long as `self`, and any bits are a valid `State`.
        unsafe { self.at.as_ref() }
    }
}

impl Drop for MappedState {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody can refer to it any more.
        let unmapped = unsafe { munmap(self.at.as_ptr().cast(), size_of::<State>()) };
        debug_assert!(unmapped.is_ok());
    }
}

/// An address as the packet carries it.
pub(super) fn network_order(address: Ipv4Addr) -> u32 {
    address.to_bits().to_be()
}

const fn side_number(side: Side) -> u8 {
    match side {
        Side::Outside => 0,
        Side::Inside => 1,
    }
}

fn entry(slot: Slot, bits: u8) -> u32 {
    u32::from_be_bytes([0, 0, slot.number(), bits])
}

const OWNER_SELF: u8 = 0x01;
const OWNER_QUEUEING: u8 = 0x02;
const OWNER_OTHER: u8 = 0x04;
