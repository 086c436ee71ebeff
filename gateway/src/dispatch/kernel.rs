//! The loaded program and its maps, attached or not.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use aya::programs::{Program, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfError};
use cluster::dispatch::{Inner, InnerTable, Reason, Tables};
use wire::{Prefix, WorkSet};

use super::DispatchError;
use super::state::{MappedState, network_order};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dispatch.bpf.o"));

/// Frames counted, by reason.
pub type Counters = BTreeMap<Reason, u64>;

/// A program of the object that can be run by hand on a frame; those that are attached among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What tc runs for a frame that comes in on the outside.
    TcInOutside,
    /// What tc runs for a frame that comes in on the inside.
    TcInInside,
    /// What XDP runs for a frame that comes in on the outside.
    XdpOutside,
    /// What XDP runs for a frame that comes in on the inside.
    XdpInside,
    /// What tc runs for a frame that leaves on the outside.
    TcOutOutside,
    /// Returns the verdict on a frame that comes in on the outside, and does nothing.
    ExplainInOutside,
    /// Returns the verdict on a frame that comes in on the inside, and does nothing.
    ExplainInInside,
    /// Returns the verdict on a frame of the node's own that leaves on the outside, and does nothing.
    ExplainOutLocal,
    /// Returns the verdict on a forwarded frame that leaves on the outside, and does nothing.
    ExplainOutForwarded,
    /// Does nothing, in tc.
    EmptyTc,
    /// Does nothing, in XDP.
    EmptyXdp,
}

/// What running a program by hand gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// What the program returned.
    pub value: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// Time of one run.
    pub duration: Duration,
}

/// The loaded object: nothing is attached by loading it.
pub(super) struct Kernel {
    pub(super) state: Arc<MappedState>,
    object: Mutex<Ebpf>,
    inner: Mutex<InnerMaps>,
    counters: PerCpuArray<MapData, u64>,
    /// The programs that are still to be loaded name it by its descriptor.
    _state: Map,
    /// All maps by name, to be pinned.
    maps: Vec<(&'static str, MapData)>,
}

/// The twin's tables, and the same in the kernel.
struct InnerMaps {
    tables: Tables,
    hosts: HashMap<MapData, u32, InnerValue>,
    prefixes: HashMap<MapData, [u32; 2], InnerValue>,
    /// For each /16 and length, how many inner prefixes touch it.
    touched: BTreeMap<(u16, u8), u32>,
}

/// `struct inner` of `cluster/bpf/dispatch.h`: work set and flags.
type InnerValue = [u16; 2];

impl Kernel {
    /// Loads the object with maps of its own, that hold what `tables` says.
    pub(super) fn load(tables: Tables) -> Result<Self, DispatchError> {
        if tables.addresses.len() > Tables::ADDRESSES_MAX {
            let (count, max) = (tables.addresses.len(), Tables::ADDRESSES_MAX);
            return Err(DispatchError::TooManyAddresses { count, max });
        }
        let mut object = Ebpf::load(OBJECT).map_err(|error| DispatchError::bpf("load the dispatch program", error))?;
        let bpf = |error: MapError| DispatchError::bpf("open the dispatch maps", error);
        let mut maps = Vec::new();
        for name in ["state", "hosts", "prefixes", "counters"] {
            let fd = fd_of(object.map(name).ok_or(DispatchError::Incomplete { name })?);
            let fd = fd.ok_or(DispatchError::Incomplete { name })?.try_clone_to_owned();
            let fd = fd.map_err(|error| DispatchError::system("open the dispatch maps", error))?;
            maps.push((name, MapData::from_fd(fd).map_err(bpf)?));
        }
        let state_map = take(&mut object, "state")?;
        let state = MappedState::new(fd_of(&state_map).ok_or(DispatchError::Incomplete { name: "state" })?)
            .map_err(|error| DispatchError::system("map the dispatch state into memory", error))?;
        let hosts = HashMap::try_from(take(&mut object, "hosts")?).map_err(bpf)?;
        let prefixes = HashMap::try_from(take(&mut object, "prefixes")?).map_err(bpf)?;
        let counters = PerCpuArray::try_from(take(&mut object, "counters")?).map_err(bpf)?;
        state.configure(&tables);
        let prefixes_known: Vec<(Prefix, Inner)> = tables.inner.iter().collect();
        let inner = InnerMaps { tables, hosts, prefixes, touched: BTreeMap::new() };
        let kernel = Self {
            state: Arc::new(state),
            object: Mutex::new(object),
            inner: Mutex::new(inner),
            counters,
            _state: state_map,
            maps,
        };
        for (prefix, inner) in prefixes_known {
            kernel.lock().write(&kernel.state, prefix, None, Some(inner))?;
        }
        Ok(kernel)
    }

