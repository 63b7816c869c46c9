--
-- visibility: in a channel with visibility "subject" a message is its publisher's
-- and its recipient's; to anybody else it is not there
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset format unaligned
\pset tuples_only on

CREATE ROLE regress_vis_user;
CREATE ROLE regress_vis_other;
CREATE ROLE regress_vis_member;
CREATE ROLE regress_vis_worker;
CREATE ROLE regress_vis_auditor;
CREATE ROLE regress_vis_owner;
CREATE ROLE regress_vis_stranger;
CREATE ROLE regress_vis_monitor;
CREATE ROLE regress_vis_login LOGIN NOINHERIT;
GRANT pg_monitor TO regress_vis_monitor;
GRANT regress_vis_user TO regress_vis_member;
GRANT regress_vis_user, regress_vis_other, regress_vis_worker TO regress_vis_login;
GRANT EXECUTE ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session TO regress_vis_login;
GRANT EXECUTE ON FUNCTION message_bus.create_channel, message_bus.alter_channel, message_bus.grant_channel, message_bus.revoke_channel,
	message_bus.create_subscription, message_bus.drop_channel TO regress_vis_owner;
GRANT EXECUTE ON FUNCTION message_bus.create_subscription, message_bus.redrive TO regress_vis_user, regress_vis_worker;

-- the argument
SELECT pg_temp.fails($$SELECT message_bus.create_channel('vis', visibility => 'nobody')$$);
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('default', visibility => '')$$);
SET ROLE regress_vis_owner;
SELECT message_bus.create_channel('vis', lease => '1 hour', max_attempts => 1, visibility => 'subject');
SELECT message_bus.grant_channel('vis', 'regress_vis_user', 'all');
SELECT message_bus.grant_channel('vis', 'regress_vis_other', 'all');
SELECT message_bus.grant_channel('vis', 'regress_vis_worker', 'consume');
SELECT message_bus.grant_channel('vis', 'regress_vis_worker', 'all_subjects');
SELECT message_bus.grant_channel('vis', 'regress_vis_auditor', 'audit');
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('vis', 'regress_vis_user', 'some_subjects')$$);
SELECT grantee, may_publish, may_consume, may_audit, all_subjects FROM message_bus.grants WHERE channel = 'vis' ORDER BY grantee::text COLLATE "C";
RESET ROLE;
SELECT channel, visibility FROM message_bus.channels WHERE channel IN ('vis', 'default');

-- clients of a gateway
\set control :here /sql/include/control.sql
\i :control
CREATE FUNCTION pg_temp.ask(session bigint, method text, params json) RETURNS json LANGUAGE sql AS $$
	SELECT convert_from(substr(r.frame, 2), 'UTF8')::json FROM message_bus.relay(ARRAY[session], ARRAY['\x01'::bytea
		|| convert_to(format('{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}', method, params), 'UTF8')]) r
$$;
-- a result, or the whole error, with ids taken out
CREATE FUNCTION pg_temp.says(session bigint, method text, params json) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(COALESCE(r ->> 'result', (r -> 'error')::text), '\d{6,}', 'N', 'g') FROM pg_temp.ask(session, method, params) r
$$;
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "alg": "HS256"}]}');
SET message_bus.anonymous_role = 'regress_vis_user';
SET message_bus.default_channel = 'vis';
SET SESSION AUTHORIZATION regress_vis_login;
-- 1 ann, 2 bob, 3 another role's ann, 4 no subject, 5 no token, 6 ann again, 7 a worker
SELECT count(*) FROM message_bus.relay('{1,2,3,4,5,6,7}', ARRAY[pg_temp.control('{"role": "regress_vis_user", "sub": "ann"}'),
	pg_temp.control('{"role": "regress_vis_user", "sub": "bob"}'), pg_temp.control('{"role": "regress_vis_other", "sub": "ann"}'),
	pg_temp.control('{"role": "regress_vis_user"}'), '\x004f', pg_temp.control('{"role": "regress_vis_user", "sub": "ann"}'),
	pg_temp.control('{"role": "regress_vis_worker", "sub": "w"}')]);
SELECT pg_temp.ask(1, 'publish', '{"channel": "vis", "payload": "from ann", "transaction_id": "a1", "key": "k"}') ->> 'result' AS a1 \gset
SELECT pg_temp.ask(1, 'publish', '{"channel": "vis", "payload": "to bob", "transaction_id": "a2", "recipient": "bob"}') ->> 'result' AS a2 \gset
SELECT pg_temp.ask(4, 'publish', '{"channel": "vis", "payload": "from nobody", "transaction_id": "n1"}') ->> 'result' AS n1 \gset

