// sessions.test.mjs
//     Clients that authenticate: where their token comes from, which role
//     their frames run as on every database connection, what happens when it
//     is refused, replaced or expires, and what closing a socket gives back.
//     Also claims that wait, which have database connections of their own.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Bus, fails, random, sha256, sleep, until } from './bus.mjs';
import { BINARY, Raw, TEXT, frame, rpc } from './raw.mjs';

const secret = 'a secret of at least thirty-two bytes';
const base64 = (value) => Buffer.from(value).toString('base64url');
const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

let bus, gateway;

// token signs claims; wrong: with another key.
function token(claims, { wrong = false } = {}) {
	const text = base64(JSON.stringify({ alg: 'HS256', typ: 'JWT' })) + '.' +
		base64(JSON.stringify({ exp: inSeconds(3600), ...claims }));
	return text + '.' + createHmac('sha256', wrong ? `${secret}!` : secret)
		.update(text).digest('base64url');
}

const bearer = (claims, options) =>
	({ headers: { Authorization: `Bearer ${token(claims, options)}` } });

const publish = (client, payload, channel = 'events') =>
	client.call('publish', { channel, payload });

const publisher = (id) => bus.sql(
	`SELECT publisher FROM message_bus.messages WHERE id = ${id}`);

const start = (settings = {}) =>
	bus.gateway({ MESSAGE_BUS_ROLE: '', ...settings });

before(async () => {
	bus = await Bus.start();
	await bus.sql(`CREATE ROLE anon; CREATE ROLE alice; CREATE ROLE bob;
		GRANT anon, alice, bob TO gateway;
		GRANT EXECUTE ON FUNCTION message_bus.open_session(bigint, text, json),
			message_bus.close_session(bigint) TO gateway;
		SELECT message_bus.grant_channel('events', 'anon', 'all');
		SELECT message_bus.grant_channel('events', 'alice', 'all');
		SELECT message_bus.grant_channel('events', 'bob', 'all');
		SELECT message_bus.grant_channel('private', 'alice', 'all');
		SELECT message_bus.create_subscription('events', 'default',
			start => 'latest');`);
	await bus.sql(`SELECT message_bus.set_jwt_keys('${JSON.stringify({ keys: [
		{ kty: 'oct', alg: 'HS256', k: base64(secret) }] })}')`);
	gateway = await start();
});

after(() => bus.stop());

describe('a token', () => {
	test('comes in the header Authorization', async () => {
		const client = await gateway.client(bearer({ role: 'alice' }));
		assert.equal(await publisher(await publish(client, 1)), 'alice');
		assert.equal(await publisher(await publish(client, 1, 'private')),
			'alice');
	});

	for (const [name, role] of [['access_token', 'alice'], ['apikey', 'bob']]) {
		test(`or as the argument ${name}`, async () => {
			const port = gateway.port;
			gateway.port = `${port}/?${name}=${token({ role })}&x=`;
			const client = await gateway.client();
			gateway.port = port;
			assert.equal(await publisher(await publish(client, 1)), role);
		});
	}

	test('of Authorization goes before the others', async () => {
		const client = await gateway.client({ headers: { apikey:
			token({ role: 'bob' }), ...bearer({ role: 'alice' }).headers } });
		assert.equal(await publisher(await publish(client, 1)), 'alice');
	});

	test('is not needed: then the role is MESSAGE_BUS_ANON_ROLE', async () => {
		const client = await gateway.client();
		assert.equal(await client.call('ping'), 'pong');
		assert.equal(await publisher(await publish(client, 1)), 'anon');
		assert.equal((await fails(publish(client, 1, 'private'))).code, -32002);
		const other = await start({ MESSAGE_BUS_ANON_ROLE: 'bob' });
		assert.equal(await publisher(await publish(await other.client(), 1)),
			'bob');
		await other.kill();
	});

	test('that is not valid is answered -32001, then closed with 1008',
		async () => {
			const client = await gateway.client(bearer({ role: 'alice' },
				{ wrong: true }));
			const other = await gateway.client();
			client.socket._socket.cork();
			const calls = [publish(client, 1), client.call('ping')];
			client.socket._socket.uncork();
			for (const error of await Promise.all(calls.map(fails))) {
				assert.equal(error.code, -32001);
			}
			const { code, reason } = await client.end();
			assert.equal(code, 1008);
			assert.equal(reason, 'token is not valid');
			assert.equal(await other.call('ping'), 'pong');
		});

	test('must be of the issuer and audience that are set', async () => {
		const strict = await start({ SUPABASE_URL: 'https://x.supabase.co/',
			MESSAGE_BUS_AUDIENCE: 'authenticated' });
		const good = await strict.client(bearer({ role: 'alice',
			iss: 'https://x.supabase.co/auth/v1', aud: 'authenticated' }));
		assert.equal(await good.call('ping'), 'pong');
		for (const claims of [{ iss: 'https://y.supabase.co/auth/v1',
			aud: 'authenticated' }, { iss: 'https://x.supabase.co/auth/v1' }]) {
			const bad = await strict.client(bearer({ role: 'alice', ...claims }));
			assert.equal((await fails(bad.call('ping'))).code, -32001);
			assert.equal((await bad.end()).code, 1008);
		}
		await strict.kill();
	});

	test('is in no log', async () => {
		const secrets = [token({ role: 'alice', sub: 'quiet-1' }),
			token({ role: 'alice', sub: 'quiet-2' }, { wrong: true })];
		for (const one of secrets) {
			const client = await gateway.client({ headers: {
				Authorization: `Bearer ${one}` } });
			await client.call('ping').catch(() => {});
			await client.call('authenticate', { token: secrets[1] })
				.catch(() => {});
		}
		const log = JSON.stringify(gateway.lines) +
			await bus.sql("SELECT pg_read_file(pg_current_logfile())")
				.catch(() => '') +
			(await import('node:fs')).readFileSync(
				`${bus.directory}/server.log`, 'utf8');
		for (const one of secrets) {
			for (const part of one.split('.').slice(1)) {
				assert.ok(!log.includes(part));
			}
		}
	});
});

