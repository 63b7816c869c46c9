/*
 * claim.h
 *		Whether a claim would find something.
 */
#ifndef MBUS_CLAIM_H
#define MBUS_CLAIM_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "channel/channel.h"
#include "channel/subscription.h"
#include "state/state.h"

extern bool mbus_claim_probe(Oid schema, MbusDatabase *db,
							 const MbusChannel *channel,
							 const MbusSubscription *subscription,
							 TimestampTz *next);

#endif							/* MBUS_CLAIM_H */
