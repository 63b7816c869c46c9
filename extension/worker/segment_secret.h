/*
 * segment_secret.h
 *		The secret of a segment.
 */
#ifndef MBUS_SEGMENT_SECRET_H
#define MBUS_SEGMENT_SECRET_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_secret_create(MbusWork *work, int32 segment);
extern Oid	mbus_secret_table(MbusWork *work, int32 segment);
extern bool mbus_secret_filled(MbusWork *work, int32 segment);
extern void mbus_secret_settle(MbusWork *work, int32 segment);

#endif							/* MBUS_SEGMENT_SECRET_H */
