/*
 * caller.c
 *		Who calls, as told by the relay and by the request's JWT claims.
 *
 * PostgREST, Supabase and the gateway put the verified claims into the
 * setting request.jwt.claims.  In a direct SQL session anybody can set it:
 * the role a message is stored with is what cannot be chosen.  A frame of a
 * gateway's session has the subject of the token that was verified, whatever
 * the setting says.
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/caller.h"
#include "base/compat.h"
#include "base/payload.h"

#define MBUS_SUBJECT_MAX 255
#define MBUS_SUBJECT_DIGEST 16	/* bytes of it, of one that is cut */
#define MAX_UTF8_BYTES	4		/* of a character */

typedef struct SubjectState
{
	int			depth;
	bool		at_sub;
	bool		unusable;		/* it is neither a string nor a number */
	char	   *sub;
} SubjectState;

MbusCaller	mbus_caller;

static char *known_claims = NULL;
static char *known_subject = NULL;
static bool known_unusable = false;

static char *subject_parse(const char *claims, bool *unusable);
static MbusJsonResult subject_value_start(void *arg);
static MbusJsonResult subject_value_end(void *arg);
static MbusJsonResult subject_field_start(void *arg, char *name, bool isnull);
static MbusJsonResult subject_scalar(void *arg, char *token,
									 JsonTokenType type);

/*
 * mbus_subject returns the "sub" of the claims, NULL if there is none; the
 * result stays until the claims change.
 */
const char *
mbus_subject(void)
{
	const char *claims;
	char	   *subject;
	bool		unusable;

	if (mbus_caller.verified)
		return mbus_caller.subject;
	claims = GetConfigOption("request.jwt.claims", true, false);
	if (claims == NULL || claims[0] == '\0')
		return NULL;
	if (known_claims && strcmp(known_claims, claims) == 0)
		return known_subject;

	subject = subject_parse(claims, &unusable);
	if (known_claims)
		pfree(known_claims);
	known_claims = NULL;		/* memory may run out below */
	if (known_subject)
		pfree(known_subject);
	known_subject = NULL;
	if (subject)
		known_subject = MemoryContextStrdup(TopMemoryContext, subject);
	known_unusable = unusable;
	known_claims = MemoryContextStrdup(TopMemoryContext, claims);
	return known_subject;
}

/*
 * mbus_caller_check errors if the session whose frame runs has been ended, or
 * may not speak for its role any more: for who sleeps in a frame.
 */
void
mbus_caller_check(void)
{
	if (mbus_caller.check)
		mbus_caller.check();
}

/*
 * mbus_claims_given tells whether the request has claims, with a subject or
 * without one.
 */
bool
mbus_claims_given(void)
{
	const char *claims = GetConfigOption("request.jwt.claims", true, false);

	return mbus_caller.verified || (claims && claims[0] != '\0');
}

/*
 * mbus_subject_unusable tells whether the claims are no JSON, or their "sub" is
 * nothing that can be compared, or what another's is when it is cut.  Who has such claims is nobody in particular.
 */
bool
mbus_subject_unusable(void)
{
	const char *subject = mbus_subject();

	return subject == NULL && !mbus_caller.verified && mbus_claims_given() &&
		known_unusable;
}

/*
 * mbus_subject_cut cuts a subject to what the columns hold that name one.  All
 * that is compared was cut likewise, and the digest behind what is left lets no
 * two be the same that were not.  So that nobody can take the name that somebody
 * else's has then, a subject that seems to be cut is none of a caller's.
 */
void
mbus_subject_cut(char *subject)
{
	int			len = strlen(subject);
	int			left = MBUS_SUBJECT_MAX - 1 - 2 * MBUS_SUBJECT_DIGEST;
	uint8		digest[MBUS_SHA256_BYTES];

	if (len <= MBUS_SUBJECT_MAX)
		return;
	mbus_sha256(subject, len, digest);
	left = pg_encoding_mbcliplen(PG_UTF8, subject, len, left);
	subject[left++] = '~';
	left += hex_encode((char *) digest, MBUS_SUBJECT_DIGEST, subject + left);
	subject[left] = '\0';
}

/*
 * mbus_subject_seems_cut tells whether a subject looks like what is left of one
 * that was cut: a tilde and a digest in hex, where they are then.
 */
bool
mbus_subject_seems_cut(const char *subject)
{
	int			len = strlen(subject);
	int			digits = 2 * MBUS_SUBJECT_DIGEST;

	return len <= MBUS_SUBJECT_MAX && len > MBUS_SUBJECT_MAX - MAX_UTF8_BYTES &&
		subject[len - digits - 1] == '~' &&
		strspn(subject + len - digits, "0123456789abcdef") ==
		(size_t) digits;
}

/*
 * mbus_receipt_add notes of a message that was published whether it repeats a
 * transaction id, if somebody asks.
 */
void
mbus_receipt_add(bool repeated)
{
	MbusReceipts *receipts = mbus_caller.receipts;

	if (receipts == NULL)
		return;
	if (receipts->repeated == NULL)
		receipts->repeated = MemoryContextAlloc(receipts->context,
												(receipts->room = 16) *
												sizeof(bool));
	else if (receipts->n >= receipts->room)
		receipts->repeated = repalloc(receipts->repeated,
									  (receipts->room *= 2) * sizeof(bool));
	receipts->repeated[receipts->n++] = repeated;
}

/*
 * What is no JSON has no subject; that is for others to complain about.  A
 * number, which some issuers put there, is taken as it is written.
 */
static char *
subject_parse(const char *claims, bool *unusable)
{
	SubjectState state;
	JsonSemAction actions;
	JsonLexContext *lex;

	MemSet(&state, 0, sizeof(state));
	MemSet(&actions, 0, sizeof(actions));
	actions.semstate = &state;
	actions.object_start = subject_value_start;
	actions.object_end = subject_value_end;
	actions.array_start = subject_value_start;
	actions.array_end = subject_value_end;
	actions.object_field_start = subject_field_start;
	actions.scalar = subject_scalar;
	lex = MbusMakeLexer(pstrdup(claims), strlen(claims), true);
	*unusable = pg_parse_json(lex, &actions) != JSON_SUCCESS ||
		state.unusable || (state.sub && mbus_subject_seems_cut(state.sub));
	if (*unusable)
		return NULL;
	if (state.sub)
		mbus_subject_cut(state.sub);
	return state.sub;
}

static MbusJsonResult
subject_value_start(void *arg)
{
	SubjectState *state = arg;

	state->unusable |= state->at_sub;
	state->at_sub = false;
	state->depth++;
	MBUS_JSON_CONTINUE;
}

static MbusJsonResult
subject_value_end(void *arg)
{
	((SubjectState *) arg)->depth--;
	MBUS_JSON_CONTINUE;
}

static MbusJsonResult
subject_field_start(void *arg, char *name, bool isnull)
{
	SubjectState *state = arg;

	state->at_sub = state->depth == 1 && strcmp(name, "sub") == 0;
	MBUS_JSON_CONTINUE;
}

static MbusJsonResult
subject_scalar(void *arg, char *token, JsonTokenType type)
{
	SubjectState *state = arg;

	if (state->at_sub &&
		(type == JSON_TOKEN_STRING || type == JSON_TOKEN_NUMBER))
		state->sub = token;
	else
		state->unusable |= state->at_sub && type != JSON_TOKEN_NULL;
	state->at_sub = false;
	MBUS_JSON_CONTINUE;
}
