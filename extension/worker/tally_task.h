/*
 * tally_task.h
 *		The worker gives back places of channels that are gone.
 */
#ifndef MBUS_TALLY_TASK_H
#define MBUS_TALLY_TASK_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_tallies_look(MbusWork *work);

#endif							/* MBUS_TALLY_TASK_H */
