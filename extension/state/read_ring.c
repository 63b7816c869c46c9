/*
 * read_ring.c
 *		Reads that the worker is to record.
 *
 * A read that has to be recorded is a row of message_bus.event.  Where the
 * transaction can write, it inserts the row itself.  Where it cannot (READ
 * ONLY), the read goes into a ring in shared memory, from which the worker
 * takes it at its next full pass: so within message_bus.worker_interval, or at
 * once when the ring is half full.
 *
 * Who has read has read, whatever becomes of his transaction: rows of one that
 * is rolled back, also to a savepoint, are dead, so its reads go to the ring
 * then.  That cannot wait or fail, so room is reserved for it before the
 * message is returned, OWN_BYTES for a transaction and half of the ring for
 * all.  Reads that get none go to the ring at once, as those of transactions
 * that cannot write.  A frame of a gateway needs no room: its reply is lost
 * with what it did.
 *
 * Full.  If the ring has no room the reader wakes the worker and waits, at
 * most MBUS_WAIT_MS, interruptibly; then the read fails with 55000, which says
 * that the worker did not record reads.  None is returned without.  Everybody
 * shares the ring, and nobody can do more than make readers of channels that
 * record reads wait for the worker.
 *
 * A crash loses what is in the ring, so reads of the last worker_interval.  A
 * worker that is told to end, as at a shutdown of the server, stores it last
 * of all; where none runs it waits for the next one.  A worker that ends between its commit and the move
 * of the tail records twice.  On a standby nothing can be recorded, and the
 * read is refused (message/access.c).
 *
 * Locks.  The state lock, for straight-line code.  The callback takes it
 * alone, allocates nothing and cannot fail.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"

#include "base/caller.h"
#include "state/clock.h"
#include "state/read_ring.h"
#include "state/ring.h"
#include "state/state.h"

#define OWN_BYTES	8192		/* reserved for one transaction */

/* What this transaction has read and recorded by itself. */
typedef struct Pending
{
	SubTransactionId subid;
	MbusRead   *read;
} Pending;

static MemoryContext pending_context = NULL;
static MbusDatabase *pending_db = NULL;
static Pending *pending = NULL;
static int	npending = 0;
static int	maxpending = 0;
static Size pending_bytes = 0;

static void pending_room(void);
static void reads_xact(XactEvent event, void *arg);
static void reads_subxact(SubXactEvent event, SubTransactionId subid,
						  SubTransactionId parent, void *arg);
static void pending_end(int first, bool put);
static void pending_forget(void);

/*
 * mbus_read_ring_init registers the callbacks; from _PG_init.
 */
void
mbus_read_ring_init(void)
{
	RegisterXactCallback(reads_xact, NULL);
	RegisterSubXactCallback(reads_subxact, NULL);
}

/*
 * mbus_read_make makes a record of the caller's reads, at most MBUS_READ_IDS.
 */
MbusRead *
mbus_read_make(Oid schema, const int64 *ids, int n)
{
	const char *subject = mbus_subject();
	Size		ids_end = offsetof(MbusRead, id) + n * sizeof(int64);
	Size		size;
	MbusRead   *read;

	Assert(n <= MBUS_READ_IDS);
	if (subject == NULL)
		subject = "";
	size = MAXALIGN(ids_end + strlen(subject) + 1);
	read = palloc0(size);
	read->at = mbus_now();
	read->session = mbus_caller.session;
	read->size = (int) size;
	read->schema = schema;
	read->role = GetUserId();
	read->n = n;
	memcpy(read->id, ids, n * sizeof(int64));
	strcpy((char *) read + ids_end, subject);
	return read;
}

/*
 * mbus_read_reserve keeps a record for the case that the transaction, or the
 * savepoint, is rolled back; false if there is no room to be kept for it.
 */
bool
mbus_read_reserve(MbusDatabase *db, const MbusRead *read)
{
	MbusRead   *copy;
	bool		reserved = false;

	if (pending_bytes + read->size > OWN_BYTES)
		return false;
	pending_room();
	copy = MemoryContextAlloc(pending_context, read->size);
	memcpy(copy, read, read->size);

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (db->reads.reserved + read->size <= MBUS_READ_BYTES / 2 &&
		db->reads.ring.head - db->reads.ring.tail + db->reads.reserved +
		read->size <= MBUS_READ_BYTES)
	{
		db->reads.reserved += read->size;
		pending_db = db;
		pending[npending].subid = GetCurrentSubTransactionId();
		pending[npending++].read = copy;
		pending_bytes += read->size;
		reserved = true;
	}
	LWLockRelease(&db->lock);
	return reserved;
}

