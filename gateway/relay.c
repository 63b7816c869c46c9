/*
 * relay.c
 *		Lanes: between the sockets' frames and the database's batches.
 *
 * Frames that arrived in one turn of the loop, on whatever sockets, become
 * one batch, and a batch is one call of message_bus.relay() and one
 * transaction. A lane is a queue of requests and one database connection on
 * which its batches are pipelined: a frame that finds the lane idle goes at
 * once, and while batches are in flight the queue gathers the next one. Short
 * publishes have a lane of their own, so that a body of 30 MB or a large read
 * on the other does not hold them up. Order is kept within a lane, not
 * between the two.
 *
 * Claims that wait for messages have a queue of their own, from which a small
 * pool of connections takes one at a time; they are opened when they are
 * first needed. How long such a claim waits is cut, the more so the more of
 * them are queued, so that each has its turn within MESSAGE_BUS_WAIT_SECS.
 *
 * With authentication on, each session is opened on a database connection,
 * with its token, by a control frame before its first frame there, in the
 * same batch; so again when the connection has been lost or the token is
 * another one, and when a batch has failed, since nobody knows then what the
 * backend remembers. It is closed on every connection that knows it when its
 * socket has gone, and once more when the last of its frames has ended: what
 * they claimed goes back at once.
 *
 * A request is answered exactly once, by one of these:
 *
 *	committed			the frames that relay returned for it, written only
 *						when its batch's Sync came back without error
 *	rolled back			the server said so: -32603 with its SQLSTATE
 *	outcome unknown		sent, but no answer came: -32050
 *	not sent			the connection is away, or the breaker is open:
 *						-32010
 *
 * The circuit breaker guards against a database that accepts connections
 * and loses every call: after CIRCUIT_BREAKER_THRESHOLD calls lost in a row
 * a lane refuses requests for CIRCUIT_BREAKER_TIMEOUT_SECS, then lets one
 * batch through. A database that cannot be reached at all needs no breaker:
 * its lane refuses at once and database.c keeps trying.
 */
#include "relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "database.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"

/* What a batch may take beyond the time of one call before it is given up. */
#define GRACE_MS	5000

/* However many claims wait, each may wait so long. */
#define WAIT_LEAST_MS	100

#define LANES_MAX	GW_CONNECTIONS_MAX

/* Requests, oldest first. */
typedef struct Queue
{
	GwRequest  *first;
	GwRequest **end;
	size_t		count;
} Queue;

typedef struct Lane
{
	const char *name;
	size_t		depth;			/* batches in flight at a time */
	GwDatabase *database;		/* NULL: not needed so far */
	uint32_t	generation;		/* of the connection's lives */
	Queue		queue;			/* not sent */
	GwBatch    *flight;			/* sent, oldest first */
	GwBatch   **flight_end;
	size_t		in_flight;
	long		lost_in_row;	/* batches lost since one ended well */
	int64_t		closed_until;	/* the breaker is open until then */
} Lane;

static Lane lanes[LANES_MAX];
static size_t lane_count;
static Queue waiting;			/* claims that no lane has taken yet */
static const GwConfig *config;
static uint64_t batch_number;

static void queue_append(Queue *queue, GwRequest *request);
static GwRequest *queue_take(Queue *queue, GwRequest **at);
static void queue_refuse(Queue *queue, const char *name,
						 const GwError *error);
static bool lane_open(Lane *lane);
static void lane_done(void *owner, const GwOutcome *outcome);
static void lane_lost(void *owner, const char *reason);
static bool lane_takes(const Lane *lane, GwError *error);
static bool lane_waits(const Lane *lane);
static void pool_turn(void);
static void pool_feed(Lane *lane);
static void lane_turn(Lane *lane);
static void lane_send(Lane *lane);
static long wait_limit(const Lane *lane);
static GwBatch *lane_take_batch(Lane *lane);
static bool lane_knows(const Lane *lane, const GwRequest *request);
static bool lane_open_session(Lane *lane, GwBatch *batch,
							  GwIdentity *identity);
