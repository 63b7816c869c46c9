"""The log: writers, the passes of the worker, a checkpoint that is shown, a retirement, and a crash or a promotion.

Writers take a number, which registers it in the same step, insert a row, may take another number in a savepoint that is
rolled back, become visible, and only later run their callback.  A pass looks at the registry, THEN takes its snapshot,
and writes entries, cursor and pending numbers in one transaction.  A retirement locks the leaf, THEN takes its
snapshot, logs what is in no run, and drops.

In every state nothing is logged twice, nothing is logged that did not commit, nothing is dropped unlogged, and what was
shown is a prefix of the log of that incarnation.  At rest, after one more pass, everything is logged.

A row that cannot be read is left out of a pass, which keeps it pending, and of a retirement.  A dump that is restored
has rows and entries of one snapshot and no cursor: the passes look at all, and log what has no entry.

A scene's settings: how many passes there are, whether the first writer has a savepoint, and whether there are a
retirement, a crash, a row that cannot be read for a while, and a restore.
"""
from functools import lru_cache
from typing import NamedTuple, Optional

from checker import Fault

NONE = frozenset()

# where a writer is
BEGUN, TAKEN, REGISTERED, INSERTED, ROLLED_BACK, ENDED, EARLY, GONE, DEAD = range(9)


class Writer(NamedTuple):
    at: int = BEGUN
    registered: frozenset = NONE
    rows: tuple = ()


class State(NamedTuple):
    next: int = 1
    writers: tuple = (Writer(), Writer())
    commits: tuple = ()             # ("rows", rows), ("log", entries, cursor, pending), ("drop", entries)
    worker: Optional[tuple] = None  # what it has looked at
    passes: int = 0
    shown: Optional[tuple] = None   # (incarnation, entries)
    durable: int = 0                # so many commits are flushed
    crashed: bool = False
    incarnation: int = 0
    bad: frozenset = NONE           # rows that cannot be read
    was_bad: bool = False
    again: bool = False             # what entries there are is looked at


class Tables(NamedTuple):
    rows: tuple
    log: tuple
    cursor: int
    pending: frozenset
    dropped: bool


@lru_cache(maxsize=None)
def tables(commits):
    """What a snapshot behind these commits sees."""
    rows, log, cursor, pending, dropped = (), (), 0, NONE, False
    for commit in commits:
        if commit[0] == "rows":
            rows += commit[1]
        elif commit[0] == "log":
            log += commit[1]
            cursor, pending = commit[2:]
        else:
            log += commit[1]
            dropped = True
    return Tables(rows, log, cursor, pending, dropped)


class Scene:
    """How much happens, and what is wrong."""

    def __init__(self, name, wrong, passes=2, savepoint=False, retires=False, crashes=False, damaged=False,
                 restored=False):
        self.name = name
        self.wrong = wrong
        self.passes = passes
        self.savepoint = savepoint
        self.retires = retires
        self.crashes = crashes
        self.damaged = damaged
        self.restored = restored

    def start(self):
        """Nothing has happened."""
        return State()


def judge(scene, state):
    """What must hold in every state, and at rest."""
    seen = tables(state.commits)
    logged = set(seen.log)
    if len(logged) != len(seen.log):
        return Fault("twice", f"logged {seen.log}")
    if logged - set(seen.rows):
        return Fault("never", "what is logged was never committed")
    if state.shown and state.shown[0] == state.incarnation and seen.log[:len(state.shown[1])] != state.shown[1]:
        return Fault("forked", "what was shown is not in the log")
    if seen.dropped and set(rows_dropped(state.commits)) - logged - state.bad:
        return Fault("dropped", "unlogged")
    if state.worker is None and all(w.at in (GONE, DEAD) for w in state.writers):
        return judge_rest(scene, state, seen)
    return None


def rows_dropped(commits):
    """The rows that were there when the leaf was dropped."""
    return tables(commits[:next(i for i, c in enumerate(commits) if c[0] == "drop")]).rows


def judge_rest(scene, state, seen):
    """One more pass, and everything is logged once."""
    window = set(range(seen.cursor, state.next))
    if "log-pending" not in scene.wrong:
        window |= seen.pending
    if state.again and "log-again" not in scene.wrong:
        window -= set(seen.log)
    final = seen.log if seen.dropped else seen.log + tuple(r for r in seen.rows if r in window)
    if len(set(final)) != len(final):
        return Fault("twice", "at rest")
    if not seen.dropped and set(seen.rows) - set(final):
        return Fault("lost", "never logged")
    return None


def steps(scene, state):
    """All steps that are possible."""
    seen = tables(state.commits)
    for i, writer in enumerate(state.writers):
        for what, new, change in writer_steps(scene, state, seen, i, writer):
            writers = state.writers[:i] + (new,) + state.writers[i + 1:]
            yield f"writer {i} {what}", state._replace(writers=writers, **change)
    yield from worker_steps(scene, state, seen)
    if scene.retires:
        yield from retirement_steps(scene, state, seen)
    if state.shown is None and seen.log:
        flushed = 0 if "log-flush" in scene.wrong else len(state.commits)
        yield "a checkpoint is shown", state._replace(shown=(state.incarnation, seen.log), durable=flushed)
    if scene.crashes and not state.crashed:
        yield from crash_steps(scene, state)
    if scene.damaged:
        yield from damage_steps(state, seen)
    if scene.restored and not state.crashed:
        yield from restore_steps(state)


