/*
 * begin.c
 *		The log begins, and goes on under another name.
 *
 * A log is a promise: what was shown of it once is a prefix of what is shown
 * later under the same origin.  A standby that lags and is promoted, a restored
 * backup, and a copy of the database cannot keep that.  So the origin has a
 * random id, and where the log was written is recorded: system, timeline,
 * database, bus and the setting log_origin.  If any of it is another one in a
 * pass, or somebody says so (audit_restart), the tree goes on under a new
 * origin, and its first entry there says which origin, size and root it
 * continues.  A copy (another system, database or bus) signs with a new key:
 * whoever has the other one signs for himself.
 *
 * A log that a restore has brought goes on when it is whole (brought.c).  Its
 * segments come when each can be read, and what the log has of them its runs
 * tell (pass.c).
 *
 * What the log says of itself, and of segments that were dropped, are actions:
 * rows of log_action, logged in the transaction that inserts them.  Their
 * number is their place in the log.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/random.h"
#include "base/schema.h"
#include "base/settings.h"
#include "log/begin.h"
#include "log/brought.h"
#include "log/note.h"
#include "log/prune.h"
#include "log/row.h"
#include "log/table.h"
#include "log/verify.h"
#include "state/clock.h"
#include "state/fault.h"

#define DEFAULT_PREFIX	"message_bus"
#define REASON_MAX		1000

static void log_begin(Oid schema, MbusLog *log, MbusLogState *state,
					  int64 facts_to, const MbusSpans *facts_pending);
static void log_continue(Oid schema, MbusLog *log, MbusLogState *state,
						 const char *reason);
static char *log_restart(Oid schema, const char *reason);
static void edge_try(void *arg);
static int64 epoch_wanted(const MbusLogState *state, int64 facts_to);
static bool state_is_own(const MbusLogState *state);
static bool state_is_here(const MbusLogState *state);
static void state_here(MbusLogState *state);
static const char *prefix_set(void);
static void key_make(void);

/*
 * mbus_log_open locks the log's state and sees to it that it is ours; it
 * begins the log where there is a segment and no log.  False if there is
 * nothing to log.  The facts' numbers are those that a look has seen.
 */
bool
mbus_log_open(Oid schema, MbusLog *log, MbusLogState *state, int64 facts_to,
			  const MbusSpans *facts_pending)
{
	if (!mbus_log_state_read(state, true))
	{
		mbus_log_execute("SELECT 1 FROM message_bus.segment LIMIT 1", 0, NULL,
						 NULL);
		if (SPI_processed == 0 || mbus_brought_some(schema, log))
			return false;
		log_begin(schema, log, state, facts_to, facts_pending);
		return true;
	}
	if (!state_is_own(state) && !mbus_brought_whole(schema, log, state))
		return false;
	log->epoch = epoch_wanted(state, facts_to);
	if (log->epoch != 0)
		return false;
	mbus_log_edge_ready(schema, log, state);
	if (!state_is_here(state))
	{
		log_continue(schema, log, state, NULL);
		ereport(LOG,
				(errmsg("the log of message_bus goes on as \"%s\"",
						state->origin),
				 errdetail("It is on another timeline, or in another database, or its setting is another one.")));
	}
	return true;
}

/*
 * The epoch above which facts' numbers must be: what a log has passed, or a
 * restore has brought with one, is below; 0 if it is so already.
 */
static int64
epoch_wanted(const MbusLogState *state, int64 facts_to)
{
	int64		passed = state->facts_to;

	if (!state_is_here(state))
	{
		bool		isnull;
		Datum		highest;

		mbus_log_execute("SELECT max(no) + 1 FROM message_bus.log_action",
						 0, NULL, NULL);
		highest = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
								1, &isnull);
		if (!isnull)
			passed = Max(passed, DatumGetInt64(highest));
	}
	return passed > facts_to ? MbusFactEpoch(passed) : 0;
}

/*
 * mbus_log_edge_ready reads the edge, unless it is that of the log's size.
 */
