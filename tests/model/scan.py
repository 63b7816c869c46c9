"""The scan of a claim: steps 1 to 5 of extension/delivery/README.md, each a step of the model.

    begin     1  under the delivery lock
    copy      2  under the state lock
    look      3  the snapshot; what it offers, in the order in which it is read
    ask       4  which candidates are busy, under the delivery lock
    consider     then, with a newer snapshot of the facts, one offer after the other
    record    5  under the delivery lock

In an unordered subscription all offers are asked for at once; in an ordered one, which looks up keys, one at a time.
"""
from typing import NamedTuple

from bus import (
    HELD, LEASED, NEVER, NEXT, NOBODY, READY, TAKEN, Entry, entries_free, entries_set, entry_done, entry_ready, facts,
    facts_now, key_of, lease_next, registered, valid,
)
from checker import Fault


class Scan(NamedTuple):
    # 1
    generation: int
    now: int
    since: int
    start: int
    taken: tuple            # slots
    retry: tuple            # position reached
    from_retry: tuple       # and the one remembered
    due: tuple              # (time, id): what comes before it is settled
    check_below: int
    begun: int              # the cursor that it began with
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
    wait_in: frozenset = frozenset()        # where keys waited when it began
    retry_in: frozenset = None              # where the failures behind the position remembered were
    back: frozenset = None                  # what is put back if it fails
    keep: frozenset = None                  # and where those behind the position reached are
    due_in: frozenset = None                # where delayed ones that were passed are; None: anywhere
    next_due: int = 0
    later: bool = True      # something is to be retried later, or could not be read
    # 4
    busy: frozenset = None  # ids; None: not asked
    told: tuple = None      # the newer snapshot: acks, failures
    cut: bool = False       # the quota was used up
    more: bool = False      # and so something was left that is due
    got: tuple = ()         # entries, with the slot they have already or None
    gone: tuple = ()        # slots: the key has no next message
    late: tuple = ()        # wrong: passed over, to be recorded in 5


def begin(scene, s, i, batch=None):
    """1: take what is ready, advance the retry position."""
    batch = batch or scene.batch
    ready = sorted((e.id, k) for k, e in valid(s.entries)
                   if e.state == READY)
    taken = tuple(k for _, k in ready[:batch])
    entries = entries_set(s.entries, {k: s.entries[k]._replace(state=TAKEN, owner=i) for k in taken})
    scan = Scan(s.generation, s.now, s.mem_since, s.mem_start, taken, s.retry, s.retry, s.due_at, s.check_below,
                s.cursor, s.cursor, s.skipped, batch - len(taken), max(0, batch - scene.share - len(taken)))
    scan = scan._replace(wait_in=s.wait_in, retry_in=s.retry_in, keep=s.retry_in, due_in=s.due_in, next_due=s.next_due,
                         back=frozenset() if "segments-not-put-back" in scene.wrong else s.retry_in)
    s = s._replace(entries=entries, scanner=i, nacked=False, reloaded=False)
    if "retry-advanced-late" in scene.wrong:
        return s, scan
    return s._replace(retry_from=s.retry, retry=(s.now, 0), retry_in=frozenset()), scan


def joined(a, b):
    """Two sets of segments as one."""
    return None if a is None or b is None else a | b


def busy_ids(scene, s):
    """The ids of all entries; that of a NEXT one is no message yet."""
    return frozenset(e.id for _, e in valid(s.entries)
                     if e.state != NEXT and not (e.state == TAKEN and "busy-without-taken" in scene.wrong))


def ask(scene, s, scan):
    """4, before an offer: who is busy; what the tables say is looked at after that."""
    if "facts-first" in scene.wrong:
        return scan._replace(busy=frozenset(), told=(s.acks, s.failures))
    return scan._replace(busy=busy_ids(scene, s), told=scan.seen[1:] if "facts-of-old" in scene.wrong else None)


def tell(scene, s, scan):
    """The newer snapshot."""
    if "facts-first" in scene.wrong:
        return scan._replace(busy=busy_ids(scene, s))
    return scan if scan.told else scan._replace(told=(s.acks, s.failures))


