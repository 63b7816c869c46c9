// pinger.mjs
//     A client that behaves, in a thread of its own, so that what the tests
//     are busy with delays it no more than another process would.
//
// It sends one ping after the other to the gateway of its workerData, and
// upon a message ends and says how many were served and how long the slowest
// took.

import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Client, sleep } from './bus.mjs';

const PAUSE_MS = 10;
const AT_LEAST = 3;

// start returns a running pinger, once it has been served.
export async function start(port) {
	const worker = new Worker(new URL(import.meta.url), { workerData: port });
	const failed = new Promise((_, reject) => worker.once('error', reject));
	const told = () => Promise.race([failed, new Promise((resolve) =>
		worker.once('message', resolve))]);
	failed.catch(() => {});
	await told();
	return { async stop() {
		const result = told();
		worker.postMessage('stop');
		return result;
	} };
}

async function main() {
	const client = new Client(`ws://127.0.0.1:${workerData}/`);
	let served = 0, worst = 0, over = false;
	await client.opened;
	await client.call('ping');
	parentPort.once('message', () => { over = true; });
	parentPort.postMessage('ready');
	while (!over || served < AT_LEAST) {
		const begin = performance.now();
		await client.call('ping');
		worst = Math.max(worst, performance.now() - begin);
		served++;
		await sleep(PAUSE_MS);
	}
	client.socket.terminate();
	parentPort.postMessage({ served, worst });
}

if (!isMainThread) await main();