static GwBatch *lane_pop_flight(Lane *lane);
static void deliver_rows(const Lane *lane, const GwBatch *batch,
						 const GwOutcome *outcome);
static bool deliver_row(const Lane *lane, const GwBatch *batch,
						int64_t session, GwSpan frame);
static void end_batch(const Lane *lane, GwBatch *batch, const GwError *error,
					  const char *result);
static void end_request(const char *lane, GwRequest *request,
						const GwError *error, const char *result);
static void log_request(const char *lane, const GwRequest *request,
						const GwError *error, const char *result);

static const GwDatabaseEvents lane_events = {lane_done, lane_lost};

/* gw_relay_open opens the lanes and begins to connect them. */
bool
gw_relay_open(const GwConfig *settings)
{
	static const char *const names[] = {"short", "long", "wait"};
	size_t		i;

	config = settings;
	waiting.end = &waiting.first;
	lane_count = GW_LANE_WAIT + (size_t) settings->wait_connections;
	for (i = 0; i < lane_count; i++)
	{
		Lane	   *lane = &lanes[i];

		lane->name = names[i < GW_LANE_WAIT ? i : GW_LANE_WAIT];
		lane->depth = i == GW_LANE_SHORT ? 2 : 1;
		lane->generation = 1;
		lane->queue.end = &lane->queue.first;
		lane->flight_end = &lane->flight;
		if (!lane_waits(lane) && !lane_open(lane))
			return false;
	}
	return true;
}

/*
 * gw_relay_submit takes over a request: it is queued, or answered at once if
 * its lane cannot take it.
 */
void
gw_relay_submit(GwRequest *request)
{
	GwError		error = {0};
	GwLane		which = gw_request_lane(request);

	request->identity->pending++;
	if (which == GW_LANE_WAIT)
		queue_append(&waiting, request);
	else if (lane_takes(&lanes[which], &error))
		queue_append(&lanes[which].queue, request);
	else
		end_request(lanes[which].name, request, &error, "away");
}

/*
 * gw_relay_session_end closes a session whose socket has gone, on every
 * database connection that knows it; on the short lane's in any case, if it
 * may hold leases.
 */
void
gw_relay_session_end(GwIdentity *identity)
{
	size_t		i;

	for (i = 0; i < lane_count; i++)
	{
		Lane	   *lane = &lanes[i];
		GwError		error;
		GwRequest  *request;

		if (!(i == GW_LANE_SHORT && identity->used) &&
			identity->opened[i].generation != lane->generation)
			continue;
		if (lane->database == NULL || !lane_takes(lane, &error))
			continue;
		request = gw_request_control(identity, GW_CONTROL_CLOSE);
		if (request != NULL)
			queue_append(&lane->queue, request);
	}
	/* What is still in flight may claim something: then once more. */
	identity->used = identity->used && identity->pending > 0;
}

/* gw_relay_turn, at the end of a turn of the loop, sends what is queued. */
void
gw_relay_turn(void)
{
	size_t		i;

	pool_turn();
	for (i = 0; i < lane_count; i++)
		if (lanes[i].queue.first != NULL)
			lane_turn(&lanes[i]);
}

/* gw_relay_sweep, once a second, gives up batches that take too long. */
void
gw_relay_sweep(void)
{
	int64_t		limit = config->tool_timeout * 1000 + GRACE_MS;
	size_t		i;

	for (i = 0; i < lane_count; i++)
	{
		Lane	   *lane = &lanes[i];

		if (lane->flight != NULL &&
			gw_now_ms() - lane->flight->head_ms > limit)
			gw_database_drop(lane->database,
							 "no answer within TOOL_TIMEOUT_SECS");
	}
}

