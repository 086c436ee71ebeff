//! What a frame on the outside is: ESP in UDP, IKE, something that should not be there, or nothing of interest.

use std::hash::{DefaultHasher, Hasher as _};
use std::net::Ipv4Addr;

use wire::{DecodeError, Reader};

/// One packet, as far as an observer without keys can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) content: Content,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Esp(Esp),
    Ike(Ike),
    /// An ICMP error that quotes a packet between these two.
    Quote {
        source: Ipv4Addr,
        destination: Ipv4Addr,
    },
    Other,
}

/// ESP, encapsulated in UDP (RFC 3948) or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Esp {
    pub(super) spi: u32,
    pub(super) sequence: u32,
    /// The first eight octets after the sequence number: with an AEAD, the explicit IV (RFC 4106 §3.1).
    pub(super) iv: u64,
}

/// One IKE message (RFC 7296 §3.1), or one fragment of it (RFC 7383).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ike {
    pub(super) spi_i: u64,
    pub(super) spi_r: u64,
    pub(super) exchange: u8,
    pub(super) from_initiator: bool,
    pub(super) response: bool,
    pub(super) message_id: u32,
    pub(super) fragment: u16,
    /// The first eight octets of the IV, if the message is encrypted.
    pub(super) iv: Option<u64>,
    /// A hash of all its bytes.
    pub(super) digest: u64,
}

/// IKE_SA_INIT (RFC 7296 §3.1).
pub(super) const IKE_SA_INIT: u8 = 34;

/// Reads an Ethernet frame, which may be a train of UDP datagrams (`segment` is then the payload of each but the
/// last), and hands each packet in it to `found`.
pub(super) fn read(frame: &[u8], segment: Option<u16>, mut found: impl FnMut(Packet)) {
    // What ends early is not a packet that any receiver would take.
    read_ethernet(frame, segment.map(usize::from), &mut found).ok();
}

/// Reads a frame with a whole UDP datagram in it: its destination port and its payload.
pub(super) fn read_udp(frame: &[u8]) -> Result<Option<(u16, &[u8])>, DecodeError> {
    let mut r = Reader::new(frame);
    r.bytes("addresses", 12)?;
    if r.u16("EtherType")? != ETHERTYPE_IPV4 {
        return Ok(None);
    }
    let (header, payload) = read_ipv4(&mut r)?;
    if header.protocol != PROTOCOL_UDP || !header.is_first_fragment {
        return Ok(None);
    }
    let mut r = Reader::new(payload);
    r.u16("source port")?;
    let port = r.u16("destination port")?;
    r.u32("length and checksum")?;
    Ok(Some((port, r.take_rest())))
}

fn read_ethernet(frame: &[u8], segment: Option<usize>, found: &mut impl FnMut(Packet)) -> Result<(), DecodeError> {
    let mut r = Reader::new(frame);
    r.bytes("addresses", 12)?;
    if r.u16("EtherType")? != ETHERTYPE_IPV4 {
        return Ok(());
    }
    let (header, payload) = read_ipv4(&mut r)?;
    let mut give = |content| found(Packet { source: header.source, destination: header.destination, content });
    match header.protocol {
        PROTOCOL_UDP if header.is_first_fragment => {
            let mut r = Reader::new(payload);
            let (source, destination) = (r.u16("source port")?, r.u16("destination port")?);
            let length = usize::from(r.u16("UDP length")?).saturating_sub(8);
            r.u16("UDP checksum")?;
            // The length field of a train is that of the train, which may not fit 16 bits; the frame's end counts then.
            let data = r.take_rest();
            let data = if segment.is_some() { data } else { data.get(..length).unwrap_or(data) };
            let step = segment.unwrap_or(data.len()).max(1);
            for datagram in data.chunks(step) {
                give(content_of_udp(source, destination, datagram).unwrap_or(Content::Other));
            }
            if data.is_empty() {
                give(Content::Other);
            }
        }
        PROTOCOL_ESP if header.is_first_fragment => give(content_of_esp(payload)?),
        PROTOCOL_ICMP if header.is_first_fragment => give(content_of_icmp(payload).unwrap_or(Content::Other)),
        _ => give(Content::Other),
    }
    Ok(())
}

