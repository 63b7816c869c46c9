/*
 * jwt_key.h
 *		The keys that tokens are verified with.
 */
#ifndef MBUS_JWT_KEY_H
#define MBUS_JWT_KEY_H

#include "postgres.h"

#include "identity/token.h"

/* A key of message_bus.jwt_key; borrowed from the backend's cache. */
typedef struct MbusJwtKey
{
	char	   *kid;			/* NULL: it has none */
	uint64		mark;			/* tells it from others; not 0 */
	MbusJwtAlg	alg;
	uint8	   *secret;			/* HS256 only */
	int			secret_len;
	struct evp_pkey_st *public_key; /* the others only */
} MbusJwtKey;

extern void mbus_jwt_key_init(void);
extern const MbusJwtKey *mbus_jwt_keys(int *n);
extern bool mbus_jwt_key_known(uint64 mark);

#endif							/* MBUS_JWT_KEY_H */
