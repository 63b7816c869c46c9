/*
 * dump.h
 *		Dumps and the dropping of tables keep out of each other's way.
 */
#ifndef MBUS_DUMP_H
#define MBUS_DUMP_H

#include "postgres.h"

extern void mbus_dump_init(void);
extern bool mbus_dumps_wait(Oid schema, bool in_turn);

#endif							/* MBUS_DUMP_H */
