/*
 * door_test.c
 *		Tests of the pure files of the extension's room door: targets, ranges,
 *		dates, conditions, names of files. sql/door.sql has the RFC's tables;
 *		here is what depends on single bytes and their ends.
 */
#include "postgres.h"

#include "door/date.h"
#include "door/media.h"
#include "door/precondition.h"
#include "door/range.h"
#include "door/request.h"

#undef snprintf
#undef strerror
#include "tap.h"

/* targets reads a target and compares its kind and what is read of it. */
static bool
target(const char *path, const char *query, MbusTargetKind kind, int64 id,
	   const char *cap)
{
	char		own_path[512];
	char		own_query[512];
	MbusTarget	read;

	memcpy(own_path, path, strlen(path) + 1);
	memcpy(own_query, query, strlen(query) + 1);
	mbus_target_read(own_path, own_query, &read);
	return read.kind == kind && (id == 0 || read.id == id) &&
		(cap == NULL ? read.cap == NULL : read.cap && strcmp(read.cap, cap) == 0);
}

static void
target_tests(void)
{
	ok(target("/v1/messages/12", "", MBUS_TARGET_MESSAGE, 12, NULL), "a message");
	ok(target("/v1/messages/12", "cap=a%2eb", MBUS_TARGET_MESSAGE, 12, "a.b"), "its link");
	ok(target("/v1/messages/12", "cap", MBUS_TARGET_MESSAGE, 12, ""), "an empty link");
	ok(target("/v1/messages/12", "&&cap=a&", MBUS_TARGET_MESSAGE, 12, "a"), "empty pairs");
	ok(target("/v1/messages/999999999999999999", "", MBUS_TARGET_MESSAGE,
			  INT64CONST(999999999999999999), NULL), "the largest number");
	ok(target("/v1/messages/1000000000000000000", "", MBUS_TARGET_NONE, 0, NULL),
	   "one more digit");
	ok(target("/v1/messages/12%", "", MBUS_TARGET_BAD, 0, NULL), "an escape at the end");
	ok(target("/v1/messages/12%4", "", MBUS_TARGET_BAD, 0, NULL), "half of one");
	ok(target("/v1/messages/12", "%0", MBUS_TARGET_BAD, 0, NULL), "half of one in a query");
	ok(target("/v1/messages/12", "cap=%00", MBUS_TARGET_BAD, 0, NULL), "a zero");
	ok(target("/v1/messages/1\x80", "", MBUS_TARGET_BAD, 0, NULL), "a byte above 0x7F");
	ok(target("/%76%31/%6dessages/%31", "", MBUS_TARGET_MESSAGE, 1, NULL), "escaped letters");
	ok(target("/v1%2fmessages/1", "", MBUS_TARGET_NONE, 0, NULL), "an escaped slash");
	ok(target("/a/b/c/d/e", "", MBUS_TARGET_NONE, 0, NULL), "many segments");
	ok(target("", "", MBUS_TARGET_BAD, 0, NULL), "nothing");
}

/* range reads a range of a message and compares it. */
static bool
range(const char *value, int64 size, MbusRangeKind kind, int64 from, int64 to)
{
	int64		first = -1;
	int64		behind = -1;

	return mbus_http_range(value, size, &first, &behind) == kind &&
		(kind != MBUS_RANGE_ONE || (first == from && behind == to));
}

static void
range_tests(void)
{
	int64		large = INT64CONST(1) << 40;

	ok(range("bytes=0-0", 1, MBUS_RANGE_ONE, 0, 1), "the only byte");
	ok(range("bytes=0-0", 0, MBUS_RANGE_IGNORED, 0, 0), "of none");
	ok(range("bytes=1-", 1, MBUS_RANGE_OUTSIDE, 0, 0), "behind the end");
	ok(range("bytes=1099511627775-", large, MBUS_RANGE_ONE, large - 1, large), "the last of a TiB");
	ok(range("bytes=-1099511627776", large, MBUS_RANGE_ONE, 0, large), "all of a TiB");
	ok(range("bytes=9223372036854775807-", large, MBUS_RANGE_OUTSIDE, 0, 0), "the largest number");
	ok(range("bytes=9223372036854775808-", large, MBUS_RANGE_OUTSIDE, 0, 0), "one more");
	ok(range("bytes=0-18446744073709551616", large, MBUS_RANGE_ONE, 0, large), "and again");
	ok(range("bytes=-18446744073709551616", large, MBUS_RANGE_ONE, 0, large), "and from the end");
	ok(range("bytes=", large, MBUS_RANGE_IGNORED, 0, 0), "no range");
	ok(range("bytes", large, MBUS_RANGE_IGNORED, 0, 0), "half of the unit");
	ok(range("bytes=0", large, MBUS_RANGE_IGNORED, 0, 0), "half of a range");
	ok(range(NULL, large, MBUS_RANGE_IGNORED, 0, 0), "no field");
}

