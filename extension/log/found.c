/*
 * found.c
 *		A row that the log has an entry of, for who may see it.
 *
 * A message is for whom get() gives it to; a fact for whom may consume the
 * channel of its message, and see all of it where subjects are kept apart; what
 * was changed for whom action/action.c says; what is done to the log for
 * pg_monitor.  What one may not see is not there.
 *
 * The row is found by its number, the entry made again from it (row.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "action/action.h"
#include "base/columns.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "log/found.h"
#include "log/row.h"
#include "message/read.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

/* What may be asked for, by its word in an entry. */
typedef struct Word
{
	const char *word;
	int			kind;
} Word;

static const Word words[] = {
	{"message", MBUS_MESSAGE},
	{"ack", MBUS_ACK},
	{"failure", MBUS_FAILURE},
	{"redrive", MBUS_FAILURE},
	{"access", MBUS_EVENT},
	{"delete", MBUS_EVENT},
	{"log", MBUS_LOG_ACTION},
	{"drop-segment", MBUS_LOG_ACTION},
	{"gap", MBUS_LOG_ACTION},
	{"channel", MBUS_LOG_ACTION},
	{"grant", MBUS_LOG_ACTION},
	{"subscription", MBUS_LOG_ACTION},
	{"purge", MBUS_LOG_ACTION},
	{"keys", MBUS_LOG_ACTION},
};

static int	kind_of(const char *word);
static bool message_found(Oid schema, Snapshot snapshot, MbusFound *found);
static bool fact_found(Oid schema, Snapshot snapshot, const char *word,
					   MbusFound *found);
static bool fact_shown(Oid schema, Snapshot snapshot, int kind,
					   HeapTuple tuple, TupleDesc desc);
static bool action_found(Oid schema, Snapshot snapshot, const char *word,
						 bool newest, MbusFound *found);
static bool action_shown(Oid schema, const char *word, HeapTuple tuple,
						 TupleDesc desc);
static bool entry_make(Oid schema, Snapshot snapshot, MbusFound *found,
					   HeapTuple tuple, TupleDesc desc);
static bool entry_is(const MbusFound *found, const char *word);

/*
 * mbus_found finds what the arguments (id, kind) of an SQL function name, and
 * makes its entry; false if there is none, or none for the current user.
 */
bool
mbus_found(FunctionCallInfo fcinfo, Oid schema, Snapshot snapshot,
		   MbusFound *found)
{
	char	   *word;

	if (PG_ARGISNULL(1))
		return false;
	word = text_to_cstring(PG_GETARG_TEXT_PP(1));
	memset(found, 0, sizeof(*found));
	found->kind = kind_of(word);
	found->number = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	mbus_entry_init(&found->entry, true);
	if (found->kind == MBUS_LOG_ACTION)
		return action_found(schema, snapshot, word, PG_ARGISNULL(0), found);
	if (PG_ARGISNULL(0))
		return false;
	if (found->kind == MBUS_MESSAGE)
		return message_found(schema, snapshot, found);
	return fact_found(schema, snapshot, word, found);
}

/* The kind of rows that a word is for; 22023 if it is none. */
static int
kind_of(const char *word)
{
	for (int i = 0; i < (int) lengthof(words); i++)
	{
		if (strcmp(words[i].word, word) == 0)
			return words[i].kind;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is no kind of entry of the log", word),
			 errhint("Kinds are message, ack, failure, redrive, access, delete, channel, grant, subscription, purge, keys, log, drop-segment and gap.")));
}

/* A message, as get() finds it. */
static bool
message_found(Oid schema, Snapshot snapshot, MbusFound *found)
{
	MbusStored	message;
	Relation	leaf;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		there;

	if (!mbus_message_readable(schema, found->number, &message))
		return false;
	found->segment = MbusSegmentOf(found->number);
	leaf = mbus_leaf_open(schema, found->segment, MBUS_MESSAGE,
						  AccessShareLock);
	if (leaf == NULL)
		return false;
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, found->number, found->number);
	mbus_leaf_scan_begin(&rows, snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	there = tuple != NULL &&
		entry_make(schema, snapshot, found, tuple, RelationGetDescr(leaf));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return there;
}

