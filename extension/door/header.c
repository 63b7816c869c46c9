/*
 * header.c
 *		Fields of answers over HTTP.
 *
 * They are appended as elements of a JSON array: [name, value].  What comes
 * from a message is checked (its content type), encoded (the name of its
 * file) or made of digits and base64: nothing of it can end a line.
 */
#include "postgres.h"

#include "common/base64.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/media_type.h"
#include "base/timestamp.h"
#include "door/date.h"
#include "door/header.h"
#include "door/media.h"
#include "state/clock.h"

#define CAP_MAX_AGE		300		/* seconds that an answer may be cached */
#define FILE_NAME		"filename"	/* of a message's headers */
#define DIGEST_BYTES	48		/* base64 of a SHA-256, with its end */

static const char *field_type(const char *content_type);
static void digest_base64(const MbusStored *message, char *out);
static void header_time(StringInfo out, const char *name, TimestampTz at);
static void header_disposition(StringInfo out, const MbusStored *message);
static char *file_name(const MbusStored *message);
static void append_encoded(StringInfo out, const char *name);

/*
 * mbus_header appends a field.
 */
void
mbus_header(StringInfo out, const char *name, const char *value)
{
	if (out->data[out->len - 1] != '[')
		appendStringInfoChar(out, ',');
	appendStringInfo(out, "[\"%s\",", name);
	escape_json(out, value);
	appendStringInfoChar(out, ']');
}

/*
 * mbus_headers_common appends what every answer has: what keeps a browser from
 * taking it for more than bytes.
 */
void
mbus_headers_common(StringInfo out, MbusAskedBy by)
{
	bool		linked = by == MBUS_BY_CAPABILITY;

	mbus_header(out, "Vary", "Authorization, Origin");
	mbus_header(out, "X-Content-Type-Options", "nosniff");
	mbus_header(out, "Content-Security-Policy", "sandbox; default-src 'none'");
	mbus_header(out, "Referrer-Policy", "no-referrer");
	mbus_header(out, "Cross-Origin-Resource-Policy",
				linked ? "cross-origin" : "same-origin");
	if (linked)
		mbus_header(out, "Access-Control-Allow-Origin", "*");
	mbus_header(out, "Access-Control-Expose-Headers",
				"Accept-Ranges, Content-Disposition, Content-Range, ETag, Repr-Digest, Message-Bus-Id, Message-Bus-Created-At, Message-Bus-Expires-At");
}

/*
 * mbus_headers_problem appends what an error has beside that.
 */
void
mbus_headers_problem(StringInfo out, int status, MbusAskedBy by)
{
	mbus_header(out, "Content-Type", "application/problem+json");
	mbus_header(out, "Cache-Control", "no-store");
	if (status == 401)
		mbus_header(out, "WWW-Authenticate", by == MBUS_BY_TOKEN ?
					"Bearer realm=\"message_bus\", error=\"invalid_token\"" :
					"Bearer realm=\"message_bus\"");
	if (status == 405)
		mbus_header(out, "Allow", "GET, HEAD");
	if (status == 503)
		mbus_header(out, "Retry-After", "1");
}

/*
 * mbus_headers_preflight appends the answer to a CORS preflight (Fetch
 * standard), but for which origin is allowed.
 */
void
mbus_headers_preflight(StringInfo out)
{
	mbus_header(out, "Access-Control-Allow-Methods", "GET, HEAD");
	mbus_header(out, "Access-Control-Allow-Headers",
				"Authorization, Range, If-Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since");
	mbus_header(out, "Access-Control-Max-Age", "7200");
}

/*
 * mbus_headers_validators appends what a message is compared and cached by;
 * "expiry": of a capability, seconds since 1970.
 */
void
mbus_headers_validators(StringInfo out, const MbusStored *message,
						MbusAskedBy by, int64 expiry)
{
	char		value[MBUS_ETAG_BYTES];

	mbus_etag(message, value);
	mbus_header(out, "ETag", value);
	if (by == MBUS_BY_CAPABILITY)
	{
		int64		left = expiry -
		timestamptz_to_time_t(GetCurrentTimestamp());
		int64		life = (message->expires_at - mbus_now()) / USECS_PER_SEC;

		left = Max(Min(left, life), 0);
		mbus_header(out, "Cache-Control",
					psprintf("private, max-age=%d, no-transform",
							 (int) Min(left, CAP_MAX_AGE)));
	}
	else
		mbus_header(out, "Cache-Control", "private, no-cache, no-transform");
	mbus_http_date_write(timestamptz_to_time_t(message->created_at), value);
	mbus_header(out, "Last-Modified", value);
}

