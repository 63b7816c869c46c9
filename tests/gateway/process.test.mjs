// process.test.mjs
//     The gateway as a process: its configuration, its log, and the examples.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Bus, Client, program, root, until } from './bus.mjs';

const run = promisify(execFile);
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'mbp-'));

after(() => fs.rmSync(directory, { recursive: true, force: true }));

// gateway runs the program to its end and returns status and output.
async function gateway(args, env = {}) {
	try {
		const { stdout, stderr } = await run(program, args,
			{ cwd: directory, env: { PATH: process.env.PATH, ...env } });
		return { status: 0, stdout, stderr };
	} catch (error) {
		return { status: error.code, stdout: error.stdout,
			stderr: error.stderr };
	}
}

describe('configuration', () => {
	test('--check-config tells every fault at once', async () => {
		const { status, stderr } = await gateway(['--check-config'],
		{ EXAI_WS_PORT: 'x', EXAI_WS_HOST: '0.0.0.0', TOOL_TIMEOUT_SECS: '-1', WS_MAX_MSG_BYTES: '5',
			MESSAGE_BUS_ROLE: 'r'.repeat(64) });
		assert.equal(status, 2);
		for (const name of ['EXAI_WS_PORT', 'EXAI_WS_HOST', 'TOOL_TIMEOUT_SECS', 'WS_MAX_MSG_BYTES', 'MESSAGE_BUS_ROLE']) {
			assert.ok(stderr.includes(name), `${name} in ${stderr}`);
		}
	});

	test('--check-config prints what is in force, but no secret',
		async () => {
			const { status, stdout } = await gateway(['--check-config'], {
				MESSAGE_BUS_ROLE: 'app', SUPABASE_KEY: 'hushhush',
				DATABASE_URL: 'postgresql://u:hushhush@h/d' });
			assert.equal(status, 0);
			assert.match(stdout, /configuration is good/);
			assert.match(stdout, /EXAI_WS_PORT=8765/);
			assert.ok(!stdout.includes('hushhush'));
		});

	test('what is no flag is told, less what may be a secret, and how to ' +
		'give a setting', async () => {
		for (const flag of ['--supabase-key=hushhush', 'supabase-key', '-x']) {
			const { status, stdout, stderr } = await gateway([flag]);
			assert.equal(status, 2);
			assert.equal(stdout, '');
			const line = JSON.parse(stderr);
			assert.equal(line.event, 'start');
			assert.equal(line.detail, `${flag.split('=')[0]}: is not a flag`);
			assert.match(line.hint, /give them as NAME=value in the environment/);
			assert.ok(!stderr.includes('hush'));
		}
	});

	test('--env-file without a file is told as that', async () => {
		const { status, stderr } = await gateway(['--env-file']);
		assert.equal(status, 2);
		assert.equal(JSON.parse(stderr).detail,
			'--env-file: needs the name of a file');
	});

	test('a PEM file that is missing is told by its setting and reason',
		async () => {
			const pem = Object.fromEntries(['cert', 'key'].map((name) =>
				[name, path.join(directory, `${name}.pem`)]));
			await run('openssl', ['req', '-x509', '-nodes', '-subj', '/CN=x',
				'-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
				'-out', pem.cert, '-keyout', pem.key]);
			const tell = async (cert, key) => (await gateway(
				['--check-config'], { MESSAGE_BUS_ROLE: 'app',
					EXAI_WS_TLS_CERT: cert, EXAI_WS_TLS_KEY: key })).stderr;
			assert.equal(await tell(pem.cert, pem.key), '');
			assert.match(await tell('/none.pem', pem.key),
				/^EXAI_WS_TLS_CERT: "\/none.pem" .*: No such file or directory$/m);
			assert.match(await tell(pem.cert, '/none.pem'),
				/^EXAI_WS_TLS_KEY: "\/none.pem" .*: No such file or directory$/m);
			assert.match(await tell(pem.key, pem.key),
				/^EXAI_WS_TLS_CERT: .*: no start line$/m);
		});

	test('the gateway does not start with a fault, and tells each in JSON',
		async () => {
			const { status, stderr } = await gateway([], {
				MESSAGE_BUS_ROLE: 'app', EXAI_WS_HOST: '192.0.2.1',
				MESSAGE_BUS_PING_SECS: 'x' });
			assert.equal(status, 2);
			const lines = stderr.trim().split('\n').map((line) =>
				JSON.parse(line));
			assert.deepEqual(lines.map((line) => [line.level, line.event,
				line.setting]), [['error', 'start', 'MESSAGE_BUS_PING_SECS'],
				['error', 'start', 'EXAI_WS_HOST']]);
			assert.match(lines[1].detail, /loopback/);
		});

	test('a setting of the bus that there is not is a fault', async () => {
		const name = 'MESSAGE_BUS_WAIT_CONNECTION';
		for (const args of [[], ['--check-config']]) {
			const { status, stderr } = await gateway(args, { [name]: '8' });
			assert.equal(status, 2);
			assert.match(stderr, new RegExp(
				`${name}.*is no setting, and stands in the environment`));
		}
		fs.writeFileSync(path.join(directory, '.env'), `${name}=8\nOTHER=1\n`);
		const { status, stderr } = await gateway(['--check-config']);
		fs.unlinkSync(path.join(directory, '.env'));
		assert.equal(status, 2);
		assert.match(stderr, new RegExp(
			`^${name}: is no setting, and stands in .env; `));
		assert.ok(!stderr.includes('OTHER'));
	});

	test('but not what Kubernetes sets for a Service', async () => {
		const set = { MESSAGE_BUS_SERVICE_HOST: '10.0.0.1',
			MESSAGE_BUS_SERVICE_PORT: '8765', MESSAGE_BUS_SERVICE_PORT_WS: '8765',
			MESSAGE_BUS_PORT: 'tcp://10.0.0.1:8765',
			MESSAGE_BUS_PORT_8765_TCP: 'tcp://10.0.0.1:8765',
			MESSAGE_BUS_PORT_8765_TCP_PROTO: 'tcp',
			MESSAGE_BUS_PORT_8765_TCP_PORT: '8765',
			MESSAGE_BUS_PORT_8765_TCP_ADDR: '10.0.0.1',
			MESSAGE_BUS_GATEWAY_SERVICE_HOST: '10.0.0.2' };
		const check = (more) => gateway(['--check-config'],
			{ MESSAGE_BUS_ROLE: 'app', ...more });
		assert.deepEqual(await check(set).then(({ status, stderr }) =>
			[status, stderr]), [0, '']);
		for (const [name, value] of [['MESSAGE_BUS_PORT', '8765'],
			['MESSAGE_BUS_PORT_X', 'x'], ['MESSAGE_BUS_SERVICE', 'x'],
			['MESSAGE_BUS_ADMN_PORT', '8766']]) {
			const { status, stderr } = await check({ [name]: value });
			assert.equal(status, 2, name);
			assert.match(stderr, new RegExp(`^${name}: is no setting`));
		}
	});

	test('the admin port is not that of clients', async () => {
		const { status, stderr } = await gateway(['--check-config'], {
			MESSAGE_BUS_ROLE: 'app', EXAI_WS_PORT: '8765',
			MESSAGE_BUS_ADMIN_PORT: '8765' });
		assert.equal(status, 2);
		assert.match(stderr, /^MESSAGE_BUS_ADMIN_PORT: is the port of clients/);
	});

	test('--check-config --connect tries the database', async () => {
		const bus = await Bus.start();
		const settings = { MESSAGE_BUS_ROLE: 'app', DATABASE_URL: bus.url() };
		const tried = (more) => gateway(['--check-config', '--connect'],
			{ ...settings, ...more });
		try {
			assert.deepEqual(await tried({}).then(({ status, stderr }) =>
				[status, stderr]), [0, '']);
			assert.match((await tried({})).stdout,
				/^configuration is good\ndatabase is good$/m);
			const stranger = await tried({ MESSAGE_BUS_ROLE: 'stranger' });
			assert.equal(stranger.status, 1);
			assert.match(stranger.stdout,
				/^database is not ready: .*lane: .*not a member/m);
			await bus.stopServer();
			const away = await tried({});
			assert.equal(away.status, 1);
			assert.match(away.stdout, /^database is not ready: .*No such file/m);
		} finally {
			await bus.stop();
		}
		assert.equal((await gateway(['--connect'], settings)).status, 2);
	});

	test('.env is read, the environment goes before it', async () => {
		fs.writeFileSync(path.join(directory, '.env'),
			'MESSAGE_BUS_ROLE=from_file\nEXAI_WS_PORT=1\n' +
			'TOOL_TIMEOUT_SECS=2\n');
		const { stdout } = await gateway(['--check-config'],
			{ EXAI_WS_PORT: '3' });
		fs.unlinkSync(path.join(directory, '.env'));
		assert.match(stdout, /MESSAGE_BUS_ROLE=from_file/);
		assert.match(stdout, /EXAI_WS_PORT=3/);
		assert.match(stdout, /TOOL_TIMEOUT_SECS=2/);
	});

	test('.env.example is a good configuration, with every setting',
		async () => {
			const file = path.join(root, '.env.example');
			const { status, stdout, stderr } = await gateway(
				['--check-config', `--env-file=${file}`]);
			assert.equal(status, 0, stderr);
			const text = fs.readFileSync(file, 'utf8');
			for (const line of stdout.split('\n')) {
				const name = /^([A-Z_]+)=/.exec(line)?.[1];
				if (name) assert.match(text, new RegExp(`^#?${name}=`, 'm'));
			}
			assert.match(stdout, /^MESSAGE_BUS_ROLE=$/m, 'clients authenticate');
		});

	test('license and changes are there', () => {
		const read = (name) => fs.readFileSync(path.join(root, name), 'utf8');

		assert.match(read('LICENSE'), /PostgreSQL License[^]*the message_bus contributors/);
		assert.match(read('CHANGELOG.md'), /^## Unreleased$/m);
	});

	test('--help names every setting, --version the version', async () => {
		for (const flag of ['--help', '-h']) {
			assert.match((await gateway([flag])).stdout,
				/WS_MAX_MSG_BYTES\n +largest .*; 1024 to 268435456; default 33554432$/m);
		}
		assert.match((await gateway(['--version'])).stdout,
			/^message-bus-gateway \d/);
	});

	test('a port that is taken is told', async () => {
		const server = http.createServer().listen(0, '127.0.0.1');
		await once(server, 'listening');
		const { status, stderr } = await gateway([], { MESSAGE_BUS_ROLE: 'app',
			EXAI_WS_PORT: String(server.address().port) });
		server.close();
		assert.equal(status, 1);
		assert.match(stderr, /could not listen/);
	});
});

describe('with a bus', () => {
	let bus;

	before(async () => {
		bus = await Bus.start();
	});

	after(() => bus.stop());

	test('every line of the log is one JSON object', async () => {
		const one = await bus.gateway();
		const client = await one.client();
		await client.call('ping');
		await client.call('publish', { channel: 'events', payload: 'x' });
		await client.call('publish', { channel: 'none', payload: 'x' })
			.catch(() => {});
		client.raw('{"method":"\\u0000\\"\n"}');
		await client.frame();
		await client.close();
		const close = await until('the line', () => one.event('close'));
		assert.ok(!one.event('not JSON'));
		for (const line of one.lines) {
			assert.match(line.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
			assert.ok(['info', 'warning', 'error'].includes(line.level));
			assert.ok(line.event);
		}
		const frame = one.event('frame', (line) => line.method === 'publish' &&
			line.outcome === 'committed');
		assert.equal(frame.connection, close.connection);
		assert.ok(one.event('frame', (line) => line.outcome === 'failed' &&
			line.code === -32003));
		assert.ok(frame.bytes > 0 && frame.ms >= 0);
		assert.equal(close.frames_in, 4);
	});

	test('a log that cannot be written is counted, warned of, and stops ' +
		'nothing', async () => {
		const one = await bus.gateway();
		const client = await one.client();
		assert.equal((await one.get('/healthz')).body.status, 'ok');
		one.child.stderr.destroy();
		await until('the warning', async () => {
			assert.equal(await client.call('ping'), 'pong');
			return (await one.get('/healthz')).body.status === 'warning';
		});
		assert.ok((await one.get('/healthz')).body.log_lines_lost > 0);
		assert.equal(await one.kill('SIGTERM'), 0);
	});

	test('a log that nobody reads does not stop the gateway', async () => {
		const child = spawn(program, [], { cwd: directory,
			env: { PATH: process.env.PATH, DATABASE_URL: bus.url(),
				MESSAGE_BUS_ROLE: 'app', EXAI_WS_PORT: '0',
				MESSAGE_BUS_LOG_FRAMES: 'true' },
			stdio: ['ignore', 'ignore', 'pipe'] });
		const [first] = await once(child.stderr, 'data');
		child.stderr.pause();
		const { port } = JSON.parse(first.toString().split('\n')[0]);
		const get = (target) => new Promise((resolve, reject) => http.get(
			{ host: '127.0.0.1', port, path: target, agent: false },
			(response) => {
				let text = '';
				response.on('data', (part) => { text += part; });
				response.on('end', () => resolve(JSON.parse(text)));
			}).on('error', reject));
		await until('ready', async () => (await get('/readyz')).ready);
		const client = new Client(`ws://127.0.0.1:${port}/`);
		await client.opened;
		await until('lost lines', async () => {
			for (let i = 0; i < 50; i++) await client.call('ping');
			return (await get('/healthz')).log_lines_lost > 0;
		}, 60);
		await client.close();
		child.kill('SIGTERM');
		child.stderr.destroy();
		assert.deepEqual(await once(child, 'exit'), [0, null]);
	});

	test('kill -9 loses nothing that was acknowledged', async () => {
		const one = await bus.gateway();
		const client = await one.client();
		const ids = [];
		const load = (async () => {
			for (;;) {
				ids.push(await client.call('publish',
					{ channel: 'events', payload: ids.length }));
			}
		})().catch(() => {});
		await until('some', () => ids.length > 50);
		await one.kill('SIGKILL');
		await load;
		const other = await bus.gateway();
		const reader = await other.client();
		for (const [i, id] of ids.entries()) {
			assert.equal((await reader.call('get', { id })).payload, i);
		}
	});

	for (const [command, file] of [
		['node', 'upload.mjs'],
		['/usr/bin/python3', 'upload.py']]) {
		test(`examples/${file} uploads a file, reads it back, and says what is wrong`,
			async () => {
				const one = await bus.gateway();
				const env = { PATH: process.env.PATH,
					BUS_URL: `ws://127.0.0.1:${one.port}/` };
				const example = path.join(root, 'examples', file);
				const sent = path.join(directory, `sent.${file}`);
				const back = path.join(directory, `back.${file}`);
				fs.writeFileSync(sent, file.repeat(300000));
				const up = await run(command, [example, 'up', sent], { env });
				const [id, hash] = up.stdout.trim().split(' ');
				assert.match(hash, /^[0-9a-f]{64}$/);
				const down = await run(command, [example, 'down', id, back], { env });
				assert.equal(down.stdout.trim(), `${id} ${hash}`);
				assert.deepEqual(fs.readFileSync(back), fs.readFileSync(sent));
				await assert.rejects(run(command, [example, 'sideways'], { env }), /usage: upload/);
			});
	}

	for (const [command, file] of [
		['node', 'publish_and_read.mjs'],
		['/usr/bin/python3', 'publish_and_read.py']]) {
		test(`examples/${file} reads in another process what it published`,
			async () => {
				const one = await bus.gateway();
				const env = { PATH: process.env.PATH,
					BUS_URL: `ws://127.0.0.1:${one.port}/` };
				const example = path.join(root, 'examples', file);
				const published = await run(command, [example], { env });
				const [id, hash] = published.stdout.trim().split(' ');
				assert.match(hash, /^[0-9a-f]{64}$/);
				const read = await run(command, [example, id], { env });
				assert.equal(read.stdout.trim(), `${id} ${hash}`);
				assert.equal(await bus.sql(`SELECT encode(sha256, 'hex'),
					size > 5000000 FROM message_bus.get(${id})`), `${hash}|t`);
			});
	}
});
