/*
 * jwt_claims.h
 *		The claims of a token.
 */
#ifndef MBUS_JWT_CLAIMS_H
#define MBUS_JWT_CLAIMS_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* What a token must say; "" where nothing is expected. */
typedef struct MbusTokenRules
{
	const char *issuer;
	const char *audience;
	const char *anonymous;		/* role without a role claim; "" : none */
	int			skew;			/* seconds */
} MbusTokenRules;

typedef struct MbusClaims
{
	char	   *text;			/* as it was signed */
	char	   *role;			/* NULL: none */
	char	   *sub;			/* NULL: none */
	TimestampTz expires_at;		/* DT_NOEND: never */
	TimestampTz issued_at;		/* DT_NOBEGIN: it does not say */
} MbusClaims;

extern void mbus_claims_read(char *payload, int len,
							 const MbusTokenRules *rules, MbusClaims *claims);

#endif							/* MBUS_JWT_CLAIMS_H */
