// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Packet dispatch: which node of the cluster takes a frame, and whether this node may speak in the cluster's name.
 *
 * Every node gets every frame that is sent to the cluster's MAC address. `ingress` finds the frame's work set and passes
 * it on if this node owns that set and holds a lease; `egress` is the other half of the fence. The program is pinned, so
 * both outlive the process: when that dies, its lease runs out and the node is silent.
 *
 * The same decisions in Rust are cluster/src/dispatch; a test feeds both the same frames. Its table says who takes what.
 */
#include "frame.h"

/* What the program processes itself is queued in a planned move; what a kernel would answer must never be seen twice. */
enum answers { BY_PROGRAM, BY_KERNEL };

static __always_inline __u32 owned(const struct state *s, __u32 set, enum answers answers)
{
	__u32 owner;

	set &= WORK_SETS - 1;
	owner = *(volatile const __u32 *)&s->owners[set];
	if (owner & OWNER_SELF)
		return VERDICT_SET(OWNED, set);
	if (answers == BY_PROGRAM && (owner & OWNER_QUEUEING))
		return VERDICT_SET(QUEUEING, set);
	return VERDICT_SET(OTHER_OWNER, set);
}

/* RFC 7296 §3.1; `p` is the IKE header. */
static __always_inline __u32 ike(const struct state *s, const __u8 *p, const void *end, __be32 source)
{
	__u64 spi_i, spi_r;

	if ((const void *)(p + 20) > end)
		return VERDICT(TRUNCATED);
	spi_i = bpf_be64_to_cpu(load64(p));
	spi_r = bpf_be64_to_cpu(load64(p + 8));
	if (p[17] >> 4 == 1)
		return owned(s, hash8(s->hash_start, spi_i, IKEV1_COOKIE), BY_PROGRAM);
	if (!(p[19] & 0x08))
		return owned(s, spi_i, BY_PROGRAM);
	if (spi_r != 0)
		return owned(s, spi_r, BY_PROGRAM);
	return owned(s, hash12(s->hash_start, spi_i, bpf_ntohl(source), NEW_IKE), BY_PROGRAM);
}

/* UDP port 4500 (RFC 3948 §2): ESP, IKE behind four octets of zero, or a keepalive. */
static __always_inline __u32 nat_traversal(const struct state *s, const __u8 *p, const void *end, __u32 length,
					   __be32 source)
{
	__u32 spi;

	if ((const void *)(p + 1) > end)
		return VERDICT(TRUNCATED);
	if (length == 1 && p[0] == 0xff)
		return VERDICT(NAT_KEEPALIVE);
	if (length < 4 || (const void *)(p + 4) > end)
		return VERDICT(TRUNCATED);
	spi = bpf_ntohl(load32(p));
	if (spi == 0)
		return ike(s, p + 4, end, source);
	return owned(s, spi, BY_PROGRAM);
}

/* RFC 2661 §3.1; `p` is the L2TP header. A tunnel id of 0 opens a tunnel. */
static __always_inline __u32 l2tp(const struct state *s, const __u8 *p, const void *end, __be32 source, __be16 port)
{
	__u32 id;

	if ((const void *)(p + 6) > end)
		return VERDICT(TRUNCATED);
	id = p[0] & 0x40 ? p[4] << 8 | p[5] : p[2] << 8 | p[3];
	if ((p[1] & 0x0f) != 2 || id == 0)
		return owned(s, set_of_source(s, source, port), BY_PROGRAM);
	return owned(s, id, BY_PROGRAM);
}

