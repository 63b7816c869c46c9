"""Channels that come and go: made, published to, worked off or not, dropped, and made again under the same name.

Churn is the only one that uses its channels, so it knows at each moment what must be in them, and checks that itself.  Half of
them have a series of segments of their own (retention "acked"), which goes when all in it is acknowledged.
"""

import random
import time

from ledger import now
from message import payload, uid_of
from server import Lost, Refused

NAMES = 6                       # of each process
OWN = 10
PATIENCE = 40                   # seconds for what was published to come


class Churn:
    def __init__(self, client, ledger, name, shared):
        self.client = client
        self.ledger = ledger
        self.name = name
        self.shared = shared
        self.count = 0
        self.own = 0                # channels made with a series of their own

    def run(self):
        while not self.shared.stop_publishing.is_set():
            self.life('t%s.%d' % (self.name, random.randrange(NAMES)))
        self.client.close()

    def life(self, channel):
        """The life of one channel."""
        self.committed, self.maybe = set(), set()       # uids; maybe: the outcome is not known
        self.acked, self.maybe_acked = set(), set()
        # the place of a dropped one is not free again at once, and there are 55
        retention = 'acked' if self.own < OWN and random.random() < 0.5 else 'ttl'
        self.own += retention == 'acked'
        self.surely("SELECT message_bus.drop_channel(%s, if_exists => true)", channel)
        self.surely("SELECT message_bus.create_channel(%s, retention => %s, ttl => %s, backoff => '0', "
                    "max_attempts => 1000, if_not_exists => true)", channel, retention,
                    random.choice(['1 hour', '6 hours', '48 hours']))
        self.surely("SELECT message_bus.create_subscription(%s, 's', ordered => %s, if_not_exists => true)", channel,
                    random.random() < 0.5)
        for _ in range(random.randint(1, 4)):
            self.publish(channel)
            if random.random() < 0.5:
                self.work(channel)
        if random.random() < 0.7:
            self.work_off(channel)
        self.surely('SELECT message_bus.drop_channel(%s, if_exists => true)', channel)
        self.gone(channel)
        self.ledger.fault('channel dropped, retention ' + retention)

    def surely(self, sql, *values):
        """Do something that can be done twice, until it has been."""
        while True:
            try:
                return self.client.rows(sql, *values)
            except Lost:
                pass
            except Refused as refused:
                if refused.code not in ('55000', '55P03'):
                    self.ledger.wrong('%s: %s: %s' % (self.name, sql, refused))
                    return []
                time.sleep(0.05)

    def publish(self, channel):
        uids = []
        for _ in range(random.choice([1, 10, 100])):
            self.count += 1
            uids.append('%s.%d' % (self.name, self.count))
        self.ledger.write('tried', len(uids))
        try:
            self.client.rows('SELECT message_bus.publish(%s, p::json, key => k) FROM unnest(%s::text[], %s::text[]) AS u (p, k)', channel,
                             list(map(payload, uids)), [random.choice([None, 'a', 'b', 'c']) for _ in uids])
            self.committed.update(uids)
        except Lost:
            self.maybe.update(uids)
        except Refused as refused:
            if refused.code not in ('55000', '53400'):
                self.ledger.wrong('%s: publishing to %s was refused: %s' % (self.name, channel, refused))

    def work(self, channel):
        """Claim once and do something with it; returns whether there was something."""
        try:
            rows = self.client.rows("SELECT lease, array_agg(id), array_agg(payload #>> '{}') FROM message_bus.claim(%s, 's', "
                                    "%s, lease_for => '5 seconds', wait => '0.2') GROUP BY lease", channel,
                                    random.choice([1, 20, 200]))
        except (Lost, Refused) as error:
            self.unless_starting(error, channel)
            return False
        if not rows:
            return False
        lease, ids, payloads = rows[0]
        uids = set(map(uid_of, payloads))
        if uids - self.committed - self.maybe:
            self.ledger.wrong('%s: %s delivers what was not published to it: %s'
                              % (self.name, channel, sorted(uids - self.committed - self.maybe)[:5]))
        if uids & self.acked:
            self.ledger.wrong('%s: %s delivers what was acked: %s' % (self.name, channel, sorted(uids & self.acked)[:5]))
        try:
            if random.random() < 0.1:
                self.client.rows("SELECT message_bus.nack(%s, %s, '0')", lease, ids)
            else:
                self.client.rows('SELECT message_bus.ack(%s, %s)', lease, ids)
                self.acked |= uids
        except Lost:
            self.maybe_acked |= uids
        except Refused as refused:
            self.unless_starting(refused, channel)
        return True

    def unless_starting(self, error, channel):
        if isinstance(error, Refused):
            if error.code not in ('55000', '53400'):
                self.ledger.wrong('%s: %s: %s' % (self.name, channel, error))
            time.sleep(0.05)

    def work_off(self, channel):
        """Work until all that was committed has been acknowledged."""
        end = now() + PATIENCE
        while self.committed - self.acked - self.maybe_acked:
            if self.work(channel):
                end = now() + PATIENCE
            if now() > end:
                left = self.committed - self.acked - self.maybe_acked
                self.ledger.wrong('%s: %s does not deliver %d of %d: %s'
                                  % (self.name, channel, len(left), len(self.committed), sorted(left)[:5]))
                return

    def gone(self, channel):
        """A channel that was dropped is not there."""
        try:
            self.client.rows("SELECT message_bus.publish(%s, '1')", channel)
            self.ledger.wrong('%s: publishing to %s works, which was dropped' % (self.name, channel))
        except Lost:
            pass
        except Refused as refused:
            if refused.code != '42P01':
                self.ledger.wrong('%s: publishing to %s, which was dropped: %s' % (self.name, channel, refused))
