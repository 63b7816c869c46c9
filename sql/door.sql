--
-- door: the HTTP door's half in the database: RFC 9110, who may read, links
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset format unaligned
\pset tuples_only on

CREATE ROLE regress_door_login LOGIN NOINHERIT;
CREATE ROLE regress_door_anon;
CREATE ROLE regress_door_user;
CREATE ROLE regress_door_maker;
CREATE ROLE regress_door_stranger;
GRANT regress_door_anon, regress_door_user, regress_door_stranger TO regress_door_login;
GRANT EXECUTE ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session TO regress_door_login;
SELECT message_bus.create_channel('door');
SELECT message_bus.grant_channel('door', 'regress_door_user', 'all');
SELECT message_bus.grant_channel('door', 'regress_door_maker', 'consume');

-- an answer: what its line of JSON says, and the bytes behind it
CREATE FUNCTION answer(session bigint, kind text, request json) RETURNS TABLE (said json, bytes bytea) LANGUAGE sql AS $$
	SELECT convert_from(substr(frame, 2, lf - 2), 'UTF8')::json, substr(frame, lf + 1)
	FROM (SELECT frame, position('\x0a'::bytea IN frame) AS lf
		FROM message_bus.relay(ARRAY[session], ARRAY['\x00'::bytea || convert_to(kind || request::text, 'UTF8')])) r
$$;
CREATE FUNCTION http(path text, query text DEFAULT '', headers text[] DEFAULT '{}', method text DEFAULT 'GET', session bigint DEFAULT 1,
	max int DEFAULT 1048576) RETURNS TABLE (said json, bytes bytea) LANGUAGE sql AS $$
	SELECT a.said -> 'http', a.bytes FROM answer(session, 'H', json_build_object('n', 7, 'method', method, 'path', path, 'query', query,
		'headers', COALESCE((SELECT json_agg(json_build_array(split_part(h, ': ', 1), substr(h, strpos(h, ': ') + 2)))
			FROM unnest(headers) h), '[]'), 'max', max)) a
$$;
CREATE FUNCTION field(said json, name text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(h ->> 1, ' | ') FROM json_array_elements(said -> 'headers') h WHERE h ->> 0 = name
$$;
-- a request in brief: status, Content-Range, content
CREATE FUNCTION brief(path text, query text DEFAULT '', headers text[] DEFAULT '{}', method text DEFAULT 'GET', session bigint DEFAULT 1)
	RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', said ->> 'status', field(said, 'Content-Range'), (said ->> 'from') || '-' || (said ->> 'to'),
		CASE WHEN (said ->> 'status')::int < 400 THEN convert_from(bytes, 'UTF8') END) FROM http(path, query, headers, method, session)
$$;
CREATE FUNCTION linked(cap text, id bigint, session bigint DEFAULT 0) RETURNS text LANGUAGE sql AS
$$ SELECT public.brief('/v1/messages/' || id, 'cap=' || cap, session => session) $$;
CREATE FUNCTION shown(said json) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(concat(h ->> 0, ': ', h ->> 1), '\d\d\d\d-\d\d-\d\dT.*Z', 'TIME'), '(essage(?:-Bus-Id: |-))\d+', '\1N')
	FROM json_array_elements(said -> 'headers') h
$$;
CREATE FUNCTION piece(ticket text, start bigint, max int DEFAULT 1048576, n bigint DEFAULT 7) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(said ->> 'piece', '"ticket":"[^"]*"', '"ticket":TICKET') || ' ' || convert_from(bytes, 'UTF8')
	FROM answer(0, 'P', json_build_object('n', n, 'ticket', ticket, 'from', start, 'max', max))
$$;

CREATE FUNCTION called(session bigint, method text, params text) RETURNS json LANGUAGE sql AS $$
	SELECT convert_from(substr(frame, 2), 'UTF8')::json -> 'result' FROM message_bus.relay(ARRAY[session],
		ARRAY['\x01' || convert_to(format('{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}', method, params), 'UTF8')])
$$;

SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "alg": "HS256"}]}');
CREATE FUNCTION url(bytea) RETURNS text IMMUTABLE LANGUAGE sql AS
$$ SELECT rtrim(translate(encode($1, 'base64'), E'+/\n', '-_'), '=') $$;
CREATE FUNCTION hmac(secret bytea, data bytea) RETURNS bytea IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
	inside bytea := decode(repeat('36', 64), 'hex');
	outside bytea := decode(repeat('5c', 64), 'hex');
