/*
 * date.c
 *		Dates of RFC 9110, section 5.6.7, as seconds since 1970.
 *
 * All three forms are read, as the RFC demands: that of RFC 5322, of RFC 850,
 * whose year has two digits, and of asctime().  Only the first is written.
 * Names are compared as they are spelt, and a day of the week that is another
 * than the date's makes it no date.  Pure: no memory, no errors.
 */
#include "postgres.h"

#include "door/date.h"

#define DAY		INT64CONST(86400)
#define YEAR	(INT64CONST(1461) * DAY / 4)	/* on average */

/* What a form is made of. */
typedef struct Date
{
	int			weekday;		/* 0: Sunday */
	int			day;
	int			month;			/* from 1 */
	int			year;
	int			hour;
	int			minute;
	int			second;
} Date;

static const char *const weekdays[] = {
	"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday",
	"Saturday"
};
static const char *const months[] = {
	"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct",
	"Nov", "Dec"
};

static bool read_fixed(const char *at, Date *date);
static bool read_rfc850(const char *at, int64 now, Date *date);
static bool read_asctime(const char *at, Date *date);
static bool take(const char **at, const char *word);
static bool take_number(const char **at, int digits, int *number);
static bool take_month(const char **at, Date *date);
static bool take_time(const char **at, Date *date);
static bool date_seconds(const Date *date, int64 *seconds);
static int64 days_to(int year, int month, int day);

/*
 * mbus_http_date_read reads a date; false if it is none.  A year of two digits
 * is the one nearest that is at most 50 years ahead of "now".
 */
bool
mbus_http_date_read(const char *value, int64 now, int64 *seconds)
{
	Date		date;
	int			len;

	memset(&date, 0, sizeof(date));
	for (date.weekday = 0; date.weekday < 7; date.weekday++)
	{
		if (strncmp(value, weekdays[date.weekday], 3) == 0)
			break;
	}
	if (date.weekday == 7)
		return false;
	len = (int) strlen(weekdays[date.weekday]);
	if (value[3] == ',')
		return read_fixed(value + 4, &date) && date_seconds(&date, seconds);
	if (value[3] == ' ')
		return read_asctime(value + 4, &date) && date_seconds(&date, seconds);
	return strncmp(value, weekdays[date.weekday], len) == 0 &&
		value[len] == ',' && read_rfc850(value + len + 1, now, &date) &&
		date_seconds(&date, seconds);
}

/* Sun, 06 Nov 1994 08:49:37 GMT; behind the comma. */
static bool
read_fixed(const char *at, Date *date)
{
	return take(&at, " ") && take_number(&at, 2, &date->day) &&
		take(&at, " ") && take_month(&at, date) &&
		take(&at, " ") && take_number(&at, 4, &date->year) &&
		take(&at, " ") && take_time(&at, date) &&
		strcmp(at, " GMT") == 0;
}

/* Sunday, 06-Nov-94 08:49:37 GMT; behind the comma. */
static bool
read_rfc850(const char *at, int64 now, Date *date)
{
	int			century = 1900;
	int64		seconds;

	if (!take(&at, " ") || !take_number(&at, 2, &date->day) ||
		!take(&at, "-") || !take_month(&at, date) ||
		!take(&at, "-") || !take_number(&at, 2, &date->year) ||
		!take(&at, " ") || !take_time(&at, date) || strcmp(at, " GMT") != 0)
		return false;
	/* the last one that is not more than 50 years ahead */
	while (century < 9900)
	{
		seconds = days_to(century + 100 + date->year, date->month,
						  date->day) * DAY;
		if (seconds > now + 50 * YEAR)
			break;
		century += 100;
	}
	date->year += century;
	return true;
}

/* Sun Nov  6 08:49:37 1994; behind the first space. */
static bool
read_asctime(const char *at, Date *date)
{
	return take_month(&at, date) && take(&at, " ") &&
		(take(&at, " ") ? take_number(&at, 1, &date->day) :
		 take_number(&at, 2, &date->day)) &&
		take(&at, " ") && take_time(&at, date) &&
		take(&at, " ") && take_number(&at, 4, &date->year) && *at == '\0';
}

/* Passes over a word that must be there. */
static bool
take(const char **at, const char *word)
{
	size_t		len = strlen(word);

	if (strncmp(*at, word, len) != 0)
		return false;
	*at += len;
	return true;
}

static bool
take_number(const char **at, int digits, int *number)
{
	*number = 0;
	for (; digits > 0; digits--, (*at)++)
	{
		if (**at < '0' || **at > '9')
			return false;
		*number = *number * 10 + (**at - '0');
	}
	return true;
}

static bool
take_month(const char **at, Date *date)
{
	for (date->month = 1; date->month <= 12; date->month++)
	{
		if (take(at, months[date->month - 1]))
			return true;
	}
	return false;
}

/* 08:49:37; a leap second is one. */
static bool
take_time(const char **at, Date *date)
{
	return take_number(at, 2, &date->hour) && take(at, ":") &&
		take_number(at, 2, &date->minute) && take(at, ":") &&
		take_number(at, 2, &date->second) &&
		date->hour < 24 && date->minute < 60 && date->second <= 60;
}

/* date_seconds adds a date up; false if there is no such day. */
static bool
date_seconds(const Date *date, int64 *seconds)
{
	int64		days;
	int			next_year = date->month == 12 ? date->year + 1 : date->year;

	if (date->day < 1 || date->year < 1)
		return false;
	days = days_to(date->year, date->month, date->day);
	if (days >= days_to(next_year, date->month % 12 + 1, 1) ||
		(days % 7 + 7 + 4) % 7 != date->weekday)
		return false;
	*seconds = days * DAY + date->hour * 3600 + date->minute * 60 +
		date->second;
	return true;
}

/* Days from 1970-01-01 to a date of the Gregorian calendar. */
static int64
days_to(int year, int month, int day)
{
	int64		y = month <= 2 ? year - 1 : year;
	int64		m = month <= 2 ? month + 9 : month - 3; /* from March */

	return y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 -
		719468;
}

/*
 * mbus_http_date_write writes a date of the years 1 to 9999 into
 * MBUS_HTTP_DATE_BYTES; others become the nearest of these.
 */
void
mbus_http_date_write(int64 seconds, char *date)
{
	int64		days;
	int			year;
	int			month = 12;
	int			left;

	seconds = Max(seconds, days_to(1, 1, 1) * DAY);
	seconds = Min(seconds, days_to(10000, 1, 1) * DAY - 1);
	days = seconds / DAY - (seconds % DAY < 0 ? 1 : 0);
	left = (int) (seconds - days * DAY);
	year = (int) (1970 + days * DAY / YEAR);
	while (days_to(year + 1, 1, 1) <= days)
		year++;
	while (days_to(year, 1, 1) > days)
		year--;
	while (days_to(year, month, 1) > days)
		month--;
	snprintf(date, MBUS_HTTP_DATE_BYTES, "%.3s, %02d %s %04d %02d:%02d:%02d GMT",
			 weekdays[(days % 7 + 7 + 4) % 7],
			 (int) (days - days_to(year, month, 1)) + 1, months[month - 1],
			 year, left / 3600, left / 60 % 60, left % 60);
}
