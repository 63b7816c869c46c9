/*
 * note.h
 *		Checkpoints as signed notes, and the log's key.
 */
#ifndef MBUS_NOTE_H
#define MBUS_NOTE_H

#include "postgres.h"

#include "log/tree.h"

#define MBUS_SEED_BYTES		32	/* the private key of Ed25519 */

extern char *mbus_note_text(const char *origin, int64 size,
							const MbusHash *root);
extern char *mbus_note_sign(const char *origin, const char *text,
							const uint8 *seed);
extern char *mbus_note_key(const char *origin, const uint8 *seed);
extern char *mbus_base64(const void *bytes, int len);

#endif							/* MBUS_NOTE_H */
