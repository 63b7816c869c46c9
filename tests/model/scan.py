"""The scan of a claim: steps 1 to 5 of extension/delivery/README.md, each a step of the model.

    begin     1  under the delivery lock
    copy      2  under the state lock
    look      3  the snapshot; what it offers, in the order in which it is read
    consider  4  one offer after the other
    record    5  under the delivery lock

In an unordered subscription step 4 looks at nothing that is shared, so the model does it together with 3; in an
ordered one it looks up keys, one offer a step.
"""
from typing import NamedTuple

from bus import (
    HELD, LEASED, NEVER, NEXT, NOBODY, READY, RETRY, TAKEN, Entry, entries_free, entries_set, entry_done, entry_ready,
    facts, facts_now, key_of, lease_next, valid,
)
from checker import Fault


class Scan(NamedTuple):
    # 1
    generation: int
    now: int
    since: int
    start: int
    taken: tuple            # slots
    busy: frozenset         # ids
    retry: int              # position remembered; then the one reached
    due: tuple              # (time, id): what comes before it is settled
    check_below: int
    cursor: int
    skipped: frozenset      # what is left of them
    room: int               # messages that still fit the batch
    quota: int              # of them, redeliveries and delayed ones
    # 2
    limit: int = 0
    unfinished: frozenset = frozenset()
    # 3
    seen: tuple = ()        # the snapshot: published, acks, failures
    offers: tuple = None    # (where from, id, available_at or the failure)
    last: bool = False      # redeliveries are read last
    # 4
    cut: bool = False       # the quota was used up
    got: tuple = ()         # entries, with the slot they have already or None
    gone: tuple = ()        # slots: the key has no next message
    late: tuple = ()        # wrong: passed over, to be recorded in 5


def begin(scene, s, i, batch=None):
    """1: take what is ready, remember who is busy, advance the retry position."""
    batch = batch or scene.batch
    ready = sorted((e.id, k) for k, e in valid(s.entries)
                   if e.state == READY or e.state == RETRY and e.at <= s.now)
    taken = tuple(k for _, k in ready[:batch])
    busy = busy_ids(s)
    if "busy-without-taken" in scene.wrong:
        busy -= {s.entries[k].id for k in taken}
    entries = entries_set(s.entries, {k: s.entries[k]._replace(state=TAKEN, owner=i) for k in taken})
    scan = Scan(s.generation, s.now, s.mem_since, s.mem_start, taken, busy, s.retry_at, s.due_at, s.check_below,
                s.cursor, s.skipped, batch - len(taken), max(0, batch - scene.share - len(taken)))
    s = s._replace(entries=entries, scanner=i, reloaded=False)
    if scene.ordered or "retry-advanced-late" in scene.wrong:
        return s, scan
    return s._replace(retry_from=s.retry_at, retry_at=s.now), scan


def busy_ids(s):
    """The ids of all entries; that of a NEXT one is no message yet."""
    return frozenset(e.id for _, e in valid(s.entries) if e.state != NEXT)


def copy(scene, s, scan):
    """2, or in a wrong variant the snapshot."""
    if "snapshot-first" in scene.wrong:
        return scan._replace(seen=(s.published - s.hidden, s.acks, s.failures))
    return scan._replace(limit=len(s.messages) + 1, unfinished=s.unfinished)


def look(scene, s, scan, last=False):
    """3: the snapshot, and what is to be read."""
    if "snapshot-first" in scene.wrong:
        scan = scan._replace(limit=len(s.messages) + 1, unfinished=s.unfinished)
    else:
        scan = scan._replace(seen=(s.published - s.hidden, s.acks, s.failures))
    offers = [] if last else retry_offers(scene, scan)
    offers += [("next", slot, 0) for slot, e in valid(s.entries) if e.state == NEXT]
    offers += [] if last else due_offers(scene, s, scan)
    if "skipped-unread" not in scene.wrong:
        offers += [("skipped", n, s.messages[n - 1].at) for n in sorted(scan.skipped - scan.unfinished)]
    offers += [("fresh", n, s.messages[n - 1].at) for n in range(scan.cursor + 1, scan.limit)
               if n in scan.seen[0] and n not in scan.unfinished]
    offers.append(("fresh read", 0, 0))
    return scan._replace(offers=tuple(offers), last=last)