def to_ask(scan, offers):
    """Whether one of the offers is a candidate, and nobody has asked yet whether it is busy."""
    return scan.busy is None and any(where in ("retry", "due", "next") or 0 < n < scan.check_below
                                     for where, n, _ in offers)


def copy(scene, s, scan):
    """2, or in a wrong variant the snapshot."""
    if "snapshot-first" in scene.wrong:
        return scan._replace(seen=(s.published - s.hidden, s.acks, s.failures))
    return scan._replace(limit=limit(scene, s), unfinished=registered(s))


def limit(scene, s):
    """The first id not given out; in order by key, no range that others' ids lie in is passed."""
    walls = [lo for _, lo, _ in s.grown] if scene.ordered and "grown-passed" not in scene.wrong else []
    return min(walls + [len(s.messages) + 1])


def look(scene, s, scan, last=False):
    """3: the snapshot, and what is to be read."""
    if "snapshot-first" in scene.wrong:
        scan = scan._replace(limit=limit(scene, s), unfinished=registered(s))
    else:
        scan = scan._replace(seen=(s.published - s.hidden, s.acks, s.failures))
    offers = [] if last else retry_offers(scene, scan)
    offers += [("next", slot, 0) for slot, e in valid(s.entries) if e.state == NEXT]
    offers += [] if last else due_offers(scene, s, scan)
    if "skipped-unread" not in scene.wrong:
        # [n - 1:n]: nothing is there of an id that was given back in spite of having been told
        offers += [("skipped", n, sum(message.at for message in s.messages[n - 1:n]))
                   for n in sorted(scan.skipped - scan.unfinished)]
    offers += [("fresh", n, s.messages[n - 1].at) for n in range(scan.cursor + 1, scan.limit)
               if n in scan.seen[0] and n not in scan.unfinished]
    offers.append(("fresh read", 0, 0))
    return scan._replace(offers=tuple(offers), last=last)


def retry_offers(scene, scan):
    """Failures by their time.  One above the cursor, redriven after a seek, is left to the cursor."""
    offers = [("retry", f.id, f) for f in sorted(scan.seen[2], key=lambda f: (f.retry_at, f.id, f.lease))
              if f.lease >= scan.since and scan.retry <= (f.retry_at, f.id) and f.retry_at <= scan.now
              and (scan.retry_in is None or f.id in scan.retry_in)
              and (f.id <= scan.begun or f.id < scan.check_below or "retry-above-cursor" in scene.wrong)]
    return offers + [("retries read", 0, 0)]


def due_offers(scene, s, scan):
    """Delayed messages at or below the cursor, from the due position on.

    What an earlier scan has passed and not skipped is settled, also where a range has grown over it since.
    """
    settled = 0 if "grown-unsettles" in scene.wrong else s.cursor
    times = sorted((s.messages[n - 1].at, n) for n in scan.seen[0] - scan.skipped
                   if n <= settled or n not in scan.unfinished)
    offers = [("due", n, at) for at, n in times
              if scan.next_due <= scan.now and n <= scan.cursor and 0 < at <= scan.now and is_later(scene, scan, n, at)
              and (scan.due_in is None or n in scan.due_in)]
    return [("due begins", 0, 0)] + offers + [("due read", 0, 0)]


def due_left(s, scan):
    """Delayed messages that are not due yet, of those in the segments that were read."""
    return frozenset(n for n in scan.seen[0] if s.messages[n - 1].at > scan.now
                     and (scan.due_in is None or n in scan.due_in))


def is_later(scene, scan, n, at):
    """Whether a message is delayed and left to a due scan from the position on."""
    return (at > 0 or "undelayed-later" in scene.wrong) and (at, n) >= scan.due


def cut(scene, scan, where, n, at):
    """The position when there was no room for an offer, nor for those behind it: they are in the order of it."""
    if where == "due":
        return scan._replace(due=(at, n + ("due-behind-cut" in scene.wrong)), cut=True, more=True, next_due=0)
    return scan._replace(retry=(at.retry_at, n + ("retry-behind-cut" in scene.wrong)), cut=True, more=True)


