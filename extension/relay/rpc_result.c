/*
 * rpc_result.c
 *		Results of a method: from the types of SQL to JSON.
 *
 * A reply is written straight into the frame it goes out with.  What could
 * be large is measured first, so that a reply over message_bus.frame_max is
 * refused, with everything the frame did, before it is built.
 *
 * A message whose payload is larger than message_bus.inline_max has "ref" in
 * place of "payload".  So has, where the method allows it, one whose payload
 * would not fit into the frame even if it were the only one in it.
 *
 * In a binary reply a payload's place is behind the header line; the JSON
 * only says which of several payloads it is.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/base64.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "base/json_slice.h"
#include "base/payload.h"
#include "base/timestamp.h"
#include "door/url.h"
#include "message/read.h"
#include "relay/rpc.h"

#define ROW_TAIL		64		/* of a row, at most, beside its payload */

/* Where the columns of a stored message are in a row; -1: it is none. */
typedef struct StoredColumns
{
	int			id;
	int			content_type;
	int			size;
	int			sha256;
	int			by_reference;
	int			payload;
} StoredColumns;

static void answer_room(MbusAnswer *answer, int64 more);
static int64 answer_len(const MbusAnswer *answer);
static void refuse_reply(MbusAnswer *answer, int64 len);
static void append_stored(MbusAnswer *answer, const StoredColumns *columns,
						  const Datum *values, const bool *nulls,
						  int row_start);
static int64 payload_room(const MbusAnswer *answer, const bytea *payload,
						  bool is_json);
static bool fits_alone(const MbusAnswer *answer, int row_start, int64 more);
static void append_value(MbusAnswer *answer, Datum value, Oid type);
static void append_json(MbusAnswer *answer, const text *json);
static void append_jsonb(MbusAnswer *answer, Jsonb *jsonb);
static void append_text(MbusAnswer *answer, Datum value, Oid type);
static void append_row_datum(MbusAnswer *answer, Datum value);
static void append_array(MbusAnswer *answer, Datum value, Oid type);
static void append_hex(StringInfo out, const bytea *bytes);
static void append_base64(MbusAnswer *answer, const bytea *bytes);
static void append_name(StringInfo out, const char *name, bool *first);
static bool is_stored_message(TupleDesc desc, StoredColumns *columns);
static void append_payload(MbusAnswer *answer, bytea *payload, bool is_json);
static void append_reference(MbusAnswer *answer, const StoredColumns *columns,
							 const Datum *values, const bytea *payload,
							 int row_start);
static void append_if_room(MbusAnswer *answer, const char *name,
						   const char *value, int row_start);
static char *preview_text(const struct varlena *bytes);
static void add_body(MbusAnswer *answer, const bytea *bytes);

/*
 * mbus_answer_begin opens the reply to a request.
 */
void
mbus_answer_begin(MbusAnswer *answer, const MbusSlice *id)
{
	appendStringInfoString(answer->out, "{\"jsonrpc\":\"2.0\",\"id\":");
	mbus_rpc_append_id(answer->out, id);
	appendStringInfoString(answer->out, ",\"result\":");
}

/*
 * mbus_answer_end closes it; if there are raw payloads, with the line feed
 * and these.
 */
void
mbus_answer_end(MbusAnswer *answer)
{
	StringInfo	out = answer->out;
	int			i;

	if (answer->many && answer->nbodies > 0)
	{
		appendStringInfoString(out, ",\"bodies\":[");
		for (i = 0; i < answer->nbodies; i++)
			appendStringInfo(out, i ? ",%d" : "%d", answer->bodies[i].len);
		appendStringInfoChar(out, ']');
	}
	appendStringInfoChar(out, '}');
	if (answer_len(answer) > answer->limit)
		refuse_reply(answer, answer_len(answer));
	if (answer->nbodies == 0)
		return;

	if (memchr(out->data + answer->start, '\n', out->len - answer->start))
		elog(ERROR, "line feed in the header line of a binary reply");
	enlargeStringInfo(out, answer->bodies_len + 1);
	appendStringInfoChar(out, '\n');
	for (i = 0; i < answer->nbodies; i++)
		appendBinaryStringInfo(out, answer->bodies[i].bytes,
							   answer->bodies[i].len);
}

