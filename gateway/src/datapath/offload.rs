//! What the TUN device hands over in one piece, and how it is cut into packets.

use std::ops::Range;

use esp::Flow;

use super::checksum::Sum;

/// `struct virtio_net_hdr`, in the machine's byte order as TUN devices use it by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VnetHeader {
    pub(super) flags: u8,
    pub(super) gso_type: u8,
    pub(super) header_len: u16,
    pub(super) gso_size: u16,
    pub(super) checksum_start: u16,
    pub(super) checksum_offset: u16,
}

impl VnetHeader {
    pub(super) const LEN: usize = 10;
    /// The checksum field holds the sum of the pseudo-header; the rest is to be added.
    pub(super) const NEEDS_CHECKSUM: u8 = 1;
    pub(super) const GSO_NONE: u8 = 0;
    pub(super) const GSO_TCPV4: u8 = 1;
    pub(super) const GSO_UDP_L4: u8 = 5;
    /// A bit beside the type: the super-packet's first segment carries CWR.
    pub(super) const GSO_ECN: u8 = 0x80;

    pub(super) fn read(bytes: &[u8; Self::LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        Self {
            flags,
            gso_type,
            header_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            checksum_start: u16::from_ne_bytes([s0, s1]),
            checksum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let [h0, h1] = self.header_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.checksum_start.to_ne_bytes();
        let [o0, o1] = self.checksum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

pub(super) const PROTOCOL_TCP: u8 = 6;
pub(super) const PROTOCOL_UDP: u8 = 17;
pub(super) const TCP_FIN: u8 = 0x01;
pub(super) const TCP_PSH: u8 = 0x08;
pub(super) const TCP_ACK: u8 = 0x10;
pub(super) const TCP_CWR: u8 = 0x80;
/// The widest IP and TCP headers, 60 octets each.
const HEADERS_MAX: usize = 120;

/// The device's offload header contradicts the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How a super-packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One packet, complete as it is.
    Whole,
    Tcp,
    Udp,
}

/// Cuts a packet from the TUN device into what goes on the wire, in place: each segment's headers are written in front of
/// its payload, over the end of the segment before it. So segments are made, and used, in order.
pub(super) struct Segments {
    kind: Kind,
    headers: [u8; HEADERS_MAX],
    ip_len: usize,
    headers_len: usize,
    total_len: usize,
    segment_payload: usize,
    count: usize,
    flow: Flow,
}

impl Segments {
    /// Looks at a packet whose checksum is complete if it goes out in one piece.
    pub(super) fn new(vnet: VnetHeader, packet: &[u8], flow: &Flow) -> Result<Self, Malformed> {
        let kind = match vnet.gso_type & !VnetHeader::GSO_ECN {
            VnetHeader::GSO_NONE => Kind::Whole,
            VnetHeader::GSO_TCPV4 if flow.protocol == PROTOCOL_TCP => Kind::Tcp,
            VnetHeader::GSO_UDP_L4 if flow.protocol == PROTOCOL_UDP => Kind::Udp,
            _ => return Err(Malformed),
        };
        let total_len = flow.total_len;
        let (ip_len, transport) = (flow.header_len, packet.get(flow.header_len..total_len).ok_or(Malformed)?);
        let transport_len = match kind {
            Kind::Whole => 0,
            Kind::Tcp => usize::from(transport.get(12).ok_or(Malformed)? >> 4) * 4,
            Kind::Udp => 8,
        };
        let headers_len = ip_len + transport_len;
        let segment_payload = match kind {
            Kind::Whole => total_len,
            Kind::Tcp | Kind::Udp => usize::from(vnet.gso_size),
        };
        let mut headers = [0; HEADERS_MAX];
        let count = match kind {
            Kind::Whole => 1,
            Kind::Tcp | Kind::Udp => {
                if segment_payload == 0 || (kind == Kind::Tcp && transport_len < 20) || headers_len > total_len {
                    return Err(Malformed);
                }
                headers[..headers_len].copy_from_slice(&packet[..headers_len]);
                (total_len - headers_len).div_ceil(segment_payload).max(1)
            }
        };
        Ok(Self { kind, headers, ip_len, headers_len, total_len, segment_payload, count, flow: *flow })
    }

    /// How many packets come out.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Writes the headers of segment `index` and tells where the segment stands in `packet`.
    pub(super) fn make(&self, packet: &mut [u8], index: usize) -> Range<usize> {
        if self.kind == Kind::Whole {
            return 0..self.total_len;
        }
        let payload_start = self.headers_len + index * self.segment_payload;
        let end = (payload_start + self.segment_payload).min(self.total_len);
        let start = payload_start - self.headers_len;
        let segment = &mut packet[start..end];
        segment[..self.headers_len].copy_from_slice(&self.headers[..self.headers_len]);
        let len = u16::try_from(segment.len()).unwrap_or(u16::MAX);
        let (ip, transport) = segment.split_at_mut(self.ip_len);

        ip[2..4].copy_from_slice(&len.to_be_bytes());
        // The n-th segment of a super-packet carries the n-th identification.
        let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(u16::try_from(index).unwrap_or(0));
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[10..12].fill(0);
        let checksum = Sum::default().add(ip).checksum();
        ip[10..12].copy_from_slice(&checksum);

        let transport_len = u16::try_from(transport.len()).unwrap_or(u16::MAX);
        let field = if self.kind == Kind::Tcp {
            let offset = u32::try_from(index * self.segment_payload).unwrap_or(0);
            let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            transport[4..8].copy_from_slice(&sequence.wrapping_add(offset).to_be_bytes());
            if index > 0 {
                transport[13] &= !TCP_CWR;
            }
            if index + 1 < self.count {
                transport[13] &= !(TCP_FIN | TCP_PSH);
            }
            16
        } else {
            transport[4..6].copy_from_slice(&transport_len.to_be_bytes());
            6
        };
        transport[field..field + 2].fill(0);
        let sum = Sum::default().add_pseudo(self.flow.source, self.flow.destination, self.flow.protocol, transport_len);
        let checksum = transport_checksum(sum.add(transport), self.flow.protocol);
        transport[field..field + 2].copy_from_slice(&checksum);
        start..end
    }
}

/// RFC 768: a UDP checksum that comes out as 0 is sent as all ones, because 0 means none.
fn transport_checksum(sum: Sum, protocol: u8) -> [u8; 2] {
    let checksum = sum.checksum();
    if protocol == PROTOCOL_UDP && checksum == [0, 0] { [0xff, 0xff] } else { checksum }
}

/// Completes the checksum of a packet that goes out in one piece, and returns the offload header that says so.
pub(super) fn complete_checksum(vnet: VnetHeader, packet: &mut [u8], flow: &Flow) -> Result<VnetHeader, Malformed> {
    if vnet.gso_type != VnetHeader::GSO_NONE || vnet.flags & VnetHeader::NEEDS_CHECKSUM == 0 {
        return Ok(vnet);
    }
    let packet = packet.get_mut(..flow.total_len).ok_or(Malformed)?;
    let start = usize::from(vnet.checksum_start);
    let field = start + usize::from(vnet.checksum_offset);
    if start < flow.header_len || field + 2 > packet.len() {
        return Err(Malformed);
    }
    // The field holds the pseudo-header's sum, so it is part of what is summed.
    let checksum = transport_checksum(Sum::default().add(&packet[start..]), flow.protocol);
    packet[field..field + 2].copy_from_slice(&checksum);
    Ok(VnetHeader::default())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A TCP packet with a timestamp option and a right checksum.
    pub(in crate::datapath) fn tcp(sequence: u32, flags: u8, id: u16, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(52 + payload.len()).unwrap().to_be_bytes();
        let id = id.to_be_bytes();
        let mut packet = vec![0x45, 2, len[0], len[1], id[0], id[1], 0x40, 0, 63, 6, 0, 0, 10, 9, 0, 1, 10, 8, 0, 2];
        packet.extend([0x13, 0x88, 0xc0, 0x01]);
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 9, 0x80, flags, 1, 0, 0, 0, 0, 0]);
        packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        packet.extend(payload);
        finish(&mut packet);
        packet
    }

    fn finish(packet: &mut [u8]) {
        packet[10..12].fill(0);
        let checksum = Sum::default().add(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&checksum);
        let field = if packet[9] == PROTOCOL_TCP { 36 } else { 26 };
        packet[field..field + 2].fill(0);
        let len = u16::try_from(packet.len() - 20).unwrap();
        let sum = Sum::default().add_pseudo([10, 9, 0, 1].into(), [10, 8, 0, 2].into(), packet[9], len);
        let checksum = sum.add(&packet[20..]).checksum();
        packet[field..field + 2].copy_from_slice(&checksum);
    }

    fn udp(payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(28 + payload.len()).unwrap().to_be_bytes();
        let udp_len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, len[0], len[1], 0, 7, 0x40, 0, 63, 17, 0, 0, 10, 9, 0, 1, 10, 8, 0, 2];
        packet.extend([0x13, 0x88, 0xc0, 0x01, udp_len[0], udp_len[1], 0, 0]);
        packet.extend(payload);
        finish(&mut packet);
        packet
    }

