/*
 * entry.h
 *		Entries of the log: lines, commitments, openings.
 */
#ifndef MBUS_ENTRY_H
#define MBUS_ENTRY_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

#include "base/ids.h"
#include "base/sha256.h"
#include "log/tree.h"

/* What has entries: the families of tables, and what is not of a segment. */
#define MBUS_LOG_ACTION		((int) MBUS_FAMILIES)
#define MBUS_LOG_KINDS		(MBUS_LOG_ACTION + 1)

#define MBUS_SECRET_BYTES	32
#define MBUS_SALT_BYTES		16

/* times in entries count from 1970, PostgreSQL's from 2000 */
#define MBUS_UNIX_EPOCH_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* An entry that is being written; one is used again and again. */
typedef struct MbusEntry
{
	StringInfoData text;
	StringInfoData openings;	/* lines, if they are wanted */
	bool		open;			/* they are */
	uint8		key[MBUS_HASH_BYTES];	/* what its salts are made of */

	/* that of the last secret: most have the same */
	bool		keyed;
	uint8		secret[MBUS_SECRET_BYTES];
	MbusHmac	hmac;
} MbusEntry;

extern void mbus_entry_init(MbusEntry *entry, bool open);
extern void mbus_entry_begin(MbusEntry *entry, const char *kind,
							 const uint8 *secret, int64 number);
extern void mbus_entry_begin_with(MbusEntry *entry, const char *kind,
								  const uint8 *key);
extern void mbus_entry_number(MbusEntry *entry, const char *name, int64 value);
extern void mbus_entry_time(MbusEntry *entry, const char *name,
							TimestampTz value);
extern void mbus_entry_text(MbusEntry *entry, const char *name,
							const char *value, int len);
extern void mbus_entry_words(MbusEntry *entry, const char *name,
							 const char *words);
extern void mbus_entry_hidden(MbusEntry *entry, const char *name,
							  const char *value, int len);
extern void mbus_entry_end(MbusEntry *entry);
extern void mbus_entry_hash(const MbusEntry *entry, MbusHash *hash);

#endif							/* MBUS_ENTRY_H */
