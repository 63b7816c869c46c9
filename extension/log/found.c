/*
 * found.c
 *		A row that the log has an entry of, for who may see it.
 *
 * What one may not see is not there:
 *
 *	a message	for whom get() gives it to, with its openings; for pg_monitor
 *				as long as its segment is there, without
 *	a fact		for whom may audit the channel of its message, as long as
 *				that one's segment is there; for whom may consume it, while
 *				get() gives him the message; of a channel that keeps subjects
 *				apart only for whom sees all of it.  For pg_monitor any,
 *				without openings
 *	a change	for whom action/action.c says
 *	what is done to the log, for pg_monitor
 *
 * The row is found by its number, the entry made again from it (row.c).  If
 * the log has it already, its hash must be that of the tree: an entry that
 * differs is never handed out, but told as XX001.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "action/action.h"
#include "base/columns.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "log/found.h"
#include "log/row.h"
#include "log/sound.h"
#include "message/read.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

static int	kind_of(const char *word);
static bool message_found(Oid schema, Snapshot snapshot, MbusFound *found);
static bool message_shown(Oid schema, MbusFound *found, HeapTuple tuple,
						  TupleDesc desc);
static bool fact_found(Oid schema, Snapshot snapshot, const char *word,
					   MbusFound *found);
static bool fact_shown(Oid schema, Snapshot snapshot, MbusFound *found,
					   HeapTuple tuple, TupleDesc desc);
static const MbusChannel *message_channel(Oid schema, Snapshot snapshot,
										  int64 id);
static bool action_found(Oid schema, Snapshot snapshot, const char *word,
						 bool newest, MbusFound *found);
static bool action_shown(Oid schema, const char *word, HeapTuple tuple,
						 TupleDesc desc);
static bool entry_make(Oid schema, Snapshot snapshot, MbusFound *found,
					   HeapTuple tuple, TupleDesc desc);
static bool entry_is(const MbusFound *found, const char *word);
static bool log_is_before(Oid schema, Snapshot snapshot,
						  const MbusFound *found);
static bool segment_before(Oid schema, Snapshot snapshot, HeapTuple tuple,
						   TupleDesc desc, int64 id);
static void entry_check(Oid schema, Snapshot snapshot, MbusFound *found,
						const char *word);

/*
 * mbus_found finds what the arguments (id, kind) of an SQL function name, and
 * makes its entry; false if there is none, or none for the current user.
 */
bool
mbus_found(FunctionCallInfo fcinfo, Oid schema, Snapshot snapshot,
		   MbusFound *found)
{
	char	   *word;
	bool		there;

	if (PG_ARGISNULL(1))
		return false;
	word = text_to_cstring(PG_GETARG_TEXT_PP(1));
	memset(found, 0, sizeof(*found));
	found->kind = kind_of(word);
	found->number = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	mbus_entry_init(&found->entry, true);
	if (found->kind == MBUS_LOG_ACTION)
		there = action_found(schema, snapshot, word, PG_ARGISNULL(0), found);
	else if (PG_ARGISNULL(0))
		there = false;
	else if (found->kind == MBUS_MESSAGE)
		there = message_found(schema, snapshot, found);
	else
		there = fact_found(schema, snapshot, word, found);
	if (there)
		entry_check(schema, snapshot, found, word);
	return there;
}

/* The kind of rows that a word is for; 22023 if it is none. */
static int
kind_of(const char *word)
{
	int			kind = mbus_row_kind(word);

	if (kind >= 0)
		return kind;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is no kind of entry of the log", word),
			 errhint("Kinds are message, ack, failure, redrive, access, delete, channel, grant, subscription, purge, keys, log, drop-segment and gap.")));
}

/*
 * A message, as get() finds it; pg_monitor is not refused one, and finds what
 * get() does not.
 */
static bool
message_found(Oid schema, Snapshot snapshot, MbusFound *found)
{
	Relation	leaf;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		there;

	if (found->number <= 0 ||
		(found->number >> MBUS_ROW_BITS) > MBUS_SEGMENT_MAX)
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
		message_shown(schema, found, tuple, RelationGetDescr(leaf)) &&
		entry_make(schema, snapshot, found, tuple, RelationGetDescr(leaf));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return there;
}

/*
 * Whether the current user may see a message, and whether with openings.  One
 * that is damaged is not there, but for pg_monitor, who is told (entry_make).
 */
static bool
message_shown(Oid schema, MbusFound *found, HeapTuple tuple, TupleDesc desc)
{
	bool		monitors = mbus_monitors();
	MbusStored	message;

	if (mbus_sound_row(MBUS_MESSAGE, tuple, desc))
		found->entry.open = monitors ? mbus_message_open(schema, found->number, &message) :
			mbus_message_readable(schema, found->number, &message);
	else
		found->entry.open = false;
	return found->entry.open || monitors;
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
			fact_shown(schema, snapshot, found, tuple,
					   RelationGetDescr(leaf)) &&
			entry_make(schema, snapshot, found, tuple,
					   RelationGetDescr(leaf)) &&
			entry_is(found, word);
		mbus_leaf_scan_close(&rows);
		table_close(leaf, AccessShareLock);
	}
	return there;
}

