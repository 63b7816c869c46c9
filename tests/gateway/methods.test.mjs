// methods.test.mjs
//     Every method over a real WebSocket, text and binary, byte for byte.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Bus, fails, random, sha256, until } from './bus.mjs';

const sizes = { '1 KB': 1e3, '10 KB': 1e4, '100 KB': 1e5, '1 MB': 1e6,
	'10 MB': 1e7, '30 MB': 3e7 };

let bus, gateway, client;

before(async () => {
	bus = await Bus.start();
	gateway = await bus.gateway();
	client = await gateway.client();
});

after(() => bus.stop());

// jsonOf returns a JSON text of about this many bytes.
function jsonOf(size) {
	const rows = [];
	let length = 2;
	for (let i = 0; length < size; i++) {
		const row = JSON.stringify({ i, text: random(300).toString('base64'),
			note: 'é€😀 "quoted" \\ \u0001' });
		rows.push(row);
		length += row.length + 1;
	}
	return `[${rows.join(',')}]`;
}

async function storedHash(id) {
	return bus.sql(`SELECT encode(sha256, 'hex') FROM message_bus.get(${id})`);
}

describe('a body comes back byte for byte', () => {
	for (const [name, size] of Object.entries(sizes)) {
		test(`${name} of JSON in text frames`, async () => {
			const payload = jsonOf(size);
			const id = 1e6 + size;
			const reply = client.expect(id);
			client.raw(`{"jsonrpc":"2.0","id":${id},"method":"publish",` +
				`"params":{"channel":"events","payload":${payload}}}`);
			const message = await reply;
			assert.equal(await storedHash(message), sha256(payload));
			const got = await client.call('get', { id: message }, true);
			assert.equal(got.binary, false);
			const start = got.text.indexOf('"payload":') + 10;
			const end = start + payload.length;
			assert.equal(sha256(got.text.slice(start, end)), sha256(payload));
			assert.equal(got.frame.result.sha256, sha256(payload));
			assert.equal(got.frame.result.size, Buffer.byteLength(payload));
		});

		test(`${name} of bytes in binary frames`, async () => {
			const body = random(size);
			const { frame } = await client.callBinary('publish',
				{ channel: 'events' }, body);
			assert.equal(await storedHash(frame.result), sha256(body));
			const got = await client.callBinary('get', { id: frame.result });
			assert.equal(got.binary, true);
			assert.equal(sha256(got.body), sha256(body));
			assert.equal(got.frame.result.sha256, sha256(body));
		});
	}
});

