// bus.mjs
//     What the gateway's tests share: a private PostgreSQL cluster with the
//     extension, gateways on free ports, and WebSocket clients.
//
// A cluster lives in a temporary directory, listens on a Unix socket there
// only, and runs as user postgres where the tests run as root. Everything
// that was started is stopped in Bus.stop().

import { execFile, spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';

const run = promisify(execFile);
const here = path.dirname(fileURLToPath(import.meta.url));

export const root = path.resolve(here, '..', '..');
export const program = process.env.MBUS_GATEWAY ??
	path.join(root, 'gateway', 'message-bus-gateway');

// Debian keeps its packages where a module does not look for them.
export const WebSocket = createRequire(import.meta.url)('/usr/share/nodejs/ws');

const pgConfig = process.env.PG_CONFIG ??
	'/usr/lib/postgresql/15/bin/pg_config';
const binDir = spawnSync(pgConfig, ['--bindir']).stdout.toString().trim();
const asRoot = process.getuid() === 0;
export const PORT = '54321';			// the name of a Unix socket, not a port

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// freePort returns a port on which nothing listens.
export async function freePort() {
	const server = net.createServer().listen(0, '127.0.0.1');
	await once(server, 'listening');
	const { port } = server.address();
	server.close();
	return port;
}

// until waits for a condition, at most `seconds`.
export async function until(what, condition, seconds = 30) {
	const end = Date.now() + seconds * 1000;
	let last;
	while (Date.now() < end) {
		try {
			const value = await condition();
			if (value) return value;
		} catch (error) {
			last = error;
		}
		await sleep(20);
	}
	throw new Error(`waited in vain: ${what}${last ? ` (${last.message})` : ''}`);
}

// asPostgres returns the command that runs a PostgreSQL program.
function asPostgres(name, args) {
	const command = path.join(binDir, name);
	return asRoot ? ['runuser', ['-u', 'postgres', '--', command, ...args]]
		: [command, args];
}

async function runPostgres(name, ...args) {
	const [command, all] = asPostgres(name, args);
	// pg_ctl's server keeps its output open: do not wait for that.
	const child = spawn(command, all, { stdio: 'ignore', cwd: '/' });
	const [code] = await once(child, 'exit');
	if (code !== 0) throw new Error(`${name} ${args.join(' ')}: status ${code}`);
}

export class Bus {
	static #all = new Set();

	// start makes a cluster; with extension: false it is an empty one.
	static async start({ extension = true, settings = '' } = {}) {
		const bus = new Bus();
		bus.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'mbg-'));
		bus.data = path.join(bus.directory, 'data');
		bus.gateways = new Set();
		Bus.#all.add(bus);
		if (asRoot) await run('chown', ['postgres:', bus.directory]);
		await runPostgres('initdb', '-D', bus.data, '-A', 'trust', '-N',
			'-E', 'UTF8', '--no-locale', '-U', 'postgres');
		fs.appendFileSync(path.join(bus.data, 'postgresql.conf'), [
			"listen_addresses = ''",
			`unix_socket_directories = '${bus.directory}'`,
			`port = ${PORT}`,
			'fsync = off',
			'max_connections = 40',
			"shared_preload_libraries = 'message_bus'",
			"message_bus.databases = 'bus'",
			settings, ''].join('\n'));
		await bus.startServer();
		await bus.sql('CREATE DATABASE bus', 'postgres');
		await bus.sql(`CREATE ROLE gateway LOGIN NOINHERIT;
			CREATE ROLE app; CREATE ROLE stranger;
			GRANT app TO gateway;`);
		if (extension) {
			await bus.createExtension();
			await bus.sql(`SELECT message_bus.create_channel('events');
				SELECT message_bus.create_channel('private');
				SELECT message_bus.grant_channel('events', 'app', 'all');
				SELECT message_bus.grant_channel('default', 'app', 'all');`);
		}
		return bus;
	}

	async createExtension() {
		await this.sql('CREATE EXTENSION message_bus');
		await this.sql(`GRANT EXECUTE ON FUNCTION
				message_bus.relay(bigint[], bytea[]) TO gateway`);
		await until('the worker', () => this.sql(
			`SELECT message_bus.create_channel('probe', if_not_exists => true);
			 SELECT message_bus.publish('probe', '1')`));
	}

	async startServer() {
		await runPostgres('pg_ctl', '-D', this.data, '-w', '-s',
			'-l', path.join(this.directory, 'server.log'), 'start');
	}

	async stopServer(mode = 'fast') {
		await runPostgres('pg_ctl', '-D', this.data, '-w', '-s', '-m', mode,
			'stop');
	}

	// crashServer kills the postmaster, and waits for the end of its children.
	async crashServer() {
		const file = path.join(this.data, 'postmaster.pid');
		const [pid] = fs.readFileSync(file, 'utf8').split('\n');
		const children = spawnSync('pgrep', ['-P', pid]).stdout.toString()
			.trim().split('\n');
		process.kill(Number(pid), 'SIGKILL');
		await until('the end of the server', () => [pid, ...children].every(
			(one) => !fs.existsSync(`/proc/${one}`)));
	}

	// standby makes and starts a hot standby of this cluster, which
	// promote() makes a primary; it is stopped by its own stop().
	async standby() {
		const standby = new Bus();
		standby.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'mbg-'));
		standby.data = path.join(standby.directory, 'data');
		standby.gateways = new Set();
		if (asRoot) await run('chown', ['postgres:', standby.directory]);
		await runPostgres('pg_basebackup', '-h', this.directory, '-p', PORT,
			'-U', 'postgres', '-D', standby.data, '-R', '-c', 'fast');
		fs.appendFileSync(path.join(standby.data, 'postgresql.conf'),
			`unix_socket_directories = '${standby.directory}'\n`);
		await standby.startServer();
		return standby;
	}

	async promote() {
		await runPostgres('pg_ctl', '-D', this.data, '-w', '-s', 'promote');
	}

	// sql runs statements as superuser and returns the lines of output.
	async sql(text, database = 'bus') {
		const { stdout } = await run(path.join(binDir, 'psql'), ['-XAtq',
			'-v', 'ON_ERROR_STOP=1', '-h', this.directory, '-p', PORT,
			'-U', 'postgres', '-d', database, '-c', text],
		{ maxBuffer: 1 << 28 });
		return stdout.replace(/\n$/, '');
	}

	// freeze stops the gateways' backends and returns what lets them go on.
	async freeze() {
		const pids = (await this.sql(`SELECT pid FROM pg_stat_activity
			WHERE application_name = 'message-bus-gateway'`))
			.split('\n').map(Number);
		for (const pid of pids) process.kill(pid, 'SIGSTOP');
		return (signal = 'SIGCONT') => {
			for (const pid of pids) process.kill(pid, signal);
		};
	}

	url(user = 'gateway') {
		return `postgresql://${user}@/bus?port=${PORT}&host=` +
			encodeURIComponent(this.directory);
	}

	// gateway starts one and waits until it listens; ready: and relays.
	async gateway({ ready = true, user = 'gateway', ...settings } = {}) {
		const gateway = new Gateway(this.directory, {
			DATABASE_URL: this.url(user), MESSAGE_BUS_ROLE: 'app', ...settings });
		this.gateways.add(gateway);
		await gateway.started;
		if (ready) {
			await until('readyz', async () =>
				(await gateway.get('/readyz')).status === 200);
		}
		return gateway;
	}

	async stop() {
		for (const gateway of this.gateways) await gateway.kill();
		try {
			await this.stopServer('immediate');
		} catch { /* it was down already */ }
		fs.rmSync(this.directory, { recursive: true, force: true });
		Bus.#all.delete(this);
	}
}

