"""What the messages of the stress test are, so that anybody can tell from one whether it is whole.

A message has an uid, <who>.<number> or <who>.<number>x; one with an x is never acked.  Its payload follows from the uid: the
uid, a blank, and hex digits, of which one message in a hundred has many.  sockets.mjs does the same in JavaScript.
"""

import hashlib


def number_of(uid):
    return int(uid.split('.')[1].rstrip('x'))


def body(uid):
    """The payload of a message, a JSON string without its quotes."""
    number = number_of(uid)
    rounds = 150 if number % 100 == 0 else number % 4
    parts, digest = [uid], b''
    for _ in range(rounds):
        digest = hashlib.sha256(uid.encode() + digest).digest()
        parts.append(digest.hex())
    return parts[0] + ' ' + ''.join(parts[1:])


def payload(uid):
    """The payload as it is published."""
    return '"' + body(uid) + '"'


def uid_of(text):
    """The uid of a payload, with or without its quotes; the payload itself if that is not what was published."""
    uid = text.strip('"').split(' ')[0]
    try:
        return uid if body(uid) == text.strip('"') else text
    except (IndexError, ValueError):
        return text
