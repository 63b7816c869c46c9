/*
 * unit.c
 *		Runs the unit tests of the gateway's pure code and the extension's, as one TAP stream.
 */
#include "tap.h"

#include <stdio.h>

static int	count;
static int	failures;

int
main(void)
{
	frame_tests();
	answer_tests();
	batch_tests();
	pool_tests();
	access_tests();
	identity_tests();
	config_tests();
	door_tests();
	log_tests();
	queue_tests();
	head_tests();
	(void) printf("1..%d\n", count);
	return failures == 0 ? 0 : 1;
}

void
tap_ok(bool passed, const char *name, const char *file, int line)
{
	count++;
	(void) printf("%s %d - %s\n", passed ? "ok" : "not ok", count, name);
	if (!passed)
	{
		failures++;
		(void) printf("# at %s line %d\n", file, line);
	}
}
