/*
 * frame.c
 *		Control frames of the HTTP door: README.md has their form.
 */
#include "postgres.h"

#include "utils/json.h"

#include "base/compat.h"
#include "base/json_slice.h"
#include "door/door.h"

#define FRAME_MAX	(128 * 1024)	/* bytes */
#define PIECE_MAX	(1024 * 1024)	/* bytes of a message in an answer */
#define HEADERS_MAX	256
#define NUMBER_MAX	((INT64CONST(1) << 53) - 1)

static void read_request(const MbusNode *root, MbusDoor *door);
static void read_headers(const MbusNode *node, MbusDoor *door);
static void read_header(const char *name, char *value, MbusDoor *door);
static void put_once(const char **to, const char *value, MbusDoor *door);
static void put_list(const char **to, const char *value);
static int64 number_of(const MbusNode *root, const char *name, int64 most);
static char *string_of(const MbusNode *root, const char *name);
static char *string_value(const MbusNode *node);
pg_noreturn static void bad_frame(void);

static const char *const askers[] = {
	[MBUS_BY_NOBODY] = NULL,
	[MBUS_BY_TOKEN] = "token",
	[MBUS_BY_CAPABILITY] = "capability",
	[MBUS_BY_ANONYMOUS] = "anonymous",
	[MBUS_BY_ROLE] = "role"
};

/*
 * mbus_door_is tells whether a control frame is one of the door.
 */
bool
mbus_door_is(const char *bytes, int len)
{
	return len >= 2 &&
		(bytes[1] == MBUS_DOOR_REQUEST || bytes[1] == MBUS_DOOR_PIECE);
}

/*
 * mbus_door_read reads a frame, its number first.  08P01 or 22P02 if it is not
 * made as it should be, which quotes nothing of it.
 */
void
mbus_door_read(const char *bytes, int len, MbusDoor *door)
{
	MbusNode	root;

	door->kind = bytes[1];
	if (len > FRAME_MAX)
		bad_frame();
	mbus_json_slice(bytes + 2, len - 2, 1, &root);
	if (root.value.type != JSON_TOKEN_OBJECT_START || mbus_json_duplicate(&root))
		bad_frame();
	door->n = number_of(&root, "n", NUMBER_MAX) + 1;
	door->max = Min(number_of(&root, "max", NUMBER_MAX), PIECE_MAX);
	if (door->kind == MBUS_DOOR_REQUEST)
		read_request(&root, door);
	else
	{
		door->ticket_text = string_of(&root, "ticket");
		door->from = number_of(&root, "from", PG_INT64_MAX / 10 - 1);
	}
}

static void
read_request(const MbusNode *root, MbusDoor *door)
{
	char	   *method = string_of(root, "method");
	char	   *query = mbus_json_member(root, "query") ?
	string_of(root, "query") : pstrdup("");

	door->method = strcmp(method, "GET") == 0 ? MBUS_HTTP_GET :
		strcmp(method, "HEAD") == 0 ? MBUS_HTTP_HEAD :
		strcmp(method, "OPTIONS") == 0 ? MBUS_HTTP_OPTIONS : MBUS_HTTP_OTHER;
	mbus_target_read(string_of(root, "path"), query, &door->target);
	read_headers(mbus_json_member(root, "headers"), door);
}

/* Reads an array of pairs, if there is one. */
static void
read_headers(const MbusNode *node, MbusDoor *door)
{
	MbusNode	list;

	if (node == NULL)
		return;
	if (node->value.type != JSON_TOKEN_ARRAY_START)
		bad_frame();
	mbus_json_slice(node->value.start, node->value.len, HEADERS_MAX, &list);
	if (list.total > list.nchildren)
		bad_frame();
	for (int i = 0; i < list.nchildren; i++)
	{
		const MbusSlice *element = &list.children[i].value;
		MbusNode	pair;

		if (element->type != JSON_TOKEN_ARRAY_START)
			bad_frame();
		mbus_json_slice(element->start, element->len, 2, &pair);
		if (pair.total != 2)
			bad_frame();
		read_header(string_value(&pair.children[0]),
					string_value(&pair.children[1]), door);
	}
}

/* Keeps a field that is wanted. */
static void
read_header(const char *name, char *value, MbusDoor *door)
{
	if (strcmp(name, "range") == 0)
		put_once(&door->range, value, door);
	else if (strcmp(name, "if-range") == 0)
		put_once(&door->conditions.if_range, value, door);
	else if (strcmp(name, "if-match") == 0)
		put_list(&door->conditions.if_match, value);
	else if (strcmp(name, "if-none-match") == 0)
		put_list(&door->conditions.if_none_match, value);
	else if (strcmp(name, "if-modified-since") == 0)
		put_list(&door->conditions.if_modified_since, value);
	else if (strcmp(name, "if-unmodified-since") == 0)
		put_list(&door->conditions.if_unmodified_since, value);
	else if (strcmp(name, "sec-fetch-dest") == 0)
		put_once(&door->fetch_dest, value, door);
	else if (strcmp(name, "origin") == 0)
		put_once(&door->origin, value, door);
	else if (strcmp(name, "access-control-request-method") == 0)
		put_once(&door->wanted_method, value, door);
}

