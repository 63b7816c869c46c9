/*
 * random.h
 *		Bytes that nobody can guess.
 */
#ifndef MBUS_RANDOM_H
#define MBUS_RANDOM_H

#include "postgres.h"

extern void mbus_random(void *bytes, Size len);

#endif							/* MBUS_RANDOM_H */
