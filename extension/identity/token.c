/*
 * token.c
 *		JSON Web Tokens: what their parts are made of.
 *
 * Base64url is strict, so that no two texts are one token.  Each fault is the
 * same error, 28000, whose detail quotes nothing of the token.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "base/compat.h"
#include "base/json_slice.h"
#include "identity/token.h"

static int	base64url_value(unsigned char c);

/*
 * mbus_token_fault errors with 28000.  The statement is not logged: it may
 * hold the token.
 */
void
mbus_token_fault(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg("token is not valid"),
			 errdetail_internal("%s", detail),
			 errhidestmt(true)));
}

/*
 * mbus_jwt_alg returns an algorithm by its name, compared as it is written.
 */
MbusJwtAlg
mbus_jwt_alg(const char *name)
{
	if (strcmp(name, "HS256") == 0)
		return MBUS_ALG_HS256;
	if (strcmp(name, "RS256") == 0)
		return MBUS_ALG_RS256;
	if (strcmp(name, "ES256") == 0)
		return MBUS_ALG_ES256;
	if (strcmp(name, "EdDSA") == 0)
		return MBUS_ALG_EDDSA;
	return MBUS_ALG_NONE;
}

/*
 * mbus_jwt_object opens a part of a token: an object in UTF-8 that has no
 * member twice.
 */
void
mbus_jwt_object(const char *json, int len, const char *what, MbusNode *root)
{
	JsonSemAction nothing = {0};

	/* the parser's own errors would quote the token */
	if (!pg_verify_mbstr(PG_UTF8, json, len, true) ||
		pg_parse_json(MbusMakeLexer(json, len, false),
					  &nothing) != JSON_SUCCESS)
		mbus_token_fault(psprintf("Its %s is not JSON.", what));
	mbus_json_slice(json, len, 1, root);
	if (root->value.type != JSON_TOKEN_OBJECT_START)
		mbus_token_fault(psprintf("Its %s is not an object.", what));
	if (root->total > root->nchildren)
		mbus_token_fault(psprintf("Its %s has too many members.", what));
	if (mbus_json_duplicate(root))
		mbus_token_fault(psprintf("Its %s has a member twice.", what));
}

/*
 * mbus_base64url_decode decodes RFC 4648's base64url without padding, as RFC
 * 7515 wants it, and returns the length; -1 if it is not exactly that.
 */
int
mbus_base64url_decode(const char *src, int len, uint8 *dst)
{
	uint32		bits = 0;
	int			nbits = 0;
	int			n = 0;

	if (len % 4 == 1)
		return -1;
	for (int i = 0; i < len; i++)
	{
		int			value = base64url_value((unsigned char) src[i]);

		if (value < 0)
			return -1;
		bits = bits << 6 | (uint32) value;
		nbits += 6;
		if (nbits >= 8)
		{
			nbits -= 8;
			dst[n++] = (uint8) (bits >> nbits);
			bits &= (1U << nbits) - 1;
		}
	}
	/* two texts of the same bytes would be two tokens */
	return bits == 0 ? n : -1;
}

/* The six bits of a character; -1 if it is not one of the alphabet. */
static int
base64url_value(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '-')
		return 62;
	if (c == '_')
		return 63;
	return -1;
}