struct Ipv4Header {
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    is_first_fragment: bool,
}

fn read_ipv4<'a>(r: &mut Reader<'a>) -> Result<(Ipv4Header, &'a [u8]), DecodeError> {
    let words = usize::from(r.u8("IHL")? & 0x0f);
    r.u8("TOS")?;
    let length = usize::from(r.u16("total length")?);
    r.u16("identification")?;
    let is_first_fragment = r.u16("fragment offset")? & 0x1fff == 0;
    r.u8("TTL")?;
    let protocol = r.u8("protocol")?;
    r.u16("checksum")?;
    let source = Ipv4Addr::from(r.u32("source")?);
    let destination = Ipv4Addr::from(r.u32("destination")?);
    let header = words.saturating_mul(4).max(20);
    r.bytes("options", header - 20)?;
    let rest = r.take_rest();
    // Ethernet pads short frames; a train's length field may be zero.
    let payload = rest.get(..length.saturating_sub(header)).filter(|_| length > header).unwrap_or(rest);
    Ok((Ipv4Header { protocol, source, destination, is_first_fragment }, payload))
}

fn content_of_udp(source: u16, destination: u16, datagram: &[u8]) -> Result<Content, DecodeError> {
    if source == PORT_NAT_T || destination == PORT_NAT_T {
        let mut r = Reader::new(datagram);
        if datagram.len() < 4 {
            return Ok(Content::Other);
        }
        // RFC 3948 §2.2: four zero octets tell IKE from ESP.
        if r.u32("non-ESP marker")? != 0 {
            return content_of_esp(datagram);
        }
        return content_of_ike(r.take_rest());
    }
    if source == PORT_IKE || destination == PORT_IKE {
        return content_of_ike(datagram);
    }
    Ok(Content::Other)
}

fn content_of_esp(bytes: &[u8]) -> Result<Content, DecodeError> {
    let mut r = Reader::new(bytes);
    Ok(Content::Esp(Esp { spi: r.u32("SPI")?, sequence: r.u32("sequence number")?, iv: r.u64("IV")? }))
}

fn content_of_ike(bytes: &[u8]) -> Result<Content, DecodeError> {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    let mut r = Reader::new(bytes);
    let (spi_i, spi_r) = (r.u64("SPI of the initiator")?, r.u64("SPI of the responder")?);
    let next = r.u8("next payload")?;
    r.u8("version")?;
    let exchange = r.u8("exchange type")?;
    let flags = r.u8("flags")?;
    let message_id = r.u32("message ID")?;
    r.u32("length")?;
    let (mut fragment, mut iv) = (0, None);
    if next == PAYLOAD_SK || next == PAYLOAD_SKF {
        r.u32("payload header")?;
        if next == PAYLOAD_SKF {
            fragment = r.u16("fragment number")?;
            r.u16("total fragments")?;
        }
        iv = Some(r.u64("IV")?);
    }
    Ok(Content::Ike(Ike {
        spi_i,
        spi_r,
        exchange,
        from_initiator: flags & 0x08 != 0,
        response: flags & 0x20 != 0,
        message_id,
        fragment,
        iv,
        digest: hasher.finish(),
    }))
}

