"""Who acts, and the steps that each may take next.

steps(scene, state) yields (what, next state or Fault) for all of them; judge(scene, state) says whether anything is
lost in a state in which nobody is in the middle of anything.
"""
from typing import NamedTuple

import restart
import scan as scanning
import settle
from bus import (
    EPOCH, LEASED, NEVER, NOBODY, Ack, Checkpoint, Failure, Message, State, act, entries_set, entry_done, facts,
    lease_next, rows_gone, valid,
)
from checker import Fault

LATE = NEVER - 1            # when everything but what is dead has become due


class Scene:
    """What is in a run: who acts, how often, and in which wrong variant."""
    messages = ()           # published before the run begins: Message
    publishers = ()
    consumers = 1
    claims = 2              # of each consumer
    commits = ("ack",)      # what a consumer may do with a lease: ack, nack
    within = ()             # and in the claim's own transaction
    probes = False          # consumers may look whether there is something
    rollback = False        # claims may roll back
    aborts = False          # acks and nacks may roll back, scans may fail
    partial = False         # acks of the first id of a lease alone
    worker = False          # leases may expire
    batch = 1
    last = False            # scans may read redeliveries last
    share = 0               # of a batch, kept for what is neither a redelivery nor due
    max_attempts = 2
    delays = (0,)           # of a nack
    last_tick = 1           # how far time may go
    seeks = ()              # ids to seek to
    dies = ()               # ids that may expire, or be deleted
    retires = False         # and then be gone with their segment
    redrive = 0             # the id of a message to redrive once it is dead
    restored = 0            # so many of the messages come with a restore
    restored_acks = ()      # with these of them acknowledged
    restored_retries = ()   # and these to be retried at 2
    dead = False            # it is dead when the run begins
    checkpoints = 0
    crashes = 0
    ordered = False
    order = False           # judge the order
    grows = False           # a publisher's ranges may become one, with others' ids in it
    returns = False         # ids of a publish that has aborted are given out again

    def __init__(self, name, wrong=(), **settings):
        self.name = name
        self.wrong = frozenset(wrong)
        for setting, value in settings.items():
            getattr(self, setting)
            setattr(self, setting, value)
        self.settled = {}

    def start(self):
        n = len(self.messages)
        messages = tuple(m._replace(after=frozenset(range(1, k + 1)) if self.order else frozenset())
                         for k, m in enumerate(self.messages))
        actors = [Publisher(plan) for plan in self.publishers]
        actors += [Client("C%d" % k, self.claims) for k in range(1, self.consumers + 1)]
        if self.worker or self.checkpoints or self.crashes or self.restored:
            actors.append(Client("worker", self.checkpoints))
        actors += [Seeker(to) for to in self.seeks]
        actors += [Redriver(self.redrive)] if self.redrive else []
        actors += [Reaper(id) for id in self.dies]
        start = State(messages=messages, published=frozenset(range(1, n + 1)), crashes=self.crashes,
                      actors=tuple(actors))
        if self.restored:
            brought = frozenset(range(1, self.restored + 1))
            start = start._replace(restored=brought, hidden=brought,
                                   acks=frozenset(Ack(id, EPOCH, "acked") for id in self.restored_acks),
                                   failures=frozenset(Failure(id, EPOCH, 1, 2) for id in self.restored_retries))
        if self.dead:
            start = start._replace(acks=frozenset({Ack(self.redrive, EPOCH, "dead")}), cursor=self.redrive)
        return start


class Plan(NamedTuple):
    """A publish transaction: its messages in the order of their ids."""
    kept: tuple = (True,)   # False: published in a savepoint that is rolled back
    commits: bool = True
    keys: tuple = ("K",)    # of each message, or of all
    delay: int = 0


class Publisher(NamedTuple):
    plan: Plan
    pc: str = "new"
    ids: tuple = ()
    after: frozenset = frozenset()