def writer_steps(scene, state, seen, i, writer):
    """The steps of a writer: (what, the writer then, what else changes)."""
    at, registered, rows = writer
    number = state.next
    taken = dict(next=number + 1)
    if at == BEGUN and "log-number" in scene.wrong:
        yield "takes a number", Writer(TAKEN, registered, (number,)), taken
    elif at == BEGUN:
        yield "takes a number", Writer(REGISTERED, registered | {number}, rows), taken
    elif at == TAKEN:
        yield "registers it", Writer(REGISTERED, registered | set(rows), ()), {}
    elif at == REGISTERED:      # nothing is said of a leaf that is gone
        yield "inserts", Writer(INSERTED, registered, () if seen.dropped else (min(registered),)), {}
    elif at == INSERTED and scene.savepoint and i == 0:
        yield "rolls back a savepoint", Writer(ROLLED_BACK, registered | {number}, rows), taken
    elif at in (INSERTED, ROLLED_BACK):
        visible = dict(commits=state.commits + (("rows", rows),))
        yield "commits", Writer(ENDED, registered, ()), visible
        yield "aborts", Writer(ENDED, registered, ()), {}
        if "log-callback" in scene.wrong:
            yield "ends its numbers", Writer(EARLY, NONE, rows), {}
    elif at == EARLY:
        yield "commits", Writer(GONE, NONE, ()), dict(commits=state.commits + (("rows", rows),))
    elif at == ENDED:
        yield "runs its callback", Writer(GONE), {}


def worker_steps(scene, state, seen):
    """A pass: the registry, the snapshot, the transaction."""
    unfinished = NONE.union(*[w.registered for w in state.writers])
    worker = state.worker
    if worker is None:
        if state.passes >= scene.passes:
            return
        begun = ("snapshot", len(state.commits)) if "log-snapshot" in scene.wrong else ("look", state.next, unfinished)
        yield "the worker looks", state._replace(worker=begun, passes=state.passes + 1)
    elif worker[0] == "look":
        yield "it takes a snapshot", state._replace(worker=("ready", worker[1], worker[2], len(state.commits)))
    elif worker[0] == "snapshot":
        yield "it looks at the registry", state._replace(worker=("ready", state.next, unfinished, worker[1]))
    elif worker[0] == "ready":
        commit = pass_commit(scene, state, seen)
        yield "it logs", state._replace(worker=None, commits=state.commits + (commit,))


def pass_commit(scene, state, seen):
    """What a pass commits."""
    _, limit, unfinished, snapshot = state.worker
    window = {n for n in range(seen.cursor, limit) if n not in unfinished}
    if "log-pending" not in scene.wrong:
        window |= seen.pending - unfinished
    rows = () if seen.dropped else tables(state.commits[:snapshot]).rows
    if state.again and "log-again" not in scene.wrong:
        window -= set(seen.log)
    entries = tuple(sorted(r for r in rows if r in window and r not in state.bad))
    if "log-unread" not in scene.wrong:
        unfinished = unfinished | (state.bad & window)
    pending = frozenset(n for n in unfinished if n < limit)
    return "log", entries, max(limit, seen.cursor), pending


def retirement_steps(scene, state, seen):
    """A retirement, between two passes; its lock needs that nobody has an uncommitted row in the leaf."""
    lockable = not any(w.rows and w.at in (INSERTED, ROLLED_BACK, EARLY) for w in state.writers)
    missing = tuple(sorted(set(seen.rows) - set(seen.log) - state.bad))
    worker = state.worker
    if worker and worker[0] == "sweep" and lockable:
        yield "it locks and drops", state._replace(worker=None, commits=state.commits + (("drop", worker[1]),))
    if worker is not None or seen.dropped or state.passes == 0:
        return
    if "log-lock" in scene.wrong:
        yield "it looks what is unlogged", state._replace(worker=("sweep", missing))
    elif lockable:
        entries = () if "log-sweep" in scene.wrong else missing
        yield "it drops", state._replace(commits=state.commits + (("drop", entries),))


def crash_steps(scene, state):
    """kill -9 or a loss of power, which leave a prefix of the WAL, and the promotion of a standby that lags."""
    dead = tuple(Writer(DEAD) if w.at < GONE else w for w in state.writers)
    after = state._replace(writers=dead, worker=None, passes=max(state.passes - 2, 0), crashed=True)
    for kept in range(state.durable, len(state.commits) + 1):
        yield f"a crash leaves {kept} commits", after._replace(commits=state.commits[:kept],
                                                               durable=min(state.durable, kept))
    origin = state.incarnation + ("log-origin" not in scene.wrong)
    for kept in range(state.durable):
        yield f"a standby with {kept} commits is promoted", after._replace(commits=state.commits[:kept], durable=kept,
                                                                           incarnation=origin)


def damage_steps(state, seen):
    """A row cannot be read, until it is repaired; one that is dropped so is gone."""
    if seen.dropped:
        return
    if state.bad:
        yield "the row is repaired", state._replace(bad=NONE)
    elif not state.was_bad and seen.rows:
        yield "a row is damaged", state._replace(bad=frozenset(seen.rows[:1]), was_bad=True)


def restore_steps(state):
    """A dump of any moment is restored into another database, where no cursor is known."""
    dead = tuple(Writer(DEAD) if w.at < GONE else w for w in state.writers)
    for kept in range(len(state.commits) + 1):
        commits = state.commits[:kept] + (("log", (), 0, NONE),)
        yield f"a dump of {kept} commits is restored", state._replace(
            writers=dead, worker=None, passes=max(state.passes - 2, 0), crashed=True, commits=commits,
            durable=len(commits), incarnation=state.incarnation + 1, again=True)
