// door.test.mjs
//     The HTTP door with real sockets, curl and a real database: whole bodies
//     and parts of them, who may ask, connections that are kept, slow and
//     vanishing clients, hostile heads, bounds, and what ends a download.

import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Bus, freePort, random, sha256, sleep, until } from './bus.mjs';
import { Connection, ask, head, jwks, memory, processor,
	token } from './door.mjs';

const run = promisify(execFile);
const SMALL = Buffer.from('0123456789');
const LARGE = random(16 * 1024 * 1024 + 12345);
let bus, gateway, port, small, large;

const at = (id) => `/v1/messages/${id}`;
const url = (target) => `http://localhost:${port}${target}`;

// open starts a gateway with a door, and sets its port.
async function open(settings = {}) {
	const door = await freePort();
	const opened = await bus.gateway({ MESSAGE_BUS_HTTP_PORT: String(door),
		...settings });
	opened.door = door;
	return opened;
}

// published publishes bytes and returns the message's id.
async function published(bytes, type = 'application/octet-stream', more = {}) {
	const client = await gateway.client();
	const { frame } = await client.callBinary('publish',
		{ channel: 'events', content_type: type, ...more }, bytes);
	await client.close();
	return frame.result;
}

// series returns the value of a series of /metrics.
async function series(name, of = gateway) {
	const { text } = await of.get('/metrics');
	const line = text.split('\n').find((one) =>
		one.startsWith(`message_bus_gateway_${name} `));
	return Number(line.split(' ')[1]);
}

// idle tells that a gateway does nothing: it takes less than a tenth of a
// processor over a while.
async function idle(of, ms = 700) {
	const pid = of.child.pid;
	const start = processor(pid);
	await sleep(ms);
	assert.ok(processor(pid) - start <= ms / 10000,
		`it worked ${processor(pid) - start} s of ${ms} ms`);
}

before(async () => {
	// The server logs every statement, without parameters.
	bus = await Bus.start({ settings:
		"log_statement = 'all'\nlog_parameter_max_length = 0" });
	gateway = await open({ WS_MAX_MSG_BYTES: '67108864',
		MESSAGE_BUS_ORIGINS: 'https://app.example' });
	port = gateway.door;
	small = await published(SMALL, 'text/plain');
	large = await published(LARGE);
});
after(() => bus?.stop());

describe('a body', () => {
	test('comes whole, with what it is', async () => {
		const { status, headers, body } = await ask(port, at(small));
		assert.equal(status, 200);
		assert.deepEqual(body, SMALL);
		assert.equal(headers['content-type'], 'text/plain');
		assert.equal(headers['content-length'], '10');
		assert.equal(headers['accept-ranges'], 'bytes');
		assert.equal(headers['message-bus-id'], String(small));
		assert.match(headers.date, /^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/);
		assert.ok(Math.abs(Date.parse(headers.date) - Date.now()) < 5000);
		assert.equal(headers.connection, 'close');
	});

	test('and a large one by curl, byte for byte', async () => {
		const file = path.join(bus.directory, 'whole');
		await run('curl', ['-sSf', '-o', file, url(at(large))]);
		assert.equal(sha256(fs.readFileSync(file)), sha256(LARGE));
		assert.ok(await series('http_requests_total{status="200"}') >= 2);
		assert.equal(await series('http_downloads'), 0);
		assert.equal(await series('bulk_down_bytes'), 0);
	});

	test('by parts: curl -r, and curl -C - goes on', async () => {
		const file = path.join(bus.directory, 'part');
		await run('curl', ['-sSf', '-r', '262100-1000000', '-o', file,
			url(at(large))]);
		assert.ok(fs.readFileSync(file).equals(LARGE.subarray(262100, 1000001)));
		fs.writeFileSync(file, LARGE.subarray(0, 5000001));
		await run('curl', ['-sSf', '-C', '-', '-o', file, url(at(large))]);
		assert.equal(sha256(fs.readFileSync(file)), sha256(LARGE));
	});

	test('HEAD is GET without it, 304, 412 and 416 have none of it', async () => {
		const kept = new Connection(port).get(at(large), {}, 'HEAD');
		const bare = await kept.answer({ bare: true });
		assert.equal(bare.status, 200);
		assert.equal(bare.headers['content-length'], String(LARGE.length));
		const etag = bare.headers.etag;
		assert.equal((await kept.get(at(large), { 'If-None-Match': etag })
			.answer()).status, 304);
		assert.equal((await kept.get(at(large), { 'If-Match': '"x"' })
			.answer()).status, 412);
		const unfit = await kept.get(at(small), { Range: 'bytes=10-' }).answer();
		assert.equal(unfit.status, 416);
		assert.equal(unfit.headers['content-range'], 'bytes */10');
		const several = await kept.get(at(small),
			{ Range: 'bytes=0-,0-,0-,0-' }).answer();
		assert.equal(several.status, 200);
		for (const [tag, length] of [[several.headers.etag, 3], ['"no"', 10]]) {
			const part = await kept.get(at(small), { Range: 'bytes=-3',
				'If-Range': tag }).answer();
			assert.equal(part.body.length, length, tag);
		}
		kept.close();
	});

	test('has the type it was given, or what a field can have of it', async () => {
		const id = await published(SMALL, 'text/plain; name="日本"');
		const answer = await ask(port, at(id));
		assert.equal(answer.status, 200);
		assert.deepEqual(answer.body, SMALL);
		assert.equal(answer.headers['content-type'], 'text/plain');
		const plain = await published(SMALL, 'text/plain; name="a b"');
		assert.equal((await ask(port, at(plain))).headers['content-type'],
			'text/plain; name="a b"');
	});

	test('of nobody is 404, and other methods are 405', async () => {
		const none = await ask(port, at(1));
		assert.equal(none.status, 404);
		assert.equal(none.headers['content-type'], 'application/problem+json');
		assert.equal(JSON.parse(none.body).status, 404);
		const post = await ask(port, at(small), {}, 'DELETE');
		assert.equal(post.status, 405);
		assert.match(post.headers.allow, /^GET, HEAD/);
		assert.equal((await ask(port, at(small), { Origin: 'https://app.example',
			'Access-Control-Request-Method': 'GET' }, 'OPTIONS')).status, 204);
	});
});

