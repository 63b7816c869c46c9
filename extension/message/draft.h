/*
 * draft.h
 *		A message as its publisher gives it.
 */
#ifndef MBUS_DRAFT_H
#define MBUS_DRAFT_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/payload.h"
#include "body/body.h"
#include "channel/channel.h"

/* A message as its publisher gave it, and what publishing makes of it. */
typedef struct MbusDraft
{
	struct varlena *payload;	/* plain bytes; if it refers their beginning */
	int64		size;			/* of all */
	const char *content_type;
	bool		check_json;		/* not known to be JSON yet */
	Datum		headers;		/* jsonb, or 0 */
	text	   *key;			/* or NULL */
	text	   *transaction_id; /* or NULL */
	text	   *recipient;		/* a subject, or NULL */
	int64		ttl_us;			/* 0: the channel's */
	int64		delay_us;		/* before it is delivered, or ... */
	TimestampTz available_at;	/* ... when; 0: not given */
	const uint8 *expected_sha256;	/* or NULL */

	/* filled in on the way */
	uint8		sha256[MBUS_SHA256_BYTES];
	int32		publisher_id;
	bool		copied;			/* that and the subject are of the message
								 * that it is a copy of */
	text	   *subject;		/* of that one, or NULL */
	struct varlena *stored;		/* encoded payload */
	MbusCompression compression;
	int64		id;				/* also: of the message it duplicates */
	const MbusBody *body;		/* has the bytes; NULL: none, or not yet */
	bool		body_json;		/* they were checked to be JSON */
	bool		refers;			/* others may have the body, too */
	bool		duplicate;		/* there is a live one with the same bytes */
	TimestampTz created_at;
} MbusDraft;

#define MbusDraftLarge(draft)	((draft)->size > MBUS_BODY_OVER)

extern void mbus_draft_init(MbusDraft *draft, struct varlena *payload,
							const char *content_type, bool check_json);
extern void mbus_draft_options(MbusDraft *draft, text *key,
							   text *transaction_id, Interval *ttl,
							   Interval *delay, const TimestampTz *available_at,
							   bytea *sha256);
extern void mbus_call_too_large(int messages);
extern void mbus_draft_preview(MbusDraft *draft);
extern void mbus_draft_check(const MbusChannel *channel, MbusDraft *draft);
extern void mbus_draft_check_head(const MbusChannel *channel,
								  MbusDraft *draft);
pg_noreturn extern void mbus_draft_id_used(const MbusChannel *channel,
										   const MbusDraft *draft, int64 id,
										   const char *why);

#endif							/* MBUS_DRAFT_H */
