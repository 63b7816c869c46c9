/*
 * fault.c
 *		Failures: counted, kept and told.
 *
 * Every error of a public function passes mbus_call(), which counts it and
 * puts it into a ring in shared memory before it goes on to the caller: the
 * caller's transaction will be rolled back, so the row in message_bus.error
 * is written by the worker.
 *
 * Who may keep how many, so that nobody's failures hide those of others, is
 * counted by shares of a second:
 *
 *	a session		SESSION_RATE
 *	a subject		SUBJECT_RATE, if a token was verified that names it.  What
 *					is only said (request.jwt.claims in SQL) has no share:
 *					anybody can say a hundred names
 *	a role			ROLE_RATE, of its subjects together, beside the first
 *					FIRST_ROWS of each of them
 *
 * The first rows of each go into the last quarter of the ring too, where others
 * stop.  More subjects or roles in a second than there is room for have one share
 * in common; more sessions have none, and go by their subject's and role's.  A
 * row tells how many more there were: of the one
 * whose share it was, when he fails again or the worker comes by.  If the ring
 * is full (the worker is behind, or this is a standby) the failure is counted
 * as lost from the view; the server's log has it all the same.
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
#define SUBJECT_RATE	50
#define ROLE_RATE		100
#define FIRST_ROWS		10		/* that others cannot take from one */
#define COMMON_BYTES	(MBUS_FAULT_BYTES / 4 * 3)	/* of the ring, that are
													 * not kept for first rows */

static Datum call_recorded(PGFunction body, const char *function,
						   FunctionCallInfo fcinfo);
static bool quotes_input(int sqlerrcode);
static bool share_takes(MbusFaultRing *faults, const MbusFault *fault,
						const char *subject);
static MbusFaultShare *share_of(MbusFaultRing *faults, const MbusFault *fault,
								int64 session, Oid role, const char *subject);
static bool share_is(const MbusFaultShare *share, int64 session, Oid role,
					 const char *subject);
static bool share_has_room(MbusFaultRing *faults, MbusFaultShare *share,
						   int most);
static void share_leave_out(MbusFaultRing *faults, MbusFaultShare *share);
static void left_out_tell(MbusFaultRing *faults);
static void left_out_put(MbusFaultRing *faults, MbusFaultShare *share);
static bool ring_has_room(const MbusFaultRing *faults, int size, int most);
static void fault_put(const char *function, Oid user, const char *subject,
					  bool verified, int sqlerrcode, int64 message_id,
					  const char *message, const char *detail);
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
			mbus_fault_record(function, edata, user, mbus_subject(),
							  mbus_caller.verified);
			FreeErrorData(edata);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}

/*
 * mbus_fault_record counts a user's error and keeps it for the view errors;
 * "verified" says that a token names the subject.  It takes the database's
 * lock and cannot fail.
 */
