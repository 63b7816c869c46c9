/*-------------------------------------------------------------------------
 *
 * pipeline.c
 *	  Publish single messages through one pipelined connection of libpq, in
 *	  transactions of many: what the gateway does, without the gateway.
 *
 * Usage:	bench_pipeline [-b BATCH] [-d DEPTH] [-s SECONDS]
 *
 * A batch is BATCH calls of publish() and a Sync, so a transaction; DEPTH
 * batches are in flight.  The statement is prepared, the payload a text, as
 * in a text frame.  It prints names and values: messages, seconds and rate
 * (messages a second).  The first WARM_UP seconds do not count.
 *
 *-------------------------------------------------------------------------
 */
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

#define PAYLOAD 210				/* bytes of a message */
#define POOL 4096				/* different messages */
#define WARM_UP 0.5				/* seconds */

static int	batch = 60;
static int	depth = 2;
static double seconds = 10;
static char payloads[POOL][PAYLOAD + 1];
static unsigned next_payload = 0;

static void
payloads_make(void)
{
	static const char letters[] =
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ";
	int			i;
	int			j;

	for (i = 0; i < POOL; i++)
	{
		j = snprintf(payloads[i], PAYLOAD, "{\"number\": %d, \"text\": \"", i);
		while (j < PAYLOAD - 2)
			payloads[i][j++] = letters[random() % (long) (sizeof(letters) - 1)];
		memcpy(payloads[i] + j, "\"}", 3);
	}
}

/*
 * batch_send sends one batch.
 */
static void
batch_send(PGconn *pg)
{
	int			i;

	for (i = 0; i < batch; i++)
	{
		const char *value = payloads[next_payload++ % POOL];

		if (PQsendQueryPrepared(pg, "call", 1, &value, NULL, NULL, 1) != 1)
			die("could not send", PQerrorMessage(pg));
	}
	if (PQpipelineSync(pg) != 1)
		die("could not send", PQerrorMessage(pg));
}

/*
 * batch_receive waits for the oldest batch, which must have committed.
 */
static void
batch_receive(PGconn *pg)
{
	int			i;

	for (i = 0; i < batch; i++)
	{
		pg_check(pg, PQgetResult(pg), PGRES_TUPLES_OK);
		if (PQgetResult(pg) != NULL)
			die("call", "has more than one result");
	}
	pg_check(pg, PQgetResult(pg), PGRES_PIPELINE_SYNC);
}

static void
read_options(int argc, char **argv)
{
	int			option;

	while ((option = getopt(argc, argv, "b:d:s:")) != -1)
	{
		if (option == 'b')
			batch = (int) strtol(optarg, NULL, 10);
		else if (option == 'd')
			depth = (int) strtol(optarg, NULL, 10);
		else if (option == 's')
			seconds = strtod(optarg, NULL);
	}
	if (optind != argc || batch < 1 || depth < 1 || seconds <= 0)
		die("usage", "bench_pipeline [-b BATCH] [-d DEPTH] [-s SECONDS]");
}

int
main(int argc, char **argv)
{
	const Oid	type = JSONOID;
	PGconn	   *pg;
	int64_t		from;
	int64_t		now;
	long		messages = 0;
	int			i;

	read_options(argc, argv);
	payloads_make();
	pg = connect_server();
	pg_check(pg, PQprepare(pg, "call",
						   "SELECT message_bus.publish('bench', $1)", 1,
						   &type), PGRES_COMMAND_OK);
	if (PQenterPipelineMode(pg) != 1)
		die("pipeline", PQerrorMessage(pg));
	now = now_ns();
	from = now + (int64_t) (WARM_UP * 1e9);
	for (i = 0; i < depth; i++)
		batch_send(pg);
	while (now < from + (int64_t) (seconds * 1e9))
	{
		batch_receive(pg);
		now = now_ns();
		if (now >= from)
			messages += batch;
		batch_send(pg);
	}
	printf("messages %ld seconds %.6f rate %.1f\n", messages,
		   (double) (now - from) / 1e9,
		   (double) messages / ((double) (now - from) / 1e9));
	return 0;
}
