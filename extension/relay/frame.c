/*
 * frame.c
 *		A WebSocket frame taken apart into JSON-RPC requests.
 *
 * The first byte of a frame is its RFC 6455 opcode.  With 0x10 set four bytes
 * follow it, a limit for the reply in network order, which its client has
 * asked for; without, the limit is the settings'.  A text frame is JSON.  A
 * binary frame is one line of JSON, a line feed, and bytes that stand for
 * params.payload, or, cut by the member "bodies" of the header line, for the
 * payloads of several messages.
 *
 * Of a request object the members jsonrpc, id, method, params, and ours,
 * binary, bodies and receipt, are read; others are ignored, as the JSON-RPC
 * specification leaves them open.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"

#include "base/json_slice.h"
#include "base/settings.h"
#include "relay/rpc.h"

#define LIMITED_HEAD	5		/* opcode and limit */
#define BODIES_MAX	100000		/* messages of a binary publish_batch */

static void read_id(const MbusNode *node, MbusRequest *request);
static void read_jsonrpc(const MbusNode *node);
static void read_method(const MbusNode *node, MbusRequest *request);
static void read_params(const MbusNode *node, MbusRequest *request);
static bool read_flag(const MbusNode *node, const char *name);
static void read_bodies(const MbusNode *node, MbusRequest *request);
static void refuse_duplicates(const MbusNode *object);
static void bad_request(const char *message);

/*
 * mbus_frame_split tells JSON from raw bytes.  Errors with -32600.
 */
void
mbus_frame_split(const char *bytes, int len, MbusFrame *frame)
{
	const char *line_feed;
	int			opcode;

	memset(frame, 0, sizeof(*frame));
	if (len < 1)
		bad_request("frame has no opcode");

	opcode = (unsigned char) bytes[0];
	frame->limit = mbus_frame_max;
	if (mbus_client_frame_max > 0)
		frame->limit = Min(frame->limit, mbus_client_frame_max);
	if (opcode & MBUS_OPCODE_LIMITED && len >= LIMITED_HEAD)
	{
		uint32		limit;

		memcpy(&limit, bytes + 1, sizeof(limit));
		frame->limit = Min((uint32) mbus_frame_max, pg_ntoh32(limit));
		opcode &= ~MBUS_OPCODE_LIMITED;
		bytes += sizeof(limit);
		len -= sizeof(limit);
	}
	frame->text = bytes + 1;
	frame->text_len = len - 1;
	if (opcode == MBUS_OPCODE_TEXT)
		return;
	if (opcode != MBUS_OPCODE_BINARY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("unknown opcode %d of a frame", opcode),
				 errdetail("A frame is text (1) or binary (2).")));

	line_feed = memchr(frame->text, '\n', frame->text_len);
	if (line_feed == NULL)
		bad_request("binary frame has no line feed behind its line of JSON");
	else
	{
		frame->binary = true;
		frame->body = line_feed + 1;
		frame->body_len = frame->text_len - (frame->body - frame->text);
		frame->text_len = line_feed - frame->text;
	}
}

/*
 * mbus_frame_check_text errors with -32700 unless the JSON is UTF-8.
 */
void
mbus_frame_check_text(const MbusFrame *frame)
{
	int			valid;

	if (pg_verify_mbstr(PG_UTF8, frame->text, frame->text_len, true))
		return;

	valid = pg_encoding_verifymbstr(PG_UTF8, frame->text, frame->text_len);
	ereport(ERROR,
			(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
			 mbus_rpc(MBUS_RPC_PARSE),
			 errmsg("frame is not valid UTF-8"),
			 errdetail("The first invalid byte is at %d.", valid)));
}

/*
 * mbus_request_read fills *request from an opened object.  Errors with -32600
 * or, for the form of params, -32602; what was read until then, the id first,
 * stays in *request for the reply.
 */
void
mbus_request_read(const MbusNode *node, const MbusFrame *frame,
				  MbusRequest *request)
{
	memset(request, 0, sizeof(*request));
	if (node->value.type != JSON_TOKEN_OBJECT_START)
		bad_request("request is not an object");

	read_id(node, request);
	refuse_duplicates(node);
	read_jsonrpc(mbus_json_member(node, "jsonrpc"));
	read_method(mbus_json_member(node, "method"), request);
	request->binary = read_flag(mbus_json_member(node, "binary"), "binary");
	request->receipt = read_flag(mbus_json_member(node, "receipt"), "receipt");

	if (frame->binary)
	{
		request->binary = true;
		request->has_body = true;
		request->body.bytes = frame->body;
		request->body.len = frame->body_len;
	}
	read_bodies(mbus_json_member(node, "bodies"), request);
	read_params(mbus_json_member(node, "params"), request);
}

/* The id goes back as it came, byte for byte. */
static void
read_id(const MbusNode *node, MbusRequest *request)
{
	const MbusNode *id = mbus_json_member(node, "id");

	if (id == NULL)
		return;
	if (id->value.type != JSON_TOKEN_STRING &&
		id->value.type != JSON_TOKEN_NUMBER &&
		id->value.type != JSON_TOKEN_NULL)
		bad_request("id is not a string, a number or null");
	if (id->value.len > MBUS_RPC_ID_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("id is longer than %d bytes", MBUS_RPC_ID_MAX)));
	request->id = id->value;
}