def consider(scene, s, scan):
    """4: the next offer.  Returns the state, in which only "passed" may differ, and the scan."""
    (where, n, at), scan = scan.offers[0], scan._replace(offers=scan.offers[1:])
    if where in ("retries read", "due read"):
        # without room for all a position is that of the first that had none
        if where == "retries read":
            later = any(f.lease >= scan.since and scan.now < f.retry_at < NEVER for f in scan.seen[2])
            scan = scan._replace(later=scan.cut or later)
            keep = frozenset(f.id for f in scan.seen[2] if f.lease >= scan.since and scan.now <= f.retry_at < NEVER
                             and (scan.retry_in is None or f.id in scan.retry_in))
            if "segments-dropped" in scene.wrong:
                keep = frozenset()
            if not scan.cut or "segments-kept-though-cut" in scene.wrong:
                scan = scan._replace(keep=keep)
        if where == "due read" and (not scan.cut or "due-segments-cut" in scene.wrong):
            left = due_left(s, scan)
            if "due-segments-dropped" in scene.wrong:
                left = frozenset()
            scan = scan._replace(due_in=left)
            if not scan.cut:
                scan = scan._replace(next_due=min([s.messages[n - 1].at for n in left], default=NEVER))
        if not scan.cut or "cut-ignored" in scene.wrong:
            scan = scan._replace(retry=(scan.now, 0)) if where == "retries read" else \
                scan._replace(due=(scan.now + 1, 0))
        return s, scan._replace(cut=False)
    if where == "due begins":
        # a batch that is full leaves the position where it is
        return s, scan if scan.room else scan._replace(offers=offers_after(scan.offers, "due read"))
    if where == "fresh read":
        if scan.room or "cursor-to-limit" in scene.wrong:
            scan = scan._replace(cursor=max(scan.cursor, scan.limit - 1))
        if scan.last or scan.more and scan.room and "share-kept" not in scene.wrong:
            # what the quota has kept and nobody needs is for what is due
            scan = scan._replace(quota=scan.quota if scan.last else scan.room, last=False, more=False)
            scan = scan._replace(offers=tuple(retry_offers(scene, scan) + due_offers(scene, s, scan)))
            if "read-on-from-start" in scene.wrong:
                scan = scan._replace(offers=tuple(retry_offers(scene, scan._replace(retry=(0, 0)))) + scan.offers)
        return s, scan
    if scan.room == 0 or where in ("retry", "due") and scan.quota == 0:
        if where in ("retry", "due"):
            return s, scan if scan.cut else cut(scene, scan, where, n, at)
        return s, scan

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
            # a later due scan finds it
            if "due-unnoted" not in scene.wrong:
                scan = scan._replace(due_in=joined(scan.due_in, frozenset([n])))
            return s, scan._replace(next_due=min(scan.next_due, at))
    if where in ("retry", "due") or n < scan.check_below and "restart-unchecked" not in scene.wrong:
        return consider_candidate(scene, s, scan, n, at if where == "retry" else None)
    return take(scene, s, scan, Entry(n, HELD, 1), False)


def offers_after(offers, what):
    """What comes behind an offer of that kind."""
    return offers[[where for where, _, _ in offers].index(what) + 1:]


def consider_candidate(scene, s, scan, n, failure):
    """What may be outstanding or done: memory first, then the snapshot."""
    told = told_of(scan, n)
    if n in scan.busy or told.done or n < scan.start:
        return s, scan
    if failure:
        if told.last != failure:
            return s, scan              # a newer failure is found by its own time
        if n in s.dead:
            return key_goes_on(scene, s, scan, n)
    elif told.last and ((told.last.retry_at, n) >= scan.from_retry or "failed-left" in scene.wrong):
        return s, scan                  # its failure is found by its time
    passed = behind(s, n) if told.last and key_of(scene, s, n) and "retry-forgets" not in scene.wrong else 0
    return take(scene, s, scan, Entry(n, HELD, told.attempt, passed=passed),
                failure is not None or s.messages[n - 1].at > 0)


