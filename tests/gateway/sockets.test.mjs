// sockets.test.mjs
//     What the gateway does with sockets: handshakes, fragments, limits,
//     clients that do not behave, and its own end.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { Bus, fails, random, sha256, sleep, until } from './bus.mjs';

let bus, gateway;

before(async () => {
	bus = await Bus.start();
	gateway = await bus.gateway();
});

after(() => bus.stop());

// exchange sends lines over TCP and returns all that comes back.
async function exchange(text, port = gateway.port) {
	const socket = net.connect(port, '127.0.0.1');
	let answer = '';
	socket.on('data', (part) => { answer += part.toString('latin1'); });
	socket.on('error', () => {});
	await once(socket, 'connect');
	socket.write(text);
	const close = once(socket, 'close');
	await until('an answer', () => answer !== '' || socket.destroyed);
	if (!/^HTTP\/1.1 (101|405)/.test(answer)) await close;
	socket.destroy();
	return answer;
}

function handshake(headers) {
	return ['GET / HTTP/1.1', 'Host: localhost', 'Connection: Upgrade',
		'Sec-WebSocket-Version: 13',
		'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', ...headers, '', '']
		.join('\r\n');
}

// frame returns a masked WebSocket frame.
function frame(opcode, final, bytes, declared = bytes.length) {
	const head = Buffer.alloc(opcode < 8 ? 14 : 6);
	head[0] = (final ? 0x80 : 0) | opcode;
	if (opcode >= 8) {
		head[1] = 0x80 | declared;
		return Buffer.concat([head, bytes]);
	}
	head[1] = 0x80 | 127;
	head.writeBigUInt64BE(BigInt(declared), 2);
	return Buffer.concat([head, bytes]);	// the mask is zero
}

// bare opens a WebSocket and returns the TCP socket under it.
async function bare(port = gateway.port) {
	const socket = net.connect(port, '127.0.0.1');
	socket.received = Buffer.alloc(0);
	socket.on('data', (part) => {
		socket.received = Buffer.concat([socket.received, part]);
	});
	socket.on('error', () => {});
	socket.on('close', () => { socket.gone = true; });
	socket.write(handshake(['Upgrade: websocket']));
	await until('101', () => socket.received.includes('\r\n\r\n'));
	assert.match(socket.received.toString('latin1'), /^HTTP\/1.1 101/);
	socket.received = Buffer.alloc(0);
	return socket;
}

// closeCode returns the code of the close frame that a socket received last.
function closeCode(socket) {
	const at = socket.received.lastIndexOf(0x88);
	return at < 0 ? 0 : socket.received.readUInt16BE(at + 2);
}

const rpc = (id, method, params = {}) =>
	Buffer.from(JSON.stringify({ jsonrpc: '2.0', id, method, params }));

