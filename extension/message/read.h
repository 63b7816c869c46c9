/*
 * read.h
 *		A message as its readers may have it, and its first bytes.
 */
#ifndef MBUS_READ_H
#define MBUS_READ_H

#include "postgres.h"

#include "message/stored.h"

extern bool mbus_message_readable(Oid schema, int64 id, MbusStored *message);
extern bool mbus_message_open(Oid schema, int64 id, MbusStored *message);
extern struct varlena *mbus_message_preview(int64 id);

#endif							/* MBUS_READ_H */
