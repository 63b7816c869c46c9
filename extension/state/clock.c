/*
 * clock.c
 *		The time that everything on the bus goes by: expiry, delays, retries,
 *		leases, and the worker's own intervals.
 *
 * The server's clock may be set back, or jump forward by mistake.  The bus's
 * time (mbus_now()) does neither: it is the system's monotonic clock plus an
 * offset in shared memory, and the offset only grows.
 *
 *	- the clock is a little ahead of the bus: the bus follows
 *	- it is ahead by more than message_bus.clock_jump: the bus goes on as
 *	  before, so that nothing expires and no delay ends too early, until
 *	  clock_accept() is called, or the clock has been so for an hour; then it
 *	  follows
 *	- it was set back: the bus goes on as before, ahead of the clock.  A delay
 *	  is as long as it was meant to be, counted from the later of the two
 *
 * The offset is one for the server and taken from the clock at its start: what
 * happens to the clock while the server is down is not seen.
 *
 * The parts are atomic: no lock is taken, nothing can fail.  The monotonic
 * clock is read after the other one, so that a process that is stopped between
 * the two finds the clock behind, never ahead.
 */
#include "postgres.h"

#include <time.h>

#include "port/atomics.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "state/clock.h"
#include "state/part.h"

#define ACCEPT_US	(INT64CONST(3600) * USECS_PER_SEC)

/* time that passes while the system sleeps counts, where it can be had */
#ifdef CLOCK_BOOTTIME
#define STEADY_CLOCK	CLOCK_BOOTTIME
#else
#define STEADY_CLOCK	CLOCK_MONOTONIC
#endif

typedef struct MbusClock
{
	pg_atomic_uint64 offset;	/* of the bus's time to the monotonic clock */
	pg_atomic_uint64 odd_since; /* on that: when the server's clock was first
								 * seen to be ahead; negative: behind; 0: it
								 * is right */
} MbusClock;

static MbusClock *shared_clock = NULL;

static Size clock_size(void);
static void clock_startup(void *memory, bool found, int tranche);
static int64 steady_now(void);
static int64 clock_ahead(int64 *steady, int64 *offset);
static void clock_raise(int64 offset);

/*
 * mbus_clock_init asks for shared memory; from _PG_init.
 */
void
mbus_clock_init(void)
{
	static const MbusStatePart part = {"message_bus clock", clock_size,
	clock_startup};

	mbus_state_part(&part);
}

static Size
clock_size(void)
{
	return sizeof(MbusClock);
}

static void
clock_startup(void *memory, bool found, int tranche)
{
	shared_clock = memory;
	if (found)
		return;
	pg_atomic_init_u64(&shared_clock->offset,
					   (uint64) (GetCurrentTimestamp() - steady_now()));
	pg_atomic_init_u64(&shared_clock->odd_since, 0);
}

static int64
steady_now(void)
{
	struct timespec now;

	(void) clock_gettime(STEADY_CLOCK, &now);
	return now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

/*
 * mbus_now returns the bus's time.  Without shared memory it is the clock's.
 */
TimestampTz
mbus_now(void)
{
	int64		steady;
	int64		offset;
	int64		ahead;

	if (shared_clock == NULL)
		return GetCurrentTimestamp();
	ahead = clock_ahead(&steady, &offset);
	if (ahead > 0 && ahead <= mbus_clock_jump * USECS_PER_SEC)
		clock_raise(offset);
	return steady + (int64) pg_atomic_read_u64(&shared_clock->offset);
}

/*
 * By how much the server's clock is ahead of the bus's, at *steady; *offset is
 * what the bus's would have with the clock.
 */
static int64
clock_ahead(int64 *steady, int64 *offset)
{
	TimestampTz wall = GetCurrentTimestamp();

	*steady = steady_now();
	*offset = wall - *steady;
	return *offset - (int64) pg_atomic_read_u64(&shared_clock->offset);
}

/* Raises the offset, unless somebody has raised it higher. */
static void
clock_raise(int64 offset)
{
	uint64		old = pg_atomic_read_u64(&shared_clock->offset);

	while ((int64) old < offset &&
		   !pg_atomic_compare_exchange_u64(&shared_clock->offset, &old,
										   (uint64) offset))
		 /* try again */ ;
}

/*
 * mbus_clock_look says in the log that the clock is off, or well again, and
 * follows it after an hour; for workers, in each pass.
 */
void
mbus_clock_look(void)
{
	int64		steady;
	int64		offset;
	int64		ahead = clock_ahead(&steady, &offset);
	uint64		since = pg_atomic_read_u64(&shared_clock->odd_since);
	int64		jump = mbus_clock_jump * USECS_PER_SEC;

	if (ahead >= -jump && ahead <= jump)
	{
		if (since != 0 &&
			pg_atomic_compare_exchange_u64(&shared_clock->odd_since, &since,
										   0))
			ereport(LOG,
					(errmsg("message_bus goes by the server's clock again")));
	}
	else if (since == 0 || ((int64) since > 0) != (ahead > 0))
	{
		/* of several workers one says so */
		if (pg_atomic_compare_exchange_u64(&shared_clock->odd_since, &since,
										   (uint64) (ahead > 0 ? steady : -steady)))
			ereport(LOG,
					(errmsg("the server's clock was set %s by " INT64_FORMAT " seconds",
							ahead > 0 ? "forward" : "back",
							(int64) (llabs(ahead) / USECS_PER_SEC)),
					 errdetail("The time of message_bus goes on as before."),
					 ahead > 0 ?
					 errhint("If the clock is right, call message_bus.clock_accept(); it is believed after an hour.") : 0));
	}
	else if (ahead > 0 && steady - (int64) since > ACCEPT_US)
		clock_raise(offset);
}

/*
 * mbus_clock_ahead returns by how much the server's clock is ahead of the bus's,
 * in microseconds; negative: behind.
 */
int64
mbus_clock_ahead(void)
{
	int64		steady;
	int64		offset;

	return shared_clock ? clock_ahead(&steady, &offset) : 0;
}

/*
 * mbus_clock_believe believes a clock that has jumped forward.
 */
void
mbus_clock_believe(void)
{
	int64		steady;
	int64		offset;

	if (shared_clock && clock_ahead(&steady, &offset) > 0)
		clock_raise(offset);
}
