//! From the TUN device to the peer.

use esp::{Flow, OutboundSa, Sequence, SequenceRange, Wait};
use wire::Time;

use super::counters::DropReason;
use super::moving::{Held, Mode, note};
use super::offload::{Segments, VnetHeader, complete_checksum};
use super::outlet::Outlet;
use super::table::{NoRoute, Outbound};
use super::train::Way;
use super::worker::Worker;
use super::{Event, EventSink};

impl Worker {
    /// Handles what stands in `buffer[..len]`: an offload header and a packet. The rest of the buffer is room.
    pub(super) fn handle_inner(&mut self, buffer: &mut [u8], len: usize) {
        let Some((vnet, _)) = buffer.split_first_chunk::<{ VnetHeader::LEN }>() else { return };
        let vnet = VnetHeader::read(vnet);
        let Ok(flow) = Flow::parse(buffer.get(VnetHeader::LEN..len).unwrap_or_default()) else {
            self.counters.count_drop(DropReason::MalformedInner, 1);
            return;
        };
        let Ok(vnet) = complete_checksum(vnet, &mut buffer[VnetHeader::LEN..], &flow) else {
            self.counters.count_drop(DropReason::MalformedInner, 1);
            return;
        };
        // A packet that has to wait is read again from here.
        buffer[..VnetHeader::LEN].copy_from_slice(&vnet.to_bytes());
        let outbound = match self.table.route(&flow) {
            Ok(outbound) => outbound,
            Err(NoRoute::Selector) => {
                self.counters.count_drop(DropReason::SelectorOutbound, 1);
                return;
            }
            Err(NoRoute::Destination) => {
                self.on_unknown_destination(vnet, &flow, &mut buffer[VnetHeader::LEN..len]);
                return;
            }
        };
        let mode = if self.modes.is_empty() { None } else { self.modes.get_mut(&outbound.set()) };
        let mut judge = match mode {
            None => Judge::All,
            Some(Mode::Watched(digests)) => Judge::Note(digests),
            Some(Mode::Settling(processed, _)) => Judge::Skip(processed),
            Some(Mode::Stopped) => {
                self.counters.count_drop(DropReason::Stopped, 1);
                return;
            }
            Some(Mode::Held(hold)) => {
                if !hold.push(Held::Inner(buffer[..len].into())) {
                    self.counters.count_drop(DropReason::HoldQueue, 1);
                }
                return;
            }
        };
        // What waits for a lease goes first.
        let outcome = if outbound.waiting.is_empty() {
            seal(
                outbound,
                &mut self.outlet,
                &self.sink,
                self.now,
                vnet,
                &flow,
                &mut buffer[VnetHeader::LEN..],
                &mut judge,
            )
        } else {
            Outcome::Wait
        };
        match outcome {
            Outcome::Sealed { skipped: 0 } => {}
            Outcome::Sealed { skipped } => self.counters.count_drop(DropReason::HandedOver, skipped),
            Outcome::Drop(reason) => self.counters.count_drop(reason, 1),
            Outcome::Wait => {
                if !outbound.waiting.push(&buffer[..len]) {
                    self.counters.count_drop(DropReason::LeaseQueue, 1);
                }
            }
        }
    }

    fn on_unknown_destination(&mut self, vnet: VnetHeader, flow: &Flow, packet: &mut [u8]) {
        let Ok(segments) = Segments::new(vnet, packet, flow) else {
            self.counters.count_drop(DropReason::MalformedInner, 1);
            return;
        };
        for index in 0..segments.count() {
            if !self.may_tell_unknown(DropReason::UnknownDestination) {
                return;
            }
            let place = segments.make(packet, index);
            (self.sink)(Event::UnknownDestination { packet: packet[place].to_vec() });
        }
    }
}

