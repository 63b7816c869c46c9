// bounds.test.mjs
//     What one client may take of what all share: replies that wait, batches,
//     the log; and that nothing is lost for those who keep to it.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Bus, WebSocket, fails, sleep, until } from './bus.mjs';
import { Raw, TEXT, frame, rpc } from './raw.mjs';

const MIB = 1024 * 1024;
let bus;

before(async () => {
	bus = await Bus.start();
	await bus.sql(`SELECT message_bus.create_channel(c)
		FROM unnest(ARRAY['pipeline', 'large', 'endings', 'synchronous',
			'events2', 'private2']) AS c;
		SELECT message_bus.grant_channel(channel, 'app', 'all')
		FROM message_bus.channels`);
});
after(() => bus?.stop());

const queued = async (gateway) => Number(/replies_queued_bytes (\d+)/.exec(
	(await gateway.get('/metrics')).text)[1]);
const leases = async (channel) => Number(await bus.sql(`SELECT count(*)
	FROM message_bus.leases WHERE channel = '${channel}'`));
const failures = (channel) => bus.sql(`SELECT count(*)
	FROM message_bus.failure f JOIN message_bus.messages m ON m.id = f.message_id
	WHERE m.channel = '${channel}'`);
const terminate = () => bus.sql(`SELECT count(pg_terminate_backend(pid))
	FROM pg_stat_activity WHERE application_name = 'message-bus-gateway'`);

describe('replies', () => {
	test('to claims that were pipelined all come, at the first attempt',
		async () => {
			const gateway = await bus.gateway({ WS_MAX_MSG_BYTES: String(MIB) });
			const publisher = await gateway.client();
			const count = 12;
			for (let i = 0; i < count; i++) {
				await publisher.call('publish', { channel: 'pipeline',
					payload: `${i}`.padEnd(500000, '.') });
			}
			const client = await gateway.client();
			client.socket._socket.cork();
			const claims = Array.from({ length: count }, () => client.call(
				'claim', { channel: 'pipeline', lease_for: 600 }));
			// what comes behind does not overtake them
			let pinged = 0;
			client.call('ping').then(() => { pinged = done; });
			let done = 0;
			for (const claim of claims) claim.then(() => { done++; });
			client.socket._socket.uncork();
			const messages = (await Promise.all(claims)).flat();
			assert.equal(new Set(messages.map(({ id }) => id)).size, count);
			assert.ok(messages.every(({ attempt }) => attempt === 1));
			await until('the ping', () => pinged > 0);
			assert.equal(pinged, count);
			assert.equal(client.closed, null);
			await gateway.kill();
		});

	test('that nobody reads are bounded over all connections', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_MAX_UNREAD_MB: '64' });
		const reader = await gateway.client();
		const size = 16000000;
		const id = await reader.call('publish', { channel: 'large',
			payload: 'x'.repeat(size) });
		const sockets = [];
		for (let i = 0; i < 30; i++) {
			const raw = await Raw.open(gateway.port);
			raw.socket.pause();
			raw.write(...Array.from({ length: 4 }, (_, n) =>
				frame(TEXT, rpc(n, 'get', { id }))));
			sockets.push(raw);
		}
		let most = 0;
		let slowest = 0;
		const gone = () => gateway.lines.filter(({ event, reason }) =>
			event === 'close' && /too many unread replies/.test(reason)).length;
		await until('the end of some', async () => {
			most = Math.max(most, await queued(gateway));
			const start = Date.now();
			assert.equal(await reader.call('ping'), 'pong');
			slowest = Math.max(slowest, Date.now() - start);
			return most > 32 * MIB && (gateway.event('close', ({ code }) =>
				code === 1013) || gone() > 0);
		}, 60);
		for (let i = 0; i < 50; i++) {
			most = Math.max(most, await queued(gateway));
			await sleep(20);
		}
		assert.ok(most <= 64 * MIB, `${most} bytes`);
		assert.ok(slowest < 10000, `${slowest} ms`);
		assert.equal((await reader.call('get', { id })).payload.length, size);
		for (const raw of sockets) raw.destroy();
		await until('the end', async () => await queued(gateway) === 0);
		await gateway.kill();
	});

	test('are not read a piece at a time for ever', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_SEND_TIMEOUT_SECS: '1' });
		const publisher = await gateway.client();
		const id = await publisher.call('publish', { channel: 'large',
			payload: 'x'.repeat(32000000) });
		const raw = await Raw.open(gateway.port);
		let bytes = 0;
		raw.socket.removeAllListeners('data');
		raw.socket.on('data', (part) => {
			bytes += part.length;
			if (bytes % 131072 < part.length) raw.socket.pause();
		});
		const start = Date.now();
		raw.write(frame(TEXT, rpc(1, 'get', { id })));
		const timer = setInterval(() => raw.socket.resume(), 150);
		const line = await until('the close', () => gateway.event('close'), 16);
		clearInterval(timer);
		assert.equal(line.code, 1013);
		const took = Date.now() - start;
		assert.ok(took > 8000 && took < 14000, `${took} ms`);
		raw.destroy();
		await gateway.kill();
	});

	test('to a JSON-RPC batch keep to the limit of its client', async () => {
		const gateway = await bus.gateway();
		const open = (limit) => new Promise((resolve) => {
			const socket = new WebSocket(`ws://127.0.0.1:${gateway.port}/` +
				`?max_message_bytes=${limit}`);
			socket.on('open', () => resolve(socket));
		});
		const ask = (socket, frames) => new Promise((resolve) => {
			socket.once('message', (data) => resolve(data.toString()));
			socket.send(`[${frames.join()}]`);
		});
		const socket = await open(1024);
		for (const method of ['no_such', 'claim', 'get', 'ping']) {
			const frames = Array.from({ length: 60 }, (_, i) =>
				rpc(i, method, { channel: 'endings' }));
			const reply = await ask(socket, frames);
			assert.ok(Buffer.byteLength(reply) <= 1024, method);
			assert.match(reply, /"id":null,"error":\{"code":-32004/);
		}
		for (const count of [2, 9, 10, 11, 12]) {
			const frames = Array.from({ length: count }, (_, i) =>
				rpc('x'.repeat(i), 'no_such', {}));
			const reply = JSON.parse(await ask(socket, frames));
			assert.ok(JSON.stringify(reply).length <= 1024);
			if (!Array.isArray(reply)) continue;
			assert.deepEqual(reply.map(({ id }) => id.length),
				frames.map((_, i) => i));
			assert.ok(reply.every(({ error }) => error.code === -32601));
		}
		socket.terminate();
		await gateway.kill();
	});
});

