/*
 * sha256.h
 *		SHA-256, and what begins with the same bytes again and again.
 */
#ifndef MBUS_SHA256_H
#define MBUS_SHA256_H

#include "postgres.h"

#define MBUS_SHA256_BYTES 32

/* SHA-256 of bytes that more will follow: OpenSSL's SHA256_CTX. */
typedef struct MbusSha256
{
	uint64		state[14];
} MbusSha256;

/* The beginnings of HMAC-SHA-256 with a key. */
typedef struct MbusHmac
{
	MbusSha256	inner;
	MbusSha256	outer;
} MbusHmac;

extern void mbus_sha256(const void *bytes, size_t len, uint8 *digest);
extern void mbus_sha256_pair(const void *first, size_t first_len,
							 const void *second, size_t second_len,
							 uint8 *digest);
extern void mbus_hmac_key(MbusHmac *hmac, const uint8 *key, size_t len);
extern void mbus_hmac(const MbusHmac *hmac, const void *bytes, size_t len,
					  uint8 *mac);

#endif							/* MBUS_SHA256_H */