/// Which packets of a set are sealed.
enum Judge<'a> {
    All,
    /// All, and their digests are noted.
    Note(&'a mut Vec<u64>),
    /// Those that the old owner has not processed.
    Skip(&'a super::moving::Processed),
}

enum Outcome {
    /// The segments are in the train, but for those that the old owner had processed.
    Sealed {
        skipped: u64,
    },
    /// Nothing was sent and nothing changed: the packet can wait for a lease.
    Wait,
    Drop(DropReason),
}

/// Cuts a packet into segments and seals each into the train. `packet` has room behind it.
#[expect(clippy::too_many_arguments, reason = "the parts of a worker that a packet meets, borrowed one by one")]
fn seal(
    outbound: &Outbound,
    outlet: &mut Outlet,
    sink: &EventSink,
    now: Time,
    vnet: VnetHeader,
    flow: &Flow,
    packet: &mut [u8],
    judge: &mut Judge<'_>,
) -> Outcome {
    let Ok(segments) = Segments::new(vnet, packet, flow) else {
        return Outcome::Drop(DropReason::MalformedInner);
    };
    let sa = &*outbound.sa;
    let mut numbers = match Numbers::reserve(sa, segments.count() as u64) {
        Ok(numbers) => numbers,
        Err(Wait::Exhausted) => return Outcome::Drop(DropReason::SequenceEnd),
        Err(Wait::Lease { ask }) => {
            if ask {
                sink(Event::LeaseLow { spi_in: outbound.spi_in, edge: sa.propose_edge(now) });
            }
            return Outcome::Wait;
        }
    };
    if numbers.lease_low {
        sink(Event::LeaseLow { spi_in: outbound.spi_in, edge: sa.propose_edge(now) });
    }
    if numbers.exhausted {
        sink(Event::Exhausted { spi_in: outbound.spi_in });
    }
    // RFC 4301 §5.1.2.1 and RFC 6040 §4.1: the outer header has the inner one's type of service.
    let way = Way { socket: outbound.socket, to: outbound.path.remote, tos: packet[1] };
    let (mut sealed, mut bytes, mut skipped) = (0, 0, 0);
    for index in 0..segments.count() {
        let place = segments.make(packet, index);
        match judge {
            Judge::All => {}
            Judge::Note(digests) => note(digests, &packet[place.clone()]),
            Judge::Skip(processed) => {
                if processed.take(&packet[place.clone()]) {
                    skipped += 1;
                    continue;
                }
            }
        }
        let Some(sequence) = numbers.take() else { break };
        outlet.admit(way, sa.sealed_len(place.len()));
        let Ok(len) = sa.seal(sequence, &mut packet[place.start..], place.len(), outlet.train.room(), &mut outlet.ivs)
        else {
            return Outcome::Drop(DropReason::MalformedInner);
        };
        outlet.train.commit(way, len);
        sealed += 1;
        bytes += place.len() as u64;
    }
    sa.count(sealed, bytes);
    Outcome::Sealed { skipped }
}

/// Sequence numbers for all segments of a packet: from one range, or from two where one ends in between.
struct Numbers {
    first: SequenceRange,
    second: Option<SequenceRange>,
    lease_low: bool,
    exhausted: bool,
}

impl Numbers {
    /// All or nothing; what a failed attempt took is skipped on the wire.
    fn reserve(sa: &OutboundSa, count: u64) -> Result<Self, Wait> {
        let first = sa.reserve(count)?;
        let mut numbers = Self { lease_low: first.lease_low, exhausted: first.exhausted, first, second: None };
        let missing = count.saturating_sub(numbers.first.left());
        if missing > 0 {
            let second = match sa.reserve(missing) {
                Ok(second) => second,
                Err(Wait::Lease { ask }) => return Err(Wait::Lease { ask: ask || numbers.lease_low }),
                Err(Wait::Exhausted) => return Err(Wait::Exhausted),
            };
            numbers.lease_low |= second.lease_low;
            numbers.exhausted |= second.exhausted;
            if second.left() < missing {
                return Err(Wait::Lease { ask: numbers.lease_low });
            }
            numbers.second = Some(second);
        }
        Ok(numbers)
    }

    fn take(&mut self) -> Option<Sequence> {
        self.first.take().or_else(|| self.second.as_mut()?.take())
    }
}