class Client(NamedTuple):
    """A consumer, or the worker that expires leases, writes checkpoints and loads."""
    name: str
    left: int               # claims, or checkpoints
    pc: str = "idle"
    scan: scanning.Scan = None
    lease: int = 0
    ids: tuple = ()         # of the lease, as far as the client knows
    slots: tuple = ()       # that its open transaction holds or has pinned
    own: bool = False       # the claim has not committed
    kind: str = ""          # ack or nack
    rows: tuple = ()
    redriven: tuple = None  # as it was at the pin
    copied: Checkpoint = None
    born: int = 0           # ghost: crashes that were still to come at its claim


class Seeker(NamedTuple):
    to: int
    pc: str = "new"
    since: int = 0


class Redriver(NamedTuple):
    id: int
    pc: str = "new"
    row: Failure = None
    generation: int = 0


class Reaper(NamedTuple):
    id: int
    pc: str = "new"


def steps(scene, s):
    for i, actor in enumerate(s.actors):
        if type(actor) is Publisher:
            yield from publisher_steps(scene, s, i, actor)
        elif type(actor) is Seeker:
            yield from seeker_steps(scene, s, i, actor)
        elif type(actor) is Redriver:
            yield from redriver_steps(scene, s, i, actor)
        elif type(actor) is Reaper:
            yield from reaper_steps(scene, s, i, actor)
        elif actor.name == "worker":
            yield from worker_steps(scene, s, i, actor)
        else:
            yield from consumer_steps(scene, s, i, actor)
    if s.now < scene.last_tick:
        yield f"time {s.now + 1}", s._replace(now=s.now + 1)
    if s.now > 1 and "clock-back" in scene.wrong:
        yield f"time {s.now - 1}", s._replace(now=s.now - 1)
    if s.crashes:
        yield "crash", restart.crash(scene, s)._replace(actors=tuple(map(crashed, s.actors)), hidden=s.restored)


# ---------- publishers


def publisher_steps(scene, s, i, p):
    name = f"P{i + 1}"
    if p.pc == "new" and scene.grows:
        yield from publisher_grow(s, i, p)
    if p.pc == "new" and len(p.ids) < len(p.plan.kept):
        yield publisher_reserve(scene, s, i, p)
    elif p.pc == "reserved":
        yield f"{name} registers", act(s, i, p._replace(pc="new"), unfinished=s.unfinished | set(p.ids))
    elif p.pc == "new" and "range-freed-early" in scene.wrong:
        yield f"{name} callback", act(s, i, p._replace(pc="freed"), unfinished=s.unfinished - set(p.ids))
    elif p.pc in ("new", "freed"):
        kept = {id for id, kept in zip(p.ids, p.plan.kept) if kept and p.plan.commits}
        what = "commits" if p.plan.commits else "aborts"
        after = p._replace(pc="ended" if p.pc == "new" else "done", after=frozenset())
        yield f"{name} {what}", act(s, i, after, published=s.published | kept)
    elif p.pc == "ended":
        s = ids_return(scene, s, p)
        yield f"{name} callback", act(s, i, p._replace(pc="done", ids=()), unfinished=s.unfinished - set(p.ids),
                                      grown=frozenset(g for g in s.grown if g[0] != i))


def publisher_reserve(scene, s, i, p):
    """The next id, given out and registered in one step."""
    id = len(s.messages) + 1
    after = s.published - s.unfinished if scene.order and not p.ids else p.after
    keys = p.plan.keys
    message = Message(keys[len(p.ids) % len(keys)], s.now + p.plan.delay if p.plan.delay else 0, after)
    late = "range-registered-late" in scene.wrong
    return f"P{i + 1} reserves {id}", act(
        s, i, p._replace(ids=p.ids + (id,), after=after, pc="reserved" if late else "new"),
        messages=s.messages + (message,), unfinished=s.unfinished if late else s.unfinished | {id})


