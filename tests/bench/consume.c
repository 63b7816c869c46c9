/*-------------------------------------------------------------------------
 *
 * consume.c
 *	  Claim and ack messages, from the bus or from a base.
 *
 * Usage:	bench_consume [-c CONSUMERS] [-b BATCH] [-s SECONDS] [-n MESSAGES]
 *				[-u MESSAGES] [-B CHANNEL | -C CHANNELS] [-e]
 *				[-p PUBLISHERS -k MOST [-m CALL]] [-o SQL] [-q SQL] KIND
 *
 * The server is named by libpq's environment variables.  KIND (see take.c)
 * says what is claimed from; each claim of at most BATCH messages is followed
 * by its ack, which may be in the next claim, by each of the consumers, which
 * have a connection and a thread each.  With -C they claim from the channels bench_1, bench_2 ... in turn,
 * else from CHANNEL ("bench").
 *
 * With -e each consumer is a reader of its own, bench_1, bench_2 ..., and
 * gets all messages; a message then counts as often as it is acked.
 *
 * Without -p it takes what is there: it ends when MESSAGES are acked or
 * SECONDS have passed.  With -p there are publishers too, who publish by
 * CALL (see load.c) whenever fewer than MOST messages are published and not
 * acked.  Then the load is steady, and MESSAGES or SECONDS end it likewise.
 * The first -u messages are not counted: the clock starts after them.
 *
 * When the clock starts, the statements of -o are run by a connection that
 * is left alone then, with whatever transaction it is in.  The query of -q is
 * run every half second, and must return a number.
 *
 * It prints names and values: messages, seconds, rate (messages a second),
 * percentiles of claims and acks in microseconds, claim_rate (the messages
 * that one consumer would claim a second if acks took no time); for a run of
 * 30 seconds or more first_rate and last_rate (of its first and last sixth)
 * and rates (of each sixth); with -q, "size" (the highest value) and
 * "size_first" and "size_last" (the highest during the first and the last
 * quarter of the messages).
 *
 * It fails if a message came twice or an ack was not of all that was claimed.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "client.h"
#include "take.h"

#define MAX_THREADS 64
#define PARTS 6
#define LONG_RUN 30				/* seconds */
#define IDLE_NS INT64_C(500000)
#define SAMPLE_NS INT64_C(500000000)

/* a claim and its ack */
typedef struct Cycle
{
	int64_t		end;			/* in ns */
	int64_t		claim;
	int64_t		ack;
	int			n;
} Cycle;

typedef struct Consumer
{
	pthread_t	thread;
	PGconn	   *pg;
	int			turn;			/* number of the channel */
	char		reader[20];
	Taken		taken;
	Cycle	   *cycles;
	size_t		ncycles;
	size_t		cycle_room;
	int64_t    *ids;			/* all it has got */
	size_t		nids;
	size_t		id_room;
} Consumer;

typedef struct Publisher
{
	pthread_t	thread;
	PGconn	   *pg;
	Call	   *calls;
} Publisher;

/* a value of -q */
typedef struct Size
{
	int64_t		acked;			/* messages by then */
	int64_t		value;
} Size;

static const TakeKind *kind;
static const CallKind *publishing;
static int	consumers = 1;
static int	publishers = 0;
static int	batch = 100;
static int	channels = 0;
static bool everything = false;
static double seconds = 3600;
static int64_t most = 10000;	/* published and not acked */
static int64_t max_messages = INT64_MAX;
static int64_t uncounted = 0;
static const char *once = NULL;
static const char *sampled = NULL;

static int64_t acked;			/* atomic, as the next three are */
static int64_t published;
static int64_t started = INT64_MAX;
static bool done;
static Size *sizes;
static size_t nsizes;
static pthread_barrier_t barrier;

/* ----------
 * Consumers and publishers
 * ----------
 */

static int64_t
load(const int64_t *value)
{
	return __atomic_load_n(value, __ATOMIC_RELAXED);
}

static bool
is_done(void)
{
	return __atomic_load_n(&done, __ATOMIC_RELAXED);
}

static const char *
next_channel(Consumer *consumer, char *buffer, size_t size)
{
	if (channels == 0)
		return call_options.channel;
	snprintf(buffer, size, "bench_%d", consumer->turn % channels + 1);
	consumer->turn += consumers;
	return buffer;
}

