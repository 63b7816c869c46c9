// rfc6455.test.mjs
//     RFC 6455 from its text: a section of the RFC is named where a test
//     follows one. What the gateway does otherwise is tested as it is, below
//     "beside the RFC", and told in gateway/net/README.md.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Bus, random, sha256, sleep, until } from './bus.mjs';
import { BINARY, CLOSE, CONTINUATION, PING, PONG, Raw, TEXT, accept, close,
	frame, handshake, pieces, rpc } from './raw.mjs';

let bus, gateway;

before(async () => {
	bus = await Bus.start();
	gateway = await bus.gateway();
});

after(() => bus.stop());

const open = (changes) => Raw.open(gateway.port, changes);

// served shakes hands on a new connection and returns the answer's status, 0
// if the connection is closed without an answer.
async function served(changes) {
	const raw = new Raw(gateway.port);
	raw.write(typeof changes === 'string' ? changes : handshake(changes));
	await raw.answered();
	raw.destroy();
	return raw.status();
}

// closedWith sends bytes on a new connection, and returns the code that the
// gateway closes it with.
async function closedWith(...parts) {
	const raw = await open();
	raw.write(...parts);
	const code = await raw.closeCode();
	raw.destroy();
	return code;
}

// answers sends bytes on a new connection, which must be a ping of JSON-RPC.
async function answers(...parts) {
	const raw = await open();
	raw.write(...parts);
	assert.equal(JSON.parse(await raw.message()).result, 'pong');
	raw.destroy();
	return raw;
}

