/*
 * pass.c
 *		The worker's passes, which log what has been committed.
 *
 * A pass looks at memory (how far each open segment is reserved, the facts'
 * next number, what is unfinished), THEN takes a snapshot, and logs in one
 * transaction what is settled under it: messages, segment by segment; facts, by
 * their numbers, in the segments that were touched; and what segments had that
 * have just come to this log.  It commits asynchronously.
 *
 * A slice has so many entries, or so much time (collect.c); what is left the
 * next pass does.  When a look sees what the last complete pass saw, nothing is
 * done: no table is read.
 *
 * A segment comes to the log when a pass first sees that it is readable: then
 * its messages are logged from its first id on, and its facts below the log's
 * number, each in slices.  That is so for one that was just opened, too, which
 * has none.  From then on its facts are read with those of the others.
 *
 * A segment with rows that cannot be read is put off (unread.c): its messages
 * that are left out stay pending, and its facts are not read with those of the
 * others, but noted as if it had brought them, and read by themselves.
 *
 * README.md tells what a crash at each step leaves.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/snapmgr.h"

#include "base/ids.h"
#include "log/action.h"
#include "log/begin.h"
#include "log/collect.h"
#include "log/pass.h"
#include "log/row.h"
#include "log/store.h"
#include "log/unread.h"
#include "segment/leaf.h"

#define GAPS_MOST	50			/* in a slice */

/* A pass that is at work. */
typedef struct Pass
{
	MbusDatabase *db;
	Oid			schema;
	MbusLog    *log;
	MbusLogLook *look;
	MbusLogState state;
	MbusLogSegment *segment;
	int			nsegments;
	MbusRows	rows;
	bool		all;			/* the slice has room for all */
} Pass;

static uint64 look_hash(MbusDatabase *db, const MbusLogLook *look);
static uint64 hash_add(uint64 hash, int64 value);
static void segments_adopt(Pass *pass);
static void segments_unread(Pass *pass);
static bool segment_readable(const Pass *pass, int32 segment);
static void messages_collect(Pass *pass);
static int64 segment_limit(const MbusLogLook *look, int32 segment);
static bool segment_sealed(const MbusLogSegment *segment,
						   const MbusUnread *unread);
static void facts_collect(Pass *pass);
static bool fact_segment(const Pass *pass, const MbusLogSegment *segment);
static void facts_put_off(Pass *pass, const MbusSpans *done);
static bool segment_touched(const Pass *pass, int32 segment);
static void brought_collect(Pass *pass);
static void pass_write(Pass *pass);
static bool drop_collect(Oid schema, const MbusLogState *state,
						 const MbusLogSegment *segment,
						 const MbusUnread *unread, MbusRows *rows);
static void gaps_log(Pass *pass);
static MbusSpans ranges_spans(const MbusLogLook *look);
static MbusSpans facts_spans(const MbusLogLook *look);

/*
 * mbus_log_look looks at memory, and tells whether anything may be to be
 * logged.  Called outside a transaction; what it returns lies in the current
 * memory context.
 */
bool
mbus_log_look(MbusDatabase *db, Oid schema, const MbusLog *log,
			  MbusLogLook *look)
{
	mbus_segments_look(db, schema, &look->segments);
	mbus_facts_look(db, schema, log->since, &look->facts);
	look->hash = look_hash(db, look);
	return look->segments.ready && look->facts.next != 0 &&
		(look->hash != log->logged || mbus_unread_due(log));
}

/* A hash of what was seen; also of which segments are hidden. */
static uint64
look_hash(MbusDatabase *db, const MbusLogLook *look)
{
	uint64		hash = hash_add(1, look->facts.next);

	for (int i = 0; i < look->segments.nopen; i++)
		hash = hash_add(hash, look->segments.limit[i]);
	for (int i = 0; i < look->segments.nranges; i++)
		hash = hash_add(hash_add(hash, look->segments.range[i].lo),
						look->segments.range[i].hi);
	for (int i = 0; i < look->facts.nranges; i++)
		hash = hash_add(hash_add(hash, look->facts.range[i].lo),
						look->facts.range[i].hi);
	hash = hash_add(hash, pg_atomic_read_u32(&db->numbering.hiding));
	hash = hash_add(hash, pg_atomic_read_u32(&db->numbering.known));
	hash = hash_add(hash, pg_atomic_read_u32(&db->numbering.fills));
	hash = hash_add(hash, mbus_log_here_hash());
	return hash != 0 ? hash : 1;
}

