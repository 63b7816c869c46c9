/*
 * guard.c
 *		Runs a step of a frame on its own.
 *
 * A step is a whole frame, or one request of a JSON-RPC batch.  It runs
 *
 * - in a subtransaction, so that its error undoes nothing but itself;
 * - in its own nest level of settings, undone also where it succeeds;
 * - with a snapshot of its own, so that it sees what the frames before it
 *   did and others have committed;
 * - within message_bus.frame_timeout.  The timeout's handler cancels as a
 *   cancel request would, and sets a flag that tells the two apart: a real
 *   cancel, statement_timeout and termination end the whole call;
 * - with a lock_timeout of what is left of its budget.
 *
 * The server's lock_timeout counts for each lock that is waited for.  While one
 * waits, all behind it in the lane wait, so all waits of a frame together have
 * that time.  A backend has twice as much in store for all its calls, and gets
 * WAIT_PART of the time that goes by: who waits again and again holds up others
 * for no larger part of theirs.  A frame gets half of what is in store: whoever
 * waits first does not take it all.  Who is out of it does not wait for the
 * transaction of a rival (message/transaction_id.c), and for any other lock,
 * which may be that of a table that is extended, WAIT_LEAST the first time and
 * then 1 ms.  A step that has waited for a lock is charged its time since then,
 * since when the wait began is known and not when it ended; one that has not
 * costs nothing.
 *
 * The role that a step takes (relay.c) is the caller's again behind it.
 *
 * An error of a step is counted, kept for the view errors, logged, and told to
 * the client; it is never an error of the call.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/caller.h"
#include "base/settings.h"
#include "delivery/effect.h"
#include "identity/session.h"
#include "relay/control.h"
#include "relay/relay_internal.h"
#include "relay/rpc.h"
#include "state/fault.h"

#define ERROR_TEXT_MAX	1000	/* bytes of an error's message, detail, hint */
#define LOGGED_MAX		100		/* failed frames that a process logs a second */
#define LOGGED_SHARE	50		/* of these, of one session, or subject */
#define LOGGED_FIRST	3		/* of one subject, beside these */
#define LOGGED_SLOTS	256		/* so many of each are told apart */
#define BRIEF_TEXT_MAX	60		/* of its message, where room is short */

#define WAIT_PART	100			/* one of so many */
#define WAIT_LEAST	10			/* ms that the first wait of a frame may take */

/* How long steps may yet wait for locks: in store, of this frame; us. */
static int64 wait_store = 0;
static TimestampTz wait_store_at = 0;
static bool wait_begun = false; /* the store was filled */
static int64 frame_wait_left = 0;
static bool frame_waited = false;
static int	wait_budget = 0;	/* lock_timeout as the call began; 0: none */

static TimeoutId frame_timeout_id = MAX_TIMEOUTS;
static volatile sig_atomic_t frame_timed_out = false;

static void wait_limit(void);
static void wait_charge(TimestampTz started);
static void guard_enter(const MbusRelayed *relayed, int *nest_level);
static void guard_leave(int nest_level);
static ErrorData *guard_catch(MemoryContext context, bool *timed_out);
static void start_timer(const MbusRelayed *relayed);
static void stop_timer(void);
static void frame_timeout_handler(void);
static void keep_going(const ErrorData *edata, bool timed_out);
static void reword(ErrorData *edata, MbusRpcCode given, bool timed_out);
static void cut_text(char *words);
static void about_request(const MbusRequest *request);
static void about_param(const MbusNode *params, const char *name, char *to,
						size_t size);
static void report_failure(MbusRelayed *relayed, ErrorData *edata,
						   MbusRpcCode code);
static void log_failure(const MbusRelayed *relayed, const ErrorData *edata,
						MbusRpcCode code, const char *method);
static bool may_log(const MbusRelayed *relayed);
static void answer_failed(MbusRelayed *relayed, const MbusRequest *request,
						  const ErrorData *edata, MbusRpcCode code);
static bool fits(const MbusRelayed *relayed);
static void answer_unread(MbusRelayed *relayed, const ErrorData *edata,
						  MbusRpcCode code);
static void tell_lost(MbusRelayed *relayed);

/*
 * mbus_guard_init registers the timeout of frames, once in a process.
 */
void
mbus_guard_init(void)
{
	if (frame_timeout_id == MAX_TIMEOUTS)
		frame_timeout_id = RegisterTimeout(USER_TIMEOUT,
										   frame_timeout_handler);
}

