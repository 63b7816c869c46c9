// database.test.mjs
//     What callers are told when the database is away, comes back, fails
//     after the result, or is not what the gateway needs.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { Bus, PORT, fails, random, sha256, sleep, until } from './bus.mjs';

let bus;

before(async () => {
	bus = await Bus.start();
});

after(() => bus.stop());

const publish = (client, payload, more = {}) =>
	client.call('publish', { channel: 'events', payload, ...more });

async function reasons(gateway) {
	const { status, body } = await gateway.get('/readyz');
	return status === 503 ? body.reasons.join('\n') : '';
}

const backends = (what) => bus.sql(`SELECT ${what}(pid)
	FROM pg_stat_activity WHERE application_name = 'message-bus-gateway'`);

describe('a database that is away', () => {
	test('requests are told so at once, and served when it is back',
		async () => {
			const gateway = await bus.gateway();
			const client = await gateway.client();
			const id = await publish(client, 'before');
			await bus.stopServer('immediate');
			await until('503', () => reasons(gateway));
			const start = Date.now();
			const error = await fails(publish(client, 'during'));
			assert.equal(error.code, -32010);
			assert.ok(error.data.detail.length > 0);
			assert.ok(Date.now() - start < 500);
			client.raw('[{"id":"x","method":"ping"},{"method":"ping"}]');
			const batch = await client.frame((frame) => Array.isArray(frame));
			assert.equal(batch[0].id, 'x');
			assert.equal(batch[0].error.code, -32010);
			assert.equal(batch[1].method, 'error');
			await bus.startServer();
			await until('readyz', async () => await reasons(gateway) === '');
			const again = await until('publishing again', () =>
				publish(client, 'after'));
			assert.ok(again > id);
			assert.equal((await client.call('get', { id })).payload, 'before');
			await gateway.kill();
		});

	test('a gateway may be started before its database', async () => {
		await bus.stopServer();
		const gateway = await bus.gateway({ ready: false });
		const client = await gateway.client();
		assert.equal((await fails(client.call('ping'))).code, -32010);
		assert.equal((await gateway.get('/healthz')).status, 200);
		await bus.startServer();
		await until('an answer', async () =>
			await client.call('ping') === 'pong');
		await gateway.kill();
	});

	test('what was sent and not answered is -32050, never a false success',
		async () => {
			const gateway = await bus.gateway();
			const client = await gateway.client();
			let running = true;
			const outcomes = [];
			const load = Array.from({ length: 4 }, async (_, worker) => {
				for (let n = 0; running; n++) {
					const key = `${worker}/${n}`;
					try {
						const id = await publish(client, key,
							{ transaction_id: key });
						outcomes.push({ key, id });
					} catch (error) {
						outcomes.push({ key, code: error.code });
						if (error.code === -32050) {
							assert.match(error.data.hint, /transaction_id/);
						}
						if (error.code === -32010) await sleep(10);
					}
				}
			});
			for (let round = 0; round < 5; round++) {
				await sleep(150);
				await backends('pg_terminate_backend');
			}
			running = false;
			await Promise.all(load);
			const stored = new Map((await bus.sql(
				`SELECT transaction_id, id FROM message_bus.messages
				 WHERE transaction_id LIKE '%/%'`)).split('\n')
				.map((line) => line.split('|')));
			for (const { key, id, code } of outcomes) {
				if (id) assert.equal(stored.get(key), String(id));
				else assert.ok([-32010, -32050].includes(code), String(code));
				if (code === -32010) assert.ok(!stored.has(key));
			}
			assert.ok(outcomes.filter((one) => one.id).length > 20);
			assert.ok(outcomes.some((one) => one.code));
			await gateway.kill();
		});

	test('a call that hangs is given up after TOOL_TIMEOUT_SECS as -32050',
		async () => {
			const gateway = await bus.gateway({ TOOL_TIMEOUT_SECS: '1' });
			const client = await gateway.client();
			const resume = await bus.freeze();
			try {
				const error = await fails(client.call('ping'));
				assert.equal(error.code, -32050);
				assert.match(error.data.detail, /TOOL_TIMEOUT_SECS/);
			} finally {
				resume();
			}
			await until('an answer', async () =>
				await client.call('ping') === 'pong');
			await gateway.kill();
		});

	test('after many lost calls in a row the breaker answers, then tries',
		async () => {
			const gateway = await bus.gateway({ CIRCUIT_BREAKER_THRESHOLD: '1',
				CIRCUIT_BREAKER_TIMEOUT_SECS: '2' });
			const client = await gateway.client();
			const resume = await bus.freeze();
			const lost = fails(client.call('ping'));
			await sleep(100);
			resume('SIGKILL');
			assert.equal((await lost).code, -32050);
			assert.ok(gateway.event('breaker_open'));
			await until('the connection', () => gateway.event('database',
				(line) => line.lane === 'short' && line.state === 'ready' &&
					gateway.lines.indexOf(line) >
					gateway.lines.indexOf(gateway.event('breaker_open'))));
			const refused = await fails(client.call('ping'));
			assert.equal(refused.code, -32010);
			assert.match(refused.data.detail, /CIRCUIT_BREAKER/);
			await until('an answer', async () =>
				await client.call('ping') === 'pong');
			await gateway.kill();
		});
});