static uint64
hash_add(uint64 hash, int64 value)
{
	return hash_combine64(hash, hash_bytes_extended((const unsigned char *) &value,
													sizeof(value), 0));
}

/*
 * mbus_log_pass logs what is settled, in a transaction with SPI whose snapshot
 * was taken after the look.
 */
void
mbus_log_pass(MbusDatabase *db, Oid schema, MbusLog *log, MbusLogLook *look)
{
	Pass		pass = {.db = db,.schema = schema,.log = log,.look = look};
	MbusSpans	unfinished = facts_spans(look);

	pass.all = true;
	mbus_rows_begin(&pass.rows, log);
	mbus_unread_try(log);
	log->hiding = pg_atomic_read_u32(&db->numbering.hiding) != 0;
	look->more = false;
	look->facts_done = true;
	look->waits = false;
	look->since = look->facts.next;
	/* what was touched by numbers of this pass, and the next does not ask for */
	if (look->facts.ntouched < 0)
		log->everywhere_to = Max(log->everywhere_to, look->facts.next);
	if (!mbus_log_open(schema, log, &pass.state, look->facts.next,
					   &unfinished))
	{
		look->waits = log->brought_at != 0 || log->epoch != 0;
		return;
	}
	pass.all = mbus_log_actions(db, schema, log, &pass.state, &pass.rows);
	pass.nsegments = mbus_log_segments_read(&pass.state, 0, &pass.segment);
	segments_adopt(&pass);
	segments_unread(&pass);
	/* where there is always more than a slice, each has its turn */
	if (log->facts_first)
		facts_collect(&pass);
	messages_collect(&pass);
	if (!log->facts_first)
		facts_collect(&pass);
	brought_collect(&pass);
	pass_write(&pass);
	gaps_log(&pass);
	look->more = !pass.all;
	log->facts_first = !pass.all && !log->facts_first;
	look->since = pass.state.facts_pending.n > 0 ?
		pass.state.facts_pending.span[0].lo : pass.state.facts_to;
}

/*
 * mbus_log_passed takes note that a pass has committed.
 */
void
mbus_log_passed(MbusLog *log, const MbusLogLook *look)
{
	log->origin_known = !look->waits;
	log->since = look->since;
	log->facts_done = look->facts_done;
	mbus_unread_passed(log, !look->more && !look->waits && look->only == 0);
	log->logged = look->more || look->waits || look->only != 0 ? 0 :
		look->hash;
}

/*
 * segments_adopt takes in the segments that are not of this log yet: all they
 * have is to be logged.
 */
static void
segments_adopt(Pass *pass)
{
	MbusSpans	before = {0};

	mbus_spans_add(&before, 0, pass->state.facts_to);
	before = mbus_spans_minus(&before, &pass->state.facts_pending);
	for (int i = 0; i < pass->nsegments; i++)
	{
		MbusLogSegment *segment = &pass->segment[i];

		if (segment->ours || !segment_readable(pass, segment->segment))
			continue;
		segment->ours = true;
		segment->changed = true;
		segment->to = MbusFirstId(segment->segment);
		segment->pending = (MbusSpans)
		{
			0
		};
		segment->facts = before;
		segment->fault = NULL;
		segment->again = mbus_log_segment_known(segment->segment);

		/*
		 * what it has brought may be above what is logged, and touched by
		 * nobody
		 */
		pass->log->everywhere_to = Max(pass->log->everywhere_to,
									   pass->look->facts.next);
	}
}

/* Sees to it that it is shown which segments cannot be read. */
static void
segments_unread(Pass *pass)
{
	for (int i = 0; i < pass->nsegments; i++)
	{
		MbusLogSegment *segment = &pass->segment[i];
		const MbusUnread *unread = mbus_unread_find(pass->log,
													segment->segment);
		char	   *fault = unread ? pstrdup(unread->error) : NULL;

		if (!segment->ours || (!fault && !segment->fault) ||
			(fault && segment->fault && strcmp(fault, segment->fault) == 0))
			continue;
		segment->fault = fault;
		segment->changed = true;
	}
}

