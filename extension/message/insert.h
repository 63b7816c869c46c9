/*
 * insert.h
 *		Messages into the open segment.
 */
#ifndef MBUS_INSERT_H
#define MBUS_INSERT_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "message/draft.h"
#include "segment/inserter.h"
#include "state/registry.h"

extern void mbus_insert_run(const MbusReservation *run, int32 channel_id,
							MbusDraft **drafts, int ndrafts);
extern void mbus_insert_event(Oid schema, int64 message_id, const char *kind,
							  TimestampTz at);
extern bool mbus_insert_speculative(MbusInserter *inserter, int32 channel_id,
									MbusDraft *draft, uint32 *token);
extern void mbus_insert_speculative_end(MbusInserter *inserter, uint32 token,
										bool keep);

#endif							/* MBUS_INSERT_H */
