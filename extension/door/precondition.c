/*
 * precondition.c
 *		Conditional requests of RFC 9110, section 13, for GET and HEAD.
 *
 * The order is that of 13.2.2.  What is called a date and is none is ignored;
 * a list of tags is read up to where it is none any more.  Pure: no memory, no
 * errors.
 */
#include "postgres.h"

#include "door/date.h"
#include "door/precondition.h"

static bool tag_listed(const char *list, const char *etag, bool weak);
static const char *tag_end(const char *tag);
static bool tag_is(const char *tag, const char *end, const char *etag);
static bool later_than(const char *value, const MbusValidators *validators,
					   bool *later);

/*
 * mbus_precondition returns the status that a request for what is there gets
 * in place of the answer: 412, 304, or 0: none.
 */
int
mbus_precondition(const MbusConditions *conditions,
				  const MbusValidators *validators)
{
	bool		later;

	if (conditions->if_match)
	{
		if (!tag_listed(conditions->if_match, validators->etag, false))
			return 412;
	}
	else if (conditions->if_unmodified_since &&
			 later_than(conditions->if_unmodified_since, validators, &later) &&
			 later)
		return 412;

	if (conditions->if_none_match)
	{
		if (tag_listed(conditions->if_none_match, validators->etag, true))
			return 304;
	}
	else if (conditions->if_modified_since &&
			 later_than(conditions->if_modified_since, validators, &later) &&
			 !later)
		return 304;
	return 0;
}

/*
 * mbus_if_range tells whether the field Range counts.  The date of a message,
 * which never changes, is a strong validator.
 */
bool
mbus_if_range(const MbusConditions *conditions,
			  const MbusValidators *validators)
{
	const char *value = conditions->if_range;
	int64		seconds;

	if (value == NULL)
		return true;
	if (*value == '"')
		return strcmp(value, validators->etag) == 0;
	return mbus_http_date_read(value, validators->now, &seconds) &&
		seconds == validators->modified;
}

/*
 * tag_listed tells whether a list names the tag, or is "*".  In a weak
 * comparison what is listed as weak is the same.
 */
static bool
tag_listed(const char *list, const char *etag, bool weak)
{
	if (strcmp(list, "*") == 0)
		return true;
	for (;;)
	{
		bool		is_weak;
		const char *end;

		list += strspn(list, ", \t");
		is_weak = strncmp(list, "W/", 2) == 0;
		if (is_weak)
			list += 2;
		end = tag_end(list);
		if (end == NULL)
			return false;
		if ((weak || !is_weak) && tag_is(list, end, etag))
			return true;
		list = end + strspn(end, " \t");
		if (*list != ',')
			return false;
	}
}

/* The end of a tag in quotes; NULL if there is none. */
static const char *
tag_end(const char *tag)
{
	if (*tag++ != '"')
		return NULL;
	while (*tag == 0x21 || (*tag >= 0x23 && *tag <= 0x7E) ||
		   (unsigned char) *tag >= 0x80)
		tag++;
	return *tag == '"' ? tag + 1 : NULL;
}

static bool
tag_is(const char *tag, const char *end, const char *etag)
{
	size_t		len = end - tag;

	return strlen(etag) == len && memcmp(tag, etag, len) == 0;
}

/*
 * later_than fills in whether the message is later than a date; false if that
 * is no date.
 */
static bool
later_than(const char *value, const MbusValidators *validators, bool *later)
{
	int64		seconds;

	if (!mbus_http_date_read(value, validators->now, &seconds))
		return false;
	*later = validators->modified > seconds;
	return true;
}