describe('a commit that fails after the result', () => {
	before(() => bus.sql(`
		CREATE TABLE public.doubtful (a int);
		GRANT INSERT ON public.doubtful TO PUBLIC;
		CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN RAISE EXCEPTION 'the commit is refused'
				USING ERRCODE = '23514'; END $$;
		CREATE CONSTRAINT TRIGGER late AFTER INSERT ON public.doubtful
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
			EXECUTE FUNCTION public.refuse();
		ALTER FUNCTION message_bus.relay(bigint[], bytea[])
			RENAME TO relay_behind;
		CREATE FUNCTION message_bus.relay(sessions bigint[], frames bytea[])
			RETURNS TABLE (session bigint, frame bytea, request integer,
				code integer, sqlstate text, leases bigint[]) LANGUAGE plpgsql AS $$
			BEGIN
				IF array_to_string(frames, '') LIKE
					'%' || encode('delete_message', 'hex') || '%' THEN
					INSERT INTO public.doubtful VALUES (1);
				END IF;
				IF array_to_string(frames, '') LIKE
					'%' || encode('"forged"', 'hex') || '%' THEN
					RETURN QUERY SELECT s.session + d,
						'\\x01'::bytea || convert_to('{"forged":1}', 'UTF8'),
						1, 0, NULL::text, NULL::bigint[]
						FROM unnest(sessions) AS s(session),
							generate_series(-9, 9) AS d WHERE d <> 0;
				END IF;
				RETURN QUERY SELECT * FROM
					message_bus.relay_behind(sessions, frames);
			END $$;
		GRANT EXECUTE ON FUNCTION message_bus.relay(bigint[], bytea[])
			TO gateway`));

	after(() => bus.sql(`
		DROP FUNCTION message_bus.relay(bigint[], bytea[]);
		ALTER FUNCTION message_bus.relay_behind(bigint[], bytea[])
			RENAME TO relay;
		DROP TABLE public.doubtful;
		DROP FUNCTION public.refuse()`));

	test('fails every frame of its batch, and stores nothing', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		client.socket._socket.cork();
		const calls = [
			publish(client, 1, { transaction_id: 'doubtful-1' }),
			client.call('delete_message', { transaction_id: 'x' }),
			publish(client, 2, { transaction_id: 'doubtful-2' })];
		client.raw(JSON.stringify({ jsonrpc: '2.0', method: 'publish',
			params: { channel: 'events', payload: 3 } }));
		client.raw('nonsense');
		client.socket._socket.uncork();
		for (const error of await Promise.all(calls.map(fails))) {
			assert.equal(error.code, -32603);
			assert.equal(error.data.sqlstate, '23514');
			assert.match(error.message, /the call failed in the database/);
		}
		await until('the line', () => gateway.event('database_notice',
			({ detail }) => /the commit is refused/.test(detail)));
		await until('two more answers', () => client.frames.length === 2);
		assert.equal(client.frames.filter((one) => one.method === 'error')
			.length, 1);
		assert.equal(client.frames.filter((one) => one.id === null &&
			one.error.code === -32603).length, 1);
		assert.equal(await bus.sql(`SELECT count(*) FROM message_bus.messages
			WHERE transaction_id LIKE 'doubtful%'`), '0');
		assert.ok(await publish(client, 4) > 0);
		await gateway.kill();
	});

	test('aside: a frame for a socket that asked nothing is not written',
		async () => {
			const gateway = await bus.gateway();
			const others = await Promise.all(Array.from({ length: 4 },
				() => gateway.client()));
			const client = await gateway.client();
			client.raw('{"jsonrpc":"2.0","id":"forged","method":"ping"}');
			assert.equal((await client.frame()).result, 'pong');
			assert.ok(gateway.event('reply_unfit'));
			for (const other of others) {
				assert.equal(await other.call('ping'), 'pong');
				assert.equal(other.frames.length, 0);
			}
			await gateway.kill();
		});

	test('that waits in vain for a standby is told as unknown', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		await bus.sql(`ALTER SYSTEM SET synchronous_standby_names = 'nobody'`);
		await bus.sql('SELECT pg_reload_conf()');
		try {
			// The setting takes effect a little after the reload.
			let lost = null;
			await until('the wait', async () => {
				if (!lost) {
					lost = fails(publish(client, 1));
					lost.catch(() => { lost = null; });
				}
				return Number(await bus.sql(
					`SELECT count(*) FROM pg_stat_activity
					 WHERE wait_event = 'SyncRep'
					 AND application_name = 'message-bus-gateway'`)) > 0;
			});
			await backends('pg_cancel_backend');
			const error = await lost;
			assert.equal(error.code, -32050);
			assert.match(error.data.detail, /synchronous replication/);
		} finally {
			await bus.sql('ALTER SYSTEM RESET synchronous_standby_names');
			await bus.sql('SELECT pg_reload_conf()');
		}
		const again = await until('publishing again', () =>
			publish(client, 1));
		assert.ok(again > 0);
		await gateway.kill();
	});
});

