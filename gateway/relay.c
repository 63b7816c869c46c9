/*
 * relay.c
 *		Lanes: between the sockets' frames and the database's batches.
 *
 * Frames that arrived in one turn of the loop, on whatever sockets, become
 * one batch, and a batch is one call of message_bus.relay() and one
 * transaction. A lane is a queue of requests and one database connection on
 * which its batches are pipelined. Short publishes have a lane of their own,
 * so that a body of 30 MB or a large read on the other does not hold them
 * up. Order is kept within a lane, not between the two.
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
#include "metrics.h"

/* What a batch may take beyond the time of one call before it is given up. */
#define GRACE_MS	5000

typedef struct Lane
{
	const char *name;
	size_t		depth;			/* batches in flight at a time */
	GwDatabase *database;
	GwRequest  *queue;			/* not sent, oldest first */
	GwRequest **queue_end;
	GwBatch    *flight;			/* sent, oldest first */
	GwBatch   **flight_end;
	size_t		in_flight;
	long		lost_in_row;	/* batches lost since one ended well */
	int64_t		closed_until;	/* the breaker is open until then */
} Lane;

enum
{
	LANE_SHORT,
	LANE_LONG,
	LANES
};

static Lane lanes[LANES] = {{.name = "short",.depth = 2},
{.name = "long",.depth = 1}};
static const GwConfig *config;
static uint64_t batch_number;

static void lane_done(void *owner, const GwOutcome *outcome);
static void lane_lost(void *owner, const char *reason);
static bool lane_takes(const Lane *lane, GwError *error);
static void lane_refuse_queue(Lane *lane, const GwError *error);
static void lane_send(Lane *lane);
static GwBatch *lane_take_batch(Lane *lane);
static GwBatch *lane_pop_flight(Lane *lane);
static void deliver_rows(const Lane *lane, const GwBatch *batch,
						 const GwOutcome *outcome);
static bool batch_has_session(const GwBatch *batch, int64_t session);
static void end_batch(const Lane *lane, GwBatch *batch, const GwError *error,
					  const char *result);
static void end_request(const Lane *lane, GwRequest *request,
						const GwError *error, const char *result);

static const GwDatabaseEvents lane_events = {lane_done, lane_lost};

/* gw_relay_open opens the lanes and begins to connect them. */
bool
gw_relay_open(const GwConfig *settings)
{
	size_t		i;

	config = settings;
	for (i = 0; i < LANES; i++)
	{
		Lane	   *lane = &lanes[i];

		lane->queue_end = &lane->queue;
		lane->flight_end = &lane->flight;
		lane->database = gw_database_open(settings, lane->name, &lane_events,
										  lane);
		if (lane->database == NULL)
			return false;
	}
	return true;
}

/*
 * gw_relay_submit takes over a whole message of a client: it is queued, or
 * answered at once if its lane cannot take it.
 */
void
gw_relay_submit(GwClient *client, GwBuffer *message)
{
	GwError		error = {0};
	GwRequest  *request;
	Lane	   *lane;

	request = gw_request_create(client->session, message, gw_now_ms());
	if (request == NULL)
	{
		gw_clients_release(message->length);
		gw_buffer_free(message);
		gw_disconnect(client, GW_CLOSE_TRY_LATER, "out of memory");
		return;
	}
	client->in_flight++;
	lane = &lanes[gw_request_is_long(request) ? LANE_LONG : LANE_SHORT];
	if (!lane_takes(lane, &error))
	{
		end_request(lane, request, &error, "away");
		return;
	}
	*lane->queue_end = request;
	lane->queue_end = &request->next;
}