/*
 * Whether the current user may see a fact, and whether with openings: that
 * depends on its message, of an ack on the first one.
 */
static bool
fact_shown(Oid schema, Snapshot snapshot, MbusFound *found, HeapTuple tuple,
		   TupleDesc desc)
{
	int			column = found->kind == MBUS_ACK ? MBUS_ACK_LO :
	found->kind == MBUS_EVENT ? MBUS_EVENT_MESSAGE_ID :
	MBUS_FAILURE_MESSAGE_ID;
	bool		isnull;
	int64		id = DatumGetInt64(heap_getattr(tuple, column, desc, &isnull));
	const MbusChannel *channel = message_channel(schema, snapshot, id);
	MbusStored	message;

	found->entry.open = channel &&
		(mbus_channel_allows(channel, MBUS_AUDIT | MBUS_WHOLE) ||
		 (mbus_channel_allows(channel, MBUS_CLAIM) &&
		  mbus_message_fetch(schema, id, &message)));
	return found->entry.open || mbus_monitors();
}

/* The channel of a message whose row is there; or NULL. */
static const MbusChannel *
message_channel(Oid schema, Snapshot snapshot, int64 id)
{
	Relation	leaf = mbus_leaf_open(schema, MbusSegmentOf(id), MBUS_MESSAGE,
									  AccessShareLock);
	int32		channel_id = 0;
	MbusLeafScan rows;
	HeapTuple	message;
	bool		isnull;

	if (leaf == NULL)
		return NULL;
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, id, id);
	mbus_leaf_scan_begin(&rows, snapshot);
	message = mbus_leaf_scan_next(&rows);
	if (message)
		channel_id = DatumGetInt32(heap_getattr(message, MBUS_COL_CHANNEL_ID,
												RelationGetDescr(leaf),
												&isnull));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return message ? mbus_channel_by_id(schema, channel_id) : NULL;
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

/*
 * log_is_before tells whether no pass has been as far as a message: all runs
 * of its segment would be looked through in vain.
 */
static bool
log_is_before(Oid schema, Snapshot snapshot, const MbusFound *found)
{
	Relation	rel;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		before = false;

	if (found->kind != MBUS_MESSAGE)
		return false;
	rel = table_open(mbus_relation(schema, "segment"), AccessShareLock);
	mbus_leaf_scan_open(&rows, rel, MBUS_SEGMENT_NO, 0, false);
	mbus_leaf_scan_int4(&rows, MBUS_SEGMENT_NO, found->segment);
	mbus_leaf_scan_begin(&rows, snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	if (tuple && mbus_sound(tuple, RelationGetDescr(rel)))
		before = segment_before(schema, snapshot, tuple,
								RelationGetDescr(rel), found->number);
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	return before;
}

/* Whether the log, which has this segment from its beginning, is below an id. */
static bool
segment_before(Oid schema, Snapshot snapshot, HeapTuple tuple, TupleDesc desc,
			   int64 id)
{
	MbusLogState state;
	bool		isnull[3];
	Datum		log_id = heap_getattr(tuple, MBUS_SEGMENT_LOG_ID, desc,
									  &isnull[0]);
	Datum		to = heap_getattr(tuple, MBUS_SEGMENT_LOG_TO, desc,
								  &isnull[1]);
	Datum		again = heap_getattr(tuple, MBUS_SEGMENT_LOG_AGAIN, desc,
									 &isnull[2]);

	return !isnull[0] && !isnull[1] && !isnull[2] &&
		!DatumGetBool(again) && id >= DatumGetInt64(to) &&
		mbus_log_state_seen(schema, snapshot, &state) &&
		memcmp(DatumGetUUIDP(log_id), &state.log_id, UUID_LEN) == 0;
}

/*
 * entry_check compares an entry with the tree, if the log has it: XX001 if
 * what is stored is not what was logged.
 */
static void
entry_check(Oid schema, Snapshot snapshot, MbusFound *found, const char *word)
{
	MbusTreeSource source;
	MbusHash	hash;

	found->index = log_is_before(schema, snapshot, found) ? -1 :
		mbus_run_find(schema, snapshot, found->segment, found->kind,
					  found->number, PG_INT32_MAX);
	if (found->index < 0)
		return;
	mbus_tiles_open(&found->tiles, schema, snapshot);
	source = mbus_tiles_source(&found->tiles);
	mbus_entry_hash(&found->entry, &hash);
	if (memcmp(source.hash(source.arg, 0, found->index), &hash,
			   sizeof(hash)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("%s " INT64_FORMAT " does not match the log", word,
						found->number),
				 errdetail("What is stored is not what was logged as entry " INT64_FORMAT ".",
						   found->index),
				 errhint("message_bus.audit_verify() tells what else was changed.")));
}