describe('connections', () => {
	test('are kept, and what is pipelined waits its turn', async () => {
		const kept = new Connection(port);
		kept.send(head(at(small)) + head(at(large), { Range: 'bytes=0-999999' }) +
			head(at(1)) + head(at(small), { Connection: 'close' }));
		assert.deepEqual((await kept.answer()).body, SMALL);
		assert.ok((await kept.answer()).body.equals(LARGE.subarray(0, 1000000)));
		assert.equal((await kept.answer()).status, 404);
		assert.equal((await kept.answer()).status, 200);
		await kept.end();
	});

	test('of HTTP/1.0 end with the answer', async () => {
		const old = new Connection(port);
		old.send(`GET ${at(small)} HTTP/1.0\r\nHost: localhost\r\n\r\n`);
		assert.deepEqual((await old.answer()).body, SMALL);
		await old.end();
	});

	test('that do not read hold little, and cost nothing', async () => {
		const begun = await series('http_sent_bytes_total');
		const slow = new Connection(port, { paused: true });
		slow.get(at(large)).send(head(at(small)));
		await until('it has stopped', async () =>
			await series('http_downloads') === 1 &&
			await series('bulk_down_bytes') > 0);
		let last = -1;
		await until('no byte goes out', async () => {
			const sent = await series('http_sent_bytes_total');
			const same = sent === last && sent > begun + 65536;
			last = sent;
			await sleep(150);
			return same;
		});
		assert.ok(await series('bulk_down_bytes') <= 1024 * 1024);
		await idle(gateway);
		slow.read();
		const answer = await slow.answer();
		assert.equal(sha256(answer.body), sha256(LARGE));
		assert.deepEqual((await slow.answer()).body, SMALL);
		slow.close();
	});

	test('that go in the middle leave nothing', async () => {
		const cut = await series('http_cut_total{reason="client"}');
		const before = await series('http_sent_bytes_total');
		const gone = new Connection(port, { paused: true });
		gone.get(at(large));
		await until('it has begun', async () =>
			await series('http_sent_bytes_total') > before);
		gone.close();
		await until('it has gone', async () =>
			await series('http_downloads') === 0 &&
			await series('bulk_down_bytes') === 0 &&
			await series('http_connections') === 0);
		assert.equal(await series('http_cut_total{reason="client"}'), cut + 1);
		assert.ok(gateway.event('http_cut', (line) =>
			line.reason === 'client' && line.path === at(large)));
	});

	test('that go while the database is waited for are no busy loop', async () => {
		const thaw = await bus.freeze();
		try {
			const gone = new Connection(port).get(at(large)).send('GET');
			await until('it is asked', async () =>
				await series('http_downloads') === 1);
			await idle(gateway, 400);
			gone.close();
			await until('it has gone', async () =>
				await series('http_connections') === 0);
			await idle(gateway, 400);
		} finally {
			thaw();
		}
		assert.deepEqual((await ask(port, at(small))).body, SMALL);
	});
});

