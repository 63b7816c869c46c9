// delivery.test.mjs
//     Publishing, claiming and settling over a real WebSocket.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Bus, fails, random, sha256, sleep, until } from './bus.mjs';

let bus, gateway, client, channels = 0;

before(async () => {
	bus = await Bus.start();
	await bus.sql(`GRANT EXECUTE ON FUNCTION message_bus.create_channel,
		message_bus.alter_channel, message_bus.drop_channel,
		message_bus.grant_channel, message_bus.revoke_channel,
		message_bus.create_subscription, message_bus.drop_subscription,
		message_bus.pause, message_bus.resume, message_bus.seek,
		message_bus.redrive, message_bus.purge_channel TO app`);
	gateway = await bus.gateway();
	client = await gateway.client();
});

after(() => bus.stop());

// newChannel makes a channel through the gateway and returns its name.
async function newChannel(policy = {}) {
	const channel = `channel ${++channels}`;
	assert.equal(await client.call('create_channel', { channel, ...policy }),
		null);
	return channel;
}

const publish = (channel, payload, more = {}) =>
	client.call('publish', { channel, payload, ...more });

// claimAll claims in calls of 100 until nothing comes.
async function claimAll(one, channel) {
	const rows = [];
	for (;;) {
		const some = await one.call('claim', { channel, batch: 100 });
		if (some.length === 0) return rows;
		rows.push(...some);
	}
}

// bodiesOf cuts the payloads out of a binary reply.
function bodiesOf({ frame, body }) {
	let at = 0;
	return frame.bodies.map((length) => body.subarray(at, at += length));
}