/* Remembers a cycle and the ids that it was of. */
static void
consumer_note(Consumer *consumer, const Cycle *cycle)
{
	if (consumer->ncycles == consumer->cycle_room)
	{
		consumer->cycle_room = 2 * consumer->cycle_room + 4096;
		consumer->cycles = enlarge(consumer->cycles,
								   consumer->cycle_room * sizeof(Cycle));
	}
	consumer->cycles[consumer->ncycles++] = *cycle;
	if (consumer->nids + (size_t) cycle->n > consumer->id_room)
	{
		consumer->id_room = 2 * consumer->id_room + 65536 + (size_t) cycle->n;
		consumer->ids = enlarge(consumer->ids,
								consumer->id_room * sizeof(int64_t));
	}
	memcpy(consumer->ids + consumer->nids, consumer->taken.ids,
		   (size_t) cycle->n * sizeof(int64_t));
	consumer->nids += (size_t) cycle->n;
}

static void *
consumer_main(void *arg)
{
	Consumer   *consumer = arg;
	char		name[32];

	pthread_barrier_wait(&barrier);
	while (!is_done() && load(&acked) < max_messages)
	{
		const char *channel = next_channel(consumer, name, sizeof(name));
		int64_t		begin = now_ns();
		int64_t		claimed;
		Cycle		cycle;

		cycle.n = take_claim(kind, consumer->pg, channel, &consumer->taken);
		if (cycle.n == 0)
		{
			sleep_ns(IDLE_NS);
			continue;
		}
		claimed = now_ns();
		if (!take_joined(kind))
			take_ack(kind, consumer->pg, &consumer->taken);
		cycle.end = now_ns();
		cycle.claim = claimed - begin;
		cycle.ack = cycle.end - claimed;
		consumer_note(consumer, &cycle);
		__atomic_fetch_add(&acked, cycle.n, __ATOMIC_RELAXED);
	}
	if (take_joined(kind) && consumer->taken.n > 0)
		take_ack(kind, consumer->pg, &consumer->taken);
	return NULL;
}

static void *
publisher_main(void *arg)
{
	Publisher  *publisher = arg;
	int			n = call_messages(publishing);
	long		i;

	pthread_barrier_wait(&barrier);
	for (i = 0; !is_done() && load(&published) < max_messages;)
	{
		if (load(&published) - load(&acked) >= most)
		{
			sleep_ns(IDLE_NS / 5);
			continue;
		}
		__atomic_fetch_add(&published, n, __ATOMIC_RELAXED);
		call_send(publishing, publisher->pg, publisher->calls, i++);
	}
	return NULL;
}

/* Runs the query of -q until the end. */
static void *
sampler_main(void *arg)
{
	PGconn	   *pg = arg;
	size_t		room = 0;

	while (!is_done())
	{
		if (nsizes == room)
		{
			room = 2 * room + 1024;
			sizes = enlarge(sizes, room * sizeof(Size));
		}
		sizes[nsizes].acked = load(&acked);
		sizes[nsizes++].value = pg_number(pg, sampled);
		sleep_ns(SAMPLE_NS);
	}
	return NULL;
}

/* ----------
 * Figures
 * ----------
 */

/* Ends the program if a message came twice to consumers that share them. */
static void
check_distinct(const Consumer *all, int n)
{
	int64_t    *ids;
	size_t		nids = 0;
	size_t		i;
	int			c;

	for (c = 0; c < n; c++)
		nids += all[c].nids;
	ids = allocate((nids + 1) * sizeof(int64_t));
	nids = 0;
	for (c = 0; c < n; c++)
	{
		if (all[c].nids > 0)
			memcpy(ids + nids, all[c].ids, all[c].nids * sizeof(int64_t));
		nids += all[c].nids;
	}
	sort_numbers(ids, nids);
	for (i = 1; i < nids; i++)
	{
		if (ids[i] == ids[i - 1])
			die("claim", "a message came twice");
	}
	free(ids);
}