static __always_inline __u32 udp(const struct state *s, const __u8 *p, const void *end, __be32 source, __u32 fragment)
{
	const struct udphdr *header = (const void *)p;
	__u32 flags, port, length;

	if ((const void *)(header + 1) > end)
		return VERDICT(TRUNCATED);
	port = bpf_ntohs(header->dest);
	flags = s->ports[port];
	if (!(flags & (PORT_UDP_SERVICE | PORT_UDP_ASKED)))
		return VERDICT(CLOSED_PORT);
	if (fragment)
		return VERDICT(FRAGMENT);
	if (!(flags & PORT_UDP_SERVICE))
		return owned(s, port, BY_PROGRAM);
	length = bpf_ntohs(header->len);
	length = length < 8 ? 0 : length - 8;
	switch (port) {
	case 500:
		return ike(s, p + 8, end, source);
	case 4500:
		return nat_traversal(s, p + 8, end, length, source);
	case 1701:
		return l2tp(s, p + 8, end, source, header->source);
	default:
		return owned(s, set_of_source(s, source, header->source),
			     flags & PORT_UDP_QUEUES ? BY_PROGRAM : BY_KERNEL);
	}
}

static __always_inline __u32 tcp(const struct state *s, const __u8 *p, const void *end, __be32 source)
{
	__u32 flags, port;

	if ((const void *)(p + 20) > end)
		return VERDICT(TRUNCATED);
	port = bpf_ntohs(load16(p + 2));
	flags = s->ports[port];
	if (!(flags & (PORT_TCP_SERVICE | PORT_TCP_ASKED)))
		return VERDICT(CLOSED_PORT);
	if (!(flags & PORT_TCP_SERVICE))
		return owned(s, port, BY_KERNEL);
	return owned(s, set_of_source(s, source, load16(p)), BY_KERNEL);
}

static __always_inline __u32 icmp(const struct state *s, const struct iphdr *ip, const __u8 *p, const void *end)
{
	if ((const void *)(p + 8) > end)
		return VERDICT(TRUNCATED);
	switch (p[0]) {
	case 0: /* Echo Reply */
	case 8: /* Echo */
		return owned(s, set_of_pair(s, ip->saddr, ip->daddr), BY_KERNEL);
	case 3: /* Destination Unreachable */
	case 11: /* Time Exceeded */
	case 12: /* Parameter Problem */
		return VERDICT(ICMP_ERROR);
	default:
		return VERDICT(ICMP_OTHER);
	}
}

/* GRE as PPTP uses it (RFC 2637 §4.1). */
static __always_inline __u32 gre(const struct state *s, const __u8 *p, const void *end)
{
	if ((const void *)(p + 8) > end)
		return VERDICT(TRUNCATED);
	if ((p[1] & 0x07) != 1 || !(p[0] & 0x20) || p[2] != 0x88 || p[3] != 0x0b)
		return VERDICT(CLOSED_PROTOCOL);
	return owned(s, p[6] << 8 | p[7], BY_PROGRAM);
}

/* ESP and AH: the SPI stands at `offset`. */
static __always_inline __u32 by_spi(const struct state *s, const __u8 *p, __u32 offset, const void *end)
{
	if ((const void *)(p + 8) > end)
		return VERDICT(TRUNCATED);
	return owned(s, bpf_ntohl(load32(p + offset)), BY_PROGRAM);
}

static __always_inline bool protocol_open(const struct state *s, __u8 protocol)
{
	switch (protocol) {
	case IPPROTO_UDP:
	case IPPROTO_TCP:
	case IPPROTO_ICMP:
		return true;
	case IPPROTO_ESP:
		return s->protocols & PROTOCOL_ESP;
	case IPPROTO_AH:
		return s->protocols & PROTOCOL_AH;
	case IPPROTO_GRE:
		return s->protocols & PROTOCOL_GRE;
	default:
		return false;
	}
}

