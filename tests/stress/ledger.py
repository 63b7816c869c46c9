"""What the clients of the stress test know.

Each client writes a file of its own, a JSON array to a line, the kind of record first:

publish  outcome, began, sent, ended, messages, undone
         messages: [uid, key, delay, id, channel] of what the transaction has published; undone: the uids of a savepoint
         that was rolled back.  sent: when COMMIT was.  A transaction that was repeated by its transaction ids has one
         record, with began and sent of the first time.
claim    subscription, outcome, began, ended, lease, ids, attempts, uids
ack      subscription, outcome, began, ended, lease, ids
nack     the same
blind    subscription, began, ended: a statement that claims and acks was cut off
restore  began, ended, file: when a dump was made, and what it had (restore.py)
tried    n: so many messages were published by a client that checks its own, whatever became of them
fault    name: something went wrong, on purpose
wrong    text: what must not happen has happened

The outcome is C for committed, R for rolled back or refused, and U for unknown: COMMIT, or a statement that is a
transaction of its own, was in flight when the connection broke.  Times are of the clock on the wall; the server has the
same.
"""

import json
import time

COMMITTED, ROLLED_BACK, UNKNOWN = 'C', 'R', 'U'


class Ledger:
    def __init__(self, path):
        self.file = open(path, 'w', buffering=1)

    def write(self, *record):
        self.file.write(json.dumps(record, separators=(',', ':')) + '\n')

    def fault(self, name):
        self.write('fault', name)

    def wrong(self, text):
        self.write('wrong', text)


def read(paths):
    for path in paths:
        with open(path) as file:
            for line in file:
                yield json.loads(line)


now = time.time
