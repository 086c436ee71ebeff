/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the dispatch program shares with user space: the state, the reasons, the map values.
 * The Rust side is gateway/src/dispatch/state.rs and cluster/src/dispatch/reason.rs; tests compare both. */
#ifndef DISPATCH_H
#define DISPATCH_H

#include <linux/types.h>

#define WORK_SETS 1024
#define CLUSTER_ADDRESSES 4
#define COUNTERS 64

enum side { OUTSIDE = 0, INSIDE = 1, SIDES = 2 };

/* Why a frame went where it went; also the index of its counter. Numbers are for ever. */
enum reason {
	/* In, passed untouched. */
	NOT_OURS = 0, /* neither for a cluster address nor for the cluster's MAC address */
	TAGGED = 1, /* 802.1Q: the business of the VLAN interface, which has a filter of its own */
	/* In, taken; only under a lease. */
	OWNED = 2, /* this node owns its work set */
	QUEUEING = 3, /* this node is about to own its work set and queues */
	FRAGMENT = 4, /* all nodes take it and reassemble */
	ICMP_ERROR = 5, /* all nodes take it: it quotes the peer's identifiers */
	/* In, answered here and now; only under a lease. */
	ARP_ANSWERED = 6,
	/* In, dropped. */
	OTHER_OWNER = 7,
	LEASE_OVER = 8,
	CLOSED_PORT = 9, /* no service and no socket of ours */
	CLOSED_PROTOCOL = 10,
	NO_INNER = 11, /* a pool or protected prefix where nobody is */
	INNER_UNPROTECTED = 12, /* for an inner address, from a side that may not carry such */
	INNER_SOURCE = 13, /* from an inner address, but not out of a tunnel */
	NAT_KEEPALIVE = 14, /* RFC 3948 §2.3 */
	TCP_FRAGMENT = 15,
	ICMP_OTHER = 16,
	TRUNCATED = 17, /* too short to find its work set */
	ARP_CONFLICT = 18, /* somebody else claims a cluster address */
	ARP_PEER = 19, /* a node of ours has answered in the cluster's name */
	ARP_NOBODY = 20, /* asks for an address of the cluster that nobody uses here */
	FOREIGN = 21, /* for the cluster's MAC address, but neither IPv4 nor a question that we answer */
	/* Out, passed. */
	OUT_OWN = 32, /* the node's own business */
	OUT_CLUSTER = 33, /* from a cluster address, under a lease */
	OUT_INNER = 34, /* from an inner address, under a lease */
	/* Out, dropped. */
	OUT_LEASE_OVER = 40,
	OUT_RESET = 41, /* a TCP reset by a kernel in the cluster's name */
	OUT_ICMP = 42, /* an unreachable or reassembly time-out by a kernel in the cluster's name */
	OUT_ARP = 43, /* a cluster address with this node's own MAC address */
	OUT_UNPROTECTED = 44, /* for an inner address, in the clear */
};

/* Bits of an owner entry; bits 8 to 11 hold the slot, for those who read the table. */
#define OWNER_SELF 0x01
#define OWNER_QUEUEING 0x02
#define OWNER_OTHER 0x04 /* known, but not this node */

/* Bits of a port entry. */
#define PORT_TCP_SERVICE 0x01
#define PORT_UDP_SERVICE 0x02
#define PORT_TCP_ASKED 0x04 /* a socket that asks others: its low bits name the work set */
#define PORT_UDP_ASKED 0x08
#define PORT_UDP_QUEUES 0x10 /* the service's engine takes part in planned moves */

/* Bits of `protocols`. */
#define PROTOCOL_ESP 0x01
#define PROTOCOL_AH 0x02
#define PROTOCOL_GRE 0x04

/* Bits of an inner entry. */
#define INNER_SET 0x01 /* `set` holds */
#define INNER_PROTECTED 0x02 /* never in the clear, also while nobody is there */
#define INNER_DEFAULT 0x04 /* the prefix of length 0: says nothing about who a source is */

struct inner {
	__u16 set;
	__u16 flags;
};

struct prefix_key {
	__u32 length;
	__be32 address;
};

struct cluster_address {
	__be32 address; /* 0: none */
	__u32 sides; /* bit 1 << side: asked for by ARP there */
};

struct side_state {
	__u8 cluster_mac[6];
	__u8 node_mac[6];
	__be32 subnet; /* where inner addresses are asked for by ARP */
	__be32 subnet_mask;
	__u32 carries_inner; /* whether plain packets for inner addresses may come from here */
};

/* One page-aligned array element that user space maps: every change is one aligned store, no system call. */
struct state {
	__u64 lease_until; /* boot-time clock, nanoseconds; alone on its cache line, with what is written once a tick */
	__u64 tick; /* in which the lease was last found to hold for longer than a tick; the program's own */
	__u64 tick_lease; /* which lease that was */
	__u64 pad[5];
	__u64 hash_start[4]; /* the dispatch hash before its first word */
	struct cluster_address addresses[CLUSTER_ADDRESSES]; /* each once */
	struct side_state sides[SIDES];
	__u32 protocols;
	__u32 reserved;
	__u32 owners[WORK_SETS];
	__u32 coarse_hosts[2048]; /* bit per /16: 0 says that no inner host is in it */
	__u32 coarse_lengths[65536]; /* word per /16: the lengths of the shorter inner prefixes that touch it, as bits */
	__u8 ports[65536];
};

_Static_assert(sizeof(struct side_state) == 24, "side_state");
_Static_assert(__builtin_offsetof(struct state, hash_start) == 64, "hash_start");
_Static_assert(__builtin_offsetof(struct state, addresses) == 96, "addresses");
_Static_assert(__builtin_offsetof(struct state, sides) == 128, "sides");
_Static_assert(__builtin_offsetof(struct state, protocols) == 176, "protocols");
_Static_assert(__builtin_offsetof(struct state, owners) == 184, "owners");
_Static_assert(__builtin_offsetof(struct state, coarse_hosts) == 4280, "coarse_hosts");
_Static_assert(__builtin_offsetof(struct state, ports) == 274616, "ports");
_Static_assert(sizeof(struct state) == 340152, "state");

#endif
