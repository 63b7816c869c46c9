/*
 * show.c
 *		The log, shown: checkpoints, entries, proofs.
 *
 * What is shown must never be lost, or it could be denied later.  A checkpoint
 * is on disk before anybody sees it, with all that it is over (checkpoint.c).
 * Who shows one, or a proof against one, also waits for the synchronous
 * standbys, of which one may be promoted.
 *
 * All are read under one snapshot, which is taken when the call begins.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "replication/walsender_private.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/argument.h"
#include "base/schema.h"
#include "log/found.h"
#include "log/note.h"
#include "log/row.h"
#include "log/table.h"
#include "state/fault.h"

#define STANDBY_LOOK_US 5000

static Snapshot shown_snapshot(void);
static void standbys_wait(void);
static char *checkpoint_note(Oid schema, Snapshot snapshot,
							 const MbusCheckpoint *checkpoint);
static void checkpoint_over(Oid schema, Snapshot snapshot,
							const MbusFound *found,
							MbusCheckpoint *checkpoint);
static char *proof_text(Oid schema, Snapshot snapshot, MbusFound *found,
						const MbusCheckpoint *checkpoint);

/*
 * audit_checkpoint() returns the newest checkpoint, a signed note; NULL before
 * the first.
 */
MBUS_FUNCTION(audit_checkpoint)
{
	Oid			schema = mbus_schema();
	Snapshot	snapshot = shown_snapshot();
	MbusCheckpoint checkpoint;
	char	   *note = NULL;

	if (mbus_checkpoint_newest(schema, snapshot, &checkpoint))
		note = checkpoint_note(schema, snapshot, &checkpoint);
	UnregisterSnapshot(snapshot);
	if (note == NULL)
		PG_RETURN_NULL();
	standbys_wait();
	PG_RETURN_TEXT_P(cstring_to_text(note));
}

/*
 * audit_key() returns the key that checkpoints are verified with; NULL while
 * there is no log.
 */
MBUS_FUNCTION(audit_key)
{
	Oid			schema = mbus_schema();
	Snapshot	snapshot = shown_snapshot();
	char	   *origin = mbus_log_origin_read(schema, snapshot);
	uint8		seed[MBUS_SEED_BYTES];
	char	   *key = NULL;

	if (origin && mbus_log_key_read(schema, snapshot, seed))
		key = mbus_note_key(origin, seed);
	explicit_bzero(seed, sizeof(seed));
	UnregisterSnapshot(snapshot);
	if (key == NULL)
		PG_RETURN_NULL();
	standbys_wait();
	PG_RETURN_TEXT_P(cstring_to_text(key));
}

/*
 * audit_entry(id, kind) returns the bytes of an entry; NULL where there is
 * none.
 */
MBUS_FUNCTION(audit_entry)
{
	Snapshot	snapshot = shown_snapshot();
	MbusFound	found;
	bool		there = mbus_found(fcinfo, mbus_schema(), snapshot, &found);

	UnregisterSnapshot(snapshot);
	if (!there)
		PG_RETURN_NULL();
	/* a text and a bytea are made alike */
	PG_RETURN_BYTEA_P(cstring_to_text_with_len(found.entry.text.data,
											   found.entry.text.len));
}

/*
 * audit_proof(id, kind) returns the proof that an entry is in the log; NULL
 * where there is none, 55000 if no checkpoint covers it yet.
 */
MBUS_FUNCTION(audit_proof)
{
	Oid			schema = mbus_schema();
	Snapshot	snapshot = shown_snapshot();
	MbusFound	found;
	MbusCheckpoint checkpoint;
	char	   *proof = NULL;

	if (mbus_found(fcinfo, schema, snapshot, &found))
	{
		checkpoint_over(schema, snapshot, &found, &checkpoint);
		proof = proof_text(schema, snapshot, &found, &checkpoint);
	}
	UnregisterSnapshot(snapshot);
	if (proof == NULL)
		PG_RETURN_NULL();
	standbys_wait();
	PG_RETURN_TEXT_P(cstring_to_text(proof));
}

/*
 * The newest checkpoint that a witness has cosigned if it covers an entry,
 * else the newest; 55000 if that does not either.
 */
static void
checkpoint_over(Oid schema, Snapshot snapshot, const MbusFound *found,
				MbusCheckpoint *checkpoint)
{
	int64		cosigned = mbus_cosigned_newest(schema, snapshot);

	if (found->index >= 0 && found->index < cosigned &&
		mbus_checkpoint_of(schema, snapshot, cosigned, checkpoint))
		return;
	if (found->index < 0 ||
		!mbus_checkpoint_newest(schema, snapshot, checkpoint) ||
		found->index >= checkpoint->size)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no checkpoint of the log covers " INT64_FORMAT " yet",
						found->number),
				 errhint("Try again in message_bus.log_interval.")));
}

