"""A consumer of the stress test: claims messages and does with them what consumers do, and what they should not.

Each way to treat a claim is a method of Consumer named after the fault; HOW has their weights.  When the test drains,
all that is left is claim and ack.
"""

import hashlib
import random
import time

from ledger import COMMITTED, ROLLED_BACK, UNKNOWN, now
from message import payload, uid_of
from server import Lost, Refused

HOW = {
    'plain': 60, 'one_transaction': 10, 'one_statement': 4, 'claim_rollback': 3, 'claim_savepoint': 2, 'ack_rollback': 3,
    'ack_savepoint': 2, 'part': 4, 'nack': 3, 'nack_rollback': 2, 'die_terminated': 1, 'die_cut': 1, 'late': 2,
    'twice': 3, 'stale_ack': 5, 'pinned': 1, 'abandon': 1, 'longer': 1,
}
LONG, SHORT = '10 seconds', '0.25 seconds'
WATCHED = 100                   # channels that one call of wait() watches


def doomed(uid):
    """Whether a message is one that is never acked."""
    return uid.endswith('x')


class Claim:
    """What a claim has returned."""

    def __init__(self, lease, ids, attempts, uids):
        self.lease, self.ids, self.attempts, self.uids = lease, ids, attempts, uids

    def good(self):
        return [i for i, uid in zip(self.ids, self.uids) if not doomed(uid)]

    def bad(self):
        return [i for i, uid in zip(self.ids, self.uids) if doomed(uid)]


