"""What becomes of a claim: commit, rollback, ack, nack, expiry.

An ack or nack goes through these steps; the worker's expiry of a lease is a nack of its own.

    pin        its entries are pinned
    insert     the rows are there, for their own transaction only; retry_at is reckoned
    precommit  checked again
    visible    the commit is seen by snapshots
    callback   the entries go

It may abort before "visible".  own: the claim itself is of the same transaction.
"""
from bus import (
    HELD, LEASED, NEVER, NOBODY, READY, Ack, Entry, Failure, entries_set, entry_done, entry_ready, facts_now,
    valid,
)
from checker import Fault


def claim_commit(s, slots):
    """The claim's callback at commit: HELD becomes LEASED."""
    entries, out = s.entries, set()
    for slot in slots:
        e = entries[slot]
        if e is None:
            continue                    # wrong variants only
        if e.void:
            entries = entries_set(entries, {slot: None})
        else:
            out.add((e.id, e.lease))
            entries = entries_set(entries, {slot: e._replace(state=LEASED, owner=NOBODY)})
    return s._replace(entries=entries, out=s.out | out)


def claim_abort(scene, s, slots):
    """The claim's callback at rollback."""
    entries = s.entries
    for slot in slots:
        if entries[slot] is None or entries[slot].void or "rollback-forgets" in scene.wrong:
            entries = entries_set(entries, {slot: None})
        else:
            entries = entry_ready(entries, slot)
    return s._replace(entries=entries)


def pin(s, i, lease, ids, kind):
    """(state, slots), or None: 55000, something is not held under that lease."""
    slots = tuple(k for k, e in valid(s.entries)
                  if e.lease == lease and not e.pin and e.id in ids
                  and (e.state == LEASED or e.state == HELD and e.owner == i))
    if len(slots) < len(ids) or not slots:
        return None
    return s._replace(entries=entries_set(
        s.entries, {k: s.entries[k]._replace(pin=kind, owner=i) for k in slots})), slots


def expirable(scene, s):
    """{lease: slots} that the worker may expire now."""
    leases = {}
    for k, e in valid(s.entries):
        if e.state == LEASED and (not e.pin or "expiry-ignores-pin" in scene.wrong and e.pin == "ack"):
            leases.setdefault(e.lease, []).append(k)
    return leases


def rows_of(scene, s, slots, lease, kind, delay):
    """The rows that an ack or nack inserts."""
    rows = []
    for slot in slots:
        e = s.entries[slot]
        if e is None:
            continue                    # wrong variants only
        if kind == "ack":
            rows.append(Ack(e.id, lease, "acked"))
        elif e.attempt >= scene.max_attempts:
            rows += [Failure(e.id, lease, e.attempt, NEVER), Ack(e.id, lease, "dead")]
        else:
            rows.append(Failure(e.id, lease, e.attempt, s.now + delay))
    return tuple(rows)


def inserted(scene, s, slots, kind):
    """(state, slots) after the insert, which changes nothing in memory but in wrong variants."""
    if kind == "nack" and "ready-before-commit" in scene.wrong:
        for slot in slots:
            e = s.entries[slot]
            s = s._replace(entries=entries_set(s.entries, {slot: Entry(e.id, READY, e.attempt + 1, key=e.key)}))
        return s, ()
    if kind == "ack" and "key-freed-early" in scene.wrong:
        for slot in slots:
            s = s._replace(entries=entry_done(scene, s.entries, slot))
        return s, ()
    return s, slots


def precommit(scene, s, slots, lease):
    """Whether the transaction may commit; a Fault if it may and must not."""
    refused = any(s.entries[k] is None or s.entries[k].void for k in slots)
    if refused and "not-rechecked" in scene.wrong:
        return Fault("stale", f"lease {lease} is accepted after a seek")
    return not refused


def visible(s, rows, own):
    """The commit: a state or a Fault.  Judges what must never be accepted."""
    acks, failures, out = set(s.acks), set(s.failures), set(s.out)
    for row in rows:
        if row.id in s.retired:
            continue                    # there is nothing to say
        if row.lease >= s.since:
            if not own and (row.id, row.lease) not in s.out:
                return Fault("stale", f"lease {row.lease} of {row.id} has ended and is accepted")
            if facts_now(s, row.id).done:
                return Fault("twice", f"{row.id} is done a second time")
        if type(row) is Ack:
            acks.add(row)
        else:
            failures.add(row)
        out.discard((row.id, row.lease))
    return s._replace(acks=frozenset(acks), failures=frozenset(failures), out=frozenset(out))


def callback(scene, s, slots, rows):
    """After the commit: the entries go, and what failed will be found.

    Of a key, what was passed over is found when the one that failed is delivered: from behind it on, or from the lowest
    that was passed over with an id below.
    """
    done = {row.id for row in rows if type(row) is Ack}
    failed = {row.id: row for row in rows if type(row) is Failure}
    entries, retry = s.entries, s.retry
    for slot in slots:
        e = entries[slot]
        if e is None:
            continue                    # wrong variants only
        if e.void:
            entries = entries_set(entries, {slot: None})
        elif e.id in done or e.id not in failed:
            entries = entry_done(scene, entries, slot)
        else:
            entries = entries_set(entries, {slot: None})
            if e.passed and e.passed < e.id and "lower-forgotten" not in scene.wrong:
                s = s._replace(wait_passed=min(s.wait_passed, e.passed))
            if "no-pull-back" not in scene.wrong:
                retry = pulled(scene, retry, failed[e.id])
            if "segment-unnoted" not in scene.wrong and s.retry_in is not None:
                s = s._replace(retry_in=s.retry_in | {e.id})
            s = s._replace(nacked=True)
            if e.key and "failed-unmarked" not in scene.wrong:
                s = s._replace(waits=s.waits | {e.key}, wait_low=min(s.wait_low, e.id),
                               wait_in=s.wait_in | {e.id})
    return s._replace(entries=entries, retry=retry)


def pulled(scene, retry, row):
    """The retry position, so that it is not behind a failure."""
    if "pulled-by-time" in scene.wrong:
        return retry if row.retry_at >= retry[0] else (row.retry_at, row.id)
    return min(retry, (row.retry_at, row.id))


def undo(scene, s, slots, own):
    """The abort of an ack or nack: the pins are taken off, the lease goes on."""
    if own:
        return claim_abort(scene, s, slots)
    if "abort-keeps-pin" in scene.wrong:
        return s
    entries = s.entries
    for slot in slots:
        e = entries[slot]
        if e is not None:
            entries = entries_set(entries, {slot: None if e.void else e._replace(pin="", owner=NOBODY)})
    return s._replace(entries=entries)


def undo_within(s, slots):
    """The rollback of an ack or nack to a savepoint behind the claim: the entries are held as before."""
    return s._replace(entries=entries_set(s.entries, {k: s.entries[k]._replace(pin="") for k in slots}))


def repeat(scene, s, lease, ids):
    """An ack whose lease is gone: True if its rows are there, False if it is 55000, or a Fault."""
    outcomes = {a.id: a.outcome for a in s.acks if a.lease == lease and a.id in ids}
    if len(outcomes) < len(ids):
        return False
    if all(outcome == "acked" for outcome in outcomes.values()):
        return True
    if "dead-counts-as-acked" in scene.wrong:
        return Fault("stale", f"lease {lease} is accepted, its message is dead")
    return False
