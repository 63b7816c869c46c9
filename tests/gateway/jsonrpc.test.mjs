// jsonrpc.test.mjs
//     JSON-RPC 2.0 to the letter: the specification's examples (section 7),
//     ids of every legal form, batches and notifications, as a table that runs
//     through a real gateway.
//
// The examples call subtract, sum and others that do not exist here; where an
// example is about a result, ping stands for the method. A method that fails
// as a notification has no response, as the specification demands; it is told
// by a notification of the server, "error", in a frame of its own.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Bus, until } from './bus.mjs';

let bus, gateway;

before(async () => {
	bus = await Bus.start();
	gateway = await bus.gateway();
});

after(() => bus.stop());

const pong = (id) => ({ jsonrpc: '2.0', id, result: 'pong' });
const failed = (id, code) => ({ jsonrpc: '2.0', id, error: { code } });
const notice = (method, code) => ({ jsonrpc: '2.0', method: 'error',
	params: { code, method } });

// bare takes out of a reply what the specification leaves to the server; the
// rest must be as it says, member by member.
function bare(reply) {
	if (Array.isArray(reply)) return reply.map(bare);
	for (const error of [reply.error, reply.method && reply.params]) {
		if (!error) continue;
		assert.equal(typeof error.message, 'string');
		assert.ok(error.message.length > 0);
		assert.equal(typeof error.data, 'object');
		delete error.message;
		delete error.data;
	}
	return reply;
}

// ask sends a text on a connection of its own and returns the texts of all
// frames that came until a ping behind it was answered, and until there were
// `least` of them: a name with escapes takes the other lane, which the ping may
// overtake.
async function ask(text, least = 0) {
	const client = await gateway.client();
	const texts = [];
	client.socket.on('message', (data) => texts.push(data.toString()));
	client.raw(text);
	client.raw('{"jsonrpc":"2.0","id":"the end","method":"ping"}');
	const last = '{"jsonrpc":"2.0","id":"the end","result":"pong"}';
	await until('the end',
		() => texts.includes(last) && texts.length > least);
	client.socket.terminate();
	return texts.filter((one) => one !== last);
}

