/*
 * abort.c
 *		upload_abort: gives an upload up.
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "base/argument.h"
#include "base/schema.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/store.h"
#include "upload/extent.h"
#include "upload/upload.h"

static int64 bytes_there(const MbusBody *body);

/*
 * upload_abort(upload) ends an upload; false if there is none of the caller's
 * that is open.  What of it is there stays until its store goes.
 */
MBUS_FUNCTION(upload_abort)
{
	Oid			schema = mbus_schema();
	MbusUploadEnd end = {0};
	MbusUpload	upload;
	MbusBody	body;

	mbus_required(fcinfo, 0, "upload");
	mbus_write_check("message_bus.upload_abort()");
	if (!mbus_upload_find(schema, PG_GETARG_INT64(0), &upload) ||
		!mbus_upload_own(&upload))
		PG_RETURN_BOOL(false);
	mbus_upload_lock(upload.body, true);
	if (mbus_upload_ended(schema, upload.body, &end) &&
		end.kind == MBUS_ABORTED)
		PG_RETURN_BOOL(false);
	if (end.kind != MBUS_COMMITTED && mbus_upload_expired(schema, &upload))
		PG_RETURN_BOOL(false);
	mbus_upload_unfinished(schema, &upload, RowShareLock, &body);
	end.at = mbus_now();
	end.kind = MBUS_ABORTED;
	end.bytes = bytes_there(&body);
	mbus_upload_end(schema, upload.body, &end);
	mbus_stores_look();
	PG_RETURN_BOOL(true);
}

/* What of a body is there. */
static int64
bytes_there(const MbusBody *body)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		bytes = 0;
	const MbusPart *part;
	MbusWalk	walk;

	mbus_walk_begin(&walk, body, 0, snapshot);
	while ((part = mbus_walk_next(&walk)) != NULL)
		bytes += part->size;
	mbus_walk_end(&walk);
	UnregisterSnapshot(snapshot);
	return bytes;
}
