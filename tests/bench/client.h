/*
 * client.h
 *		What the clients of the benches share.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <libpq-fe.h>
#include <stddef.h>
#include <stdint.h>

#define BYTEAOID 17
#define INT8OID 20
#define INT4OID 23
#define TEXTOID 25
#define JSONOID 114
#define BYTEAARRAYOID 1001
#define JSONBOID 3802
#define JSONBARRAYOID 3807
#define INT8ARRAYOID 1016
#define TIMESTAMPTZOID 1184

/* Times, percentiles and rates of calls */
typedef struct Sample
{
	int64_t		end;			/* by the monotonic clock, in ns */
	int64_t		latency;
} Sample;

/* These end the program if something is wrong. */
extern void die(const char *what, const char *why) __attribute__((noreturn));
extern void *allocate(size_t size);
extern void *enlarge(void *memory, size_t size);
extern PGconn *connect_server(void);
extern void pg_check(PGconn *pg, PGresult *result, ExecStatusType expected);
extern void pg_run(PGconn *pg, const char *statements);
extern int64_t pg_number(PGconn *pg, const char *query);

extern int64_t now_ns(void);
extern void sleep_ns(int64_t ns);
extern void sort_numbers(int64_t *values, size_t n);
extern double percentile_us(const int64_t *sorted, size_t n, double part);

/* numbers in network byte order */
extern char *put_int16(char *to, uint16_t value);
extern char *put_int32(char *to, uint32_t value);
extern char *put_int64(char *to, int64_t value);
extern int32_t get_int32(const char *from);
extern int64_t get_int64(const char *from);

#endif							/* BENCH_CLIENT_H */
