/*
 * hash.h
 *		SHA-256 that can be stopped behind a part, and gone on with.
 */
#ifndef MBUS_BODY_HASH_H
#define MBUS_BODY_HASH_H

#include "postgres.h"

#include "base/sha256.h"

typedef struct MbusBodyHash
{
	MbusSha256	context;		/* as OpenSSL keeps it */
	int64		bytes;			/* hashed so far */
} MbusBodyHash;

extern void mbus_body_hash_begin(MbusBodyHash *hash);
extern void mbus_body_hash_resume(MbusBodyHash *hash, const uint8 *state,
								  int64 bytes);
extern void mbus_body_hash_part(MbusBodyHash *hash, const char *bytes,
								int32 size);
extern void mbus_body_hash_next(MbusBodyHash *hash, const char *bytes,
								int32 size, uint8 *state);
extern void mbus_body_hash_state(const MbusBodyHash *hash, uint8 *state);
extern void mbus_body_hash_end(const MbusBodyHash *hash, uint8 *sha256);

#endif							/* MBUS_BODY_HASH_H */