bool
gw_relay_is_idle(void)
{
	size_t		i;

	for (i = 0; i < lane_count; i++)
		if (lanes[i].queue.first != NULL || lanes[i].flight != NULL)
			return false;
	return waiting.first == NULL;
}

/*
 * gw_relay_is_ready tells whether every lane can take requests; it appends
 * the reasons why not as JSON strings, separated by commas.
 */
bool
gw_relay_is_ready(GwBuffer *reasons)
{
	bool		ready = true;
	size_t		i;

	for (i = 0; i < GW_LANE_WAIT; i++)
	{
		GwError		error = {0};
		char		string[640];

		if (lane_takes(&lanes[i], &error))
			continue;
		(void) snprintf(string, sizeof(string), "%s lane: %s", lanes[i].name,
						error.detail);
		if (!ready)
			gw_buffer_text(reasons, ",");
		gw_buffer_json(reasons, string);
		ready = false;
	}
	return ready;
}

/* gw_relay_lane_state adds up what the lanes of state->name are doing. */
void
gw_relay_lane_state(GwLaneState *state)
{
	size_t		i;

	for (i = 0; i < lane_count; i++)
	{
		const Lane *lane = &lanes[i];

		if (lane->database == NULL || strcmp(lane->name, state->name) != 0)
			continue;
		state->connections++;
		if (gw_database_is_ready(lane->database))
			state->ready++;
		if (gw_now_ms() < lane->closed_until)
			state->breakers_open++;
		state->queued += lane->queue.count;
		state->in_flight += lane->in_flight;
	}
	if (strcmp(state->name, lanes[GW_LANE_WAIT].name) == 0)
		state->queued += waiting.count;
}

/* gw_relay_drain gives up what has not ended when the time to drain is up. */
void
gw_relay_drain(void)
{
	GwError		away = gw_error_away("the gateway is stopping");
	size_t		i;

	for (i = 0; i < lane_count; i++)
		if (lanes[i].database != NULL)
			gw_database_drop(lanes[i].database, away.detail);
	queue_refuse(&waiting, "wait", &away);
}

void
gw_relay_close(void)
{
	size_t		i;

	for (i = 0; i < lane_count; i++)
	{
		if (lanes[i].database != NULL)
			gw_database_free(lanes[i].database);
		lanes[i].database = NULL;
	}
}

static void
queue_append(Queue *queue, GwRequest *request)
{
	request->next = NULL;
	*queue->end = request;
	queue->end = &request->next;
	queue->count++;
}

/* queue_take takes out the request that *at, a link of the queue, points to. */
static GwRequest *
queue_take(Queue *queue, GwRequest **at)
{
	GwRequest  *request = *at;

	*at = request->next;
	if (*at == NULL)
		queue->end = at;
	queue->count--;
	return request;
}

static void
queue_refuse(Queue *queue, const char *name, const GwError *error)
{
	while (queue->first != NULL)
		end_request(name, queue_take(queue, &queue->first), error, "away");
}

static bool
lane_open(Lane *lane)
{
	lane->database = gw_database_open(config, lane->name, &lane_events, lane);
	return lane->database != NULL;
}

/* lane_done ends the oldest batch in flight. */
static void
lane_done(void *owner, const GwOutcome *outcome)
{
	Lane	   *lane = owner;
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
		for (request = batch->requests; request != NULL;
			 request = request->next)
			gw_identity_mark(request->identity, (size_t) (lane - lanes),
							 lane->generation, 0);
	end_batch(lane, batch, outcome->failed ? outcome->error : NULL,
			  !outcome->failed ? "committed" :
			  outcome->unknown ? "unknown" : "rolled back");
}