describe('claim, ack, nack, extend', () => {
	test('what was published comes, is acked, and comes no more', async () => {
		const channel = await newChannel();
		const id = await publish(channel, { a: [1] },
			{ key: 'k', headers: { h: 'x' } });
		const [row, ...rest] = await client.call('claim', { channel });
		assert.deepEqual(rest, []);
		assert.equal(row.id, id);
		assert.equal(row.attempt, 1);
		assert.equal(row.key, 'k');
		assert.equal(row.by_reference, false);
		assert.deepEqual(row.headers, { h: 'x' });
		assert.deepEqual(row.payload, { a: [1] });
		assert.equal(row.sha256, sha256('{"a":[1]}'));
		assert.match(row.created_at, /^\d{4}-\d\d-\d\dT[\d:]+\.\d{6}Z$/);
		assert.deepEqual(await client.call('claim', { channel }), []);
		assert.equal(await client.call('ack', { lease: row.lease }), 1);
		assert.equal(await client.call('ack',
			{ lease: row.lease, ids: [id] }), 1);
		assert.equal((await fails(client.call('nack',
			{ lease: row.lease }))).code, -32006);
	});

	test('a payload is the exact text of its value', async () => {
		const channel = await newChannel();
		const values = ['1e400', '-0', '1.10', '{"a":1,"a":2}', '"\\ud800"',
			'[ 1 ,\t2 ]', 'null'];
		for (const value of values) {
			const id = `exact ${value}`;
			const reply = client.expect(id);
			client.raw(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},` +
				`"method":"publish","params":{"channel":"${channel}",` +
				`"payload":${value}}}`);
			await reply;
		}
		const { text } = await client.call('claim', { channel, batch: 100 }, true);
		for (const value of values) {
			assert.ok(text.includes(`"payload":${value}}`), value);
		}
	});

	test('bytes are base64 in a text frame', async () => {
		const channel = await newChannel();
		const bytes = random(1000);
		await client.call('publish', { channel, encoding: 'base64',
			payload: bytes.toString('base64') });
		const [row] = await client.call('claim', { channel });
		assert.equal(row.encoding, 'base64');
		assert.equal(row.content_type, 'application/octet-stream');
		assert.deepEqual(Buffer.from(row.payload, 'base64'), bytes);
	});

	test('several payloads are raw in a binary frame', async () => {
		const channel = await newChannel();
		const bodies = [random(70000), Buffer.from('{"n": 1.10}'), random(1)];
		await client.callBinary('publish', { channel }, bodies[0]);
		await client.callBinary('publish',
			{ channel, content_type: 'application/json' }, bodies[1]);
		await client.callBinary('publish', { channel }, bodies[2]);
		const reply = await client.callBinary('claim', { channel, batch: 10 });
		assert.equal(reply.binary, true);
		const { result } = reply.frame;
		assert.deepEqual(result.map((row) => row.body), [0, 1, 2]);
		assert.ok(result.every((row) => !('payload' in row)));
		assert.deepEqual(bodiesOf(reply), bodies);
		assert.deepEqual(result.map((row) => row.sha256), bodies.map(sha256));
	});

	test('a claim acks the batch before it, and then does not wait', async () => {
		const channel = await newChannel();
		await publish(channel, 1);
		await publish(channel, 2);
		const [first] = await client.call('claim', { channel, wait: 20 });
		const [second] = await client.call('claim',
			{ channel, wait: 20, ack: first.lease });
		assert.equal(second.id, first.id + 1);
		const started = Date.now();
		assert.deepEqual(await client.call('claim',
			{ channel, wait: 20, ack: second.lease }), []);
		assert.ok(Date.now() - started < 5000);
		const error = await fails(client.call('claim',
			{ channel, wait: 20, ack: second.lease + 1000000 }));
		assert.equal(error.code, -32006);
		assert.deepEqual(await client.call('claim', { channel }), []);
	});

	test('what is given back comes again after its delay', async () => {
		const channel = await newChannel({ max_attempts: 3 });
		await publish(channel, 1);
		const [first] = await client.call('claim', { channel });
		assert.equal(await client.call('nack',
			{ lease: first.lease, delay: 0.2, reason: 'not now' }), 1);
		const [again] = await until('the message',
			async () => {
				const rows = await client.call('claim', { channel });
				return rows.length > 0 && rows;
			});
		assert.equal(again.attempt, 2);
		assert.notEqual(again.lease, first.lease);
		const error = await fails(client.call('ack', { lease: first.lease }));
		assert.equal(error.code, -32006);
		assert.equal(error.data.sqlstate, '55000');
	});

	test('a lease that is not extended ends, one that is goes on', async () => {
		const channel = await newChannel();
		await publish(channel, 1);
		await publish(channel, 2);
		const rows = await client.call('claim',
			{ channel, batch: 2, lease_for: '300 milliseconds' });
		const until30 = await client.call('extend', { lease: rows[0].lease,
			lease_for: 30, ids: [rows[0].id] });
		const seconds = (Date.parse(until30) - Date.now()) / 1000;
		assert.ok(seconds > 20 && seconds < 40, until30);
		const again = await until('the other', async () => {
			const found = await client.call('claim', { channel, batch: 2 });
			return found.length > 0 && found;
		});
		assert.deepEqual(again.map((row) => [row.id, row.attempt]),
			[[rows[1].id, 2]]);
		const error = await fails(client.call('ack', { lease: rows[0].lease,
			ids: [rows[0].id, rows[1].id] }));
		assert.equal(error.code, -32006);
		assert.match(error.data.detail, new RegExp(rows[1].id));
		assert.equal(await client.call('ack', { lease: rows[0].lease,
			ids: [rows[0].id] }), 1);
	});

	test('a lease tells which connection holds it', async () => {
		const channel = await newChannel();
		const one = await gateway.client();
		await publish(channel, 1);
		await one.call('claim', { channel });
		const session = Number(await bus.sql(`SELECT session
			FROM message_bus.leases WHERE channel = '${channel}'`));
		assert.ok(gateway.event('open', (line) => line.connection === session));
	});

	test('many claim at once, and each message goes to one', async () => {
		const channel = await newChannel();
		await client.call('publish_batch', { channel,
			messages: Array.from({ length: 500 }, (_, i) => ({ payload: i })) });
		const clients = await Promise.all(Array.from({ length: 10 },
			() => gateway.client()));
		const taken = await Promise.all(clients.map(async (one) => {
			const mine = [];
			for (;;) {
				const rows = await one.call('claim', { channel, batch: 7 });
				if (rows.length === 0) return mine;
				assert.equal(await one.call('ack', { lease: rows[0].lease }),
					rows.length);
				mine.push(...rows.map((row) => row.payload));
			}
		}));
		const all = taken.flat();
		assert.equal(all.length, 500);
		assert.equal(new Set(all).size, 500);
	});
});

describe('dead letters, subscriptions, channels', () => {
	test('the last attempt makes a dead letter, which is redriven', async () => {
		const dead = await newChannel();
		const channel = await newChannel({ max_attempts: 1, dead_letter: dead });
		const id = await publish(channel, { order: 7 });
		const [row] = await client.call('claim', { channel });
		await client.call('nack', { lease: row.lease, reason: 'no stock' });
		const [letter] = await client.call('claim', { channel: dead });
		assert.deepEqual(letter.payload, { order: 7 });
		assert.equal(letter.headers.dead_letter.reason, 'no stock');
		assert.equal(letter.headers.dead_letter.id, id);
		assert.equal(await client.call('redrive', { dead_letter: dead }), 1);
		const [again] = await client.call('claim', { channel });
		assert.equal(again.id, id);
		assert.equal(await client.call('ack', { lease: again.lease }), 1);
	});

	test('each subscription gets every message; seek delivers again',
		async () => {
			const channel = await newChannel();
			await client.call('create_subscription',
				{ channel, subscription: 'billing', ordered: true });
			const ids = [await publish(channel, 1), await publish(channel, 2)];
			for (const subscription of ['default', 'billing']) {
				const rows = await client.call('claim',
					{ channel, subscription, batch: 10 });
				assert.deepEqual(rows.map((row) => row.id), ids);
				await client.call('ack', { lease: rows[0].lease });
			}
			const billing = { channel, subscription: 'billing' };
			assert.equal(await client.call('seek',
				{ ...billing, start: String(ids[1]) }), null);
			const rows = await client.call('claim', { ...billing, batch: 10 });
			assert.deepEqual(rows.map((row) => row.id), [ids[1]]);
			await client.call('ack', { lease: rows[0].lease });

			await client.call('pause', billing);
			await publish(channel, 3);
			assert.deepEqual(await client.call('claim', billing), []);
			await client.call('resume', billing);
			await until('the message', async () =>
				(await client.call('claim', billing)).length === 1);
			assert.equal(await client.call('drop_subscription', billing), null);
			assert.equal((await fails(client.call('claim', billing))).code,
				-32003);
		});

	test('channels are made, granted, purged and dropped', async () => {
		const channel = await newChannel({ ttl: '1 hour', max_payload: 100 });
		assert.equal((await fails(publish(channel, 'x'.repeat(100)))).code,
			-32004);
		assert.equal(await client.call('alter_channel',
			{ channel, max_payload: 0 }), null);
		await publish(channel, 'x'.repeat(100));
		assert.equal(await client.call('grant_channel', { channel,
			grantee: 'stranger', privileges: 'consume' }), null);
		assert.equal(await client.call('revoke_channel', { channel,
			grantee: 'stranger', privileges: 'all' }), null);
		assert.equal(await client.call('purge_channel', { channel }), 1);
		assert.deepEqual(await client.call('claim', { channel }), []);
		assert.equal(await client.call('drop_channel', { channel }), null);
		assert.equal((await fails(publish(channel, 1))).code, -32003);
	});

	test('a channel made here has the gateway\'s TTL and compression',
		async () => {
			const other = await bus.gateway({ MESSAGE_BUS_TTL_HOURS: '3',
				MESSAGE_BUS_COMPRESSION: 'gzip' });
			const one = await other.client();
			await one.call('create_channel', { channel: 'made there' });
			await one.call('create_channel',
				{ channel: 'made so', ttl: 60, compression: 'none' });
			assert.equal(await bus.sql(`SELECT string_agg(ttl || ' ' ||
				compression, ', ' ORDER BY channel) FROM message_bus.channels
				WHERE channel LIKE 'made %'`), '00:01:00 none, 03:00:00 gzip');
		});
});

describe('large bodies', () => {
	test('a body over inline_max goes by reference, with a preview',
		async () => {
			const channel = await newChannel();
			const payload = JSON.stringify('é'.repeat(1500000));
			const id = await publish(channel, 'é'.repeat(1500000));
			const [row] = await client.call('claim', { channel });
			assert.equal(row.by_reference, true);
			assert.ok(!('payload' in row));
			assert.deepEqual(row.ref, { id, size: Buffer.byteLength(payload),
				sha256: sha256(payload), content_type: 'application/json',
				preview: payload.slice(0, 512) });
			const parts = [];
			for (let at = 0; at < row.size; at += 1e6) {
				const part = await client.callBinary('get_bytes',
					{ id: row.ref.id, from_byte: at, max_bytes: 1e6 });
				parts.push(part.body);
			}
			assert.equal(sha256(Buffer.concat(parts)), row.ref.sha256);
			assert.equal(await client.call('ack', { lease: row.lease }), 1);
		});

	test('so does one that the connection cannot take', async () => {
		const small = await bus.gateway({ WS_MAX_MSG_BYTES: '10000' });
		const one = await small.client();
		const channel = await newChannel();
		const bytes = random(9000);
		await client.callBinary('publish',
			{ channel, transaction_id: 'large' }, bytes);
		const [row] = await one.call('claim', { channel });
		assert.equal(row.by_reference, true);
		assert.equal(row.ref.sha256, sha256(bytes));
		assert.ok(!('preview' in row.ref));
		assert.equal((await fails(one.call('get', { id: row.id }))).code, -32004);
		const got = await one.call('get_by_transaction',
			{ channel, transaction_id: 'large' });
		assert.equal(got.by_reference, true);
		// raw bytes are shorter than base64
		const raw = await one.callBinary('get_by_transaction',
			{ channel, transaction_id: 'large' });
		assert.deepEqual(raw.body, bytes);
	});

	test('a batch that does not fit is cut, and nothing is lost', async () => {
		const small = await bus.gateway({ WS_MAX_MSG_BYTES: '10000' });
		const one = await small.client();
		const channel = await newChannel();
		const sent = Array.from({ length: 60 }, (_, i) => ({
			payload: 'x'.repeat(i * 37), headers: { h: 'y'.repeat(2000 - i * 30) },
		}));
		await client.call('publish_batch', { channel, messages: sent });
		const rows = await claimAll(one, channel);
		assert.deepEqual(rows.map((row) => row.payload),
			sent.map((message) => message.payload));
		assert.ok(rows.every((row) => row.attempt === 1));
		const leases = new Set(rows.map((row) => row.lease));
		let acked = 0;
		for (const lease of leases) acked += await one.call('ack', { lease });
		assert.equal(acked, 60);
	});

	test('a claim that cannot be answered leaves its messages ready',
		async () => {
			const small = await bus.gateway({ WS_MAX_MSG_BYTES: '10000' });
			const one = await small.client();
			const channel = await newChannel();
			await publish(channel, 1, { headers: { h: 'x'.repeat(20000) } });
			for (const batch of [1, 10]) {
				const error = await fails(one.call('claim', { channel, batch }));
				assert.equal(error.code, -32004);
				assert.equal(error.data.sqlstate, '54000');
			}
			const [row] = await client.call('claim', { channel });
			assert.equal(row.attempt, 1);
			assert.equal(row.headers.h.length, 20000);
		});
});

describe('waiting', () => {
	test('a claim waits for a message that is published meanwhile',
		async () => {
			const channel = await newChannel();
			const one = await gateway.client();
			const claim = one.call('claim', { channel, wait: 20 });
			await sleep(300);
			const id = Number(await bus.sql(
				`SELECT message_bus.publish('${channel}', '"now"')`));
			const [row] = await claim;
			assert.equal(row.id, id);
			assert.equal(row.payload, 'now');
			assert.equal(await one.call('ack', { lease: row.lease }), 1);
		});

	test('also for a large one, whose preview it can read', async () => {
		const channel = await newChannel();
		const one = await gateway.client();
		const claim = one.call('claim', { channel, wait: '20 seconds' });
		await sleep(300);
		await bus.sql(`SELECT message_bus.publish('${channel}',
			to_json(repeat('x', 2000000)))`);
		const [row] = await claim;
		assert.equal(row.ref.preview, `"${'x'.repeat(1023)}`);
	});

	test('a wait ends empty before the call takes too long', async () => {
		const short = await bus.gateway({ TOOL_TIMEOUT_SECS: '2' });
		const one = await short.client();
		const channel = await newChannel();
		const started = Date.now();
		assert.deepEqual(await one.call('claim', { channel, wait: 60 }), []);
		assert.ok(Date.now() - started >= 700, `${Date.now() - started} ms`);
		assert.equal(await one.call('ping'), 'pong');
	});

	test('a claim in a batch with others does not wait', async () => {
		const channel = await newChannel();
		const one = await gateway.client();
		const started = Date.now();
		one.raw(JSON.stringify([
			{ jsonrpc: '2.0', id: 1, method: 'claim',
				params: { channel, wait: 60 } },
			{ jsonrpc: '2.0', id: 2, method: 'ping' }]));
		const [claim, ping] = await one.frame((frame) => Array.isArray(frame));
		assert.deepEqual(claim.result, []);
		assert.equal(ping.result, 'pong');
		assert.ok(Date.now() - started < 20000);
	});
});

