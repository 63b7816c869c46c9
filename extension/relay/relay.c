/*
 * relay.c
 *		message_bus.relay(): frames of a gateway's sockets in, frames out.
 *
 * A call brings the frames that arrived on all sockets in one turn of the
 * gateway's loop, and runs in one transaction.  Each frame, and each request
 * of a JSON-RPC batch, runs on its own (guard.c), as the role of its session
 * (identity/session.c), or, if there is one, as the role
 * message_bus.relay_role, under SECURITY_LOCAL_USERID_CHANGE and
 * SECURITY_RESTRICTED_OPERATION.  SetUserIdAndSecContext() checks nothing, so
 * it is checked before that the role is no superuser, does not bypass row
 * security unless a token names it, and that the session's user is a member of
 * it.
 *
 * What is built for a frame lives in a context that is reset behind it; its
 * reply goes to a tuplestore.
 *
 * Frames that the gateway makes itself open and close sessions: control.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/json_slice.h"
#include "base/settings.h"
#include "door/door.h"
#include "identity/jwt_claims.h"
#include "identity/session.h"
#include "relay/control.h"
#include "relay/relay_internal.h"
#include "relay/rpc.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"

#define REPLY_COLUMNS	6
#define ERROR_ROOM		512		/* what an element's error may take at most
								 * beside what it must */
#define REPLY_STORE_KB	(64 * 1024) /* replies kept in memory, not in a file */

#define REPLIES_TIMES	5		/* largest frames that a call returns */

static int	requests_in_call;	/* frames but for those of the gateway itself */
static int64 replies_left;		/* bytes that the call may still return */

static void relay_arrays(FunctionCallInfo fcinfo, Datum **sessions,
						 Datum **frames, int *count);
static Datum *relay_array(FunctionCallInfo fcinfo, int arg, Oid type,
						  const char *name, int *count);
static int	count_requests(Datum *frames, int count);
static Tuplestorestate *relay_result(FunctionCallInfo fcinfo,
									 TupleDesc *desc);
static void replies_put(Tuplestorestate *store, TupleDesc desc, int request,
						Datum session, MbusRelayed *relayed);
static void reply_put(Tuplestorestate *store, TupleDesc desc, int request,
					  Datum session, StringInfo frame,
					  const MbusRelayed *relayed);
static Datum leases_datum(const MbusRelayed *relayed);
static void relay_frame(const char *bytes, int len, MbusRelayed *relayed);
static void relay_batch(MbusRelayed *relayed);
static int	batch_least(const MbusNode *batch);
static int	element_least(const MbusNode *element);
static void relay_element(MbusRelayed *relayed, const MbusNode *element);
static void step_control(MbusRelayed *relayed);
static void step_door(MbusRelayed *relayed);
static void step_frame(MbusRelayed *relayed);
static void limit_replies(MbusFrame *frame);
static void check_early(MbusRelayed *relayed);
static void step_element(MbusRelayed *relayed);
static void step_batch_too_large(MbusRelayed *relayed);
static void run_request(MbusRelayed *relayed, int limit);
static void run_authenticate(MbusRelayed *relayed, MbusAnswer *answer);
static void run_method(MbusRelayed *relayed, MbusAnswer *answer);
static void enter_role(MbusRelayed *relayed);
static void take_role(MbusRelayed *relayed, Oid role);
static Oid	relay_role(void);

/*
 * relay(sessions bigint[], frames bytea[]) returns a table of replies; see
 * the top of this file.
 */
MBUS_FUNCTION(relay)
{
	Tuplestorestate *store;
	TupleDesc	desc;
	Datum	   *sessions;
	Datum	   *frames;
	int			count;

	if (mbus_caller.in_relay)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message_bus.relay() cannot be called by a frame")));
	relay_arrays(fcinfo, &sessions, &frames, &count);
	store = relay_result(fcinfo, &desc);

	mbus_guard_init();
	mbus_guard_call();
	requests_in_call = count_requests(frames, count);
	replies_left = (int64) REPLIES_TIMES * mbus_frame_max;
	mbus_caller.in_relay = true;
	PG_TRY();
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
													  "message_bus frame",
													  ALLOCSET_DEFAULT_SIZES);
		int			i;

		for (i = 0; i < count; i++)
		{
			MemoryContext caller = MemoryContextSwitchTo(context);
			bytea	   *bytes = DatumGetByteaPP(frames[i]);
			MbusRelayed relayed;

			CHECK_FOR_INTERRUPTS();
			mbus_caller.session = DatumGetInt64(sessions[i]);
			relay_frame(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes),
						&relayed);
			mbus_caller.session = 0;

			replies_put(store, desc, i + 1, sessions[i], &relayed);
			MemoryContextSwitchTo(caller);
			MemoryContextReset(context);
		}
		MemoryContextDelete(context);
	}
	PG_FINALLY();
	{
		mbus_caller.in_relay = mbus_caller.no_wait = false;
		mbus_caller.session = 0;
		mbus_session_leave();
	}
	PG_END_TRY();
	mbus_count(MBUS_C_FRAMES, count);
	return (Datum) 0;
}

