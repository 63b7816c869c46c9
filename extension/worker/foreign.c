/*
 * foreign.c
 *		Segments that another bus has written.
 *
 * A message has the number of its channel, and numbers begin with 1 in each
 * bus.  So tables of segments that are restored without the channels that they
 * are of (pg_dump -n message_bus has these alone) would give their messages to
 * whoever has a channel of that number here.
 *
 * A bus has an identity, server_state.bus, made at random by CREATE EXTENSION
 * and not dumped.  It is in the name of the CHECK constraint that each table of
 * a segment has, which goes wherever the table goes.  A channel has the
 * identities of the buses that know it by its number: of the one that made it,
 * and of each that a dump of it was restored into (message_bus.channel.buses).
 *
 * A restored segment is taken in (restore.c) if a channel here knows the bus
 * that has written it, and each channel here of which it has messages does.  A
 * channel that is not here was dropped there, and is the reason that numbers of
 * new channels go above those in it.  Else the segment is foreign: its tables
 * are detached, so that no reader finds them, on a standby neither.  Until they
 * are they are hidden, as all that is not taken in.  Other rows of
 * message_bus.channel may make it one of ours: whenever these change it is
 * judged again, and attached.
 *
 * A foreign segment has a row in message_bus.segment, is closed, and goes when
 * all in it has expired, as every other.
 *
 * Locks.  AccessExclusive on the parents to detach, ShareUpdateExclusive to
 * attach, and AccessExclusive on the tables; had without waiting, or tried again
 * in the next pass.  All is one transaction.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/ids.h"
#include "base/settings.h"
#include "segment/dump.h"
#include "segment/leaf.h"
#include "worker/foreign.h"
#include "worker/names.h"
#include "worker/segment_attach.h"
#include "worker/segment_catalog.h"
#include "worker/segment_secret.h"
#include "worker/task.h"

#define MBUS_NODE_CHANNELS	67108864	/* numbers of channels of a node */

/* Why a segment is foreign. */
typedef enum Verdict
{
	VERDICT_OURS,
	VERDICT_UNKNOWN,			/* no channel here knows the bus */
	VERDICT_OTHERS				/* one that it has messages of does not */
} Verdict;

/* A segment that was judged to be foreign. */
typedef struct Foreign
{
	int32		segment;
	Verdict		verdict;
	bool		again;			/* channels have changed since */
} Foreign;

/* Those of this extension, by ascending number. */
static Foreign *foreign = NULL;
static int	nforeign = 0;
static Oid	foreign_schema = InvalidOid;
static uint64 judged_at = 0;	/* mbus_names_changes() at the last look */

static char *segment_bus(int32 segment);
static Verdict segment_verdict(int32 segment, const char *bus);
static void foreign_say(int32 segment, const char *bus, Verdict verdict);
static void foreign_learn(int32 segment, Verdict verdict);
static Foreign *foreign_find(int32 segment);
static int	foreign_place(int32 segment);

/*
 * mbus_bus_mark returns the name of the constraint that tables of this bus's
 * segments have; in a transaction, with SPI.
 */
