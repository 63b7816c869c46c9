"""The server of the stress test, and the connections to it.

Server makes a cluster of its own in a directory, on a Unix socket, and is the postmaster's parent, so that a postmaster
that was killed leaves no zombie.  Client is a connection that says which of three things has become of a statement: it
was done, it was refused (Refused: the connection lives), or the connection broke (Lost).
"""

import os
import signal
import subprocess
import time

import psycopg2

PORT = 54329
CONF = """
listen_addresses = ''
unix_socket_directories = '{directory}'
port = {port}
fsync = off
max_connections = 60
shared_buffers = 64MB
max_wal_size = 4GB
log_line_prefix = '%m [%p] %b '
log_error_verbosity = verbose
restart_after_crash = on
shared_preload_libraries = 'message_bus'
message_bus.databases = 'postgres'
message_bus.worker_interval = 200ms
message_bus.segment_max_rows = {segment_rows}
"""


class Refused(Exception):
    """The server has refused a statement; code is the SQLSTATE."""

    def __init__(self, code, text):
        super().__init__(code + ' ' + text)
        self.code = code


class Lost(Exception):
    """The connection broke while a statement was in flight."""


class Client:
    """A connection in autocommit mode; opened when it is first used, and again after it was lost."""

    def __init__(self, directory, name):
        self.dsn = dict(host=directory, port=PORT, user='postgres', dbname='postgres', application_name=name,
                        options='-c statement_timeout=60s', connect_timeout=10)
        self.connection = None

    def open(self, patience=60):
        """Connect, if need be: a server that is being restarted comes back."""
        end = time.time() + patience
        while self.connection is None or self.connection.closed:
            try:
                self.connection = psycopg2.connect(**self.dsn)
                self.connection.autocommit = True
            except psycopg2.OperationalError:
                if time.time() > end:
                    raise
                time.sleep(0.05)

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def cut(self):
        """End the connection without a word, as a client that dies does."""
        end = os.dup(self.connection.fileno())
        os.close(self.connection.fileno())
        self.connection = None
        os.close(end)

    def rows(self, sql, *values):
        """Run a statement and return its rows."""
        self.open()
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.Error as error:
            code = error.pgcode
            if code is None or code.startswith('57P') or code.startswith('08') or self.connection.closed:
                self.close()
                raise Lost() from None
            raise Refused(code, str(error).strip()) from None

    def one(self, sql, *values):
        """Run a statement and return the first column of its only row."""
        return self.rows(sql, *values)[0][0]

    def rollback(self):
        """Leave a transaction that was refused something."""
        try:
            self.rows('ROLLBACK')
        except Lost:
            pass


class Server:
    def __init__(self, directory, bindir, segment_rows):
        self.directory = directory
        self.bindir = bindir
        self.data = directory + '/data'
        self.log = directory + '/server.log'
        self.postmaster = None
        subprocess.run([bindir + '/initdb', '-D', self.data, '-A', 'trust', '-N', '-E', 'UTF8', '--no-locale',
                        '-U', 'postgres'], check=True, stdout=subprocess.DEVNULL)
        with open(self.data + '/postgresql.conf', 'a') as conf:
            conf.write(CONF.format(directory=directory, port=PORT, segment_rows=segment_rows))
        self.start()
        client = self.client('setup')
        time.sleep(0.3)
        if self.postmaster.poll() is not None:
            raise RuntimeError('the server did not start, see %s' % self.log)
        client.rows('CREATE EXTENSION message_bus')
        self.wait_ready(client)
        client.close()

    def client(self, name):
        return Client(self.directory, name)

    def start(self):
        with open(self.log, 'a') as log:
            self.postmaster = subprocess.Popen([self.bindir + '/postgres', '-D', self.data], stdin=subprocess.DEVNULL,
                                               stdout=log, stderr=log)

    def stop(self):
        if self.postmaster and self.postmaster.poll() is None:
            self.postmaster.send_signal(signal.SIGINT)
            self.postmaster.wait(60)

    def wait_ready(self, client):
        """Wait until the bus takes messages."""
        end = time.time() + 60
        while True:
            try:
                client.rows("""SELECT message_bus.publish('default', '"ready?"')""")
                return
            except (Refused, Lost):
                if time.time() > end:
                    raise
                time.sleep(0.05)

    def processes(self):
        """The ids of all processes of the server."""
        found = []
        for name in os.listdir('/proc'):
            try:
                if name.isdigit() and os.readlink('/proc/%s/cwd' % name) == self.data:
                    found.append(int(name))
            except OSError:
                pass
        return found

    def kill_postmaster(self, others):
        """kill -9 the postmaster, and with it all others; start anew when the last is gone."""
        processes = self.processes() if others else []
        self.postmaster.kill()
        self.postmaster.wait()
        for process in processes:
            kill(process)
        end = time.time() + 60
        while self.processes():
            if time.time() > end:
                raise RuntimeError('processes of a killed server do not end: %s' % self.processes())
            time.sleep(0.02)
        self.start()

    def kill_worker(self, client):
        """kill -9 the worker of the database, and thereby all backends."""
        return self.kill_one(client, "backend_type LIKE 'message_bus%%worker%%'")

    def kill_backend(self, client):
        """kill -9 a backend that is at work, and thereby all others."""
        return self.kill_one(client, "application_name LIKE 'stress%%' AND state <> 'idle'")

    @staticmethod
    def kill_one(client, which):
        try:
            found = client.rows("SELECT pid FROM pg_stat_activity WHERE %s ORDER BY random() LIMIT 1"
                                % which.replace('%%', '%'))
        except (Lost, Refused):
            return False
        return bool(found) and kill(found[0][0])


def kill(process):
    try:
        os.kill(process, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
