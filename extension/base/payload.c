/*
 * payload.c
 *		Payload bytes: checksum, compression, JSON.
 *
 * What was published is what is read: the checksum is over the exact bytes,
 * before any compression.  lz4 is the server's own TOAST compression, done
 * here because it is chosen by channel and the column's storage is EXTERNAL;
 * the server decompresses it by itself.  zstd and gzip are stored as such and
 * undone here.  Where compressing saves nothing the bytes are stored as they
 * are, and the row says so.
 */
#include "postgres.h"

#include <zlib.h>
#include <zstd.h>

#include "access/toast_compression.h"
#include "access/toast_internals.h"
#include "common/jsonapi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonfuncs.h"

#include "base/compat.h"
#include "base/payload.h"

#define MBUS_COMPRESS_MIN	1024	/* bytes; smaller ones are not tried */

static const char *const compression_names[] = {
	[MBUS_COMPRESS_NONE] = "none",
	[MBUS_COMPRESS_LZ4] = "lz4",
	[MBUS_COMPRESS_ZSTD] = "zstd",
	[MBUS_COMPRESS_GZIP] = "gzip",
};

static struct varlena *zstd_encode(struct varlena *payload);
static struct varlena *zstd_decode(struct varlena *stored, int64 size);
static struct varlena *gzip_encode(struct varlena *payload);
static struct varlena *gzip_decode(struct varlena *stored, int64 size);
static struct varlena *keep_if_smaller(struct varlena *result, size_t len,
									   struct varlena *payload);

/*
 * mbus_compression_known tells whether a name is one of the compressions.
 */
bool
mbus_compression_known(const char *name)
{
	for (int i = 0; i < (int) lengthof(compression_names); i++)
	{
		if (strcmp(name, compression_names[i]) == 0)
			return true;
	}
	return false;
}

/*
 * mbus_compression_parse returns the compression of that name; 22023 if there
 * is none.
 */
MbusCompression
mbus_compression_parse(const char *name)
{
	for (int i = 0; i < (int) lengthof(compression_names); i++)
	{
		if (strcmp(name, compression_names[i]) == 0)
			return (MbusCompression) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown compression \"%s\"", name),
			 errdetail("Compression is lz4, zstd, gzip or none.")));
}

/*
 * mbus_compression_code returns what a row has as its encoding: the first
 * letter of the name.
 */
char
mbus_compression_code(MbusCompression compression)
{
	return compression_names[compression][0];
}

/*
 * mbus_compression_of is its inverse; MBUS_COMPRESS_UNKNOWN for another code.
 */
MbusCompression
mbus_compression_of(char code)
{
	int			i = 0;

	while (i < MBUS_COMPRESS_UNKNOWN && compression_names[i][0] != code)
		i++;
	return (MbusCompression) i;
}

/*
 * compression_name(encoding) returns the name for a row's encoding, or NULL.
 */
PG_FUNCTION_INFO_V1(mbus_compression_name_of);
Datum
mbus_compression_name_of(PG_FUNCTION_ARGS)
{
	MbusCompression compression = mbus_compression_of(PG_GETARG_CHAR(0));

	if (compression == MBUS_COMPRESS_UNKNOWN)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(compression_names[compression]));
}

/*
 * mbus_payload_encode returns the bytes to store for a plain payload and sets
 * *used to what was done.  The result may be the payload itself.
 */
struct varlena *
mbus_payload_encode(MbusCompression compression, struct varlena *payload,
					MbusCompression *used)
{
	struct varlena *stored = NULL;

	*used = MBUS_COMPRESS_NONE;
	if (VARSIZE_ANY_EXHDR(payload) < MBUS_COMPRESS_MIN)
		return payload;
	switch (compression)
	{
		case MBUS_COMPRESS_NONE:
		case MBUS_COMPRESS_UNKNOWN:
			return payload;
		case MBUS_COMPRESS_LZ4:
			stored = (struct varlena *)
				DatumGetPointer(toast_compress_datum(PointerGetDatum(payload),
													 MBUS_TOAST_COMPRESSION));
			break;
		case MBUS_COMPRESS_ZSTD:
			stored = zstd_encode(payload);
			break;
		case MBUS_COMPRESS_GZIP:
			stored = gzip_encode(payload);
			break;
	}
	if (stored == NULL)
		return payload;
	*used = compression;
	return stored;
}

/*
 * mbus_payload_decode returns the payload of a detoasted column value; may be
 * the value itself.  NULL if the bytes cannot be what was stored.
 */
struct varlena *
mbus_payload_decode(struct varlena *stored, MbusCompression used, int64 size)
{
	if (used == MBUS_COMPRESS_ZSTD)
		return zstd_decode(stored, size);
	if (used == MBUS_COMPRESS_GZIP)
		return gzip_decode(stored, size);
	return used == MBUS_COMPRESS_UNKNOWN ? NULL : stored;
}

