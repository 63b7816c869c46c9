--
-- publish, publish_text, publish_bytes: every argument, and every limit
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset null '<null>'

SELECT message_bus.create_channel('p', ttl => '1 hour');

-- all arguments are kept; times are those of the call
BEGIN;
SELECT message_bus.publish(channel => 'p', payload => '{"b": 1.10,  "a": [1,2]}',
	headers => '{"trace": "x", "n": {"deep": 1.50}}', key => 'k', transaction_id => 't1',
	ttl => '30 minutes', delay => '10 seconds',
	sha256 => sha256('{"b": 1.10,  "a": [1,2]}')) AS id \gset
COMMIT;
SELECT channel, key, transaction_id, publisher = current_user AS mine, subject, session, headers, content_type,
		size, sha256 = sha256(payload::text::bytea) AS sum, by_reference, payload
	FROM message_bus.get(:id);
SELECT expires_at - created_at AS ttl, available_at - created_at AS delay,
		created_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS just_now
	FROM message_bus.get(:id);
-- least of all
SELECT message_bus.publish('p', '2') AS second \gset
SELECT channel, key, transaction_id, subject, session, headers, content_type, size, by_reference, payload,
		expires_at - created_at AS ttl, available_at = created_at AS at_once
	FROM message_bus.get(:second);
SELECT :second - :id AS next_id, :second >> 24 = :id >> 24 AS same_segment, :id < 1::bigint << 53 AS exact_in_javascript;

-- NULL stands for the default, but not for channel, payload and content type
SELECT (message_bus.get(message_bus.publish('p', 'null', NULL, NULL, NULL, NULL, NULL, NULL))).payload;
SELECT call, pg_temp.fails('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$publish(NULL, '1')$$, $$publish('p', NULL)$$,
	$$publish_text(NULL, '1')$$, $$publish_text('p', NULL)$$, $$publish_text('p', '1', NULL)$$,
	$$publish_bytes(NULL, '1')$$, $$publish_bytes('p', NULL)$$, $$publish_bytes('p', '1', NULL)$$,
	$$publish('', '1')$$, $$publish('no such', '1')$$, $$publish('P', '1')$$]) AS t (call);

-- content types
SELECT content_type, size, sha256 = sha256('1') AS sum, payload
	FROM message_bus.get(message_bus.publish_text('p', '1'));
SELECT content_type, size, sha256 = sha256('1') AS sum, payload
	FROM message_bus.get(message_bus.publish_bytes('p', '1'));
SELECT type, (message_bus.get(message_bus.publish_text('p', ' [1] ', type))).payload
	FROM unnest(ARRAY['application/json', 'Application/JSON', 'application/json; charset=utf-8',
		'application/json;charset=utf-8', 'text/json', 'application/vnd.api+json', 'application/ld+json;profile=x',
		'text/plain', 'application/jsonx', 'a/+json', 'application/json-seq', 'x/y']) AS type;
SELECT type, pg_temp.fails(format('SELECT message_bus.publish_text(''p'', ''{bad'', %L)', type))
	FROM unnest(ARRAY['application/json', 'TEXT/JSON', 'a/b+JSON ;x=1', 'text/plain', 'application/jsonx']) AS type;
SELECT pg_temp.fails($$SELECT message_bus.publish_text('p', '1', '')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_text('p', '1', repeat('x', 256))$$);
SELECT content_type = 'x/' || repeat('x', 253) AS kept
	FROM message_bus.get(message_bus.publish_text('p', '1', 'x/' || repeat('x', 253)));
-- a media type of RFC 9110, 8.3.1, and its parameters
SELECT pg_temp.fails($$SELECT message_bus.publish_text('p', '1', 'json')$$);
SELECT left(pg_temp.fails(format('SELECT message_bus.publish_text(''p'', ''1'', %L)', type)), 8) AS fails, string_agg(to_json(type)::text, ' ' ORDER BY n)
	FROM unnest(ARRAY['a/b', '!#$%&''*+-.^_`|~09AZ/az', 'a/b;c=d', E'a/b \t; \tc=d', 'a/b;', 'a/b; ', 'a/b;;c=d ;', 'a/b;c=d;e=f',
		'a/b;c=""', 'a/b;c="d e;f/g"', E'a/b;c="\\"\\\\\t"', 'a/b;c="ä"',
		'', 'a', '/', 'a/', '/b', 'a/b/c', 'a /b', 'a/ b', ' a/b', 'a/b ', 'a/b c', 'a/b,c/d', 'ä/b', '*/*;', 'a/b;c', 'a/b;c=', 'a/b;=d', 'a/b;c =d',
		'a/b;c= d', 'a/b;c="', 'a/b;c="d', E'a/b;c="d\\', E'a/b;c="\\', 'a/b;c="d"e', 'a/b;c=d e', E'a/b\n', E'a/b;c="\r\n"', E'a/b;c="\\\n"', E'a/b;c="\x7f"', 'a(b)/c']) WITH ORDINALITY AS t (type, n)
	GROUP BY 1 ORDER BY 1;