-- who gets what: by id, a range of bytes, transaction id, peek
CREATE FUNCTION pg_temp.gets(session bigint, id bigint) RETURNS text LANGUAGE sql AS $$
	SELECT COALESCE(pg_temp.ask(session, 'get', json_build_object('id', id)) -> 'result' ->> 'payload', '-')
		|| ' ' || COALESCE(pg_temp.ask(session, 'get_bytes', json_build_object('id', id)) -> 'result' ->> 'size', '-')
$$;
SELECT s, pg_temp.gets(s, :a1), pg_temp.gets(s, :a2), pg_temp.gets(s, :n1),
	(SELECT string_agg(p ->> 'payload', ', ') FROM json_array_elements(pg_temp.ask(s, 'peek', '{"channel": "vis"}') -> 'result') p)
	FROM generate_series(1, 7) s;
SELECT s, t, pg_temp.ask(s, 'get_by_transaction', json_build_object('channel', 'vis', 'transaction_id', t)) -> 'result' ->> 'payload',
	pg_temp.ask(s, 'retrieve_message', json_build_object('transaction_id', t)) ->> 'result'
	FROM generate_series(1, 7) s, unnest(ARRAY['a1', 'a2']) t;
-- peek passes over what is not there, and counts only what is
SELECT json_array_length(pg_temp.ask(2, 'peek', '{"channel": "vis", "max_messages": 1}') -> 'result');

