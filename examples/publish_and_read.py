"""Publish a 5 MB response, or read one by its id and print its SHA-256.
Debian: apt install python3-websockets
   python3 publish_and_read.py        ->  id and SHA-256
   python3 publish_and_read.py <id>   ->  id and SHA-256 of what is stored
"""
import asyncio, base64, hashlib, json, os, sys, websockets

async def call(socket, method, params, body=b""):
    await socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n" + body)
    header, _, rest = (lambda reply: reply if isinstance(reply, bytes) else reply.encode())(await socket.recv()).partition(b"\n")
    reply = json.loads(header)
    if "error" in reply:
        error = reply["error"]
        sys.exit("\n".join(filter(None, [error["message"], *((error.get("data") or {}).get(key) for key in ("detail", "hint"))])))
    return reply["result"], rest

async def main():
    async with websockets.connect(os.environ.get("BUS_URL", "ws://127.0.0.1:8765/?max_message_bytes=33554432"), max_size=2**26) as socket:
        if len(sys.argv) > 1:
            return print(sys.argv[1], hashlib.sha256((await call(socket, "get", {"id": int(sys.argv[1])}))[1]).hexdigest())
        response = json.dumps({"rows": base64.b64encode(os.urandom(3750000)).decode()}).encode()
        channel = os.environ.get("BUS_CHANNEL", "default")
        id, _ = await call(socket, "publish", {"channel": channel, "content_type": "application/json"}, response)
        print(id, hashlib.sha256(response).hexdigest())

asyncio.run(main())