/*
 * answer_room errors if the reply would not fit with that many bytes
 * more, and what closes it.
 */
static void
answer_room(MbusAnswer *answer, int64 more)
{
	int64		len = answer_len(answer) + more + 1;

	if (answer->many)
		len += 1;
	if (answer->many && answer->nbodies > 0)
		len += strlen(",\"bodies\":[]") + answer->lengths_len;
	if (len > answer->limit)
		refuse_reply(answer, len);
}

/* Bytes of the reply so far, with the line feed that its bodies need. */
static int64
answer_len(const MbusAnswer *answer)
{
	return answer->out->len - MBUS_FRAME_PREFIX + answer->bodies_len +
		(answer->nbodies > 0 ? 1 : 0);
}

/*
 * Errors with -32004 because the reply is too large, and says what to do
 * instead.
 */
static void
refuse_reply(MbusAnswer *answer, int64 len)
{
	answer->overflow = true;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 mbus_rpc(MBUS_RPC_LIMIT),
			 errmsg("reply exceeds the largest message of this connection"),
			 errdetail("It would have at least " INT64_FORMAT " bytes; the limit is %d.",
					   len, answer->limit),
			 answer->refers ?
			 errhint("What a message has beside its payload is too large for this connection.") :
			 answer->many ?
			 errhint("Ask for fewer messages, read a payload in ranges with get_bytes, or connect with a larger max_message_bytes.") :
			 errhint("Read the payload in ranges with get_bytes, or connect with a larger max_message_bytes.")));
}

/*
 * mbus_result_scalar appends the result of a function that returns no row.
 * Bytes, and the payload that a json is, go raw where that is wanted; else bytes
 * are an object that says how they are encoded.
 */
void
mbus_result_scalar(MbusAnswer *answer, Datum value, bool isnull, Oid type)
{
	if (isnull)
		appendStringInfoString(answer->out, "null");
	else if (answer->binary && (type == BYTEAOID || type == JSONOID))
	{
		bytea	   *bytes = DatumGetByteaPP(value);

		add_body(answer, bytes);
		appendStringInfo(answer->out, "{\"size\":%d}",
						 (int) VARSIZE_ANY_EXHDR(bytes));
	}
	else if (type == BYTEAOID)
	{
		bytea	   *bytes = DatumGetByteaPP(value);

		appendStringInfo(answer->out,
						 "{\"size\":%d,\"encoding\":\"base64\",\"payload\":",
						 (int) VARSIZE_ANY_EXHDR(bytes));
		append_base64(answer, bytes);
		appendStringInfoChar(answer->out, '}');
	}
	else
		append_value(answer, value, type);
}

/*
 * mbus_result_row appends a row as an object.  A stored message's payload is
 * its exact text, base64, raw, or left out with a reference in its place.
 */
void
mbus_result_row(MbusAnswer *answer, TupleDesc desc, const Datum *values,
				const bool *nulls)
{
	StringInfo	out = answer->out;
	StoredColumns columns;
	bool		stored = is_stored_message(desc, &columns);
	bool		first = true;
	int			row_start = out->len;
	int			i;

	appendStringInfoChar(out, '{');
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || (stored && i == columns.payload) ||
			(stored && i == columns.by_reference))
			continue;
		append_name(out, NameStr(column->attname), &first);
		if (nulls[i])
			appendStringInfoString(out, "null");
		else if (column->atttypid == BYTEAOID &&
				 strcmp(NameStr(column->attname), "sha256") == 0)
			append_hex(out, DatumGetByteaPP(values[i]));
		else
			append_value(answer, values[i], column->atttypid);
	}
	if (stored)
		append_stored(answer, &columns, values, nulls, row_start);
	appendStringInfoChar(out, '}');
	answer_room(answer, 0);
}

/*
 * append_stored appends what is last in a stored message: by_reference, and
 * the payload or what stands for it.
 */