describe('opening handshake (section 4.2)', () => {
	test('the answer is 101 with the accept of the key, and no extension',
		async () => {
			const key = random(16).toString('base64');
			const { head } = await open({ 'Sec-WebSocket-Key': key,
				'Sec-WebSocket-Extensions':
					'permessage-deflate; client_max_window_bits' });
			const headers = new Map(head.split('\r\n').slice(1)
				.map((line) => line.split(': '))
				.map(([name, value]) => [name.toLowerCase(), value]));
			assert.equal(headers.get('upgrade').toLowerCase(), 'websocket');
			assert.equal(headers.get('connection').toLowerCase(), 'upgrade');
			assert.equal(headers.get('sec-websocket-accept'), accept(key));
			assert.ok(!headers.has('sec-websocket-extensions'));
			assert.ok(!headers.has('sec-websocket-protocol'));
		});

	test('the example of section 1.3', () => {
		assert.equal(accept('dGhlIHNhbXBsZSBub25jZQ=='),
			's3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
	});

	for (const [name, changes] of Object.entries({
		'Connection is a list': { Connection: 'keep-alive, Upgrade' },
		'Connection and Upgrade are in other letters':
			{ Connection: 'uPGRADE', Upgrade: 'WEBSOCKET' },
		'names of headers are in lower case': {
			'Sec-WebSocket-Key': null, 'Sec-WebSocket-Version': null,
			'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
			'sec-websocket-version': '13' },
		'the path is any': { line: 'GET /a/b?c=d HTTP/1.1' },
	})) {
		test(`${name}: taken`, async () => {
			assert.equal(await served(changes), 101);
		});
	}

	for (const [name, changes] of Object.entries({
		'there is no Host': { Host: null },
		'there is no Connection': { Connection: null },
		'Connection does not hold Upgrade': { Connection: 'keep-alive' },
		'Connection holds a longer word': { Connection: 'Upgraded' },
		'there is no Upgrade': { Upgrade: null },
		'Upgrade is something else': { Upgrade: 'websockets' },
		'there is no key': { 'Sec-WebSocket-Key': null },
		'the key is empty': { 'Sec-WebSocket-Key': '' },
		'the key is of 3 bytes': { 'Sec-WebSocket-Key': 'YWJj' },
		'the key is of 17 bytes': { 'Sec-WebSocket-Key':
			Buffer.alloc(17).toString('base64') },
		'the key is not base64': { 'Sec-WebSocket-Key':
			'dGhlIHNhbXBsZSBub25jZ!==' },
		'the key is long': { 'Sec-WebSocket-Key': 'YWJj'.repeat(40) },
		'the method is POST': { line: 'POST / HTTP/1.1' },
		'the method is PUT': { line: 'PUT / HTTP/1.1' },
		'HTTP is 1.0': { line: 'GET / HTTP/1.0' },
		'a header is longer than 8 KiB': { 'X-Long': 'x'.repeat(9000) },
	})) {
		test(`${name}: refused`, async () => {
			const status = await served(changes);
			assert.ok(status === 0 || status >= 400, String(status));
		});
	}

	for (const version of [null, '', '0', '8', '12', '14', '013', '13x',
		'-1', '256', '13, 8']) {
		test(`version ${version}: 426, which names 13 (section 4.4)`,
			async () => {
				const raw = new Raw(gateway.port);
				raw.write(handshake({ 'Sec-WebSocket-Version': version }));
				await raw.answered();
				assert.equal(raw.status(), 426);
				assert.match(raw.head, /^sec-websocket-version: 13\r$/mi);
				raw.destroy();
			});
	}

	test('a subprotocol that is offered and known is the answer\'s',
		async () => {
			const { head } = await open(
				{ 'Sec-WebSocket-Protocol': 'other, message-bus' });
			assert.match(head, /^sec-websocket-protocol: message-bus\r$/mi);
		});

	test('subprotocols that are all unknown: 400, never an answer that ' +
		'names one', async () => {
		assert.equal(await served({ 'Sec-WebSocket-Protocol':
			'chat, message-bus-2, my-message-bus' }), 400);
	});

	test('a frame in the same packet as the handshake is taken', async () => {
		const raw = new Raw(gateway.port);
		raw.write(Buffer.concat([Buffer.from(handshake()),
			frame(TEXT, rpc(1)), frame(PING, 'early')]));
		await raw.answered();
		assert.match(await raw.message(), /pong/);
		await raw.pong('early');
		raw.destroy();
	});

	test('a handshake that comes byte by byte is taken', async () => {
		const raw = new Raw(gateway.port);
		for (const byte of pieces(handshake(), 1)) {
			raw.write(byte);
			await sleep(1);
		}
		await raw.answered();
		assert.equal(raw.status(), 101);
		raw.destroy();
	});
});

describe('framing (section 5.2)', () => {
	test('the gateway\'s frames are unmasked, without reserved bits, and ' +
		'their lengths minimal', async () => {
		const raw = await open();
		for (const [i, size] of [0, 50, 200, 70000, 300000].entries()) {
			raw.write(frame(TEXT, rpc(i, 'publish', { channel: 'events',
				payload: 'x'.repeat(size) })));
			const id = JSON.parse(await raw.message((text) =>
				JSON.parse(text).id === i)).result;
			raw.write(frame(TEXT, rpc(`g${i}`, 'get', { id })));
			const got = JSON.parse(await raw.message((text) =>
				JSON.parse(text).id === `g${i}`)).result;
			assert.equal(got.payload.length, size);
		}
		for (const one of raw.frames) {
			const size = one.payload.length;
			assert.equal(one.masked, false);		// section 5.1
			assert.equal(one.rsv, 0);
			assert.equal(one.head, size < 126 ? 2 : size < 65536 ? 4 : 10);
		}
		assert.ok(raw.frames.some((one) => one.head === 10));
		raw.destroy();
	});

	for (const mask of ['00000000', 'ffffffff', '00000001', '7b7b7b7b']) {
		test(`the mask ${mask} is undone`, () =>
			answers(frame(TEXT, rpc(1), { mask: Buffer.from(mask, 'hex') })));
	}

	for (const size of [1, 124, 125, 126, 127, 128, 65535, 65536, 65537]) {
		test(`a message of ${size} bytes is read whole`, async () => {
			const raw = await open();
			const body = random(size);
			const header = JSON.stringify({ jsonrpc: '2.0', id: 1,
				method: 'publish', params: { channel: 'events' } }) + '\n';
			const whole = Buffer.concat([Buffer.from(header), body]);
			raw.write(frame(BINARY, whole));
			const reply = JSON.parse(await raw.message());
			assert.equal(await bus.sql(`SELECT encode(sha256, 'hex')
				FROM message_bus.get(${reply.result})`), sha256(body));
			raw.destroy();
		});
	}

	for (const size of [125, 126, 127, 65535, 65536]) {
		test(`a frame of exactly ${size} bytes is read whole`, () => {
			const text = rpc(1);
			return answers(frame(TEXT,
				text.slice(0, -1) + ' '.repeat(size - text.length) + '}'));
		});
	}

	test('a length of 64 bits with the highest set ends the connection',
		async () => {
			assert.equal(await closedWith(frame(TEXT, '{', { bits: 64,
				length: 2n ** 63n + 1n })), 1006);
		});

	for (const rsv of [1, 2, 3, 4, 5, 6, 7]) {
		for (const [name, opcode] of Object.entries({ text: TEXT,
			binary: BINARY, ping: PING })) {
			test(`reserved bits ${rsv} of a ${name} frame: 1002`, async () => {
				assert.equal(await closedWith(frame(opcode, rpc(1),
					{ rsv })), 1002);
			});
		}
	}

	for (const opcode of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) {
		test(`the reserved opcode ${opcode}: 1002`, async () => {
			assert.equal(await closedWith(frame(opcode, 'x')), 1002);
		});
	}

	test('a reserved opcode inside of a message: 1002', async () => {
		assert.equal(await closedWith(frame(TEXT, '{', { fin: false }),
			frame(3, 'x')), 1002);
	});
});

describe('fragmentation (section 5.4)', () => {
	const text = rpc('fragments é€😀');

	for (const size of [1, 2, 3, 7, 16]) {
		test(`fragments of ${size} bytes, empty ones and a ping between all`,
			async () => {
				const raw = await open();
				const parts = pieces(text, size);
				for (const [i, part] of parts.entries()) {
					raw.write(frame(i === 0 ? TEXT : CONTINUATION, part,
						{ fin: false }));
					raw.write(frame(PING, `p${i}`));
					raw.write(frame(CONTINUATION, '', { fin: false }));
					raw.write(frame(PONG, 'unasked'));
				}
				raw.write(frame(CONTINUATION, ''));
				const reply = JSON.parse(await raw.message());
				assert.deepEqual(reply, { jsonrpc: '2.0',
					id: 'fragments é€😀', result: 'pong' });
				await until('a pong', () => raw.frames.some((one) =>
					one.opcode === PONG));
				raw.write(frame(PING, 'last'));
				await raw.pong('last');
				raw.destroy();
			});
	}

	test('pings between fragments are answered before the message ends, in ' +
		'their order', async () => {
		const raw = await open();
		raw.write(frame(TEXT, text.slice(0, 4), { fin: false }));
		for (const name of ['one', 'two', 'three']) {
			raw.write(frame(PING, name));
			await raw.pong(name);
		}
		assert.equal(raw.messages().length, 0);
		assert.deepEqual(raw.frames.map((one) => one.payload.toString()),
			['one', 'two', 'three']);
		raw.write(frame(CONTINUATION, text.slice(4)));
		assert.match(await raw.message(), /pong/);
		raw.destroy();
	});

	test('fragments of binary messages keep the kind of the first',
		async () => {
			const raw = await open();
			const body = random(5000);
			const whole = Buffer.concat([Buffer.from(JSON.stringify({
				jsonrpc: '2.0', id: 1, method: 'publish',
				params: { channel: 'events' } }) + '\n'), body]);
			const parts = pieces(whole, 777);
			raw.write(...parts.map((part, i) =>
				frame(i === 0 ? BINARY : CONTINUATION, part,
					{ fin: i === parts.length - 1 })));
			const reply = JSON.parse(await raw.message());
			assert.equal(await bus.sql(`SELECT encode(sha256, 'hex')
				FROM message_bus.get(${reply.result})`), sha256(body));
			raw.destroy();
		});

	test('a continuation of nothing: 1002', async () => {
		assert.equal(await closedWith(frame(CONTINUATION, text)), 1002);
	});

	test('a continuation after a whole message: 1002', async () => {
		assert.equal(await closedWith(frame(PING, 'x'),
			frame(CONTINUATION, text)), 1002);
	});

	for (const [name, opcode] of Object.entries({ text: TEXT,
		binary: BINARY })) {
		test(`a ${name} frame inside of a message: 1002`, async () => {
			assert.equal(await closedWith(frame(TEXT, '{', { fin: false }),
				frame(opcode, text)), 1002);
		});
	}

	test('messages that follow one another at once are each answered',
		async () => {
			const raw = await open();
			raw.write(Buffer.concat(Array.from({ length: 40 }, (_, i) =>
				pieces(rpc(i), 9).map((part, at, all) =>
					frame(at === 0 ? TEXT : CONTINUATION, part,
						{ fin: at === all.length - 1 }))).flat()));
			await until('all answers', () => raw.messages().length === 40);
			assert.deepEqual(raw.messages().map((one) => JSON.parse(one).id)
				.sort((a, b) => a - b), Array.from({ length: 40 },
				(_, i) => i));
			raw.destroy();
		});
});

describe('control frames (section 5.5)', () => {
	for (const size of [0, 1, 124, 125]) {
		test(`a ping of ${size} bytes is answered with the same`, async () => {
			const raw = await open();
			const payload = random(size);
			raw.write(frame(PING, payload));
			await raw.pong(payload);
			raw.destroy();
		});
	}

	for (const [name, opcode] of Object.entries({ ping: PING, pong: PONG,
		close: CLOSE })) {
		test(`a ${name} of 126 bytes ends the connection`, async () => {
			const payload = Buffer.alloc(126, 'x');
			payload.writeUInt16BE(1000);
			assert.ok([1002, 1006].includes(
				await closedWith(frame(opcode, payload))));
		});

		test(`a ${name} with a length of 16 bits ends the connection`,
			async () => {
				assert.ok([1002, 1006].includes(await closedWith(
					frame(opcode, 'xxxx', { bits: 16 }))));
			});

		test(`a ${name} in fragments: 1002`, async () => {
			assert.equal(await closedWith(
				frame(opcode, 'ab', { fin: false })), 1002);
		});
	}

	test('a pong that nobody asked for is ignored', async () => {
		const raw = await answers(frame(PONG, 'x'), frame(PONG, ''),
			frame(TEXT, rpc(1)));
		assert.equal(raw.frames.length, 1);
	});
});

describe('closing handshake (section 5.5.1 and 7)', () => {
	const codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000,
		3999, 4000, 4999];

	for (const code of codes) {
		test(`${code} is answered with itself, then TCP is closed by the ` +
			'gateway', async () => {
			const raw = await open();
			raw.write(close(code, 'bye'));
			assert.equal(await raw.closeCode(), code);
			await raw.end();
			assert.equal(raw.frames.length, 1);
			raw.destroy();
		});
	}

	// Never to be set in a close frame (section 7.4.1), or not defined.
	for (const code of [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999,
		2000, 2999]) {
		test(`${code} is a protocol error: 1002`, async () => {
			assert.equal(await closedWith(close(code)), 1002);
		});
	}

	test('a close without a code is answered without one', async () => {
		assert.equal(await closedWith(frame(CLOSE)), 1005);
	});

	test('the longest reason is taken', async () => {
		assert.equal(await closedWith(close(1000, 'r'.repeat(123))), 1000);
	});

	test('a close inside of a message ends the connection', async () => {
		assert.equal(await closedWith(frame(TEXT, '{', { fin: false }),
			close(1000)), 1000);
	});

	test('a frame that came whole before the close is relayed', async () => {
		const raw = await open();
		raw.write(Buffer.concat([frame(TEXT, rpc(1, 'publish', { channel:
			'events', payload: 1, transaction_id: 'before-close' })),
		close(1000)]));
		assert.equal(await raw.closeCode(), 1000);
		await until('the message', async () => await bus.sql(
			`SELECT count(*) FROM message_bus.messages
			 WHERE transaction_id = 'before-close'`) === '1');
		raw.destroy();
	});

	test('TCP that ends without a close frame is the end', async () => {
		const raw = await open();
		const { connections_open: before } =
			(await gateway.get('/healthz')).body;
		raw.socket.end();
		await raw.end();
		await until('the count', async () => (await gateway.get('/healthz'))
			.body.connections_open < before);
	});

	test('a close that the client never answers does not keep TCP open',
		async () => {
			const raw = await open();
			raw.write(frame(3, 'x'));
			assert.equal(await raw.closeCode(), 1002);
			await raw.end();
		});
});