/* The rate of messages acked after "from" and until "to". */
static double
rate_between(const Consumer *all, int64_t from, int64_t to)
{
	int64_t		n = 0;
	size_t		i;
	int			c;

	for (c = 0; c < consumers; c++)
	{
		for (i = 0; i < all[c].ncycles; i++)
		{
			if (all[c].cycles[i].end > from && all[c].cycles[i].end <= to)
				n += all[c].cycles[i].n;
		}
	}
	return (double) n / ((double) (to - from) / 1e9);
}

static void
report_latencies(const char *name, int64_t *values, size_t n)
{
	sort_numbers(values, n);
	printf(" %s_p50_us %.1f %s_p99_us %.1f %s_max_us %.1f",
		   name, percentile_us(values, n, 0.5),
		   name, percentile_us(values, n, 0.99),
		   name, percentile_us(values, n, 1));
}

static void
report_parts(const Consumer *all, int64_t to)
{
	int64_t		length = (to - started) / PARTS;
	double		rates[PARTS];
	int			i;

	for (i = 0; i < PARTS; i++)
		rates[i] = rate_between(all, started + i * length,
								started + (i + 1) * length);
	printf(" first_rate %.1f last_rate %.1f rates ", rates[0],
		   rates[PARTS - 1]);
	for (i = 0; i < PARTS; i++)
		printf("%s%.0f", i == 0 ? "" : ",", rates[i]);
}

static void
report_sizes(void)
{
	int64_t		total = load(&acked);
	int64_t		highest[3] = {0};	/* of all, first quarter, last quarter */
	size_t		i;

	for (i = 0; i < nsizes; i++)
	{
		const Size *size = &sizes[i];

		if (size->value > highest[0])
			highest[0] = size->value;
		if (size->acked <= total / 4 && size->value > highest[1])
			highest[1] = size->value;
		if (size->acked >= total - total / 4 && size->value > highest[2])
			highest[2] = size->value;
	}
	printf(" size %lld size_first %lld size_last %lld",
		   (long long) highest[0], (long long) highest[1],
		   (long long) highest[2]);
}

static void
report(const Consumer *all)
{
	int64_t		to = started;
	int64_t    *claims;
	int64_t    *acks;
	int64_t		claim_ns = 0;
	int64_t		messages = 0;
	size_t		ncycles = 0;
	size_t		n = 0;
	size_t		i;
	int			c;

	for (c = 0; c < consumers; c++)
		ncycles += all[c].ncycles;
	claims = allocate((ncycles + 1) * sizeof(int64_t));
	acks = allocate((ncycles + 1) * sizeof(int64_t));
	for (c = 0; c < consumers; c++)
	{
		for (i = 0; i < all[c].ncycles; i++)
		{
			const Cycle *cycle = &all[c].cycles[i];

			if (cycle->end <= started)
				continue;
			if (cycle->end > to)
				to = cycle->end;
			messages += cycle->n;
			claim_ns += cycle->claim;
			claims[n] = cycle->claim;
			acks[n++] = cycle->ack;
		}
	}
	if (n == 0)
		die("claims", "none has ended");
	printf("messages %lld seconds %.6f rate %.1f claim_rate %.1f",
		   (long long) messages, (double) (to - started) / 1e9,
		   (double) messages / ((double) (to - started) / 1e9),
		   (double) messages / ((double) claim_ns / 1e9));
	report_latencies("claim", claims, n);
	report_latencies("ack", acks, n);
	if (to - started >= LONG_RUN * INT64_C(1000000000))
		report_parts(all, to);
	if (sampled)
		report_sizes();
	printf("\n");
	free(claims);
	free(acks);
}

/* ----------
 * Running
 * ----------
 */

static void
usage(void)
{
	die("usage", "bench_consume [-c CONSUMERS] [-b BATCH] [-s SECONDS]"
		" [-n MESSAGES] [-u MESSAGES] [-B CHANNEL | -C CHANNELS] [-e]"
		" [-p PUBLISHERS -k MOST [-m CALL]] [-o SQL] [-q SQL] KIND");
}