/*
 * mbus_headers_message appends what a message is.
 */
void
mbus_headers_message(StringInfo out, const MbusStored *message)
{
	char		digest[DIGEST_BYTES];

	mbus_header(out, "Content-Type", field_type(message->content_type));
	mbus_header(out, "Accept-Ranges", "bytes");
	digest_base64(message, digest);
	mbus_header(out, "Repr-Digest", psprintf("sha-256=:%s:", digest));
	mbus_header(out, "Message-Bus-Id",
				psprintf(INT64_FORMAT, message->id));
	header_time(out, "Message-Bus-Created-At", message->created_at);
	header_time(out, "Message-Bus-Expires-At", message->expires_at);
	header_disposition(out, message);
}

/*
 * What is sent of a content type: without its parameters if these have a
 * character that a field cannot have, of which clients know what it means.
 */
static const char *
field_type(const char *content_type)
{
	if (!mbus_media_type(content_type))
		return "application/octet-stream";
	for (const char *c = content_type; *c; c++)
	{
		if (*c < ' ' || *c > '~')
			return pnstrdup(content_type, strcspn(content_type, "; \t"));
	}
	return content_type;
}

/*
 * mbus_etag writes a message's entity tag, in MBUS_ETAG_BYTES: its checksum.
 */
void
mbus_etag(const MbusStored *message, char *etag)
{
	char		digest[DIGEST_BYTES];

	digest_base64(message, digest);
	for (char *c = digest; *c; c++)
	{
		if (*c == '+')
			*c = '-';
		else if (*c == '/')
			*c = '_';
		else if (*c == '=')
			*c = '\0';
	}
	snprintf(etag, MBUS_ETAG_BYTES, "\"sha256-%s\"", digest);
}

static void
digest_base64(const MbusStored *message, char *out)
{
	int			len = MbusBase64Encode(message->sha256, MBUS_SHA256_BYTES, out,
									   DIGEST_BYTES - 1);

	out[Max(len, 0)] = '\0';
}

/* A time as RFC 3339 has it. */
static void
header_time(StringInfo out, const char *name, TimestampTz at)
{
	StringInfoData quoted;

	initStringInfo(&quoted);
	mbus_append_timestamp(&quoted, at);
	quoted.data[quoted.len - 1] = '\0';
	mbus_header(out, name, quoted.data + 1);
}

/* Whether a browser shows it, and what it is called when it is kept. */
static void
header_disposition(StringInfo out, const MbusStored *message)
{
	StringInfoData value;

	initStringInfo(&value);
	appendStringInfo(&value, "%s; filename*=UTF-8''",
					 mbus_media_inline(message->content_type) ?
					 "inline" : "attachment");
	append_encoded(&value, file_name(message));
	mbus_header(out, "Content-Disposition", value.data);
}

/* The header "filename" of a message, made one; else one with its id. */
static char *
file_name(const MbusStored *message)
{
	const JsonbValue *value = NULL;
	char	   *name = NULL;

	if (message->headers)
		value = getKeyJsonValueFromContainer(&((Jsonb *) message->headers)->root,
											 FILE_NAME, strlen(FILE_NAME),
											 NULL);
	if (value && value->type == jbvString)
	{
		name = pnstrdup(value->val.string.val, value->val.string.len);
		mbus_file_name_clean(name);
	}
	if (name == NULL || name[0] == '\0')
		name = psprintf("message-" INT64_FORMAT, message->id);
	return name;
}

/* Appends a text as RFC 8187 has it. */
static void
append_encoded(StringInfo out, const char *name)
{
	for (; *name; name++)
	{
		unsigned char c = (unsigned char) *name;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			(c >= '0' && c <= '9') || strchr("!#$&+-.^_`|~", c))
			appendStringInfoChar(out, (char) c);
		else
			appendStringInfo(out, "%%%02X", c);
	}
}
