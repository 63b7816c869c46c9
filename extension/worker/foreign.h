/*
 * foreign.h
 *		Segments that another bus has written.
 */
#ifndef MBUS_FOREIGN_H
#define MBUS_FOREIGN_H

#include "postgres.h"

#include "worker/task.h"

extern char *mbus_bus_mark(void);
extern bool mbus_foreign_judge(int32 segment);
extern bool mbus_foreign_detach(MbusWork *work, int32 segment);
extern bool mbus_foreign_attach(MbusWork *work, int32 segment);
extern void mbus_channels_above(int32 segment);
extern void mbus_foreign_begin(MbusWork *work);
extern bool mbus_foreign_again(MbusWork *work);
extern bool mbus_foreign_known(int32 segment, bool *again);

#endif							/* MBUS_FOREIGN_H */
