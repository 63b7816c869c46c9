/*
 * dead_letter_channel.h
 *		Which channel may be another one's for dead letters.
 */
#ifndef MBUS_DEAD_LETTER_CHANNEL_H
#define MBUS_DEAD_LETTER_CHANNEL_H

#include "postgres.h"

extern int32 mbus_dead_letter_channel(Oid schema, const char *channel,
									  Oid owner,
									  const char *dead_letter);

#endif							/* MBUS_DEAD_LETTER_CHANNEL_H */