def retry_offers(scene, scan):
    """Failures by their time.  Those of an ordered subscription are in memory.

    One above the cursor, redriven after a seek, is left to the cursor.
    """
    if scene.ordered:
        return []
    offers = [("retry", f.id, f) for f in sorted(scan.seen[2], key=lambda f: (f.retry_at, f.id, f.lease))
              if f.lease >= scan.since and scan.retry <= f.retry_at <= scan.now
              and (f.id <= scan.cursor or f.id < scan.check_below or "retry-above-cursor" in scene.wrong)]
    return offers + [("retries read", 0, 0)]


def due_offers(scene, s, scan):
    """Delayed messages at or below the cursor, from the due position on."""
    offers = [("due", n, s.messages[n - 1].at) for n in sorted(scan.seen[0] - scan.skipped - scan.unfinished)
              if n <= scan.cursor and 0 < s.messages[n - 1].at <= scan.now
              and is_later(scene, scan, n, s.messages[n - 1].at)]
    return [("due begins", 0, 0)] + offers + [("due read", 0, 0)]


def is_later(scene, scan, n, at):
    """Whether a message is delayed and left to a due scan from the position on."""
    return (at > 0 or "undelayed-later" in scene.wrong) and (at, n) >= scan.due


def due_cut(scene, scan, n, at):
    """The due position when there was no room for one that is due, nor for those with higher ids."""
    if "due-behind-cut" in scene.wrong:
        return at, n + 1
    if "due-at-cut" in scene.wrong:
        return at, n
    return min([(at, n)] + [(later, other) for where, other, later in scan.offers if where == "due"])


def consider(scene, s, scan):
    """4: the next offer.  Returns the state, in which only "passed" may differ, and the scan."""
    (where, n, at), scan = scan.offers[0], scan._replace(offers=scan.offers[1:])
    if where in ("retries read", "due read"):
        # without room for all a retry position stays where it was, a due position where the first is that had none
        if not scan.cut or "cut-ignored" in scene.wrong:
            scan = scan._replace(retry=scan.now) if where == "retries read" else \
                scan._replace(due=(scan.now + 1, 0))
        return s, scan._replace(cut=False)
    if where == "due begins":
        # a batch that is full leaves the position where it is
        return s, scan if scan.room else scan._replace(offers=offers_after(scan.offers, "due read"))
    if where == "fresh read":
        if scan.room or "cursor-to-limit" in scene.wrong:
            scan = scan._replace(cursor=max(scan.cursor, scan.limit - 1))
        if scan.last:
            scan = scan._replace(offers=tuple(retry_offers(scene, scan) + due_offers(scene, s, scan)))
        return s, scan
    if scan.room == 0 or where in ("retry", "due") and scan.quota == 0:
        if where == "due" and not scan.cut:
            scan = scan._replace(due=due_cut(scene, scan, n, at))
        return s, scan._replace(cut=True)

    if where == "next":
        return s, consider_next(scene, s, scan, n)
    if where in ("skipped", "fresh"):
        if where == "skipped":
            scan = scan._replace(skipped=scan.skipped - {n})
            if n not in scan.seen[0]:
                return s, scan          # was rolled back
        else:
            scan = scan._replace(cursor=n)
        if is_later(scene, scan, n, at) and "delay-ignored" not in scene.wrong:
            return s, scan              # a later due scan finds it
    if where in ("retry", "due") or n < scan.check_below and "restart-unchecked" not in scene.wrong:
        return consider_candidate(scene, s, scan, n, at if where == "retry" else None)
    return take(scene, s, scan, Entry(n, HELD, 1), False)


def offers_after(offers, what):
    """What comes behind an offer of that kind."""
    return offers[[where for where, _, _ in offers].index(what) + 1:]


