// jwt.test.mjs
//     Tokens as attackers make them, against open_session() as the gateway's
//     login calls it. The tokens are made by node:crypto, independently of
//     the extension's own code.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import crypto from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Bus, PORT } from './bus.mjs';

const run = promisify(execFile);
const pgConfig = process.env.PG_CONFIG ??
	'/usr/lib/postgresql/15/bin/pg_config';

let bus, psql, listener, listenerUrl;
let requests = 0;
const keys = {};

const url64 = (bytes) => Buffer.from(bytes).toString('base64url');
const seconds = () => Date.now() / 1000;
const quote = (text) => `'${text.replaceAll("'", "''")}'`;

// Key pairs, their JWK without the private part, and how each signs.
function pair(kid, alg, type, options) {
	const { publicKey, privateKey } = crypto.generateKeyPairSync(type, options);
	const jwk = { ...publicKey.export({ format: 'jwk' }), kid };
	return { kid, alg, publicKey, privateKey, jwk };
}

function secret(kid, size = 32) {
	const bytes = crypto.randomBytes(size);
	return { kid, alg: 'HS256', bytes,
		jwk: { kty: 'oct', k: url64(bytes), kid, alg: 'HS256' } };
}

function sign(key, input) {
	switch (key.alg) {
		case 'HS256':
			return crypto.createHmac('sha256', key.bytes).update(input).digest();
		case 'ES256':
			return crypto.sign('sha256', input,
				{ key: key.privateKey, dsaEncoding: 'ieee-p1363' });
		case 'RS256':
			return crypto.sign('sha256', input, key.privateKey);
		default:
			return crypto.sign(null, input, key.privateKey);
	}
}

// token makes one; header and claims may be text, to be wrong in their own way.
function token(key, claims = { role: 'app' }, header = {}) {
	const head = typeof header === 'string' ? header
		: JSON.stringify({ alg: key.alg, typ: 'JWT', ...header });
	const body = typeof claims === 'string' ? claims : JSON.stringify(claims);
	const input = `${url64(head)}.${url64(body)}`;
	return `${input}.${url64(sign(key, Buffer.from(input)))}`;
}

// ask runs SQL as the gateway's login and returns the lines of output; the
// statement goes through standard input: a token can be longer than what a
// program may be called with.
async function ask(sql, user = 'gateway') {
	const child = spawn(psql, ['-XAtq', '-v', 'ON_ERROR_STOP=1',
		'-v', 'VERBOSITY=verbose', '-h', bus.directory, '-p', PORT,
		'-U', user, '-d', 'bus']);
	let out = '', err = '';
	child.stdout.setEncoding('utf8').on('data', (text) => { out += text; });
	child.stderr.setEncoding('utf8').on('data', (text) => { err += text; });
	child.stdin.end(sql);
	const [code] = await once(child, 'close');
	if (code !== 0) throw new Error(err);
	return out.trimEnd();
}

const open = async (text, options = {}) => JSON.parse(await ask(
	`SELECT message_bus.open_session(1, ${quote(text)},
		${quote(JSON.stringify(options))})`));

// refused returns the detail with which a token is refused, and checks that
// the answer is the one answer, and quotes nothing of the token.
async function refused(text, options) {
	let error;
	try {
		await open(text, options);
	} catch (caught) {
		error = caught.message;
	}
	assert.ok(error, `it was taken: ${text.slice(0, 200)}`);
	assert.match(error, /ERROR: {2}28000: token is not valid\n/);
	for (const part of text.split('.')) {
		if (part.length > 8) assert.ok(!error.includes(part.slice(0, 9)));
	}
	return /DETAIL: {2}(.*)/.exec(error)[1];
}

async function setKeys(...some) {
	const jwks = JSON.stringify({ keys: some.map((key) => key.jwk ?? key) });
	return Number(await ask(`SELECT message_bus.set_jwt_keys(${quote(jwks)})`,
		'postgres'));
}

