/*
 * store_held.h
 *		Whether a body of a store may still be wanted.
 */
#ifndef MBUS_STORE_HELD_H
#define MBUS_STORE_HELD_H

#include "worker/task.h"

extern bool mbus_store_held(MbusWork *work, int32 store_no);
extern int	mbus_store_holders(MbusWork *work, int32 store_no, int64 **ids);
extern bool mbus_store_uploading(MbusWork *work, int32 store_no);

#endif							/* MBUS_STORE_HELD_H */
