//! The Traffic Selector payloads (RFC 7296 §3.13).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::{Cause, DecodeError, Reader, TrafficSelector, Writer};

/// Selectors in one payload at the most. Our bound; more than that is refused as malformed.
pub(crate) const SELECTORS_MAX: usize = 64;

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;

/// Reads a TS payload; selectors of an unknown type are left out.
///
/// # Errors
/// A length does not fit, a range runs backwards, or there are too many.
pub(crate) fn decode(mut r: Reader<'_>) -> Result<Vec<TrafficSelector>, DecodeError> {
    let count = usize::from(r.u8("Number of TSs")?);
    r.bytes("RESERVED", 3)?;
    if count == 0 || count > SELECTORS_MAX {
        return Err(r.error("Number of TSs", Cause::Range));
    }
    let mut selectors = Vec::with_capacity(count);
    for _ in 0..count {
        let ts_type = r.u8("TS Type")?;
        let protocol = r.u8("IP Protocol ID")?;
        let len = usize::from(r.u16("Selector Length")?);
        let Some(len) = len.checked_sub(4) else {
            return Err(r.error("Selector Length", Cause::Range));
        };
        let mut body = r.sub("Traffic Selector", len)?;
        let ports = |body: &mut Reader<'_>| Ok((body.u16("Start Port")?, body.u16("End Port")?));
        let (ports, first, last): (Result<(u16, u16), DecodeError>, IpAddr, IpAddr) = match ts_type {
            TS_IPV4_ADDR_RANGE => (
                ports(&mut body),
                Ipv4Addr::from_octets(body.array("Starting Address")?).into(),
                Ipv4Addr::from_octets(body.array("Ending Address")?).into(),
            ),
            TS_IPV6_ADDR_RANGE => (
                ports(&mut body),
                Ipv6Addr::from_octets(body.array("Starting Address")?).into(),
                Ipv6Addr::from_octets(body.array("Ending Address")?).into(),
            ),
            _ => continue,
        };
        let (mut port_first, mut port_last) = ports?;
        body.finish("Traffic Selector")?;
        if (port_first, port_last) == (u16::MAX, 0) {
            // RFC 7296 §3.13.1: OPAQUE. Only a selector of all ports covers it; we take it as that.
            (port_first, port_last) = (0, u16::MAX);
        }
        if first > last || port_first > port_last {
            return Err(body.error("Ending Address", Cause::Range));
        }
        selectors.push(TrafficSelector { protocol, port_first, port_last, first, last });
    }
    r.finish("Traffic Selectors")?;
    Ok(selectors)
}

/// Writes a TS payload; no more than [`SELECTORS_MAX`] selectors.
pub(crate) fn encode(w: &mut Writer, selectors: &[TrafficSelector]) {
    let count = selectors.len().min(SELECTORS_MAX);
    w.u8(u8::try_from(count).unwrap_or(u8::MAX));
    w.bytes(&[0; 3]);
    for ts in selectors.iter().take(count) {
        let v4 = ts.first.is_ipv4();
        w.u8(if v4 { TS_IPV4_ADDR_RANGE } else { TS_IPV6_ADDR_RANGE });
        w.u8(ts.protocol);
        w.u16(if v4 { 16 } else { 40 });
        w.u16(ts.port_first);
        w.u16(ts.port_last);
        for address in [ts.first, ts.last] {
            match address {
                IpAddr::V4(a) => w.bytes(&a.octets()),
                IpAddr::V6(a) => w.bytes(&a.octets()),
            }
        }
    }
}

/// What is left of `offered` under `allowed` (narrowing, RFC 7296 §2.9): each pair's intersection, no doubles.
pub(crate) fn narrow(offered: &[TrafficSelector], allowed: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for both in offered.iter().flat_map(|o| allowed.iter().filter_map(|a| o.intersection(a))) {
        if narrowed.len() < SELECTORS_MAX && !narrowed.iter().any(|n| n.covers(&both)) {
            narrowed.retain(|n| !both.covers(n));
            narrowed.push(both);
        }
    }
    narrowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> TrafficSelector {
        TrafficSelector::from_prefix(text.parse().unwrap())
    }

    fn encoded(selectors: &[TrafficSelector]) -> Vec<u8> {
        let mut w = Writer::new();
        encode(&mut w, selectors);
        w.into_bytes()
    }

    /// `10.9.0.0/16`, TCP, as RFC 7296 §3.13.1 draws it.
    const REAL: [u8; 20] = [1, 0, 0, 0, 7, 6, 0, 16, 0, 0, 0xff, 0xff, 10, 9, 0, 0, 10, 9, 255, 255];

    #[test]
    fn real_octets_decode_and_values_round_trip() {
        let tcp = TrafficSelector { protocol: 6, ..prefix("10.9.0.0/16") };
        assert_eq!(decode(Reader::new(&REAL)), Ok(vec![tcp]));
        assert_eq!(encoded(&[tcp]), REAL);
        let both = vec![prefix("0.0.0.0/0"), prefix("2001:db8::/32")];
        assert_eq!(decode(Reader::new(&encoded(&both))), Ok(both));
    }

    #[test]
    fn cut_anywhere_is_an_error() {
        for len in 0..REAL.len() {
            assert!(decode(Reader::new(&REAL[..len])).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn counts_lengths_and_ranges_out_of_bounds_are_refused() {
        // Number of TSs, length, start port above end port, start address above end address.
        for (octet, value) in [(0, 0), (0, 2), (0, 65), (7, 3), (7, 15), (7, 17), (8, 1), (12, 11)] {
            let mut bytes = REAL;
            bytes[octet] = value;
            if octet == 8 {
                bytes[10] = 0;
            }
            assert!(decode(Reader::new(&bytes)).is_err(), "octet {octet} = {value}");
        }
    }

    #[test]
    fn an_unknown_type_is_left_out_and_opaque_ports_are_all_ports() {
        let mut bytes = REAL;
        bytes[4] = 9;
        assert_eq!(decode(Reader::new(&bytes)), Ok(vec![]));
        let mut bytes = REAL;
        bytes[8..12].copy_from_slice(&[0xff, 0xff, 0, 0]);
        assert_eq!(decode(Reader::new(&bytes)).unwrap()[0].port_last, u16::MAX);
    }

    #[test]
    fn narrowing_never_widens_and_repeats_nothing() {
        let offered = [TrafficSelector { protocol: 6, ..prefix("10.9.1.1/32") }, prefix("0.0.0.0/0")];
        assert_eq!(narrow(&offered, &[prefix("10.9.0.0/16")]), [prefix("10.9.0.0/16")]);
        assert_eq!(narrow(&[prefix("10.8.0.0/16")], &[prefix("10.9.0.0/16")]), []);
    }
}
