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

/* Who did something with a message, and when. */
typedef struct MbusEventBy
{
	TimestampTz at;
	int64		session;		/* 0: none */
	const char *role;
	const char *subject;		/* or NULL */
} MbusEventBy;

extern void mbus_insert_events(Oid schema, const int64 *ids, int n,
							   const char *kind, const MbusEventBy *by);
extern void mbus_insert_event(Oid schema, int64 message_id, const char *kind,
							  TimestampTz at);
extern bool mbus_insert_speculative(MbusInserter *inserter, int32 channel_id,
									MbusDraft *draft, uint32 *token);
extern void mbus_insert_speculative_end(MbusInserter *inserter, uint32 token,
										bool keep);

#endif							/* MBUS_INSERT_H */