describe('errors', () => {
	const cases = [
		['claim from no channel', 'claim', { channel: 'no' }, -32003, '42P01',
			/channel "no" does not exist/],
		['claim from no subscription', 'claim',
			{ channel: 'events', subscription: 'no' }, -32003, '42P01',
			/subscription "no" does not exist/],
		['claim without the privilege', 'claim', { channel: 'private' }, -32002,
			'42501', /permission denied for channel "private"/],
		['claim of no messages', 'claim', { channel: 'events', batch: 0 }, -32602,
			'22023', /invalid batch: 0/],
		['claim with a wait that is none', 'claim',
			{ channel: 'events', wait: 'a while' }, -32602, '22007',
			/parameter "wait"/],
		['claim without a channel', 'claim', {}, -32602, '22023',
			/"channel" is missing/],
		['ack of a lease that never was', 'ack', { lease: 1 }, -32006, '55000',
			/lease 1 is not held/],
		['ack of ids that are strings', 'ack', { lease: 1, ids: ['1'] }, -32602,
			'22023', /parameter "ids" is not a whole number: "1"/],
		['ack of too many ids', 'ack',
			{ lease: 1, ids: Array.from({ length: 10001 }, (_, i) => i + 1) },
			-32004, '54000', /10001/],
		['extend by nothing', 'extend', { lease: 1, lease_for: 0 }, -32602,
			'22023', /lease_for/],
		['a channel that exists', 'create_channel', { channel: 'events' },
			-32602, '42710', /already exists/],
		['a channel of another', 'drop_channel', { channel: 'private' }, -32002,
			'42501', /private/],
		['a grant to nobody', 'grant_channel', { channel: 'events',
			grantee: 'nobody such', privileges: 'all' }, -32003, '42704',
		/role "nobody such" does not exist/],
		['a binary frame with a payload for claim', 'claim',
			{ channel: 'events' }, -32600, '22023', /takes no payload/,
			Buffer.from('x')]];
	for (const [name, method, params, code, state, words, body] of cases) {
		test(`${name} is ${code}`, async () => {
			const error = await fails(body ? client.callBinary(method, params, body)
				: client.call(method, params));
			assert.equal(error.code, code, error.message);
			assert.equal(error.data.sqlstate, state);
			assert.match(error.message, words);
		});
	}

	test('what may not be executed is -32002', async () => {
		await bus.sql(`REVOKE EXECUTE ON FUNCTION message_bus.redrive FROM app`);
		const error = await fails(client.call('redrive',
			{ dead_letter: 'events' }));
		await bus.sql(`GRANT EXECUTE ON FUNCTION message_bus.redrive TO app`);
		assert.equal(error.code, -32002);
		assert.match(error.message, /permission denied for function redrive/);
	});

	test('a claim that is a notification is refused', async () => {
		const channel = await newChannel();
		await publish(channel, 1);
		const one = await gateway.client();
		one.raw(JSON.stringify({ jsonrpc: '2.0', method: 'claim',
			params: { channel } }));
		const frame = await one.frame();
		assert.equal(frame.method, 'error');
		assert.equal(frame.params.code, -32600);
		const [row] = await one.call('claim', { channel });
		assert.equal(row.attempt, 1);
	});

	test('one bad ack fails alone among many of one turn', async () => {
		const channel = await newChannel();
		await client.call('publish_batch', { channel,
			messages: Array.from({ length: 20 }, (_, i) => ({ payload: i })) });
		const rows = await client.call('claim', { channel, batch: 20 });
		const results = await Promise.allSettled(rows.map((row, i) =>
			client.call('ack', { lease: row.lease,
				ids: [i === 7 ? row.id + 1000 : row.id] })));
		assert.deepEqual(results.map((result) => result.status).filter(
			(status) => status === 'rejected').length, 1);
		assert.equal(results[7].reason.code, -32006);
		assert.equal(await client.call('ack', { lease: rows[0].lease,
			ids: rows.map((row) => row.id) }), 20);
	});
});
