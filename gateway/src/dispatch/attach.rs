//! Attaching the program: how, where it is pinned, and how a later process takes the links over.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{TcAttachOptions, TcAttachType};
use aya::programs::xdp::XdpMode;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError};
use cluster::dispatch::Side;
use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount};

use super::DispatchError;
use super::error::errno;
use super::filter;
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

/// What keeps the program in tc, also while no process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// A pinned TCX link: Linux 6.6.
    Tcx,
    /// A cls_bpf filter on the clsact qdisc.
    Clsact,
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
    /// What keeps it in tc.
    pub keeper: Keeper,
    /// Why there, and why so.
    pub why: String,
    /// Whether what an earlier process left was taken over, so that no frame passed unfiltered.
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

    /// Removes every pin that is not in `kept`; a link or filter that goes so is detached.
    pub(super) fn keep_only(&self, kept: &[String]) -> Result<(), DispatchError> {
        let failed = |error: io::Error| DispatchError::system(format!("clean {}", self.path.display()), error);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if kept.iter().all(|kept| *kept != *name) && !filter::detach(&self.path, &name)? {
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
    keeper: Option<Keeper>,
) -> Result<(Attached, Vec<String>), DispatchError> {
    let programs = Programs::of(side);
    let (keeper, keeper_why) = match keeper {
        Some(keeper) => (keeper, "as node.toml says"),
        None if knows_tcx(interface) => (Keeper::Tcx, "this kernel has them"),
        None => (Keeper::Clsact, "this kernel has no TCX links"),
    };
    // By number, since a name may hold dots, which that file system does not allow.
    let pin = |what: &str| format!("{}-{what}-{}", programs.side, interface.index);
    let mut kept = Vec::new();
    let mut to_tc = |object: &mut Ebpf, name, what, direction| -> Result<bool, DispatchError> {
        let program = tc(object, name)?;
        let (taken_over, name) = match keeper {
            Keeper::Tcx => (attach_link(program, &pins.path.join(pin(what)), interface, direction)?, pin(what)),
            Keeper::Clsact => filter::attach(program, &pins.path, interface, direction)?,
        };
        kept.push(name);
        Ok(taken_over)
    };
    // The way out first: nothing may leave for the cluster before the fence stands.
    let way_out = to_tc(object, programs.tc_out, "out", TcAttachType::Egress)?;
    let (mut hook, mut why) = choose(interface);
    let mut xdp_pin = None;
    if hook == Hook::Xdp {
        match attach_xdp(object, programs.xdp, pins, &pin("xdp"), interface)? {
            Ok(()) => xdp_pin = Some(pin("xdp")),
            Err(refusal) => {
                why = format!("{why}, but the driver refused native XDP ({refusal})");
                hook = Hook::Tc;
            }
        }
    }
    let (name, what) = match hook {
        Hook::Tc => (programs.tc_in, "in"),
        Hook::Xdp => (programs.accept, "accept"),
    };
    let way_in = to_tc(object, name, what, TcAttachType::Ingress)?;
    kept.extend(xdp_pin);
    let how = match keeper {
        Keeper::Tcx => "TCX links",
        Keeper::Clsact => "clsact filters",
    };
    let why = format!("{why}; kept in tc by {how}: {keeper_why}");
    let taken_over = way_out && way_in;
    Ok((Attached { interface: interface.name.clone(), side, hook, keeper, why, taken_over }, kept))
}

/// Asks the kernel itself: what it can do does not follow from its version alone.
fn knows_tcx(interface: &Interface) -> bool {
    match SchedClassifier::query_tcx(&interface.name, TcAttachType::Ingress).map_err(EbpfError::ProgramError) {
        Ok(_) => true,
        // An unknown kind of attachment. Whatever else speaks against links is told when one is made.
        Err(error) => errno(&error) != Some(libc::EINVAL),
    }
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
fn attach_link(
    program: &mut SchedClassifier,
    path: &Path,
    interface: &Interface,
    direction: TcAttachType,
) -> Result<bool, DispatchError> {
    let what = || format!("attach the dispatch program to {}", interface.name);
    if let Some(old) = pinned(path)? {
        let replaced = old.try_into().map(|link| program.attach_to_link(link));
        match replaced {
            Ok(Ok(_)) => return Ok(true),
            // The link outlived its interface, or is none of ours.
            Ok(Err(_)) | Err(_) => remove_pin(path)?,
        }
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&interface.name, direction, options).map_err(|error| {
        let error = EbpfError::ProgramError(error);
        if errno(&error) == Some(libc::EINVAL) { DispatchError::NoTcx } else { DispatchError::bpf(what(), error) }
    })?;
    let link = program.take_link(id).map_err(|error| DispatchError::bpf(what(), error))?;
    let link = FdLink::try_from(link).map_err(|error| DispatchError::link(what(), error))?;
    link.pin(path).map_err(|error| DispatchError::system(what(), io::Error::other(error)))?;
    Ok(false)
}

/// As [`attach_link`], for XDP; the inner error is the driver's refusal.
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
