// bulk.test.mjs
//     Pieces of large bodies: up by upload_append, down by get_bytes, on a
//     lane of their own, and what all of them may hold in the gateway.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Bus, fails, random, root, sha256, until } from './bus.mjs';
import { BINARY, CONTINUATION, Raw, frame, pieces, rpc } from './raw.mjs';

const MIB = 1024 * 1024;
const PART = 256 * 1024;
const run = promisify(execFile);
let bus;

before(async () => { bus = await Bus.start(); });
after(() => bus?.stop());

// A gauge of /metrics.
async function gauge(gateway, name) {
	const { text } = await gateway.get('/metrics');
	return Number(text.split('\n').find((line) => line.startsWith(
		`message_bus_gateway_${name} `)).split(' ')[1]);
}

// highest watches a gauge until it is told to stop, and returns its maximum.
function highest(gateway, name) {
	let most = 0;
	let ends = false;
	const watching = (async () => {
		while (!ends) most = Math.max(most, await gauge(gateway, name));
		return most;
	})().catch(() => most);
	return () => { ends = true; return watching; };
}

// The most memory that a gateway has had, in bytes.
const memory = (gateway) => 1024 * Number(/VmHWM:\s+(\d+)/.exec(
	fs.readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8'))[1]);

// warm has both connections of lane bulk opened, by the first part of a body.
async function warm(gateway, client, upload, bytes) {
	await until('both connections', async () => {
		await Promise.all([0, 1, 2, 3].map((i) => append(client, upload, i * PART,
			bytes.subarray(i * PART, (i + 1) * PART))));
		return await gauge(gateway,
			'database_connections_ready{lane="bulk"}') === 2;
	});
}

const begin = (client, params = {}) => client.call('upload_begin', {
	channel: 'events', content_type: 'application/octet-stream', ...params });
const append = (client, upload, from, bytes) => client.callBinary(
	'upload_append', { upload, from_byte: from }, bytes);
const part = (client, id, from, bytes) => client.callBinary('get_bytes', {
	id, from_byte: from, max_bytes: bytes });

// commit calls until the bytes are hashed, and returns the message's id.
async function commit(client, upload) {
	for (;;) {
		const { id } = await client.call('upload_commit', { upload });
		if (id !== null) return id;
	}
}

// inTurn gives each piece of a body to the next client that is free.
async function inTurn(clients, size, piece, work) {
	let at = 0;
	await Promise.all(clients.map(async (client) => {
		while (at < size) {
			const from = at;
			at += piece;
			await work(client, from, Math.min(piece, size - from));
		}
	}));
}

// An append as the bytes of a WebSocket frame, for who does not wait.
const appending = (id, upload, from, bytes) => frame(BINARY, Buffer.concat([
	Buffer.from(rpc(id, 'upload_append', { upload, from_byte: from }) + '\n'),
	bytes]));

describe('a body', () => {
	test('goes up over two sockets and comes down, byte for byte', async () => {
		const gateway = await bus.gateway();
		const clients = [await gateway.client(), await gateway.client()];
		const body = random(40 * MIB + 12345);
		const upload = await begin(clients[0], { size: body.length,
			sha256: sha256(body) });
		await inTurn(clients, body.length, MIB, (client, from, bytes) =>
			append(client, upload, from, body.subarray(from, from + bytes)));
		const id = await commit(clients[0], upload);
		const copy = Buffer.alloc(body.length);
		await inTurn(clients, body.length, 1000000,
			async (client, from, bytes) => {
				const reply = await part(client, id, from, bytes);
				assert.equal(reply.body.length, bytes);
				reply.body.copy(copy, from);
			});
		assert.ok(copy.equals(body));
		// The lines are those of MESSAGE_BUS_LOG_FRAMES.
		const told = (method) => gateway.lines.filter((line) =>
			line.event === 'frame' && line.method === method &&
			line.lane === 'bulk').length;
		await until('each on lane bulk', () =>
			told('upload_append') === 41 && told('get_bytes') === 42);
		await gateway.kill();
	});

	test('goes on where it was when the gateway was killed', async () => {
		let gateway = await bus.gateway();
		let client = await gateway.client();
		const body = random(12 * MIB);
		const upload = await begin(client, { size: body.length,
			transaction_id: 'resumed' });
		const sent = [];
		for (let from = 0; from < body.length; from += MIB) {
			sent.push(append(client, upload, from,
				body.subarray(from, from + MIB)));
		}
		await Promise.race(sent.slice(4));
		await gateway.kill();
		await Promise.allSettled(sent);
		gateway = await bus.gateway();
		client = await gateway.client();
		assert.equal(await begin(client, { size: body.length,
			transaction_id: 'resumed' }), upload);
		const status = await client.call('upload_status', { upload });
		assert.ok(status.received >= MIB && status.missing.length > 0);
		for (const from of status.missing) {
			await append(client, upload, from, body.subarray(from, from + PART));
		}
		const id = await commit(client, upload);
		const { sha256: hash } = await client.call('get_by_transaction', {
			channel: 'events', transaction_id: 'resumed' });
		assert.equal(hash, sha256(body));
		assert.ok(id > 0);
		await gateway.kill();
	});

	test('goes on when the database connections were lost', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		const body = random(8 * MIB);
		const upload = await begin(client, { size: body.length });
		let lost = 0;
		await inTurn([1, 2, 3], body.length, MIB, async (_, from, bytes) => {
			for (;;) {
				if (from === 4 * MIB && lost === 0) {
					await bus.sql(`SELECT pg_terminate_backend(pid)
						FROM pg_stat_activity
						WHERE application_name = 'message-bus-gateway'`);
				}
				try {
					await append(client, upload, from,
						body.subarray(from, from + bytes));
					return;
				} catch (error) {
					assert.ok([-32050, -32010].includes(error.code), `${error}`);
					lost++;
					await until('readyz', async () =>
						(await gateway.get('/readyz')).status === 200);
				}
			}
		});
		assert.ok(lost > 0);
		assert.ok(await commit(client, upload) > 0);
		await gateway.kill();
	});

	test('may come as base64, and no piece over 4 MiB', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		const body = random(5 * MIB);
		const upload = await begin(client, { size: body.length });
		const error = await fails(append(client, upload, 0, body));
		assert.match(error.message, /4/);
		assert.equal(await client.call('upload_append', { upload, from_byte: 0,
			encoding: 'base64', payload: body.subarray(0, 4 * MIB)
				.toString('base64') }), 4 * MIB);
		assert.equal((await append(client, upload, 4 * MIB,
			body.subarray(4 * MIB))).frame.result, body.length);
		assert.ok(await commit(client, upload) > 0);
		assert.equal(await gauge(gateway, 'bulk_up_bytes'), 0);
		await gateway.kill();
	});
});

