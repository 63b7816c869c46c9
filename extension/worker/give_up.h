/*
 * give_up.h
 *		Slots are given up for subscriptions that need one.
 */
#ifndef MBUS_GIVE_UP_H
#define MBUS_GIVE_UP_H

#include "worker/task.h"

extern void mbus_slots_give_up(MbusWork *work, int n);

#endif							/* MBUS_GIVE_UP_H */
