//! From the peer to the TUN device.

use std::sync::atomic::Ordering::Relaxed;

use ike::Path;
use wire::Spi;

use super::Event;
use super::checksum::Sum;
use super::coalesce::Inner;
use super::counters::DropReason;
use super::mailbox::{Command, Origin};
use super::moving::{Held, Mode};
use super::socket::{PORT_IKE, Received, worker_of};
use super::worker::Worker;

/// The outer header's mark of congestion (RFC 3168 §5): both bits of the field.
const ECN_CE: u8 = 0x03;
/// RFC 3948 §2.3.
const NAT_KEEPALIVE: [u8; 1] = [0xff];

impl Worker {
    /// Handles a train that came in by a socket.
    pub(super) fn handle_train(&mut self, socket: usize, received: &Received, train: &mut [u8]) {
        let path = Path { local: self.outlet.sockets[socket].local(), remote: received.from };
        if path.local.port() == PORT_IKE {
            for datagram in train.chunks(received.segment_len) {
                (self.sink)(Event::Ike { path, datagram: datagram.to_vec() });
            }
            return;
        }
        let mut opened = std::mem::take(&mut self.opened);
        opened.clear();
        let mut place = 0;
        while place < train.len() {
            let rest = &mut train[place..];
            let segment_len = received.segment_len.min(rest.len());
            place += self.handle_run(path, received.tos, rest, segment_len, Origin::Worker, place, &mut opened);
        }
        self.pass_on(received.tos, train, &mut opened);
        self.opened = opened;
    }

    /// Handles one datagram that waited somewhere.
    pub(super) fn handle_datagram(&mut self, path: Path, tos: u8, datagram: &mut [u8], origin: Origin) {
        let mut opened = Vec::with_capacity(1);
        self.handle_run(path, tos, datagram, datagram.len(), origin, 0, &mut opened);
        self.pass_on(tos, datagram, &mut opened);
    }

    /// Handles the packets at the front of `rest` that belong together, and tells how many octets that were.
    #[expect(clippy::too_many_arguments, reason = "what a train is, and where in it we are")]
    fn handle_run(
        &mut self,
        path: Path,
        tos: u8,
        rest: &mut [u8],
        segment_len: usize,
        origin: Origin,
        base: usize,
        opened: &mut Vec<Inner>,
    ) -> usize {
        let Some(spi) = rest[..segment_len].first_chunk().map(|spi| Spi(u32::from_be_bytes(*spi))) else {
            let keepalive = rest[..segment_len] == NAT_KEEPALIVE;
            self.counters.count_drop(if keepalive { DropReason::Keepalive } else { DropReason::NotEsp }, 1);
            return segment_len;
        };
        // RFC 3948 §2.2: four octets of 0 mark IKE on this port.
        if spi.0 == 0 {
            (self.sink)(Event::Ike { path, datagram: rest[4..segment_len].to_vec() });
            return segment_len;
        }
        if !self.modes.is_empty() {
            match self.modes.get_mut(&spi.work_set()) {
                Some(Mode::Held(hold)) => {
                    let held = Held::Outer { path, tos, datagram: rest[..segment_len].into() };
                    if !hold.push(held) {
                        self.counters.count_drop(DropReason::HoldQueue, 1);
                    }
                    return segment_len;
                }
                Some(Mode::Stopped) => {
                    self.counters.count_drop(DropReason::Stopped, 1);
                    return segment_len;
                }
                Some(Mode::Watched(_) | Mode::Settling(..)) | None => {}
            }
        }
        let Some(inbound) = self.table.inbound(spi) else {
            self.on_unknown_spi(spi, path, tos, &rest[..segment_len], origin);
            return segment_len;
        };

        let (mut packets, mut bytes, mut newest) = (0, 0, false);
        let edge = inbound.sa.edge();
        let counters = &*self.counters;
        let through = inbound.sa.open_train(rest, segment_len, |place, outcome| match outcome {
            Ok(packet) => {
                packets += 1;
                bytes += packet.inner.len() as u64;
                newest |= packet.newest;
                let start = base + place.start;
                opened.push(Inner { place: start + packet.inner.start..start + packet.inner.end, flow: packet.flow });
            }
            Err(refusal) => counters.count_drop(DropReason::Refused(refusal), 1),
        });
        if inbound.sa.edge() != edge {
            if !inbound.dirty {
                inbound.dirty = true;
                self.dirty.push(spi);
            }
            // RFC 7296 §2.8: the peer has the new pair, so we may send on it.
            if !inbound.pair.sending.load(Relaxed) {
                inbound.pair.sending.store(true, Relaxed);
            }
        }
        if packets > 0 {
            // One writer, so no atomic addition is needed.
            let pair = &inbound.pair;
            pair.packets_in.store(pair.packets_in.load(Relaxed) + packets, Relaxed);
            pair.bytes_in.store(pair.bytes_in.load(Relaxed) + bytes, Relaxed);
        }
        // RFC 7296 §2.23: authenticated, and not an old packet that somebody repeats from elsewhere.
        if newest && inbound.tells_move(self.now, path) {
            (self.sink)(Event::PathChanged { spi_in: spi, path });
        }
        through.max(segment_len)
    }

    fn on_unknown_spi(&mut self, spi: Spi, path: Path, tos: u8, datagram: &[u8], origin: Origin) {
        let home = worker_of(spi, self.mailboxes.len());
        if home != self.index {
            // A train may hold packets of several SAs; the kernel gave it to the worker of the first.
            let command = Command::Outer { path, tos, datagram: datagram.into(), origin };
            if !self.mailboxes[home].put_packet(command) {
                self.counters.count_drop(DropReason::WorkerQueue, 1);
            }
            return;
        }
        match origin {
            // It was handed on once; a second hop could go round in circles.
            Origin::Node => self.counters.count_drop(DropReason::UnknownSpi, 1),
            Origin::Worker => {
                if self.may_tell_unknown(DropReason::UnknownSpi) {
                    (self.sink)(Event::UnknownSpi { spi, path, datagram: datagram.to_vec() });
                }
            }
        }
    }

    /// Gives opened packets to the TUN device.
    fn pass_on(&mut self, tos: u8, buffer: &mut [u8], opened: &mut Vec<Inner>) {
        if tos & ECN_CE == ECN_CE {
            opened.retain(|inner| {
                let marked = mark_congestion(&mut buffer[inner.place.clone()]);
                if !marked {
                    self.counters.count_drop(DropReason::Congestion, 1);
                }
                marked
            });
        }
        self.outlet.write_inner(buffer, opened);
    }
}

/// Carries the outer mark of congestion inwards (RFC 6040 §4.2); `false` if the inner flow does not know such marks.
fn mark_congestion(packet: &mut [u8]) -> bool {
    if packet[1] & ECN_CE == 0 {
        return false;
    }
    packet[1] |= ECN_CE;
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let checksum = Sum::default().add(&packet[..header_len]).checksum();
    packet[10..12].copy_from_slice(&checksum);
    true
}

#[cfg(test)]
mod tests {
    use super::super::offload::tests::tcp;
    use super::*;

    #[test]
    fn congestion_is_carried_to_flows_that_know_it() {
        let mut packet = tcp(1, 0x10, 1, &[]);
        assert_eq!(packet[1], 2);
        assert!(mark_congestion(&mut packet));
        assert_eq!(packet[1], 3);
        assert!(Sum::default().add(&packet[..20]).verifies());
        packet[1] = 0;
        assert!(!mark_congestion(&mut packet));
    }
}
