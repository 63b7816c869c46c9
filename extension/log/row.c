/*
 * row.c
 *		Rows and the entries that the log has of them.
 *
 * An entry is made from its row, its segment's secret and the name of the
 * publisher alone, none of which changes: whoever makes it again gets the same
 * bytes.  README.md lists the lines.  Memory is that of the current context.
 * Rows are looked through before they are taken apart (sound.c).
 *
 * A table that is detached is read as long as it is there.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/columns.h"
#include "base/schema.h"
#include "base/sha256.h"
#include "channel/publisher.h"
#include "log/row.h"
#include "log/sound.h"
#include "segment/leaf.h"
#include "segment/leaf_keep.h"

/* A row taken apart; columns count from 1. */
typedef struct Row
{
	Datum		value[MBUS_MESSAGE_COLUMNS + 1];
	bool		isnull[MBUS_MESSAGE_COLUMNS + 1];
} Row;

static void message_lines(MbusEntry *entry, Oid schema, const Row *row);
static void event_lines(MbusEntry *entry, const Row *row);
static void ack_lines(MbusEntry *entry, const Row *row);
static void failure_lines(MbusEntry *entry, const Row *row);
static void action_lines(MbusEntry *entry, const Row *row);
static const char *entry_kind(int kind, const Row *row);
static void line_number(MbusEntry *entry, const char *name, const Row *row,
						int column);
static void line_time(MbusEntry *entry, const char *name, const Row *row,
					  int column);
static void line_text(MbusEntry *entry, const char *name, const Row *row,
					  int column);
static void line_hidden(MbusEntry *entry, const char *name, const Row *row,
						int column);
static void line_session(MbusEntry *entry, const Row *row, int column);
static void line_headers(MbusEntry *entry, const Row *row);
static void line_runs(MbusEntry *entry, const Row *row);
static char *row_string(const Row *row, int column);

/*
 * mbus_row_entry writes the entry of a row and returns its number: the id of a
 * message, else "no".  XX001 if the row is damaged.
 */
int64
mbus_row_entry(MbusEntry *entry, Oid schema, int kind, HeapTuple tuple,
			   TupleDesc desc, const uint8 *secret)
{
	if (!mbus_row_entry_sound(entry, schema, kind, tuple, desc, secret))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a row of message_bus.%s is damaged",
						kind == MBUS_LOG_ACTION ? "log_action" :
						mbus_family_name((MbusFamily) kind)),
				 errdetail("It is at block %u, line %u.",
						   ItemPointerGetBlockNumberNoCheck(&tuple->t_self),
						   ItemPointerGetOffsetNumberNoCheck(&tuple->t_self))));
	return mbus_row_number_of(kind, tuple, desc);
}

/*
 * mbus_row_entry_sound does that; false, and nothing is written, if the row is
 * damaged.
 */
bool
mbus_row_entry_sound(MbusEntry *entry, Oid schema, int kind, HeapTuple tuple,
					 TupleDesc desc, const uint8 *secret)
{
	Row			row;

	if (desc->natts > MBUS_MESSAGE_COLUMNS)
		elog(ERROR, "table of a segment has %d columns", desc->natts);
	if (!mbus_sound_row(kind, tuple, desc))
		return false;
	memset(row.isnull, true, sizeof(row.isnull));
	heap_deform_tuple(tuple, desc, row.value + 1, row.isnull + 1);
	if (kind == MBUS_LOG_ACTION)
	{
		bytea	   *key = DatumGetByteaPP(row.value[MBUS_ACTION_K]);

		if (VARSIZE_ANY_EXHDR(key) != MBUS_HASH_BYTES)
			return false;
		mbus_entry_begin_with(entry, entry_kind(kind, &row),
							  (uint8 *) VARDATA_ANY(key));
	}
	else
		mbus_entry_begin(entry, entry_kind(kind, &row), secret,
						 DatumGetInt64(row.value[mbus_row_number(kind)]));
	switch (kind)
	{
		case MBUS_MESSAGE:
			message_lines(entry, schema, &row);
			break;
		case MBUS_EVENT:
			event_lines(entry, &row);
			break;
		case MBUS_ACK:
			ack_lines(entry, &row);
			break;
		case MBUS_FAILURE:
			failure_lines(entry, &row);
			break;
		default:
			action_lines(entry, &row);
			break;
	}
	mbus_entry_end(entry);
	return true;
}

