/*
 * salvage.c
 *		The ids of a frame that cannot be parsed.
 *
 * Who has sent a request waits for an answer with its id.  A parser that
 * stops at a fault has not read what stands behind it, so the frame is looked
 * through once more here, token by token: strings, brackets, colons, commas,
 * and whatever else stands between them.  A token that is no JSON is passed
 * over (NaN, 01).  Where it is no longer sure what is a string and how deep
 * the place is, reading ends: at a bracket that closes another kind, and
 * behind a string that is followed by what cannot follow one.  For an id that
 * belongs to something else would be worse than none.
 *
 * A client chooses the bytes, and nobody has to know who it is.  So no more
 * than SCAN_MAX of them are looked at, a name costs no memory, and of an
 * object one value is read: that of its first member "id".
 *
 * Brackets are kept as bits, one a level, so that depth costs no stack.
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "base/compat.h"
#include "base/json_slice.h"
#include "relay/rpc.h"

#define SCAN_MAX		(1024 * 1024)	/* bytes of a frame */
#define INTERRUPT_EVERY	4096	/* tokens */

typedef struct Scan
{
	const char *at;
	const char *end;
	int			depth;
	int			room;			/* levels that "objects" has bits for */
	uint8	   *objects;		/* a bit a level: an object, or an array */
	MbusSlice	last[4];		/* the token before, and those before it */
} Scan;

typedef enum Found
{
	FOUND_NOTHING,
	FOUND_NO_ID,				/* a member "id", with no value for an answer */
	FOUND_ID
} Found;

static bool scan_token(Scan *scan, MbusSlice *token);
static const char *word_end(const char *at, const char *end);
static const char *string_end(const char *at, const char *end);
static bool scan_move(Scan *scan, char bracket);
static void scan_open(Scan *scan, bool object);
static bool follows_string(char first);
static bool scan_goes_on(Scan *scan, const MbusSlice *token);
static const MbusSlice *named(const Scan *scan, const char *name);
static bool behind(const Scan *scan, const char *name);
static void keep_string(MbusSlice *to, const MbusSlice *value);
static Found find_id(Scan *scan);
static bool is_named_id(const MbusSlice *name);
static bool is_id_value(MbusSlice *value);

/*
 * mbus_salvage_ids finds the id of a request, or in a JSON-RPC batch those of
 * its elements, and returns how many it has found.  With more than max it is
 * none; of several in one object it is the first.  They are borrowed from the
 * text.
 */
int
mbus_salvage_ids(const char *json, int len, MbusSlice *ids, int max,
				 bool *batch)
{
	Scan		scan = {0};
	MbusSlice	token;
	int			level;
	int			count = 0;
	bool		taken = false;	/* this object's first member "id" was seen */
	int			tokens = 0;

	scan.at = json;
	scan.end = json + Min(len, SCAN_MAX);
	*batch = false;
	if (!scan_token(&scan, &token))
		return 0;
	*batch = *token.start == '[';
	level = *batch ? 2 : 1;
	do
	{
		char		first = *token.start;
		Found		found = FOUND_NOTHING;

		if (++tokens % INTERRUPT_EVERY == 0)
			CHECK_FOR_INTERRUPTS();
		if (!scan_goes_on(&scan, &token))
			break;
		if (first == '{' && scan.depth == level - 1)
			taken = false;
		if ((first == ',' || first == '}') && scan.depth == level && !taken)
			found = find_id(&scan);
		taken = taken || found != FOUND_NOTHING;
		if (found == FOUND_ID)
		{
			if (count == max)
				return 0;
			ids[count++] = scan.last[0];
		}
		if (!scan_move(&scan, first) || scan.depth == 0)
			break;
		memmove(&scan.last[1], &scan.last[0], 3 * sizeof(MbusSlice));
		scan.last[0] = token;
	} while (scan_token(&scan, &token));
	return count;
}

/*
 * mbus_salvage_about finds the method, and the parameters "channel" and
 * "transaction_id", of a request whose end may be missing, in a JSON-RPC batch
 * of the first that has one; the first of each.  They are borrowed from the
 * text.
 */
void
mbus_salvage_about(const char *json, int len, MbusSalvaged *found)
{
	Scan		scan = {0};
	MbusSlice	token;
	int			level = 1;
	int			tokens = 0;
	bool		params = false; /* the object in the request is that */

	scan.at = json;
	scan.end = json + Min(len, SCAN_MAX);
	while (scan_token(&scan, &token))
	{
		char		first = *token.start;

		if (++tokens % INTERRUPT_EVERY == 0)
			CHECK_FOR_INTERRUPTS();
		if (tokens == 1 && first == '[')
		{
			level = 2;
			found->batch = true;
		}
		if (first == '{' && scan.depth == level)
			params = behind(&scan, "\"params\"");
		if (!scan_goes_on(&scan, &token))
			break;
		if ((first == ',' || first == '}') && scan.depth == level)
			keep_string(&found->method, named(&scan, "\"method\""));
		if (params && (first == ',' || first == '}') &&
			scan.depth == level + 1)
		{
			keep_string(&found->channel, named(&scan, "\"channel\""));
			keep_string(&found->transaction_id,
						named(&scan, "\"transaction_id\""));
		}
		if (!scan_move(&scan, first) || scan.depth == 0)
			break;
		memmove(&scan.last[1], &scan.last[0], 3 * sizeof(MbusSlice));
		scan.last[0] = token;
	}
}

/* Whether a token may stand where it does, behind a string. */
static bool
scan_goes_on(Scan *scan, const MbusSlice *token)
{
	return scan->last[0].len == 0 || *scan->last[0].start != '"' ||
		follows_string(*token->start);
}