before(async () => {
	psql = path.join((await run(pgConfig, ['--bindir'])).stdout.trim(), 'psql');
	bus = await Bus.start();
	await bus.sql(`CREATE ROLE anon; CREATE ROLE "user's ""own""";
		GRANT anon, "user's ""own""" TO gateway;
		GRANT EXECUTE ON FUNCTION message_bus.open_session,
			message_bus.close_session TO gateway`);
	keys.hs = secret('hs-1');
	keys.rs = pair('rs-1', 'RS256', 'rsa', { modulusLength: 2048 });
	keys.es = pair('es-1', 'ES256', 'ec', { namedCurve: 'P-256' });
	keys.ed = pair('ed-1', 'EdDSA', 'ed25519');
	await setKeys(keys.hs, keys.rs, keys.es, keys.ed);

	// nobody may fetch what a token points at
	listener = http.createServer((request, response) => {
		requests++;
		response.end(JSON.stringify({ keys: [keys.hs.jwk] }));
	});
	listener.on('connection', () => { requests++; });
	listener.listen(0, '127.0.0.1');
	await once(listener, 'listening');
	listenerUrl = `http://127.0.0.1:${listener.address().port}/keys`;
});

after(async () => {
	listener.close();
	await bus.stop();
});

describe('a token that is right', () => {
	for (const name of ['hs', 'rs', 'es', 'ed']) {
		test(`is taken, signed with ${name}, with and without kid`, async () => {
			const key = keys[name];
			const claims = { role: 'app', sub: 'u-1', exp: Math.floor(seconds()) + 60 };
			for (const header of [{}, { kid: key.kid }]) {
				const session = await open(token(key, claims, header));
				assert.equal(session.role, 'app');
				assert.equal(session.sub, 'u-1');
				assert.equal(session.expires_ms, claims.exp * 1000);
				assert.equal(Date.parse(session.expires_at), claims.exp * 1000);
			}
		});
	}

	test('without a role is for the anonymous one', async () => {
		assert.equal((await open(token(keys.es, {}))).role, 'anon');
		assert.equal((await open('')).role, 'anon');
	});

	test('may name a role that needs quotes', async () => {
		const role = `user's "own"`;
		assert.equal((await open(token(keys.es, { role }))).role, role);
	});

	test('of 16 KiB is taken, and not one byte more', async () => {
		// HMAC's part is 43 bytes, and base64 comes in steps of 4
		const of = (size) => token(keys.hs,
			{ role: 'app', pad: 'x'.repeat(size) }, '{"alg":"HS256"}');
		let size = 12000;
		while (of(size + 1).length <= 16384) size++;
		assert.ok(of(size).length > 16384 - 4);
		assert.equal((await open(of(size))).role, 'app');
		assert.equal(await refused(of(size + 1)), 'It is longer than 16 KiB.');
	});
});

describe('alg', () => {
	const none = ['none', 'None', 'NONE', 'nOnE', 'none ', ' none', 'none\u0000',
		'n\u006fne', '', 'null', 'HS256,none'];
	for (const alg of none) {
		test(`${JSON.stringify(alg)} is refused`, async () => {
			const head = url64(JSON.stringify({ alg, typ: 'JWT' }));
			const body = url64(JSON.stringify({ role: 'app' }));
			const signed = token(keys.hs).split('.')[2];
			for (const signature of ['', url64('x'), signed]) {
				await refused(`${head}.${body}.${signature}`);
			}
		});
	}

	const wrong = { 'missing': '{"typ":"JWT"}', 'null': '{"alg":null}',
		'a number': '{"alg":256}', 'false': '{"alg":false}',
		'an array': '{"alg":["HS256"]}', 'an object': '{"alg":{"HS256":1}}',
		'twice': '{"alg":"HS256","alg":"HS256"}',
		'twice, once escaped': '{"alg":"HS256","\\u0061lg":"none"}',
		'lower case': '{"alg":"hs256"}', 'HS384': '{"alg":"HS384"}',
		'HS512': '{"alg":"HS512"}', 'PS256': '{"alg":"PS256"}',
		'ES256K': '{"alg":"ES256K"}', 'Ed25519': '{"alg":"Ed25519"}',
		'RSA1_5': '{"alg":"RSA1_5"}', 'dir': '{"alg":"dir"}',
		'named Alg': '{"Alg":"HS256"}' };
	for (const [name, header] of Object.entries(wrong)) {
		test(`that is ${name} is refused`, async () => {
			await refused(token(keys.hs, undefined, header));
		});
	}

	test('escaped spells the same algorithm', async () => {
		await open(token(keys.hs, undefined, '{"alg":"\\u0048S256"}'));
	});
});

