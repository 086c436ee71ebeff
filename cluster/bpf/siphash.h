/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* SipHash-1-3 of numbers, little-endian, and one octet that says what is hashed; of it, the bits that name a work set.
 * The Rust side is cluster/src/dispatch/hash.rs. */
#ifndef SIPHASH_H
#define SIPHASH_H

#include <linux/types.h>

#include "dispatch.h"

enum domain { NEW_IKE = 1, IKEV1_COOKIE = 2, SOURCE = 3, PAIR = 4, NAME = 5 };

struct siphash {
	__u64 v0, v1, v2, v3;
};

#define ROTATE(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

/* A round without the part that touches only v0 and v1. */
static __always_inline void siphash_rest_of_round(struct siphash *h)
{
	h->v2 += h->v3;
	h->v3 = ROTATE(h->v3, 16) ^ h->v2;
	h->v0 += h->v3;
	h->v3 = ROTATE(h->v3, 21) ^ h->v0;
	h->v2 += h->v1;
	h->v1 = ROTATE(h->v1, 17) ^ h->v2;
	h->v2 = ROTATE(h->v2, 32);
}

static __always_inline void siphash_round(struct siphash *h)
{
	h->v0 += h->v1;
	h->v1 = ROTATE(h->v1, 13) ^ h->v0;
	h->v0 = ROTATE(h->v0, 32);
	siphash_rest_of_round(h);
}

/* Takes the first word. What the key alone decides of this round is in `start` already. */
static __always_inline struct siphash siphash_first(const __u64 *start, __u64 word)
{
	struct siphash h = { .v0 = start[0], .v1 = start[1], .v2 = start[2], .v3 = start[3] ^ word };

	siphash_rest_of_round(&h);
	h.v0 ^= word;
	return h;
}

static __always_inline void siphash_next(struct siphash *h, __u64 word)
{
	h->v3 ^= word;
	siphash_round(h);
	h->v0 ^= word;
}

/* Asked for ten bits, the compiler leaves out what the last round does for the others. */
static __always_inline __u32 siphash_set(struct siphash *h)
{
	h->v2 ^= 0xff;
	siphash_round(h);
	siphash_round(h);
	siphash_round(h);
	return (h->v0 ^ h->v1 ^ h->v2 ^ h->v3) & (WORK_SETS - 1);
}

/* The last word of a message: how many octets that has, and those left over, the domain as their last, 7 at most. */
static __always_inline __u64 siphash_tail(__u64 length, __u64 octets)
{
	return length << 56 | octets;
}

/* Hashes 6 octets. */
static __always_inline __u32 hash6(const __u64 *start, __u64 octets, __u64 domain)
{
	struct siphash h = siphash_first(start, siphash_tail(7, domain << 48 | octets));

	return siphash_set(&h);
}

/* Hashes 8 octets. */
static __always_inline __u32 hash8(const __u64 *start, __u64 word, __u64 domain)
{
	struct siphash h = siphash_first(start, word);

	siphash_next(&h, siphash_tail(9, domain));
	return siphash_set(&h);
}

/* Hashes 12 octets. */
static __always_inline __u32 hash12(const __u64 *start, __u64 word, __u64 octets, __u64 domain)
{
	struct siphash h = siphash_first(start, word);

	siphash_next(&h, siphash_tail(13, domain << 32 | octets));
	return siphash_set(&h);
}

#endif
