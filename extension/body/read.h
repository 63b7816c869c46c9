/*
 * read.h
 *		Bytes of a body.
 */
#ifndef MBUS_BODY_READ_H
#define MBUS_BODY_READ_H

#include "postgres.h"

#include "body/body.h"

extern bool mbus_body_read(Oid schema, int64 number, int64 size, int64 from,
						   int64 count, char *into, bool verify);
extern struct varlena *mbus_part_read(const MbusBody *body, int32 n,
									  int32 size, bool verify);

#endif							/* MBUS_BODY_READ_H */
