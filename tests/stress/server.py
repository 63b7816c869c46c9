"""The server of the stress test, and the connections to it.

Server makes a cluster of its own in a directory, on a Unix socket, and is the postmaster's parent, so that a postmaster
that was killed leaves no zombie.  Gateway is a gateway for it.  Client is a connection that says which of three things has become of a statement: it
was done, it was refused (Refused: the connection lives), or the connection broke (Lost).
"""

import os
import signal
import socket
import subprocess
import time

import psycopg2

PORT = 54329
SECOND = 'second'               # the database that dumps are restored into
GATEWAY_LOGIN = 'message_bus_gateway'
CONF = """
listen_addresses = ''
unix_socket_directories = '{directory}'
port = {port}
fsync = off
max_connections = 120
max_locks_per_transaction = 512
shared_buffers = 64MB
max_wal_size = 4GB
log_line_prefix = '%m [%p] %b '
log_error_verbosity = verbose
restart_after_crash = on
shared_preload_libraries = 'message_bus'
message_bus.databases = 'postgres,{second}'
message_bus.worker_interval = 200ms
message_bus.acked_idle = 1s
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

    def __init__(self, directory, name, database='postgres'):
        self.dsn = dict(host=directory, port=PORT, user='postgres', dbname=database, application_name=name,
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
            conf.write(CONF.format(directory=directory, port=PORT, second=SECOND, segment_rows=segment_rows))
        self.start()
        client = self.client('setup')
        time.sleep(0.3)
        if self.postmaster.poll() is not None:
            raise RuntimeError('the server did not start, see %s' % self.log)
        client.rows('CREATE EXTENSION message_bus')
        self.wait_ready(client)
        client.close()

    def client(self, name, database='postgres'):
        return Client(self.directory, name, database)

    def start(self):
        with open(self.log, 'a') as log:
            program = os.environ.get('MBUS_POSTGRES', self.bindir + '/postgres')
            self.postmaster = subprocess.Popen([program, '-D', self.data], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

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
        return self.kill_one(client, "state <> 'idle' AND (application_name LIKE 'stress%%' OR application_name IN "
                             "('pg_dump', 'pg_restore') OR usename = '" + GATEWAY_LOGIN + "')")

    @staticmethod
    def kill_one(client, which):
        try:
            found = client.rows("SELECT pid FROM pg_stat_activity WHERE %s ORDER BY random() LIMIT 1"
                                % which.replace('%%', '%'))
        except (Lost, Refused):
            return False
        return bool(found) and kill(found[0][0])


class Gateway:
    """A gateway whose frames run as a role that may use the channels it is granted."""

    def __init__(self, directory, program):
        self.program = program
        self.directory = directory
        self.process = None
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        self.url = 'ws://127.0.0.1:%d' % self.port
        self.start()

    def start(self):
        environment = dict(os.environ, PGHOST=self.directory, PGPORT=str(PORT), PGDATABASE='postgres',
                           PGUSER=GATEWAY_LOGIN, EXAI_WS_HOST='127.0.0.1', EXAI_WS_PORT=str(self.port),
                           MESSAGE_BUS_ROLE='authenticated', MESSAGE_BUS_LOG_FRAMES='false')
        with open(self.directory + '/gateway.log', 'a') as log:
            self.process = subprocess.Popen([self.program], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, cwd=self.directory)

    def kill(self):
        """kill -9, and start anew; says whether it was still alive."""
        alive = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        self.start()
        return alive

    def stop(self):
        """End it; returns the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def kill(process):
    try:
        os.kill(process, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
