/*
 * named.h
 *		What is published stays above the ids that rows name.
 */
#ifndef MBUS_NAMED_H
#define MBUS_NAMED_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_named_look(MbusWork *work);

#endif							/* MBUS_NAMED_H */
