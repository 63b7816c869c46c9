/*
 * lane.c
 *		Lanes: a queue of requests, and a database connection for it.
 *
 * A frame that finds its lane idle goes at once; while batches are in flight
 * the queue gathers the next one. Order is kept within a lane for each
 * session, not between lanes; sessions take turns (queue.c). A batch is one
 * call of message_bus.relay() and one transaction.
 *
 * A request is answered exactly once, unless its socket is closed before, by
 * one of these:
 *
 *	committed			the frames that relay returned for it, written only
 *						when its batch's Sync came back without error
 *	rolled back			the server said so: -32603 with its SQLSTATE
 *	outcome unknown		sent, but no answer came: -32050
 *	not sent			the connection is away, or the breaker is open:
 *						-32010
 *
 * How sessions are opened and closed, and the circuit breaker: README.md.
 */
#include "relay/lane.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "database/outcome.h"
#include "net/loop.h"
#include "relay/ending.h"
#include "relay/fill.h"
#include "relay/intake.h"
#include "relay/piece.h"
#include "relay/publishes.h"

/* A millisecond of a request that has a batch of its own costs as much. */
#define ALONE_MS_BYTES	((size_t) 64 * 1024)

GwLane		gw_lanes[GW_CONNECTIONS_MAX];

static const GwConfig *config;

static void request_end_ask(GwRequest *request, const GwError *error);
static void lane_done(void *owner, const GwOutcome *outcome);
static void lane_lost(void *owner, const char *told);
static void return_leases(const GwBatch *batch, const GwOutcome *outcome);
static void session_close(size_t index, GwIdentity *identity,
						  GwEnding ending);
static void lane_send(GwLane *lane, long wait_ms);
static bool lane_has_work(const GwLane *lane);
static GwBatch *lane_take_batch(GwLane *lane);
static bool lane_has_many(const GwLane *lane);
static bool kind_has_alone(GwLaneKind kind);
static GwBatch *lane_pop_flight(GwLane *lane);
static void lane_close_again(GwLane *lane, GwBatch *batch);
static void deliver_rows(const GwLane *lane, const GwBatch *batch,
						 const GwOutcome *outcome);
static size_t count_expected(const GwBatch *batch);
static bool deliver_row(const GwLane *lane, GwRequest *request,
						const GwRow *row);
static void end_batch(const GwLane *lane, GwBatch *batch,
					  const GwError *error, GwResult result);

static const GwDatabaseEvents lane_events = {lane_done, lane_lost};

void
gw_lanes_init(const GwConfig *settings, GwQueue *bulk, GwQueue *waiting)
{
	size_t		i;

	config = settings;
	gw_fill_init(config);
	for (i = 0; i < GW_CONNECTIONS_MAX; i++)
	{
		GwLane	   *lane = &gw_lanes[i];

		lane->index = i;
		lane->kind = i < GW_BULK_FIRST ? (GwLaneKind) i :
			i < GW_WAIT_FIRST ? GW_LANE_BULK : GW_LANE_WAIT;
		lane->depth = i == GW_LANE_SHORT ? 2 : 1;
		lane->generation = 1;
		gw_queue_init(&lane->queue, i < GW_BULK_FIRST ? i : GW_LANES);
		lane->turns = lane->kind == GW_LANE_BULK ? bulk :
			lane->kind == GW_LANE_WAIT ? waiting : &lane->queue;
		STAILQ_INIT(&lane->flight);
	}
}

/* gw_lane_open begins to connect; false if out of memory. */
bool
gw_lane_open(GwLane *lane)
{
	lane->database = gw_database_open(config, gw_lane_names[lane->kind],
									  &lane_events, lane);
	return lane->database != NULL;
}

/* gw_lane_takes tells whether a request may be queued, else *error says why. */
bool
gw_lane_takes(const GwLane *lane, GwError *error)
{
	const char *why = NULL;

	if (!gw_database_is_ready(lane->database))
		why = gw_database_told(lane->database);
	else if (gw_now_ms() < lane->closed_until)
		why = "too many calls were lost in a row (CIRCUIT_BREAKER_THRESHOLD)";
	*error = gw_error_away(why);
	return why == NULL;
}

/*
 * gw_lane_turn sends as many batches as a lane may have in flight, whose
 * claims may wait so long.
 */
void
gw_lane_turn(GwLane *lane, long wait_ms)
{
	while (lane_has_work(lane) && lane->in_flight < lane->depth &&
		   gw_database_is_ready(lane->database))
	{
		size_t		before = lane->in_flight;

		/* After the breaker's pause one batch is tried alone. */
		if (lane->lost_in_row >= config->breaker_threshold && before > 0)
			break;
		lane_send(lane, wait_ms);
		if (lane->in_flight == before)
			break;
	}
}