test('an append may come in fragments, as browsers send it', async () => {
	const gateway = await bus.gateway();
	const client = await gateway.client();
	const body = random(4 * MIB);
	const upload = await begin(client, { size: body.length });
	const raw = await Raw.open(gateway.port);
	const parts = pieces(Buffer.concat([Buffer.from(
		rpc(1, 'upload_append', { upload, from_byte: 0 }) + '\n'), body]),
	PART / 2);
	raw.write(...parts.map((bytes, i) => frame(i === 0 ? BINARY : CONTINUATION,
		bytes, { fin: i === parts.length - 1 })));
	const { payload } = await until('the answer', () => raw.frames[0]);
	assert.equal(JSON.parse(payload).result, body.length);
	assert.ok(await commit(client, upload) > 0);
	raw.destroy();
	await gateway.kill();
});

test('an append that no database takes is refused when it begins', async () => {
	const gateway = await bus.gateway();
	const client = await gateway.client();
	const upload = await begin(client, { size: 8 * MIB });
	const raw = await Raw.open(gateway.port);
	// A part of it is enough.
	raw.write(appending(1, upload, 0, random(7 * MIB)).subarray(0, 100000));
	const { payload } = await until('the answer', () => raw.frames[0]);
	const { error } = JSON.parse(payload);
	assert.match(JSON.stringify(error), /upload_append has 6291456 bytes/);
	assert.equal(await gauge(gateway, 'bulk_up_bytes'), 0);
	raw.destroy();
	await gateway.kill();
});

