/*
 * queue_test.c
 *		Whose turn it is.
 */
#include "relay/queue.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

static GwQueue queue;

static GwIdentity *
session(void)
{
	GwBuffer	none = {0};

	return gw_identity_create(&none);
}

/* put queues a request of so many calls. */
static void
put(GwIdentity *identity, size_t calls)
{
	GwBuffer	message = {0};
	GwRequest  *request;

	gw_buffer_text(&message, "\1{\"id\":1}");
	request = gw_request_create(identity, &message, 0);
	request->calls = calls;
	gw_queue_append(&queue, request);
}

/* take frees the request whose turn it is, and returns its session. */
static const GwIdentity *
take(void)
{
	GwRequest  *request = gw_queue_next(&queue);
	const GwIdentity *identity;

	if (request == NULL)
		return NULL;
	identity = request->identity;
	gw_request_free(gw_queue_take(&queue, request));
	return identity;
}

static void
turn_tests(void)
{
	GwIdentity *greedy = session();
	GwIdentity *other = session();
	GwIdentity *modest = session();
	size_t		of_greedy = 0;
	size_t		i;

	for (i = 0; i < 20; i++)
	{
		put(greedy, 60);
		put(other, 60);
	}
	(void) take();
	(void) take();
	(void) take();
	put(modest, 1);
	put(modest, 1);
	ok(take() == modest,
	   "who has sent little goes before all that others have queued");
	(void) take();
	ok(take() == modest, "also with its next");
	for (i = 0; i < 16; i++)
		of_greedy += take() == greedy;
	ok(of_greedy == 8, "others take turns");
	put(modest, 1);
	ok(take() == modest, "and again");
	while (take() != NULL)
		continue;
	ok(queue.count == 0 && queue.sessions == 0, "all come in the end");
	gw_identity_release(greedy);
	gw_identity_release(other);
	gw_identity_release(modest);
}

/*
 * reply_tests: what a session is replied counts, when it has come; what is put
 * back has cost nothing.
 */
static void
reply_tests(void)
{
	GwIdentity *reader = session();
	GwIdentity *other = session();
	GwRequest  *request;
	size_t		of_reader = 0;
	size_t		i;

	for (i = 0; i < 200; i++)
	{
		put(reader, 1);
		put(other, 1);
	}
	for (i = 0; i < 180; i++)
	{
		if (take() != reader)
			continue;
		of_reader++;
		gw_queue_charge(&queue, reader, 1024 * 1024);
	}
	ok(of_reader >= 8 && of_reader <= 12,
	   "a reply of 1 MiB counts as much as 16 calls");
	gw_queue_charge(&queue, reader, SIZE_MAX);
	gw_queue_charge(&queue, reader, SIZE_MAX);
	put(reader, SIZE_MAX);
	for (i = 0; take() != NULL; i++)
		continue;
	ok(i == 221 && queue.count == 0, "however large, its session comes again");

	gw_queue_charge(&queue, reader, 1024 * 1024);
	put(reader, 1);
	put(other, 1);
	ok(take() == other, "also when it had nothing in the queue");
	(void) take();

	for (i = 0; i < 4; i++)
	{
		put(reader, 1);
		put(other, 1);
	}
	request = gw_queue_next(&queue);
	for (i = 0; i < 20; i++)
		gw_queue_return(&queue, gw_queue_take(&queue, request));
	of_reader = 0;
	for (i = 0; i < 4; i++)
		of_reader += take() == reader;
	ok(of_reader == 2, "what is taken and put back costs nothing");
	while (take() != NULL)
		continue;
	gw_identity_release(reader);
	gw_identity_release(other);
}

static void
order_tests(void)
{
	GwIdentity *one = session();
	GwIdentity *two = session();
	GwRequest  *first;

	put(one, 1);
	put(one, 2);
	put(two, 3);
	first = gw_queue_next(&queue);
	ok(first->calls == 1, "requests of a session keep their order");
	gw_queue_set_aside(&queue, first);
	ok(gw_queue_next(&queue)->calls == 3, "who is set aside is passed over");
	(void) take();
	ok(gw_queue_next(&queue) == NULL, "with all that is behind it");
	gw_queue_restore(&queue);
	ok(gw_queue_next(&queue) == first && gw_queue_behind(&queue, first) == 2,
	   "and comes back");
	(void) gw_queue_take(&queue, first);
	gw_queue_return(&queue, first);
	ok(gw_queue_next(&queue) == first, "what is returned goes first again");
	ok(first->queued, "it is queued");
	gw_queue_withdraw(&queue, first);
	ok(!first->queued && queue.count == 1 &&
	   gw_queue_next(&queue)->calls == 2, "what is withdrawn lets others go");
	gw_request_free(first);
	while (take() != NULL)
		continue;
	gw_identity_release(one);
	gw_identity_release(two);
}

void
queue_tests(void)
{
	gw_queue_init(&queue, GW_LANE_SHORT);
	turn_tests();
	reply_tests();
	order_tests();
}