export class Gateway {
	constructor(directory, settings) {
		const clean = Object.fromEntries(Object.entries(process.env)
			.filter(([name]) => !/^(PG|EXAI_|WS_|MESSAGE_BUS_|DATABASE_)/
				.test(name)));
		this.lines = [];
		this.code = null;
		this.clients = new Set();
		this.child = spawn(program, [], { cwd: directory,
			env: { ...clean, EXAI_WS_PORT: '0',
				MESSAGE_BUS_LOG_FRAMES: 'true',
				MESSAGE_BUS_CLIENT_MAX_BYTES: '268435456', ...settings },
			stdio: ['ignore', 'ignore', 'pipe'] });
		this.exited = once(this.child, 'exit').then(([code, signal]) => {
			this.code = code ?? signal;
			return this.code;
		});
		let rest = '';
		this.child.stderr.setEncoding('utf8').on('data', (text) => {
			const parts = (rest + text).split('\n');
			rest = parts.pop();
			for (const part of parts) {
				try {
					this.lines.push(JSON.parse(part));
				} catch {
					this.lines.push({ event: 'not JSON', text: part });
				}
			}
		});
		this.started = until('the line "ready"', () => {
			const line = this.event('ready');
			if (this.code !== null && !line) {
				throw new Error('ended: ' + JSON.stringify(this.lines));
			}
			this.port = line?.port;
			return line;
		});
	}

