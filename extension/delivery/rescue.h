/*
 * rescue.h
 *		Messages that become dead letters before they expire.
 */
#ifndef MBUS_RESCUE_H
#define MBUS_RESCUE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "state/state.h"

typedef enum MbusRescued
{
	MBUS_RESCUE_DONE,			/* there was no more */
	MBUS_RESCUE_MORE,
	MBUS_RESCUE_LATER			/* a scan, a seek or the worker is in the way */
} MbusRescued;

extern MbusRescued mbus_rescue(Oid schema, MbusDatabase *db,
							   int32 subscription_id, TimestampTz until,
							   int *moved);

#endif							/* MBUS_RESCUE_H */
