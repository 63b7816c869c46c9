/*
 * scenario.js
 *	  The main job of the bus, played once and told: this machine's list of
 *	  packages goes over a WebSocket into the database, comes back by its id
 *	  and by its transaction id, is audited in SQL, and a message with a short
 *	  TTL goes away.
 *
 * Usage: node scenario.js URL CHANNEL
 *
 * psql finds the database by libpq's environment variables.  Anything that is
 * not as it should be ends the script with status 1.
 */
'use strict';

const assert = require('assert');
const { execFileSync } = require('child_process');
const crypto = require('crypto');
const WebSocket = require('ws');

const [url, channel] = process.argv.slice(2);
const NOT_FOUND = -32003;

/* Client speaks JSON-RPC over one WebSocket. */
class Client {
  constructor(socket) {
    this.socket = socket;
    this.lastId = 0;
    this.waiting = new Map();
    socket.on('message', (data, isBinary) => this.receive(data, isBinary));
  }

  static open(address) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(`${address}?max_message_bytes=33554432`);

      socket.on('open', () => resolve(new Client(socket)));
      socket.on('error', reject);
      socket.on('close', () => reject(new Error('the connection is closed')));
    });
  }

  /* call sends a text frame and returns the reply, a result or an error. */
  call(method, params) {
    const id = ++this.lastId;

    this.socket.send(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }

  receive(data, isBinary) {
    assert(!isBinary, 'nobody asked for binary frames');
    const reply = JSON.parse(data.toString());

    this.waiting.get(reply.id)(reply);
    this.waiting.delete(reply.id);
  }
}

/* packageList returns what is installed on this machine. */
function packageList() {
  const format = '${Package}\t${Version}\t${Architecture}\t' +
    '${Installed-Size}\t${Maintainer}\n';
  const lines = execFileSync('dpkg-query', ['-W', '-f', format],
    { encoding: 'utf8', maxBuffer: 1 << 28 }).trimEnd().split('\n');

  return lines.map((line) => {
    const [name, version, architecture, kib, maintainer] = line.split('\t');

    return { name, version, architecture, kib: Number(kib), maintainer };
  });
}

function sha256(text) {
  return crypto.createHash('sha256').update(text).digest('hex');
}

function bytes(number) {
  return `${number.toLocaleString('en')} bytes`;
}

/* timed returns what a promise gives and the milliseconds it took. */
async function timed(promise) {
  const start = process.hrtime.bigint();
  const value = await promise;

  return [value, (Number(process.hrtime.bigint() - start) / 1e6).toFixed(1)];
}

/* good returns the result of a reply that must have one. */
function good(reply) {
  assert(reply.error === undefined, JSON.stringify(reply.error));
  return reply.result;
}

/* publishPackages publishes the list and reads it back in two ways. */
async function publishPackages(client) {
  const packages = packageList();
  const text = JSON.stringify(packages);
  const digest = sha256(text);
  const transactionId = `packages-${Date.now()}`;
  const headers = { tool_name: 'dpkg-query', host: require('os').hostname() };

  console.log(`\n1. Publish the list of the ${packages.length} packages of ` +
    `this machine\n   ${bytes(Buffer.byteLength(text))} of JSON, ` +
    `transaction id ${transactionId}\n   sha256 here    ${digest}`);
  const [published, publishMs] = await timed(client.call('publish',
    { channel, payload: packages, transaction_id: transactionId, headers }));
  const id = good(published);

  console.log(`   stored as message ${id}, durable after ${publishMs} ms`);

  const reads = [
    ['2. Read it by its id', client.call('get', { id })],
    ['3. Read it by its transaction id', client.call('get_by_transaction',
      { channel, transaction_id: transactionId })],
  ];
  for (const [title, promise] of reads) {
    const [reply, ms] = await timed(promise);
    const message = good(reply);
    const payload = JSON.stringify(message.payload);

    console.log(`\n${title}\n   ${bytes(Buffer.byteLength(payload))}, ` +
      `${ms} ms\n   sha256 stored  ${message.sha256}\n` +
      `   sha256 of what came back ${sha256(payload)}`);
    assert.equal(message.id, id);
    assert.equal(message.sha256, digest);
    assert.equal(sha256(payload), digest);
  }
  console.log('   All three are equal: it came back byte for byte.');
  return id;
}

/* audit shows what the database knows about the message. */
function audit(id) {
  const query = 'SELECT id, channel, transaction_id, publisher, size, ' +
    'sha256, created_at,\n    ' +
    `expires_at, headers\nFROM message_bus.messages WHERE id = ${id}`;
  const shown = execFileSync('psql', ['-X', '-x', '-P', 'footer=off', '-c',
    query], { encoding: 'utf8' });

  console.log(`\n4. Audit it in SQL\n\n${query};\n\n${shown.trimEnd()}`);
  assert(shown.includes(String(id)));
}

/* expire publishes a message that lives for a second, and sees it go. */
async function expire(client) {
  const id = good(await client.call('publish',
    { channel, payload: { note: 'gone soon' }, ttl: '1 second' }));
  const start = Date.now();
  let reply = await client.call('get', { id });

  console.log('\n5. A message with a TTL of one second\n' +
    `   message ${id}: ${JSON.stringify(good(reply).payload)}`);
  while (reply.error === undefined) {
    assert(Date.now() - start < 10000, 'the message did not expire');
    await new Promise((resolve) => setTimeout(resolve, 20));
    reply = await client.call('get', { id });
  }
  assert.equal(reply.error.code, NOT_FOUND);
  console.log(`   after ${((Date.now() - start) / 1000).toFixed(2)} s: ` +
    `${reply.error.code} ${reply.error.message}`);
}

async function main() {
  const client = await Client.open(url);

  audit(await publishPackages(client));
  await expire(client);
  process.exit(0);
}

main().catch((error) => {
  console.error(`scenario: ${error.message}`);
  process.exit(1);
});
