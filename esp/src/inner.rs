//! What ESP looks at in the packets that it carries, and the selectors that it enforces.

use std::net::{IpAddr, Ipv4Addr};

use wire::TrafficSelector;

/// The parts of an inner packet that selectors speak of (RFC 4301 §4.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Where it comes from.
    pub source: Ipv4Addr,
    /// Where it goes.
    pub destination: Ipv4Addr,
    /// Its protocol.
    pub protocol: u8,
    /// Source and destination port, or type and code of ICMP in both; `None` if the packet does not show them, as a
    /// fragment behind the first.
    pub ports: Option<(u16, u16)>,
    /// Octets of the IP header.
    pub header_len: usize,
    /// Octets of the whole packet, by its own header.
    pub total_len: usize,
}

/// The bytes are no inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// Not IPv4.
    #[error("not an IPv4 packet")]
    Version,
    /// The header is cut, or its lengths contradict each other or the bytes.
    #[error("the header is malformed")]
    Header,
}

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_DCCP: u8 = 33;
const PROTOCOL_SCTP: u8 = 132;
const PROTOCOL_UDP_LITE: u8 = 136;

impl Flow {
    /// Reads the header of an IPv4 packet (RFC 791 §3.1). Bytes behind the packet's own length are traffic flow
    /// confidentiality padding (RFC 4303 §2.7).
    ///
    /// # Errors
    /// It is none, or malformed.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, FlowError> {
        let Some((header, rest)) = packet.split_first_chunk::<20>() else {
            return Err(FlowError::Header);
        };
        let [
            first,
            _,
            len_high,
            len_low,
            _,
            _,
            fragment_high,
            fragment_low,
            _,
            protocol,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ] = *header;
        if first >> 4 != 4 {
            return Err(FlowError::Version);
        }
        let header_len = usize::from(first & 0x0f).saturating_mul(4);
        let total_len = usize::from(u16::from_be_bytes([len_high, len_low]));
        let options_len = header_len.checked_sub(20).ok_or(FlowError::Header)?;
        if total_len < header_len || total_len > packet.len() {
            return Err(FlowError::Header);
        }
        let payload_len = total_len.saturating_sub(header_len);
        let payload = rest.get(options_len..).and_then(|rest| rest.get(..payload_len)).ok_or(FlowError::Header)?;
        let fragment_offset = u16::from_be_bytes([fragment_high & 0x1f, fragment_low]);
        let ports = if fragment_offset == 0 { ports(protocol, payload) } else { None };
        Ok(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
            protocol,
            ports,
            header_len,
            total_len,
        })
    }
}

fn ports(protocol: u8, payload: &[u8]) -> Option<(u16, u16)> {
    match protocol {
        PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_DCCP | PROTOCOL_SCTP | PROTOCOL_UDP_LITE => {
            let [s0, s1, d0, d1] = *payload.first_chunk()?;
            Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
        }
        // RFC 7296 §3.13.1: the type in the high octet, the code in the low one.
        PROTOCOL_ICMP => payload.first_chunk().map(|kind| (u16::from_be_bytes(*kind), u16::from_be_bytes(*kind))),
        _ => None,
    }
}

/// The traffic selectors of an SA pair, ready for looking at each packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectors {
    local: Box<[Range]>,
    remote: Box<[Range]>,
}

impl Selectors {
    /// Prepares the selectors of our and of the peer's side.
    #[must_use]
    pub fn new(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Self {
        let ranges = |selectors: &[TrafficSelector]| selectors.iter().filter_map(Range::new).collect();
        Self { local: ranges(local), remote: ranges(remote) }
    }

    /// Whether a packet to the peer may use the SA.
    #[inline]
    #[must_use]
    pub fn permit_outbound(&self, flow: &Flow) -> bool {
        any(&self.local, flow.source, flow.protocol, flow.ports.map(|(source, _)| source))
            && any(&self.remote, flow.destination, flow.protocol, flow.ports.map(|(_, destination)| destination))
    }

    /// Whether a packet from the peer may have come by the SA (RFC 4301 §5.2).
    #[inline]
    #[must_use]
    pub fn permit_inbound(&self, flow: &Flow) -> bool {
        any(&self.remote, flow.source, flow.protocol, flow.ports.map(|(source, _)| source))
            && any(&self.local, flow.destination, flow.protocol, flow.ports.map(|(_, destination)| destination))
    }
}

/// A traffic selector of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: Ipv4Addr,
    last: Ipv4Addr,
    protocol: u8,
    port_first: u16,
    port_last: u16,
}

