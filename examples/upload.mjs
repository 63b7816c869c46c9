// upload.mjs: send a file of any size in pieces, or read one into a file.  A
// file that was cut off goes on where it was: call it again.
// Debian: apt install nodejs node-ws
//   node upload.mjs up <file>          ->  id and SHA-256
//   node upload.mjs down <id> <file>   ->  id and SHA-256
import { createHash } from 'node:crypto';
import { createReadStream, openSync, readSync, statSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
const WebSocket = createRequire(import.meta.url)('/usr/share/nodejs/ws');
const PART = 262144, PIECE = 4 * PART, READ = 3 * PART, AT_ONCE = 4;	// READ fits into any message
const socket = new WebSocket(process.env.BUS_URL ?? 'ws://127.0.0.1:8765/?max_message_bytes=33554432', { maxPayload: 2 ** 26 });
const waiting = new Map();
let last = 0;
// call sends a request in a binary frame, and returns its result and the bytes behind it.
const call = (method, params, bytes = Buffer.alloc(0)) => new Promise((resolve, reject) => {
	waiting.set(++last, { resolve, reject });
	socket.send(Buffer.concat([Buffer.from(`${JSON.stringify({ jsonrpc: '2.0', id: last, method, params })}\n`), bytes]));
});
socket.on('message', (data) => {
	const end = data.indexOf(10), { id, result, error } = JSON.parse(data.subarray(0, end < 0 ? data.length : end));
	error ? waiting.get(id).reject(new Error([error.message, error.data?.detail, error.data?.hint].filter(Boolean).join('\n'))) : waiting.get(id).resolve([result, data.subarray(end < 0 ? data.length : end + 1)]);
	waiting.delete(id);
}).on('error', (error) => { console.error(error.message); process.exit(1); });

async function up(file) {
	const size = statSync(file).size, fd = openSync(file, 'r'), hash = createHash('sha256');
	for await (const bytes of createReadStream(file)) hash.update(bytes);
	const sha256 = hash.digest('hex');
	const [upload] = await call('upload_begin', { channel: process.env.BUS_CHANNEL ?? 'default', content_type: 'application/octet-stream',
		size, sha256, transaction_id: `upload of ${sha256}` });
	let [{ state, received, message_id: id, missing }] = await call('upload_status', { upload });
	console.error(`upload ${upload}: ${received} of ${size} bytes are there`);
	while (state !== 'committed' && missing.length > 0) {
		// Of what is missing up to 1,000 parts are told: neighbours go as one piece.
		const pieces = [];
		for (const from of missing) {
			const piece = pieces.at(-1), bytes = Math.min(PART, size - from);
			if (piece && piece.from + piece.bytes === from && piece.bytes < PIECE) piece.bytes += bytes;
			else pieces.push({ from, bytes });
		}
		await Promise.all(Array.from({ length: AT_ONCE }, async () => {
			for (let piece; (piece = pieces.shift());) {
				const bytes = Buffer.alloc(piece.bytes);
				readSync(fd, bytes, 0, piece.bytes, piece.from);
				await call('upload_append', { upload, from_byte: piece.from }, bytes);
			}
		}));
		[{ state, missing }] = await call('upload_status', { upload });
	}
	// Hashing may take longer than one call.
	while (id == null) [{ id }] = await call('upload_commit', { upload });
	return [id, sha256];
}

async function down(id, file) {
	const hash = createHash('sha256');
	let fd;
	for (let from = 0, bytes; bytes === undefined || bytes.length === READ; from += bytes.length) {
		[, bytes] = await call('get_bytes', { id, from_byte: from, max_bytes: READ });
		fd ??= openSync(file, 'w');			// not before there is something
		writeSync(fd, bytes, 0, bytes.length, from);
		hash.update(bytes);
	}
	return [id, hash.digest('hex')];
}

socket.once('open', async () => {
	const [what, ...rest] = process.argv.slice(2);
	try {
		if (rest.length !== { up: 1, down: 2 }[what]) throw new Error('usage: upload.mjs up <file> | down <id> <file>');
		console.log(...await (what === 'up' ? up(...rest) : down(Number(rest[0]), rest[1])));
	} catch (error) {
		console.error(error.message);
		process.exitCode = 1;
	}
	socket.close();
});