describe('authenticate', () => {
	test('changes the role, on every lane, for the frames behind it',
		async () => {
			const client = await gateway.client();
			const writer = await gateway.client(bearer({ role: 'alice' }));
			const id = await publish(writer, 'hidden', 'private');
			// The long lane, too, knows this session as anonymous now.
			const error = await fails(client.call('get', { id }));
			assert.ok([-32002, -32003].includes(error.code));
			client.socket._socket.cork();
			const answer = client.call('authenticate',
				{ token: token({ role: 'alice', sub: 'a-1' }) });
			const next = publish(client, 2, 'private');
			client.socket._socket.uncork();
			const result = await answer;
			assert.equal(result.role, 'alice');
			assert.equal(result.sub, 'a-1');
			assert.ok(Date.parse(result.expires_at) > Date.now());
			assert.equal(await publisher(await next), 'alice');
			assert.equal((await client.call('get', { id })).payload, 'hidden');
		});

	test('that fails keeps the role and the connection', async () => {
		const client = await gateway.client(bearer({ role: 'alice' }));
		await publish(client, 1, 'private');
		const error = await fails(client.call('authenticate',
			{ token: token({ role: 'bob' }, { wrong: true }) }));
		assert.equal(error.code, -32001);
		assert.equal(await publisher(await publish(client, 1)), 'alice');
		assert.equal((await client.call('peek', { channel: 'private' }))
			.length > 0, true);
	});

	test('mends a token that was not valid, if it comes with the first frame',
		async () => {
			const client = await gateway.client(bearer({ role: 'bob' },
				{ wrong: true }));
			await client.call('authenticate', { token: token({ role: 'bob' }) });
			assert.equal(await publisher(await publish(client, 1)), 'bob');
		});
});

