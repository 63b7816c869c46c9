// errors.test.mjs
//     The view errors has what a client's frames failed for, also where the
//     gateway has refused them itself, and a client learns why its token was
//     refused.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Bus, until } from './bus.mjs';

const secret = 'a secret of at least thirty-two bytes';
const base64 = (value) => Buffer.from(value).toString('base64url');
let bus, gateway;

// bearer signs claims.
function bearer(claims, key = secret) {
	const text = `${base64('{"alg":"HS256"}')}.${base64(JSON.stringify(
		{ exp: Math.floor(Date.now() / 1000) + 600, ...claims }))}`;
	const mac = createHmac('sha256', key).update(text).digest('base64url');
	return { headers: { Authorization: `Bearer ${text}.${mac}` } };
}

before(async () => {
	bus = await Bus.start();
	await bus.sql(`CREATE ROLE anon; GRANT anon TO gateway;
		GRANT EXECUTE ON FUNCTION message_bus.open_session,
			message_bus.close_session TO gateway;
		SELECT message_bus.set_jwt_keys('${JSON.stringify({ keys: [
		{ kty: 'oct', alg: 'HS256', k: base64(secret) }] })}')`);
	gateway = await bus.gateway({ MESSAGE_BUS_ROLE: '',
		WS_MAX_MSG_BYTES: '1048576' });
});
after(() => bus?.stop());

// found waits for the row of a transaction id.
const found = (id) => until(`the error of ${id}`, () => bus.sql(`SELECT
	concat_ws('|', function, sqlstate, role, subject, channel, session > 0, message,
		detail) FROM message_bus.errors WHERE transaction_id = '${id}'`));

const fails = async (promise) => {
	try {
		await promise;
	} catch (error) {
		return error;
	}
	throw new Error('did not fail');
};

describe('errors has', () => {
	test('a publish refused for its checksum, by its transaction id',
		async () => {
			const client = await gateway.client(bearer({ role: 'app',
				sub: 'alice' }));
			const error = await fails(client.call('publish', { channel: 'events',
				payload: 1, transaction_id: 'sum', sha256: '0'.repeat(64) }));
			assert.equal(error.code, -32007);
			assert.equal(await found('sum'), 'publish|22023|app|alice|events|t|' +
				'payload does not match the given sha256|' +
				'The checksum of the 1 bytes received is another one.');
		});

	test('a frame over the limit, whoever sent it, in one piece or several',
		async () => {
			const text = (id) => JSON.stringify({ jsonrpc: '2.0', id: 1,
				method: 'publish', params: { channel: 'events',
					transaction_id: id, payload: 'x'.repeat(2000000) } });
			const expected = (role) => `publish|54000|${role}|events|t|` +
				'message too large|The limit is 1048576 bytes (WS_MAX_MSG_BYTES).';
			const alice = await gateway.client(bearer({ role: 'app', sub: 'alice' }));
			alice.socket.send(text('first'));
			assert.equal((await alice.end()).code, 1009);
			assert.equal(await found('first'), expected('app|alice'));

			const bob = await gateway.client(bearer({ role: 'app', sub: 'bob' }));
			assert.equal(await bob.call('ping'), 'pong');
			const whole = text('second');
			bob.socket.send(whole.slice(0, 600000), { fin: false });
			bob.socket.send(whole.slice(600000), { fin: true });
			assert.equal((await bob.end()).code, 1009);
			assert.equal(await found('second'), expected('app|bob'));

			const nobody = await gateway.client();
			nobody.socket.send(text('third'));
			assert.equal((await nobody.end()).code, 1009);
			assert.equal(await found('third'), expected('anon'));
		});

	test('also where clients do not authenticate', async () => {
		const open = await bus.gateway({ WS_MAX_MSG_BYTES: '1048576' });
		const client = await open.client();
		client.socket.send(Buffer.from('{"jsonrpc":"2.0","id":1,' +
			'"method":"publish","params":{"channel":"events",' +
			'"transaction_id":"fourth"}}\n' + 'x'.repeat(2000000)));
		assert.equal((await client.end()).code, 1009);
		assert.equal(await found('fourth'), 'publish|54000|app|events|t|' +
			'message too large|The limit is 1048576 bytes (WS_MAX_MSG_BYTES).');
		assert.equal(await (await open.client()).call('ping'), 'pong');
		await open.kill();
	});
});

