/*
 * scanner.h
 *		The scanner slot of a subscription.
 */
#ifndef MBUS_SCANNER_H
#define MBUS_SCANNER_H

#include "postgres.h"

extern void mbus_scanner_init(void);
extern bool mbus_scanner_acquire(uint32 slot, Oid schema,
								 int32 subscription_id, bool seek);
extern bool mbus_scanner_try(uint32 slot, Oid schema, int32 subscription_id);
extern void mbus_scanner_release(void);

#endif							/* MBUS_SCANNER_H */