/*
 * Takes the two arguments apart: as many sessions as frames, and not too many.
 */
static void
relay_arrays(FunctionCallInfo fcinfo, Datum **sessions, Datum **frames,
			 int *count)
{
	int			nsessions;

	*sessions = relay_array(fcinfo, 0, INT8OID, "sessions", &nsessions);
	*frames = relay_array(fcinfo, 1, BYTEAOID, "frames", count);
	if (nsessions != *count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arrays \"sessions\" and \"frames\" differ in length: %d and %d",
						nsessions, *count)));
	if (*count > MBUS_RELAY_FRAMES_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many frames in one call: %d", *count),
				 errdetail("At most %d are relayed in one transaction.",
						   MBUS_RELAY_FRAMES_MAX)));
}

/* One array argument: of one dimension, without nulls. */
static Datum *
relay_array(FunctionCallInfo fcinfo, int arg, Oid type, const char *name,
			int *count)
{
	ArrayType  *array;
	Datum	   *values;
	bool	   *nulls;
	int			i;

	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("array \"%s\" is NULL", name)));
	array = PG_GETARG_ARRAYTYPE_P(arg);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("array \"%s\" has more than one dimension", name)));
	if (type == INT8OID)
		deconstruct_array(array, type, sizeof(int64), FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &values, &nulls, count);
	else
		deconstruct_array(array, type, -1, false, TYPALIGN_INT,
						  &values, &nulls, count);
	for (i = 0; i < *count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("array \"%s\" has a NULL element", name)));
	}
	return values;
}

/*
 * count_requests counts the frames that clients wait for; those that the
 * gateway makes itself are no reason not to wait.
 */
static int
count_requests(Datum *frames, int count)
{
	int			n = 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		bytea	   *bytes = DatumGetByteaPP(frames[i]);

		if (VARSIZE_ANY_EXHDR(bytes) == 0 ||
			*VARDATA_ANY(bytes) != MBUS_OPCODE_CONTROL)
			n++;
	}
	return n;
}

/*
 * relay_result makes the tuplestore that is the call's result.  It is larger
 * than work_mem commonly is: a reply of 30 MB is no reason to write a file.
 */
static Tuplestorestate *
relay_result(FunctionCallInfo fcinfo, TupleDesc *desc)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext caller;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		(rsinfo->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("message_bus.relay() must be called in FROM")));

	caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult =
		tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
							  false, Max(work_mem, REPLY_STORE_KB));
	rsinfo->setDesc = *desc;
	MemoryContextSwitchTo(caller);
	return rsinfo->setResult;
}

/*
 * replies_put returns what a frame has brought.  The gateway knows a token
 * before its client goes on.
 */
static void
replies_put(Tuplestorestate *store, TupleDesc desc, int request,
			Datum session, MbusRelayed *relayed)
{
	ListCell   *cell;

	reply_put(store, desc, request, session, &relayed->told, NULL);
	reply_put(store, desc, request, session, &relayed->out,
			  relayed->control ? NULL : relayed);
	/* what its reply tells, its notices do not tell again */
	relayed->nleases = 0;
	foreach(cell, relayed->notices)
		reply_put(store, desc, request, session, lfirst(cell), relayed);
}

/*
 * reply_put returns a frame to a session, if there is anything in it, with
 * what the request came to, unless that is NULL.
 */