describe('a session', () => {
	test('never speaks for another one', async () => {
		const roles = ['anon', 'alice', 'bob'];
		const clients = await Promise.all(Array.from({ length: 30 }, (_, i) =>
			gateway.client(i % 3 === 0 ? {} : bearer({ role: roles[i % 3] }))));
		const published = [];
		await Promise.all(clients.map(async (client, i) => {
			for (let n = 0; n < 20; n++) {
				published.push([await publish(client, n), roles[i % 3]]);
			}
		}));
		const stored = new Map((await bus.sql(
			`SELECT id, publisher FROM message_bus.messages`)).split('\n')
			.map((line) => line.split('|')));
		for (const [id, role] of published) {
			assert.equal(stored.get(String(id)), role);
		}
		await Promise.all(clients.map((client) => client.close()));
	});

	test('is opened anew when a database connection was lost', async () => {
		const other = await start();
		const clients = [await other.client(bearer({ role: 'alice' })),
			await other.client()];
		await clients[1].call('authenticate', { token: token({ role: 'bob' }) });
		const id = await publish(clients[0], 'kept', 'private');
		for (let round = 0; round < 3; round++) {
			await clients[0].call('get', { id });
			await bus.sql(`SELECT pg_terminate_backend(pid)
				FROM pg_stat_activity
				WHERE application_name = 'message-bus-gateway'`);
			const again = await until('publishing again', () =>
				publish(clients[0], round, 'private'));
			assert.equal(await publisher(again), 'alice');
			assert.equal(await publisher(await until('the other', () =>
				publish(clients[1], round))), 'bob');
			assert.equal((await until('reading again', () =>
				clients[0].call('get', { id }))).payload, 'kept');
		}
		assert.equal(clients[0].closed, null);
		await other.kill();
	});

	test('is opened on the long lane for a body that was left behind',
		async () => {
			const client = await gateway.client(bearer({ role: 'alice' }));
			const body = random(3000000);
			client.callBinary('publish', { channel: 'private',
				transaction_id: 'left behind' }, body).catch(() => {});
			await client.close();
			assert.equal(await until('the message', () => bus.sql(
				`SELECT encode(sha256, 'hex') FROM message_bus.messages
				 WHERE transaction_id = 'left behind'
				 AND publisher = 'alice'`)), sha256(body));
		});

	test('has a number below 2^53 that does not come again', async () => {
		const numbers = gateway.lines.filter(({ event }) => event === 'open')
			.map(({ connection }) => connection);
		assert.ok(numbers.length > 30);
		assert.equal(new Set(numbers).size, numbers.length);
		assert.ok(numbers.every((one) => Number.isSafeInteger(one) && one > 0));
	});

	for (const [name, role] of [['', ''], [', also without authentication',
		'app']]) {
		test(`gives back what it had claimed when its socket closes${name}`,
			async () => {
				const other = await start({ MESSAGE_BUS_ROLE: role });
				const subscription = `back${role}`;
				await bus.sql(`SELECT message_bus.create_subscription('events',
					'${subscription}', start => 'latest')`);
				const first = await other.client();
				const second = await other.client();
				const id = await publish(first, 'once');
				const claim = (client) => client.call('claim', {
					channel: 'events', subscription, batch: 10,
					lease_for: 600 });
				assert.deepEqual((await claim(first)).map((one) => one.id),
					[id]);
				assert.deepEqual(await claim(second), []);
				await first.close();
				const again = await until('the message', async () => {
					const rows = await claim(second);
					return rows.length > 0 ? rows : null;
				}, 5);
				assert.equal(again[0].id, id);
				assert.equal(again[0].attempt, 2);
				await other.kill();
			});
	}

	test('is opened anew when the call that opened it failed', async () => {
		await bus.sql(`ALTER FUNCTION message_bus.relay(bigint[], bytea[])
				RENAME TO relay_behind;
			CREATE FUNCTION message_bus.relay(sessions bigint[], frames bytea[])
				RETURNS TABLE (session bigint, frame bytea, request integer,
					code integer, sqlstate text, leases bigint[])
				LANGUAGE plpgsql AS $$
				BEGIN
					IF array_to_string(frames, '') LIKE
						'%' || encode('explode', 'hex') || '%' THEN
						PERFORM message_bus.close_session(s)
							FROM unnest(sessions) AS s;
						RAISE EXCEPTION 'the call is refused';
					END IF;
					RETURN QUERY SELECT * FROM
						message_bus.relay_behind(sessions, frames);
				END $$;
			GRANT EXECUTE ON FUNCTION message_bus.relay(bigint[], bytea[])
				TO gateway`);
		try {
			const other = await start();
			const client = await other.client(bearer({ role: 'alice' }));
			for (let round = 0; round < 2; round++) {
				assert.equal((await fails(publish(client, 'explode'))).code,
					-32603);
				assert.equal(await publisher(await publish(client, 1)),
					'alice');
			}
			await other.kill();
		} finally {
			await bus.sql(`DROP FUNCTION
					message_bus.relay(bigint[], bytea[]);
				ALTER FUNCTION message_bus.relay_behind(bigint[], bytea[])
					RENAME TO relay`);
		}
	});
});

