"""What must be true when the stress test has drained its channel: the tables against what the clients know.

Checker compares them and collects what is wrong, at most a few of each kind, each with the messages it is about.
"""

import bisect
import collections
import json

from ledger import COMMITTED, ROLLED_BACK, UNKNOWN, read
from message import number_of, uid_of

SHOWN = 5                       # of each kind of fault

Delivery = collections.namedtuple('Delivery', 'lease attempt began ended outcome')
Done = collections.namedtuple('Done', 'lease outcome attempt at')
Failure = collections.namedtuple('Failure', 'lease attempt kind retry_at dead_letter_id')
Message = collections.namedtuple('Message', 'uid key available_at channel')

# the channels that are checked here: others check their own
MESSAGES = """
    SELECT m.id, message_bus.stored_json(m.payload, message_bus.compression_name(m.encoding), m.size,
               COALESCE(m.content_type, 'application/json'), m.sha256) #>> '{}', m.key,
        extract(epoch FROM COALESCE(m.available_at, m.created_at))::float8, c.name
    FROM message_bus.message m JOIN message_bus.channel c USING (channel_id) WHERE c.name ~ '^(c|f[0-9]+|g[0-9]+)$'"""
ACKS = """
    SELECT lo, hi, runs, n, a.lease, outcome, attempt, extract(epoch FROM at)::float8, c.name
    FROM message_bus.ack a JOIN message_bus.subscription s USING (subscription_id) JOIN message_bus.channel c USING (channel_id)
    WHERE s.name = %s"""
FAILURES = """
    SELECT message_id, lease, attempt, kind, extract(epoch FROM retry_at)::float8, dead_letter_id
    FROM message_bus.failure JOIN message_bus.subscription s USING (subscription_id) WHERE s.name = %s
    ORDER BY message_id, lease"""
DEAD_LETTERS = """
    SELECT m.id, (g.headers->'dead_letter'->>'id')::bigint, g.headers->'dead_letter'->>'subscription',
        (g.headers->'dead_letter'->>'attempts')::int, g.headers->'dead_letter'->>'channel', g.payload #>> '{}'
    FROM message_bus.messages m, LATERAL message_bus.get(m.id) g WHERE m.channel = 'dead'"""