/*
 * lane_has_work tells that there is something to send: one for bulk takes from
 * the queue that they share, too.
 */
static bool
lane_has_work(const GwLane *lane)
{
	return lane->queue.count > 0 ||
		(lane->kind == GW_LANE_BULK && lane->turns->count > 0);
}

void
gw_queue_refuse(GwQueue *queue, GwLaneKind lane, const GwError *error)
{
	GwRequest  *request;

	while ((request = gw_queue_next(queue)) != NULL)
		gw_request_end(lane, gw_queue_take(queue, request), error, GW_AWAY);
}

/*
 * gw_session_end closes a session whose socket has gone, on every database
 * connection that knows it; on the short lane's in any case, if it may hold
 * leases: that one alone ends leases, and if it is away they wait for it
 * (ending.c). While a frame is in flight which may acknowledge some, on
 * whatever lane, those end that the client has not learnt of; and while claims
 * are, which may bring more, those that are known.
 */
void
gw_session_end(GwIdentity *identity)
{
	GwEnding	ending = !identity->leased ? GW_ENDS_NONE :
	identity->pending == 0 ? GW_ENDS_ALL :
	identity->pending == identity->claiming ? GW_ENDS_KNOWN :
	GW_ENDS_UNWRITTEN;
	size_t		i;

	for (i = 0; i < GW_CONNECTIONS_MAX; i++)
	{
		const GwLane *lane = &gw_lanes[i];
		bool		ends = i == GW_LANE_SHORT && ending != GW_ENDS_NONE;

		if (ends || (lane->database != NULL &&
					 identity->opened[i].generation == lane->generation))
			session_close(i, identity, ends ? ending : GW_ENDS_NONE);
	}
	gw_buffer_free(&identity->unwritten);
	if (ending != GW_ENDS_UNWRITTEN)
		gw_buffer_free(&identity->written);
	/* What is still in flight may claim something: then once more. */
	identity->leased = identity->leased && identity->pending > 0;
}

/* session_close queues what closes a session on one database connection. */
static void
session_close(size_t index, GwIdentity *identity, GwEnding ending)
{
	GwLane	   *lane = &gw_lanes[index];
	GwRequest  *request = gw_request_close(identity, ending);
	GwError		error;

	if (request == NULL)
		return;
	if (gw_lane_takes(lane, &error))
		gw_queue_append(&lane->queue, request);
	else
		gw_endings_keep(request);
}

/*
 * gw_endings_send queues ends that have waited, a few for each batch that can
 * go now. Each takes its session's turn.
 */
void
gw_endings_send(void)
{
	GwLane	   *lane = &gw_lanes[GW_LANE_SHORT];
	GwError		error;
	int			few = lane->in_flight < lane->depth ? GW_BATCH_CALLS / 2 : 0;

	while (gw_endings_count > 0 && few-- > 0 && gw_lane_takes(lane, &error))
		gw_queue_append(&lane->queue, gw_endings_take());
}

/*
 * gw_request_end answers a request with the error, if any, and frees it. The
 * last one of a session whose socket has gone ends the session, and so does
 * the last one behind which there are only claims that wait.
 */
