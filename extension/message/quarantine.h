/*
 * quarantine.h
 *		Messages that are damaged.
 */
#ifndef MBUS_QUARANTINE_H
#define MBUS_QUARANTINE_H

#include "postgres.h"

#define MBUS_QUARANTINE_MAX	100000	/* rows */
#define MBUS_DAMAGE_TEXT	200 /* of what was found, with its end */

/* What a look at a message has found. */
typedef struct MbusDamage
{
	int64		id;
	int32		channel_id;		/* 0: it could not be read */
	const char *kind;			/* NULL: it is as it was published */
	char		detail[MBUS_DAMAGE_TEXT];	/* "": none */
} MbusDamage;

extern bool mbus_damage_code(int sqlerrcode);
extern bool mbus_quarantined(int64 id);
extern bool mbus_quarantine_channel(Oid schema, int64 id, int32 *channel_id);
extern int	mbus_quarantine_settle(Oid schema, const MbusDamage *damage,
								   int n);

#endif							/* MBUS_QUARANTINE_H */
