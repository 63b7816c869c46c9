/*
 * holder.h
 *		Whose a lease is.
 */
#ifndef MBUS_HOLDER_H
#define MBUS_HOLDER_H

#include "postgres.h"

extern uint64 mbus_holder_subject(void);
extern bool mbus_holder_may(Oid role, uint64 subject);
extern bool mbus_holder_named(const char *role, const char *subject);

#endif							/* MBUS_HOLDER_H */
