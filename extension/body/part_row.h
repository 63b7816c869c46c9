/*
 * part_row.h
 *		What a row of a table of parts has.
 */
#ifndef MBUS_PART_ROW_H
#define MBUS_PART_ROW_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/sha256.h"

/* Columns of part_<n>. */
enum
{
	MBUS_PART_BODY = 1,
	MBUS_PART_N,
	MBUS_PART_SIZE,
	MBUS_PART_AT,
	MBUS_PART_ENCODING,
	MBUS_PART_SHA256,
	MBUS_PART_STATE,
	MBUS_PART_DATA,
	MBUS_PART_COLUMNS = MBUS_PART_DATA
};

/* What a row says of a part, without its bytes. */
typedef struct MbusPart
{
	int32		n;				/* from 0 */
	int32		size;			/* plain bytes */
	TimestampTz at;
	uint8		sha256[MBUS_SHA256_BYTES];	/* of the plain bytes */
	bool		has_state;
	uint8		state[MBUS_SHA256_BYTES];	/* see body/README.md */
} MbusPart;

#endif							/* MBUS_PART_ROW_H */
