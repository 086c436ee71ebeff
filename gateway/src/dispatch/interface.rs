//! A network interface, as far as dispatch must know and set it.
#![expect(unsafe_code, reason = "asks the kernel by ioctl")]

use std::ffi::{c_char, c_int};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use super::DispatchError;

/// What the kernel says of an interface.
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: c_int,
    pub(super) mac: [u8; 6],
    /// The driver's name, such as `veth`; empty if it has none to tell.
    pub(super) driver: String,
    /// Whether it sits on a bus, so is hardware or looks like it.
    pub(super) physical: bool,
}

impl Interface {
    /// Asks the kernel, in the network namespace of this thread.
    pub(super) fn open(name: &str) -> Result<Self, DispatchError> {
        let gone = || DispatchError::NoInterface { name: name.to_owned() };
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
            .map_err(|error| DispatchError::system("open a socket", error))?;
        let mut request = request(name).ok_or_else(gone)?;
        // SAFETY: the request is a whole `ifreq`, which the kernel fills.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) } != 0 {
            return Err(gone());
        }
        // SAFETY: SIOCGIFINDEX has filled this member of the union.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        // SAFETY: as above.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } != 0 {
            return Err(DispatchError::system(format!("read the address of {name}"), io::Error::last_os_error()));
        }
        // SAFETY: SIOCGIFHWADDR has filled this member of the union.
        let [a, b, c, d, e, f, ..] = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
        let mac = [a, b, c, d, e, f].map(c_char::cast_unsigned);
        let mut info = DriverInfo { command: GET_DRIVER_INFO, ..DriverInfo::default() };
        request.ifr_ifru.ifru_data = (&raw mut info).cast();
        // SAFETY: the request points at a whole `ethtool_drvinfo`, which lives beyond the call.
        let known = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } == 0;
        Ok(Self {
            name: name.to_owned(),
            index,
            mac,
            driver: if known { text(&info.driver) } else { String::new() },
            physical: known && !text(&info.bus).is_empty(),
        })
    }

    /// Makes the interface accept frames for one more MAC address while the returned descriptor is open.
    pub(super) fn listen_to(&self, mac: [u8; 6]) -> Result<OwnedFd, DispatchError> {
        let refused = || {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EPERM) {
                return DispatchError::NotPermitted;
            }
            DispatchError::system(format!("make {} accept the cluster's MAC address", self.name), error)
        };
        // SAFETY: a plain system call.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(refused());
        }
        // SAFETY: the descriptor is new and ours.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let [a, b, c, d, e, f] = mac;
        let membership = libc::packet_mreq {
            mr_ifindex: self.index,
            mr_type: PACKET_MR_UNICAST,
            mr_alen: 6,
            mr_address: [a, b, c, d, e, f, 0, 0],
        };
        // SAFETY: the option's value is a whole `packet_mreq`.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const membership).cast(),
                MEMBERSHIP_LEN,
            )
        };
        if done == 0 { Ok(socket) } else { Err(refused()) }
    }

    /// Makes the settings without which a kernel would speak for the cluster by itself.
    pub(super) fn configure(&self) -> Result<(), DispatchError> {
        let own = |setting: &str| format!("conf/{}/{setting}", self.name);
        let settings = [
            // First: switching it resets others.
            ("ip_forward".to_owned(), "1"),
            // Answers ARP only for addresses of the interface that is asked, not for the cluster's on `lo`.
            (own("arp_ignore"), "1"),
            // Asks by ARP from an address of that interface, never from the cluster's.
            (own("arp_announce"), "2"),
            // All nodes share one router address: a redirect would name one of them.
            ("conf/all/send_redirects".to_owned(), "0"),
            (own("send_redirects"), "0"),
            (own("accept_redirects"), "0"),
        ];
        for (setting, value) in settings {
            let path = PathBuf::from("/proc/sys/net/ipv4").join(setting);
            if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
                continue;
            }
            fs::write(&path, value).map_err(|source| DispatchError::Setting { path, source })?;
        }
        Ok(())
    }
}

/// `struct ethtool_drvinfo` of `linux/ethtool.h`.
#[repr(C)]
#[derive(Default)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

fn request(name: &str) -> Option<libc::ifreq> {
    // SAFETY: an `ifreq` of zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let (_last, room) = request.ifr_name.split_last_mut()?;
    if name.is_empty() || name.len() > room.len() {
        return None;
    }
    room.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from.cast_signed());
    Some(request)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|octet| *octet == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// ETHTOOL_GDRVINFO of `linux/ethtool.h`.
const GET_DRIVER_INFO: u32 = 0x0000_0003;
/// `linux/if_packet.h`.
const PACKET_MR_UNICAST: u16 = 3;
const MEMBERSHIP_LEN: u32 = 16;
