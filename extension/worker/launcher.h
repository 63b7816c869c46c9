/*
 * launcher.h
 *		The launcher of workers.
 */
#ifndef MBUS_LAUNCHER_H
#define MBUS_LAUNCHER_H

#include "postgres.h"

extern void mbus_launcher_init(void);
extern PGDLLEXPORT void mbus_launcher_main(Datum main_arg);

#endif							/* MBUS_LAUNCHER_H */