/* Whether a segment's tables are found by readers. */
static bool
segment_readable(const Pass *pass, int32 segment)
{
	Relation	leaf;

	if (mbus_segment_hidden(pass->db, segment))
		return false;
	leaf = mbus_leaf_open(pass->schema, segment, MBUS_MESSAGE,
						  AccessShareLock);
	if (leaf == NULL)
		return false;
	table_close(leaf, AccessShareLock);
	return true;
}

/* Collects the messages of each segment. */
static void
messages_collect(Pass *pass)
{
	MbusSpans	unfinished = ranges_spans(pass->look);

	for (int i = 0; i < pass->nsegments; i++)
	{
		MbusLogSegment *segment = &pass->segment[i];
		const MbusUnread *unread = mbus_unread_find(pass->log,
													segment->segment);
		int64		limit = segment_limit(pass->look, segment->segment);
		MbusCursor	cursor = {segment->to, segment->pending};
		MbusSpans	left_out = unfinished;

		if (!segment->ours || (unread && unread->whole) ||
			(segment->to >= limit && segment->pending.n == 0) ||
			(pass->look->only != 0 && pass->look->only != segment->segment))
			continue;
		if (unread)
		{
			MbusSpans	rows = mbus_unread_spans(unread, false);

			left_out = mbus_spans_union(&unfinished, &rows);
		}
		if (segment->again)
			cursor.logged = mbus_log_logged(segment->segment, false);
		if (!mbus_collect(pass->schema, &segment->segment, 1, MBUS_MESSAGE,
						  MBUS_MESSAGE, &cursor, limit, &left_out,
						  &pass->rows))
			pass->all = false;
		segment->changed = segment->changed || segment->to != cursor.to ||
			!mbus_spans_equal(&segment->pending, &cursor.pending);
		segment->to = cursor.to;
		segment->pending = cursor.pending;
	}
}

/* No id of the segment from it on was given out; its end if none will be. */
static int64
segment_limit(const MbusLogLook *look, int32 segment)
{
	for (int i = 0; i < look->segments.nopen; i++)
	{
		if (look->segments.open[i] == segment)
			return look->segments.limit[i];
	}
	return MbusFirstId(segment + 1);
}

/* Collects facts by their numbers. */
static void
facts_collect(Pass *pass)
{
	MbusLogState *state = &pass->state;
	MbusCursor	cursor = {state->facts_to, state->facts_pending};
	MbusSpans	unfinished = mbus_unread_without(pass->log,
												 facts_spans(pass->look));
	int32	   *numbers = palloc((pass->nsegments + 1) * sizeof(int32));
	int			n = 0;

	if (segment_touched(pass, 0))
		numbers[n++] = 0;
	for (int i = 0; i < pass->nsegments; i++)
	{
		const MbusLogSegment *segment = &pass->segment[i];

		if (fact_segment(pass, segment) &&
			mbus_unread_find(pass->log, segment->segment) == NULL)
			numbers[n++] = segment->segment;
	}
	if (!mbus_collect(pass->schema, numbers, n, MBUS_EVENT, MBUS_FAILURE,
					  &cursor, pass->look->facts.next, &unfinished,
					  &pass->rows))
		pass->all = pass->look->facts_done = false;
	facts_put_off(pass, &cursor.done);
	state->facts_to = cursor.to;
	state->facts_pending = cursor.pending;
}

/* Whether a segment is of the log and may have facts to be logged. */
static bool
fact_segment(const Pass *pass, const MbusLogSegment *segment)
{
	return segment->ours && segment_touched(pass, segment->segment);
}

/* Has the facts looked for later in the segments that are put off. */
static void
facts_put_off(Pass *pass, const MbusSpans *done)
{
	for (int i = 0; i < pass->nsegments && done->n > 0; i++)
	{
		MbusLogSegment *segment = &pass->segment[i];

		if (!fact_segment(pass, segment) ||
			mbus_unread_find(pass->log, segment->segment) == NULL)
			continue;
		segment->facts = mbus_spans_union(&segment->facts, done);
		segment->changed = true;
	}
}