static void
append_stored(MbusAnswer *answer, const StoredColumns *columns,
			  const Datum *values, const bool *nulls, int row_start)
{
	bytea	   *payload = NULL;
	bool		is_json;
	bool		by_reference;

	is_json = mbus_content_is_json(TextDatumGetCString(values[columns->content_type]));
	by_reference = !nulls[columns->by_reference] &&
		DatumGetBool(values[columns->by_reference]);
	if (!by_reference && !nulls[columns->payload])
		payload = DatumGetByteaPP(values[columns->payload]);
	if (payload && answer->refers &&
		!fits_alone(answer, row_start,
					payload_room(answer, payload, is_json)))
		by_reference = true;

	appendStringInfoString(answer->out, ",\"by_reference\":");
	appendStringInfoString(answer->out, by_reference ? "true" : "false");
	if (by_reference)
		append_reference(answer, columns, values, payload, row_start);
	else if (payload)
		append_payload(answer, payload, is_json);
}

/* Bytes of the frame that a payload takes. */
static int64
payload_room(const MbusAnswer *answer, const bytea *payload, bool is_json)
{
	int			len = VARSIZE_ANY_EXHDR(payload);

	return answer->binary || is_json ? len : pg_b64_enc_len(len);
}

/*
 * fits_alone tells whether the row that is being written would fit with that
 * many bytes more if it were the only one of the reply.
 */
static bool
fits_alone(const MbusAnswer *answer, int row_start, int64 more)
{
	return answer->rows_start - MBUS_FRAME_PREFIX +
		answer->out->len - row_start + more + ROW_TAIL <= answer->limit;
}

/*
 * append_value appends a value that is not null as JSON.  Numbers, booleans
 * and json go as they are, times as RFC 3339, bytes as base64, arrays and rows
 * as such; all else as the text that its type writes.
 */
static void
append_value(MbusAnswer *answer, Datum value, Oid type)
{
	StringInfo	out = answer->out;

	switch (type)
	{
		case BOOLOID:
			appendStringInfoString(out, DatumGetBool(value) ? "true" : "false");
			return;
		case INT2OID:
			appendStringInfo(out, "%d", DatumGetInt16(value));
			return;
		case INT4OID:
			appendStringInfo(out, "%d", DatumGetInt32(value));
			return;
		case INT8OID:
			appendStringInfo(out, INT64_FORMAT, DatumGetInt64(value));
			return;
		case TIMESTAMPTZOID:
			mbus_append_timestamp(out, DatumGetTimestampTz(value));
			return;
		case BYTEAOID:
			append_base64(answer, DatumGetByteaPP(value));
			return;
		case JSONOID:
			append_json(answer, DatumGetTextPP(value));
			return;
		case JSONBOID:
			append_jsonb(answer, DatumGetJsonbP(value));
			return;
		case VOIDOID:
			appendStringInfoString(out, "null");
			return;
	}

	if (type_is_array(type))
		append_array(answer, value, type);
	else if (type_is_rowtype(type))
		append_row_datum(answer, value);
	else
		append_text(answer, value, type);
}

static void
append_json(MbusAnswer *answer, const text *json)
{
	answer_room(answer, VARSIZE_ANY_EXHDR(json));
	appendBinaryStringInfo(answer->out, VARDATA_ANY(json),
						   VARSIZE_ANY_EXHDR(json));
}

static void
append_jsonb(MbusAnswer *answer, Jsonb *jsonb)
{
	answer_room(answer, VARSIZE(jsonb) / 4);
	JsonbToCString(answer->out, &jsonb->root, VARSIZE(jsonb));
}

/* Any other type is a string. */
static void
append_text(MbusAnswer *answer, Datum value, Oid type)
{
	Oid			output;
	bool		is_varlena;
	char	   *string;

	getTypeOutputInfo(type, &output, &is_varlena);
	string = OidOutputFunctionCall(output, value);
	answer_room(answer, strlen(string));
	escape_json(answer->out, string);
}

