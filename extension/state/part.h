/*
 * part.h
 *		Parts of shared memory that other files lay out.
 */
#ifndef MBUS_STATE_PART_H
#define MBUS_STATE_PART_H

#include "postgres.h"

typedef struct MbusStatePart
{
	const char *name;
	Size		(*size) (void);
	void		(*startup) (void *memory, bool found, int tranche);
} MbusStatePart;

extern void mbus_state_part(const MbusStatePart *part);

/* state.c only */
extern void mbus_parts_request(void);
extern void mbus_parts_start(int tranche);

#endif							/* MBUS_STATE_PART_H */