/* Whether a segment may have facts that are to be logged. */
static bool
segment_touched(const Pass *pass, int32 segment)
{
	const MbusFactsSeen *facts = &pass->look->facts;
	bool		touched = facts->ntouched < 0 ||
	pass->state.facts_to < pass->log->everywhere_to;

	for (int t = 0; t < facts->ntouched && !touched; t++)
		touched = facts->touched[t] == segment;
	return touched;
}

/* Collects the facts that segments had when they came to the log. */
static void
brought_collect(Pass *pass)
{
	for (int i = 0; i < pass->nsegments; i++)
	{
		MbusLogSegment *segment = &pass->segment[i];
		const MbusUnread *unread = mbus_unread_find(pass->log,
													segment->segment);
		MbusCursor	cursor = {0, segment->facts};
		MbusSpans	left_out = {0};

		if (!segment->ours || segment->facts.n == 0 ||
			(unread && unread->whole) ||
			(pass->look->only != 0 && pass->look->only != segment->segment))
			continue;
		if (unread)
			left_out = mbus_unread_spans(unread, true);
		if (segment->again)
			cursor.logged = mbus_log_logged(segment->segment, true);
		if (!mbus_collect(pass->schema, &segment->segment, 1, MBUS_EVENT,
						  MBUS_FAILURE, &cursor, 0, &left_out, &pass->rows))
			pass->all = false;
		segment->changed = segment->changed ||
			!mbus_spans_equal(&segment->facts, &cursor.pending);
		segment->facts = cursor.pending;
	}
}

/* Writes entries, and how far the log is. */
static void
pass_write(Pass *pass)
{
	mbus_log_append(&pass->log->edge, pass->rows.row, pass->rows.n);
	for (int i = 0; i < pass->nsegments; i++)
	{
		if (pass->segment[i].changed)
			mbus_log_segment_update(&pass->state, &pass->segment[i]);
	}
	pass->state.size = pass->log->edge.size;
	mbus_log_state_update(&pass->state);
}

/* The ids of publishes that have not ended. */
static MbusSpans
ranges_spans(const MbusLogLook *look)
{
	MbusSpans	spans = {0};

	for (int i = 0; i < look->segments.nranges; i++)
		mbus_spans_add(&spans, look->segments.range[i].lo,
					   look->segments.range[i].hi);
	return spans;
}

/* The numbers of facts of transactions that have not ended. */
static MbusSpans
facts_spans(const MbusLogLook *look)
{
	MbusSpans	spans = {0};

	for (int i = 0; i < look->facts.nranges; i++)
		mbus_spans_add(&spans, look->facts.range[i].lo,
					   look->facts.range[i].hi);
	return spans;
}

/* ------------------------------------------------------------------------
 * Segments that go
 * ------------------------------------------------------------------------
 */

/*
 * mbus_log_waits tells whether a segment is readable and not sealed, which
 * means logged but for facts that are still to come: it must not go yet.  One
 * with rows that cannot be read may, when they were tried often enough.  In a
 * transaction with SPI.
 */
bool
mbus_log_waits(Oid schema, const MbusLog *log, int32 segment)
{
	MbusLogState state;
	MbusLogSegment *found;
	Relation	leaf;
	int			n = 0;

	if (mbus_log_state_read(&state, false))
		n = mbus_log_segments_read(&state, segment, &found);
	if (n > 0 && found->ours)
		return !segment_sealed(found, mbus_unread_find(log, segment));
	leaf = mbus_leaf_open(schema, segment, MBUS_MESSAGE, AccessShareLock);
	if (leaf == NULL)
		return false;			/* another bus's, which nobody reads */
	table_close(leaf, AccessShareLock);
	return true;
}

/* Whether all is logged of a segment, but for what it is to go without. */
static bool
segment_sealed(const MbusLogSegment *segment, const MbusUnread *unread)
{
	MbusSpans	messages = {0};
	MbusSpans	facts = {0};

	if (unread)
	{
		if (unread->failures < MBUS_UNREAD_TRIES)
			return false;
		if (unread->whole)
			return true;
		messages = mbus_unread_spans(unread, false);
		facts = mbus_unread_spans(unread, true);
	}
	messages = mbus_spans_minus(&segment->pending, &messages);
	facts = mbus_spans_minus(&segment->facts, &facts);
	return segment->to >= MbusFirstId(segment->segment + 1) &&
		messages.n == 0 && facts.n == 0;
}

