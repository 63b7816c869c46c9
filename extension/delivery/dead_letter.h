/*
 * dead_letter.h
 *		Dead letters.
 */
#ifndef MBUS_DEAD_LETTER_H
#define MBUS_DEAD_LETTER_H

#include "postgres.h"

#include "facts/facts.h"
#include "message/stored.h"

extern struct varlena *mbus_sound_payload(const MbusStored *message);
extern const char *mbus_dead_letter(Oid schema, const MbusHolding *holding,
									MbusFailure *failure);

#endif							/* MBUS_DEAD_LETTER_H */
