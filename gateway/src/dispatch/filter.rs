//! The older way to hold a program on an interface, for kernels without TCX links: a cls_bpf filter on the clsact qdisc.
//!
//! The filter keeps the program, whoever loaded it. An empty directory next to the pinned links tells the next start, and
//! the one who cleans up, that it is there. The qdisc stays when the filter goes: others may use it, and an empty one costs
//! nothing.

use std::fs;
use std::io;
use std::path::Path;

use aya::EbpfError;
use aya::programs::SchedClassifier;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact};
use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType, socket};

use super::DispatchError;
use super::error::errno;
use super::interface::Interface;

/// Puts the program into the filter of that interface and direction, in one step, or makes the filter. Returns whether
/// there was one, and the name of what tells of it.
pub(super) fn attach(
    program: &mut SchedClassifier,
    directory: &Path,
    interface: &Interface,
    direction: TcAttachType,
) -> Result<(bool, String), DispatchError> {
    let what = || format!("attach the dispatch program to {}", interface.name);
    let name = match direction {
        TcAttachType::Ingress => format!("{INGRESS}{}", interface.index),
        TcAttachType::Egress | TcAttachType::Custom(_) => format!("{EGRESS}{}", interface.index),
    };
    // First, so that no filter is ever without it.
    match fs::create_dir(directory.join(&name)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(DispatchError::system(what(), error)),
        Ok(()) | Err(_) => {}
    }
    let handle = handle(directory);
    let there = SchedClassifierLink::attached(&interface.name, direction, PRIORITY, handle, None)
        .map_err(|error| DispatchError::system(what(), error))?;
    let (id, taken_over) = match program.attach_to_link(there) {
        Ok(id) => (id, true),
        // There is none, or no qdisc to hold one.
        Err(_) => {
            // One that is there already is as good.
            let qdisc = qdisc_add_clsact(&interface.name);
            let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle, classid: None });
            let id = program.attach_with_options(&interface.name, direction, options).map_err(|error| {
                let error = EbpfError::ProgramError(error);
                match (qdisc, errno(&error)) {
                    (Err(_), Some(libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP)) => DispatchError::NoTrafficControl,
                    (Ok(()) | Err(_), _) => DispatchError::bpf(what(), error),
                }
            })?;
            (id, false)
        }
    };
    let link = program.take_link(id).map_err(|error| DispatchError::bpf(what(), error))?;
    // To drop it would take the filter away, and it is to outlive this process. It holds nothing but numbers.
    std::mem::forget(link);
    Ok((taken_over, name))
}

/// Takes away the filter that `name` in `directory` tells of; `false` if it tells of none.
pub(super) fn detach(directory: &Path, name: &str) -> Result<bool, DispatchError> {
    let (direction, index) = match (name.strip_prefix(INGRESS), name.strip_prefix(EGRESS)) {
        (Some(index), _) => (TcAttachType::Ingress, index),
        (None, Some(index)) => (TcAttachType::Egress, index),
        (None, None) => return Ok(false),
    };
    let Ok(index) = index.parse() else { return Ok(false) };
    let what = || format!("take the filter {name} away");
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(|error| DispatchError::system("open a socket", error))?;
    // The filter of an interface that is gone went with it.
    if let Ok(interface) = index_to_name(&any, index) {
        let link = SchedClassifierLink::attached(&interface, direction, PRIORITY, handle(directory), None)
            .map_err(|error| DispatchError::system(what(), error))?;
        match aya::programs::links::Link::detach(link).map_err(EbpfError::ProgramError) {
            Err(error) if !matches!(errno(&error), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {
                return Err(DispatchError::bpf(what(), error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    fs::remove_dir(directory.join(name)).map_err(|error| DispatchError::system(what(), error))?;
    Ok(true)
}

/// Nodes with other pin directories that share an interface have a filter each: this is FNV-1a of the directory.
fn handle(directory: &Path) -> TcHandle {
    let octets = directory.as_os_str().as_encoded_bytes();
    let hash = octets.iter().fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193));
    // 0 would let the kernel choose.
    TcHandle::from(hash.max(1))
}

/// Before whatever else is on that qdisc.
const PRIORITY: u16 = 1;
const INGRESS: &str = "filter-ingress-";
const EGRESS: &str = "filter-egress-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pin_directory_has_a_handle_of_its_own() {
        let of = |directory: &str| handle(Path::new(directory));
        assert_eq!(of("/sys/fs/bpf/a/n1"), of("/sys/fs/bpf/a/n1"));
        assert_ne!(of("/sys/fs/bpf/a/n1"), of("/sys/fs/bpf/a/n2"));
    }
}
