/*
 * ack.h
 *		That claimed messages are done with.
 */
#ifndef MBUS_ACK_H
#define MBUS_ACK_H

#include "postgres.h"

extern int	mbus_ack_lease(Oid schema, int64 lease, int nids,
						   const int64 *ids);

#endif							/* MBUS_ACK_H */