BEGIN
	FOR i IN 0 .. length(secret) - 1 LOOP
		inside := set_byte(inside, i, get_byte(inside, i) # get_byte(secret, i));
		outside := set_byte(outside, i, get_byte(outside, i) # get_byte(secret, i));
	END LOOP;
	RETURN sha256(outside || sha256(inside || data));
END
$$;
CREATE FUNCTION token(claims text) RETURNS text IMMUTABLE LANGUAGE sql AS $$
	SELECT input || '.' || url(hmac(convert_to(repeat('s', 32), 'UTF8'), convert_to(input, 'UTF8')))
	FROM (SELECT url('{"alg":"HS256"}') || '.' || url(convert_to(claims, 'UTF8'))) t (input)
$$;

SELECT id AS id FROM message_bus.publish_bytes('door', '0123456789', 'text/plain; charset=utf-8', transaction_id => 'a+b c/d',
	headers => '{"filename": "../re\u202epört \"1\".txt"}') AS id \gset
\set path /v1/messages/ :id
SELECT id AS empty FROM message_bus.publish_bytes('door', '', 'text/plain') AS id \gset
\set empty /v1/messages/ :empty
SELECT '"sha256-' || url(sha256('0123456789')) || '"' AS etag \gset
SELECT to_char(created_at, 'Dy, DD Mon YYYY HH24:MI:SS "GMT"') AS modified,
	to_char(created_at - interval '1 s', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"') AS before,
	to_char(created_at + interval '1 s', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"') AS after,
	to_char(created_at, 'FMDay, DD-Mon-YY HH24:MI:SS "GMT"') AS rfc850,
	replace(to_char(created_at, 'Dy Mon DD HH24:MI:SS YYYY'), ' 0', '  ') AS asctime FROM message_bus.get(:id) \gset
SET SESSION AUTHORIZATION regress_door_login;
SET message_bus.anonymous_role = 'regress_door_anon';
SELECT message_bus.open_session(1, token('{"role": "regress_door_user", "sub": "alice"}')) IS NOT NULL AS open,
	message_bus.open_session(2, token('{"role": "regress_door_stranger"}')) IS NOT NULL AS other;

--
-- A whole answer
--
SELECT said - 'headers' - 'ticket', said ->> 'ticket' IS NULL AS whole, bytes FROM (SELECT said::jsonb, convert_from(bytes, 'UTF8') AS bytes FROM http(:'path')) a;
SELECT replace(replace(shown, :'modified', 'MODIFIED'), :'etag', 'ETAG') FROM http(:'path') a, shown(a.said) AS s (shown);
SELECT field(said, 'Repr-Digest') = 'sha-256=:' || encode(sha256('0123456789'), 'base64') || ':' AS digest FROM http(:'path', headers => '{range: bytes=1-2}');
-- HEAD has the same fields, and no content; its range is not one
SELECT (g.said -> 'headers')::text = (h.said -> 'headers')::text AS same, (h.said::jsonb - 'headers')::text, h.bytes FROM http(:'path') g,
	http(:'path', headers => '{range: bytes=1-2}', method => 'HEAD') h;
SELECT brief(:'empty'), brief(:'empty', headers => '{range: bytes=0-}'), brief(:'empty', method => 'HEAD');

--
-- Preconditions: RFC 9110, 13.2.2, with 13.1
--
SELECT n, brief(:'path', headers => string_to_array(replace(replace(replace(replace(replace(replace(h,
	'ETAG', :'etag'), 'MODIFIED', :'modified'), 'BEFORE', :'before'), 'AFTER', :'after'), 'RFC850', :'rfc850'), 'ASCTIME', :'asctime'),
	'|')), h FROM (VALUES
	-- 13.1.1 If-Match: strong comparison
	(1, 'if-match: ETAG'), (2, 'if-match: *'), (3, 'if-match: W/ETAG'), (4, 'if-match: "other"'),
	(5, 'if-match: "a", ETAG'), (6, 'if-match: "a,b" ,, W/"c" ,	ETAG'), (7, 'if-match: "a"|if-match: ETAG'), (8, 'if-match: ETAG x'),
	(9, 'if-match: a'), (10, 'if-match:  '), (11, 'if-match: "a" ETAG'),
	-- 13.1.2 If-None-Match: weak comparison
	(21, 'if-none-match: ETAG'), (22, 'if-none-match: W/ETAG'), (23, 'if-none-match: *'), (24, 'if-none-match: "other"'),
	(25, 'if-none-match: "a", W/ETAG'), (26, 'if-none-match: a'), (27, 'if-none-match: w/ETAG'),
	-- 13.1.3 If-Modified-Since
	(31, 'if-modified-since: MODIFIED'), (32, 'if-modified-since: BEFORE'), (33, 'if-modified-since: AFTER'), (34, 'if-modified-since: RFC850'),
	(35, 'if-modified-since: ASCTIME'), (36, 'if-modified-since: yesterday'), (37, 'if-modified-since: MODIFIED|if-modified-since: MODIFIED'),
	-- 13.1.4 If-Unmodified-Since
	(41, 'if-unmodified-since: MODIFIED'), (42, 'if-unmodified-since: BEFORE'), (43, 'if-unmodified-since: AFTER'), (44, 'if-unmodified-since: x'),
	-- 13.2.2 the order: what is passed over, and what comes first
	(51, 'if-match: ETAG|if-unmodified-since: BEFORE'), (52, 'if-match: "a"|if-unmodified-since: AFTER'),
	(53, 'if-none-match: "a"|if-modified-since: MODIFIED'), (54, 'if-none-match: ETAG|if-modified-since: BEFORE'),
	(55, 'if-match: ETAG|if-none-match: ETAG'), (56, 'if-match: "a"|if-none-match: ETAG'), (57, 'if-unmodified-since: BEFORE|if-none-match: ETAG'),
	(58, 'if-none-match: ETAG|range: bytes=0-1'), (59, 'if-match: "a"|range: bytes=99-'), (60, 'if-match: ETAG|range: bytes=99-'),
	-- 13.1.5 If-Range: a strong tag or the exact date
	(71, 'if-range: ETAG|range: bytes=0-1'), (72, 'if-range: W/ETAG|range: bytes=0-1'), (73, 'if-range: "a"|range: bytes=0-1'),
	(74, 'if-range: MODIFIED|range: bytes=0-1'), (75, 'if-range: AFTER|range: bytes=0-1'), (76, 'if-range: BEFORE|range: bytes=0-1'),
	(77, 'if-range: ETAG'), (78, 'if-range: "a"|range: bytes=99-'), (79, 'if-range: ETAG|range: bytes=99-'), (80, 'if-range: *|range: bytes=0-1'),
	(81, 'if-range: ETAG|if-range: ETAG|range: bytes=0-1')
	) t (n, h) ORDER BY n;

-- dates: 5.6.7, and what is none; of a message of that second
SELECT n, date, brief(:'path', headers => ARRAY['if-modified-since: ' || date]) FROM (VALUES (1, 'Sun, 06 Nov 2094 08:49:37 GMT'), (2, 'Sat, 06 Nov 2094 08:49:37 GMT'),
	(3, 'Saturday, 06-Nov-94 08:49:37 GMT'), (4, 'Sunday, 06-Nov-94 08:49:37 GMT'), (5, 'Sat Nov  6 08:49:37 2094'), (6, 'Sat Nov 06 08:49:37 2094'),
	(7, 'Sat, 6 Nov 2094 08:49:37 GMT'), (8, 'Sat, 06 Nov 2094 08:49:37 UTC'), (9, 'Sat, 06 nov 2094 08:49:37 GMT'), (10, 'Sat, 06 Nov 2094 24:49:37 GMT'),
	(11, 'Sat, 31 Nov 2094 08:49:37 GMT'), (12, 'Sat, 06 Nov 2094 08:49:60 GMT'), (13, 'Sat, 06 Nov 2094 08:49:37 GMT '), (14, 'Thu, 29 Feb 2096 00:00:00 GMT')) t (n, date) ORDER BY n;

--
-- Ranges: 14.1.2, 14.2; one of bytes, and all else is ignored
--
SELECT n, range, brief(:'path', headers => ARRAY['range: ' || range]) FROM (VALUES (1, 'bytes=0-0'), (2, 'bytes=0-4'), (3, 'bytes=5-9'), (4, 'bytes=5-'),
	(5, 'bytes=-3'), (6, 'bytes=9-9'), (7, 'bytes=9-99'), (8, 'bytes=0-'), (9, 'bytes=-10'), (10, 'bytes=-99'), (11, 'bytes=00-01'), (12, 'BYTES=0-1'),
	(21, 'bytes=10-'), (22, 'bytes=10-11'), (23, 'bytes=-0'), (24, 'bytes=99999999999999999999999999-'), (25, 'bytes=1-99999999999999999999999999'),
	(26, 'bytes=-99999999999999999999999999'),
	(31, 'bytes=5-4'), (32, 'bytes=0-,0-,0-'), (33, 'bytes=0-0,-1'), (34, 'bytes=0-0,'), (35, 'bytes='), (36, 'bytes=-'), (37, 'bytes=a-b'), (38, 'bytes= 0-1'),
	(39, 'bytes=0-1 '), (40, 'bytes=0 - 1'), (41, 'bytes=--1'), (42, 'bytes=+0-1'), (43, 'lines=0-1'), (44, 'bytes 0-1'), (45, ''), (46, 'bytes=0x0-1'),
	(47, 'bytes=' || repeat('0', 248) || '1-'), (48, 'bytes=' || repeat('0', 250) || '1-')) t (n, range) ORDER BY n;
SELECT brief(:'path', headers => '{range: bytes=0-1,range: bytes=0-1}');

--
-- Targets
--
SELECT n, target, split_part(brief(replace(split_part(target, '?', 1), 'ID', :'id'), replace(split_part(target, '?', 2), 'ID', :'id')), ' ', 1) FROM (VALUES
	(1, '/v1/messages/ID'), (2, '/v1/messages/ID?'), (3, '/v1/messages/ID?a=b&&=&c'), (4, '/v1/message%73/ID'), (5, '/%761/messages/ID'),
	(11, '/v1/messages/ID/'), (12, '/v1/messages//ID'), (13, '//v1/messages/ID'), (14, '/v1/messages'), (15, '/v1/messages/'), (16, '/'), (17, ''),
	(18, 'v1/messages/ID'), (19, '*'), (20, 'http://host/v1/messages/ID'), (21, '/v1/./messages/ID'), (22, '/v1/x/../messages/ID'), (23, '/v1/x/%2e%2e/messages/ID'),
	(24, '/v1%2Fmessages/ID'), (25, '/v1/messages%2fID'), (26, '/v1/messages/ID%2F'), (27, '/v1/messages/0ID'), (28, '/v1/messages/+ID'), (29, '/v1/messages/-1'),
	(30, '/v1/messages/0'), (31, '/v1/messages/99999999999999999999999'), (32, '/v1/messages/999999999999999999'), (33, '/v1/messages/ID;a=b'), (34, '/v1/messages/ID&a=b'),
	(35, '/v1/messages/ID+'), (36, '/v1/messages/ID%20'), (37, '/V1/messages/ID'), (38, '/v1/a/b/c/d/e/f'), (39, '/v1/messages/\u0031'),
	(41, '/v1/messages/ID%00'), (42, '/v1/messages/ID?cap=%00'), (43, '/v1/messages/ID%'), (44, '/v1/messages/ID%4'), (45, '/v1/messages/ID%zz'), (46, '/v1/messages/ID?%'),
	(47, '/v1/messages/ID '), (48, '/v1/messages/ID?a b'), (49, '/v1/messages/ID?cap=1&cap=1'), (50, '/v1/messages/ID?cap&%63ap')) t (n, target) ORDER BY n;
SELECT n, query, brief('/v1/transactions', query) FROM (VALUES (1, 'channel=door&transaction_id=a%2Bb+c/d'), (2, 'transaction_id=a%2bb%20c%2Fd&channel=do%6Fr'),
	(3, 'channel=door&transaction_id=a+b+c/d'), (4, 'channel=door'), (5, 'channel=door&transaction_id='), (6, 'channel=door&transaction_id=a%2Bb+c/d;x'),
	(7, 'channel=door;transaction_id=a%2Bb+c/d'), (8, 'channel=no&transaction_id=a%2Bb+c/d'), (9, 'channel=door&channel=door&transaction_id=a'),
	(10, 'channel=door&transaction_id=%ff'), (11, 'channel=door&transaction_id=%00'), (12, 'CHANNEL=door&transaction_id=a')) t (n, query) ORDER BY n;
SELECT field(said, 'Content-Location') = :'path' AS location FROM http('/v1/transactions', 'channel=door&transaction_id=a%2Bb+c/d');

--
-- Methods, what browsers ask for, and who asks
--
SELECT method, brief(:'path', method => method) FROM (VALUES ('GET'), ('HEAD'), ('POST'), ('get'), ('OPTIONS'), ('PUT'), ('')) t (method);
SELECT field(said, 'Allow'), field(said, 'Cache-Control') FROM http(:'path', method => 'DELETE');
SELECT said ->> 'status', said ->> 'by', h ->> 0, h ->> 1 FROM http(:'path', 'cap=x', method => 'OPTIONS', session => 0,
	headers => '{origin: https://a,access-control-request-method: GET}'), json_array_elements(said -> 'headers') h WHERE h ->> 0 ~ '^Access';
SELECT dest, brief(:'path', headers => ARRAY['sec-fetch-dest: ' || dest]) FROM unnest('{document,empty,image,audio,video,script,style,worker,sharedworker,serviceworker,
	audioworklet,paintworklet,fencedframe,frame,iframe,object,embed,manifest,xslt}'::text[]) dest;
SELECT n, session, brief(path, session => session) FROM (VALUES (1, 1, :'path'), (2, 2, :'path'), (3, 2, '/v1/messages/1'), (4, 0, :'path'), (5, 0, '/v1/messages/1'),
	(6, 3, :'path'), (7, 0, '/x')) t (n, session, path);
SELECT DISTINCT convert_from(bytes, 'UTF8') FROM (VALUES (1, :'path'), (2, :'path'), (2, '/v1/messages/1'), (2, '/v1/transactions?channel=door&transaction_id=a')) t (s, p),
	http(split_part(p, '?', 1), split_part(p, '?', 2), session => s) a WHERE s = 2;
SELECT n, said ->> 'by', field(said, 'WWW-Authenticate'), convert_from(bytes, 'UTF8') FROM (VALUES (0), (3)) t (n), http(:'path', session => n) a;
SET message_bus.anonymous_role = '';
SELECT brief(:'path', session => 0);
SET message_bus.anonymous_role = 'regress_door_anon';
RESET SESSION AUTHORIZATION;
SELECT message_bus.grant_channel('door', 'regress_door_anon', 'consume');
SET SESSION AUTHORIZATION regress_door_login;
SELECT brief(:'path', session => 0);
SET message_bus.relay_role = 'regress_door_user';
SELECT said ->> 'by', said ->> 'status' FROM http(:'path', session => 0);
SET message_bus.relay_role = 'regress_door_maker';
SELECT said ->> 'by', said ->> 'status' FROM http(:'path', session => 0);
SET message_bus.relay_role = '';
RESET SESSION AUTHORIZATION;
SELECT message_bus.revoke_channel('door', 'regress_door_anon', 'consume');
SET SESSION AUTHORIZATION regress_door_login;

--
-- Tickets
--
SELECT said ->> 'ticket' AS ticket, said ->> 'size' AS size, convert_from(bytes, 'UTF8') AS bytes FROM http(:'path', max => 4) \gset
\echo :size :bytes
SELECT piece(:'ticket', 4, 3), piece(:'ticket', 7), piece(:'ticket', 9);
-- its own range, and no more
SELECT said ->> 'ticket' AS part, convert_from(bytes, 'UTF8') FROM http(:'path', headers => '{range: bytes=2-5}', max => 0) \gset
SELECT start, piece(:'part', start) FROM generate_series(1, 6) start;
-- what has no rest has no ticket, and what is refused has none
SELECT method, headers, said ->> 'ticket' IS NULL FROM (VALUES ('GET', '{}'::text[]), ('HEAD', '{}'), ('GET', '{if-none-match: *}'), ('GET', '{range: bytes=10-}'),
	('GET', '{if-match: x}')) t (m, h), http(:'path', method => m, headers => h, max => CASE WHEN m = 'GET' AND h = '{}' THEN 10 ELSE 0 END) a,
	LATERAL (SELECT m AS method, h AS headers) l;
-- changed in any byte, cut, longer: nothing
SELECT count(*), count(*) FILTER (WHERE piece(ticket, 4) <> '{"n":7,"gone":"denied"} ') AS taken FROM
	(SELECT overlay(:'ticket' PLACING CASE WHEN substr(:'ticket', i, 1) = '1' THEN '2' ELSE '1' END FROM i) FROM generate_series(1, length(:'ticket')) i
	UNION ALL SELECT left(:'ticket', i) FROM generate_series(0, length(:'ticket') - 1) i
	UNION ALL SELECT :'ticket' || '0' UNION ALL SELECT '0' || :'ticket' UNION ALL SELECT upper(:'ticket')) t (ticket);
-- one that is refused leaves nothing of its caller to the frame behind it
RESET SESSION AUTHORIZATION;
BEGIN;
SELECT message_bus.revoke_channel('door', 'regress_door_user', 'consume');
SET LOCAL SESSION AUTHORIZATION regress_door_login;
SELECT piece(:'ticket', 4);
SELECT convert_from(substr(frame, 2), 'UTF8') ~ '"status":404' AS refused FROM message_bus.relay('{0,2}', ARRAY['\x0050'::bytea ||
	convert_to(json_build_object('n', 1, 'ticket', :'ticket', 'from', 4, 'max', 9)::text, 'UTF8'),
	'\x0048'::bytea || convert_to(json_build_object('n', 2, 'method', 'GET', 'path', :'path', 'max', 9)::text, 'UTF8')]);
ROLLBACK;
-- not after the role has gone from the login, its sessions were ended, the message deleted, or the key replaced
BEGIN;
REVOKE regress_door_user FROM regress_door_login;
SET LOCAL SESSION AUTHORIZATION regress_door_login;
SELECT piece(:'ticket', 4);
ROLLBACK;
BEGIN;
SELECT message_bus.end_sessions('bob');
SELECT piece(:'ticket', 4, 2);
SELECT message_bus.end_sessions('alice');
SELECT piece(:'ticket', 4);
ROLLBACK;
BEGIN;
SELECT message_bus.rotate_body_keys();
SELECT piece(:'ticket', 4);
ROLLBACK;
BEGIN;
SELECT message_bus.purge_channel('door') > 0 AS purged;
COMMIT;
SELECT piece(:'ticket', 4);
-- one that expires
RESET SESSION AUTHORIZATION;
SELECT message_bus.publish_bytes('door', 'short', ttl => '0.5 s') AS short \gset
SET SESSION AUTHORIZATION regress_door_login;
SELECT said ->> 'ticket' AS ticket FROM http('/v1/messages/' || :short, max => 0) \gset
SELECT pg_temp.wait_for(format('SELECT public.piece(%L, 0) LIKE ''{"n":7,"gone":"expired"}%%''', :'ticket')), brief('/v1/messages/' || :short);

--
-- Links
--
RESET SESSION AUTHORIZATION;
SELECT message_bus.publish_bytes('door', 'linked', 'image/svg+xml', ttl => '1 hour') AS linked \gset
SELECT message_bus.publish_bytes('door', 'other', 'image/PNG') AS other \gset
SET ROLE regress_door_maker;
SELECT message_bus.body_url(:linked) AS url, message_bus.body_url(:linked, '7 days') AS long \gset
SELECT split_part(:'url', '?', 1) = '/v1/messages/' || :linked AS path, split_part(:'url', '=', 2) AS cap, split_part(:'long', '=', 2) AS long_cap \gset
SELECT :'path', regexp_replace(:'cap', '^1\.\d+\.\d+\.\d+\.[0-9a-f]{64}$', 'CAP');
SELECT split_part(:'cap', '.', 3)::bigint % 60, to_timestamp(split_part(:'cap', '.', 3)::bigint) - clock_timestamp() BETWEEN '1 hour' AND '61 minutes',
	split_part(:'cap', '.', 4)::oid::regrole;
SET message_bus.body_url_prefix = 'https://bus.example.com/a';
SELECT replace(split_part(message_bus.body_url(:linked), '?', 1), :'linked', 'N');
SELECT pg_temp.fails(format('SET message_bus.body_url_prefix = %L', p)) FROM unnest('{https://a/,https://a/v1,ftp://a,a,http://a?b,http://a b,http://a#}'::text[]) p;
RESET message_bus.body_url_prefix;
SELECT n, pg_temp.fails(format('SELECT message_bus.body_url(%s, %L)', :linked, v)) FROM (VALUES (1, '0'), (2, '-1 s'), (3, '7 days 1 s'), (4, '100 years'), (5, 'infinity')) t (n, v);
SELECT message_bus.body_url(1), message_bus.body_url(NULL), message_bus.body_url(:linked, NULL);
SET ROLE regress_door_stranger;
SELECT pg_temp.fails(format('SELECT message_bus.body_url(%s)', :linked));
SELECT pg_temp.fails('SELECT message_bus.rotate_body_keys()'), pg_temp.fails('TABLE message_bus.body_key');
RESET ROLE;
SET SESSION AUTHORIZATION regress_door_login;
SELECT linked(:'cap', :linked), linked(:'long_cap', :linked);
SELECT said ->> 'by', h ->> 0, replace(h ->> 1, :'linked', 'N') FROM http('/v1/messages/' || :linked, 'cap=' || :'cap', session => 0) a,
	json_array_elements(a.said -> 'headers') h WHERE h ->> 0 IN ('Cache-Control', 'Cross-Origin-Resource-Policy', 'Access-Control-Allow-Origin', 'Content-Type', 'Content-Disposition');
SELECT field(said, 'Cache-Control') FROM http('/v1/messages/' || :linked, 'cap=' || :'cap', headers => '{if-none-match: *}', session => 0);
-- a token comes first, a link to another message is none, nor is one to a transaction
SELECT linked(:'cap', :linked, 2), linked(:'cap', :other), brief('/v1/transactions', 'channel=door&transaction_id=a&cap=' || :'cap', session => 0);
SELECT field(said, 'Content-Disposition') ~ '^inline' AS inline, field(said, 'Content-Type') FROM http('/v1/messages/' || :other);
-- changed in any byte, cut, longer, spelt otherwise: as if there were no message
SELECT count(*) > 450, count(*) FILTER (WHERE linked(cap, :linked) <> '404 0-155') AS taken FROM
	(SELECT overlay(:'cap' PLACING c FROM i) FROM generate_series(1, length(:'cap')) i, unnest('{0,1,f,.}'::text[]) c WHERE substr(:'cap', i, 1) <> c
	UNION ALL SELECT left(:'cap', i) FROM generate_series(0, length(:'cap') - 1) i UNION ALL SELECT substr(:'cap', i) FROM generate_series(2, length(:'cap')) i
	UNION ALL SELECT unnest(ARRAY[upper(:'cap'), :'cap' || '0', :'cap' || '%20', :'cap' || '.', regexp_replace(:'cap', '^1\.', '1.0'), regexp_replace(:'cap', '^1\.', '1.+'),
		regexp_replace(:'cap', '^1', '01'), regexp_replace(:'cap', '^1', '2'), repeat('1', 8000)])) t (cap);
-- a download by a link goes on, as its role may
SELECT said ->> 'ticket' AS ticket FROM http('/v1/messages/' || :linked, 'cap=' || :'cap', session => 0, max => 0) \gset
SELECT piece(:'ticket', 0);
RESET SESSION AUTHORIZATION;
BEGIN;
SELECT message_bus.revoke_channel('door', 'regress_door_maker', 'consume');
SET LOCAL SESSION AUTHORIZATION regress_door_login;
SELECT linked(:'cap', :linked), piece(:'ticket', 0);
ROLLBACK;
-- who has been dropped has made no links
BEGIN;
SELECT message_bus.revoke_channel('door', 'regress_door_maker', 'consume');
DROP ROLE regress_door_maker;
SET LOCAL SESSION AUTHORIZATION regress_door_login;
SELECT linked(:'cap', :linked), piece(:'ticket', 0);
ROLLBACK;
-- the key is in no dump
SELECT 'message_bus.body_key'::regclass = ANY (extconfig) FROM pg_extension WHERE extname = 'message_bus';
-- a new key
BEGIN;
SELECT number, message_bus.rotate_body_keys() FROM message_bus.body_key;
SELECT count(*), max(number), max(length(secret)) FROM message_bus.body_key;
SELECT linked(:'cap', :linked), linked(:'long_cap', :linked), piece(:'ticket', 0);
SELECT linked(split_part(message_bus.body_url(:linked), '=', 2), :linked);
DELETE FROM message_bus.body_key;
SELECT linked(:'cap', :linked);
SELECT pg_temp.fails('SELECT message_bus.body_url(' || :linked || ')');
SELECT message_bus.rotate_body_keys();
ROLLBACK;
SELECT linked(:'cap', :linked);
-- a database that was copied has the key, and its links are other ones
BEGIN;
UPDATE message_bus.server_state SET bus = '00000000-0000-0000-0000-000000000000';
UPDATE message_bus.body_key SET number = number;
SELECT linked(:'cap', :linked);
ROLLBACK;
-- the time is over
BEGIN;
SET LOCAL message_bus.body_url_max = 1;
SELECT secret AS secret FROM message_bus.body_key \gset
SELECT '1.1.' || extract(epoch FROM date_trunc('minute', clock_timestamp()))::bigint || '.' || 'regress_door_maker'::regrole::oid AS past,
	'1.1.' || extract(epoch FROM date_trunc('minute', clock_timestamp()) + interval '1 minute')::bigint || '.' || 'regress_door_maker'::regrole::oid AS ahead \gset
CREATE FUNCTION pg_temp.made(text text, id bigint) RETURNS text LANGUAGE sql AS $$
	SELECT text || '.' || encode(public.hmac(k.secret, convert_to(E'mbus-cap/1\n', 'UTF8') || uuid_send(s.bus)
		|| (SELECT int4send(oid::int) FROM pg_database WHERE datname = current_database())
		|| convert_to(id || E'\nall\n' || text, 'UTF8')), 'hex')
	FROM message_bus.body_key k, message_bus.server_state s
$$;
SELECT linked(pg_temp.made(:'ahead', :linked), :linked), linked(pg_temp.made(:'past', :linked), :linked);
ROLLBACK;
-- the message is gone
SELECT message_bus.purge_channel('door') > 0 AS purged;
SELECT linked(:'cap', :linked), piece(:'ticket', 0);

--
-- A channel that keeps subjects apart
--
SELECT message_bus.create_channel('door_own', visibility => 'subject');
SELECT message_bus.grant_channel('door_own', 'regress_door_user', 'all'), message_bus.grant_channel('door_own', 'regress_door_maker', 'consume'),
	message_bus.grant_channel('door_own', 'regress_door_maker', 'all_subjects');
SET SESSION AUTHORIZATION regress_door_login;
SELECT message_bus.open_session(4, token('{"role": "regress_door_user", "sub": "bob"}')) IS NOT NULL AS bob;
SELECT called(1, 'publish', '{"channel": "door_own", "payload": "of alice", "transaction_id": "t"}') AS own \gset
SELECT brief('/v1/messages/' || :own, session => s), brief('/v1/transactions', 'channel=door_own&transaction_id=t', session => s) FROM unnest('{1,4,0}'::int[]) s;
SELECT said ->> 'ticket' AS ticket FROM http('/v1/messages/' || :own, max => 0) \gset
SELECT piece(:'ticket', 0);
-- in a reference, where links have a prefix
SET message_bus.inline_max = 0;
SELECT called(1, 'get_by_transaction', '{"channel": "door_own", "transaction_id": "t"}') #>> '{ref,url}' IS NULL AS none;
SET message_bus.body_url_prefix = 'http://127.0.0.1:8080';
SELECT called(1, 'get_by_transaction', '{"channel": "door_own", "transaction_id": "t"}') #>> '{ref,url}' AS url \gset
SELECT split_part(:'url', '/v1/', 1), linked(split_part(:'url', '=', 2), :own);
RESET message_bus.body_url_prefix;
RESET message_bus.inline_max;
SELECT split_part(called(1, 'body_url', '{"id": ' || :own || '}') #>> '{}', '=', 2) AS cap, called(4, 'body_url', '{"id": ' || :own || '}') IS NULL AS none \gset
SELECT linked(:'cap', :own), :'none' AS none;
RESET SESSION AUTHORIZATION;
SET ROLE regress_door_maker;
SELECT split_part(message_bus.body_url(:own), '=', 2) AS cap \gset
RESET ROLE;
SELECT linked(:'cap', :own);
SELECT message_bus.revoke_channel('door_own', 'regress_door_maker', 'all_subjects');
SELECT linked(:'cap', :own);

--
-- Reads that are recorded: a download once, at its beginning
--
SELECT message_bus.create_channel('door_read', record_reads => true);
SELECT message_bus.grant_channel('door_read', 'regress_door_user', 'all'), message_bus.grant_channel('door_read', 'regress_door_maker', 'all');
SELECT message_bus.publish_bytes('door_read', '0123456789') AS read \gset
SET ROLE regress_door_maker;
SELECT split_part(message_bus.body_url(:read), '=', 2) AS cap \gset
SET SESSION AUTHORIZATION regress_door_login;
SELECT said ->> 'ticket' AS ticket, field(said, 'Content-Type') AS type, field(said, 'Content-Disposition') ~ '^attachment' AS attached FROM http('/v1/messages/' || :read, max => 0) \gset
\echo :type :attached
SELECT piece(:'ticket', 0, 5), piece(:'ticket', 5);
SELECT brief('/v1/messages/' || :read, headers => h, method => m) FROM (VALUES ('{}'::text[], 'HEAD'), ('{if-none-match: *}', 'GET'), ('{range: bytes=99-}', 'GET'), ('{range: bytes=1-2}', 'GET')) t (h, m);
SELECT linked(:'cap', :read);
RESET SESSION AUTHORIZATION;
SELECT role, subject, session FROM message_bus.event WHERE message_id = :read AND kind = 'accessed' ORDER BY at;

--
-- What is damaged, and frames that are not made as they should be
--
SELECT message_bus.create_channel('door_damaged', compression => 'none');
SELECT message_bus.grant_channel('door_damaged', 'regress_door_user', 'all');
SELECT message_bus.publish_bytes('door_damaged', '0123456789') AS damaged \gset
SET SESSION AUTHORIZATION regress_door_login;
SELECT said ->> 'ticket' AS ticket FROM http('/v1/messages/' || :damaged, max => 0) \gset
RESET SESSION AUTHORIZATION;
UPDATE message_bus.message SET payload = '0123456788' WHERE id = :damaged;
SET SESSION AUTHORIZATION regress_door_login;
SELECT said ->> 'status', field(said, 'Cache-Control'), replace(convert_from(bytes, 'UTF8'), :'damaged', 'N') FROM http('/v1/messages/' || :damaged) a;
SELECT piece(:'ticket', 0);
SELECT n, (SELECT convert_from(substr(frame, 2), 'UTF8') ~ '"status":500' FROM message_bus.relay('{0}', ARRAY['\x00'::bytea || convert_to(f, 'UTF8')])) AS answer FROM (VALUES
	(1, 'H'), (2, 'H{'), (3, 'H[]'), (4, 'H{}'), (5, 'H{"n":1}'), (6, 'H{"n":1,"max":1}'), (7, 'H{"n":-1,"max":1}'), (8, 'H{"n":9007199254740992,"max":1}'),
	(9, 'H{"n":1,"n":1,"max":1,"method":"GET","path":"/"}'), (10, 'H{"n":1,"max":1,"method":"GET","path":1}'), (11, 'H{"n":1,"max":1,"method":"GET","path":"\u0000"}'),
	(12, 'H{"n":1,"max":1,"method":"GET","path":"/","headers":{}}'), (13, 'H{"n":1,"max":1,"method":"GET","path":"/","headers":[1]}'),
	(14, 'H{"n":1,"max":1,"method":"GET","path":"/","headers":[["a"]]}'), (15, 'H{"n":1,"max":1,"method":"GET","path":"/","headers":[["a",1]]}'),
	(16, 'H{"n":1,"max":1,"method":"GET","path":"/","headers":[["a","b","c"]]}'), (17, 'H{"n":1,"max":"1"}'), (18, 'P{"n":1,"max":1}'),
	(19, 'P{"n":1,"max":1,"ticket":"a","from":-1}'), (20, 'H{"n":1,"max":1,"method":"GET","path":"' || repeat('/', 200000) || '"}'),
	(21, 'H{"n":1,"max":1,"method":"GET","path":"/","headers":[' || repeat('["a","b"],', 256) || '["a","b"]]}')) t (n, f) ORDER BY n;
RESET SESSION AUTHORIZATION;

--
-- Bodies in parts: in pieces that cross them, by ranges, from the ticket alone
--
SELECT message_bus.create_channel('door_large');
SELECT message_bus.grant_channel('door_large', 'regress_door_user', 'all');
CREATE FUNCTION downloaded(path text, headers text[], most int) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
	a record;
	got bytea;
	ticket text;
	start bigint;
	until bigint;
BEGIN
	SELECT * INTO a FROM public.http(path, headers => headers, max => most);
	got := a.bytes;
	start := (a.said ->> 'from')::bigint + (a.said ->> 'size')::bigint;
	until := (a.said ->> 'to')::bigint;
	ticket := a.said ->> 'ticket';
	WHILE start < until LOOP
		SELECT * INTO a FROM public.answer(0, 'P', json_build_object('n', 1, 'ticket', ticket, 'from', start, 'max', most));
		got := got || a.bytes;
		start := start + (a.said #>> '{piece,size}')::bigint;
		ticket := a.said #>> '{piece,ticket}';
	END LOOP;
	RETURN got;
END
$$;
CREATE TABLE large AS SELECT string_agg(sha256(int4send(i)), '' ORDER BY i) AS bytes FROM generate_series(1, 50000) i;
GRANT SELECT ON large TO regress_door_login;
SELECT message_bus.publish_bytes('door_large', bytes) AS large FROM large \gset
SET SESSION AUTHORIZATION regress_door_login;
SELECT most, downloaded('/v1/messages/' || :large, '{}', most) = bytes AS same FROM large, unnest('{262144,262143,1000000,1048576}'::int[]) most;
SELECT range, downloaded('/v1/messages/' || :large, ARRAY['range: bytes=' || start || '-' || last], 100000) = substr(bytes, start + 1, last - start + 1) AS same
FROM large, (VALUES (0, 0), (262143, 262144), (262144, 262144), (100000, 900000), (1599999, 1599999)) r (start, last), LATERAL (SELECT start || '-' || last AS range) l;
SELECT field(said, 'Content-Range'), said ->> 'from', field(said, 'ETag') = '"sha256-' || url(sha256(l.bytes)) || '"' AS etag FROM large l,
	http('/v1/messages/' || :large, headers => '{range: bytes=-5}') a;
SELECT said ->> 'size', said ->> 'ticket' IS NULL FROM http('/v1/messages/' || :large, max => 2000000);
-- a part that is damaged: all before it, and then no more
SELECT said ->> 'ticket' AS ticket FROM http('/v1/messages/' || :large, max => 0) \gset
RESET SESSION AUTHORIZATION;
\set ECHO none
SELECT format('UPDATE message_bus.part_%s SET sha256 = %L WHERE body = %s AND n = 3', body >> 20, sha256('other'), body) FROM message_bus.message WHERE id = :large \gexec
\set ECHO all
SET SESSION AUTHORIZATION regress_door_login;
SELECT said #>> '{piece,size}' FROM answer(0, 'P', json_build_object('n', 1, 'ticket', :'ticket', 'from', 524288, 'max', 262144)) a;
SELECT piece(:'ticket', 786431, 2);
-- one that is deleted while it is downloaded
RESET SESSION AUTHORIZATION;
SELECT message_bus.publish_bytes('door_large', bytes, transaction_id => 'deleted') AS large FROM large \gset
SET SESSION AUTHORIZATION regress_door_login;
SELECT said ->> 'ticket' AS ticket FROM http('/v1/messages/' || :large, max => 0) \gset
RESET SESSION AUTHORIZATION;
SELECT message_bus.purge_channel('door_large') > 0 AS purged;
SET SESSION AUTHORIZATION regress_door_login;
SELECT piece(:'ticket', 0, 10), brief('/v1/messages/' || :large);
RESET SESSION AUTHORIZATION;

-- what was refused is told of, and quotes no link and no ticket
SELECT pg_temp.wait_for($$SELECT count(*) >= 2 FROM message_bus.errors WHERE function = 'http' AND sqlstate = 'XX001'$$);
SELECT count(*) > 10, bool_or(concat(message, detail) ~ '[0-9a-f]{40}') FROM message_bus.errors WHERE function = 'http';

SELECT message_bus.drop_channel(c) FROM unnest('{door,door_own,door_read,door_damaged,door_large}'::text[]) c;
SELECT message_bus.set_jwt_keys('{"keys": []}');
DROP TABLE large;
DROP FUNCTION downloaded, http, field, brief, piece, linked, shown, answer, called, url, hmac, token;
REVOKE ALL ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session FROM regress_door_login;
DROP ROLE regress_door_login, regress_door_anon, regress_door_user, regress_door_maker, regress_door_stranger;