/* A packet for a cluster address. */
static __always_inline __u32 to_cluster(const struct state *s, const struct iphdr *ip, const void *end)
{
	__u32 header = (__u32)ip->ihl * 4;
	const __u8 *p = (const __u8 *)ip + (header & 0x3c);
	__u32 later = ip->frag_off & bpf_htons(IP_OFFSET);
	__u32 fragment = ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS | IP_OFFSET);

	if (header < 20 || (const void *)p > end)
		return VERDICT(TRUNCATED);
	if (!protocol_open(s, ip->protocol))
		return VERDICT(CLOSED_PROTOCOL);
	if (ip->protocol == IPPROTO_TCP)
		return fragment ? VERDICT(TCP_FRAGMENT) : tcp(s, p, end, ip->saddr);
	if (ip->protocol == IPPROTO_ICMP)
		return later ? owned(s, set_of_pair(s, ip->saddr, ip->daddr), BY_KERNEL) : icmp(s, ip, p, end);
	if (later)
		return VERDICT(FRAGMENT);
	/* The first fragment shows its port: one for a closed port must not make a kernel answer. */
	if (ip->protocol == IPPROTO_UDP)
		return udp(s, p, end, ip->saddr, fragment);
	if (fragment)
		return VERDICT(FRAGMENT);
	if (ip->protocol == IPPROTO_GRE)
		return gre(s, p, end);
	return by_spi(s, p, ip->protocol == IPPROTO_AH ? 4 : 0, end);
}

/* A packet that the cluster routes. */
static __always_inline __u32 routed(const struct state *s, const struct iphdr *ip, enum side side)
{
	struct inner inner;

	if (inner_source(s, ip->saddr))
		return VERDICT(INNER_SOURCE);
	inner = inner_of(s, ip->daddr);
	if (inner.flags & INNER_SET)
		return s->sides[side].carries_inner ? owned(s, inner.set, BY_PROGRAM) : VERDICT(INNER_UNPROTECTED);
	if (inner.flags & INNER_PROTECTED)
		return VERDICT(NO_INNER);
	return owned(s, set_of_pair(s, ip->saddr, ip->daddr), BY_KERNEL);
}

/* RFC 826. Of the cluster addresses, the owner of the pair (asking, asked) answers: one answer to each question, and
 * a dead node's share of the questions is inherited with its work sets. Of an inner address, the owner of its session. */
static __always_inline __u32 arp(const struct state *s, const struct arp *a, const void *end, enum side side)
{
	const struct side_state *here = &s->sides[side];
	__u32 sides, verdict;
	__be32 asking, asked;
	struct inner inner;

	if ((const void *)(a + 1) > end || a->hardware != bpf_htons(1) || a->protocol != bpf_htons(ETH_P_IP) ||
	    a->hardware_len != 6 || a->protocol_len != 4)
		return VERDICT(NOT_OURS);
	asking = load32(a->spa);
	asked = load32(a->tpa);
	if (cluster_address(s, asking))
		return same_mac(a->sha, here->cluster_mac) ? VERDICT(ARP_PEER) : VERDICT(ARP_CONFLICT);
	if (a->operation != bpf_htons(1) || (a->sha[0] & 1))
		return VERDICT(NOT_OURS);
	sides = cluster_address(s, asked);
	if (sides) {
		if (!(sides & (1U << side)))
			return VERDICT(ARP_NOBODY);
		verdict = owned(s, set_of_pair(s, asking, asked), BY_KERNEL);
	} else {
		if (here->subnet_mask == 0 || (asked & here->subnet_mask) != here->subnet)
			return VERDICT(NOT_OURS);
		inner = inner_of(s, asked);
		if (inner.flags == 0 || (inner.flags & INNER_DEFAULT))
			return VERDICT(NOT_OURS);
		if (!(inner.flags & INNER_SET))
			return VERDICT(ARP_NOBODY);
		verdict = owned(s, inner.set, BY_KERNEL);
	}
	return REASON_OF(verdict) == OWNED ? (verdict & ~0xffU) | ARP_ANSWERED : verdict;
}

static __always_inline bool for_cluster_mac(const struct state *s, const struct ethhdr *eth, enum side side)
{
	return same_mac(eth->h_dest, s->sides[side].cluster_mac);
}

