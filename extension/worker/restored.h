/*
 * restored.h
 *		One segment that a restore has brought.
 */
#ifndef MBUS_RESTORED_H
#define MBUS_RESTORED_H

#include "postgres.h"

#include "worker/task.h"

/* The highest numbers that are named in what is settled. */
typedef struct MbusRestoredNames
{
	int64		lease;
	int64		fact;
	int64		segment;
} MbusRestoredNames;

extern bool mbus_restored_begun(MbusWork *work, int32 segment);
extern bool mbus_restored_filled(MbusWork *work, int32 segment);
extern bool mbus_restored_unchanged(MbusWork *work);
extern void mbus_restored_names(MbusWork *work, int32 segment,
								MbusRestoredNames *named);
extern void mbus_restored_settle(MbusWork *work, int32 segment);

#endif							/* MBUS_RESTORED_H */