/* lane_lost answers everything that a lane had sent or queued. */
static void
lane_lost(void *owner, const char *reason)
{
	Lane	   *lane = owner;
	GwError		unknown = gw_error_unknown(reason);
	GwError		away = gw_error_away(reason);

	lane->generation++;
	if (lane->flight != NULL)
	{
		lane->lost_in_row++;
		if (lane->lost_in_row >= config->breaker_threshold)
		{
			lane->closed_until = gw_now_ms() + config->breaker_timeout * 1000;
			gw_log_event("error", "breaker_open", lane->name);
		}
	}
	while (lane->flight != NULL)
	{
		gw_counters.batches++;
		gw_counters.batches_failed++;
		end_batch(lane, lane_pop_flight(lane), &unknown, "unknown");
	}
	queue_refuse(&lane->queue, lane->name, &away);
}

/* lane_takes tells whether a request may be queued, else *error says why. */
static bool
lane_takes(const Lane *lane, GwError *error)
{
	*error = gw_error_away(NULL);
	if (!gw_database_is_ready(lane->database))
	{
		error->detail = gw_database_reason(lane->database);
		return false;
	}
	if (gw_now_ms() < lane->closed_until)
	{
		error->detail = "too many calls were lost in a row"
			" (CIRCUIT_BREAKER_THRESHOLD)";
		return false;
	}
	return true;
}

/* lane_waits tells whether a lane is of the pool for claims that wait. */
static bool
lane_waits(const Lane *lane)
{
	return lane >= &lanes[GW_LANE_WAIT];
}

/*
 * pool_turn hands waiting claims to the connections of the pool that are
 * free. One more is opened while none of those there are is on its way; if
 * there is none to hope for the claims are refused.
 */
static void
pool_turn(void)
{
	GwError		error = gw_error_away("out of memory");
	bool		hope = false;
	size_t		i;

	for (i = GW_LANE_WAIT; i < lane_count && waiting.first != NULL; i++)
	{
		Lane	   *lane = &lanes[i];

		if (lane->database == NULL && !lane_open(lane))
			break;
		if (lane_takes(lane, &error))
		{
			hope = true;
			if (lane->queue.first == NULL && lane->in_flight == 0)
				pool_feed(lane);
		}
		else if (gw_database_is_new(lane->database))
		{
			hope = true;
			break;
		}
	}
	if (!hope && waiting.first != NULL)
		queue_refuse(&waiting, "wait", &error);
}

/* pool_feed hands a lane the oldest claim whose client reads its replies. */
static void
pool_feed(Lane *lane)
{
	GwRequest **at = &waiting.first;

	while (*at != NULL)
	{
		GwClient   *client = (*at)->identity->client;

		if (client == NULL)
			end_request(lane->name, queue_take(&waiting, at), NULL,
						"dropped");
		else if (gw_client_is_held(client))
			at = &(*at)->next;
		else
		{
			queue_append(&lane->queue, queue_take(&waiting, at));
			return;
		}
	}
}

/* lane_turn sends as many batches as a lane may have in flight. */
static void
lane_turn(Lane *lane)
{
	while (lane->queue.first != NULL && lane->in_flight < lane->depth &&
		   gw_database_is_ready(lane->database))
	{
		size_t		before = lane->in_flight;

		/* After the breaker's pause one batch is tried alone. */
		if (lane->lost_in_row >= config->breaker_threshold && before > 0)
			break;
		lane_send(lane);
		if (lane->in_flight == before)
			break;
	}
}

static void
lane_send(Lane *lane)
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
		gw_batch_shrink(batch);
		if (lane->flight == NULL)
			batch->head_ms = gw_now_ms();
		*lane->flight_end = batch;
		lane->flight_end = &batch->next;
		lane->in_flight++;
		gw_metric_batch(lane->name, batch->count);
		gw_database_send(lane->database, &sessions, &frames,
						 wait_limit(lane));
	}
	else
		end_batch(lane, batch, &error, "refused");
	gw_buffer_free(&sessions);
	if (secret)
		gw_buffer_wipe(&frames);
	gw_buffer_free(&frames);
}

/*
 * wait_limit returns how long claims on this lane may wait, in ms: so long
 * that those queued behind have their turn within MESSAGE_BUS_WAIT_SECS.
 */
