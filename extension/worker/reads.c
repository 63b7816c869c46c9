/*
 * reads.c
 *		Reads that others have left in shared memory become rows.
 *
 * What the ring is for, and what a crash leaves of it, is told in
 * state/read_ring.c.  All that is in it is stored by one transaction.  If that
 * fails each record has one of its own, so that what cannot be stored (the log
 * tells) keeps nobody else's from being.  Where a lock is in the way the ring
 * stays as it is, and the next pass tries again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "message/insert.h"
#include "state/read_ring.h"
#include "worker/reads.h"

/* Records that are stored together. */
typedef struct Reads
{
	const char *bytes;
	uint64		n;				/* bytes */
} Reads;

static MbusOutcome reads_insert(MbusWork *work, void *arg);
static uint64 insert_singly(MbusWork *work, const char *bytes, uint64 n);

/*
 * mbus_reads_store stores what is in the ring.
 */
void
mbus_reads_store(MbusWork *work)
{
	uint64		from;
	uint64		to;
	char	   *bytes;
	Reads		reads;
	MbusOutcome outcome;

	if (!mbus_tasks_begin(work, MBUS_TASK_READS, false))
		return;
	bytes = mbus_reads_take(work->db, &from, &to);
	if (bytes)
	{
		reads.bytes = bytes;
		reads.n = to - from;
		outcome = mbus_task_run(work, MBUS_TASK_READS, reads_insert, &reads,
								"recording reads");
		if (outcome == MBUS_DONE)
			mbus_reads_taken(work->db, from, to);
		else if (outcome == MBUS_FAILED)
			mbus_reads_taken(work->db, from,
							 from + insert_singly(work, bytes, to - from));
		pfree(bytes);
	}
	mbus_tasks_end(work, MBUS_TASK_READS);
}

/*
 * mbus_reads_store_at_exit does so as the last thing that a worker does which
 * was told to end, whatever it was doing.
 */
void
mbus_reads_store_at_exit(MbusWork *work)
{
	if (!OidIsValid(work->schema) || work->schema != work->db->schema)
		return;
	AbortOutOfAnyTransaction();
	MemSet(&work->backoff[MBUS_TASK_READS], 0, sizeof(MbusBackoff));
	mbus_reads_store(work);
}

/* Inserts a row for each message of each record. */
static MbusOutcome
reads_insert(MbusWork *work, void *arg)
{
	const Reads *reads = arg;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	for (uint64 at = 0; at < reads->n;)
	{
		const MbusRead *read = (const MbusRead *) (reads->bytes + at);
		MbusEventBy by = {0};

		CHECK_FOR_INTERRUPTS();
		at += read->size;
		/* of an extension that was dropped */
		if (read->schema != work->schema)
			continue;
		by.at = read->at;
		by.session = read->session;
		by.role = GetUserNameFromId(read->role, true);
		if (by.role == NULL)
			by.role = psprintf("%u", read->role);
		if (*mbus_read_subject(read) != '\0')
			by.subject = mbus_read_subject(read);
		mbus_insert_events(work->schema, read->id, read->n, "accessed", &by);
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * insert_singly stores records one by one, and returns how many bytes of them
 * are settled.
 */
static uint64
insert_singly(MbusWork *work, const char *bytes, uint64 n)
{
	uint64		at = 0;

	while (at < n)
	{
		const MbusRead *read = (const MbusRead *) (bytes + at);
		Reads		one = {(const char *) read, (uint64) read->size};

		if (mbus_task_run(work, MBUS_TASK_READS, reads_insert, &one,
						  "recording reads of %d messages, the first of which is "
						  INT64_FORMAT, read->n,
						  read->id[0]) == MBUS_BLOCKED)
			break;
		at += one.n;
	}
	return at;
}
