/*
 * filter.h
 *		Sets of channels of a fixed size.
 */
#ifndef MBUS_FILTER_H
#define MBUS_FILTER_H

#include "postgres.h"

#include "state/state_internal.h"

extern void mbus_filter_init(void);
extern void mbus_filter_add(const MbusBackend *backend, int32 channel_id,
							bool first);
extern bool mbus_filter_has(const MbusBackend *backend, int32 channel_id);

#endif							/* MBUS_FILTER_H */