-- empty payloads: bytes and text may be, JSON may not
SELECT size, by_reference, payload FROM message_bus.get(message_bus.publish_bytes('p', ''));
SELECT size, sha256 = sha256('') AS sum FROM message_bus.get(message_bus.publish_text('p', '', 'text/plain'));
SELECT message_bus.get_bytes(message_bus.publish_bytes('p', ''));
SELECT pg_temp.fails($$SELECT message_bus.publish_text('p', '')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_bytes('p', '', 'application/json')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('p', '')$$);

-- bytes of a JSON content type must be JSON in UTF-8
SELECT bytes, pg_temp.fails(format('SELECT message_bus.publish_bytes(''p'', %L, ''application/json'')', bytes))
	FROM unnest(ARRAY['\x22c3a922', '\x22ff22', '\x22c322', '\x22eda08022', '\x22c08022', '\x22f490808022', '\x2200', '\x220022',
		'\xefbbbf31', '\x31', '\x']::bytea[]) AS bytes;
-- others may be anything
SELECT message_bus.get_bytes(message_bus.publish_bytes('p', '\x00ff22eda080')) AS bytes;
SELECT message_bus.get_bytes(message_bus.publish_bytes('p', '\x00ff', 'text/plain; charset=utf-8')) AS bytes;

-- keys and transaction ids: 1 to 255 bytes
SELECT what, n, pg_temp.fails(format('SELECT message_bus.publish(''p'', ''1'', %s => repeat(%L, %s))', what, c, n))
	FROM (VALUES ('key'), ('transaction_id')) AS w (what),
		(VALUES ('x', 0), ('y', 1), ('x', 255), ('x', 256), (chr(233), 127), (chr(233), 128), ('x', 1000000)) AS v (c, n);
SELECT length(key) FROM message_bus.peek('p') WHERE length(key) > 100 ORDER BY id;

-- headers: an object
SELECT headers, (message_bus.get(message_bus.publish('p', '1', headers))).headers AS stored
	FROM unnest(ARRAY['{}', '{"a": null, "b": [1, 2.50]}']::jsonb[]) AS headers;
SELECT headers, pg_temp.fails(format('SELECT message_bus.publish(''p'', ''1'', %L)', headers))
	FROM unnest(ARRAY['[]', '"x"', 'null', '1']::jsonb[]) AS headers;
SELECT length((message_bus.get(message_bus.publish('p', '1', jsonb_build_object('h', repeat('x', 1000000))))).headers::text);

