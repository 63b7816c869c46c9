/*
 * log.h
 *		JSON log lines. See log.c.
 */
#ifndef GW_LOG_H
#define GW_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buffer.h"

/* A line is one atomic write to a pipe (PIPE_BUF). */
#define GW_LOG_MAX	4096

typedef struct GwLogLine
{
	GwBuffer text;
	bool		silent;			/* not to be logged */
} GwLogLine;

/* What may come in floods: how many lines there were in this second. */
typedef struct GwLogFlood
{
	time_t		second;
	unsigned	lines;
} GwLogFlood;

extern void gw_log_init(int descriptor);
extern void gw_log_level(const char *least);
extern void gw_log_begin(GwLogLine *line, const char *level,
						 const char *event);
extern void gw_log_begin_few(GwLogLine *line, const char *level,
							 const char *event, GwLogFlood *flood);
extern void gw_log_text(GwLogLine *line, const char *name, const char *string);
extern void gw_log_number(GwLogLine *line, const char *name, int64_t number);
extern void gw_log_end(GwLogLine *line);
extern void gw_log_event(const char *level, const char *event,
						 const char *detail);

#endif							/* GW_LOG_H */