describe('a channel with visibility "subject"', () => {
	const channel = 'apart';
	let ann, bob, otherAnn, worker;

	before(async () => {
		await bus.sql(`SELECT message_bus.create_channel('apart',
				visibility => 'subject', max_attempts => 1);
			SELECT message_bus.grant_channel('apart', 'alice', 'all');
			SELECT message_bus.grant_channel('apart', 'anon', 'all');
			SELECT message_bus.grant_channel('apart', 'bob', 'consume');
			SELECT message_bus.grant_channel('apart', 'bob', 'all_subjects')`);
		[ann, bob, otherAnn, worker] = await Promise.all([
			bearer({ role: 'alice', sub: 'ann' }),
			bearer({ role: 'alice', sub: 'bob' }),
			bearer({ role: 'anon', sub: 'ann' }),
			bearer({ role: 'bob', sub: 'worker' }),
		].map((options) => gateway.client(options)));
	});

	after(() => Promise.all([ann, bob, otherAnn, worker]
		.map((client) => client.close())));

	test('shows a message to its publisher, whatever the socket, and to ' +
		'nobody else', async () => {
		const id = await ann.call('publish', { channel, payload: 'mine',
			transaction_id: 't1' });
		const none = await fails(bob.call('get', { id: id + 500000 }));
		for (const client of [bob, otherAnn]) {
			for (const [method, params] of [['get', { id }],
				['get_bytes', { id }],
				['get_by_transaction', { channel, transaction_id: 't1' }]]) {
				const error = await fails(client.call(method, params));
				assert.equal(error.code, none.code, method);
				assert.equal(JSON.stringify(error.data),
					JSON.stringify(none.data), method);
			}
			assert.deepEqual(await client.call('peek', { channel }), []);
		}
		const again = await gateway.client(bearer({ role: 'alice', sub: 'ann' }));
		assert.equal((await again.call('get', { id })).payload, 'mine');
		// a client without a subject has only what has none
		const nobody = await gateway.client(bearer({ role: 'alice' }));
		assert.equal((await fails(nobody.call('get', { id }))).code, -32003);
		await nobody.close();
		await again.close();
	});

	test('shows it to its recipient, text and binary', async () => {
		const id = await ann.call('publish', { channel, payload: 'to bob',
			recipient: 'bob' });
		const { frame } = await ann.callBinary('publish', { channel,
			content_type: 'text/plain', recipient: 'bob' }, Buffer.from('raw'));
		const [one] = await ann.call('publish_batch', { channel,
			messages: [{ payload: 'batch', recipient: 'bob' }] });
		assert.deepEqual((await bob.call('peek', { channel }))
			.map((row) => row.id), [id, frame.result, one]);
		assert.deepEqual(await otherAnn.call('peek', { channel }), []);
	});

	test('refuses a transaction id of somebody else without its id', async () => {
		for (const payload of ['mine', 'other']) {
			const error = await fails(bob.call('publish', { channel, payload,
				transaction_id: 't1', receipt: true }));
			assert.equal(error.code, -32005);
			assert.equal(error.data.detail, null);
			assert.doesNotMatch(error.message, /\d{6}/);
		}
	});

	test('lets only all_subjects claim, and gives them all', async () => {
		for (const client of [ann, otherAnn]) {
			const error = await fails(client.call('claim', { channel, wait: 1 }));
			assert.equal(error.code, -32002);
			assert.match(error.data.detail, /all_subjects/);
		}
		const rows = await worker.call('claim', { channel, batch: 100 });
		assert.equal(rows.length, 4);
		assert.equal(await worker.call('ack', { lease: rows[0].lease }), 4);
	});
});

