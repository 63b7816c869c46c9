// hostile.test.mjs
//     Sockets that mean harm: whatever they do, the gateway's memory stays
//     bounded, it serves the others meanwhile, and it is as before when they
//     are gone.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { Bus, random, sleep, until } from './bus.mjs';
import { start } from './pinger.mjs';
import { BINARY, CLOSE, CONTINUATION, PING, Raw, TEXT, frame, handshake, rpc }
	from './raw.mjs';

const MIB = 1024 * 1024;
const PATIENCE_MS = 2000;		// what a client that behaves may have to wait

const open = { MESSAGE_BUS_LOG_FRAMES: 'false' };

let bus;

before(async () => {
	bus = await Bus.start();
});

after(() => bus.stop());

// memory returns the resident bytes of a gateway.
function memory(gateway) {
	const text = fs.readFileSync(`/proc/${gateway.child.pid}/status`, 'utf8');
	return Number(/^VmRSS:\s+(\d+) kB/m.exec(text)[1]) * 1024;
}

// descriptors returns how many a gateway has open.
const descriptors = (gateway) =>
	fs.readdirSync(`/proc/${gateway.child.pid}/fd`).length;

// besiege runs an attack on a gateway of its own, while a client that behaves
// is served, and bounds by how much memory may grow meanwhile.
async function besiege(t, { settings = {}, growth = 32 * MIB,
	patience = PATIENCE_MS }, attack) {
	const gateway = await bus.gateway({ ...open, ...settings });
	const pinger = await start(gateway.port);
	const before = memory(gateway);
	let peak = before;
	const watch = setInterval(() => {
		peak = Math.max(peak, memory(gateway));
	}, 10);

	try {
		await attack(gateway);
	} finally {
		clearInterval(watch);
	}
	peak = Math.max(peak, memory(gateway)) - before;
	const { served, worst } = await pinger.stop();
	t.diagnostic(`${served} pings, the longest took ${worst.toFixed(0)} ms; ` +
		`memory grew by ${(peak / MIB).toFixed(1)} MiB`);
	assert.ok(worst < patience, `a ping took ${worst} ms`);
	assert.ok(peak < growth, `memory grew by ${peak}`);
	await until('all to be gone', async () => (await gateway
		.get('/healthz')).body.connections_open === 0);
	await until('the memory back', async () => (await gateway
		.get('/healthz')).body.buffered_bytes === 0);
	assert.equal(gateway.code, null);
	await gateway.kill();
}

// flood writes the same bytes again and again, at most `times`, as fast as
// they are taken, and stops when the connection is over or `seconds` are.
async function flood(raw, bytes, times, seconds = 5) {
	const end = Date.now() + seconds * 1000;
	for (let i = 0; i < times && Date.now() < end; i++) {
		if (raw.socket.destroyed) return i;
		raw.socket.write(bytes);
		do {
			await sleep(1);
		} while (raw.socket.writableNeedDrain && Date.now() < end);
	}
	return times;
}

const together = (count, make) => Promise.all(Array.from({ length: count },
	(_, i) => make(i)));

const destroy = (raws) => raws.forEach((raw) => raw.destroy());

