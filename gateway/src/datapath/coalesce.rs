//! Joins consecutive TCP segments of one flow into a super-packet for the TUN device.

use std::io::IoSlice;
use std::ops::Range;

use esp::Flow;

use super::checksum::Sum;
use super::offload::{PROTOCOL_TCP, TCP_ACK, TCP_PSH, VnetHeader};

/// An inner packet that stands in the receive buffer.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    pub(super) place: Range<usize>,
    pub(super) flow: Flow,
}

/// The longest IP packet.
const PACKET_MAX: usize = 65_535;
/// The longest run that is joined: a train has no more.
pub(super) const RUN_MAX: usize = 64;

/// What has to agree between segments that are joined.
struct Segment<'a> {
    packet: &'a [u8],
    headers_len: usize,
    sequence: u32,
    flags: u8,
}

impl<'a> Segment<'a> {
    /// Looks at a packet; `None` if it must stay alone.
    fn new(buffer: &'a [u8], inner: &Inner) -> Option<Self> {
        let packet = buffer.get(inner.place.clone())?;
        if inner.flow.protocol != PROTOCOL_TCP || inner.flow.header_len != 20 {
            return None;
        }
        let (ip, tcp) = packet.split_first_chunk::<20>()?;
        let fixed = tcp.first_chunk::<20>()?;
        // Only whole packets with "don't fragment": the kernel numbers the segments anew, which RFC 6864 §4.1 allows for these.
        if ip[6..8] != [0x40, 0] {
            return None;
        }
        let flags = fixed[13];
        let headers_len = 20 + usize::from(fixed[12] >> 4) * 4;
        if (flags != TCP_ACK && flags != TCP_ACK | TCP_PSH) || headers_len < 40 || headers_len >= packet.len() {
            return None;
        }
        // A damaged segment must not leave with a checksum that is made anew.
        let len = u16::try_from(tcp.len()).ok()?;
        let sum = Sum::default().add_pseudo(inner.flow.source, inner.flow.destination, PROTOCOL_TCP, len);
        if !sum.add(tcp).verifies() {
            return None;
        }
        let sequence = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        Some(Self { packet, headers_len, sequence, flags })
    }

    fn payload_len(&self) -> usize {
        self.packet.len() - self.headers_len
    }

    /// Whether both are of one flow and differ in nothing that a super-packet cannot express.
    fn same_flow(&self, other: &Self) -> bool {
        let (a, b) = (self.packet, other.packet);
        self.headers_len == other.headers_len
            // Version, header length and type of service; time to live and protocol; addresses.
            && a[..2] == b[..2]
            && a[8..10] == b[8..10]
            && a[12..20] == b[12..20]
            // Ports; the acknowledgement; the data offset; the options.
            && a[20..24] == b[20..24]
            && a[28..33] == b[28..33]
            && a[40..self.headers_len] == b[40..other.headers_len]
    }
}

/// How many of the packets at the front of `packets` make one super-packet; at least 1 if there are any.
pub(super) fn run_len(buffer: &[u8], packets: &[Inner]) -> usize {
    let Some(first) = packets.first().and_then(|inner| Segment::new(buffer, inner)) else {
        return packets.len().min(1);
    };
    let segment_len = first.payload_len();
    let mut len = first.packet.len();
    let mut run = 1;
    let mut last = (first.sequence, first.flags, segment_len);
    for inner in packets.iter().take(RUN_MAX).skip(1) {
        let (sequence, flags, payload_len) = last;
        // A push or a short segment ends the run.
        if flags & TCP_PSH != 0 || payload_len != segment_len {
            break;
        }
        let Some(next) = Segment::new(buffer, inner) else { break };
        let expected = sequence.wrapping_add(u32::try_from(payload_len).unwrap_or(0));
        if next.sequence != expected
            || next.payload_len() > segment_len
            || len + next.payload_len() > PACKET_MAX
            || !first.same_flow(&next)
        {
            break;
        }
        len += next.payload_len();
        last = (next.sequence, next.flags, next.payload_len());
        run += 1;
    }
    run
}

/// Makes the packets of a run into one super-packet: its headers are written over those of the first.
pub(super) fn join(buffer: &mut [u8], run: &[Inner]) -> VnetHeader {
    let [first, .., last] = run else {
        return VnetHeader::default();
    };
    let last_flags = buffer[last.place.start + 33];
    let packet = &mut buffer[first.place.clone()];
    let headers_len = 20 + usize::from(packet[32] >> 4) * 4;
    let segment_len = packet.len() - headers_len;
    let total = packet.len() + run[1..].iter().map(|inner| inner.place.len() - headers_len).sum::<usize>();
    let total = u16::try_from(total).unwrap_or(u16::MAX);

    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[10..12].fill(0);
    let checksum = Sum::default().add(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&checksum);
    packet[33] |= last_flags;
    let pseudo = Sum::default().add_pseudo(first.flow.source, first.flow.destination, PROTOCOL_TCP, total - 20);
    packet[36..38].copy_from_slice(&pseudo.partial());
    VnetHeader {
        flags: VnetHeader::NEEDS_CHECKSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        header_len: u16::try_from(headers_len).unwrap_or(0),
        gso_size: u16::try_from(segment_len).unwrap_or(0),
        checksum_start: 20,
        checksum_offset: 16,
    }
}