-- ttl: more than 0, not more than the channel's; delay: 0 or more, less than the ttl
CREATE FUNCTION pg_temp.times(ttl text, delay text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
BEGIN
	message := pg_temp.fails(format('SELECT message_bus.publish(''p'', ''1'', ttl => %L, delay => %L)', ttl, delay));
	RETURN message;
END
$$;
SELECT ttl, delay, pg_temp.times(ttl, delay) FROM (VALUES
	('1 hour', NULL), ('1 microsecond', NULL), ('60 minutes 0.000001 seconds', NULL), ('0', NULL), ('-1 second', NULL),
	('1 day', NULL), ('1 month', NULL), ('178000000 years', NULL), ('-178000000 years', NULL),
	('1 month -30 days', NULL), ('-1 month 30 days 10 seconds', NULL),
	(NULL, '0'), (NULL, '59 minutes 59.999999 seconds'), (NULL, '1 hour'), (NULL, '-1 microsecond'),
	(NULL, '178000000 years'), (NULL, '-178000000 years'),
	('10 seconds', '9 seconds'), ('10 seconds', '10 seconds'), ('10 seconds', '11 seconds')) AS t (ttl, delay);

-- a delayed message can be got and peeked at; the delay is for consumers
SELECT available_at - created_at AS delay FROM message_bus.get(message_bus.publish('p', '1', delay => '10 minutes'));

-- sha256: 32 bytes, or 64 hexadecimal digits, of the exact bytes
SELECT message_bus.publish('p', '{"a":1}', sha256 => sha256('{"a":1}')) > 0 AS bytes;
SELECT message_bus.publish('p', '{"a":1}', sha256 => encode(sha256('{"a":1}'), 'hex')::bytea) > 0 AS hex;
SELECT message_bus.publish('p', '{"a":1}', sha256 => upper(encode(sha256('{"a":1}'), 'hex'))::bytea) > 0 AS upper_hex;
SELECT message_bus.publish_bytes('p', '\x00ff', sha256 => sha256('\x00ff')) > 0 AS of_bytes;
SELECT what, pg_temp.fails(format('SELECT message_bus.publish(''p'', ''{"a":1}'', sha256 => %L)', sum)) FROM (VALUES
	('other bytes', sha256('{"a": 1}')),
	('other bytes, hex', encode(sha256('{"a": 1}'), 'hex')::bytea),
	('empty', ''), ('31 bytes', substr(sha256('{"a":1}'), 1, 31)), ('33 bytes', sha256('{"a":1}') || '\x00'),
	('63 digits', substr(encode(sha256('{"a":1}'), 'hex')::bytea, 1, 63)),
	('65 digits', (encode(sha256('{"a":1}'), 'hex') || '0')::bytea),
	('no digit', (substr(encode(sha256('{"a":1}'), 'hex'), 1, 63) || 'g')::bytea),
	('space', (' ' || substr(encode(sha256('{"a":1}'), 'hex'), 1, 63))::bytea),
	('zero byte', (substr(encode(sha256('{"a":1}'), 'hex')::bytea, 1, 63) || '\x00'::bytea)),
	('sha-512', sha512('{"a":1}')), ('base64', encode(sha256('{"a":1}'), 'base64')::bytea)) AS t (what, sum);
-- a wrong checksum names itself, for programs
DO $$
DECLARE
	name text;
BEGIN
	PERFORM message_bus.publish('p', '1', sha256 => sha256('2'));
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS name = CONSTRAINT_NAME;
	RAISE NOTICE 'constraint %', name;
END
$$;

-- size limits: the server's, the session's, the channel's; the least counts and is named
SELECT message_bus.create_channel('small', max_payload => 10);
SELECT pg_temp.fails($$SELECT message_bus.publish('small', '"12345678"')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('small', '"123456789"')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_text('small', '12345678901', 'text/plain')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_bytes('small', '12345678901')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('small', '[{"payload": 1}, {"payload": "123456789"}]')$$);
SET message_bus.client_max_payload = 9;
SELECT pg_temp.fails($$SELECT message_bus.publish('small', '"1234567"')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('small', '"12345678"')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('p', '"12345678"')$$);
SET message_bus.client_max_payload = 11;
SELECT pg_temp.fails($$SELECT message_bus.publish('small', '"123456789"')$$);
SET message_bus.max_payload = 8;
SELECT pg_temp.fails($$SELECT message_bus.publish('small', '"1234567"')$$);
SET message_bus.client_max_payload = 0;
SELECT pg_temp.fails($$SELECT message_bus.publish('p', '"1234567"')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('p', '"123456"')$$);
SELECT left(pg_temp.fails($$SET message_bus.max_payload = 0$$), 38) AS too_small;
SELECT left(pg_temp.fails($$SET message_bus.client_max_payload = -1$$), 39) AS negative;
RESET message_bus.max_payload;
RESET message_bus.client_max_payload;
SELECT count(*) FROM message_bus.peek('small');

-- publishing can be turned off; reading goes on
SET message_bus.enabled = off;
SELECT call, pg_temp.fails('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$publish('p', '1')$$, $$publish_text('p', '1')$$, $$publish_bytes('p', '1')$$,
	$$publish_batch('p', '[{"payload": 1}]')$$, $$publish_batch_bytes('p', ARRAY['1'::bytea])$$,
	$$store_message('t', 's', 'n', 'p', '1')$$]) AS t (call);
SELECT pg_temp.fails($$INSERT INTO message_bus.message_bus (payload) VALUES ('1')$$);
SELECT payload FROM message_bus.get(:second);
RESET message_bus.enabled;

-- who published: the role, and the subject of the request's claims
CREATE ROLE regress_mbus_publisher;
SELECT message_bus.grant_channel('p', 'regress_mbus_publisher', 'all');
SET ROLE regress_mbus_publisher;
SELECT claims, m.publisher, m.subject
	FROM unnest(ARRAY['{"sub": "user-1", "role": "x"}', '{"sub": "\u00e9\"x"}', '{"role": {"sub": "nested"}}',
		'{"sub": 5}', '{"sub": null}', '{"sub": ""}', '{bad', '', '[]', '[{"sub": "in an array"}]', '{"sub": "a", "sub": "b"}',
		'{"sub": {"sub": "deep"}}']) WITH ORDINALITY AS c (claims, n),
	LATERAL set_config('request.jwt.claims', claims, false),
	LATERAL (SELECT message_bus.publish('p', n::text::json) AS id) AS i,
	LATERAL message_bus.get(i.id) AS m ORDER BY n;
SELECT set_config('request.jwt.claims', json_build_object('sub', repeat(chr(233), 200))::text, false) IS NOT NULL AS long_one;
SELECT octet_length(subject) FROM message_bus.get(message_bus.publish('p', '1'));
RESET request.jwt.claims;
RESET ROLE;
SELECT message_bus.revoke_channel('p', 'regress_mbus_publisher', 'all');
DROP ROLE regress_mbus_publisher;

-- toasted arguments and many rows
CREATE TABLE pg_temp.source AS SELECT n, json_build_object('n', n, 'text', repeat(md5(n::text), 1000)) AS doc FROM generate_series(1, 20) AS n;
SELECT message_bus.create_channel('many');
SELECT count(DISTINCT message_bus.publish('many', doc)) FROM pg_temp.source;
SELECT count(*), bool_and(p.payload::text = s.doc::text) AS same
	FROM message_bus.peek('many') p JOIN pg_temp.source s ON (p.payload->>'n')::int = s.n;

SELECT message_bus.drop_channel('p'), message_bus.drop_channel('small'), message_bus.drop_channel('many');
