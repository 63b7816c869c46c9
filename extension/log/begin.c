/*
 * begin.c
 *		The log begins, and goes on under another name.
 *
 * A log is a promise: what was shown of it once is a prefix of what is shown
 * later under the same origin.  A standby that lags and is promoted, a restored
 * backup, and a copy of the database cannot keep that.  So the origin has a
 * random id, and where the log was written is recorded: system, timeline,
 * database and the setting log_origin.  If any of it is another one in a
 * pass, the tree goes on under a new origin, and its first entry
 * there says which origin, size and root it continues.  A copy (another system
 * or database) signs with a new key: whoever has the other one signs for
 * himself.
 *
 * What the log says of itself, and of segments that were dropped, are actions:
 * rows of log_action, logged in the transaction that inserts them.  Their
 * number is their place in the log.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "log/begin.h"
#include "log/note.h"
#include "log/prune.h"
#include "log/row.h"
#include "log/table.h"
#include "state/clock.h"

#define DEFAULT_PREFIX	"message_bus"

static void log_begin(Oid schema, MbusLog *log, MbusLogState *state,
					  int64 facts_to, const MbusSpans *facts_pending);
static void log_continue(Oid schema, MbusLog *log, MbusLogState *state);
static bool state_is_here(const MbusLogState *state);
static void state_here(MbusLogState *state);
static const char *prefix_set(void);
static void key_make(void);
static void random_bytes(void *bytes, Size len);

/*
 * mbus_log_open locks the log's state and sees to it that it is ours; it
 * begins the log where there is a segment and no log.  False if there is
 * nothing to log.  The facts' numbers are those that a look has seen.
 */
bool
mbus_log_open(Oid schema, MbusLog *log, MbusLogState *state, int64 facts_to,
			  const MbusSpans *facts_pending)
{
	if (!mbus_log_state_lock(state))
	{
		mbus_log_execute("SELECT 1 FROM message_bus.segment LIMIT 1", 0, NULL,
						 NULL);
		if (SPI_processed == 0)
			return false;
		log_begin(schema, log, state, facts_to, facts_pending);
		return true;
	}
	mbus_log_edge_ready(schema, log, state);
	if (!state_is_here(state))
		log_continue(schema, log, state);
	return true;
}

/*
 * mbus_log_edge_ready reads the edge, unless it is that of the log's size.
 */
void
mbus_log_edge_ready(Oid schema, MbusLog *log, const MbusLogState *state)
{
	MbusTiles	tiles;

	if (log->edge.read && log->edge.size == state->size)
		return;
	mbus_tiles_open(&tiles, schema, GetActiveSnapshot());
	mbus_edge_read(&log->edge, &tiles, state->size);
}

/* Begins a log; what was published before is logged as if it were new. */
static void
log_begin(Oid schema, MbusLog *log, MbusLogState *state, int64 facts_to,
		  const MbusSpans *facts_pending)
{
	memset(&log->edge, 0, sizeof(log->edge));
	log->edge.read = true;
	state_here(state);
	state->size = 0;
	state->facts_to = facts_to;
	state->facts_pending = *facts_pending;
	mbus_log_state_insert(state);
	key_make();
	mbus_log_action(schema, log, state, "log", 0, NULL);
}

/* Goes on under a new origin. */
static void
log_continue(Oid schema, MbusLog *log, MbusLogState *state)
{
	static const Oid types[] = {UUIDOID, TEXTOID, TEXTOID, INT8OID, INT8OID,
	OIDOID, UUIDOID};
	MbusLogState before = *state;
	MbusHash	root;
	Datum		values[lengthof(types)];

	state_here(state);
	values[0] = UUIDPGetDatum(&state->log_id);
	values[1] = CStringGetTextDatum(state->origin);
	values[2] = CStringGetTextDatum(state->prefix);
	values[3] = Int64GetDatum(state->system_id);
	values[4] = Int64GetDatum(state->timeline);
	values[5] = ObjectIdGetDatum(state->database);
	values[6] = UUIDPGetDatum(&before.log_id);
	mbus_log_execute("UPDATE message_bus.log_state SET log_id = $1,"
					 " origin = $2, prefix = $3, system_id = $4,"
					 " timeline = $5, database = $6", 6, types, values);
	mbus_log_execute("UPDATE message_bus.segment SET log_id = $1"
					 " WHERE log_id = $7", lengthof(types), types, values);
	if (before.system_id != state->system_id ||
		before.database != state->database)
	{
		mbus_log_execute("DELETE FROM message_bus.log_key", 0, NULL, NULL);
		key_make();
	}
	mbus_edge_root(&log->edge, &root);
	mbus_log_action(schema, log, state, "log", 0,
					psprintf("%s " INT64_FORMAT " %s", before.origin,
							 before.size,
							 mbus_base64(root.bytes, MBUS_HASH_BYTES)));
	ereport(LOG,
			(errmsg("the log of message_bus goes on as \"%s\"", state->origin),
			 errdetail("It was \"%s\", and is on another timeline, or in another database, or its setting is another one.",
					   before.origin)));
}