-- what is not one's own answers as what does not exist, to the letter
CREATE FUNCTION pg_temp.same(session bigint, id bigint, transaction_id text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT method || ': ' || there || ' / ' || absent
	FROM (VALUES ('get', json_build_object('id', id), json_build_object('id', id + 1000000)),
		('get_bytes', json_build_object('id', id), json_build_object('id', id + 1000000)),
		('get_by_transaction', json_build_object('channel', 'vis', 'transaction_id', transaction_id),
			json_build_object('channel', 'vis', 'transaction_id', transaction_id || '0')),
		('retrieve_message', json_build_object('transaction_id', transaction_id), json_build_object('transaction_id', transaction_id || '0')),
		('delete_message', json_build_object('transaction_id', transaction_id), json_build_object('transaction_id', transaction_id || '0')))
		AS t (method, params, absent_params),
		pg_temp.says(session, method, params) there, pg_temp.says(session, method, absent_params) absent
	WHERE there <> absent OR (there LIKE '{%' AND there NOT LIKE '%-32003%') OR there = 'true'
$$;
SELECT s, pg_temp.same(s, :a1, 'a1') FROM unnest(ARRAY[2, 3, 4, 5]) s;
SELECT s, pg_temp.same(s, :a2, 'a2') FROM unnest(ARRAY[3, 4, 5]) s;
SELECT s, pg_temp.same(s, :n1, 'n1') FROM unnest(ARRAY[1, 2, 3]) s;

-- to claim takes all_subjects, and so does what tells that there is something
SELECT s, pg_temp.says(s, 'claim', '{"channel": "vis"}') FROM unnest(ARRAY[1, 4]) s;
SELECT pg_temp.says(1, 'create_subscription', '{"channel": "vis", "subscription": "s"}');
SELECT pg_temp.says(1, 'redrive', '{"dead_letter": "vis"}');
SELECT json_array_length(pg_temp.ask(7, 'claim', '{"channel": "vis", "batch": 2, "keep": true}') -> 'result');

-- a transaction id that somebody else has used: no id, and the same for all bytes
SELECT pg_temp.says(6, 'publish', '{"channel": "vis", "payload": "from ann", "transaction_id": "a1", "receipt": true}');
SELECT s, p, pg_temp.says(s, 'publish', json_build_object('channel', 'vis', 'payload', p, 'transaction_id', 'a1', 'receipt', true))
	FROM unnest(ARRAY[2, 3, 4]) s, unnest(ARRAY['from ann', 'other bytes']) p;
SELECT pg_temp.says(2, 'publish_batch', '{"channel": "vis", "messages": [{"payload": 1}, {"payload": "from ann", "transaction_id": "a1"}]}');
SELECT pg_temp.says(1, 'publish', '{"channel": "vis", "payload": "other bytes", "transaction_id": "a1"}');
-- whom a message is for may know that it is there
SELECT pg_temp.says(2, 'publish', '{"channel": "vis", "payload": "to bob", "transaction_id": "a2", "receipt": true}');

-- recipients, in every way to publish
SELECT pg_temp.says(1, 'publish_text', '{"channel": "vis", "payload": "t", "content_type": "text/plain", "recipient": "bob"}');
SELECT pg_temp.says(1, 'publish_batch', '{"channel": "vis", "messages": [{"payload": "b1", "recipient": "bob"}, {"payload": "b2", "recipient": null}]}');
SELECT pg_temp.says(1, 'publish_batch', '{"channel": "vis", "messages": [{"payload": "b1", "recipient": 1}]}');
SELECT pg_temp.says(1, 'publish', '{"channel": "vis", "payload": 1, "recipient": ""}');
SELECT (pg_temp.says(1, 'publish', json_build_object('channel', 'vis', 'payload', 1, 'recipient', repeat('x', 16385)))::json) ->> 'message';
SELECT s, count(*) FROM unnest(ARRAY[1, 2, 3]) s, json_array_elements(pg_temp.ask(s, 'peek', '{"channel": "vis"}') -> 'result') GROUP BY s ORDER BY s;
RESET SESSION AUTHORIZATION;
SELECT message_bus.publish_once('vis', '1', recipient => 'r') IS NOT NULL, message_bus.publish_bytes('vis', 'x', recipient => 'r') > 0,
	cardinality(message_bus.publish_batch_bytes('vis', ARRAY['x', 'y']::bytea[], recipients => ARRAY['r', NULL]));
SELECT recipient, count(*) FROM message_bus.messages WHERE channel = 'vis' GROUP BY 1 ORDER BY 1;

-- a subject that is longer than 255 bytes is none that begins alike
SET SESSION AUTHORIZATION regress_vis_login;
SELECT count(*) FROM message_bus.relay('{8,9}', ARRAY[pg_temp.control(json_build_object('role', 'regress_vis_user', 'sub', repeat('l', 300))::text),
	pg_temp.control(json_build_object('role', 'regress_vis_user', 'sub', repeat('l', 301))::text)]);
SELECT pg_temp.ask(8, 'publish', '{"channel": "vis", "payload": "long"}') ->> 'result' AS long \gset
SELECT s, pg_temp.gets(s, :long) FROM unnest(ARRAY[8, 9]) s;
-- nor is what is addressed to it
SELECT pg_temp.ask(1, 'publish', format('{"channel": "vis", "payload": "to long", "recipient": "%s"}', repeat('l', 300))::json) ->> 'result' AS tolong \gset
SELECT pg_temp.ask(1, 'publish_batch', format('{"channel": "vis", "messages": [{"payload": "to longer", "recipient": "%s"}]}', repeat('l', 301))::json) -> 'result' ->> 0 AS tolonger \gset
SELECT s, pg_temp.gets(s, :tolong), pg_temp.gets(s, :tolonger) FROM unnest(ARRAY[8, 9]) s;
RESET SESSION AUTHORIZATION;
SELECT length(subject) FROM message_bus.messages WHERE id = :long;
SELECT recipient AS cut FROM message_bus.messages WHERE id = :tolong \gset
-- nobody takes the name that it has when it is cut
SET SESSION AUTHORIZATION regress_vis_login;
SELECT count(*), min(convert_from(substr(frame, 2), 'UTF8')) AS told FROM message_bus.relay('{10}', ARRAY[pg_temp.control(json_build_object('role', 'regress_vis_user', 'sub', :'cut')::text)]);
RESET SESSION AUTHORIZATION;
SET ROLE regress_vis_user;
SELECT set_config('request.jwt.claims', json_build_object('sub', :'cut')::text, false) IS NULL;
SELECT count(*) FROM message_bus.get(:tolong);
SELECT set_config('request.jwt.claims', json_build_object('sub', repeat('l', 300))::text, false) IS NULL;
SELECT count(*) FROM message_bus.get(:tolong);
RESET request.jwt.claims;
RESET ROLE;
-- an end is of one of them
BEGIN;
SELECT message_bus.end_sessions(repeat('l', 301));
SET LOCAL SESSION AUTHORIZATION regress_vis_login;
SELECT s, pg_temp.gets(s, :tolong), pg_temp.gets(s, :tolonger) FROM unnest(ARRAY[8, 9]) s;
ROLLBACK;

-- SQL: the role that has published, and who has its privileges; claims only take away
SELECT channel_id AS vis FROM message_bus.channel WHERE name = 'vis' \gset
CREATE FUNCTION pg_temp.sees(vis integer, ids bigint[]) RETURNS TABLE (sees text) LANGUAGE sql AS $$
	SELECT string_agg(concat_ws('', CASE WHEN EXISTS (SELECT FROM message_bus.get(i)) THEN 'g' END,
		CASE WHEN message_bus.get_bytes(i) IS NOT NULL THEN 'b' END,
		CASE WHEN EXISTS (SELECT FROM message_bus.peek('vis', i - 1, 1) p WHERE p.id = i) THEN 'p' END,
		CASE WHEN EXISTS (SELECT FROM message_bus.messages m WHERE m.id = i) THEN 'm' END,
		CASE WHEN EXISTS (SELECT FROM message_bus.message_bus m WHERE m.id = i AND m.payload IS NOT NULL) THEN 't' END,
		CASE WHEN EXISTS (SELECT FROM message_bus.messages m WHERE m.channel = 'vis' AND m.transaction_id = t) THEN 'x' END,
		CASE WHEN EXISTS (SELECT FROM message_bus.get_by_transaction('vis', t)) THEN 'y' END,
		CASE WHEN message_bus.delivery_status(i, vis, '-infinity') IS NOT NULL THEN 's' END), ' | ' ORDER BY n)
	FROM unnest(ids, ARRAY['a1', 'a2', 'n1']) WITH ORDINALITY AS u (i, t, n)
$$;
SET ROLE regress_vis_user;
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET request.jwt.claims = '{"sub": "ann"}';
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET request.jwt.claims = '{"sub": "bob"}';
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET request.jwt.claims = '{"role": "regress_vis_user"}';
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET request.jwt.claims = 'no json';
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET request.jwt.claims = '{"sub": ["bob"]}';
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET request.jwt.claims = '{"sub": 42}';
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET ROLE regress_vis_other;
SET request.jwt.claims = '{"sub": "bob"}';
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
RESET request.jwt.claims;
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET ROLE regress_vis_member;
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET ROLE regress_vis_worker;
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET ROLE regress_vis_owner;
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
SET ROLE regress_vis_stranger;
SELECT pg_temp.fails('SELECT message_bus.get(' || :a1 || ')'), pg_temp.fails('SELECT message_bus.get_bytes(' || :a1 || ')'),
	pg_temp.fails('SELECT message_bus.record_event(' || :a1 || ', ''deleted'', now())'),
	(SELECT count(*) FROM message_bus.messages WHERE channel = 'vis');
-- an auditor has nothing of his own here; with all_subjects he sees all but payloads
SET ROLE regress_vis_auditor;
SELECT count(*) FROM message_bus.messages WHERE channel = 'vis';
SET ROLE regress_vis_owner;
SELECT message_bus.grant_channel('vis', 'regress_vis_auditor', 'all_subjects');
SET ROLE regress_vis_auditor;
SELECT count(*) > 3, count(payload) FROM message_bus.message_bus WHERE channel = 'vis';
SELECT pg_temp.fails($$SELECT message_bus.claim('vis')$$);

-- no condition sees what one does not, and no node counts it
SET ROLE regress_vis_user;
SET request.jwt.claims = '{"sub": "bob"}';
CREATE FUNCTION pg_temp.told(text) RETURNS boolean COST 0.0001 LANGUAGE plpgsql AS
	$$ BEGIN RAISE NOTICE 'told %', $1; RETURN true; END $$;
SELECT count(*) FROM message_bus.messages WHERE channel = 'vis' AND pg_temp.told(transaction_id);
CREATE FUNCTION pg_temp.rows_told(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
		IF line ~ 'rows=|Removed' THEN
			RETURN NEXT regexp_replace(trim(line), 'rows=(\d+)\.00', 'rows=\1');
		END IF;
	END LOOP;
END
$$;
SELECT pg_temp.rows_told($$SELECT FROM message_bus.messages WHERE channel = 'vis' AND sha256 = sha256('"from ann"')$$);

-- the table-shaped view and the functions delete only one's own
SELECT message_bus.delete_message('a1'), message_bus.record_event(:a1, 'deleted', now()), message_bus.record_event(:a1, 'accessed', now());
WITH d AS (DELETE FROM message_bus.message_bus WHERE id = :a1 RETURNING 1) SELECT count(*) FROM d;
WITH u AS (UPDATE message_bus.message_bus SET accessed_at = now() WHERE id = :a1 RETURNING 1) SELECT count(*) FROM u;
INSERT INTO message_bus.message_bus (channel, transaction_id, payload) VALUES ('vis', 'v1', '"view"') RETURNING payload, transaction_id;
SELECT pg_temp.fails($$INSERT INTO message_bus.message_bus (channel, transaction_id, payload) VALUES ('vis', 'a1', '"from ann"')$$);
SELECT message_bus.delete_message('a2'), message_bus.delete_message('a2');
RESET request.jwt.claims;
SELECT message_bus.delete_message('v1');

-- counts, leases and subscriptions: of who sees all, and who monitors
CREATE FUNCTION pg_temp.counts() RETURNS text LANGUAGE sql AS $$
	SELECT format('%s subscriptions, counted %s, lag %s, expired %s/%s, leases %s',
		(SELECT count(*) FROM message_bus.subscriptions WHERE channel = 'vis'),
		(SELECT count(lag_messages) + count(oldest_unacked_id) + count(cursor) FROM message_bus.subscriptions WHERE channel = 'vis'),
		(SELECT lag_messages IS NOT NULL FROM message_bus.subscription_lag('vis', 'default')),
		(SELECT count(expired) FROM message_bus.subscriptions WHERE channel = 'vis'),
		(SELECT expired IS NOT NULL FROM message_bus.subscription_expired('vis', 'default')),
		(SELECT count(*) FROM message_bus.leases WHERE channel = 'vis'))
$$;
SELECT pg_temp.counts();
SET ROLE regress_vis_worker;
SELECT pg_temp.counts();
SET ROLE regress_vis_monitor;
SELECT pg_temp.counts();
SET ROLE regress_vis_user;
SELECT pg_temp.fails($$CALL message_bus.wait(ARRAY['vis'], timeout => '0')$$), pg_temp.fails($$SELECT message_bus.claim_bytes('vis')$$);
RESET ROLE;

-- the dead: in place, only to whom they belong
SET ROLE regress_vis_worker;
SELECT message_bus.nack((SELECT max(lease) FROM message_bus.leases WHERE channel = 'vis'), ARRAY[:a1], reason => 'why');
SELECT count(*) FROM message_bus.dead_letters WHERE channel = 'vis';
SET ROLE regress_vis_user;
SET request.jwt.claims = '{"sub": "ann"}';
SELECT message_id = :a1, key, reason FROM message_bus.dead_letters WHERE channel = 'vis';
SELECT status FROM message_bus.message_bus WHERE id = :a1;
SET request.jwt.claims = '{"sub": "bob"}';
SELECT count(*) FROM message_bus.dead_letters WHERE channel = 'vis';
RESET request.jwt.claims;
RESET ROLE;

-- the copy is its publisher's and its recipient's still, where the dead-letter channel keeps subjects apart
SET ROLE regress_vis_owner;
SELECT message_bus.create_channel('vis_dead', visibility => 'subject');
SELECT message_bus.grant_channel('vis_dead', 'regress_vis_user', 'consume');
SELECT message_bus.create_channel('vis_open');
SELECT message_bus.grant_channel('vis_open', 'regress_vis_user', 'consume');
SELECT message_bus.alter_channel('vis', dead_letter => 'vis_dead');
SET SESSION AUTHORIZATION regress_vis_login;
SELECT pg_temp.ask(1, 'publish', '{"channel": "vis", "payload": "doomed", "recipient": "bob"}') ->> 'result' AS doomed \gset
RESET SESSION AUTHORIZATION;
SET ROLE regress_vis_worker;
CREATE FUNCTION pg_temp.kill(id bigint) RETURNS integer LANGUAGE sql AS $$
	SELECT sum(CASE WHEN c.id = kill.id THEN message_bus.nack(c.lease, ARRAY[c.id], reason => 'bad')
		ELSE message_bus.ack(c.lease, ARRAY[c.id]) END)::integer FROM message_bus.claim('vis', batch => 100) c
$$;
SELECT pg_temp.kill(:doomed) > 0;
RESET ROLE;
SELECT publisher, subject, recipient, headers -> 'dead_letter' ->> 'publisher' FROM message_bus.messages WHERE channel = 'vis_dead';
SET SESSION AUTHORIZATION regress_vis_login;
SELECT s, (SELECT string_agg(p ->> 'payload', ', ') FROM json_array_elements(pg_temp.ask(s, 'peek', '{"channel": "vis_dead"}') -> 'result') p)
	FROM unnest(ARRAY[1, 2, 4]) s;
RESET SESSION AUTHORIZATION;
SET ROLE regress_vis_user;
SET request.jwt.claims = '{"sub": "bob"}';
SELECT dead_letter, reason FROM message_bus.dead_letters WHERE channel = 'vis';
SET request.jwt.claims = '{"sub": "cid"}';
SELECT count(*) FROM message_bus.dead_letters WHERE channel = 'vis';
RESET request.jwt.claims;
RESET ROLE;
-- redriven: where the message is gone a copy comes back, with the same publisher and recipient
SELECT message_bus.record_event(:doomed, 'deleted', now()), message_bus.redrive('vis_dead');
SELECT publisher, subject, recipient FROM message_bus.messages WHERE channel = 'vis' AND id > :doomed;
-- in one that does not its own visibility counts
SET ROLE regress_vis_owner;
SELECT message_bus.alter_channel('vis', dead_letter => 'vis_open');
SET SESSION AUTHORIZATION regress_vis_login;
SELECT pg_temp.ask(1, 'publish', '{"channel": "vis", "payload": "told"}') ->> 'result' AS doomed \gset
RESET SESSION AUTHORIZATION;
SET ROLE regress_vis_worker;
SELECT pg_temp.kill(:doomed) > 0;
RESET ROLE;
SET SESSION AUTHORIZATION regress_vis_login;
SELECT pg_temp.ask(2, 'peek', '{"channel": "vis_open"}') -> 'result' -> 0 ->> 'payload';
RESET SESSION AUTHORIZATION;

-- alter_channel: at once, for what is there
SET ROLE regress_vis_owner;
SELECT message_bus.alter_channel('vis', visibility => 'channel');
SET SESSION AUTHORIZATION regress_vis_login;
SELECT pg_temp.gets(2, :a1), json_array_length(pg_temp.ask(2, 'claim', '{"channel": "vis", "subscription": "default", "keep": true}') -> 'result') >= 0;
RESET SESSION AUTHORIZATION;
SET ROLE regress_vis_owner;
SELECT message_bus.alter_channel('vis', visibility => 'subject');
SELECT message_bus.alter_channel('vis', ttl => '2 hours');
SET SESSION AUTHORIZATION regress_vis_login;
SELECT pg_temp.gets(2, :a1), pg_temp.gets(1, :a1);
RESET SESSION AUTHORIZATION;
-- revoked: all takes all_subjects along
SET ROLE regress_vis_owner;
SELECT message_bus.revoke_channel('vis', 'regress_vis_worker', 'all_subjects');
SELECT message_bus.revoke_channel('vis', 'regress_vis_auditor', 'all');
SELECT grantee, may_consume, all_subjects FROM message_bus.grants WHERE channel = 'vis' ORDER BY grantee::text COLLATE "C";
SET ROLE regress_vis_worker;
SELECT pg_temp.fails($$SELECT message_bus.claim('vis')$$);
RESET ROLE;
-- a publisher's role that is renamed, or gone, is nobody's
ALTER ROLE regress_vis_user RENAME TO regress_vis_renamed;
SET ROLE regress_vis_renamed;
SELECT pg_temp.sees(:vis, ARRAY[:a1, :a2, :n1]);
RESET ROLE;
ALTER ROLE regress_vis_renamed RENAME TO regress_vis_user;

RESET message_bus.anonymous_role;
RESET message_bus.default_channel;
SELECT message_bus.set_jwt_keys('{"keys": []}');
SELECT message_bus.drop_channel(c) FROM unnest(ARRAY['vis', 'vis_dead', 'vis_open']) c;
DROP FUNCTION pg_temp.gets, pg_temp.same, pg_temp.told, pg_temp.rows_told, pg_temp.counts, pg_temp.kill;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA message_bus FROM regress_vis_login, regress_vis_owner, regress_vis_user, regress_vis_worker;
DROP ROLE regress_vis_user, regress_vis_other, regress_vis_member, regress_vis_worker, regress_vis_auditor, regress_vis_owner,
	regress_vis_stranger, regress_vis_monitor, regress_vis_login;
