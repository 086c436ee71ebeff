//! The TUN device: queues, offloads, routes.
#![expect(unsafe_code, reason = "ioctls of TUN devices and routes that no safe crate wraps")]

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, bail};
use rustix::fs::{Mode, OFlags};
use socket2::{Domain, Socket, Type};
use wire::Prefix;

/// `TUN_F_*` of linux/if_tun.h.
const OFFLOAD_CHECKSUM: libc::c_uint = 0x01;
const OFFLOAD_TSO4: libc::c_uint = 0x02;
const OFFLOAD_TSO_ECN: libc::c_uint = 0x08;
const OFFLOAD_USO4: libc::c_uint = 0x20;
const OFFLOAD_USO6: libc::c_uint = 0x40;

/// One queue of a TUN device.
#[derive(Debug)]
pub(super) struct TunQueue {
    fd: OwnedFd,
}

impl TunQueue {
    /// Opens one more queue of the device; the first makes it. Every packet carries an offload header.
    pub(super) fn open(name: &str) -> anyhow::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
            .context("open /dev/net/tun: is the tun module there, and does this process have CAP_NET_ADMIN?")?;
        let mut request = request(name)?;
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags)?;
        control(&fd, libc::TUNSETIFF, &raw mut request).with_context(|| format!("make the TUN device {name}"))?;
        Ok(Self { fd })
    }

    /// Takes TCP super-packets, and UDP ones where the kernel has them (6.2 and later). Returns whether it has.
    pub(super) fn offload(&self) -> anyhow::Result<bool> {
        let tcp = OFFLOAD_CHECKSUM | OFFLOAD_TSO4 | OFFLOAD_TSO_ECN;
        // The kernel takes UDP segmentation for both families or not at all.
        for (flags, udp) in [(tcp | OFFLOAD_USO4 | OFFLOAD_USO6, true), (tcp, false)] {
            // SAFETY: the argument of TUNSETOFFLOAD is a number.
            if unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) } == 0 {
                return Ok(udp);
            }
        }
        Err(io::Error::last_os_error()).context("switch on the offloads of the TUN device")
    }

    /// Reads one packet behind its offload header; `None` if nothing is there.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.fd, buffer) {
            Ok(len) => Ok(Some(len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one packet, offload header first.
    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(&self.fd, pieces)?;
        Ok(())
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sets the device's MTU and brings it up.
pub(super) fn bring_up(name: &str, mtu: u16) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).context("open a socket to configure devices")?;
    let mut mtu_request = request(name)?;
    mtu_request.ifr_ifru.ifru_mtu = i32::from(mtu);
    control(&socket, libc::SIOCSIFMTU, &raw mut mtu_request)
        .with_context(|| format!("set the MTU of {name} to {mtu}"))?;
    let mut flags = request(name)?;
    control(&socket, libc::SIOCGIFFLAGS, &raw mut flags).with_context(|| format!("read the flags of {name}"))?;
    // SAFETY: SIOCGIFFLAGS has filled this member of the union.
    let current = unsafe { flags.ifr_ifru.ifru_flags };
    flags.ifr_ifru.ifru_flags = current | libc::c_short::try_from(libc::IFF_UP)?;
    control(&socket, libc::SIOCSIFFLAGS, &raw mut flags).with_context(|| format!("bring {name} up"))
}

/// Routes a prefix into the device.
pub(super) fn route(name: &str, prefix: Prefix) -> anyhow::Result<()> {
    let IpAddr::V4(address) = prefix.address() else {
        bail!("the route {prefix} is IPv6, which the tunnel does not carry yet");
    };
    let mask = u32::MAX.checked_shl(u32::from(32 - prefix.len())).unwrap_or(0);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).context("open a socket to configure routes")?;
    let mut name = c_name(name)?;
    // SAFETY: all zeros is a valid rtentry.
    let mut entry: libc::rtentry = unsafe { std::mem::zeroed() };
    entry.rt_dst = sockaddr(address);
    entry.rt_genmask = sockaddr(Ipv4Addr::from_bits(mask));
    entry.rt_flags = libc::RTF_UP;
    if prefix.len() == 32 {
        entry.rt_flags |= libc::RTF_HOST;
    }
    entry.rt_dev = name.as_mut_ptr().cast();
    match control(&socket, libc::SIOCADDRT, &raw mut entry) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        outcome => outcome.with_context(|| format!("route {prefix} into the tunnel")),
    }
}

fn c_name(name: &str) -> anyhow::Result<[u8; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= bytes.len() || name.contains('\0') {
        bail!("\"{name}\" is no device name: 1 to {} octets are allowed", bytes.len() - 1);
    }
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}

fn request(name: &str) -> anyhow::Result<libc::ifreq> {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c_name(name)?) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0_u8; 14];
    data[2..6].copy_from_slice(&address.octets());
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data.map(|octet| libc::c_char::from_ne_bytes([octet])),
    }
}

/// An ioctl whose argument is a pointer to a structure of its own.
fn control<T>(fd: &impl AsRawFd, code: libc::Ioctl, argument: *mut T) -> io::Result<()> {
    // SAFETY: each caller hands in a live structure of the type that its code takes.
    if unsafe { libc::ioctl(fd.as_raw_fd(), code, argument) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_fit_the_kernel() {
        assert!(c_name("cc0").is_ok() && c_name("abcdefghijklmno").is_ok());
        for name in ["", "abcdefghijklmnop", "a\0b"] {
            assert!(c_name(name).is_err(), "{name:?}");
        }
    }
}