describe('methods', () => {
	test('ping answers', async () => {
		assert.equal(await client.call('ping'), 'pong');
	});

	test('publish takes headers, key, transaction id and ttl', async () => {
		const id = await client.call('publish', { channel: 'events',
			payload: { a: 1 }, headers: { h: 'x' }, key: 'k',
			transaction_id: 't-1', ttl: '1 hour' });
		const got = await client.call('get', { id });
		assert.equal(got.channel, 'events');
		assert.equal(got.key, 'k');
		assert.equal(got.transaction_id, 't-1');
		assert.deepEqual(got.headers, { h: 'x' });
		assert.equal(got.publisher, 'app');
		assert.deepEqual(got.payload, { a: 1 });
		assert.equal(Date.parse(got.expires_at) - Date.parse(got.created_at),
			3600e3);
	});

	test('publish again with the same transaction id is the same message',
		async () => {
			const params = { channel: 'events', payload: [1],
				transaction_id: 'same' };
			const id = await client.call('publish', params);
			assert.equal(await client.call('publish', params), id);
			const error = await fails(client.call('publish',
				{ ...params, payload: [2] }));
			assert.equal(error.code, -32005);
			assert.equal(error.data.sqlstate, '23505');
		});

	test('publish_batch stores all in order', async () => {
		const ids = await client.call('publish_batch', { channel: 'events',
			messages: [{ payload: 1 }, { payload: 'two', key: 'b' }] });
		assert.equal(ids.length, 2);
		assert.equal((await client.call('get', { id: ids[1] })).payload, 'two');
	});

	test('publish_batch with bodies takes raw bytes', async () => {
		const bodies = [random(1000), random(5)];
		const id = 'bodies';
		const reply = client.expect(id, true);
		client.raw(Buffer.concat([Buffer.from(JSON.stringify({ jsonrpc: '2.0',
			id, method: 'publish_batch', bodies: [1000, 5],
			params: { channel: 'events',
				messages: [{ body: 0 }, { body: 1, key: 'k' }] } }) + '\n'),
		...bodies]));
		const { frame } = await reply;
		for (const [i, message] of frame.result.entries()) {
			const got = await client.callBinary('get', { id: message });
			assert.equal(sha256(got.body), sha256(bodies[i]));
		}
	});

	test('a batch with one bad element stores nothing', async () => {
		const count = () => bus.sql(
			`SELECT count(*) FROM message_bus.messages WHERE key = 'bad-batch'`);
		const error = await fails(client.call('publish_batch',
			{ channel: 'events', messages: [
				{ payload: 1, key: 'bad-batch' },
				{ payload: 2, key: 'bad-batch', ttl: '900 years' }] }));
		assert.equal(error.code, -32602);
		assert.equal(await count(), '0');
	});

	test('get_by_transaction finds a message, and says so if there is none',
		async () => {
			const id = await client.call('publish', { channel: 'events',
				payload: 5, transaction_id: 'find-me' });
			const got = await client.call('get_by_transaction',
				{ channel: 'events', transaction_id: 'find-me' });
			assert.equal(got.id, id);
			const error = await fails(client.call('get_by_transaction',
				{ channel: 'events', transaction_id: 'not there' }));
			assert.equal(error.code, -32003);
		});

	test('get_bytes reads any range', async () => {
		const body = random(5000);
		const { frame } = await client.callBinary('publish',
			{ channel: 'events' }, body);
		const all = await client.callBinary('get_bytes', { id: frame.result });
		assert.equal(sha256(all.body), sha256(body));
		const part = await client.callBinary('get_bytes',
			{ id: frame.result, from_byte: 100, max_bytes: 50 });
		assert.deepEqual(part.body, body.subarray(100, 150));
		// in a text frame it says how the bytes are written
		const text = await client.call('get_bytes',
			{ id: frame.result, from_byte: 100, max_bytes: 50 });
		assert.deepEqual({ ...text, payload: 0 },
			{ size: 50, encoding: 'base64', payload: 0 });
		assert.deepEqual(Buffer.from(text.payload, text.encoding),
			body.subarray(100, 150));
	});

	test('peek returns a set', async () => {
		const first = await client.call('publish',
			{ channel: 'events', payload: 'p1' });
		await client.call('publish', { channel: 'events', payload: 'p2' });
		const rows = await client.call('peek',
			{ channel: 'events', after_id: first - 1, max_messages: 2 });
		assert.deepEqual(rows.map((row) => row.payload), ['p1', 'p2']);
		const few = await client.call('peek',
			{ channel: 'events', after_id: first - 1, max_bytes: 7 });
		assert.deepEqual(few.map((row) => row.payload), ['p1']);
	});

	test('publish takes a time instead of a delay', async () => {
		const at = new Date(Date.now() + 60000).toISOString();
		const id = await client.call('publish',
			{ channel: 'events', payload: 'later', available_at: at });
		const message = await client.call('get', { id });
		assert.equal(new Date(message.available_at).toISOString(), at);
		const error = await fails(client.call('publish', { channel: 'events',
			payload: 'both', available_at: at, delay: 5 }));
		assert.equal(error.code, -32602);
	});

	test('store, retrieve and delete on the default channel', async () => {
		await client.call('store_message', { transaction_id: 'tx-9',
			session_id: 's', tool_name: 't', provider_name: 'p',
			payload: { x: 1 }, metadata: { m: 1 } });
		assert.deepEqual(await client.call('retrieve_message',
			{ transaction_id: 'tx-9' }), { x: 1 });
		assert.equal(await client.call('delete_message',
			{ transaction_id: 'tx-9' }), true);
		assert.equal((await fails(client.call('retrieve_message',
			{ transaction_id: 'tx-9' }))).code, -32003);
	});

	test('a JSON-RPC batch is answered by one array', async () => {
		client.raw(JSON.stringify([
			{ jsonrpc: '2.0', id: 'b1', method: 'ping' },
			{ jsonrpc: '2.0', method: 'publish',
				params: { channel: 'events', payload: 0 } },
			{ jsonrpc: '2.0', id: 'b2', method: 'nothing' }]));
		const answer = await client.frame((frame) => Array.isArray(frame));
		assert.deepEqual(answer.map((one) => one.id), ['b1', 'b2']);
		assert.equal(answer[0].result, 'pong');
		assert.equal(answer[1].error.code, -32601);
	});

	test('a notification is not answered, unless it fails', async () => {
		const quiet = await gateway.client();
		quiet.raw(JSON.stringify({ jsonrpc: '2.0', method: 'publish',
			params: { channel: 'events', payload: 'n', key: 'note' } }));
		quiet.raw(JSON.stringify({ jsonrpc: '2.0', method: 'publish',
			params: { channel: 'nowhere', payload: 'n' } }));
		const frame = await quiet.frame();
		assert.equal(frame.method, 'error');
		assert.equal(frame.params.code, -32003);
		assert.equal(quiet.frames.length, 1);
		assert.equal(await bus.sql(`SELECT count(*) FROM message_bus.messages
			WHERE key = 'note'`), '1');
	});
});

