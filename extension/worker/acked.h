/*
 * acked.h
 *		Finds segments in which all is acknowledged.
 */
#ifndef MBUS_ACKED_H
#define MBUS_ACKED_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_segments_acked(MbusWork *work);

#endif							/* MBUS_ACKED_H */