static __always_inline __u32 ingress_by_table(const struct state *s, const void *data, const void *end, enum side side)
{
	const struct ethhdr *eth = data;
	const struct iphdr *ip = (const void *)(eth + 1);
	__u32 verdict = VERDICT(NOT_OURS);
	__be16 protocol;

	if ((const void *)(eth + 1) > end)
		return VERDICT(NOT_OURS);
	protocol = load16(data + offsetof(struct ethhdr, h_proto));
	/* The common case first, and nothing looked at that it does not need. */
	if (protocol == bpf_htons(ETH_P_IP)) {
		if ((const void *)(ip + 1) > end || ip->version != 4)
			return for_cluster_mac(s, eth, side) ? VERDICT(TRUNCATED) : VERDICT(NOT_OURS);
		if (cluster_address(s, ip->daddr))
			return to_cluster(s, ip, end);
		return for_cluster_mac(s, eth, side) ? routed(s, ip, side) : VERDICT(NOT_OURS);
	}
	if (protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD))
		return VERDICT(TAGGED);
	if (protocol == bpf_htons(ETH_P_ARP))
		verdict = arp(s, (const void *)(eth + 1), end, side);
	return REASON_OF(verdict) == NOT_OURS && for_cluster_mac(s, eth, side) ? VERDICT(FOREIGN) : verdict;
}

/* Nothing is taken or answered for the cluster once the lease is over. */
static __always_inline __u32 ingress(struct state *s, const void *data, const void *end, enum side side)
{
	__u32 verdict = ingress_by_table(s, data, end, side);
	__u32 reason = REASON_OF(verdict);

	if ((reason >= OWNED && reason <= ICMP_ERROR && !lease_held(s)) || (reason == ARP_ANSWERED && !lease_holds(s)))
		return (verdict & ~0xffU) | LEASE_OVER;
	return verdict;
}

/* A kernel must not speak for the cluster of what it knows only by halves: a socket of a dead process, a reassembly
 * that all nodes try. */
static __always_inline __u32 from_cluster(const struct iphdr *ip, const void *end)
{
	__u32 header = (__u32)ip->ihl * 4;
	const __u8 *p = (const __u8 *)ip + (header & 0x3c);

	if (header < 20 || (bpf_ntohs(ip->frag_off) & IP_OFFSET))
		return VERDICT(OUT_CLUSTER);
	if (ip->protocol == IPPROTO_TCP && (const void *)(p + 14) <= end && (p[13] & 0x04))
		return VERDICT(OUT_RESET);
	if (ip->protocol == IPPROTO_ICMP && (const void *)(p + 2) <= end &&
	    ((p[0] == 3 && (p[1] == 2 || p[1] == 3)) || (p[0] == 11 && p[1] == 1)))
		return VERDICT(OUT_ICMP);
	return VERDICT(OUT_CLUSTER);
}

static __always_inline __u32 egress_by_table(const struct state *s, const void *data, const void *end, enum side side,
					     bool forwarded)
{
	const struct ethhdr *eth = data;
	const struct iphdr *ip = (const void *)(eth + 1);
	const struct arp *a = (const void *)(eth + 1);
	struct inner to;

	if ((const void *)(eth + 1) > end)
		return VERDICT(OUT_OWN);
	if (eth->h_proto == bpf_htons(ETH_P_ARP)) {
		if ((const void *)(a + 1) > end || !cluster_address(s, load32(a->spa)))
			return VERDICT(OUT_OWN);
		return same_mac(a->sha, s->sides[side].cluster_mac) ? VERDICT(OUT_CLUSTER) : VERDICT(OUT_ARP);
	}
	if (eth->h_proto != bpf_htons(ETH_P_IP) || (const void *)(ip + 1) > end)
		return VERDICT(OUT_OWN);
	if (cluster_address(s, ip->saddr))
		return from_cluster(ip, end);
	to = inner_of(s, ip->daddr);
	if (to.flags != 0 && (forwarded || !(to.flags & INNER_DEFAULT)))
		return VERDICT(OUT_UNPROTECTED);
	return inner_source(s, ip->saddr) ? VERDICT(OUT_INNER) : VERDICT(OUT_OWN);
}