describe('a payload is the exact text of its value', () => {
	const values = ['1e400', '-0', '1.10', '9223372036854775807',
		'{"a":1,"a":2}', '"\\u0000"', '"\\ud800"', '[ 1 ,\t2 ]',
		`${'['.repeat(5000)}${']'.repeat(5000)}`];
	for (const value of values) {
		test(`${value.slice(0, 30)} comes back as sent, or is refused by name`,
			async () => {
				const one = await gateway.client();
				one.raw(`{"jsonrpc":"2.0","id":1,"method":"publish",` +
					`"params":{"channel":"events","payload":${value}}}`);
				const reply = await one.frame((frame) => frame.id === 1);
				if (reply.error) {
					assert.notEqual(reply.error.code, -32603);
					return;
				}
				const got = await one.call('get', { id: reply.result }, true);
				assert.ok(got.text.includes(`"payload":${value}`), got.text);
			});
	}
});

describe('errors', () => {
	const cases = [
		['an unknown channel', 'publish', { channel: 'no', payload: 1 },
			-32003, '42P01'],
		['no privilege', 'publish', { channel: 'private', payload: 1 },
			-32002, '42501'],
		['a wrong type', 'publish', { channel: 5, payload: 1 }, -32602],
		['a missing argument', 'publish', { channel: 'events' }, -32602],
		['a NULL argument', 'publish', { channel: null, payload: 1 }, -32602],
		['an unknown argument', 'get', { id: 1, more: 1 }, -32602],
		['a TTL over the limit', 'publish',
			{ channel: 'events', payload: 1, ttl: '9 years' }, -32602],
		['a wrong sha256', 'publish', { channel: 'events', payload: 1,
			sha256: '0'.repeat(64) }, -32007],
		['a message that is not there', 'get', { id: 1 }, -32003],
		['an unknown method', 'drop_bus', { channel: 'events' }, -32601],
		['a function that may not be executed', 'drop_channel',
			{ channel: 'events' }, -32002, '42501'],
		['the relay itself', 'relay', { sessions: [], frames: [] }, -32601],
		['expire, which is not for clients', 'expire', {}, -32601]];
	for (const [name, method, params, code, state] of cases) {
		test(`${name} is ${code}`, async () => {
			const error = await fails(client.call(method, params));
			assert.equal(error.code, code, error.message);
			if (state) assert.equal(error.data.sqlstate, state);
			assert.ok(error.message.length > 0);
		});
	}

	const broken = ['', '{', 'nonsense', '{"id":1', '[]', '7', '"x"', 'null',
		'{"jsonrpc":"2.0","id":1}', '{"jsonrpc":"1.0","id":1,"method":"ping"}'];
	for (const text of broken) {
		test(`the frame ${text || '(empty)'} is told to be wrong`, async () => {
			const one = await gateway.client();
			one.raw(text);
			const frame = await one.frame();
			assert.ok([-32700, -32600].includes(frame.error.code),
				JSON.stringify(frame));
			assert.equal(await one.call('ping'), 'pong');
		});
	}

	test('a binary frame with a payload member is -32600 and stays open',
		async () => {
			const error = await fails(client.callBinary('publish',
				{ channel: 'events', payload: 1 }, Buffer.from('x')));
			assert.ok([-32600, -32602].includes(error.code));
			assert.equal(await client.call('ping'), 'pong');
		});

	test('publishing that is switched off is -32008', async () => {
		const off = await bus.gateway({ MESSAGE_BUS_ENABLED: 'false' });
		const one = await off.client();
		const error = await fails(one.call('publish',
			{ channel: 'events', payload: 1 }));
		assert.equal(error.code, -32008);
		assert.equal(await one.call('ping'), 'pong');
	});

	test('a payload over the session\'s limit is -32004', async () => {
		const small = await bus.gateway({ MESSAGE_BUS_MAX_PAYLOAD_MB: '1' });
		const one = await small.client();
		const error = await fails(one.callBinary('publish',
			{ channel: 'events' }, random(1100000)));
		assert.equal(error.code, -32004);
		assert.equal(error.data.sqlstate, '54000');
	});

	test('a reply over the frame limit is -32004 with a hint', async () => {
		const { frame } = await client.callBinary('publish',
			{ channel: 'events' }, random(200000));
		const small = await bus.gateway({ WS_MAX_MSG_BYTES: '100000' });
		const one = await small.client();
		const error = await fails(one.callBinary('get', { id: frame.result }));
		assert.equal(error.code, -32004);
		assert.match(error.data.hint, /get_bytes/);
		const part = await one.callBinary('get_bytes',
			{ id: frame.result, max_bytes: 50000 });
		assert.equal(part.body.length, 50000);
	});
});

