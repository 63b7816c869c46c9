// faults.test.mjs
//     Gateway and database are killed, cut off, restarted and failed over
//     under load: no acknowledged publish is lost, nothing refused is stored,
//     no reply comes before its commit, and service is back soon after the
//     database.
//
// FAULTS_LONG=1 cuts the database off for 60 s too.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Bus, Client, PORT, fails, sleep, until } from './bus.mjs';

const BACK_MS = 2000;		// service after the database is back
const AWAY = -32010, TOO_MANY = -32011, UNKNOWN = -32050;

let bus;

before(async () => {
	bus = await Bus.start();
});

after(() => bus.stop());

// Load publishes from several connections until it is stopped, opens what
// breaks again, and keeps what became of each message by its transaction id:
// its id, or the code of its refusal, or UNKNOWN if no reply came.
class Load {
	static #next = 0;

	constructor(port, connections = 4, inFlight = 4) {
		this.name = `load${Load.#next++}`;
		this.outcomes = new Map();
		this.acknowledged = 0;
		this.running = true;
		this.port = port;
		this.done = Promise.all(Array.from({ length: connections }, (_, i) =>
			this.#connection(i, inFlight)));
	}

	async #connection(number, inFlight) {
		for (let round = 0; this.running; round++) {
			const client = new Client(`ws://127.0.0.1:${this.port}/`);
			try {
				await client.opened;
			} catch {
				await sleep(20);
				continue;
			}
			await Promise.all(Array.from({ length: inFlight }, (_, slot) =>
				this.#publish(client, `${this.name}/${number}/${round}/${slot}`)));
			client.socket.terminate();
		}
	}

	async #publish(client, prefix) {
		for (let n = 0; this.running && !client.closed; n++) {
			const key = `${prefix}/${n}`;
			this.outcomes.set(key, UNKNOWN);
			try {
				const id = await client.call('publish', { channel: 'events',
					payload: key, transaction_id: key });
				this.outcomes.set(key, { id });
				this.acknowledged++;
				this.last = performance.now();
			} catch (error) {
				if (error.code) this.outcomes.set(key, error.code);
				if (error.code === AWAY) await sleep(10);
			}
		}
	}

	// acknowledges waits for `count` more acknowledgements.
	async acknowledges(count) {
		const goal = this.acknowledged + count;
		await until('acknowledgements', () => this.acknowledged >= goal, 60);
	}

	async stop() {
		this.running = false;
		await this.done;
	}

	// check compares the outcomes with what is stored.
	async check(server = bus) {
		const stored = new Map((await server.sql(
			`SELECT transaction_id, id FROM message_bus.messages
			 WHERE transaction_id LIKE '${this.name}/%'`)).split('\n')
			.map((line) => line.split('|')));
		const count = { acknowledged: 0, unknown: 0, refused: 0 };
		for (const [key, outcome] of this.outcomes) {
			if (outcome.id) {
				assert.equal(stored.get(key), String(outcome.id), key);
				count.acknowledged++;
			} else if (outcome === UNKNOWN) {
				count.unknown++;
			} else {
				assert.ok([AWAY, TOO_MANY, -32603].includes(outcome),
					String(outcome));
				assert.ok(!stored.has(key), key);
				count.refused++;
			}
		}
		for (const key of stored.keys()) assert.ok(this.outcomes.has(key));
		return count;
	}

	// resolve asks again for what is unknown, by its transaction id, and
	// returns how many there were.
	async resolve(gateway, server = bus) {
		const client = await gateway.client();
		const unknown = [...this.outcomes].filter(([, one]) =>
			one === UNKNOWN);
		for (const [key] of unknown) {
			const [before] = (await server.sql(
				`SELECT id FROM message_bus.messages
				 WHERE transaction_id = '${key}'`)).split('\n');
			const id = await client.call('publish', { channel: 'events',
				payload: key, transaction_id: key });
			if (before) assert.equal(String(id), before);
		}
		return unknown.length;
	}
}

// Proxy is a Unix socket between the gateway and the database, which can be
// cut, as by the end of a host, or held, as by a network that loses packets.
class Proxy {
	constructor(target) {
		this.target = path.join(target, `.s.PGSQL.${PORT}`);
		this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'mbx-'));
		this.sockets = new Set();
		this.held = false;
	}

	async open() {
		this.server = net.createServer((near) => {
			const far = net.connect(this.target);
			for (const [one, other] of [[near, far], [far, near]]) {
				this.sockets.add(one);
				one.on('data', (part) => other.write(part));
				one.on('error', () => {});
				one.on('close', () => {
					this.sockets.delete(one);
					other.destroy();
				});
				if (this.held) one.pause();
			}
		});
		this.server.listen(path.join(this.directory, `.s.PGSQL.${PORT}`));
		await once(this.server, 'listening');
	}