describe('text is UTF-8 (section 8.1)', () => {
	// The bytes that may be part of a character, and those that then break it.
	const bad = {
		'a byte that never occurs': ['', 'ff'],
		'a lone continuation byte': ['', '80'],
		'an overlong slash': ['', 'c0af'],
		'an overlong null': ['e0', '8080'],
		'an overlong null of 4 bytes': ['f0', '808080'],
		'a surrogate': ['ed', 'a080'],
		'more than U+10FFFF': ['f4', '908080'],
		'five bytes': ['', 'f888808080'],
		'a character cut off by another': ['e282', 'c3a9'],
	};

	for (const [name, [good, rest]] of Object.entries(bad)) {
		const start = Buffer.concat([Buffer.from('{"id":"'),
			Buffer.from(good, 'hex')]);
		const text = Buffer.concat([start, Buffer.from(rest, 'hex'),
			Buffer.from('"}')]);

		test(`${name}: 1007`, async () => {
			assert.equal(await closedWith(frame(TEXT, text)), 1007);
		});

		test(`${name}: 1007 at the first byte that breaks it`, async () => {
			const raw = await open();
			raw.write(...pieces(start, 1).map((part, i) =>
				frame(i === 0 ? TEXT : CONTINUATION, part, { fin: false })));
			raw.write(frame(PING, 'still open'));
			await raw.pong('still open');
			raw.write(frame(CONTINUATION, Buffer.from(rest.slice(0, 2), 'hex'),
				{ fin: false }));
			assert.equal(await raw.closeCode(), 1007);
			raw.destroy();
		});

		test(`${name}: 1007 in the middle of a frame`, async () => {
			assert.equal(await closedWith(frame(TEXT, text,
				{ length: 1000 })), 1007);
		});
	}

	test('a character cut off by the message\'s end: 1007', async () => {
		assert.equal(await closedWith(frame(TEXT,
			Buffer.from('{"id":"\xc3', 'latin1'))), 1007);
	});

	for (const edge of ['\0', '\x7f', '\x80', '\u07ff', '\u0800', '\ud7ff',
		'\ue000', '\ufffe', '\uffff', '\u{10000}', '\u{10ffff}']) {
		test(`U+${edge.codePointAt(0).toString(16)} split at every byte is ` +
			'valid', async () => {
			// A null is no JSON, but it is UTF-8.
			const raw = await open();
			raw.write(...pieces(`{"method":"ping","id":"${edge}"}`, 1)
				.map((part, i, all) => frame(i === 0 ? TEXT : CONTINUATION,
					part, { fin: i === all.length - 1 })));
			const reply = JSON.parse(await raw.message());
			if (edge !== '\0') assert.equal(reply.id, edge);
			raw.destroy();
		});
	}

	test('a binary message may hold any bytes', async () => {
		const raw = await open();
		raw.write(frame(BINARY, Buffer.from('fffe80c0', 'hex')));
		assert.equal(JSON.parse(await raw.message()).error.code, -32600);
		raw.write(frame(TEXT, rpc(1)));
		await raw.message((text) => text.includes('pong'));
		raw.destroy();
	});
});

