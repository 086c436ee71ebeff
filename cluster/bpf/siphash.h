/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* SipHash-1-3 of numbers, little-endian, and one octet that says what is hashed. The Rust side is cluster/src/dispatch/hash.rs. */
#ifndef SIPHASH_H
#define SIPHASH_H

#include <linux/types.h>

enum domain { NEW_IKE = 1, IKEV1_COOKIE = 2, SOURCE = 3, PAIR = 4, NAME = 5 };

struct siphash {
	__u64 v0, v1, v2, v3;
};

#define ROTATE(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

static __always_inline void siphash_round(struct siphash *h)
{
	h->v0 += h->v1;
	h->v1 = ROTATE(h->v1, 13) ^ h->v0;
	h->v0 = ROTATE(h->v0, 32);
	h->v2 += h->v3;
	h->v3 = ROTATE(h->v3, 16) ^ h->v2;
	h->v0 += h->v3;
	h->v3 = ROTATE(h->v3, 21) ^ h->v0;
	h->v2 += h->v1;
	h->v1 = ROTATE(h->v1, 17) ^ h->v2;
	h->v2 = ROTATE(h->v2, 32);
}

static __always_inline void siphash_word(struct siphash *h, __u64 word)
{
	h->v3 ^= word;
	siphash_round(h);
	h->v0 ^= word;
}

static __always_inline struct siphash siphash_start(const __u64 *key)
{
	struct siphash h = {
		.v0 = key[0] ^ 0x736f6d6570736575ULL,
		.v1 = key[1] ^ 0x646f72616e646f6dULL,
		.v2 = key[0] ^ 0x6c7967656e657261ULL,
		.v3 = key[1] ^ 0x7465646279746573ULL,
	};
	return h;
}

/* `tail` holds `octets` further octets, the domain as its last, 7 at most; `length` counts all octets. */
static __always_inline __u64 siphash_end(struct siphash *h, __u64 tail, __u64 length)
{
	siphash_word(h, length << 56 | tail);
	h->v2 ^= 0xff;
	siphash_round(h);
	siphash_round(h);
	siphash_round(h);
	return h->v0 ^ h->v1 ^ h->v2 ^ h->v3;
}

/* Hashes 6 octets. */
static __always_inline __u64 hash6(const __u64 *key, __u64 octets, __u64 domain)
{
	struct siphash h = siphash_start(key);

	return siphash_end(&h, domain << 48 | octets, 7);
}

/* Hashes 8 octets. */
static __always_inline __u64 hash8(const __u64 *key, __u64 word, __u64 domain)
{
	struct siphash h = siphash_start(key);

	siphash_word(&h, word);
	return siphash_end(&h, domain, 9);
}

/* Hashes 12 octets. */
static __always_inline __u64 hash12(const __u64 *key, __u64 word, __u64 octets, __u64 domain)
{
	struct siphash h = siphash_start(key);

	siphash_word(&h, word);
	return siphash_end(&h, domain << 32 | octets, 13);
}

#endif