describe('handshake', () => {
	test('no protocol name is demanded', async () => {
		const client = await gateway.client();
		assert.equal(await client.call('ping'), 'pong');
		await client.close();
	});

	test('the upgrade header may have any case', async () => {
		assert.match(await exchange(handshake(['Upgrade: WebSocket'])),
			/^HTTP\/1.1 101/);
	});

	for (const upgrade of ['h2c', 'H2C', 'websocket, h2c', 'h2c, websocket',
		'TLS/1.0', 'h2c\r\nUpgrade: websocket',
		'websocket\r\nUpgrade: h2c']) {
		test(`an upgrade to ${JSON.stringify(upgrade)} is refused`, async () => {
			const answer = await exchange(handshake([`Upgrade: ${upgrade}`,
				'HTTP2-Settings: AAMAAABkAAQAAP__']));
			assert.doesNotMatch(answer, /^HTTP\/1.1 101/);
			assert.doesNotMatch(answer, /^HTTP\/1.. 2/);
			assert.equal((await gateway.get('/healthz')).status, 200);
		});
	}

	test('HTTP/2 with prior knowledge is not spoken', async () => {
		const answer = await exchange('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' +
			'\0\0\0\x04\0\0\0\0\0');
		assert.doesNotMatch(answer, /^\0\0/);
		assert.equal((await gateway.get('/healthz')).status, 200);
	});

	test('a page of an origin that is not listed is refused', async () => {
		const other = await bus.gateway({ MESSAGE_BUS_ORIGINS:
			'https://a.example, https://b.example' });
		const origin = (name) => exchange(handshake(['Upgrade: websocket',
			`Origin: ${name}`]), other.port);
		assert.match(await origin('https://evil.example'), /^HTTP\/1.. 403/);
		assert.match(await origin('https://b.example'), /^HTTP\/1.1 101/);
	});

	test('SUPABASE_KEY must be presented as apikey, if it is set',
		async () => {
			const other = await bus.gateway({ SUPABASE_KEY: 'k3y' });
			const ask = (headers, path = '/') => exchange(
				handshake(['Upgrade: websocket', ...headers])
					.replace('GET / ', `GET ${path} `), other.port);
			assert.match(await ask([]), /^HTTP\/1.. 401/);
			assert.match(await ask(['apikey: wrong']), /^HTTP\/1.. 401/);
			assert.match(await ask(['apikey: k3y']), /^HTTP\/1.1 101/);
			assert.match(await ask([], '/?apikey=k3y'), /^HTTP\/1.1 101/);
			assert.match(await ask([], '/?apikey=k3y1'), /^HTTP\/1.. 401/);
			assert.ok(!JSON.stringify(other.lines).includes('k3y'));
		});

	test('a handshake that is not finished in time is ended', async () => {
		const other = await bus.gateway({ HTTP_CLIENT_TIMEOUT_SECS: '1' });
		const socket = net.connect(other.port, '127.0.0.1');
		socket.on('error', () => {});
		socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n');
		await once(socket, 'close');
		const client = await other.client();
		await sleep(1500);
		assert.equal(await client.call('ping'), 'pong');
	});

	test('one connection too many is refused, and those there go on',
		async () => {
			const other = await bus.gateway({ MESSAGE_BUS_MAX_CONNECTIONS: '2' });
			const clients = [await other.client(), await other.client()];
			assert.match(await exchange(handshake(['Upgrade: websocket']),
				other.port), /^HTTP\/1.. 503/);
			assert.equal(await clients[0].call('ping'), 'pong');
			await clients[1].close();
			await until('room', () => other.client());
		});
});