/* A proof as c2sp.org/tlog-proof@v1 has it. */
static char *
proof_text(Oid schema, Snapshot snapshot, MbusFound *found,
		   const MbusCheckpoint *checkpoint)
{
	MbusTreeSource source;
	MbusHash	path[MBUS_PROOF_MAX];
	int			n;
	StringInfoData extra;
	StringInfoData proof;

	initStringInfo(&extra);
	appendBinaryStringInfo(&extra, found->entry.text.data,
						   found->entry.text.len);
	appendStringInfoChar(&extra, '\n');
	appendBinaryStringInfo(&extra, found->entry.openings.data,
						   found->entry.openings.len);
	source = mbus_tiles_source(&found->tiles);
	n = mbus_tree_inclusion(&source, found->index, checkpoint->size, path);

	initStringInfo(&proof);
	appendStringInfo(&proof, "c2sp.org/tlog-proof@v1\nextra %s\nindex "
					 INT64_FORMAT "\n", mbus_base64(extra.data, extra.len),
					 found->index);
	for (int i = 0; i < n; i++)
		appendStringInfo(&proof, "%s\n",
						 mbus_base64(path[i].bytes, MBUS_HASH_BYTES));
	appendStringInfo(&proof, "\n%s",
					 checkpoint_note(schema, snapshot, checkpoint));
	return proof.data;
}

/*
 * audit_consistency(old_size, new_size) returns the hashes that prove that the
 * log of the one size is the beginning of that of the other.
 */
MBUS_FUNCTION(audit_consistency)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			schema = mbus_schema();
	Snapshot	snapshot;
	MbusCheckpoint checkpoint = {0};
	MbusTiles	tiles;
	MbusTreeSource source;
	MbusHash	path[MBUS_PROOF_MAX];
	int64		old_size;
	int64		new_size;
	int			n;

	mbus_required(fcinfo, 0, "old_size");
	mbus_required(fcinfo, 1, "new_size");
	old_size = PG_GETARG_INT64(0);
	new_size = PG_GETARG_INT64(1);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	snapshot = shown_snapshot();
	if (!mbus_checkpoint_newest(schema, snapshot, &checkpoint))
		checkpoint.size = 0;
	if (old_size < 0 || old_size > new_size || new_size > checkpoint.size)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot prove that the log of " INT64_FORMAT
						" entries is the beginning of that of " INT64_FORMAT,
						old_size, new_size),
				 errdetail("The newest checkpoint has " INT64_FORMAT ".",
						   checkpoint.size)));
	mbus_tiles_open(&tiles, schema, snapshot);
	source = mbus_tiles_source(&tiles);
	n = mbus_tree_consistency(&source, old_size, new_size, path);
	UnregisterSnapshot(snapshot);
	standbys_wait();
	for (int i = 0; i < n; i++)
	{
		bool		isnull = false;
		Datum		hash =
		PointerGetDatum(cstring_to_text_with_len((char *) path[i].bytes,
												 MBUS_HASH_BYTES));

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &hash,
							 &isnull);
	}
	return (Datum) 0;
}

/* The text of a checkpoint, and the lines of the log and of witnesses. */
static char *
checkpoint_note(Oid schema, Snapshot snapshot,
				const MbusCheckpoint *checkpoint)
{
	return psprintf("%s\n%s%s",
					mbus_note_text(checkpoint->origin, checkpoint->size,
								   &checkpoint->root),
					checkpoint->signature,
					mbus_cosignatures_read(schema, snapshot,
										   checkpoint->size));
}

/* What has been committed by now, whatever the transaction's isolation. */
static Snapshot
shown_snapshot(void)
{
	return RegisterSnapshot(GetLatestSnapshot());
}

/*
 * standbys_wait waits until the synchronous standbys have on disk what this
 * server has: of what was seen, all.  The wait can be cancelled, and then
 * nothing is shown.
 */
static void
standbys_wait(void)
{
	XLogRecPtr	flushed;

	if (RecoveryInProgress() || SyncRepStandbyNames == NULL ||
		SyncRepStandbyNames[0] == '\0')
		return;
	flushed = GetFlushRecPtr(NULL);
	for (;;)
	{
		bool		done;

		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(SyncRepLock, LW_SHARED);
		done = WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH] >= flushed;
		LWLockRelease(SyncRepLock);
		if (done)
			return;
		pg_usleep(STANDBY_LOOK_US);
	}
}
