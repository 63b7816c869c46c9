// raw.mjs
//     A WebSocket client that keeps no rule of RFC 6455 by itself: it sends
//     the bytes it is told to send, and takes apart what comes back.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import net from 'node:net';
import { until } from './bus.mjs';

export const CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9,
	PONG = 10;

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';	// section 1.3

// accept returns the Sec-WebSocket-Accept that a key must be answered with.
export const accept = (key) =>
	createHash('sha1').update(key + GUID).digest('base64');

// frame returns the bytes of one frame. Every field of section 5.2 can be set
// to what it must not be: `length` is the declared one, `bits` the size of the
// field it is in.
export function frame(opcode, payload = '', { fin = true, rsv = 0,
	masked = true, mask = randomBytes(4), length, bits } = {}) {
	const body = Buffer.from(payload);
	const declared = BigInt(length ?? body.length);
	const size = bits ?? (declared < 126n ? 7 : declared < 65536n ? 16 : 64);
	const head = Buffer.alloc(size === 7 ? 2 : size === 16 ? 4 : 10);
	head[0] = (fin ? 0x80 : 0) | rsv << 4 | opcode;
	head[1] = masked ? 0x80 : 0;
	if (size === 7) {
		head[1] |= Number(declared);
	} else if (size === 16) {
		head[1] |= 126;
		head.writeUInt16BE(Number(declared), 2);
	} else {
		head[1] |= 127;
		head.writeBigUInt64BE(declared, 2);
	}
	if (!masked) return Buffer.concat([head, body]);
	for (let i = 0; i < body.length; i++) body[i] ^= mask[i % 4];
	return Buffer.concat([head, mask, body]);
}

// close returns a close frame with a code and a reason.
export function close(code, reason = '') {
	const head = Buffer.alloc(2);
	head.writeUInt16BE(code);
	return frame(CLOSE, Buffer.concat([head, Buffer.from(reason)]));
}

// handshake returns the text of an opening handshake. A header is left out
// by null, and given twice by an array.
export function handshake({ line = 'GET / HTTP/1.1', ...changes } = {}) {
	const headers = { Host: 'localhost', Connection: 'Upgrade',
		Upgrade: 'websocket', 'Sec-WebSocket-Version': '13',
		'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==', ...changes };
	const lines = Object.entries(headers)
		.filter(([, value]) => value !== null)
		.flatMap(([name, value]) => [value].flat()
			.map((one) => `${name}: ${one}`));
	return [line, ...lines, '', ''].join('\r\n');
}

export const rpc = (id, method = 'ping', params = {}) =>
	JSON.stringify({ jsonrpc: '2.0', id, method, params });

// pieces cuts bytes into pieces of `size`.
export function pieces(bytes, size) {
	const buffer = Buffer.from(bytes);
	return Array.from({ length: Math.ceil(buffer.length / size) },
		(_, i) => buffer.subarray(i * size, (i + 1) * size));
}

export class Raw {
	#rest = Buffer.alloc(0);
	#upgraded = false;

	constructor(port) {
		this.frames = [];		// of every kind, in the order they came
		this.head = '';			// of the HTTP answer
		this.ended = false;		// the gateway has closed its side
		this.gone = false;		// the TCP connection is over
		this.socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
		this.socket.on('data', (part) => this.#take(part));
		this.socket.on('error', () => {});
		this.socket.on('end', () => { this.ended = true; });
		this.socket.on('close', () => { this.gone = true; });
	}

	// open connects and shakes hands.
	static async open(port, changes) {
		const raw = new Raw(port);
		raw.write(handshake(changes));
		await raw.answered();
		assert.match(raw.head, /^HTTP\/1\.1 101 /);
		return raw;
	}

	#take(part) {
		this.#rest = Buffer.concat([this.#rest, part]);
		if (!this.#upgraded) {
			const end = this.#rest.indexOf('\r\n\r\n');
			if (end < 0) return;
			this.head = this.#rest.subarray(0, end + 4).toString('latin1');
			this.#rest = this.#rest.subarray(end + 4);
			this.#upgraded = /^HTTP\/1\.1 101 /.test(this.head);
		}
		while (this.#upgraded && this.#takeFrame());
	}

	#takeFrame() {
		const bytes = this.#rest;
		if (bytes.length < 2) return false;
		const short = bytes[1] & 0x7f;
		const head = short < 126 ? 2 : short === 126 ? 4 : 10;
		if (bytes.length < head) return false;
		const length = short < 126 ? short
			: short === 126 ? bytes.readUInt16BE(2)
				: Number(bytes.readBigUInt64BE(2));
		if (bytes.length < head + length) return false;
		this.frames.push({ fin: bytes[0] >> 7 === 1, rsv: bytes[0] >> 4 & 7,
			opcode: bytes[0] & 15, masked: bytes[1] >> 7 === 1, head,
			payload: Buffer.from(bytes.subarray(head, head + length)) });
		this.#rest = bytes.subarray(head + length);
		return true;
	}

	write(...parts) {
		for (const part of parts) {
			if (!this.socket.destroyed) this.socket.write(part);
		}
	}

	// answered waits for the head of the HTTP answer, or the end without one.
	answered() {
		return until('an HTTP answer', () => this.head !== '' || this.gone);
	}

	status() {
		return Number(/^HTTP\/1\.[01] (\d{3})/.exec(this.head)?.[1] ?? 0);
	}

	// message waits for a whole message that fits, and returns its text.
	message(fits = () => true) {
		return until('a message', () => this.messages().find(fits));
	}

	messages() {
		const found = [];
		let parts = null;
		for (const { fin, opcode, payload } of this.frames) {
			if (opcode >= 8) continue;
			if (opcode !== CONTINUATION) parts = [];
			parts.push(payload);
			if (fin) found.push(Buffer.concat(parts).toString());
		}
		return found;
	}

	// pong waits for the pong of this payload.
	pong(payload) {
		return until('a pong', () => this.frames.find((one) =>
			one.opcode === PONG && one.payload.equals(Buffer.from(payload))));
	}

	// closeCode waits for the close frame, and returns its code: 1005 for
	// none, and 1006 if the connection ended without a close frame.
	async closeCode() {
		const last = await until('the close', () => this.frames.find((one) =>
			one.opcode === CLOSE) ?? (this.gone && { payload: null }));
		if (last.payload === null) return 1006;
		return last.payload.length === 0 ? 1005 : last.payload.readUInt16BE(0);
	}

	// end waits until the gateway has closed the TCP connection.
	end() {
		return until('the end of TCP', () => this.ended || this.gone);
	}

	destroy() {
		this.socket.destroy();
	}
}
