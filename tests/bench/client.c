/*
 * client.c
 *		What the clients of the benches share: connections, time, numbers.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"

/*
 * die ends the program with an error.
 */
void
die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
	exit(1);
}

/*
 * allocate returns memory that is zero.
 */
void *
allocate(size_t size)
{
	void	   *result = calloc(1, size);

	if (result == NULL)
		die("out of memory", strerror(errno));
	return result;
}

/*
 * enlarge is realloc, and what is new is not zero.
 */
void *
enlarge(void *memory, size_t size)
{
	void	   *result = realloc(memory, size);

	if (result == NULL)
		die("out of memory", strerror(errno));
	return result;
}

/*
 * connect_server connects as libpq's environment says.
 */
PGconn *
connect_server(void)
{
	PGconn	   *pg = PQconnectdb("application_name=bench");

	if (PQstatus(pg) != CONNECTION_OK)
		die("could not connect", PQerrorMessage(pg));
	pg_run(pg, "SET plan_cache_mode = force_generic_plan");
	return pg;
}

/*
 * pg_check frees a result that is what it should be.
 */
void
pg_check(PGconn *pg, PGresult *result, ExecStatusType expected)
{
	if (PQresultStatus(result) != expected)
		die("call failed", PQerrorMessage(pg));
	PQclear(result);
}

/*
 * pg_run runs statements and forgets what they return.
 */
void
pg_run(PGconn *pg, const char *statements)
{
	PGresult   *result = PQexec(pg, statements);

	if (PQresultStatus(result) != PGRES_COMMAND_OK &&
		PQresultStatus(result) != PGRES_TUPLES_OK)
		die(statements, PQerrorMessage(pg));
	PQclear(result);
}

/*
 * pg_number returns the one value of a query.
 */
int64_t
pg_number(PGconn *pg, const char *query)
{
	PGresult   *result = PQexec(pg, query);
	int64_t		number;

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		die(query, PQerrorMessage(pg));
	number = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
	PQclear(result);
	return number;
}

/*
 * now_ns returns the time of the monotonic clock.
 */
int64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void
sleep_ns(int64_t ns)
{
	struct timespec ts = {ns / 1000000000, ns % 1000000000};

	nanosleep(&ts, NULL);
}

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

/*
 * sort_numbers sorts them ascending.
 */
void
sort_numbers(int64_t *values, size_t n)
{
	qsort(values, n, sizeof(int64_t), compare);
}

/*
 * percentile_us returns the value below which a part of the sorted values,
 * in nanoseconds, lies; in microseconds.
 */
double
percentile_us(const int64_t *sorted, size_t n, double part)
{
	size_t		i = (size_t) ((double) n * part);

	if (n == 0)
		return 0;
	return (double) sorted[i < n ? i : n - 1] / 1000;
}

char *
put_int16(char *to, uint16_t value)
{
	to[0] = (char) (value >> 8);
	to[1] = (char) value;
	return to + 2;
}

char *
put_int32(char *to, uint32_t value)
{
	to = put_int16(to, (uint16_t) (value >> 16));
	return put_int16(to, (uint16_t) value);
}

char *
put_int64(char *to, int64_t value)
{
	to = put_int32(to, (uint32_t) ((uint64_t) value >> 32));
	return put_int32(to, (uint32_t) value);
}

int32_t
get_int32(const char *from)
{
	uint32_t	value = 0;
	int			i;

	for (i = 0; i < 4; i++)
		value = value << 8 | (unsigned char) from[i];
	return (int32_t) value;
}

int64_t
get_int64(const char *from)
{
	uint64_t	high = (uint32_t) get_int32(from);

	return (int64_t) (high << 32 | (uint32_t) get_int32(from + 4));
}
