/*
 * rpc_param.c
 *		Parameters of a method: from JSON to the types of SQL.
 *
 * The catalog says which type a parameter has.  A json parameter gets the
 * exact bytes of its value; nothing parses them again.  Everything that does
 * not fit errors with -32602 and names the parameter.  What a message holds is
 * not quoted then: an error is logged and kept.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "mb/pg_wchar.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "base/json_slice.h"
#include "base/payload.h"
#include "relay/rpc.h"

#define ELEMENTS_MAX	100000	/* of an array; functions have limits below */
#define QUOTED_MAX		40		/* bytes of a value, in an error */

static const char *current_param = NULL;

static Datum param_datum(const char *name, Oid type, const MbusSlice *value);
static Datum json_datum(const char *bytes, int len);
static char *string_value(const char *name, const MbusSlice *value);
static Datum integer_value(const char *name, const MbusSlice *value,
						   Oid type);
static Datum boolean_value(const char *name, const MbusSlice *value);
static Datum interval_value(const char *name, const MbusSlice *value);
static Datum hex_value(const char *name, const MbusSlice *value);
static Datum role_value(const char *name, const MbusSlice *value);
static Datum array_value(const char *name, const MbusSlice *value,
						 Oid element);
static void wrong_type(const char *name, const MbusSlice *value,
					   const char *wanted);

/*
 * mbus_param_datum returns a JSON value as a value of that type; null is
 * NULL.
 */
Datum
mbus_param_datum(const char *name, Oid type, const MbusSlice *value,
				 bool *isnull)
{
	Datum		result;

	*isnull = value->type == JSON_TOKEN_NULL;
	if (*isnull)
		return (Datum) 0;

	current_param = name;
	result = param_datum(name, type, value);
	current_param = NULL;
	return result;
}

/*
 * mbus_param_take returns the parameter whose conversion did not end, if any,
 * and forgets it: the input functions of types cannot name it.
 */
const char *
mbus_param_take(void)
{
	const char *name = current_param;

	current_param = NULL;
	return name;
}

/*
 * param_datum converts a JSON value that is not null by the type of the
 * parameter.  The result is in the current memory context.
 */
static Datum
param_datum(const char *name, Oid type, const MbusSlice *value)
{
	switch (type)
	{
		case JSONOID:
			return json_datum(value->start, value->len);
		case JSONBOID:
			return DirectFunctionCall1(jsonb_in,
									   CStringGetDatum(mbus_json_token(value,
																	   -1)));
		case TEXTOID:
			/* why something failed is kept, as far as text can hold it */
			if (strcmp(name, "reason") == 0 &&
				value->type == JSON_TOKEN_STRING)
				return PointerGetDatum(mbus_json_text(value));
			return CStringGetTextDatum(string_value(name, value));
		case INT8OID:
		case INT4OID:
			return integer_value(name, value, type);
		case BOOLOID:
			return boolean_value(name, value);
		case INTERVALOID:
			return interval_value(name, value);
		case TIMESTAMPTZOID:
			return DirectFunctionCall3(timestamptz_in,
									   CStringGetDatum(string_value(name, value)),
									   ObjectIdGetDatum(InvalidOid),
									   Int32GetDatum(-1));
		case BYTEAOID:
			return hex_value(name, value);
		case REGROLEOID:
			return role_value(name, value);
		case INT8ARRAYOID:
			return array_value(name, value, INT8OID);
		case TEXTARRAYOID:
			return array_value(name, value, TEXTOID);
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("parameter \"%s\" has a type that JSON cannot give", name)));
	return (Datum) 0;
}

/*
 * mbus_param_payload returns raw bytes as bytea, or as json or text after a
 * check.
 */
Datum
mbus_param_payload(Oid type, const char *bytes, int len)
{
	Datum		payload = json_datum(bytes, len);

	if (type == JSONOID)
		mbus_json_check((struct varlena *) DatumGetPointer(payload));
	if (type == TEXTOID && !pg_verify_mbstr(PG_UTF8, bytes, len, true))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("payload is not valid UTF-8")));
	return payload;
}