void
mbus_log_edge_ready(Oid schema, MbusLog *log, const MbusLogState *state)
{
	MbusTiles	tiles;
	Snapshot	snapshot;

	if (log->edge.read && log->edge.size == state->size)
		return;
	/* as new as the row that is locked */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	mbus_tiles_open(&tiles, schema, snapshot);
	mbus_edge_read(&log->edge, &tiles, state->size);
	UnregisterSnapshot(snapshot);
}

/* Begins a log; what was published before is logged as if it were new. */
static void
log_begin(Oid schema, MbusLog *log, MbusLogState *state, int64 facts_to,
		  const MbusSpans *facts_pending)
{
	memset(&log->edge, 0, sizeof(log->edge));
	log->edge.read = true;
	log->checkpoint_known = false;
	log->checkpoint_size = 0;
	state_here(state);
	state->size = 0;
	state->facts_to = facts_to;
	state->facts_pending = *facts_pending;
	mbus_log_state_insert(state);
	key_make();
	mbus_log_action(schema, log, state, "log", 0, NULL, NULL);
	/* origin and key are shown at once */
	ForceSyncCommit();
}

/* Goes on under a new origin; NULL: without a reason. */
static void
log_continue(Oid schema, MbusLog *log, MbusLogState *state,
			 const char *reason)
{
	static const Oid types[] = {UUIDOID, TEXTOID, TEXTOID, INT8OID, INT8OID,
	OIDOID, UUIDOID, UUIDOID};
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
	values[6] = UUIDPGetDatum(&state->bus);
	values[7] = UUIDPGetDatum(&before.log_id);
	mbus_log_execute("UPDATE message_bus.log_state SET log_id = $1,"
					 " origin = $2, prefix = $3, system_id = $4,"
					 " timeline = $5, database = $6, bus = $7", 7, types,
					 values);
	mbus_log_execute("UPDATE message_bus.segment SET log_id = $1"
					 " WHERE log_id = $8 AND log_to IS NOT NULL",
					 lengthof(types), types, values);
	/* of another log, which a restore has brought beside this one */
	values[7] = Int64GetDatum(state->size);
	mbus_log_execute("DELETE FROM message_bus.log_checkpoint WHERE size > $1",
					 1, &types[3], &values[7]);
	if (before.system_id != state->system_id ||
		before.database != state->database || !state_is_own(&before))
	{
		mbus_log_execute("DELETE FROM message_bus.log_key", 0, NULL, NULL);
		key_make();
	}
	mbus_edge_root(&log->edge, &root);
	mbus_log_action(schema, log, state, "log", 0,
					psprintf("%s " INT64_FORMAT " %s", before.origin,
							 before.size,
							 mbus_base64(root.bytes, MBUS_HASH_BYTES)),
					reason);
	ForceSyncCommit();
}

/*
 * audit_restart(reason) has the log go on under a new origin, which it
 * returns; NULL if what was brought of one is removed, and one begins.
 */
MBUS_FUNCTION(audit_restart)
{
	char	   *reason = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *origin = NULL;

	mbus_write_check("audit_restart()");
	if (strlen(reason) > REASON_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason has %d bytes", (int) strlen(reason)),
				 errdetail("A reason has at most %d.", REASON_MAX)));
	mbus_brought_own(true);
	PG_TRY();
	{
		origin = log_restart(mbus_schema(), reason);
	}
	PG_FINALLY();
	{
		mbus_brought_own(false);
	}
	PG_END_TRY();
	if (origin == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(origin));
}

/* What edge_try needs. */
typedef struct EdgeTry
{
	Oid			schema;
	MbusLog    *log;
	const MbusLogState *state;
} EdgeTry;

/*
 * Does so; a log that is not this bus's own, or whose edge cannot be read any
 * more, is removed.
 */
