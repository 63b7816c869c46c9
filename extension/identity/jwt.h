/*
 * jwt.h
 *		The signature of a token.
 */
#ifndef MBUS_JWT_H
#define MBUS_JWT_H

#include "postgres.h"

extern char *mbus_jwt_verify(const char *token, int len, int *payload_len,
							 uint64 *key);

#endif							/* MBUS_JWT_H */
