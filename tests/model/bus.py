"""What the model consists of: the tables, the shared memory, and who acts on them.

The names are those of extension/delivery/README.md and of the headers there.  One subscription of one channel.
Time is a small whole number that a step of its own advances; a deadline is not kept: the worker may expire any lease
at any time, which covers every length of a lease.
"""
from functools import lru_cache
from typing import NamedTuple

NOBODY = -1
NEVER = 10 ** 6             # retry_at of a message that is dead
EPOCH = 100                 # lease = epoch * EPOCH + n

# states of an entry; TAKEN is a READY one that the running scan will claim; the id of a NEXT one is the first message
# that was passed over for it
READY, TAKEN, NEXT, HELD, LEASED = "ready", "taken", "next", "held", "leased"


class Message(NamedTuple):
    key: str = ""
    at: int = 0             # available_at; 0: at once
    after: frozenset = frozenset()      # ghost: ids whose publish had ended before this one began


class Ack(NamedTuple):
    id: int
    lease: int
    outcome: str            # acked, dead


class Failure(NamedTuple):
    id: int
    lease: int
    attempt: int            # 0: redriven
    retry_at: int


class Entry(NamedTuple):
    id: int                 # NEXT: where to begin looking
    state: str
    attempt: int            # HELD, LEASED: this one, else the next
    lease: int = 0
    owner: int = NOBODY     # whose open transaction holds or has pinned it
    pin: str = ""           # ack or nack
    void: bool = False
    passed: int = 0         # lowest id passed over for it
    key: str = ""           # ordered only


class Checkpoint(NamedTuple):
    since: int
    cursor: int
    due_at: int             # the id is not kept
    retry_at: int           # nor is this one's
    entries: tuple          # (id, attempt, lease or 0)
    skipped: frozenset
    at: int = 0             # when it was written


class State(NamedTuple):
    # the tables; what is in them has committed and is visible
    messages: tuple = ()                    # by id - 1, of all ids given out, committed or not
    published: frozenset = frozenset()      # ids
    dead: frozenset = frozenset()           # ids: expired, deleted or purged
    retired: frozenset = frozenset()        # ids: and their segment is gone, with all rows
    acks: frozenset = frozenset()
    failures: frozenset = frozenset()
    since: int = 0
    start: int = 0
    checkpoint: Checkpoint = None
    epoch: int = 1
    restored: frozenset = frozenset()       # ids that a restore has brought and that are not settled

    # shared memory
    loaded: bool = True
    unfinished: frozenset = frozenset()     # ids of publishes that have not ended
    grown: frozenset = frozenset()          # (publisher, lo, hi): a range that others' ids lie in
    told: int = 0                           # the highest limit that a scan was told
    cursor: int = 0
    skipped: frozenset = frozenset()        # ids, not ranges
    retry: tuple = (0, 0)                   # retry position: time and id
    retry_from: tuple = (NEVER, 0)          # where the running scan has found it
    retry_in: frozenset = None              # segments, of one message each here, in which failures behind it lie;
                                            # None: any
    redrive_at: int = NEVER                 # lowest retry_at of open redrives
    waits: frozenset = frozenset()          # ordered: keys of which a message may wait for a retry
    wait_low: int = NEVER                   # and no such message is below
    wait_passed: int = NEVER                # lowest id passed over for one of a higher id
    wait_in: frozenset = frozenset()        # their segments: of one message each here
    nacked: bool = False                    # something failed since the running scan began
    redriven: tuple = (0, 0)                # redrives that have ended, and the time of the last
    due_at: tuple = (0, 0)                  # due position: time and id
    due_in: frozenset = frozenset()         # segments in which delayed ones behind it lie that the cursor has passed
    next_due: int = 0                       # none of them is due before
    check_below: int = 0                    # ids below may have been given out before
    reloaded: bool = False                  # and the running scan is void
    entries: tuple = ()                     # slots; None: free
    lease_n: int = 1
    mem_since: int = 0
    mem_start: int = 0
    generation: int = 0
    scanner: int = NOBODY
    hidden: frozenset = frozenset()         # ids that no reader sees, of those

    # the world
    now: int = 1
    crashes: int = 0                        # still to come
    actors: tuple = ()

    # ghosts: what a fault is judged by; the protocol does not see them
    out: frozenset = frozenset()            # (id, lease) of committed claims that nothing has ended
    delivered: frozenset = frozenset()      # ids
    undone: frozenset = frozenset()         # acks that a seek has undone


def registered(s):
    """The ids that the registry tells a reader to leave out."""
    return s.unfinished.union(*(range(lo, hi + 1) for _, lo, hi in s.grown))


class Facts(NamedTuple):
    """What the tables say of a message."""
    done: bool
    last: Failure           # the latest that counts, or None

    @property
    def attempt(self):
        return self.last.attempt + 1 if self.last else 1


@lru_cache(maxsize=None)
def facts(id, acks, failures, since):
    counted = [f for f in failures if f.id == id and f.lease >= since]
    last = max(counted, key=lambda f: f.lease, default=None)
    redriven = max((f.lease for f in counted if f.attempt == 0), default=-1)
    done = any(a.id == id and a.lease >= since and a.lease > redriven for a in acks)
    return Facts(done, last)


def facts_now(s, id):
    return facts(id, s.acks, s.failures, s.since)


def lease_next(s):
    return s.epoch * EPOCH + s.lease_n


def act(s, i, actor, **changed):
    """The state after actor i has become actor, and with what else has changed."""
    return s._replace(actors=s.actors[:i] + (actor,) + s.actors[i + 1:], **changed)


def entries_set(entries, changed):
    """Slots with some of them changed: {slot: entry or None}."""
    result = list(entries)
    for slot, entry in changed.items():
        result[slot] = entry
    return tuple(result)


def entries_free(entries, n):
    """The first n free slots; the pool grows where it must."""
    free = [k for k, e in enumerate(entries) if e is None]
    while len(free) < n:
        free.append(len(entries))
        entries += (None,)
    return entries, free[:n]


def valid(entries):
    """(slot, entry) of all entries that are the subscription's: a void one is its owner's only."""
    return [(k, e) for k, e in enumerate(entries) if e is not None and not e.void]


def rows_gone(s, id):
    """The state without what lay in the segment of a message."""
    return s._replace(acks=frozenset(a for a in s.acks if a.id != id),
                      failures=frozenset(f for f in s.failures if f.id != id), published=s.published - {id},
                      retired=s.retired | {id})


def key_of(scene, s, id):
    """An id's key in an ordered subscription, else "": nothing is kept in order by it."""
    return s.messages[id - 1].key if scene.ordered else ""


def entry_done(scene, entries, slot):
    """The entry's message is done: the entry goes, or looks for its key's next."""
    e = entries[slot]
    if e.passed and "free-though-passed" not in scene.wrong:
        return entries_set(entries, {slot: Entry(e.passed, NEXT, 1, key=e.key)})
    return entries_set(entries, {slot: None})


def entry_ready(entries, slot):
    """The claim is undone: the entry goes out with the next one."""
    e = entries[slot]
    return entries_set(entries, {slot: Entry(e.id, READY, e.attempt, passed=e.passed, key=e.key)})