    /// The twin's tables as they are now. Owners and lease are read back: the thread that writes them never waits.
    pub(super) fn tables<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        let mut maps = self.lock();
        for set in WorkSet::all() {
            maps.tables.set_owner(set, self.state.owner(set));
        }
        maps.tables.lease_until = self.state.lease();
        read(&maps.tables)
    }

    /// Changes what the twin knows, of what `state` holds; the caller writes there itself.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        change(&mut self.lock().tables)
    }

    /// Sets or clears the home of an inner prefix.
    pub(super) fn set_home(&self, prefix: Prefix, home: Option<WorkSet>) -> Result<(), DispatchError> {
        self.update(prefix, |table| table.set_home(prefix, home))
    }

    /// Marks a prefix as protected or not.
    pub(super) fn set_protected(&self, prefix: Prefix, protected: bool) -> Result<(), DispatchError> {
        self.update(prefix, |table| table.set_protected(prefix, protected))
    }

    fn update(
        &self,
        prefix: Prefix,
        change: impl FnOnce(&mut InnerTable) -> Option<Inner>,
    ) -> Result<(), DispatchError> {
        let mut maps = self.lock();
        let before = maps.tables.inner.exact(prefix);
        let after = change(&mut maps.tables.inner);
        maps.write(&self.state, prefix, before, after)
    }

    pub(super) fn counters(&self) -> Result<Counters, DispatchError> {
        let read = |reason: &Reason| {
            let values = self.counters.get(&u32::from(reason.code()), 0)?;
            Ok((*reason, values.iter().sum()))
        };
        let counters: Result<_, MapError> = Reason::ALL.iter().map(read).collect();
        counters.map_err(|error| DispatchError::bpf("read the dispatch counters", error))
    }

    /// Pins the maps, so that others can look at them.
    pub(super) fn pin_maps(&self, directory: &Path) -> Result<(), DispatchError> {
        for (name, map) in &self.maps {
            map.pin(directory.join(name))
                .map_err(|error| DispatchError::system("pin the dispatch maps", io::Error::other(error)))?;
        }
        Ok(())
    }

    /// Runs `entry` on `frame`, `repeat` times over.
    pub(super) fn rehearse(&self, entry: Entry, frame: &[u8], repeat: u32) -> Result<Rehearsal, DispatchError> {
        let mut out = vec![0; frame.len().max(64) + 64];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), repeat, ..TestRunOptions::new() };
        let failed = |error| DispatchError::bpf("run the dispatch program by hand", EbpfError::ProgramError(error));
        let mut object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        let result = if entry.is_xdp() {
            xdp(&mut object, entry.name())?.test_run(options)
        } else {
            tc(&mut object, entry.name())?.test_run(options)
        };
        let result = result.map_err(failed)?;
        out.truncate(usize::try_from(result.data_size_out).unwrap_or(usize::MAX));
        Ok(Rehearsal { value: result.return_value, frame: out, duration: result.duration })
    }

    /// Hands the object to what attaches it.
    pub(super) fn object(&self) -> MutexGuard<'_, Ebpf> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, InnerMaps> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InnerMaps {
    /// Makes the kernel know of `prefix` what the twin already knows.
    fn write(
        &mut self,
        state: &MappedState,
        prefix: Prefix,
        before: Option<Inner>,
        after: Option<Inner>,
    ) -> Result<(), DispatchError> {
        let IpAddr::V4(address) = prefix.address() else {
            return Ok(());
        };
        if before.is_none() && after.is_some() {
            self.touch(state, address, prefix.len());
        }
        let length = prefix.len();
        let written = match after {
            Some(inner) if length == 32 => self.hosts.insert(network_order(address), value_of(inner), 0),
            Some(inner) => self.prefixes.insert(key_of(address, length), value_of(inner), 0),
            None if before.is_none() => Ok(()),
            None if length == 32 => self.hosts.remove(&network_order(address)),
            None => self.prefixes.remove(&key_of(address, length)),
        };
        if before.is_some() && after.is_none() {
            self.leave(state, address, length);
        }
        written.map_err(|error| DispatchError::bpf(format!("write {prefix} to the dispatch table"), error))
    }

    fn touch(&mut self, state: &MappedState, address: Ipv4Addr, length: u8) {
        for top in tops(address, length) {
            *self.touched.entry((top, length)).or_default() += 1;
            state.set_coarse(top, length, true);
        }
    }

    fn leave(&mut self, state: &MappedState, address: Ipv4Addr, length: u8) {
        for top in tops(address, length) {
            let Some(count) = self.touched.get_mut(&(top, length)) else { continue };
            *count -= 1;
            if *count == 0 {
                self.touched.remove(&(top, length));
                state.set_coarse(top, length, false);
            }
        }
    }
}