describe('a token of the handshake that is refused', () => {
	for (const [why, options, detail] of [
		['for its signature', bearer({ role: 'app' }, 'another secret, as long as the first is'),
			'Its signature does not fit.'],
		['because it has expired', bearer({ role: 'app', exp: 1000000000 }),
			'It has expired.'],
		['for its role', bearer({ role: 'stranger' }),
			'The user who has logged in is not a member of its role.']]) {
		test(`${why} is answered with the reason`, async () => {
			const client = await gateway.client(options);
			client.socket._socket.cork();
			const calls = [client.call('publish', { channel: 'events',
				payload: 1, transaction_id: why }), client.call('ping'),
			client.call('claim', { channel: 'events', wait: 1 }),
			client.call('get', { id: 1 })];
			client.socket._socket.uncork();
			const errors = (await Promise.all(calls.map(fails)));
			// those of another lane may be too late for an answer
			assert.ok(errors.some((one) => one.code === -32001));
			for (const error of errors.filter((one) => one.code)) {
				assert.equal(error.message, 'token is not valid');
				assert.equal(error.data.detail, detail);
			}
			const { code, reason } = await client.end();
			assert.equal(code, 1008);
			assert.equal(reason, 'token is not valid');
			assert.match(await found(why), new RegExp(
				`^publish\\|28000\\|gateway\\|events\\|t\\|token is not valid\\|${detail}`));
		});
	}
});

describe('one subject', () => {
	test('does not hide what others of its role fail for, and is told of',
		async () => {
			const log = path.join(bus.directory, 'server.log');
			const logged = fs.readFileSync(log, 'utf8').length;
			const as = (sub) => gateway.client(bearer({ role: 'app', sub }));
			const greedy = await Promise.all(['greedy', 'greedy', 'second',
				'second', 'third', 'third'].map(as));
			const names = Array.from({ length: 20 }, (_, n) => `modest${n}`);
			const modest = await Promise.all(names.map(as));
			await Promise.all([...greedy, ...modest].map((client) =>
				client.call('ping')));
			// so many sessions that not each can have a share of its own
			const crowd = await Promise.all(Array.from({ length: 130 }, () =>
				gateway.client()));
			await Promise.all(crowd.map((client) => client.call('ping')));
			const start = Date.now();
			const crowded = crowd.map((client) => fails(client.call('no_such')));
			await crowded[129];
			const calls = greedy.flatMap((client) => Array.from({ length: 100 },
				() => fails(client.call('no_such'))));
			await calls[99];
			// one is refused before it runs
			modest[0].socket.send('{"id":1,"method":"unread","params":{"a":');
			calls.push(...modest.slice(1).map((client, n) =>
				fails(client.call(`missing${n + 1}`))));
			await Promise.all([...calls, ...crowded]);
			const seconds = Math.ceil((Date.now() - start) / 1000) + 1;
			await until('a row of each', async () => await bus.sql(`SELECT
				count(DISTINCT subject) FROM message_bus.errors
				WHERE subject LIKE 'modest%' AND role = 'app'`) === '20');
			assert.equal(await until('what was left out', () => bus.sql(`SELECT
				sum(n) FROM (SELECT coalesce(substring(message FROM
					'^(\\d+) more failures of this (?:subject|session) in one')::int,
					1) AS n FROM message_bus.errors WHERE subject = 'greedy' OR
					session IN (SELECT session FROM message_bus.errors
						WHERE subject = 'greedy')) t HAVING sum(n) = 200`)), '200');
			assert.ok(Number(await bus.sql(`SELECT count(*)
				FROM message_bus.errors WHERE subject = 'greedy'
				AND function = 'no_such'`)) <= 50 * seconds);
			const lines = fs.readFileSync(log, 'utf8').slice(logged);
			// one whose slot is a greedy one's in this second has no line
			const told = names.filter((_, n) =>
				lines.includes(`method "missing${n}"`)).length;
			assert.ok(told >= 14, `${told} of 19 have a line`);
		});
});
