"""The cases: scenes of the right protocol, in which no fault may be found, and of wrong ones, in which one must be.

RIGHT is what "run" explores, and LONG what "run --long" explores besides: (name, settings of actors.Scene).
WRONG are single deviations: (what is wrong, name of the switch, kind of fault, settings).  A switch is looked up in
scene.wrong where the model deviates.
"""
from actors import Plan
from bus import Message

ONE = (Message(),)
TWO = (Message(), Message())
THREE = (Message(), Message(), Message())
LATER = (Message(at=3), Message(at=3), Message(at=2))
KEYS = (Message("K"), Message("K"))
KEYS_LATER = (Message("K"), Message("K"), Message("L"))
BOTH = ("ack", "nack")
DEAD = dict(redrive=1, dead=True)
ORDERED = dict(ordered=True, order=True)
CRASH = dict(checkpoints=1, crashes=1)

RIGHT = [
    # publishing and the scan
    ("publish order vs commit order, commit during a scan, claim rollback; two consumers",
     dict(publishers=(Plan(), Plan()), consumers=2, rollback=True, order=True)),
    ("a publish that aborts vs a scan; claim rollback; two consumers",
     dict(publishers=(Plan(), Plan(commits=False)), consumers=2, rollback=True, order=True)),
    ("savepoint rollback in a publish vs a scan",
     dict(publishers=(Plan(kept=(True, False)), Plan(kept=(False, True))), rollback=True, order=True, batch=2)),
    ("batches larger than what is there vs late commits",
     dict(publishers=(Plan(), Plan()), claims=3, batch=2)),
    ("a scan that fails vs a late commit and an ack",
     dict(publishers=(Plan(),), messages=ONE, claims=3, aborts=True, rollback=True)),

    # leases
    ("lease expiry vs open ack and nack; two consumers",
     dict(messages=TWO, consumers=2, commits=BOTH, worker=True)),
    ("ack rollback, also to a savepoint, and ack in the claim's transaction vs expiry; two consumers",
     dict(messages=ONE, consumers=2, commits=BOTH, within=BOTH, rollback=True, aborts=True, worker=True,
          max_attempts=3)),
    ("redelivery vs late and repeated ack, in part too",
     dict(messages=TWO, consumers=2, commits=BOTH, worker=True, batch=2, partial=True)),
    ("retries with and without a delay vs expiry; the last attempt",
     dict(messages=TWO, claims=3, commits=BOTH, worker=True, delays=(0, 1), last_tick=2)),
    ("a batch shared between redeliveries and fresh messages",
     dict(messages=THREE, claims=4, commits=BOTH, worker=True, batch=2, share=1)),

    # delays
    ("delayed publish vs cursor, commit during a scan",
     dict(publishers=(Plan(delay=1), Plan()), claims=3, last_tick=3)),
    ("delayed publish vs two consumers and retries",
     dict(publishers=(Plan(delay=1),), consumers=2, commits=BOTH, last_tick=3)),
    ("delayed messages of several times vs single claims; two consumers",
     dict(messages=LATER, consumers=2, last_tick=3)),
    ("delayed publishes vs single claims",
     dict(messages=LATER, publishers=(Plan(delay=1),), claims=5, last_tick=3)),

    # keys
    ("keys: ack vs a claim of the key's next; two consumers",
     dict(messages=KEYS_LATER, consumers=2, commits=BOTH, **ORDERED)),
    ("keys: ack and claim rollback; batches",
     dict(messages=KEYS_LATER, consumers=2, commits=BOTH, within=("ack",), rollback=True, batch=2, aborts=True,
          **ORDERED)),
    ("keys: publish order vs commit order; two consumers",
     dict(publishers=(Plan(), Plan()), consumers=2, **ORDERED)),
    ("keys: retries with a delay vs expiry; two consumers",
     dict(messages=KEYS, consumers=2, commits=BOTH, delays=(0, 1), last_tick=2, worker=True, **ORDERED)),
    ("keys: a delayed publish takes its place when it is due",
     dict(messages=KEYS, publishers=(Plan(delay=1),), claims=3, commits=BOTH, last_tick=3, **ORDERED)),

    # seek
    ("seek vs claim, claim rollback, open ack and nack; two consumers",
     dict(messages=ONE, consumers=2, commits=BOTH, within=("ack",), seeks=(1,), rollback=True, aborts=True)),
    ("two seeks vs expiry",
     dict(messages=TWO, claims=3, commits=BOTH, seeks=(1, 2), worker=True)),
    ("seek vs late commit, checkpoint and crash",
     dict(publishers=(Plan(),), messages=ONE, claims=2, seeks=(1,), **CRASH)),
    ("keys: seek vs claim; two consumers",
     dict(messages=KEYS, consumers=2, commits=BOTH, seeks=(1,), **ORDERED)),

    # redrive
    ("redrive vs claim, checkpoint and crash",
     dict(messages=ONE, last_tick=2, **DEAD, **CRASH)),
    ("redrive of a message that dies, vs claim, rollbacks; two consumers",
     dict(messages=TWO, consumers=2, commits=BOTH, redrive=1, max_attempts=1, aborts=True)),
    ("redrive of a message that dies, vs checkpoint and crash",
     dict(messages=ONE, claims=3, commits=BOTH, redrive=1, max_attempts=1, last_tick=2, **CRASH)),
    ("redrive vs seek, checkpoint and crash",
     dict(messages=ONE, seeks=(1,), **DEAD, **CRASH)),
    ("redrive vs seek; two messages",
     dict(messages=TWO, commits=BOTH, seeks=(1,), last_tick=2, **DEAD)),
    ("keys: redrive vs seek",
     dict(messages=KEYS, commits=BOTH, seeks=(1,), **DEAD, **ORDERED)),
    ("keys: redrive vs claim; two consumers",
     dict(messages=KEYS, consumers=2, commits=BOTH, batch=2, **DEAD, **ORDERED)),
    ("keys: redrive vs commit during a scan",
     dict(messages=KEYS[:1], publishers=(Plan(keys=("",)), Plan()), batch=2, **DEAD, **ORDERED)),
    ("keys: redrive vs a delayed publish",
     dict(messages=KEYS[:1], publishers=(Plan(delay=1),), claims=3, commits=BOTH, batch=2, last_tick=2,
          **DEAD, **ORDERED)),
    ("keys: redrive vs late commit, checkpoint and crash",
     dict(messages=KEYS[:1], publishers=(Plan(),), batch=2, **DEAD, **ORDERED, **CRASH)),

    ("keys: redrive, retries with a delay and a crash vs a waiting claim's probe",
     dict(messages=KEYS, commits=BOTH, delays=(1,), last_tick=2, batch=2, probes=True, crashes=1,
          **DEAD, **ORDERED)),

    # checkpoint, crash, load
    ("checkpoint and crash vs claim, ack, nack and expiry",
     dict(messages=TWO, claims=3, commits=BOTH, worker=True, **CRASH)),
    ("checkpoint and two crashes vs late and repeated acks; two consumers; attempts",
     dict(messages=ONE, consumers=2, commits=BOTH, checkpoints=1, crashes=2)),
    ("checkpoint and crash vs late commits and claim rollback",
     dict(publishers=(Plan(),), messages=ONE, claims=3, rollback=True, **CRASH)),
    ("checkpoint and crash vs retries with a delay",
     dict(messages=ONE, claims=3, commits=BOTH, delays=(0, 1), last_tick=3, **CRASH)),
    ("checkpoint and crash vs delayed publish",
     dict(publishers=(Plan(delay=1),), messages=ONE, claims=2, last_tick=2, **CRASH)),
    ("keys: checkpoint and crash vs claim, ack and nack",
     dict(messages=KEYS_LATER, claims=3, commits=BOTH, batch=2, **ORDERED, **CRASH)),
    ("keys: checkpoint and crash vs late commits",
     dict(publishers=(Plan(), Plan(keys=("",))), claims=2, batch=2, **ORDERED, **CRASH)),
]

