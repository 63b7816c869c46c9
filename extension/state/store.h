/*
 * store.h
 *		Stores of large bodies in shared memory: which take bodies.
 */
#ifndef MBUS_STATE_STORE_H
#define MBUS_STATE_STORE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "state/state.h"

#define MBUS_BODY_BITS		20	/* of a body's number, within its store */
#define MBUS_BODIES_LIMIT	(1 << MBUS_BODY_BITS)
#define MBUS_OWN_NUMBERS	64	/* kept for an own store: n to the next
								 * multiple of this */
#define MbusStoreOf(body)	((int32) ((body) >> MBUS_BODY_BITS))
#define MbusBodyOf(store, n) (((int64) (store)) << MBUS_BODY_BITS | (n))

/* What was given to who writes a body. */
typedef struct MbusStoreTaken
{
	int64		body;
	Oid			relid;
} MbusStoreTaken;

extern void mbus_store_init(void);
extern void mbus_store_shared(MbusDatabase *db, Oid schema, int32 series,
							  int64 size, TimestampTz expires_at,
							  MbusStoreTaken *store);
extern bool mbus_store_try(MbusDatabase *db, int32 series, int64 size,
						   TimestampTz expires_at, MbusStoreTaken *store);
extern void mbus_store_own(MbusDatabase *db, Oid schema,
						   MbusStoreTaken *store);
extern void mbus_store_written(int32 store_no);
extern bool mbus_store_raise(MbusDatabase *db, Oid schema, int32 store_no,
							 TimestampTz expires_at);
extern void mbus_store_gone(MbusDatabase *db, int32 store_no);
extern void mbus_stores_look(void);

#endif							/* MBUS_STATE_STORE_H */