/* date reads a date and compares what is written of it. */
static bool
date(const char *value, const char *same)
{
	char		written[MBUS_HTTP_DATE_BYTES];
	int64		seconds;

	if (!mbus_http_date_read(value, INT64CONST(1767225600), &seconds))
		return same == NULL;
	mbus_http_date_write(seconds, written);
	return same != NULL && strcmp(written, same) == 0;
}

static void
date_tests(void)
{
	char		written[MBUS_HTTP_DATE_BYTES];
	int64		seconds;
	bool		same = true;

	ok(date("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"), "a date");
	ok(date("Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"), "of RFC 850");
	ok(date("Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 GMT"), "of asctime");
	ok(date("Wednesday, 01-Jan-75 00:00:00 GMT", NULL), "a year that is 49 years ahead");
	ok(date("Tuesday, 01-Jan-75 00:00:00 GMT", "Tue, 01 Jan 2075 00:00:00 GMT"), "and its day");
	ok(date("Saturday, 01-Jan-77 00:00:00 GMT", "Sat, 01 Jan 1977 00:00:00 GMT"), "one that is 51");
	ok(date("Tue, 29 Feb 2000 00:00:00 GMT", "Tue, 29 Feb 2000 00:00:00 GMT"), "a leap day");
	ok(date("Thu, 29 Feb 1900 00:00:00 GMT", NULL), "none");
	ok(date("Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"), "the last");
	ok(date("Mon, 01 Jan 0001 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"), "the first");
	ok(date("Sat, 01 Jan 0000 00:00:00 GMT", NULL), "before it");
	ok(date("", NULL) && date("Sun", NULL) && date("Sun,", NULL) && date("Sunday", NULL) &&
	   date("Sun ", NULL) && date("Sun, 06", NULL), "pieces of a date");
	for (int64 at = -INT64CONST(62135596800); at < INT64CONST(253402300800); at += INT64CONST(86400) * 97 + 12345)
	{
		mbus_http_date_write(at, written);
		same = same && mbus_http_date_read(written, 0, &seconds) && seconds == at;
	}
	ok(same, "dates of all years are read as they were written");
	mbus_http_date_write(PG_INT64_MAX, written);
	ok(strcmp(written, "Fri, 31 Dec 9999 23:59:59 GMT") == 0, "beyond all");
}

/* listed tells whether If-None-Match has the tag "a". */
static bool
listed(const char *list)
{
	MbusConditions conditions = {0};
	MbusValidators validators = {"\"a\"", 0, 0};

	conditions.if_none_match = list;
	return mbus_precondition(&conditions, &validators) == 304;
}

static void
condition_tests(void)
{
	ok(listed("\"a\"") && listed("W/\"a\"") && listed("*") && listed(" , \"b\" ,\"a\""), "a tag");
	ok(!listed("\"a") && !listed("\"") && !listed("W/") && !listed("W") && !listed("") &&
	   !listed(",") && !listed("a\"") && !listed("\"\x7f\"") && !listed("\"b\" \"a\"") && !listed("**"), "none");
}

/* cleaned tells whether a name is cleaned to another. */
static bool
cleaned(const char *name, const char *to)
{
	char		own[1024];

	memcpy(own, name, strlen(name) + 1);
	mbus_file_name_clean(own);
	return strcmp(own, to) == 0;
}

static void
name_tests(void)
{
	char		name[1024];
	char		left[1024];

	ok(cleaned("a.txt", "a.txt") && cleaned("", "") && cleaned("..", "") && cleaned("/", ""), "names");
	ok(cleaned("../../etc/passwd", "passwd") && cleaned("C:\\a\\b.txt", "b.txt") && cleaned(".bashrc", "bashrc"), "folders");
	ok(cleaned("a\r\nb\x01\"c\"?.txt ", "abc.txt"), "control characters and signs");
	ok(cleaned("a\xe2\x80\xae" "fdp.exe", "afdp.exe") && cleaned("\xef\xbb\xbf" "a", "a") && cleaned("a\xc2\x85", "a"),
	   "what changes the direction of writing");
	ok(cleaned("a\xe2\x80", "a\xe2\x80") && cleaned("a\xf0", "a\xf0"), "characters that are cut off");
	memset(name, 'a', 254);
	memcpy(name + 254, "\xc3\xb6", 3);
	memset(left, 'a', 254);
	left[254] = '\0';
	ok(cleaned(name, left), "no half of a character at the end");
	ok(mbus_media_inline("IMAGE/png;a=b") && mbus_media_inline("audio/x") && mbus_media_inline("text/plain ; charset=utf-8") &&
	   !mbus_media_inline("image/svg+xml") && !mbus_media_inline("text/html") && !mbus_media_inline("text/plainx") &&
	   !mbus_media_inline("application/pdf") && !mbus_media_inline(""), "what is shown");
}

void
door_tests(void)
{
	target_tests();
	range_tests();
	date_tests();
	condition_tests();
	name_tests();
}
