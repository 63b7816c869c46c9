// readiness.test.mjs
//     What /readyz says where the bus takes no publishes, though nobody tries,
//     and where the connection goes through a pooler: a real pgbouncer.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Bus, PORT, fails, until } from './bus.mjs';

let bus;

before(async () => {
	bus = await Bus.start({ settings: 'message_bus.disk_reserve = 1MB' });
});
after(() => bus?.stop());

const ready = async (gateway) => (await gateway.get('/readyz')).status === 200;

async function told(gateway, pattern, seconds = 30) {
	await until(`${pattern}`, async () => {
		const { status, body } = await gateway.get('/readyz');
		return status === 503 && pattern.test(body.reasons.join('\n'));
	}, seconds);
}

async function setting(name, value) {
	await bus.sql(value === null ? `ALTER SYSTEM RESET ${name}` :
		`ALTER SYSTEM SET ${name} = '${value}'`);
	await bus.sql('SELECT pg_reload_conf()');
}

const pids = async (type) => (await bus.sql(`SELECT pid FROM pg_stat_activity
	WHERE backend_type = '${type}'`)).split('\n').filter(Boolean).map(Number);

describe('a bus that takes no publishes, and nobody tries', () => {
	test('a database that is not listed any more', async () => {
		const gateway = await bus.gateway();
		await setting('message_bus.databases', '');
		await told(gateway, /takes no publishes: .*message_bus\.databases/);
		assert.equal(await bus.sql(
			'SET ROLE stranger; SELECT message_bus.bus_fault() IS NULL'), 't');
		assert.match(await bus.sql('SELECT message_bus.bus_fault()'),
			/message_bus\.databases/);
		await setting('message_bus.databases', null);
		await until('ready', () => ready(gateway));
		await gateway.kill();
	});

	test('no worker, for longer than one that comes back', async () => {
		const gateway = await bus.gateway();
		const [launcher] = await pids('message_bus launcher');
		// the database is served again from the test before on
		const [worker] = await until('the worker', async () => {
			const found = await pids('message_bus worker');
			return found.length > 0 && found;
		});
		process.kill(launcher, 'SIGSTOP');
		try {
			process.kill(worker, 'SIGTERM');
			await until('its end', async () =>
				(await pids('message_bus worker')).length === 0);
			assert.ok(await ready(gateway), 'it may come back');
			await told(gateway, /takes no publishes: no worker/);
		} finally {
			process.kill(launcher, 'SIGCONT');
		}
		await until('ready', () => ready(gateway), 60);
		await gateway.kill();
	});

	test('a full disk', async () => {
		const gateway = await bus.gateway();
		await setting('message_bus.disk_reserve', '1TB');
		await told(gateway, /takes no publishes: the disk .* is full/);
		const client = await gateway.client();
		const error = await fails(client.call('publish',
			{ channel: 'events', payload: 1 }));
		assert.equal(error.data.sqlstate, '53100');
		assert.equal(await client.call('ping'), 'pong');
		await setting('message_bus.disk_reserve', null);
		await until('ready', () => client.call('publish',
			{ channel: 'events', payload: 1 }).then(() => ready(gateway),
			() => false));
		await gateway.kill();
	});

	test('a read-only database', async () => {
		await setting('default_transaction_read_only', 'on');
		try {
			const gateway = await bus.gateway({ ready: false,
				PGTARGETSESSIONATTRS: 'any' });
			await told(gateway, /takes no publishes: .*read-only/);
			await gateway.kill();
		} finally {
			await setting('default_transaction_read_only', null);
		}
	});

	test('a standby', async () => {
		const standby = await bus.standby();
		try {
			for (const [settings, pattern] of [
				[{ PGTARGETSESSIONATTRS: 'any' },
					/takes no publishes: .*standby/],
				// the log and the admin port tell that it is read-only
				[{}, /no connection to the database/]]) {
				const gateway = await bus.gateway({ ready: false,
					DATABASE_URL: standby.url(), ...settings });
				await told(gateway, pattern);
				await gateway.kill();
			}
		} finally {
			await standby.stop();
		}
	});

	test('a database that does not answer', async () => {
		const gateway = await bus.gateway();
		const resume = await bus.freeze();
		try {
			await told(gateway, /takes no publishes: .*does not answer/);
		} finally {
			resume();
		}
		await until('ready', () => ready(gateway));
		await gateway.kill();
	});

	test('is ready when all is well, however long nobody comes', async () => {
		const gateway = await bus.gateway();
		for (const end = Date.now() + 4000; Date.now() < end;) {
			assert.ok(await ready(gateway));
		}
		assert.equal(await bus.sql(
			'SELECT message_bus.bus_fault() IS NULL'), 't');
		await gateway.kill();
	});
});