static long
wait_limit(const Lane *lane)
{
	long		limit = config->wait_secs * 1000;

	if (!lane_waits(lane))
		return 0;
	/* A frame that takes longer than TOOL_TIMEOUT_SECS is an error. */
	if (limit > config->tool_timeout * 500)
		limit = config->tool_timeout * 500;
	limit = limit * config->wait_connections /
		(config->wait_connections + (long) waiting.count);
	return limit > WAIT_LEAST_MS ? limit : WAIT_LEAST_MS;
}

/*
 * lane_take_batch moves requests from the queue into a new batch, in order,
 * each session's first behind what opens it. Those of a connection that does
 * not read stay behind, and so does a second read of one connection: its
 * replies may be large. It returns NULL if none can go.
 */
static GwBatch *
lane_take_batch(Lane *lane)
{
	GwBatch    *batch = gw_batch_create();
	GwRequest **at = &lane->queue.first;

	if (batch == NULL)
		return NULL;
	batch_number++;
	while (*at != NULL)
	{
		GwRequest  *request = *at;
		GwClient   *client = request->identity->client;
		bool		reads = gw_request_reads(request);
		bool		known = lane_knows(lane, request);

		if (client != NULL &&
			(gw_client_is_held(client) ||
			 (reads && client->batch_mark == batch_number)))
		{
			at = &request->next;
			continue;
		}
		if (!gw_batch_has_room(batch, request, known ? 0 : 1) ||
			(!known && !lane_open_session(lane, batch, request->identity)))
			break;
		if (client != NULL && reads)
			client->batch_mark = batch_number;
		if (request->control == 0)
			request->identity->used = true;
		else
			gw_identity_mark(request->identity, (size_t) (lane - lanes), 0, 0);
		gw_batch_add(batch, queue_take(&lane->queue, at));
	}
	if (batch->count > 0)
		return batch;
	gw_batch_free(batch);
	return NULL;
}

/* lane_knows tells whether a request can go as it is. */
static bool
lane_knows(const Lane *lane, const GwRequest *request)
{
	return !gw_config_authenticates(config) || request->control != 0 ||
		gw_identity_is_open(request->identity, (size_t) (lane - lanes),
							lane->generation);
}

/* lane_open_session adds what opens a session; false if out of memory. */
static bool
lane_open_session(Lane *lane, GwBatch *batch, GwIdentity *identity)
{
	GwRequest  *request = gw_request_control(identity, GW_CONTROL_OPEN);

	if (request == NULL)
		return false;
	gw_identity_mark(identity, (size_t) (lane - lanes), lane->generation,
					 identity->version);
	gw_batch_add(batch, request);
	return true;
}

static GwBatch *
lane_pop_flight(Lane *lane)
{
	GwBatch    *batch = lane->flight;

	lane->flight = batch->next;
	if (lane->flight == NULL)
		lane->flight_end = &lane->flight;
	else
		lane->flight->head_ms = gw_now_ms();
	lane->in_flight--;
	return batch;
}

/*
 * deliver_rows queues the frames that relay returned. A frame for a session
 * that is not of this batch is dropped and logged. When all are queued, the
 * clients whose token was refused are disconnected, unless it was good once
 * and has expired: then a fresh one may come.
 */
static void
deliver_rows(const Lane *lane, const GwBatch *batch, const GwOutcome *outcome)
{
	const GwRequest *request;
	size_t		expected = 0;
	size_t		row;

	for (row = 0; row < outcome->rows; row++)
	{
		int64_t		session;
		GwSpan		frame;

		if (!gw_outcome_row(outcome, row, &session, &frame) ||
			!deliver_row(lane, batch, session, frame))
			gw_log_event("error", "reply_unfit", lane->name);
	}
	for (request = batch->requests; request != NULL; request = request->next)
	{
		const GwIdentity *identity = request->identity;

		if (request->control == GW_CONTROL_OPEN ||
			(request->control == 0 && request->kind == GW_FRAME_REQUEST) ||
			(request->control == 0 && request->kind == GW_FRAME_MALFORMED))
			expected++;
		if (identity->refused && identity->client != NULL &&
			(identity->expires_ms == 0 || gw_unix_ms() < identity->expires_ms))
			gw_disconnect(identity->client, GW_CLOSE_POLICY,
						  "token is not valid");
	}
	if (outcome->rows < expected)
	{
		gw_counters.replies_missing += expected - outcome->rows;
		gw_log_event("error", "reply_missing", lane->name);
	}
}

