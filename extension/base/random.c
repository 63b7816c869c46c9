/*
 * random.c
 *		Bytes that nobody can guess.
 */
#include "postgres.h"

#include "base/random.h"

/*
 * mbus_random fills in random bytes of the server's strong source; an error if
 * there are none.
 */
void
mbus_random(void *bytes, Size len)
{
	if (!pg_strong_random(bytes, len))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random bytes")));
}