def publisher_grow(s, i, p):
    """The ranges become one, which reaches from the first id to the last."""
    if len(p.ids) > 1 and p.ids[-1] - p.ids[0] >= len(p.ids):
        grown = frozenset(g for g in s.grown if g[0] != i) | {(i, p.ids[0], p.ids[-1])}
        if grown != s.grown:
            yield f"P{i + 1}'s range grows to {p.ids[0]}-{p.ids[-1]}", act(s, i, p, grown=grown)


def ids_return(scene, s, p):
    """After an abort: ids that are the last given out, and that no scan was told of, are not given out any more."""
    if not scene.returns or p.plan.commits or not p.ids or p.ids != tuple(range(p.ids[0], len(s.messages) + 1)):
        return s
    n = p.ids[0] if "told-ignored" in scene.wrong else max(p.ids[0], s.told)
    return s._replace(messages=s.messages[:n - 1]) if n <= len(s.messages) else s


# ---------- consumers


def consumer_steps(scene, s, i, c):
    if c.pc == "idle":
        if c.left and s.loaded and s.scanner == NOBODY:
            t, scan = scanning.begin(scene, s, i)
            yield f"{c.name} begins a scan", act(t, i, c._replace(pc="begun", scan=scan, left=c.left - 1))
        if scene.probes and s.loaded and s.scanner == NOBODY:
            yield f"{c.name} probes", scanning.probe(scene, s)
    elif c.pc in ("begun", "copied", "looked"):
        yield from scan_steps(scene, s, i, c)
    elif c.pc == "claimed":
        yield f"{c.name} commits its claim", act(settle.claim_commit(s, c.slots), i,
                                                 c._replace(pc="have", slots=(), own=False))
        if scene.rollback:
            yield f"{c.name} rolls back its claim", act(settle.claim_abort(scene, s, c.slots), i, idle(c))
        for kind in scene.within:
            yield from pin_steps(scene, s, i, c, kind, c.ids)
    elif c.pc == "have":
        if s.loaded:
            for kind in scene.commits:
                yield from pin_steps(scene, s, i, c, kind, c.ids)
            if scene.partial and len(c.ids) > 1:
                yield from pin_steps(scene, s, i, c, "ack", c.ids[:1])
    else:
        yield from settle_steps(scene, s, i, c)


def idle(c):
    return Client(c.name, c.left)


def scan_steps(scene, s, i, c):
    if scene.aborts:
        yield f"{c.name}'s scan fails", act(scanning.fail(s, c.scan), i, idle(c))
    if c.pc == "begun":
        told = max(s.told, len(s.messages) + 1) if scene.returns else 0
        yield f"{c.name} copies U", act(s, i, c._replace(pc="copied", scan=scanning.copy(scene, s, c.scan)), told=told)
        return
    if c.pc == "copied" and s.wait_in & s.retired and "retired-unnoticed" not in scene.wrong:
        yield f"{c.name} finds a segment gone", act(scanning.fail(reload(scene, s), c.scan), i,
                                                   idle(c)._replace(left=c.left + 1))
        return
    if c.pc == "copied":
        for last in (False, True) if scene.last else (False,):
            scan = scanning.look(scene, s, c.scan, last)
            what = f"{c.name} takes a snapshot{', redeliveries last' if last else ''}"
            yield what, act(s, i, c._replace(pc="looked", scan=unasked(scene, s, scan)))
        return
    if c.scan.offers:
        what, t, scan = c.scan.offers[0][:2], s, c.scan
        if scanning.to_ask(scan, scan.offers[:1] if scene.ordered else scan.offers):
            yield f"{c.name} asks who is busy", act(s, i, c._replace(scan=scanning.ask(scene, s, scan)))
            return
        scan = scanning.tell(scene, s, scan) if scan.busy is not None else scan
        if scene.ordered:
            t, scan = scanning.consider(scene, t, scan)
            scan = positions(scene, t, scan._replace(busy=None, told=None))
        else:
            while scan.offers:
                _, scan = scanning.consider(scene, s, scan)
        yield f"{c.name} reads {what[0]} {what[1]}", act(t, i, c._replace(scan=scan._replace(busy=None, told=None)))
        return
    t, lease, slots = scanning.record(scene, s, i, c.scan)
    if type(t) is Fault:
        yield f"{c.name} records", t
    elif lease:
        ids = tuple(sorted(t.entries[k].id for k in slots))
        yield f"{c.name} records lease {lease} of {ids}", act(
            t, i, Client(c.name, c.left, "claimed", None, lease, ids, slots, True, born=s.crashes))
    else:
        yield f"{c.name} records nothing", act(t, i, idle(c))


