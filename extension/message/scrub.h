/*
 * scrub.h
 *		Looks at stored messages.
 */
#ifndef MBUS_SCRUB_H
#define MBUS_SCRUB_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "message/large.h"
#include "message/quarantine.h"

#define MBUS_SCRUB_FOUND	32	/* in one slice */

/* A look at messages, slice by slice; the caller's, all zero but for: */
typedef struct MbusScrub
{
	/* what is wanted */
	int32		channel_id;		/* of it alone; 0: of all */
	int64		next;			/* the first id that is to be looked at; moves */
	int64		last;			/* and the last */

	/* how much one slice does at most; one message at least */
	int64		bytes_max;		/* of a body one part at least */
	int			ms_max;			/* 0: no limit */
	bool		head;			/* rows alone, not their payloads */

	/* with which error of the disk the next slice begins, 0: none; scrub.c */
	int64		doubted;

	/* how far a body has been looked at in which the next slice begins */
	MbusBodyLook look;

	/* what the last slice has seen */
	int64		messages;
	int64		bytes;			/* of payload */
	int64		cost;			/* what counts against bytes_max */
	int64		bad;			/* also those that were in quarantine */
	int			unread;			/* segments that could not be read */
	bool		doubt;			/* it ended before "doubted" */
	bool		whole;			/* it came to its end, not to an error */
	bool		ended;			/* there is nothing more */
	int32		channel_seen;	/* of the last message; 0: not known */
	const char *kind;			/* and what is damaged of it; NULL: nothing */
	int			n;
	MbusDamage	found[MBUS_SCRUB_FOUND];	/* to be settled */

	/* scrub.c only */
	int64		at;				/* what is looked at; 0: none */
	bool		sure;			/* that the disk errs */
	bool		inside;			/* a body, not at its end */
	TimestampTz started_at;
} MbusScrub;

extern void mbus_scrub_slice(Oid schema, MbusScrub *scrub);
extern void mbus_scrub_one(Oid schema, MbusScrub *scrub, int64 id, bool head);
extern bool mbus_scrub_sound(Oid schema, int64 id);

#endif							/* MBUS_SCRUB_H */