impl Entry {
    const fn name(self) -> &'static str {
        match self {
            Self::TcInOutside => "in_outside",
            Self::TcInInside => "in_inside",
            Self::XdpOutside => "xdp_outside",
            Self::XdpInside => "xdp_inside",
            Self::TcOutOutside => "out_outside",
            Self::ExplainInOutside => "explain_in_outside",
            Self::ExplainInInside => "explain_in_inside",
            Self::ExplainOutLocal => "explain_out_local",
            Self::ExplainOutForwarded => "explain_out_forwarded",
            Self::EmptyTc => "empty",
            Self::EmptyXdp => "empty_xdp",
        }
    }

    const fn is_xdp(self) -> bool {
        match self {
            Self::TcInOutside | Self::TcInInside | Self::TcOutOutside | Self::EmptyTc => false,
            Self::XdpOutside
            | Self::XdpInside
            | Self::ExplainInOutside
            | Self::ExplainInInside
            | Self::ExplainOutLocal
            | Self::ExplainOutForwarded
            | Self::EmptyXdp => true,
        }
    }
}

/// The tc program of that name, loaded.
pub(super) fn tc<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, DispatchError> {
    let Some(Program::SchedClassifier(program)) = object.program_mut(name) else {
        return Err(DispatchError::Incomplete { name });
    };
    if program.fd().is_err() {
        program.load().map_err(|error| DispatchError::bpf(format!("load the dispatch program {name}"), error))?;
    }
    Ok(program)
}

/// The XDP program of that name, loaded.
pub(super) fn xdp<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DispatchError> {
    let Some(Program::Xdp(program)) = object.program_mut(name) else {
        return Err(DispatchError::Incomplete { name });
    };
    if program.fd().is_err() {
        program.load().map_err(|error| DispatchError::bpf(format!("load the dispatch program {name}"), error))?;
    }
    Ok(program)
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, DispatchError> {
    object.take_map(name).ok_or(DispatchError::Incomplete { name })
}

/// The descriptor of a map of one of our kinds.
fn fd_of(map: &Map) -> Option<BorrowedFd<'_>> {
    if let Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) = map {
        Some(data.fd().as_fd())
    } else {
        None
    }
}

/// `struct prefix_key` of `cluster/bpf/dispatch.h`.
fn key_of(address: Ipv4Addr, length: u8) -> [u32; 2] {
    [u32::from(length), network_order(address)]
}

fn value_of(inner: Inner) -> InnerValue {
    let flag = |on: bool, bit: u16| if on { bit } else { 0 };
    let flags = flag(inner.set.is_some(), 1) | flag(inner.protected, 2) | flag(inner.default, 4);
    [inner.set.map_or(0, WorkSet::index), flags]
}

/// The upper halves of the addresses in a prefix.
fn tops(address: Ipv4Addr, length: u8) -> impl Iterator<Item = u16> {
    let [a, b, ..] = address.octets();
    let first = u16::from_be_bytes([a, b]);
    let rest = u16::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    first..=(first | rest)
}
