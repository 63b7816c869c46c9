/*
 * clock.c
 *		Another clock for a server under test; loaded with LD_PRELOAD.
 *
 * MBUS_CLOCK names a file of two numbers, int64 in microseconds, that every
 * process maps: what is added to the time of day, and to CLOCK_BOOTTIME.  The
 * test changes them while the server runs.  CLOCK_MONOTONIC and all timeouts
 * stay as they are.  MBUS_CLOCK_SLOW makes both clocks that many times slower
 * than they are, counted from 2026.
 *
 * libfaketime would do for backends.  But a server before 16 forks background
 * workers in a signal handler, while its select() waits, and in a process that
 * is forked out of a function of its own libfaketime leaves the clock alone
 * for ever.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SLOW_FROM	1767225600	/* 2026-01-01 00:00 UTC */

static volatile const int64_t *offsets = NULL;
static int	slow = 1;

__attribute__((constructor)) static void
clock_map(void)
{
	const char *file = getenv("MBUS_CLOCK");
	const char *times = getenv("MBUS_CLOCK_SLOW");
	int			fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
	void	   *memory;

	if (fd < 0)
		return;
	memory = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (memory == MAP_FAILED)
		abort();
	slow = times ? atoi(times) : 1;
	offsets = memory;
}

/* Moves a time by a number of microseconds, and slows it down from "from". */
static void
time_change(struct timespec *time, int64_t from, int64_t add)
{
	int64_t		ns = (time->tv_sec - from) * INT64_C(1000000000);

	ns = (ns + time->tv_nsec) / slow + add * 1000;
	time->tv_sec = from + ns / INT64_C(1000000000);
	time->tv_nsec = ns % INT64_C(1000000000);
	if (time->tv_nsec < 0)
	{
		time->tv_sec--;
		time->tv_nsec += INT64_C(1000000000);
	}
}

int
clock_gettime(clockid_t clock, struct timespec *time)
{
	int			result = (int) syscall(SYS_clock_gettime, clock, time);

	if (result == 0 && offsets && clock == CLOCK_REALTIME)
		time_change(time, SLOW_FROM, offsets[0]);
	else if (result == 0 && offsets && clock == CLOCK_BOOTTIME)
		time_change(time, 0, offsets[1]);
	return result;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec now;
	int			result = clock_gettime(CLOCK_REALTIME, &now);

	(void) tz;
	tv->tv_sec = now.tv_sec;
	tv->tv_usec = now.tv_nsec / 1000;
	return result;
}

time_t
time(time_t *result)
{
	struct timespec now = {0};

	(void) clock_gettime(CLOCK_REALTIME, &now);
	if (result)
		*result = now.tv_sec;
	return now.tv_sec;
}