describe('turns', () => {
	test('of claims that wait: four sessions do not hold the pool', async (t) => {
		const gateway = await bus.gateway({ MESSAGE_BUS_WAIT_SECS: '5' });
		for (let n = 0; n < 4; n++) {
			const greedy = await gateway.client();
			const again = () => greedy.call('claim',
				{ channel: 'private2', wait: 60 }).then(again, () => {});
			for (let i = 0; i < 64; i++) again();
		}
		await until('the pool', async () => Number(await bus.sql(`SELECT count(*)
			FROM pg_stat_activity WHERE wait_event_type = 'Extension'
			AND application_name = 'message-bus-gateway'`)) >= 2);
		const victim = await gateway.client();
		const publisher = await gateway.client();
		let slowest = 0;
		for (let i = 0; i < 20; i++) {
			const claim = victim.call('claim', { channel: 'events2', wait: 60 });
			await sleep(50);
			const start = Date.now();
			await publisher.call('publish', { channel: 'events2', payload: i });
			const [message] = await claim;
			slowest = Math.max(slowest, Date.now() - start);
			assert.equal(message.payload, i);
			await publisher.call('ping');
		}
		t.diagnostic(`the slowest delivery took ${slowest} ms`);
		assert.ok(slowest < 1000, `${slowest} ms`);
		await gateway.kill();
	});

	test('of sessions: batches of 20 sockets do not hold up a publish',
		async (t) => {
			const gateway = await bus.gateway({ MESSAGE_BUS_LOG_FRAMES: 'false' });
			const victim = await gateway.client();
			const call = async () => {
				const start = Date.now();
				await victim.call('publish', { channel: 'events', payload: 1 });
				return Date.now() - start;
			};
			const calls = async () => {
				const times = [];
				for (let i = 0; i < 30; i++) times.push(await call());
				return times.sort((a, b) => a - b);
			};
			const alone = await calls();
			const bytes = frame(TEXT, `[${Array.from({ length: 60 }, (_, i) =>
				rpc(i, 'no_such')).join()}]`);
			const raws = await Promise.all(Array.from({ length: 20 }, () =>
				Raw.open(gateway.port)));
			// a burst of each, and one more for each that is answered
			for (const raw of raws) {
				raw.write(...Array.from({ length: 40 }, () => bytes));
				raw.socket.on('data', () => raw.write(bytes));
			}
			await until('the queue', async () => Number(
				/requests_queued\{lane="short"\} (\d+)/.exec(
					(await gateway.get('/metrics')).text)[1]) > 400);
			const besieged = await calls();
			t.diagnostic(`alone ${alone[15]} ms, ${alone[28]} ms; ` +
				`besieged ${besieged[15]} ms, ${besieged[28]} ms`);
			for (const raw of raws) raw.destroy();
			assert.ok(besieged[15] < 200, `${besieged[15]} ms`);
			assert.ok(besieged[28] < 400, `${besieged[28]} ms`);
			await gateway.kill();
		});

	test('keep the order of each session', async () => {
		const gateway = await bus.gateway();
		const clients = await Promise.all(Array.from({ length: 10 }, () =>
			gateway.client()));
		await Promise.all(clients.map(async (client) => {
			const done = [];
			await Promise.all(Array.from({ length: 60 }, (_, i) =>
				client.call('publish', { channel: 'events',
					payload: 'x'.repeat((i * 7919) % 60000) })
					.then(() => done.push(i))));
			assert.deepEqual(done, Array.from({ length: 60 }, (_, i) => i));
		}));
		await gateway.kill();
	});
});

