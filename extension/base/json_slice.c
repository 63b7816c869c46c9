/*
 * json_slice.c
 *		Exact pieces of a JSON text, without changing a byte of them.
 *
 * One pass of the server's own JSON parser finds where values begin and end.
 * Only what a JSON-RPC frame needs is opened: the outermost object, or the
 * outermost array and the objects in it, and in such an object the member
 * "params".  Everything else, a payload of 30 MB for one, is passed over once
 * and stays where it is: a slice points into the text.
 *
 * So 1.10, -0, 1e400, duplicate keys, \u0000 and lone surrogates inside a
 * payload are never interpreted.  The parser checks the grammar; the caller
 * has checked that the text is UTF-8.
 *
 * The path of opened containers is a small stack.  The parser's lex_level is
 * the number of containers around the current token, so that an event
 * belongs to the innermost opened container exactly if the two are equal.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/json_slice.h"

#define OPEN_MAX	4			/* array, request, params; and room */

typedef struct Slicer
{
	JsonLexContext *lex;
	int			max_elements;
	int			nopen;
	MbusNode   *open[OPEN_MAX];
	MbusNode   *root;
	MbusNode   *current;		/* child whose value is being read, or NULL */
	const char *mark;			/* behind the token before a member's name */
} Slicer;

static JsonParseErrorType slice_parse(JsonLexContext *lex, int max_elements,
									  MbusNode *root);
static MbusJsonResult slice_container_start(void *state);
static MbusJsonResult slice_container_end(void *state);
static MbusJsonResult slice_field_start(void *state, char *fname, bool isnull);
static MbusJsonResult slice_field_end(void *state, char *fname, bool isnull);
static MbusJsonResult slice_element_start(void *state, bool isnull);
static MbusJsonResult slice_element_end(void *state, bool isnull);
static bool slicer_opens(const Slicer *slicer, const MbusNode *node);
static void child_start(Slicer *slicer, bool named);
static void child_end(Slicer *slicer);
static char *member_name(const char *from, const char *end);
static char *bad_json(JsonParseErrorType fault, JsonLexContext *lex);
static long long fault_at(const JsonLexContext *lex);

/*
 * mbus_json_slice fills *root from a JSON text.  Nodes are made in the
 * current memory context and borrow the text.  Of an opened object at most
 * MBUS_MEMBERS_MAX members are kept, of an opened array max_elements.  22P02
 * if it is no JSON, which quotes nothing of it: it may be a secret.
 */
void
mbus_json_slice(const char *json, int len, int max_elements, MbusNode *root)
{
	JsonLexContext *lex = MbusMakeLexer(json, len, false);

	if (slice_parse(lex, max_elements, root) != JSON_SUCCESS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("text is not valid JSON"),
				 errdetail("The fault is at byte %lld.", fault_at(lex))));
	pfree(lex);
}

/*
 * mbus_json_try is mbus_json_slice() for who tells of a fault himself: it
 * returns what is wrong and where, NULL if nothing is.  That quotes the text.
 */
char *
mbus_json_try(const char *json, int len, int max_elements, MbusNode *root)
{
	JsonLexContext *lex = MbusMakeLexer(json, len, false);
	JsonParseErrorType fault = slice_parse(lex, max_elements, root);

	if (fault != JSON_SUCCESS)
		return bad_json(fault, lex);
	pfree(lex);
	return NULL;
}

/* Parses a text, and fills *root on the way. */
static JsonParseErrorType
slice_parse(JsonLexContext *lex, int max_elements, MbusNode *root)
{
	Slicer		slicer = {0};
	JsonSemAction action = {0};
	JsonParseErrorType fault;

	memset(root, 0, sizeof(*root));
	slicer.lex = lex;
	slicer.max_elements = max_elements;
	slicer.root = root;

	action.semstate = &slicer;
	action.object_start = slice_container_start;
	action.object_end = slice_container_end;
	action.array_start = slice_container_start;
	action.array_end = slice_container_end;
	action.object_field_start = slice_field_start;
	action.object_field_end = slice_field_end;
	action.array_element_start = slice_element_start;
	action.array_element_end = slice_element_end;

	fault = pg_parse_json(lex, &action);

	/* a scalar text has no event of its own that tells where it lies */
	if (fault == JSON_SUCCESS && root->value.type == JSON_TOKEN_INVALID)
	{
		root->value.start = lex->input;
		root->value.len = lex->input_length;
		root->value.type = JSON_TOKEN_NULL;
	}
	return fault;
}