	cut() {
		this.server.close();		// the socket's file goes with it
		for (const socket of this.sockets) socket.destroy();
	}

	hold() {
		this.held = true;
		for (const socket of this.sockets) socket.pause();
	}

	release() {
		this.held = false;
		for (const socket of this.sockets) socket.resume();
	}

	url() {
		return `postgresql://gateway@/bus?port=${PORT}&host=` +
			encodeURIComponent(this.directory);
	}

	remove() {
		this.cut();
		fs.rmSync(this.directory, { recursive: true, force: true });
	}
}

// back waits for the load's next acknowledgement, and tells how long it took.
async function back(t, load, since) {
	const before = load.acknowledged;
	await until('service', () => load.acknowledged > before, 30);
	const took = load.last - since;
	t.diagnostic(`service was back ${took.toFixed(0)} ms after the database`);
	return took;
}

function tell(t, count) {
	t.diagnostic(Object.entries(count).map(([name, n]) => `${n} ${name}`)
		.join(', '));
	assert.ok(count.acknowledged > 0);
}

describe('kill -9', () => {
	test('of the gateway, 5 times, by which unknown outcomes are resolved',
		async (t) => {
			let gateway = await bus.gateway();
			const { port } = gateway;
			const load = new Load(port);
			for (let round = 0; round < 5; round++) {
				await load.acknowledges(50);
				await gateway.kill('SIGKILL');
				gateway = await bus.gateway({ EXAI_WS_PORT: String(port) });
			}
			await load.acknowledges(50);
			await load.stop();
			tell(t, await load.check());
			assert.ok(await load.resolve(gateway) > 0);
			await gateway.kill();
		});

	test('of the postmaster, 3 times', async (t) => {
		const gateway = await bus.gateway();
		const load = new Load(gateway.port);
		for (let round = 0; round < 3; round++) {
			await load.acknowledges(100);
			await bus.crashServer();
			await bus.startServer();
			assert.ok(await back(t, load, performance.now()) < BACK_MS);
		}
		await load.acknowledges(100);
		await load.stop();
		tell(t, await load.check());
		await load.resolve(gateway);
		await gateway.kill();
	});

	test('of both at once', async (t) => {
		let gateway = await bus.gateway();
		const { port } = gateway;
		const load = new Load(port);
		await load.acknowledges(100);
		await Promise.all([gateway.kill('SIGKILL'), bus.crashServer()]);
		gateway = await bus.gateway({ ready: false,
			EXAI_WS_PORT: String(port) });
		await bus.startServer();
		assert.ok(await back(t, load, performance.now()) < BACK_MS);
		await load.stop();
		tell(t, await load.check());
		await gateway.kill();
	});
});

test('a restart of the database, under load', async (t) => {
	const gateway = await bus.gateway();
	const load = new Load(gateway.port);
	await load.acknowledges(100);
	await bus.stopServer('fast');
	await bus.startServer();
	assert.ok(await back(t, load, performance.now()) < BACK_MS);
	await load.acknowledges(100);
	await load.stop();
	tell(t, await load.check());
	await gateway.kill();
});

describe('a database that cannot be reached', () => {
	const long = process.env.FAULTS_LONG ? [60] : [];
	let proxy;

	before(async () => {
		proxy = new Proxy(bus.directory);
		await proxy.open();
	});

	after(() => proxy.remove());

	for (const seconds of [1, ...long]) {
		test(`for ${seconds} s, connections being refused`, async (t) => {
			const gateway = await bus.gateway({ DATABASE_URL: proxy.url() });
			const load = new Load(gateway.port);
			await load.acknowledges(100);
			proxy.cut();
			await until('refusals', () =>
				[...load.outcomes.values()].includes(AWAY));
			const client = await gateway.client();
			const start = performance.now();
			assert.equal((await fails(client.call('ping'))).code, AWAY);
			assert.ok(performance.now() - start < 500);
			await sleep(seconds * 1000);
			await proxy.open();
			assert.ok(await back(t, load, performance.now()) <
				BACK_MS);
			await load.acknowledges(100);
			await load.stop();
			tell(t, await load.check());
			await load.resolve(gateway);
			await gateway.kill();
		});

		test(`for ${seconds} s, packets being lost`, async (t) => {
			const gateway = await bus.gateway({ DATABASE_URL: proxy.url(),
				TOOL_TIMEOUT_SECS: '5' });
			const load = new Load(gateway.port);
			await load.acknowledges(100);
			proxy.hold();
			await sleep(100);
			const held = load.acknowledged;
			await sleep(seconds * 1000);
			assert.equal(load.acknowledged, held);
			assert.equal((await gateway.get('/healthz')).status, 200);
			proxy.release();
			assert.ok(await back(t, load, performance.now()) <
				BACK_MS);
			await load.acknowledges(100);
			await load.stop();
			tell(t, await load.check());
			await gateway.kill();
		});
	}
});

