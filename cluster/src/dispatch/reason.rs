//! Why a frame went where it went.

/// What is done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on untouched: it is none of the cluster's business.
    Pass,
    /// This node takes it, or sends it, for the cluster.
    Take,
    /// The filter itself answers it.
    Answer,
    /// It ends here.
    Drop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $label:literal, $action:ident;)*) => {
        /// Why a frame went where it went; also the counter that it raised. Codes are those of `cluster/bpf/dispatch.h`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them, by rising code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number that the BPF program knows it by.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// The reason of that number.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The label for metrics and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What is done with the frame.
            #[must_use]
            pub const fn action(self) -> Action {
                match self { $(Self::$name => Action::$action,)* }
            }
        }
    };
}

reasons! {
    /// Neither for a cluster address nor for the cluster's MAC address.
    NotOurs = 0, "not_ours", Pass;
    /// It has a VLAN tag: the business of the VLAN interface, which has a filter of its own.
    Tagged = 1, "tagged", Pass;
    /// This node owns its work set.
    Owned = 2, "owned", Take;
    /// This node is about to own its work set and queues.
    Queueing = 3, "queueing", Take;
    /// All nodes take a fragment and reassemble.
    Fragment = 4, "fragment", Take;
    /// All nodes take an ICMP error: it quotes the peer's identifiers.
    IcmpError = 5, "icmp_error", Take;
    /// The filter answers in the cluster's name.
    ArpAnswered = 6, "arp_answered", Answer;
    /// Another node owns its work set.
    OtherOwner = 7, "other_owner", Drop;
    /// This node holds no lease, so it takes and answers nothing for the cluster.
    LeaseOver = 8, "lease_over", Drop;
    /// No service and no socket of ours has that port.
    ClosedPort = 9, "closed_port", Drop;
    /// No engine of ours speaks that protocol.
    ClosedProtocol = 10, "closed_protocol", Drop;
    /// For a pool or protected prefix where nobody is.
    NoInner = 11, "no_inner", Drop;
    /// For an inner address, from a side that may not carry such in the clear.
    InnerUnprotected = 12, "inner_unprotected", Drop;
    /// From an inner address, but not out of a tunnel.
    InnerSource = 13, "inner_source", Drop;
    /// A NAT keepalive (RFC 3948 §2.3) has done its work on the way.
    NatKeepalive = 14, "nat_keepalive", Drop;
    /// A fragment of TCP: every node but one would reset what it reassembles.
    TcpFragment = 15, "tcp_fragment", Drop;
    /// ICMP for a cluster address, neither echo nor error.
    IcmpOther = 16, "icmp_other", Drop;
    /// Too short to find its work set.
    Truncated = 17, "truncated", Drop;
    /// Somebody else claims a cluster address.
    ArpConflict = 18, "arp_conflict", Drop;
    /// A node of ours has answered in the cluster's name.
    ArpPeer = 19, "arp_peer", Drop;
    /// Asks for an address of the cluster that nobody uses here.
    ArpNobody = 20, "arp_nobody", Drop;
    /// For the cluster's MAC address, but neither IPv4 nor a question that we answer.
    Foreign = 21, "foreign", Drop;
    /// The node's own business.
    OutOwn = 32, "out_own", Pass;
    /// From a cluster address, under a lease.
    OutCluster = 33, "out_cluster", Take;
    /// From an inner address, under a lease.
    OutInner = 34, "out_inner", Take;
    /// In the cluster's name, without a lease.
    OutLeaseOver = 40, "out_lease_over", Drop;
    /// A kernel's TCP reset in the cluster's name.
    OutReset = 41, "out_reset", Drop;
    /// A kernel's ICMP in the cluster's name about what it knows only by halves.
    OutIcmp = 42, "out_icmp", Drop;
    /// ARP that names a cluster address with another MAC address than the cluster's.
    OutArp = 43, "out_arp", Drop;
    /// For an inner address, in the clear.
    OutUnprotected = 44, "out_unprotected", Drop;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names and numbers of `enum reason`, as they stand in the C header.
    fn header() -> Vec<(String, u8)> {
        let text = include_str!("../../bpf/dispatch.h");
        let (_, text) = text.split_once("enum reason {").unwrap();
        let (text, _) = text.split_once("};").unwrap();
        text.lines()
            .filter_map(|line| line.trim().split_once(" = "))
            .map(|(name, rest)| (name.to_lowercase(), rest.split_once(',').unwrap().0.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_c_header_has_the_same_names_and_numbers() {
        let ours: Vec<_> = Reason::ALL.iter().map(|reason| (reason.label().to_owned(), reason.code())).collect();
        assert_eq!(ours, header());
    }

    #[test]
    fn a_code_leads_back_to_its_reason() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
        assert_eq!(Reason::from_code(255), None);
    }
}
