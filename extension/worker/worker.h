/*
 * worker.h
 *		The background worker of a database.
 */
#ifndef MBUS_WORKER_H
#define MBUS_WORKER_H

#include "postgres.h"

extern PGDLLEXPORT void mbus_worker_main(Datum main_arg);

#endif							/* MBUS_WORKER_H */
