"""Checkpoint, crash and load."""
from bus import HELD, LEASED, NEVER, NOBODY, READY, TAKEN, Ack, Checkpoint, Entry, Failure, facts_now, valid
from checker import Fault


def checkpoint_copy(scene, s):
    """What the worker copies, all of it at one time under the delivery lock.

    Of an ordered subscription: a cursor below all that is outstanding, and leases.
    """
    entries, cursor = [], s.cursor
    for _, e in valid(s.entries):
        leased = e.state == LEASED or e.state == HELD and "held-is-leased" in scene.wrong
        if scene.ordered:
            passed = 0 if "cursor-above-passed" in scene.wrong else e.passed
            cursor = min(cursor, e.id - 1, passed - 1 if passed else cursor)
        if e.state == TAKEN and "checkpoint-without-taken" in scene.wrong:
            continue
        if leased or not scene.ordered:
            entries.append((e.id, e.attempt, e.lease if leased else 0))
    if scene.ordered and "cursor-above-waiting" not in scene.wrong:
        cursor = min(cursor, s.wait_low, s.wait_passed - 1)
    skipped = s.skipped
    if scene.ordered and "skipped-kept" not in scene.wrong:
        skipped = frozenset(n for n in skipped if n <= cursor)
    if scene.ordered and "cursor-not-lowered" in scene.wrong:
        cursor = s.cursor
    return Checkpoint(s.mem_since, cursor, s.due_at[0], retry_position(scene, s), tuple(sorted(entries)), skipped)


def retry_position(scene, s):
    """The lowest of three: a scan at work has moved it, and open redrives insert times from before it."""
    positions = {s.retry[0]}
    if "checkpoint-mid-scan" not in scene.wrong:
        positions.add(s.retry_from[0])
    if "redrive-without-floor" not in scene.wrong:
        positions.add(s.redrive_at)
    return min(positions)


def checkpoint_write(scene, s, copied):
    """Its commit."""
    if "checkpoint-torn" in scene.wrong:
        now = checkpoint_copy(scene, s)
        copied = now._replace(entries=copied.entries)
    if "since-from-row" in scene.wrong:
        copied = copied._replace(since=s.since)
    return s._replace(checkpoint=copied._replace(at=s.now))


def crash(scene, s):
    """Memory is gone; actors are dealt with by the caller."""
    saved = saved_of(s)
    leased = {(id, lease) for id, _, lease in saved.entries if lease}
    return s._replace(
        epoch=s.epoch if "same-epoch" in scene.wrong else s.epoch + 1, lease_n=1, loaded=False,
        unfinished=frozenset(), grown=frozenset(), told=0, cursor=0, skipped=frozenset(), retry=(0, 0), retry_in=None,
        retry_from=(NEVER, 0), redrive_at=NEVER, redriven=(0, 0), waits=frozenset(), wait_low=NEVER,
        wait_in=frozenset(), wait_passed=NEVER, nacked=False, reloaded=False, due_at=(0, 0), due_in=frozenset(), next_due=0, check_below=len(s.messages) + 1,
        entries=(), mem_since=0, mem_start=0, generation=0, scanner=NOBODY, crashes=s.crashes - 1, out=s.out & leased)


def saved_of(s):
    """The checkpoint, if it is of this subscription as it is now."""
    if s.checkpoint and s.checkpoint.since == s.since:
        return s.checkpoint
    return Checkpoint(s.since, s.start - 1 if s.start else 0, 0, 0, (), frozenset())


def load_rows(scene, s):
    """The failures of kind crash: leases of the checkpoint that nothing has ended."""
    rows = []
    saved = saved_of(s)
    for id, attempt, lease in saved.entries:
        if not lease or id in s.retired or "crash-uncounted" in scene.wrong:
            continue
        if ended(scene, facts_now(s, id), attempt, lease, saved.at):
            continue
        if attempt >= scene.max_attempts:
            rows += [Failure(id, lease, attempt, NEVER), Ack(id, lease, "dead")]
        else:
            rows.append(Failure(id, lease, attempt, s.now))
    return tuple(rows)


def ended(scene, told, attempt, lease, at):
    """Whether the tables know the end of a delivery."""
    if "crash-by-attempt" in scene.wrong:
        return told.done or told.last and (told.attempt != attempt or told.last.retry_at >= at)
    return told.done or told.last and told.last.lease >= lease


def load_commit(s, rows):
    """A state or a Fault: a claim that never committed must not count."""
    for row in rows:
        if (row.id, row.lease) not in s.out:
            return Fault("attempts", f"lease {row.lease} of {row.id} never was, and counts as one")
    return s._replace(acks=s.acks | {r for r in rows if type(r) is Ack},
                      failures=s.failures | {r for r in rows if type(r) is Failure},
                      out=s.out - {(r.id, r.lease) for r in rows} - redriven_since(s))


def redriven_since(s):
    """Deliveries of before a redrive, which is a new start: a crash cuts them off without counting them."""
    return {(id, lease) for id, lease in s.out
            if any(f.id == id and f.attempt == 0 and f.lease > lease for f in s.failures)}


def load(scene, s):
    """The subscription is in memory again.

    Of an ordered one any key may wait for a retry, if something does.
    """
    saved = saved_of(s)
    retry_at, entries = min(saved.retry_at, s.now), []
    for id, attempt, lease in saved.entries:
        told = facts_now(s, id)
        if told.done or id < s.start:
            continue
        if told.last:
            if "load-without-pull" not in scene.wrong:
                retry_at = min(retry_at, told.last.retry_at)
        elif not scene.ordered and (not lease or "crash-uncounted" in scene.wrong):
            entries.append(Entry(id, READY, attempt))
    cursor = saved.cursor
    if scene.ordered:
        waiting = [f.id for f in s.failures if retry_at <= f.retry_at < NEVER and not facts_now(s, f.id).done]
        if waiting and "load-clears-waits" not in scene.wrong:
            s = s._replace(waits=frozenset(m.key for m in s.messages if m.key),
                           wait_low=min(waiting + [cursor + 1]), wait_in=frozenset(waiting))
    skipped = saved.skipped
    if scene.ordered and "skipped-kept" not in scene.wrong:
        skipped = frozenset(n for n in skipped if n <= cursor)
    retry_in = frozenset(f.id for f in s.failures if f.lease >= s.since and retry_at <= f.retry_at < NEVER)
    due_at = min(saved.due_at, s.now)
    due_in = frozenset(n for n in s.published - s.hidden if n <= cursor and s.messages[n - 1].at >= max(due_at, 1))
    if "load-without-retries" in scene.wrong:
        retry_in = frozenset()
    if "load-without-delayed" in scene.wrong:
        due_in = frozenset()
    return s._replace(loaded=True, cursor=cursor, skipped=skipped, retry=(retry_at, 0), retry_in=retry_in,
                      due_at=(due_at, 0), due_in=due_in, next_due=0,
                      entries=tuple(entries), mem_since=s.since, mem_start=s.start)