def behind(s, n):
    """From where on others of its key may have been passed over for one that waited."""
    return min(n + 1, s.wait_passed)


def key_goes_on(scene, s, scan, n):
    """One that was to be retried is no more: its key's next is wanted."""
    key = key_of(scene, s, n)
    if not key or "dead-keeps-key" in scene.wrong:
        return s, scan
    t, after = pass_over(scene, s, scan, key, behind(s, n))
    if t is not None:
        return t, after
    return s, scan._replace(got=scan.got + ((None, Entry(behind(s, n), NEXT, 1, key=key)),))


def told_of(scan, n):
    return facts(n, *scan.told, scan.since)


def take(scene, s, scan, entry, redelivery):
    """Take a message, unless its key is busy, or another of the key waits for a retry."""
    if entry.id in s.dead:
        return s, scan
    key = key_of(scene, s, entry.id)
    if key:
        t, after = pass_over(scene, s, scan, key, entry.id)
        if t is not None:
            return t, after
        waits = key_waits(scene, s, scan, key)
        if waits < entry.id or entry.attempt == 1 and waits < NEVER:
            if entry.id < waits and "lower-forgotten" not in scene.wrong:
                s = s._replace(wait_passed=min(s.wait_passed, entry.id))
            return s, scan              # that one's retry finds it
    return s, got(scan, None, entry._replace(key=key), redelivery)


def pass_over(scene, s, scan, key, id):
    """If the key has an entry that is told that a message was passed over for it; else (None, scan)."""
    for slot, e in valid(s.entries):
        if e.key == key:
            if "passed-recorded-late" in scene.wrong:
                return s, scan._replace(late=scan.late + ((slot, id),))
            return s._replace(entries=entries_set(s.entries, {slot: passed_over(e, id)})), scan
    for k, (slot, e) in enumerate(scan.got):
        if e.key == key:
            return s, scan._replace(got=scan.got[:k] + ((slot, passed_over(e, id)),) + scan.got[k + 1:])
    return None, scan


def key_waits(scene, s, scan, key):
    """The lowest id of the key that, as the tables are now, waits for a retry not looked at yet; or NEVER.

    Looked up only if the filter says that there may be one.
    """
    if key not in s.waits:
        return NEVER
    where = scan.retry_in if "key-in-old-segments" in scene.wrong else joined(s.retry_in, scan.retry_in)
    acks, failures = (scan.seen[1], scan.seen[2]) if "waits-by-snapshot" in scene.wrong else (s.acks, s.failures)
    for n in range(1, len(s.messages) + 1):
        if key_of(scene, s, n) != key or n in s.dead and "dead-frees-key" in scene.wrong:
            continue
        told = facts(n, acks, failures, scan.since)
        if told.last and not told.done and told.last.attempt and told.last.retry_at < NEVER:
            if (told.last.retry_at, n) >= scan.from_retry and (where is None or n in where):
                return n
    return NEVER


def passed_over(entry, id):
    """The entry, told that the message was passed over for it."""
    return entry._replace(passed=min(entry.passed or id, id))


def got(scan, slot, entry, redelivery):
    return scan._replace(got=scan.got + ((slot, entry),), room=scan.room - 1, quota=max(0, scan.quota - redelivery))


def consider_next(scene, s, scan, slot):
    """A key whose message is done: look for its next one among those read before."""
    was = s.entries[slot]
    first, key = was.id, was.key
    for n in range(first, scan.cursor + 1):
        if (n not in scan.seen[0] or n in scan.skipped or "grown-unsettles" in scene.wrong and n in scan.unfinished
                or is_later(scene, scan, n, s.messages[n - 1].at) or n < scan.start or key_of(scene, s, n) != key):
            continue
        told = told_of(scan, n)
        if told.done or n in s.dead or told.last and "failed-left" in scene.wrong:
            continue
        if told.last and told.last.retry_at > scan.now:
            break                       # its retry finds what is behind it
        passed = 0 if "next-forgets" in scene.wrong else n + 1
        return got(scan, slot, Entry(n, HELD, told.attempt, passed=passed, key=key), True)
    return scan._replace(gone=scan.gone + (slot,))


