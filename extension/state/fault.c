/*
 * fault.c
 *		Failures: counted, kept and told.
 *
 * Every error of a public function passes mbus_call(), which counts it and
 * puts it into a ring in shared memory before it goes on to the caller: the
 * caller's transaction will be rolled back, so the row in message_bus.error
 * is written by the worker.  Of one session at most SESSION_RATE failures of a
 * second are kept, of one role ROLE_RATE, so that nobody's hide those of
 * others; a row tells how many more there were.  If the ring is full (the
 * worker is behind, or this is a standby) the failure is counted as lost from
 * the view; the server's log has it all the same.
 *
 * Inside message_bus.relay() the relay records a frame's error itself, once.
 *
 * With it goes what the call was about (base/about.c), who made it, and the
 * error's detail, unless that may quote what a client has sent: where text
 * could not be read, the server's own details do.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/caller.h"
#include "state/fault.h"
#include "state/ring.h"
#include "state/state.h"

#define SESSION_RATE	50
#define ROLE_RATE		100

static Datum call_recorded(PGFunction body, const char *function,
						   FunctionCallInfo fcinfo);
static bool quotes_input(int sqlerrcode);
static bool share_takes(MbusFaultRing *faults, const MbusFault *fault);
static bool share_has_room(MbusFaultRing *faults, const MbusFault *fault,
						   int64 whose, int most);
static void left_out_put(MbusFaultRing *faults, const MbusFaultShare *share);
static void fault_put(const char *function, Oid user, const char *subject,
					  int sqlerrcode, int64 message_id, const char *message,
					  const char *detail);
static char *text_put(char *at, const char *text, size_t size);

/*
 * mbus_call runs the body of an SQL function and records an error it raises.
 */
Datum
mbus_call(PGFunction body, const char *function, FunctionCallInfo fcinfo)
{
	mbus_about_nothing();
	return call_recorded(body, function, fcinfo);
}

/*
 * mbus_channel_call does so for a function whose first argument is a channel.
 */
Datum
mbus_channel_call(PGFunction body, const char *function,
				  FunctionCallInfo fcinfo)
{
	mbus_about_nothing();
	if (!PG_ARGISNULL(0))
		mbus_about_channel_text(PG_GETARG_TEXT_PP(0));
	return call_recorded(body, function, fcinfo);
}

