//! What a node can see of a LAN without its neighbours: whether the link is up, and whether somebody else holds the
//! cluster's address there.
#![expect(unsafe_code, reason = "packet sockets and interface requests have no safe interface")]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use cluster::membership::{Link, Probe};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// ARP requests sent before the silence counts.
const PROBES: u32 = 3;
/// The wait for an answer to each.
const PROBE_WAIT: Duration = Duration::from_millis(100);
const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethernet header and an ARP packet for IPv4 (RFC 826).
const FRAME: usize = 42;

/// An interface and the cluster's address on its LAN.
#[derive(Clone, Debug)]
pub struct Lan {
    /// The kernel's name of the interface.
    pub interface: String,
    /// The cluster's address.
    pub address: Ipv4Addr,
}

/// Looks for another holder of the cluster's address on each LAN (in the manner of RFC 5227 §2.1). Takes up to
/// 300 ms for each.
///
/// A LAN whose link is down cannot be looked at, and counts as held.
///
/// # Errors
/// The socket cannot be opened, or an interface is not there.
pub fn probe(lans: &[Lan]) -> io::Result<Probe> {
    for lan in lans {
        // Without a carrier nobody can answer, which says nothing of who is there.
        if link(&lan.interface) == Link::Down || holder(lan)?.is_some() {
            return Ok(Probe::Held);
        }
    }
    Ok(Probe::Free)
}

/// The hardware address of another machine that has the address on that LAN, if one answers for it. Takes up to 300 ms.
///
/// # Errors
/// The socket cannot be opened, or the interface is not there.
pub fn holder(lan: &Lan) -> io::Result<Option<[u8; 6]>> {
    let protocol = i32::from(ETHERTYPE_ARP.to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol)))?;
    socket.bind(&link_address(&lan.interface)?)?;
    let source = hardware_address(&lan.interface)?;
    // A machine with two interfaces in one LAN answers itself.
    let own = own_hardware_addresses();
    for _ in 0..PROBES {
        socket.send(&request_frame(source, lan.address))?;
        let deadline = Instant::now() + PROBE_WAIT;
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let mut frame = [MaybeUninit::<u8>::uninit(); 128];
            let Ok(len) = socket.recv(&mut frame) else { break };
            // SAFETY: the kernel has written the first `len` octets.
            let frame: Vec<u8> = frame.iter().take(len).map(|octet| unsafe { octet.assume_init() }).collect();
            if let Some(holder) = holder_in(&frame, lan.address).filter(|holder| !own.contains(holder)) {
                return Ok(Some(holder));
            }
        }
    }
    Ok(None)
}

/// Whether the interface is up and has a carrier; one that is gone is down.
#[must_use]
pub fn link(interface: &str) -> Link {
    let flags = request(interface, libc::SIOCGIFFLAGS).map(|request| {
        // SAFETY: the kernel has just written the flags into this field.
        unsafe { request.ifr_ifru.ifru_flags }
    });
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    if flags.is_ok_and(|flags| i32::from(flags) & up == up) { Link::Up } else { Link::Down }
}

/// A broadcast ARP request that claims no address of its own.
fn request_frame(own: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME);
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&own);
    frame.extend_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    frame.extend_from_slice(&[0, 1, 0x08, 0, 6, 4, 0, 1]); // Ethernet, IPv4, request.
    frame.extend_from_slice(&own);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&address.octets());
    frame
}

/// The hardware address of who says in `frame` that it has `address`.
fn holder_in(frame: &[u8], address: Ipv4Addr) -> Option<[u8; 6]> {
    let claims =
        frame.len() >= FRAME && frame[12..14] == ETHERTYPE_ARP.to_be_bytes() && frame[28..32] == address.octets();
    frame.get(6..12).filter(|_| claims)?.try_into().ok()
}

/// The hardware addresses of this machine's interfaces.
fn own_hardware_addresses() -> Vec<[u8; 6]> {
    let mut own = Vec::new();
    // SAFETY: the call takes nothing, and returns a list that ends with an index of 0 and is ours until it is freed.
    unsafe {
        let list = libc::if_nameindex();
        let mut entry = list;
        while !entry.is_null() && (*entry).if_index != 0 {
            if let Ok(name) = CStr::from_ptr((*entry).if_name).to_str() {
                own.extend(hardware_address(name));
            }
            entry = entry.add(1);
        }
        if !list.is_null() {
            libc::if_freenameindex(list);
        }
    }
    own
}

fn link_address(interface: &str) -> io::Result<SockAddr> {
    let index = index(interface)?;
    // SAFETY: the closure writes a whole `sockaddr_ll` into storage that is larger, and says its length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
            (*link).sll_protocol = ETHERTYPE_ARP.to_be();
            (*link).sll_ifindex = index;
            *len = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
            Ok(())
        })?
    };
    Ok(address)
}

fn index(interface: &str) -> io::Result<i32> {
    let request = request(interface, libc::SIOCGIFINDEX)?;
    // SAFETY: the kernel has just written the index into this field.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

fn hardware_address(interface: &str) -> io::Result<[u8; 6]> {
    let request = request(interface, libc::SIOCGIFHWADDR)?;
    // SAFETY: the kernel has just written the address into this field.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    let mut address = [0; 6];
    for (place, octet) in address.iter_mut().zip(data) {
        *place = octet.to_ne_bytes()[0];
    }
    Ok(address)
}

/// Asks the kernel about an interface.
fn request(interface: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: all fields are plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (place, octet) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = libc::c_char::from_ne_bytes([octet]);
    }
    // SAFETY: the descriptor is open and `request` is the structure that these requests read and write.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut request) };
    if result == 0 { Ok(request) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_link_is_up_and_one_that_is_not_there_is_down() {
        assert_eq!(link("lo"), Link::Up);
        assert_eq!(link("nosuch0"), Link::Down);
    }

    #[test]
    fn a_lan_without_a_link_is_never_taken_for_free() {
        let lan = Lan { interface: "nosuch0".to_owned(), address: Ipv4Addr::new(192, 0, 2, 1) };
        assert_eq!(probe(&[lan]).unwrap(), Probe::Held);
    }

    #[test]
    fn who_claims_the_address_is_its_holder() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        let mut reply = request_frame([2, 0, 0, 0, 0, 2], Ipv4Addr::UNSPECIFIED);
        assert_eq!(holder_in(&reply, address), None);
        reply[28..32].copy_from_slice(&address.octets());
        assert_eq!(holder_in(&reply, address), Some([2, 0, 0, 0, 0, 2]));
        assert_eq!(holder_in(&reply[..41], address), None, "cut off");
    }

    #[test]
    fn the_loopback_interface_is_among_this_machines_own() {
        assert!(own_hardware_addresses().contains(&[0; 6]));
    }
}
