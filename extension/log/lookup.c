/*
 * lookup.c
 *		What the log still knows of an entry whose bytes somebody holds.
 *
 * When a segment has been dropped nothing is left of its messages but hashes,
 * and which numbers they are of.  Who has kept an entry (audit_entry(), or the
 * "extra" of a proof) has what it says: its lines are read here, its hash is
 * compared with the tree's at the place where the log has that number.
 *
 * Everybody may ask: an entry has a nonce of 16 random bytes in it, so that
 * nobody makes one up who has not been given it, and nothing is told but of that
 * one.  To who asks with other bytes the log knows nothing, whether or not it
 * has that number; but where the tree has been pruned and the run of the number
 * not, that is said whatever the bytes are.
 *
 * The bytes are anybody's.  They are ASCII, at most MBUS_ENTRY_MAX, at most
 * LINES_MAX lines of a name, a space and a value; anything else is 22023.  What is
 * logged is told only where a checkpoint covers it, which is on disk (show.c);
 * it is no proof.
 */
#include "postgres.h"

#include "access/table.h"
#include "common/base64.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/payload.h"
#include "base/schema.h"
#include "log/row.h"
#include "log/table.h"
#include "log/tree.h"
#include "segment/leaf.h"
#include "state/fault.h"

#define MBUS_ENTRY_MAX	65535
#define LINES_MAX		32
#define RUNS_MOST		1000	/* looked into: anybody may ask */
#define OPENING_MAX		(16 * 1024 * 1024)
#define HEADER			"mbus/1 "

/* Columns of audit_lookup(). */
enum
{
	LOOKUP_KIND,
	LOOKUP_NUMBER,
	LOOKUP_LOGGED,
	LOOKUP_ENTRY_INDEX,
	LOOKUP_STATUS,
	LOOKUP_AT,
	LOOKUP_EXPIRES_AT,
	LOOKUP_CHANNEL_ID,
	LOOKUP_SUBSCRIPTION_ID,
	LOOKUP_ROLE,
	LOOKUP_SIZE,
	LOOKUP_CONTENT_TYPE,
	LOOKUP_ATTEMPT,
	LOOKUP_OUTCOME,
	LOOKUP_CLAIMED_AT,
	LOOKUP_COLUMNS
};

/* A line; both parts end with a zero byte. */
typedef struct Line
{
	const char *name;
	char	   *value;
} Line;

/* An entry taken apart, in memory of its own. */
typedef struct Parsed
{
	const char *kind;
	int			nlines;
	Line		line[LINES_MAX];
} Parsed;

/* Where the log would have it. */
typedef struct Place
{
	int			kind;
	int32		segment;
	int64		number;
	int64		index;			/* of its entry; -1: there is none such */
	bool		pruned;			/* the tree has lost its hash */
} Place;

static void entry_parse(const char *bytes, int len, Parsed *parsed);
static char *line_cut(char *at, char *end);
static char *line_value(const Parsed *parsed, const char *name);
static bool line_number(const Parsed *parsed, const char *name, int64 *number);
static bool number_read(const char *digits, const char *end, int64 *number);
static void entry_place(const Parsed *parsed, Place *place);
static void entry_find(Oid schema, Place *place, const char *bytes, int len);
static const char *entry_status(Oid schema, const Place *place);
static void put_number(const Parsed *parsed, const char *name, int to,
					   Datum *values, bool *isnull);
static void put_int4(const Parsed *parsed, const char *name, int to,
					 Datum *values, bool *isnull);
static void put_time(const Parsed *parsed, const char *name, int to,
					 Datum *values, bool *isnull);
static void put_text(const Parsed *parsed, const char *name, int to,
					 Datum *values, bool *isnull);
static char *unescaped(const char *value);
static int	hex_digit(char c);
static bool opening_opens(const Parsed *parsed, char *opening, int len);
static bool salt_read(const char *hex, uint8 *salt);
pg_noreturn static void entry_refused(const char *why);

/*
 * audit_lookup(entry) returns what an entry says and what the log has of it.
 */
