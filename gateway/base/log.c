/*
 * log.c
 *		JSON log lines, one object a line.
 *
 * A log must never stop delivery. A line is at most PIPE_BUF bytes, so that
 * a write to a pipe that poll() calls writable neither blocks nor mixes with
 * another; where there is no room, or the reader is gone, the line is
 * dropped and counted, and /healthz says "warning" from then on. A long value
 * is cut and marked, and a member without room left out, so that every line
 * stays one JSON object. Secrets are never given to these functions.
 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/metrics.h"

/* A longer value is cut: so escaped it still fits into a line. */
#define VALUE_MAX	640

/* What most lines need. */
#define LINE_USUAL	512

/* Lines of one flood that are logged in a second. */
#define FEW			20

static int	log_descriptor = STDERR_FILENO;
static bool log_to_socket;
static int	log_least;			/* rank of the least level that is logged */

static void log_fit(GwLogLine *line, size_t before);
static int	level_rank(const char *level);
static bool log_write(const void *string, size_t length);

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

	memset(line, 0, sizeof(*line));
	line->silent = level_rank(level) < log_least;
	if (line->silent)
		return;
	(void) gw_buffer_reserve(&line->text, LINE_USUAL);
	(void) clock_gettime(CLOCK_REALTIME, &now);
	(void) gmtime_r(&now.tv_sec, &utc);
	gw_buffer_format(&line->text,
					 "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\","
					 "\"level\":\"%s\",\"event\":\"%s\"",
					 (utc.tm_year + 1900) % 10000, utc.tm_mon + 1,
					 utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
					 now.tv_nsec / 1000000, level, event);
}

/* gw_log_begin_few starts a line of a flood, which does not fill the log. */
void
gw_log_begin_few(GwLogLine *line, const char *level, const char *event,
				 GwLogFlood *flood)
{
	time_t		now = time(NULL);

	gw_log_begin(line, level, event);
	if (flood->second != now)
		flood->lines = 0;
	flood->second = now;
	if (++flood->lines == FEW)
		gw_log_text(line, "note", "the rest of this second is left out");
	line->silent = line->silent || flood->lines > FEW;
}

void
gw_log_text(GwLogLine *line, const char *name, const char *string)
{
	char		cut[VALUE_MAX + sizeof("...")];
	size_t		before = line->text.length;

	if (line->silent)
		return;
	gw_text_copy(cut, VALUE_MAX, string);
	if (strlen(string) >= VALUE_MAX)
		(void) strcat(cut, "...");
	gw_buffer_text(&line->text, ",");
	gw_buffer_json(&line->text, name);
	gw_buffer_text(&line->text, ":");
	gw_buffer_json(&line->text, cut);
	log_fit(line, before);
}

void
gw_log_number(GwLogLine *line, const char *name, int64_t number)
{
	size_t		before = line->text.length;

	if (line->silent)
		return;
	gw_buffer_format(&line->text, ",\"%s\":%" PRId64, name, number);
	log_fit(line, before);
}

/* gw_log_end writes the line, or counts that it could not. */
void
gw_log_end(GwLogLine *line)
{
	gw_buffer_text(&line->text, "}\n");
	if (!line->silent &&
		(line->text.failed ||
		 !log_write(line->text.data, line->text.length)))
		gw_counters.log_lines_lost++;
	gw_buffer_free(&line->text);
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

/* log_fit takes back a member for which there is no room. */
static void
log_fit(GwLogLine *line, size_t before)
{
	if (line->text.length > GW_LOG_MAX - 2)
		line->text.length = before;
}

static int
level_rank(const char *level)
{
	/* A setting may be in capitals. */
	int			first = level[0] | 0x20;

	return first == 'e' ? 2 : first == 'w' ? 1 : 0;
}

static bool
log_write(const void *string, size_t length)
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