/*
 * mbus_json_member returns the first member of that name, or NULL.
 */
MbusNode *
mbus_json_member(const MbusNode *object, const char *name)
{
	int			i;

	for (i = 0; i < object->nchildren; i++)
	{
		if (strcmp(object->children[i].name, name) == 0)
			return &object->children[i];
	}
	return NULL;
}

/*
 * mbus_json_duplicate returns a name that an opened object has twice, or
 * NULL.
 */
const char *
mbus_json_duplicate(const MbusNode *object)
{
	int			i;

	for (i = 1; i < object->nchildren; i++)
	{
		const char *name = object->children[i].name;

		if (mbus_json_member(object, name) != &object->children[i])
			return name;
	}
	return NULL;
}

/*
 * mbus_json_string decodes a string's slice into a palloc'd C string.  What
 * text cannot hold, \u0000 or half of a surrogate pair, gives NULL if
 * missing_ok, else an error.
 */
char *
mbus_json_string(const MbusSlice *slice, bool missing_ok)
{
	JsonLexContext *lex;
	JsonParseErrorType fault;
	char	   *result;

	Assert(slice->type == JSON_TOKEN_STRING);
	if (memchr(slice->start, '\\', slice->len) == NULL)
		return pnstrdup(slice->start + 1, slice->len - 2);

	lex = MbusMakeLexer(slice->start, slice->len, true);
	fault = json_lex(lex);
	if (fault == JSON_SUCCESS)
		result = pstrdup(lex->strval->data);
	else if (missing_ok)
		result = NULL;
	else
	{
		result = NULL;
		ereport(ERROR,
				(errcode(fault == JSON_UNICODE_CODE_POINT_ZERO ?
						 ERRCODE_UNTRANSLATABLE_CHARACTER :
						 ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("unsupported Unicode escape sequence"),
				 errdetail_internal("%s", json_errdetail(fault, lex))));
	}
	return result;
}

/*
 * mbus_json_token returns the bytes of a slice as a palloc'd C string, cut
 * to at most max_len bytes where that is not negative.
 */
char *
mbus_json_token(const MbusSlice *slice, int max_len)
{
	int			len = slice->len;

	if (max_len >= 0 && len > max_len)
		len = pg_encoding_mbcliplen(PG_UTF8, slice->start, len, max_len);
	return pnstrdup(slice->start, len);
}

/*
 * An object or array begins.  It is opened if it is the root, or a child of an
 * opened one that slicer_opens() lets in; else it is passed over.
 */
static MbusJsonResult
slice_container_start(void *state)
{
	Slicer	   *slicer = state;
	JsonLexContext *lex = slicer->lex;
	MbusNode   *node;

	if (lex->lex_level != slicer->nopen || slicer->nopen == OPEN_MAX)
		MBUS_JSON_CONTINUE;

	if (slicer->nopen == 0)
	{
		node = slicer->root;
		node->value.start = lex->token_start;
		node->value.type = lex->token_type;
	}
	else
	{
		node = slicer->current;
		if (node == NULL || !slicer_opens(slicer, node))
			MBUS_JSON_CONTINUE;
	}

	node->opened = true;
	slicer->open[slicer->nopen++] = node;
	slicer->mark = lex->token_terminator;
	MBUS_JSON_CONTINUE;
}

/*
 * An object or array ends; if it was opened, its parent is the innermost
 * opened one again.
 */
static MbusJsonResult
slice_container_end(void *state)
{
	Slicer	   *slicer = state;

	if (slicer->lex->lex_level != slicer->nopen - 1)
		MBUS_JSON_CONTINUE;

	slicer->nopen--;
	slicer->current = slicer->open[slicer->nopen];
	if (slicer->nopen == 0)
		slicer->root->value.len =
			slicer->lex->prev_token_terminator - slicer->root->value.start;
	MBUS_JSON_CONTINUE;
}

static MbusJsonResult
slice_field_start(void *state, char *fname, bool isnull)
{
	Slicer	   *slicer = state;

	if (slicer->lex->lex_level == slicer->nopen)
		child_start(slicer, true);
	MBUS_JSON_CONTINUE;
}

static MbusJsonResult
slice_field_end(void *state, char *fname, bool isnull)
{
	Slicer	   *slicer = state;

	if (slicer->lex->lex_level == slicer->nopen)
		child_end(slicer);
	MBUS_JSON_CONTINUE;
}

static MbusJsonResult
slice_element_start(void *state, bool isnull)
{
	Slicer	   *slicer = state;

	if (slicer->lex->lex_level == slicer->nopen)
		child_start(slicer, false);
	MBUS_JSON_CONTINUE;
}

static MbusJsonResult
slice_element_end(void *state, bool isnull)
{
	Slicer	   *slicer = state;

	if (slicer->lex->lex_level == slicer->nopen)
		child_end(slicer);
	MBUS_JSON_CONTINUE;
}

/*
 * slicer_opens tells whether a child of the innermost opened container is
 * opened too.
 */
static bool
slicer_opens(const Slicer *slicer, const MbusNode *node)
{
	if (node->value.type != JSON_TOKEN_OBJECT_START)
		return false;
	if (node->name == NULL)
		return slicer->nopen == 1;
	return strcmp(node->name, "params") == 0 &&
		slicer->nopen == (slicer->root->value.type ==
						  JSON_TOKEN_ARRAY_START ? 2 : 1);
}

/*
 * child_start adds the value that begins at the current token to the
 * innermost opened container.
 */
static void
child_start(Slicer *slicer, bool named)
{
	MbusNode   *parent = slicer->open[slicer->nopen - 1];
	int			limit = named ? MBUS_MEMBERS_MAX : slicer->max_elements;
	MbusNode   *child;

	parent->total++;
	slicer->current = NULL;
	if (parent->nchildren >= limit)
		return;

	if (parent->nchildren == parent->room)
	{
		int			room = Max(8, parent->room * 2);

		if (parent->children == NULL)
			parent->children = palloc(room * sizeof(MbusNode));
		else
			parent->children = repalloc_huge(parent->children,
											 room * sizeof(MbusNode));
		parent->room = room;
	}
	child = &parent->children[parent->nchildren++];
	memset(child, 0, sizeof(*child));
	if (named)
		child->name = member_name(slicer->mark,
								  slicer->lex->prev_token_terminator);
	child->value.start = slicer->lex->token_start;
	child->value.type = slicer->lex->token_type;
	slicer->current = child;
}

/* The value of the current child ends here. */
static void
child_end(Slicer *slicer)
{
	JsonLexContext *lex = slicer->lex;
	MbusNode   *child = slicer->current;

	if (child)
		child->value.len = lex->prev_token_terminator - child->value.start;
	slicer->current = NULL;
	slicer->mark = lex->token_terminator;
}

/*
 * member_name decodes the name that lies between the token before it and the
 * end of its colon.  One that text cannot hold keeps its escapes: it is a
 * name nobody knows.
 */
static char *
member_name(const char *from, const char *end)
{
	MbusSlice	name;
	char	   *decoded;

	while (*from != '"')
		from++;
	do
		end--;
	while (end > from && *end != '"');
	name.start = from;
	name.len = end - from + 1;
	name.type = JSON_TOKEN_STRING;

	decoded = mbus_json_string(&name, true);
	return decoded ? decoded : mbus_json_token(&name, -1);
}

/*
 * bad_json returns the parser's detail, cut short, and the place.
 */
static char *
bad_json(JsonParseErrorType fault, JsonLexContext *lex)
{
	char	   *detail = json_errdetail(fault, lex);
	int			len = strlen(detail);

	len = pg_encoding_mbcliplen(PG_UTF8, detail, len, 200);
	return psprintf("%.*s At byte %lld.", len, detail, fault_at(lex));
}

/* Where the parser has stopped. */
static long long
fault_at(const JsonLexContext *lex)
{
	const char *at = lex->token_start ? lex->token_start :
	lex->token_terminator;

	return at - lex->input;
}
