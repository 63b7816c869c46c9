/*
 * log_test.c
 *		Log lines: one JSON object each, whatever is put in; losses counted.
 */
#include "base/log.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/metrics.h"
#include "base/utf8.h"
#include "request/frame.h"
#include "tap.h"

static bool
line_is_sound(const char *line, size_t length)
{
	GwSpan		json = {(const unsigned char *) line, length};

	return length > 0 && length <= GW_LOG_MAX && line[length - 1] == '\n' &&
		memchr(line, '\n', length) == line + length - 1 &&
		gw_frame_read(json).kind == GW_FRAME_NOTIFICATION &&
		gw_utf8_valid(json.data, length);
}

static void
long_value_test(int reader)
{
	char	   *value = malloc(20001);
	char		line[2 * GW_LOG_MAX];
	ssize_t		length;
	GwLogLine	log_line;
	int			i;

	for (i = 0; i < 20000; i += 2)
		memcpy(value + i, "\xc3\xa9", 2);
	value[20000] = '\0';
	gw_log_begin(&log_line, "info", "test");
	for (i = 0; i < 8; i++)
		gw_log_text(&log_line, "value", value);
	gw_log_number(&log_line, "number", -5);
	gw_log_end(&log_line);
	length = read(reader, line, sizeof(line));
	ok(length > 0 && line_is_sound(line, (size_t) length),
	   "values that are too long are cut, and the line is still JSON");
	free(value);
}

static void
flood_test(int reader)
{
	static char text[64 * GW_LOG_MAX];
	GwLogFlood	flood = {0};
	GwLogLine	line;
	const char *at = text;
	ssize_t		length;
	int			lines = 0;
	int			i;

	for (i = 0; i < 60; i++)
	{
		gw_log_begin_few(&line, "info", "flood", &flood);
		gw_log_end(&line);
	}
	length = read(reader, text, sizeof(text) - 1);
	text[		length > 0 ? length : 0] = '\0';

	for (; (at = strchr(at, '\n')) != NULL; at++)
		lines++;
	/* They may fall into two seconds. */
	ok(lines >= 20 && lines <= 40 && strstr(text, "is left out") != NULL,
	   "of a flood 20 lines a second are written, and the last one says so");
}

void
log_tests(void)
{
	int			ends[2];
	char		line[GW_LOG_MAX];
	ssize_t		length;
	uint64_t	lost = gw_counters.log_lines_lost;
	int			i;

	if (pipe(ends) != 0)
		return;
	gw_log_init(ends[1]);
	gw_log_event("info", "quote", "a \"b\"\\\n\x01");
	length = read(ends[0], line, sizeof(line) - 1);
	line[length > 0 ? length : 0] = '\0';
	ok(length > 0 && strstr(line, "a \\\"b\\\"\\\\\\u000a\\u0001") != NULL,
	   "text in a line is escaped");
	long_value_test(ends[0]);
	flood_test(ends[0]);
	ok(gw_counters.log_lines_lost == lost, "no line was lost");
	for (i = 0; i < 2000; i++)
		gw_log_event("info", "fill", "a pipe that nobody reads is full soon,"
					 " and that must not block");
	ok(gw_counters.log_lines_lost > lost,
	   "a full pipe loses lines and does not block");
	lost = gw_counters.log_lines_lost;
	(void) close(ends[0]);
	(void) signal(SIGPIPE, SIG_IGN);
	gw_log_event("info", "gone", NULL);
	ok(gw_counters.log_lines_lost == lost + 1,
	   "a closed pipe is counted");
	(void) close(ends[1]);
	gw_log_init(STDERR_FILENO);
}