/* Makes room in the list for one more. */
static void
pending_room(void)
{
	int			max = Max(8, maxpending * 2);

	if (pending_context == NULL)
		pending_context = AllocSetContextCreate(TopMemoryContext,
												"message_bus reads",
												ALLOCSET_SMALL_SIZES);
	if (npending < maxpending)
		return;
	if (pending == NULL)
		pending = MemoryContextAlloc(pending_context, max * sizeof(Pending));
	else
		pending = repalloc(pending, max * sizeof(Pending));
	maxpending = max;
}

/*
 * mbus_read_put puts a record into the ring, and waits for room.  55000 if the
 * worker makes none.
 */
void
mbus_read_put(MbusDatabase *db, const MbusRead *read)
{
	TimestampTz started = 0;

	for (;;)
	{
		MbusReads  *reads = &db->reads;
		bool		put = false;

		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		if (reads->ring.head - reads->ring.tail + reads->reserved +
			read->size <= MBUS_READ_BYTES)
		{
			mbus_ring_put(&reads->ring, reads->bytes, MBUS_READ_BYTES, read,
						  read->size);
			put = true;
		}
		LWLockRelease(&db->lock);
		if (put)
			break;
		mbus_worker_wait(db, &started, "record reads");
	}
	if (mbus_reads_press(db))
		mbus_wake_worker(db);
}

/*
 * mbus_reads_press tells whether the ring is half full: the worker is not to
 * wait for its interval.
 */
bool
mbus_reads_press(MbusDatabase *db)
{
	uint64		used;

	LWLockAcquire(&db->lock, LW_SHARED);
	used = db->reads.ring.head - db->reads.ring.tail + db->reads.reserved;
	LWLockRelease(&db->lock);
	return used > MBUS_READ_BYTES / 2;
}

/*
 * mbus_reads_take copies what is in the ring, [*from, *to), into the current
 * memory context; NULL if there is nothing.
 */
char *
mbus_reads_take(MbusDatabase *db, uint64 *from, uint64 *to)
{
	MbusReads  *reads = &db->reads;
	char	   *bytes;

	LWLockAcquire(&db->lock, LW_SHARED);
	*from = reads->ring.tail;
	*to = reads->ring.head;
	LWLockRelease(&db->lock);
	if (*from == *to)
		return NULL;
	bytes = palloc(MBUS_READ_BYTES);
	LWLockAcquire(&db->lock, LW_SHARED);
	/* but for us only a reset moves the tail */
	*from = reads->ring.tail;
	*to = *from + mbus_ring_copy(&reads->ring, reads->bytes, MBUS_READ_BYTES,
								 bytes);
	LWLockRelease(&db->lock);
	return bytes;
}

/*
 * mbus_reads_taken lets go of what has been recorded.
 */
void
mbus_reads_taken(MbusDatabase *db, uint64 from, uint64 to)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (db->reads.ring.tail == from)
		db->reads.ring.tail = to;
	LWLockRelease(&db->lock);
	ConditionVariableBroadcast(&db->changed);
}

/* Ends what the transaction has kept. */
static void
reads_xact(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
	{
		if (npending > 0)
			pending_end(0, event == XACT_EVENT_ABORT);
		pending_forget();
	}
}

/* Reads of a savepoint are its parent's, or go to the ring. */
static void
reads_subxact(SubXactEvent event, SubTransactionId subid,
			  SubTransactionId parent, void *arg)
{
	int			first = npending;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	/* those of a subtransaction are the last ones */
	while (first > 0 && pending[first - 1].subid == subid)
	{
		first--;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			pending[first].subid = parent;
	}
	if (event == SUBXACT_EVENT_ABORT_SUB && first < npending)
		pending_end(first, true);
}

/* Gives back what is reserved for the last ones, and puts them if need be. */
static void
pending_end(int first, bool put)
{
	MbusReads  *reads = &pending_db->reads;

	LWLockAcquire(&pending_db->lock, LW_EXCLUSIVE);
	for (int i = first; i < npending; i++)
	{
		const MbusRead *read = pending[i].read;

		reads->reserved -= read->size;
		pending_bytes -= read->size;
		if (put)
			mbus_ring_put(&reads->ring, reads->bytes, MBUS_READ_BYTES, read,
						  read->size);
	}
	LWLockRelease(&pending_db->lock);
	npending = first;
}

/* Empties the list and gives its memory back. */
static void
pending_forget(void)
{
	if (pending == NULL)
		return;
	pending = NULL;
	npending = 0;
	maxpending = 0;
	pending_bytes = 0;
	MemoryContextReset(pending_context);
}
