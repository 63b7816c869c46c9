// admin.test.mjs
//     /healthz, /readyz and /metrics: which methods there are, and the port
//     that has nothing else.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Bus, freePort, until, WebSocket } from './bus.mjs';

const PATHS = ['/healthz', '/readyz', '/metrics'];
let bus;

before(async () => {
	bus = await Bus.start();
});
after(() => bus?.stop());

// ask sends one request and returns status, headers and body.
async function ask(port, method, path, headers = {}) {
	const request = http.request({ port, method, path, headers,
		agent: false });
	request.end();
	const [response] = await once(request, 'response');
	let body = '';
	for await (const part of response) body += part;
	return { status: response.statusCode, headers: response.headers, body };
}

describe('methods', () => {
	test('HEAD is GET without a body, OPTIONS tells what there is', async () => {
		const gateway = await bus.gateway();
		for (const path of PATHS) {
			const got = await ask(gateway.port, 'GET', path);
			const head = await ask(gateway.port, 'HEAD', path);
			assert.equal(head.status, 200);
			assert.equal(head.body, '');
			assert.equal(head.headers['content-type'],
				got.headers['content-type']);
			assert.ok(Number(head.headers['content-length']) > 0);
			const options = await ask(gateway.port, 'OPTIONS', path);
			assert.equal(options.status, 204);
			assert.equal(options.headers.allow, 'GET, HEAD, OPTIONS');
		}
		const post = await ask(gateway.port, 'POST', '/healthz');
		assert.equal(post.status, 405);
		assert.equal(post.headers.allow, 'GET, HEAD, OPTIONS');
		assert.equal((await ask(gateway.port, 'HEAD', '/none')).status, 404);
		await gateway.kill();
	});

	test('a connection goes on behind a HEAD', async () => {
		const gateway = await bus.gateway();
		const socket = net.connect(gateway.port, '127.0.0.1');
		let text = '';
		socket.setEncoding('utf8').on('data', (part) => { text += part; });
		for (const method of ['HEAD', 'OPTIONS']) {
			socket.write(`${method} /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n`);
		}
		socket.write('GET /readyz HTTP/1.1\r\nHost: localhost\r\n' +
			'Connection: close\r\n\r\n');
		await once(socket, 'close');
		assert.equal(text.match(/^HTTP\/1.1 /gm).length, 3);
		assert.equal(text.match(/\{"ready":true\}/g).length, 1);
		await gateway.kill();
	});
});

describe('the admin port', () => {
	test('has the status for any Host, and no WebSocket', async () => {
		const port = await freePort();
		const gateway = await bus.gateway({ MESSAGE_BUS_ADMIN_PORT: `${port}`,
			MESSAGE_BUS_HOSTS: 'bus.example', ready: false });
		await until('readyz', async () =>
			(await ask(port, 'GET', '/readyz')).status === 200);
		assert.equal(gateway.event('ready').admin_port, port);
		const headers = { Host: 'probe.internal' };
		for (const path of PATHS) {
			for (const method of ['GET', 'HEAD']) {
				assert.equal((await ask(port, method, path, headers)).status, 200);
				assert.equal((await ask(gateway.port, method, path,
					headers)).status, 403);
			}
		}
		const socket = new WebSocket(`ws://127.0.0.1:${port}`);
		const [error] = await once(socket, 'error');
		assert.ok(error);
		const client = await gateway.client({ headers: { Host: 'bus.example' } });
		assert.equal(await client.call('ping'), 'pong');
		await gateway.kill();
	});

	test('CONNECT is served by neither port', async () => {
		const port = await freePort();
		const gateway = await bus.gateway({ MESSAGE_BUS_ADMIN_PORT: `${port}`,
			HTTP_CLIENT_TIMEOUT_SECS: '30' });
		for (const to of [port, gateway.port]) {
			const socket = net.connect(to, '127.0.0.1').on('error', () => {});
			let closed = false;
			socket.on('close', () => { closed = true; }).resume();
			socket.write('CONNECT x HTTP/1.1\r\n\r\n');
			await until('the end', () => closed, 3);
		}
		assert.match((await gateway.get('/metrics')).text,
			/refused[a-z_]*\{reason="upgrade"\} 2/);
		await gateway.kill();
	});

	test('the clients\' port can hide them', async () => {
		const port = await freePort();
		const gateway = await bus.gateway({ MESSAGE_BUS_ADMIN_PORT: `${port}`,
			MESSAGE_BUS_PUBLIC_STATUS: 'false', ready: false });
		for (const path of PATHS) {
			const hidden = await ask(gateway.port, 'GET', path);
			assert.deepEqual([hidden.status, hidden.body],
				[404, '{"error":"not found"}\n']);
			assert.notEqual((await ask(port, 'GET', path)).status, 404);
		}
		await gateway.kill();
	});

	test('tells that the gateway stops, while others get no handshake',
		async () => {
			const port = await freePort();
			const gateway = await bus.gateway({
				MESSAGE_BUS_ADMIN_PORT: `${port}` });
			const client = await gateway.client();
			const thaw = await bus.freeze();
			const pong = client.call('ping');
			await until('the frame', async () => (await gateway.get('/healthz'))
				.body.frames_in === 1);
			gateway.child.kill('SIGTERM');
			await until('what /readyz says', async () => (await ask(port, 'GET',
				'/readyz')).body.includes('the gateway is stopping'));
			thaw();
			await pong;
			assert.equal(await gateway.exited, 0);
		});

	test('is left to the others when it is shared', async () => {
		const port = await freePort();
		const settings = { MESSAGE_BUS_ADMIN_PORT: `${port}`,
			MESSAGE_BUS_REUSE_PORT: 'true', EXAI_WS_PORT: `${await freePort()}` };
		const old = await bus.gateway(settings);
		const client = await old.client();
		const thaw = await bus.freeze();
		const pong = client.call('ping');
		await until('the frame', async () =>
			(await old.get('/healthz')).body.frames_in === 1);
		old.child.kill('SIGTERM');
		await until('the signal', () => old.event('stopping'));
		const fresh = await bus.gateway(settings);
		for (let i = 0; i < 30; i++) {
			assert.equal((await ask(port, 'GET', '/readyz')).status, 200);
		}
		thaw();
		await pong;
		assert.equal(await old.exited, 0);
		await fresh.kill();
	});

	test('a port that is taken is told', async () => {
		const server = net.createServer().listen(0, '127.0.0.1');
		await once(server, 'listening');
		await assert.rejects(bus.gateway({
			MESSAGE_BUS_ADMIN_PORT: `${server.address().port}` }),
		/could not listen/);
		server.close();
	});
});