describe('handshakes', () => {
	test('that come a byte at a time end in their time, all of them', (t) =>
		besiege(t, { settings: { HTTP_CLIENT_TIMEOUT_SECS: '2' } },
			async (gateway) => {
				const raws = await together(300, () => new Raw(gateway.port));
				const start = Date.now();
				for (const byte of handshake({ 'X-Slow': 'x'.repeat(4000) })) {
					for (const raw of raws) raw.write(byte);
					await sleep(50);
					if (raws.every((raw) => raw.gone)) break;
				}
				assert.ok(Date.now() - start < 10000);
				assert.ok(raws.every((raw) => raw.head === ''));
			}));

	test('that never begin end too', (t) =>
		besiege(t, { settings: { HTTP_CLIENT_TIMEOUT_SECS: '2' } },
			async (gateway) => {
				const raws = await together(500, () => new Raw(gateway.port));
				await until('the end of all', () =>
					raws.every((raw) => raw.ended || raw.gone));
			}));

	test('of 4,000 pages from a wrong origin leave nothing behind', (t) =>
		besiege(t, {}, async (gateway) => {
			const count = descriptors(gateway);
			for (let i = 0; i < 20; i++) {
				const raws = await together(200, () => new Raw(gateway.port));
				for (const raw of raws) {
					raw.write(handshake({ Origin: 'https://evil.example' }));
				}
				await Promise.all(raws.map((raw) => raw.answered()));
				assert.ok(raws.every((raw) => raw.status() === 403));
				destroy(raws);
			}
			await until('the descriptors', () =>
				descriptors(gateway) <= count + 2);
		}));

	for (const host of ['evil.example', 'evil.example:80', 'localhost.evil',
		'127.0.0.1.evil', '']) {
		test(`for the host "${host}" are refused`, async () => {
			const gateway = await bus.gateway(open);
			const raw = new Raw(gateway.port);
			raw.write(handshake({ Host: host }));
			await raw.answered();
			assert.ok(raw.status() === 0 || raw.status() >= 400);
			raw.destroy();
			await gateway.kill();
		});
	}

	test('for h2c and HTTP/2, 1,000 of them, harm nobody', (t) =>
		besiege(t, {}, async (gateway) => {
			const settings = Buffer.from('000000040000000000', 'hex');
			for (let i = 0; i < 10; i++) {
				const raws = await together(100, () => new Raw(gateway.port));
				for (const [n, raw] of raws.entries()) {
					raw.write(n % 2 === 0 ? handshake({ Upgrade: 'h2c',
						Connection: 'Upgrade, HTTP2-Settings',
						'HTTP2-Settings': 'AAMAAABkAAQAAP__' })
						: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', settings,
					random(100));
				}
				await sleep(50);
				for (const raw of raws) {
					assert.doesNotMatch(raw.head, /^HTTP\/1\.1 101/);
				}
				destroy(raws);
			}
		}));

	test('with headers without end are ended', (t) =>
		besiege(t, { settings: { HTTP_CLIENT_TIMEOUT_SECS: '2' } },
			async (gateway) => {
				const raws = await together(20, () => new Raw(gateway.port));
				await Promise.all(raws.map(async (raw) => {
					raw.write('GET / HTTP/1.1\r\nHost: localhost\r\n');
					await flood(raw, `X-Header: ${'x'.repeat(1000)}\r\n`,
						100000);
					await raw.end();
				}));
			}));
});

describe('clients that never read', () => {
	test('are bounded by what one may leave unread, then closed', (t) =>
		besiege(t, { growth: 128 * MIB, settings: {
			WS_MAX_MSG_BYTES: '1000000', MESSAGE_BUS_SEND_TIMEOUT_SECS: '2' } },
		async (gateway) => {
			const publisher = await gateway.client();
			const { frame: published } = await publisher.callBinary('publish',
				{ channel: 'events' }, random(900000));
			await publisher.close();
			const raws = await together(20, () => Raw.open(gateway.port));
			for (const raw of raws) {
				raw.socket.pause();
				for (let i = 0; i < 60; i++) {
					raw.write(frame(BINARY, rpc(i, 'get',
						{ id: published.result }) + '\n'));
				}
			}
			await until('the end of all', async () => (await gateway
				.get('/healthz')).body.connections_open === 1, 60);
			await until('the log', () => gateway.event('close', (line) =>
				line.code === 1013));
			destroy(raws);
		}));

	test('and flood with pings do not pile up pongs', (t) =>
		besiege(t, {}, async (gateway) => {
			const raws = await together(8, () => Raw.open(gateway.port));
			for (const raw of raws) raw.socket.pause();
			const pings = Buffer.concat(Array.from({ length: 500 }, () =>
				frame(PING, random(125))));
			await Promise.all(raws.map((raw) => flood(raw, pings, 200, 3)));
			destroy(raws);
		}));

	test('and ask and ask are read from no more', (t) =>
		besiege(t, { growth: 64 * MIB, settings: {
			WS_MAX_MSG_BYTES: '100000', MESSAGE_BUS_SEND_TIMEOUT_SECS: '2' } },
		async (gateway) => {
			const raws = await together(4, () => Raw.open(gateway.port));
			const asks = Buffer.concat(Array.from({ length: 200 }, (_, i) =>
				frame(TEXT, rpc(i, 'nothing'.repeat(100)))));
			for (const raw of raws) raw.socket.pause();
			await Promise.all(raws.map((raw) => flood(raw, asks, 100, 3)));
			destroy(raws);
		}));
});

