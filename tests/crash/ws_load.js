/*
 * ws_load.js
 *	  Publish random bytes over WebSockets while the gateway is killed again
 *	  and again.
 *
 * Usage: node ws_load.js URL CHANNEL LEDGER CONNECTIONS
 *
 * Each connection keeps four calls in flight and is opened again when it
 * breaks.  The ledger is that of load.c, which also verifies it.  SIGTERM
 * lets the calls in flight finish.
 */
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const WebSocket = require('ws');

const [url, channel, ledgerName, connections] = process.argv.slice(2);
const IN_FLIGHT = 4;
const RETRY_MS = 20;
const FINISH_MS = 10000;
const OUTCOME_UNKNOWN = -32050;

const ledger = fs.openSync(ledgerName, 'a');
let calls = 0;
let busy = 0;
let stopping = false;

/* record writes the outcome of a call to the ledger. */
function record(outcome, call, last) {
  fs.writeSync(ledger, `${outcome} ${call.number} ${call.transactionId} ` +
    `${call.sha256} ${call.size} ${last}\n`);
  busy--;
  if (stopping && busy === 0)
    process.exit(0);
}

/* send publishes one message in a binary frame. */
function send(socket, pending) {
  const number = ++calls;
  const size = 1 + crypto.randomInt(number % 32 === 0 ? 200000 : 4000);
  const payload = crypto.randomBytes(size);
  const call = {
    number,
    transactionId: `${process.pid}-${number}-0`,
    sha256: crypto.createHash('sha256').update(payload).digest('hex'),
    size,
  };
  const header = JSON.stringify({
    jsonrpc: '2.0',
    id: number,
    method: 'publish',
    params: { channel, transaction_id: call.transactionId },
  });

  pending.set(number, call);
  busy++;
  socket.send(Buffer.concat([Buffer.from(header + '\n'), payload]));
}

/* receive takes in a reply. */
function receive(pending, data, isBinary) {
  const text = isBinary ? data.subarray(0, data.indexOf(0x0a)) : data;
  const reply = JSON.parse(text.toString());
  const call = pending.get(reply.id);

  if (!call)
    throw new Error(`no call of ours: ${text}`);
  pending.delete(reply.id);
  if (reply.result !== undefined)
    record('A', call, reply.result);
  else if (reply.error.code === OUTCOME_UNKNOWN)
    record('U', call, '-');
  else
    record('E', call, reply.error.code);
}

/* connect opens a connection and keeps it busy. */
function connect() {
  const pending = new Map();
  const socket = new WebSocket(url, { perMessageDeflate: false });

  socket.on('open', () => {
    for (let i = 0; i < IN_FLIGHT && !stopping; i++)
      send(socket, pending);
  });
  socket.on('message', (data, isBinary) => {
    receive(pending, data, isBinary);
    if (!stopping)
      send(socket, pending);
  });
  socket.on('error', () => { });
  socket.on('close', () => {
    for (const call of pending.values())
      record('U', call, '-');
    if (!stopping)
      setTimeout(connect, RETRY_MS);
  });
}

process.on('SIGTERM', () => {
  stopping = true;
  if (busy === 0)
    process.exit(0);
  setTimeout(() => process.exit(2), FINISH_MS);
});
for (let i = 0; i < Number(connections); i++)
  connect();
