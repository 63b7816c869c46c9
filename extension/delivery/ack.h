/*
 * ack.h
 *		That claimed messages are done with.
 */
#ifndef MBUS_ACK_H
#define MBUS_ACK_H

#include "postgres.h"

#include "fmgr.h"

extern int	mbus_ack_lease(Oid schema, int64 lease, int nids,
						   const int64 *ids);
extern int	mbus_ids_argument(FunctionCallInfo fcinfo, int argno, int64 **ids);

#endif							/* MBUS_ACK_H */