describe('floods', () => {
	test('of pings, read, are answered', (t) =>
		besiege(t, {}, async (gateway) => {
			const raws = await together(8, () => Raw.open(gateway.port));
			const pings = Buffer.concat(Array.from({ length: 200 }, () =>
				frame(PING, random(125))));
			await Promise.all(raws.map((raw) => flood(raw, pings, 50, 3)));
			await Promise.all(raws.map(async (raw) => {
				raw.write(frame(PING, 'end'));
				await until('a pong', () => raw.frames.length > 0);
			}));
			destroy(raws);
		}));

	test('of empty fragments without end cost no memory', (t) =>
		besiege(t, { growth: 8 * MIB }, async (gateway) => {
			const raws = await together(4, () => Raw.open(gateway.port));
			const empty = Buffer.concat(Array.from({ length: 1000 }, () =>
				frame(CONTINUATION, '', { fin: false })));
			await Promise.all(raws.map(async (raw) => {
				raw.write(frame(TEXT, '', { fin: false }));
				await flood(raw, empty, 200, 3);
			}));
			destroy(raws);
		}));

	test('of empty fragments do not keep a message alive', (t) =>
		besiege(t, { settings: { TOOL_TIMEOUT_SECS: '1' } }, async (gateway) => {
			const raw = await Raw.open(gateway.port);
			raw.write(frame(TEXT, '{', { fin: false }));
			const timer = setInterval(() => raw.write(frame(CONTINUATION, '',
				{ fin: false })), 100);
			t.after(() => clearInterval(timer));
			await until('the close', () => gateway.event('close', ({ code }) =>
				code === 1008), 6);
			raw.destroy();
		}));

	test('of a byte now and then end after ten times the limit', (t) =>
		besiege(t, { settings: { TOOL_TIMEOUT_SECS: '1' } }, async (gateway) => {
			const raw = await Raw.open(gateway.port);
			raw.write(frame(TEXT, '{"jsonrpc":"2.0",', { fin: false }));
			for (const start = Date.now(); Date.now() - start < 12000;) {
				raw.write(frame(CONTINUATION, ' ', { fin: false }));
				await sleep(200);
			}
			raw.write(frame(CONTINUATION, '"id":1,"method":"ping"}'));
			await until('the close', () => gateway.event('close', ({ code }) =>
				code === 1008), 6);
			raw.destroy();
		}));

	test('of fragments of 1 byte without end are stopped at the limit', (t) =>
		besiege(t, { settings: { WS_MAX_MSG_BYTES: '100000' } },
			async (gateway) => {
				const raws = await together(4, () => Raw.open(gateway.port));
				const bytes = Buffer.concat(Array.from({ length: 1000 }, () =>
					frame(CONTINUATION, 'x', { fin: false })));
				await Promise.all(raws.map(async (raw) => {
					raw.write(frame(TEXT, '{"id":7,"x":"', { fin: false }));
					await flood(raw, bytes, 101, 20);
					assert.match(await raw.message(), /"id":7.*-32004/);
				}));
				destroy(raws);
			}));

	test('of messages of 1 byte are each answered or refused', (t) =>
		besiege(t, {}, async (gateway) => {
			const raws = await together(4, () => Raw.open(gateway.port));
			const bytes = Buffer.concat(Array.from({ length: 100 }, () =>
				frame(TEXT, 'x')));
			const sent = await Promise.all(raws.map((raw) =>
				flood(raw, bytes, 50, 5)));
			await Promise.all(raws.map((raw, i) => until('all answers', () =>
				raw.frames.length === sent[i] * 100)));
			for (const raw of raws) {
				for (const { payload } of raw.frames) {
					assert.ok([-32700, -32011].includes(
						JSON.parse(payload).error.code));
				}
			}
			destroy(raws);
		}));

	test('of packets of 1 byte are put together', (t) =>
		besiege(t, {}, async (gateway) => {
			const raws = await together(20, () => Raw.open(gateway.port));
			const bytes = frame(TEXT, rpc('x'.repeat(300), 'ping'));
			for (const byte of bytes) {
				for (const raw of raws) raw.write(Buffer.from([byte]));
				await sleep(1);
			}
			for (const raw of raws) {
				assert.match(await raw.message(), /"pong"/);
			}
			destroy(raws);
		}));

	test('of declared lengths reserve no memory', (t) =>
		besiege(t, { growth: 48 * MIB, settings: {
			WS_MAX_MSG_BYTES: '30000000',
			MESSAGE_BUS_MAX_BUFFERED_MB: '64' } }, async (gateway) => {
			const raws = await together(100, () => Raw.open(gateway.port));
			for (const raw of raws) {
				raw.write(frame(BINARY, '{"id":1}\n', { length: 29000000 }));
			}
			await sleep(500);
			destroy(raws);
		}));

	test('of close frames end one connection each', (t) =>
		besiege(t, {}, async (gateway) => {
			for (let i = 0; i < 10; i++) {
				const raws = await together(100, () => Raw.open(gateway.port));
				await Promise.all(raws.map(async (raw) => {
					raw.write(Buffer.concat(Array.from({ length: 50 }, () =>
						frame(CLOSE, '\x03\xe8'))));
					await raw.end();
				}));
				destroy(raws);
			}
		}));
});

