//! UDP sockets with segmentation and receive offload, and the filter that gives each packet to its worker.
#![expect(unsafe_code, reason = "control messages and socket options that no safe crate wraps")]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Port of IKE, and of ESP in UDP (RFC 3948 §2).
pub(super) const PORT_NAT_T: u16 = 4500;
/// Port of IKE alone.
pub(super) const PORT_IKE: u16 = 500;
/// Octets of socket buffer each way: some milliseconds at full speed.
const SOCKET_BUFFER: usize = 8 << 20;
/// How long a full send buffer may hold a worker up before the datagrams are dropped.
const SEND_WAIT_MAX: Duration = Duration::from_millis(20);
/// `UDP_SEGMENT` and `UDP_GRO` of linux/udp.h.
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// One worker's socket on one address and port.
#[derive(Debug)]
pub(super) struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
}

/// A train of datagrams that came in together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Octets of all.
    pub(super) len: usize,
    /// Octets of each, the last perhaps shorter.
    pub(super) segment_len: usize,
    /// Who sent it.
    pub(super) from: SocketAddr,
    /// The outer type of service.
    pub(super) tos: u8,
}

impl UdpSocket {
    /// Opens a socket; all workers' sockets on one address and port form a group, in the order in which they are opened.
    pub(super) fn open(local: SocketAddr) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))
            .context("open a UDP socket")?;
        socket.set_reuse_port(true).context("share a UDP port between the workers")?;
        if local.is_ipv4() {
            // The cluster address may not be on this machine yet.
            socket.set_freebind_v4(true).context("bind to an address that is not here yet")?;
            socket.set_recv_tos_v4(true).context("ask for the type of service of datagrams")?;
            // A tunnel packet that is too long for the way is fragmented, not lost.
            option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DONT)?;
        }
        socket.bind(&SockAddr::from(local)).with_context(|| format!("bind UDP {local}"))?;
        // Without the privilege the system's limit stays.
        let _ = set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER);
        let _ = set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER);
        if local.port() != PORT_IKE {
            option(&socket, libc::IPPROTO_UDP, UDP_GRO, &1_i32)?;
        }
        Ok(Self { socket, local })
    }

    /// The address and port.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Makes the socket's group give ESP packets to the worker of their SPI, and all else to the first.
    pub(super) fn steer(&self, workers: usize) -> anyhow::Result<()> {
        let workers = u32::try_from(workers).context("too many workers")?;
        let code = |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: 0, k };
        // The filter sees the UDP payload. The non-ESP marker is 0 (RFC 3948 §2.2) and stays 0, which is the first worker.
        let mut program = [
            code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
            code(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, STEER_SHIFT),
            code(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers),
            code(libc::BPF_RET | libc::BPF_A, 0),
        ];
        let length = u16::try_from(program.len()).unwrap_or(0);
        let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
        option(&self.socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
            .context("install the filter that gives packets to workers")
    }

    /// Receives one train; `None` if nothing is there.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut control = Control::default();
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all zeros is a valid msghdr.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = length_of::<libc::sockaddr_storage>();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        // SAFETY: the message points at live buffers with their right lengths.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let Ok(len) = usize::try_from(len) else {
            return match io::Error::last_os_error() {
                // A pending error of an earlier datagram (ICMP) is not this socket's end.
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH)
                    ) =>
                {
                    Ok(None)
                }
                error => Err(error),
            };
        };
        let mut received = Received { len, segment_len: len.max(1), from: self.local, tos: 0 };
        // SAFETY: the kernel has written the address; the storage was zeroed before, and is only read by its family.
        let name = unsafe { name.assume_init_ref() };
        if let Some(from) = address(name) {
            received.from = from;
        }
        // SAFETY: the message's control part was filled by the kernel, and is walked by the macros made for it.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !header.is_null() {
            // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a header inside the control part, with its data behind it.
            let (kind, data) = unsafe { (((*header).cmsg_level, (*header).cmsg_type), libc::CMSG_DATA(header)) };
            if kind == (libc::IPPROTO_UDP, UDP_GRO) {
                // SAFETY: UDP_GRO carries one int.
                let segment = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                received.segment_len = usize::try_from(segment).unwrap_or(0).max(1);
            } else if kind == (libc::IPPROTO_IP, libc::IP_TOS) {
                // SAFETY: IP_TOS carries at least one octet.
                received.tos = unsafe { data.read() };
            }
            // SAFETY: as above.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        Ok(Some(received))
    }

    /// Sends `train` as datagrams of `segment_len` octets, the last perhaps shorter. Where the way takes no trains, one by
    /// one. Waits a moment if the send buffer is full.
    pub(super) fn send(&self, to: SocketAddr, tos: u8, train: &[u8], segment_len: usize) -> io::Result<()> {
        if train.len() <= segment_len {
            return self.send_message(to, tos, train, None);
        }
        match self.send_message(to, tos, train, u16::try_from(segment_len).ok()) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) => {
                train.chunks(segment_len).try_for_each(|datagram| self.send_message(to, tos, datagram, None))
            }
            outcome => outcome,
        }
    }

    fn send_message(&self, to: SocketAddr, tos: u8, bytes: &[u8], segment_len: Option<u16>) -> io::Result<()> {
        let name = SockAddr::from(to);
        let mut control = Control::default();
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: all zeros is a valid msghdr.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = name.as_ptr().cast_mut().cast();
        message.msg_namelen = name.len();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        let mut used = 0;
        if let Some(segment_len) = segment_len {
            used += control.put(used, libc::IPPROTO_UDP, UDP_SEGMENT, segment_len);
        }
        if tos != 0 && to.is_ipv4() {
            used += control.put(used, libc::IPPROTO_IP, libc::IP_TOS, libc::c_int::from(tos));
        }
        if used > 0 {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = used;
        }
        loop {
            // SAFETY: the message points at live buffers with their right lengths; the kernel only reads them.
            if unsafe { libc::sendmsg(self.socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) } >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock || !self.wait_writable()? {
                return Err(error);
            }
        }
    }

    fn wait_writable(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: SEND_WAIT_MAX.subsec_nanos().into() };
        Ok(poll(&mut fds, Some(&timeout))? > 0)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The low bits of an SPI name its work set; the bits above choose the worker.
