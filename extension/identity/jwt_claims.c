/*
 * jwt_claims.c
 *		JSON Web Tokens: the claims of RFC 7519 that are looked at.
 *
 * The payload of a token whose signature fits.  exp, nbf and iat are numbers
 * of seconds, iss, sub and role are strings, aud is a string or an array of
 * strings; any other type is a fault, also where nothing is compared with
 * the claim.  All other claims are for those who read request.jwt.claims.
 */
#include "postgres.h"

#include <math.h>

#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/json_slice.h"
#include "base/settings.h"
#include "identity/ended.h"
#include "identity/jwt_claims.h"
#include "identity/token.h"

#define AUDIENCES_MAX	64
#define UNIX_TO_POSTGRES_SECS \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (double) SECS_PER_DAY)
#define YEAR_10000_SECS	253402300800.0	/* since 1970 */

static char *claim_string(const MbusNode *root, const char *name);
static void times_check(const MbusNode *root, int skew,
						MbusClaims *claims);
static bool claim_time(const MbusNode *root, const char *name,
					   TimestampTz *at);
static void issuer_check(const MbusNode *root, const char *issuers);
static void audience_check(const MbusNode *root, const char *audience);
static char *audience_string(const MbusSlice *value);

/*
 * mbus_claims_read checks the claims of a payload, which it keeps, and fills
 * *claims.  28000 for any fault.
 */
void
mbus_claims_read(char *payload, int len, const MbusTokenRules *rules,
				 MbusClaims *claims)
{
	MbusNode	root;

	mbus_jwt_object(payload, len, "payload", &root);
	claims->text = payload;
	times_check(&root, rules->skew, claims);
	issuer_check(&root, rules->issuer);
	audience_check(&root, rules->audience);
	claims->sub = claim_string(&root, "sub");
	if (claims->sub && mbus_subject_seems_cut(claims->sub))
		mbus_token_fault("Its subject is what a longer one is cut to.");
	claims->role = claim_string(&root, "role");
	if (claims->role && claims->role[0] == '\0')
		mbus_token_fault("Its claim \"role\" is empty.");
}

/* Decoded, or NULL if there is no such claim. */
static char *
claim_string(const MbusNode *root, const char *name)
{
	const MbusNode *claim = mbus_json_member(root, name);
	char	   *value = NULL;

	if (claim == NULL)
		return NULL;
	if (claim->value.type == JSON_TOKEN_STRING)
		value = mbus_json_string(&claim->value, true);
	if (value == NULL)
		mbus_token_fault(psprintf("Its claim \"%s\" is not a string of text.",
								  name));
	return value;
}

/*
 * Compares exp and iat, which may be demanded, and nbf with the clock, give or
 * take the skew.
 */
static void
times_check(const MbusNode *root, int skew, MbusClaims *claims)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz at;

	if (!claim_time(root, "exp", &claims->expires_at))
	{
		if (mbus_token_must_expire)
			mbus_token_fault("It has no claim \"exp\".");
		claims->expires_at = DT_NOEND;
	}
	else if (claims->expires_at + skew * USECS_PER_SEC < now)
		mbus_token_fault("It has expired.");
	if (claim_time(root, "nbf", &at) && at - skew * USECS_PER_SEC > now)
		mbus_token_fault("It is not valid yet.");
	if (!claim_time(root, "iat", &claims->issued_at))
		claims->issued_at = DT_NOBEGIN;
	if (mbus_token_max_age > 0 && claims->issued_at == DT_NOBEGIN)
		mbus_token_fault("It has no claim \"iat\".");
	if (mbus_too_old(claims->issued_at, skew))
		mbus_token_fault("It was issued too long ago.");
}

/*
 * claim_time reads a NumericDate; false if there is no such claim.
 */
static bool
claim_time(const MbusNode *root, const char *name, TimestampTz *at)
{
	const MbusNode *claim = mbus_json_member(root, name);
	double		seconds;

	if (claim == NULL)
		return false;
	if (claim->value.type != JSON_TOKEN_NUMBER)
		mbus_token_fault(psprintf("Its claim \"%s\" is not a number.", name));
	seconds = strtod(mbus_json_token(&claim->value, -1), NULL);
	if (!isfinite(seconds) || seconds < 0 || seconds >= YEAR_10000_SECS)
		mbus_token_fault(psprintf("Its claim \"%s\" is no time between the years 1970 and 9999.",
								  name));
	*at = (TimestampTz) ((seconds - UNIX_TO_POSTGRES_SECS) * USECS_PER_SEC);
	return true;
}

/* The issuer must be one of those expected, whose names commas separate. */
static void
issuer_check(const MbusNode *root, const char *issuers)
{
	char	   *iss = claim_string(root, "iss");
	size_t		length;

	if (issuers[0] == '\0')
		return;
	if (iss == NULL)
		mbus_token_fault("It names no issuer.");
	for (const char *at = issuers;; at += length + 1)
	{
		length = strcspn(at, ",");
		if (length == strlen(iss) && memcmp(at, iss, length) == 0 &&
			length > 0)
			return;
		if (at[length] == '\0')
			mbus_token_fault("Its issuer is not the one that is expected.");
	}
}

/*
 * audience_check looks for the audience that is expected, alone or in a list.
 * Claims of a wrong type are a fault also where none is expected.
 */
static void
audience_check(const MbusNode *root, const char *audience)
{
	const MbusNode *claim = mbus_json_member(root, "aud");
	MbusNode	list;
	bool		found = false;

	if (claim == NULL)
	{
		if (audience[0] != '\0')
			mbus_token_fault("It names no audience.");
		return;
	}
	if (claim->value.type == JSON_TOKEN_ARRAY_START)
	{
		mbus_json_slice(claim->value.start, claim->value.len, AUDIENCES_MAX,
						&list);
		if (list.total > list.nchildren)
			mbus_token_fault("It has too many audiences.");
		for (int i = 0; i < list.nchildren; i++)
		{
			if (strcmp(audience_string(&list.children[i].value),
					   audience) == 0)
				found = true;
		}
	}
	else
		found = strcmp(audience_string(&claim->value), audience) == 0;
	if (audience[0] != '\0' && !found)
		mbus_token_fault("It is for another audience.");
}

static char *
audience_string(const MbusSlice *value)
{
	char	   *name = NULL;

	if (value->type == JSON_TOKEN_STRING)
		name = mbus_json_string(value, true);
	if (name == NULL)
		mbus_token_fault("Its claim \"aud\" is not a string of text or an array of these.");
	return name;
}