LONG = [
    ("two checkpoints and two crashes vs late acks; two consumers; three attempts",
     dict(messages=ONE, consumers=2, commits=BOTH, within=("ack",), checkpoints=2, crashes=2, max_attempts=3)),
    ("three publishes; claim rollback; two consumers",
     dict(publishers=(Plan(), Plan(), Plan(commits=False)), consumers=2, rollback=True, order=True)),
    ("savepoint rollback in a publish vs two consumers",
     dict(publishers=(Plan(kept=(True, False)), Plan(kept=(False, True))), consumers=2, rollback=True, order=True,
          batch=2)),
    ("retries with and without a delay vs expiry; two consumers",
     dict(messages=TWO, consumers=2, commits=BOTH, worker=True, delays=(0, 1), last_tick=2)),
    ("two delayed publishes; two consumers",
     dict(publishers=(Plan(delay=1), Plan(delay=1)), consumers=2, last_tick=3)),
    ("two delayed publishes and one at once; batches",
     dict(publishers=(Plan(delay=1), Plan(delay=1), Plan()), claims=3, last_tick=3, batch=2, share=1)),
    ("seek vs claims of two messages; two consumers",
     dict(messages=TWO, consumers=2, commits=BOTH, seeks=(1,), rollback=True, within=("ack",), aborts=True)),
    ("keys: a delayed publish; two consumers",
     dict(messages=KEYS, publishers=(Plan(delay=1),), consumers=2, commits=BOTH, last_tick=3, **ORDERED)),
    ("keys: checkpoint and crash vs a delayed publish",
     dict(publishers=(Plan(), Plan(delay=1)), commits=("ack",), batch=2, last_tick=2, **ORDERED, **CRASH)),
    ("redrive vs seek, nack, checkpoint and crash",
     dict(messages=ONE, commits=BOTH, seeks=(1,), last_tick=2, **DEAD, **CRASH)),
    ("keys: redrive vs late commit, checkpoint and crash, as time goes by",
     dict(messages=KEYS[:1], publishers=(Plan(),), batch=2, last_tick=2, **DEAD, **ORDERED, **CRASH)),
    ("keys: redrive of two, vs late commit, checkpoint and crash",
     dict(messages=KEYS, publishers=(Plan(keys=("",)),), batch=2, **DEAD, **ORDERED, **CRASH)),
    ("checkpoint and crash vs late commits and claim rollback; two publishes",
     dict(publishers=(Plan(), Plan()), rollback=True, **CRASH)),
    ("checkpoint and crash vs a delayed and a late commit",
     dict(publishers=(Plan(), Plan(delay=1)), last_tick=2, **CRASH)),
    ("checkpoint and crash vs two consumers and failing scans",
     dict(publishers=(Plan(),), messages=ONE, consumers=2, aborts=True, **CRASH)),
]