void
mbus_fault_record(const char *function, ErrorData *edata, Oid user,
				  const char *subject, bool verified)
{
	mbus_count(MBUS_C_ERRORS, 1);
	fault_put(function, user, subject, verified, edata->sqlerrcode, 0,
			  edata->message,
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
	fault_put("verify", GetUserId(), mbus_subject(), mbus_caller.verified,
			  ERRCODE_DATA_CORRUPTED, message_id, message, NULL);
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
fault_put(const char *function, Oid user, const char *subject, bool verified,
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
	if (!share_takes(&db->faults, fault, verified ? subject : NULL))
		pg_atomic_fetch_add_u64(&db->counter[MBUS_C_FAULTS_LOST], 1);
	else
		mbus_ring_put(&db->faults.ring, db->faults.bytes, MBUS_FAULT_BYTES,
					  fault, fault->size);
	LWLockRelease(&db->lock);
}

/*
 * share_takes tells whether a failure is one of those that its session, its
 * subject (NULL: none) and its role may keep, and there is room for it.  A
 * role's other failures do not hide that a message is damaged.
 */
static bool
share_takes(MbusFaultRing *faults, const MbusFault *fault, const char *subject)
{
	MbusFaultShare *mine = NULL;
	bool		first = fault->message_id != 0;

	if (fault->session > 0)
	{
		mine = share_of(faults, fault, fault->session, InvalidOid, "");
		if (mine->session > 0 && !share_has_room(faults, mine, SESSION_RATE))
			return false;
	}
	if (!first && subject)
	{
		mine = share_of(faults, fault, 0, fault->role, subject);
		if (!share_has_room(faults, mine, SUBJECT_RATE))
			return false;
		first = mine->count <= FIRST_ROWS;
	}
	if (!first)
	{
		mine = share_of(faults, fault, 0, fault->role, "");
		if (!share_has_room(faults, mine, ROLE_RATE))
			return false;
		first = subject == NULL && mine->count <= FIRST_ROWS;
	}
	if (ring_has_room(faults, fault->size,
					  first ? MBUS_FAULT_BYTES : COMMON_BYTES))
		return true;
	if (mine)
		share_leave_out(faults, mine);
	return false;
}

/*
 * share_of returns a share of a failure's second, which begins in the place of
 * the one that is oldest.  Where all are of this second, the rest have the last
 * one in common.
 */
static MbusFaultShare *
share_of(MbusFaultRing *faults, const MbusFault *fault, int64 session,
		 Oid role, const char *subject)
{
	int64		second = fault->at / USECS_PER_SEC;
	MbusFaultShare *from = faults->share;
	int			n = MBUS_FAULT_ROLES;
	MbusFaultShare *share;

	if (session > 0)
	{
		from += MBUS_FAULT_ROLES + MBUS_FAULT_SUBJECTS;
		n = MBUS_FAULT_SESSIONS;
	}
	else if (subject[0] != '\0')
	{
		from += MBUS_FAULT_ROLES;
		n = MBUS_FAULT_SUBJECTS;
	}
	share = from;
	for (int i = 0; i < n - 1; i++)
	{
		if (share_is(&from[i], session, role, subject))
		{
			share = &from[i];
			break;
		}
		if (from[i].second < share->second)
			share = &from[i];
	}
	if (share->second == second && !share_is(share, session, role, subject))
	{
		share = &from[n - 1];
		session = 0;
		role = InvalidOid;
		subject = "";
	}
	if (share->second != second ||
		!share_is(share, session, role, subject))
	{
		if (share->left_out > 0)
			left_out_put(faults, share);
		share->session = session;
		share->role = role;
		text_put(share->subject, subject, sizeof(share->subject));
		share->second = second;
		share->count = share->left_out = 0;
	}
	share->caller = fault->role;
	share->pid = fault->pid;
	return share;
}

static bool
share_is(const MbusFaultShare *share, int64 session, Oid role,
		 const char *subject)
{
	return share->session == session && share->role == role &&
		strcmp(share->subject, subject) == 0;
}

/* Counts a failure in a share, and whether that still has room for it. */
static bool
share_has_room(MbusFaultRing *faults, MbusFaultShare *share, int most)
{
	if (share->count++ < most)
		return true;
	share_leave_out(faults, share);
	return false;
}

static void
share_leave_out(MbusFaultRing *faults, MbusFaultShare *share)
{
	share->left_out++;
	faults->left_out = true;
}

/* Tells of shares whose second is over what was left out. */
static void
left_out_tell(MbusFaultRing *faults)
{
	int64		second = GetCurrentTimestamp() / USECS_PER_SEC;

	if (!faults->left_out)
		return;
	faults->left_out = false;
	for (int i = 0; i < MBUS_FAULT_SHARES; i++)
	{
		MbusFaultShare *share = &faults->share[i];

		if (share->left_out > 0 && share->second != second)
			left_out_put(faults, share);
		if (share->left_out > 0)
			faults->left_out = true;
	}
}

/* Tells in the ring, if there is room, how many failures are not in it. */
static void
left_out_put(MbusFaultRing *faults, MbusFaultShare *share)
{
	union
	{
		MbusFault	fault;
		char		room[MBUS_FAULT_MAX];
	}			put;
	const char *whose = share->session > 0 ? "this session" :
	share->subject[0] != '\0' ? "this subject" :
	OidIsValid(share->role) ? "this role" : "several";
	char		message[MBUS_FAULT_TEXT];
	char	   *at = put.fault.texts;

	MemSet(&put.fault, 0, sizeof(MbusFault));
	put.fault.at = share->second * USECS_PER_SEC;
	put.fault.sqlerrcode = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	put.fault.pid = share->pid;
	put.fault.role = share->caller;
	put.fault.session = share->session;
	snprintf(message, sizeof(message),
			 "%d more failures of %s in one second were left out",
			 share->left_out, whose);
	at = text_put(at, "errors", NAMEDATALEN);
	at = text_put(at, message, MBUS_FAULT_TEXT);
	at = text_put(at, NULL, MBUS_FAULT_NAME);
	at = text_put(at, NULL, MBUS_FAULT_NAME);
	at = text_put(at, share->subject, MBUS_FAULT_NAME);
	at = text_put(at, NULL, MBUS_FAULT_TEXT);
	put.fault.size = (int) MAXALIGN(at - put.room);
	if (!ring_has_room(faults, put.fault.size, MBUS_FAULT_BYTES))
		return;
	mbus_ring_put(&faults->ring, faults->bytes, MBUS_FAULT_BYTES, &put.fault,
				  put.fault.size);
	share->left_out = 0;
}

static bool
ring_has_room(const MbusFaultRing *faults, int size, int most)
{
	return faults->ring.head - faults->ring.tail + size <= most;
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
 * What shares have left out is put into the ring before.
 */
char *
mbus_fault_take(MbusDatabase *db, uint64 *from, uint64 *to)
{
	MbusFaultRing *faults = &db->faults;
	char	   *bytes;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	left_out_tell(faults);
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
