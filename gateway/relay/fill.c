/*
 * fill.c
 *		Which requests go into a lane's next batch.
 *
 * A batch takes requests by turns of sessions (queue.c), as long as there is
 * room: in the batch, for what it may bring, and with each client.
 */
#include "relay/fill.h"

#include "relay/client.h"
#include "relay/piece.h"

/* What a batch may bring: so many replies of the largest size. */
#define REPLIES_TIMES	4

static const GwConfig *config;
static uint64_t batch_number;

static bool fill_from(const GwFill *fill, GwBatch *batch, GwQueue *queue);
static bool fill_passes_over(const GwFill *fill, const GwRequest *request);
static bool client_takes(GwClient *client, const GwRequest *request);
static bool is_known(const GwFill *fill, const GwRequest *request);
static bool open_session(const GwFill *fill, GwBatch *batch,
						 GwIdentity *identity);

void
gw_fill_init(const GwConfig *settings)
{
	config = settings;
}

/*
 * gw_batch_fill moves requests from a lane's queue, and from the one that it
 * shares with others (or NULL), into a new batch. It returns NULL if none can
 * go.
 */
GwBatch *
gw_batch_fill(const GwFill *fill, GwQueue *own, GwQueue *shared)
{
	GwBatch    *batch = gw_batch_create();

	if (batch == NULL)
		return NULL;
	batch_number++;
	fill_from(fill, batch, own);
	if (shared != NULL)
	{
		gw_pieces_unreserve(fill_from(fill, batch, shared));
	}
	if (batch->count > 0)
		return batch;
	gw_batch_free(batch);
	return NULL;
}

/*
 * fill_from moves requests from a queue into a batch, by turns, each session's
 * first behind what opens it. What a client has no room for, or more than one
 * reply's worth of one client, stays behind, and all behind it that is of the
 * same client; so does a frame of many calls while another one is in flight:
 * who comes meanwhile waits for one of them, not for two. Pieces of bodies are
 * not read for a socket that has gone. It returns whether all were looked at.
 */
static bool
fill_from(const GwFill *fill, GwBatch *batch, GwQueue *queue)
{
	bool		bulk = fill->kind == GW_LANE_BULK;
	size_t		bytes = bulk ? GW_BULK_BYTES : GW_BATCH_BYTES;
	size_t		replies = bulk ? GW_BULK_REPLIES :
	REPLIES_TIMES * (size_t) config->max_message;
	GwRequest  *request;

	while ((request = gw_queue_next(queue)) != NULL)
	{
		GwClient   *client = request->identity->client;
		bool		known = is_known(fill, request);
		bool		fits;

		if (bulk && client == NULL && request->brings)
		{
			fill->drop(fill->kind, gw_queue_take(queue, request), NULL,
					   GW_DROPPED);
			continue;
		}
		gw_lane_weigh(request);
		fits = gw_batch_has_room(batch, request, known ? 0 : 1, bytes,
								 replies);
		if (fill_passes_over(fill, request) ||
			(fits && bulk && client != NULL &&
			 !gw_piece_hold(&client->replies, request)))
		{
			gw_queue_set_aside(queue, request);
			continue;
		}
		if (!fits ||
			(!known && !open_session(fill, batch, request->identity)))
			break;
		if (client != NULL)
		{
			client->batch_replies += request->reply;
			request->expected = request->reply;
			client->replies.expected += request->expected;
		}
		if (request->control == GW_CONTROL_CLOSE)
			gw_identity_mark(request->identity, fill->connection, 0, 0);
		gw_batch_add(batch, gw_queue_take(queue, request));
	}
	gw_queue_restore(queue);
	return request == NULL;
}

/* fill_passes_over tells that a request cannot go now, but others may. */
static bool
fill_passes_over(const GwFill *fill, const GwRequest *request)
{
	GwClient   *client = request->identity->client;

	return (client != NULL && request->control == 0 &&
			(!client_takes(client, request) ||
			 (fill->kind == GW_LANE_BULK && request->brings &&
			  gw_pieces_are_many(&client->replies)))) ||
		(request->calls > GW_CALLS_FEW && fill->has_many) ||
		(request->alone && fill->has_alone);
}

/*
 * client_takes tells whether a client has room for what a request may bring
 * beside what the batch has of it already.
 */
static bool
client_takes(GwClient *client, const GwRequest *request)
{
	if (client->batch_mark != batch_number)
		client->batch_replies = 0;
	client->batch_mark = batch_number;
	return gw_client_has_room(client, request->reply) &&
		(client->batch_replies == 0 ||
		 client->batch_replies + request->reply <=
		 (size_t) config->max_message);
}

/* gw_lane_weigh notes what a request may bring its client. */
void
gw_lane_weigh(GwRequest *request)
{
	size_t		limit = request->identity->limit;

	if (limit == 0)
		limit = (size_t) config->client_max;
	if (limit > (size_t) config->max_message)
		limit = (size_t) config->max_message;
	gw_request_weigh(request, limit);
}

/* is_known tells whether a request can go without what opens its session. */
static bool
is_known(const GwFill *fill, const GwRequest *request)
{
	bool		alone = request->control == GW_CONTROL_OPEN ||
	request->control == GW_CONTROL_CLOSE || request->nobody;

	return !gw_config_authenticates(config) || alone ||
		gw_identity_is_open(request->identity, fill->connection,
							fill->generation);
}

/* open_session adds what opens a session; false if out of memory. */
static bool
open_session(const GwFill *fill, GwBatch *batch, GwIdentity *identity)
{
	GwRequest  *request = gw_request_open(identity);

	if (request == NULL)
		return false;
	gw_identity_mark(identity, fill->connection, fill->generation,
					 identity->version);
	gw_batch_add(batch, request);
	return true;
}