test('a piece that errs leaves those of others in its batch alone', async () => {
	const gateway = await bus.gateway();
	const [one, other] = [await gateway.client(), await gateway.client()];
	const body = random(4 * MIB);
	const upload = await begin(one, { size: body.length });
	await warm(gateway, one, upload, body);
	const thaw = await bus.freeze();
	// Both connections are busy, and what comes then goes together.
	const busy = [0, 1].map((i) => append(one, upload, (4 + i) * PART,
		body.subarray((4 + i) * PART, (5 + i) * PART)));
	await until('both are busy', async () =>
		await gauge(gateway, 'batches_in_flight{lane="bulk"}') === 2);
	const bad = assert.rejects(append(other, 1, 0, body.subarray(0, PART)));
	await until('it is queued', async () =>
		await gauge(gateway, 'requests_queued{lane="bulk"}') === 1);
	const good = append(one, upload, 6 * PART,
		body.subarray(6 * PART, 7 * PART));
	await until('both are', async () =>
		await gauge(gateway, 'requests_queued{lane="bulk"}') === 2);
	thaw();
	await Promise.all([...busy, bad]);
	assert.equal(typeof (await good).frame.result, 'number');
	await gateway.kill();
});

describe('the examples', () => {
	for (const [command, file] of [['node', 'upload.mjs'],
		['/usr/bin/python3', 'upload.py']]) {
		test(`${file} sends a file, goes on with one, and reads it back`,
			async () => {
				const gateway = await bus.gateway();
				const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'mbu-'));
				const call = async (...args) => (await run(command,
					[path.join(root, 'examples', file), ...args],
					{ env: { PATH: process.env.PATH, BUS_CHANNEL: 'events',
						BUS_URL: `ws://127.0.0.1:${gateway.port}/` } }))
					.stdout.trim();
				const body = random(9 * MIB + 1);
				const name = path.join(directory, 'up');
				const copy = path.join(directory, 'down');
				fs.writeFileSync(name, body);
				// what a client that was killed has left
				const client = await gateway.client();
				const upload = await begin(client, { size: body.length,
					sha256: sha256(body),
					transaction_id: `upload of ${sha256(body)}` });
				await append(client, upload, 2 * MIB,
					body.subarray(2 * MIB, 5 * MIB));
				const [id, hash] = (await call('up', name)).split(' ');
				assert.equal(hash, sha256(body));
				assert.equal(await call('up', name), `${id} ${hash}`);
				assert.equal(await call('down', id, copy), `${id} ${hash}`);
				assert.ok(fs.readFileSync(copy).equals(body));
				assert.equal((await client.call('upload_status', { upload }))
					.message_id, Number(id));
				fs.rmSync(directory, { recursive: true });
				await gateway.kill();
			});
	}
});