describe('messages', () => {
	test('fragments are put together, with a ping between them', async () => {
		const socket = await bare();
		const text = rpc(1, 'ping');
		socket.write(frame(1, false, text.subarray(0, 5)));
		socket.write(frame(9, true, Buffer.from('hello')));
		socket.write(frame(0, false, Buffer.alloc(0)));
		await until('the pong', () => socket.received.includes('hello'));
		socket.write(frame(0, true, text.subarray(5)));
		await until('the answer', () => socket.received.includes('"pong"'));
		socket.destroy();
	});

	test('a large message in fragments comes back whole', async () => {
		const socket = await bare();
		const body = random(300000);
		const message = Buffer.concat([rpc(1, 'publish', { channel: 'events' }),
			Buffer.from('\n'), body]);
		for (let at = 0; at < message.length; at += 1000) {
			socket.write(frame(at === 0 ? 2 : 0, at + 1000 >= message.length,
				message.subarray(at, at + 1000)));
		}
		await until('the answer', () => socket.received.includes('"result"'));
		const id = /"result":(\d+)/.exec(socket.received)[1];
		assert.equal(await bus.sql(
			`SELECT encode(sha256, 'hex') FROM message_bus.get(${id})`),
		sha256(body));
		socket.destroy();
	});

	test('a message that comes byte by byte is understood', async () => {
		const socket = await bare();
		socket.setNoDelay(true);
		for (const byte of frame(1, true, rpc(1, 'ping'))) {
			socket.write(Buffer.from([byte]));
			await sleep(1);
		}
		await until('the answer', () => socket.received.includes('"pong"'));
		socket.destroy();
	});

	test('invalid UTF-8 in text is closed with 1007', async () => {
		const socket = await bare();
		socket.write(frame(1, true, Buffer.from('{"id":"\xff"}', 'latin1')));
		await until('the close', () => closeCode(socket) === 1007);
		socket.destroy();
	});

	test('UTF-8 that is split between fragments is valid', async () => {
		const socket = await bare();
		const text = Buffer.from('{"jsonrpc":"2.0","id":"é","method":"ping"}');
		const at = text.indexOf(0xa9);
		socket.write(frame(1, false, text.subarray(0, at)));
		socket.write(frame(0, true, text.subarray(at)));
		await until('the answer', () => socket.received.includes('"pong"'));
		socket.destroy();
	});

	test('a socket closed in the middle of a message is logged and counted',
		async () => {
			const before = (await gateway.get('/healthz')).body.frames_cut_off;
			const socket = await bare();
			socket.write(frame(2, true, random(1000), 5000000));
			await sleep(100);
			socket.destroy();
			await until('the count', async () => (await gateway.get('/healthz'))
				.body.frames_cut_off === before + 1);
			assert.ok(gateway.event('cut_off'));
			const health = (await gateway.get('/healthz')).body;
			assert.equal(health.buffered_bytes, 0);
		});

	test('a bad opcode is closed with 1002', async () => {
		const socket = await bare();
		socket.write(frame(5, true, Buffer.from('x')));
		await until('the close', () => closeCode(socket) === 1002);
		socket.destroy();
	});

	test('random bytes on a WebSocket harm nobody', async () => {
		const client = await gateway.client();
		for (let i = 0; i < 50; i++) {
			const socket = await bare();
			socket.write(random(1 + i * 20));
			await sleep(2);
			socket.destroy();
		}
		assert.equal(await client.call('ping'), 'pong');
	});
});

