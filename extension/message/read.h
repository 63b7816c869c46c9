/*
 * read.h
 *		The first bytes of a message, for those who only refer to it.
 */
#ifndef MBUS_READ_H
#define MBUS_READ_H

#include "postgres.h"

extern struct varlena *mbus_message_preview(int64 id, int32 max_bytes);

#endif							/* MBUS_READ_H */
