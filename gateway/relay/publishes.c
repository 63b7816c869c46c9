/*
 * publishes.c
 *		Whether the bus takes publishes, as far as the gateway has seen.
 */
#include "relay/publishes.h"

#include <stdio.h>
#include <string.h>

#include "net/loop.h"

/* How long a publish that was refused says something of the next one. */
#define REFUSED_MS		10000

static int64_t refused_ms;		/* the last one, 0: none since one was taken */
static char refused_with[6];

/*
 * gw_note_publish notes whether the bus takes publishes, as far as one can tell
 * from what comes of them.
 */
void
gw_note_publish(GwDatabase *database, const GwRequest *request,
				const char *sqlstate, GwResult result)
{
	bool		publishes = strncmp(request->method, "publish", 7) == 0 ||
	strcmp(request->method, "store_message") == 0;

	if (!publishes)
		return;
	if (result == GW_COMMITTED)
	{
		refused_ms = 0;
		gw_database_took(database);
	}
	else if (sqlstate != NULL && sqlstate[0] != '\0' &&
			 strstr("53100 58030 55000 25006", sqlstate) != NULL)
	{
		refused_ms = gw_now_ms();
		gw_text_copy(refused_with, sizeof(refused_with), sqlstate);
	}
}

/*
 * gw_publishes_refused tells why the bus took no publish lately, and none
 * since; NULL if it does, or nothing is known.
 */
const char *
gw_publishes_refused(void)
{
	static char why[128];
	const char *what = "the bus is not ready to publish";

	if (refused_ms == 0 || gw_now_ms() - refused_ms > REFUSED_MS)
		return NULL;
	if (strcmp(refused_with, "53100") == 0)
		what = "the database's disk is full";
	else if (strcmp(refused_with, "58030") == 0)
		what = "the database cannot write its files";
	else if (strcmp(refused_with, "25006") == 0)
		what = "the database is read-only";
	(void) snprintf(why, sizeof(why), "publishes are refused: %s (%s)", what,
					refused_with);
	return why;
}
