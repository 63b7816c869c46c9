/*
 * limits.h
 *		How much may be in a call, a message, a name.
 */
#ifndef MBUS_LIMITS_H
#define MBUS_LIMITS_H

#include "postgres.h"

#include "datatype/timestamp.h"

#define MBUS_CALL_MAX		100000	/* messages in one call */
#define MBUS_HEADERS_MAX	(1024 * 1024)	/* bytes of jsonb */
#define MBUS_TRANSACTION_ID_MAX 255 /* bytes, as for keys and content types */
#define MBUS_RECIPIENT_MAX	16384	/* bytes: no token has a longer subject */
#define MBUS_CLAIM_MAX		10000	/* messages in one claim */
#define MBUS_LEASE_MAX_US	(7 * USECS_PER_DAY)
#define MBUS_REASON_MAX		8000	/* bytes; a longer one is cut */
#define MBUS_REASON_LEAST	200 /* of that, for however many messages */
#define MBUS_REASONS_MAX	(1024 * 1024)	/* of all messages of a nack */
#define MBUS_CHANNEL_NAME_MAX 255	/* bytes */

#endif							/* MBUS_LIMITS_H */
