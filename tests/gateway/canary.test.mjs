// canary.test.mjs
//     What is in a message reaches no log and no view of errors, however wrong
//     the frame is that brings it.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Bus, until } from './bus.mjs';

const CANARY = 'hunter2canary';
let bus;
let gateway;

before(async () => {
	bus = await Bus.start({ settings: 'log_min_error_statement = panic' });
	gateway = await bus.gateway();
});
after(() => bus?.stop());

const secret = { password: CANARY };
const channel = 'events';

// what each is called with; all are refused
const wrong = [
	['publish_text', { channel, payload: secret }],
	['publish_text', { channel, payload: [CANARY] }],
	['publish_text', { channel, payload: `{"a":${CANARY}`,
		content_type: 'application/json' }],
	['publish_text', { channel, payload: CANARY, headers: CANARY }],
	['publish_text', { channel, payload: CANARY, ttl: secret }],
	['publish_text', { channel, payload: CANARY, key: secret }],
	['publish_text', { channel, payload: CANARY, content_type: secret }],
	['publish_text', { channel: secret, payload: '1' }],
	['publish', { channel, payload: secret, encoding: 'base64' }],
	['publish', { channel, payload: `-${CANARY}`, encoding: 'base64' }],
	['publish', { channel, payload: CANARY, encoding: secret }],
	['publish', { channel, payload: CANARY, sha256: [CANARY] }],
	['publish_batch', { channel, messages: CANARY }],
	['publish_batch', { channel, messages: [CANARY] }],
	['publish_batch', { channel, messages: [{ payload: 1, key: secret }] }],
	['publish_batch', { channel, messages: [{ payload: 1, headers: CANARY }] }],
	['store_message', { channel, payload: secret, size: CANARY }],
	['nack', { lease: 1, reason: secret }],
	['nack', { lease: 1, reason: [CANARY] }],
	['nack', { lease: secret, reason: CANARY }]
];

// binary frames: a header line's method and params, other members, and bytes
const wrongBinary = [
	['publish', { channel, content_type: 'text/json' }, {}, `{"a":${CANARY}`],
	['publish', { channel, content_type: 'text/json' }, {}, `${CANARY} {`],
	['publish', { channel, content_type: 'text/json' }, {}, `{"a":"${CANARY}`],
	['publish', { channel, content_type: 'x/y+json' }, {}, `[1,${CANARY}]`],
	['publish_batch', { channel, messages: [CANARY] }, { bodies: [1] }, '1'],
	['publish_batch', { channel, messages: CANARY }, { bodies: [1] }, '1'],
	['publish_batch', { channel, messages: [{ body: secret }] },
		{ bodies: [1] }, '1'],
	['publish_batch', { channel, messages: [{ body: 0,
		content_type: 'application/json' }] }, { bodies: [CANARY.length] }, CANARY]
];

// frames that cannot be taken apart
const broken = [`{"jsonrpc":"2.0","id":"b0","method":"publish","params":{"payload":${CANARY}}}`,
	`{"jsonrpc":"2.0","id":"b1","method":"publish","params":{"payload":"${CANARY}\u0001"}}`];

const sql = [
	`message_bus.publish_bytes('events', '{"a":${CANARY}', content_type => 'application/json')`,
	`message_bus.publish_text('events', '{"a":${CANARY}', content_type => 'application/json')`,
	`message_bus.publish_bytes('events', convert_to('"${CANARY}', 'UTF8'), content_type => 'application/json')`
];

test('what a message holds reaches no log', async () => {
	const client = await gateway.client();
	for (const [method, params] of wrong) {
		await assert.rejects(client.call(method, params), (error) =>
			error.code <= -32000, JSON.stringify(params));
	}
	for (const [i, [method, params, more, body]] of wrongBinary.entries()) {
		const reply = client.expect(`x${i}`);
		client.raw(Buffer.from(JSON.stringify({ jsonrpc: '2.0', id: `x${i}`,
			method, params, ...more }) + '\n' + body));
		await assert.rejects(reply, (error) => error.code <= -32000,
			JSON.stringify([params, body]));
	}
	for (const [i, text] of broken.entries()) {
		const reply = client.expect(`b${i}`);
		client.raw(text);
		await assert.rejects(reply, (error) => error.code === -32700);
	}
	for (const call of sql) {
		await assert.rejects(bus.sql(`SELECT ${call}`), (error) =>
			/invalid input syntax for type json/.test(error.stderr) &&
			!error.stderr.includes(CANARY));
	}
	const failed = wrong.length + wrongBinary.length + broken.length;
	await until('the errors', async () => Number(await bus.sql(
		'SELECT count(*) FROM message_bus.errors')) >= failed + sql.length);
	const log = fs.readFileSync(path.join(bus.directory, 'server.log'), 'utf8');
	assert.equal(log.match(/frame failed with/g).length, failed);
	const found = (text) => text.split('\n').filter((line) =>
		line.includes(CANARY));
	assert.deepEqual(found(log), []);
	assert.deepEqual(found(gateway.lines.map((line) => JSON.stringify(line))
		.join('\n')), []);
	assert.deepEqual(found(await bus.sql(
		'SELECT e::text FROM message_bus.errors e')), []);
});
