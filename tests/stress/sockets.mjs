// sockets.mjs
//     The gateway's clients in the stress test: sockets that publish and
//     claim, each on a channel of its own, while the gateway and the server
//     are killed.
//
// Usage: node sockets.mjs URL LEDGER SOCKETS PACE
//
// PACE is the mean pause of a socket between two rounds, in seconds. Socket
// n has the channel g<n> with the subscriptions "plain" and "ordered". What it
// knows goes to the ledger, as ledger.py tells. On standard input it is told
// "drain" (publish nothing more, work off what is there) and "stop"; on
// standard output it tells twice a second how far it is.

import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import readline from 'node:readline';

const WebSocket = createRequire(import.meta.url)('/usr/share/nodejs/ws');
const [url, ledgerName, sockets, pace] = process.argv.slice(2);
const KEYS = 5;
const ANSWER_MS = 100000;
const UNKNOWN = -32050, AWAY = -32010, STALE = -32006, CONFLICT = -32005;
const BUSY = -32009;            // another transaction is in the way: ask again
const FULL = '53400';

const ledger = fs.openSync(ledgerName, 'w');
const counts = { published: 0, plain: 0, ordered: 0 };
let draining = false;
let stopping = false;

const write = (...record) => fs.writeSync(ledger, JSON.stringify(record) + '\n');
const fault = (name) => write('fault', name);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const chance = (p) => Math.random() < p;
const pick = (list) => list[Math.floor(Math.random() * list.length)];

// began and ended are the times of the clock, cut and raised to milliseconds
const began = () => Date.now() / 1000;
const ended = () => (Date.now() + 1) / 1000;

// body returns the payload of a message, as message.py makes it.
function body(uid) {
	const number = parseInt(uid.split('.')[1], 10);
	const rounds = number % 100 === 0 ? 150 : number % 4;
	let digest = Buffer.alloc(0), text = uid + ' ';

	for (let i = 0; i < rounds; i++) {
		digest = createHash('sha256').update(uid).update(digest).digest();
		text += digest.toString('hex');
	}
	return text;
}

// Failed is an error that the gateway has answered, Lost a broken socket.
class Failed extends Error {
	constructor(method, error) {
		super(`${method}: ${JSON.stringify(error)}`);
		this.code = error.code;
		this.sqlstate = error.data?.sqlstate;
	}

	// whether what was asked for may have been done
	get unknown() { return this.code === UNKNOWN; }

	// whether it failed for what the test does to the server
	get expected() {
		return [UNKNOWN, AWAY, BUSY, STALE].includes(this.code) ||
			this.sqlstate === FULL || /^(57|08)/.test(this.sqlstate ?? '');
	}
}

class Lost extends Error {
	get unknown() { return true; }
	get expected() { return true; }
}

class Client {
	constructor(number) {
		this.name = `s${number}`;
		this.channel = `g${String(number).padStart(3, '0')}`;
		this.count = 0;
		this.calls = 0;
		this.pending = new Map();
	}

	async run() {
		while (!stopping) {
			try {
				await this.connect();
				while (!stopping) {
					await this.round();
					await sleep(Math.random() * 2000 * (draining ? 0.2 : pace));
				}
			} catch (error) {
				this.failed(error);
				await sleep(50 + Math.random() * 200);
			}
		}
		this.socket?.close();
	}

	// failed tells of an error that ended a round.
	failed(error) {
		if (error instanceof Lost)
			fault('socket cut off');
		else if (error instanceof Failed && error.expected)
			fault(error.unknown ? 'gateway: outcome unknown' : `gateway: refused with ${error.code}`);
		else
			write('wrong', `${this.name}: ${error.stack ?? error}`);
	}

	// ----------
	// The socket
	// ----------

