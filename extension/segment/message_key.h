/*
 * message_key.h
 *		The key of a stored message.
 */
#ifndef MBUS_MESSAGE_KEY_H
#define MBUS_MESSAGE_KEY_H

#include "postgres.h"

#include "utils/snapshot.h"

extern int64 mbus_message_key_hash(Oid schema, int64 id, Snapshot snapshot);

#endif							/* MBUS_MESSAGE_KEY_H */