describe('a database that is not what it should be', () => {
	async function refusal(settings, prepare) {
		if (prepare) await bus.sql(prepare);
		const gateway = await bus.gateway({ ready: false, ...settings });
		const client = await gateway.client();
		// strangers are told less
		await until('a reason', async () =>
			/lane: (?!connecting)/.test(await reasons(gateway)));
		const { reason: text } = await until('the line', () =>
			gateway.event('database'));
		const error = await fails(client.call('ping'));
		assert.equal(error.code, -32010);
		await gateway.kill();
		return text;
	}

	test('a superuser login is refused', async () => {
		assert.match(await refusal({ user: 'postgres' }), /superuser/);
	});

	test('a login with BYPASSRLS is refused', async () => {
		assert.match(await refusal({ user: 'bypass' },
			'CREATE ROLE bypass LOGIN BYPASSRLS; GRANT app TO bypass'),
		/BYPASSRLS/);
	});

	test('a login that may not call relay is refused', async () => {
		assert.match(await refusal({ user: 'nobody' },
			'CREATE ROLE nobody LOGIN; GRANT app TO nobody'),
		/may not execute message_bus.relay/);
	});

	test('a role that the login is no member of is refused', async () => {
		assert.match(await refusal({ MESSAGE_BUS_ROLE: 'stranger' }),
			/not a member/);
	});

	test('a role that does not exist is refused', async () => {
		assert.match(await refusal({ MESSAGE_BUS_ROLE: 'phantom' }),
			/does not exist/);
	});

	test('a superuser as the role is refused', async () => {
		assert.match(await refusal({ MESSAGE_BUS_ROLE: 'king' },
			'CREATE ROLE king SUPERUSER; GRANT king TO gateway'),
		/MESSAGE_BUS_ROLE is a superuser/);
		await bus.sql('REVOKE king FROM gateway');
	});

	test('a read-only server is not used', async () => {
		await bus.sql('ALTER SYSTEM SET default_transaction_read_only = on');
		await bus.sql('SELECT pg_reload_conf()');
		try {
			assert.match(await refusal({}), /read-only/);
		} finally {
			await bus.sql(
				'ALTER SYSTEM RESET default_transaction_read_only');
			await bus.sql('SELECT pg_reload_conf()');
		}
	});

	test('a host that cannot be found is told', async () => {
		assert.match(await refusal({ DATABASE_URL:
			'postgresql://u@no-such-host.invalid/x' }), /look up/);
	});

	test('the first host that answers is used', async () => {
		const gateway = await bus.gateway({ DATABASE_URL:
			'postgresql://gateway@/bus?host=no-such-host.invalid,' +
			`127.0.0.1,${encodeURIComponent(bus.directory)}&port=1,1,${PORT}` });
		const client = await gateway.client();
		assert.equal(await client.call('ping'), 'pong');
		await gateway.kill();
	});

	test('a host that accepts and says nothing does not hide the next',
		async () => {
			const silent = net.createServer((socket) =>
				socket.on('error', () => {}));
			silent.listen(0, '127.0.0.1');
			await once(silent, 'listening');
			const { port } = silent.address();
			const gateway = await bus.gateway({ DATABASE_URL:
				'postgresql://gateway@/bus?host=127.0.0.1,' +
				`${encodeURIComponent(bus.directory)}&port=${port},${PORT}` });
			const client = await gateway.client();
			assert.equal(await client.call('ping'), 'pong');
			await gateway.kill();
			silent.close();
		});

	test('PG* variables are enough', async () => {
		const gateway = await bus.gateway({ DATABASE_URL: '',
			PGHOST: bus.directory, PGPORT: PORT, PGUSER: 'gateway',
			PGDATABASE: 'bus' });
		const client = await gateway.client();
		assert.equal(await client.call('ping'), 'pong');
		await gateway.kill();
	});

	test('a schema of its name is no extension', async () => {
		await bus.sql('CREATE DATABASE bare');
		await bus.sql(`CREATE SCHEMA message_bus;
			GRANT USAGE ON SCHEMA message_bus TO gateway`, 'bare');
		const gateway = await bus.gateway({ ready: false,
			DATABASE_URL: bus.url().replace('/bus?', '/bare?') });
		await until('a reason', async () =>
			/not installed/.test(await reasons(gateway)));
		await gateway.kill();
	});

	test('a dropped extension is told, and its return is noticed',
		async () => {
			const gateway = await bus.gateway();
			const client = await gateway.client();
			const big = await client.callBinary('publish',
				{ channel: 'events' }, random(200000));
			assert.ok(big.frame.result > 0);
			await bus.sql('DROP EXTENSION message_bus CASCADE');
			const first = await fails(publish(client, 1));
			assert.ok([-32603, -32010].includes(first.code), String(first.code));
			await until('a reason', async () =>
				/not installed/.test(await reasons(gateway)));
			const error = await fails(publish(client, 1));
			assert.equal(error.code, -32010);
			assert.match(error.data.detail, /not installed/);
			await bus.createExtension();
			await bus.sql(`SELECT message_bus.create_channel('events');
				SELECT message_bus.grant_channel('events', 'app', 'all')`);
			await until('an answer', async () =>
				await client.call('ping') === 'pong');
			const body = random(100000);
			const { frame } = await until('publishing again', () =>
				client.callBinary('publish', { channel: 'events' }, body));
			const got = await until('reading again', () =>
				client.callBinary('get', { id: frame.result }));
			assert.equal(sha256(got.body), sha256(body));
			await gateway.kill();
		});
});
