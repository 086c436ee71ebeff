//! ESP packets on their way out, gathered into trains that leave with one system call.

use std::net::SocketAddr;

/// The most that one UDP datagram can carry over IPv4: 65,535 less the IP and UDP headers.
const TRAIN_MAX: usize = 65_507;
/// `UDP_MAX_SEGMENTS` of the kernels before 6.9.
const SEGMENTS_MAX: usize = 64;

/// Where a train goes and how it is marked; packets that differ in it do not travel together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Which of the worker's sockets.
    pub(super) socket: usize,
    /// The peer.
    pub(super) to: SocketAddr,
    /// The outer type of service.
    pub(super) tos: u8,
}

/// Packets of one way and one length, of which only the last may be shorter.
#[derive(Debug)]
pub(super) struct Train {
    buffer: Box<[u8]>,
    len: usize,
    segment_len: usize,
    segments: usize,
    closed: bool,
    way: Option<Way>,
}

impl Train {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; TRAIN_MAX].into(), len: 0, segment_len: 0, segments: 0, closed: false, way: None }
    }

    /// Whether a packet of that length can join.
    #[inline]
    pub(super) fn admits(&self, way: Way, len: usize) -> bool {
        if self.len == 0 {
            return true;
        }
        self.way == Some(way)
            && !self.closed
            && len <= self.segment_len
            && self.segments < SEGMENTS_MAX
            && self.len + len <= TRAIN_MAX
    }

    /// Room for the next packet.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len..]
    }

    /// Takes in the packet of `len` octets that was written into the room; it was admitted before.
    #[inline]
    pub(super) fn commit(&mut self, way: Way, len: usize) {
        if self.len == 0 {
            self.way = Some(way);
            self.segment_len = len;
        }
        self.closed = len < self.segment_len;
        self.len += len;
        self.segments += 1;
    }

    /// What is to be sent, where, and in which segments; empty afterwards.
    pub(super) fn take(&mut self) -> Option<(Way, &[u8], usize, usize)> {
        let way = self.way.take()?;
        let (len, segments) = (self.len, self.segments);
        (self.len, self.segments, self.closed) = (0, 0, false);
        Some((way, &self.buffer[..len], self.segment_len, segments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(port: u16, tos: u8) -> Way {
        Way { socket: 0, to: SocketAddr::new([192, 0, 2, 1].into(), port), tos }
    }

    #[test]
    fn only_equal_packets_of_one_way_travel_together() {
        let mut train = Train::new();
        assert!(train.take().is_none());
        train.commit(way(1, 0), 100);
        assert!(train.admits(way(1, 0), 100) && train.admits(way(1, 0), 99));
        assert!(!train.admits(way(1, 0), 101) && !train.admits(way(2, 0), 100) && !train.admits(way(1, 8), 100));
        train.commit(way(1, 0), 60);
        assert!(!train.admits(way(1, 0), 60), "the shorter one is the last");
        let (to, bytes, segment, segments) = train.take().unwrap();
        assert_eq!((to, bytes.len(), segment, segments), (way(1, 0), 160, 100, 2));
        assert!(train.take().is_none() && train.admits(way(2, 0), 1400));
    }

    #[test]
    fn a_train_ends_at_64_packets_or_64_kilobytes() {
        let mut train = Train::new();
        for _ in 0..64 {
            assert!(train.admits(way(1, 0), 100));
            train.commit(way(1, 0), 100);
        }
        assert!(!train.admits(way(1, 0), 100));
        train.take();
        let mut packets = 0;
        while train.admits(way(1, 0), 1436) {
            train.commit(way(1, 0), 1436);
            packets += 1;
        }
        assert_eq!(packets, 65_507 / 1436);
    }
}