    #[test]
    fn a_tcp_super_packet_becomes_what_the_host_would_have_sent() {
        let payload: Vec<u8> = (0..2500_u32).map(|i| i as u8).collect();
        let vnet = VnetHeader { flags: 1, gso_type: 1 | VnetHeader::GSO_ECN, gso_size: 1000, ..VnetHeader::default() };
        let flags = TCP_ACK | TCP_PSH | TCP_CWR;
        let mut packet = tcp(u32::MAX - 500, flags, 0xffff, &payload);
        let flow = Flow::parse(&packet).unwrap();
        let segments = Segments::new(vnet, &packet, &flow).unwrap();
        assert_eq!(segments.count(), 3);
        let expected = [
            tcp(u32::MAX - 500, TCP_ACK | TCP_CWR, 0xffff, &payload[..1000]),
            tcp(499, TCP_ACK, 0, &payload[1000..2000]),
            tcp(1499, TCP_ACK | TCP_PSH, 1, &payload[2000..]),
        ];
        for (i, expected) in expected.iter().enumerate() {
            let place = segments.make(&mut packet, i);
            assert_eq!(&packet[place], expected, "segment {i}");
        }
    }

    #[test]
    fn a_udp_super_packet_is_cut_alike() {
        let payload = [7; 250];
        let vnet = VnetHeader { flags: 1, gso_type: 5, gso_size: 100, ..VnetHeader::default() };
        let mut packet = udp(&payload);
        let flow = Flow::parse(&packet).unwrap();
        let segments = Segments::new(vnet, &packet, &flow).unwrap();
        for (i, len) in [100, 100, 50].into_iter().enumerate() {
            let mut expected = udp(&payload[..len]);
            expected[5] = 7 + u8::try_from(i).unwrap();
            finish(&mut expected);
            let place = segments.make(&mut packet, i);
            assert_eq!(packet[place], expected, "segment {i}");
        }
    }