describe('descriptors', () => {
	test('that are used up keep out those who come, not those who are there',
		async () => {
			const gateway = await bus.gateway(open);
			const client = await gateway.client();
			await client.call('ping');
			// It keeps 32 for what it opens itself.
			const limit = descriptors(gateway) + 60;
			execFileSync('prlimit', ['--pid', String(gateway.child.pid),
				`--nofile=${limit}:${limit}`]);
			const raws = await together(100, () => new Raw(gateway.port));
			for (const raw of raws) raw.write(handshake());
			await until('some', () => raws.some((raw) =>
				raw.status() === 101));
			const start = Date.now();
			for (let i = 0; i < 50; i++) {
				assert.equal(await client.call('ping'), 'pong');
			}
			assert.ok(Date.now() - start < PATIENCE_MS);
			const busy = cpuMs(gateway);
			await sleep(1000);
			assert.ok(cpuMs(gateway) - busy < 500, 'it spins');
			assert.ok(raws.filter((raw) => raw.status() === 101).length <= 30);
			destroy(raws);
			const later = await until('room', () => gateway.client());
			assert.equal(await later.call('ping'), 'pong');
			assert.equal(await client.call('ping'), 'pong');
			await gateway.kill();
		});
});

// cpuMs returns the processor time that a gateway has used.
function cpuMs(gateway) {
	const text = fs.readFileSync(`/proc/${gateway.child.pid}/schedstat`,
		'utf8');
	return Number(text.split(' ')[0]) / 1e6;
}

describe('thousands of connects at once', () => {
	// 10,000, or as many as this process may have descriptors for.
	const hard = Number(/^Max open files\s+\d+\s+(\d+)/m.exec(
		fs.readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? Infinity);
	const count = Math.min(10000, hard - 200);

	test(`${count} are all served, beside those who were there`, (t) =>
		besiege(t, { growth: count * 32 * 1024, patience: 5 * PATIENCE_MS,
			settings: { MESSAGE_BUS_MAX_CONNECTIONS: '20000' } },
		async (gateway) => {
			const raws = await together(count, () => new Raw(gateway.port));
			for (const raw of raws) raw.write(handshake());
			await until('all to be open', async () => (await gateway
				.get('/healthz')).body.connections_open === count + 1, 60);
			for (let at = 0; at < count; at += 500) {
				const wave = raws.slice(at, at + 500);
				for (const raw of wave) raw.write(frame(TEXT, rpc(1)));
				await until('an answer for each', () => wave.every((raw) =>
					raw.frames.length === 1));
			}
			t.diagnostic(`${((memory(gateway)) / MIB).toFixed(1)} MiB with ` +
				`${count} connections`);
			destroy(raws);
		}));

	test('those beyond the limit get 503, and leave nothing behind', (t) =>
		besiege(t, { settings: { MESSAGE_BUS_MAX_CONNECTIONS: '100' } },
			async (gateway) => {
				const raws = await together(2000, () => new Raw(gateway.port));
				for (const raw of raws) raw.write(handshake());
				await until('an end for each', () => raws.every((raw) =>
					raw.status() === 101 || raw.ended || raw.gone));
				assert.equal(raws.filter((raw) => raw.status() === 101).length,
					99);
				destroy(raws);
			}));
});
