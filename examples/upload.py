"""Send a file of any size in pieces, or read one into a file.  A file that was
cut off goes on where it was: call it again.  Debian: apt install python3-websockets
   python3 upload.py up <file>          ->  id and SHA-256
   python3 upload.py down <id> <file>   ->  id and SHA-256
"""
import asyncio, hashlib, json, os, sys, websockets

PART, PIECE, READ = 262144, 4 * 262144, 3 * 262144  # READ fits into any message

async def call(socket, method, params, body=b""):
    await socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n" + body)
    header, _, rest = (lambda reply: reply if isinstance(reply, bytes) else reply.encode())(await socket.recv()).partition(b"\n")
    reply = json.loads(header)
    if "error" in reply:
        error = reply["error"]
        sys.exit("\n".join(filter(None, [error["message"], *((error.get("data") or {}).get(key) for key in ("detail", "hint"))])))
    return reply["result"], rest

def pieces(missing, size):
    """Of what is missing up to 1,000 parts are told: neighbours go as one piece."""
    piece, end = None, 0
    for start in missing:
        if piece is not None and start == end and end - piece < PIECE:
            end = min(start + PART, size)
            continue
        if piece is not None:
            yield piece, end
        piece, end = start, min(start + PART, size)
    if piece is not None:
        yield piece, end

async def up(socket, path):
    size, digest = os.path.getsize(path), hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(PIECE):
            digest.update(block)
        upload, _ = await call(socket, "upload_begin", {
            "channel": os.environ.get("BUS_CHANNEL", "default"), "content_type": "application/octet-stream", "size": size,
            "sha256": digest.hexdigest(), "transaction_id": f"upload of {digest.hexdigest()}"})
        status, _ = await call(socket, "upload_status", {"upload": upload})
        print(f"upload {upload}: {status['received']} of {size} bytes are there", file=sys.stderr)
        while status["state"] != "committed" and status["missing"]:
            for start, end in pieces(status["missing"], size):
                file.seek(start)
                await call(socket, "upload_append", {"upload": upload, "from_byte": start}, file.read(end - start))
            status, _ = await call(socket, "upload_status", {"upload": upload})
    id = status["message_id"]
    while id is None:  # hashing may take longer than one call
        id = (await call(socket, "upload_commit", {"upload": upload}))[0]["id"]
    return id, digest.hexdigest()

async def down(socket, id, path):
    at, digest, block = 0, hashlib.sha256(), None
    with open(path, "wb") as file:
        while block is None or len(block) == READ:
            _, block = await call(socket, "get_bytes", {"id": int(id), "from_byte": at, "max_bytes": READ})
            file.write(block)
            digest.update(block)
            at += len(block)
    return id, digest.hexdigest()

async def main():
    if len(sys.argv) != {"up": 3, "down": 4}.get(sys.argv[1] if len(sys.argv) > 1 else None):
        sys.exit("usage: upload.py up <file> | down <id> <file>")
    async with websockets.connect(os.environ.get("BUS_URL", "ws://127.0.0.1:8765/?max_message_bytes=33554432"), max_size=2**26) as socket:
        print(*await (up if sys.argv[1] == "up" else down)(socket, *sys.argv[2:]))

asyncio.run(main())
