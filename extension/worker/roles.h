/*
 * roles.h
 *		The worker marks roles that were dropped as missing.
 */
#ifndef MBUS_ROLES_H
#define MBUS_ROLES_H

#include "worker/task.h"

extern void mbus_roles_init(void);
extern void mbus_roles_look(MbusWork *work);

#endif							/* MBUS_ROLES_H */
