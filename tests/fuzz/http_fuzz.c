/*
 * http_fuzz.c
 *		The fuzzer's part for the extension's room door: what is read of a
 *		request over HTTP.
 *
 * The bytes are tried as a path, a query and a field of each kind.  Ranges lie
 * in the message, a date is read as it was written, a name has no folder.
 */
#include "postgres.h"

#include "door/date.h"
#include "door/media.h"
#include "door/precondition.h"
#include "door/range.h"
#include "door/request.h"
#include "http_fuzz.h"

static void
check(int holds)
{
	if (!holds)
		abort();
}

static char *
copy(const uint8_t *data, size_t size)
{
	char	   *text = malloc(size + 1);

	check(text !=NULL);
	memcpy(text, data, size);
	text[		size] = '\0';
	return text;
}

static void
fuzz_target(const uint8_t *data, size_t size)
{
	char	   *path = copy(data, size);
	char	   *query = copy(data, size);
	MbusTarget	target;

	mbus_target_read(path, query, &target);
	check(target.kind != MBUS_TARGET_MESSAGE || target.id > 0);
	check(target.kind != MBUS_TARGET_TRANSACTION ||
		  (target.channel && target.transaction_id));
	free(path);
	path = strdup("/v1/messages/1");
	free(query);
	query = copy(data, size);
	check(path != NULL);
	mbus_target_read(path, query, &target);
	check(target.kind == MBUS_TARGET_BAD || target.kind == MBUS_TARGET_MESSAGE);
	check(target.cap == NULL ||
		  (target.cap >= query && target.cap + strlen(target.cap) <= query + size));
	free(path);
	free(query);
}

static void
fuzz_fields(const char *value)
{
	MbusConditions conditions = {value, value, value, value, value};
	MbusValidators validators = {"\"a\"", 0, 0};
	char		written[MBUS_HTTP_DATE_BYTES];
	int64		from;
	int64		to;
	int64		seconds;
	int64		again;
	int			status = mbus_precondition(&conditions, &validators);

	check(status == 0 || status == 304 || status == 412);
	(void) mbus_if_range(&conditions, &validators);
	if (mbus_http_range(value, 1000, &from, &to) == MBUS_RANGE_ONE)
		check(from >= 0 && from < to && to <= 1000);
	if (mbus_http_date_read(value, 0, &seconds))
	{
		mbus_http_date_write(seconds, written);
		check(mbus_http_date_read(written, 0, &again) &&
			  (again == seconds || seconds >= INT64CONST(253402300800)));
	}
	(void) mbus_media_inline(value);
}

void
fuzz_http(const uint8_t *data, size_t size)
{
	char	   *value = copy(data, size);

	fuzz_target(data, size);
	fuzz_fields(value);
	mbus_file_name_clean(value);
	check(strlen(value) <= MBUS_FILE_NAME_MAX && strpbrk(value, "/\\\r\n") == NULL);
	free(value);
}