describe('no reply comes before its commit', () => {
	test('which waits for a standby that is not there', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		const set = (name) => bus.sql(
			`ALTER SYSTEM SET synchronous_standby_names = '${name}'`)
			.then(() => bus.sql('SELECT pg_reload_conf()'));
		const waiting = () => bus.sql(`SELECT count(*) FROM pg_stat_activity
			WHERE wait_event = 'SyncRep'
			AND application_name = 'message-bus-gateway'`);
		await set('nobody');
		try {
			// The setting takes effect a little after the reload.
			const replies = [];
			let pending = [];
			await until('the wait', async () => {
				pending.push(client.call('publish', { channel: 'events',
					payload: 1 }).then((id) => { replies.push(id); }));
				await sleep(20);
				return await waiting() !== '0';
			});
			const early = replies.length;
			await sleep(1000);
			assert.equal(replies.length, early);
			assert.ok(early < pending.length);
			await set('');
			await Promise.all(pending);
			assert.equal(await bus.sql(`SELECT count(*)
				FROM message_bus.messages WHERE id IN (${replies})`),
			String(pending.length));
		} finally {
			await set('');
		}
		await gateway.kill();
	});

	test('which fails now and then, under load', async (t) => {
		// One relay call in five fails at its commit, whatever is in it.
		await bus.sql(`
			CREATE TABLE public.coin (a int);
			GRANT INSERT ON public.coin TO PUBLIC;
			CREATE FUNCTION public.toss() RETURNS trigger LANGUAGE plpgsql AS
				$$ BEGIN
					IF random() < 0.2 THEN
						RAISE EXCEPTION 'the commit is refused'
							USING ERRCODE = '23514';
					END IF;
					RETURN NULL;
				END $$;
			CREATE CONSTRAINT TRIGGER late AFTER INSERT ON public.coin
				DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
				EXECUTE FUNCTION public.toss();
			ALTER FUNCTION message_bus.relay(bigint[], bytea[])
				RENAME TO relay_behind;
			CREATE FUNCTION message_bus.relay(sessions bigint[],
				frames bytea[]) RETURNS TABLE (session bigint, frame bytea,
					request integer, code integer, sqlstate text, leases bigint[])
				LANGUAGE plpgsql AS $$
				BEGIN
					INSERT INTO public.coin VALUES (1);
					RETURN QUERY SELECT * FROM
						message_bus.relay_behind(sessions, frames);
				END $$;
			GRANT EXECUTE ON FUNCTION message_bus.relay(bigint[], bytea[])
				TO gateway`);
		try {
			const gateway = await bus.gateway();
			const load = new Load(gateway.port);
			await load.acknowledges(500);
			await load.stop();
			const count = await load.check();
			tell(t, count);
			assert.ok(count.refused > 10);
			assert.equal(count.unknown, 0);
			await gateway.kill();
		} finally {
			await bus.sql(`
				DROP FUNCTION message_bus.relay(bigint[], bytea[]);
				ALTER FUNCTION message_bus.relay_behind(bigint[], bytea[])
					RENAME TO relay;
				DROP TABLE public.coin;
				DROP FUNCTION public.toss()`);
		}
	});
});

test('a failover to a standby loses nothing that was acknowledged',
	async (t) => {
		const primary = await Bus.start();
		let standby;
		try {
			standby = await primary.standby();
			await primary.sql(
				`ALTER SYSTEM SET synchronous_standby_names = '*'`);
			await primary.sql('SELECT pg_reload_conf()');
			await until('the standby', () => primary.sql(
				`SELECT 1 FROM pg_stat_replication
				 WHERE sync_state = 'sync'`));
			const hosts = [primary, standby].map((one) =>
				encodeURIComponent(one.directory)).join(',');
			const gateway = await primary.gateway({ DATABASE_URL:
				`postgresql://gateway@/bus?host=${hosts}&port=${PORT}` });
			const load = new Load(gateway.port);
			await load.acknowledges(200);
			await primary.crashServer();
			await standby.promote();
			await standby.sql(
				'ALTER SYSTEM RESET synchronous_standby_names');
			await standby.sql('SELECT pg_reload_conf()');
			assert.ok(await back(t, load, performance.now()) < BACK_MS);
			await load.acknowledges(200);
			await load.stop();
			tell(t, await load.check(standby));
			await load.resolve(gateway, standby);
			await gateway.kill();
		} finally {
			await standby?.stop();
			await primary.stop();
		}
	});