static void
read_options(int argc, char **argv)
{
	const char *call = NULL;
	int			option;

	while ((option = getopt(argc, argv, "B:c:b:s:n:u:C:p:k:m:o:q:e")) != -1)
	{
		switch (option)
		{
			case 'B':
				call_options.channel = optarg;
				break;
			case 'c':
				consumers = (int) strtol(optarg, NULL, 10);
				break;
			case 'b':
				batch = (int) strtol(optarg, NULL, 10);
				break;
			case 's':
				seconds = strtod(optarg, NULL);
				break;
			case 'n':
				max_messages = strtoll(optarg, NULL, 10);
				break;
			case 'u':
				uncounted = strtoll(optarg, NULL, 10);
				break;
			case 'C':
				channels = (int) strtol(optarg, NULL, 10);
				break;
			case 'e':
				everything = true;
				break;
			case 'p':
				publishers = (int) strtol(optarg, NULL, 10);
				break;
			case 'k':
				most = strtoll(optarg, NULL, 10);
				break;
			case 'm':
				call = optarg;
				break;
			case 'o':
				once = optarg;
				break;
			case 'q':
				sampled = optarg;
				break;
			default:
				usage();
		}
	}
	if (optind != argc - 1 || consumers < 1 || consumers > MAX_THREADS ||
		publishers < 0 || publishers > MAX_THREADS || batch < 1 ||
		seconds <= 0 || channels < 0 || most < 1)
		usage();
	kind = take_kind(argv[optind]);
	publishing = call_kind(call ? call : "batch-bytes");
	if (kind == NULL || publishing == NULL)
		usage();
	if (max_messages < INT64_MAX)
		max_messages += uncounted;
}

static pthread_t
thread_start(void *(*main_function) (void *), void *arg)
{
	pthread_t	thread;

	if (pthread_create(&thread, NULL, main_function, arg) != 0)
		die("thread", strerror(errno));
	return thread;
}

static void
start_all(Consumer *all, Publisher *sources)
{
	int			i;

	for (i = 0; i < consumers; i++)
	{
		/* a part of what is stored, for the kind that needs one */
		int64_t		part = max_messages / consumers;
		TakeOptions options = {batch, 0, all[i].reader, i * part, (i + 1) * part};

		snprintf(all[i].reader, sizeof(all[i].reader),
				 everything ? "bench_%d" : "default", i + 1);
		all[i].pg = connect_server();
		all[i].turn = i;
		take_prepare(kind, all[i].pg, &options, &all[i].taken);
		all[i].thread = thread_start(consumer_main, &all[i]);
	}
	for (i = 0; i < publishers; i++)
	{
		sources[i].pg = connect_server();
		sources[i].calls = calls_make(publishing);
		call_prepare(publishing, sources[i].pg);
		sources[i].thread = thread_start(publisher_main, &sources[i]);
	}
}

static void
clock_start(PGconn *once_pg)
{
	if (once)
		pg_run(once_pg, once);
	started = now_ns();
}

/* Lets all begin, and waits for the end. */
static void
run_clock(PGconn *once_pg)
{
	int64_t		deadline;

	if (uncounted == 0)
		clock_start(once_pg);
	pthread_barrier_wait(&barrier);
	if (uncounted > 0)
	{
		while (load(&acked) < uncounted)
			sleep_ns(IDLE_NS / 5);
		clock_start(once_pg);
	}
	deadline = started + (int64_t) (seconds * 1e9);
	while (now_ns() < deadline && load(&acked) < max_messages)
		sleep_ns(2 * IDLE_NS);
	__atomic_store_n(&done, true, __ATOMIC_RELAXED);
}

int
main(int argc, char **argv)
{
	static Consumer all[MAX_THREADS];
	static Publisher sources[MAX_THREADS];
	PGconn	   *once_pg;
	PGconn	   *sampler_pg;
	pthread_t	sampler = 0;
	int			i;

	read_options(argc, argv);
	once_pg = connect_server();
	sampler_pg = connect_server();
	if (pthread_barrier_init(&barrier, NULL,
							 (unsigned) (consumers + publishers) + 1) != 0)
		die("barrier", strerror(errno));
	start_all(all, sources);
	if (sampled)
		sampler = thread_start(sampler_main, sampler_pg);
	run_clock(once_pg);
	for (i = 0; i < consumers; i++)
		pthread_join(all[i].thread, NULL);
	for (i = 0; i < publishers; i++)
		pthread_join(sources[i].thread, NULL);
	if (sampled)
		pthread_join(sampler, NULL);
	for (i = 0; i < consumers; i += everything ? 1 : consumers)
		check_distinct(&all[i], everything ? 1 : consumers);
	report(all);
	return 0;
}