void
gw_request_end(GwLaneKind lane, GwRequest *request, const GwError *error,
			   GwResult result)
{
	GwIdentity *identity = request->identity;
	GwClient   *client = identity->client;

	if (request->ask != NULL)
	{
		request_end_ask(request, error);
		return;
	}
	if (request->control != 0)
	{
		if (result == GW_UNKNOWN)
			request->tries++;
		if (request->greets)
			identity->greeted = false;
		if (request->greets && client != NULL)
			gw_client_flow(client);
		/* It may have opened a session whose socket had gone. */
		if ((request->control == GW_CONTROL_OVER_LIMIT || request->greets) &&
			client == NULL && identity->pending == 0)
			gw_session_end(identity);
		if (request->ends && (result == GW_UNKNOWN || result == GW_AWAY))
			gw_endings_keep(request);
		else
			gw_request_free(request);
		return;
	}
	if (error != NULL)
		request->code = error->code;
	else if (request->code != 0)
		result = GW_FAILED;
	gw_metric_request(lane, request->kind == GW_FRAME_BATCH ?
					  GW_METHOD_BATCH : gw_metric_method(request->method),
					  result, request->code,
					  gw_now_ms() - request->arrived_ms);
	gw_note_publish(request,
					error != NULL ? error->sqlstate : request->sqlstate,
					result, gw_lanes[GW_LANE_SHORT].database);
	if (error != NULL && error->code == GW_ERROR_OUTCOME_UNKNOWN)
		gw_counters.outcomes_unknown++;
	if (client != NULL && error != NULL)
		gw_client_answer(client, &request->ids, error);
	else if (error != NULL)
		gw_counters.replies_undelivered++;
	gw_intake_remove(identity, request->length + request->ids.length);
	gw_piece_end(client != NULL ? &client->appends : NULL,
				 client != NULL ? &client->replies : NULL, request);
	if (client != NULL)
	{
		client->replies.expected -= request->expected;
		gw_client_answered(client);
	}
	if (config->log_frames ||
		(request->code != 0 &&
		 gw_identity_logs_failure(identity, gw_now_ms(),
								  GW_LOGS_FAILED)))
		gw_request_log(request, lane, error, result,
					   gw_now_ms() - request->arrived_ms);
	identity->pending--;
	if (gw_request_only_claims(request))
		identity->claiming--;
	if (client == NULL &&
		(identity->pending == 0 ||
		 (identity->pending == identity->claiming &&
		  identity->written.length + identity->unwritten.length > 0)))
		gw_session_end(identity);
	gw_request_free(request);
}

/*
 * request_end_ask ends what a part of the gateway has asked. If who asked has
 * gone meanwhile it may have opened a session again.
 */
static void
request_end_ask(GwRequest *request, const GwError *error)
{
	if (request->asker != NULL)
		request->ask->end(request->asker, error);
	else if (!request->nobody)
		gw_session_end(request->identity);
	gw_request_free(request);
}

/* lane_done ends the oldest batch in flight. */
static void
lane_done(void *owner, const GwOutcome *outcome)
{
	GwLane	   *lane = owner;
	GwBatch    *batch = lane_pop_flight(lane);
	GwRequest  *request;

	gw_counters.batches++;
	if (outcome->failed)
		gw_counters.batches_failed++;
	if (!outcome->unknown)
		lane->lost_in_row = 0;
	if (!outcome->failed)
		deliver_rows(lane, batch, outcome);
	else
		TAILQ_FOREACH(request, &batch->requests, entry)
			gw_identity_mark(request->identity, lane->index, lane->generation,
							 0);
	if (outcome->unknown)
		return_leases(batch, outcome);
	else if (outcome->failed)
		lane_close_again(lane, batch);
	end_batch(lane, batch, outcome->failed ? outcome->error : NULL,
			  !outcome->failed ? GW_COMMITTED :
			  outcome->unknown ? GW_UNKNOWN : GW_ROLLED_BACK);
}

/*
 * return_leases gives back what a call has claimed that has perhaps committed:
 * nobody was told of it. A session may have leases of which there is no row.
 */
static void
return_leases(const GwBatch *batch, const GwOutcome *outcome)
{
	GwRequest  *request = TAILQ_FIRST(&batch->requests);
	size_t		number = 1;
	size_t		index;

	for (index = 0; index < outcome->rows; index++)
	{
		GwRow		row;

		if (!gw_outcome_row(outcome, index, &row))
			continue;
		for (; request != NULL && number < row.request; number++)
			request = TAILQ_NEXT(request, entry);
		if (request != NULL && number == row.request &&
			request->identity->session == row.session)
			gw_row_leases(&row, &request->identity->unwritten);
	}
	TAILQ_FOREACH(request, &batch->requests, entry)
	{
		GwIdentity *identity = request->identity;

		/* Nothing that the gateway asks itself claims anything. */
		if (request->ask != NULL)
			continue;
		identity->leased = true;
		if (identity->unwritten.length == 0 || identity->client == NULL)
			continue;
		session_close(GW_LANE_SHORT, identity, GW_ENDS_UNWRITTEN);
		gw_buffer_free(&identity->unwritten);
	}
}

/* lane_lost answers everything that a lane had sent or queued. */
static void
lane_lost(void *owner, const char *told)
{
	GwLane	   *lane = owner;
	GwError		unknown = gw_error_unknown(told);
	GwError		away = gw_error_away(told);

	lane->generation++;
	if (lane->in_flight > 0 &&
		++lane->lost_in_row >= config->breaker_threshold)
	{
		lane->closed_until = gw_now_ms() + config->breaker_timeout * 1000;
		gw_log_event("error", "breaker_open", gw_lane_names[lane->kind]);
	}
	while (lane->in_flight > 0)
	{
		GwRequest  *request;

		TAILQ_FOREACH(request, &STAILQ_FIRST(&lane->flight)->requests, entry)
			if (request->ask == NULL)
			request->identity->leased = true;
		gw_counters.batches++;
		gw_counters.batches_failed++;
		end_batch(lane, lane_pop_flight(lane), &unknown, GW_UNKNOWN);
	}
	gw_queue_refuse(&lane->queue, lane->kind, &away);
}

