//! The sockets of the keepalives: one in each network.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

/// Network control, above all that a switch may queue (RFC 4594 §3.1).
const TOS: u32 = 0xc0;
/// More octets than the largest datagram has, a view of 16 members, with its seal.
pub(super) const DATAGRAM_MAX: usize = 4096;

/// One socket in each network that the node has.
#[derive(Debug)]
pub(super) struct Sockets {
    networks: Vec<UdpSocket>,
    /// Datagrams that the kernel did not take, by network.
    refused: Vec<u64>,
}

impl Sockets {
    /// Binds the own address of each network.
    pub(super) fn open(networks: &[SocketAddr]) -> anyhow::Result<Self> {
        let open = |address: &SocketAddr| -> io::Result<UdpSocket> {
            let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            if address.is_ipv4() {
                socket.set_tos_v4(TOS)?;
            }
            socket.bind(&(*address).into())?;
            Ok(socket.into())
        };
        let networks = networks
            .iter()
            .map(|address| open(address).with_context(|| format!("open the keepalive socket on UDP {address}")))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { refused: vec![0; networks.len()], networks })
    }

    /// Sends one datagram; what the kernel does not take is as lost as what the network loses.
    pub(super) fn send(&mut self, network: usize, to: SocketAddr, datagram: &[u8]) {
        let (Some(socket), Some(refused)) = (self.networks.get(network), self.refused.get_mut(network)) else { return };
        if socket.send_to(datagram, to).is_err() {
            *refused += 1;
        }
    }

    /// Takes one datagram that already waits in that network.
    pub(super) fn receive(&self, network: usize, buffer: &mut [u8; DATAGRAM_MAX]) -> Option<(SocketAddr, usize)> {
        let (len, from) = self.networks.get(network)?.recv_from(buffer).ok()?;
        Some((from, len))
    }

    /// How many networks there are.
    pub(super) fn count(&self) -> usize {
        self.networks.len()
    }

    /// What a poll watches.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.networks.iter().map(AsFd::as_fd)
    }

    /// Datagrams that the kernel did not take, by network.
    pub(super) fn refused(&self) -> &[u64] {
        &self.refused
    }
}
