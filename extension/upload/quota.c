/*
 * quota.c
 *		How much a role and subject may have under way.
 *
 * They may have message_bus.max_uploads uploads that are open, and have
 * reserved message_bus.max_upload_bytes.  Bytes count as long as the upload's
 * row is there: until the space is back, of one that had a store of its own;
 * of one that was aborted or has expired in a store that it shares, and whose
 * space comes back with that, for upload_ttl after its end (worker).  What was
 * committed is the channel's.  An aborted one counts what of it is there, and a
 * little at least, so that there are not any number of rows of them.
 *
 * A role makes subjects as it likes, and stores of one body are few: once half of
 * them are in use, the uploads of a role may not have more than a part of all,
 * whatever the subjects.  Two that begin at once may be one too many.
 *
 * Who counts has the lock of the role and subject, so that what he has found
 * is so until his own row is there.
 */
#include "postgres.h"

#include <sys/statvfs.h>

#include "catalog/pg_tablespace_d.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"

#include "base/settings.h"
#include "channel/channel.h"
#include "state/state.h"
#include "upload/upload.h"

#define ABORTED_LEAST	(1024 * 1024)	/* bytes that one counts */
#define OWN_PART		4		/* of stores of one body: what a role may have */
#define DISK_LEFT		20		/* one part in so many stays free */

/* What is under way. */
typedef struct Usage
{
	int			open;			/* uploads */
	int64		bytes;			/* of these and others */
} Usage;

static Usage usage_count(Oid schema, text *role, text *subject);
static int	own_count(Oid schema, text *role, int most);
static void too_many(int most);
static void too_much(int64 reserved, int64 bytes);

/*
 * mbus_upload_limit returns the largest body that a channel takes.
 */
int64
mbus_upload_limit(const MbusChannel *channel)
{
	int64		limit = (int64) mbus_max_body * 1024 * 1024;

	if (channel->max_payload > 0)
		limit = Min(limit, channel->max_payload);
	return limit;
}

/*
 * mbus_upload_size_check errors with 54000 if that is less than a body has.
 */
void
mbus_upload_size_check(const MbusChannel *channel, int64 size)
{
	int64		limit = mbus_upload_limit(channel);

	if (size > limit)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("body of " INT64_FORMAT " bytes is too large for channel \"%s\"",
						size, channel->name),
				 errdetail("The limit is " INT64_FORMAT " bytes (%s).", limit,
						   limit == channel->max_payload ?
						   "the channel's max_payload" :
						   "message_bus.max_body")));
}

/*
 * mbus_upload_quota errors with 53400 if a role and subject, of which the
 * caller has the lock, may not reserve so many bytes for one more upload.
 */
void
mbus_upload_quota(Oid schema, text *role, text *subject, int64 reserved)
{
	Usage		usage = usage_count(schema, role, subject);

	if (usage.open >= mbus_max_uploads)
		too_many(mbus_max_uploads);
	if (usage.bytes + reserved > (int64) mbus_max_upload_mb * 1024 * 1024)
		too_much(reserved, usage.bytes);
}

/* Counts what a role and subject have under way. */
static Usage
usage_count(Oid schema, text *role, text *subject)
{
	MbusUploadScan *scan = mbus_uploads_of(schema, role, subject);
	Usage		usage = {0};
	MbusUpload	upload;
	MbusUploadEnd end;

	while (mbus_uploads_next(scan, &upload))
	{
		if (mbus_upload_ended(schema, upload.body, &end))
			usage.bytes += Max(end.bytes, ABORTED_LEAST);
		else
		{
			usage.bytes += upload.reserved;
			if (!mbus_upload_expired(schema, &upload))
				usage.open++;
		}
	}
	mbus_uploads_end(scan);
	return usage;
}

static void
too_many(int most)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many uploads are open for this role and subject"),
			 errdetail("There are %d, as many as \"message_bus.max_uploads\" allows.",
					   most),
			 errhint("Commit or abort some; the view message_bus.uploads shows them.")));
}

static void
too_much(int64 reserved, int64 bytes)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too much is reserved for uploads of this role and subject"),
			 errdetail("With " INT64_FORMAT " bytes more it would be " INT64_FORMAT "; \"message_bus.max_upload_bytes\" is %d MB.",
					   reserved, bytes + reserved, mbus_max_upload_mb),
			 errhint("Commit or abort some; what was aborted or has expired counts until its space is returned. The view message_bus.uploads shows them.")));
}

/*
 * mbus_upload_own_share errors with 53400 if one more upload of a size, -1: not
 * known, needs a store of its own, these are scarce, and the role has its part
 * of them.
 */
void
mbus_upload_own_share(Oid schema, text *role, int64 size)
{
	MbusDatabase *db = mbus_database();
	int			most = Max(mbus_max_own_stores / OWN_PART, 1);
	int			used;

	if (size >= 0 && size <= (int64) mbus_own_body_min * 1024 * 1024)
		return;
	LWLockAcquire(&db->lock, LW_SHARED);
	used = db->stores.own;
	LWLockRelease(&db->lock);
	if (used <= mbus_max_own_stores / 2 ||
		own_count(schema, role, most) < most)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many uploads of this role have a store of their own"),
			 errdetail("There are %d, as many as a role may have while more than half of \"message_bus.max_own_stores\" are in use.",
					   most),
			 errhint("Commit or abort some, or give the size: a body of at most %d MB needs no store of its own.",
					 mbus_own_body_min)));
}

/* Counts those of a role that are open in stores of their own, up to a number. */
static int
own_count(Oid schema, text *role, int most)
{
	MbusUploadScan *scan = mbus_uploads_of_role(schema, role);
	MbusUpload	upload;
	MbusUploadEnd end;
	int			n = 0;

	while (n < most && mbus_uploads_next(scan, &upload))
	{
		CHECK_FOR_INTERRUPTS();
		if (upload.own && !mbus_upload_ended(schema, upload.body, &end))
			n++;
	}
	mbus_uploads_end(scan);
	return n;
}

/*
 * mbus_upload_disk errors with 53100 unless the disk that bodies lie on has
 * room for so many bytes, and a twentieth of it left then.
 */
void
mbus_upload_disk(int64 bytes)
{
	Oid			tablespace = InvalidOid;
	char	   *path;
	struct statvfs space;
	double		left;

	if (mbus_body_tablespace && mbus_body_tablespace[0] != '\0')
		tablespace = get_tablespace_oid(mbus_body_tablespace, true);
	if (!OidIsValid(tablespace))
		tablespace = MyDatabaseTableSpace;
	path = tablespace == DEFAULTTABLESPACE_OID ? pstrdup("base") :
		psprintf("pg_tblspc/%u", tablespace);
	if (statvfs(path, &space) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not ask for the free space of \"%s\": %m",
						path)));
	left = (double) space.f_bavail * space.f_frsize - bytes;
	if (left < (double) space.f_blocks * space.f_frsize / DISK_LEFT)
		ereport(ERROR,
				(errcode(ERRCODE_DISK_FULL),
				 errmsg("there is no room for an upload of " INT64_FORMAT " bytes",
						bytes),
				 errdetail("With it less than 5 percent of the disk would be free.")));
	pfree(path);
}
