// ops.test.mjs
//     What an operator does with the gateway and what it endures outside of
//     frames: TLS, reload, metrics, limits, Host, silence, descriptors,
//     several processes, and the service manager.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';
import { Bus, Client, Gateway, freePort, program, root, sleep, until }
	from './bus.mjs';

const run = promisify(execFile);

// The certificates here are signed by nobody.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

let bus;
let directory;

before(async () => {
	bus = await Bus.start();
	directory = fs.mkdtempSync(path.join(os.tmpdir(), 'mbo-'));
});

after(async () => {
	await bus.stop();
	fs.rmSync(directory, { recursive: true, force: true });
});

// withFile starts a gateway whose settings come from a file, and returns it
// with a function that writes the file.
async function withFile(settings, environment = {}) {
	const home = fs.mkdtempSync(path.join(directory, 'env-'));
	const write = (values) => fs.writeFileSync(path.join(home, '.env'),
		Object.entries(values)
			.map(([name, value]) => `${name}=${value}\n`).join(''));
	write(settings);
	const gateway = new Gateway(home, { DATABASE_URL: bus.url(),
		MESSAGE_BUS_ROLE: 'app', ...environment });
	bus.gateways.add(gateway);
	gateway.home = home;
	await gateway.started;
	return { gateway, write };
}

// reload sends SIGHUP and waits until that has been done.
async function reload(gateway) {
	const count = gateway.lines.filter((l) => l.event === 'reloaded').length;
	gateway.child.kill('SIGHUP');
	await until('the reload', () => gateway.lines.filter(
		(line) => line.event === 'reloaded').length > count);
	return gateway.event('reloaded');
}

// silent opens a WebSocket that never answers anything.
async function silent(port) {
	const socket = net.connect(port, '127.0.0.1');
	socket.received = Buffer.alloc(0);
	socket.on('data', (part) => {
		socket.received = Buffer.concat([socket.received, part]);
	});
	socket.on('error', () => {});
	socket.on('close', () => { socket.gone = true; });
	socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n' +
		'Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
		'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
	await until('101', () => socket.received.includes('\r\n\r\n'));
	assert.match(socket.received.toString('latin1'), /^HTTP\/1.1 101/);
	socket.received = Buffer.alloc(0);
	return socket;
}

// refused tries to open a WebSocket and returns the error.
async function refused(port, options = {}) {
	const client = new Client(`ws://127.0.0.1:${port}/`, options);
	try {
		await client.opened;
	} catch (error) {
		return error;
	}
	client.socket.terminate();
	throw new Error('it was not refused');
}

// metrics parses the text format strictly and returns series => value.
function parseMetrics(text) {
	const series = new Map();
	const types = new Map();
	let helped = null;
	assert.ok(text.endsWith('\n'));
	for (const line of text.slice(0, -1).split('\n')) {
		let match = /^# HELP ([a-z_:][a-z0-9_:]*) (\S.*)$/.exec(line);
		if (match) {
			assert.ok(!types.has(match[1]), `${match[1]} comes once`);
			[, helped] = match;
			continue;
		}
		match = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line);
		if (match) {
			assert.equal(match[1], helped, 'HELP and TYPE stand together');
			types.set(match[1], match[2]);
			continue;
		}
		match = /^([a-z_:][a-z0-9_:]*)(\{(?:[a-z_]+="[^"\\\n]*",?)+\})? (\d+(?:\.\d+)?)$/
			.exec(line);
		assert.ok(match, `a sample: ${line}`);
		const family = types.get(helped) === 'histogram'
			? match[1].replace(/_(bucket|sum|count)$/, '') : match[1];
		assert.equal(family, helped, 'samples stand with their family');
		if (types.get(family) === 'counter') assert.match(family, /_total$/);
		const key = match[1] + (match[2] ?? '');
		assert.ok(!series.has(key), `${key} comes once`);
		series.set(key, Number(match[3]));
	}
	for (const [name, type] of types) {
		if (type === 'histogram') checkHistogram(series, name);
	}
	return series;
}

function checkHistogram(series, name) {
	const lanes = [...series.keys()].filter((key) =>
		key.startsWith(`${name}_count`));
	assert.ok(lanes.length > 0);
	for (const key of lanes) {
		const lane = /lane="([a-z]+)"/.exec(key)[1];
		const buckets = [...series].filter(([other]) =>
			other.startsWith(`${name}_bucket{lane="${lane}"`));
		const steps = buckets.map(([other]) => /le="([^"]+)"/.exec(other)[1]);
		assert.equal(steps.at(-1), '+Inf');
		for (let i = 1; i < buckets.length; i++) {
			assert.ok(buckets[i][1] >= buckets[i - 1][1], 'buckets add up');
			if (i < buckets.length - 1) {
				assert.ok(Number(steps[i]) > Number(steps[i - 1]));
			}
		}
		assert.equal(buckets.at(-1)[1], series.get(key));
	}
}

