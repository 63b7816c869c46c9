/*
 * token.h
 *		JSON Web Tokens: what their parts are made of.
 */
#ifndef MBUS_TOKEN_H
#define MBUS_TOKEN_H

#include "postgres.h"

#include "base/compat.h"
#include "base/json_slice.h"

#define MBUS_TOKEN_MAX		(16 * 1024) /* bytes */
#define MBUS_KEYS_PER_ALG	16	/* tried if a token names none */

/* The algorithms of RFC 7518 and RFC 8037 that are understood. */
typedef enum MbusJwtAlg
{
	MBUS_ALG_NONE,
	MBUS_ALG_HS256,
	MBUS_ALG_RS256,
	MBUS_ALG_ES256,
	MBUS_ALG_EDDSA
} MbusJwtAlg;

extern int	mbus_base64url_decode(const char *src, int len, uint8 *dst);
extern MbusJwtAlg mbus_jwt_alg(const char *name);
extern void mbus_jwt_object(const char *json, int len, const char *what,
							MbusNode *root);
pg_noreturn extern void mbus_token_fault(const char *detail);

#endif							/* MBUS_TOKEN_H */
