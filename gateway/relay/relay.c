/*
 * relay.c
 *		Which lane a request takes, and the pool for claims that wait.
 *
 * Frames that arrived in one turn of the loop, on whatever sockets, become
 * one batch of their lane. Short publishes have a lane of their own, so that
 * a body of 30 MB or a large read on the other does not hold them up.
 *
 * Pieces of large bodies, up and down, have a queue that a few connections
 * share, each with one batch in flight; they are opened when they are first
 * needed. pool.c tells how many bytes of them there may be, and piece.c how
 * many one connection may have.
 *
 * Claims that wait for messages have a queue of their own, from which a small
 * pool of connections takes one at a time; they are opened when they are
 * first needed. One session has half of them at most; what it has sent beyond
 * that waits behind. How long such a claim waits is cut, the more so the more
 * sessions queue, and the more its own has queued, so that each has its turn
 * within MESSAGE_BUS_WAIT_SECS.
 */
#include "relay/relay.h"

#include <stdio.h>

#include "net/loop.h"
#include "relay/fill.h"
#include "relay/intake.h"
#include "relay/lane.h"
#include "relay/piece.h"
#include "relay/publishes.h"

/* What a batch may take beyond the time of one call before it is given up. */
#define GRACE_MS	5000

/* However many claims wait, each may wait so long. */
#define WAIT_LEAST_MS	100

static size_t lane_count;
static GwQueue waiting;			/* claims that no lane has taken yet */
static GwQueue bulk;			/* pieces of large bodies likewise */
static const GwConfig *config;

static void bulk_turn(void);
static void pool_turn(void);
static void pool_take_back(GwLane *lane);
static void pool_feed(GwLane *lane);
static long pool_share(void);
static long pool_has(int64_t session);
static long wait_limit(const GwLane *lane);

/* gw_relay_open opens the lanes and begins to connect them. */
bool
gw_relay_open(const GwConfig *settings)
{
	config = settings;
	gw_queue_init(&waiting, GW_LANE_WAIT);
	gw_queue_init(&bulk, GW_LANE_BULK);
	lane_count = GW_WAIT_FIRST + (size_t) config->wait_connections;
	gw_lanes_init(config, &bulk, &waiting);
	return gw_lane_open(&gw_lanes[GW_LANE_SHORT]) &&
		gw_lane_open(&gw_lanes[GW_LANE_LONG]);
}

/*
 * gw_relay_submit takes over a request: it is queued, or answered at once if
 * its lane cannot take it.
 */
void
gw_relay_submit(GwRequest *request)
{
	GwError		error = {0};
	GwLaneKind	kind = gw_request_lane(request);

	request->identity->pending++;
	if (gw_request_only_claims(request))
		request->identity->claiming++;
	if (kind == GW_LANE_WAIT)
		gw_queue_append(&waiting, request);
	else if (kind == GW_LANE_BULK)
		gw_queue_append(&bulk, request);
	else if (gw_lane_takes(&gw_lanes[kind], &error))
		gw_queue_append(&gw_lanes[kind].queue, request);
	else
		gw_request_end(kind, request, &error, GW_AWAY);
}

/*
 * gw_relay_ask takes over what a part of the gateway asks the database. It
 * returns false, and why, if the lane cannot take it: nothing was sent then,
 * and nobody is told.
 */
bool
gw_relay_ask(GwRequest *request, GwError *error)
{
	GwLaneKind	kind = gw_request_lane(request);

	if (kind != GW_LANE_BULK && !gw_lane_takes(&gw_lanes[kind], error))
	{
		gw_request_free(request);
		return false;
	}
	gw_queue_append(kind == GW_LANE_BULK ? &bulk : &gw_lanes[kind].queue,
					request);
	return true;
}

/*
 * gw_relay_withdraw has nobody told of what was asked, and frees it if it was
 * not sent yet: else who asks and goes, again and again, would fill the queue.
 */
void
gw_relay_withdraw(GwRequest *request)
{
	GwLaneKind	kind = gw_request_lane(request);

	request->asker = NULL;
	if (!request->queued)
		return;
	gw_queue_withdraw(kind == GW_LANE_BULK ? &bulk : &gw_lanes[kind].queue,
					  request);
	gw_request_end(kind, request, NULL, GW_DROPPED);
}

/*
 * gw_relay_over_limit tells the database of a message that was refused for its
 * size, if it can be told in the next batch: so that it is in the view errors.
 */
void
gw_relay_over_limit(GwIdentity *identity, const GwBuffer *message)
{
	GwLane	   *lane = &gw_lanes[GW_LANE_SHORT];
	GwError		error = {0};
	GwRequest  *request = NULL;
	bool		anonymous;
	size_t		limit = gw_intake_limit(identity, &anonymous);

	if (gw_lane_takes(lane, &error) && lane->queue.count < GW_BATCH_CALLS)
		request = gw_request_over_limit(identity, limit, anonymous, message);
	if (request != NULL)
		gw_queue_append(&lane->queue, request);
}

