//! What a node takes.

use std::net::{Ipv4Addr, SocketAddrV4};

use wire::{Reader, Time, WorkSet};

use super::{Action, Owner, Reason, Side, Tables};

/// What the rule says about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why, and so what is done with it.
    pub reason: Reason,
    /// Its work set, if it has one.
    pub set: Option<WorkSet>,
}

/// Who would react to a packet: what a kernel answers must never be seen by two in a planned move.
#[derive(Clone, Copy)]
enum Answers {
    ByProgram,
    ByKernel,
}

/// An IPv4 header (RFC 791 §3.1), as far as dispatch looks at it.
struct Ipv4<'a> {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    fragment_offset: u16,
    more_fragments: bool,
    /// What follows the header; `None` if the header itself is cut or malformed.
    payload: Option<&'a [u8]>,
}

impl Verdict {
    /// Reads a verdict as the BPF program returns it: reason, work set, and a bit that says whether it has one.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        let [high, set_high, set_low, code] = bits.to_be_bytes();
        let Some(reason) = Reason::from_code(code) else {
            return None;
        };
        let set = if high & 0x80 == 0 { None } else { WorkSet::new(u16::from_be_bytes([set_high, set_low])) };
        Some(Self { reason, set })
    }

    pub(super) const fn of(reason: Reason) -> Self {
        Self { reason, set: None }
    }
}

impl Tables {
    /// Says what this node does with an Ethernet frame that came in on `side`.
    #[must_use]
    pub fn ingress(&self, side: Side, frame: &[u8], now: Time) -> Verdict {
        let verdict = self.ingress_by_table(side, frame);
        match verdict.reason.action() {
            Action::Take | Action::Answer if now >= self.lease_until => {
                Verdict { reason: Reason::LeaseOver, set: verdict.set }
            }
            Action::Take | Action::Answer | Action::Pass | Action::Drop => verdict,
        }
    }

    /// Says who must have an IPv4 packet that came out of a tunnel, off the node itself, or from another node: one for
    /// a cluster address by its content, another by the inner table or the pair of its addresses.
    ///
    /// `None` if it is no IPv4 packet. No lease is asked for.
    #[must_use]
    pub fn packet(&self, packet: &[u8]) -> Option<Verdict> {
        let ip = Ipv4::parse(packet)?;
        if self.is_cluster_address(ip.destination) {
            return Some(self.to_cluster(&ip));
        }
        Some(match self.inner.lookup(ip.destination) {
            Some(inner) => match inner.set {
                Some(set) => self.owned(set, Answers::ByProgram),
                None => Verdict::of(Reason::NoInner),
            },
            None => self.owned(self.key.home_of_pair(ip.source, ip.destination), Answers::ByKernel),
        })
    }

    /// Says who must have a UDP datagram that a socket of ours received on `port`, whole or put together by the kernel.
    #[must_use]
    pub fn datagram(&self, source: SocketAddrV4, port: u16, payload: &[u8]) -> Verdict {
        if !self.port(port).udp_open() {
            return Verdict::of(Reason::ClosedPort);
        }
        self.udp_payload(source, port, payload.len(), payload)
    }

    fn ingress_by_table(&self, side: Side, frame: &[u8]) -> Verdict {
        let Some((to, protocol, payload)) = ethernet(frame) else {
            return Verdict::of(Reason::NotOurs);
        };
        let cluster_mac = *to == self.side(side).cluster_mac;
        let verdict = match protocol {
            0x8100 | 0x88a8 => return Verdict::of(Reason::Tagged),
            0x0800 => match Ipv4::parse(payload) {
                None if cluster_mac => Verdict::of(Reason::Truncated),
                None => Verdict::of(Reason::NotOurs),
                Some(ip) if self.is_cluster_address(ip.destination) => self.to_cluster(&ip),
                Some(ip) if cluster_mac => self.routed(side, &ip),
                Some(_) => Verdict::of(Reason::NotOurs),
            },
            0x0806 => self.arp(side, payload),
            _ => Verdict::of(Reason::NotOurs),
        };
        if verdict.reason == Reason::NotOurs && cluster_mac { Verdict::of(Reason::Foreign) } else { verdict }
    }

