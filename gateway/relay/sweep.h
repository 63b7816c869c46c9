/*
 * sweep.h
 *		What has a time limit of a client. See sweep.c.
 */
#ifndef GW_SWEEP_H
#define GW_SWEEP_H

#include "base/config.h"

extern void gw_clients_sweep(const GwConfig *config);

#endif							/* GW_SWEEP_H */