async function metrics(gateway) {
	const { status, text } = await gateway.get('/metrics');
	assert.equal(status, 200);
	const series = parseMetrics(text);
	return (name, labels = '') =>
		series.get(`message_bus_gateway_${name}${labels && `{${labels}}`}`);
}

describe('TLS', () => {
	const cert = () => path.join(directory, 'cert.pem');
	const key = () => path.join(directory, 'key.pem');
	const settings = () => ({ EXAI_WS_TLS_CERT: cert(),
		EXAI_WS_TLS_KEY: key() });

	// make writes a new pair.
	async function make(name, kind = 'ec') {
		await run('openssl', ['req', '-x509', '-nodes', '-days', '30',
			'-subj', `/CN=${name}`, '-keyout', key(), '-out', cert(),
			...(kind === 'ec'
				? ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']
				: ['-newkey', 'rsa:2048'])]);
	}

	// shake does a handshake and returns what came of it.
	function shake(port, options = {}) {
		return new Promise((resolve, reject) => {
			const socket = tls.connect({ host: '127.0.0.1', port, ...options },
				() => {
					resolve({ protocol: socket.getProtocol(),
						alpn: socket.alpnProtocol,
						name: socket.getPeerCertificate().subject.CN });
					socket.destroy();
				});
			socket.on('error', reject);
		});
	}

	const secure = async (gateway) => {
		const client = new Client(`wss://127.0.0.1:${gateway.port}/`);
		gateway.clients.add(client);
		await client.opened;
		return client;
	};

	test('frames travel over it, large ones too', async () => {
		await make('one');
		const { gateway } = await withFile(settings());
		const client = await secure(gateway);
		const payload = 'x'.repeat(3000000);
		const id = await until('a database', () =>
			client.call('publish', { channel: 'events', payload }));
		assert.equal((await client.call('get', { id })).payload, payload);
		await gateway.kill();
	});

	test('TLS 1.2 and 1.3 are spoken, 1.1 is not', async () => {
		await make('one');
		// The system's own policy must not be what refuses it.
		const policy = path.join(directory, 'openssl.cnf');
		fs.writeFileSync(policy, `openssl_conf = start
[start]
ssl_conf = ssl
[ssl]
system_default = lax
[lax]
MinProtocol = TLSv1
CipherString = DEFAULT:@SECLEVEL=0
`);
		const { gateway } = await withFile(settings(),
			{ OPENSSL_CONF: policy });
		const at = (version) => shake(gateway.port, { minVersion: version,
			maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' });
		assert.equal((await at('TLSv1.2')).protocol, 'TLSv1.2');
		assert.equal((await at('TLSv1.3')).protocol, 'TLSv1.3');
		await assert.rejects(at('TLSv1.1'));
		await assert.rejects(at('TLSv1'));
		await gateway.kill();
	});

	test('HTTP/2 is not negotiated', async () => {
		await make('one');
		const { gateway } = await withFile(settings());
		assert.equal((await shake(gateway.port,
			{ ALPNProtocols: ['h2', 'http/1.1'] })).alpn, 'http/1.1');
		await gateway.kill();
	});

	test('plain HTTP on the port is refused, and harms nobody', async () => {
		await make('one');
		const { gateway } = await withFile(settings());
		const client = await secure(gateway);
		for (let i = 0; i < 20; i++) {
			await assert.rejects(gateway.get('/healthz'));
		}
		await until('a database', async () =>
			await client.call('ping') === 'pong');
		await gateway.kill();
	});

	test('a certificate is renewed under open connections, of another kind ' +
		'of key too', async () => {
		await make('one');
		const { gateway } = await withFile(settings());
		const client = await secure(gateway);
		assert.equal((await shake(gateway.port)).name, 'one');
		await make('two', 'rsa');
		assert.equal((await shake(gateway.port)).name, 'one');
		await reload(gateway);
		assert.equal((await shake(gateway.port)).name, 'two');
		assert.equal((await shake(gateway.port,
			{ maxVersion: 'TLSv1.2' })).name, 'two');
		await until('a database', async () =>
			await client.call('ping') === 'pong');
		assert.equal(client.closed, null);
		await gateway.kill();
	});

	test('a fault elsewhere keeps a good pair from being taken', async () => {
		await make('one');
		const { gateway, write } = await withFile(settings());
		await make('two');
		write({ ...settings(), MESSAGE_BUS_PING_SECS: 'often' });
		assert.equal((await reload(gateway)).detail, 'nothing was changed');
		assert.equal((await shake(gateway.port)).name, 'one');
		write({});
		assert.equal((await reload(gateway)).detail, undefined);
		assert.equal((await shake(gateway.port)).name, 'one');
		write(settings());
		assert.equal((await reload(gateway)).detail, undefined);
		assert.equal((await shake(gateway.port)).name, 'two');
		await gateway.kill();
	});

	test('but not a fault of the pages', async () => {
		await make('one');
		const pages = fs.mkdtempSync(path.join(directory, 'pages-'));
		const { gateway } = await withFile({ ...settings(),
			MESSAGE_BUS_ADMIN_PORT: String(await freePort()),
			MESSAGE_BUS_PAGES: pages });
		await make('two');
		for (let i = 0; i < 257; i++) {
			fs.writeFileSync(path.join(pages, `file${i}`), '');
		}
		assert.equal((await reload(gateway)).detail, 'the pages were not changed');
		assert.equal((await shake(gateway.port)).name, 'two');
		await gateway.kill();
	});

	test('half a pair changes nothing', async () => {
		await make('one');
		const { gateway } = await withFile(settings());
		const old = fs.readFileSync(key());
		await make('two');
		fs.writeFileSync(key(), old);
		const { detail } = await reload(gateway);
		assert.equal(detail, 'nothing was changed');
		assert.match(gateway.event('reload').detail,
			/EXAI_WS_TLS_KEY: .* could not be used: key values mismatch$/);
		assert.equal((await shake(gateway.port)).name, 'one');
		await gateway.kill();
	});

	test('a pair that cannot be used is told at the start', async () => {
		fs.writeFileSync(cert(), 'no certificate');
		await assert.rejects(run(program, ['--check-config'],
			{ cwd: directory, env: { MESSAGE_BUS_ROLE: 'app', ...settings() } }),
		(error) => error.code === 2 &&
			/EXAI_WS_TLS_CERT: .* could not be used/.test(error.stderr));
	});
});

describe('SIGHUP', () => {
	test('changes no setting but the level of the log', async () => {
		const { gateway, write } = await withFile({
			MESSAGE_BUS_ORIGINS: 'https://a.example' });
		const from = (origin) => ({ headers: { Origin: origin } });
		write({ MESSAGE_BUS_ORIGINS: 'https://b.example',
			MESSAGE_BUS_LOG_LEVEL: 'Error' });
		gateway.child.kill('SIGHUP');
		await until('silence', async () => {
			const count = gateway.lines.length;
			const client = await gateway.client(from('https://a.example'));
			await client.close();
			await gateway.get('/healthz');
			return gateway.lines.length === count;
		});
		write({ MESSAGE_BUS_ORIGINS: 'https://b.example' });
		const { detail } = await reload(gateway);
		assert.equal(detail, undefined);
		await gateway.client(from('https://a.example'));
		await until('a line', () => gateway.lines.at(-1).event === 'open');
		await refused(gateway.port, from('https://b.example'));
		const value = await metrics(gateway);
		assert.equal(value('reloads_total'), 2);
		assert.equal(value('reloads_failed_total'), 0);
		await gateway.kill();
	});

	test('with a fault changes nothing, and tells each', async () => {
		const { gateway, write } = await withFile({});
		write({ MESSAGE_BUS_LOG_LEVEL: 'loud', MESSAGE_BUS_PING_SECS: 'often' });
		assert.equal((await reload(gateway)).detail, 'nothing was changed');
		for (const name of ['MESSAGE_BUS_LOG_LEVEL', 'MESSAGE_BUS_PING_SECS']) {
			assert.ok(gateway.event('reload', (l) => l.detail.includes(name)));
		}
		write({ MESSAGE_BUS_LOG_LEVEL: 'error', MESSAGE_BUS_PING_SECS: 'often' });
		assert.equal((await reload(gateway)).detail, 'nothing was changed');
		const value = await metrics(gateway);
		assert.equal(value('reloads_total'), 2);
		assert.equal(value('reloads_failed_total'), 2);
		await gateway.kill();
	});

	test('of a .env that is gone is a fault', async () => {
		const { gateway } = await withFile({ MESSAGE_BUS_LOG_LEVEL: 'info' });
		fs.unlinkSync(path.join(gateway.home, '.env'));
		assert.equal((await reload(gateway)).detail, 'nothing was changed');
		assert.match(gateway.event('reload').detail, /\.env: could not be opened/);
		await gateway.kill();
	});

	test('does not turn TLS on', async () => {
		const { gateway, write } = await withFile({});
		const pair = ['cert', 'key'].map((name) =>
			path.join(directory, `turned-${name}.pem`));
		await run('openssl', ['req', '-x509', '-nodes', '-subj', '/CN=one',
			'-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
			'-out', pair[0], '-keyout', pair[1]]);
		write({ EXAI_WS_TLS_CERT: pair[0], EXAI_WS_TLS_KEY: pair[1] });
		assert.equal((await reload(gateway)).detail, undefined);
		assert.equal((await gateway.get('/healthz')).status, 200);
		await gateway.kill();
	});
});

describe('/metrics', () => {
	test('is text for Prometheus and counts rightly', async () => {
		const gateway = await bus.gateway({
			MESSAGE_BUS_ORIGINS: 'https://a.example' });
		const client = await gateway.client();
		for (let i = 0; i < 5; i++) await client.call('ping');
		const { id } = { id: await client.call('publish',
			{ channel: 'events', payload: 1 }) };
		await client.call('get', { id });
		await client.call('publish', { channel: 'none' }).catch(() => {});
		client.raw('{"id":"x"'.padEnd(20, ' '));
		await client.frame();
		await refused(gateway.port, { headers: { Origin: 'https://b.example' } });
		const value = await metrics(gateway);
		assert.equal(value('connections'), 1);
		assert.equal(value('connections_opened_total'), 1);
		assert.equal(value('connections_refused_total', 'reason="origin"'), 1);
		assert.equal(value('connections_refused_total', 'reason="host"'), 0);
		assert.equal(value('frames_received_total'), 9);
		assert.equal(value('frames_sent_total'), 9);
		const requests = (method, outcome, code) => value('requests_total',
			`method="${method}",outcome="${outcome}",code="${code}"`);
		assert.equal(requests('publish', 'failed', -32602), 1);
		assert.equal(requests('get', 'committed', 0), 1);
		assert.equal(requests('claim', 'committed', 0), 0);
		assert.equal(requests('other', 'failed', -32700), 1);
		assert.equal(value('request_seconds_count', 'lane="short"'), 8);
		assert.equal(value('batch_requests_sum', 'lane="short"'), 8);
		assert.equal(value('batch_requests_count', 'lane="short"'), 8);
		assert.equal(value('batches_total'), 9);
		assert.equal(value('replies_queued'), 0);
		assert.equal(value('replies_queued_bytes'), 0);
		assert.equal(value('buffered_bytes'), 0);
		assert.equal(value('breaker_open', 'lane="short"'), 0);
		assert.ok(value('received_bytes_total') > 9 * 20);
		assert.equal(value('build_info', 'version="1.0"'), 1);
		const { headers } = await fetch(
			`http://127.0.0.1:${gateway.port}/metrics`);
		assert.equal(headers.get('content-type'),
			'text/plain; version=0.0.4; charset=utf-8');
		await gateway.kill();
	});

	test('reads for a socket that has gone do not make one large batch', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		const id = await client.call('publish',
			{ channel: 'events', payload: 'x'.repeat(900000) });
		for (let i = 0; i < 40; i++) {
			client.raw(JSON.stringify({ jsonrpc: '2.0', id: i, method: 'get',
				params: { id } }));
		}
		client.socket.terminate();
		const value = await until('all to be read', async () => {
			const now = await metrics(gateway);
			return now('batch_requests_sum', 'lane="long"') >= 40 && now;
		}, 60);
		assert.ok(value('replies_undelivered_total') > 20);
		assert.equal(value('batch_requests_bucket', 'lane="long",le="5"'),
			value('batch_requests_count', 'lane="long"'));
		await gateway.kill();
	});

	test('tells the state of the database and of the breaker', async () => {
		const gateway = await bus.gateway({ CIRCUIT_BREAKER_THRESHOLD: '1',
			CIRCUIT_BREAKER_TIMEOUT_SECS: '60' });
		const client = await gateway.client();
		const before = await metrics(gateway);
		const short = 'lane="short"';
		assert.equal(before('database_connections', short), 1);
		assert.equal(before('database_connections_ready', short), 1);
		const thaw = await bus.freeze();
		const lost = client.call('ping').catch((error) => error);
		const second = client.call('ping').catch((error) => error);
		const during = await until('them to be sent', async () => {
			const now = await metrics(gateway);
			return now('batches_in_flight', short) >= 1 && now;
		});
		assert.ok(during('buffered_bytes') > 0);
		thaw('SIGKILL');
		assert.equal((await lost).code, -32050);
		await second;
		const then = await metrics(gateway);
		assert.ok(then('database_losses_total') >= 1);
		assert.equal(then('breaker_open', short), 1);
		assert.ok(then('outcomes_unknown_total') >= 1);
		assert.equal(then('requests_total',
			'method="other",outcome="unknown",code="-32050"'),
		then('outcomes_unknown_total'));
		await until('the database', async () => {
			const now = await metrics(gateway);
			return now('database_connections_ready', short) === 1 &&
				now('database_connects_total') >
				before('database_connects_total');
		}, 60);
		const ready = await gateway.get('/readyz');
		assert.equal(ready.status, 503);
		assert.match(ready.text, /short lane: .*CIRCUIT_BREAKER_THRESHOLD/);
		await gateway.kill();
	});
});

describe('limits', () => {
	test('a flood of refusals does not fill the log', async () => {
		const gateway = await bus.gateway({ ready: false });
		const headers = { Origin: 'https://evil.example' };
		await Promise.all(Array.from({ length: 300 }, () =>
			refused(gateway.port, { headers })));
		const value = await metrics(gateway);
		assert.equal(value('connections_refused_total', 'reason="origin"'), 300);
		const logged = gateway.lines.filter(
			(line) => line.event === 'handshake_refused').length;
		assert.ok(logged < 200, `${logged} lines`);
		assert.equal(gateway.event('handshake_refused').address, '127.0.0.1');
		await gateway.kill();
	});

	test('of a frame counts what was sent; of a long id nothing more is kept',
		async () => {
			const gateway = await bus.gateway();
			const client = await gateway.client();
			const buffered = async () =>
				(await metrics(gateway))('buffered_bytes');
			const thaw = await bus.freeze();
			client.raw(JSON.stringify({ jsonrpc: '2.0', method: 'ping',
				id: 'x'.repeat(1000000) }));
			await until('the frame', async () => await buffered() > 1000000);
			assert.ok(await buffered() < 1100000);
			thaw();
			await until('the answer', async () => await buffered() === 0);
			await gateway.kill();
		});

	test('Host headers that are not of this machine, against DNS rebinding',
		async () => {
			const gateway = await bus.gateway({ ready: false });
			const evil = { Host: `evil.example:${gateway.port}` };
			assert.equal((await gateway.get('/metrics', evil)).status, 403);
			assert.match((await refused(gateway.port, { headers: evil }))
				.message, /403/);
			for (const host of ['localhost', '127.0.0.1:1', '[::1]:8765']) {
				assert.equal((await gateway.get('/healthz', { Host: host }))
					.status, 200);
			}
			const listed = await bus.gateway({ ready: false,
				MESSAGE_BUS_HOSTS: 'bus.example, 127.0.0.1' });
			await listed.client({ headers: { Host: 'bus.example' } });
			await refused(listed.port, { headers: { Host: 'localhost' } });
			await gateway.kill();
			await listed.kill();
		});

	test('a connection that is idle is closed, one that is not is kept',
		async () => {
			const gateway = await bus.gateway({
				MESSAGE_BUS_IDLE_TIMEOUT_SECS: '2' });
			const idle = await gateway.client();
			const busy = await gateway.client();
			const end = Date.now() + 5000;
			while (Date.now() < end) {
				await busy.call('ping');
				await sleep(200);
			}
			assert.deepEqual(idle.closed,
				{ code: 1001, reason: 'idle for too long' });
			assert.equal(busy.closed, null);
			await gateway.kill();
		});

	test('who does not answer a ping is closed; who does, or is sending, ' +
		'is kept', async () => {
		const gateway = await bus.gateway({ ready: false,
			MESSAGE_BUS_PING_SECS: '1' });
		const deaf = await silent(gateway.port);
		const answering = await gateway.client();
		const sending = await silent(gateway.port);
		let pings = 0;
		answering.socket.on('ping', () => { pings++; });
		sending.write(Buffer.from([0x81, 0xFE, 0x03, 0xE8, 0, 0, 0, 0]));
		const end = Date.now() + 6000;
		while (Date.now() < end) {
			sending.write('x');
			await sleep(200);
		}
		assert.ok(pings >= 2, `${pings} pings`);
		assert.equal(answering.closed, null);
		assert.ok(!sending.gone);
		assert.equal(deaf.received[0], 0x89, 'a ping');
		assert.ok(deaf.received.includes('no answer to a ping'));
		sending.destroy();
		deaf.destroy();
		await gateway.kill();
	});

	// knock opens connections that say nothing; "gone" is how many of them
	// the gateway closed.
	function knock(gateway, count) {
		const knocked = { gone: 0, sockets: [] };
		for (let i = 0; i < count; i++) {
			const socket = net.connect(gateway.port, '127.0.0.1');
			socket.on('error', () => {});
			socket.once('close', () => { knocked.gone++; });
			knocked.sockets.push(socket);
		}
		return knocked;
	}

	const descriptors = (gateway) =>
		fs.readdirSync(`/proc/${gateway.child.pid}/fd`).map(Number);
	const allow = (gateway, count) => run('prlimit', ['--pid',
		String(gateway.child.pid), `--nofile=${count}:1000`]);

	// calm tells that the loop does not spin while `seconds` go by.
	async function calm(gateway, seconds, step = () => {}) {
		const spent = () => {
			const [user, system] = fs.readFileSync(
				`/proc/${gateway.child.pid}/stat`, 'utf8')
				.split(') ')[1].split(' ').slice(11, 13).map(Number);
			return user + system;
		};
		const start = spent();
		const end = Date.now() + seconds * 1000;
		while (Date.now() < end) {
			await step();
			await sleep(50);
		}
		assert.ok(spent() - start < 40 * seconds, 'the loop does not spin');
	}

	// lose ends the gateway's backends, and waits until a client is served.
	async function lose(client) {
		await bus.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'message-bus-gateway'`);
		await until('an answer', async () =>
			await client.call('ping') === 'pong');
	}

	test('descriptors used up: new connections wait, others are served, and ' +
		'it goes on when there are some', async () => {
		const gateway = await bus.gateway({ HTTP_CLIENT_TIMEOUT_SECS: '120' });
		const client = await gateway.client();
		await allow(gateway, 80);
		const knocked = knock(gateway, 100);
		await until('the pause', () => gateway.event('accept_paused'));
		await calm(gateway, 2, async () =>
			assert.equal(await client.call('ping'), 'pong'));
		assert.ok(descriptors(gateway).length < 80 - 24);
		assert.equal(gateway.lines.filter(
			(line) => line.event === 'accept_paused').length, 1);
		for (const socket of knocked.sockets) socket.destroy();
		const late = await gateway.client();
		assert.equal(await late.call('ping'), 'pong');
		assert.ok((await metrics(gateway))('accept_pauses_total') >= 1);
		await gateway.kill();
	});

	test('who waits for a descriptor is not dropped when others are closed',
		async () => {
			const gateway = await bus.gateway({
				HTTP_CLIENT_TIMEOUT_SECS: '120' });
			const client = await gateway.client();
			await allow(gateway, 80);
			const knocked = knock(gateway, 100);
			await until('the pause', () => gateway.event('accept_paused'));
			for (let i = 0; i < 3; i++) {
				await lose(client);
				await calm(gateway, 2);
			}
			assert.equal(knocked.gone, 0);
			assert.ok(descriptors(gateway).length < 80 - 24);
			for (const socket of knocked.sockets) socket.destroy();
			await gateway.kill();
		});

	test('accept() that fails neither spins nor fills the log, and who waits ' +
		'is served when it may succeed', async () => {
		const gateway = await bus.gateway();
		const client = await gateway.client();
		const used = new Set(descriptors(gateway));
		let none = 0;
		while (used.has(none)) none++;
		await allow(gateway, none);
		const knocked = knock(gateway, 20);
		await until('the pause', () => gateway.event('accept_paused'));
		await calm(gateway, 2, async () =>
			assert.equal(await client.call('ping'), 'pong'));
		assert.equal(gateway.lines.filter(
			(line) => line.event === 'accept_paused').length, 1);
		assert.ok(gateway.lines.filter(
			(line) => line.event === 'libwebsockets').length < 10);
		assert.equal(knocked.gone, 0);
		await allow(gateway, 500);
		assert.equal((await gateway.get('/healthz')).status, 200);
		for (const socket of knocked.sockets) socket.destroy();
		await gateway.kill();
	});

	test('every connection of the database finds its descriptors', async () => {
		const gateway = await bus.gateway({ HTTP_CLIENT_TIMEOUT_SECS: '120',
			MESSAGE_BUS_WAIT_CONNECTIONS: '16' });
		const client = await gateway.client();
		await allow(gateway, 150);
		const knocked = knock(gateway, 150);
		await until('the pause', () => gateway.event('accept_paused'));
		await lose(client);
		// They are opened one by one, as long as claims wait.
		let enough = false;
		const claims = Array.from({ length: 16 }, async () => {
			while (!enough) {
				await client.call('claim', { channel: 'events', wait: 20 })
					.catch(() => sleep(100));
			}
		});
		await until('all connections', async () =>
			await bus.sql(`SELECT count(*) FROM pg_stat_activity
				WHERE application_name = 'message-bus-gateway'`) === '18');
		enough = true;
		for (const socket of knocked.sockets) socket.destroy();
		await gateway.kill();
		await Promise.all(claims);
	});
});

describe('processes', () => {
	test('several share one port, and one that drains leaves it to the ' +
		'others', async () => {
		const settings = { EXAI_WS_PORT: String(await freePort()),
			MESSAGE_BUS_REUSE_PORT: 'true' };
		const pair = [await bus.gateway(settings), await bus.gateway(settings)];
		await until('both to have clients', async () => {
			await pair[0].client();
			return pair.every((one) => one.event('open'));
		});
		assert.equal(await pair[1].kill('SIGTERM'), 0);
		for (let i = 0; i < 20; i++) {
			const client = await pair[0].client();
			assert.equal(await client.call('ping'), 'pong');
		}
		await pair[0].kill();
	});

	test('without that a port has one process', async () => {
		const port = String(await freePort());
		const one = await bus.gateway({ ready: false, EXAI_WS_PORT: port });
		await assert.rejects(run(program, [], { cwd: directory, env: {
			MESSAGE_BUS_ROLE: 'app', EXAI_WS_PORT: port } }),
		(error) => /could not listen/.test(error.stderr));
		await one.kill();
	});

	// manage starts a service manager, which only takes messages, and calls
	// `use` with its socket and a function that returns what it was told.
	async function manage(use) {
		const socket = path.join(directory, 'notify');
		const manager = spawn('/usr/bin/python3', ['-u', '-c', `
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(${JSON.stringify(socket)})
print("bound")
while True:
    print(repr(s.recv(4096).decode()))
`], { stdio: ['ignore', 'pipe', 'inherit'] });
		let text = '';
		manager.stdout.setEncoding('utf8').on('data', (part) => {
			text += part;
		});
		try {
			await until('the socket', () => text.includes('bound'));
			await use(socket, () => text.split('\n').slice(1, -1)
				.map((line) => line.slice(1, -1)));
		} finally {
			manager.kill('SIGKILL');
			fs.rmSync(socket, { force: true });
		}
	}

	test('the service manager is told of start, reload, life and stop', () =>
		manage(async (socket, messages) => {
			const gateway = await bus.gateway({ ready: false,
				NOTIFY_SOCKET: socket, WATCHDOG_USEC: '400000' });
			await until('signs of life', () => messages().filter(
				(one) => one === 'WATCHDOG=1').length >= 3);
			await reload(gateway);
			assert.equal(await gateway.kill('SIGTERM'), 0);
			const told = await until('the last message', () => {
				const all = messages().filter((one) =>
					one !== 'WATCHDOG=1');
				return all.length >= 4 ? all : null;
			});
			assert.equal(told.length, 4, told.join());
			assert.equal(told[0], 'READY=1');
			assert.match(told[1], /^RELOADING=1\\nMONOTONIC_USEC=\d+$/);
			assert.equal(told[2], 'READY=1');
			assert.equal(told[3], 'STOPPING=1');
		}));

	test('a watchdog that cannot be served is left alone', () =>
		manage(async (socket, messages) => {
			const gateway = await bus.gateway({ ready: false,
				NOTIFY_SOCKET: socket, WATCHDOG_USEC: '1000' });
			await reload(gateway);
			assert.equal(await gateway.kill('SIGTERM'), 0);
			await until('the last message', () =>
				messages().includes('STOPPING=1'));
			assert.ok(!messages().includes('WATCHDOG=1'));
		}));
});

describe('what is installed', () => {
	const manual = path.join(root, 'gateway', 'message-bus-gateway.8');

	test('the manual has every setting of --help, and no other', async () => {
		const { stdout } = await run(program, ['--help']);
		const help = [...stdout.matchAll(/^ {2}([A-Z][A-Z0-9_]+)$/gm)]
			.map(([, name]) => name).sort();
		const text = fs.readFileSync(manual, 'utf8');
		const page = [...text.matchAll(
			/^\.It Ev ([A-Z_]+) Ns = Ns Ar \S+$/gm)]
			.map(([, name]) => name).sort();
		assert.ok(help.length > 30);
		assert.deepEqual(page, help);
	});

	test('the manual has the ranges of --help', async () => {
		const { stdout } = await run(program, ['--help']);
		const text = fs.readFileSync(manual, 'utf8');
		const ranges = [...stdout.matchAll(
			/^ {2}([A-Z][A-Z0-9_]+)\n.*; (\d+) to (\d+)(;|$)/gm)];
		assert.ok(ranges.length > 15);
		for (const [, name, low, high] of ranges) {
			const entry = text.split(`.It Ev ${name} Ns`)[1].split('.It ')[0];
			assert.ok(entry.replace(/\n/g, ' ').includes(
				`From ${low} to ${high}`), name);
		}
	});

	test('make install puts program, manual and unit in their places',
		async () => {
			const to = path.join(directory, 'installed');
			await run('make', ['-s', '-C', path.join(root, 'gateway'),
				'install', `DESTDIR=${to}`, 'PREFIX=/opt/bus']);
			const unit = fs.readFileSync(path.join(to,
				'opt/bus/lib/systemd/system/message-bus-gateway@.service'), 'utf8');
			assert.match(unit, /^ExecStart=\/opt\/bus\/bin\/message-bus-gateway /m);
			for (const file of ['bin/message-bus-gateway',
				'share/man/man8/message-bus-gateway.8',
				'lib/systemd/system/message-bus-gateway.service']) {
				assert.ok(fs.existsSync(path.join(to, 'opt/bus', file)), file);
			}
		});

	test('systemd understands the unit', async (t) => {
		const name = 'message-bus-gateway.service';
		const unit = path.join(directory, name);
		fs.writeFileSync(unit, fs.readFileSync(path.join(root, 'gateway', name),
			'utf8').replace('/usr/local/bin/message-bus-gateway', program));
		try {
			const { stderr } = await run('systemd-analyze',
				['verify', '--man=no', unit]);
			assert.equal(stderr, '');
		} catch (error) {
			if (error.code === 'ENOENT') return t.skip('no systemd-analyze');
			throw error;
		}
	});

	test('README.md of the gateway has every setting', async () => {
		const { stdout } = await run(program, ['--help']);
		const text = fs.readFileSync(path.join(root, 'gateway', 'README.md'),
			'utf8');
		for (const [, name] of stdout.matchAll(
			/^ {2}([A-Z][A-Z0-9_]+)$/gm)) {
			assert.ok(text.includes(`\`${name}\``), name);
		}
	});
});
