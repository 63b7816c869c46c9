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
 * Brackets are kept as bits, one a level, so that depth costs no stack.
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"

#include "base/compat.h"
#include "base/json_slice.h"
#include "relay/rpc.h"

#define ID_NAME_MAX	14			/* "id" in quotes, all of it escaped */

typedef struct Scan
{
	const char *at;
	const char *end;
	int			depth;
	int			room;			/* levels that "objects" has bits for */
	uint8	   *objects;		/* a bit a level: an object, or an array */
} Scan;

static bool scan_token(Scan *scan, MbusSlice *token);
static const char *word_end(const char *at, const char *end);
static const char *string_end(const char *at, const char *end);
static bool scan_move(Scan *scan, char bracket);
static void scan_open(Scan *scan, bool object);
static bool follows_string(char first);
static bool is_id(const MbusSlice *before, const MbusSlice *name,
				  const MbusSlice *colon, MbusSlice *value);

/*
 * mbus_salvage_ids finds the id of a request, or in a JSON-RPC batch those of
 * its elements, and returns how many it has found.  With more than max it is
 * none.  They are borrowed from the text.
 */
int
mbus_salvage_ids(const char *json, int len, MbusSlice *ids, int max,
				 bool *batch)
{
	Scan		scan = {0};
	MbusSlice	last[4];		/* the token before, and those before it */
	MbusSlice	token;
	int			level;
	int			count = 0;
	bool		taken = false;

	scan.at = json;
	scan.end = json + len;
	memset(last, 0, sizeof(last));
	*batch = false;
	if (!scan_token(&scan, &token))
		return 0;
	*batch = *token.start == '[';
	level = *batch ? 2 : 1;
	do
	{
		char		first = *token.start;

		if (last[0].len > 0 && *last[0].start == '"' && !follows_string(first))
			break;
		if (first == '{' && scan.depth == level - 1)
			taken = false;
		if ((first == ',' || first == '}') && scan.depth == level && !taken &&
			is_id(&last[3], &last[2], &last[1], &last[0]))
		{
			if (count == max)
				return 0;
			ids[count++] = last[0];
			taken = true;
		}
		if (!scan_move(&scan, first) || scan.depth == 0)
			break;
		last[3] = last[2];
		last[2] = last[1];
		last[1] = last[0];
		last[0] = token;
	} while (scan_token(&scan, &token));
	return count;
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
 * is_id tells whether tokens are a member "id", with what is before it, and
 * its value one that an answer can have; it sets the value's type.
 */
static bool
is_id(const MbusSlice *before, const MbusSlice *name, const MbusSlice *colon,
	  MbusSlice *value)
{
	MbusSlice	quoted = *name;
	JsonLexContext *lex;
	char	   *decoded;

	if (before->len != 1 || strchr("{,", *before->start) == NULL ||
		name->len < 4 || name->len > ID_NAME_MAX || *name->start != '"' ||
		*colon->start != ':' || value->len > MBUS_RPC_ID_MAX)
		return false;
	quoted.type = JSON_TOKEN_STRING;
	decoded = mbus_json_string(&quoted, true);
	if (decoded == NULL || strcmp(decoded, "id") != 0 ||
		!pg_verify_mbstr(PG_UTF8, value->start, value->len, true))
		return false;
	lex = MbusMakeLexer(value->start, value->len, false);
	if (json_lex(lex) != JSON_SUCCESS ||
		lex->token_terminator != value->start + value->len)
		return false;
	value->type = lex->token_type;
	return value->type == JSON_TOKEN_STRING ||
		value->type == JSON_TOKEN_NUMBER;
}
