/*
 * identity.c
 *		Who a connection is: session number, token, and where it is known.
 *
 * The database verifies tokens, the gateway never does: it keeps the token
 * of a connection only to show it to each of its database connections,
 * before the first frame of the session there and again when that connection
 * was lost and made anew ("life" below, counted by generation). A backend
 * answers with the token's expiry, or refuses it. A client that calls
 * `authenticate` is answered by the database, which hands the gateway the
 * new token beside the reply: from then on the other connections, which know
 * the session by an older version, are shown that.
 *
 * A session without a token is as old as where it was opened first: the
 * database may have ended what was opened until some time, and no other
 * connection opens that anew. So each is told since when it is; one that was
 * told nothing, because the first had not answered yet, is told again.
 *
 * An identity outlives its socket: frames that came whole are relayed even
 * when the socket has closed behind them. It goes with its last reference.
 *
 * Session numbers are unique over gateways: 29 random bits chosen at start,
 * and 24 that count; when these are used up the random ones are new.
 */
#include "request/identity.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define COUNTER_BITS	24
#define RANDOM_BITS		29

#define SECOND_MS		1000

/*
 * A lease in a control frame, with what is said of it; and how many a client
 * has learnt of are remembered, to be ended while frames of it are in flight.
 */
#define LEASE_BYTES		16
#define WRITTEN_MAX		32

/* Lines of all connections together, those that tell what is left out too. */
#define LINES_MAX		200

static struct
{
	int64_t		since_ms;
	unsigned	lines;
	unsigned	left_out;		/* frames that no other line tells of */
}			flood;

/* Which member tells the subject that is logged; NULL: none. */
static const char *subject_member = "\"sub_hash\"";

static int64_t next_session(void);
static bool flood_takes(int64_t now_ms);
static void take_since(GwIdentity *identity, int64_t since, size_t connection,
					   uint32_t generation);
static void take_text(GwSpan object, const char *name, char *to, size_t size);
static bool take_token(GwIdentity *identity, GwSpan string);

/* gw_identities_init says how subjects are logged: hash, plain or none. */
void
gw_identities_init(const char *log_subjects)
{
	int			first = log_subjects[0] | 0x20;

	subject_member = first == 'n' ? NULL : first == 'p' ? "\"sub\"" :
		"\"sub_hash\"";
}

/*
 * gw_identity_create makes an identity with one reference, and takes the
 * token over. It returns NULL if out of memory.
 */
GwIdentity *
gw_identity_create(GwBuffer *token)
{
	GwIdentity *identity = calloc(1, sizeof(GwIdentity));
	int64_t		session = next_session();

	if (identity == NULL || session == 0)
	{
		free(identity);
		return NULL;
	}
	identity->session = session;
	identity->references = 1;
	identity->version = 1;
	identity->token = *token;
	memset(token, 0, sizeof(*token));
	return identity;
}

/*
 * gw_identity_logs_failure tells whether one more failed frame has a line of
 * its own in the log, of so many of its connection in a second: a client must
 * not fill it.
 */
bool
gw_identity_logs_failure(GwIdentity *identity, int64_t now_ms, unsigned most)
{
	gw_identity_tell_left_out(identity, now_ms);
	if (now_ms - identity->failed_ms >= SECOND_MS)
	{
		identity->failed_ms = now_ms;
		identity->failed = 0;
	}
	if (++identity->failed > most)
	{
		identity->left_out++;
		return false;
	}
	if (flood_takes(now_ms))
		return true;
	flood.left_out++;
	return false;
}

/* flood_takes tells whether the log takes one more line, and counts it. */
static bool
flood_takes(int64_t now_ms)
{
	gw_identities_tell_left_out(now_ms);
	if (flood.lines >= LINES_MAX)
		return false;
	flood.lines++;
	return true;
}

/*
 * gw_identities_tell_left_out logs how many failed frames of all connections
 * had no line because there were too many lines in a second that is over.
 */
void
gw_identities_tell_left_out(int64_t now_ms)
{
	GwLogLine	line;

	if (now_ms - flood.since_ms < SECOND_MS)
		return;
	flood.since_ms = now_ms;
	flood.lines = 0;
	if (flood.left_out == 0)
		return;
	gw_log_begin(&line, "warning", "frames_left_out");
	gw_log_number(&line, "frames", flood.left_out);
	gw_log_end(&line);
	flood.left_out = 0;
}

/*
 * gw_identity_tell_left_out logs how many failed frames of a second that is
 * over had no line of their own.
 */
void
gw_identity_tell_left_out(GwIdentity *identity, int64_t now_ms)
{
	GwLogLine	line;

	if (identity->left_out == 0 || now_ms - identity->failed_ms < SECOND_MS)
		return;
	if (!flood_takes(now_ms == INT64_MAX ? flood.since_ms : now_ms))
	{
		flood.left_out += identity->left_out;
		identity->left_out = 0;
		return;
	}
	gw_log_begin(&line, "warning", "frames_left_out");
	gw_log_number(&line, "connection", identity->session);
	gw_identity_log(identity, &line);
	gw_log_number(&line, "frames", identity->left_out);
	gw_log_end(&line);
	identity->left_out = 0;
}

/* gw_identity_note_written keeps the newest leases that a client has learnt of. */
void
gw_identity_note_written(GwIdentity *identity, const unsigned char *leases,
						 size_t length)
{
	GwBuffer   *written = &identity->written;
	size_t		at;

	for (at = 0; at + LEASE_BYTES <= length; at += LEASE_BYTES)
	{
		if (written->length >= WRITTEN_MAX * LEASE_BYTES)
		{
			written->length -= LEASE_BYTES;
			memmove(written->data, written->data + LEASE_BYTES,
					written->length);
		}
		gw_buffer_append(written, leases + at, LEASE_BYTES / 2);
		gw_buffer_int64(written, UINT64_MAX);
	}
}