def consider_candidate(scene, s, scan, n, failure):
    """What may be outstanding or done: memory first, then the snapshot."""
    busy = busy_ids(s) if "memory-last" in scene.wrong else scan.busy
    told = told_of(scan, n)
    if n in busy or told.done or n < scan.start:
        return s, scan
    if failure:
        if told.last != failure:
            return s, scan              # a newer failure is found by its own time
    elif told.last and (not scene.ordered or "failed-left" in scene.wrong):
        return s, scan                  # its failure is found by its time
    entry = Entry(n, HELD, told.attempt, at=told.last.retry_at if told.last else 0)
    return take(scene, s, scan, entry, failure is not None or s.messages[n - 1].at > 0)


def told_of(scan, n):
    return facts(n, scan.seen[1], scan.seen[2], scan.since)


def take(scene, s, scan, entry, redelivery):
    """Take a message, unless its key is busy: then the key's entry is told that it was passed over."""
    key = key_of(scene, s, entry.id)
    if key:
        for slot, e in valid(s.entries):
            if e.key == key:
                if "passed-recorded-late" in scene.wrong:
                    return s, scan._replace(late=scan.late + ((slot, entry.id),))
                return s._replace(entries=entries_set(s.entries, {slot: passed_over(e, entry.id)})), scan
        for k, (slot, e) in enumerate(scan.got):
            if e.key == key:
                return s, scan._replace(got=scan.got[:k] + ((slot, passed_over(e, entry.id)),) + scan.got[k + 1:])
    return s, got(scan, None, entry._replace(key=key), redelivery)


def passed_over(entry, id):
    """The entry, told that the message was passed over for it."""
    return entry._replace(passed=min(entry.passed or id, id))


def got(scan, slot, entry, redelivery):
    """A message that failed and is not due yet gets its entry, but is not delivered (ordered only)."""
    if entry.at > scan.now:
        return scan._replace(got=scan.got + ((slot, entry._replace(state=RETRY)),))
    return scan._replace(got=scan.got + ((slot, entry._replace(at=0)),), room=scan.room - 1,
                         quota=max(0, scan.quota - redelivery))


def consider_next(scene, s, scan, slot):
    """A key whose message is done: look for its next one among those read before."""
    was = s.entries[slot]
    first, key = was.id, was.key
    for n in range(first, scan.cursor + 1):
        if (n not in scan.seen[0] or n in scan.unfinished or n in scan.skipped
                or is_later(scene, scan, n, s.messages[n - 1].at) or n < scan.start or key_of(scene, s, n) != key):
            continue
        told = told_of(scan, n)
        if told.done or told.last and "failed-left" in scene.wrong:
            continue
        at = told.last.retry_at if told.last else 0
        passed = 0 if "next-forgets" in scene.wrong else n + 1
        return got(scan, slot, Entry(n, HELD, told.attempt, at=at, passed=passed, key=key), True)
    return scan._replace(gone=scan.gone + (slot,))


def probe(scene, s):
    """A look whether a claim would find something, all at once: it lets go of keys that have no next message."""
    _, scan = begin(scene, s, NOBODY)
    scan = look(scene, s, copy(scene, s, scan))
    entries = s.entries
    for slot, e in valid(entries):
        if e.state != NEXT:
            continue
        after = consider_next(scene, s, scan, slot)
        waits = any(found.state == RETRY for _, found in after.got)
        if after.gone or waits and "probe-drops-waiting" in scene.wrong:
            entries = entry_done(scene, entries, slot)
    return s._replace(entries=entries)


def record(scene, s, i, scan):
    """5: (state, lease, slots), or a Fault.  Lease 0: nothing was got, or the scan is void."""
    if s.generation != scan.generation or s.reloaded and "reload-unnoticed" not in scene.wrong:
        return fail(s, scan), 0, ()
    s = s._replace(scanner=NOBODY, retry_from=NEVER)
    lease = lease_next(s)
    s, slots = record_entries(scene, s, i, scan, lease)
    fault = judge_delivery(scene, s, [s.entries[slot] for slot in slots])
    if fault:
        return fault, 0, ()
    s = record_positions(scene, s, scan)
    if not slots:
        return s, 0, ()
    if scene.order and not scene.ordered:
        s = s._replace(delivered=s.delivered | {s.entries[k].id for k in slots})
    return s._replace(lease_n=s.lease_n + 1), lease, slots


