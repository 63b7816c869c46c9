/*
 * stored.h
 *		Stored messages.
 */
#ifndef MBUS_STORED_H
#define MBUS_STORED_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "base/payload.h"
#include "channel/channel.h"

/*
 * A message's row; texts and bytes live in the memory context of the reader.
 */
typedef struct MbusStored
{
	int64		id;
	int32		channel_id;
	int64		size;
	int64		body;			/* 0: the bytes are in "stored" */
	bool		json;			/* the body was checked to be JSON */
	TimestampTz created_at;
	TimestampTz expires_at;
	TimestampTz available_at;
	int64		session;		/* 0: none */
	int32		publisher_id;
	char	   *content_type;
	MbusCompression compression;
	uint8		sha256[MBUS_SHA256_BYTES];
	text	   *subject;		/* or NULL, as the following */
	text	   *key;
	text	   *transaction_id;
	text	   *recipient;
	struct varlena *headers;
	struct varlena *stored;		/* still toasted */
} MbusStored;

/* of a payload, that are shown; of a large one those that are in the row */
#define MBUS_PREVIEW_BYTES	1024

/* columns of message_bus.stored_message; the last is the payload */
#define MBUS_STORED_COLUMNS 16

extern bool mbus_message_deleted(Oid schema, int64 id);
extern bool mbus_message_deleted_for_good(Oid schema, int64 id);
extern bool mbus_message_purged(Oid schema, int32 channel_id, int64 id);
extern bool mbus_message_fetch(Oid schema, int64 id, MbusStored *message);
extern bool mbus_message_fetch_latest(Oid schema, int64 id,
									  MbusStored *message);
extern bool mbus_message_fetch_stored(Oid schema, int64 id,
									  MbusStored *message);
extern TimestampTz mbus_message_expiry(Oid schema, int64 id);
extern bool mbus_message_by_transaction(Oid schema,
										const MbusChannel *channel,
										text *transaction_id,
										MbusStored *message);
extern bool mbus_message_with_transaction(Oid schema,
										  const MbusChannel *channel,
										  text *transaction_id,
										  MbusStored *message);
extern const char *mbus_message_why_gone(Oid schema, int32 channel_id,
										 int64 id);
extern bool mbus_message_visible(Oid schema, const MbusStored *message);
extern void mbus_message_read(HeapTuple tuple, TupleDesc desc,
							  MbusStored *m);
extern bool mbus_message_left(Oid schema, const MbusStored *message);
extern bool mbus_message_unchecked(const MbusStored *message);
extern bool mbus_message_columns(Oid schema, const MbusStored *message,
								 bool whole, Datum *values, bool *isnull);

#endif							/* MBUS_STORED_H */
