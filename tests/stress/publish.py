"""A publisher of the stress test: batches, transactions of several, some rolled back in whole or in part, some that
dawdle while they are open."""

import json
import random
import time

from ledger import COMMITTED, ROLLED_BACK, UNKNOWN, now
from server import Lost, Refused

KEYS = 150                      # of each publisher
AHEAD = 20000                   # messages that publishers may be ahead of the slowest subscription


class Publisher:
    def __init__(self, client, ledger, name, shared):
        self.client = client
        self.ledger = ledger
        self.name = name
        self.shared = shared
        self.count = 0

    def run(self, quota):
        """Publish until "quota" messages are committed, or for ever if it is 0, or until the test stops it."""
        done = 0
        while not self.shared.stop_publishing.is_set() and (quota == 0 or done < quota):
            if self.shared.ahead() > AHEAD:
                time.sleep(0.02)
                continue
            if self.shared.rate:
                time.sleep(random.random() * 2 * 60 / self.shared.rate)
            n = self.transaction()
            done += n
            self.shared.add('published', n)
        self.client.close()

    def transaction(self):
        """One transaction; returns how many messages it has certainly committed."""
        how = random.choices(['call', 'several', 'rollback', 'savepoint', 'dawdle', 'dawdle_rollback', 'die'],
                             [50, 30, 6, 6, 3, 1, 1])[0]
        self.messages = []
        self.undone = []
        began = now()
        self.sent = None
        try:
            outcome = self.call() if how == 'call' else self.block(how)
        except Refused as refused:
            if refused.code not in ('55000', '53400'):
                self.ledger.wrong('%s: publishing was refused: %s' % (self.name, refused))
            self.client.rollback()
            outcome = ROLLED_BACK
            time.sleep(0.05)
        except Lost:
            outcome = UNKNOWN if self.sent else ROLLED_BACK
            self.ledger.fault('publish cut off')
        self.ledger.write('publish', outcome, began, self.sent, now(), self.messages, self.undone)
        return len(self.messages) if outcome == COMMITTED else 0

    def call(self):
        """A call that is a transaction of its own."""
        messages = self.make(random.choice([1, 10, 100, 200]))
        self.sent = now()
        self.publish(messages)
        return COMMITTED

    def block(self, how):
        """A transaction block of several calls."""
        self.client.rows('BEGIN')
        self.publish(self.make(random.choice([1, 5, 50])))
        if how == 'savepoint':
            self.savepoint()
        for _ in range(random.randint(0, 3)):
            self.publish(self.make(random.choice([1, 5, 50])))
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

    def savepoint(self):
        """Publish something that is undone."""
        self.client.rows('SAVEPOINT s')
        doomed = self.make(random.choice([1, 20]))
        self.publish(doomed)
        self.client.rows('ROLLBACK TO s')
        self.messages = [message for message in self.messages if message not in doomed]
        self.undone += [message[0] for message in doomed]
        self.ledger.fault('publish undone by a savepoint')

    def make(self, n):
        """Make up messages: [uid, key, delay, None].  A key is this publisher's, so that its messages have an order;
        those of keys with a d are delayed at times and have none.  An uid that ends with x is never acked."""
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
            messages.append([uid, key, delay, None])
        return messages

    def publish(self, messages):
        self.messages += messages
        if any(message[2] for message in messages):
            self.ledger.fault('delayed')
        batch = []
        for uid, key, delay, _ in messages:
            element = {'payload': uid}
            if key:
                element['key'] = key
            if delay:
                element['delay'] = delay
            batch.append(element)
        ids = self.client.one("SELECT message_bus.publish_batch('c', %s)", json.dumps(batch))
        for message, message_id in zip(messages, ids):
            message[3] = message_id