def record_entries(scene, s, i, scan, lease):
    """What the scan has taken and found; returns also the slots of what is claimed."""
    entries, slots = s.entries, []
    for slot in scan.taken:
        entries = entries_set(entries, {slot: entries[slot]._replace(state=HELD, lease=lease, at=0)})
        slots.append(slot)
    for slot in scan.gone:
        entries = entries_set(entries, {slot: None}) if "next-dropped" in scene.wrong else \
            entry_done(scene, entries, slot)
    for slot, e in scan.got:
        if slot is None:
            entries, (slot,) = entries_free(entries, 1)
        elif entries[slot].passed:
            e = passed_over(e, entries[slot].passed)
        if e.state == HELD:
            e = e._replace(lease=lease, owner=i)
            slots.append(slot)
        entries = entries_set(entries, {slot: e})
    for slot, n in scan.late:
        if entries[slot]:
            entries = entries_set(entries, {slot: passed_over(entries[slot], n)})
    return s._replace(entries=entries), tuple(slots)


def record_positions(scene, s, scan):
    """The cursor, what it has skipped, and the times reached."""
    skipped = scan.skipped
    if "unfinished-dropped" not in scene.wrong:
        skipped |= {n for n in scan.unfinished if s.cursor < n <= scan.cursor}
    retry_at = min(s.retry_at, scan.retry)
    if scene.wrong & {"retry-advanced-late", "retry-set-blindly"}:
        retry_at = scan.retry
    return s._replace(cursor=scan.cursor, skipped=skipped, retry_at=retry_at, due_at=scan.due)


def fail(s, scan):
    """The scan ends with an error before 5, or is void: what it took is put back."""
    entries = s.entries
    for slot in scan.taken:
        if s.generation != scan.generation:
            entries = entries_set(entries, {slot: None})
        else:
            entries = entry_ready(entries, slot)
    return s._replace(entries=entries, scanner=NOBODY, retry_from=NEVER, retry_at=min(s.retry_at, s.retry_from))


def judge_delivery(scene, s, claimed):
    """What must never happen when messages are given out."""
    for e in claimed:
        message = s.messages[e.id - 1]
        told = facts_now(s, e.id)
        others = [other for _, other in valid(s.entries) if other is not e]
        if e.id not in s.published or message.at > s.now:
            return Fault("early", f"{e.id} is given out")
        if told.done:
            return Fault("twice", f"{e.id} was acked")
        if any(other.id == e.id and other.state != NEXT for other in others):
            return Fault("twice", f"{e.id} is outstanding")
        if any(id == e.id for id, _ in s.out):
            return Fault("redelivered", f"{e.id} without a failure that has committed")
        redriven = told.attempt == 1 and told.last      # perhaps after the scan's snapshot
        if e.attempt > scene.max_attempts or e.attempt != told.attempt and not redriven:
            return Fault("attempts", f"{e.id} is given out as attempt {e.attempt}, not {told.attempt}")
        fault = judge_order(scene, s, e, claimed, others) if scene.order else None
        if fault:
            return fault
    return None


def judge_order(scene, s, e, claimed, others):
    """Of two messages, the later one's publish having begun after the other's had ended, the first comes first.

    Ordered, it must be done.  One that was redriven has lost its place.
    """
    message = s.messages[e.id - 1]
    for n in message.after:
        before = s.messages[n - 1]
        if before.key != message.key or before.at or message.at or n < s.start:
            continue
        if not scene.ordered:
            if n not in s.delivered and not any(other.id == n for other in claimed):
                return Fault("order", f"{e.id} is given out before {n}")
        elif e.key and not facts_now(s, n).done and not any(f.id == n and f.attempt == 0 for f in s.failures):
            return Fault("order", f"{e.id} is given out before {n} is done")
    if e.key and any(other.state in (HELD, LEASED) and other.key == e.key for other in others):
        return Fault("order", f"two of key {e.key} at a time")
    return None