static void
reply_put(Tuplestorestate *store, TupleDesc desc, int request, Datum session,
		  StringInfo frame, const MbusRelayed *relayed)
{
	Datum		values[REPLY_COLUMNS];
	bool		nulls[REPLY_COLUMNS] = {false};

	if (frame->len <= MBUS_FRAME_PREFIX)
		return;
	SET_VARSIZE(frame->data, frame->len);
	replies_left -= frame->len;
	values[0] = session;
	values[1] = PointerGetDatum(frame->data);
	values[2] = Int32GetDatum(request);
	nulls[3] = relayed == NULL;
	nulls[4] = relayed == NULL || relayed->code == 0;
	nulls[5] = relayed == NULL || relayed->nleases == 0;
	values[3] = values[4] = values[5] = (Datum) 0;
	if (!nulls[3])
		values[3] = Int32GetDatum(relayed->code);
	if (!nulls[4])
		values[4] = CStringGetTextDatum(unpack_sql_state(relayed->sqlstate));
	if (!nulls[5])
		values[5] = leases_datum(relayed);
	tuplestore_putvalues(store, desc, values, nulls);
}

static Datum
leases_datum(const MbusRelayed *relayed)
{
	Datum		leases[MBUS_RELAY_FRAMES_MAX];
	int			i;

	for (i = 0; i < relayed->nleases; i++)
		leases[i] = Int64GetDatum(relayed->leases[i]);
	return PointerGetDatum(construct_array(leases, relayed->nleases, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/*
 * relay_frame runs one frame.  Its reply, if there is one, is in
 * relayed->out.
 */
static void
relay_frame(const char *bytes, int len, MbusRelayed *relayed)
{
	memset(relayed, 0, sizeof(*relayed));
	relayed->bytes = bytes;
	relayed->len = len;
	if (mbus_frame_timeout > 0)
		relayed->deadline =
			TimestampTzPlusMilliseconds(mbus_now(),
										mbus_frame_timeout);

	mbus_guard_frame();
	initStringInfo(&relayed->out);
	appendStringInfoSpaces(&relayed->out, MBUS_FRAME_PREFIX);

	if (len > 0 && bytes[0] == MBUS_OPCODE_CONTROL)
	{
		relayed->control = true;
		relayed->request.method = mbus_control_method(bytes, len);
		if (mbus_door_is(bytes, len))
			relayed->door = palloc0(sizeof(MbusDoor));
		(void) mbus_guard_run(relayed->door ? step_door : step_control,
							  relayed);
		relayed->out.data[VARHDRSZ] = MBUS_OPCODE_CONTROL;
		return;
	}
	if (mbus_guard_run(step_frame, relayed) &&
		relayed->root.value.type == JSON_TOKEN_ARRAY_START)
		relay_batch(relayed);
	relayed->out.data[VARHDRSZ] =
		relayed->binary ? MBUS_OPCODE_BINARY : MBUS_OPCODE_TEXT;
}

/*
 * relay_batch runs the requests of a JSON-RPC batch, whose replies are one
 * array; no array if there are none.  No reply takes the room that an error of
 * each request behind it needs; where there is not even room for the shortest
 * error of each, nothing is run.
 */
static void
relay_batch(MbusRelayed *relayed)
{
	StringInfo	out = &relayed->out;
	int			least = batch_least(&relayed->root);
	int			each;
	int			i;

	if (relayed->root.total == 0 ||
		relayed->root.total > relayed->root.nchildren ||
		least > relayed->frame.limit)
	{
		mbus_guard_run(step_batch_too_large, relayed);
		return;
	}

	appendStringInfoChar(out, '[');
	each = Min(ERROR_ROOM,
			   (relayed->frame.limit - least) / relayed->root.nchildren);
	for (i = 0; i < relayed->root.nchildren; i++)
	{
		least -= element_least(&relayed->root.children[i]);
		relayed->reserve = each * (relayed->root.nchildren - i - 1) + least;
		relay_element(relayed, &relayed->root.children[i]);
	}
	if (out->len == MBUS_FRAME_PREFIX + 1)
		out->len = MBUS_FRAME_PREFIX;
	else
		appendStringInfoChar(out, ']');
}

/*
 * batch_least returns how many bytes the shortest errors of all of a batch's
 * requests take, with commas and brackets.
 */
static int
batch_least(const MbusNode *batch)
{
	int			least = 1;

	for (int i = 0; i < batch->nchildren; i++)
		least += element_least(&batch->children[i]);
	return least;
}

static int
element_least(const MbusNode *element)
{
	const MbusNode *id = mbus_json_member(element, "id");

	return 1 + mbus_rpc_least(id ? &id->value : NULL);
}

/*
 * relay_element runs one request of a batch and appends its reply, behind a
 * comma where it is not the first.  A notification leaves none; that it failed
 * is a notice of its own.
 */
static void
relay_element(MbusRelayed *relayed, const MbusNode *element)
{
	StringInfo	out = &relayed->out;
	int			start = out->len;
	int			reply;
	bool		ok;

	CHECK_FOR_INTERRUPTS();
	if (start > MBUS_FRAME_PREFIX + 1)
		appendStringInfoChar(out, ',');
	reply = out->len;
	relayed->element = element;
	memset(&relayed->request, 0, sizeof(MbusRequest));
	relayed->role = InvalidOid;
	relayed->subject = NULL;
	ok = mbus_guard_run(step_element, relayed);
	if (!mbus_request_is_notification(&relayed->request))
		return;

	/* it has no reply; that it failed is told in a frame of its own */
	if (!ok)
	{
		StringInfo	notice = makeStringInfo();

		appendStringInfoSpaces(notice, MBUS_FRAME_PREFIX);
		notice->data[VARHDRSZ] = MBUS_OPCODE_TEXT;
		appendBinaryStringInfo(notice, out->data + reply, out->len - reply);
		relayed->notices = lappend(relayed->notices, notice);
	}
	out->len = start;
}

/* step_control runs a frame that the gateway has made. */
static void
step_control(MbusRelayed *relayed)
{
	if (mbus_is_over_limit(relayed->bytes, relayed->len))
		mbus_over_limit(relayed);
	mbus_control_run(mbus_caller.session, relayed->bytes, relayed->len,
					 &relayed->out);
}

/*
 * step_door answers a frame of the HTTP door.
 */
static void
step_door(MbusRelayed *relayed)
{
	Oid			role;

	mbus_door_read(relayed->bytes, relayed->len, relayed->door);
	role = mbus_door_enter(relayed->door, mbus_caller.session,
						   mbus_relay_of_one() ? relay_role() : InvalidOid);
	if (OidIsValid(role))
		take_role(relayed, role);
	mbus_door_answer(relayed->door, &relayed->out);
}

/*
 * step_frame parses a frame, and runs it unless it is a batch.
 */
static void
step_frame(MbusRelayed *relayed)
{
	MbusFrame  *frame = &relayed->frame;
	char	   *fault;

	mbus_frame_split(relayed->bytes, relayed->len, frame);
	limit_replies(frame);
	if (mbus_early_needs(frame))
		check_early(relayed);
	mbus_frame_check_text(frame);
	fault = mbus_json_try(frame->text, frame->text_len, MBUS_RELAY_FRAMES_MAX,
						  &relayed->root);
	if (fault)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 mbus_rpc(MBUS_RPC_PARSE),
				 errmsg("frame is not valid JSON"),
				 errdetail("%s", fault)));
	relayed->read = true;
	if (relayed->root.value.type == JSON_TOKEN_ARRAY_START)
	{
		if (frame->binary)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 mbus_rpc(MBUS_RPC_REQUEST),
					 errmsg("binary frame cannot be a batch")));
		return;
	}

	mbus_request_read(&relayed->root, frame, &relayed->request);
	run_request(relayed, frame->limit);
	if (mbus_request_is_notification(&relayed->request))
	{
		relayed->out.len = MBUS_FRAME_PREFIX;
		relayed->binary = false;
	}
}