/* Takes a composite value apart and appends it as an object. */
static void
append_row_datum(MbusAnswer *answer, Datum value)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(value);
	TupleDesc	desc;
	HeapTupleData tuple;
	Datum	   *values;
	bool	   *nulls;

	desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(header),
									   HeapTupleHeaderGetTypMod(header));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	values = palloc(desc->natts * sizeof(Datum));
	nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(&tuple, desc, values, nulls);
	mbus_result_row(answer, desc, values, nulls);
}

/*
 * append_array appends an array as one of JSON, flat whatever its dimensions.
 */
static void
append_array(MbusAnswer *answer, Datum value, Oid type)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Oid			element = ARR_ELEMTYPE(array);
	int16		len;
	bool		by_value;
	char		align;
	Datum	   *values;
	bool	   *nulls;
	int			count;
	int			i;

	get_typlenbyvalalign(element, &len, &by_value, &align);
	deconstruct_array(array, element, len, by_value, align,
					  &values, &nulls, &count);
	appendStringInfoChar(answer->out, '[');
	for (i = 0; i < count; i++)
	{
		if (i > 0)
			appendStringInfoChar(answer->out, ',');
		if (nulls[i])
			appendStringInfoString(answer->out, "null");
		else
			append_value(answer, values[i], element);
	}
	appendStringInfoChar(answer->out, ']');
	answer_room(answer, 0);
}

static void
append_hex(StringInfo out, const bytea *bytes)
{
	int			len = VARSIZE_ANY_EXHDR(bytes);

	appendStringInfoChar(out, '"');
	enlargeStringInfo(out, len * 2 + 1);
	hex_encode(VARDATA_ANY(bytes), len, out->data + out->len);
	out->len += len * 2;
	out->data[out->len] = '\0';
	appendStringInfoChar(out, '"');
}

static void
append_base64(MbusAnswer *answer, const bytea *bytes)
{
	StringInfo	out = answer->out;
	int			len = VARSIZE_ANY_EXHDR(bytes);
	int			room = pg_b64_enc_len(len);

	answer_room(answer, room + 2);
	enlargeStringInfo(out, room + 3);
	appendStringInfoChar(out, '"');
	len = MbusBase64Encode(VARDATA_ANY(bytes), len, out->data + out->len, room);
	if (len < 0)
		elog(ERROR, "could not encode base64");
	out->len += len;
	out->data[out->len] = '\0';
	appendStringInfoChar(out, '"');
}

static void
append_name(StringInfo out, const char *name, bool *first)
{
	if (!*first)
		appendStringInfoChar(out, ',');
	*first = false;
	escape_json(out, name);
	appendStringInfoChar(out, ':');
}

/*
 * is_stored_message tells whether a row is a message with its payload.
 */
static bool
is_stored_message(TupleDesc desc, StoredColumns *columns)
{
	int			i;

	memset(columns, -1, sizeof(*columns));
	for (i = 0; i < desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(desc, i)->attname);
		Oid			type = TupleDescAttr(desc, i)->atttypid;

		if (type == INT8OID && strcmp(name, "id") == 0)
			columns->id = i;
		else if (type == TEXTOID && strcmp(name, "content_type") == 0)
			columns->content_type = i;
		else if (type == INT8OID && strcmp(name, "size") == 0)
			columns->size = i;
		else if (type == BYTEAOID && strcmp(name, "sha256") == 0)
			columns->sha256 = i;
		else if (type == BOOLOID && strcmp(name, "by_reference") == 0)
			columns->by_reference = i;
		else if (type == JSONOID && strcmp(name, "payload") == 0)
			columns->payload = i;
	}
	return columns->id >= 0 && columns->content_type >= 0 &&
		columns->size >= 0 && columns->sha256 >= 0 &&
		columns->by_reference >= 0 && columns->payload >= 0;
}

/*
 * A payload in its place: raw behind the header line, exact JSON, or base64.
 */
