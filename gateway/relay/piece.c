/*
 * piece.c
 *		Pieces of large bodies of one connection, up and down.
 *
 * Up. That a message is an append is seen when its first bytes have come (or,
 * if these say nothing yet, when there are LOOK_MORE). From then on it holds
 * room for what has come of it and STEP beyond, of what all have (pool.c), and
 * where there is none its socket is not read from, so that its sender's TCP
 * waits. Nothing is ever refused for want of it. So a slow sender holds what it has
 * sent, not what it has announced. One of over GW_APPEND_MAX is refused: none
 * is so large that the database takes. What is seen late is counted when it is
 * whole, whether there is room or not. A connection with UNANSWERED_MAX of
 * whole appends that are not answered is not read from until one is.
 *
 * Down. Before the database is asked for a piece there must be room for it; a
 * connection with UNREAD_MAX of pieces that it has not read, or that are on
 * their way, gets no more. Those that find no room wait as one, by turns of
 * their sessions, among others who wait.
 */
#include "relay/piece.h"

#include <stdio.h>

#include "request/frame.h"

/* An append that is put together has room for so much more than came. */
#define STEP			((size_t) 64 * 1024)

/* What does not show its method at once is looked at again with so much. */
#define LOOK_MORE		((size_t) 64 * 1024)

/* A connection may have so much of whole appends unanswered ... */
#define UNANSWERED_MAX	((size_t) 2 * 1024 * 1024)

/* ... and of pieces unread, before there is no more. */
#define UNREAD_MAX		((size_t) 2 * 1024 * 1024)

static GwHold reserved;			/* for what reads next: it has waited */
static GwPoolWaiter readers;
static bool needed;				/* room that there was not */

static void readers_room(void *owner);
static bool is_append(const GwBuffer *message);

void
gw_appends_init(GwAppends *appends, void (*room) (void *owner), void *owner)
{
	gw_hold_init(&appends->hold, GW_POOL_UP);
	appends->waiter.fire = room;
	appends->waiter.owner = owner;
}

/*
 * gw_appends_gather lets a message that is put together, if it is an append,
 * hold room for what has come of it and for what comes next of the `more` bytes
 * that are known. If there is none it returns false, and it has to wait.
 */
bool
gw_appends_gather(GwAppends *appends, const GwBuffer *message, size_t more)
{
	size_t		next = message->length + (more < STEP ? more : STEP);

	if (!appends->gathers && (appends->looked == 0 ||
							  (appends->looked < LOOK_MORE &&
							   message->length >= LOOK_MORE)))
	{
		appends->looked = message->length;
		appends->gathers = is_append(message);
	}
	if (!appends->gathers)
		return true;
	if (appends->hold.bytes < message->length)
		gw_hold_set(&appends->hold, message->length);
	if (!appends->waiter.waiting && gw_hold_raise(&appends->hold, next))
		return true;
	appends->waiter.needs = next - appends->hold.bytes;
	gw_pool_wait(GW_POOL_UP, &appends->waiter);
	return false;
}

/*
 * gw_append_fits tells whether what is put together, of so many bytes, may be
 * so large, and if not, why: the database takes none that is larger.
 */
bool
gw_append_fits(const GwAppends *appends, size_t bytes, char *why)
{
	if (!appends->gathers || bytes <= GW_APPEND_MAX)
		return true;
	(void) snprintf(why, GW_DETAIL_MAX, "An upload_append has %zu bytes at most.",
					GW_APPEND_MAX);
	return false;
}

/* is_append tells whether the beginning of a message says what it is. */
static bool
is_append(const GwBuffer *message)
{
	GwSpan		json = gw_frame_header(message->data[0], message->data + 1,
									   message->length - 1);
	GwFrame		frame = gw_frame_read(json);

	return gw_span_is(frame.method, GW_APPENDS);
}

/*
 * gw_appends_take gives a whole message's hold to the request that was made of
 * it, which counts as unanswered then; if it is no append, to nobody.
 */
void
gw_appends_take(GwAppends *appends, GwRequest *request)
{
	if (gw_request_lane(request) == GW_LANE_BULK && !request->brings)
	{
		request->hold = appends->hold;
		gw_hold_init(&appends->hold, GW_POOL_UP);
		gw_hold_set(&request->hold, request->length);
		appends->unanswered += request->length;
	}
	gw_appends_forget(appends);
}

/* gw_appends_forget gives back what an unfinished append holds. */
void
gw_appends_forget(GwAppends *appends)
{
	gw_hold_release(&appends->hold);
	gw_pool_leave(GW_POOL_UP, &appends->waiter);
	appends->gathers = false;
	appends->looked = 0;
}

/* gw_appends_are_many tells that no more is read for now, for appends. */
bool
gw_appends_are_many(const GwAppends *appends)
{
	return appends->waiter.waiting || appends->unanswered >= UNANSWERED_MAX;
}

/* gw_pieces_are_many tells that a client gets no more pieces for now. */
bool
gw_pieces_are_many(const GwReplies *replies)
{
	return replies->bulk >= UNREAD_MAX;
}

/*
 * gw_piece_hold holds room for what a client's request on lane bulk may bring,
 * if it reads. It returns false if there is none; then it is waited for.
 */
bool
gw_piece_hold(GwReplies *replies, GwRequest *request)
{
	if (!request->brings || request->hold.bytes > 0)
		return true;
	gw_hold_init(&request->hold, GW_POOL_DOWN);
	if (reserved.bytes >= request->reply)
	{
		gw_hold_release(&reserved);
		gw_hold_set(&request->hold, request->reply);
	}
	else if (!gw_hold_raise(&request->hold, request->reply))
	{
		readers.fire = readers_room;
		/* The first that is looked at is next. */
		if (!needed || !readers.waiting)
			readers.needs = request->reply;
		needed = true;
		gw_pool_wait(GW_POOL_DOWN, &readers);
		return false;
	}
	replies->bulk += request->hold.bytes;
	return true;
}

/* readers_room reserves room for what waits to be read. */
static void
readers_room(void *owner)
{
	(void) owner;
	gw_hold_init(&reserved, GW_POOL_DOWN);
	gw_hold_set(&reserved, readers.needs);
}

/*
 * gw_pieces_unreserve, when requests were looked at, gives back what was
 * reserved, if nobody needed it. If all were, and none has found too little
 * room, the one that waited for it has gone.
 */
void
gw_pieces_unreserve(bool all_looked_at)
{
	gw_hold_release(&reserved);
	if (all_looked_at && !needed)
		gw_pool_leave(GW_POOL_DOWN, &readers);
	needed = false;
}

/*
 * gw_piece_end gives back what a request holds, of a client whose appends and
 * replies these are, or NULL if it has gone.
 */
void
gw_piece_end(GwAppends *appends, GwReplies *replies, GwRequest *request)
{
	if (appends != NULL && request->hold.use == GW_POOL_UP)
		appends->unanswered -= request->hold.bytes;
	else if (replies != NULL)
		replies->bulk -= request->hold.bytes;
	gw_hold_release(&request->hold);
}