/*
 * limit_replies lowers a frame's limit to what the call may still return: a
 * gateway counts that before, so only what it could not know comes to this.
 */
static void
limit_replies(MbusFrame *frame)
{
	if (frame->limit > replies_left)
		frame->limit = (int) Max(replies_left, MBUS_FRAME_LEAST);
}

/* check_early has a large frame looked at as the role that it will run as. */
static void
check_early(MbusRelayed *relayed)
{
	Oid			caller;
	int			sec_context;

	GetUserIdAndSecContext(&caller, &sec_context);
	enter_role(relayed);
	mbus_early_check(&relayed->frame);
	SetUserIdAndSecContext(caller, sec_context);
	mbus_session_leave();
	relayed->role = InvalidOid;
	relayed->subject = NULL;
}

/*
 * step_element runs one request of a batch; what it may return is what is
 * left of the frame's limit.
 */
static void
step_element(MbusRelayed *relayed)
{
	mbus_request_read(relayed->element, &relayed->frame, &relayed->request);
	relayed->request.binary = false;
	run_request(relayed, relayed->frame.limit - 1 - relayed->reserve);
}

/*
 * step_batch_too_large errors for a batch that is empty, has too many
 * requests (it was not read to its end then), or more than can be answered.
 */
static void
step_batch_too_large(MbusRelayed *relayed)
{
	if (relayed->root.total == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("batch is empty")));
	relayed->read = false;
	if (relayed->root.total <= relayed->root.nchildren)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 mbus_rpc(MBUS_RPC_LIMIT),
				 errmsg("reply exceeds the largest message of this connection"),
				 errdetail("Errors of all %d requests would have at least %d bytes; the limit is %d. None was run.",
						   relayed->root.total, batch_least(&relayed->root),
						   relayed->frame.limit),
				 errhint("Send fewer requests at once, or connect with a larger max_message_bytes.")));
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 mbus_rpc(MBUS_RPC_REQUEST),
			 errmsg("batch has %d requests", relayed->root.total),
			 errdetail("At most %d can be in one frame.",
					   MBUS_RELAY_FRAMES_MAX)));
}

