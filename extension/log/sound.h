/*
 * sound.h
 *		Whether a row can be taken apart.
 */
#ifndef MBUS_SOUND_H
#define MBUS_SOUND_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/array.h"

extern bool mbus_sound_error(int sqlerrcode);
extern bool mbus_sound(HeapTuple tuple, TupleDesc desc);
extern bool mbus_sound_row(int kind, HeapTuple tuple, TupleDesc desc);
extern ArrayType *mbus_sound_array(Datum value, Oid type);

#endif							/* MBUS_SOUND_H */