def probe(scene, s):
    """A look whether a claim would find something, all at once: it lets go of keys that have no next message."""
    _, scan = begin(scene, s, NOBODY)
    scan = tell(scene, s, ask(scene, s, look(scene, s, copy(scene, s, scan))))
    entries = s.entries
    for slot, e in valid(entries):
        if e.state != NEXT:
            continue
        if consider_next(scene, s, scan, slot).gone:
            entries = entry_done(scene, entries, slot)
    return s._replace(entries=entries)


def record(scene, s, i, scan):
    """5: (state, lease, slots), or a Fault.  Lease 0: nothing was got, or the scan is void."""
    if s.generation != scan.generation or s.reloaded:
        return fail(s, scan), 0, ()
    if scan.more and scan.room:
        return Fault("short", "a batch has room, and more is due"), 0, ()
    s = s._replace(scanner=NOBODY, retry_from=(NEVER, 0))
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
        entries = entries_set(entries, {slot: entries[slot]._replace(state=HELD, lease=lease)})
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
    if "skips-merged" in scene.wrong and skipped:
        skipped = frozenset(range(min(skipped), max(skipped) + 1))
    retry = min(s.retry, scan.retry)
    if scene.wrong & {"retry-advanced-late", "retry-set-blindly"}:
        retry = scan.retry
    s = s._replace(cursor=scan.cursor, skipped=skipped, retry=retry, due_at=scan.due, due_in=scan.due_in, next_due=scan.next_due,
                   retry_in=joined(s.retry_in, scan.keep))
    gone = scan.wait_in & s.retired and "cleared-though-gone" not in scene.wrong
    if not scan.later and not gone and (not s.nacked or "waits-cleared-blindly" in scene.wrong):
        s = s._replace(waits=frozenset(), wait_low=NEVER, wait_in=frozenset(), wait_passed=NEVER)
    return s


def fail(s, scan):
    """The scan ends with an error before 5, or is void: what it took is put back."""
    entries = s.entries
    for slot in scan.taken:
        if s.generation != scan.generation:
            entries = entries_set(entries, {slot: None})
        else:
            entries = entry_ready(entries, slot)
    return s._replace(entries=entries, scanner=NOBODY, retry_from=(NEVER, 0), retry=min(s.retry, s.retry_from),
                      retry_in=joined(s.retry_in, scan.back))


def judge_delivery(scene, s, claimed):
    """What must never happen when messages are given out."""
    for e in claimed:
        if e.id in s.retired:
            continue                    # a real scan has its table locked
        message = s.messages[e.id - 1]
        told = facts_now(s, e.id)
        others = [other for _, other in valid(s.entries) if other is not e]
        if e.id not in s.published or message.at > s.now:
            return Fault("early", f"{e.id} is given out")
        if told.last and told.last.retry_at > s.now:
            return Fault("early", f"{e.id} is to be retried later")
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
        if before.key != message.key or before.at or message.at or n < s.start or n in s.dead:
            continue
        if not scene.ordered:
            if n not in s.delivered and not any(other.id == n for other in claimed):
                return Fault("order", f"{e.id} is given out before {n}")
        elif e.key and not facts_now(s, n).done and not any(f.id == n and f.attempt == 0 for f in s.failures):
            return Fault("order", f"{e.id} is given out before {n} is done")
    if e.key and any(other.state in (HELD, LEASED) and other.key == e.key for other in others):
        return Fault("order", f"two of key {e.key} at a time")
    for n in range(1, len(s.messages) + 1) if e.key else ():
        told = facts_now(s, n)
        if n != e.id and s.messages[n - 1].key == e.key and n >= s.start and n not in s.dead:
            if told.last and told.last.attempt and not told.done:
                return Fault("order", f"{e.id} is given out while {n} is to be retried")
    return None