    fn to_cluster(&self, ip: &Ipv4<'_>) -> Verdict {
        let Some(payload) = ip.payload else {
            return Verdict::of(Reason::Truncated);
        };
        let fragment = ip.more_fragments || ip.fragment_offset != 0;
        let later = ip.fragment_offset != 0;
        let enabled = match ip.protocol {
            ICMP | TCP | UDP => true,
            ESP => self.protocols.esp,
            AH => self.protocols.ah,
            GRE => self.protocols.gre,
            _ => false,
        };
        let pair = || self.owned(self.key.home_of_pair(ip.source, ip.destination), Answers::ByKernel);
        let found = match ip.protocol {
            _ if !enabled => return Verdict::of(Reason::ClosedProtocol),
            TCP if fragment => return Verdict::of(Reason::TcpFragment),
            TCP => self.tcp(ip.source, payload),
            ICMP if later => return pair(),
            ICMP => payload.first_chunk::<8>().map(|[kind, ..]| match kind {
                0 | 8 => pair(),
                3 | 11 | 12 => Verdict::of(Reason::IcmpError),
                _ => Verdict::of(Reason::IcmpOther),
            }),
            _ if later => return Verdict::of(Reason::Fragment),
            UDP => self.udp(ip.source, payload, fragment),
            _ if fragment => return Verdict::of(Reason::Fragment),
            GRE => self.gre(payload),
            AH => payload.first_chunk().map(|[_, _, _, _, spi @ ..]: &[u8; 8]| self.by_id(u32::from_be_bytes(*spi))),
            _ => {
                payload.first_chunk().map(|[a, b, c, d, ..]: &[u8; 8]| self.by_id(u32::from_be_bytes([*a, *b, *c, *d])))
            }
        };
        found.unwrap_or(Verdict::of(Reason::Truncated))
    }

    fn routed(&self, side: Side, ip: &Ipv4<'_>) -> Verdict {
        if self.is_inner_source(ip.source) {
            return Verdict::of(Reason::InnerSource);
        }
        let inner = self.inner.lookup(ip.destination).unwrap_or_default();
        match inner.set {
            Some(set) if self.side(side).carries_inner => self.owned(set, Answers::ByProgram),
            Some(_) => Verdict::of(Reason::InnerUnprotected),
            None if inner.protected => Verdict::of(Reason::NoInner),
            None => self.owned(self.key.home_of_pair(ip.source, ip.destination), Answers::ByKernel),
        }
    }

    fn tcp(&self, source: Ipv4Addr, header: &[u8]) -> Option<Verdict> {
        let [a, b, c, d, ..] = *header.first_chunk::<20>()?;
        let (from, to) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let port = self.port(to);
        Some(if port.tcp_service() {
            self.owned(self.key.home_of_source(source, from), Answers::ByKernel)
        } else if port.tcp_open() {
            self.owned(WorkSet::from_low_bits(u64::from(to)), Answers::ByKernel)
        } else {
            Verdict::of(Reason::ClosedPort)
        })
    }

    /// `None` if the datagram is too short to find its work set.
    fn udp(&self, source: Ipv4Addr, datagram: &[u8], fragment: bool) -> Option<Verdict> {
        let (header, payload) = datagram.split_first_chunk::<8>()?;
        let [from_high, from_low, to_high, to_low, length @ .., _, _] = *header;
        let (from, to) = (u16::from_be_bytes([from_high, from_low]), u16::from_be_bytes([to_high, to_low]));
        if !self.port(to).udp_open() {
            return Some(Verdict::of(Reason::ClosedPort));
        }
        if fragment {
            return Some(Verdict::of(Reason::Fragment));
        }
        let length = usize::from(u16::from_be_bytes(length).saturating_sub(8));
        Some(self.udp_payload(SocketAddrV4::new(source, from), to, length, payload))
    }

    /// `length` is what the UDP header says of `payload`, which may be cut or padded.
    fn udp_payload(&self, source: SocketAddrV4, to: u16, length: usize, payload: &[u8]) -> Verdict {
        let port = self.port(to);
        let by_source = self.key.home_of_source(*source.ip(), source.port());
        let found = match to {
            _ if !port.udp_service() => Some(self.by_id(u32::from(to))),
            500 => self.ike(*source.ip(), payload),
            4500 => self.nat_traversal(*source.ip(), length, payload),
            1701 => self.l2tp(by_source, payload),
            _ if port.udp_queues() => Some(self.owned(by_source, Answers::ByProgram)),
            _ => Some(self.owned(by_source, Answers::ByKernel)),
        };
        found.unwrap_or(Verdict::of(Reason::Truncated))
    }

