/*
 * body.h
 *		Large bodies: where one is, and that it stays.
 */
#ifndef MBUS_BODY_H
#define MBUS_BODY_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/lockdefs.h"

#include "state/state.h"
#include "state/store.h"

#define MBUS_PART_BYTES		262144	/* plain, of each part but the last */
#define MBUS_BODY_OVER		(1024 * 1024)	/* larger payloads are in parts */

/* its number tells the store: MbusStoreOf() in state/store.h */

/* A body that was found, its table locked. */
typedef struct MbusBody
{
	int64		body;
	int32		store_no;
	Oid			relid;			/* of the table of parts */
	bool		own;			/* the store is this body's alone */
} MbusBody;

/*
 * mbus_parts returns how many parts a body of a size has.
 */
static inline int32
mbus_parts(int64 size)
{
	return (int32) ((size + MBUS_PART_BYTES - 1) / MBUS_PART_BYTES);
}

extern void mbus_body_new(MbusDatabase *db, Oid schema, int32 series,
						  int64 size, TimestampTz expires_at, MbusBody *body);
extern bool mbus_body_find(Oid schema, int64 number, LOCKMODE lockmode,
						   MbusBody *body);
extern void mbus_body_keep(MbusDatabase *db, Oid schema, const MbusBody *body,
						   TimestampTz expires_at, int64 message_id,
						   bool always_hold);

#endif							/* MBUS_BODY_H */
