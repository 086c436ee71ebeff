//! Inner packets: numbered probes in UDP.

use std::net::{Ipv4Addr, SocketAddrV4};

use wire::Reader;

/// What a probe carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// Its number in its stream.
    pub(super) number: u32,
}

/// The port that each session sends from.
pub(super) const PORT: u16 = 7_000;

/// Writes a probe as an IPv4 packet.
pub(super) fn write(from: Ipv4Addr, to: SocketAddrV4, probe: &Probe) -> Vec<u8> {
    let mut packet = Vec::with_capacity(64);
    let length: u16 = 20 + 8 + 4;
    packet.extend([0x45, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, PROTOCOL_UDP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.ip().octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend((8_u16 + 4).to_be_bytes());
    // RFC 768: no checksum; ESP protects the packet better.
    packet.extend([0, 0]);
    packet.extend(probe.number.to_be_bytes());
    packet
}

/// Reads a probe, or an answer to one, out of an IPv4 packet.
pub(super) fn read(packet: &[u8]) -> Option<Probe> {
    let mut r = Reader::new(packet);
    r.bytes("header up to the protocol", 9).ok()?;
    let protocol = r.u8("protocol").ok()?;
    r.bytes("rest of the header, and UDP's", 10 + 8).ok()?;
    (protocol == PROTOCOL_UDP).then_some(Probe { number: r.u32("number").ok()? })
}

/// The Internet checksum (RFC 1071) of an even number of octets.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

const PROTOCOL_UDP: u8 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_reads_as_it_was_written_and_its_header_sums_to_nothing() {
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 100), 7);
        let packet = write(Ipv4Addr::new(10, 2, 0, 1), to, &Probe { number: 77 });
        assert_eq!(read(&packet), Some(Probe { number: 77 }));
        assert_eq!(checksum(&packet[..20]), 0);
        for length in 0..packet.len() {
            assert_eq!(read(&packet[..length]), None, "cut at {length}");
        }
    }
}
