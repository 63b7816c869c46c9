/*
 * tally.h
 *		What happened in each channel, and how long it took.
 */
#ifndef MBUS_TALLY_H
#define MBUS_TALLY_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "state/state.h"

/* What is counted of a channel. */
typedef struct MbusTallies
{
	uint64		n[MBUS_TALLIES];
} MbusTallies;

extern void mbus_tally_init(void);
extern void mbus_tally(int32 channel_id, MbusTally tally, uint64 n);
extern void mbus_latency(MbusLatency latency, int64 us, uint32 n);

/* what has been counted */
extern bool mbus_tallies_read(MbusDatabase *db, int32 channel_id,
							  MbusTallies *tallies);
extern double mbus_latency_bound(int bucket);

/* channels that are gone */
extern void mbus_tally_dropped(MbusDatabase *db, int32 channel_id);
extern int	mbus_tallied(MbusDatabase *db, int32 *channel_ids, int max,
						 int *at);
extern void mbus_tallies_forget(MbusDatabase *db);

#endif							/* MBUS_TALLY_H */
