/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* SipHash-1-3 over 64-bit words and one octet that says what is hashed: the string `words (little-endian) || domain`
 * hashed as the SipHash paper says. The Rust side is cluster/src/dispatch/hash.rs. */
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

static __always_inline __u64 siphash_end(struct siphash *h, __u64 octets, __u64 domain)
{
	siphash_word(h, ((octets + 1) << 56) | domain);
	h->v2 ^= 0xff;
	siphash_round(h);
	siphash_round(h);
	siphash_round(h);
	return h->v0 ^ h->v1 ^ h->v2 ^ h->v3;
}

static __always_inline __u64 hash1(const __u64 *key, __u64 a, enum domain domain)
{
	struct siphash h = siphash_start(key);

	siphash_word(&h, a);
	return siphash_end(&h, 8, domain);
}

static __always_inline __u64 hash2(const __u64 *key, __u64 a, __u64 b, enum domain domain)
{
	struct siphash h = siphash_start(key);

	siphash_word(&h, a);
	siphash_word(&h, b);
	return siphash_end(&h, 16, domain);
}

#endif
