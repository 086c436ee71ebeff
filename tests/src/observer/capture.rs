//! A packet socket in a switch's namespace: each frame once, as it comes in from the port that sent it.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _};
use std::mem;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;
use crate::run;

/// A socket that receives what all ports of a switch take in.
pub(super) struct Capture {
    socket: Socket,
    ports: HashMap<i32, String>,
    buffer: Vec<u8>,
    /// Frames that the socket could not keep, or that the kernel could not describe.
    pub(super) dropped: u64,
}

/// Whether to wait for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// For [`WAIT`] at most.
    Wait,
    /// Take what was received already; a wire that is never silent would keep one waiting for ever.
    OnlyWhatIsThere,
}

/// One received frame.
pub(super) struct Frame<'a> {
    /// The port that it came in from.
    pub(super) port: &'a str,
    /// From the Ethernet header on.
    pub(super) bytes: &'a [u8],
    /// If it is a train of UDP datagrams: the payload of each but the last.
    pub(super) segment: Option<u16>,
}

impl Frame<'_> {
    /// The sender's MAC address.
    pub(super) fn source(&self) -> [u8; 6] {
        self.bytes.get(6..12).and_then(|octets| octets.try_into().ok()).unwrap_or_default()
    }
}

impl Capture {
    /// Opens the socket. Ports that are plugged in later are not seen.
    pub(super) fn open(switch: &Namespace) -> Result<Self> {
        let ports = ports_of(switch)?;
        let socket = switch.within(|| {
            let every = i32::from(u16::try_from(libc::ETH_P_ALL)?.to_be());
            let socket =
                Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every))).context("packet socket")?;
            set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1).context("ignore what the ports send")?;
            // Trains of segments then come whole, with the size of their wagons.
            set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).context("ask for segment sizes")?;
            set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER_SIZE).context("a large receive buffer")?;
            socket.set_read_timeout(Some(WAIT))?;
            Ok(socket)
        })?;
        Ok(Self { socket, ports, buffer: vec![0; FRAME_MAX], dropped: 0 })
    }

    /// Waits for the next frame, for [`WAIT`] at most, or not at all.
    pub(super) fn next(&mut self, patience: Patience) -> Result<Option<Frame<'_>>> {
        let (received, port) = loop {
            match self.receive(patience)? {
                None => return Ok(None),
                // What the bridge itself sends comes from no port.
                Some((received, port)) if received >= VNET_HEADER && self.ports.contains_key(&port) => {
                    break (received, port);
                }
                Some(_) => {}
            }
        };
        let mut header = [0; VNET_HEADER];
        let mut bytes = self.buffer.get(..received).unwrap_or_default();
        bytes.read_exact(&mut header).context("the header of a received frame")?;
        let [_, kind, _, _, low, high, ..] = header;
        let segment = (kind == GSO_UDP_L4).then(|| u16::from_ne_bytes([low, high]));
        let port = self.ports.get(&port).map_or("", String::as_str);
        Ok(Some(Frame { port, bytes, segment }))
    }

    /// Receives one frame into the buffer; returns its length and the interface that it came in from.
    fn receive(&mut self, patience: Patience) -> Result<Option<(usize, i32)>> {
        let flags = match patience {
            Patience::Wait => 0,
            Patience::OnlyWhatIsThere => libc::MSG_DONTWAIT,
        };
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut from_length = libc::socklen_t::try_from(mem::size_of::<libc::sockaddr_ll>())?;
        // SAFETY: the buffer and the address are writable for the lengths given, and outlive the call.
        let received = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                self.buffer.as_mut_ptr().cast(),
                self.buffer.len(),
                flags,
                (&raw mut from).cast(),
                &raw mut from_length,
            )
        };
        if let Ok(received) = usize::try_from(received) {
            return Ok(Some((received, from.sll_ifindex)));
        }
        let error = std::io::Error::last_os_error();
        let kind = error.kind();
        // packet(7) with PACKET_VNET_HDR: a kind of train that the header cannot describe.
        if kind == ErrorKind::InvalidInput {
            self.dropped += 1;
        } else if !matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) {
            return Err(error).context("receive from the switch");
        }
        Ok(None)
    }

    /// Adds the frames that the kernel dropped since the last call to [`dropped`](Self::dropped).
    pub(super) fn count_drops(&mut self) -> Result<()> {
        // SAFETY: all-zero bytes are valid statistics.
        let mut statistics: libc::tpacket_stats = unsafe { mem::zeroed() };
        let mut length = libc::socklen_t::try_from(mem::size_of::<libc::tpacket_stats>())?;
        // SAFETY: the value is writable for the length given.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(std::io::Error::last_os_error()).context("read the packet socket's statistics");
        }
        self.dropped += u64::from(statistics.tp_drops);
        Ok(())
    }
}

/// Sends raw frames from an interface, as a node gone mad or an attacker would.
pub(super) struct Injector {
    socket: Socket,
    index: i32,
}

impl Injector {
    /// Opens a socket at an interface of `namespace`.
    ///
    /// # Errors
    /// There is no such interface.
    pub(super) fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.within(|| {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None).context("packet socket")?;
            let name = std::ffi::CString::new(interface)?;
            // SAFETY: the name ends with a zero octet and outlives the call.
            let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
            anyhow::ensure!(index != 0, "there is no interface {interface} in {}", namespace.name());
            Ok(Self { socket, index: i32::try_from(index)? })
        })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The interface is gone or down.
    pub(super) fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET)?;
        to.sll_ifindex = self.index;
        // SAFETY: frame and address are readable for the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                libc::socklen_t::try_from(mem::size_of::<libc::sockaddr_ll>())?,
            )
        };
        if sent < 0 {
            return Err(std::io::Error::last_os_error()).context("send a frame");
        }
        Ok(())
    }
}

fn ports_of(switch: &Namespace) -> Result<HashMap<i32, String>> {
    let listed = switch.within(|| {
        run::output(std::process::Command::new("ip").args([
            "-n",
            switch.name(),
            "-json",
            "link",
            "show",
            "type",
            "veth",
        ]))
    })?;
    let links: Vec<serde_json::Value> = serde_json::from_str(&listed).context("read what ip lists")?;
    let port = |link: &serde_json::Value| {
        Some((i32::try_from(link["ifindex"].as_i64()?).ok()?, link["ifname"].as_str()?.to_owned()))
    };
    Ok(links.iter().filter_map(port).collect())
}

fn set(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> Result<()> {
    let length = libc::socklen_t::try_from(mem::size_of::<libc::c_int>())?;
    // SAFETY: the value is readable for the length given.
    if unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) } < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}

/// `linux/if_packet.h`; the libc crate does not have it.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// The header before each frame: `struct virtio_net_hdr`.
const VNET_HEADER: usize = 10;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`: a train of UDP datagrams.
const GSO_UDP_L4: u8 = 5;
const FRAME_MAX: usize = 80 * 1024;
/// Keeps a second of full speed.
const BUFFER_SIZE: libc::c_int = 256 << 20;
const WAIT: Duration = Duration::from_millis(20);