/*
 * deliver_row queues a frame for its client, or takes what it says to the
 * gateway itself. It returns false if it is neither.
 */
static bool
deliver_row(const Lane *lane, const GwBatch *batch, int64_t session,
			GwSpan frame)
{
	const GwRequest *request = batch->requests;
	GwSpan		body = {frame.data + 1, frame.length - 1};
	uint32_t	version = 0;
	GwClient   *client;

	while (request != NULL && request->identity->session != session)
		request = request->next;
	if (request == NULL)
		return false;
	if (frame.data[0] == GW_OPCODE_CONTROL)
	{
		/* What opens a session is the first request of it. */
		if (request->control == GW_CONTROL_OPEN)
			version = request->version;
		return gw_identity_take(request->identity, (size_t) (lane - lanes),
								lane->generation, version, body);
	}
	client = request->identity->client;
	if (client != NULL)
		gw_client_queue(client, frame.data[0] == GW_OPCODE_BINARY, body.data,
						body.length);
	else
		gw_counters.replies_undelivered++;
	return true;
}

/* end_batch ends each request of a batch and frees it. */
static void
end_batch(const Lane *lane, GwBatch *batch, const GwError *error,
		  const char *result)
{
	while (batch->requests != NULL)
	{
		GwRequest  *request = batch->requests;

		batch->requests = request->next;
		end_request(lane->name, request, error, result);
	}
	gw_batch_free(batch);
}

/*
 * end_request answers a request with the error, if any, and frees it. The
 * last one of a session whose socket has gone ends the session.
 */
static void
end_request(const char *lane, GwRequest *request, const GwError *error,
			const char *result)
{
	GwIdentity *identity = request->identity;
	GwClient   *client = identity->client;

	if (request->control != 0)
	{
		gw_request_free(request);
		return;
	}
	gw_metric_request(lane, result, gw_now_ms() - request->arrived_ms);
	if (error != NULL && error->code == GW_ERROR_OUTCOME_UNKNOWN)
		gw_counters.outcomes_unknown++;
	if (client != NULL && error != NULL)
		gw_client_answer(client, gw_request_header(request), error);
	else if (error != NULL)
		gw_counters.replies_undelivered++;
	if (client != NULL)
		gw_client_answered(client);
	if (config->log_frames || error != NULL)
		log_request(lane, request, error, result);
	gw_clients_release(request->length);
	identity->pending--;
	if (client == NULL && identity->pending == 0)
		gw_relay_session_end(identity);
	gw_request_free(request);
}

static void
log_request(const char *lane, const GwRequest *request, const GwError *error,
			const char *result)
{
	GwLogLine	line;

	gw_log_begin(&line, error != NULL ? "warning" : "info", "frame");
	gw_log_number(&line, "connection", request->identity->session);
	gw_log_text(&line, "lane", lane);
	gw_log_text(&line, "method", request->method);
	gw_log_number(&line, "bytes", (int64_t) request->length - 1);
	gw_log_number(&line, "ms", gw_now_ms() - request->arrived_ms);
	gw_log_text(&line, "outcome", result);
	if (error != NULL)
		gw_log_number(&line, "code", error->code);
	if (error != NULL && error->sqlstate != NULL)
		gw_log_text(&line, "sqlstate", error->sqlstate);
	gw_log_end(&line);
}
