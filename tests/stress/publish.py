"""A publisher of the stress test: batches to one channel and transactions to many, some rolled back in whole or in part, some
that dawdle while they are open, some with transaction ids, which are repeated until their outcome is known."""

import json
import random
import time

from ledger import COMMITTED, ROLLED_BACK, UNKNOWN, now
from message import payload
from server import Lost, Refused

KEYS = 150                      # of each publisher
AHEAD = 20000                   # messages that publishers may be ahead of the slowest subscription
MANY = 60                       # channels that one transaction publishes to at most
SIZE = 60                       # messages of a transaction, about

MANY_SQL = """SELECT message_bus.publish(c, p::json, key => k, transaction_id => t, delay => d)
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::interval[]) AS u (c, p, k, t, d)"""


class Publisher:
    def __init__(self, client, ledger, name, shared, channels):
        """channels: those beside "c"."""
        self.client = client
        self.ledger = ledger
        self.name = name
        self.shared = shared
        self.channels = channels
        self.count = 0

    def run(self, quota):
        """Publish until "quota" messages are committed, and slowly from there on until the test has enough, or for ever if it
        is 0, or until the test stops it."""
        done = 0
        while not self.shared.stop_publishing.is_set() and \
                (quota == 0 or done < quota or not self.shared.enough.is_set()):
            if self.shared.ahead() > AHEAD:
                time.sleep(0.02)
                continue
            if quota and done >= quota:
                time.sleep(0.2)
            if self.shared.rate:
                time.sleep(random.random() * 2 * SIZE / self.shared.rate)
            n = self.transaction()
            done += n
            self.shared.add('published', n)
        self.client.close()

    def transaction(self):
        """One transaction; returns how many messages it has certainly committed."""
        how = random.choices(['call', 'several', 'many', 'rollback', 'savepoint', 'dawdle', 'dawdle_rollback', 'die'],
                             [40, 25, 15, 6, 6, 3, 1, 1])[0]
        self.messages = []
        self.undone = []
        self.with_ids = random.random() < 0.25
        began = now()
        self.sent = None
        try:
            outcome = self.call() if how == 'call' else self.block(how)
        except Refused as refused:
            outcome = self.refused(refused)
        except Lost:
            outcome = self.lost()
        self.ledger.write('publish', outcome, began, self.sent, now(), self.messages, self.undone)
        if outcome == COMMITTED and self.with_ids and random.random() < 0.2:
            self.again()
        return len(self.messages) if outcome == COMMITTED else 0

    def refused(self, refused):
        if refused.code not in ('55000', '53400'):
            self.ledger.wrong('%s: publishing was refused: %s' % (self.name, refused))
        self.client.rollback()
        time.sleep(0.05)
        return ROLLED_BACK

    def lost(self):
        """The connection broke.  What has transaction ids and may have been committed is repeated."""
        self.ledger.fault('publish cut off')
        if not self.sent:
            return ROLLED_BACK
        while self.with_ids and not self.shared.stop.is_set():
            try:
                self.repeat()
                return COMMITTED
            except Lost:
                pass
            except Refused as refused:
                self.refused(refused)
        return UNKNOWN

    def call(self):
        """A call that is a transaction of its own."""
        channel = 'c' if random.random() < 0.7 else random.choice(self.channels)
        messages = self.make(random.choice([1, 10, 100, 200]), channel)
        self.sent = now()
        self.publish(messages)
        return COMMITTED

    def block(self, how):
        """A transaction block of several calls."""
        self.client.rows('BEGIN')
        self.some(how)
        if how == 'savepoint':
            self.savepoint()
        for _ in range(random.randint(0, 3)):
            self.some(how)
        if how.startswith('dawdle'):
            self.ledger.fault('publish dawdled')
            time.sleep(0.2 + random.random())
        if how == 'die':
            self.ledger.fault('publisher died')
            self.client.cut()
            return ROLLED_BACK
        if how.endswith('rollback'):
            self.client.rows('ROLLBACK')
            self.ledger.fault('publish rolled back')
            return ROLLED_BACK
        self.sent = now()
        self.client.rows('COMMIT')
        return COMMITTED

    def some(self, how):
        """Publish some: to many channels in one statement, or to one."""
        if how == 'many' or random.random() < 0.1:
            channels = random.sample(self.channels, random.randint(5, min(MANY, len(self.channels))))
            self.publish([message for channel in channels for message in self.make(random.choice([1, 1, 2]), channel)])
            self.ledger.fault('published to many channels')
        else:
            channel = 'c' if random.random() < 0.7 else random.choice(self.channels)
            self.publish(self.make(random.choice([1, 5, 50]), channel))

    def savepoint(self):
        """Publish something that is undone."""
        self.client.rows('SAVEPOINT s')
        doomed = self.make(random.choice([1, 20]), random.choice(['c', random.choice(self.channels)]))
        self.publish(doomed)
        self.client.rows('ROLLBACK TO s')
        self.messages = [message for message in self.messages if message not in doomed]
        self.undone += [message[0] for message in doomed]
        self.ledger.fault('publish undone by a savepoint')

    def repeat(self):
        """Publish all messages of the transaction once more, and see that their ids are the same."""
        before = [message[3] for message in self.messages]
        self.send(self.messages)
        for message, number in zip(self.messages, before):
            if number not in (None, message[3]):
                # what the transaction was told had not been committed; a crash frees the number
                if self.committed:
                    self.ledger.wrong('%s: %s has id %s, repeated %s' % (self.name, message[0], number, message[3]))
        self.ledger.fault('transaction repeated')

    def again(self):
        """Repeat what has been committed; and with other bytes, which is refused."""
        try:
            self.committed = True
            self.repeat()
            uid, _, _, _, channel = self.messages[0]
            self.client.rows("SELECT message_bus.publish(%s, '\"other bytes\"', transaction_id => %s)", channel, uid)
            self.ledger.wrong('%s: other bytes were taken for transaction id %s' % (self.name, uid))
        except Lost:
            pass
        except Refused as refused:
            if refused.code == '23505':
                self.ledger.fault('transaction id with other bytes refused')
            else:
                self.refused(refused)
        finally:
            self.committed = False

    committed = False           # whether what is repeated is known to be

    def make(self, n, channel):
        """Make up messages: [uid, key, delay, None, channel].  A key is this publisher's, so that its messages have an
        order; those of keys with a d are delayed at times and have none.  An uid that ends with x is never acked."""
        messages = []
        for _ in range(n):
            self.count += 1
            dice = random.random()
            key = delay = None
            if dice < 0.3:
                key = 'k%s.%d' % (self.name, random.randrange(KEYS))
            elif dice < 0.35:
                key = 'd%s.%d' % (self.name, random.randrange(KEYS))
            if dice > 0.95 or 0.3 < dice < 0.33:
                delay = round(random.random() * 2, 3) + 0.001
            uid = '%s.%d%s' % (self.name, self.count, 'x' if random.random() < 0.0005 else '')
            messages.append([uid, key, delay, None, channel])
        return messages

    def publish(self, messages):
        self.messages += messages
        if any(message[2] for message in messages):
            self.ledger.fault('delayed')
        self.send(messages)

    def send(self, messages):
        """One statement that publishes all of them: a batch if they are of one channel."""
        channels = {message[4] for message in messages}
        if len(channels) == 1:
            ids = self.client.one('SELECT message_bus.publish_batch(%s, %s)', channels.pop(),
                                  '[' + ','.join(map(self.element, messages)) + ']')
        else:
            uids, keys, delays, _, names = map(list, zip(*messages))
            delays = [None if delay is None else '%.3f seconds' % delay for delay in delays]
            ids = [row[0] for row in self.client.rows(MANY_SQL, names, list(map(payload, uids)), keys,
                                                      uids if self.with_ids else [None] * len(uids), delays)]
        for message, message_id in zip(messages, ids):
            message[3] = message_id

    def element(self, message):
        """A message as publish_batch takes it."""
        uid, key, delay, _, _ = message
        more = {}
        if key:
            more['key'] = key
        if delay:
            more['delay'] = delay
        if self.with_ids:
            more['transaction_id'] = uid
        return json.dumps(more)[:-1] + (',' if more else '') + '"payload":' + payload(uid) + '}'