describe('a token that expires', () => {
	test('is told once, then the connection is closed with 1008', async () => {
		const strict = await start({ MESSAGE_BUS_TOKEN_SKEW_SECS: '0',
			MESSAGE_BUS_EXPIRY_GRACE_SECS: '2' });
		const client = await strict.client(bearer({ role: 'alice',
			exp: inSeconds(2) }));
		assert.equal(await client.call('ping'), 'pong');
		await client.frame((one) => one.method === 'session_expired');
		assert.equal((await fails(publish(client, 1))).code, -32001);
		assert.equal(client.closed, null);
		const { code, reason } = await client.end();
		assert.equal(code, 1008);
		assert.match(reason, /expired/);
		assert.equal(client.frames.filter((one) =>
			one.method === 'session_expired').length, 1);
		await strict.kill();
	});

	test('may be replaced in time, also after the database was away',
		async () => {
			const strict = await start({ MESSAGE_BUS_TOKEN_SKEW_SECS: '0',
				MESSAGE_BUS_EXPIRY_GRACE_SECS: '3' });
			const client = await strict.client(bearer({ role: 'alice',
				exp: inSeconds(2) }));
			assert.equal(await client.call('ping'), 'pong');
			await client.frame((one) => one.method === 'session_expired');
			await bus.sql(`SELECT pg_terminate_backend(pid)
				FROM pg_stat_activity
				WHERE application_name = 'message-bus-gateway'`);
			// Now the expired token is shown anew, and refused.
			await until('-32001', async () =>
				(await fails(client.call('ping'))).code === -32001);
			const { role } = await client.call('authenticate',
				{ token: token({ role: 'alice' }) });
			assert.equal(role, 'alice');
			await sleep(4500);
			assert.equal(client.closed, null);
			assert.equal(await publisher(await publish(client, 1)), 'alice');
			await strict.kill();
		});
});

describe('claims that wait', () => {
	const claim = (client, wait, subscription = 'waiting') =>
		client.call('claim', { channel: 'events', subscription, wait });

	before(() => bus.sql(`SELECT message_bus.create_subscription('events',
		'waiting', start => 'latest')`));

	test('hold up nobody, and come back with what is published', async () => {
		const pool = await start({ MESSAGE_BUS_WAIT_CONNECTIONS: '2' });
		const waiter = await pool.client();
		const other = await pool.client();
		const begin = Date.now();
		const claimed = claim(waiter, '8 s');
		await sleep(300);
		for (let n = 0; n < 20; n++) {
			assert.equal(await waiter.call('ping'), 'pong');
			assert.equal(await other.call('ping'), 'pong');
		}
		assert.ok(Date.now() - begin < 4000);
		const id = await publish(other, 'at last');
		const rows = await claimed;
		assert.equal(rows[0].id, id);
		assert.ok(Date.now() - begin < 5000);
		assert.equal(await waiter.call('ack', { lease: rows[0].lease }), 1);
		assert.ok(pool.event('frame', (line) => line.lane === 'wait'));
		await pool.kill();
	});

	test('wait no longer than MESSAGE_BUS_WAIT_SECS', async () => {
		const pool = await start({ MESSAGE_BUS_WAIT_SECS: '1' });
		const begin = Date.now();
		assert.deepEqual(await claim(await pool.client(), 60), []);
		const taken = Date.now() - begin;
		assert.ok(taken > 800 && taken < 4000, String(taken));
		await pool.kill();
	});

	test('queue for a connection, and have their turn', async () => {
		const pool = await start({ MESSAGE_BUS_WAIT_CONNECTIONS: '2',
			MESSAGE_BUS_WAIT_SECS: '2' });
		const clients = await Promise.all(Array.from({ length: 12 }, () =>
			pool.client()));
		const begin = Date.now();
		const all = await Promise.all(clients.map((one) => claim(one, 60)));
		const taken = Date.now() - begin;
		assert.ok(all.every((rows) => rows.length === 0));
		assert.ok(taken < 7000, String(taken));
		await pool.kill();
	});

	test('are dropped if their socket closes while they queue', async () => {
		const pool = await start({ MESSAGE_BUS_WAIT_CONNECTIONS: '1',
			MESSAGE_BUS_WAIT_SECS: '2' });
		const first = await pool.client();
		const second = await pool.client();
		const held = claim(first, 60);
		await sleep(200);
		claim(second, 60).catch(() => {});
		await second.call('ping');
		await second.close();
		assert.deepEqual(await held, []);
		await until('the drop', () => pool.event('frame', (line) =>
			line.outcome === 'dropped'));
		const id = await publish(first, 'for the first');
		assert.equal((await claim(first, 60))[0].id, id);
		await pool.kill();
	});

	for (const role of ['', 'app']) {
		test('give back what they got when their socket has gone, ' +
			(role ? 'without authentication' : 'with authentication'),
		async () => {
			const other = await start({ MESSAGE_BUS_ROLE: role });
			const subscription = `gone ${role}`;
			await bus.sql(`SELECT message_bus.create_subscription('events',
				'${subscription}', start => 'latest')`);
			const first = await other.client();
			const second = await other.client();
			first.call('claim', { channel: 'events', subscription,
				wait: '5 s', lease_for: 600 }).catch(() => {});
			await until('the claim to wait', async () => (await bus.sql(
				`SELECT count(*) FROM pg_stat_activity WHERE application_name
				= 'message-bus-gateway' AND wait_event = 'Extension'`))
				.trim() !== '0');
			await first.close();
			await publish(second, 'once');
			const [row] = await until('the message', async () => {
				const rows = await second.call('claim', { channel: 'events',
					subscription });
				return rows.length > 0 ? rows : null;
			});
			assert.equal(row.payload, 'once');
			await other.kill();
		});
	}
});