describe('leases of a lost socket', () => {
	// lone starts a gateway with one client that holds a lease.
	async function lone() {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		await client.call('publish', { channel: 'endings', payload: 1 });
		const [message] = await client.call('claim',
			{ channel: 'endings', lease_for: 600 });
		assert.ok(message.lease);
		assert.equal(await leases('endings'), 1);
		return { gateway, client };
	}

	test('end when the database is back, if it was away', async () => {
		const { gateway, client } = await lone();
		await bus.sql('ALTER ROLE gateway NOLOGIN');
		await terminate();
		await until('the loss', async () =>
			(await gateway.get('/readyz')).status === 503);
		client.socket.terminate();
		await until('the close', () => gateway.event('close'));
		await sleep(200);
		await bus.sql('ALTER ROLE gateway LOGIN');
		await until('the end', async () => await leases('endings') === 0, 5);
		await gateway.kill();
	});

	test('end if the database was lost with what ends them', async () => {
		const { gateway, client } = await lone();
		const thaw = await bus.freeze();
		client.socket.terminate();
		await until('the close', () => gateway.event('close'));
		await sleep(200);
		await terminate();
		thaw();
		await until('the end', async () => await leases('endings') === 0, 8);
		await gateway.kill();
	});

	test('nobody was told of are given back at once', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		await client.call('publish', { channel: 'synchronous', payload: 1 });
		await bus.sql(`ALTER SYSTEM SET synchronous_standby_names = 'nobody'`);
		await bus.sql('SELECT pg_reload_conf()');
		await sleep(1000);
		const unknown = [];
		try {
			client.raw(`[${rpc('a', 'claim', { channel: 'synchronous',
				lease_for: 600 })},${rpc('b', 'publish',
				{ channel: 'events', payload: 2 })}]`);
			await until('the wait', async () => Number(await bus.sql(
				`SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
				 WHERE wait_event = 'SyncRep'
				 AND application_name = 'message-bus-gateway'`)) > 0);
			unknown.push(...await client.frame((one) => Array.isArray(one)));
		} finally {
			await bus.sql('ALTER SYSTEM RESET synchronous_standby_names');
			await bus.sql('SELECT pg_reload_conf()');
		}
		assert.deepEqual(unknown.map(({ error }) => error.code),
			[-32050, -32050]);
		const message = await until('the message', async () => (await
		client.call('claim', { channel: 'synchronous' }))[0], 5);
		assert.equal(message.attempt, 1);
		assert.equal(await failures('synchronous'), '0');
		await client.call('ack', { lease: message.lease });
		await gateway.kill();
	});

	test('are not looked for where none was told', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		const calls = async () => Number(/batches_total (\d+)/.exec(
			(await gateway.get('/metrics')).text)[1]);
		await client.call('publish', { channel: 'events', payload: 1 });
		const before = await calls();
		client.socket.terminate();
		await until('the close', () => gateway.event('close'));
		await sleep(300);
		assert.equal(await calls(), before);
		await gateway.kill();
	});
});