/* A fact, in whichever segment. */
static bool
fact_found(Oid schema, Snapshot snapshot, const char *word, MbusFound *found)
{
	AttrNumber	column = mbus_row_number(found->kind);
	MbusLeaf   *leaves;
	int			n = mbus_leaves(schema, &leaves);
	bool		there = false;

	for (int i = 0; i < n && !there; i++)
	{
		Relation	leaf = mbus_leaf_open(schema, leaves[i].segment,
										  (MbusFamily) found->kind,
										  AccessShareLock);
		MbusLeafScan rows;
		HeapTuple	tuple;

		if (leaf == NULL)
			continue;
		found->segment = leaves[i].segment;
		mbus_leaf_scan_open(&rows, leaf, column, 0, false);
		mbus_leaf_scan_int8(&rows, column, found->number, found->number);
		mbus_leaf_scan_begin(&rows, snapshot);
		tuple = mbus_leaf_scan_next(&rows);
		there = tuple != NULL &&
			fact_shown(schema, snapshot, found->kind, tuple,
					   RelationGetDescr(leaf)) &&
			entry_make(schema, snapshot, found, tuple,
					   RelationGetDescr(leaf)) &&
			entry_is(found, word);
		mbus_leaf_scan_close(&rows);
		table_close(leaf, AccessShareLock);
	}
	return there;
}

/* Whether the current user may see a fact: that depends on its message. */
static bool
fact_shown(Oid schema, Snapshot snapshot, int kind, HeapTuple tuple,
		   TupleDesc desc)
{
	int			column = kind == MBUS_ACK ? MBUS_ACK_LO :
	kind == MBUS_EVENT ? MBUS_EVENT_MESSAGE_ID : MBUS_FAILURE_MESSAGE_ID;
	bool		isnull;
	int64		id = DatumGetInt64(heap_getattr(tuple, column, desc, &isnull));
	Relation	leaf = mbus_leaf_open(schema, MbusSegmentOf(id), MBUS_MESSAGE,
									  AccessShareLock);
	const MbusChannel *channel = NULL;
	MbusLeafScan rows;
	HeapTuple	message;

	if (leaf == NULL)
		return false;
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, id, id);
	mbus_leaf_scan_begin(&rows, snapshot);
	message = mbus_leaf_scan_next(&rows);
	if (message)
		channel = mbus_channel_by_id(schema,
									 DatumGetInt32(heap_getattr(message,
																MBUS_COL_CHANNEL_ID,
																RelationGetDescr(leaf),
																&isnull)));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return channel && mbus_channel_allows(channel, MBUS_CLAIM);
}

/*
 * What was changed, by its number; or what was done to the log, the newest of
 * that kind, too, whose numbers are below.
 */
static bool
action_found(Oid schema, Snapshot snapshot, const char *word, bool newest,
			 MbusFound *found)
{
	Relation	rel;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		there = false;

	/* below 0: not logged yet, and no entry */
	if (found->number < 0 || (newest && !mbus_monitors()))
		return false;
	rel = table_open(mbus_relation(schema, "log_action"), AccessShareLock);
	mbus_leaf_scan_open(&rows, rel, MBUS_ACTION_NO, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_ACTION_NO,
						newest ? 0 : found->number,
						newest ? MBUS_ACTION_FIRST - 1 : found->number);
	mbus_leaf_scan_begin(&rows, snapshot);
	while (!there &&
		   (tuple = systable_getnext_ordered(rows.rows,
											 BackwardScanDirection)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		there = action_shown(schema, word, tuple, RelationGetDescr(rel)) &&
			entry_make(schema, snapshot, found, tuple,
					   RelationGetDescr(rel)) && entry_is(found, word);
	}
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	return there;
}

/* Whether the current user may see an action, if it is of that kind. */
static bool
action_shown(Oid schema, const char *word, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		channel = heap_getattr(tuple, MBUS_ACTION_CHANNEL_ID, desc,
									   &isnull);

	return mbus_action_shown(schema, word,
							 isnull ? 0 : DatumGetInt32(channel));
}

/* Makes the entry; false if the secret has gone. */
static bool
entry_make(Oid schema, Snapshot snapshot, MbusFound *found, HeapTuple tuple,
		   TupleDesc desc)
{
	uint8		secret[MBUS_SECRET_BYTES] = {0};

	if (found->kind != MBUS_LOG_ACTION &&
		!mbus_segment_secret(schema, found->segment, snapshot, secret))
		return false;
	found->number = mbus_row_entry(&found->entry, schema, found->kind, tuple,
								   desc, secret);
	explicit_bzero(secret, sizeof(secret));
	return true;
}

/* Whether an entry's first line has a word. */
static bool
entry_is(const MbusFound *found, const char *word)
{
	const char *line = found->entry.text.data + strlen("mbus/1 ");

	return strncmp(line, word, strlen(word)) == 0 &&
		line[strlen(word)] == '\n';
}