	async connect() {
		if (this.socket?.readyState === WebSocket.OPEN) return;
		const socket = this.socket = new WebSocket(url, { perMessageDeflate: false });

		socket.on('message', (data) => this.receive(JSON.parse(data.toString())));
		socket.on('error', () => {});
		await new Promise((resolve, reject) => {
			socket.on('open', resolve);
			socket.on('close', () => {
				for (const call of this.pending.values())
					call.reject(new Lost());
				this.pending.clear();
				reject(new Lost());
			});
		});
	}

	// receive takes in a reply.
	receive(reply) {
		const call = this.pending.get(reply.id);

		if (!call) {
			write('wrong', `${this.name}: nobody has asked for ${JSON.stringify(reply).slice(0, 300)}`);
			return;
		}
		this.pending.delete(reply.id);
		clearTimeout(call.timer);
		if (reply.error) call.reject(new Failed(call.method, reply.error));
		else call.resolve(reply.result);
	}

	// call asks for something and returns its result.
	call(method, params) {
		if (this.socket.readyState !== WebSocket.OPEN)
			return Promise.reject(new Lost());
		return new Promise((resolve, reject) => {
			const id = ++this.calls;
			const timer = setTimeout(() => {
				write('wrong', `${this.name}: no answer to ${method}`);
				this.socket.terminate();
			}, ANSWER_MS);
			const done = (how) => (value) => { clearTimeout(timer); how(value); };

			this.pending.set(id, { method, timer, resolve, reject: done(reject) });
			this.socket.send(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
		});
	}

	// ----------
	// What it does
	// ----------

	async round() {
		if (!draining)
			await this.publish();
		// a round that is cut off is not to end before the same one each time
		for (const subscription of chance(0.5) ? ['plain', 'ordered'] : ['ordered', 'plain'])
			await this.work(subscription);
	}

	// publish publishes a few messages, and again until the outcome is known.
	async publish() {
		const messages = [];
		const n = pick([1, 1, 1, 2, 5]);
		const withIds = chance(0.7);
		const start = began();
		let unsure = false;			// whether an attempt may have been committed
		const record = (outcome) =>
			write('publish', outcome, start, start, ended(), messages, []);

		for (let i = 0; i < n; i++)
			messages.push(this.make());
		for (;;) {
			try {
				await this.connect();
				await this.send(messages, withIds);
				if (withIds && chance(0.05))
					await this.again(messages);
				break;
			} catch (error) {
				if (messages[0][3] !== null) {
					this.failed(error);
					break;
				}
				unsure ||= Boolean(error.unknown);
				if (withIds && unsure && error.expected && !stopping) {
					this.failed(error);
					fault('gateway: publish repeated');
					await sleep(100);
					continue;
				}
				record(unsure ? 'U' : 'R');
				throw error;
			}
		}
		record('C');
		counts.published += n;
	}

	make() {
		const uid = `${this.name}.${++this.count}${chance(0.0005) ? 'x' : ''}`;
		const dice = Math.random();
		const delay = dice > 0.9 || (dice > 0.3 && dice < 0.33) ?
			Math.ceil(Math.random() * 2000) / 1000 : null;
		const key = dice < 0.3 ? `k${this.name}.${Math.floor(Math.random() * KEYS)}` :
			dice < 0.35 ? `d${this.name}.${Math.floor(Math.random() * KEYS)}` : null;

		return [uid, key, delay, null, this.channel];
	}

	// send publishes messages by one call and notes their ids.
	async send(messages, withIds) {
		const all = messages.map(([uid, key, delay]) => ({
			payload: body(uid),
			...(key && { key }),
			...(delay && { delay }),
			...(withIds && { transaction_id: uid }),
		}));
		const ids = all.length === 1 ?
			[await this.call('publish', { channel: this.channel, ...all[0] })] :
			await this.call('publish_batch', { channel: this.channel, messages: all });

		messages.forEach((message, i) => { message[3] = ids[i]; });
	}

	// again repeats what was published, also with other bytes.
	async again(messages) {
		const before = messages.map((message) => message[3]);
		const [uid] = messages[0];

		await this.send(messages, true);
		if (messages.some((message, i) => message[3] !== before[i]))
			write('wrong', `${this.name}: ${uid} repeated has another id`);
		fault('gateway: transaction repeated');
		try {
			await this.call('publish',
				{ channel: this.channel, payload: 'other bytes', transaction_id: uid });
			write('wrong', `${this.name}: other bytes were taken for transaction id ${uid}`);
		} catch (error) {
			if (!(error instanceof Failed) || error.code !== CONFLICT) throw error;
			fault('gateway: transaction id with other bytes refused');
		}
	}

	// work claims once and does something with what it gets.
	async work(subscription) {
		const how = draining ? 'ack' : pick(['ack', 'ack', 'ack', 'ack', 'ack', 'ack', 'ack',
			'ack', 'ack', 'ack', 'nack', 'part', 'late', 'abandon', 'twice']);
		const start = began();
		const rows = await this.call('claim', {
			channel: this.channel, subscription, batch: pick([1, 5, 20]),
			lease_for: how === 'late' || how === 'abandon' ? 0.25 : 10,
			wait: chance(0.02) ? 0.3 : 0,
		});

		if (rows.length === 0) return;
		const lease = rows[0].lease;
		const uids = rows.map((row) => this.whole(row));
		write('claim', subscription, 'C', start, ended(), lease, rows.map((row) => row.id),
			rows.map((row) => row.attempt), uids);
		fault('gateway: claimed');
		const good = rows.filter((_, i) => !uids[i].endsWith('x')).map((row) => row.id);
		const bad = rows.filter((_, i) => uids[i].endsWith('x')).map((row) => row.id);
		await this.finish(how, subscription, lease, good, bad);
	}

	async finish(how, subscription, lease, good, bad) {
		if (how === 'abandon') {
			fault('gateway: abandoned');
			return;
		}
		if (how === 'late')
			await sleep(pick([150, 250, 500]));
		if (how === 'nack')
			bad.push(...good.splice(0));
		else if (how === 'part')
			bad.push(...good.splice(Math.ceil(good.length / 2)));
		await this.end('nack', subscription, lease, bad,
			how === 'nack' ? { delay: pick([0, 0.2]) } : how === 'part' ? {} : { delay: 0 });
		await this.end('ack', subscription, lease, good, {});
		if (how === 'twice' && good.length) {
			await this.end('ack', subscription, lease, good, {});
			counts[subscription] -= good.length;
		}
	}

	// end acks or nacks ids of a lease.
	async end(method, subscription, lease, ids, more) {
		if (ids.length === 0) return;
		const start = began();
		try {
			const n = await this.call(method, { lease, ids, ...more });

			if (n !== ids.length)
				write('wrong', `${this.name}: ${method} of ${ids.length} ids of lease ${lease} counts ${n}`);
			write(method, subscription, 'C', start, ended(), lease, ids);
			fault(`gateway: ${method}ed`);
			if (method === 'ack') counts[subscription] += n;
		} catch (error) {
			write(method, subscription, error.unknown ? 'U' : 'R', start, ended(), lease, ids);
			throw error;
		}
	}

	// whole returns the uid of a message, which must be what was published.
	whole(row) {
		const uid = String(row.payload).split(' ')[0];
		const text = body(uid);

		if (text !== row.payload ||
			createHash('sha256').update(JSON.stringify(text)).digest('hex') !== row.sha256)
			write('wrong', `${this.name}: payload or checksum is wrong: ${JSON.stringify(row).slice(0, 300)}`);
		return uid;
	}
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
	draining = true;
	stopping = line === 'stop';
}).on('close', () => process.exit(stopping ? 0 : 1));
setInterval(() => console.log(JSON.stringify(counts)), 500).unref();

await Promise.all(Array.from({ length: Number(sockets) }, (_, i) => new Client(i).run()));
console.log(JSON.stringify(counts));
process.exit(0);
