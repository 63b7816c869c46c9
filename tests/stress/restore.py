"""Dumps of the running bus, restored into a second database of the same server.

Restorer dumps, restores, writes to a file what the dump had, which check.py compares with what the clients know, and works
off the copy: exactly what was not done in it is delivered, each message once, with its checksum.  A dump or restore that was cut
off by a kill is made again; then the driver spares the server until it is done (Shared.hold).
"""

import json
import os
import random
import re
import shutil
import subprocess
import time

from ledger import now
from server import PORT, SECOND, Lost, Refused

PATIENCE = 60                   # seconds for all of a copy to come
JOBS = (1, 2)                   # of pg_dump and pg_restore
# what a program says whose server was killed
CUT_OFF = re.compile(r'server closed the connection|terminating connection|connection to server|not yet accepting|'
                     r'the database system is|no connection to the server|another server process|'
                     r'server unexpectedly|Connection refused|SSL SYSCALL|could not receive data|could not send data')

# what must come: all messages of a subscription's channel that it has not done, less what dies of a crash meanwhile
EXPECTED = """
    CREATE VIEW all_done AS
        SELECT a.subscription_id, g.id, a.outcome FROM message_bus.ack a CROSS JOIN LATERAL (
            SELECT generate_series(a.lo, a.hi) WHERE a.runs IS NULL
            UNION ALL SELECT generate_series(a.lo + a.runs[2 * i - 1], a.lo + a.runs[2 * i - 1] + a.runs[2 * i] - 1)
            FROM generate_series(1, array_length(a.runs, 1) / 2) i) g (id);
    CREATE TABLE done AS SELECT subscription_id, id FROM all_done;
    CREATE TABLE expected AS
        SELECT s.subscription_id, m.id FROM message_bus.subscription s JOIN message_bus.message m USING (channel_id)
        EXCEPT SELECT subscription_id, id FROM done;
    CREATE TABLE got (subscription_id integer, id bigint, whole boolean);
"""
# claim some of each subscription of a channel, or of all channels, and ack it
WORK = """
    WITH c AS MATERIALIZED (SELECT s.subscription_id, m.id, m.lease, m.payload, m.sha256
        FROM message_bus.subscription s JOIN message_bus.channel c USING (channel_id),
            LATERAL message_bus.claim(c.name, s.name, %s) m
        WHERE %s IN (c.name, 'all')),
    a AS MATERIALIZED (SELECT message_bus.ack(lease) FROM (SELECT DISTINCT lease FROM c) l)
    INSERT INTO got SELECT subscription_id, id, sha256 = sha256(convert_to(payload::text, 'UTF8'))
        FROM c, (SELECT count(*) FROM a) n
    RETURNING 1"""
MISSING = """SELECT subscription_id, id FROM expected EXCEPT SELECT subscription_id, id FROM got
        EXCEPT SELECT subscription_id, id FROM all_done WHERE outcome <> 'acked'"""
# the ids of messages that the dump had, and for each name of a subscription those of what was done
HAD = """SELECT (SELECT array_agg(id ORDER BY id) FROM message_bus.message JOIN message_bus.channel USING (channel_id)
            WHERE name ~ '^(c|f[0-9]+|g[0-9]+)$'),
        (SELECT json_object_agg(name, ids) FROM (SELECT s.name, array_agg(d.id ORDER BY d.id) AS ids
            FROM done d JOIN message_bus.subscription s USING (subscription_id)
            JOIN message_bus.channel c USING (channel_id)
            WHERE c.name ~ '^(c|f[0-9]+|g[0-9]+)$' GROUP BY 1) x)"""
WRONG = """
    SELECT 'not delivered', count(*), min(id) FROM (""" + MISSING + """) x
    UNION ALL SELECT 'delivered, and was done', count(*), min(id)
        FROM (SELECT subscription_id, id FROM got EXCEPT SELECT subscription_id, id FROM expected) x
    UNION ALL SELECT 'delivered twice', count(*), min(id)
        FROM (SELECT subscription_id, id FROM got GROUP BY subscription_id, id HAVING count(*) > 1) x
    UNION ALL SELECT 'delivered with a wrong checksum', count(*), min(id) FROM got WHERE whole IS NOT TRUE"""


class CutOff(Exception):
    """The server was killed meanwhile."""


