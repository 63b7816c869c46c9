/*
 * checkpoint.h
 *		Where subscriptions are, written down.
 */
#ifndef MBUS_CHECKPOINT_H
#define MBUS_CHECKPOINT_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "worker/task.h"

/* What is outstanding in a segment or a whole subscription. */
typedef struct MbusPending
{
	int64		id;
	int64		lease;			/* 0: not claimed, or not committed */
	int16		attempt;
} MbusPending;

/* A subscription's part of shared memory, copied in one step. */
typedef struct MbusPosition
{
	int32		subscription_id;
	TimestampTz created_at;		/* a restored one may have its number */
	bool		ordered;
	int64		since_lease;
	int64		cursor;
	int64		passed;			/* lowest id an entry has let wait; INT64_MAX */
	bool		waits;			/* something with a key may */
	int64		wait_low;		/* then: to be read again from behind here on */
	TimestampTz due_at;
	TimestampTz retry_at;
	int			npending;		/* by ascending id */
	int			maxpending;
	MbusPending *pending;
	int			nskips;			/* of pairs [lo, hi) */
	int			maxskips;
	int64	   *skips;
} MbusPosition;

/* A slot, and whose it was when it was listed. */
typedef struct MbusSlotOf
{
	uint32		slot;
	int32		subscription_id;
} MbusSlotOf;

extern void mbus_checkpoints_write(MbusWork *work);
extern void mbus_checkpoints_write_of(MbusWork *work, MbusSlotOf *of, int n);
extern int	mbus_pending_compare(const void *a, const void *b);
extern bool mbus_position_copy(MbusWork *work, uint32 slot,
							   int32 subscription_id,
							   MbusPosition *position);

#endif							/* MBUS_CHECKPOINT_H */