/*
 * mbus_guard_call puts into the store what the time has brought.
 */
void
mbus_guard_call(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		most;

	wait_budget = LockTimeout;
	most = (int64) wait_budget * 2 * 1000;
	if (wait_store_at == 0 || now < wait_store_at)
		wait_store_at = now;
	else
		wait_store += (now - wait_store_at) / WAIT_PART;
	wait_store_at = now - (now - wait_store_at) % WAIT_PART;
	if (!wait_begun)
		wait_store = most;
	wait_begun = true;
	wait_store = Min(wait_store, most);
}

/*
 * mbus_guard_frame begins that of a frame.
 */
void
mbus_guard_frame(void)
{
	frame_wait_left = wait_store / 2;
	frame_waited = false;
}

/*
 * wait_limit has the step that begins wait no longer for a lock than there is
 * left; where nothing is, a moment.  The step's nest level undoes it.
 */
static void
wait_limit(void)
{
	char		limit[16];

	mbus_caller.no_wait = wait_budget > 0 && frame_wait_left < 1000;
	if (wait_budget == 0 || frame_wait_left >= (int64) wait_budget * 1000)
		return;
	snprintf(limit, sizeof(limit), "%d",
			 Max((int) (frame_wait_left / 1000),
				 frame_waited ? 1 : WAIT_LEAST));
	(void) set_config_option("lock_timeout", limit, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * wait_charge takes the time of a step since it began to wait for the last time
 * from what is left.
 */
static void
wait_charge(TimestampTz started)
{
	TimestampTz waited = get_timeout_start_time(LOCK_TIMEOUT);
	int64		took;

	if (wait_budget == 0 || waited < started)
		return;
	frame_waited = true;
	took = Max(GetCurrentTimestamp() - waited, 0);
	took = Min(took, (int64) wait_budget * 1000);
	frame_wait_left = Max(frame_wait_left - took, 0);
	wait_store = Max(wait_store - took, 0);
}

/*
 * mbus_guard_run runs a step on its own, as the top of this file says.  False
 * if it failed: then the reply has its error in place of what it had appended.
 */
bool
mbus_guard_run(MbusRelayStep step, MbusRelayed *relayed)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int			start = relayed->out.len;
	int			nleases = relayed->nleases;
	TimestampTz started = GetCurrentTimestamp();
	Oid			caller;
	int			sec_context;
	ErrorData  *volatile failure = NULL;
	volatile MbusRpcCode code = MBUS_RPC_NONE;

	mbus_function_cache_begin();
	mbus_about_nothing();
	(void) mbus_rpc_take();
	(void) mbus_param_take();
	GetUserIdAndSecContext(&caller, &sec_context);

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			nest_level;

		guard_enter(relayed, &nest_level);
		step(relayed);
		guard_leave(nest_level);
		SetUserIdAndSecContext(caller, sec_context);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		bool		timed_out;

		failure = guard_catch(context, &timed_out);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		SetUserIdAndSecContext(caller, sec_context);
		code = mbus_rpc_take();
		reword(failure, code, timed_out);
		code = mbus_rpc_code(failure, code, timed_out);
	}
	PG_END_TRY();

	wait_charge(started);
	if (failure == NULL)
		return true;
	if (relayed->code == 0)
	{
		relayed->code = code;
		relayed->sqlstate = failure->sqlerrcode;
	}
	relayed->out.len = start;
	relayed->nleases = nleases;
	relayed->binary = false;
	report_failure(relayed, failure, code);
	return false;
}

/*
 * mbus_guard_time_out says that the frame which runs has used up its time.
 */
void
mbus_guard_time_out(void)
{
	frame_timed_out = true;
}

/*
 * guard_enter makes the surroundings of a frame, inside its subtransaction.
 */
static void
guard_enter(const MbusRelayed *relayed, int *nest_level)
{
	*nest_level = NewGUCNestLevel();
	wait_limit();
	PushActiveSnapshot(GetTransactionSnapshot());
	start_timer(relayed);
}

/*
 * guard_leave undoes it where the frame succeeded; after an error the end of
 * the subtransaction does.  The last thing that can fail comes first.
 */
static void
guard_leave(int nest_level)
{
	mbus_effects_check();
	stop_timer();
	mbus_session_leave();
	PopActiveSnapshot();
	AtEOXact_GUC(false, nest_level);
}

