// losing.test.mjs
//     Nothing is lost for a client whose own frame limit is small, or whose
//     socket is lost: what it never received costs no attempt.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Bus, sleep, until } from './bus.mjs';
import { Raw, TEXT, close, frame, rpc } from './raw.mjs';

const LIMIT = '1000000';
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
	await bus.sql(`SELECT message_bus.create_channel('dead');
		SELECT message_bus.create_channel(c, backoff => '2 seconds',
			dead_letter => 'dead')
		FROM unnest(ARRAY['small', 'many', 'lost', 'unread', 'kept', 'gone', 'code',
			'poison', 'acked', 'forged', 'beside'])
			AS c;
		SELECT message_bus.grant_channel(channel, 'app', 'all')
		FROM message_bus.channels;
		CREATE ROLE anon; GRANT anon TO gateway;
		GRANT EXECUTE ON FUNCTION message_bus.open_session,
			message_bus.close_session TO gateway;
		SELECT message_bus.set_jwt_keys('${JSON.stringify({ keys: [
		{ kty: 'oct', alg: 'HS256', k: base64(secret) }] })}')`);
});
after(() => bus?.stop());

const failures = (channel) => bus.sql(`SELECT string_agg(
	f.kind || ' ' || f.attempt || ' ' || coalesce(f.reason, ''), ',' ORDER BY f.at)
	FROM message_bus.failure f JOIN message_bus.messages m ON m.id = f.message_id
	WHERE m.channel = '${channel}'`);

describe('a client with a small frame limit', () => {
	test('gets a message that is larger by reference, and no close', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_CLIENT_MAX_BYTES: LIMIT });
		const client = await gateway.client();
		const payload = 'x'.repeat(1048374);
		const id = await client.call('publish', { channel: 'small', payload,
			transaction_id: 'large' });
		const [message] = await client.call('claim', { channel: 'small' });
		assert.equal(message.by_reference, true);
		assert.equal(message.ref.id, id);
		await client.call('ack', { lease: message.lease });
		for (const [method, params] of [['peek', { channel: 'small' }],
			['get_by_transaction', { channel: 'small', transaction_id: 'large' }]]) {
			const [read] = [await client.call(method, params)].flat();
			assert.equal(read.by_reference, true, method);
			assert.equal(read.ref.size, payload.length + 2);
		}
		const error = await client.call('get', { id }).catch((fault) => fault);
		assert.equal(error.code, -32004);
		assert.match(error.data.hint, /get_bytes.*max_message_bytes/);
		const part = await client.call('get_bytes', { id, max_bytes: 500000 });
		assert.equal(part.size, 500000);
		assert.equal(Buffer.from(part.payload, part.encoding).length, 500000);
		await gateway.kill();
	});

	test('gets a batch in parts, and all of it in the end', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_CLIENT_MAX_BYTES: LIMIT });
		const client = await gateway.client();
		for (let i = 0; i < 20; i++) {
			await client.call('publish', { channel: 'many',
				payload: `${i}`.padEnd(300000, '.') });
		}
		const peeked = await client.call('peek', { channel: 'many' });
		assert.ok(peeked.length > 0 && peeked.length < 20);
		assert.equal(peeked[0].payload.length, 300000);
		const ids = new Set();
		while (ids.size < 20) {
			const messages = await client.call('claim',
				{ channel: 'many', batch: 10 });
			assert.ok(JSON.stringify(messages).length < 1000000);
			assert.ok(messages.length > 0);
			for (const { id, attempt } of messages) {
				ids.add(id);
				assert.equal(attempt, 1);
			}
			await client.call('ack', { lease: messages[0].lease });
		}
		await gateway.kill();
	});

	test('may ask for more or less at the handshake', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_CLIENT_MAX_BYTES: LIMIT });
		const first = await gateway.client();
		const id = await first.call('publish', { channel: 'small',
			payload: 'y'.repeat(3000000) });
		const large = await gateway.client({ query: 'max_message_bytes=4000000' });
		assert.equal((await large.call('get', { id })).payload.length, 3000000);
		const tiny = await gateway.client({ query: 'max_message_bytes=1024' });
		assert.equal((await tiny.call('get', { id }).catch((error) => error)).code,
			-32004);
		for (const wrong of ['1023', '33554433', '-1', 'x', '']) {
			await assert.rejects(gateway.client(
				{ query: `max_message_bytes=${wrong}` }), /400/, wrong);
		}
		// behind a longer argument, too
		const query = `access_token=${'t'.repeat(3000)}&max_message_bytes=`;
		const behind = await gateway.client({ query: query + '4000000' });
		assert.equal((await behind.call('get', { id })).payload.length, 3000000);
		await assert.rejects(gateway.client({ query: query + 'x' }), /400/);
		await gateway.kill();
	});
});