WRONG = [
    # publishing and the scan
    ("the snapshot is taken before the registry is copied", "snapshot-first", "lost",
     dict(publishers=(Plan(),))),
    ("ids are registered after they have been given out", "range-registered-late", "lost",
     dict(publishers=(Plan(),))),
    ("a range leaves the registry before its commit is visible", "range-freed-early", "lost",
     dict(publishers=(Plan(),))),
    ("the cursor passes an unfinished range and does not record it", "unfinished-dropped", "lost",
     dict(publishers=(Plan(),))),
    ("the skipped list is not read", "skipped-unread", "lost",
     dict(publishers=(Plan(),))),
    ("a full batch moves the cursor to the limit", "cursor-to-limit", "lost",
     dict(messages=TWO)),
    ("a claim that is rolled back gives nothing back", "rollback-forgets", "lost",
     dict(messages=ONE, rollback=True)),
    ("entries a scan has taken are not busy", "busy-without-taken", "twice",
     dict(messages=ONE, claims=4, commits=BOTH, rollback=True, batch=2)),
    ("busy ids are copied after the snapshot", "memory-last", "twice",
     dict(messages=ONE, consumers=2, commits=BOTH, max_attempts=3)),

    # leases
    ("an ack does not check its lease", "lease-unchecked", "stale",
     dict(messages=ONE, worker=True)),
    ("an expiry does not heed the pin of an ack", "expiry-ignores-pin", "stale",
     dict(messages=ONE, worker=True)),
    ("an ack's rollback leaves its pin", "abort-keeps-pin", "lost",
     dict(messages=ONE, aborts=True)),
    ("a repeated ack of a dead message counts", "dead-counts-as-acked", "stale",
     dict(messages=ONE, commits=BOTH, worker=True, max_attempts=1)),
    ("a nacked message is given out before its failure is visible", "ready-before-commit", "redelivered",
     dict(messages=ONE, consumers=2, commits=BOTH)),
    ("the retry position is not pulled back by a nack", "no-pull-back", "lost",
     dict(messages=ONE, consumers=2, commits=BOTH, last_tick=2)),
    ("the retry position is advanced when the scan is recorded", "retry-advanced-late", "lost",
     dict(messages=ONE, consumers=2, commits=BOTH, last_tick=2)),
    ("the retry position is overwritten when the scan is recorded", "retry-set-blindly", "lost",
     dict(messages=ONE, consumers=2, commits=BOTH, last_tick=2)),

    # delays
    ("a delayed message is given out early", "delay-ignored", "early",
     dict(publishers=(Plan(delay=1),))),
    ("a time position passes what there was no room for", "cut-ignored", "lost",
     dict(publishers=(Plan(delay=1), Plan(delay=1)), claims=3, last_tick=3)),
    ("the due position passes the first that there was no room for", "due-behind-cut", "lost",
     dict(publishers=(Plan(delay=1), Plan(delay=1)), claims=4, last_tick=3)),
    ("the due position is that of the lowest id that there was no room for", "due-at-cut", "lost",
     dict(messages=LATER, claims=3, last_tick=3)),

    # keys
    ("a key is free before its ack commits", "key-freed-early", "order",
     dict(messages=KEYS, consumers=2, **ORDERED)),
    ("a key is free though a message was passed over", "free-though-passed", "lost",
     dict(messages=KEYS, consumers=2, **ORDERED)),
    ("passing over is recorded at the scan's end", "passed-recorded-late", "lost",
     dict(messages=KEYS, consumers=2, **ORDERED)),
    ("a key's next is dropped though more was passed over meanwhile", "next-dropped", "lost",
     dict(messages=KEYS, publishers=(Plan(),), consumers=2, **ORDERED)),
    ("a key's next forgets that there may be more", "next-forgets", "lost",
     dict(messages=KEYS + KEYS[:1], claims=3, **ORDERED)),
    ("an ordered message of before the crash that failed is left to its time", "failed-left", "order",
     dict(messages=KEYS, commits=BOTH, **ORDERED, **CRASH)),

    # seek
    ("a seek leaves the entries", "seek-keeps-entries", "twice",
     dict(messages=ONE, consumers=2, seeks=(1,))),
    ("no second check before commit", "not-rechecked", "stale",
     dict(messages=ONE, seeks=(1,))),
    ("a seek does not hold the scanner slot", "seek-without-slot", "stale",
     dict(messages=ONE, consumers=2, commits=BOTH, seeks=(1,))),
    ("a seek frees pinned entries", "freed-while-pinned", "lost",
     dict(messages=ONE, consumers=2, seeks=(1,))),

    # redrive
    ("a redrive does not pull back the retry position", "redrive-unpulled", "lost",
     dict(messages=ONE, last_tick=2, **DEAD)),
    ("a redriven message above the cursor is taken by its time too", "retry-above-cursor", "twice",
     dict(messages=ONE, batch=2, seeks=(1,), **DEAD)),
    ("the checkpoint does not heed open redrives", "redrive-without-floor", "lost",
     dict(messages=ONE, last_tick=2, **DEAD, **CRASH)),
    ("keys: a redrive does not void the scan at work", "reload-unnoticed", "lost",
     dict(messages=KEYS, **DEAD, **ORDERED)),
    ("keys: what is read again after a redrive is not checked", "reload-unchecked", "twice",
     dict(messages=KEYS, **DEAD, **ORDERED)),
    ("keys: a redrive leaves the skipped ranges, which are read twice", "reload-keeps-skipped", "twice",
     dict(messages=KEYS[:1], publishers=(Plan(keys=("",)),), batch=2, **DEAD, **ORDERED)),
    ("keys: a load does not look for redrives after the checkpoint", "load-misses-redrives", "lost",
     dict(messages=KEYS, **DEAD, **ORDERED, **CRASH)),
    ("keys: a probe lets go of a key whose next message waits for a retry", "probe-drops-waiting", "lost",
     dict(messages=KEYS, commits=BOTH, delays=(1,), last_tick=2, batch=2, probes=True, crashes=1,
          **DEAD, **ORDERED)),
    ("keys: the checkpoint does not heed open redrives", "redrive-without-floor", "lost",
     dict(messages=KEYS, last_tick=2, **DEAD, **ORDERED, **CRASH)),

    # checkpoint, crash, load
    ("lease numbers begin anew after a crash", "same-epoch", "stale",
     dict(messages=TWO, consumers=2, **CRASH)),
    ("messages of before the crash are not checked", "restart-unchecked", "twice",
     dict(messages=ONE, **CRASH)),
    ("a delivery that a crash cut off is no attempt", "crash-uncounted", "redelivered",
     dict(messages=ONE, **CRASH)),
    ("a crash judges by attempt and time, not by lease", "crash-by-attempt", "attempts",
     dict(messages=ONE, claims=3, commits=BOTH, redrive=1, max_attempts=1, last_tick=2, **CRASH)),
    ("a claim that has not committed is an attempt", "held-is-leased", "attempts",
     dict(messages=ONE, **CRASH)),
    ("the checkpoint takes the higher retry position", "checkpoint-mid-scan", "lost",
     dict(messages=ONE, claims=3, commits=BOTH, delays=(0, 1), last_tick=3, **CRASH)),
    ("the checkpoint has no entries that a scan has taken", "checkpoint-without-taken", "lost",
     dict(messages=ONE, rollback=True, **CRASH)),
    ("the checkpoint is copied in two steps", "checkpoint-torn", "lost",
     dict(messages=ONE, **CRASH)),
    ("the checkpoint takes since_lease from the row", "since-from-row", "lost",
     dict(messages=ONE, seeks=(1,), **CRASH)),
    ("the load does not pull back the retry position", "load-without-pull", "lost",
     dict(messages=ONE, claims=3, commits=BOTH, last_tick=3, **CRASH)),
    ("keys: the checkpoint keeps its cursor", "cursor-not-lowered", "order",
     dict(messages=KEYS, **ORDERED, **CRASH)),
    ("keys: the checkpoint's cursor is above what was passed over", "cursor-above-passed", "lost",
     dict(publishers=(Plan(), Plan()), consumers=2, claims=1, ordered=True, **CRASH)),
    ("keys: the checkpoint keeps skipped ranges above its cursor", "skipped-kept", "twice",
     dict(messages=KEYS[:1], publishers=(Plan(keys=("",)),), commits=BOTH, batch=2, **ORDERED, **CRASH)),
]
