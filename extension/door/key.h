/*
 * key.h
 *		The secret that tickets and capabilities are made with.
 */
#ifndef MBUS_BODY_KEY_H
#define MBUS_BODY_KEY_H

#include "postgres.h"

#include "base/sha256.h"

#define MBUS_MAC_HEX	(2 * MBUS_SHA256_BYTES)

extern void mbus_body_key_init(void);
extern int64 mbus_body_key_number(void);
extern void mbus_body_mac(const char *label, const char *said, char *hex);
extern bool mbus_body_mac_is(const char *label, const char *said,
							 const char *hex);

#endif							/* MBUS_BODY_KEY_H */
