/*
 * pool_test.c
 *		Who may have how many bytes of large bodies.
 */
#include "relay/pool.h"

#include "net/loop.h"
#include "tap.h"

#define PIECE	((size_t) 1024 * 1024)

/* What waits and, when told, takes a piece for it. */
typedef struct Taker
{
	GwPoolWaiter waiter;
	GwHold		hold;
	int			told;
}			Taker;

static int64_t now_ms = 100000;

int64_t
gw_now_ms(void)
{
	return now_ms;
}

static void
taker_room(void *owner)
{
	Taker	   *taker = owner;

	taker->told++;
	if (!gw_hold_raise(&taker->hold, taker->hold.bytes + PIECE))
		gw_pool_wait(GW_POOL_UP, &taker->waiter);
}

static void
taker_init(Taker * taker, GwPoolUse use)
{
	const		Taker empty = {.waiter = {.fire = taker_room,.owner = taker,
	.needs = PIECE}};

	*taker = empty;
	gw_hold_init(&taker->hold, use);
}

/* fill raises holds of a piece, and returns how many there was room for. */
static int
fill(GwHold *holds, GwPoolUse use)
{
	int			count;

	for (count = 0; count < 100; count++)
	{
		gw_hold_init(&holds[count], use);
		if (!gw_hold_raise(&holds[count], PIECE))
			break;
	}
	return count;
}

static void
release(GwHold *holds, int count)
{
	while (count > 0)
		gw_hold_release(&holds[--count]);
}

static void
share_tests(void)
{
	GwHold		up[100];
	GwHold		down[100];
	int			ups = fill(up, GW_POOL_UP);
	int			downs = fill(down, GW_POOL_DOWN);

	ok(ups == 30 && downs == 12, "appends leave room for what is read");
	release(up, ups);
	downs += fill(down + downs, GW_POOL_DOWN);
	ups = fill(up, GW_POOL_UP);
	ok(ups == 6 && downs == 36, "what is read leaves room for appends");
	release(up, ups);
	release(down, downs);
	ok(gw_pool_taken[GW_POOL_UP] == 0 && gw_pool_taken[GW_POOL_DOWN] == 0,
	   "all of it is given back");
	gw_hold_init(&down[0], GW_POOL_DOWN);
	gw_hold_init(&down[1], GW_POOL_DOWN);
	ok(gw_hold_raise(&down[0], 50 * PIECE) &&
	   !gw_hold_raise(&down[1], PIECE), "a piece that is too large goes alone");
	gw_hold_release(&down[0]);
}

/* Appends that all have begun and of which none can end. */
static void
last_tests(void)
{
	GwHold		up[100];
	int			count = fill(up, GW_POOL_UP);

	ok(gw_hold_raise(&up[1], 5 * PIECE), "one that has begun goes on");
	ok(!gw_hold_raise(&up[2], 2 * PIECE) &&
	   !gw_hold_raise(&up[count], PIECE), "no other does");
	ok(gw_hold_raise(&up[1], 6 * PIECE), "it goes on to its end");
	gw_hold_release(&up[1]);
	ok(gw_hold_raise(&up[2], 2 * PIECE), "then there is room for another");
	release(up, count);
}

static void
wait_tests(void)
{
	GwHold		up[100];
	int			count = fill(up, GW_POOL_UP);
	Taker		first;
	Taker		second;

	taker_init(&first, GW_POOL_UP);
	taker_init(&second, GW_POOL_UP);
	gw_hold_set(&first.hold, 1);
	gw_hold_set(&second.hold, 1);
	(void) gw_hold_raise(&up[0], 2 * PIECE);
	gw_pool_wait(GW_POOL_UP, &first.waiter);
	gw_pool_wait(GW_POOL_UP, &second.waiter);
	gw_pool_turn();
	ok(first.told == 0 && gw_pool_is_short(GW_POOL_UP),
	   "nobody is told while there is no room");
	gw_hold_release(&up[0]);
	gw_hold_release(&up[1]);
	ok(!gw_hold_raise(&up[count], PIECE), "who waits comes before others");
	gw_pool_turn();
	ok(first.told == 1 && first.hold.bytes == 1 + PIECE &&
	   second.told == 1 && second.hold.last,
	   "who waits is told, and one may be the last");
	gw_pool_wait(GW_POOL_UP, &first.waiter);
	gw_pool_leave(GW_POOL_UP, &first.waiter);
	gw_hold_release(&up[2]);
	gw_pool_turn();
	ok(first.told == 1, "who has left is not told");
	now_ms += 10000;
	ok(!gw_pool_is_short(GW_POOL_UP), "and room is not short any more");
	gw_hold_release(&first.hold);
	gw_hold_release(&second.hold);
	release(up, count);
}

/* One that needs much, and others behind it that need less. */
static void
pass_tests(void)
{
	GwHold		down[100];
	int			count = fill(down, GW_POOL_DOWN);
	Taker		much;
	Taker		little;

	taker_init(&much, GW_POOL_DOWN);
	taker_init(&little, GW_POOL_DOWN);
	much.waiter.needs = 10 * PIECE;
	gw_pool_wait(GW_POOL_DOWN, &much.waiter);
	gw_pool_wait(GW_POOL_DOWN, &little.waiter);
	release(down + count - 2, 2);
	gw_pool_turn();
	ok(much.told == 0 && little.told == 1,
	   "who needs little passes who needs much");
	now_ms += 2000;
	gw_pool_wait(GW_POOL_DOWN, &little.waiter);
	gw_pool_turn();
	ok(little.told == 1, "but not all the time");
	now_ms += 2000;
	gw_pool_turn();
	ok(much.told == 0 && little.told == 2, "then again");
	now_ms += 2000;
	gw_pool_wait(GW_POOL_DOWN, &little.waiter);
	release(down, count - 2);
	gw_pool_turn();
	ok(much.told == 1, "and it gets what is given back");
	gw_pool_leave(GW_POOL_DOWN, &little.waiter);
	gw_hold_release(&much.hold);
	gw_hold_release(&little.hold);
}

void
pool_tests(void)
{
	static GwConfig config = {.bulk_mb = 48};

	gw_pool_init(&config);
	share_tests();
	last_tests();
	wait_tests();
	pass_tests();
}