/* lane_send sends one batch, if there is one to send. */
static void
lane_send(GwLane *lane, long wait_ms)
{
	GwBatch    *batch = lane_take_batch(lane);
	GwBuffer	sessions = {0};
	GwBuffer	frames = {0};
	GwError		error = {GW_ERROR_INTERNAL, "out of memory", "53200", NULL,
	NULL};
	bool		secret;

	if (batch == NULL)
		return;
	secret = batch->secret;
	if (gw_batch_encode(batch, &sessions, &frames))
	{
		gw_batch_drop_frames(batch);
		if (lane->in_flight++ == 0)
			batch->head_ms = gw_now_ms();
		STAILQ_INSERT_TAIL(&lane->flight, batch, entry);
		gw_metric_observe(GW_SCALE_SIZE, lane->kind, (int64_t) batch->count);
		gw_database_send(lane->database, &sessions, &frames, wait_ms);
	}
	else
		end_batch(lane, batch, &error, GW_REFUSED);
	gw_buffer_free(&sessions);
	if (secret)
		gw_buffer_wipe(&frames);
	gw_buffer_free(&frames);
}

/* lane_take_batch takes a batch from the queues; NULL if nothing can go. */
static GwBatch *
lane_take_batch(GwLane *lane)
{
	const GwFill fill = {lane->kind, lane->index, lane->generation,
	lane_has_many(lane), kind_has_alone(lane->kind), gw_request_end};

	return gw_batch_fill(&fill, &lane->queue,
						 lane->kind == GW_LANE_BULK ? lane->turns : NULL);
}

/* lane_has_many tells that a frame of many calls is in flight. */
static bool
lane_has_many(const GwLane *lane)
{
	const GwBatch *batch;
	const GwRequest *request;

	STAILQ_FOREACH(batch, &lane->flight, entry)
	{
		TAILQ_FOREACH(request, &batch->requests, entry)
			if (request->calls > GW_CALLS_FEW)
			return true;
	}
	return false;
}

/*
 * kind_has_alone tells that a request which has a batch of its own is in
 * flight on a lane of a kind: others of it wait, so that one lane at least is
 * for what takes little time.
 */
static bool
kind_has_alone(GwLaneKind kind)
{
	const GwBatch *batch;
	size_t		i;

	for (i = 0; i < GW_CONNECTIONS_MAX; i++)
		if (gw_lanes[i].kind == kind)
			STAILQ_FOREACH(batch, &gw_lanes[i].flight, entry)
				if (batch->alone)
				return true;
	return false;
}

/* lane_pop_flight takes the oldest batch in flight out. */
static GwBatch *
lane_pop_flight(GwLane *lane)
{
	GwBatch    *batch = STAILQ_FIRST(&lane->flight);

	STAILQ_REMOVE_HEAD(&lane->flight, entry);
	if (--lane->in_flight > 0)
		STAILQ_FIRST(&lane->flight)->head_ms = gw_now_ms();
	return batch;
}

/*
 * lane_close_again puts what closes sessions back in front of the queue, once:
 * a frame of somebody else may have made the batch fail.
 */
static void
lane_close_again(GwLane *lane, GwBatch *batch)
{
	GwRequest  *request;
	GwRequest  *next;

	for (request = TAILQ_FIRST(&batch->requests); request != NULL;
		 request = next)
	{
		next = TAILQ_NEXT(request, entry);
		if (request->control != GW_CONTROL_CLOSE || request->again)
			continue;
		TAILQ_REMOVE(&batch->requests, request, entry);
		request->again = true;
		gw_queue_return(&lane->queue, request);
	}
}

/*
 * deliver_rows queues the frames that relay returned. A frame for a session
 * that is not of this batch is dropped and logged. When all are queued, the
 * clients whose token was refused are disconnected, unless it was good once
 * and has expired: then a fresh one may come.
 */