    /// The IKE header (RFC 7296 §3.1), up to its flags.
    fn ike(&self, source: Ipv4Addr, message: &[u8]) -> Option<Verdict> {
        let mut r = Reader::new(message);
        let spi_i = r.u64("IKE SA Initiator's SPI").ok()?;
        let spi_r = r.u64("IKE SA Responder's SPI").ok()?;
        let [_, version, _, flags] = r.array("Version and Flags").ok()?;
        let set = if version >> 4 == 1 {
            self.key.home_of_ikev1(spi_i)
        } else if flags & 0x08 == 0 {
            WorkSet::from_low_bits(spi_i)
        } else if spi_r != 0 {
            WorkSet::from_low_bits(spi_r)
        } else {
            self.key.home_of_new_ike(spi_i, source.into())
        };
        Some(self.owned(set, Answers::ByProgram))
    }

    /// UDP port 4500 (RFC 3948 §2): ESP, IKE behind four octets of zero, or a keepalive.
    fn nat_traversal(&self, source: Ipv4Addr, length: usize, payload: &[u8]) -> Option<Verdict> {
        if length == 1 && *payload.first()? == 0xff {
            return Some(Verdict::of(Reason::NatKeepalive));
        }
        let (spi, rest) = payload.split_first_chunk().filter(|_| length >= 4)?;
        match u32::from_be_bytes(*spi) {
            0 => self.ike(source, rest),
            spi => Some(self.by_id(spi)),
        }
    }

    /// The L2TP header (RFC 2661 §3.1). A tunnel id of 0 opens a tunnel.
    fn l2tp(&self, by_source: WorkSet, message: &[u8]) -> Option<Verdict> {
        let [flags, version, a, b, c, d] = *message.first_chunk()?;
        let id = u16::from_be_bytes(if flags & 0x40 == 0 { [a, b] } else { [c, d] });
        Some(match id {
            id if version & 0x0f == 2 && id != 0 => self.by_id(u32::from(id)),
            _ => self.owned(by_source, Answers::ByProgram),
        })
    }

    /// GRE as PPTP uses it (RFC 2637 §4.1).
    fn gre(&self, packet: &[u8]) -> Option<Verdict> {
        let [flags, version, protocol_high, protocol_low, _, _, id @ ..] = *packet.first_chunk::<8>()?;
        let ours = version & 0x07 == 1 && flags & 0x20 != 0 && [protocol_high, protocol_low] == [0x88, 0x0b];
        Some(if ours { self.by_id(u32::from(u16::from_be_bytes(id))) } else { Verdict::of(Reason::ClosedProtocol) })
    }

    fn by_id(&self, id: u32) -> Verdict {
        self.owned(WorkSet::from_low_bits(u64::from(id)), Answers::ByProgram)
    }

    fn owned(&self, set: WorkSet, answers: Answers) -> Verdict {
        let reason = match (self.owner(set), answers) {
            (Owner::Myself(_), Answers::ByProgram | Answers::ByKernel) => Reason::Owned,
            (Owner::Queueing(_), Answers::ByProgram) => Reason::Queueing,
            (Owner::Queueing(_), Answers::ByKernel)
            | (Owner::Other(_) | Owner::Nobody, Answers::ByProgram | Answers::ByKernel) => Reason::OtherOwner,
        };
        Verdict { reason, set: Some(set) }
    }

    /// As for what a kernel would answer: only the owner.
    pub(super) fn answered_by_owner(&self, set: WorkSet) -> Verdict {
        self.owned(set, Answers::ByKernel)
    }
}

impl<'a> Ipv4<'a> {
    /// `None` if the bytes are no IPv4 packet or its fixed header is cut.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(packet);
        let version_ihl = r.u8("Version and IHL").ok()?;
        r.bytes("Type of Service to Identification", 5).ok()?;
        let place = r.u16("Flags and Fragment Offset").ok()?;
        r.u8("Time to Live").ok()?;
        let protocol = r.u8("Protocol").ok()?;
        r.u16("Header Checksum").ok()?;
        let source = r.array("Source Address").ok()?.into();
        let destination = r.array("Destination Address").ok()?.into();
        if version_ihl >> 4 != 4 {
            return None;
        }
        let header = usize::from(version_ihl & 0x0f).saturating_mul(4);
        Some(Self {
            source,
            destination,
            protocol,
            fragment_offset: place & 0x1fff,
            more_fragments: place & 0x2000 != 0,
            payload: if header < 20 { None } else { packet.get(header..) },
        })
    }
}

/// Splits an Ethernet frame into destination, protocol and payload.
pub(super) fn ethernet(frame: &[u8]) -> Option<(&[u8; 6], u16, &[u8])> {
    let (to, rest) = frame.split_first_chunk::<6>()?;
    let (_from, rest) = rest.split_first_chunk::<6>()?;
    let (protocol, payload) = rest.split_first_chunk()?;
    Some((to, u16::from_be_bytes(*protocol), payload))
}

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const ESP: u8 = 50;
const AH: u8 = 51;
