/*
 * queue.c
 *		Requests that wait to be sent, taken by turns.
 *
 * Each session has its own requests in the order in which they came, and a
 * turn: a number that grows by what is taken of it, in calls and bytes, and by
 * what its replies had when they have come. It is
 * the session's with the least number that goes next. Who has sent nothing
 * lately begins where the queue is, so that it goes before all that have much
 * in the queue, and gains nothing by having been silent. So 20 sessions that
 * send as much as they can make another wait for what was sent already, and for
 * nothing that they have queued.
 *
 * The turns lie in a wheel: nobody is ahead of the clock by more than one
 * request may cost; what replies have cost beyond that is forgotten. All that is done here costs the same however many sessions
 * and requests there are, but for gw_queue_restore. What cannot go yet is set
 * aside, with all that is behind it of the same session, and comes back.
 *
 * The queues of the short lane, of the long one and of claims that wait take
 * turns. That of a connection in the pool has one claim at most.
 */
#include "relay/queue.h"

/* What costs as much as one call. */
#define CALL_BYTES		65536

/* A request costs less than half of the wheel. */
#define COST_MAX		(GW_PLACES / 2 - 1)

static GwTurn *queue_turn(GwQueue *queue, const GwRequest *request);
static void turn_refund(GwQueue *queue, GwTurn *turn,
						const GwRequest *request);
static void queue_place(GwQueue *queue, GwTurn *turn);
static void queue_unplace(GwQueue *queue, GwTurn *turn);
static uint64_t request_cost(const GwRequest *request);

/* gw_queue_init makes an empty queue; GW_LANES: one without turns. */
void
gw_queue_init(GwQueue *queue, size_t index)
{
	size_t		i;

	queue->index = index;
	TAILQ_INIT(&queue->aside);
	for (i = 0; i < GW_PLACES; i++)
		TAILQ_INIT(&queue->wheel[i]);
}

void
gw_queue_append(GwQueue *queue, GwRequest *request)
{
	GwTurn	   *turn = queue_turn(queue, request);

	request->queued = true;
	queue->count++;
	if (turn->count++ == 0)
	{
		TAILQ_INIT(&turn->requests);
		queue_place(queue, turn);
	}
	TAILQ_INSERT_TAIL(&turn->requests, request, entry);
}

/*
 * gw_queue_return puts a request that was taken back in front of its session's
 * others. That it was taken has cost nothing then.
 */
void
gw_queue_return(GwQueue *queue, GwRequest *request)
{
	GwTurn	   *turn = queue_turn(queue, request);

	if (turn->count > 0)
		queue_unplace(queue, turn);
	else
		TAILQ_INIT(&turn->requests);
	turn_refund(queue, turn, request);
	request->queued = true;
	queue->count++;
	turn->count++;
	queue_place(queue, turn);
	TAILQ_INSERT_HEAD(&turn->requests, request, entry);
}

/* gw_queue_next returns the request whose turn it is; NULL if there is none. */
GwRequest *
gw_queue_next(const GwQueue *queue)
{
	size_t		i;

	for (i = 0; queue->sessions > 0 && i < GW_PLACES; i++)
	{
		const GwTurn *turn =
		TAILQ_FIRST(&queue->wheel[((queue->clock & ~UINT64_C(1)) + i) %
								  GW_PLACES]);

		if (turn != NULL)
			return TAILQ_FIRST(&turn->requests);
	}
	return NULL;
}

/* gw_queue_take takes out what gw_queue_next has returned, and returns it. */
GwRequest *
gw_queue_take(GwQueue *queue, GwRequest *request)
{
	GwTurn	   *turn = queue_turn(queue, request);

	queue_unplace(queue, turn);
	TAILQ_REMOVE(&turn->requests, request, entry);
	queue->clock = turn->at;
	turn->at = (turn->at + 2 * request_cost(request)) | 1;
	request->queued = false;
	queue->count--;
	if (--turn->count > 0)
		queue_place(queue, turn);
	return request;
}

/*
 * gw_queue_withdraw takes out what is queued, whosever turn it is, and costs
 * nothing. None may be set aside.
 */
void
gw_queue_withdraw(GwQueue *queue, GwRequest *request)
{
	GwTurn	   *turn = queue_turn(queue, request);

	queue_unplace(queue, turn);
	TAILQ_REMOVE(&turn->requests, request, entry);
	request->queued = false;
	queue->count--;
	if (--turn->count > 0)
		queue_place(queue, turn);
}

/*
 * gw_queue_charge counts what a session was replied. None may be set aside.
 */
void
gw_queue_charge(GwQueue *queue, GwIdentity *identity, size_t bytes)
{
	GwTurn	   *turn = &identity->turns[queue->index];
	uint64_t	most = (queue->clock | 1) + GW_PLACES - 2;
	uint64_t	cost = bytes / CALL_BYTES;

	if (cost == 0)
		return;
	if (cost > COST_MAX)
		cost = COST_MAX;
	if (turn->count > 0)
		queue_unplace(queue, turn);
	if (turn->at < queue->clock)
		turn->at = queue->clock;
	turn->at = (turn->at + 2 * cost) | 1;
	if (turn->at > most)
		turn->at = most;
	if (turn->count > 0)
		queue_place(queue, turn);
}

/* gw_queue_set_aside passes over a session until gw_queue_restore. */
void
gw_queue_set_aside(GwQueue *queue, const GwRequest *request)
{
	GwTurn	   *turn = queue_turn(queue, request);

	queue_unplace(queue, turn);
	TAILQ_INSERT_TAIL(&queue->aside, turn, entry);
}

/* gw_queue_restore puts back what was set aside. */
void
gw_queue_restore(GwQueue *queue)
{
	GwTurn	   *turn;

	while ((turn = TAILQ_FIRST(&queue->aside)) != NULL)
	{
		TAILQ_REMOVE(&queue->aside, turn, entry);
		queue_place(queue, turn);
	}
}

/* gw_queue_behind tells how many more of a request's session are queued. */
size_t
gw_queue_behind(GwQueue *queue, const GwRequest *request)
{
	return queue_turn(queue, request)->count;
}

static GwTurn *
queue_turn(GwQueue *queue, const GwRequest *request)
{
	return queue->index < GW_LANES ?
		&request->identity->turns[queue->index] : &queue->only;
}

/* turn_refund takes back what a request has cost its session. */
static void
turn_refund(GwQueue *queue, GwTurn *turn, const GwRequest *request)
{
	uint64_t	cost = 2 * request_cost(request);

	turn->at = turn->at > queue->clock + cost ? turn->at - cost : queue->clock;
}

/*
 * queue_place lets a session have its turn. Who comes when it has been its turn
 * already goes before those whose turn it is now, and behind others like it:
 * turns of sessions that had one are odd.
 */
static void
queue_place(GwQueue *queue, GwTurn *turn)
{
	if (turn->at <= queue->clock)
		turn->at = queue->clock & ~UINT64_C(1);
	TAILQ_INSERT_TAIL(&queue->wheel[turn->at % GW_PLACES], turn, entry);
	queue->sessions++;
}

static void
queue_unplace(GwQueue *queue, GwTurn *turn)
{
	TAILQ_REMOVE(&queue->wheel[turn->at % GW_PLACES], turn, entry);
	queue->sessions--;
}

static uint64_t
request_cost(const GwRequest *request)
{
	uint64_t	cost = request->calls + request->length / CALL_BYTES;

	return cost < COST_MAX ? cost : COST_MAX;
}
