/*
 * ids.c
 *		Numbers of messages, segments and leases.
 */
#include "postgres.h"

#include "base/ids.h"

/*
 * mbus_int64_compare orders ids, for qsort and bsearch.
 */
int
mbus_int64_compare(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}