    #[test]
    fn a_whole_packet_gets_its_checksum_completed() {
        for (mut packet, field) in [(tcp(1, TCP_ACK, 3, &[1, 2, 3]), 36), (udp(&[1, 2, 3]), 26)] {
            let expected = packet.clone();
            let len = u16::try_from(packet.len() - 20).unwrap();
            let pseudo = Sum::default().add_pseudo([10, 9, 0, 1].into(), [10, 8, 0, 2].into(), packet[9], len);
            packet[field..field + 2].copy_from_slice(&pseudo.partial());
            let vnet = VnetHeader {
                flags: 1,
                checksum_start: 20,
                checksum_offset: u16::try_from(field - 20).unwrap(),
                ..VnetHeader::default()
            };
            let flow = Flow::parse(&packet).unwrap();
            assert_eq!(complete_checksum(vnet, &mut packet, &flow), Ok(VnetHeader::default()));
            assert_eq!(packet, expected);
        }
    }

    #[test]
    fn offload_headers_that_contradict_the_packet_are_refused() {
        let packet = tcp(1, TCP_ACK, 3, &[0; 100]);
        let flow = Flow::parse(&packet).unwrap();
        for vnet in [
            VnetHeader { gso_type: 3, gso_size: 10, ..VnetHeader::default() },
            VnetHeader { gso_type: 5, gso_size: 10, ..VnetHeader::default() },
            VnetHeader { gso_type: 1, gso_size: 0, ..VnetHeader::default() },
            VnetHeader { flags: 1, checksum_start: 19, checksum_offset: 16, ..VnetHeader::default() },
            VnetHeader { flags: 1, checksum_start: 20, checksum_offset: 200, ..VnetHeader::default() },
        ] {
            let refused = complete_checksum(vnet, &mut packet.clone(), &flow).is_err()
                || Segments::new(vnet, &packet, &flow).is_err();
            assert!(refused, "{vnet:?}");
        }
    }

    #[test]
    fn the_offload_header_reads_back() {
        let vnet =
            VnetHeader { flags: 1, gso_type: 2, header_len: 3, gso_size: 4, checksum_start: 5, checksum_offset: 6 };
        assert_eq!(VnetHeader::read(&vnet.to_bytes()), vnet);
    }
}