describe('a lost socket', () => {
	// deaf claims and never reads a reply.
	async function deaf(gateway, channel, more = {}) {
		const { socket } = await gateway.client();
		socket._socket.pause();
		socket.send(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'claim',
			params: { channel, lease_for: 600, ...more } }));
		return socket;
	}

	test('costs one attempt, which comes again after the backoff', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		await client.call('publish', { channel: 'lost', payload: 1 });
		const other = await gateway.client();
		const [message] = await other.call('claim',
			{ channel: 'lost', lease_for: 600 });
		assert.equal(message.attempt, 1);
		other.socket.terminate();
		await until('the failure', async () => await failures('lost') ===
			'disconnected 1 the socket was closed with code 1006');
		assert.deepEqual(await client.call('claim', { channel: 'lost' }), []);
		const again = await until('the retry', async () => (await client.call(
			'claim', { channel: 'lost' }))[0], 10);
		assert.equal(again.attempt, 2);
		assert.ok(Date.parse(again.created_at) < Date.now() - 900);
		await client.call('ack', { lease: again.lease });
		await gateway.kill();
	});

	test('the client\'s close code is the reason, and is logged and counted',
		async () => {
			const gateway = await bus.gateway();
			const client = await gateway.client();
			await client.call('publish', { channel: 'code', payload: 1 });
			await client.call('claim', { channel: 'code', lease_for: 600 });
			client.socket.close(1009, 'frame is too long for me');
			await until('the failure', async () => await failures('code') ===
				'disconnected 1 the socket was closed with code 1009');
			const line = await until('the line', () => gateway.event('close'));
			assert.deepEqual([line.by, line.code, line.reason],
				['client', 1009, 'frame is too long for me']);
			assert.match((await gateway.get('/metrics')).text,
				/connections_closed_total\{by="client",code="1009"\} 1/);
			await gateway.kill();
		});

	test('what was not begun to be written costs nothing', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		const id = await client.call('publish', { channel: 'small',
			payload: 'z'.repeat(24000000) });
		await client.call('publish', { channel: 'unread', payload: 1 });
		for (let i = 0; i < 6; i++) {
			const { socket } = await gateway.client();
			socket._socket.pause();
			// its reply fills the socket
			socket.send(rpc(1, 'get', { id }));
			await until('the reply', async () => /replies_queued_bytes ([1-9]\d*)/
				.test((await gateway.get('/metrics')).text));
			socket.send(rpc(2, 'claim', { channel: 'unread', lease_for: 600 }));
			const held = async () => Number(await bus.sql(`SELECT count(*)
				FROM message_bus.leases WHERE channel = 'unread'`));
			await until('the claim', async () => await held() > 0);
			await sleep(300);
			socket.terminate();
			await until('the end', async () => await held() === 0);
		}
		assert.equal(await failures('unread'), '');
		const [message] = await client.call('claim', { channel: 'unread' });
		assert.equal(message.attempt, 1);
		await gateway.kill();
	});

	test('a reply that was begun costs an attempt: its client may be unable ' +
		'to take it', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		for (let i = 0; i < 25; i++) {
			await client.call('publish', { channel: 'poison',
				payload: 'z'.repeat(900000) });
		}
		const raw = await Raw.open(gateway.port);
		raw.socket.once('data', () => raw.socket.pause());
		raw.write(frame(TEXT, rpc(1, 'claim',
			{ channel: 'poison', batch: 25, lease_for: 600 })));
		await until('the reply', () => raw.socket.isPaused());
		raw.write(close(1009));
		await sleep(300);
		raw.destroy();
		await until('the failure', async () => /^disconnected 1 /.test(
			await failures('poison')));
		await gateway.kill();
	});

	test('a close does not overtake an ack', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_ROLE: '' });
		const client = await gateway.client(bearer({ role: 'app' }));
		const { socket } = client;
		for (let i = 0; i < 8; i++) {
			await client.call('publish', { channel: 'acked', payload: i });
		}
		const leases = [];
		for (let i = 0; i < 8; i++) {
			const [message] = await client.call('claim',
				{ channel: 'acked', lease_for: 600 });
			leases.push(message.lease);
		}
		await client.call('get', { id: 1 }).catch(() => {});
		// the long lane has more to do than the short one
		const thaw = await bus.freeze();
		for (const lease of leases) {
			socket.send(`${rpc(lease, 'ack', { lease })}${' '.repeat(70000)}`);
		}
		await sleep(1000);
		socket.terminate();
		await sleep(500);
		thaw();
		await until('the end', async () => Number(await bus.sql(`SELECT count(*)
			FROM message_bus.leases WHERE channel = 'acked'`)) === 0);
		await sleep(500);
		assert.equal(await failures('acked'), '');
		await gateway.kill();
	});

	test('a close code that is none ends leases like any other', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		await client.call('publish', { channel: 'forged', payload: 1 });
		const raw = await Raw.open(gateway.port);
		raw.write(frame(TEXT, rpc(1, 'claim',
			{ channel: 'forged', lease_for: 600 })));
		await raw.message();
		raw.write(close(0x83e8));
		await until('the failure', async () => /^disconnected 1 /.test(
			await failures('forged')));
		await gateway.kill();
	});

	test('is told again when the frame of another made the call fail',
		async () => {
			await bus.sql(`ALTER FUNCTION message_bus.relay(bigint[], bytea[])
					RENAME TO relay_behind;
				CREATE FUNCTION message_bus.relay(sessions bigint[], frames bytea[])
					RETURNS TABLE (session bigint, frame bytea, request integer,
						code integer, sqlstate text, leases bigint[])
					LANGUAGE plpgsql AS $$
					BEGIN
						IF array_to_string(frames, '') LIKE
							'%' || encode('explode', 'hex') || '%' THEN
							RAISE EXCEPTION 'the call is refused';
						END IF;
						RETURN QUERY SELECT * FROM
							message_bus.relay_behind(sessions, frames);
					END $$;
				GRANT EXECUTE ON FUNCTION message_bus.relay(bigint[], bytea[])
					TO gateway`);
			try {
				const gateway = await bus.gateway();
				const client = await gateway.client();
				await client.call('publish', { channel: 'beside', payload: 1 });
				const other = await gateway.client();
				await other.call('claim', { channel: 'beside', lease_for: 600 });
				const thaw = await bus.freeze();
				// two batches are on their way, and the third is gathered
				const pings = [client.call('ping')];
				await sleep(200);
				pings.push(client.call('ping'));
				await sleep(200);
				const failing = client.call('explode').catch((error) => error.code);
				other.socket.terminate();
				await until('the close', () => gateway.event('close'));
				thaw();
				await Promise.all(pings);
				assert.equal(await failing, -32603);
				await until('the failure', async () => /^disconnected 1 /.test(
					await failures('beside')));
				await gateway.kill();
			} finally {
				await bus.sql(`DROP FUNCTION
						message_bus.relay(bigint[], bytea[]);
					ALTER FUNCTION message_bus.relay_behind(bigint[], bytea[])
						RENAME TO relay`);
			}
		});

	test('nor does what was claimed when it was gone', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_WAIT_SECS: '5' });
		const client = await gateway.client();
		for (let i = 0; i < 6; i++) {
			const before = (await gateway.get('/healthz')).body.frames_in;
			const socket = await deaf(gateway, 'gone', { wait: 4 });
			await until('the claim', async () =>
				(await gateway.get('/healthz')).body.frames_in > before);
			await sleep(100);
			socket.terminate();
			await until('the close', async () =>
				(await gateway.get('/healthz')).body.connections_open === 1);
			await client.call('publish', { channel: 'gone', payload: i });
			const message = await until('the message', async () => (
				await client.call('claim', { channel: 'gone' }))[0], 30);
			assert.deepEqual([message.payload, message.attempt], [i, 1]);
			await client.call('ack', { lease: message.lease });
		}
		assert.equal(await failures('gone'), '');
		await gateway.kill();
	});

	test('does not end a lease that is kept', async () => {
		const gateway = await bus.gateway({ MESSAGE_BUS_PING_SECS: '1' });
		const client = await gateway.client();
		for (let i = 0; i < 2; i++) {
			await client.call('publish', { channel: 'kept', payload: i });
		}
		const first = await gateway.client();
		const [one] = await first.call('claim', { channel: 'kept', keep: true,
			lease_for: 600 });
		first.socket.terminate();
		// a client that answers no ping
		const second = await gateway.client();
		const [two] = await second.call('claim', { channel: 'kept', keep: true,
			lease_for: 4 });
		second.socket._socket.pause();
		await until('the ping timeout', () => gateway.event('close',
			(line) => line.reason === 'no answer to a ping'), 20);
		assert.equal(await failures('kept'), '');
		assert.equal(await client.call('ack', { lease: one.lease }), 1);
		await until('the deadline', async () => (await failures('kept'))
			.startsWith('expired 1'), 20);
		const again = await until('the message', async () => (await client.call(
			'claim', { channel: 'kept' }))[0]);
		assert.equal(again.id, two.id);
		await gateway.kill();
	});
});
