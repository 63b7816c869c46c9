/*
 * read.h
 *		What others need of single messages.
 */
#ifndef MBUS_READ_H
#define MBUS_READ_H

#include "postgres.h"

extern struct varlena *mbus_message_preview(int64 id, int32 max_bytes);

#endif							/* MBUS_READ_H */
