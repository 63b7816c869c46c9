/*
 * outcome.h
 *		What has become of a message.
 */
#ifndef MBUS_OUTCOME_H
#define MBUS_OUTCOME_H

#include "postgres.h"

extern bool mbus_died(Oid schema, int32 subscription_id, int64 id,
					  int64 lease);

#endif							/* MBUS_OUTCOME_H */
