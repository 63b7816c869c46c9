/*
 * leaf_keep.h
 *		How many tables of segments the server's own cache keeps open.
 */
#ifndef MBUS_LEAF_KEEP_H
#define MBUS_LEAF_KEEP_H

#include "postgres.h"

#include "utils/relcache.h"

extern void mbus_leaf_keep(Relation leaf);

#endif							/* MBUS_LEAF_KEEP_H */
