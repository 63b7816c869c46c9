/*
 * reads.h
 *		Reads that others have left in shared memory.
 */
#ifndef MBUS_READS_H
#define MBUS_READS_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_reads_store(MbusWork *work);
extern void mbus_reads_store_at_exit(MbusWork *work);

#endif							/* MBUS_READS_H */
