// door.mjs
//     What the tests of the HTTP door share: requests byte by byte over plain
//     sockets, answers taken apart, and tokens.

import { createHmac } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import { until } from './bus.mjs';

const secret = 'a secret of at least thirty-two bytes';
const base64 = (value) => Buffer.from(value).toString('base64url');

export const jwks = JSON.stringify({ keys: [
	{ kty: 'oct', alg: 'HS256', k: base64(secret) }] });

// token signs claims, for an hour.
export function token(claims) {
	const text = base64(JSON.stringify({ alg: 'HS256', typ: 'JWT' })) + '.' +
		base64(JSON.stringify({ exp: Math.floor(Date.now() / 1000) + 3600,
			...claims }));
	return text + '.' +
		createHmac('sha256', secret).update(text).digest('base64url');
}

// memory returns how many KiB of a process are in memory, and processor the
// seconds that it has worked.
export function memory(pid) {
	return Number(/VmRSS:\s+(\d+)/.exec(
		fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
}

export function processor(pid) {
	const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8')
		.replace(/^.*\) /, '').split(' ');
	return (Number(fields[11]) + Number(fields[12])) / 100;
}

// A connection that sends what it is told, and takes answers apart.
export class Connection {
	#bytes = Buffer.alloc(0);

	constructor(port, { paused = false } = {}) {
		this.ended = false;
		this.socket = net.connect({ port, host: '127.0.0.1',
			allowHalfOpen: true });
		this.socket.on('error', () => { this.ended = true; });
		this.socket.on('close', () => { this.ended = true; });
		this.socket.on('end', () => { this.ended = true; });
		if (paused) {
			this.socket.pause();
		} else {
			this.read();
		}
	}

	read() {
		this.socket.on('data', (data) => {
			this.#bytes = Buffer.concat([this.#bytes, data]);
		});
		this.socket.resume();
	}

	send(data) {
		this.socket.write(data, 'latin1');
		return this;
	}

	// get sends a request; a header is left out by null.
	get(path, headers = {}, method = 'GET') {
		return this.send(head(path, headers, method));
	}

	get length() {
		return this.#bytes.length;
	}

	// answer waits for the next whole answer, or what there is at the end.
	async answer({ bare = false, seconds = 30 } = {}) {
		let answer = null;
		await until('an answer', () => {
			answer = this.#take(bare);
			return answer !== null;
		}, seconds);
		return answer;
	}

	#take(bare) {
		const end = this.#bytes.indexOf('\r\n\r\n');
		if (end < 0) return this.ended ? { status: 0 } : null;
		const [first, ...lines] = this.#bytes.subarray(0, end)
			.toString('latin1').split('\r\n');
		const headers = {};
		for (const line of lines) {
			const colon = line.indexOf(': ');
			headers[line.slice(0, colon).toLowerCase()] =
				line.slice(colon + 2);
		}
		const status = Number(/^HTTP\/1\.1 (\d+) /.exec(first)[1]);
		const length = bare || status === 304 || status === 204 ? 0
			: Number(headers['content-length']);
		const body = this.#bytes.subarray(end + 4, end + 4 + length);
		if (body.length < length && !this.ended) return null;
		this.#bytes = this.#bytes.subarray(end + 4 + body.length);
		return { status, headers, body, cut: body.length < length };
	}

	async end() {
		await until('the end of a connection', () => this.ended);
	}

	close() {
		this.socket.destroy();
	}
}

// head returns the head of a request.
export function head(path, headers = {}, method = 'GET') {
	const lines = Object.entries({ Host: 'localhost', ...headers })
		.filter(([, value]) => value !== null)
		.flatMap(([name, value]) => [value].flat()
			.map((one) => `${name}: ${one}\r\n`));
	return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
}

// ask sends one request and returns its answer.
export async function ask(port, path, headers = {}, method = 'GET') {
	const connection = new Connection(port);
	connection.get(path, { Connection: 'close', ...headers }, method);
	const answer = await connection.answer({ bare: method === 'HEAD' });
	connection.close();
	return answer;
}