describe('frames do not disturb each other', () => {
	test('a bad frame fails alone among many of one turn', async () => {
		const clients = await Promise.all(Array.from({ length: 20 },
			() => gateway.client()));
		const calls = clients.flatMap((one, i) => [
			one.call('publish', { channel: 'events', payload: i }),
			fails(one.call('publish', { channel: 'no', payload: i })),
			one.call('ping')]);
		const results = await Promise.all(calls);
		for (let i = 0; i < results.length; i += 3) {
			assert.ok(results[i] > 0);
			assert.equal(results[i + 1].code, -32003);
			assert.equal(results[i + 2], 'pong');
		}
	});

	test('every socket gets its own replies and no other', async () => {
		const clients = await Promise.all(Array.from({ length: 30 },
			() => gateway.client()));
		await Promise.all(clients.map(async (one, i) => {
			for (let n = 0; n < 20; n++) {
				const id = await one.call('publish',
					{ channel: 'events', payload: `${i}/${n}` });
				const got = await one.call('get', { id });
				assert.equal(got.payload, `${i}/${n}`);
			}
		}));
		assert.ok(clients.every((one) => one.frames.length === 0));
	});

	test('a transaction id that somebody is publishing holds up nobody', async () => {
		const other = await gateway.client();
		const open = bus.sql(`BEGIN; SELECT message_bus.publish('default', '1',
			transaction_id => 'rival'); SELECT pg_sleep(3); COMMIT`);
		await until('the rival', async () => (await bus.sql(`SELECT count(*)
			FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3)%'
				AND wait_event = 'PgSleep'`)).trim() === '1');
		const start = Date.now();
		const refused = fails(client.call('publish', { channel: 'default',
			payload: 1, transaction_id: 'rival' }));
		await other.call('publish', { channel: 'default', payload: 2 });
		const error = await refused;
		assert.ok(Date.now() - start < 2500, 'both are answered at once');
		assert.equal(error.code, -32009);
		assert.equal(error.data.sqlstate, '55P03');
		await open;
		assert.equal(typeof await client.call('publish', { channel: 'default',
			payload: 1, transaction_id: 'rival' }), 'number');
	});

	test('a large body does not hold up small publishes', async () => {
		const big = await gateway.client();
		const health = async () => (await gateway.get('/healthz')).body;
		const before = (await health()).frames_in;
		const large = big.callBinary('publish', { channel: 'events' },
			random(3e7)).then(() => 'large');
		await until('the body', async () =>
			(await health()).frames_in === before + 1);
		const small = client.call('publish', { channel: 'events', payload: 1 })
			.then(() => 'small');
		assert.equal(await Promise.race([large, small]), 'small');
		await large;
	});

	test('a message tells which connection published it', async () => {
		const one = await gateway.client();
		const id = await one.call('publish', { channel: 'events', payload: 1 });
		const session = Number(await bus.sql(
			`SELECT session FROM message_bus.get(${id})`));
		assert.ok(gateway.event('open', (line) => line.connection === session));
	});

	test('fifty connections publishing at once share transactions',
		async () => {
			const before = (await gateway.get('/healthz')).body;
			const clients = await Promise.all(Array.from({ length: 50 },
				() => gateway.client()));
			await Promise.all(clients.flatMap((one, i) =>
				Array.from({ length: 20 }, (_, n) => one.call('publish',
					{ channel: 'events', payload: i * 100 + n }))));
			const now = (await gateway.get('/healthz')).body;
			assert.equal(now.frames_in - before.frames_in, 1000);
			assert.ok(now.batches - before.batches < 700,
				`${now.batches - before.batches} batches`);
		});
});
