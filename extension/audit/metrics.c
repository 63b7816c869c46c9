/*
 * metrics.c
 *		The counters of this database, for the view metrics.
 *
 * They are atomics in shared memory, added to by mbus_count() wherever
 * something happens, and begin at 0 when the server starts.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "state/state.h"

typedef struct Metric
{
	const char *name;
	const char *help;
} Metric;

/* Prometheus' conventions: base units, "_total" on what only grows. */
static const Metric metrics[MBUS_COUNTERS] = {
	[MBUS_C_PUBLISHED] = {"messages_published_total", "Messages stored, also by transactions that then rolled back."},
	[MBUS_C_PUBLISHED_BYTES] = {"published_bytes_total", "Payload bytes of the messages stored."},
	[MBUS_C_DUPLICATES] = {"duplicates_total", "Publishes that got the id of a live message with the same transaction id and bytes."},
	[MBUS_C_IDS_RESERVED] = {"ids_reserved_total", "Row numbers reserved for messages."},
	[MBUS_C_IDS_RETURNED] = {"ids_returned_total", "Row numbers of them that were not used and are given out again."},
	[MBUS_C_READ] = {"payloads_read_total", "Payloads read."},
	[MBUS_C_READ_BYTES] = {"payload_bytes_read_total", "Bytes of the payloads read."},
	[MBUS_C_DELETED] = {"messages_deleted_total", "Deletions recorded."},
	[MBUS_C_ERRORS] = {"errors_total", "Calls of the extension's functions that failed."},
	[MBUS_C_CHECKSUM_FAILURES] = {"checksum_failures_total", "Stored payloads that did not match their checksum when read."},
	[MBUS_C_FAULTS_LOST] = {"errors_unrecorded_total", "Failures that the view errors misses because they came faster than the worker stores them."},
	[MBUS_C_FRAMES] = {"frames_total", "Frames that message_bus.relay() has run."},
	[MBUS_C_SEGMENTS_OPENED] = {"segments_opened_total", "Segments opened."},
	[MBUS_C_SEGMENTS_RETIRED] = {"segments_retired_total", "Segments dropped."},
	[MBUS_C_SEGMENT_WAITS] = {"segment_waits_total", "Publishes that had to wait for a segment to be opened."},
	[MBUS_C_WORKER_PASSES] = {"worker_passes_total", "Passes of the worker."},
	[MBUS_C_WORKER_ERRORS] = {"worker_errors_total", "Tasks of the worker that failed."},
	[MBUS_C_CLAIMED] = {"messages_claimed_total", "Messages given out by claims, also by transactions that then rolled back."},
	[MBUS_C_REDELIVERED] = {"messages_redelivered_total", "Messages given out again: of an attempt above the first."},
	[MBUS_C_ACKED] = {"messages_acked_total", "Messages acknowledged."},
	[MBUS_C_NACKED] = {"messages_nacked_total", "Messages given back by nack."},
	[MBUS_C_LEASES_EXPIRED] = {"deliveries_expired_total", "Messages whose lease passed its deadline."},
	[MBUS_C_DEAD_LETTERED] = {"messages_dead_lettered_total", "Messages that used up their attempts, moved to a dead-letter channel or kept."},
	[MBUS_C_NOT_MOVED] = {"messages_not_moved_total", "Messages of these that stayed in place because the dead-letter channel was dropped, or the owner of theirs may not publish there."},
	[MBUS_C_REDRIVEN] = {"messages_redriven_total", "Dead messages given back for delivery by redrive."},
	[MBUS_C_WAITS] = {"waits_total", "Claims and calls of message_bus.wait() that went to sleep."},
	[MBUS_C_CORRUPT_SKIPPED] = {"corrupt_skipped_total", "Messages that a claim passed over because their bytes do not match their checksum."},
	[MBUS_C_SCRUBBED] = {"messages_scrubbed_total", "Messages whose payloads the scrubber or message_bus.scrub() has read again."},
	[MBUS_C_SCRUBBED_BYTES] = {"scrubbed_bytes_total", "Bytes of these payloads."},
	[MBUS_C_QUARANTINED] = {"messages_quarantined_total", "Messages found to be damaged and put into quarantine."},
	[MBUS_C_QUARANTINE_LEFT] = {"messages_unquarantined_total", "Messages let out of quarantine because their bytes were right again."},
};

/*
 * mbus_counters (SQL: message_bus.counters()) returns name, value and help of
 * each counter since the server's start; nothing where no worker has run.
 */
PG_FUNCTION_INFO_V1(mbus_counters);
Datum
mbus_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MbusDatabase *db = mbus_database_or_null();

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; db && i < MBUS_COUNTERS; i++)
	{
		Datum		values[3];
		bool		isnull[3] = {false, false, false};

		values[0] = CStringGetTextDatum(metrics[i].name);
		values[1] = Int64GetDatum((int64) pg_atomic_read_u64(&db->counter[i]));
		values[2] = CStringGetTextDatum(metrics[i].help);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 isnull);
	}
	return (Datum) 0;
}