describe('what has been ended', () => {
	const other = base64('another secret of thirty-two bytes or more');
	const keys = (...k) => bus.sql(`SELECT message_bus.set_jwt_keys('${
		JSON.stringify({ keys: k.map((one) =>
			({ kty: 'oct', alg: 'HS256', k: one })) })}')`);

	for (const [how, sub, end, mend] of [
		['end_sessions()', 'leaver', () => bus.sql(
			`SELECT message_bus.end_sessions('leaver', 'alice')`), () => {}],
		['its key, which is gone', 'keyless', () => keys(other),
			() => keys(base64(secret))]]) {
		test(`by ${how} gets nothing by a claim that waits, and is told`,
			async () => {
				const subscription = `ended by ${how.slice(0, 3)}`;
				await bus.sql(`SELECT message_bus.create_subscription('events',
					'${subscription}', start => 'latest')`);
				const client = await gateway.client(bearer({ role: 'alice',
					sub, iat: inSeconds(-60) }));
				const tries = async (late) => {
					const claimed = fails(client.call('claim', { channel:
						'events', subscription, wait: 20 })
						.then((rows) => { throw Error(JSON.stringify(rows)); }));
					if (late) {
						await until('the claim to wait', async () =>
							(await bus.sql(`SELECT count(*) FROM pg_stat_activity
							WHERE application_name = 'message-bus-gateway' AND
							wait_event = 'Extension'`)).trim() !== '0');
						await end();
					}
					const begin = Date.now();
					if (how === 'end_sessions()' && late) {
						await bus.sql(`SELECT message_bus.publish('events',
							'"for others"')`);
					}
					assert.equal((await claimed).code, -32001);
					assert.ok(Date.now() - begin < 5000);
				};
				try {
					await tries(true);
					await tries(false);
				} finally {
					await mend();
				}
				await client.close();
				if (how === 'end_sessions()') {
					const worker = await gateway.client(bearer({ role: 'alice',
						sub: 'stays' }));
					const [row] = await worker.call('claim', { channel: 'events',
						subscription });
					assert.equal(row.payload, 'for others');
					assert.equal(row.attempt, 1);
					await worker.close();
				}
			});
	}

	test('is closed when it asks, and what it had claimed goes back', async () => {
		const own = await start({ MESSAGE_BUS_EXPIRY_GRACE_SECS: '1' });
		const claims = { role: 'alice', sub: 'thief', iat: inSeconds(-60) };
		const client = await own.client(bearer(claims));
		const left = () => bus.sql(`SELECT count(*) FROM message_bus.leases
			WHERE subscription = 'thieves'`);
		await bus.sql(`SELECT message_bus.create_subscription('events',
			'thieves', start => 'latest')`);
		await publish(client, 1);
		assert.equal((await client.call('claim', { channel: 'events',
			subscription: 'thieves', lease_for: 86400 })).length, 1);
		await bus.sql(`SELECT message_bus.end_sessions('thief', 'alice')`);
		assert.equal((await fails(client.call('ping'))).code, -32001);
		await until('the close', () => own.event('close', ({ code }) =>
			code === 1008));
		await until('the lease', async () => (await left()).trim() === '0');
		// a token that is refused does not end a session
		const other = await own.client(bearer({ role: 'alice', sub: 'stays' }));
		assert.equal((await fails(other.call('authenticate',
			{ token: token(claims) }))).code, -32001);
		await sleep(2500);
		assert.equal(await other.call('ping'), 'pong');
		await own.kill();
	});

	test('without a token is opened anew by no lane', async () => {
		const own = await start();
		const client = await own.client();
		assert.equal(await client.call('ping'), 'pong');
		await bus.sql(`SELECT message_bus.end_sessions(NULL, 'anon')`);
		assert.equal((await fails(client.call('ping'))).code, -32001);
		// the long lane and the pool have not seen it so far
		assert.equal((await fails(client.call('peek', { channel: 'events' })))
			.code, -32001);
		assert.equal((await fails(client.call('claim', { channel: 'events',
			wait: 1 }))).code, -32001);
		// nor a connection that is new
		await bus.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'message-bus-gateway'`);
		assert.equal(await until('the lane', async () => {
			const { code } = await fails(client.call('ping'));
			return code !== -32010 && code !== -32050 && code;
		}), -32001);
		const fresh = await own.client();
		assert.equal(await fresh.call('ping'), 'pong');
		await until('the long lane', () => fresh.call('peek',
			{ channel: 'events' }).catch(() => null));
		await own.kill();
	});
});

describe('a login that cannot authenticate clients', () => {
	async function refusal(settings) {
		const other = await start({ ready: false, ...settings });
		const text = await until('a reason', async () => {
			const { status } = await other.get('/readyz');
			return status === 503 && other.event('database')?.reason;
		});
		await other.kill();
		return text;
	}

	test('because it may not open sessions is refused', async () => {
		await bus.sql(`CREATE ROLE half LOGIN NOINHERIT; GRANT anon TO half;
			GRANT EXECUTE ON FUNCTION message_bus.relay(bigint[], bytea[])
				TO half`);
		assert.match(await refusal({ user: 'half' }), /open_session/);
	});

	test('because there is no anonymous role is refused', async () => {
		assert.match(await refusal({ MESSAGE_BUS_ANON_ROLE: 'phantom' }),
			/MESSAGE_BUS_ANON_ROLE does not exist/);
	});

	test('because it may not take that role is refused', async () => {
		assert.match(await refusal({ MESSAGE_BUS_ANON_ROLE: 'stranger' }),
			/not a member of the role named by MESSAGE_BUS_ANON_ROLE/);
	});
});

describe('strangers', () => {
	test('take nothing of what bodies of others may have', async () => {
		const bytes = Buffer.alloc(300000);
		const append = (client, upload) => client.callBinary('upload_append',
			{ upload, from_byte: 0 }, bytes);
		await fails(append(await gateway.client(), 1));
		const alice = await gateway.client(bearer({ role: 'alice' }));
		await append(alice, await alice.call('upload_begin',
			{ channel: 'events', size: bytes.length }));
		assert.deepEqual(gateway.lines.filter(({ event, method }) =>
			event === 'frame' && method === 'upload_append')
			.map(({ lane }) => lane), ['long', 'bulk']);
	});

	const MIB = 1024 * 1024;
	const buffered = async (other) => (await other.get('/healthz')).body
		.buffered_bytes;

	test('with unfinished messages take nothing from others', async () => {
		const other = await start({ MESSAGE_BUS_MAX_BUFFERED_MB: '64',
			WS_MAX_MSG_BYTES: String(16 * MIB),
			MESSAGE_BUS_ANON_MAX_BYTES: String(16 * MIB) });
		const raws = await Promise.all(Array.from({ length: 18 }, () =>
			Raw.open(other.port)));
		const part = frame(BINARY, Buffer.concat([Buffer.from(
			rpc(7, 'publish', { channel: 'events' }) + '\n'),
		Buffer.alloc(15 * MIB)]), { fin: false });
		for (const raw of raws) raw.write(part);
		await until('their share', async () => await buffered(other) > 8 * MIB);
		await sleep(500);
		const client = await other.client(bearer({ role: 'alice' }));
		for (let i = 0; i < 5; i++) {
			const large = (await client.callBinary('publish',
				{ channel: 'events' }, random(5 * MIB))).frame.result;
			assert.ok(large > 0);
		}
		assert.ok(await buffered(other) < 34 * MIB);
		await until('a refusal', () => raws.some((raw) => raw.frames.some(
			({ payload }) => /"id":7.*-32011.*without a token/.test(payload))));
		for (const raw of raws) raw.destroy();
		await until('the end', async () => await buffered(other) === 0);
		await other.kill();
	});

	test('that have all they may keep out nobody who brings a token', async () => {
		const other = await start({ MESSAGE_BUS_MAX_BUFFERED_MB: '64',
			WS_MAX_MSG_BYTES: String(16 * MIB) });
		const raws = await Promise.all(Array.from({ length: 16 }, () =>
			Raw.open(other.port)));
		// all that strangers may have, to the byte, with the opcodes
		for (const raw of raws) {
			raw.write(frame(BINARY, Buffer.alloc(MIB - 1, 'x'), { fin: false }));
		}
		await until('all of it', async () => await buffered(other) === 16 * MIB);
		const client = await other.client(bearer({ role: 'alice' }));
		assert.ok(await publish(client, 1) > 0);
		const late = await other.client();
		await late.call('authenticate', { token: token({ role: 'alice' }) });
		assert.ok(await publish(late, 1) > 0);
		// who brings none has no more room
		const raw = await Raw.open(other.port);
		raw.write(frame(TEXT, rpc(7, 'publish', { channel: 'events',
			payload: 'x'.repeat(100000) })));
		assert.match(await raw.message(), /"id":7.*-32011.*without a token/);
		for (const one of [raw, ...raws]) one.destroy();
		await other.kill();
	});

	test('send messages of 1 MiB at most', async () => {
		const other = await start({ MESSAGE_BUS_ANON_MAX_BYTES: '100000' });
		const small = await other.client();
		const large = (client, size) => client.callBinary('publish',
			{ channel: 'events' }, random(size));
		assert.ok((await large(small, 90000)).frame.result > 0);
		const raw = await Raw.open(other.port);
		raw.write(frame(BINARY, Buffer.concat([Buffer.from(
			rpc(7, 'publish', { channel: 'events' }) + '\n'), random(100000)])));
		assert.match(await raw.message(),
			/"id":7.*-32004.*100000 bytes \(MESSAGE_BUS_ANON_MAX_BYTES\)/);
		await until('the close', () => other.event('close', ({ code }) =>
			code === 1009));
		raw.destroy();
		await until('the row', () => bus.sql(`SELECT 1 FROM message_bus.errors
			WHERE detail = 'The limit is 100000 bytes (MESSAGE_BUS_ANON_MAX_BYTES).'`));
		const client = await other.client(bearer({ role: 'alice' }));
		assert.ok((await large(client, 200000)).frame.result > 0);
		// who has authenticated later, too
		await small.call('authenticate', { token: token({ role: 'alice' }) });
		assert.ok((await large(small, 200000)).frame.result > 0);
		await other.kill();
	});

	test('are not read beyond 64 KiB before the database knows them',
		async () => {
			const other = await start();
			const thaw = await bus.freeze();
			const raws = await Promise.all(Array.from({ length: 10 }, () =>
				Raw.open(other.port, bearer({ role: 'alice' }).headers)));
			const bytes = frame(BINARY, Buffer.concat([Buffer.from(
				rpc(7, 'publish', { channel: 'events' }) + '\n'),
			random(5 * MIB)]));
			for (const raw of raws) raw.write(bytes);
			await until('some', async () => await buffered(other) > 640 * 1024);
			await sleep(500);
			const most = await buffered(other);
			thaw();
			assert.ok(most < 10 * MIB, `${most} bytes`);
			// and then they are served
			for (const raw of raws) {
				assert.match(await raw.message(), /"id":7,"result":\d+/);
				raw.destroy();
			}
			await other.kill();
		});

	test('whose token is refused are closed, however large their first message',
		async () => {
			const other = await start();
			const raw = await Raw.open(other.port,
				bearer({ role: 'alice' }, { wrong: true }).headers);
			raw.write(frame(TEXT, rpc(7, 'publish', { channel: 'events',
				payload: 'x'.repeat(MIB) }), { fin: false }));
			await until('the close', () => other.event('close', ({ code }) =>
				code === 1008));
			raw.destroy();
			await other.kill();
		});

	test('one connection is not read from while it has its share unanswered',
		async () => {
			const other = await start({ MESSAGE_BUS_MAX_BUFFERED_MB: '64',
				WS_MAX_MSG_BYTES: String(8 * MIB) });
			const client = await other.client(bearer({ role: 'alice' }));
			await client.call('ping');
			const thaw = await bus.freeze();
			const sent = Array.from({ length: 30 }, () => client.callBinary(
				'publish', { channel: 'events' }, random(4 * MIB)));
			await until('its share', async () => await buffered(other) >= 16 * MIB);
			await sleep(300);
			const most = await buffered(other);
			thaw();
			assert.ok(most < 32 * MIB, `${most} bytes`);
			for (const one of await Promise.all(sent)) {
				assert.ok(one.frame.result > 0);
			}
			await other.kill();
		});
});
