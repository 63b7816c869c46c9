/*
 * identity_test.c
 *		Session numbers, tokens, and what the database says of them.
 */
#include "request/identity.h"

#include <string.h>

#include "tap.h"

/* Numbers of two database connections, and of their first life. */
#define A	0
#define B	1
#define ONE	1

static GwIdentity *
identity_of(const char *token)
{
	GwBuffer	buffer = {0};

	gw_buffer_text(&buffer, token);
	return gw_identity_create(&buffer);
}

/* take gives an identity what connection A says of a version. */
static bool
take(GwIdentity *identity, uint32_t version, const char *json)
{
	GwSpan		span = {(const unsigned char *) json, strlen(json)};

	return gw_identity_take(identity, A, ONE, version, span);
}

static bool
token_is(const GwIdentity *identity, const char *token)
{
	return identity->token.length == strlen(token) &&
		memcmp(identity->token.data, token, strlen(token)) == 0;
}

static void
number_tests(void)
{
	GwIdentity *first = identity_of("");
	GwIdentity *second = identity_of("");

	ok(second->session == first->session + 1, "sessions are counted");
	ok(first->session >= (INT64_C(1) << 24) &&
	   second->session < (INT64_C(1) << 53),
	   "above the random part's unit and below 2^53");
	gw_identity_release(first);
	gw_identity_release(second);
}

static void
open_tests(void)
{
	GwIdentity *identity = identity_of("t1");

	ok(!gw_identity_is_open(identity, A, ONE), "at first it is open nowhere");
	ok(take(identity, 1, "{\"open\":{\"session\":1,\"expires_ms\":1700000000123}}"),
	   "the database opens it");
	ok(gw_identity_is_open(identity, A, ONE) &&
	   !gw_identity_is_open(identity, B, ONE),
	   "it is open on that connection only");
	ok(!gw_identity_is_open(identity, A, ONE + 1),
	   "and in that life of the connection only");
	ok(identity->expires_ms == INT64_C(1700000000123), "its expiry is known");
	ok(take(identity, 1, "{\"open\":{\"expires_ms\":null}}") &&
	   identity->expires_ms == 0, "or that it has none");
	ok(!take(identity, 1, "{\"result\":1}") && !take(identity, 1, "x"),
	   "anything else is not understood");
	gw_identity_release(identity);
}

static void
renew_tests(void)
{
	GwIdentity *identity = identity_of("t1");

	gw_identity_mark(identity, B, ONE, 1);
	identity->expired_ms = 5;
	ok(take(identity, 1, "{\"open\":{\"expires_ms\":9,\"token\":\"t2\"}}") &&
	   token_is(identity, "t2"), "a client's fresh token is kept");
	ok(gw_identity_is_open(identity, A, ONE) &&
	   !gw_identity_is_open(identity, B, ONE),
	   "other connections have yet to be given it");
	ok(identity->expires_ms == 9 && identity->expired_ms == 0,
	   "the session has not expired any more");
	ok(take(identity, 1, "{\"open\":{\"expires_ms\":3}}") &&
	   identity->expires_ms == 9 && !gw_identity_is_open(identity, A, ONE),
	   "a late answer to the older token changes nothing but where it is");
	ok(!take(identity, 2, "{\"open\":{\"token\":\"t\\u0033\"}}") &&
	   token_is(identity, "t2"), "a token with escapes is none");
	gw_identity_release(identity);
}

static void
refuse_tests(void)
{
	GwIdentity *identity = identity_of("t1");

	gw_identity_mark(identity, A, ONE, 1);
	ok(take(identity, 1, "{\"refused\":{\"message\":\"no\"}}") &&
	   identity->refused && !gw_identity_is_open(identity, A, ONE),
	   "a token may be refused");
	ok(take(identity, 1, "{\"open\":{\"token\":\"t2\"}}") &&
	   !identity->refused, "and a fresh one accepted after it");
	ok(take(identity, 1, "{\"refused\":{}}") && !identity->refused,
	   "that an older one is refused does not matter");
	gw_identity_release(identity);
}

void
identity_tests(void)
{
	number_tests();
	open_tests();
	renew_tests();
	refuse_tests();
}