describe('a key is used for its algorithm only', () => {
	// what an attacker has of the public key, as the secret of HS256
	const forms = {
		PEM: (key) => key.export({ format: 'pem', type: 'spki' }),
		'PEM without its last line feed': (key) =>
			key.export({ format: 'pem', type: 'spki' }).trimEnd(),
		DER: (key) => key.export({ format: 'der', type: 'spki' }),
		'the JWK': (key) => JSON.stringify(key.export({ format: 'jwk' })),
		'the number': (key) => {
			const jwk = key.export({ format: 'jwk' });
			return Buffer.from(jwk.n ?? jwk.x, 'base64url');
		},
		'the number in base64url': (key) => {
			const jwk = key.export({ format: 'jwk' });
			return jwk.n ?? jwk.x;
		} };
	for (const [name, form] of Object.entries(forms)) {
		test(`a public key is no secret: ${name}`, async () => {
			for (const key of [keys.rs, keys.es, keys.ed]) {
				const forged = { alg: 'HS256',
					bytes: Buffer.from(form(key.publicKey)) };
				assert.equal(await refused(token(forged)),
					'Its signature does not fit.');
				assert.equal(await refused(token(forged, undefined,
					{ kid: key.kid })),
				'Its algorithm is not that of its key.');
			}
		});
	}

	test('also if there is no secret at all', async () => {
		await setKeys(keys.rs);
		try {
			const forged = { alg: 'HS256', bytes: Buffer.from(
				keys.rs.publicKey.export({ format: 'pem', type: 'spki' })) };
			assert.equal(await refused(token(forged)),
				'There is no key of its algorithm.');
		} finally {
			await setKeys(keys.hs, keys.rs, keys.es, keys.ed);
		}
	});

	test('types of keys are not swapped', async () => {
		for (const signer of Object.values(keys)) {
			for (const named of Object.values(keys)) {
				if (signer === named) continue;
				// the header is honest about one of the two
				await refused(token(signer, undefined, { kid: named.kid }));
				await refused(token(signer, undefined, { alg: named.alg }));
				await refused(token(signer, undefined,
					{ alg: named.alg, kid: named.kid }));
			}
		}
	});

	test('another pair of the same kind does not do', async () => {
		for (const other of [pair('rs-1', 'RS256', 'rsa', { modulusLength: 2048 }),
			pair('es-1', 'ES256', 'ec', { namedCurve: 'P-256' }),
			pair('ed-1', 'EdDSA', 'ed25519'), secret('hs-1')]) {
			assert.equal(await refused(token(other)),
				'Its signature does not fit.');
			assert.equal(await refused(token(other, undefined,
				{ kid: other.kid })), 'Its signature does not fit.');
		}
	});
});