describe('what was asked for those who have gone', () => {
	test('is not in the queue any more', async () => {
		const thaw = await bus.freeze();
		try {
			// One is in flight, and stays so.
			const first = new Connection(port).get(at(small));
			await until('it is in flight', async () =>
				await series('batches_in_flight{lane="long"}') === 1);
			const others = Array.from({ length: 10 }, () =>
				new Connection(port).get(at(small)));
			await until('others are queued', async () =>
				await series('requests_queued{lane="long"}') === 10);
			for (const one of others) one.close();
			await until('they are gone', async () =>
				await series('requests_queued{lane="long"}') === 0);
			first.close();
		} finally {
			thaw();
		}
		assert.deepEqual((await ask(port, at(small))).body, SMALL);
	});
});

describe('a head', () => {
	const bad = {
		'folded': 'A: b\r\n c: d\r\n',
		'with space before the colon': 'A : b\r\n',
		'without a colon': 'A\r\n',
		'with a bare line feed': 'A: b\n',
		'with a zero byte': 'A: b\0c\r\n',
		'with two Ranges': 'Range: bytes=0-\r\nRange: bytes=0-\r\n',
		'with two tokens': 'Authorization: a\r\nAuthorization: a\r\n',
		'with two hosts': 'Host: localhost\r\n',
		'with a length and an encoding':
			'Content-Length: 1\r\nTransfer-Encoding: chunked\r\n'
	};
	for (const [what, lines] of Object.entries(bad)) {
		test(`${what} is 400, and the last`, async () => {
			const one = new Connection(port).send(
				`GET ${at(small)} HTTP/1.1\r\nHost: localhost\r\n${lines}\r\n` +
				head(at(small)));
			const answer = await one.answer();
			assert.equal(answer.status, 400);
			assert.equal(answer.headers['content-type'],
				'application/problem+json');
			assert.equal((await one.answer()).status, 0);
		});
	}

	test('over its bounds is 414 or 431, of another version 505', async () => {
		assert.equal((await ask(port, '/' + 'a'.repeat(9000))).status, 414);
		assert.equal((await ask(port, '/', { A: 'a'.repeat(17000) })).status, 431);
		const many = Object.fromEntries(Array.from({ length: 101 },
			(_, i) => [`A${i}`, 'b']));
		assert.equal((await ask(port, '/', many)).status, 431);
		const other = new Connection(port).send('GET / HTTP/2.0\r\n\r\n');
		assert.equal((await other.answer()).status, 505);
	});

	test('with a body is 413', async () => {
		const post = new Connection(port).send(
			head(at(small), { 'Content-Length': '5' }, 'POST') + 'hello' +
			head(at(small)));
		assert.equal((await post.answer()).status, 413);
		await post.end();
	});

	test('that does not come is 408, and without a byte closed', async () => {
		const hurried = await open({ HTTP_CLIENT_TIMEOUT_SECS: '1' });
		const slow = new Connection(hurried.door).send('GET / HTTP/1.1\r\n');
		const silent = new Connection(hurried.door);
		assert.equal((await slow.answer()).status, 408);
		assert.equal((await silent.answer()).status, 0);
		await hurried.kill();
	});

	test('and beside others that come all the time', async () => {
		const hurried = await open({ HTTP_CLIENT_TIMEOUT_SECS: '1' });
		const slow = new Connection(hurried.door).send('GET / HTTP/1.1\r\n');
		const others = setInterval(() => {
			const one = new Connection(hurried.door);
			one.socket.on('connect', () => one.close());
		}, 50);
		try {
			assert.equal((await slow.answer({ seconds: 10 })).status, 408);
		} finally {
			clearInterval(others);
		}
		await hurried.kill();
	});

	test('has a path that is left alone', async () => {
		for (const path of ['/v1/messages/..%2F1', '/v1/messages/1;a', '/v1/a/../b',
			'//v1/messages/1', '/v1/messages/+1', '/v1/messages/1&b']) {
			assert.equal((await ask(port, path)).status, 404, path);
		}
		const zero = await ask(port, `${at(small)}%00`);
		assert.equal(zero.status, 400);
	});
});