describe('a pooler', { skip: spawnSync('pgbouncer', ['--version']).error &&
	'there is no pgbouncer' }, () => {
	// pooler starts pgbouncer in a mode, and returns what stops it.
	async function pooler(mode, port, more = '') {
		const directory = path.join(bus.directory, `pooler_${mode}_${port}`);
		fs.mkdirSync(directory);
		fs.writeFileSync(path.join(directory, 'ini'), `[databases]
bus = host=${bus.directory} port=${PORT} dbname=bus user=gateway
[pgbouncer]
listen_addr =
listen_port = ${port}
unix_socket_dir = ${directory}
auth_type = any
pool_mode = ${mode}
${more}
`);
		if (process.getuid() === 0) {
			spawnSync('chown', ['-R', 'postgres:', directory]);
		}
		const command = ['pgbouncer', '-q', path.join(directory, 'ini')];
		if (process.getuid() === 0) {
			command.unshift('setpriv', '--reuid=postgres', '--regid=postgres',
				'--init-groups', '--');
		}
		const child = spawn(command[0], command.slice(1), { stdio: 'ignore' });
		await until('pgbouncer', () =>
			fs.existsSync(path.join(directory, `.s.PGSQL.${port}`)));
		return { url: `postgresql://gateway@/bus?port=${port}&host=` +
			encodeURIComponent(directory), stop: () => child.kill('SIGKILL') };
	}

	for (const [name, more] of [['that lends what came back last', ''],
		['that lends in turn', 'server_round_robin = 1'],
		['with one backend', 'default_pool_size = 1']]) {
		test(`in transaction mode is told, ${name}`, async () => {
			const { url, stop } = await pooler('transaction',
				6400 + name.length, more);
			try {
				const gateway = await bus.gateway({ ready: false,
					DATABASE_URL: url });
				let good = 0;
				const seen = new Set();
				for (const end = Date.now() + 6000; Date.now() < end;) {
					const { status, body } = await gateway.get('/readyz');
					if (status === 200) good++;
					for (const one of body.reasons ?? []) seen.add(one);
					await new Promise((resolve) => setTimeout(resolve, 5));
				}
				assert.equal(good, 0, 'it is never ready');
				await told(gateway, /pooler in transaction mode/);
				const client = await gateway.client();
				const error = await fails(client.call('ping'));
				assert.equal(error.code, -32010);
				await gateway.kill();
			} finally {
				stop();
			}
		});
	}

	test('in session mode is none of the gateway\'s business', async () => {
		const { url, stop } = await pooler('session', 6450);
		try {
			const gateway = await bus.gateway({ DATABASE_URL: url });
			const client = await gateway.client();
			const id = await client.call('publish',
				{ channel: 'events', payload: 'pooled' });
			assert.equal((await client.call('get', { id })).payload, 'pooled');
			const waits = await Promise.all([1, 2].map(() => client.call('claim',
				{ channel: 'events', batch: 100, wait: 1 })));
			assert.ok(waits.flat().some((one) => one.payload === 'pooled'));
			for (const end = Date.now() + 3000; Date.now() < end;) {
				assert.ok(await ready(gateway));
			}
			await gateway.kill();
		} finally {
			stop();
		}
	});
});
