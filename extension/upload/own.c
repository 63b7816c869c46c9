/*
 * own.c
 *		Whose an upload is, and whether it may go on.
 *
 * An upload is its role's and subject's.  The subject of a frame is that of
 * its session's token, which was verified; that of a session of SQL is what
 * request.jwt.claims says, which PostgREST sets, and which who has a session
 * of SQL of his own can set as he likes: such a session speaks for all
 * subjects of its role anyway (channel/visibility.c).
 *
 * The role is kept by name and OID, so that neither another one that gets
 * the name nor one that gets the OID has them; what was restored in another
 * cluster is nobody's, and expires.
 *
 * Who asks for another's upload hears what he hears where there is none.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/argument.h"
#include "base/caller.h"
#include "base/settings.h"
#include "body/part.h"
#include "channel/channel.h"
#include "state/clock.h"
#include "state/disk.h"
#include "state/state.h"
#include "upload/upload.h"

#define UPLOAD_LONGEST	(30 * USECS_PER_DAY)	/* from begin to commit */

static bool is_nobody(const char *subject);
static bool time_is_over(const MbusUpload *upload, const MbusBody *body);
static void upload_ended(const MbusUpload *upload, const MbusUploadEnd *end);

/*
 * mbus_upload_check errors where nothing can be uploaded now, whatever it is:
 * 25006, 57000, 53100.
 */
void
mbus_upload_check(const char *what)
{
	mbus_write_check(what);
	if (!mbus_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("publishing is disabled"),
				 errhint("It is allowed again when \"message_bus.enabled\" is on.")));
	mbus_disk_check(mbus_database());
}

/*
 * mbus_upload_owner sets whose a new upload is: the caller's.  42501 for who is
 * nobody in particular.
 */
void
mbus_upload_owner(MbusUpload *upload)
{
	if (!mbus_upload_owner_set(upload))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to upload"),
				 errdetail("An upload belongs to a role and a subject, and who asks is anonymous."),
				 errhint("Authenticate with a token that names a subject (\"sub\").")));
}

/*
 * mbus_upload_owner_set does so; false for who is nobody in particular.
 */
bool
mbus_upload_owner_set(MbusUpload *upload)
{
	const char *own = mbus_subject();

	if (is_nobody(own))
		return false;
	upload->role_oid = GetUserId();
	upload->role = cstring_to_text(GetUserNameFromId(GetUserId(), false));
	upload->subject = own ? cstring_to_text(own) : NULL;
	return true;
}

/*
 * Whether the caller is nobody in particular: of the role that all have who
 * have no token, without a subject; or with claims whose subject cannot be
 * compared.
 */
static bool
is_nobody(const char *subject)
{
	if (subject)
		return false;
	if (mbus_subject_unusable())
		return true;
	return mbus_anonymous_role && mbus_anonymous_role[0] != '\0' &&
		get_role_oid(mbus_anonymous_role, true) == GetUserId();
}

/*
 * mbus_upload_own tells whether an upload is the caller's.
 */
bool
mbus_upload_own(const MbusUpload *upload)
{
	const char *own = mbus_subject();
	char	   *role = GetUserNameFromId(GetUserId(), false);

	return !is_nobody(own) && upload->role_oid == GetUserId() &&
		mbus_same_text(upload->role, cstring_to_text(role)) &&
		mbus_same_text(upload->subject, own ? cstring_to_text(own) : NULL);
}

/*
 * mbus_same_text tells whether two texts are the same; NULL is as NULL.
 */
bool
mbus_same_text(const text *one, const text *other)
{
	if (one == NULL || other == NULL)
		return one == other;
	return VARSIZE_ANY_EXHDR(one) == VARSIZE_ANY_EXHDR(other) &&
		memcmp(VARDATA_ANY(one), VARDATA_ANY(other),
			   VARSIZE_ANY_EXHDR(one)) == 0;
}

/*
 * mbus_upload_open reads an upload of the caller's; 55000 if there is none.
 */
void
mbus_upload_open(Oid schema, int64 number, MbusUpload *upload)
{
	const MbusChannel *channel;

	if (!mbus_upload_find(schema, number, upload) || !mbus_upload_own(upload))
		mbus_upload_missing(number);
	channel = mbus_channel_by_id(schema, upload->channel_id);
	if (channel)
		mbus_about_channel(channel->name, (int) strlen(channel->name));
	mbus_about_transaction(upload->transaction_id);
}

