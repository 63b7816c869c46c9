/*
 * publisher.h
 *		Names of publishers, by number.
 */
#ifndef MBUS_PUBLISHER_H
#define MBUS_PUBLISHER_H

#include "postgres.h"

extern void mbus_publisher_init(void);
extern int32 mbus_publisher_id(Oid schema);
extern text *mbus_publisher_name(Oid schema, int32 publisher_id);

#endif							/* MBUS_PUBLISHER_H */