/*
 * run_request runs a request.  Until here the frame was only read, so that
 * its id is known to an error reply.
 */
static void
run_request(MbusRelayed *relayed, int limit)
{
	MbusAnswer	answer = {0};

	CHECK_FOR_INTERRUPTS();
	if (relayed->deadline != 0 && mbus_now() >= relayed->deadline)
	{
		mbus_guard_time_out();
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("frame timed out")));
	}
	relayed->request.deadline = relayed->deadline;
	relayed->request.alone = requests_in_call == 1 &&
		(relayed->element == NULL || relayed->root.total == 1);
	answer.out = &relayed->out;
	answer.start = relayed->out.len;
	answer.limit = limit;
	answer.binary = relayed->request.binary;
	if (strcmp(relayed->request.method, "authenticate") == 0)
		run_authenticate(relayed, &answer);
	else
		run_method(relayed, &answer);
}

/*
 * run_authenticate changes whom the session speaks for, as the last thing:
 * what can fail, fails before.
 */
static void
run_authenticate(MbusRelayed *relayed, MbusAnswer *answer)
{
	int			limit;
	char	   *token = mbus_authenticate_token(&relayed->request, &limit);
	MbusTokenRules rules;
	MbusIdentity identity;
	StringInfoData told;

	mbus_session_rules(&rules);
	mbus_session_verify(token, strlen(token), &rules, &identity);
	mbus_answer_begin(answer, &relayed->request.id);
	mbus_authenticate_answer(answer, &identity);
	mbus_answer_end(answer);

	initStringInfo(&told);
	appendStringInfoSpaces(&told, MBUS_FRAME_PREFIX);
	told.data[VARHDRSZ] = MBUS_OPCODE_CONTROL;
	appendStringInfoString(&told, "{\"open\":");
	mbus_control_describe(&told, mbus_caller.session, &identity, token,
						  limit);
	appendStringInfoChar(&told, '}');
	mbus_session_open(mbus_caller.session, &identity);
	relayed->told = told;
}

/*
 * run_method calls the request's method as the role of its session.
 */
static void
run_method(MbusRelayed *relayed, MbusAnswer *answer)
{
	enter_role(relayed);
	mbus_answer_begin(answer, &relayed->request.id);
	mbus_method_call(&relayed->request, answer);
	mbus_answer_end(answer);
	if (answer->lease != 0)
		relayed->leases[relayed->nleases++] = answer->lease;
	if (answer->nbodies > 0)
		relayed->binary = true;
}

/* enter_role takes the role that a frame runs as. */
static void
enter_role(MbusRelayed *relayed)
{
	take_role(relayed, mbus_relay_of_one() ? relay_role() :
			  mbus_session_enter(mbus_caller.session));
}

/* take_role takes a role that was found sound, with its session's subject. */
static void
take_role(MbusRelayed *relayed, Oid role)
{
	relayed->role = role;
	if (mbus_subject())
		relayed->subject = pstrdup(mbus_subject());
	SetUserIdAndSecContext(role, SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

/*
 * relay_role returns the one role that all frames run as.
 */
static Oid
relay_role(void)
{
	Oid			role = get_role_oid(mbus_relay_role, true);
	MbusRoleFault fault = mbus_role_fault(role, false);

	if (fault == MBUS_ROLE_MISSING)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" of message_bus.relay_role does not exist",
						mbus_relay_role)));
	if (fault == MBUS_ROLE_SUPERUSER || fault == MBUS_ROLE_BYPASSES)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("frames cannot run as role \"%s\"", mbus_relay_role),
				 errdetail("It is a superuser or bypasses row security.")));
	if (fault == MBUS_ROLE_FOREIGN)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to run frames as role \"%s\"",
						mbus_relay_role),
				 errdetail("The session's user is not a member of it.")));
	return role;
}
