/*
 * expiry.h
 *		Leases that have ended.
 */
#ifndef MBUS_EXPIRY_H
#define MBUS_EXPIRY_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "worker/task.h"

extern void mbus_deliveries_serve(MbusWork *work);
extern TimestampTz mbus_deliveries_wake(MbusWork *work, TimestampTz wake);

#endif							/* MBUS_EXPIRY_H */