MBUS_FUNCTION(audit_lookup)
{
	Oid			schema = mbus_schema();
	Parsed		parsed;
	Place		place;
	Datum		values[LOOKUP_COLUMNS] = {0};
	bool		isnull[LOOKUP_COLUMNS];
	TupleDesc	desc;
	bytea	   *entry;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "audit_lookup: not called for a row");
	entry = PG_GETARG_BYTEA_PP(0);
	entry_parse(VARDATA_ANY(entry), VARSIZE_ANY_EXHDR(entry), &parsed);
	entry_place(&parsed, &place);
	entry_find(schema, &place, VARDATA_ANY(entry), VARSIZE_ANY_EXHDR(entry));

	memset(isnull, true, sizeof(isnull));
	values[LOOKUP_KIND] = CStringGetTextDatum(parsed.kind);
	values[LOOKUP_NUMBER] = Int64GetDatum(place.number);
	values[LOOKUP_LOGGED] = BoolGetDatum(place.index >= 0);
	values[LOOKUP_STATUS] =
		CStringGetTextDatum(entry_status(schema, &place));
	values[LOOKUP_ENTRY_INDEX] = Int64GetDatum(place.index);
	isnull[LOOKUP_KIND] = isnull[LOOKUP_NUMBER] = isnull[LOOKUP_LOGGED] =
		isnull[LOOKUP_STATUS] = false;
	isnull[LOOKUP_ENTRY_INDEX] = place.index < 0;
	isnull[LOOKUP_LOGGED] = place.pruned;
	put_time(&parsed, place.kind == MBUS_MESSAGE ? "created" : "at", LOOKUP_AT,
			 values, isnull);
	put_time(&parsed, "expires", LOOKUP_EXPIRES_AT, values, isnull);
	put_int4(&parsed, "channel", LOOKUP_CHANNEL_ID, values, isnull);
	put_int4(&parsed, "subscription", LOOKUP_SUBSCRIPTION_ID, values, isnull);
	put_text(&parsed, "role", LOOKUP_ROLE, values, isnull);
	put_number(&parsed, "size", LOOKUP_SIZE, values, isnull);
	put_text(&parsed, "type", LOOKUP_CONTENT_TYPE, values, isnull);
	if (place.kind == MBUS_MESSAGE && isnull[LOOKUP_CONTENT_TYPE])
	{
		values[LOOKUP_CONTENT_TYPE] = CStringGetTextDatum(MBUS_CONTENT_JSON);
		isnull[LOOKUP_CONTENT_TYPE] = false;
	}
	put_int4(&parsed, "attempt", LOOKUP_ATTEMPT, values, isnull);
	put_text(&parsed, place.kind == MBUS_ACK ? "outcome" : "what",
			 LOOKUP_OUTCOME, values, isnull);
	put_time(&parsed, "claimed", LOOKUP_CLAIMED_AT, values, isnull);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/* ------------------------------------------------------------------------
 * Lines
 * ------------------------------------------------------------------------
 */

/* Takes an entry apart; 22023 if it is none. */
static void
entry_parse(const char *bytes, int len, Parsed *parsed)
{
	char	   *copy;
	char	   *end;
	char	   *next;

	if (len > MBUS_ENTRY_MAX)
		entry_refused("It is longer than 65535 bytes.");
	if (len <= strlen(HEADER) || memcmp(bytes, HEADER, strlen(HEADER)) != 0 ||
		bytes[len - 1] != '\n')
		entry_refused("It is lines, of which the first begins with \"mbus/1 \".");
	for (int i = 0; i < len; i++)
	{
		if ((uint8) bytes[i] > 0x7E || ((uint8) bytes[i] < 0x20 && bytes[i] != '\n'))
			entry_refused("It has bytes that are not ASCII text.");
	}
	copy = pnstrdup(bytes, len);
	end = copy + len;
	parsed->kind = copy + strlen(HEADER);
	parsed->nlines = 0;
	for (char *at = line_cut(copy, end); at < end; at = next)
	{
		char	   *space;

		next = line_cut(at, end);
		space = strchr(at, ' ');
		if (space == NULL || parsed->nlines == LINES_MAX)
			entry_refused("A line is a name, a space and a value; there are 32 at most.");
		*space = '\0';
		parsed->line[parsed->nlines].name = at;
		parsed->line[parsed->nlines++].value = space + 1;
	}
}

/* Ends a line, and returns where the next begins. */
static char *
line_cut(char *at, char *end)
{
	char	   *feed = memchr(at, '\n', end - at);

	Assert(feed != NULL);		/* the last byte is one */
	*feed = '\0';
	return feed + 1;
}