/* Each encoder returns NULL where nothing is saved. */
static struct varlena *
zstd_encode(struct varlena *payload)
{
	size_t		room = ZSTD_compressBound(VARSIZE_ANY_EXHDR(payload));
	struct varlena *result = mbus_payload_alloc(room);
	size_t		len;

	len = ZSTD_compress(VARDATA(result), room, VARDATA_ANY(payload),
						VARSIZE_ANY_EXHDR(payload), ZSTD_CLEVEL_DEFAULT);
	if (ZSTD_isError(len))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compress payload: %s",
						ZSTD_getErrorName(len))));
	return keep_if_smaller(result, len, payload);
}

/* Each decoder returns NULL where the bytes are not what was stored. */
static struct varlena *
zstd_decode(struct varlena *stored, int64 size)
{
	struct varlena *result;
	size_t		len;

	if (size < 0 || size > MBUS_PAYLOAD_MAX)
		return NULL;
	result = mbus_payload_alloc(size);
	len = ZSTD_decompress(VARDATA(result), size, VARDATA_ANY(stored),
						  VARSIZE_ANY_EXHDR(stored));
	if (ZSTD_isError(len) || len != (size_t) size)
		return NULL;
	SET_VARSIZE(result, len + VARHDRSZ);
	return result;
}

static struct varlena *
gzip_encode(struct varlena *payload)
{
	uLongf		len = compressBound(VARSIZE_ANY_EXHDR(payload));
	struct varlena *result = mbus_payload_alloc(len);

	if (compress((Bytef *) VARDATA(result), &len,
				 (const Bytef *) VARDATA_ANY(payload),
				 VARSIZE_ANY_EXHDR(payload)) != Z_OK)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not compress payload with gzip")));
	return keep_if_smaller(result, len, payload);
}

static struct varlena *
gzip_decode(struct varlena *stored, int64 size)
{
	uLongf		len = size;
	struct varlena *result;

	if (size < 0 || size > MBUS_PAYLOAD_MAX)
		return NULL;
	result = mbus_payload_alloc(size);
	if (uncompress((Bytef *) VARDATA(result), &len,
				   (const Bytef *) VARDATA_ANY(stored),
				   VARSIZE_ANY_EXHDR(stored)) != Z_OK || len != (uLongf) size)
		return NULL;
	SET_VARSIZE(result, len + VARHDRSZ);
	return result;
}

/*
 * mbus_payload_alloc allocates a varlena with room for len bytes, which are
 * less than 1 GB.
 */
struct varlena *
mbus_payload_alloc(size_t len)
{
	struct varlena *result = palloc_extended(len + VARHDRSZ,
											 MCXT_ALLOC_NO_OOM);

	if (result == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Could not allocate %zu bytes for a payload.", len)));
	return result;
}

/* What was compressed well is kept; else NULL. */
static struct varlena *
keep_if_smaller(struct varlena *result, size_t len, struct varlena *payload)
{
	if (len >= VARSIZE_ANY_EXHDR(payload))
	{
		pfree(result);
		return NULL;
	}
	SET_VARSIZE(result, len + VARHDRSZ);
	return result;
}

/*
 * mbus_content_is_json tells whether a media type is JSON: application/json,
 * text/json or a "+json" suffix (RFC 6839), parameters aside.
 */
bool
mbus_content_is_json(const char *content_type)
{
	size_t		len = strcspn(content_type, "; \t");

	if (len == 16 && pg_strncasecmp(content_type, "application/json", 16) == 0)
		return true;
	if (len == 9 && pg_strncasecmp(content_type, "text/json", 9) == 0)
		return true;
	return len > 5 && pg_strncasecmp(content_type + len - 5, "+json", 5) == 0;
}

/*
 * mbus_json_check errors with 22P02 if the bytes are not JSON in UTF-8; they
 * are not changed, so that numbers, duplicate keys and escapes stay as sent.
 * The error tells the place alone: the server's own would quote the payload,
 * in its detail and its context, and so bring it into the log.
 */
void
mbus_json_check(struct varlena *payload)
{
	JsonLexContext *lex;
	const char *at;

	if (!pg_verify_mbstr(PG_UTF8, VARDATA_ANY(payload),
						 VARSIZE_ANY_EXHDR(payload), true))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type json"),
				 errdetail("The payload is not valid UTF-8.")));
	lex = MbusMakeLexer(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload),
						false);
	if (pg_parse_json(lex, &nullSemAction) == JSON_SUCCESS)
		return;
	at = lex->token_start ? lex->token_start : lex->token_terminator;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid input syntax for type json"),
			 errdetail("The payload is not valid JSON at byte %lld.",
					   (long long) (at - lex->input))));
}