impl Range {
    const fn new(selector: &TrafficSelector) -> Option<Self> {
        let TrafficSelector { protocol, port_first, port_last, first, last } = *selector;
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Some(Self { first, last, protocol, port_first, port_last }),
            (IpAddr::V6(_), _) | (_, IpAddr::V6(_)) => None,
        }
    }

    fn matches(&self, address: Ipv4Addr, protocol: u8, port: Option<u16>) -> bool {
        self.first <= address
            && address <= self.last
            && (self.protocol == 0 || self.protocol == protocol)
            && match port {
                Some(port) => self.port_first <= port && port <= self.port_last,
                // RFC 4301 §4.4.1.1: ports that cannot be seen match only a selector that takes any.
                None => self.port_first == 0 && self.port_last == u16::MAX,
            }
    }
}

fn any(ranges: &[Range], address: Ipv4Addr, protocol: u8, port: Option<u16>) -> bool {
    ranges.iter().any(|range| range.matches(address, protocol, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let fragment = fragment.to_be_bytes();
        let mut bytes = vec![0x45, 0, len[0], len[1], 0, 0, fragment[0], fragment[1], 64, protocol, 0, 0];
        bytes.extend([10, 9, 0, 1, 10, 8, 0, 2]);
        bytes.extend(payload);
        bytes
    }

    fn selector(text: &str, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
        let all = TrafficSelector::from_prefix(text.parse().unwrap());
        TrafficSelector { protocol, port_first: ports.0, port_last: ports.1, ..all }
    }

    #[test]
    fn a_flow_shows_addresses_protocol_and_ports() {
        let flow = Flow::parse(&packet(6, 0x4000, &[0, 80, 1, 2, 9])).unwrap();
        assert_eq!((flow.source, flow.destination), (Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 8, 0, 2)));
        assert_eq!((flow.protocol, flow.ports, flow.header_len, flow.total_len), (6, Some((80, 258)), 20, 25));
        assert_eq!(Flow::parse(&packet(1, 0, &[8, 0, 0, 0])).unwrap().ports, Some((0x0800, 0x0800)));
    }

    #[test]
    fn ports_of_later_fragments_and_cut_headers_are_not_guessed() {
        assert_eq!(Flow::parse(&packet(17, 100, &[0, 80, 1, 2])).unwrap().ports, None);
        assert_eq!(Flow::parse(&packet(17, 0, &[0, 80, 1])).unwrap().ports, None);
    }

    #[test]
    fn malformed_headers_are_refused() {
        let good = packet(6, 0, &[0; 8]);
        for len in 0..good.len() {
            assert_eq!(Flow::parse(&good[..len]), Err(FlowError::Header), "cut at {len}");
        }
        for (place, value, error) in [
            (0, 0x65, FlowError::Version),
            (0, 0x44, FlowError::Header),
            (0, 0x4f, FlowError::Header),
            (3, 19, FlowError::Header),
        ] {
            let mut bad = good.clone();
            bad[place] = value;
            assert_eq!(Flow::parse(&bad), Err(error), "octet {place} = {value:#x}");
        }
        let padded = [&good[..], &[0; 100]].concat();
        assert_eq!(Flow::parse(&padded).unwrap().total_len, good.len());
    }

    #[test]
    fn selectors_are_enforced_both_ways() {
        let selectors =
            Selectors::new(&[selector("10.9.0.0/16", 0, (0, u16::MAX))], &[selector("10.8.0.2/32", 6, (258, 300))]);
        let out = Flow::parse(&packet(6, 0, &[0, 80, 1, 2])).unwrap();
        let back = Flow { source: out.destination, destination: out.source, ports: Some((258, 80)), ..out };
        assert!(selectors.permit_outbound(&out) && !selectors.permit_inbound(&out));
        assert!(selectors.permit_inbound(&back) && !selectors.permit_outbound(&back));
        assert!(!selectors.permit_outbound(&Flow { protocol: 17, ..out }));
        assert!(!selectors.permit_outbound(&Flow { ports: Some((80, 301)), ..out }));
        assert!(!selectors.permit_outbound(&Flow { ports: None, ..out }));
        assert!(!selectors.permit_outbound(&Flow { destination: Ipv4Addr::new(10, 8, 0, 3), ..out }));
        assert!(!selectors.permit_inbound(&Flow { source: Ipv4Addr::new(10, 8, 0, 3), ..back }), "a spoofed source");
    }
}