static char *
log_restart(Oid schema, const char *reason)
{
	MemoryContext caller = CurrentMemoryContext;
	MbusLogState state;
	MbusLog    *log = palloc0(sizeof(MbusLog));
	EdgeTry		edge = {.schema = schema,.log = log,.state = &state};
	char	   *origin = NULL;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(GetLatestSnapshot());
	if (mbus_log_state_read(&state, true) && state_is_own(&state) &&
		mbus_verify_try(edge_try, &edge))
	{
		log_continue(schema, log, &state, reason);
		origin = MemoryContextStrdup(caller, state.origin);
	}
	else
		mbus_brought_clear();
	PopActiveSnapshot();
	SPI_finish();
	return origin;
}

static void
edge_try(void *arg)
{
	EdgeTry    *edge = arg;

	mbus_log_edge_ready(edge->schema, edge->log, edge->state);
}

/* Whether a log is this bus's own, and no restore has brought it. */
static bool
state_is_own(const MbusLogState *state)
{
	return memcmp(&state->bus, &state->here, sizeof(state->bus)) == 0;
}

/* Whether a log was written here, and nowhere else since. */
static bool
state_is_here(const MbusLogState *state)
{
	return state_is_own(state) &&
		state->system_id == (int64) GetSystemIdentifier() &&
		state->timeline == GetWALInsertionTimeLine() &&
		state->database == MyDatabaseId &&
		strcmp(state->prefix, prefix_set()) == 0;
}

/* What a log that begins here has. */
static void
state_here(MbusLogState *state)
{
	mbus_random(&state->log_id, sizeof(state->log_id));
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
	state->bus = state->here;
}

/*
 * mbus_log_here_hash returns a hash of what can become another one while the
 * server runs.
 */
uint64
mbus_log_here_hash(void)
{
	const char *prefix = prefix_set();

	return hash_bytes_extended((const unsigned char *) prefix,
							   (int) strlen(prefix), 0);
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
	mbus_random(VARDATA(seed), MBUS_SEED_BYTES);
	mbus_log_execute("INSERT INTO message_bus.log_key (seed) VALUES ($1)"
					 " ON CONFLICT DO NOTHING", 1, types, values);
	explicit_bzero(VARDATA(seed), MBUS_SEED_BYTES);
}

/*
 * mbus_log_action records an action, and logs it.  segment 0 and NULL: none.
 */
void
mbus_log_action(Oid schema, MbusLog *log, MbusLogState *state,
				const char *kind, int32 segment, const char *continues,
				const char *reason)
{
	static const Oid types[] = {INT8OID, TIMESTAMPTZOID, TEXTOID, BYTEAOID,
	INT4OID, TEXTOID, TEXTOID};
	bytea	   *key = palloc(VARHDRSZ + MBUS_HASH_BYTES);
	Datum		values[] = {Int64GetDatum(log->edge.size),
		TimestampTzGetDatum(mbus_now()), CStringGetTextDatum(kind),
		PointerGetDatum(key), Int32GetDatum(segment),
		continues ? CStringGetTextDatum(continues) : (Datum) 0,
	reason ? CStringGetTextDatum(reason) : (Datum) 0};
	char		nulls[] = "       ";
	MbusEntry	entry;
	MbusLogged	row = {0};

	SET_VARSIZE(key, VARHDRSZ + MBUS_HASH_BYTES);
	mbus_random(VARDATA(key), MBUS_HASH_BYTES);
	nulls[4] = segment == 0 ? 'n' : ' ';
	nulls[5] = continues == NULL ? 'n' : ' ';
	nulls[6] = reason == NULL ? 'n' : ' ';
	if (SPI_execute_with_args("INSERT INTO message_bus.log_action"
							  " (no, at, kind, k, segment_no, entries, continues,"
							  "  reason)"
							  " SELECT $1, $2, $3, $4, $5,"
							  " CASE WHEN $5 IS NOT NULL THEN"
							  " (SELECT coalesce(sum(n), 0)"
							  "  FROM message_bus.log_run"
							  "  WHERE segment_no = $5) END, $6, $7"
							  " RETURNING no, at, kind, k, segment_no, entries,"
							  " continues, reason",
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