static void
put_once(const char **to, const char *value, MbusDoor *door)
{
	if (*to)
		door->repeated = true;
	*to = value;
}

/* Several lines of a field are one list; of a date, none. */
static void
put_list(const char **to, const char *value)
{
	*to = *to ? psprintf("%s, %s", *to, value) : value;
}

/* A member that is a number from 0 on. */
static int64
number_of(const MbusNode *root, const char *name, int64 most)
{
	const MbusNode *node = mbus_json_member(root, name);
	int64		number;

	if (node == NULL || node->value.type != JSON_TOKEN_NUMBER ||
		node->value.len > 18 ||
		strspn(node->value.start, "0123456789") < (size_t) node->value.len)
		bad_frame();
	number = strtoll(mbus_json_token(&node->value, -1), NULL, 10);
	if (number > most)
		bad_frame();
	return number;
}

static char *
string_of(const MbusNode *root, const char *name)
{
	return string_value(mbus_json_member(root, name));
}

/* A string without zeros; NULL is none. */
static char *
string_value(const MbusNode *node)
{
	char	   *string = NULL;

	if (node && node->value.type == JSON_TOKEN_STRING)
		string = mbus_json_string(&node->value, true);
	if (string == NULL)
		bad_frame();
	return string;
}

static void
bad_frame(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("frame of the HTTP door is malformed")));
}

/*
 * mbus_door_head begins the answer to a request; headers: elements of an
 * array.
 */
void
mbus_door_head(StringInfo out, const MbusDoor *door, int status,
			   const char *headers)
{
	appendStringInfo(out, "{\"http\":{\"n\":" INT64_FORMAT ",\"status\":%d,\"by\":",
					 door->n - 1, status);
	if (askers[door->ticket.by])
		appendStringInfo(out, "\"%s\"", askers[door->ticket.by]);
	else
		appendStringInfoString(out, "null");
	appendStringInfo(out, ",\"headers\":%s]", headers);
}

/*
 * mbus_door_body ends it: content is what is from "from" to before "to", of
 * which "size" bytes are there.  A ticket is for the rest of a message; an
 * error has none.
 */
void
mbus_door_body(StringInfo out, const MbusDoor *door, int64 from, int64 to,
			   const char *bytes, int64 size)
{
	appendStringInfo(out, ",\"from\":" INT64_FORMAT ",\"to\":" INT64_FORMAT ",\"size\":" INT64_FORMAT ",\"ticket\":",
					 from, to, size);
	if (door->ticket.id != 0 && door->method == MBUS_HTTP_GET &&
		size < to - from)
	{
		appendStringInfoChar(out, '"');
		mbus_ticket_append(out, &door->ticket);
		appendStringInfoChar(out, '"');
	}
	else
		appendStringInfoString(out, "null");
	appendStringInfoString(out, "}}\n");
	appendBinaryStringInfo(out, bytes, (int) size);
}

/*
 * mbus_door_piece appends a piece of a message, and the ticket for the next.
 */
void
mbus_door_piece(StringInfo out, const MbusDoor *door, const char *bytes,
				int64 size)
{
	appendStringInfo(out, "{\"piece\":{\"n\":" INT64_FORMAT ",\"from\":" INT64_FORMAT ",\"size\":" INT64_FORMAT ",\"ticket\":\"",
					 door->n - 1, door->from, size);
	mbus_ticket_append(out, &door->ticket);
	appendStringInfoString(out, "\"}}\n");
	appendBinaryStringInfo(out, bytes, (int) size);
}

/* mbus_door_gone appends that no more comes, and why. */
void
mbus_door_gone(StringInfo out, const MbusDoor *door, const char *reason)
{
	appendStringInfo(out, "{\"piece\":{\"n\":" INT64_FORMAT ",\"gone\":\"%s\"}}\n",
					 door->n - 1, reason);
}

/* mbus_door_later appends that it may come yet, and why it has not. */
void
mbus_door_later(StringInfo out, const MbusDoor *door, const char *sqlstate)
{
	appendStringInfo(out, "{\"piece\":{\"n\":" INT64_FORMAT ",\"error\":\"%s\"}}\n",
					 door->n - 1, sqlstate);
}
