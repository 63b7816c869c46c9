/*
 * large.h
 *		Messages of more than MBUS_BODY_OVER bytes, which are in a body.
 */
#ifndef MBUS_LARGE_H
#define MBUS_LARGE_H

#include "postgres.h"

#include "body/hash.h"
#include "channel/channel.h"
#include "message/draft.h"
#include "message/stored.h"
#include "state/state.h"

/* How far a body has been looked at, all zero to begin with. */
typedef struct MbusBodyLook
{
	int64		id;				/* of its message */
	int32		parts;			/* that were sound */
	MbusBodyHash hash;			/* of these */
} MbusBodyLook;

/* What a look at a part has found. */
typedef enum MbusLooked
{
	MBUS_LOOK_ON,				/* sound, and there are more */
	MBUS_LOOK_SOUND,			/* that was all */
	MBUS_LOOK_DAMAGED,
	MBUS_LOOK_GONE				/* with its message, or not restored yet */
} MbusLooked;

extern void mbus_large_refer(MbusDraft *draft, const MbusBody *body);
extern void mbus_large_write(Oid schema, MbusDatabase *db,
							 const MbusChannel *channel, MbusDraft *draft);
extern void mbus_large_write_new(Oid schema, MbusDatabase *db,
								 const MbusChannel *channel, MbusDraft *draft);
extern void mbus_large_keep(Oid schema, MbusDatabase *db,
							const MbusDraft *draft);
extern struct varlena *mbus_large_read(Oid schema, const MbusStored *message,
									   int64 from, int64 count, bool verify);
extern MbusLooked mbus_large_look(Oid schema, const MbusStored *message,
								  MbusBodyLook *look, int64 *bytes);

#endif							/* MBUS_LARGE_H */
