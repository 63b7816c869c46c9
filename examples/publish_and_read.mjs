// publish_and_read.mjs: publish a 5 MB response, or read one by its id and
// print its SHA-256.  Debian: apt install nodejs node-ws
//   node publish_and_read.mjs        ->  id and SHA-256
//   node publish_and_read.mjs <id>   ->  id and SHA-256 of what is stored
import { createHash, randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
const WebSocket = createRequire(import.meta.url)('/usr/share/nodejs/ws');
const socket = new WebSocket(process.env.BUS_URL ?? 'ws://127.0.0.1:8765/?max_message_bytes=33554432', { maxPayload: 2 ** 26 });
const hash = (bytes) => createHash('sha256').update(bytes).digest('hex');
const call = (method, params, body = Buffer.alloc(0)) => new Promise((resolve, reject) => {
	socket.once('error', reject).once('message', (data) => {
		const end = data.indexOf(10), { result, error } = JSON.parse(data.subarray(0, end < 0 ? data.length : end));
		error ? reject(new Error([error.message, error.data?.detail, error.data?.hint].filter(Boolean).join('\n'))) : resolve([result, data.subarray(end + 1)]);
	}).send(Buffer.concat([Buffer.from(`${JSON.stringify({ jsonrpc: '2.0', id: 1, method, params })}\n`), body]));
});
socket.once('open', async () => {
	const response = Buffer.from(JSON.stringify({ rows: randomBytes(3750000).toString('base64') }));
	const channel = process.env.BUS_CHANNEL ?? 'default';
	const id = process.argv[2] ? Number(process.argv[2]) : (await call('publish', { channel, content_type: 'application/json' }, response))[0];
	console.log(id, hash(process.argv[2] ? (await call('get', { id }))[1] : response));
	socket.close();
}).once('error', (error) => { console.error(error.message); process.exitCode = 1; });