describe('limits', () => {
	test('a frame over WS_MAX_MSG_BYTES is answered by its id, then 1009',
		async () => {
			const small = await bus.gateway({ WS_MAX_MSG_BYTES: '100000' });
			const client = await small.client();
			const reply = fails(client.call('publish', { channel: 'events',
				payload: 'x'.repeat(5000000) }));
			const error = await reply;
			assert.equal(error.code, -32004);
			assert.match(error.data.detail, /100000.*WS_MAX_MSG_BYTES/);
			assert.equal((await client.end()).code, 1009);
		});

	test('so is one that is put together from fragments', async () => {
		const small = await bus.gateway({ WS_MAX_MSG_BYTES: '100000' });
		const socket = await bare(small.port);
		const text = rpc(77, 'publish', { payload: 'x'.repeat(200000) });
		for (let at = 0; at < text.length; at += 30000) {
			socket.write(frame(at === 0 ? 1 : 0, false,
				text.subarray(at, at + 30000)));
		}
		await until('the answer', () => socket.received.includes('"id":77'));
		assert.ok(socket.received.includes('-32004'));
		await until('the close', () => closeCode(socket) === 1009);
		socket.destroy();
	});

	test('a frame of exactly WS_MAX_MSG_BYTES is taken', async () => {
		const small = await bus.gateway({ WS_MAX_MSG_BYTES: '100000' });
		const client = await small.client();
		const head = '{"jsonrpc":"2.0","id":"exact","method":"ping"';
		const reply = client.expect('exact');
		client.raw(head + ' '.repeat(100000 - head.length - 1) + '}');
		assert.equal(await reply, 'pong');
	});

	test('a length of 2^62 is refused at once', async () => {
		const socket = await bare();
		socket.write(frame(1, true, Buffer.from('{"id":5,'), 2n ** 62n));
		await until('the answer', () => socket.received.includes('-32004'));
		await until('the close', () => closeCode(socket) === 1009);
		socket.destroy();
	});

	test('with MESSAGE_BUS_MAX_IN_FLIGHT frames unanswered a connection is ' +
		'not read from: its sender has to wait', async () => {
		const few = await bus.gateway({ MESSAGE_BUS_MAX_IN_FLIGHT: '3' });
		const client = await few.client();
		const other = await few.client();
		client.socket._socket.cork();
		const pings = Array.from({ length: 50 }, () => client.call('ping'));
		client.socket._socket.uncork();
		for (const pong of await Promise.all(pings)) assert.equal(pong, 'pong');
		const resume = await bus.freeze();
		const count = 3000;
		let calls;
		try {
			calls = Array.from({ length: count }, () => client.call('ping',
				{ pad: 'x'.repeat(8000) }).catch((error) => error.code));
			const late = other.call('ping');
			await until('three frames', async () =>
				(await few.get('/healthz')).body.frames_in === 50 + 3 + 1);
			await sleep(300);
			const health = (await few.get('/healthz')).body;
			assert.equal(health.frames_in, 50 + 3 + 1);
			assert.ok(health.buffered_bytes < 100000);
			assert.ok(client.socket.bufferedAmount > 10e6);
			assert.equal(health.frames_refused, 0);
			resume();
			assert.equal(await late, 'pong');
		} finally {
			resume();
		}
		const answers = await Promise.all(calls);
		assert.ok(answers.every((one) => one === answers[0] && one !== -32011));
		assert.equal(answers.length, count);
	});

	test('a message whose middle came while it was not read from has its time',
		async () => {
			const few = await bus.gateway({ MESSAGE_BUS_MAX_IN_FLIGHT: '1',
				TOOL_TIMEOUT_SECS: '4' });
			const socket = await bare(few.port);
			const text = rpc(2, 'ping');
			const resume = await bus.freeze();
			try {
				socket.write(Buffer.concat([frame(1, true, rpc(1, 'ping')),
					frame(1, false, text.subarray(0, 5))]));
				await until('the frame', async () =>
					(await few.get('/healthz')).body.frames_in === 1);
				await sleep(3000);
			} finally {
				resume();
			}
			await until('the answer', () => socket.received.includes('"id":1'));
			await sleep(2000);
			socket.write(frame(0, true, text.subarray(5)));
			await until('the next', () => socket.received.includes('"id":2'));
			socket.destroy();
		});

	test('frames of all connections together are bounded', async () => {
		const tight = await bus.gateway({ MESSAGE_BUS_MAX_BUFFERED_MB: '4',
			WS_MAX_MSG_BYTES: '2000000' });
		const sockets = await Promise.all([1, 2, 3].map(() =>
			bare(tight.port)));
		for (const socket of sockets) {
			socket.write(frame(1, true, Buffer.concat([
				Buffer.from('{"id":9,"x":"'), Buffer.alloc(1500000, 'x')]),
			1900000));
		}
		await until('a refusal', () => sockets.some((socket) =>
			socket.received.includes('-32011')));
		for (const socket of sockets) socket.destroy();
		await until('the memory back', async () => (await tight
			.get('/healthz')).body.buffered_bytes === 0);
		const client = await tight.client();
		assert.equal(await client.call('ping'), 'pong');
	});

	test('a client that does not read is closed with 1013, others go on',
		async () => {
			const strict = await bus.gateway({
				MESSAGE_BUS_SEND_TIMEOUT_SECS: '1' });
			const { frame: published } = await (await gateway.client())
				.callBinary('publish', { channel: 'events' }, random(2e7));
			const lazy = await strict.client();
			const other = await strict.client();
			lazy.socket.pause();
			for (let i = 0; i < 8; i++) {
				lazy.call('get', { id: published.result }).catch(() => {});
			}
			await until('the end', () => strict.event('close',
				(line) => line.code === 1013));
			assert.equal(await other.call('ping'), 'pong');
			assert.equal((await strict.get('/healthz')).body.connections_open, 1);
		});

	test('a client that asks for a lot and reads it slowly gets all of it',
		async () => {
			const small = await bus.gateway({ WS_MAX_MSG_BYTES: '1000000' });
			const client = await small.client();
			const body = random(900000);
			const { frame: published } = await client.callBinary('publish',
				{ channel: 'events' }, body);
			const calls = Array.from({ length: 30 }, () => client.callBinary(
				'get', { id: published.result }));
			client.socket.pause();
			await sleep(1000);
			client.socket.resume();
			for (const got of await Promise.all(calls)) {
				assert.equal(sha256(got.body), sha256(body));
			}
		});

	test('a message that is not finished in time is closed with 1008',
		async () => {
			const hasty = await bus.gateway({ TOOL_TIMEOUT_SECS: '1' });
			const socket = await bare(hasty.port);
			socket.write(frame(1, true, Buffer.from('{'), 100));
			await until('the close', () => closeCode(socket) === 1008);
			socket.destroy();
		});
});