/* The value of a line, or NULL. */
static char *
line_value(const Parsed *parsed, const char *name)
{
	for (int i = 0; i < parsed->nlines; i++)
	{
		if (strcmp(parsed->line[i].name, name) == 0)
			return parsed->line[i].value;
	}
	return NULL;
}

/* A line with a number; false if there is none. */
static bool
line_number(const Parsed *parsed, const char *name, int64 *number)
{
	const char *value = line_value(parsed, name);

	return value && number_read(value, value + strlen(value), number);
}

/* A decimal number that fills the bytes up to "end". */
static bool
number_read(const char *digits, const char *end, int64 *number)
{
	bool		negative = digits < end && *digits == '-';
	int64		value = 0;

	digits += negative;
	if (digits >= end)
		return false;
	for (; digits < end; digits++)
	{
		int			digit = *digits - '0';

		if (digit < 0 || digit > 9 || value > (PG_INT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*number = negative ? -value : value;
	return true;
}

/* ------------------------------------------------------------------------
 * The log
 * ------------------------------------------------------------------------
 */

/* Where the log has what an entry says it is of; 22023 if it does not say. */
static void
entry_place(const Parsed *parsed, Place *place)
{
	const char *kind = parsed->kind;
	const char *ids = line_value(parsed, "ids");
	int64		id = 0;
	bool		told;

	place->kind = mbus_row_kind(kind);
	if (place->kind < 0)
		entry_refused("It is of no kind that is known.");
	place->segment = 0;
	told = line_number(parsed, place->kind == MBUS_MESSAGE ? "id" : "no",
					   &place->number);
	if (place->kind != MBUS_LOG_ACTION)
	{
		if (place->kind == MBUS_ACK)
			told &= ids && number_read(ids, ids + strcspn(ids, " "), &id);
		else
			told &= line_number(parsed, "id", &id);
		told &= id > 0 && (id >> MBUS_ROW_BITS) <= MBUS_SEGMENT_MAX;
		place->segment = told ? MbusSegmentOf(id) : 0;
	}
	if (!told)
		entry_refused("It does not say which row it is of.");
}

/*
 * Looks where the log has it: at an index that the newest checkpoint covers,
 * with the hash of these bytes, or one that is not there any more.
 */
static void
entry_find(Oid schema, Place *place, const char *bytes, int len)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MbusCheckpoint checkpoint;
	MbusTiles	tiles;
	MbusHash	hash;
	MbusHash	there;

	place->index = mbus_run_find(schema, snapshot, place->segment,
								 place->kind, place->number, RUNS_MOST);
	place->pruned = false;
	if (!mbus_checkpoint_newest(schema, snapshot, &checkpoint) ||
		place->index >= checkpoint.size)
		place->index = -1;
	if (place->index >= 0)
	{
		mbus_hash_leaf(bytes, len, &hash);
		mbus_tiles_open(&tiles, schema, snapshot);
		place->pruned = !mbus_tiles_leaf(&tiles, place->index, &there);
		if (place->pruned || memcmp(&there, &hash, sizeof(hash)) != 0)
			place->index = -1;
	}
	UnregisterSnapshot(snapshot);
}

/* What has become of what an entry is of, to who has shown that he has it. */
static const char *
entry_status(Oid schema, const Place *place)
{
	Relation	table;

	if (place->pruned)
		return "pruned";
	if (place->index < 0)
		return "unknown";
	table = mbus_row_table(schema, place->kind, place->segment);
	if (table == NULL)
		return "dropped";
	table_close(table, AccessShareLock);
	return "stored";
}

/* ------------------------------------------------------------------------
 * What it says
 * ------------------------------------------------------------------------
 */

static void
put_number(const Parsed *parsed, const char *name, int to, Datum *values,
		   bool *isnull)
{
	int64		number;

	if (!line_number(parsed, name, &number))
		return;
	values[to] = Int64GetDatum(number);
	isnull[to] = false;
}

/* A number of 32 bits; another one is none. */
static void
put_int4(const Parsed *parsed, const char *name, int to, Datum *values,
		 bool *isnull)
{
	int64		number;

	if (!line_number(parsed, name, &number) ||
		number < PG_INT32_MIN || number > PG_INT32_MAX)
		return;
	values[to] = Int32GetDatum((int32) number);
	isnull[to] = false;
}

/* A time that a timestamp can have. */
static void
put_time(const Parsed *parsed, const char *name, int to, Datum *values,
		 bool *isnull)
{
	int64		number;

	if (!line_number(parsed, name, &number) ||
		number < MIN_TIMESTAMP + MBUS_UNIX_EPOCH_US ||
		number >= END_TIMESTAMP)
		return;
	values[to] = TimestampTzGetDatum(number - MBUS_UNIX_EPOCH_US);
	isnull[to] = false;
}

/* A text, without its escapes. */
static void
put_text(const Parsed *parsed, const char *name, int to, Datum *values,
		 bool *isnull)
{
	const char *value = line_value(parsed, name);

	if (value == NULL)
		return;
	values[to] = CStringGetTextDatum(unescaped(value));
	isnull[to] = false;
}

/* A value with bytes for %XX; 22023 if it is no text. */
static char *
unescaped(const char *value)
{
	char	   *text = palloc(strlen(value) + 1);
	int			n = 0;

	for (; *value; value++)
	{
		int			high = -1;
		int			low = -1;

		text[		n] = *value;

		if (*value == '%')
		{
			high = hex_digit(value[1]);
			low = high < 0 ? -1 : hex_digit(value[2]);
			if (low < 0)
				entry_refused("It has an escape that is none.");
			text[		n] = (char) (high << 4 | low);

			value += 2;
		}
		n++;
	}
	text[		n] = '\0';

	if (strlen(text) != n || pg_verify_mbstr(PG_UTF8, text, n, true) == false)
		entry_refused("It has a text that is not UTF-8.");
	return text;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ------------------------------------------------------------------------
 * Openings
 * ------------------------------------------------------------------------
 */

/*
 * audit_opening(entry, opening) tells whether an opening opens a commitment of
 * an entry.  Nothing is looked up.
 */
MBUS_FUNCTION(audit_opening)
{
	bytea	   *entry = PG_GETARG_BYTEA_PP(0);
	text	   *opening = PG_GETARG_TEXT_PP(1);
	Parsed		parsed;

	if (VARSIZE_ANY_EXHDR(opening) > OPENING_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("opening of %d bytes is too long",
						(int) VARSIZE_ANY_EXHDR(opening)),
				 errdetail("The most are %d.", OPENING_MAX)));
	entry_parse(VARDATA_ANY(entry), VARSIZE_ANY_EXHDR(entry), &parsed);
	PG_RETURN_BOOL(opening_opens(&parsed, text_to_cstring(opening),
								 VARSIZE_ANY_EXHDR(opening)));
}

/* Whether a line "name salt value" does; it is cut up. */
static bool
opening_opens(const Parsed *parsed, char *opening, int len)
{
	uint8		salt[MBUS_SALT_BYTES];
	uint8		digest[MBUS_HASH_BYTES];
	char		hex[2 * MBUS_HASH_BYTES + 1];
	char	   *salt_hex = strchr(opening, ' ');
	char	   *base64 = salt_hex ? strchr(salt_hex + 1, ' ') : NULL;
	const char *commitment;
	char	   *value;
	int			room;
	int			n;

	if (base64 == NULL)
		return false;
	if (opening[len - 1] == '\n')
		opening[--len] = '\0';
	*salt_hex++ = '\0';
	*base64++ = '\0';
	commitment = line_value(parsed, opening);
	if (commitment == NULL || !salt_read(salt_hex, salt))
		return false;
	room = pg_b64_dec_len((int) strlen(base64));
	value = palloc(room + 1);
	n = MbusBase64Decode(base64, (int) strlen(base64), value, room);
	if (n < 0)
		return false;
	mbus_sha256_pair(salt, sizeof(salt), value, n, digest);
	hex[hex_encode((const char *) digest, sizeof(digest), hex)] = '\0';
	return strcmp(hex, commitment) == 0;
}

/* A salt in hex; false if it is none. */
static bool
salt_read(const char *hex, uint8 *salt)
{
	if (strlen(hex) != 2 * MBUS_SALT_BYTES)
		return false;
	for (int i = 0; i < MBUS_SALT_BYTES; i++)
	{
		int			high = hex_digit(hex[2 * i]);
		int			low = hex_digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		salt[i] = (uint8) (high << 4 | low);
	}
	return true;
}

static void
entry_refused(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("these bytes are no entry of a log"),
			 errdetail_internal("%s", why)));
}