static void
read_jsonrpc(const MbusNode *node)
{
	char	   *version = NULL;

	if (node && node->value.type == JSON_TOKEN_STRING)
		version = mbus_json_string(&node->value, true);
	if (version == NULL || strcmp(version, "2.0") != 0)
		bad_request("member \"jsonrpc\" is not \"2.0\"");
}

/* The name is cut to what a function's name can be. */
static void
read_method(const MbusNode *node, MbusRequest *request)
{
	char	   *method;

	if (node == NULL)
		bad_request("member \"method\" is missing");
	else if (node->value.type != JSON_TOKEN_STRING)
		bad_request("member \"method\" is not a string");
	method = mbus_json_string(&node->value, true);
	if (method == NULL)
		method = mbus_json_token(&node->value, -1);
	if (strlen(method) >= NAMEDATALEN)
		method[pg_encoding_mbcliplen(PG_UTF8, method, strlen(method),
									 NAMEDATALEN - 1)] = '\0';
	request->method = method;
}

/*
 * read_params opens the parameters, which are given by name, each once.  An
 * array is only noted, and refused when the method is known.
 */
static void
read_params(const MbusNode *node, MbusRequest *request)
{
	const char *name;

	if (node == NULL || node->value.type == JSON_TOKEN_NULL)
		return;
	if (node->value.type == JSON_TOKEN_ARRAY_START)
	{
		request->positional = true;
		return;
	}
	if (node->value.type != JSON_TOKEN_OBJECT_START)
		bad_request("member \"params\" is not an object");
	if (node->total > node->nchildren)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("params has %d members", node->total),
				 errdetail("At most %d are read.", MBUS_MEMBERS_MAX)));
	name = mbus_json_duplicate(node);
	if (name)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"%.64s\" is given twice", name)));
	request->params = node;
}

/* A member that is true or false; it is false if it is not there. */
static bool
read_flag(const MbusNode *node, const char *name)
{
	if (node == NULL || node->value.type == JSON_TOKEN_FALSE)
		return false;
	if (node->value.type != JSON_TOKEN_TRUE)
		bad_request(psprintf("member \"%s\" is not true or false", name));
	return true;
}

/*
 * read_bodies cuts the raw bytes into the lengths given by the header line,
 * which must be all of them.
 */
static void
read_bodies(const MbusNode *node, MbusRequest *request)
{
	MbusNode	lengths;
	int			left = request->body.len;
	const char *at = request->body.bytes;
	int			i;

	if (node == NULL)
		return;
	if (!request->has_body)
		bad_request("member \"bodies\" goes with a binary frame");
	if (node->value.type != JSON_TOKEN_ARRAY_START)
		bad_request("member \"bodies\" is not an array of lengths");

	mbus_json_slice(node->value.start, node->value.len, BODIES_MAX, &lengths);
	if (lengths.total > lengths.nchildren)
		bad_request("member \"bodies\" has too many lengths");
	request->has_bodies = true;
	request->nbodies = lengths.nchildren;
	request->bodies = palloc(Max(lengths.nchildren, 1) * sizeof(MbusRaw));
	for (i = 0; i < lengths.nchildren; i++)
	{
		const MbusSlice *length = &lengths.children[i].value;
		int			len = 0;

		if (length->type != JSON_TOKEN_NUMBER || length->len > 9 ||
			strspn(length->start, "0123456789") < (size_t) length->len)
			bad_request("member \"bodies\" has an element that is no length");
		len = atoi(mbus_json_token(length, -1));
		if (len > left)
			bad_request("lengths in \"bodies\" exceed the frame");
		request->bodies[i].bytes = at;
		request->bodies[i].len = len;
		at += len;
		left -= len;
	}
	if (left > 0)
		bad_request("lengths in \"bodies\" do not cover the frame");
}

/*
 * refuse_duplicates errors if a member that is read is there twice: which one
 * is meant cannot be told.
 */
static void
refuse_duplicates(const MbusNode *object)
{
	static const char *const known[] = {
		"jsonrpc", "id", "method", "params", "binary", "bodies", "receipt"
	};
	int			i;
	int			j;

	if (object->total > object->nchildren)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("request has %d members", object->total),
				 errdetail("At most %d are read.", MBUS_MEMBERS_MAX)));
	for (i = 0; i < (int) lengthof(known); i++)
	{
		const MbusNode *first = mbus_json_member(object, known[i]);

		for (j = 0; first && j < object->nchildren; j++)
		{
			if (&object->children[j] != first &&
				strcmp(object->children[j].name, known[i]) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 mbus_rpc(MBUS_RPC_REQUEST),
						 errmsg("member \"%s\" is given twice", known[i])));
		}
	}
}

static void
bad_request(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 mbus_rpc(MBUS_RPC_REQUEST),
			 errmsg("%s", message)));
}