/* Whether a log was written here, and nowhere else since. */
static bool
state_is_here(const MbusLogState *state)
{
	return state->system_id == (int64) GetSystemIdentifier() &&
		state->timeline == GetWALInsertionTimeLine() &&
		state->database == MyDatabaseId &&
		strcmp(state->prefix, prefix_set()) == 0;
}

/* What a log that begins here has. */
static void
state_here(MbusLogState *state)
{
	random_bytes(&state->log_id, sizeof(state->log_id));
	/* version 4 of RFC 4122 */
	state->log_id.data[6] = (state->log_id.data[6] & 0x0f) | 0x40;
	state->log_id.data[8] = (state->log_id.data[8] & 0x3f) | 0x80;
	state->prefix = pstrdup(prefix_set());
	state->origin = psprintf("%s/%s", state->prefix,
							 DatumGetCString(DirectFunctionCall1(uuid_out,
																 UUIDPGetDatum(&state->log_id))));
	state->system_id = (int64) GetSystemIdentifier();
	state->timeline = GetWALInsertionTimeLine();
	state->database = MyDatabaseId;
}

static const char *
prefix_set(void)
{
	return mbus_log_origin && mbus_log_origin[0] != '\0' ?
		mbus_log_origin : DEFAULT_PREFIX;
}

/* Makes the key, unless there is one. */
static void
key_make(void)
{
	static const Oid types[] = {BYTEAOID};
	bytea	   *seed = palloc(VARHDRSZ + MBUS_SEED_BYTES);
	Datum		values[] = {PointerGetDatum(seed)};

	SET_VARSIZE(seed, VARHDRSZ + MBUS_SEED_BYTES);
	random_bytes(VARDATA(seed), MBUS_SEED_BYTES);
	mbus_log_execute("INSERT INTO message_bus.log_key (seed) VALUES ($1)"
					 " ON CONFLICT DO NOTHING", 1, types, values);
	explicit_bzero(VARDATA(seed), MBUS_SEED_BYTES);
}

static void
random_bytes(void *bytes, Size len)
{
	if (!pg_strong_random(bytes, len))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random bytes")));
}

/*
 * mbus_log_action records an action, and logs it.  segment 0 and NULL: none.
 */
void
mbus_log_action(Oid schema, MbusLog *log, MbusLogState *state,
				const char *kind, int32 segment, const char *continues)
{
	static const Oid types[] = {INT8OID, TIMESTAMPTZOID, TEXTOID, BYTEAOID,
	INT4OID, TEXTOID};
	bytea	   *key = palloc(VARHDRSZ + MBUS_HASH_BYTES);
	Datum		values[] = {Int64GetDatum(log->edge.size),
		TimestampTzGetDatum(mbus_now()), CStringGetTextDatum(kind),
		PointerGetDatum(key), Int32GetDatum(segment),
	continues ? CStringGetTextDatum(continues) : (Datum) 0};
	char		nulls[] = "      ";
	MbusEntry	entry;
	MbusLogged	row = {0};

	SET_VARSIZE(key, VARHDRSZ + MBUS_HASH_BYTES);
	random_bytes(VARDATA(key), MBUS_HASH_BYTES);
	nulls[4] = segment == 0 ? 'n' : ' ';
	nulls[5] = continues == NULL ? 'n' : ' ';
	if (SPI_execute_with_args("INSERT INTO message_bus.log_action"
							  " (no, at, kind, k, segment_no, entries, continues)"
							  " SELECT $1, $2, $3, $4, $5,"
							  " CASE WHEN $5 IS NOT NULL THEN"
							  " (SELECT coalesce(sum(n), 0)"
							  "  FROM message_bus.log_run"
							  "  WHERE segment_no = $5) END, $6"
							  " RETURNING no, at, kind, k, segment_no, entries,"
							  " continues",
							  lengthof(types), unconstify(Oid *, &types[0]),
							  values, nulls, false, 0) < 0)
		elog(ERROR, "could not insert into message_bus.log_action");
	mbus_entry_init(&entry, false);
	row.kind = MBUS_LOG_ACTION;
	row.number = mbus_row_entry(&entry, schema, MBUS_LOG_ACTION,
								SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
								NULL);
	mbus_entry_hash(&entry, &row.hash);
	mbus_log_append(&log->edge, &row, 1);
	state->size = log->edge.size;
	mbus_log_state_update(state);
	if (segment != 0)
		mbus_log_gone(segment);
}