static void
append_payload(MbusAnswer *answer, bytea *payload, bool is_json)
{
	StringInfo	out = answer->out;

	if (answer->binary)
	{
		if (answer->many)
			appendStringInfo(out, ",\"body\":%d", answer->nbodies);
		add_body(answer, payload);
		return;
	}
	if (!is_json)
	{
		appendStringInfoString(out, ",\"encoding\":\"base64\",\"payload\":");
		append_base64(answer, payload);
		return;
	}
	answer_room(answer, VARSIZE_ANY_EXHDR(payload) + 12);
	appendStringInfoString(out, ",\"payload\":");
	appendBinaryStringInfo(out, VARDATA_ANY(payload),
						   VARSIZE_ANY_EXHDR(payload));
}

/*
 * append_reference appends "ref", with a link to the message where links have a
 * prefix, and the payload's first bytes if they are text, the role may read them
 * and there is room.  payload is NULL
 * where it has not been read.
 */
static void
append_reference(MbusAnswer *answer, const StoredColumns *columns,
				 const Datum *values, const bytea *payload, int row_start)
{
	StringInfo	out = answer->out;
	int64		id = DatumGetInt64(values[columns->id]);

	appendStringInfo(out, ",\"ref\":{\"id\":" INT64_FORMAT ",\"size\":" INT64_FORMAT ",\"sha256\":",
					 id, DatumGetInt64(values[columns->size]));
	append_hex(out, DatumGetByteaPP(values[columns->sha256]));
	appendStringInfoString(out, ",\"content_type\":");
	escape_json(out, TextDatumGetCString(values[columns->content_type]));
	append_if_room(answer, "url", mbus_body_link(id), row_start);
	append_if_room(answer, "preview",
				   preview_text(payload ? payload : mbus_message_preview(id)),
				   row_start);
	appendStringInfoChar(out, '}');
}

/* Appends a member that is a string, unless it is NULL or there is no room. */
static void
append_if_room(MbusAnswer *answer, const char *name, const char *value,
			   int row_start)
{
	StringInfoData member;

	if (value == NULL)
		return;
	initStringInfo(&member);
	appendStringInfo(&member, ",\"%s\":", name);
	escape_json(&member, value);
	if (fits_alone(answer, row_start, member.len))
		appendBinaryStringInfo(answer->out, member.data, member.len);
}

/*
 * preview_text returns a payload's beginning, NULL if it is no text.
 */
static char *
preview_text(const struct varlena *bytes)
{
	const char *start;
	int			len;
	int			valid;

	if (bytes == NULL)
		return NULL;
	start = VARDATA_ANY(bytes);
	len = Min(VARSIZE_ANY_EXHDR(bytes), MBUS_PREVIEW_BYTES);
	valid = pg_encoding_verifymbstr(PG_UTF8, start, len);

	/* the last character may be cut, nothing else */
	if (len - valid >= MAX_MULTIBYTE_CHAR_LEN ||
		(valid < len && len < MBUS_PREVIEW_BYTES))
		return NULL;
	return pnstrdup(start, valid);
}

/*
 * add_body notes raw bytes for the end of a binary reply; of several they are
 * copied, since each row goes when the next is fetched.
 */
static void
add_body(MbusAnswer *answer, const bytea *bytes)
{
	int			len = VARSIZE_ANY_EXHDR(bytes);

	answer_room(answer, len);
	if (answer->nbodies == answer->room)
	{
		answer->room = Max(4, answer->room * 2);
		if (answer->bodies == NULL)
			answer->bodies = palloc(answer->room * sizeof(MbusRaw));
		else
			answer->bodies = repalloc(answer->bodies,
									  answer->room * sizeof(MbusRaw));
	}
	if (answer->many)
	{
		/* the row it is in goes when the next one is fetched */
		answer->bodies[answer->nbodies].bytes =
			memcpy(palloc(Max(len, 1)), VARDATA_ANY(bytes), len);
	}
	else
		answer->bodies[answer->nbodies].bytes = VARDATA_ANY(bytes);
	answer->bodies[answer->nbodies].len = len;
	answer->nbodies++;
	answer->bodies_len += len;
	answer->lengths_len += snprintf(NULL, 0, "%d,", len);
}