class Consumer:
    def __init__(self, client, ledger, name, subscription, shared, channels):
        """channels: those beside "c"."""
        self.client = client
        self.channels = channels
        self.ready = []         # channels of which wait() has said that they have something
        self.ledger = ledger
        self.name = name
        self.subscription = subscription
        self.shared = shared
        self.pending = []       # records that wait for their transaction's end
        self.in_block = False
        self.sent = False       # COMMIT was
        self.holding = None     # a claim that was committed, until something has become of it
        self.blind = None       # when a statement began that claims and acks
        self.stale = []         # (lease, ids) that must be refused

    def run(self):
        while not self.shared.stop.is_set():
            how = 'plain' if self.shared.drain.is_set() else random.choices(list(HOW), list(HOW.values()))[0]
            self.holding = self.blind = None
            try:
                getattr(self, how)()
            except Refused as refused:
                self.refused(refused)
            except Lost:
                self.lost()
        self.client.close()

    # ----------
    # Statements, and the ledger of them
    # ----------

    def begin(self):
        self.client.rows('BEGIN')
        self.in_block = True
        self.sent = False

    def end(self, outcome):
        """End the block; its records get the outcome."""
        if outcome == COMMITTED:
            self.sent = True
        self.client.rows('COMMIT' if outcome == COMMITTED else 'ROLLBACK')
        self.settle(outcome)

    def settle(self, outcome):
        self.in_block = False
        for record in self.pending:
            self.write(record, outcome)
        self.pending = []

    def write(self, record, outcome):
        kind, began, details = record
        self.ledger.write(kind, self.subscription, outcome, began, now(), *details)
        if kind == 'ack' and outcome == COMMITTED:
            self.shared.add(self.subscription, len(details[1]))

    def note(self, kind, began, *details):
        record = (kind, began, details)
        if self.in_block:
            self.pending.append(record)
        else:
            self.write(record, COMMITTED)

    def refused(self, refused):
        """A statement that should have worked was refused: what it was part of is rolled back."""
        self.client.rollback()
        self.settle(ROLLED_BACK)
        if refused.code == '55000' and not self.shared.drain.is_set():
            self.ledger.fault('refused with 55000')
        elif refused.code not in ('55000', '53400'):
            self.ledger.wrong('%s was refused: %s' % (self.name, refused))
        time.sleep(0.05)

    def lost(self):
        """The server has crashed: every lease of before is void."""
        unsure = None
        if not self.in_block or self.sent:
            unsure = next((record for record in self.pending if record[0] == 'ack'), None)
            self.settle(UNKNOWN)
        else:
            self.settle(ROLLED_BACK)
        self.ledger.fault('consumer cut off')
        if self.blind:
            self.ledger.write('blind', self.subscription, self.blind, now())
        if self.holding:
            self.stale.append((self.holding.lease, self.holding.ids))
        if unsure:
            self.resolve(*unsure[2])

    def resolve(self, lease, ids):
        """Repeat an ack of unknown outcome: all of it counts again, or nothing does."""
        began = now()
        try:
            n = self.client.one('SELECT message_bus.ack(%s, %s)', lease, ids)
            if n != len(ids):
                self.ledger.wrong('%s: repeated ack of %d ids of lease %d counts %d' % (self.name, len(ids), lease, n))
            self.ledger.write('ack', self.subscription, COMMITTED, began, now(), lease, ids)
            self.shared.add(self.subscription, n)
            self.ledger.fault('unknown ack repeated: it was committed')
        except Refused as refused:
            if refused.code != '55000':
                self.ledger.wrong('%s: repeated ack: %s' % (self.name, refused))
            self.ledger.fault('unknown ack repeated: it was not')
        except Lost:
            pass

    def channel(self, block):
        """Which channel to claim from: half of the time "c", else one of the others that has something."""
        if random.random() < 0.5 or (block and not self.ready):
            return 'c'
        if not self.ready:
            watched = random.sample(self.channels, min(WATCHED, len(self.channels)))
            found = self.client.one('CALL message_bus.wait(%s, %s, %s)', watched, [self.subscription] * len(watched), '0.1')
            self.ready = list(found or [])
            if self.ready:
                self.ledger.fault('waited for many channels')
        return self.ready.pop() if self.ready else 'c'

    def claim(self, lease_for=LONG, block=False):
        """Claim; returns a Claim, or None after a moment if there was nothing.  block: in a transaction that is left
        open."""
        batch = random.choice([1, 10, 100, 100, 300])
        channel = self.channel(block)
        began = now()
        if block and not self.in_block:
            self.begin()
        rows = self.client.rows(
            """SELECT lease, array_agg(id), array_agg(attempt), array_agg(payload #>> '{}'),
                   array_agg(encode(sha256, 'hex'))
               FROM message_bus.claim(%s, %s, %s, lease_for => %s, wait => %s) GROUP BY lease""",
            channel, self.subscription, batch, lease_for, '0.1' if channel == 'c' and not block else '0')
        if not rows:
            return None
        if len(rows) > 1:
            self.ledger.wrong('%s: a claim has %d leases' % (self.name, len(rows)))
        lease, ids, attempts, payloads, checksums = rows[0]
        claim = Claim(lease, ids, attempts, self.whole(payloads, checksums))
        self.note('claim', began, claim.lease, claim.ids, claim.attempts, claim.uids)
        if not block:
            self.holding = claim
        return claim

    def whole(self, payloads, checksums):
        """The uids of payloads, which must be what was published, with its checksum."""
        uids = list(map(uid_of, payloads))
        for uid, checksum in zip(uids, checksums):
            if ' ' in uid or hashlib.sha256(payload(uid).encode()).hexdigest() != checksum:
                self.ledger.wrong('%s: payload or checksum %s is wrong: %s' % (self.name, checksum, uid[:200]))
        return uids

    def ack(self, lease, ids):
        """Ack; in an open block, or in one of its own if the transaction id is wanted, or alone."""
        if not ids:
            return
        began = now()
        self.holding = None
        if not self.in_block:
            self.pending = [('ack', began, (lease, ids))]
        n = self.client.one('SELECT message_bus.ack(%s, %s)', lease, ids)
        if n != len(ids):
            self.ledger.wrong('%s: ack of %d ids of lease %d counts %d' % (self.name, len(ids), lease, n))
        self.pending = self.pending if self.in_block else []
        self.note('ack', began, lease, ids)

    def nack_ids(self, lease, ids, delay):
        if not ids:
            return
        began = now()
        self.holding = None
        if not self.in_block:
            self.pending = [('nack', began, (lease, ids))]
        n = self.client.one('SELECT message_bus.nack(%s, %s, %s)', lease, ids, delay)
        if n != len(ids):
            self.ledger.wrong('%s: nack of %d ids of lease %d counts %d' % (self.name, len(ids), lease, n))
        self.pending = self.pending if self.in_block else []
        self.note('nack', began, lease, ids)
        self.ledger.fault('nacked with backoff' if delay is None else 'nacked')

    def finish(self, claim):
        """Ack what is good, and nack what is not."""
        self.ack(claim.lease, claim.good())
        if claim.bad():
            self.nack_ids(claim.lease, claim.bad(), '0')

    def must_refuse(self, lease, ids, what):
        """Ack something that must be refused with 55000."""
        try:
            n = self.client.one('SELECT message_bus.ack(%s, %s)', lease, ids)
            self.ledger.wrong('%s: stale ack of lease %d, ids %s (%s) was accepted for %d'
                              % (self.name, lease, ids, what, n))
        except Refused as refused:
            if refused.code != '55000':
                self.ledger.wrong('%s: stale ack: %s' % (self.name, refused))
            self.ledger.fault('stale ack refused: ' + what)

    # ----------
    # What becomes of a claim
    # ----------

    def plain(self):
        claim = self.claim()
        if claim:
            self.finish(claim)

    def one_transaction(self):
        claim = self.claim(block=True)
        if claim:
            self.finish(claim)
        self.end(COMMITTED)

    def one_statement(self):
        """SELECT ack(lease) FROM claim(): each row acks the whole lease, again and again."""
        began = self.blind = now()
        rows = self.client.rows(
            """SELECT id, lease, attempt, payload #>> '{}', encode(sha256, 'hex'), message_bus.ack(lease)
               FROM message_bus.claim('c', %s, 10, lease_for => '10 seconds')""", self.subscription)
        if rows:
            ids, leases, attempts, payloads, checksums, counts = map(list, zip(*rows))
            uids = self.whole(payloads, checksums)
            if set(counts) != {len(ids)}:
                self.ledger.wrong('%s: ack(lease) FROM claim() of %d counts %s' % (self.name, len(ids), counts))
            self.note('claim', began, leases[0], ids, attempts, uids)
            self.note('ack', began, leases[0], ids)
            self.ledger.fault('acked in the claim')

    def claim_rollback(self):
        claim = self.claim(block=True)
        self.end(ROLLED_BACK)
        if claim:
            self.ledger.fault('claim rolled back')
            self.stale.append((claim.lease, claim.ids))

    def claim_savepoint(self):
        self.begin()
        self.client.rows('SAVEPOINT s')
        claim = self.claim(block=True)
        self.client.rows('ROLLBACK TO s')
        kept, self.pending = self.pending, []
        for record in kept:
            self.write(record, ROLLED_BACK)
        if claim:
            self.ledger.fault('claim undone by a savepoint')
        claim = self.claim(block=True)
        self.end(COMMITTED)
        if claim:
            self.holding = claim
            self.finish(claim)

    def ack_rollback(self):
        claim = self.claim()
        if claim and claim.good():
            self.begin()
            self.ack(claim.lease, claim.good())
            self.end(ROLLED_BACK)
            self.ledger.fault('ack rolled back')
            self.finish(claim)

    def ack_savepoint(self):
        claim = self.claim()
        good = claim.good() if claim else []
        if len(good) > 1:
            self.begin()
            self.ack(claim.lease, good[:1])
            self.client.rows('SAVEPOINT s')
            kept, self.pending = self.pending, []
            self.ack(claim.lease, good[1:])
            self.client.rows('ROLLBACK TO s')
            for record in self.pending:
                self.write(record, ROLLED_BACK)
            self.pending = kept
            self.end(COMMITTED)
            self.ledger.fault('ack undone by a savepoint')
            self.ack(claim.lease, good[1:])
        elif claim:
            self.finish(claim)

    def part(self):
        """Ack a part, nack another with backoff, and let go of the rest at once."""
        claim = self.claim()
        if claim:
            good = claim.good()
            random.shuffle(good)
            acked, nacked = good[:len(good) * 3 // 4], good[len(good) * 3 // 4:]
            self.ack(claim.lease, acked)
            self.ledger.fault('acked in part')
            half = len(nacked) // 2
            self.nack_ids(claim.lease, nacked[:half], None)
            self.nack_ids(claim.lease, nacked[half:] + claim.bad(), '0')

    def nack(self):
        claim = self.claim()
        if claim:
            self.nack_ids(claim.lease, claim.ids[:20], random.choice([None, '0', '0.2']))
            self.must_refuse(claim.lease, claim.ids[:1], 'nacked')
            claim.uids, claim.ids = claim.uids[20:], claim.ids[20:]
            self.finish(claim)

    def nack_rollback(self):
        claim = self.claim()
        if claim:
            self.begin()
            self.nack_ids(claim.lease, claim.ids, '0')
            self.end(ROLLED_BACK)
            self.ledger.fault('nack rolled back')
            self.finish(claim)

    def die_terminated(self):
        """The backend is terminated with a claim in its open transaction, and an ack of some of it."""
        claim = self.claim(block=True)
        if claim and claim.good():
            if random.random() < 0.5:
                self.ack(claim.lease, claim.good()[:5])
            try:
                self.client.rows('SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(10)')
            except Lost:
                self.ledger.fault('backend terminated with a claim')
            self.settle(ROLLED_BACK)
            self.stale.append((claim.lease, claim.ids))
        else:
            self.end(COMMITTED)

    def die_cut(self):
        """The client dies in the middle of its transaction."""
        claim = self.claim(block=True)
        self.client.cut()
        self.settle(ROLLED_BACK)
        if claim:
            self.ledger.fault('client died with a claim')

    def late(self):
        """Come late: the lease has expired, or is about to."""
        claim = self.claim(lease_for=SHORT)
        if claim and claim.good():
            time.sleep(random.choice([0.2, 0.25, 0.4, 0.8]))
            try:
                self.ack(claim.lease, claim.good())
                self.ledger.fault('late ack accepted')
            except Refused as refused:
                self.pending = []
                if refused.code != '55000':
                    raise
                self.ledger.fault('late ack refused')

    def twice(self):
        claim = self.claim()
        if claim:
            self.finish(claim)
            if claim.good():
                self.ack(claim.lease, claim.good())
                self.shared.add(self.subscription, -len(claim.good()))
                self.ledger.fault('acked twice')

    def stale_ack(self):
        """Ack what was rolled back, or what a crash has made void."""
        if self.stale:
            lease, ids = self.stale.pop(random.randrange(len(self.stale)))
            self.must_refuse(lease, ids[:3], 'void')

    def pinned(self):
        """An ack that is open when the deadline passes: it counts."""
        claim = self.claim(lease_for=SHORT)
        if claim and claim.good():
            self.begin()
            self.ack(claim.lease, claim.good())
            time.sleep(0.8)
            self.end(COMMITTED)
            self.ledger.fault('acked past the deadline by an open ack')

    def abandon(self):
        """Do nothing: the lease expires."""
        claim = self.claim(lease_for=SHORT)
        if claim:
            self.ledger.fault('abandoned')

    def longer(self):
        """Come late, but say so in time."""
        claim = self.claim(lease_for='1 second')
        if claim:
            self.client.rows("SELECT message_bus.extend(%s, '10 seconds')", claim.lease)
            time.sleep(1.3)
            self.ledger.fault('extended')
            self.finish(claim)
