/*
 * witness.c
 *		Witnesses of the log, and what they sign.
 *
 * A witness keeps the newest checkpoint that it has seen, has the log prove
 * that the next one continues it, and signs that.  Who believes a witness need
 * not believe the log, nor who runs its database: what was rewritten does not
 * continue what the witness has seen.  The witness is a program elsewhere;
 * here it is known by its key, and its lines are kept with the checkpoints.
 *
 * set_witnesses() says who they are, MBUS_WITNESSES at most, so a checkpoint
 * has as many lines at most; the lines of who is no witness any more are kept,
 * and not shown.  audit_cosign() takes a line that a witness' key verifies and
 * nothing else: whoever brings it needs no trust.  The newest line of a witness
 * keeps its checkpoint from being thinned out; the row of that one is locked
 * while a line comes to it.
 *
 * Both are one statement or two of the transaction that calls them, as the
 * tables' owner: an error or a crash leaves nothing of them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/owner.h"
#include "base/schema.h"
#include "log/note.h"
#include "log/table.h"
#include "state/fault.h"

#define UNIX_EPOCH_S \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)
#define LAST_SECOND	INT64CONST(253402300799)	/* of the year 9999 */

static void witnesses_check(const Datum *vkeys, const bool *isnull, int n,
							MbusWitness *witness);
pg_noreturn static void witness_bad(int number, const char *what);
static const MbusWitness *witness_of(const MbusWitness *witness, int n,
									 const char *text, const char *line,
									 int64 *time);
static void cosignature_store(Oid schema, int64 size,
							  const MbusWitness *witness, const char *line,
							  int64 time);

/*
 * set_witnesses(vkeys) replaces the keys of the witnesses.
 */
MBUS_FUNCTION(set_witnesses)
{
	static const Oid types[] = {TEXTOID, TEXTOID};
	Oid			schema = mbus_schema();
	MbusWitness witness[MBUS_WITNESSES];
	ArrayType  *vkeys;
	Datum	   *values;
	bool	   *isnull;
	int			n;

	mbus_write_check("message_bus.set_witnesses()");
	mbus_required(fcinfo, 0, "vkeys");
	vkeys = PG_GETARG_ARRAYTYPE_P(0);
	deconstruct_array(vkeys, TEXTOID, -1, false, TYPALIGN_INT, &values,
					  &isnull, &n);
	if (n > MBUS_WITNESSES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("too many witnesses"),
				 errdetail("They are %d; the log has %d at most.", n,
						   MBUS_WITNESSES)));
	witnesses_check(values, isnull, n, witness);
	LockRelationOid(mbus_relation(schema, "log_witness"),
					ShareRowExclusiveLock);
	mbus_run_as_owner(schema, "DELETE FROM message_bus.log_witness", 0, NULL,
					  NULL, NULL);
	for (int i = 0; i < n; i++)
	{
		Datum		row[] = {CStringGetTextDatum(witness[i].name), values[i]};

		mbus_run_as_owner(schema,
						  "INSERT INTO message_bus.log_witness (name, vkey)"
						  " VALUES ($1, $2)", lengthof(types), types, row,
						  NULL);
	}
	PG_RETURN_VOID();
}

/* Reads the keys; 22023 for what is none, or of the same name as another. */
static void
witnesses_check(const Datum *vkeys, const bool *isnull, int n,
				MbusWitness *witness)
{
	for (int i = 0; i < n; i++)
	{
		if (isnull[i] ||
			!mbus_witness_parse(TextDatumGetCString(vkeys[i]), &witness[i]))
			witness_bad(i + 1, "is no key of a witness");
		for (int k = 0; k < i; k++)
		{
			if (strcmp(witness[k].name, witness[i].name) == 0)
				witness_bad(i + 1, "has the name of one before it");
		}
	}
}

static void
witness_bad(int number, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("key %d %s", number, what),
			 errhint("Keys are as c2sp.org/tlog-cosignature has them: name, id and base64 of 0x04 and an Ed25519 key, with + between.")));
}

/*
 * audit_cosign(size, signature) keeps a witness' line for the checkpoint of
 * that size, in place of one that it had from the same witness.
 */
MBUS_FUNCTION(audit_cosign)
{
	Oid			schema = mbus_schema();
	MbusWitness witness[MBUS_WITNESSES];
	const MbusWitness *signer = NULL;
	MbusCheckpoint checkpoint;
	Snapshot	snapshot;
	char	   *line;
	int64		size;
	int64		time = 0;
	int			n;

	mbus_write_check("message_bus.audit_cosign()");
	mbus_required(fcinfo, 0, "size");
	mbus_required(fcinfo, 1, "signature");
	size = PG_GETARG_INT64(0);
	line = text_to_cstring(PG_GETARG_TEXT_PP(1));
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	n = mbus_witnesses_read(schema, snapshot, witness);
	if (mbus_checkpoint_of(schema, snapshot, size, &checkpoint))
		signer = witness_of(witness, n,
							mbus_note_text(checkpoint.origin, checkpoint.size,
										   &checkpoint.root), line, &time);
	UnregisterSnapshot(snapshot);
	if (signer == NULL || time > LAST_SECOND)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("signature is not that of a witness to a checkpoint of size " INT64_FORMAT,
						size),
				 errhint("It is one line, as c2sp.org/tlog-cosignature has it; message_bus.set_witnesses() says who is a witness.")));
	cosignature_store(schema, size, signer, line, time);
	PG_RETURN_VOID();
}

/* Whose cosignature a line is, NULL if it is nobody's. */
static const MbusWitness *
witness_of(const MbusWitness *witness, int n, const char *text,
		   const char *line, int64 *time)
{
	for (int i = 0; i < n; i++)
	{
		if (mbus_witness_signed(&witness[i], text, line, time))
			return &witness[i];
	}
	return NULL;
}

/* Keeps a line, which is stored with its end; 40001 without its checkpoint. */
static void
cosignature_store(Oid schema, int64 size, const MbusWitness *witness,
				  const char *line, int64 time)
{
	static const Oid types[] = {INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID};
	char	   *whole = psprintf("%.*s\n", (int) strcspn(line, "\n"), line);
	Datum		values[] = {
		Int64GetDatum(size), CStringGetTextDatum(witness->name),
		CStringGetTextDatum(whole),
	TimestampTzGetDatum((time - UNIX_EPOCH_S) * USECS_PER_SEC)};

	if (mbus_run_as_owner(schema,
						  "INSERT INTO message_bus.log_cosignature"
						  " (size, name, line, at)"
						  " SELECT c.size, $2, $3, $4"
						  " FROM message_bus.log_checkpoint AS c"
						  " WHERE c.size OPERATOR(pg_catalog.=) $1"
						  " FOR KEY SHARE"
						  " ON CONFLICT (size, name) DO UPDATE"
						  " SET line = EXCLUDED.line, at = EXCLUDED.at",
						  lengthof(types), types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the checkpoint of size " INT64_FORMAT " is not there",
						size),
				 errdetail("It has been thinned out meanwhile, or is newer than the transaction's snapshot.")));
}
