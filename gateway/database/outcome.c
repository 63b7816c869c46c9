/*
 * outcome.c
 *		The rows that relay returns: frames, and what they are about.
 *
 * Nothing of a row is believed that would be read beyond its end.
 */
#include "database/outcome.h"

#include <libpq-fe.h>

#include <endian.h>
#include <string.h>

/* Type OIDs of PostgreSQL's catalog, fixed for good. */
#define INT8_OID		20
#define BYTEA_OID		17
#define INT4_OID		23
#define TEXT_OID		25
#define INT8_ARRAY_OID	1016

#define ARRAY_HEAD		20
#define ARRAY_ELEMENT	12

/* The columns. */
enum
{
	SESSION,
	FRAME,
	REQUEST,
	CODE,
	SQLSTATE,
	LEASES,
	COLUMNS
};

static uint64_t get_int64(const char *from);
static uint32_t get_int32(const char *from);

/* gw_outcome_fits tells whether a result has relay's columns, in binary. */
bool
gw_outcome_fits(const void *of)
{
	const PGresult *result = of;
	static const Oid types[COLUMNS] = {INT8_OID, BYTEA_OID, INT4_OID, INT4_OID,
	TEXT_OID, INT8_ARRAY_OID};
	int			i;

	if (PQnfields(result) != COLUMNS)
		return false;
	for (i = 0; i < COLUMNS; i++)
		if (PQftype(result, i) != types[i] || PQfformat(result, i) != 1)
			return false;
	return true;
}

/*
 * gw_outcome_row reads one row of a committed batch; false if it is not one
 * that can be.
 */
bool
gw_outcome_row(const GwOutcome *outcome, size_t row, GwRow *to)
{
	const PGresult *result = outcome->result;
	int			at = (int) row;

	if (PQgetlength(result, at, SESSION) != 8 ||
		PQgetlength(result, at, FRAME) < 1 ||
		PQgetlength(result, at, REQUEST) != 4)
		return false;
	memset(to, 0, sizeof(*to));
	to->session = (int64_t) get_int64(PQgetvalue(result, at, SESSION));
	to->frame.data = (const unsigned char *) PQgetvalue(result, at, FRAME);
	to->frame.length = (size_t) PQgetlength(result, at, FRAME);
	to->request = get_int32(PQgetvalue(result, at, REQUEST));
	to->answers = PQgetlength(result, at, CODE) == 4;
	if (to->answers)
		to->code = (int) get_int32(PQgetvalue(result, at, CODE));
	to->sqlstate = PQgetvalue(result, at, SQLSTATE);
	to->leases.data = (const unsigned char *) PQgetvalue(result, at, LEASES);
	to->leases.length = (size_t) PQgetlength(result, at, LEASES);
	return to->frame.data[0] <= GW_OPCODE_BINARY;
}

/*
 * gw_row_leases appends the leases that a frame tells, each as a control
 * frame has it: 8 bytes, and 8 of zero, for those that were not written.
 */
void
gw_row_leases(const GwRow *row, GwBuffer *leases)
{
	static const unsigned char unwritten[8];
	size_t		at;

	for (at = ARRAY_HEAD; at + ARRAY_ELEMENT <= row->leases.length;
		 at += ARRAY_ELEMENT)
	{
		gw_buffer_append(leases, row->leases.data + at + 4, 8);
		gw_buffer_append(leases, unwritten, sizeof(unwritten));
	}
}

static uint64_t
get_int64(const char *from)
{
	uint64_t	number;

	memcpy(&number, from, sizeof(number));
	return be64toh(number);
}

static uint32_t
get_int32(const char *from)
{
	uint32_t	number;

	memcpy(&number, from, sizeof(number));
	return be32toh(number);
}