/*
 * mbus_param_base64 returns the bytes that a payload's string stands for.
 */
Datum
mbus_param_base64(const MbusSlice *value)
{
	const char *base64;
	int			len;
	int			room;
	bytea	   *result;

	if (value->type != JSON_TOKEN_STRING)
		wrong_type("payload", value, "a string of base64");
	if (memchr(value->start, '\\', value->len) == NULL)
	{
		base64 = value->start + 1;
		len = value->len - 2;
	}
	else
	{
		base64 = string_value("payload", value);
		len = strlen(base64);
	}

	room = pg_b64_dec_len(len);
	result = palloc(VARHDRSZ + room);
	len = MbusBase64Decode(base64, len, VARDATA(result), room);
	if (len < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"payload\" is not valid base64")));
	SET_VARSIZE(result, VARHDRSZ + len);
	return PointerGetDatum(result);
}

/* A plain varlena of these bytes: json, text and bytea alike. */
static Datum
json_datum(const char *bytes, int len)
{
	struct varlena *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	memcpy(VARDATA(result), bytes, len);
	return PointerGetDatum(result);
}

/* A string as text can hold it; -32602 for any other value. */
static char *
string_value(const char *name, const MbusSlice *value)
{
	char	   *string;

	if (value->type != JSON_TOKEN_STRING)
		wrong_type(name, value, "a string");
	string = mbus_json_string(value, true);
	if (string == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"%s\" has an escape that text cannot hold",
						name),
				 errdetail("\\u0000 and half of a surrogate pair are no characters of UTF-8.")));
	return string;
}

/*
 * integer_value takes only whole numbers written as such: 1.0 and 1e3 are
 * what a client sends by mistake.
 */
static Datum
integer_value(const char *name, const MbusSlice *value, Oid type)
{
	char	   *digits;
	int64		number;

	if (value->type != JSON_TOKEN_NUMBER)
		wrong_type(name, value, "a whole number");
	digits = mbus_json_token(value, 100);
	if (strspn(digits, "-0123456789") < (size_t) value->len &&
		value->len <= 100)
		wrong_type(name, value, "a whole number");

	errno = 0;
	number = strtoll(digits, NULL, 10);
	if (errno == ERANGE || value->len > 100 ||
		(type == INT4OID && (number < PG_INT32_MIN || number > PG_INT32_MAX)))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"%s\" is out of range: %s", name, digits)));
	if (type == INT4OID)
		return Int32GetDatum((int32) number);
	return Int64GetDatum(number);
}

static Datum
boolean_value(const char *name, const MbusSlice *value)
{
	if (value->type != JSON_TOKEN_TRUE && value->type != JSON_TOKEN_FALSE)
		wrong_type(name, value, "true or false");
	return BoolGetDatum(value->type == JSON_TOKEN_TRUE);
}

/*
 * interval_value takes text such as "90 minutes", or a number of seconds.
 */
