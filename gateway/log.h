/*
 * log.h
 *		JSON log lines and the gateway's counters. See log.c.
 */
#ifndef GW_LOG_H
#define GW_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A line is one atomic write to a pipe (PIPE_BUF). */
#define GW_LOG_MAX	4096

typedef struct GwLogLine
{
	char		string[GW_LOG_MAX];
	size_t		length;
	bool		silent;			/* its level is not logged */
} GwLogLine;

/* What the gateway counts; /healthz shows it. One thread, no locks. */
typedef struct GwCounters
{
	uint64_t	connections;
	uint64_t	connections_refused;
	uint64_t	frames_in;
	uint64_t	bytes_in;
	uint64_t	frames_out;
	uint64_t	bytes_out;
	uint64_t	frames_refused;
	uint64_t	frames_cut_off;
	uint64_t	batches;
	uint64_t	batches_failed;
	uint64_t	outcomes_unknown;
	uint64_t	replies_undelivered;
	uint64_t	replies_missing;
	uint64_t	database_connects;
	uint64_t	database_losses;
	uint64_t	accept_pauses;
	uint64_t	reloads;
	uint64_t	reloads_failed;
	uint64_t	log_lines_lost;
} GwCounters;

extern GwCounters gw_counters;

extern void gw_log_init(int descriptor);
extern void gw_log_level(const char *least);
extern void gw_log_begin(GwLogLine *line, const char *level,
						 const char *event);
extern void gw_log_text(GwLogLine *line, const char *name, const char *string);
extern void gw_log_number(GwLogLine *line, const char *name, int64_t number);
extern void gw_log_end(GwLogLine *line);
extern void gw_log_event(const char *level, const char *event,
						 const char *detail);

#endif							/* GW_LOG_H */