describe('the header', () => {
	const kids = ["hs-1'--", "' OR '1'='1", "hs-1' UNION SELECT 'x'--", '"hs-1"',
		'../../../../dev/null', '/dev/null', 'file:///etc/passwd', 'hs-1 ', ' hs-1',
		'HS-1', '', '%', '*', 'hs-1\u0000', '$(id)', '|id', 'hs-1\n', '0',
		'key'.repeat(1000)];
	for (const kid of kids) {
		test(`kid ${JSON.stringify(kid).slice(0, 40)} is no known key`,
			async () => {
				await refused(token(keys.hs, undefined, { kid }));
				for (const bytes of ['', '\u0000', 'x']) {
					await refused(token({ alg: 'HS256',
						bytes: Buffer.from(bytes) }, undefined, { kid }));
				}
			});
	}

	for (const kid of [null, 1, true, ['hs-1'], { kid: 'hs-1' }]) {
		test(`kid ${JSON.stringify(kid)} is no string`, async () => {
			assert.match(await refused(token(keys.hs, undefined, { kid })),
				/"kid"/);
		});
	}

	test('brings no key and no address of one', async () => {
		const own = pair('own', 'RS256', 'rsa', { modulusLength: 2048 });
		const der = url64(own.publicKey.export({ format: 'der', type: 'spki' }));
		const offers = [{ jwk: own.jwk }, { x5c: [der] }, { x5t: der },
			{ jku: listenerUrl }, { x5u: listenerUrl },
			{ jwk: own.jwk, jku: listenerUrl, x5u: listenerUrl, x5c: [der] }];
		for (const offer of offers) {
			await refused(token(own, undefined, offer));
			await refused(token(own, undefined, { ...offer, kid: 'own' }));
			await refused(token(own, undefined, { ...offer, kid: listenerUrl }));
			await refused(token(own, { iss: listenerUrl }, offer));
			// beside a good key they are nothing
			assert.equal((await open(token(keys.rs, undefined, offer))).role, 'app');
		}
		assert.equal(requests, 0);
	});

	const faults = { 'crit': '{"alg":"HS256","crit":["exp"],"exp":1}',
		'an empty crit': '{"alg":"HS256","crit":[]}',
		'crit null': '{"alg":"HS256","crit":null}',
		'b64 false': '{"alg":"HS256","b64":false,"crit":["b64"]}',
		'typ JWE': '{"alg":"HS256","typ":"JWE"}',
		'typ 1': '{"alg":"HS256","typ":1}',
		'no object': '["HS256"]', 'no JSON': '{"alg":"HS256"', 'nothing': ' ',
		'text behind it': '{"alg":"HS256"}x',
		'bytes that are no UTF-8': Buffer.from('{"alg":"HS256","a":"\xff"}',
			'latin1'),
		'a zero byte': '{"alg":"HS256"}\u0000',
		'a byte order mark': '\ufeff{"alg":"HS256"}',
		'many members': `{"alg":"HS256",${Array.from({ length: 70 },
			(_, i) => `"m${i}":1`).join()}}`,
		'much nesting': `{"alg":"HS256","a":${'['.repeat(2000)}${']'.repeat(2000)}}`,
		'more nesting': `{"alg":"HS256","a":${'['.repeat(5000)}${']'.repeat(5000)}}` };
	for (const [name, header] of Object.entries(faults)) {
		if (name === 'much nesting') continue;
		test(`with ${name} is refused`, async () => {
			const input = `${url64(header)}.${url64('{"role":"app"}')}`;
			await refused(`${input}.${url64(sign(keys.hs, Buffer.from(input)))}`);
		});
	}

	test('may nest what it likes within 4 KiB', async () => {
		await open(token(keys.hs, undefined, faults['much nesting']));
	});
});

describe('the signature', () => {
	test('stripped, cut or emptied is refused', async () => {
		for (const key of Object.values(keys)) {
			const whole = token(key);
			const [head, body, signature] = whole.split('.');
			for (const bad of [`${head}.${body}`, `${head}.${body}.`,
				`${head}..${signature}`, `.${body}.${signature}`, `${whole}.`,
				`.${whole}`, `${whole}.${signature}`, '..', '.', 'x',
				`${head}.${body}.${signature.slice(4)}`,
				`${head}.${body}.${signature.slice(0, -4)}`,
				`${head}.${body}.${signature}AAAA`,
				`${head}.${body}.${url64(Buffer.alloc(64))}`,
				`${head}.${body}.${url64(Buffer.alloc(32))}`]) {
				await refused(bad);
			}
		}
	});

	test('in another alphabet is refused', async () => {
		const whole = token(keys.hs);
		const [head, body, signature] = whole.split('.');
		const padded = (text) => text + '='.repeat(4 - text.length % 4);
		for (const bad of [`${padded(head)}.${body}.${signature}`,
			`${head}.${padded(body)}.${signature}`,
			`${head}.${body}.${padded(signature)}`, ` ${whole}`, `${whole} `,
			`${whole}\n`, `Bearer ${whole}`, `${head}.${body}.${signature.slice(0, 20)}\n${
				signature.slice(20)}`]) {
			await refused(bad);
		}
		// 43 characters have two bits too many: only 0 is right for them
		const digits =
			'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
		const last = digits[digits.indexOf(signature.at(-1)) | 1];
		assert.match(await refused(`${head}.${body}.${signature.slice(0, -1)}${last}`),
			/base64url/);
		// with + and / in place of - and _
		for (;;) {
			const other = token(keys.hs, { role: 'app', r: Math.random() });
			if (!/[-_]/.test(other.split('.')[2])) continue;
			await refused(other.replaceAll('-', '+').replaceAll('_', '/'));
			break;
		}
	});

	test('with one bit flipped is refused, whichever', async () => {
		for (const key of Object.values(keys)) {
			const parts = token(key).split('.');
			for (const which of [0, 1, 2]) {
				const bytes = Buffer.from(parts[which], 'base64url');
				for (const at of [0, bytes.length >> 1, bytes.length - 1]) {
					const flipped = Buffer.from(bytes);
					flipped[at] ^= 1;
					const bad = [...parts];
					bad[which] = url64(flipped);
					await refused(bad.join('.'));
				}
			}
		}
	});

	test('of ES256 is r and s, not zero and not DER', async () => {
		const [head, body, signature] = token(keys.es).split('.');
		const raw = Buffer.from(signature, 'base64url');
		const n = Buffer.from('ffffffff00000000ffffffffffffffff' +
			'bce6faada7179e84f3b9cac2fc632551', 'hex');
		const zero = Buffer.alloc(32);
		const [r, s] = [raw.subarray(0, 32), raw.subarray(32)];
		const der = crypto.sign('sha256', Buffer.from(`${head}.${body}`),
			keys.es.privateKey);
		for (const bad of [Buffer.alloc(64), Buffer.concat([r, zero]),
			Buffer.concat([zero, s]), Buffer.concat([n, n]),
			Buffer.concat([r, n]), Buffer.concat([n, s]),
			Buffer.alloc(64, 0xff), Buffer.concat([s, r]), der,
			Buffer.concat([Buffer.alloc(1), raw]), raw.subarray(0, 63),
			Buffer.concat([zero, Buffer.from([...zero.subarray(1), 1])])]) {
			assert.equal(await refused(`${head}.${body}.${url64(bad)}`),
				'Its signature does not fit.');
		}
		await open(`${head}.${body}.${signature}`);
	});

	test('of RS256 is PKCS #1 v1.5 with SHA-256', async () => {
		const input = token(keys.rs).split('.').slice(0, 2).join('.');
		const of = (hash, options) => url64(crypto.sign(hash,
			Buffer.from(input), { key: keys.rs.privateKey, ...options }));
		for (const bad of [of('sha1'), of('sha384'), of('sha512'),
			of('sha256', { padding: crypto.constants.RSA_PKCS1_PSS_PADDING })]) {
			await refused(`${input}.${bad}`);
		}
		await open(`${input}.${of('sha256')}`);
	});
});