static Datum
interval_value(const char *name, const MbusSlice *value)
{
	if (value->type == JSON_TOKEN_NUMBER)
	{
		Datum		seconds;

		seconds = DirectFunctionCall1(float8in,
									  CStringGetDatum(mbus_json_token(value, -1)));
		return DirectFunctionCall7(make_interval,
								   Int32GetDatum(0), Int32GetDatum(0),
								   Int32GetDatum(0), Int32GetDatum(0),
								   Int32GetDatum(0), Int32GetDatum(0),
								   seconds);
	}
	if (value->type != JSON_TOKEN_STRING)
		wrong_type(name, value, "an interval or a number of seconds");
	return DirectFunctionCall3(interval_in,
							   CStringGetDatum(string_value(name, value)),
							   ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

/*
 * hex_value takes a checksum: 64 hex digits.  Bytes of a payload come by base64
 * or in a binary frame.
 */
static Datum
hex_value(const char *name, const MbusSlice *value)
{
	char	   *digits = string_value(name, value);
	bytea	   *result;

	if (strcmp(name, "payload") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"payload\" is a string without \"encoding\""),
				 errhint("It goes with \"encoding\": \"base64\" or in a binary frame.")));
	if (strlen(digits) != 2 * MBUS_SHA256_BYTES ||
		strspn(digits, "0123456789abcdefABCDEF") != 2 * MBUS_SHA256_BYTES)
		wrong_type(name, value, "64 hex digits");
	result = palloc(VARHDRSZ + MBUS_SHA256_BYTES);
	SET_VARSIZE(result, VARHDRSZ + MBUS_SHA256_BYTES);
	hex_decode(digits, 2 * MBUS_SHA256_BYTES, VARDATA(result));
	return PointerGetDatum(result);
}

/*
 * role_value takes a role's exact name, not an identifier that SQL would
 * fold or unquote.
 */
static Datum
role_value(const char *name, const MbusSlice *value)
{
	return ObjectIdGetDatum(get_role_oid(string_value(name, value), false));
}

/*
 * array_value takes an array of whole numbers or strings; null is NULL.
 */
static Datum
array_value(const char *name, const MbusSlice *value, Oid element)
{
	MbusNode	list;
	Datum	   *values;
	bool	   *nulls;
	int			lower = 1;
	int			i;

	if (value->type != JSON_TOKEN_ARRAY_START)
		wrong_type(name, value, "an array");
	mbus_json_slice(value->start, value->len, ELEMENTS_MAX, &list);
	if (list.total > list.nchildren)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("parameter \"%s\" has %d elements", name, list.total),
				 errdetail("At most %d are read.", ELEMENTS_MAX)));

	values = palloc0(Max(list.nchildren, 1) * sizeof(Datum));
	nulls = palloc0(Max(list.nchildren, 1) * sizeof(bool));
	for (i = 0; i < list.nchildren; i++)
	{
		const MbusSlice *item = &list.children[i].value;

		nulls[i] = item->type == JSON_TOKEN_NULL;
		if (!nulls[i])
			values[i] = param_datum(name, element, item);
	}
	return PointerGetDatum(construct_md_array(values, nulls, 1,
											  &list.nchildren, &lower, element,
											  element == INT8OID ? 8 : -1,
											  element == INT8OID ? FLOAT8PASSBYVAL : false,
											  element == INT8OID ? TYPALIGN_DOUBLE : TYPALIGN_INT));
}

/*
 * mbus_param_quote returns a value as an error may tell it: its beginning, or
 * what kind it is where it may be of a message, as an object always may.
 */
const char *
mbus_param_quote(const char *name, const MbusSlice *value)
{
	static const char *const contents[] = {
		"payload", "messages", "headers", "key", "reason", "token"
	};
	bool		content = value->type == JSON_TOKEN_OBJECT_START ||
	value->type == JSON_TOKEN_ARRAY_START;

	for (int i = 0; i < (int) lengthof(contents); i++)
		content = content || strcmp(name, contents[i]) == 0;
	if (!content)
		return mbus_json_token(value, QUOTED_MAX);
	switch (value->type)
	{
		case JSON_TOKEN_OBJECT_START:
			return "an object";
		case JSON_TOKEN_ARRAY_START:
			return "an array";
		case JSON_TOKEN_STRING:
			return "a string";
		case JSON_TOKEN_NUMBER:
			return "a number";
		case JSON_TOKEN_NULL:
			return "null";
		default:
			return "true or false";
	}
}

static void
wrong_type(const char *name, const MbusSlice *value, const char *wanted)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 mbus_rpc(MBUS_RPC_PARAMS),
			 errmsg("parameter \"%s\" is not %s: %s", name, wanted,
					mbus_param_quote(name, value))));
}
