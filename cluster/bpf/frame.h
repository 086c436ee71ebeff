/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The headers that dispatch looks at, and the state and tables that it looks things up in. */
#ifndef FRAME_H
#define FRAME_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "dispatch.h"
#include "siphash.h"

/* Octets that any decision needs: Ethernet, the longest IPv4 header, UDP, non-ESP marker, IKE header up to its flags. */
#define HEADERS_MAX (14 + 60 + 8 + 4 + 20)

/* The longest tick that a kernel can be built with: HZ is 100 at least. */
#define TICK_MAX_NS 10000000ULL

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET 0x1fff

/* A verdict in one word: reason, and the work set if the frame has one. */
#define HAS_SET (1U << 31)
#define VERDICT(reason) ((__u32)(reason))
#define VERDICT_SET(reason, set) ((__u32)(reason) | ((__u32)(set) << 8) | HAS_SET)
#define REASON_OF(verdict) ((verdict) & 0xff)

struct arp {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 operation;
	__u8 sha[6];
	__u8 spa[4];
	__u8 tha[6];
	__u8 tpa[4];
} __attribute__((packed));

struct arp_frame {
	struct ethhdr eth;
	struct arp arp;
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, struct inner);
} hosts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_key);
	__type(value, struct inner);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Packets lie as they come; clang would take unaligned octets one by one, which no kernel we run on needs. */
static __always_inline __be16 load16(const __u8 *p)
{
	return *(const __be16 *)p;
}

static __always_inline __be32 load32(const __u8 *p)
{
	return *(const __be32 *)p;
}

static __always_inline __be64 load64(const __u8 *p)
{
	return *(const __be64 *)p;
}

static __always_inline struct state *the_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&state, &zero);
}

static __always_inline void count(__u32 verdict)
{
	__u32 reason = REASON_OF(verdict);
	__u64 *counter = bpf_map_lookup_elem(&counters, &reason);

	if (counter)
		*counter += 1;
}

/* What leaves, or is answered here, is held against the clock each time. */
static __always_inline bool lease_holds(const struct state *s)
{
	return bpf_ktime_get_boot_ns() < *(volatile const __u64 *)&s->lease_until;
}

/* What comes in is held against the clock once a tick, for the clock costs more than all the rest: whatever it moves
 * this node to send meets the other check. Within a tick of the lease's end, the clock is read each time here too. */
static __always_inline bool lease_held(struct state *s)
{
	__u64 lease = *(volatile const __u64 *)&s->lease_until;
	volatile __u64 *last = &s->tick, *last_lease = &s->tick_lease;
	__u64 tick = bpf_jiffies64(), now;

	if (*last == tick && *last_lease == lease)
		return true;
	now = bpf_ktime_get_boot_ns();
	if (now >= lease)
		return false;
	if (lease - now > TICK_MAX_NS) {
		*last_lease = lease;
		*last = tick;
	}
	return true;
}

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	return load32(a) == load32(b) && load16(a + 4) == load16(b + 4);
}

/* Returns the sides where `address` is a cluster address, as bits; 0 if it is none. */
static __always_inline __u32 cluster_address(const struct state *s, __be32 address)
{
	if (address == 0)
		return 0;
#pragma unroll
	for (int i = 0; i < CLUSTER_ADDRESSES; i++)
		if (s->addresses[i].address == address)
			return s->addresses[i].sides;
	return 0;
}

/* Looks up the longest prefix of `address` that is shorter than 32, given the lengths that occur around it. One look-up
 * for each such length, and there are one or two: a trie costs more. */
static __noinline __u32 prefix_of(__be32 address, __u32 lengths)
{
	struct prefix_key key;
	struct inner *found;

	for (int length = 31; length >= 0; length--) {
		if (!((lengths >> length) & 1))
			continue;
		key.length = length;
		key.address = length ? address & bpf_htonl(~0U << (32 - length)) : 0;
		found = bpf_map_lookup_elem(&prefixes, &key);
		if (found)
			return found->set | (__u32)found->flags << 16;
	}
	return 0;
}

/* Looks an inner address up. */
static __always_inline struct inner inner_of(const struct state *s, __be32 address)
{
	struct inner inner = {};
	__u32 top = bpf_ntohl(address) >> 16, lengths, packed;
	struct inner *host;

	if ((s->coarse_hosts[(top >> 5) & 2047] >> (top & 31)) & 1) {
		host = bpf_map_lookup_elem(&hosts, &address);
		if (host)
			return *host;
	}
	lengths = s->coarse_lengths[top & 0xffff];
	if (lengths) {
		packed = prefix_of(address, lengths);
		inner.set = packed & 0xffff;
		inner.flags = packed >> 16;
	}
	return inner;
}

/* Whether `address` can only come out of a tunnel. */
static __always_inline bool inner_source(const struct state *s, __be32 address)
{
	struct inner inner = inner_of(s, address);

	return inner.flags != 0 && !(inner.flags & INNER_DEFAULT);
}

static __always_inline __u32 set_of_pair(const struct state *s, __be32 a, __be32 b)
{
	__u64 x = bpf_ntohl(a), y = bpf_ntohl(b);
	__u64 word = x < y ? (x << 32 | y) : (y << 32 | x);

	return hash8(s->hash_start, word, PAIR);
}

static __always_inline __u32 set_of_source(const struct state *s, __be32 address, __be16 port)
{
	__u64 word = (__u64)bpf_ntohl(address) << 16 | bpf_ntohs(port);

	return hash6(s->hash_start, word, SOURCE);
}

#endif