class Restorer:
    def __init__(self, server, ledger, name, shared):
        self.server = server
        self.ledger = ledger
        self.name = name
        self.shared = shared
        self.client = server.client('stress ' + name)
        self.dump = server.directory + '/dump'
        self.count = 0

    def run(self, times, seconds):
        """Restore so many times, at even intervals in the first two thirds of so many seconds, but no longer than there are
        publishers, except for the first time."""
        self.shared.restore.wait()
        for number in range(times):
            self.shared.stop_publishing.wait(seconds * 2 / 3 / times if number else min(seconds / 10, 30))
            if number and self.shared.stop_publishing.is_set():
                break
            self.once()
        self.client.close()

    def once(self):
        while True:
            try:
                self.restore()
                self.ledger.fault('restored')
                break
            except (Lost, CutOff) as error:
                print('# copy %d was cut off: %s' % (self.count, error), flush=True)
                self.ledger.fault('restore cut off')
                self.shared.hold.set()
            except Refused as refused:
                self.ledger.wrong('%s: refused: %s' % (self.name, refused))
                break
        self.shared.hold.clear()

    def restore(self):
        """Dump, restore, write down what there is, and work it off."""
        self.count += 1
        jobs = random.choice(JOBS)
        shutil.rmtree(self.dump, ignore_errors=True)
        self.drop_copy()
        self.client.rows('CREATE DATABASE ' + SECOND)
        began = now()
        self.program('pg_dump', '--format=directory', '--compress=0', '--jobs=%d' % jobs, '--file', self.dump, 'postgres')
        ended = now()
        self.program('pg_restore', '--exit-on-error', '--jobs=%d' % random.choice(JOBS), '--dbname', SECOND, self.dump)
        second = self.server.client('stress second', SECOND)
        second.rows('SET statement_timeout = 0')
        try:
            second.rows(EXPECTED)
            had = self.server.directory + '/restored.%d' % self.count
            with open(had, 'w') as file:
                json.dump(second.rows(HAD)[0], file)
            restored = now()
            wanted = self.work_off(second)
            print('# copy %d: dumped in %.1f s, restored in %.1f s, %d messages delivered in %.1f s'
                  % (self.count, ended - began, restored - ended, wanted, now() - restored), flush=True)
            self.ledger.write('restore', began, ended, had)
        finally:
            second.close()
            shutil.rmtree(self.dump, ignore_errors=True)

    def drop_copy(self):
        """Drop the copy of before, whose sessions may take a moment to end."""
        end = now() + PATIENCE
        while True:
            try:
                return self.client.rows('DROP DATABASE IF EXISTS ' + SECOND)
            except Refused as refused:
                if refused.code != '55006' or now() > end:
                    raise
                time.sleep(0.2)

    def program(self, name, *args):
        """Run one of PostgreSQL's programs."""
        result = subprocess.run([os.path.join(self.server.bindir, name), '--host', self.server.directory, '--port', str(PORT),
                                 '--username', 'postgres', *args], capture_output=True, text=True)
        if result.returncode != 0:
            # pg_dump says the first of a connection that is lost, too; the server tells which it was
            lost = 'could not obtain lock' in result.stderr and not self.refused_lock()
            if lost or CUT_OFF.search(result.stderr):
                raise CutOff(name + ': ' + result.stderr.strip().split('\n')[-1])
            self.ledger.wrong('%s: %s: %s' % (self.name, name, result.stderr[-2000:]))
            raise Refused('XX000', name + ' failed')

    def refused_lock(self):
        """Whether the server has ever refused a lock that was asked for with NOWAIT."""
        with open(self.server.log, errors='replace') as log:
            return any('could not obtain lock on relation' in line for line in log)

    def work_off(self, second):
        """Claim and ack all that is left in the copy; returns how many messages that should be."""
        wanted = second.one('SELECT count(*) FROM expected')
        end = now() + PATIENCE
        more = True
        while more or (second.one('SELECT count(*) FROM (' + MISSING + ') x') and now() < end):
            more = self.claim(second, 5000, 'c') + self.claim(second, 20, 'all')
            if more:
                end = now() + PATIENCE
            else:
                time.sleep(0.1)
        for what, n, first in second.rows(WRONG):
            if n:
                self.ledger.wrong('%s: copy %d: %s: %d, the first is %s' % (self.name, self.count, what, n, first))
        return wanted

    def claim(self, second, batch, channel):
        """Claim a batch of each subscription of a channel, or of all, and ack it; returns how many messages that were."""
        try:
            return len(second.rows(WORK, batch, channel))
        except Refused as refused:
            if refused.code != '55000':
                self.ledger.wrong('%s: copy %d: %s' % (self.name, self.count, refused))
            time.sleep(0.05)
            return 0