describe('HTTP', () => {
	test('/healthz counts', async () => {
		const { status, body } = await gateway.get('/healthz');
		assert.equal(status, 200);
		assert.equal(body.status, 'ok');
		assert.ok(body.frames_in > 0 && body.batches > 0);
		assert.equal(body.replies_missing, 0);
	});

	test('/readyz is 200 when frames can be relayed', async () => {
		assert.deepEqual((await gateway.get('/readyz')).body, { ready: true });
	});

	test('another path is 404, another method 405', async () => {
		assert.equal((await gateway.get('/')).status, 404);
		assert.match(await exchange('POST /healthz HTTP/1.1\r\nHost: localhost\r\n' +
			'Content-Length: 1\r\n\r\nx'), /^HTTP\/1.1 405/);
	});
});

describe('SIGTERM', () => {
	test('what is in flight is answered, then 1001 and status 0', async () => {
		const ending = await bus.gateway();
		const client = await ending.client();
		const idle = await ending.client();
		await bus.sql(`SELECT message_bus.create_channel('slow');
			SELECT message_bus.grant_channel('slow', 'app', 'all')`);
		const slow = client.callBinary('publish', { channel: 'slow' },
			random(2e7));
		await until('the body', async () => (await ending.get('/healthz'))
			.body.buffered_bytes >= 2e7);
		ending.child.kill('SIGTERM');
		const { frame: published } = await slow;
		assert.ok(published.result > 0);
		assert.equal((await client.end()).code, 1001);
		assert.equal((await idle.end()).code, 1001);
		assert.equal(await ending.exited, 0);
		assert.ok(ending.event('stopped'));
		assert.equal(await bus.sql(
			`SELECT size FROM message_bus.get(${published.result})`), '20000000');
	});

	test('while it waits, frames are refused with -32011 and handshakes ' +
		'with 503, and a second signal ends the wait', async () => {
		const ending = await bus.gateway();
		const client = await ending.client();
		await client.call('ping');
		const resume = await bus.freeze();
		const slow = fails(client.call('ping'));
		await until('the frame', async () =>
			(await ending.get('/healthz')).body.frames_in === 2);
		ending.child.kill('SIGTERM');
		await until('the signal', () => ending.event('stopping'));
		const error = await fails(client.call('ping'));
		assert.equal(error.code, -32011);
		assert.match(error.message, /stopping/);
		assert.match(await exchange(handshake(['Upgrade: websocket']),
			ending.port), /^HTTP\/1.. 503/);
		assert.match((await ending.get('/readyz')).body.reasons.join(),
			/stopping/);
		ending.child.kill('SIGTERM');
		assert.equal((await slow).code, -32050);
		assert.equal((await client.end()).code, 1001);
		assert.equal(await ending.exited, 0);
		resume();
	});

	test('an idle gateway stops at once', async () => {
		const ending = await bus.gateway();
		const start = Date.now();
		assert.equal(await ending.kill('SIGTERM'), 0);
		assert.ok(Date.now() - start < 3000);
	});
});
