//! Rights that a started node gives away for good.
#![expect(unsafe_code, reason = "prctl, capget and capset, which rustix offers for one thread only")]

use std::fs;
use std::io;

use anyhow::Context;

use crate::api::Rights;

/// What a running node needs, by number: see `docs/decisions/0022-rights-of-a-running-node.md`.
const NEEDED: [(u8, &str); 5] =
    [(10, "CAP_NET_BIND_SERVICE"), (12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (23, "CAP_SYS_NICE"), (39, "CAP_BPF")];
const KEPT: u64 = (1 << 10) | (1 << 12) | (1 << 13) | (1 << 23) | (1 << 39);
/// CAP_LAST_CAP of the newest kernels is 40; the kernel refuses what it does not know.
const LAST: u8 = 63;

/// Drops every capability besides those that a running node needs from the bounding set and from this thread, which the
/// threads that it starts inherit. Call before any thread is started.
///
/// # Errors
/// The kernel refuses.
pub(super) fn drop_the_rest() -> anyhow::Result<()> {
    for capability in 0..=LAST {
        if KEPT & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
        let outcome = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0, 0, 0) };
        if outcome != 0 {
            let error = io::Error::last_os_error();
            // A capability that this kernel does not know, or a process that may not change its bounding set.
            if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) {
                return Err(error).context("take capabilities out of the bounding set");
            }
        }
    }
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error()).context("forbid new privileges");
    }
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: capget writes two structures of version 3 behind the second pointer.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("read the process's capabilities");
    }
    for (half, kept) in data.iter_mut().zip([KEPT & 0xffff_ffff, KEPT >> 32]) {
        let kept = u32::try_from(kept).unwrap_or(0);
        half.effective &= kept;
        half.permitted &= kept;
        half.inheritable = 0;
    }
    // SAFETY: capset reads two structures of version 3 behind the second pointer.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("give capabilities away");
    }
    Ok(())
}

/// What this process may do now, as the kernel says it.
pub(super) fn rights() -> Rights {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let effective = value("CapEff:").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(u64::MAX);
    let name = |number: u8| {
        let known = NEEDED.iter().find(|(known, _)| *known == number);
        known.map_or_else(|| format!("capability {number}"), |(_, name)| (*name).to_owned())
    };
    let held = (0..=LAST).filter(|number| effective & (1 << number) != 0);
    Rights { capabilities: held.map(name).collect(), can_gain: value("NoNewPrivs:") != Some("1") }
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`, 32 capabilities each.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;