char *
mbus_bus_mark(void)
{
	char	   *mark = NULL;

	if (SPI_execute("SELECT 'bus_' || replace(bus::text, '-', '')"
					" FROM message_bus.server_state", true, 1) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.server_state");
	if (SPI_processed > 0)
		mark = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (mark == NULL)
		elog(ERROR, "message_bus.server_state has no row");
	return mark;
}

/*
 * mbus_foreign_judge tells whether a restored segment is foreign, and tells
 * the log if that is new; in a transaction, with SPI.
 */
bool
mbus_foreign_judge(int32 segment)
{
	char	   *bus = segment_bus(segment);
	Verdict		verdict = bus ? segment_verdict(segment, bus) :
	VERDICT_UNKNOWN;
	const Foreign *known = foreign_find(segment);

	if (verdict != VERDICT_OURS && (!known || known->verdict != verdict))
		foreign_say(segment, bus, verdict);
	if (verdict != VERDICT_OURS || known)
		foreign_learn(segment, verdict);
	return verdict != VERDICT_OURS;
}

/*
 * segment_bus returns the bus that has written a segment, as hexadecimal
 * digits; NULL if its tables do not all tell the same.
 */
static char *
segment_bus(int32 segment)
{
	if (SPI_execute(psprintf("WITH mark AS"
							 " (SELECT (SELECT min(substring(k.conname"
							 "   FROM '^bus_([0-9a-f]{32})$'))"
							 "   FROM pg_constraint k"
							 "   WHERE k.conrelid = c.oid) AS bus"
							 "  FROM pg_class c WHERE c.relnamespace ="
							 "   'message_bus'::regnamespace"
							 "  AND c.relname = ANY (ARRAY['message_%d',"
							 "   'event_%d', 'ack_%d', 'failure_%d']))"
							 " SELECT min(bus) FROM mark"
							 " HAVING count(bus) = count(*)"
							 " AND count(DISTINCT bus) = 1",
							 segment, segment, segment, segment),
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the bus of a segment");
	return SPI_processed == 0 ? NULL :
		SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/* Whether the channels here are those that a segment of that bus is of. */
static Verdict
segment_verdict(int32 segment, const char *bus)
{
	bool		none;

	(void) mbus_sql_int64(&none, "SELECT 1::int8 FROM message_bus.channel"
						  " WHERE '%s'::uuid = ANY (buses) LIMIT 1", bus);
	if (none)
		return VERDICT_UNKNOWN;
	(void) mbus_sql_int64(&none, "SELECT 1::int8 FROM message_bus.channel c"
						  " WHERE '%s'::uuid <> ALL (c.buses) AND EXISTS"
						  " (SELECT FROM message_bus.message_%d m"
						  "  WHERE m.channel_id = c.channel_id"
						  "  AND m.run > 0) LIMIT 1", bus, segment);
	return none ? VERDICT_OURS : VERDICT_OTHERS;
}

/* Tells the log of a segment that is foreign, and what to do. */
static void
foreign_say(int32 segment, const char *bus, Verdict verdict)
{
	ereport(LOG,
			(errmsg("segment %d of message_bus is foreign: nobody can read what is in it",
					segment),
			 bus == NULL ?
			 errdetail("Its tables do not tell which bus has written them.") :
			 verdict == VERDICT_UNKNOWN ?
			 errdetail("It was written by bus %s, none of whose channels is here.", bus) :
			 errdetail("It was written by bus %s, and a channel of another bus has the number of one whose messages it has.", bus),
			 errhint("To have its messages, restore the whole dump, with its rows of message_bus.channel, into a database without other channels. To be rid of them, drop the tables message_bus.message_%d, event_%d, ack_%d, failure_%d and secret_%d; else they go when all in them has expired.",
					 segment, segment, segment, segment, segment)));
}

/*
 * mbus_foreign_detach takes a segment away from the parents, so that nobody
 * finds it, and gives it a row by which it is shown and goes at its expiry;
 * false if a lock is in the way.  In the caller's transaction.
 */
bool
mbus_foreign_detach(MbusWork *work, int32 segment)
{
	Oid			leaf[MBUS_FAMILIES];
	Oid			secret = mbus_secret_table(work, segment);

	if (!mbus_dumps_wait(work->schema, false))
		return false;
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		if (!ConditionalLockRelationOid(work->parent[f], AccessExclusiveLock))
			return false;
	}
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		(void) mbus_leaf_state(work, (MbusFamily) f, segment, &leaf[f]);
		if (OidIsValid(leaf[f]) &&
			!ConditionalLockRelationOid(leaf[f], AccessExclusiveLock))
			return false;
	}
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		const char *family = mbus_family_name((MbusFamily) f);

		if (!OidIsValid(leaf[f]))
			continue;
		if (get_rel_relispartition(leaf[f]))
			mbus_sql("ALTER TABLE message_bus.%s"
					 " DETACH PARTITION message_bus.%s_%d",
					 family, family, segment);
		mbus_segment_revoke(psprintf("%s_%d", family, segment), leaf[f]);
	}
	if (OidIsValid(secret))
		mbus_segment_revoke(psprintf("secret_%d", segment), secret);
	mbus_sql("DELETE FROM message_bus.unattached WHERE segment_no = %d",
			 segment);
	mbus_sql("INSERT INTO message_bus.segment (segment_no, series, opened_at)"
			 " VALUES (%d, 1, message_bus.clock())"
			 " ON CONFLICT (segment_no) DO NOTHING", segment);
	CacheInvalidateRelcacheByRelid(work->parent[MBUS_MESSAGE]);
	return true;
}

/*
 * mbus_foreign_attach attaches what was foreign and is hidden by now, so that
 * it can be taken in; false if a lock is in the way.  In the caller's
 * transaction.
 */
bool
mbus_foreign_attach(MbusWork *work, int32 segment)
{
	if (!mbus_parents_lock(work))
		return false;
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		Oid			leaf;

		(void) mbus_leaf_state(work, (MbusFamily) f, segment, &leaf);
		if (OidIsValid(leaf) &&
			!ConditionalLockRelationOid(leaf, AccessExclusiveLock))
			return false;
		if (OidIsValid(leaf) && !get_rel_relispartition(leaf))
			mbus_leaf_attach((MbusFamily) f, segment);
	}
	return true;
}