	// event returns the last log line of an event that fits.
	event(name, fits = () => true) {
		return this.lines.filter((line) => line.event === name && fits(line))
			.pop();
	}

	// get asks over HTTP and returns status, text and body.
	get(target, headers = {}) {
		return new Promise((resolve, reject) => {
			const request = http.get({ host: '127.0.0.1', port: this.port,
				path: target, headers, agent: false }, (response) => {
				let text = '';
				response.setEncoding('utf8');
				response.on('data', (part) => { text += part; });
				response.on('end', () => {
					let body = null;
					try {
						body = JSON.parse(text);
					} catch { /* not JSON */ }
					resolve({ status: response.statusCode, text, body });
				});
			});
			request.on('error', reject);
		});
	}

	async client(options = {}) {
		const query = options.query ? `?${options.query}` : '';
		const client = new Client(`ws://127.0.0.1:${this.port}/${query}`, options);
		this.clients.add(client);
		await client.opened;
		return client;
	}

	async kill(signal = 'SIGKILL') {
		for (const client of this.clients) client.socket.terminate();
		if (this.code === null) this.child.kill(signal);
		return this.exited;
	}
}

// BusError is a JSON-RPC error as an exception.
export class BusError extends Error {
	constructor(error) {
		super(error.message);
		this.code = error.code;
		this.data = error.data ?? {};
	}
}

export class Client {
	#next = 1;
	#waiting = new Map();

	constructor(url, { headers, protocols = [] } = {}) {
		this.frames = [];		// what fits no request
		this.closed = null;
		this.socket = new WebSocket(url, protocols, {
			headers, perMessageDeflate: false, maxPayload: 1 << 28 });
		this.opened = new Promise((resolve, reject) => {
			this.socket.once('open', resolve);
			this.socket.on('error', reject);
		});
		this.socket.on('message', (data, binary) => this.#take(data, binary));
		this.socket.on('close', (code, reason) => {
			this.closed = { code, reason: reason.toString() };
			for (const { reject } of this.#waiting.values()) {
				reject(new Error(`closed with ${code}`));
			}
			this.#waiting.clear();
		});
	}

	#take(data, binary) {
		const feed = binary ? data.indexOf(10) : data.length;
		const text = data.subarray(0, feed).toString();
		const frame = JSON.parse(text);
		const waiting = this.#waiting.get(frame.id);
		if (!waiting) {
			this.frames.push(frame);
			return;
		}
		this.#waiting.delete(frame.id);
		if (frame.error) {
			waiting.reject(new BusError(frame.error));
		} else {
			waiting.resolve(waiting.whole ? { frame, text, binary,
				body: binary ? data.subarray(feed + 1) : null } : frame.result);
		}
	}

	// raw sends bytes or text as they are.
	raw(data, options = {}) {
		this.socket.send(data, options);
	}

	// expect registers an id and returns the promise of its result.
	expect(id, whole = false) {
		return new Promise((resolve, reject) => {
			this.#waiting.set(id, { resolve, reject, whole });
		});
	}

	call(method, params = {}, whole = false) {
		const id = this.#next++;
		const reply = this.expect(id, whole);
		this.raw(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
		return reply;
	}

	// callBinary sends a body after the header line and returns all there is.
	callBinary(method, params, body) {
		const id = this.#next++;
		const reply = this.expect(id, true);
		const header = JSON.stringify({ jsonrpc: '2.0', id, method, params });
		this.raw(body === undefined ? Buffer.from(header + '\n')
			: Buffer.concat([Buffer.from(header + '\n'), body]));
		return reply;
	}

	// frame waits for a frame that answers no request of this client.
	frame(fits = () => true) {
		return until('a frame', () => this.frames.find(fits));
	}

	close() {
		return new Promise((resolve) => {
			if (this.closed) return resolve(this.closed);
			this.socket.once('close', () => resolve(this.closed));
			this.socket.close();
		});
	}

	end() {
		return until('the close', () => this.closed);
	}
}

// fails returns the error that a promise must end with.
export async function fails(promise) {
	try {
		await promise;
	} catch (error) {
		if (error instanceof BusError) return error;
		throw error;
	}
	throw new Error('it did not fail');
}

export const random = (size) => randomBytes(size);