describe('claims', () => {
	const now = () => Math.floor(seconds());
	const faults = { 'role postgres': { role: 'postgres' },
		'role quoted': { role: '"app"' }, 'role with SQL': { role: 'app; SET ROLE postgres' },
		"role with '": { role: "app'" }, 'an empty role': { role: '' },
		'role none': { role: 'none' }, 'role NONE': { role: 'NONE' },
		'role public': { role: 'public' }, 'role in upper case': { role: 'APP' },
		'the login as role': { role: 'gateway' },
		'a role that is not granted': { role: 'stranger' },
		'an unknown role': { role: 'nobody' }, 'roles': { role: ['app'] },
		'role null': { role: null }, 'role 0': { role: 0 },
		'a role in an object': { role: { name: 'app' } },
		'a long role': { role: 'a'.repeat(70) },
		'role twice': '{"role":"app","role":"app"}',
		'role twice, once escaped': '{"role":"anon","r\\u006fle":"app"}',
		'another claim twice': '{"role":"app","x":1,"x":1}',
		'exp as text': () => ({ role: 'app', exp: `${now() + 60}` }),
		'exp true': { role: 'app', exp: true }, 'exp null': { role: 'app', exp: null },
		'exp in an array': () => ({ role: 'app', exp: [now() + 60] }),
		'exp twice': () => `{"role":"app","exp":${now() + 60},"exp":1}`,
		'exp infinite': '{"role":"app","exp":1e999}',
		'exp in milliseconds': () => ({ role: 'app', exp: Date.now() + 60000 }),
		'exp below 0': { role: 'app', exp: -1 },
		'exp 0': { role: 'app', exp: 0 },
		'nbf as text': { role: 'app', nbf: '0' },
		'iat as text': { role: 'app', iat: '0' },
		'sub a number': { role: 'app', sub: 1 }, 'sub null': { role: 'app', sub: null },
		'sub that text cannot hold': '{"role":"app","sub":"\\u0000"}',
		'sub with half a character': '{"role":"app","sub":"\\ud800"}',
		'no object': '["role"]', 'a string': '"app"', 'null': 'null',
		'no JSON': '{"role":"app"', 'Infinity': '{"role":"app","exp":Infinity}' };
	for (const [name, claims] of Object.entries(faults)) {
		test(`with ${name} are refused`, async () => {
			await refused(token(keys.es,
				typeof claims === 'function' ? claims() : claims));
		});
	}

	test('that are no UTF-8 are refused', async () => {
		const input = `${url64('{"alg":"HS256"}')}.${
			url64(Buffer.from('{"role":"app","a":"\xff"}', 'latin1'))}`;
		await refused(`${input}.${url64(sign(keys.hs, Buffer.from(input)))}`);
	});

	test('exp and nbf count with the skew, and not a moment more', async () => {
		const at = (claims) => token(keys.hs, { role: 'app', ...claims });
		for (const skew of [0, 30, 300]) {
			const options = { skew };
			await open(at({ exp: now() - skew + 5 }), options);
			assert.equal(await refused(at({ exp: now() - skew - 1 }), options),
				'It has expired.');
			await open(at({ nbf: now() + skew - 1 }), options);
			assert.equal(await refused(at({ nbf: now() + skew + 5 }), options),
				'It is not valid yet.');
		}
		// 30 seconds if nothing is said
		await open(at({ exp: now() - 20, nbf: now() + 20 }));
		await refused(at({ exp: now() - 31 }));
		// fractions of a second are times too
		await open(at({ exp: seconds() + 0.9 }), { skew: 0 });
		await refused(at({ exp: seconds() - 0.1 }), { skew: 0 });
	});

	test('iss must be the issuer that is expected', async () => {
		const issuer = 'https://project.supabase.co/auth/v1';
		const at = (iss) => token(keys.hs, { role: 'app', iss });
		await open(at(issuer), { issuer });
		await open(at('supabase'), { issuer: `${issuer},supabase` });
		await open(at(issuer), { issuer: `${issuer},supabase` });
		await refused(at(`${issuer},supabase`),
			{ issuer: `${issuer},supabase` });
		await refused(at('supa'), { issuer: `${issuer},supabase` });
		await refused(at(''), { issuer: `${issuer},,supabase` });
		await open(at('anything'), {});
		for (const iss of [undefined, `${issuer}/`, issuer.toUpperCase(),
			`${issuer}\u0020`, 'https://evil.example', [issuer], '', null]) {
			await refused(at(iss), { issuer });
		}
	});

	test('aud must have the audience that is expected', async () => {
		const options = { audience: 'authenticated' };
		const at = (aud) => token(keys.hs, { role: 'app', aud });
		await open(at('authenticated'), options);
		await open(at(['other', 'authenticated']), options);
		await open(at('anything'), {});
		for (const aud of [undefined, 'Authenticated', 'authenticated ', '', [],
			['other'], [['authenticated']], { 0: 'authenticated' }, null, true,
			['authenticated', 1], Array(100).fill('authenticated')]) {
			await refused(at(aud), options);
		}
	});
});

