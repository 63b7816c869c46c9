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
	return mbus_order(*(const int64 *) a, *(const int64 *) b);
}