def unasked(scene, s, scan):
    """What is read without a look at anything that is shared is no step of its own."""
    if scene.ordered:
        return positions(scene, s, scan)
    while scan.offers and not scanning.to_ask(scan, scan.offers):
        _, scan = scanning.consider(scene, s, scan)
    return scan


def positions(scene, s, scan):
    """What only moves a position is no step of its own, either."""
    while scan.offers and scan.offers[0][0] not in ("next", "retry", "due", "skipped", "fresh"):
        _, scan = scanning.consider(scene, s, scan)
    return scan


def pin_steps(scene, s, i, c, kind, ids):
    pinned = settle.pin(s, i, c.lease, ids, kind)
    if pinned and c.born != s.crashes:
        yield f"{c.name} pins {ids}", Fault("stale", f"lease {c.lease} of before a crash is accepted")
        return
    if pinned:
        t, slots = pinned
        yield f"{c.name} pins {ids} to {kind}", act(
            t, i, c._replace(pc="pinned", slots=slots, kind=kind, redriven=s.redriven))
        return
    if "lease-unchecked" in scene.wrong:
        yield f"{c.name} {kind}s {ids} unchecked", act(s, i, c._replace(
            pc="inserted", kind=kind, rows=tuple(Ack(id, c.lease, "acked") for id in ids)))
        return
    again = settle.repeat(scene, s, c.lease, ids) if kind == "ack" else False
    if type(again) is Fault:
        yield f"{c.name} acks {ids} again", again
    else:
        yield f"{c.name}: {kind} is {'counted again' if again else 'refused'}", act(s, i, idle(c))


def settle_steps(scene, s, i, c):
    """An ack, nack or expiry after its pin."""
    if c.pc in ("pinned", "committing") and scene.aborts:
        after = idle(c) if c.own or c.name == "worker" else c._replace(
            pc="have", slots=(), kind="", rows=(), redriven=None)
        yield f"{c.name} aborts its {c.kind}", act(settle.undo(scene, s, c.slots, c.own), i, after)
    if c.pc == "inserted" and scene.aborts and c.own:
        yield f"{c.name} rolls back its {c.kind} to a savepoint", act(
            settle.undo_within(s, c.slots), i, c._replace(pc="claimed", kind="", rows=(), redriven=None))
    if c.pc == "pinned":
        for delay in scene.delays if c.kind == "nack" else (0,):
            rows = settle.rows_of(scene, s, c.slots, c.lease, c.kind, delay)
            t, slots = settle.inserted(scene, s, c.slots, c.kind)
            yield f"{c.name} inserts {c.kind}", act(t, i, c._replace(pc="inserted", rows=rows, slots=slots))
    elif c.pc == "inserted":
        may = settle.precommit(scene, s, c.slots, c.lease)
        if type(may) is Fault:
            yield f"{c.name} passes pre-commit", may
        elif may:
            yield f"{c.name} passes pre-commit", act(s, i, c._replace(pc="committing"))
        else:
            yield f"{c.name} fails at pre-commit", act(settle.undo(scene, s, c.slots, c.own), i, idle(c))
    elif c.pc == "committing":
        t = settle.visible(s, c.rows, c.own)
        yield f"{c.name}'s {c.kind} is visible", t if type(t) is Fault else act(t, i, c._replace(pc="visible"))
    elif c.pc == "visible":
        t = redriven_again(scene, settle.callback(scene, s, c.slots, c.rows), c)
        rest = tuple(n for n in c.ids if n not in {row.id for row in c.rows})
        after = c._replace(pc="have", ids=rest, slots=(), kind="", rows=(), own=False,
                           redriven=None) if rest else idle(c)
        yield f"{c.name}'s callback", act(t, i, after)