describe('beside the RFC', () => {
	test('an unmasked frame is taken (section 5.1 wants it refused)', () =>
		answers(frame(TEXT, rpc(1), { masked: false })));

	for (const bits of [16, 64]) {
		test(`a length that would fit fewer than ${bits} bits is taken ` +
			'(section 5.2)', () => answers(frame(TEXT, rpc(1), { bits })));
	}

	test('of pings that come faster than pongs go out only some are ' +
		'answered, not always the last (section 5.5.3)', async () => {
		const raw = await open();
		raw.write(Buffer.concat(Array.from({ length: 50 }, (_, i) =>
			frame(PING, `p${i}`))));
		await until('a pong', () => raw.frames.length > 0);
		raw.write(frame(PING, 'alone'));
		await raw.pong('alone');
		assert.ok(raw.frames.length <= 51);
		raw.destroy();
	});

	test('a message in the same packet as the close, behind it, is relayed ' +
		'and not answered (section 1.4)', async () => {
		const raw = await open();
		raw.write(Buffer.concat([close(1000), frame(TEXT, rpc(1, 'publish',
			{ channel: 'events', payload: 1, transaction_id: 'late' })),
		frame(PING, 'x')]));
		await raw.end();
		assert.equal(raw.frames.length, 1);
		await until('the message', async () => await bus.sql(
			`SELECT count(*) FROM message_bus.messages
			 WHERE transaction_id = 'late'`) === '1');
	});

	// Registered since, for servers to send.
	for (const code of [1012, 1013, 1014]) {
		test(`a client's ${code} is answered with 1002`, async () => {
			assert.equal(await closedWith(close(code)), 1002);
		});
	}

	for (const code of [5000, 65535]) {
		test(`${code}, not in any range, is answered with itself`,
			async () => {
				assert.equal(await closedWith(close(code)), code);
			});
	}

	test('a reason that is not UTF-8 is sent back', async () => {
		assert.equal(await closedWith(close(1000,
			Buffer.from('ff', 'hex'))), 1000);
	});

	test('half a close code is sent back', async () => {
		const raw = await open();
		raw.write(frame(CLOSE, 'x'));
		await raw.end();
		assert.equal(raw.frames[0].payload.toString(), 'x');
	});

	test('an Upgrade that lists more than websocket is refused (section ' +
		'4.2.1)', async () => {
		assert.equal(await served({ Upgrade: 'websocket, foo' }), 403);
	});
});