static void
deliver_rows(const GwLane *lane, const GwBatch *batch,
			 const GwOutcome *outcome)
{
	GwRequest  *request = TAILQ_FIRST(&batch->requests);
	size_t		expected = count_expected(batch);
	size_t		number = 1;
	size_t		index;

	for (index = 0; index < outcome->rows; index++)
	{
		GwRow		row;
		bool		fits = gw_outcome_row(outcome, index, &row);

		/* Rows come in the order of the requests. */
		for (; fits && request != NULL && number < row.request; number++)
			request = TAILQ_NEXT(request, entry);
		if (!fits || request == NULL || number != row.request ||
			!deliver_row(lane, request, &row))
			gw_log_event("error", "reply_unfit", gw_lane_names[lane->kind]);
	}
	TAILQ_FOREACH(request, &batch->requests, entry)
	{
		const GwIdentity *identity = request->identity;

		if (identity->refused && identity->client != NULL &&
			(identity->expires_ms == 0 || gw_unix_ms() < identity->expires_ms))
			gw_disconnect(identity->client, GW_CLOSE_POLICY,
						  "token is not valid");
	}
	if (outcome->rows < expected)
	{
		gw_counters.replies_missing += expected - outcome->rows;
		gw_log_event("error", "reply_missing", gw_lane_names[lane->kind]);
	}
}

/* count_expected returns how many rows a batch must bring at least. */
static size_t
count_expected(const GwBatch *batch)
{
	const GwRequest *request;
	size_t		expected = 0;

	TAILQ_FOREACH(request, &batch->requests, entry)
		if (request->control == GW_CONTROL_OPEN || request->ask != NULL ||
			(request->control == 0 && (request->kind == GW_FRAME_REQUEST ||
									   request->kind == GW_FRAME_MALFORMED)))
		expected++;
	return expected;
}

/*
 * deliver_row queues a frame for its client, or takes what it says to the
 * gateway itself. It returns false if it is neither.
 */
static bool
deliver_row(const GwLane *lane, GwRequest *request, const GwRow *row)
{
	GwIdentity *identity = request->identity;
	GwSpan		body = {row->frame.data + 1, row->frame.length - 1};
	GwBuffer	leases = {0};

	if (row->session != (request->nobody ? 0 : identity->session))
		return false;
	/* Beside an answer there may be that the session is not known any more. */
	if (request->ask != NULL &&
		!(row->frame.data[0] == GW_OPCODE_CONTROL &&
		  gw_identity_take(identity, lane->index, lane->generation, 0, body)))
	{
		request->brought += body.length;
		if (request->asker != NULL)
			request->ask->answer(request->asker, row->frame);
	}
	if (request->ask != NULL)
		return true;
	if (row->frame.data[0] == GW_OPCODE_CONTROL)
	{
		bool		taken = gw_identity_take(identity, lane->index,
											 lane->generation,
											 request->control == GW_CONTROL_OPEN ?
											 request->version : 0, body);

		gw_intake_meet(identity);
		return taken;
	}
	if (row->answers && row->code != 0)
	{
		request->code = row->code;
		gw_text_copy(request->sqlstate, sizeof(request->sqlstate),
					 row->sqlstate);
		/* It has been ended, or its key is gone: as if it had expired. */
		if (row->code == GW_ERROR_NOT_AUTHENTICATED &&
			identity->role[0] != '\0' &&
			strcmp(request->method, "authenticate") != 0)
			identity->expires_ms = gw_unix_ms();
	}
	request->brought += body.length;
	gw_row_leases(row, &leases);
	identity->leased = identity->leased || leases.length > 0;
	if (identity->client != NULL)
		gw_client_queue(identity->client,
						row->frame.data[0] == GW_OPCODE_BINARY, body.data,
						body.length, &leases,
						request->hold.use == GW_POOL_DOWN &&
						request->hold.bytes > 0);
	else
	{
		gw_buffer_append(&identity->unwritten, leases.data, leases.length);
		gw_counters.replies_undelivered++;
	}
	gw_buffer_free(&leases);
	return true;
}

/* end_batch ends each request of a batch and frees it. */
static void
end_batch(const GwLane *lane, GwBatch *batch, const GwError *error,
		  GwResult result)
{
	GwRequest  *request;
	size_t		cost = batch->alone && batch->head_ms != 0 ?
	(size_t) (gw_now_ms() - batch->head_ms) * ALONE_MS_BYTES : 0;

	while ((request = TAILQ_FIRST(&batch->requests)) != NULL)
	{
		TAILQ_REMOVE(&batch->requests, request, entry);
		gw_queue_charge(lane->turns, request->identity,
						request->brought + cost);
		gw_request_end(lane->kind, request, error, result);
	}
	gw_batch_free(batch);
}
