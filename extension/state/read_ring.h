/*
 * read_ring.h
 *		Reads that the worker is to record.
 */
#ifndef MBUS_READ_RING_H
#define MBUS_READ_RING_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "state/state.h"

#define MBUS_READ_IDS	256		/* in one record, at most */

/* One call's reads, or a part of them: who has read which messages. */
typedef struct MbusRead
{
	TimestampTz at;
	int64		session;		/* gateway's socket, 0: none */
	int			size;			/* of all of it, aligned */
	Oid			schema;
	Oid			role;
	int			n;
	int64		id[FLEXIBLE_ARRAY_MEMBER];	/* n; then the subject, with its
											 * end; empty: none */
} MbusRead;

/* the subject of a record */
static inline const char *
mbus_read_subject(const MbusRead *read)
{
	return (const char *) &read->id[read->n];
}

extern void mbus_read_ring_init(void);
extern MbusRead *mbus_read_make(Oid schema, const int64 *ids, int n);
extern bool mbus_read_reserve(MbusDatabase *db, const MbusRead *read);
extern void mbus_read_put(MbusDatabase *db, const MbusRead *read);

/* the database's worker only */
extern bool mbus_reads_press(MbusDatabase *db);
extern char *mbus_reads_take(MbusDatabase *db, uint64 *from, uint64 *to);
extern void mbus_reads_taken(MbusDatabase *db, uint64 from, uint64 to);

#endif							/* MBUS_READ_RING_H */
