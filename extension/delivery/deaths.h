/*
 * deaths.h
 *		The list of deaths that headers keep.
 */
#ifndef MBUS_DEATHS_H
#define MBUS_DEATHS_H

#include "postgres.h"

#include "utils/jsonb.h"

/* of a dead letter: an object with its last death, and "deaths", the list */
#define MBUS_DEAD_LETTER_HEADER	"dead_letter"
/* of a copy that was redriven: the list */
#define MBUS_DEATHS_HEADER		"dead_letter_deaths"

/* Deaths, the oldest first; the values point into what they were read from. */
typedef struct MbusDeaths
{
	int			n;
	int			room;
	JsonbValue *death;
} MbusDeaths;

extern void mbus_deaths_read(MbusDeaths *deaths,
							 const struct varlena *headers);
extern void mbus_deaths_add(MbusDeaths *deaths, Jsonb *death);
extern void mbus_deaths_push(const MbusDeaths *deaths,
							 JsonbParseState **state);
extern Datum mbus_headers_without(const struct varlena *headers);

#endif							/* MBUS_DEATHS_H */
