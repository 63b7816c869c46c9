/*
 * fill.h
 *		What a restore writes into tables that are in use.
 */
#ifndef MBUS_FILL_H
#define MBUS_FILL_H

#include "postgres.h"

extern void mbus_fill_init(void);

#endif							/* MBUS_FILL_H */