const examples = [
	['call with positional parameters, which no method takes',
		'{"jsonrpc": "2.0", "method": "ping", "params": [42, 23], "id": 1}',
		[failed(1, -32602)]],
	['call with positional parameters of a method that does not exist',
		'{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 2}',
		[failed(2, -32601)]],
	['call with named parameters',
		'{"jsonrpc": "2.0", "method": "ping", "params": {}, "id": 3}',
		[pong(3)]],
	['call with named parameters that do not exist',
		'{"jsonrpc": "2.0", "method": "ping", "params": {"minuend": 42}, "id": 4}',
		[failed(4, -32602)]],
	['call without parameters',
		'{"jsonrpc": "2.0", "method": "ping", "id": 4}', [pong(4)]],
	['notification', '{"jsonrpc": "2.0", "method": "ping"}', []],
	['notification with parameters',
		'{"jsonrpc": "2.0", "method": "ping", "params": {}}', []],
	['notification of a method that does not exist',
		'{"jsonrpc": "2.0", "method": "foobar"}', [notice('foobar', -32601)]],
	['notification with positional parameters',
		'{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}',
		[notice('update', -32601)]],
	['call of a method that does not exist',
		'{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
		[failed('1', -32601)]],
	['call with invalid JSON',
		'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
		[failed(null, -32700)]],
	['call with an invalid request object',
		'{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
		[failed(null, -32600)]],
	['batch with invalid JSON', `[
		{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
		{"jsonrpc": "2.0", "method"
	]`, [[failed('1', -32700)]]],
	['empty array', '[]', [failed(null, -32600)]],
	['invalid batch that is not empty', '[1]', [[failed(null, -32600)]]],
	['invalid batch', '[1,2,3]', [[failed(null, -32600), failed(null, -32600),
		failed(null, -32600)]]],
	['batch', `[
		{"jsonrpc": "2.0", "method": "ping", "params": {}, "id": "1"},
		{"jsonrpc": "2.0", "method": "ping"},
		{"jsonrpc": "2.0", "method": "ping", "params": {}, "id": "2"},
		{"foo": "boo"},
		{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
		{"jsonrpc": "2.0", "method": "ping", "id": "9"}
	]`, [[pong('1'), pong('2'), failed(null, -32600), failed('5', -32601),
		pong('9')]]],
	['batch of notifications', `[
		{"jsonrpc": "2.0", "method": "ping"},
		{"jsonrpc": "2.0", "method": "ping", "params": {}}
	]`, []],
	['batch with notifications that fail', `[
		{"jsonrpc": "2.0", "method": "one"},
		{"jsonrpc": "2.0", "method": "ping", "id": 1},
		{"jsonrpc": "2.0", "method": "two"}
	]`, [[pong(1)], notice('one', -32601), notice('two', -32601)]],
	['batch of notifications that fail',
		'[{"jsonrpc": "2.0", "method": "one"}]', [notice('one', -32601)]],
	['batch in a batch', '[[{"jsonrpc": "2.0", "method": "ping", "id": 1}]]',
		[[failed(null, -32600)]]],
	['version as a number', '{"jsonrpc": 2.0, "method": "ping", "id": 1}',
		[failed(1, -32600)]],
	['no version', '{"method": "ping", "id": 1}', [failed(1, -32600)]],
	['parameters that are no structure',
		'{"jsonrpc": "2.0", "method": "ping", "params": 1, "id": 1}',
		[failed(1, -32600)]],
	['white space around', ' \t\r\n{"jsonrpc":"2.0",\n"method":"ping","id":1}\n',
		[pong(1)]],
	['names and values with escapes',
		'{"js\\u006fnrpc":"2\\u002e0","method":"p\\u0069ng","\\u0069d":1}',
		[pong(1)]],
	['members that are not the specification\'s',
		'{"jsonrpc":"2.0","method":"ping","id":1,"meta":{"a":[]}}', [pong(1)]],
	['an id twice', '{"jsonrpc":"2.0","method":"ping","id":1,"id":2}',
		[failed(1, -32600)]],
	['two texts in one', '{"jsonrpc":"2.0","method":"ping","id":1}{}',
		[failed(1, -32700)]],
	['no JSON behind its id', '{"jsonrpc":"2.0","id":77,"method":"ping",' +
		'"params":{"mean":NaN}}', [failed(77, -32700)]],
	['no JSON before its id', '{"jsonrpc":"2.0","method":"ping",' +
		'"params":{"mean":NaN},"id":"x"}', [failed('x', -32700)]]];

describe('what is sent, and what comes back', () => {
	for (const [name, text, expected] of examples) {
		test(name, async () => {
			const replies = (await ask(text, expected.length)).map(
				(reply) => JSON.parse(reply));
			assert.deepEqual(bare(replies), expected);
		});
	}
});

describe('an id comes back as it was written', () => {
	const ids = ['0', '-0', '1', '-1', '1.0', '1.50', '1e400', '1E+2', '-1.5e-3',
		'9007199254740993', '123456789012345678901234567890', '""', '"1"',
		'"é€😀"', '"a\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\u0000\\ud800"', '" "', 'null'];
	for (const id of ids) {
		test(id, async () => {
			const [reply] = await ask(
				`{"jsonrpc":"2.0","id":${id},"method":"ping"}`);
			assert.equal(reply, `{"jsonrpc":"2.0","id":${id},"result":"pong"}`);
			const [error] = await ask(
				`{"jsonrpc":"2.0","id":${id},"method":"none"}`);
			assert.ok(error.startsWith(
				`{"jsonrpc":"2.0","id":${id},"error":{"code":-32601,`), error);
		});
	}
	for (const id of ['true', '{}', '[1]', '{"id":1}']) {
		test(`${id} is no id`, async () => {
			const [reply] = await ask(
				`{"jsonrpc":"2.0","id":${id},"method":"ping"}`);
			assert.deepEqual(bare(JSON.parse(reply)), failed(null, -32600));
		});
	}
});
