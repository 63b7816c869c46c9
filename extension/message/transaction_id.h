/*
 * transaction_id.h
 *		The caller's own ids.
 */
#ifndef MBUS_TRANSACTION_ID_H
#define MBUS_TRANSACTION_ID_H

#include "postgres.h"

#include "channel/channel.h"
#include "message/draft.h"
#include "state/registry.h"
#include "state/state.h"

extern void mbus_insert_unique(Oid schema, MbusDatabase *db,
							   const MbusReservation *run,
							   const MbusChannel *channel,
							   MbusDraft **drafts, int ndrafts);

#endif							/* MBUS_TRANSACTION_ID_H */
