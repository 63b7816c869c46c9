/*
 * jwt.h
 *		JSON Web Tokens: what a token must be to be believed.
 */
#ifndef MBUS_JWT_H
#define MBUS_JWT_H

#include "postgres.h"

#include "datatype/timestamp.h"

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

/* A key of message_bus.jwt_key; borrowed from the backend's cache. */
typedef struct MbusJwtKey
{
	char	   *kid;			/* NULL: it has none */
	MbusJwtAlg	alg;
	uint8	   *secret;			/* HS256 only */
	int			secret_len;
	struct evp_pkey_st *public_key; /* the others only */
} MbusJwtKey;

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
} MbusClaims;

/* jwt.c */
extern char *mbus_jwt_verify(const char *token, int len, int *payload_len);
extern int	mbus_base64url_decode(const char *src, int len, uint8 *dst);
extern MbusJwtAlg mbus_jwt_alg(const char *name);
extern void mbus_jwt_object(const char *json, int len, const char *what,
							MbusNode *root);
pg_noreturn extern void mbus_token_fault(const char *detail);

/* jwt_claims.c */
extern void mbus_claims_read(char *payload, int len,
							 const MbusTokenRules *rules, MbusClaims *claims);

/* jwt_key.c */
extern void mbus_jwt_key_init(void);
extern const MbusJwtKey *mbus_jwt_keys(int *n);

#endif							/* MBUS_JWT_H */
