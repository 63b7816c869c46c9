// clients.test.mjs
//     Clients that others wrote, as their users use them: each publishes,
//     reads back byte for byte, and meets an error as an error of its own
//     kind.
//
// The npm packages are those of clients/package-lock.json; tests/run installs
// them. A client that is missing fails its tests.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { Bus, random, root, sha256, until } from './bus.mjs';

const run = promisify(execFile);
const here = path.join(root, 'tests', 'gateway', 'clients');
const require = createRequire(path.join(here, 'package.json'));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
let WebSocket;			// of npm's ws, not of Debian's

const NOT_FOUND = -32003;

// What JSON and UTF-8 have that goes wrong most easily, and 200 kB.
const payload = { text: 'é€😀 "quoted" \\ \u0000 \u2028 </script>', empty: {},
	list: [1, -0.5, 1e21, true, null, ''], long: 'ß'.repeat(100000) };

let bus, gateway, url;

before(async () => {
	WebSocket = require('ws');
	bus = await Bus.start();
	gateway = await bus.gateway();
	url = `ws://127.0.0.1:${gateway.port}/`;
});

after(() => bus.stop());

// stored tells that the message is what JSON.stringify makes of the payload.
async function stored(id) {
	const text = JSON.stringify(payload);
	assert.equal(await bus.sql(`SELECT encode(sha256, 'hex'), size
		FROM message_bus.get(${id})`),
	`${sha256(text)}|${Buffer.byteLength(text)}`);
}

// exercise is what each client of JSON-RPC does by its call(method, params).
async function exercise(call) {
	const id = await call('publish', { channel: 'events', payload,
		headers: { from: 'clients.test.mjs' } });
	await stored(id);
	const got = await call('get', { id });
	assert.deepEqual(got.payload, payload);
	assert.equal(got.sha256, sha256(JSON.stringify(payload)));
	const ids = await Promise.all(Array.from({ length: 20 }, (_, i) =>
		call('publish', { channel: 'events', payload: i })));
	assert.equal(new Set(ids).size, 20);
	const all = await Promise.all(ids.map((one) => call('get', { id: one })));
	assert.deepEqual(all.map((one) => one.payload), [...ids.keys()]);
	return id;
}

// refusal returns what a call to publish to a channel that is not there is
// rejected with.
async function refusal(call) {
	try {
		await call('publish', { channel: 'nowhere', payload: 1 });
	} catch (error) {
		return error;
	}
	throw new Error('it did not fail');
}

describe('ws', () => {
	let socket;

	before(async () => {
		socket = new WebSocket(url);		// it offers permessage-deflate
		await once(socket, 'open');
	});

	after(() => socket.terminate());

	async function exchange(data) {
		socket.send(data);
		const [answer, binary] = await once(socket, 'message');
		return { answer, binary };
	}

	test('text frames', async () => {
		const text = JSON.stringify(payload);
		const { answer } = await exchange('{"jsonrpc":"2.0","id":1,"method":' +
			`"publish","params":{"channel":"events","payload":${text}}}`);
		const id = JSON.parse(answer).result;
		await stored(id);
		const got = await exchange(JSON.stringify({ jsonrpc: '2.0', id: 2,
			method: 'get', params: { id } }));
		assert.equal(got.binary, false);
		assert.ok(got.answer.toString().includes(`"payload":${text}`));
	});

	test('binary frames', async () => {
		const body = random(500000);
		const { answer } = await exchange(Buffer.concat([Buffer.from(
			'{"jsonrpc":"2.0","id":1,"method":"publish",' +
			'"params":{"channel":"events"}}\n'), body]));
		const got = await exchange(Buffer.from(JSON.stringify({
			jsonrpc: '2.0', id: 2, method: 'get',
			params: { id: JSON.parse(answer).result } }) + '\n'));
		assert.equal(got.binary, true);
		assert.ok(got.answer.subarray(got.answer.indexOf(10) + 1)
			.equals(body));
	});

	test('an error, and a close', async () => {
		const { answer } = await exchange(JSON.stringify({ jsonrpc: '2.0',
			id: 'e', method: 'publish', params: { channel: 'nowhere',
				payload: 1 } }));
		const { id, error } = JSON.parse(answer);
		assert.equal(id, 'e');
		assert.equal(error.code, NOT_FOUND);
		assert.equal(error.data.sqlstate, '42P01');
		socket.close(1000, 'done');
		const [code, reason] = await once(socket, 'close');
		assert.equal(code, 1000);
		assert.equal(reason.toString(), 'done');
	});
});

describe('rpc-websockets', () => {
	let client;

	before(async () => {
		const { Client } = await load('rpc-websockets');
		client = new Client(url, { reconnect: false });
		await once(client, 'open');
	});

	after(() => client.close());

	test('publishes and reads back', () =>
		exercise((method, params) => client.call(method, params)));

	test('rejects with the error object', async () => {
		const error = await refusal((method, params) =>
			client.call(method, params));
		assert.equal(error.code, NOT_FOUND);
		assert.equal(error.data.sqlstate, '42P01');
	});
});

