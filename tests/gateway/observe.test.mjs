// observe.test.mjs
//     What log, metrics and /readyz tell of failures, and of whom.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Bus, sha256, until } from './bus.mjs';

const secret = 'a secret of at least thirty-two bytes';
const base64 = (value) => Buffer.from(value).toString('base64url');
let bus;

// bearer signs claims.
function bearer(claims) {
	const text = `${base64('{"alg":"HS256"}')}.${base64(JSON.stringify(
		{ exp: Math.floor(Date.now() / 1000) + 600, ...claims }))}`;
	const mac = createHmac('sha256', secret).update(text).digest('base64url');
	return { headers: { Authorization: `Bearer ${text}.${mac}` } };
}

before(async () => {
	bus = await Bus.start();
	await bus.sql(`CREATE ROLE anon; GRANT anon TO gateway;
		GRANT EXECUTE ON FUNCTION message_bus.open_session,
			message_bus.close_session TO gateway;
		SELECT message_bus.set_jwt_keys('${JSON.stringify({ keys: [
		{ kty: 'oct', alg: 'HS256', k: base64(secret) }] })}')`);
});
after(() => bus?.stop());

const series = async (gateway, labels) => Number(new RegExp(
	`requests_total\\{${labels}\\} (\\d+)`).exec(
	(await gateway.get('/metrics')).text)?.[1] ?? 0);

describe('a frame that fails', () => {
	test('is logged and counted with its method and code, logged or not',
		async () => {
			const gateway = await bus.gateway({ MESSAGE_BUS_LOG_FRAMES: 'false' });
			const client = await gateway.client();
			for (let i = 0; i < 15; i++) {
				const error = await client.call('publish',
					{ channel: 'private', payload: 1 }).catch((fault) => fault);
				assert.equal(error.code, -32002);
			}
			await client.call('publish', { channel: 'events', payload: 1 });
			await client.call('nothing').catch(() => {});
			client.notify?.('publish', { channel: 'private', payload: 1 });
			const lines = gateway.lines.filter((line) => line.event === 'frame');
			assert.equal(lines.filter((line) => line.method === 'publish').length,
				15);
			assert.deepEqual(Object.fromEntries(['level', 'outcome', 'code',
				'sqlstate'].map((name) => [name, lines[0][name]])),
			{ level: 'warning', outcome: 'failed', code: -32002,
				sqlstate: '42501' });
			assert.equal(await series(gateway,
				'method="publish",outcome="failed",code="-32002"'), 15);
			assert.equal(await series(gateway,
				'method="publish",outcome="committed",code="0"'), 1);
			assert.equal(await series(gateway,
				'method="other",outcome="failed",code="-32601"'), 1);
			await gateway.kill();
		});

	test('a flood of them does not fill the log', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_LOG_FRAMES: 'false' });
		const told = () => gateway.lines.filter((line) =>
			line.event === 'frame').length;
		const left = () => gateway.lines.filter((line) =>
			line.event === 'frames_left_out').reduce((sum, line) =>
			sum + line.frames, 0);
		const clients = [await gateway.client(), await gateway.client()];
		const failing = (client) => client.call('nothing').catch(() => {});
		await Promise.all(Array.from({ length: 300 }, () => failing(clients[0])));
		assert.ok(told() < 150, `${told()} lines`);
		// another connection has lines of its own
		const before = told();
		await failing(clients[1]);
		await until('its line', () => told() === before + 1);
		// the rest is told by and by, and when a connection ends
		await until('the rest', () => told() + left() === 301);
		await Promise.all(Array.from({ length: 100 }, () => failing(clients[1])));
		clients[1].socket.terminate();
		await until('the rest', () => told() + left() === 401, 5);
		await gateway.kill();
	});

	test('in a batch, too, and a notification', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_LOG_FRAMES: 'false' });
		const client = await gateway.client();
		client.raw(JSON.stringify([{ jsonrpc: '2.0', id: 1, method: 'ping' },
			{ jsonrpc: '2.0', id: 2, method: 'get', params: { id: 1 } }]));
		client.raw('{"jsonrpc":"2.0","method":"pong"}');
		await until('the lines', () => gateway.lines.filter((line) =>
			line.event === 'frame').length === 2);
		assert.deepEqual(gateway.lines.filter((line) => line.event === 'frame')
			.map((line) => [line.outcome, line.code]).sort(),
		[['failed', -32003], ['failed', -32601]]);
		assert.equal(await series(gateway,
			'method="batch",outcome="failed",code="-32003"'), 1);
		await gateway.kill();
	});
});

describe('who it is', () => {
	for (const [kind, told] of [['hash', sha256('alice@example').slice(0, 16)],
		['plain', 'alice@example'], ['none', undefined]]) {
		test(`lines tell role and subject: ${kind}`, async () => {
			const gateway = await bus.gateway({ MESSAGE_BUS_ROLE: '',
				MESSAGE_BUS_LOG_SUBJECTS: kind });
			const client = await gateway.client(
				bearer({ role: 'app', sub: 'alice@example' }));
			await client.call('publish', { channel: 'events', payload: 1 });
			await client.close();
			const lines = await until('the lines', () => {
				const found = ['frame', 'close'].map((name) => gateway.event(name));
				return found.every(Boolean) && found;
			});
			for (const line of lines) {
				assert.equal(line.role, 'app', line.event);
				assert.equal(line.sub, told, line.event);
			}
			await gateway.kill();
		});
	}
});

describe('/readyz', () => {
	test('says so where the bus takes no publishes', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		await bus.sql(`ALTER SYSTEM SET message_bus.databases = ''`);
		await bus.sql('SELECT pg_reload_conf()');
		await until('the refusal', () => client.call('publish',
			{ channel: 'events', payload: 1 }).then(() => false,
			(error) => error.data.sqlstate === '55000'), 60);
		const told = await gateway.get('/readyz');
		assert.equal(told.status, 503);
		assert.match(told.text, /publishes are refused: .*not ready.*55000/);
		await bus.sql('ALTER SYSTEM RESET message_bus.databases');
		await bus.sql('SELECT pg_reload_conf()');
		await until('a publish', () => client.call('publish',
			{ channel: 'events', payload: 1 }).catch(() => false), 60);
		assert.equal((await gateway.get('/readyz')).status, 200);
		await gateway.kill();
	});
});