/*
 * mbus_channels_above has new channels numbered above those that a segment has
 * messages of: one of these may have been dropped where it was written, and
 * another one here must not get its number.
 */
void
mbus_channels_above(int32 segment)
{
	int64		first = (int64) mbus_node * MBUS_NODE_CHANNELS;
	bool		none;

	(void) mbus_sql_int64(&none, "SELECT setval('message_bus.channel_id', m.id)"
						  " FROM (SELECT max(channel_id)"
						  "  FROM message_bus.message_%d WHERE run > 0"
						  "  AND channel_id >= " INT64_FORMAT
						  "  AND channel_id < " INT64_FORMAT ") AS m (id),"
						  " message_bus.channel_id s WHERE m.id > s.last_value",
						  segment, first, first + MBUS_NODE_CHANNELS);
}

/*
 * mbus_foreign_begin begins a look: what was judged before channels have changed
 * is to be judged again.  In a transaction.
 */
void
mbus_foreign_begin(MbusWork *work)
{
	uint64		changes = mbus_names_changes(work);

	if (foreign_schema != work->schema)
		nforeign = 0;
	for (int i = 0; i < nforeign && judged_at != changes; i++)
		foreign[i].again = true;
	foreign_schema = work->schema;
	judged_at = changes;
}

/*
 * mbus_foreign_again tells whether some are to be judged again; in a
 * transaction.
 */
bool
mbus_foreign_again(MbusWork *work)
{
	mbus_foreign_begin(work);
	for (int i = 0; i < nforeign; i++)
	{
		if (foreign[i].again)
			return true;
	}
	return false;
}

/*
 * mbus_foreign_known tells whether a segment was judged to be foreign; *again:
 * and is to be judged again.
 */
bool
mbus_foreign_known(int32 segment, bool *again)
{
	const Foreign *known = foreign_find(segment);

	*again = known && known->again;
	return known && known->verdict != VERDICT_OURS;
}

/* Takes note of what a segment was judged to be. */
static void
foreign_learn(int32 segment, Verdict verdict)
{
	int			place = foreign_place(segment);

	if (foreign_find(segment) == NULL)
	{
		foreign = foreign == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(Foreign)) :
			repalloc_huge(foreign, (nforeign + 1) * sizeof(Foreign));
		memmove(&foreign[place + 1], &foreign[place],
				(nforeign - place) * sizeof(Foreign));
		nforeign++;
	}
	foreign[place].segment = segment;
	foreign[place].verdict = verdict;
	foreign[place].again = false;
}

/* What was judged of a segment, or NULL. */
static Foreign *
foreign_find(int32 segment)
{
	int			place = foreign_place(segment);

	return place < nforeign && foreign[place].segment == segment ?
		&foreign[place] : NULL;
}

/* Where a segment is, or would be. */
static int
foreign_place(int32 segment)
{
	int			lo = 0;
	int			hi = nforeign;

	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;

		if (foreign[mid].segment < segment)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}