class Checker:
    def __init__(self, client, paths, max_attempts):
        self.client = client
        self.paths = paths
        self.max_attempts = max_attempts
        self.wrong = collections.defaultdict(list)
        self.faults = collections.Counter()
        self.publishes = []
        self.restores = []
        self.not_stored = 0                             # messages that were published and not committed
        self.claims = collections.defaultdict(list)     # by subscription
        self.acks = collections.defaultdict(list)
        self.nacks = collections.defaultdict(list)
        self.blind = collections.defaultdict(list)

    def run(self, subscriptions, ordered):
        self.read_ledgers()
        self.messages = {}
        for i, text, *rest in self.client.rows(MESSAGES):
            self.messages[i] = Message(uid_of(text), *rest)
        self.check_publishes()
        dead = {}
        self.done = {}
        for subscription in subscriptions:
            dead.update(self.check_subscription(subscription, subscription in ordered))
        self.check_dead_letters(dead)
        self.check_restores(subscriptions)
        return self.wrong

    def problem(self, kind, *details):
        self.wrong[kind].append(' '.join(map(str, details)))

    def report(self):
        """The lines that tell what is wrong."""
        for kind, found in sorted(self.wrong.items()):
            yield '%s: %d' % (kind, len(found))
            for text in found[:SHOWN]:
                yield '    ' + text.replace('\n', ' ')

    def read_ledgers(self):
        for kind, *rest in read(self.paths):
            if kind == 'fault':
                self.faults[rest[0]] += 1
            elif kind == 'wrong':
                self.problem('seen by a client', rest[0])
            elif kind == 'publish':
                self.publishes.append(rest)
            elif kind == 'restore':
                self.restores.append(rest)
            elif kind == 'tried':
                self.not_stored += rest[0]
            else:
                getattr(self, {'claim': 'claims', 'ack': 'acks', 'nack': 'nacks', 'blind': 'blind'}[kind])[rest[0]] \
                    .append(rest[1:])

    # ----------
    # Publishing
    # ----------

    def check_publishes(self):
        """Everything committed is stored, once, and nothing else is."""
        stored = {}
        for i, message in self.messages.items():
            if message.uid in stored:
                self.problem('stored twice', message.uid, stored[message.uid], i)
            stored[message.uid] = i
        self.sent = {}          # uid: no earlier than that was it committed
        self.doomed = set()
        for outcome, began, sent, ended, messages, undone in self.publishes:
            there = [uid for uid, *rest in messages if uid in stored]
            self.doomed.update(undone)
            self.not_stored += len(undone)
            if outcome == UNKNOWN:
                if len(there) not in (0, len(messages)):
                    self.problem('transaction stored in part', there)
                outcome = COMMITTED if there else ROLLED_BACK
            if outcome == ROLLED_BACK:
                self.doomed.update(uid for uid, *rest in messages)
                self.not_stored += len(messages)
                continue
            for uid, key, delay, i, channel in messages:
                self.sent[uid] = sent
                if uid not in stored:
                    self.problem('committed and not stored', uid, i)
                elif i is not None and stored[uid] != i:
                    self.problem('stored under another id', uid, i, stored[uid])
                elif self.messages[stored[uid]].channel != channel or self.messages[stored[uid]].key != key:
                    self.problem('stored with another channel or key', uid, self.messages[stored[uid]])
                elif delay and self.messages[stored[uid]].available_at < began + delay:
                    self.problem('delay not kept', uid, delay)
        for uid, i in stored.items():
            if uid not in self.sent:
                self.problem('stored and not committed', uid, i)
        self.keys = collections.defaultdict(list)       # ids by key, in the order of publishing
        for i in sorted(self.messages):
            if self.messages[i].key:
                self.keys[self.messages[i].channel, self.messages[i].key].append(i)
        for key, ids in self.keys.items():
            numbers = [number_of(self.messages[i].uid) for i in ids]
            if numbers != sorted(numbers):
                self.problem('ids of a key are not in the order of publishing', key)

    # ----------
    # Deliveries
    # ----------

    def check_subscription(self, name, ordered):
        """Returns the dead: (subscription, id): Done, and the failure's dead letter."""
        done = self.done[name] = self.read_done(name)
        failures = collections.defaultdict(list)
        for i, *rest in self.client.rows(FAILURES, name):
            failures[i].append(Failure(*rest))
        deliveries = self.read_deliveries(name)

        for i, message in self.messages.items():
            if i not in done:
                self.problem('committed and never done', name, i, message.uid, message.key, failures[i][-1:])
        self.check_acks(name, done, failures)
        for i, list_ in deliveries.items():
            self.check_deliveries(name, i, list_, done.get(i), failures[i])
        rolled_back = {lease for outcome, began, ended, lease, *rest in self.claims[name] if outcome == ROLLED_BACK} - \
            {lease for outcome, began, ended, lease, *rest in self.claims[name] if outcome != ROLLED_BACK}
        for i, list_ in failures.items():
            self.check_failures(name, i, list_, done.get(i), rolled_back)
        if ordered:
            self.check_order(name, done, deliveries)
        return {(name, i): (entry, failures[i][-1] if failures[i] else None)
                for i, entry in done.items() if entry.outcome != 'acked'}

    def read_done(self, name):
        """Expand the rows of acks."""
        done = {}
        for lo, hi, runs, n, lease, outcome, attempt, at, channel in self.client.rows(ACKS, name):
            if runs is None:
                ids = list(range(lo, hi + 1))
            else:
                ids = [lo + offset + k for offset, length in zip(runs[::2], runs[1::2]) for k in range(length)]
            if len(ids) != n or ids[0] != lo or ids[-1] != hi:
                self.problem('row of acks does not count', name, lo, hi, n)
            for i in ids:
                if i in done:
                    self.problem('done twice', name, i, done[i], (lease, outcome))
                if i not in self.messages:
                    self.problem('done and not stored', name, i)
                elif self.messages[i].channel != channel:
                    self.problem('done in another channel', name, i, channel, self.messages[i])
                done[i] = Done(lease, outcome, attempt, at)
        return done

    def read_deliveries(self, name):
        deliveries = collections.defaultdict(list)
        for outcome, began, ended, lease, ids, attempts, uids in self.claims[name]:
            keys = [self.messages[i].key for i in ids if i in self.messages and self.messages[i].key]
            if name == 'ordered' and len(keys) != len(set(keys)):
                self.problem('claim has two of a key', name, lease)
            if len(ids) != len(set(ids)):
                self.problem('claim has a message twice', name, lease)
            for i, attempt, uid in zip(ids, attempts, uids):
                deliveries[i].append(Delivery(lease, attempt, began, ended, outcome))
                if uid in self.doomed or uid not in self.sent:
                    self.problem('delivered and not committed', name, i, uid)
                elif i not in self.messages or self.messages[i].uid != uid:
                    self.problem('delivered with the wrong payload', name, i, uid)
        for list_ in deliveries.values():
            list_.sort()
        return deliveries

    def check_deliveries(self, name, i, deliveries, done, failures):
        """The deliveries of one message, by lease."""
        message = self.messages.get(i)
        leases = [failure.lease for failure in failures]
        for k, delivery in enumerate(deliveries):
            n = bisect.bisect_left(leases, delivery.lease)      # failures before it
            if done and delivery.lease > done.lease:
                self.problem('delivered after it was done', name, i, delivery, done)
            if k > 0 and delivery.lease == deliveries[k - 1].lease:
                self.problem('delivered twice under one lease', name, i, delivery)
            if delivery.attempt > self.max_attempts:
                self.problem('attempt above the maximum', name, i, delivery)
            if delivery.attempt != n + 1:
                self.problem('attempt is not one more than the failures', name, i, delivery, failures)
            if n and delivery.ended < failures[n - 1].retry_at:
                self.problem('delivered again too early', name, i, delivery, failures[n - 1])
            if message and delivery.ended < message.available_at:
                self.problem('delivered before its delay', name, i, delivery, message)
            if message and delivery.ended < self.sent.get(message.uid, 0):
                self.problem('delivered before its commit', name, i, delivery, message)

    def check_failures(self, name, i, failures, done, rolled_back):
        for k, failure in enumerate(failures):
            if failure.attempt != k + 1 or failure.attempt > self.max_attempts:
                self.problem('attempts of failures', name, i, failures)
            if done and failure.lease >= done.lease and (done.outcome == 'acked' or failure.lease > done.lease):
                self.problem('failed after it was done', name, i, failure, done)
            if failure.lease in rolled_back:
                self.problem('failure of a claim that was rolled back', name, i, failure)
            self.faults['failure: ' + failure.kind] += 1

    def check_acks(self, name, done, failures):
        """An ack that was accepted is in the tables, under its lease, and one in the tables was asked for."""
        asked = collections.defaultdict(set)
        for outcome, began, ended, lease, ids in self.acks[name]:
            if outcome == UNKNOWN:
                there = sum(i in done and done[i].lease == lease and done[i].outcome == 'acked' for i in ids)
                if there not in (0, len(ids)):
                    self.problem('acked in part', name, lease, there, len(ids))
                outcome = COMMITTED if there else ROLLED_BACK
            if outcome != ROLLED_BACK:
                asked[lease].update(ids)
            if outcome == COMMITTED:
                for i in ids:
                    if i not in done or done[i].lease != lease or done[i].outcome != 'acked':
                        self.problem('acked, and the tables say otherwise', name, i, lease, done.get(i))
        blind = sorted(self.blind[name])
        for i, entry in done.items():
            if entry.outcome == 'acked' and i not in asked[entry.lease] and \
                    not any(began <= entry.at <= ended for began, ended in blind):
                self.problem('done, and nobody has acked it', name, i, entry)

        asked = collections.defaultdict(set)
        for outcome, began, ended, lease, ids in self.nacks[name]:
            if outcome != ROLLED_BACK:
                asked[lease].update(ids)
            if outcome == COMMITTED:
                for i in ids:
                    if not any(failure.lease == lease and failure.kind == 'nacked' for failure in failures[i]):
                        self.problem('nacked, and the tables say otherwise', name, i, lease, failures[i])
        for i, list_ in list(failures.items()):
            for failure in list_:
                if failure.kind == 'nacked' and i not in asked[failure.lease]:
                    self.problem('failed, and nobody has nacked it', name, i, failure)

    def check_order(self, name, done, deliveries):
        """In an ordered subscription a message comes only when those of its key before it are done; of keys with delayed
        messages, only when those that have come are."""
        for (channel, key), ids in self.keys.items():
            latest = 0          # when all so far were done
            by_lease = []
            for i in ids:
                first = min((delivery.ended for delivery in deliveries[i]), default=None) if i in deliveries else None
                if key[0] == 'k':
                    if first is not None and first < latest:
                        self.problem('key out of order', name, key, i, first, latest)
                    if i in done:
                        latest = max(latest, done[i].at)
                by_lease += [(delivery.lease, i, delivery) for delivery in deliveries.get(i, [])]
            by_lease.sort()
            for (_, a, before), (_, b, after) in zip(by_lease, by_lease[1:]):
                if a != b and before.lease >> 17 == after.lease >> 17 and \
                        (a not in done or done[a].at > after.ended):
                    self.problem('two of a key out at a time', name, key, a, before, b, after, done.get(a))

    def check_dead_letters(self, dead):
        """Each dead message has one copy in the dead-letter channel, and nothing else is there."""
        copies = {}
        for copy, i, subscription, attempts, channel, text in self.client.rows(DEAD_LETTERS):
            uid = uid_of(text)
            if (subscription, i) in copies:
                self.problem('dead letter twice', subscription, i)
            copies[subscription, i] = copy
            if (subscription, i) not in dead:
                self.problem('dead letter of a message that is not dead', subscription, i, copy)
            elif channel != self.messages[i].channel or attempts != self.max_attempts or uid != self.messages[i].uid:
                self.problem('dead letter is wrong', subscription, i, copy, channel, attempts, uid)
        for (subscription, i), (done, failure) in dead.items():
            self.faults['dead'] += 1
            if done.outcome != 'dead' or done.attempt != self.max_attempts:
                self.problem('dead, and not for its attempts', subscription, i, done)
            if (subscription, i) not in copies:
                self.problem('dead without a dead letter', subscription, i, done)
            elif failure is None or failure.dead_letter_id != copies[subscription, i] or failure.lease != done.lease:
                self.problem('dead, and the failure says otherwise', subscription, i, done, failure)

    # ----------
    # Restores, and figures
    # ----------

    def check_restores(self, subscriptions):
        """A dump has what was committed before it began, nothing that was begun after it, and nothing that was not
        committed in the end; of acks likewise."""
        for began, ended, path in self.restores:
            with open(path) as file:
                had, had_done = json.load(file)
            had = set(had or [])
            ids = {message.uid: i for i, message in self.messages.items()}
            for outcome, start, sent, end, messages, undone in self.publishes:
                there = {ids[uid] in had for uid, *rest in messages if uid in ids}
                if outcome == COMMITTED and end < began and False in there:
                    self.problem('committed before a dump and not in it', path, messages[0], end, began)
                if start > ended and True in there:
                    self.problem('published after a dump and in it', path, messages[0], start, ended)
                if len(there) > 1:
                    self.problem('transaction dumped in part', path, messages[0])
            if had - self.messages.keys():
                self.problem('dumped and not stored', path, sorted(had - self.messages.keys())[:SHOWN])
            for name in subscriptions:
                dumped = set((had_done or {}).get(name, []))
                if dumped - self.done[name].keys():
                    self.problem('done in a dump, and not done', path, name, sorted(dumped - self.done[name].keys())[:SHOWN])
                for outcome, start, end, lease, of_lease in self.acks[name]:
                    if outcome == COMMITTED and end < began and not dumped.issuperset(of_lease):
                        self.problem('acked before a dump and not in it', path, name, lease)
            self.faults['dump compared'] += 1

    def figures(self, subscriptions):
        """What was done, in numbers."""
        acked = [{i for i, entry in self.done[name].items() if entry.outcome == 'acked'} for name in subscriptions]
        return dict(messages=len(self.messages), acked=len(set.intersection(*acked)), acks=sum(map(len, acked)),
                    deliveries=sum(len(ids) for claims in self.claims.values() for _, _, _, _, ids, *rest in claims),
                    claims=sum(map(len, self.claims.values())), dead=self.faults['dead'],
                    failures=sum(n for name, n in self.faults.items() if name.startswith('failure: ')),
                    channels_dropped=sum(n for name, n in self.faults.items() if name.startswith('channel dropped')),
                    restores=self.faults['restored'], restores_cut_off=self.faults['restore cut off'],
                    keys=len(self.keys), wrong=sum(map(len, self.wrong.values())))