static __always_inline __u32 egress(const struct state *s, const void *data, const void *end, enum side side,
				    bool forwarded)
{
	__u32 verdict = egress_by_table(s, data, end, side, forwarded);

	if ((verdict == OUT_CLUSTER || verdict == OUT_INNER) && !lease_holds(s))
		return VERDICT(OUT_LEASE_OVER);
	return verdict;
}

static __always_inline void make_answer(const struct state *s, enum side side, const struct arp *question,
					struct arp_frame *f)
{
	const struct side_state *here = &s->sides[side];

	__builtin_memcpy(f->eth.h_dest, question->sha, 6);
	/* The frame comes from the node's own MAC address, so that no switch ever learns the cluster's. */
	__builtin_memcpy(f->eth.h_source, here->node_mac, 6);
	f->eth.h_proto = bpf_htons(ETH_P_ARP);
	f->arp.hardware = bpf_htons(1);
	f->arp.protocol = bpf_htons(ETH_P_IP);
	f->arp.hardware_len = 6;
	f->arp.protocol_len = 4;
	f->arp.operation = bpf_htons(2);
	__builtin_memcpy(f->arp.sha, here->cluster_mac, 6);
	__builtin_memcpy(f->arp.spa, question->tpa, 4);
	__builtin_memcpy(f->arp.tha, question->sha, 6);
	__builtin_memcpy(f->arp.tpa, question->spa, 4);
}