fn content_of_icmp(bytes: &[u8]) -> Result<Content, DecodeError> {
    let mut r = Reader::new(bytes);
    // RFC 792: unreachable, quench, redirect, time exceeded and parameter problem quote what they are about.
    if !matches!(r.u8("type")?, 3 | 4 | 5 | 11 | 12) {
        return Ok(Content::Other);
    }
    r.bytes("ICMP header", 7)?;
    let (quoted, _) = read_ipv4(&mut r)?;
    Ok(Content::Quote { source: quoted.source, destination: quoted.destination })
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ESP: u8 = 50;
const PORT_IKE: u16 = 500;
const PORT_NAT_T: u16 = 4500;
/// Encrypted and Authenticated (RFC 7296 §3.14).
const PAYLOAD_SK: u8 = 46;
/// Encrypted and Authenticated Fragment (RFC 7383 §2.5).
const PAYLOAD_SKF: u8 = 53;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An Ethernet frame with a UDP datagram from `source` to `destination`, both at port 4500.
    pub(in crate::observer) fn udp_frame(source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_IPV4.to_be_bytes());
        frame.extend([0x45, 0]);
        frame.extend(u16::try_from(28 + payload.len()).unwrap().to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, PROTOCOL_UDP, 0, 0]);
        frame.extend(source);
        frame.extend(destination);
        frame.extend([PORT_NAT_T.to_be_bytes(), PORT_NAT_T.to_be_bytes()].concat());
        frame.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }

    /// ESP with an empty body.
    pub(in crate::observer) fn esp(spi: u32, sequence: u32, iv: u64) -> Vec<u8> {
        [&spi.to_be_bytes()[..], &sequence.to_be_bytes(), &iv.to_be_bytes(), &[0; 16]].concat()
    }

    fn all(frame: &[u8], segment: Option<u16>) -> Vec<Content> {
        let mut found = Vec::new();
        read(frame, segment, |packet| found.push(packet.content));
        found
    }

    #[test]
    fn esp_in_udp_is_read() {
        let frame = udp_frame([198, 51, 100, 1], [198, 51, 100, 101], &esp(0x1234, 7, 9));
        assert_eq!(all(&frame, None), [Content::Esp(Esp { spi: 0x1234, sequence: 7, iv: 9 })]);
    }

    #[test]
    fn a_train_is_read_wagon_by_wagon() {
        let payload = [esp(1, 1, 1), esp(1, 2, 2), esp(1, 3, 3)].concat();
        let found = all(&udp_frame([1; 4], [2; 4], &payload), Some(32));
        assert_eq!(found.len(), 3);
        assert_eq!(found[2], Content::Esp(Esp { spi: 1, sequence: 3, iv: 3 }));
    }

    #[test]
    fn ike_behind_the_marker_is_read_with_its_iv() {
        let mut message = vec![0; 4];
        message.extend([1_u64.to_be_bytes(), 2_u64.to_be_bytes()].concat());
        message.extend([PAYLOAD_SK, 0x20, 37, 0x08, 0, 0, 0, 5, 0, 0, 0, 60, 0, 0, 0, 32]);
        message.extend(0x42_u64.to_be_bytes());
        let found = all(&udp_frame([1; 4], [2; 4], &message), None);
        let Content::Ike(ike) = found[0] else { panic!("{found:?}") };
        assert_eq!((ike.spi_i, ike.spi_r, ike.message_id, ike.iv), (1, 2, 5, Some(0x42)));
        assert!(ike.from_initiator && !ike.response);
    }

    #[test]
    fn an_icmp_error_shows_whom_it_quotes() {
        let quoted = udp_frame([10, 1, 0, 100], [10, 2, 0, 1], &[0; 4]);
        let mut frame = udp_frame([198, 51, 100, 1], [198, 51, 100, 101], &[]);
        frame.truncate(34);
        frame[23] = PROTOCOL_ICMP;
        frame[16..18].copy_from_slice(&[0, 56]);
        frame.extend([3, 1, 0, 0, 0, 0, 0, 0]);
        frame.extend(&quoted[14..42]);
        let source = Ipv4Addr::new(10, 1, 0, 100);
        assert_eq!(all(&frame, None), [Content::Quote { source, destination: Ipv4Addr::new(10, 2, 0, 1) }]);
    }

    #[test]
    fn a_frame_cut_anywhere_is_no_panic() {
        let frame = udp_frame([1; 4], [2; 4], &esp(1, 2, 3));
        for length in 0..frame.len() {
            all(&frame[..length], None);
        }
    }
}