describe('size', () => {
	test('1 MB of anything is refused at once', async () => {
		const start = Date.now();
		const junk = 'A'.repeat(1 << 20);
		for (const text of [junk, `${junk}.${junk}.${junk}`, '.'.repeat(1 << 20),
			token(keys.hs, { role: 'app', pad: junk }),
			token(keys.hs, undefined, { pad: junk }),
			`${token(keys.hs)}${'.'.repeat(1 << 20)}`]) {
			assert.equal(await refused(text), 'It is longer than 16 KiB.');
		}
		assert.ok(Date.now() - start < 10000);
	});
});

describe('keys', () => {
	after(() => setKeys(keys.hs, keys.rs, keys.es, keys.ed));

	test('are rotated by kid', async () => {
		const [old, next] = [secret('old'), secret('next')];
		const of = (key) => token(key, undefined, { kid: key.kid });
		await setKeys(old);
		await open(of(old));
		await refused(of(next));
		await setKeys(next, old);
		await open(of(old));
		await open(of(next));
		await setKeys(next);
		assert.equal(await refused(of(old)), 'Its key is not known.');
		await open(of(next));
		// what names no key is tried with all there are
		await open(token(next));
		assert.equal(await refused(token(old)), 'Its signature does not fit.');
	});

	test('that are gone verify nothing', async () => {
		assert.equal(await setKeys(), 0);
		for (const key of Object.values(keys)) {
			assert.equal(await refused(token(key)),
				'There is no key of its algorithm.');
			assert.equal(await refused(token(key, undefined, { kid: key.kid })),
				'Its key is not known.');
		}
	});

	test('are all tried, up to 16 of an algorithm', async () => {
		const many = Array.from({ length: 16 }, (_, i) => secret(`k${i}`));
		assert.equal(await setKeys(...many, keys.es), 17);
		for (const key of many) await open(token(key));
		await assert.rejects(setKeys(...many, secret('one too many')),
			/more than 16 keys for HS256/);
		await open(token(many[15]));
	});

	test('take effect in connections that are open', async () => {
		const [one, two] = [secret('one'), secret('two')];
		await setKeys(one);
		const child = spawn(psql, ['-XAtq', '-h', bus.directory, '-p', PORT,
			'-U', 'gateway', '-d', 'bus']);
		const lines = [];
		let wake = () => {};
		const take = (text) => {
			lines.push(...text.split('\n').filter(Boolean));
			wake();
		};
		child.stdout.setEncoding('utf8').on('data', take);
		child.stderr.setEncoding('utf8').on('data', take);
		const say = async (key) => {
			lines.length = 0;
			child.stdin.write(`SELECT message_bus.open_session(1,
				${quote(token(key))}); SELECT 'end';\n`);
			while (!lines.includes('end')) {
				await new Promise((resolve) => { wake = resolve; });
			}
			return lines.join('\n');
		};
		assert.match(await say(one), /"role":"app"/);
		await setKeys(two);
		assert.match(await say(one), /token is not valid/);
		assert.match(await say(two), /"role":"app"/);
		child.stdin.end();
		await once(child, 'close');
	});

	test('with a private part, or too weak, are refused', async () => {
		const { privateKey } = keys.rs;
		await assert.rejects(setKeys(privateKey.export({ format: 'jwk' })),
			/private key/);
		await assert.rejects(setKeys(pair('weak', 'RS256', 'rsa',
			{ modulusLength: 1024 })), /2048 to 8192 bits/);
		await assert.rejects(setKeys(pair('curve', 'ES384', 'ec',
			{ namedCurve: 'P-384' })), /P-256/);
		await assert.rejects(setKeys(secret('short', 31)), /32 to 1024 bytes/);
		await assert.rejects(setKeys(keys.es, { ...keys.ed.jwk, kid: 'es-1' }),
			/another key's/);
		await assert.rejects(setKeys({ ...keys.rs.jwk, alg: 'HS256' }),
			/not RS256/);
	});

	test('are the administrator\'s alone', async () => {
		await assert.rejects(ask('SELECT message_bus.set_jwt_keys(\'{"keys":[]}\')'),
			/42501/);
		await assert.rejects(ask('TABLE message_bus.jwt_key'), /42501/);
	});
});

test('no token and no secret is in the server\'s log', async () => {
	await setKeys(keys.hs);
	const good = token(keys.hs, { role: 'app', sub: 'logged?' });
	const bad = token(keys.hs, { role: 'postgres', sub: 'logged?' });
	await open(good);
	await refused(bad);
	const frame = (text) => `convert_to(${quote(text)}, 'UTF8')`;
	const request = (text) => JSON.stringify({ jsonrpc: '2.0', id: 1,
		method: 'authenticate', params: { token: text } });
	const answers = await ask(`SELECT convert_from(substr(frame, 2), 'UTF8')
		FROM message_bus.relay(ARRAY[5, 5, 5, 5, 5]::bigint[], ARRAY[
			'\\x00'::bytea || ${frame(`O${good}`)},
			'\\x00'::bytea || ${frame(`O${bad}`)},
			'\\x01'::bytea || ${frame(request(bad))},
			'\\x01'::bytea || ${frame(request(bad).slice(0, -3))},
			'\\x01'::bytea || ${frame(bad)}])`);
	assert.equal(answers.split('\n').length, 5);
	await assert.rejects(setKeys({ ...keys.hs.jwk, alg: 'none' }));
	const log = await bus.sql(`SELECT pg_read_file(${quote(
		path.join(bus.directory, 'server.log'))})`);
	assert.match(log, /frame failed with -32001: token is not valid/);
	for (const text of [good, bad]) {
		for (const part of text.split('.')) {
			// the header's first bytes are everybody's
			assert.ok(!log.includes(part.slice(0, 24)));
		}
	}
	assert.ok(!log.includes(keys.hs.jwk.k));
});