/*
 * mbus_log_has tells whether a segment has come to the log; in a transaction
 * with SPI.
 */
bool
mbus_log_has(int32 segment)
{
	MbusLogState state;
	MbusLogSegment *found;

	return mbus_log_state_read(&state, false) &&
		mbus_log_segments_read(&state, segment, &found) > 0 && found->ours;
}

/*
 * mbus_log_drop logs what is left of a segment, which is sealed, and that it
 * is dropped; in the transaction that drops it, with SPI, when its tables are
 * locked.  Nobody can have facts in them that are not visible then.  False,
 * and nothing is logged, if there is more left than a slice may have.
 */
bool
mbus_log_drop(Oid schema, MbusLog *log, int32 segment)
{
	const MbusUnread *unread = mbus_unread_find(log, segment);
	MbusLogState state;
	MbusLogSegment *found;
	MbusRows	rows;
	bool		all = true;

	mbus_rows_begin(&rows, log);
	PushActiveSnapshot(GetLatestSnapshot());
	if (mbus_log_state_read(&state, true) &&
		mbus_log_segments_read(&state, segment, &found) > 0 && found->ours)
	{
		all = drop_collect(schema, &state, found, unread, &rows);
		if (all)
		{
			mbus_log_edge_ready(schema, log, &state);
			mbus_log_append(&log->edge, rows.row, rows.n);
			mbus_log_action(schema, log, &state,
							unread ? "gap" : "drop-segment", segment, NULL,
							NULL);
		}
	}
	PopActiveSnapshot();
	if (all && unread)
		ereport(LOG,
				(errmsg("message_bus drops segment %d, of which the log has not all",
						segment),
				 unread->whole ?
				 errdetail("It could not be read as a whole: %s", unread->error) :
				 errdetail_plural("%d row could not be read: %s",
								  "%d rows could not be read: %s",
								  unread->n, unread->n, unread->error)));
	return all;
}

/* Collects the facts of a segment that no pass has logged. */
static bool
drop_collect(Oid schema, const MbusLogState *state,
			 const MbusLogSegment *segment, const MbusUnread *unread,
			 MbusRows *rows)
{
	MbusCursor	cursor = {state->facts_to, state->facts_pending};
	MbusSpans	left_out = {0};

	if (unread && unread->whole)
		return true;
	if (unread)
		left_out = mbus_unread_spans(unread, true);
	return mbus_collect(schema, &segment->segment, 1, MBUS_EVENT, MBUS_FAILURE,
						&cursor, PG_INT64_MAX, &left_out, rows);
}

/*
 * mbus_log_drop_unlogged notes that a segment is dropped while nothing is
 * logged, in the transaction that drops it; a later pass logs that as a gap.
 */
void
mbus_log_drop_unlogged(int32 segment)
{
	static const Oid types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(segment)};

	/* no entry has such a number */
	mbus_log_execute("INSERT INTO message_bus.log_action"
					 " (no, at, kind, k, segment_no)"
					 " SELECT -$1::bigint, message_bus.clock(), 'gap', '', $1"
					 " FROM message_bus.log_state"
					 " ON CONFLICT DO NOTHING",
					 lengthof(types), types, values);
}

/*
 * gaps_log logs which segments were dropped unlogged.
 */
static void
gaps_log(Pass *pass)
{
	int			n;
	int32	   *segments;

	mbus_log_execute("DELETE FROM message_bus.log_action WHERE no IN"
					 " (SELECT no FROM message_bus.log_action"
					 "  WHERE no < 0 AND kind = 'gap'"
					 "  ORDER BY no LIMIT " CppAsString2(GAPS_MOST) ")"
					 " RETURNING segment_no", 0, NULL, NULL);
	n = (int) SPI_processed;
	if (n == GAPS_MOST)
		pass->all = false;
	segments = palloc(Max(n, 1) * sizeof(int32));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[i],
										  SPI_tuptable->tupdesc, 1, &isnull);

		segments[i] = DatumGetInt32(value);
	}
	for (int i = 0; i < n; i++)
		mbus_log_action(pass->schema, pass->log, &pass->state, "gap",
						segments[i], NULL, NULL);
}