/*
 * gw_relay_greet has the database tell who a connection is, of which no whole
 * frame has come. It returns false if it cannot be asked, and why.
 */
bool
gw_relay_greet(GwIdentity *identity, GwError *error)
{
	GwLane	   *lane = &gw_lanes[GW_LANE_SHORT];
	GwRequest  *request;

	if (!gw_lane_takes(lane, error))
		return false;
	request = gw_request_open(identity);
	*error = gw_error_away("out of memory");
	if (request == NULL)
		return false;
	request->greets = true;
	identity->greeted = true;
	gw_queue_append(&lane->queue, request);
	return true;
}

/* gw_relay_turn, at the end of a turn of the loop, sends what is queued. */
void
gw_relay_turn(void)
{
	size_t		i;

	bulk_turn();
	pool_turn();
	gw_endings_send();
	for (i = 0; i < lane_count; i++)
		if (gw_lanes[i].queue.count > 0)
			gw_lane_turn(&gw_lanes[i], i < GW_WAIT_FIRST ? 0 :
						 wait_limit(&gw_lanes[i]));
}

/* gw_relay_sweep, once a second, gives up batches that take too long. */
void
gw_relay_sweep(void)
{
	int64_t		limit = config->tool_timeout * 1000 + GRACE_MS;
	size_t		i;

	for (i = 0; i < lane_count; i++)
	{
		const GwLane *lane = &gw_lanes[i];

		if (lane->in_flight > 0 &&
			gw_now_ms() - STAILQ_FIRST(&lane->flight)->head_ms > limit)
			gw_database_drop(lane->database,
							 "no answer within TOOL_TIMEOUT_SECS");
	}
}

/* gw_relay_is_new tells that a lane has not yet connected, nor failed to. */
bool
gw_relay_is_new(void)
{
	return gw_database_is_new(gw_lanes[GW_LANE_SHORT].database) ||
		gw_database_is_new(gw_lanes[GW_LANE_LONG].database);
}

bool
gw_relay_is_idle(void)
{
	size_t		i;

	for (i = 0; i < lane_count; i++)
		if (gw_lanes[i].queue.count > 0 || gw_lanes[i].in_flight > 0)
			return false;
	return waiting.count == 0 && bulk.count == 0;
}

/*
 * gw_relay_reasons appends why lanes cannot take requests, or the bus no
 * publishes, as JSON strings separated by commas; with names of hosts, logins
 * and roles if it is for the operator.
 */
void
gw_relay_reasons(GwBuffer *reasons, bool operator)
{
	const char *refused = gw_publishes_refused();
	const char *bus = gw_database_bus(gw_lanes[GW_LANE_SHORT].database);
	char		string[640];
	size_t		i;

	if (refused != NULL)
		gw_buffer_json(reasons, refused);
	if (refused != NULL && bus != NULL)
		gw_buffer_text(reasons, ",");
	if (bus != NULL)
	{
		(void) snprintf(string, sizeof(string),
						"the bus takes no publishes: %s", bus);
		gw_buffer_json(reasons, string);
	}
	for (i = 0; i < GW_BULK_FIRST; i++)
	{
		GwError		error = {0};

		if (gw_lane_takes(&gw_lanes[i], &error))
			continue;
		(void) snprintf(string, sizeof(string), "%s lane: %s",
						gw_lane_names[i],
						operator && !gw_database_is_ready(gw_lanes[i].database) ?
						gw_database_reason(gw_lanes[i].database) :
						error.detail);
		if (reasons->length > 0)
			gw_buffer_text(reasons, ",");
		gw_buffer_json(reasons, string);
	}
}

/* gw_relay_lane_state adds up what the lanes of one kind are doing. */
GwLaneState
gw_relay_lane_state(GwLaneKind kind)
{
	GwLaneState state = {0};
	size_t		i;

	for (i = 0; i < lane_count; i++)
	{
		const GwLane *lane = &gw_lanes[i];

		if (lane->database == NULL || lane->kind != kind)
			continue;
		state.connections++;
		if (gw_database_is_ready(lane->database))
			state.ready++;
		if (gw_now_ms() < lane->closed_until)
			state.breakers_open++;
		state.queued += lane->queue.count;
		state.in_flight += lane->in_flight;
	}
	if (kind == GW_LANE_WAIT)
		state.queued += waiting.count;
	else if (kind == GW_LANE_BULK)
		state.queued += bulk.count;
	return state;
}

/* gw_relay_drain gives up what has not ended when the time to drain is up. */
void
gw_relay_drain(void)
{
	GwError		away = gw_error_away("the gateway is stopping");
	size_t		i;

	for (i = 0; i < lane_count; i++)
		if (gw_lanes[i].database != NULL)
			gw_database_drop(gw_lanes[i].database, away.detail);
	gw_queue_refuse(&bulk, GW_LANE_BULK, &away);
	gw_queue_refuse(&waiting, GW_LANE_WAIT, &away);
}