describe('appends', () => {
	test('over 2 MiB unanswered are left to the sender, and not refused',
		async () => {
			const gateway = await bus.gateway();
			const client = await gateway.client();
			const body = random(16 * MIB);
			const upload = await begin(client, { size: body.length });
			await warm(gateway, client, upload, body);
			const thaw = await bus.freeze();
			const all = [];
			for (let from = 0; from < body.length; from += MIB) {
				all.push(append(client, upload, from,
					body.subarray(from, from + MIB)));
			}
			let last = -1;
			const held = await until('it is paused', async () => {
				const now = await gauge(gateway, 'bulk_up_bytes');
				const same = now === last && now >= 2 * MIB;
				last = now;
				return same && now;
			});
			assert.ok(held < 4 * MIB, `${held} bytes`);
			thaw();
			await Promise.all(all);
			assert.ok(await commit(client, upload) > 0);
			await gateway.kill();
		});

	test('of many keep to what all may have, and all become whole',
		async () => {
			const gateway = await bus.gateway({ MESSAGE_BUS_BULK_MB: '16' });
			const client = await gateway.client();
			const body = random(4 * MIB);
			const before = memory(gateway);
			const stop = highest(gateway, 'bulk_up_bytes');
			const many = [];
			for (let i = 0; i < 12; i++) {
				const raw = await Raw.open(gateway.port);
				const bytes = appending(i,
					await begin(client, { size: body.length }), 0, body);
				raw.write(bytes.subarray(0, MIB));
				many.push([raw, bytes.subarray(MIB)]);
			}
			// each has a part, and there is no room for another
			await until('it is full', async () =>
				await gauge(gateway, 'bulk_up_bytes') > 5.5 * MIB);
			for (const [raw, rest] of many) raw.write(rest);
			for (const [raw] of many) {
				const { payload } = await until('an answer', () => raw.frames[0]);
				assert.equal(JSON.parse(payload).result, body.length);
				raw.destroy();
			}
			const most = await stop();
			assert.ok(most <= 12 * MIB, `${most} bytes`);
			const grown = memory(gateway) - before;
			assert.ok(grown < 48 * MIB, `${grown} bytes of memory`);
			await gateway.kill();
		});

	test('that stop in their middle do not keep others out', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_BULK_MB: '16',
			MESSAGE_BUS_SEND_TIMEOUT_SECS: '1' });
		const client = await gateway.client();
		const body = random(4 * MIB);
		const upload = await begin(client, { size: body.length });
		const stuck = [];
		for (let i = 0; i < 4; i++) {
			const raw = await Raw.open(gateway.port);
			raw.write(appending(i, upload, 0, body).subarray(0, 3.5 * MIB));
			stuck.push(raw);
		}
		await until('they have what there is', async () =>
			await gauge(gateway, 'bulk_up_bytes') > 5 * MIB);
		await append(client, upload, 0, body);
		assert.ok(gateway.lines.some(({ event, code, reason }) =>
			event === 'close' && code === 1008 && /others wait/.test(reason)));
		for (const raw of stuck) raw.destroy();
		await client.call('upload_abort', { upload });
		await until('it is given back', async () =>
			await gauge(gateway, 'bulk_up_bytes') === 0);
		await gateway.kill();
	});

	test('of many do not hold up one that comes later', async () => {
		const gateway = await bus.gateway();
		const body = random(8 * MIB);
		const late = await gateway.client();
		const lateUpload = await begin(late, { size: body.length });
		await warm(gateway, late, lateUpload, body);
		const many = [];
		for (let i = 0; i < 12; i++) {
			const client = await gateway.client();
			many.push([client, await begin(client, { size: body.length })]);
		}
		const thaw = await bus.freeze();
		let done = 0;
		const all = [];
		for (const [client, upload] of many) {
			for (let from = 0; from < body.length; from += MIB) {
				all.push(append(client, upload, from,
					body.subarray(from, from + MIB)).then(() => { done++; }));
			}
		}
		const queued = (least) => until('they are queued', async () =>
			await gauge(gateway, 'requests_queued{lane="bulk"}') >= least);
		await queued(20);
		const last = append(late, lateUpload, MIB, body.subarray(MIB, 2 * MIB));
		await queued(21);
		thaw();
		await last;
		assert.ok(done <= 24, `${done} appends were first`);
		await Promise.all(all);
		await gateway.kill();
	});
});

describe('pieces', () => {
	test('that nobody reads do not keep others out', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_BULK_MB: '16',
			MESSAGE_BUS_SEND_TIMEOUT_SECS: '1' });
		const client = await gateway.client();
		const body = random(4 * MIB);
		const upload = await begin(client, { size: body.length });
		await append(client, upload, 0, body);
		const id = await commit(client, upload);
		const stop = highest(gateway, 'bulk_down_bytes');
		const stuck = [];
		for (let i = 0; i < 12; i++) {
			const raw = await Raw.open(gateway.port);
			raw.socket.pause();
			raw.write(...Array.from({ length: 8 }, (_, n) => frame(BINARY,
				Buffer.from(rpc(n, 'get_bytes', { id, max_bytes: 2 * MIB }) +
					'\n'))));
			stuck.push(raw);
		}
		await until('they have what there is', async () =>
			await gauge(gateway, 'bulk_down_bytes') > 5 * MIB);
		const reply = await part(client, id, 1, 3 * MIB);
		assert.ok(reply.body.equals(body.subarray(1, 1 + 3 * MIB)));
		const most = await stop();
		assert.ok(most <= 12 * MIB, `${most} bytes`);
		for (const raw of stuck) raw.destroy();
		await until('it is given back', async () =>
			await gauge(gateway, 'bulk_down_bytes') === 0);
		await gateway.kill();
	});
});