/* Runs the body, and records its error on the way to the caller. */
static Datum
call_recorded(PGFunction body, const char *function, FunctionCallInfo fcinfo)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			user = GetUserId();
	Datum		result = (Datum) 0;

	PG_TRY();
	{
		result = body(fcinfo);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		if (!mbus_caller.in_relay)
		{
			MemoryContextSwitchTo(caller);
			edata = CopyErrorData();
			/* under the caller's name, whoever it ran as when it failed */
			mbus_fault_record(function, edata, user, mbus_subject());
			FreeErrorData(edata);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}

/*
 * mbus_fault_record counts a user's error and keeps it for the view errors.
 * It takes the database's lock and cannot fail.
 */
void
mbus_fault_record(const char *function, ErrorData *edata, Oid user,
				  const char *subject)
{
	mbus_count(MBUS_C_ERRORS, 1);
	fault_put(function, user, subject, edata->sqlerrcode, 0, edata->message,
			  quotes_input(edata->sqlerrcode) ? NULL : edata->detail);
}

/*
 * mbus_fault_checksum counts and keeps that a stored message does not match
 * its checksum.
 */
void
mbus_fault_checksum(int64 message_id, const char *message)
{
	mbus_count(MBUS_C_CHECKSUM_FAILURES, 1);
	fault_put("verify", GetUserId(), mbus_subject(), ERRCODE_DATA_CORRUPTED,
			  message_id, message, NULL);
}

/* Whether an error's detail may have pieces of what could not be read. */
static bool
quotes_input(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_INVALID_TEXT_REPRESENTATION ||
		sqlerrcode == ERRCODE_CHARACTER_NOT_IN_REPERTOIRE ||
		sqlerrcode == ERRCODE_UNTRANSLATABLE_CHARACTER ||
		sqlerrcode == ERRCODE_INVALID_JSON_TEXT;
}

/*
 * fault_put adds a failure to the ring, or counts it as lost where that is
 * full.  Takes the state lock; cannot fail.
 */
static void
fault_put(const char *function, Oid user, const char *subject,
		  int sqlerrcode, int64 message_id, const char *message,
		  const char *detail)
{
	MbusDatabase *db = mbus_database_or_null();
	union
	{
		MbusFault	fault;
		char		room[MBUS_FAULT_MAX];
	}			put;
	MbusFault  *fault = &put.fault;
	char	   *at = fault->texts;

	if (db == NULL)
		return;
	MemSet(fault, 0, sizeof(MbusFault));
	fault->at = GetCurrentTimestamp();
	fault->sqlerrcode = sqlerrcode;
	fault->pid = MyProcPid;
	fault->message_id = message_id;
	fault->session = mbus_caller.session;
	fault->role = user;
	at = text_put(at, function, NAMEDATALEN);
	at = text_put(at, message, MBUS_FAULT_TEXT);
	at = text_put(at, mbus_about.transaction_id, MBUS_FAULT_NAME);
	at = text_put(at, mbus_about.channel, MBUS_FAULT_NAME);
	at = text_put(at, subject, MBUS_FAULT_NAME);
	at = text_put(at, detail, MBUS_FAULT_TEXT);
	fault->size = (int) MAXALIGN(at - put.room);

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (sqlerrcode == ERRCODE_DISK_FULL)
		db->disk.told = true;
	if (!share_takes(&db->faults, fault) ||
		db->faults.ring.head - db->faults.ring.tail + fault->size >
		MBUS_FAULT_BYTES)
		pg_atomic_fetch_add_u64(&db->counter[MBUS_C_FAULTS_LOST], 1);
	else
		mbus_ring_put(&db->faults.ring, db->faults.bytes, MBUS_FAULT_BYTES,
					  fault, fault->size);
	LWLockRelease(&db->lock);
}

/*
 * Whether a failure is one of those that its session and its role may keep.  A
 * role's other failures do not hide that a message is damaged.
 */
static bool
share_takes(MbusFaultRing *faults, const MbusFault *fault)
{
	return (fault->session <= 0 ||
			share_has_room(faults, fault, fault->session, SESSION_RATE)) &&
		(fault->message_id != 0 ||
		 share_has_room(faults, fault, -(int64) fault->role, ROLE_RATE));
}

/*
 * share_has_room counts a failure in its share of this second, which begins in
 * the place of the one that is oldest.  Where all are of this second, the rest
 * have the last one in common.
 */
static bool
share_has_room(MbusFaultRing *faults, const MbusFault *fault, int64 whose,
			   int most)
{
	int64		second = fault->at / USECS_PER_SEC;
	int			from = whose < 0 ? 0 : MBUS_FAULT_ROLES;
	int			rest = (whose < 0 ? MBUS_FAULT_ROLES : MBUS_FAULT_SHARES) - 1;
	MbusFaultShare *share = &faults->share[from];

	for (int i = from; i < rest; i++)
	{
		if (faults->share[i].whose == whose)
		{
			share = &faults->share[i];
			break;
		}
		if (faults->share[i].second < share->second)
			share = &faults->share[i];
	}
	if (share->whose != whose && share->second == second)
	{
		share = &faults->share[rest];
		whose = 0;
	}
	if (share->whose != whose || share->second != second)
	{
		if (share->left_out > 0)
			left_out_put(faults, share);
		share->whose = whose;
		share->second = second;
		share->count = share->left_out = 0;
	}
	share->role = fault->role;
	share->pid = fault->pid;
	if (share->count++ < most)
		return true;
	share->left_out++;
	return false;
}

/* Tells in the ring, if there is room, how many failures are not in it. */
static void
left_out_put(MbusFaultRing *faults, const MbusFaultShare *share)
{
	union
	{
		MbusFault	fault;
		char		room[MBUS_FAULT_MAX];
	}			put;
	char		message[MBUS_FAULT_TEXT];
	char	   *at = put.fault.texts;

	MemSet(&put.fault, 0, sizeof(MbusFault));
	put.fault.at = share->second * USECS_PER_SEC;
	put.fault.sqlerrcode = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	put.fault.pid = share->pid;
	put.fault.role = share->role;
	put.fault.session = share->whose > 0 ? share->whose : 0;
	snprintf(message, sizeof(message),
			 "%d more failures of this %s in one second were left out",
			 share->left_out, share->whose < 0 ? "role" : "session");
	at = text_put(at, "errors", NAMEDATALEN);
	at = text_put(at, message, MBUS_FAULT_TEXT);
	for (int i = 0; i < 4; i++)
		at = text_put(at, NULL, MBUS_FAULT_NAME);
	put.fault.size = (int) MAXALIGN(at - put.room);
	if (faults->ring.head - faults->ring.tail + put.fault.size <=
		MBUS_FAULT_BYTES)
		mbus_ring_put(&faults->ring, faults->bytes, MBUS_FAULT_BYTES,
					  &put.fault, put.fault.size);
}

/* Appends a text (NULL: none), at most size - 1 bytes of it. */
static char *
text_put(char *at, const char *text, size_t size)
{
	if (text == NULL)
		text = "";

	mbus_about_copy(at, size, text, (int) strlen(text));
	return at + strlen(at) + 1;
}

/*
 * mbus_fault_take copies what the ring has, [*from, *to), to a buffer in the
 * current memory context; NULL if it is empty.  The tail stays where it is.
 */
char *
mbus_fault_take(MbusDatabase *db, uint64 *from, uint64 *to)
{
	MbusFaultRing *faults = &db->faults;
	char	   *bytes;

	LWLockAcquire(&db->lock, LW_SHARED);
	*from = faults->ring.tail;
	*to = faults->ring.head;
	LWLockRelease(&db->lock);
	if (*from == *to)
		return NULL;
	bytes = palloc(MBUS_FAULT_BYTES);
	LWLockAcquire(&db->lock, LW_SHARED);
	/* but for the worker only a reset moves the tail */
	*from = faults->ring.tail;
	*to = *from + mbus_ring_copy(&faults->ring, faults->bytes,
								 MBUS_FAULT_BYTES, bytes);
	LWLockRelease(&db->lock);
	return bytes;
}

/*
 * mbus_fault_taken lets go of what has been stored.
 */
void
mbus_fault_taken(MbusDatabase *db, uint64 from, uint64 to)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (db->faults.ring.tail == from)
		db->faults.ring.tail = to;
	LWLockRelease(&db->lock);
}