/* The word in an entry's first line. */
static const char *
entry_kind(int kind, const Row *row)
{
	switch (kind)
	{
		case MBUS_MESSAGE:
			return "message";
		case MBUS_EVENT:
			return strcmp(row_string(row, MBUS_EVENT_KIND), "deleted") == 0 ?
				"delete" : "access";
		case MBUS_ACK:
			return "ack";
		case MBUS_FAILURE:
			/* a new start, and no attempt */
			return DatumGetInt16(row->value[MBUS_FAILURE_ATTEMPT]) == 0 ?
				"redrive" : "failure";
		default:
			return row_string(row, MBUS_ACTION_KIND);
	}
}

/*
 * mbus_row_kind returns what kind of rows a word in an entry's first line is
 * for; -1 if it is none.
 */
int
mbus_row_kind(const char *word)
{
	static const struct
	{
		const char *word;
		int			kind;
	}			words[] = {
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

	for (int i = 0; i < (int) lengthof(words); i++)
	{
		if (strcmp(words[i].word, word) == 0)
			return words[i].kind;
	}
	return -1;
}

static void
message_lines(MbusEntry *entry, Oid schema, const Row *row)
{
	text	   *role = mbus_publisher_name(schema,
										   DatumGetInt32(row->value[MBUS_COL_PUBLISHER_ID]));

	line_number(entry, "id", row, MBUS_COL_ID);
	mbus_entry_number(entry, "channel",
					  DatumGetInt32(row->value[MBUS_COL_CHANNEL_ID]));
	line_time(entry, "created", row, MBUS_COL_CREATED_AT);
	line_time(entry, "expires", row, MBUS_COL_EXPIRES_AT);
	line_time(entry, "available", row, MBUS_COL_AVAILABLE_AT);
	if (role)
		mbus_entry_text(entry, "role", VARDATA_ANY(role),
						VARSIZE_ANY_EXHDR(role));
	line_text(entry, "type", row, MBUS_COL_CONTENT_TYPE);
	line_number(entry, "size", row, MBUS_COL_SIZE);
	line_hidden(entry, "payload", row, MBUS_COL_SHA256);
	line_hidden(entry, "subject", row, MBUS_COL_SUBJECT);
	line_hidden(entry, "recipient", row, MBUS_COL_RECIPIENT);
	line_session(entry, row, MBUS_COL_SESSION);
	line_hidden(entry, "key", row, MBUS_COL_KEY);
	line_hidden(entry, "transaction", row, MBUS_COL_TRANSACTION_ID);
	line_headers(entry, row);
}

static void
event_lines(MbusEntry *entry, const Row *row)
{
	line_number(entry, "no", row, MBUS_EVENT_NO);
	line_number(entry, "id", row, MBUS_EVENT_MESSAGE_ID);
	line_time(entry, "at", row, MBUS_EVENT_AT);
	line_text(entry, "role", row, MBUS_EVENT_ROLE);
	line_hidden(entry, "subject", row, MBUS_EVENT_SUBJECT);
	line_session(entry, row, MBUS_EVENT_SESSION);
}

static void
ack_lines(MbusEntry *entry, const Row *row)
{
	line_number(entry, "no", row, MBUS_ACK_NO);
	mbus_entry_number(entry, "subscription",
					  DatumGetInt32(row->value[MBUS_ACK_SUBSCRIPTION_ID]));
	mbus_entry_words(entry, "ids",
					 psprintf(INT64_FORMAT " " INT64_FORMAT " %d",
							  DatumGetInt64(row->value[MBUS_ACK_LO]),
							  DatumGetInt64(row->value[MBUS_ACK_HI]),
							  DatumGetInt32(row->value[MBUS_ACK_N])));
	line_runs(entry, row);
	line_number(entry, "lease", row, MBUS_ACK_LEASE);
	mbus_entry_number(entry, "attempt",
					  DatumGetInt16(row->value[MBUS_ACK_ATTEMPT]));
	line_text(entry, "outcome", row, MBUS_ACK_OUTCOME);
	line_time(entry, "claimed", row, MBUS_ACK_CLAIMED_AT);
	line_time(entry, "at", row, MBUS_ACK_AT);
	line_text(entry, "role", row, MBUS_ACK_ROLE);
	line_hidden(entry, "subject", row, MBUS_ACK_SUBJECT);
	line_session(entry, row, MBUS_ACK_SESSION);
}

static void
failure_lines(MbusEntry *entry, const Row *row)
{
	line_number(entry, "no", row, MBUS_FAILURE_NO);
	line_number(entry, "id", row, MBUS_FAILURE_MESSAGE_ID);
	mbus_entry_number(entry, "subscription",
					  DatumGetInt32(row->value[MBUS_FAILURE_SUBSCRIPTION_ID]));
	line_number(entry, "lease", row, MBUS_FAILURE_LEASE);
	mbus_entry_number(entry, "attempt",
					  DatumGetInt16(row->value[MBUS_FAILURE_ATTEMPT]));
	line_text(entry, "what", row, MBUS_FAILURE_KIND);
	line_time(entry, "claimed", row, MBUS_FAILURE_CLAIMED_AT);
	line_time(entry, "retry", row, MBUS_FAILURE_RETRY_AT);
	line_number(entry, "dead", row, MBUS_FAILURE_DEAD_LETTER_ID);
	line_text(entry, "kept", row, MBUS_FAILURE_NOT_MOVED);
	line_time(entry, "at", row, MBUS_FAILURE_AT);
	line_text(entry, "role", row, MBUS_FAILURE_ROLE);
	line_hidden(entry, "subject", row, MBUS_FAILURE_SUBJECT);
	line_session(entry, row, MBUS_FAILURE_SESSION);
	line_hidden(entry, "reason", row, MBUS_FAILURE_REASON);
}

static void
action_lines(MbusEntry *entry, const Row *row)
{
	line_number(entry, "no", row, MBUS_ACTION_NO);
	if (!row->isnull[MBUS_ACTION_CHANNEL_ID])
		mbus_entry_number(entry, "channel",
						  DatumGetInt32(row->value[MBUS_ACTION_CHANNEL_ID]));
	line_time(entry, "at", row, MBUS_ACTION_AT);
	line_text(entry, "role", row, MBUS_ACTION_ROLE);
	line_hidden(entry, "subject", row, MBUS_ACTION_SUBJECT);
	line_session(entry, row, MBUS_ACTION_SESSION);
	line_hidden(entry, "details", row, MBUS_ACTION_DETAILS);
	if (!row->isnull[MBUS_ACTION_SEGMENT_NO])
		mbus_entry_number(entry, "segment",
						  DatumGetInt32(row->value[MBUS_ACTION_SEGMENT_NO]));
	line_number(entry, "entries", row, MBUS_ACTION_ENTRIES);
	/* made by the worker: an origin, a size and a root */
	if (!row->isnull[MBUS_ACTION_CONTINUES])
		mbus_entry_words(entry, "continues",
						 row_string(row, MBUS_ACTION_CONTINUES));
	line_hidden(entry, "reason", row, MBUS_ACTION_REASON);
}

/* One line, unless it is NULL. */
static void
line_number(MbusEntry *entry, const char *name, const Row *row, int column)
{
	if (!row->isnull[column])
		mbus_entry_number(entry, name, DatumGetInt64(row->value[column]));
}

static void
line_time(MbusEntry *entry, const char *name, const Row *row, int column)
{
	if (!row->isnull[column])
		mbus_entry_time(entry, name, DatumGetTimestampTz(row->value[column]));
}

static void
line_text(MbusEntry *entry, const char *name, const Row *row, int column)
{
	text	   *value;

	if (row->isnull[column])
		return;
	value = DatumGetTextPP(row->value[column]);
	mbus_entry_text(entry, name, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

static void
line_hidden(MbusEntry *entry, const char *name, const Row *row, int column)
{
	struct varlena *value;

	if (row->isnull[column])
		return;
	value = PG_DETOAST_DATUM_PACKED(row->value[column]);
	mbus_entry_hidden(entry, name, VARDATA_ANY(value),
					  VARSIZE_ANY_EXHDR(value));
}

/* A gateway's session, in decimal. */
static void
line_session(MbusEntry *entry, const Row *row, int column)
{
	char		digits[MAXINT8LEN + 1];

	if (row->isnull[column])
		return;
	mbus_entry_hidden(entry, "session", digits,
					  pg_lltoa(DatumGetInt64(row->value[column]), digits));
}

/* The headers, as their text. */
static void
line_headers(MbusEntry *entry, const Row *row)
{
	Jsonb	   *headers;
	char	   *value;

	if (row->isnull[MBUS_COL_HEADERS])
		return;
	headers = DatumGetJsonbP(row->value[MBUS_COL_HEADERS]);
	value = JsonbToCString(NULL, &headers->root, VARSIZE(headers));
	mbus_entry_hidden(entry, "headers", value, (int) strlen(value));
}

/* The checksum of an ack's runs, which may be ten thousand. */
static void
line_runs(MbusEntry *entry, const Row *row)
{
	Datum	   *values;
	int			n;
	StringInfoData list;
	uint8		digest[MBUS_HASH_BYTES];
	char		hex[2 * MBUS_HASH_BYTES + 1];

	if (row->isnull[MBUS_ACK_RUNS])
		return;
	deconstruct_array(DatumGetArrayTypeP(row->value[MBUS_ACK_RUNS]), INT4OID,
					  sizeof(int32), true, TYPALIGN_INT, &values, NULL, &n);
	initStringInfo(&list);
	for (int i = 0; i < n; i++)
		appendStringInfo(&list, i == 0 ? "%d" : ",%d",
						 DatumGetInt32(values[i]));
	mbus_sha256(list.data, list.len, digest);
	hex[hex_encode((const char *) digest, sizeof(digest), hex)] = '\0';
	mbus_entry_words(entry, "runs", hex);
}

static char *
row_string(const Row *row, int column)
{
	return TextDatumGetCString(row->value[column]);
}

/*
 * mbus_row_table opens the table of a kind of rows in a segment, or returns
 * NULL if it is gone, or has never had a row.  One that is detached, or hidden,
 * is found by its name.  It is locked AccessShare.
 */
Relation
mbus_row_table(Oid schema, int kind, int32 segment)
{
	Relation	rel;
	Oid			relid;

	if (kind == MBUS_LOG_ACTION)
		return try_table_open(mbus_relation(schema, "log_action"),
							  AccessShareLock);
	rel = mbus_leaf_open_written(schema, segment, (MbusFamily) kind);
	if (rel || mbus_leaf_attached(schema, segment, (MbusFamily) kind))
		return rel;
	relid = get_relname_relid(psprintf("%s_%d",
									   mbus_family_name((MbusFamily) kind),
									   segment), schema);
	rel = OidIsValid(relid) ? try_table_open(relid, AccessShareLock) : NULL;
	if (rel)
		mbus_leaf_keep(rel);
	return rel;
}

/*
 * mbus_row_number returns the column with the number of a kind of rows.
 */
AttrNumber
mbus_row_number(int kind)
{
	switch (kind)
	{
		case MBUS_MESSAGE:
			return MBUS_COL_ID;
		case MBUS_EVENT:
			return MBUS_EVENT_NO;
		case MBUS_ACK:
			return MBUS_ACK_NO;
		case MBUS_FAILURE:
			return MBUS_FAILURE_NO;
		default:
			return MBUS_ACTION_NO;
	}
}

/*
 * mbus_row_number_of returns the number of a row.
 */
int64
mbus_row_number_of(int kind, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	return DatumGetInt64(heap_getattr(tuple, mbus_row_number(kind), desc,
									  &isnull));
}

/*
 * mbus_segment_secret reads the 32 bytes of a segment's secret; false if it is
 * gone.
 */
bool
mbus_segment_secret(Oid schema, int32 segment, Snapshot snapshot,
					uint8 *secret)
{
	Oid			relid = get_relname_relid(psprintf("secret_%d", segment),
										  schema);
	Relation	rel = OidIsValid(relid) ?
	try_table_open(relid, AccessShareLock) : NULL;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (rel == NULL)
		return false;
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	tuple = systable_getnext(scan);
	if (tuple && !mbus_sound(tuple, RelationGetDescr(rel)))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the secret of segment %d is damaged", segment)));
	if (tuple)
	{
		for (int half = 0; half < 2; half++)
		{
			bool		isnull;
			Datum		bytes = heap_getattr(tuple, half + 1,
											 RelationGetDescr(rel), &isnull);

			if (isnull)
				elog(ERROR, "segment %d has no whole secret", segment);
			memcpy(secret + half * UUID_LEN, DatumGetUUIDP(bytes)->data,
				   UUID_LEN);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tuple != NULL;
}
