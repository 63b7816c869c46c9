/*
 * checkpoint.c
 *		Checkpoints of the log.
 *
 * When message_bus.log_interval has passed and the log has grown, the worker
 * signs its root.  That transaction is flushed before anybody can see it, and
 * with it all entries that the root is over: what is shown is not lost by a
 * crash.  Whoever shows it waits for synchronous standbys besides (show.c).
 *
 * prune.c tells which are kept.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "log/begin.h"
#include "log/checkpoint.h"
#include "log/note.h"
#include "log/store.h"
#include "log/table.h"
#include "state/clock.h"

static void newest_read(MbusLog *log);
static void checkpoint_insert(const MbusLogState *state, const MbusHash *root,
							  const char *signature, TimestampTz at);

/*
 * mbus_log_checkpoint_due tells whether it is time for one, if the log has
 * grown.
 */
bool
mbus_log_checkpoint_due(const MbusLog *log)
{
	if (!log->edge.read || !log->origin_known)
		return false;
	return !log->checkpoint_known ||
		(log->edge.size > log->checkpoint_size &&
		 TimestampDifferenceExceeds(log->checkpoint_at, mbus_now(),
									mbus_log_interval));
}

/*
 * mbus_log_checkpoint makes one, in a transaction with SPI, and says of what
 * size and when; false if the log has not grown since the last one.
 */
bool
mbus_log_checkpoint(Oid schema, MbusLog *log, int64 *size, TimestampTz *at)
{
	MbusLogState state;
	MbusHash	root;
	uint8		seed[MBUS_SEED_BYTES];
	char	   *signature;

	if (!log->checkpoint_known)
		newest_read(log);
	log->checkpoint_known = true;
	if (!mbus_log_state_lock(&state) || state.size == 0 ||
		state.size <= log->checkpoint_size)
		return false;
	mbus_log_edge_ready(schema, log, &state);
	mbus_edge_root(&log->edge, &root);
	if (!mbus_log_key_read(schema, GetActiveSnapshot(), seed))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the log of message_bus has lost its key")));
	signature = mbus_note_sign(state.origin,
							   mbus_note_text(state.origin, state.size, &root),
							   seed);
	explicit_bzero(seed, sizeof(seed));
	*size = state.size;
	*at = mbus_now();
	checkpoint_insert(&state, &root, signature, *at);
	ForceSyncCommit();
	return true;
}

/* Reads what the newest one is. */
static void
newest_read(MbusLog *log)
{
	bool		isnull;
	Datum		value;

	mbus_log_execute("SELECT size, at FROM message_bus.log_checkpoint"
					 " ORDER BY size DESC LIMIT 1", 0, NULL, NULL);
	if (SPI_processed == 0)
		return;
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	log->checkpoint_size = DatumGetInt64(value);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2,
						  &isnull);
	log->checkpoint_at = DatumGetTimestampTz(value);
}

/* Inserts one. */
static void
checkpoint_insert(const MbusLogState *state, const MbusHash *root,
				  const char *signature, TimestampTz at)
{
	static const Oid types[] = {INT8OID, TIMESTAMPTZOID, TEXTOID, BYTEAOID,
	TEXTOID};
	bytea	   *bytes = palloc(VARHDRSZ + MBUS_HASH_BYTES);
	Datum		values[] = {Int64GetDatum(state->size),
		TimestampTzGetDatum(at), CStringGetTextDatum(state->origin),
	PointerGetDatum(bytes), CStringGetTextDatum(signature)};

	SET_VARSIZE(bytes, VARHDRSZ + MBUS_HASH_BYTES);
	memcpy(VARDATA(bytes), root->bytes, MBUS_HASH_BYTES);
	mbus_log_execute("INSERT INTO message_bus.log_checkpoint"
					 " (size, at, origin, root, signature)"
					 " VALUES ($1, $2, $3, $4, $5)",
					 lengthof(types), types, values);
}