/* gw_relay_turn, at the end of a turn of the loop, sends what is queued. */
void
gw_relay_turn(void)
{
	size_t		i;

	for (i = 0; i < LANES; i++)
	{
		Lane	   *lane = &lanes[i];

		while (lane->queue != NULL && lane->in_flight < lane->depth &&
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
}

/* gw_relay_sweep, once a second, gives up batches that take too long. */
void
gw_relay_sweep(void)
{
	int64_t		limit = config->tool_timeout * 1000 + GRACE_MS;
	size_t		i;

	for (i = 0; i < LANES; i++)
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

	for (i = 0; i < LANES; i++)
		if (lanes[i].queue != NULL || lanes[i].flight != NULL)
			return false;
	return true;
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

	for (i = 0; i < LANES; i++)
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

/* gw_relay_lane_state adds up what the lane of state->name is doing. */
void
gw_relay_lane_state(GwLaneState *state)
{
	const GwRequest *request;
	size_t		i;

	for (i = 0; i < LANES; i++)
	{
		const Lane *lane = &lanes[i];

		if (strcmp(lane->name, state->name) != 0)
			continue;
		state->connections++;
		if (gw_database_is_ready(lane->database))
			state->ready++;
		if (gw_now_ms() < lane->closed_until)
			state->breakers_open++;
		state->in_flight += lane->in_flight;
		for (request = lane->queue; request != NULL; request = request->next)
			state->queued++;
	}
}

/* gw_relay_drain gives up what has not ended when the time to drain is up. */
void
gw_relay_drain(void)
{
	size_t		i;

	for (i = 0; i < LANES; i++)
		gw_database_drop(lanes[i].database, "the gateway is stopping");
}

void
gw_relay_close(void)
{
	size_t		i;

	for (i = 0; i < LANES; i++)
	{
		if (lanes[i].database != NULL)
			gw_database_free(lanes[i].database);
		lanes[i].database = NULL;
	}
}

/* lane_done ends the oldest batch in flight. */
static void
lane_done(void *owner, const GwOutcome *outcome)
{
	Lane	   *lane = owner;
	GwBatch    *batch = lane_pop_flight(lane);

	gw_counters.batches++;
	if (outcome->failed)
		gw_counters.batches_failed++;
	if (!outcome->unknown)
		lane->lost_in_row = 0;
	if (!outcome->failed)
		deliver_rows(lane, batch, outcome);
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
	lane_refuse_queue(lane, &away);
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

static void
lane_refuse_queue(Lane *lane, const GwError *error)
{
	while (lane->queue != NULL)
	{
		GwRequest  *request = lane->queue;

		lane->queue = request->next;
		end_request(lane, request, error, "away");
	}
	lane->queue_end = &lane->queue;
}

static void
lane_send(Lane *lane)
{
	GwBatch    *batch = lane_take_batch(lane);
	GwBuffer	sessions = {0};
	GwBuffer	frames = {0};
	GwError		error = {GW_ERROR_INTERNAL, "out of memory", "53200", NULL,
	NULL};

	if (batch == NULL)
		return;
	if (gw_batch_encode(batch, &sessions, &frames))
	{
		gw_batch_shrink(batch);
		if (lane->flight == NULL)
			batch->head_ms = gw_now_ms();
		*lane->flight_end = batch;
		lane->flight_end = &batch->next;
		lane->in_flight++;
		gw_metric_batch(lane->name, batch->count);
		gw_database_send(lane->database, &sessions, &frames);
	}
	else
		end_batch(lane, batch, &error, "refused");
	gw_buffer_free(&sessions);
	gw_buffer_free(&frames);
}

/*
 * lane_take_batch moves requests from the queue into a new batch, in order.
 * Those of a connection that does not read stay behind, and so does a second
 * read of one connection: its replies may be large. It returns NULL if none
 * can go.
 */
static GwBatch *
lane_take_batch(Lane *lane)
{
	GwBatch    *batch = gw_batch_create();
	GwRequest **at = &lane->queue;

	if (batch == NULL)
		return NULL;
	batch_number++;
	while (*at != NULL)
	{
		GwRequest  *request = *at;
		GwClient   *client = gw_client_find(request->session);

		if (client != NULL &&
			(gw_client_is_held(client) ||
			 (request->reads && client->batch_mark == batch_number)))
		{
			at = &request->next;
			continue;
		}
		if (!gw_batch_has_room(batch, request))
			break;
		if (client != NULL && request->reads)
			client->batch_mark = batch_number;
		*at = request->next;
		gw_batch_add(batch, request);
	}
	if (*at == NULL)
		lane->queue_end = at;
	if (batch->count > 0)
		return batch;
	gw_batch_free(batch);
	return NULL;
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
 * that is not of this batch is dropped and logged.
 */
static void
deliver_rows(const Lane *lane, const GwBatch *batch, const GwOutcome *outcome)
{
	const GwRequest *request;
	size_t		expected = 0;
	size_t		row;

	for (request = batch->requests; request != NULL; request = request->next)
		if (request->kind == GW_FRAME_REQUEST ||
			request->kind == GW_FRAME_MALFORMED)
			expected++;
	for (row = 0; row < outcome->rows; row++)
	{
		int64_t		session;
		GwSpan		frame;
		GwClient   *client;

		if (!gw_outcome_row(outcome, row, &session, &frame) ||
			!batch_has_session(batch, session))
		{
			gw_log_event("error", "reply_unfit", lane->name);
			continue;
		}
		client = gw_client_find(session);
		if (client != NULL)
			gw_client_queue(client, frame.data[0] == GW_OPCODE_BINARY,
							frame.data + 1, frame.length - 1);
		else
			gw_counters.replies_undelivered++;
	}
	if (outcome->rows < expected)
	{
		gw_counters.replies_missing += expected - outcome->rows;
		gw_log_event("error", "reply_missing", lane->name);
	}
}

static bool
batch_has_session(const GwBatch *batch, int64_t session)
{
	const GwRequest *request = batch->requests;

	while (request != NULL && request->session != session)
		request = request->next;
	return request != NULL;
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
		end_request(lane, request, error, result);
	}
	gw_batch_free(batch);
}

/* end_request answers a request with the error, if any, and frees it. */
static void
end_request(const Lane *lane, GwRequest *request, const GwError *error,
			const char *result)
{
	GwClient   *client = gw_client_find(request->session);
	GwLogLine	line;

	gw_metric_request(lane->name, result, gw_now_ms() - request->arrived_ms);
	if (error != NULL && error->code == GW_ERROR_OUTCOME_UNKNOWN)
		gw_counters.outcomes_unknown++;
	if (client != NULL)
	{
		client->in_flight--;
		if (error != NULL)
			gw_client_answer(client, gw_request_header(request), error);
	}
	else if (error != NULL)
		gw_counters.replies_undelivered++;
	if (config->log_frames || error != NULL)
	{
		gw_log_begin(&line, error != NULL ? "warning" : "info", "frame");
		gw_log_number(&line, "connection", request->session);
		gw_log_text(&line, "lane", lane->name);
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
	gw_clients_release(request->length);
	gw_request_free(request);
}
