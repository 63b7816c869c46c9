/*
 * sha256.c
 *		SHA-256 (FIPS 180-4), and HMAC with it (RFC 2104).
 *
 * OpenSSL's, by its old functions: those of EVP allocate and look up for each
 * digest, which costs three to four times what hashing 64 bytes does, and the
 * log hashes some ten short pieces for each message.  They cannot fail, and
 * nothing is kept between two calls.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "postgres.h"

#include <openssl/sha.h>

#include "base/sha256.h"

#define HMAC_BLOCK	64

StaticAssertDecl(sizeof(MbusSha256) >= sizeof(SHA256_CTX),
				 "SHA256_CTX has grown");

/*
 * mbus_sha256 computes SHA-256.
 */
void
mbus_sha256(const void *bytes, size_t len, uint8 *digest)
{
	SHA256_CTX	context;

	SHA256_Init(&context);
	SHA256_Update(&context, bytes, len);
	SHA256_Final(digest, &context);
}

/*
 * mbus_sha256_pair computes that of two pieces, one behind the other.
 */
void
mbus_sha256_pair(const void *first, size_t first_len, const void *second,
				 size_t second_len, uint8 *digest)
{
	SHA256_CTX	context;

	SHA256_Init(&context);
	SHA256_Update(&context, first, first_len);
	SHA256_Update(&context, second, second_len);
	SHA256_Final(digest, &context);
}

/*
 * mbus_hmac_key prepares HMAC with a key of at most a block.
 */
void
mbus_hmac_key(MbusHmac *hmac, const uint8 *key, size_t len)
{
	uint8		block[HMAC_BLOCK];

	Assert(len <= HMAC_BLOCK);
	memset(block, 0x36, sizeof(block));
	for (size_t i = 0; i < len; i++)
		block[i] ^= key[i];
	SHA256_Init((SHA256_CTX *) &hmac->inner);
	SHA256_Update((SHA256_CTX *) &hmac->inner, block, sizeof(block));
	for (int i = 0; i < HMAC_BLOCK; i++)
		block[i] ^= 0x36 ^ 0x5c;
	SHA256_Init((SHA256_CTX *) &hmac->outer);
	SHA256_Update((SHA256_CTX *) &hmac->outer, block, sizeof(block));
	explicit_bzero(block, sizeof(block));
}

/*
 * mbus_hmac computes HMAC-SHA-256.
 */
void
mbus_hmac(const MbusHmac *hmac, const void *bytes, size_t len, uint8 *mac)
{
	SHA256_CTX	context;

	memcpy(&context, &hmac->inner, sizeof(context));
	SHA256_Update(&context, bytes, len);
	SHA256_Final(mac, &context);
	memcpy(&context, &hmac->outer, sizeof(context));
	SHA256_Update(&context, mac, SHA256_DIGEST_LENGTH);
	SHA256_Final(mac, &context);
}