def redriven_again(scene, s, c):
    """What has died may have been redriven before the callback: while it had an entry, nobody could take it."""
    died = any(type(row) is Ack and row.outcome == "dead" for row in c.rows)
    if not died or s.redriven == c.redriven or "death-unpulled" in scene.wrong:
        return s
    return s._replace(retry=min(s.retry, (s.redriven[1], 0)), retry_in=None, nacked=True)


# ---------- the worker


def worker_steps(scene, s, i, w):
    if w.pc == "idle" and not s.loaded:
        rows = restart.load_rows(scene, s)
        t = restart.load_commit(s, rows)
        what = "worker commits crash failures"
        yield what, t if type(t) is Fault else act(t, i, w._replace(pc="loading"))
    elif w.pc == "loading":
        yield "worker has loaded", act(restart.load(scene, s), i, idle(w))
    elif w.pc == "idle":
        if scene.worker:
            for lease, slots in settle.expirable(scene, s).items():
                entries = entries_set(s.entries, {k: s.entries[k]._replace(pin="nack", owner=i) for k in slots})
                yield f"worker expires {lease}", act(s, i, w._replace(
                    pc="pinned", lease=lease, ids=tuple(s.entries[k].id for k in slots), slots=tuple(slots),
                    kind="nack", redriven=s.redriven), entries=entries)
        if s.restored:
            yield from settle_steps_of_restore(scene, s, i, w)
        if w.left:
            yield "worker copies for a checkpoint", act(s, i, w._replace(
                pc="copied", left=w.left - 1, copied=restart.checkpoint_copy(scene, s)))
    elif w.pc in ("shown", "rewound"):
        yield from settle_steps_of_restore(scene, s, i, w)
    elif w.pc == "copied":
        yield "checkpoint commits", act(restart.checkpoint_write(scene, s, w.copied), i, idle(w))
    else:
        yield from settle_steps(scene, s, i, w)


def settle_steps_of_restore(scene, s, i, w):
    """A restored segment shows, and subscriptions read again from below it; then it is written down; restore.c."""
    late, early = "restore-rewinds-late" in scene.wrong, "restore-rewinds-early" in scene.wrong
    if w.pc == "idle" and early:
        yield "subscriptions are rewound", act(rewind(scene, s), i, w._replace(pc="shown"))
    elif w.pc == "idle" or w.pc == "shown" and s.hidden:
        t = s if late or early else rewind(scene, s)
        yield "a restored segment shows", act(t, i, w._replace(pc="shown" if late else "rewound"),
                                              hidden=frozenset())
    elif w.pc == "shown":
        yield "subscriptions are rewound", act(rewind(scene, s), i, w._replace(pc="rewound"))
    else:
        saved = s.checkpoint
        if saved and "restore-keeps-checkpoint" not in scene.wrong:
            cursor = min([saved.cursor] + [id - 1 for id in s.restored])
            saved = saved._replace(cursor=cursor, due_at=0, retry_at=0,
                                   skipped=frozenset(n for n in saved.skipped if n <= cursor))
        yield "it is settled", act(s, i, idle(w), restored=frozenset(), checkpoint=saved)