const STEER_SHIFT: u32 = 10;

/// Which worker's socket gets the packets of that SPI; the kernel's filter computes the same.
pub(super) fn worker_of(spi: wire::Spi, workers: usize) -> usize {
    usize::try_from(spi.0 >> STEER_SHIFT).unwrap_or(0) % workers
}

/// Room for the control messages in use, aligned as they must be.
#[repr(align(8))]
struct Control([u8; 128]);

impl Default for Control {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl Control {
    /// Writes one control message at `place` and returns the octets that it takes.
    fn put<T: Copy>(&mut self, place: usize, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
        // SAFETY: CMSG_LEN and CMSG_SPACE only compute.
        let (len, space) = unsafe { (libc::CMSG_LEN(length_of::<T>()), libc::CMSG_SPACE(length_of::<T>())) };
        let (len, space) = (len as usize, space as usize);
        assert!(place + space <= self.0.len(), "control messages exceed their room");
        let header = self.0[place..].as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the message lies inside the array (asserted), which is aligned for the header; places are sums of spaces,
        // which keep that alignment.
        unsafe {
            (*header).cmsg_len = len;
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
        space
    }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

fn option<T>(socket: &Socket, level: libc::c_int, name: libc::c_int, value: &T) -> anyhow::Result<()> {
    // SAFETY: the kernel reads the value, whose length is right, and keeps no pointer to it.
    let outcome = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length_of::<T>())
    };
    if outcome < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("set socket option {level}/{name}"));
    }
    Ok(())
}

fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in stands in the storage, which is aligned for all of them.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 stands in the storage, which is aligned for all of them.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(workers: usize) -> (Vec<UdpSocket>, UdpSocket) {
        let first = UdpSocket::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let local = first.socket.local_addr().unwrap().as_socket().unwrap();
        let mut sockets = vec![first];
        sockets.extend((1..workers).map(|_| UdpSocket::open(local).unwrap()));
        for socket in &mut sockets {
            socket.local = local;
        }
        let mut peer = UdpSocket::open("127.0.0.1:0".parse().unwrap()).unwrap();
        peer.local = peer.socket.local_addr().unwrap().as_socket().unwrap();
        (sockets, peer)
    }

    fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Received {
        for _ in 0..1000 {
            if let Some(received) = socket.receive(buffer).unwrap() {
                return received;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("nothing came");
    }

    #[test]
    fn a_train_arrives_with_its_segments_sender_and_type_of_service() {
        let (sockets, peer) = pair(1);
        let train: Vec<u8> = (0..2500_u32).map(|i| i as u8).collect();
        peer.send(sockets[0].local, 0x2e, &train, 1000).unwrap();
        let mut buffer = vec![0; 65_536];
        let mut seen = Vec::new();
        while seen.len() < train.len() {
            let received = receive(&sockets[0], &mut buffer);
            assert_eq!((received.from, received.tos), (peer.local, 0x2e));
            assert!(received.segment_len == 1000 || received.len == received.segment_len);
            seen.extend_from_slice(&buffer[..received.len]);
        }
        assert_eq!(seen, train);
        assert!(sockets[0].receive(&mut buffer).unwrap().is_none());
    }

    #[test]
    fn the_filter_gives_each_spi_to_the_worker_that_we_compute() {
        let (sockets, peer) = pair(3);
        sockets[0].steer(3).unwrap();
        let mut buffer = [0; 2000];
        for spi in [0, 0x400, 0x801, 0xffff_ffff, 0x1234_5678, 0x0000_0cff] {
            let spi = wire::Spi(spi);
            peer.send(sockets[0].local, 0, &[&spi.0.to_be_bytes()[..], &[0; 20]].concat(), 2000).unwrap();
            let received = receive(&sockets[worker_of(spi, 3)], &mut buffer);
            assert_eq!(received.len, 24, "{spi}");
        }
        peer.send(sockets[0].local, 0, &[0xff], 2000).unwrap();
        assert_eq!(receive(&sockets[0], &mut buffer).len, 1);
    }
}
