//! Why the dispatch program is not in place.

use std::fs;
use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::links::LinkError;
use aya::programs::{ProgramError, tc::TcError};

/// Why the dispatch program could not be loaded, attached or changed; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The kernel was built without BPF.
    #[error("this kernel has no BPF: use one with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and CONFIG_NET_CLS_ACT")]
    NoBpf,
    /// The process may not use BPF.
    #[error(
        "not permitted to use BPF: run as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW; in a container, let its seccomp profile allow bpf()"
    )]
    NotPermitted,
    /// Links were asked for, and the kernel has none.
    #[error("this kernel has no TCX links, which came with Linux 6.6: take attachment = \"tcx\" out of node.toml")]
    NoTcx,
    /// The kernel has neither TCX links nor what older ones hold a filter with.
    #[error(
        "this kernel can hold no filter on an interface: use one with CONFIG_NET_CLS_ACT, CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF (modprobe sch_ingress cls_bpf)"
    )]
    NoTrafficControl,
    /// The pin directory is not in a BPF file system, and none could be mounted.
    #[error("{path} is not in a BPF file system: mount one there (mount -t bpf bpf {mount}) or correct pin_directory")]
    NoBpffs {
        /// The directory that was asked for.
        path: PathBuf,
        /// Where one would have to be mounted.
        mount: PathBuf,
        /// What mounting it or looking at it said.
        #[source]
        source: io::Error,
    },
    /// Another process has the pin directory.
    #[error("{path} is in use: another cryptocluster runs as this node; stop it first")]
    InUse {
        /// The pin directory.
        path: PathBuf,
    },
    /// There is no such interface.
    #[error("there is no network interface {name}: correct node.toml, or create it first (see `ip link`)")]
    NoInterface {
        /// What was asked for.
        name: String,
    },
    /// More cluster addresses than the program has room for.
    #[error("the cluster has {count} addresses, but {max} at most are possible")]
    TooManyAddresses {
        /// How many were asked for.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// A setting of the kernel could not be made.
    #[error("cannot write {path}: the node needs it, so that it does not answer ARP in the cluster's name by itself")]
    Setting {
        /// The file under /proc/sys.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// BPF refused something else.
    #[error("cannot {what}")]
    Bpf {
        /// What was tried.
        what: String,
        /// What the kernel or the loader said.
        #[source]
        source: Box<EbpfError>,
    },
    /// The embedded object does not have what this program expects: a broken build.
    #[error("the embedded dispatch program has no {name}")]
    Incomplete {
        /// The missing map or program.
        name: &'static str,
    },
}

impl DispatchError {
    pub(super) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }

    /// Tells what a user can mend from what only a developer can.
    pub(super) fn bpf(what: impl Into<String>, error: impl Into<EbpfError>) -> Self {
        let error = error.into();
        match errno(&error) {
            Some(libc::ENOSYS) => Self::NoBpf,
            Some(libc::EPERM | libc::EACCES) if !verifier_spoke(&error) || !is_trusted() => Self::NotPermitted,
            _ => Self::Bpf { what: what.into(), source: Box::new(error) },
        }
    }

    pub(super) fn link(what: impl Into<String>, error: LinkError) -> Self {
        match error {
            LinkError::SyscallError(error) => Self::bpf(what, ProgramError::SyscallError(error)),
            error @ (LinkError::InvalidLink | LinkError::UnknownLinkType(_)) => {
                Self::system(what, io::Error::other(error))
            }
        }
    }
}

/// The number of the system error at the bottom of `error`.
pub(super) fn errno(error: &EbpfError) -> Option<i32> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        let io = match error.downcast_ref::<ProgramError>() {
            Some(ProgramError::LoadError { io_error, .. }) => Some(io_error),
            Some(ProgramError::SyscallError(error)) => Some(&error.io_error),
            Some(ProgramError::TcError(TcError::IoError(error))) => Some(error),
            Some(ProgramError::TcError(TcError::NetlinkError(error)) | ProgramError::NetlinkError(error)) => {
                return error.raw_os_error();
            }
            _ => match error.downcast_ref::<MapError>() {
                Some(MapError::CreateError { io_error, .. }) => Some(io_error),
                Some(MapError::SyscallError(error)) => Some(&error.io_error),
                _ => error.downcast_ref::<io::Error>(),
            },
        };
        if let Some(number) = io.and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        at = match error.downcast_ref::<EbpfError>() {
            Some(EbpfError::ProgramError(error)) => Some(error),
            Some(EbpfError::MapError(error)) => Some(error),
            _ => error.source(),
        };
    }
    None
}

/// Whether the verifier lets this process compute with pointers, as the program does: CAP_PERFMON (38), or CAP_SYS_ADMIN (21).
fn is_trusted() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(u64::MAX);
    effective & (1 << 38 | 1 << 21) != 0
}

/// A refusal of a trusted program by the verifier is our own bug, whatever number it has.
fn verifier_spoke(error: &EbpfError) -> bool {
    if let EbpfError::ProgramError(ProgramError::LoadError { verifier_log, .. }) = error {
        return !verifier_log.to_string().trim().is_empty();
    }
    false
}