void
gw_relay_close(void)
{
	size_t		i;

	for (i = 0; i < lane_count; i++)
		if (gw_lanes[i].database != NULL)
			gw_database_free(gw_lanes[i].database);
}

/*
 * bulk_turn has the connections for bulk take from the queue that they share,
 * each as it is free. One more is opened while those there are have no time; if
 * there is none to hope for the requests are refused.
 */
static void
bulk_turn(void)
{
	GwError		error = gw_error_away("out of memory");
	bool		hope = false;
	bool		busy = true;
	size_t		i;

	if (bulk.count == 0)
		gw_pieces_unreserve(true);
	for (i = GW_BULK_FIRST; i < GW_WAIT_FIRST && bulk.count > 0 && busy; i++)
	{
		GwLane	   *lane = &gw_lanes[i];

		if (lane->database == NULL && !gw_lane_open(lane))
			break;
		if (gw_lane_takes(lane, &error))
		{
			hope = true;
			gw_lane_turn(lane, 0);
			busy = lane->in_flight == lane->depth;
		}
		else if (gw_database_is_new(lane->database))
		{
			hope = true;
			busy = false;
		}
	}
	if (!hope)
		gw_queue_refuse(&bulk, GW_LANE_BULK, &error);
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

	for (i = GW_WAIT_FIRST; i < lane_count && waiting.count > 0; i++)
	{
		GwLane	   *lane = &gw_lanes[i];

		if (lane->database == NULL && !gw_lane_open(lane))
			break;
		if (gw_lane_takes(lane, &error))
		{
			hope = true;
			if (lane->in_flight == 0)
				pool_take_back(lane);
			if (lane->queue.count == 0 && lane->in_flight == 0)
				pool_feed(lane);
		}
		else if (gw_database_is_new(lane->database))
		{
			hope = true;
			break;
		}
	}
	if (!hope)
		gw_queue_refuse(&waiting, GW_LANE_WAIT, &error);
}

/* pool_take_back takes a claim from a lane whose client had no room for it. */
static void
pool_take_back(GwLane *lane)
{
	GwRequest  *request = gw_queue_next(&lane->queue);

	if (request != NULL && request->control == 0)
		gw_queue_return(&waiting, gw_queue_take(&lane->queue, request));
}

/*
 * pool_feed hands a lane the next claim whose client has room for a reply, and
 * whose session has not its share of the pool.
 */
static void
pool_feed(GwLane *lane)
{
	GwRequest  *request;

	while ((request = gw_queue_next(&waiting)) != NULL)
	{
		const GwClient *client = request->identity->client;

		gw_lane_weigh(request);
		if (client == NULL)
			gw_request_end(lane->kind, gw_queue_take(&waiting, request), NULL,
						   GW_DROPPED);
		else if (pool_has(request->identity->session) >= pool_share() ||
				 !gw_client_has_room(client, request->reply))
			gw_queue_set_aside(&waiting, request);
		else
		{
			gw_queue_append(&lane->queue, gw_queue_take(&waiting, request));
			lane->session = request->identity->session;
			break;
		}
	}
	gw_queue_restore(&waiting);
}

/* pool_share tells how many connections of the pool a session may have. */
static long
pool_share(void)
{
	return (config->wait_connections + 1) / 2;
}

/* pool_has tells how many connections of the pool a session has. */
static long
pool_has(int64_t session)
{
	long		count = 0;
	size_t		i;

	for (i = GW_WAIT_FIRST; i < lane_count; i++)
	{
		const GwLane *lane = &gw_lanes[i];

		if (lane->session == session &&
			(lane->in_flight > 0 || lane->queue.count > 0))
			count++;
	}
	return count;
}

/*
 * wait_limit returns how long the next claim of a lane may wait, in ms: so
 * long that other sessions that queue for the pool, and what its own session
 * has queued behind it, have their turn within MESSAGE_BUS_WAIT_SECS.
 */
static long
wait_limit(const GwLane *lane)
{
	const GwRequest *request = gw_queue_next(&lane->queue);
	long		limit = config->wait_secs * 1000;
	long		own = request == NULL ? 0 :
	(long) gw_queue_behind(&waiting, request);
	long		others = (long) waiting.sessions - (own > 0 ? 1 : 0);

	/* A frame that takes longer than TOOL_TIMEOUT_SECS is an error. */
	if (limit > config->tool_timeout * 500)
		limit = config->tool_timeout * 500;
	limit = limit * config->wait_connections /
		(config->wait_connections + others);
	limit = limit * pool_share() / (pool_share() + own);
	return limit > WAIT_LEAST_MS ? limit : WAIT_LEAST_MS;
}