describe('json-rpc-2.0', () => {
	let socket, client, exception;

	before(async () => {
		const { JSONRPCClient, JSONRPCErrorException } =
			await load('json-rpc-2.0');
		exception = JSONRPCErrorException;
		socket = new WebSocket(url);
		client = new JSONRPCClient((request) =>
			socket.send(JSON.stringify(request)));
		socket.on('message', (data) => client.receive(JSON.parse(data)));
		await once(socket, 'open');
	});

	after(() => socket.terminate());

	test('publishes and reads back', () =>
		exercise((method, params) => client.request(method, params)));

	test('a batch of it is answered as one', async () => {
		const answers = await client.requestAdvanced([1, 2, 3].map((id) => ({
			jsonrpc: '2.0', id: `b${id}`, method: 'ping', params: {} })));
		assert.deepEqual(answers.map((one) => one.result),
			['pong', 'pong', 'pong']);
	});

	test('throws its JSONRPCErrorException', async () => {
		const error = await refusal((method, params) =>
			client.request(method, params));
		assert.ok(error instanceof exception);
		assert.equal(error.code, NOT_FOUND);
		assert.equal(error.data.sqlstate, '42P01');
	});
});

describe('@open-rpc/client-js', () => {
	let client, failure;

	before(async () => {
		const openRpc = await load('@open-rpc/client-js');
		failure = openRpc.JSONRPCError;
		client = new openRpc.Client(new openRpc.RequestManager(
			[new openRpc.WebSocketTransport(url)]));
	});

	after(() => client.close());

	test('publishes and reads back', () =>
		exercise((method, params) => client.request({ method, params })));

	test('throws its JSONRPCError', async () => {
		const error = await refusal((method, params) =>
			client.request({ method, params }));
		assert.ok(error instanceof failure);
		assert.equal(error.code, NOT_FOUND);
		assert.equal(error.data.sqlstate, '42P01');
	});
});

describe('vscode-ws-jsonrpc', () => {
	let socket, connection, failure;

	before(async () => {
		const { createWebSocketConnection, toSocket } =
			await load('vscode-ws-jsonrpc');
		failure = createRequire(require.resolve('vscode-ws-jsonrpc'))(
			'vscode-jsonrpc').ResponseError;
		socket = new WebSocket(url);
		await once(socket, 'open');
		connection = createWebSocketConnection(toSocket(socket), {
			error: assert.fail, warn() {}, info() {}, log() {} });
		connection.listen();
	});

	after(() => {
		connection.dispose();
		socket.terminate();
	});

	test('publishes and reads back', () =>
		exercise((method, params) => connection.sendRequest(method, params)));

	test('throws its ResponseError', async () => {
		const error = await refusal((method, params) =>
			connection.sendRequest(method, params));
		assert.ok(error instanceof failure);
		assert.equal(error.code, NOT_FOUND);
		assert.equal(error.data.sqlstate, '42P01');
	});
});

test('Debian\'s python3-websockets', async () => {
	const client = run('/usr/bin/python3', [path.join(here, 'client.py'), url]);
	client.child.stdin.end(JSON.stringify(payload));
	const { id, error } = JSON.parse((await client).stdout);
	await stored(id);
	assert.deepEqual(error, { code: NOT_FOUND, sqlstate: '42P01' });
});

describe('a page in Chromium', () => {
	let server, origin, profile, report;

	before(async () => {
		server = http.createServer((request, response) => {
			if (request.method === 'POST') {
				let text = '';
				request.on('data', (part) => { text += part; });
				request.on('end', () => {
					report = JSON.parse(text);
					response.end();
				});
				return;
			}
			response.setHeader('Content-Type', 'text/html; charset=utf-8');
			response.end(fs.readFileSync(path.join(here, 'page.html')));
		}).listen(0, '127.0.0.1');
		await once(server, 'listening');
		origin = `http://127.0.0.1:${server.address().port}`;
		profile = fs.mkdtempSync(path.join(os.tmpdir(), 'mbc-'));
	});

	after(() => {
		server.close();
		server.closeAllConnections();
		fs.rmSync(profile, { recursive: true, force: true });
	});

	// visit opens the page, which is told the gateway's port, and returns
	// what it reports.
	async function visit(port) {
		const browser = spawn('chromium', ['--headless', '--no-sandbox',
			'--disable-gpu', '--disable-quic', '--no-first-run',
			'--disable-background-networking', '--disable-component-update',
			'--disable-sync', '--disable-dev-shm-usage',
			`--user-data-dir=${profile}`, '--remote-debugging-port=0',
			`${origin}/?port=${port}`],
		{ stdio: 'ignore', cwd: profile, detached: true });
		const exited = once(browser, 'exit');
		report = null;
		try {
			return await until('the report', () => report, 60);
		} finally {
			process.kill(-browser.pid, 'SIGTERM');
			await exited;
		}
	}

	test('publishes, reads back, in text and binary, and sees an error',
		async () => {
			const welcoming = await bus.gateway({ MESSAGE_BUS_ORIGINS: origin });
			const { failure, same, text, bytes, error } =
				await visit(welcoming.port);
			assert.equal(failure, undefined);
			assert.ok(same);
			assert.equal(await bus.sql(`SELECT encode(sha256, 'hex')
				FROM message_bus.get(${text.id})`), text.sha256);
			assert.equal(await bus.sql(`SELECT encode(sha256, 'hex'), size
				FROM message_bus.get(${bytes.id})`), `${bytes.sha256}|300000`);
			assert.deepEqual(error, { name: 'BusError', code: NOT_FOUND,
				sqlstate: '42P01' });
		});

	test('is refused if its origin is not listed', async () => {
		const refusing = await bus.gateway(
			{ MESSAGE_BUS_ORIGINS: 'http://elsewhere.example' });
		const { failure } = await visit(refusing.port);
		assert.match(failure, /closed with 1006/);
		assert.ok(refusing.event('handshake_refused', (line) =>
			/origin/.test(line.detail)));
	});
});