/*
 * guard_catch ends what guard_enter began and takes the error, which is the
 * frame's own: any other goes on.
 */
static ErrorData *
guard_catch(MemoryContext context, bool *timed_out)
{
	ErrorData  *edata;

	stop_timer();
	mbus_session_leave();
	mbus_caller.raw_payload = false;
	mbus_caller.receipts = NULL;
	mbus_caller.reply_limit = 0;
	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	*timed_out = frame_timed_out &&
		edata->sqlerrcode == ERRCODE_QUERY_CANCELED;
	keep_going(edata, *timed_out);
	FlushErrorState();
	return edata;
}

/*
 * start_timer arms the frame's timeout for what is left of it; with nothing
 * left it fires at once.
 */
static void
start_timer(const MbusRelayed *relayed)
{
	frame_timed_out = false;
	if (relayed->deadline != 0)
		enable_timeout_at(frame_timeout_id, relayed->deadline);
}

/*
 * stop_timer disarms it.  If it fired when there was nothing left to cancel,
 * the cancel it asked for must not hit what comes next.
 */
static void
stop_timer(void)
{
	if (get_timeout_active(frame_timeout_id))
		disable_timeout(frame_timeout_id, false);
	if (frame_timed_out)
		QueryCancelPending = false;
}

/* Runs in a signal handler. */
static void
frame_timeout_handler(void)
{
	frame_timed_out = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/*
 * keep_going raises an error again that is none of the frame's own: a cancel,
 * a statement timeout, a shutdown.
 */
static void
keep_going(const ErrorData *edata, bool timed_out)
{
	bool		of_the_call;

	switch (edata->sqlerrcode)
	{
		case ERRCODE_QUERY_CANCELED:
			of_the_call = !timed_out ||
				(edata->message_id &&
				 strcmp(edata->message_id,
						"canceling statement due to statement timeout") == 0);
			break;
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
		case ERRCODE_CANNOT_CONNECT_NOW:
		case ERRCODE_DATABASE_DROPPED:
			of_the_call = true;
			break;
		default:
			of_the_call = false;
	}
	if (of_the_call)
		PG_RE_THROW();
}

/*
 * reword says in terms of a frame what the server said in those of a
 * statement, and at no greater length than a client needs.
 */
static void
reword(ErrorData *edata, MbusRpcCode given, bool timed_out)
{
	const char *param = mbus_param_take();

	if (timed_out)
	{
		edata->message = psprintf("frame took longer than %d ms",
								  mbus_frame_timeout);
		edata->detail = pstrdup("What it did has been undone.");
		edata->hint = NULL;
	}
	else if (edata->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
	{
		/* a publish with its transaction id, a change to the channel */
		edata->message = pstrdup("another transaction is in the way");
		edata->detail = pstrdup("It has locked what this frame needs. What the frame did has been undone.");
		edata->hint = pstrdup("Ask again.");
		if (wait_budget > 0 && frame_wait_left < (int64) wait_budget * 1000)
			edata->detail = psprintf("It has locked what this request needs. All requests of a frame wait for others %d ms at most, of a lane %d ms and a part of 1/%d of the time, and these have waited. What the request did has been undone.",
									 wait_budget, 2 * wait_budget, WAIT_PART);
	}
	else if (edata->sqlerrcode == ERRCODE_STATEMENT_TOO_COMPLEX)
	{
		edata->message = pstrdup("frame is nested too deeply");
		edata->detail = pstrdup("The server's max_stack_depth limits how deep JSON can be parsed.");
		edata->hint = NULL;
	}
	else if (param && given == MBUS_RPC_NONE)
		edata->message = psprintf("parameter \"%s\": %s", param,
								  edata->message);
	cut_text(edata->message);
	cut_text(edata->detail);
	cut_text(edata->hint);
}

/*
 * cut_text cuts what quotes a client's bytes: an error of 30 MB helps nobody.
 */
static void
cut_text(char *words)
{
	int			len;

	if (words == NULL)
		return;
	mbus_rpc_repair(words);		/* for the log, too */
	len = strlen(words);
	if (len <= ERROR_TEXT_MAX)
		return;
	words[pg_encoding_mbcliplen(PG_UTF8, words, len, ERROR_TEXT_MAX)] = '\0';
}

/*
 * mbus_guard_whose notes whom a frame that has not run would have run for, if
 * anybody: his failures, and not those of strangers, it is one of.
 */
void
mbus_guard_whose(MbusRelayed *relayed)
{
	const char *subject = NULL;

	relayed->role = mbus_relay_of_one() ? get_role_oid(mbus_relay_role, true) :
		mbus_session_speaks_for(mbus_caller.session, &subject);
	relayed->subject = subject ? pstrdup(subject) : NULL;
}

/*
 * report_failure counts, keeps and logs a frame's error, under the role that
 * it ran as, and appends it as the reply.
 */
static void
report_failure(MbusRelayed *relayed, ErrorData *edata, MbusRpcCode code)
{
	const char *method = relayed->request.method;

	if (!relayed->control && !OidIsValid(relayed->role))
		mbus_guard_whose(relayed);
	about_request(&relayed->request);
	mbus_fault_record(method ? method : "relay", edata,
					  OidIsValid(relayed->role) ? relayed->role : GetUserId(),
					  relayed->subject, !mbus_relay_of_one());

	log_failure(relayed, edata, code, method ? method : "");

	if (!relayed->control)
	{
		if (relayed->read)
			answer_failed(relayed, &relayed->request, edata, code);
		else
			answer_unread(relayed, edata, code);
		if (code == MBUS_RPC_AUTHENTICATION &&
			mbus_session_lost(mbus_caller.session))
			tell_lost(relayed);
	}
	else if (relayed->door)
	{
		if (mbus_control_door(relayed->door, edata, code, &relayed->out))
			tell_lost(relayed);
	}
	else if (mbus_control_opens(relayed->bytes, relayed->len))
	{
		mbus_control_refuse(&relayed->out, edata);
		mbus_session_refuse(mbus_caller.session, edata);
	}
}

/*
 * about_request notes what a request is about that failed before the function
 * did which it is for.
 */
static void
about_request(const MbusRequest *request)
{
	if (request->params == NULL)
		return;
	about_param(request->params, "channel", mbus_about.channel,
				sizeof(mbus_about.channel));
	about_param(request->params, "transaction_id", mbus_about.transaction_id,
				sizeof(mbus_about.transaction_id));
}

/* Takes a parameter that is a string, where nothing is known yet. */
static void
about_param(const MbusNode *params, const char *name, char *to, size_t size)
{
	const MbusNode *param = mbus_json_member(params, name);
	char	   *string = NULL;

	if (*to == '\0' && param && param->value.type == JSON_TOKEN_STRING)
		string = mbus_json_string(&param->value, true);
	if (string)
		mbus_about_copy(to, size, string, (int) strlen(string));
}

/* log_failure logs a frame's error, if there is room for it. */
static void
log_failure(const MbusRelayed *relayed, const ErrorData *edata,
			MbusRpcCode code, const char *method)
{
	if (!may_log(relayed))
		return;
	/* what the parser stumbles over may be a token */
	ereport(LOG,
			(errcode(edata->sqlerrcode),
			 errmsg("frame failed with %d: %s", (int) code, edata->message),
			 edata->detail && code != MBUS_RPC_PARSE ?
			 errdetail_internal("%s", edata->detail) : 0,
			 errcontext("session " INT64_FORMAT ", method \"%s\"",
						mbus_caller.session, method),
			 errhidestmt(true)));
}

/*
 * may_log tells whether a failure may be logged: who sends must neither fill
 * the log nor keep others out of it.  Of a second LOGGED_MAX are, LOGGED_SHARE
 * of one session, and of one role and subject; beside those the first of each
 * subject, and of each role that has none.  Whose slots are the same differs
 * from second to second.  Tells how many were not.
 */
static bool
may_log(const MbusRelayed *relayed)
{
	static TimestampTz second = 0;
	static int	logged = 0;
	static int	left_out = 0;
	static uint8 by_session[LOGGED_SLOTS];
	static uint8 by_subject[LOGGED_SLOTS];
	TimestampTz now = GetCurrentTimestamp();
	uint8	   *sent = &by_session[(uint64) mbus_caller.session % LOGGED_SLOTS];
	const char *subject = relayed->subject ? relayed->subject : "";
	uint8	   *mine;

	if (now < second || now - second >= USECS_PER_SEC)
	{
		if (left_out > 0)
			ereport(LOG,
					(errmsg("%d failed frames were not logged", left_out),
					 errdetail("Of one second %d are, of one session or subject %d, and %d of each subject.",
							   LOGGED_MAX, LOGGED_SHARE, LOGGED_FIRST),
					 errhidestmt(true)));
		second = now;
		logged = left_out = 0;
		memset(by_session, 0, sizeof(by_session));
		memset(by_subject, 0, sizeof(by_subject));
	}
	mine = &by_subject[hash_bytes_extended((const unsigned char *) subject,
										   (int) strlen(subject),
										   (uint64) second ^ relayed->role) %
					   LOGGED_SLOTS];
	if (*sent >= LOGGED_SHARE || *mine >= LOGGED_SHARE ||
		(logged >= LOGGED_MAX && *mine >= LOGGED_FIRST))
	{
		left_out++;
		return false;
	}
	logged++;
	(*sent)++;
	(*mine)++;
	return true;
}

/*
 * answer_failed appends an error; without what explains it if it does not fit
 * into the reply then, and if need be without the id, or, in a batch, without
 * a message: for that there is room always (relay_batch).
 */
static void
answer_failed(MbusRelayed *relayed, const MbusRequest *request,
			  const ErrorData *edata, MbusRpcCode code)
{
	StringInfo	out = &relayed->out;
	int			start = out->len;
	ErrorData	brief = *edata;

	mbus_rpc_append_error(out, request, edata, code);
	if (fits(relayed))
		return;
	brief.detail = NULL;
	brief.hint = NULL;
	if (brief.message)
		brief.message = pnstrdup(brief.message,
								 pg_encoding_mbcliplen(PG_UTF8, brief.message,
													   strlen(brief.message),
													   BRIEF_TEXT_MAX));
	out->len = start;
	mbus_rpc_append_error(out, request, &brief, code);
	/* that of a notification goes in a frame of its own */
	if (fits(relayed) || (request && mbus_request_is_notification(request)))
		return;
	out->len = start;
	if (relayed->element)
		mbus_rpc_append_least(out, &request->id, code);
	else
		mbus_rpc_append_error(out, NULL, &brief, code);
}

/* fits tells whether the reply so far leaves what others need of its limit. */
static bool
fits(const MbusRelayed *relayed)
{
	int			limit = relayed->frame.limit;

	if (relayed->element)
		limit -= relayed->reserve + 1;
	/* a frame that could not be taken apart has none */
	return relayed->frame.limit == 0 ||
		relayed->out.len - MBUS_FRAME_PREFIX <= limit;
}

/*
 * answer_unread appends the error of a frame that could not be read to its
 * end, for each id that is found in it.  With none, or more than there is room
 * for in the reply, its id is null.
 */
static void
answer_unread(MbusRelayed *relayed, const ErrorData *edata, MbusRpcCode code)
{
	MbusSlice  *ids = palloc(MBUS_SALVAGE_MAX * sizeof(MbusSlice));
	bool		batch;
	int			count = mbus_salvage_ids(relayed->frame.text,
										 relayed->frame.text_len, ids,
										 MBUS_SALVAGE_MAX, &batch);
	MbusRequest request = {0};
	int			start = relayed->out.len;
	int			i;

	if (count <= 1 && !batch)
	{
		if (count == 1)
			request.id = ids[0];
		answer_failed(relayed, count == 1 ? &request : NULL, edata, code);
		return;
	}
	for (i = 0; i < count; i++)
	{
		appendStringInfoChar(&relayed->out, i == 0 ? '[' : ',');
		request.id = ids[i];
		mbus_rpc_append_error(&relayed->out, &request, edata, code);
	}
	if (count > 0)
		appendStringInfoChar(&relayed->out, ']');
	if (count > 0 && fits(relayed))
		return;
	relayed->out.len = start;
	answer_failed(relayed, NULL, edata, code);
}

/*
 * tell_lost tells the gateway that a session has been forgotten here, so that
 * it opens it again before the next frame.
 */
static void
tell_lost(MbusRelayed *relayed)
{
	ErrorData	lost = {0};

	lost.message = MBUS_SESSION_LOST;
	lost.sqlerrcode = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	initStringInfo(&relayed->told);
	appendStringInfoSpaces(&relayed->told, MBUS_FRAME_PREFIX);
	relayed->told.data[VARHDRSZ] = MBUS_OPCODE_CONTROL;
	mbus_control_refuse(&relayed->told, &lost);
}
