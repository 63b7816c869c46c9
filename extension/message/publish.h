/*
 * publish.h
 *		Messages on their way into a segment.
 */
#ifndef MBUS_PUBLISH_H
#define MBUS_PUBLISH_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"

#include "base/payload.h"
#include "channel/channel.h"
#include "state/state.h"

#define MBUS_CALL_MAX		100000	/* messages in one call */
#define MBUS_HEADERS_MAX	(1024 * 1024)	/* bytes of jsonb */
#define MBUS_TRANSACTION_ID_MAX 255 /* bytes, as for keys and content types */

/* A message as its publisher gave it, and what publishing makes of it. */
typedef struct MbusDraft
{
	struct varlena *payload;	/* plain bytes */
	const char *content_type;
	bool		check_json;		/* not known to be JSON yet */
	Datum		headers;		/* jsonb, or 0 */
	text	   *key;			/* or NULL */
	text	   *transaction_id; /* or NULL */
	int64		ttl_us;			/* 0: the channel's */
	int64		delay_us;
	const uint8 *expected_sha256;	/* or NULL */

	/* filled in on the way */
	uint8		sha256[MBUS_SHA256_BYTES];
	struct varlena *stored;		/* encoded payload */
	MbusCompression compression;
	int64		id;				/* also: of the message it duplicates */
	bool		duplicate;		/* there is a live one with the same bytes */
	TimestampTz created_at;
} MbusDraft;

/* A leaf opened for inserting; see insert.c. */
typedef struct MbusInserter MbusInserter;

extern void mbus_draft_init(MbusDraft *draft, struct varlena *payload,
							const char *content_type, bool check_json);
extern void mbus_draft_options(MbusDraft *draft, text *key,
							   text *transaction_id, Interval *ttl,
							   Interval *delay, bytea *sha256);
extern void mbus_publish_drafts(text *channel, MbusDraft *drafts, int ndrafts);
extern int64 mbus_publish_waived(Oid schema, const MbusChannel *channel,
								 MbusDraft *draft);
extern void mbus_call_too_large(int messages);
extern void mbus_write_check(const char *what);

/* insert.c */
extern void mbus_insert_run(const MbusReservation *run, int32 channel_id,
							MbusDraft **drafts, int ndrafts);
extern MbusInserter *mbus_inserter_open(Oid leaf, int ncolumns,
										bool speculative);
extern void mbus_inserter_close(MbusInserter *inserter);
extern int64 mbus_key_hash(const text *key);
extern void mbus_insert_event(Oid schema, int64 message_id, const char *kind,
							  TimestampTz at);
extern bool mbus_insert_speculative(MbusInserter *inserter, int32 channel_id,
									MbusDraft *draft, uint32 *token);
extern void mbus_insert_speculative_end(MbusInserter *inserter, uint32 token,
										bool keep);
extern TupleTableSlot *mbus_inserter_slot(MbusInserter *inserter);
extern void mbus_inserter_put(MbusInserter *inserter);
extern void mbus_slot_text(TupleTableSlot *slot, int column,
						   const char *value);
extern Relation mbus_inserter_relation(MbusInserter *inserter);

/* transaction_id.c */
extern void mbus_insert_unique(Oid schema, MbusDatabase *db,
							   const MbusReservation *run,
							   const MbusChannel *channel,
							   MbusDraft **drafts, int ndrafts);

/* subject.c */
extern void mbus_subject_cut(char *subject);

#endif							/* MBUS_PUBLISH_H */