static __always_inline int redirect_answer(struct __sk_buff *skb, const struct state *s, enum side side)
{
	const void *data = (const void *)(long)skb->data, *end = (const void *)(long)skb->data_end;
	const struct arp_frame *question = data;
	struct arp_frame answer;

	if ((const void *)(question + 1) > end)
		return TC_ACT_SHOT;
	make_answer(s, side, &question->arp, &answer);
	/* Writing through `data` instead would make the kernel copy each frame that a bridge has cloned. */
	if (bpf_skb_store_bytes(skb, 0, &answer, sizeof(answer), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

/* The first octets of a socket buffer may lie in pages. */
static __always_inline void gather(struct __sk_buff *skb)
{
	__u32 have = skb->data_end - skb->data, want = skb->len;

	if (have < HEADERS_MAX && have < want)
		bpf_skb_pull_data(skb, want < HEADERS_MAX ? want : HEADERS_MAX);
}

/* The kernel took a frame for the cluster's MAC address for somebody else's. */
static __always_inline void accept(struct __sk_buff *skb, const struct state *s, const void *data, const void *end,
				   enum side side)
{
	if (skb->pkt_type != 0 /* PACKET_HOST */ && data + sizeof(struct ethhdr) <= end &&
	    for_cluster_mac(s, data, side))
		bpf_skb_change_type(skb, 0);
}

static __always_inline int tc_in(struct __sk_buff *skb, enum side side)
{
	struct state *s = the_state();
	const void *data, *end;
	__u32 verdict, reason;

	if (!s)
		return TC_ACT_SHOT;
	gather(skb);
	data = (const void *)(long)skb->data;
	end = (const void *)(long)skb->data_end;
	verdict = skb->vlan_present ? VERDICT(TAGGED) : ingress(s, data, end, side);
	count(verdict);
	reason = REASON_OF(verdict);
	if (reason < OWNED)
		return TC_ACT_UNSPEC;
	if (reason == ARP_ANSWERED)
		return redirect_answer(skb, s, side);
	if (reason > ARP_ANSWERED)
		return TC_ACT_SHOT;
	accept(skb, s, data, end, side);
	return TC_ACT_UNSPEC;
}

static __always_inline int xdp_in(struct xdp_md *xdp, enum side side)
{
	struct state *s = the_state();
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	struct arp_frame *frame = data, answer;
	__u32 verdict, reason;

	if (!s)
		return XDP_DROP;
	verdict = ingress(s, data, end, side);
	count(verdict);
	reason = REASON_OF(verdict);
	if (reason > ARP_ANSWERED)
		return XDP_DROP;
	if (reason != ARP_ANSWERED)
		return XDP_PASS;
	if ((void *)(frame + 1) > end)
		return XDP_DROP;
	make_answer(s, side, &frame->arp, &answer);
	__builtin_memcpy(frame, &answer, sizeof(answer));
	return XDP_TX;
}

/* Behind the XDP entry, which cannot change what the kernel took the frame for. */
static __always_inline int tc_accept(struct __sk_buff *skb, enum side side)
{
	struct state *s = the_state();
	const void *data = (const void *)(long)skb->data, *end = (const void *)(long)skb->data_end;

	if (s && !skb->vlan_present)
		accept(skb, s, data, end, side);
	return TC_ACT_UNSPEC;
}

static __always_inline int tc_out(struct __sk_buff *skb, enum side side)
{
	struct state *s = the_state();
	__u32 verdict;

	if (!s)
		return TC_ACT_SHOT;
	gather(skb);
	verdict = egress(s, (const void *)(long)skb->data, (const void *)(long)skb->data_end, side,
			 skb->ingress_ifindex != 0);
	count(verdict);
	return verdict < OUT_LEASE_OVER ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

SEC("classifier")
int in_outside(struct __sk_buff *skb)
{
	return tc_in(skb, OUTSIDE);
}

SEC("classifier")
int in_inside(struct __sk_buff *skb)
{
	return tc_in(skb, INSIDE);
}

SEC("xdp")
int xdp_outside(struct xdp_md *xdp)
{
	return xdp_in(xdp, OUTSIDE);
}

SEC("xdp")
int xdp_inside(struct xdp_md *xdp)
{
	return xdp_in(xdp, INSIDE);
}

SEC("classifier")
int accept_outside(struct __sk_buff *skb)
{
	return tc_accept(skb, OUTSIDE);
}

SEC("classifier")
int accept_inside(struct __sk_buff *skb)
{
	return tc_accept(skb, INSIDE);
}

SEC("classifier")
int out_outside(struct __sk_buff *skb)
{
	return tc_out(skb, OUTSIDE);
}

SEC("classifier")
int out_inside(struct __sk_buff *skb)
{
	return tc_out(skb, INSIDE);
}

/* These are never attached: run by hand on a frame, they return the verdict, and the empty ones measure the rest. */
SEC("xdp")
int explain_in_outside(struct xdp_md *xdp)
{
	struct state *s = the_state();

	return s ? ingress(s, (void *)(long)xdp->data, (void *)(long)xdp->data_end, OUTSIDE) : -1;
}

SEC("xdp")
int explain_in_inside(struct xdp_md *xdp)
{
	struct state *s = the_state();

	return s ? ingress(s, (void *)(long)xdp->data, (void *)(long)xdp->data_end, INSIDE) : -1;
}

SEC("xdp")
int explain_out_local(struct xdp_md *xdp)
{
	struct state *s = the_state();

	return s ? egress(s, (void *)(long)xdp->data, (void *)(long)xdp->data_end, OUTSIDE, false) : -1;
}

SEC("xdp")
int explain_out_forwarded(struct xdp_md *xdp)
{
	struct state *s = the_state();

	return s ? egress(s, (void *)(long)xdp->data, (void *)(long)xdp->data_end, OUTSIDE, true) : -1;
}

SEC("classifier")
int empty(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_UNSPEC;
}

SEC("xdp")
int empty_xdp(struct xdp_md *xdp)
{
	(void)xdp;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
