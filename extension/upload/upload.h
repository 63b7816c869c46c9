/*
 * upload.h
 *		Uploads as their tables have them.
 */
#ifndef MBUS_UPLOAD_H
#define MBUS_UPLOAD_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "base/sha256.h"
#include "body/body.h"
#include "body/hash.h"
#include "channel/channel.h"
#include "message/draft.h"

#define MBUS_APPEND_PARTS	16	/* of one append */
#define MBUS_APPEND_MAX		(MBUS_APPEND_PARTS * MBUS_PART_BYTES)

/* kinds of upload_end */
#define MBUS_COMMITTED		'c'
#define MBUS_ABORTED		'a'

/* What begin was given; texts live where the row was read into. */
typedef struct MbusUpload
{
	int64		body;
	TimestampTz begun_at;
	int32		channel_id;
	Oid			role_oid;
	text	   *role;			/* its name */
	text	   *subject;		/* or NULL */
	int64		reserved;		/* bytes, for the quota */
	bool		own;			/* it has a store of its own */
	bool		done;			/* committed */
	int64		size;			/* -1: not known */
	const uint8 *sha256;		/* or NULL */
	char	   *content_type;
	text	   *transaction_id; /* or NULL, as the following */
	text	   *key;
	text	   *recipient;
	Datum		headers;		/* jsonb, or 0 */
	int64		ttl_us;			/* 0: the channel's */
	int64		delay_us;
} MbusUpload;

/* How an upload ended. */
typedef struct MbusUploadEnd
{
	TimestampTz at;
	char		kind;
	int64		message_id;		/* of one that was committed */
	int64		bytes;			/* of the message; of one that was aborted,
								 * what of it was there */
} MbusUploadEnd;

/* Rows of a table of uploads that one index gives, as they are now. */
typedef struct MbusUploadScan MbusUploadScan;

/* row.c */
extern bool mbus_upload_find(Oid schema, int64 number, MbusUpload *upload);
extern MbusUploadScan *mbus_uploads_all(Oid schema);
extern MbusUploadScan *mbus_uploads_of(Oid schema, text *role, text *subject);
extern MbusUploadScan *mbus_uploads_of_role(Oid schema, text *role);
extern MbusUploadScan *mbus_uploads_with(Oid schema, int32 channel_id,
										 text *transaction_id);
extern bool mbus_uploads_next(MbusUploadScan *scan, MbusUpload *upload);
extern void mbus_uploads_end(MbusUploadScan *scan);
extern void mbus_upload_insert(Oid schema, const MbusUpload *upload);
extern bool mbus_upload_ended(Oid schema, int64 number, MbusUploadEnd *end);
extern void mbus_upload_end(Oid schema, int64 number,
							const MbusUploadEnd *end);
extern int32 mbus_upload_hashed(Oid schema, int64 number, uint8 *state);
extern void mbus_upload_hash(Oid schema, int64 number, int32 n,
							 const uint8 *state);

/* ahead.c */
extern void mbus_upload_hash_ahead(Oid schema, const MbusBody *body,
								   Snapshot snapshot);
extern void mbus_upload_hash_resume(MbusBodyHash *hash, int32 known,
									const uint8 *state);

/* own.c */
extern bool mbus_upload_owner_set(MbusUpload *upload);
extern void mbus_upload_owner(MbusUpload *upload);
extern bool mbus_upload_own(const MbusUpload *upload);
extern bool mbus_same_text(const text *one, const text *other);
extern void mbus_upload_open(Oid schema, int64 number, MbusUpload *upload);
pg_noreturn extern void mbus_upload_missing(int64 number);
extern TimestampTz mbus_upload_expiry(const MbusUpload *upload,
									  const MbusBody *body);
extern bool mbus_upload_expired(Oid schema, const MbusUpload *upload);
extern void mbus_upload_unfinished(Oid schema, MbusUpload *upload,
								   LOCKMODE lockmode, MbusBody *body);
extern const MbusChannel *mbus_upload_channel(Oid schema,
											  const MbusUpload *upload);
extern void mbus_upload_check(const char *what);

/* begin.c */
extern void mbus_upload_draft(const MbusUpload *upload, MbusDraft *draft);

/* lock.c */
extern void mbus_upload_lock_owner(text *role, text *subject);
extern void mbus_upload_lock(int64 number, bool exclusive);
extern void mbus_upload_lock_part(int64 number, int32 n);
extern bool mbus_upload_lock_hash(int64 number);

/* quota.c */
extern int64 mbus_upload_limit(const MbusChannel *channel);
extern void mbus_upload_size_check(const MbusChannel *channel, int64 size);
extern void mbus_upload_quota(Oid schema, text *role, text *subject,
							  int64 reserved);
extern void mbus_upload_own_share(Oid schema, text *role, int64 size);
extern void mbus_upload_disk(int64 bytes);

#endif							/* MBUS_UPLOAD_H */