describe('who asks', () => {
	test('for another host gets 403', async () => {
		assert.equal((await ask(port, at(small),
			{ Host: 'evil.example' })).status, 403);
		assert.equal((await ask(port, `http://evil.example${at(small)}`)).status,
			403);
		assert.equal((await ask(port, `http://localhost:1${at(small)}`,
			{ Host: 'evil.example' })).status, 200);
	});

	test('from a page gets 403 where nobody authenticates', async () => {
		for (const [headers, status] of [
			[{ Origin: 'https://evil.example' }, 403],
			[{ 'Sec-Fetch-Site': 'cross-site' }, 403],
			[{ 'Sec-Fetch-Site': 'same-site' }, 403],
			[{ 'Sec-Fetch-Site': 'none' }, 200],
			[{ 'Sec-Fetch-Dest': 'script' }, 403],
			[{ Origin: 'https://app.example',
				'Sec-Fetch-Site': 'cross-site' }, 200]]) {
			const answer = await ask(port, at(small), headers);
			assert.equal(answer.status, status, JSON.stringify(headers));
			assert.equal(answer.headers['access-control-allow-origin'],
				status === 200 ? headers.Origin : undefined);
		}
	});
});

describe('what ends a download', () => {
	// begin reads the head of a large answer and no more for now.
	async function begin(of = gateway, id = large) {
		const before = await series('http_sent_bytes_total', of);
		const slow = new Connection(of.door, { paused: true });
		slow.get(at(id));
		await until('it has begun', async () =>
			await series('http_sent_bytes_total', of) > before);
		return slow;
	}

	// cut reads on, and looks that what came is the beginning, and cut.
	async function cut(slow, reason) {
		slow.read();
		const answer = await slow.answer();
		assert.equal(answer.status, 200);
		assert.ok(answer.cut && answer.body.length > 0);
		assert.ok(answer.body.equals(LARGE.subarray(0, answer.body.length)));
		assert.equal(await series(`http_cut_total{reason="${reason}"}`), 1);
	}

	test('is that its message is deleted', async () => {
		const id = await published(LARGE, 'a/b', { transaction_id: 'deleted' });
		const slow = await begin(gateway, id);
		await bus.sql(`SET message_bus.default_channel = 'events';
			SELECT message_bus.delete_message('deleted')`);
		await cut(slow, 'deleted');
	});

	test('or has expired', async () => {
		const id = await published(LARGE, 'a/b', { ttl: '2 seconds' });
		const slow = await begin(gateway, id);
		await until('its end', async () => await bus.sql(`SELECT count(*)
			FROM message_bus.messages WHERE id = ${id}`) === '0');
		await cut(slow, 'expired');
	});

	test('or the right to it is lost', async () => {
		const id = await published(LARGE, 'a/b', { channel: 'default' });
		const slow = await begin(gateway, id);
		await bus.sql("SELECT message_bus.revoke_channel('default', 'app', 'all')");
		await cut(slow, 'denied');
	});

	test('not that its database connection is lost', async () => {
		const slow = await begin();
		await bus.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'message-bus-gateway'`);
		slow.read();
		assert.equal(sha256((await slow.answer()).body), sha256(LARGE));
		slow.close();
		await until('readyz', async () =>
			(await gateway.get('/readyz')).status === 200);
	});

	test('is a client that takes nothing', async () => {
		const strict = await open({ MESSAGE_BUS_SEND_TIMEOUT_SECS: '1' });
		const slow = await begin(strict);
		await until('it is cut', async () =>
			await series('http_cut_total{reason="slow"}', strict) === 1);
		slow.close();
		await strict.kill();
	});

	test('is not a gateway that stops, for 30 s', async () => {
		const stopping = await open();
		const slow = await begin(stopping);
		const idler = new Connection(stopping.door).get(at(small));
		await idler.answer();
		stopping.child.kill('SIGTERM');
		await idler.end();
		slow.read();
		assert.equal(sha256((await slow.answer()).body), sha256(LARGE));
		assert.equal(await stopping.exited, 0);
	});

	test('is a second signal', async () => {
		const stopping = await open();
		const slow = await begin(stopping);
		stopping.child.kill('SIGTERM');
		await until('it stops', () => stopping.event('stopping'));
		stopping.child.kill('SIGTERM');
		assert.equal(await stopping.exited, 0);
		slow.read();
		assert.ok((await slow.answer()).cut);
		await until('the line', () => stopping.event('http_cut',
			(line) => line.reason === 'stopping'));
	});
});

describe('bounds', () => {
	test('of a client: 429, and the next is answered later', async () => {
		const few = await open({ MESSAGE_BUS_HTTP_PER_CLIENT: '2' });
		const slow = [1, 2].map(() =>
			new Connection(few.door, { paused: true }).get(at(large)));
		await until('both are there', async () =>
			await series('http_downloads', few) === 2);
		const third = await ask(few.door, at(small));
		assert.equal(third.status, 429);
		assert.equal(third.headers['retry-after'], '1');
		for (const one of slow) one.close();
		await until('there is room', async () =>
			(await ask(few.door, at(small))).status === 200);
		await few.kill();
	});

	test('of connections: a part of a head keeps nobody out', async () => {
		const few = await open({ MESSAGE_BUS_HTTP_DOWNLOADS: '2',
			HTTP_CLIENT_TIMEOUT_SECS: '60' });
		const parts = [1, 2, 3, 4].map(() => new Connection(few.door).send('G'));
		await until('they are there', async () =>
			await series('http_connections', few) === 4);
		assert.equal((await ask(few.door, at(small))).status, 200);
		await until('one has made room', () => parts.some((one) => one.ended));
		for (const one of parts) one.close();
		await few.kill();
	});

	test('of all: 503, and connections beyond twice that wait', async () => {
		const few = await open({ MESSAGE_BUS_HTTP_DOWNLOADS: '2' });
		const slow = [1, 2].map(() =>
			new Connection(few.door, { paused: true }).get(at(large)));
		await until('both are there', async () =>
			await series('http_downloads', few) === 2);
		const third = await ask(few.door, at(small));
		assert.equal(third.status, 503);
		assert.equal(third.headers['retry-after'], '1');
		// Two more that say nothing, of which the first makes room.
		const silent = [1, 2, 3].map(() => new Connection(few.door));
		await until('the first has gone', () => silent[0].ended);
		assert.ok(await series('http_connections', few) <= 4);
		for (const one of [...slow, ...silent]) one.close();
		await few.kill();
	});

	test('of memory: many who do not read share the pool', async () => {
		const tight = await open({ MESSAGE_BUS_BULK_MB: '16',
			MESSAGE_BUS_HTTP_PER_CLIENT: '100' });
		await ask(tight.door, at(large));
		const start = memory(tight.child.pid);
		const slow = Array.from({ length: 60 }, () =>
			new Connection(tight.door, { paused: true }).get(at(large)));
		await until('all are there', async () =>
			await series('http_downloads', tight) === 60);
		await until('and quiet', async () => {
			const sent = await series('http_sent_bytes_total', tight);
			await sleep(200);
			return await series('http_sent_bytes_total', tight) === sent;
		});
		assert.ok(await series('bulk_down_bytes', tight) <= 10 * 1024 * 1024);
		assert.ok(memory(tight.child.pid) - start < 32 * 1024,
			`it grew by ${memory(tight.child.pid) - start} KiB`);
		for (const one of slow) one.close();
		assert.deepEqual((await ask(tight.door, at(small))).body, SMALL);
		await tight.kill();
	});

	test('of the database: without it 503 at once', async () => {
		const alone = await open({ ready: false,
			DATABASE_URL: 'postgresql://nobody@/none?host=/nonexistent' });
		const answer = await ask(alone.door, at(small));
		assert.equal(answer.status, 503);
		assert.equal(answer.headers['retry-after'], '1');
		await alone.kill();
	});
});

describe('tokens and capabilities', () => {
	let door;

	before(async () => {
		await bus.sql(`CREATE ROLE anon; CREATE ROLE alice;
			GRANT anon, alice TO gateway;
			GRANT EXECUTE ON FUNCTION message_bus.open_session(bigint, text, json),
				message_bus.close_session(bigint) TO gateway;
			SELECT message_bus.grant_channel('events', 'alice', 'all');
			SELECT message_bus.set_jwt_keys('${jwks}')`);
		door = await open({ MESSAGE_BUS_ROLE: '' });
	});

	const bearer = (claims) => ({ Authorization: `Bearer ${token(claims)}` });

	test('say who asks, without one it is 401', async () => {
		assert.equal((await ask(door.door, at(small), bearer({ role: 'alice' })))
			.status, 200);
		const none = await ask(door.door, at(small));
		assert.equal(none.status, 401);
		assert.match(none.headers['www-authenticate'], /^Bearer/);
		const bad = await ask(door.door, at(small),
			{ Authorization: `Bearer ${token({ role: 'alice' })}x` });
		assert.equal(bad.status, 401);
	});

	test('are of one subject, however many there are', async () => {
		const few = await open({ MESSAGE_BUS_ROLE: '',
			MESSAGE_BUS_HTTP_PER_CLIENT: '2' });
		const slow = [1, 2].map((jti) => new Connection(few.door,
			{ paused: true }).get(at(large),
			bearer({ role: 'alice', sub: 'one', jti: `${jti}` })));
		await until('both have begun', async () =>
			await series('http_sent_bytes_total', few) > 2 * 65536);
		assert.equal((await ask(few.door, at(small),
			bearer({ role: 'alice', sub: 'one', jti: '3' }))).status, 429);
		assert.equal((await ask(few.door, at(small),
			bearer({ role: 'alice', sub: 'two' }))).status, 200);
		for (const one of slow) one.close();
		await until('there is room', async () =>
			(await ask(few.door, at(small), bearer({ role: 'alice', sub: 'one',
				jti: '4' }))).status === 200);
		await few.kill();
	});

	test('a connection speaks for whom its last request names', async () => {
		const kept = new Connection(door.door);
		const status = async (headers) =>
			(await kept.get(at(small), headers).answer()).status;
		assert.equal(await status(bearer({ role: 'alice' })), 200);
		assert.equal(await status({}), 401);
		assert.equal(await status({ Authorization: 'Bearer a.b.c' }), 401);
		assert.equal(await status(bearer({ role: 'alice', sub: 'b' })), 200);
		kept.close();
	});

	test('a link is enough, from any page, and in no log', async () => {
		const link = await bus.sql(`SET ROLE alice;
			SELECT message_bus.body_url(${small})`);
		const target = link.slice(link.indexOf('/v1/'));
		const answer = await ask(door.door, target,
			{ Origin: 'https://any.example', 'Sec-Fetch-Dest': 'image' });
		assert.equal(answer.status, 200);
		assert.deepEqual(answer.body, SMALL);
		assert.equal(answer.headers['access-control-allow-origin'], '*');
		const cap = target.split('cap=')[1];
		const lines = JSON.stringify(door.lines);
		assert.ok(lines.includes(at(small)) && !lines.includes(cap));
		const log = fs.readFileSync(path.join(bus.directory, 'server.log'), 'utf8');
		assert.ok(!log.includes(cap));
	});

	test('a browser shows an image from one', async (t) => {
		if (spawnSync('chromium', ['--version']).status !== 0) {
			t.skip('chromium is not installed');
			return;
		}
		// A blue square of 1 pixel.
		const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAA' +
			'DUlEQVR42mNkYPj/HwADBwIAMCbHYQAAAABJRU5ErkJggg==', 'base64');
		const id = await published(png, 'image/png');
		const link = await bus.sql(`SET ROLE alice;
			SELECT message_bus.body_url(${id})`);
		const page = path.join(bus.directory, 'page.html');
		fs.writeFileSync(page, `<img src="http://localhost:${door.door}` +
			`${link.slice(link.indexOf('/v1/'))}" onload="document.title =` +
			` 'seen ' + this.naturalWidth" onerror="document.title = 'not seen'">`);
		const { stdout } = await run('chromium', ['--headless', '--no-sandbox',
			'--disable-gpu', '--virtual-time-budget=5000', '--dump-dom',
			`--user-data-dir=${bus.directory}/chromium`, `file://${page}`],
		{ timeout: 60000 });
		assert.match(stdout, /<title>seen 1<\/title>/);
	});
});
