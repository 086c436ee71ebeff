//! Attaching the program: how, where it is pinned, and how a later process takes the links over.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{TcAttachOptions, TcAttachType};
use aya::programs::xdp::XdpMode;
use aya::programs::{LinkOrder, ProgramError};
use aya::{Ebpf, EbpfError};
use cluster::dispatch::Side;
use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount};

use super::DispatchError;
use super::error::errno;
use super::interface::Interface;
use super::kernel::{tc, xdp};

/// Where in the kernel the filter sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// tc ingress.
    Tc,
    /// Native XDP, in the driver.
    Xdp,
}

/// What was attached to one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// Its side.
    pub side: Side,
    /// Where the filter sits.
    pub hook: Hook,
    /// Why there.
    pub why: String,
    /// Whether links of an earlier process were taken over, so that no frame passed unfiltered.
    pub taken_over: bool,
}

/// The directory in a BPF file system that holds one node's links and maps, locked for this process.
pub(super) struct PinDirectory {
    pub(super) path: PathBuf,
    _lock: File,
}

impl PinDirectory {
    /// Creates and locks the directory; mounts a BPF file system at `/sys/fs/bpf` if it is to lie there and none is.
    pub(super) fn open(path: &Path) -> Result<Self, DispatchError> {
        let existing = path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"));
        let no_bpffs = |mount: &Path, source: io::Error| DispatchError::NoBpffs {
            path: path.to_owned(),
            mount: mount.to_owned(),
            source,
        };
        let kind = statfs(existing).map_err(|error| no_bpffs(existing, error.into()))?.f_type;
        if kind != BPF_FS_MAGIC {
            if !path.starts_with(BPF_FS) {
                return Err(no_bpffs(existing, io::Error::other("that is another file system")));
            }
            mount_bpffs().map_err(|source| no_bpffs(Path::new(BPF_FS), source))?;
        }
        let failed = |error: io::Error| DispatchError::system(format!("create {}", path.display()), error);
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::open(path).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| DispatchError::InUse { path: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Removes every pin that is not in `kept`; a link that goes so is detached.
    pub(super) fn keep_only(&self, kept: &[String]) -> Result<(), DispatchError> {
        let failed = |error: io::Error| DispatchError::system(format!("clean {}", self.path.display()), error);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !kept.iter().any(|name| entry.file_name() == name.as_str()) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Removes all pins and the directory.
    pub(super) fn remove(self) -> Result<(), DispatchError> {
        self.keep_only(&[])?;
        fs::remove_dir(&self.path)
            .map_err(|error| DispatchError::system(format!("remove {}", self.path.display()), error))
    }
}

/// Attaches both directions of `side` to `interface`; returns what was done and the names of the pins.
pub(super) fn attach(
    object: &mut Ebpf,
    pins: &PinDirectory,
    side: Side,
    interface: &Interface,
) -> Result<(Attached, Vec<String>), DispatchError> {
    let programs = Programs::of(side);
    // By number, since a name may hold dots, which that file system does not allow.
    let pin = |what: &str| format!("{}-{what}-{}", programs.side, interface.index);
    let (in_pin, out_pin, xdp_pin, accept_pin) = (pin("in"), pin("out"), pin("xdp"), pin("accept"));
    // The way out first: nothing may leave for the cluster before the fence stands.
    let egress = TcAttachType::Egress;
    let way_out = attach_tc(object, programs.tc_out, pins, &out_pin, interface, egress)?;
    let (hook, mut why) = choose(interface);
    let (hook, ingress_pins) = match hook {
        Hook::Tc => (Hook::Tc, vec![in_pin.clone()]),
        Hook::Xdp => match attach_xdp(object, programs.xdp, pins, &xdp_pin, interface)? {
            Ok(()) => (Hook::Xdp, vec![xdp_pin, accept_pin.clone()]),
            Err(refusal) => {
                why = format!("{why}, but the driver refused native XDP ({refusal})");
                (Hook::Tc, vec![in_pin.clone()])
            }
        },
    };
    let ingress = TcAttachType::Ingress;
    let way_in = match hook {
        Hook::Tc => attach_tc(object, programs.tc_in, pins, &in_pin, interface, ingress)?,
        Hook::Xdp => attach_tc(object, programs.accept, pins, &accept_pin, interface, ingress)?,
    };
    let taken_over = way_out && way_in;
    let attached = Attached { interface: interface.name.clone(), side, hook, why, taken_over };
    Ok((attached, [ingress_pins, vec![out_pin]].concat()))
}

/// Native XDP drops cheapest, but cuts what arrives as one super-packet into single ones.
fn choose(interface: &Interface) -> (Hook, String) {
    let driver = if interface.driver.is_empty() { "no driver" } else { &interface.driver };
    if !interface.physical {
        (Hook::Tc, format!("{driver} is virtual and hands over GSO super-packets, which XDP would cut"))
    } else if interface.driver == "virtio_net" {
        (Hook::Tc, "virtio_net hands over the host's GSO super-packets, which XDP would cut".to_owned())
    } else {
        (Hook::Xdp, format!("{driver} is a physical interface"))
    }
}

struct Programs {
    side: &'static str,
    tc_in: &'static str,
    tc_out: &'static str,
    xdp: &'static str,
    accept: &'static str,
}

impl Programs {
    const fn of(side: Side) -> Self {
        match side {
            Side::Outside => Self {
                side: "outside",
                tc_in: "in_outside",
                tc_out: "out_outside",
                xdp: "xdp_outside",
                accept: "accept_outside",
            },
            Side::Inside => Self {
                side: "inside",
                tc_in: "in_inside",
                tc_out: "out_inside",
                xdp: "xdp_inside",
                accept: "accept_inside",
            },
        }
    }
}

/// Puts the program into the pinned link, atomically, or makes the link; says whether there was one.
fn attach_tc(
    object: &mut Ebpf,
    name: &'static str,
    pins: &PinDirectory,
    pin: &str,
    interface: &Interface,
    direction: TcAttachType,
) -> Result<bool, DispatchError> {
    let what = || format!("attach the dispatch program to {}", interface.name);
    let program = tc(object, name)?;
    let path = pins.path.join(pin);
    if let Some(old) = pinned(&path)? {
        let replaced = old.try_into().map(|link| program.attach_to_link(link));
        match replaced {
            Ok(Ok(_)) => return Ok(true),
            // The link outlived its interface, or is none of ours.
            Ok(Err(_)) | Err(_) => remove_pin(&path)?,
        }
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&interface.name, direction, options).map_err(|error| {
        let error = EbpfError::ProgramError(error);
        if errno(&error) == Some(libc::EINVAL) {
            DispatchError::KernelTooOld
        } else {
            DispatchError::bpf(what(), error)
        }
    })?;
    let link = program.take_link(id).map_err(|error| DispatchError::bpf(what(), error))?;
    let link = FdLink::try_from(link).map_err(|error| DispatchError::link(what(), error))?;
    link.pin(&path).map_err(|error| DispatchError::system(what(), io::Error::other(error)))?;
    Ok(false)
}

/// As [`attach_tc`]; the inner error is the driver's refusal.
fn attach_xdp(
    object: &mut Ebpf,
    name: &'static str,
    pins: &PinDirectory,
    pin: &str,
    interface: &Interface,
) -> Result<Result<(), ProgramError>, DispatchError> {
    let what = || format!("attach the dispatch program to {}", interface.name);
    let program = xdp(object, name)?;
    let path = pins.path.join(pin);
    if let Some(old) = pinned(&path)? {
        match old.try_into().map(|link| program.attach_to_link(link)) {
            Ok(Ok(_)) => return Ok(Ok(())),
            Ok(Err(_)) | Err(_) => remove_pin(&path)?,
        }
    }
    let id = match program.attach(&interface.name, XdpMode::Driver) {
        Ok(id) => id,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let link = program.take_link(id).map_err(|error| DispatchError::bpf(what(), error))?;
    let link = FdLink::try_from(link).map_err(|error| DispatchError::link(what(), error))?;
    link.pin(&path).map_err(|error| DispatchError::system(what(), io::Error::other(error)))?;
    Ok(Ok(()))
}

fn pinned(path: &Path) -> Result<Option<FdLink>, DispatchError> {
    if !path.exists() {
        return Ok(None);
    }
    let what = || format!("open the pinned link {}", path.display());
    PinnedLink::from_pin(path)
        .map(|link| Some(link.into()))
        .map_err(|error: LinkError| DispatchError::link(what(), error))
}

fn remove_pin(path: &Path) -> Result<(), DispatchError> {
    fs::remove_file(path).map_err(|error| DispatchError::system(format!("remove {}", path.display()), error))
}

fn mount_bpffs() -> io::Result<()> {
    let own = fs::read_link("/proc/self/ns/mnt")?;
    if fs::read_link("/proc/1/ns/mnt").is_ok_and(|first| first != own) {
        tracing::warn!(
            "a BPF file system is mounted in a mount namespace of this process's own: \
             what is pinned there ends with the namespace, and the fence with it"
        );
    }
    mount("bpf", BPF_FS, "bpf", MountFlags::empty(), Some(c"mode=0700"))?;
    Ok(())
}

const BPF_FS: &str = "/sys/fs/bpf";
/// BPF_FS_MAGIC of `linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
