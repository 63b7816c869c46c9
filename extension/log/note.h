/*
 * note.h
 *		Checkpoints as signed notes, and the log's key.
 */
#ifndef MBUS_NOTE_H
#define MBUS_NOTE_H

#include "postgres.h"

#include "log/tree.h"

#define MBUS_SEED_BYTES		32	/* the private key of Ed25519 */
#define MBUS_PUBLIC_BYTES	32
#define MBUS_KEY_ID_BYTES	4
#define MBUS_WITNESSES		15	/* that a note has lines of, at most */

/* A witness, who cosigns checkpoints; palloc'd. */
typedef struct MbusWitness
{
	char	   *name;
	uint8		id[MBUS_KEY_ID_BYTES];
	uint8		key[MBUS_PUBLIC_BYTES];
} MbusWitness;

extern char *mbus_note_text(const char *origin, int64 size,
							const MbusHash *root);
extern char *mbus_note_sign(const char *origin, const char *text,
							const uint8 *seed);
extern char *mbus_note_key(const char *origin, const uint8 *seed);
extern bool mbus_note_key_is(const char *origin, const char *signature,
							 const uint8 *seed);
extern bool mbus_witness_parse(const char *vkey, MbusWitness *witness);
extern bool mbus_witness_signed(const MbusWitness *witness, const char *text,
								const char *line, int64 *time);
extern char *mbus_base64(const void *bytes, int len);

#endif							/* MBUS_NOTE_H */
