/*
 * batch.c
 *		Messages in a JSON array: what publish_batch takes.
 *
 * One pass of the server's JSON parser over the whole array finds where each
 * member of each object begins and ends (base/json_slice.c).  A payload is that
 * slice, byte for byte; the other members are read from theirs.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/compat.h"
#include "base/json_slice.h"
#include "base/limits.h"
#include "message/batch.h"
#include "message/draft.h"

#define MBUS_SECONDS_MAX	1e11	/* what an interval is trusted to hold */

static const char *const member_names[] = {
	"payload", "headers", "key", "transaction_id", "ttl", "delay", "sha256",
	"available_at", "recipient"
};

static void draft_read(const MbusNode *object, int index, MbusDraft *draft);
static void about_object(const MbusNode *object);
static void members_check(const MbusNode *object, int index);
static const MbusSlice *member_value(const MbusNode *object,
									 const char *name);
static text *member_text(const MbusNode *object, int index,
						 const char *name);
static Interval *member_interval(const MbusNode *object, int index,
								 const char *name);
static bool member_time(const MbusNode *object, int index, const char *name,
						TimestampTz *time);
static void member_error(int index, const char *name, const char *expected);

/*
 * mbus_batch_parse returns the drafts in an array of objects.  22023 where it
 * is not that, for an unknown or repeated member or one of the wrong type;
 * the element is named, counting from 0.
 */
MbusDraft *
mbus_batch_parse(text *messages, int *ndrafts)
{
	MbusNode	root;
	MbusDraft  *drafts;

	mbus_json_slice(VARDATA_ANY(messages), VARSIZE_ANY_EXHDR(messages),
					MBUS_CALL_MAX, &root);
	if (root.value.type != JSON_TOKEN_ARRAY_START)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("messages must be an array of objects")));
	if (root.total > MBUS_CALL_MAX)
		mbus_call_too_large(root.total);

	drafts = palloc_extended(Max(root.total, 1) * sizeof(MbusDraft),
							 MCXT_ALLOC_HUGE);
	for (int i = 0; i < root.nchildren; i++)
		draft_read(&root.children[i], i, &drafts[i]);
	mbus_about_transaction(NULL);
	*ndrafts = root.nchildren;
	return drafts;
}

/*
 * draft_read makes a draft of one object.
 */
static void
draft_read(const MbusNode *object, int index, MbusDraft *draft)
{
	const MbusNode *payload;
	const MbusSlice *headers;
	text	   *transaction_id;
	TimestampTz available_at;
	bool		available_given;

	if (!object->opened)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("messages[%d] must be an object", index)));
	about_object(object);
	members_check(object, index);
	transaction_id = member_text(object, index, "transaction_id");
	payload = mbus_json_member(object, "payload");
	if (payload == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("messages[%d] has no payload", index)));
	mbus_draft_init(draft, (struct varlena *)
					cstring_to_text_with_len(payload->value.start,
											 payload->value.len),
					"application/json", false);
	available_given = member_time(object, index, "available_at",
								  &available_at);
	headers = member_value(object, "headers");
	if (headers)
	{
		if (headers->type != JSON_TOKEN_OBJECT_START)
			member_error(index, "headers", "an object");
		draft->headers =
			DirectFunctionCall1(jsonb_in,
								CStringGetDatum(mbus_json_token(headers, -1)));
	}
	mbus_draft_options(draft,
					   member_text(object, index, "key"),
					   transaction_id,
					   member_interval(object, index, "ttl"),
					   member_interval(object, index, "delay"),
					   available_given ? &available_at : NULL,
					   (bytea *) member_text(object, index, "sha256"));
	draft->recipient = member_text(object, index, "recipient");
}

/* Notes the transaction id, if there is one, before anything is found wrong. */
static void
about_object(const MbusNode *object)
{
	const MbusSlice *value = member_value(object, "transaction_id");
	const char *string = NULL;

	if (value && value->type == JSON_TOKEN_STRING)
		string = mbus_json_string(value, true);
	mbus_about_transaction(string ? cstring_to_text(string) : NULL);
}

/* Refuses unknown members and those that are there twice. */
static void
members_check(const MbusNode *object, int index)
{
	const char *twice = mbus_json_duplicate(object);

	if (twice)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("messages[%d] has two members \"%s\"", index, twice)));
	for (int i = 0; i < object->nchildren; i++)
	{
		bool		known = false;

		for (int m = 0; m < (int) lengthof(member_names); m++)
			known |= strcmp(object->children[i].name, member_names[m]) == 0;
		if (!known)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("messages[%d] has an unknown member \"%s\"",
							index, object->children[i].name),
					 errdetail("Members are payload, headers, key, transaction_id, ttl, delay, available_at, recipient and sha256.")));
	}
}

/* A member's value; NULL where it is absent or null. */
static const MbusSlice *
member_value(const MbusNode *object, const char *name)
{
	const MbusNode *member = mbus_json_member(object, name);

	if (member == NULL || member->value.type == JSON_TOKEN_NULL)
		return NULL;
	return &member->value;
}

static text *
member_text(const MbusNode *object, int index, const char *name)
{
	const MbusSlice *value = member_value(object, name);

	if (value == NULL)
		return NULL;
	if (value->type != JSON_TOKEN_STRING)
		member_error(index, name, "a string");
	return cstring_to_text(mbus_json_string(value, false));
}

/* An interval is text, or a number of seconds. */
static Interval *
member_interval(const MbusNode *object, int index, const char *name)
{
	const MbusSlice *value = member_value(object, name);
	Interval   *interval;
	double		seconds;

	if (value == NULL)
		return NULL;
	if (value->type == JSON_TOKEN_STRING)
		return DatumGetIntervalP(DirectFunctionCall3(interval_in,
													 CStringGetDatum(mbus_json_string(value, false)),
													 ObjectIdGetDatum(InvalidOid),
													 Int32GetDatum(-1)));
	if (value->type != JSON_TOKEN_NUMBER)
		member_error(index, name, "an interval or a number of seconds");
	seconds = strtod(mbus_json_token(value, -1), NULL);
	if (!isfinite(seconds) || fabs(seconds) > MBUS_SECONDS_MAX)
		member_error(index, name, "an interval or a number of seconds");
	interval = palloc0(sizeof(Interval));
	interval->time = (TimeOffset) rint(seconds * USECS_PER_SEC);
	return interval;
}

/* A time is text; false where it is absent or null. */
static bool
member_time(const MbusNode *object, int index, const char *name,
			TimestampTz *time)
{
	const MbusSlice *value = member_value(object, name);

	if (value == NULL)
		return false;
	if (value->type != JSON_TOKEN_STRING)
		member_error(index, name, "a time as text");
	*time = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
													CStringGetDatum(mbus_json_string(value, false)),
													ObjectIdGetDatum(InvalidOid),
													Int32GetDatum(-1)));
	return true;
}

static void
member_error(int index, const char *name, const char *expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("member \"%s\" of messages[%d] must be %s",
					name, index, expected)));
}