/// The pieces of a run in order: the offload header, the first packet whole, the payloads of the others.
pub(super) fn pieces<'a>(
    vnet: &'a [u8; VnetHeader::LEN],
    buffer: &'a [u8],
    run: &[Inner],
    pieces: &mut [IoSlice<'a>; RUN_MAX + 1],
) -> usize {
    pieces[0] = IoSlice::new(vnet);
    let mut headers_len = 0;
    let mut count = 1;
    for (piece, inner) in pieces[1..].iter_mut().zip(run) {
        let packet = &buffer[inner.place.clone()];
        *piece = IoSlice::new(&packet[headers_len..]);
        if headers_len == 0 && run.len() > 1 {
            headers_len = 20 + usize::from(packet[32] >> 4) * 4;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::offload::tests::tcp;
    use super::super::offload::{Segments, TCP_FIN};
    use super::*;

    fn lay_out(packets: &[Vec<u8>]) -> (Vec<u8>, Vec<Inner>) {
        let (mut buffer, mut inners) = (Vec::new(), Vec::new());
        for packet in packets {
            buffer.extend([0xaa; 16]);
            let start = buffer.len();
            buffer.extend(packet);
            inners.push(Inner { place: start..buffer.len(), flow: Flow::parse(packet).unwrap() });
        }
        (buffer, inners)
    }

    fn train(count: u32) -> Vec<Vec<u8>> {
        (0..count).map(|i| tcp(1000 + i * 100, TCP_ACK, i as u16, &[i as u8; 100])).collect()
    }

    #[test]
    fn what_was_joined_is_cut_into_the_same_packets_again() {
        let mut packets = train(5);
        packets.push(tcp(1500, TCP_ACK | TCP_PSH, 5, &[9; 33]));
        let (mut buffer, inners) = lay_out(&packets);
        assert_eq!(run_len(&buffer, &inners), 6);
        let vnet = join(&mut buffer, &inners);
        let header = vnet.to_bytes();
        let mut slices = [IoSlice::new(&[]); RUN_MAX + 1];
        let count = pieces(&header, &buffer, &inners, &mut slices);
        let mut whole: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        let mut packet = whole.split_off(VnetHeader::LEN);
        assert_eq!(VnetHeader::read(whole.first_chunk().unwrap()), vnet);
        let flow = Flow::parse(&packet).unwrap();
        assert_eq!(flow.total_len, packet.len());
        let segments = Segments::new(vnet, &packet, &flow).unwrap();
        for (i, expected) in packets.iter().enumerate() {
            let place = segments.make(&mut packet, i);
            assert_eq!(&packet[place], expected, "segment {i}");
        }
    }

    #[test]
    fn a_run_ends_where_a_super_packet_could_not_say_it() {
        type Change = fn(&mut Vec<u8>);
        let cases: [(&str, Change, usize); 7] = [
            ("another sequence number", |p| *p = tcp(1201, TCP_ACK, 2, &[2; 100]), 2),
            ("a longer segment", |p| *p = tcp(1200, TCP_ACK, 2, &[2; 101]), 2),
            ("a shorter segment is the last", |p| *p = tcp(1200, TCP_ACK, 2, &[2; 99]), 3),
            ("a push is the last", |p| *p = tcp(1200, TCP_ACK | TCP_PSH, 2, &[2; 100]), 3),
            ("a fin stays alone", |p| *p = tcp(1200, TCP_ACK | TCP_FIN, 2, &[2; 100]), 2),
            ("a damaged segment stays alone", |p| p[80] ^= 1, 2),
            ("a pure acknowledgement stays alone", |p| *p = tcp(1200, TCP_ACK, 2, &[]), 2),
        ];
        for (name, change, expected) in cases {
            let mut packets = train(5);
            change(&mut packets[2]);
            let (buffer, inners) = lay_out(&packets);
            assert_eq!(run_len(&buffer, &inners), expected, "{name}");
        }
        let mut other = train(2);
        other[1][1] = 0;
        let (buffer, inners) = lay_out(&other);
        assert_eq!(run_len(&buffer, &inners), 1, "another type of service");
        assert_eq!(run_len(&buffer, &[]), 0);
    }

    #[test]
    fn a_super_packet_never_exceeds_what_ip_can_say() {
        let packets: Vec<_> = (0..50_u32).map(|i| tcp(i * 1400, TCP_ACK, 0, &[0; 1400])).collect();
        let (buffer, inners) = lay_out(&packets);
        assert_eq!(run_len(&buffer, &inners), (PACKET_MAX - 52) / 1400);
    }
}
