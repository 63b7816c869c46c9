/*
 * part.h
 *		Parts of shared memory that other files lay out.
 */
#ifndef MBUS_PART_H
#define MBUS_PART_H

#include "postgres.h"

typedef struct MbusPart
{
	const char *name;
	Size		(*size) (void);
	void		(*startup) (void *memory, bool found, int tranche);
} MbusPart;

extern void mbus_state_part(const MbusPart *part);

/* state.c only */
extern void mbus_parts_request(void);
extern void mbus_parts_start(int tranche);

#endif							/* MBUS_PART_H */