describe('pages', () => {
	let pages, port, gateway;
	const put = (name, text) => fs.writeFileSync(path.join(pages, name), text);

	before(async () => {
		pages = path.join(bus.directory, 'pages');
		fs.mkdirSync(path.join(pages, 'part', '.git'), { recursive: true });
		put('index.html', '<p>first');
		put('part/app.js', 'let a;');
		put('part/index.html', '<p>part');
		put('.hidden', 'no');
		put('part/.git/config', 'no');
		put('odd name', 'no');
		fs.symlinkSync('/etc/hostname', path.join(pages, 'link.txt'));
		fs.symlinkSync('/etc', path.join(pages, 'etc'));
		port = await freePort();
		gateway = await bus.gateway({ MESSAGE_BUS_ADMIN_PORT: `${port}`,
			MESSAGE_BUS_PAGES: pages });
	});
	after(() => gateway?.kill());

	test('are regular files below the directory, on the admin port', async () => {
		for (const [target, type, body] of [
			['/ui/', 'text/html; charset=utf-8', '<p>first'],
			['/ui/index.html', 'text/html; charset=utf-8', '<p>first'],
			['/ui/part/', 'text/html; charset=utf-8', '<p>part'],
			['/ui/part/app.js', 'text/javascript; charset=utf-8', 'let a;']]) {
			const got = await ask(port, 'GET', target);
			assert.deepEqual([got.status, got.headers['content-type'], got.body],
				[200, type, body], target);
			assert.equal(got.headers['x-content-type-options'], 'nosniff');
			assert.equal((await ask(gateway.port, 'GET', target)).status, 404);
		}
		for (const target of ['/ui', '/ui/part', '/ui/.hidden', '/ui/link.txt',
			'/ui/part/.git/config', '/ui/odd%20name', '/ui/etc/hostname',
			'/ui/../../etc/hostname', '/ui/%2e%2e/x', '/ui/none']) {
			assert.equal((await ask(port, 'GET', target)).status, 404, target);
		}
	});

	test('are read again at SIGHUP, all or none', async () => {
		const renewed = async () => {
			const count = gateway.lines.filter((line) =>
				line.event === 'reloaded').length;
			gateway.child.kill('SIGHUP');
			await until('the reload', () => gateway.lines.filter((line) =>
				line.event === 'reloaded').length > count);
		};
		const shown = async () => (await ask(port, 'GET', '/ui/')).body;

		put('index.html', '<p>second');
		assert.equal(await shown(), '<p>first');
		await renewed();
		assert.equal(await shown(), '<p>second');
		put('index.html', '<p>third');
		put('large', Buffer.alloc(8 * 1024 * 1024));
		await renewed();
		assert.equal(await shown(), '<p>second');
		assert.match(gateway.event('reload').detail, /MESSAGE_BUS_PAGES: /);
		assert.equal(gateway.event('reloaded').detail,
			'the pages were not changed');
		fs.rmSync(path.join(pages, 'large'));
		for (let i = 0; i < 253; i++) put(`file${i}`, '');
		await renewed();
		assert.equal(await shown(), '<p>third');
		put('one-more', '');
		put('index.html', '<p>fourth');
		await renewed();
		assert.equal(await shown(), '<p>third');
		assert.match(gateway.event('reload').detail, /over 256 files/);
	});
});
