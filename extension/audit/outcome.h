/*
 * outcome.h
 *		What has become of a message.
 */
#ifndef MBUS_OUTCOME_H
#define MBUS_OUTCOME_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"

#include "segment/leaf_scan.h"

extern bool mbus_died(Oid schema, int32 subscription_id, int64 id,
					  int64 lease);
extern void mbus_acks_begin(MbusLeafScan *rows, Relation leaf, bool wide,
							int32 subscription_id, int64 id,
							Snapshot snapshot);
extern bool mbus_ack_row_covers(HeapTuple tuple, TupleDesc desc, int64 id);

#endif							/* MBUS_OUTCOME_H */