/*
 * mbus_upload_missing errors with 55000: there is no such upload, to the
 * caller at least.
 */
void
mbus_upload_missing(int64 number)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("upload " INT64_FORMAT " does not exist", number),
			 errhint("An upload is of the role and subject that began it, and ends some time after it was committed or given up. Begin a new one.")));
}

/*
 * mbus_upload_unfinished makes sure that an upload of the caller's, of which he
 * has the lock, goes on, and finds and locks its table of parts; else 55000.
 * What is read before the locks is of no use: the row is read anew.
 */
void
mbus_upload_unfinished(Oid schema, MbusUpload *upload, LOCKMODE lockmode,
					   MbusBody *body)
{
	int64		number = upload->body;
	bool		there = mbus_body_find(schema, number, lockmode, body);
	MbusUploadEnd end;

	if (!mbus_upload_find(schema, number, upload))
		mbus_upload_missing(number);
	if (mbus_upload_ended(schema, number, &end))
		upload_ended(upload, &end);
	if (!there || upload->done)
		mbus_upload_missing(number);
	if (time_is_over(upload, body))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("upload " INT64_FORMAT " has expired", number),
				 errdetail("It was begun at %s.",
						   timestamptz_to_str(upload->begun_at)),
				 errhint("Begin a new one. See \"message_bus.upload_ttl\".")));
}

/* Errors with 55000, and says how it ended. */
static void
upload_ended(const MbusUpload *upload, const MbusUploadEnd *end)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 end->kind == MBUS_COMMITTED ?
			 errmsg("upload " INT64_FORMAT " was committed", upload->body) :
			 errmsg("upload " INT64_FORMAT " was aborted", upload->body),
			 end->kind == MBUS_COMMITTED ?
			 errdetail("It is message " INT64_FORMAT ".", end->message_id) :
			 0));
}

/*
 * mbus_upload_expiry returns when an upload expires, if nothing comes any
 * more.  One in a store that it shares is small, and is not to keep its
 * neighbours' bytes: it has upload_ttl in all.
 */
TimestampTz
mbus_upload_expiry(const MbusUpload *upload, const MbusBody *body)
{
	TimestampTz last = upload->begun_at;

	if (upload->own)
		last = Max(last, mbus_parts_last_at(body));
	return Min(last + mbus_upload_ttl * USECS_PER_SEC,
			   upload->begun_at + UPLOAD_LONGEST);
}

/*
 * mbus_upload_expired tells whether an upload that has not ended is too old to
 * go on, or its store has gone.
 */
bool
mbus_upload_expired(Oid schema, const MbusUpload *upload)
{
	MbusBody	body;
	bool		expired;

	if (upload->begun_at + mbus_upload_ttl * USECS_PER_SEC > mbus_now())
		return false;
	if (!mbus_body_find(schema, upload->body, AccessShareLock, &body))
		return true;
	expired = time_is_over(upload, &body);
	/* who looks at many has not locks of all */
	UnlockRelationOid(body.relid, AccessShareLock);
	return expired;
}

/*
 * Whether an upload is too old.  Its parts are looked at only where that
 * decides.
 */
static bool
time_is_over(const MbusUpload *upload, const MbusBody *body)
{
	TimestampTz now = mbus_now();
	TimestampTz since = now - mbus_upload_ttl * USECS_PER_SEC;

	if (upload->begun_at > since)
		return false;
	return !upload->own || upload->begun_at + UPLOAD_LONGEST <= now ||
		!mbus_parts_since(body, since);
}

/*
 * mbus_upload_channel returns an upload's channel, to which the caller may
 * publish; 42P01 if it was dropped, 42501.
 */
const MbusChannel *
mbus_upload_channel(Oid schema, const MbusUpload *upload)
{
	const MbusChannel *channel = mbus_channel_by_id(schema,
													upload->channel_id);

	if (channel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("channel of upload " INT64_FORMAT " was dropped",
						upload->body)));
	mbus_channel_check(channel, MBUS_PUBLISH);
	return channel;
}
