/*
 * log.c
 *		JSON log lines, one object a line.
 *
 * A log must never stop delivery. A line is at most PIPE_BUF bytes, so that
 * a write to a pipe that poll() calls writable neither blocks nor mixes with
 * another; where there is no room, or the reader is gone, the line is
 * dropped and counted, and /healthz says "warning" from then on. A value too
 * long for the line is cut and marked, so that every line stays one JSON
 * object. Secrets are never given to these functions.
 */
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "metrics.h"

/* A longer value is cut. */
#define VALUE_MAX	1024

/* Room that is left behind a value, and what a member needs at least. */
#define END_ROOM	16
#define MEMBER_ROOM	96

static int	log_descriptor = STDERR_FILENO;
static bool log_to_socket;
static int	log_least;			/* rank of the least level that is logged */

static void log_add(GwLogLine *line, const char *string, size_t length);
static void log_quote(GwLogLine *line, const char *string);
static int	level_rank(const char *level);
static bool log_write(const char *string, size_t length);

/* gw_log_init chooses where lines go. */
void
gw_log_init(int descriptor)
{
	struct stat status;

	log_descriptor = descriptor;
	log_to_socket = fstat(descriptor, &status) == 0 &&
		S_ISSOCK(status.st_mode);
}

/* gw_log_level drops lines below info, warning or error from now on. */
void
gw_log_level(const char *least)
{
	log_least = level_rank(least);
}

/* gw_log_begin starts a line: time (RFC 3339, UTC), level and event. */
void
gw_log_begin(GwLogLine *line, const char *level, const char *event)
{
	struct timespec now;
	struct tm	utc;
	char		head[128];
	int			length;

	(void) clock_gettime(CLOCK_REALTIME, &now);
	(void) gmtime_r(&now.tv_sec, &utc);
	length = snprintf(head, sizeof(head),
					  "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\","
					  "\"level\":\"%s\",\"event\":\"%s\"",
					  (utc.tm_year + 1900) % 10000, utc.tm_mon + 1,
					  utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
					  now.tv_nsec / 1000000, level, event);
	line->length = 0;
	line->silent = level_rank(level) < log_least;
	if (length > 0 && (size_t) length < sizeof(head))
		log_add(line, head, (size_t) length);
}

void
gw_log_text(GwLogLine *line, const char *name, const char *string)
{
	if (line->length + MEMBER_ROOM > GW_LOG_MAX)
		return;
	log_add(line, ",", 1);
	log_quote(line, name);
	log_add(line, ":", 1);
	log_quote(line, string);
}

void
gw_log_number(GwLogLine *line, const char *name, int64_t number)
{
	char		string[32];
	int			length;

	if (line->length + MEMBER_ROOM > GW_LOG_MAX)
		return;
	length = snprintf(string, sizeof(string), ":%lld", (long long) number);
	log_add(line, ",", 1);
	log_quote(line, name);
	if (length > 0)
		log_add(line, string, (size_t) length);
}

/* gw_log_end writes the line, or counts that it could not. */
void
gw_log_end(GwLogLine *line)
{
	if (line->length > GW_LOG_MAX - 2)
		line->length = GW_LOG_MAX - 2;
	memcpy(line->string + line->length, "}\n", 2);
	if (!line->silent && !log_write(line->string, line->length + 2))
		gw_counters.log_lines_lost++;
}

/* gw_log_event writes a line with one detail; detail may be NULL. */
void
gw_log_event(const char *level, const char *event, const char *detail)
{
	GwLogLine	line;

	gw_log_begin(&line, level, event);
	if (detail != NULL)
		gw_log_text(&line, "detail", detail);
	gw_log_end(&line);
}

/*
 * log_add appends as a whole or not at all. Names are short; a member for
 * which there is no room is left out as a whole.
 */
static void
log_add(GwLogLine *line, const char *string, size_t length)
{
	if (length <= GW_LOG_MAX - 2 - line->length)
	{
		memcpy(line->string + line->length, string, length);
		line->length += length;
	}
}

static void
log_quote(GwLogLine *line, const char *string)
{
	size_t		start = line->length;

	log_add(line, "\"", 1);
	for (; *string != '\0'; string++)
	{
		unsigned char c = (unsigned char) *string;
		char		escaped[8];
		int			length;

		if (line->length - start > VALUE_MAX ||
			line->length + END_ROOM > GW_LOG_MAX)
		{
			/* Do not leave half a character of UTF-8 behind. */
			while (line->length > start + 1 &&
				   (line->string[line->length - 1] & 0xC0) == 0x80)
				line->length--;
			if (line->length > start + 1 &&
				(line->string[line->length - 1] & 0x80) != 0)
				line->length--;
			log_add(line, "...", 3);
			break;
		}
		if (c >= 0x20 && c != '"' && c != '\\')
		{
			log_add(line, string, 1);
			continue;
		}
		length = snprintf(escaped, sizeof(escaped),
						  c < 0x20 ? "\\u%04x" : "\\%c", c);
		if (length > 0)
			log_add(line, escaped, (size_t) length);
	}
	log_add(line, "\"", 1);
}

static int
level_rank(const char *level)
{
	/* A setting may be in capitals. */
	int			first = level[0] | 0x20;

	return first == 'e' ? 2 : first == 'w' ? 1 : 0;
}

static bool
log_write(const char *string, size_t length)
{
	struct pollfd ready = {log_descriptor, POLLOUT, 0};
	ssize_t		written;

	do
	{
		if (log_to_socket)
			written = send(log_descriptor, string, length,
						   MSG_DONTWAIT | MSG_NOSIGNAL);
		else if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0)
			return false;
		else
			written = write(log_descriptor, string, length);
	} while (written < 0 && errno == EINTR);
	return written >= 0 && (size_t) written == length;
}
