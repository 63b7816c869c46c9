/*
 * hash.c
 *		SHA-256 that can be stopped behind a part, and gone on with.
 *
 * Behind a whole number of blocks of 64 bytes all that SHA-256 knows are eight
 * words and how much it has read.  A part that is not a body's last is 4,096
 * blocks; so its state is written down as 32 bytes, the words with their
 * highest byte first.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "postgres.h"

#include <openssl/sha.h>

#include "port/pg_bswap.h"

#include "body/body.h"
#include "body/hash.h"

#define WORDS	8

#define ContextOf(hash) ((SHA256_CTX *) &(hash)->context)

/*
 * mbus_body_hash_begin begins before the first byte.
 */
void
mbus_body_hash_begin(MbusBodyHash *hash)
{
	SHA256_Init(ContextOf(hash));
	hash->bytes = 0;
}

/*
 * mbus_body_hash_resume goes on behind so many bytes, whole parts, from the
 * state that was written down there.
 */
void
mbus_body_hash_resume(MbusBodyHash *hash, const uint8 *state, int64 bytes)
{
	SHA256_CTX *context = ContextOf(hash);
	uint64		bits = (uint64) bytes << 3;

	Assert(bytes % SHA256_CBLOCK == 0);
	SHA256_Init(context);
	for (int i = 0; i < WORDS; i++)
	{
		uint32		word;

		memcpy(&word, state + i * sizeof(word), sizeof(word));
		context->h[i] = pg_ntoh32(word);
	}
	context->Nl = (SHA_LONG) bits;
	context->Nh = (SHA_LONG) (bits >> 32);
	hash->bytes = bytes;
}

/*
 * mbus_body_hash_part reads on.
 */
void
mbus_body_hash_part(MbusBodyHash *hash, const char *bytes, int32 size)
{
	SHA256_Update(ContextOf(hash), bytes, size);
	hash->bytes += size;
}

/*
 * mbus_body_hash_state gives the state, which is one only behind whole parts.
 */
void
mbus_body_hash_state(const MbusBodyHash *hash, uint8 *state)
{
	const SHA256_CTX *context = (const SHA256_CTX *) &hash->context;

	Assert(hash->bytes % SHA256_CBLOCK == 0 && context->num == 0);
	for (int i = 0; i < WORDS; i++)
	{
		uint32		word = pg_hton32(context->h[i]);

		memcpy(state + i * sizeof(word), &word, sizeof(word));
	}
}

/*
 * mbus_body_hash_end gives the hash of all that was read; what was read stays,
 * so that it can be gone on with.
 */
void
mbus_body_hash_end(const MbusBodyHash *hash, uint8 *sha256)
{
	MbusBodyHash end = *hash;

	SHA256_Final(sha256, ContextOf(&end));
}

/*
 * mbus_body_hash_next goes on with the next part, and gives the state that its
 * row has.
 */
void
mbus_body_hash_next(MbusBodyHash *hash, const char *bytes, int32 size,
					uint8 *state)
{
	mbus_body_hash_part(hash, bytes, size);
	if (size == MBUS_PART_BYTES)
		mbus_body_hash_state(hash, state);
	else
		mbus_body_hash_end(hash, state);
}