/* The value of the last member, if that is its name as it is written. */
static const MbusSlice *
named(const Scan *scan, const char *name)
{
	const MbusSlice *member = &scan->last[2];

	if (scan->last[1].len != 1 || *scan->last[1].start != ':' ||
		(size_t) member->len != strlen(name) ||
		memcmp(member->start, name, member->len) != 0)
		return NULL;
	return &scan->last[0];
}

/* Whether what comes is the value of a member of that name. */
static bool
behind(const Scan *scan, const char *name)
{
	return scan->last[0].len == 1 && *scan->last[0].start == ':' &&
		scan->last[1].len == (int) strlen(name) &&
		memcmp(scan->last[1].start, name, scan->last[1].len) == 0;
}

/* Keeps the first value, if it is a string that can be decoded. */
static void
keep_string(MbusSlice *to, const MbusSlice *value)
{
	if (value == NULL || to->len > 0 || *value->start != '"' ||
		!pg_verify_mbstr(PG_UTF8, value->start, value->len, true))
		return;
	*to = *value;
	to->type = JSON_TOKEN_STRING;
}

/*
 * scan_token reads the next token: a bracket, a colon, a comma, a whole
 * string, or what stands between these.  False at the end, and for a string
 * that has none.
 */
static bool
scan_token(Scan *scan, MbusSlice *token)
{
	const char *at = scan->at;

	while (at < scan->end && strchr(" \t\r\n", *at) && *at != '\0')
		at++;
	if (at == scan->end)
		return false;
	memset(token, 0, sizeof(*token));
	token->start = at;
	if (*at == '"')
		at = string_end(at, scan->end);
	else if (strchr("{}[]:,", *at) && *at != '\0')
		at++;
	else
		at = word_end(at, scan->end);
	if (at == NULL)
		return false;
	token->len = at - token->start;
	scan->at = at;
	return true;
}

/* Returns the place behind what is neither bracket, comma, colon nor string. */
static const char *
word_end(const char *at, const char *end)
{
	while (at < end && (*at == '\0' || strchr("{}[]:,\" \t\r\n", *at) == NULL))
		at++;
	return at;
}

/* Returns the place behind a string's closing quote, NULL if it has none. */
static const char *
string_end(const char *at, const char *end)
{
	for (at++; at < end; at++)
	{
		if (*at == '"')
			return at + 1;
		if (*at == '\\')
			at++;
	}
	return NULL;
}

/*
 * scan_move goes into what a bracket opens, or out of what it closes; false
 * if that is of the other kind.
 */
static bool
scan_move(Scan *scan, char bracket)
{
	bool		object;

	if (bracket == '{' || bracket == '[')
		scan_open(scan, bracket == '{');
	else if (bracket == '}' || bracket == ']')
	{
		if (scan->depth == 0)
			return false;
		scan->depth--;
		object = (scan->objects[scan->depth / 8] >> scan->depth % 8) & 1;
		return object == (bracket == '}');
	}
	return true;
}

static void
scan_open(Scan *scan, bool object)
{
	uint8		bit = 1 << scan->depth % 8;

	if (scan->room == 0)
	{
		scan->room = 512;
		scan->objects = palloc(scan->room / 8);
	}
	else if (scan->depth == scan->room)
	{
		scan->room *= 2;
		scan->objects = repalloc(scan->objects, scan->room / 8);
	}
	if (object)
		scan->objects[scan->depth / 8] |= bit;
	else
		scan->objects[scan->depth / 8] &= ~bit;
	scan->depth++;
}

static bool
follows_string(char first)
{
	return first == ':' || first == ',' || first == '}' || first == ']';
}

/*
 * find_id tells whether the last tokens, in an object, are a member "id" with
 * what is before it.
 */
static Found
find_id(Scan *scan)
{
	const MbusSlice *before = &scan->last[3];
	const MbusSlice *colon = &scan->last[1];
	int			inner = scan->depth - 1;

	if (!((scan->objects[inner / 8] >> inner % 8) & 1) ||
		before->len != 1 || strchr("{,", *before->start) == NULL ||
		*colon->start != ':' || !is_named_id(&scan->last[2]))
		return FOUND_NOTHING;
	return is_id_value(&scan->last[0]) ? FOUND_ID : FOUND_NO_ID;
}

/* is_named_id tells whether a token is "id", however it is escaped. */
static bool
is_named_id(const MbusSlice *name)
{
	static const char *const letters[2][2] = {
		{"i", "\\u0069"}, {"d", "\\u0064"}
	};
	const char *at = name->start + 1;
	const char *end = name->start + name->len - 1;

	if (name->len < 4 || *name->start != '"')
		return false;
	for (int i = 0; i < 2; i++)
	{
		const char *escaped = letters[i][1];
		int			len = strlen(escaped);

		if (at < end && *at == *letters[i][0])
			at++;
		else if (end - at >= len && memcmp(at, escaped, len) == 0)
			at += len;
		else
			return false;
	}
	return at == end;
}

/*
 * is_id_value tells whether a value is one that an answer can have; it sets
 * its type.
 */
static bool
is_id_value(MbusSlice *value)
{
	JsonLexContext *lex;
	bool		sound;

	if (value->len > MBUS_RPC_ID_MAX ||
		!pg_verify_mbstr(PG_UTF8, value->start, value->len, true))
		return false;
	lex = MbusMakeLexer(value->start, value->len, false);
	sound = json_lex(lex) == JSON_SUCCESS &&
		lex->token_terminator == value->start + value->len;
	value->type = lex->token_type;
	pfree(lex);
	return sound && (value->type == JSON_TOKEN_STRING ||
					 value->type == JSON_TOKEN_NUMBER);
}
