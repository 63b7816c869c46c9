/*
 * dead_letter.h
 *		Dead letters.
 */
#ifndef MBUS_DEAD_LETTER_H
#define MBUS_DEAD_LETTER_H

#include "postgres.h"

#include "facts/facts.h"
#include "message/draft.h"
#include "message/stored.h"

/* What became of a message that is to be copied. */
typedef enum MbusCopied
{
	MBUS_COPIED,
	MBUS_COPY_CORRUPT,			/* its bytes are not those published */
	MBUS_COPY_GONE				/* it has expired, and its bytes have gone */
} MbusCopied;

extern MbusCopied mbus_copy_draft(Oid schema, const MbusStored *message,
								  bool publisher, MbusDraft *draft);
extern const char *mbus_dead_letter(Oid schema, const MbusHolding *holding,
									MbusFailure *failure);

#endif							/* MBUS_DEAD_LETTER_H */