def rewind(scene, s):
    """Read again from below what was restored, each message as a candidate."""
    if "restore-unrewound" in scene.wrong or not s.loaded:
        return s
    cursor = min([s.cursor] + [max(id, s.mem_start) - 1 for id in s.restored])
    check_below = s.check_below if "restore-unchecked" in scene.wrong else max(s.check_below, len(s.messages) + 1)
    if scene.ordered and "restore-keeps-waits" not in scene.wrong:
        s = s._replace(waits=frozenset(m.key for m in s.messages if m.key), wait_low=min(s.wait_low, cursor + 1),
                       wait_in=s.wait_in | {f.id for f in s.failures})
    return s._replace(cursor=cursor, check_below=check_below, skipped=frozenset(n for n in s.skipped if n <= cursor),
                      due_at=(0, 0), due_in=None, next_due=0, retry=(0, 0), retry_in=None,
                      reloaded="restore-scan-goes-on" not in scene.wrong)


# ---------- seek and redrive


def seeker_steps(scene, s, i, k):
    slot = "seek-without-slot" not in scene.wrong
    if k.pc == "new" and s.loaded and (s.scanner == NOBODY or not slot):
        yield f"seek to {k.to} writes", act(s, i, k._replace(pc="written", since=lease_next(s)),
                                            lease_n=s.lease_n + 1, scanner=i if slot else s.scanner)
    elif k.pc == "written":
        yield "seek aborts", act(s, i, k._replace(pc="done", since=0), scanner=NOBODY if slot else s.scanner)
        yield "seek is visible", act(s, i, k._replace(pc="visible"), since=k.since, start=k.to, undone=s.acks)
    elif k.pc == "visible":
        entries = s.entries if "seek-keeps-entries" in scene.wrong else void(scene, s.entries)
        yield "seek's callback", act(
            s, i, k._replace(pc="done", since=0), entries=entries, cursor=k.to - 1, skipped=frozenset(),
            mem_since=k.since, mem_start=k.to, generation=s.generation + 1, out=frozenset(), check_below=0,
            due_at=(0, 0), due_in=frozenset(), next_due=0, retry=(0, 0), retry_in=None, redrive_at=NEVER, waits=frozenset(), wait_low=NEVER,
            wait_in=frozenset(), wait_passed=NEVER, scanner=NOBODY if slot else s.scanner)


def void(scene, entries):
    """No entry is left but those of open transactions, which are void."""
    for slot, e in valid(entries):
        keep = e.owner != NOBODY and "freed-while-pinned" not in scene.wrong
        entries = entries_set(entries, {slot: e._replace(void=True) if keep else None})
    return entries


def redriver_steps(scene, s, i, r):
    if r.pc == "new" and s.loaded and any(a.id == r.id and a.outcome == "dead" for a in s.acks):
        row = Failure(r.id, lease_next(s), 0, s.now)
        yield f"redrive of {r.id} inserts", act(
            s, i, r._replace(pc="inserted", row=row, generation=s.generation), lease_n=s.lease_n + 1,
            redrive_at=min(s.redrive_at, row.retry_at))
    elif r.pc == "inserted":
        if scene.aborts:
            yield "redrive aborts", act(s, i, Redriver(r.id, "done"), redrive_at=NEVER)
        yield "redrive is visible", act(s, i, r._replace(pc="visible"), failures=s.failures | {r.row})
    elif r.pc == "visible":
        s = s._replace(redrive_at=NEVER, redriven=(s.redriven[0] + 1, r.row.retry_at))
        if r.generation != s.generation:
            pass                        # a seek came between, and reads all
        elif "redrive-unpulled" not in scene.wrong:
            retry_in = s.retry_in if "redrive-keeps-segments" in scene.wrong else None
            s = s._replace(retry=min(s.retry, (r.row.retry_at, 0)), retry_in=retry_in, nacked=True)
        yield "redrive's callback", act(s, i, Redriver(r.id, "done"))