/* gw_identity_release gives a reference back, the last one with the token. */
void
gw_identity_release(GwIdentity *identity)
{
	if (--identity->references > 0)
		return;
	gw_identity_tell_left_out(identity, INT64_MAX);
	gw_buffer_wipe(&identity->token);
	gw_buffer_free(&identity->unwritten);
	gw_buffer_free(&identity->written);
	free(identity);
}

/* gw_identity_log tells in a line of the log whose it is. */
void
gw_identity_log(const GwIdentity *identity, GwLogLine *line)
{
	if (identity->role[0] != '\0')
		gw_log_text(line, "role", identity->role);
	if (identity->subject[0] != '\0')
		gw_log_text(line, "sub", identity->subject);
}

/*
 * gw_identity_is_open tells whether a database connection, in this life, was
 * given the present token.
 */
bool
gw_identity_is_open(const GwIdentity *identity, size_t connection,
					uint32_t generation)
{
	return identity->opened[connection].generation == generation &&
		identity->opened[connection].version == identity->version;
}

/* gw_identity_mark notes which token a connection has; version 0: none. */
void
gw_identity_mark(GwIdentity *identity, size_t connection,
				 uint32_t generation, uint32_t version)
{
	identity->opened[connection].generation = generation;
	identity->opened[connection].version = version;
}

/*
 * gw_identity_take takes what the database says of a session: that it is
 * open, perhaps by a new token of the client, or that the token of this
 * version is refused. It returns false if it says neither.
 */
bool
gw_identity_take(GwIdentity *identity, size_t connection,
				 uint32_t generation, uint32_t version, GwSpan json)
{
	GwSpan		open;
	GwSpan		value;

	if (gw_json_member(json, "\"refused\"", &open))
	{
		gw_identity_mark(identity, connection, 0, 0);
		/* What failed for another reason will be tried again. */
		if (version == identity->version &&
			(!gw_json_member(open, "\"sqlstate\"", &value) ||
			 gw_span_is(value, "\"28000\"")))
			identity->refused = true;
		return true;
	}
	if (!gw_json_member(json, "\"open\"", &open))
		return false;
	if (gw_json_member(open, "\"token\"", &value))
	{
		if (!take_token(identity, value))
			return false;
		version = identity->version;
	}
	gw_identity_mark(identity, connection, generation, version);
	if (version != identity->version)
		return true;
	identity->refused = false;
	if (gw_json_member(open, "\"since\"", &value))
		take_since(identity, strtoll((const char *) value.data, NULL, 10),
				   connection, generation);
	take_text(open, "\"role\"", identity->role, sizeof(identity->role));
	if (subject_member != NULL)
		take_text(open, subject_member, identity->subject,
				  sizeof(identity->subject));
	if (gw_json_member(open, "\"max_message_bytes\"", &value))
		identity->limit = (uint32_t) strtoul((const char *) value.data, NULL,
											 10);
	identity->expires_ms = 0;
	/* The span is followed by a comma or a brace, which ends the number. */
	if (gw_json_member(open, "\"expires_ms\"", &value))
		identity->expires_ms = strtoll((const char *) value.data, NULL, 10);
	return true;
}

/*
 * take_since takes when a session without a token was opened. If others have
 * been told of a later time they open it anew.
 */
static void
take_since(GwIdentity *identity, int64_t since, size_t connection,
		   uint32_t generation)
{
	if (identity->since != 0 && since > identity->since)
		gw_identity_mark(identity, connection, 0, 0);
	else if (identity->since != 0 && since < identity->since)
		gw_identity_mark(identity, connection, generation,
						 ++identity->version);
	if (identity->since == 0 || since < identity->since)
		identity->since = since;
}

/* take_text copies a string, as it is written, cut; NULL is none. */
static void
take_text(GwSpan object, const char *name, char *to, size_t size)
{
	GwSpan		value;
	size_t		length;

	to[0] = '\0';
	if (!gw_json_member(object, name, &value) || value.data[0] != '"')
		return;
	length = value.length - 2 < size - 1 ? value.length - 2 : size - 1;
	memcpy(to, value.data + 1, length);
	to[length] = '\0';
}

/* take_token replaces the token by a JSON string, which needs no escapes. */
static bool
take_token(GwIdentity *identity, GwSpan string)
{
	GwBuffer	token = {0};

	if (string.data[0] != '"' ||
		memchr(string.data, '\\', string.length) != NULL)
		return false;
	gw_buffer_append(&token, string.data + 1, string.length - 2);
	if (token.failed)
		return false;
	gw_buffer_wipe(&identity->token);
	identity->token = token;
	identity->version++;
	identity->since = 0;
	identity->expired_ms = 0;
	return true;
}

/* next_session returns a new number, 0 if there is no randomness. */
static int64_t
next_session(void)
{
	static uint64_t random_part;
	static uint64_t counter;
	uint32_t	bits = 0;

	if (counter >> COUNTER_BITS != 0)
		random_part = counter = 0;
	while (random_part == 0)
	{
		if (getrandom(&bits, sizeof(bits), 0) != (ssize_t) sizeof(bits))
			return 0;
		random_part = bits & ((UINT64_C(1) << RANDOM_BITS) - 1);
	}
	return (int64_t) (random_part << COUNTER_BITS | counter++);
}
