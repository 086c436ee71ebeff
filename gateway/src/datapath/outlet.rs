//! Where a worker's packets leave: the sockets and the TUN queue.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use crypto::CbcIvSource;

use super::coalesce::{self, Inner, RUN_MAX};
use super::counters::{DropReason, WorkerCounters};
use super::offload::VnetHeader;
use super::socket::UdpSocket;
use super::train::{Train, Way};
use super::tun::TunQueue;

/// A worker's exits.
pub(super) struct Outlet {
    pub(super) tun: TunQueue,
    pub(super) sockets: Arc<[UdpSocket]>,
    pub(super) train: Train,
    pub(super) ivs: CbcIvSource,
    counters: Arc<WorkerCounters>,
}

impl Outlet {
    pub(super) fn new(
        tun: TunQueue,
        sockets: Arc<[UdpSocket]>,
        counters: Arc<WorkerCounters>,
        ivs: CbcIvSource,
    ) -> Self {
        Self { tun, sockets, train: Train::new(), ivs, counters }
    }

    /// The socket of that local address; the first if it is none of ours, whose datagrams then go nowhere wrong.
    pub(super) fn socket_of(&self, local: SocketAddr) -> usize {
        self.sockets.iter().position(|socket| socket.local() == local).unwrap_or(0)
    }

    /// Makes room for a packet of that length, sending what cannot travel with it.
    #[inline]
    pub(super) fn admit(&mut self, way: Way, len: usize) {
        if !self.train.admits(way, len) {
            self.flush();
        }
    }

    /// Sends the train.
    pub(super) fn flush(&mut self) {
        if let Some((way, bytes, segment_len, segments)) = self.train.take()
            && self.sockets[way.socket].send(way.to, way.tos, bytes, segment_len).is_err()
        {
            self.counters.count_drop(DropReason::Send, segments as u64);
        }
    }

    /// Writes opened packets to the TUN device, joined where they can be.
    pub(super) fn write_inner(&self, buffer: &mut [u8], mut packets: &[Inner]) {
        while !packets.is_empty() {
            let (run, rest) = packets.split_at(coalesce::run_len(buffer, packets));
            let vnet = if run.len() > 1 { coalesce::join(buffer, run) } else { VnetHeader::default() };
            let header = vnet.to_bytes();
            let mut slices = [IoSlice::new(&[]); RUN_MAX + 1];
            let count = coalesce::pieces(&header, buffer, run, &mut slices);
            if self.tun.write(&slices[..count]).is_err() {
                self.counters.count_drop(DropReason::TunWrite, run.len() as u64);
            }
            packets = rest;
        }
    }
}