def reload(scene, s):
    """An ordered subscription is read again from what waited and is gone, each message as a candidate."""
    check_below = s.check_below if "reload-unchecked" in scene.wrong else max(s.check_below, s.cursor + 1)
    cursor = min(s.cursor, s.wait_low, s.wait_passed - 1)
    skipped = s.skipped if "reload-keeps-skipped" in scene.wrong else frozenset(n for n in s.skipped if n <= cursor)
    left = s.wait_in - s.retired
    return s._replace(check_below=check_below, cursor=cursor, skipped=skipped, due_at=(0, 0), next_due=0,
                      due_in=s.due_in if "reload-keeps-due-segments" in scene.wrong else None, wait_in=left,
                      waits=s.waits if left else frozenset(), wait_low=s.wait_low if left else NEVER)


# ---------- messages that are no more


def reaper_steps(scene, s, i, r):
    if r.pc == "new":
        yield f"{r.id} dies", act(s, i, r._replace(pc="done" if not scene.retires else "dead"), dead=s.dead | {r.id})
    elif r.pc == "dead":
        yield f"{r.id} retires", act(rows_gone(s, r.id), i, r._replace(pc="done"))


# ---------- a crash, and what must hold at rest


def crashed(actor):
    """What is left of an actor: clients know their committed claims and not the outcome of their acks."""
    if type(actor) is Publisher:
        return actor._replace(pc="done", after=frozenset()) if actor.ids else actor
    if type(actor) is Seeker:
        return actor if actor.pc == "new" else Seeker(actor.to, "done")
    if type(actor) is Redriver:
        return actor if actor.pc == "new" else Redriver(actor.id, "done")
    if type(actor) is Reaper:
        return actor
    if actor.pc in ("have", "pinned", "inserted", "committing", "visible") and actor.name != "worker":
        if not actor.own:
            return Client(actor.name, actor.left, "have", None, actor.lease, actor.ids, born=actor.born)
    return idle(actor)


def at_rest(actor):
    if type(actor) is Client:
        return actor.pc in ("idle", "have")
    return actor.pc in ("done", "dead") or actor.pc == "new" and not (type(actor) is Publisher and actor.ids)


def judge(scene, s):
    """At rest: if consumers went on from here, would they get everything?"""
    if s.scanner != NOBODY or not all(map(at_rest, s.actors)):
        return None
    if s.hidden:
        return None
    s = s._replace(actors=(), now=LATE, crashes=0)
    if s not in scene.settled:
        scene.settled[s] = drain(scene, s)
    return scene.settled[s]


def drain(scene, s):
    """Load if need be, then ack what is leased and claim what is there, until there is nothing."""
    if not s.loaded:
        s = restart.load_commit(s, restart.load_rows(scene, s))
        if type(s) is Fault:
            return s
        s = restart.load(scene, s)
    while True:
        before = s._replace(lease_n=0)
        s = drain_round(scene, s)
        if type(s) is Fault:
            return s
        if s._replace(lease_n=0) == before:
            break
    acks = s.acks - s.undone
    lost = [n for n in sorted(s.published - s.dead) if n >= s.start
            and not facts(n, acks, s.failures, s.since).done]
    return Fault("lost", f"{lost} would never be given out") if lost else None


def drain_round(scene, s):
    """Acks, and a claim with room for all.  A lease that is pinned at rest is stuck."""
    for slot, e in valid(s.entries):
        if e.state == LEASED and not e.pin:
            s = s._replace(acks=s.acks | {Ack(e.id, e.lease, "acked")}, out=s.out - {(e.id, e.lease)},
                           entries=entry_done(scene, s.entries, slot))
    if s.wait_in & s.retired and "retired-unnoticed" not in scene.wrong:
        s = reload(scene, s)
    s, scan = scanning.begin(scene, s, 0, batch=99)
    scan = scanning.look(scene, s, scanning.copy(scene, s, scan))
    while scan.offers:
        if scanning.to_ask(scan, scan.offers[:1]):
            scan = scanning.tell(scene, s, scanning.ask(scene, s, scan))
        s, scan = scanning.consider(scene, s, scan)
        scan = scan._replace(busy=None, told=None)
    s, lease, slots = scanning.record(scene, s, 0, scan)
    return s if type(s) is Fault else settle.claim_commit(s, slots)
