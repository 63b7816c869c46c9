"""client.py
    A client by Debian's python3-websockets: publishes a JSON text and bytes,
    reads both back, and publishes to a channel that does not exist.

Usage: client.py URL <JSON_TEXT

It prints one JSON object: the id of the text, and the error.
"""

import asyncio
import hashlib
import itertools
import json
import os
import sys

import websockets


class BusError(Exception):
    """An error of JSON-RPC."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]
        self.sqlstate = error.get("data", {}).get("sqlstate")


ids = itertools.count(1)


async def call(bus, method, params):
    """Send one request and return its result."""
    await bus.send(json.dumps({"jsonrpc": "2.0", "id": next(ids),
                               "method": method, "params": params}))
    reply = json.loads(await bus.recv())
    if "error" in reply:
        raise BusError(reply["error"])
    return reply["result"]


async def call_binary(bus, method, params, body=b""):
    """Send one binary request; return its result and the body behind it."""
    header = json.dumps({"jsonrpc": "2.0", "id": next(ids),
                         "method": method, "params": params})
    await bus.send(header.encode() + b"\n" + body)
    reply = await bus.recv()
    if isinstance(reply, str):      # there is no body
        return json.loads(reply)["result"], b""
    header, _, body = reply.partition(b"\n")
    return json.loads(header)["result"], body


async def main(url, text):
    async with websockets.connect(url) as bus:
        await bus.send('{"jsonrpc": "2.0", "id": 0, "method": "publish",'
                       ' "params": {"channel": "events", "payload": %s}}'
                       % text)
        message = json.loads(await bus.recv())["result"]
        got = await call(bus, "get", {"id": message})
        assert got["payload"] == json.loads(text)
        assert got["sha256"] == hashlib.sha256(text.encode()).hexdigest()

        body = os.urandom(300000)
        other, _ = await call_binary(bus, "publish", {"channel": "events"},
                                     body)
        _, back = await call_binary(bus, "get", {"id": other})
        assert back == body

        await (await bus.ping())
        try:
            await call(bus, "publish", {"channel": "nowhere", "payload": 1})
        except BusError as error:
            print(json.dumps({"id": message, "error": {
                "code": error.code, "sqlstate": error.sqlstate}}))


asyncio.run(main(sys.argv[1], sys.stdin.buffer.read().decode()))