describe('the log', () => {
	test('is not filled by frames that are refused', async () => {
		const gateway = await bus.gateway({ WS_MAX_MSG_BYTES: String(MIB),
			MESSAGE_BUS_MAX_BUFFERED_MB: '2', MESSAGE_BUS_LOG_FRAMES: 'false' });
		// one connection is not read from beyond its share
		const large = await Promise.all([0, 1, 2].map(() => gateway.client()));
		const small = await gateway.client();
		const thaw = await bus.freeze();
		// as much as there is room for, to some bytes
		for (let size = 512 * 1024; size >= 1; size /= 2) {
			for (let i = 0; i < 3; i++) {
				large[i].call('publish', { channel: 'events',
					payload: 'x'.repeat(size) }).catch(() => {});
			}
		}
		await until('the frames', async () => Number(/buffered_bytes (\d+)/.exec(
			(await gateway.get('/metrics')).text)[1]) > 2 * MIB - 200);
		const count = 10000;
		const codes = new Set();
		for (let i = 0; i < count; i++) {
			small.call('ping', { x: '.'.repeat(300) }).catch(({ code }) => {
				codes.add(code);
			});
		}
		await until('the refusals', async () => Number(
			/frames_refused_total\{reason="buffered"\} (\d+)/.exec(
				(await gateway.get('/metrics')).text)[1]) >= count, 30);
		assert.deepEqual([...codes], [-32011]);
		thaw();
		const lines = gateway.lines.filter(({ event }) => event === 'refused' ||
			event === 'frames_left_out').length;
		assert.ok(lines > 0 && lines < 100, `${lines} lines`);
		small.socket.terminate();
		await until('what was left out', () => gateway.lines
			.filter(({ event }) => event === 'frames_left_out')
			.reduce((sum, line) => sum + line.frames, 0) >= count - 400);
		await gateway.kill();
	});

	test('of many connections has a bound, too', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_LOG_FRAMES: 'false' });
		const clients = await Promise.all(Array.from({ length: 100 }, () =>
			gateway.client()));
		const log = path.join(bus.directory, 'server.log');
		const logged = fs.readFileSync(log, 'utf8').length;
		const start = Date.now();
		await Promise.all(clients.flatMap((client) => Array.from({ length: 20 },
			() => fails(client.call('no_such')))));
		const seconds = Math.ceil((Date.now() - start) / 1000) + 1;
		const told = () => gateway.lines.filter(({ event }) => event === 'frame');
		assert.ok(told().length <= 200 * seconds, `${told().length} lines`);
		assert.ok(told().length < 2000);
		await until('what was left out', () => gateway.event('frames_left_out',
			({ connection, frames }) => connection === undefined && frames > 0));
		const server = fs.readFileSync(log, 'utf8').slice(logged).match(
			/frame failed with -32601/g).length;
		assert.ok(server <= 100 * seconds, `${server} lines of the server`);
		await gateway.kill();
	});

	test('of the server has no tokens, or the gateway warns', async () => {
		const settings = { MESSAGE_BUS_LOG_FRAMES: 'false' };
		const server = () => fs.readFileSync(path.join(bus.directory,
			'server.log'), 'utf8');
		const warned = (gateway) => gateway.lines.filter(({ event }) =>
			event === 'tokens_logged').length;
		const silent = await bus.gateway(settings);
		assert.equal(warned(silent), 0);
		await silent.kill();
		await bus.sql(`ALTER SYSTEM SET log_min_duration_statement = 0`);
		await bus.sql('SELECT pg_reload_conf()');
		try {
			await sleep(500);
			const loud = await bus.gateway(settings);
			await until('the warning', () => warned(loud) === 1);
			await loud.kill();
			await bus.sql(
				'GRANT SET ON PARAMETER log_parameter_max_length TO gateway');
			const careful = await bus.gateway(settings);
			const before = server().length;
			const client = await careful.client();
			await client.call('publish', { channel: 'events',
				payload: 'hunter2canary' });
			await until('the log', () => /relay\(\$1, \$2\)/.test(
				server().slice(before)));
			const hex = Buffer.from('hunter2canary').toString('hex');
			assert.ok(!server().slice(before).includes(hex));
			assert.equal(warned(careful), 0);
			await careful.kill();
		} finally {
			await bus.sql('ALTER SYSTEM RESET log_min_duration_statement');
			await bus.sql('SELECT pg_reload_conf()');
		}
	});
});

describe('a stranger', () => {
	const secrets = () => [bus.directory, 'gateway"', '54321', 'no-such-login',
		'FATAL', 'role'];

	test('is not told where the database is, nor who logs in', async () => {
		const port = 20000 + process.pid % 20000;
		const gateway = await bus.gateway({ ready: false, user: 'no-such-login',
			MESSAGE_BUS_ADMIN_PORT: String(port) });
		await until('a reason', () => gateway.event('database'));
		const client = await gateway.client();
		const error = await fails(client.call('ping'));
		assert.equal(error.code, -32010);
		const { text } = await gateway.get('/readyz');
		assert.match(text, /there is no connection to the database/);
		for (const secret of secrets()) {
			assert.ok(!JSON.stringify(error.data).includes(secret), secret);
			assert.ok(!text.includes(secret), secret);
		}
		await until('the line', () => gateway.event('database',
			({ reason }) => /no-such-login/.test(reason)));
		const admin = await fetch(`http://127.0.0.1:${port}/readyz`);
		assert.match(await admin.text(), /no-such-login/);
		await gateway.kill();
	});

	test('nor why a call was lost', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		const thaw = await bus.freeze();
		const lost = fails(client.call('ping'));
		await sleep(200);
		await terminate();
		thaw();
		const error = await lost;
		assert.ok([-32050, -32010].includes(error.code));
		for (const secret of [...secrets(), 'administrator', 'server closed']) {
			assert.ok(!JSON.stringify(error.data).includes(secret), secret);
		}
		await gateway.kill();
	});
});
