--
-- message_bus.relay(): each method, JSON-RPC 2.0 to the letter, claims
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS message_bus;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on

CREATE ROLE regress_method_login LOGIN;
CREATE ROLE regress_method_app;
CREATE ROLE "regress Method Other";
GRANT regress_method_app TO regress_method_login;
GRANT EXECUTE ON FUNCTION message_bus.relay TO regress_method_login;
GRANT EXECUTE ON FUNCTION message_bus.create_channel, message_bus.alter_channel, message_bus.drop_channel,
	message_bus.grant_channel, message_bus.revoke_channel, message_bus.create_subscription,
	message_bus.drop_subscription, message_bus.pause, message_bus.resume, message_bus.seek, message_bus.redrive,
	message_bus.purge_channel TO regress_method_app;

-- txt, bin: frames; send: what they are answered; same: without what differs
-- from run to run; call: a frame that calls one method
CREATE FUNCTION txt(text) RETURNS bytea IMMUTABLE LANGUAGE sql AS
$$ SELECT '\x01'::bytea || convert_to($1, 'UTF8') $$;
CREATE FUNCTION bin(text, bytea) RETURNS bytea IMMUTABLE LANGUAGE sql AS
$$ SELECT '\x02'::bytea || convert_to($1, 'UTF8') || '\x0a'::bytea || $2 $$;
CREATE FUNCTION send(VARIADIC frames bytea[]) RETURNS TABLE (session bigint, reply text) LANGUAGE sql AS $$
	SELECT r.session,
		CASE get_byte(r.frame, 0)
			WHEN 1 THEN 'text   ' || convert_from(substr(r.frame, 2), 'UTF8')
			WHEN 2 THEN 'binary ' || encode(substr(r.frame, 2), 'escape')
		END
	FROM message_bus.relay(ARRAY(SELECT generate_series(1, cardinality(frames))::bigint), frames) r
$$;
CREATE FUNCTION same(reply text) RETURNS text IMMUTABLE LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(regexp_replace(reply,
		'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"', 'TIME', 'g'), '\m\d{9,16}\M', 'ID', 'g'),
		'at least \d+ bytes', 'at least N bytes')
$$;
CREATE FUNCTION call(method text, params text, id text DEFAULT '1') RETURNS bytea IMMUTABLE LANGUAGE sql AS
$$ SELECT txt(format('{"jsonrpc":"2.0","id":%s,"method":"%s","params":%s}', id, method, params)) $$;
-- got remembers the replies of a claim: lease, ids
CREATE TABLE got (tag text, place bigserial, reply json);
CREATE FUNCTION take(tag text, params text) RETURNS SETOF text LANGUAGE sql AS $$
	INSERT INTO got (tag, reply)
	SELECT tag, row FROM send(call('claim', params)), json_array_elements(substr(reply, 8)::json->'result') AS row;
	SELECT concat_ws(' ', 'attempt', reply->>'attempt', COALESCE(reply->'payload', reply->'ref'->'preview'))
	FROM got g WHERE g.tag = $1 ORDER BY place
$$;
CREATE FUNCTION lease(tag text) RETURNS text LANGUAGE sql AS
$$ SELECT max(reply->>'lease') FROM got g WHERE g.tag = $1 $$;
CREATE FUNCTION id(tag text, n int) RETURNS text LANGUAGE sql AS
$$ SELECT reply->>'id' FROM got g WHERE g.tag = $1 ORDER BY place OFFSET n - 1 LIMIT 1 $$;
GRANT ALL ON got, got_place_seq TO PUBLIC;

SET SESSION AUTHORIZATION regress_method_login;
SET message_bus.relay_role = 'regress_method_app';

--
-- The specification's examples, section 7, with the method that is nearest:
-- parameters go by name here
--
SELECT session, same(reply) FROM send(
	txt('{"jsonrpc": "2.0", "method": "ping", "params": [42, 23], "id": 1}'),
	txt('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}'),
	txt('{"jsonrpc": "2.0", "method": "get", "params": {"id": 23}, "id": 3}'),
	txt('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}'),
	txt('{"jsonrpc": "2.0", "method": "foobar"}'),
	txt('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}'),
	txt('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]'),
	txt('{"jsonrpc": "2.0", "method": 1, "params": "bar"}'),
	txt('[
  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
  {"jsonrpc": "2.0", "method"
]'),
	txt('[]'),
	txt('[1]'),
	txt('[1,2,3]'),
	txt('[
  {"jsonrpc": "2.0", "method": "ping", "params": {}, "id": "1"},
  {"jsonrpc": "2.0", "method": "ping"},
  {"jsonrpc": "2.0", "method": "ping", "params": null, "id": "2"},
  {"foo": "boo"},
  {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
  {"jsonrpc": "2.0", "method": "ping", "id": "9"}
]'),
	txt('[
  {"jsonrpc": "2.0", "method": "ping"},
  {"jsonrpc": "2.0", "method": "ping", "params": {}}
]'));

-- a failed notification has no place among the responses of a batch
SELECT session, same(reply) FROM send(
	txt('[{"jsonrpc":"2.0","method":"none"},{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"get","params":{"id":1}}]'),
	txt('[{"jsonrpc":"2.0","method":"none"}]'));

-- ids come back as they were written
SELECT session, reply FROM send(
	call('ping', '{}', '0'), call('ping', '{}', '-0'), call('ping', '{}', '1.50'), call('ping', '{}', '1E+2'),
	call('ping', '{}', '123456789012345678901234567890'), call('ping', '{}', '""'), call('ping', '{}', 'null'),
	call('ping', '{}', '"a\"\\\/\b\u0000\ud800 é"'), call('none', '{}', '"\u000a"'),
	call('ping', '{}', 'true'), call('ping', '{}', '{}'), call('ping', '{}', '[1]'), call('ping', '{}', '01'));

--
-- Channels and subscriptions
--
SELECT session, same(reply) FROM send(
	call('create_channel', '{"channel": "methods dead"}'),
	call('create_channel', '{"channel": "methods", "ttl": 7200, "max_attempts": 2, "lease": "20 seconds", "backoff": 0, "dead_letter": "methods dead"}'),
	call('create_channel', '{"channel": "methods"}'),
	call('create_channel', '{"channel": "methods", "if_not_exists": true}'),
	call('create_channel', '{"channel": "a\nb"}'),
	call('create_channel', '{"channel": "x", "dead_letter": "no such"}'),
	call('create_channel', '{"channel": "x", "ttl": -1}'),
	call('create_channel', '{"channel": "x", "if_not_exists": "yes"}'),
	call('alter_channel', '{"channel": "methods", "ttl": null, "max_payload": 100000}'),
	call('grant_channel', '{"channel": "methods", "grantee": "regress Method Other", "privileges": "publish"}'),
	call('grant_channel', '{"channel": "methods", "grantee": "no such", "privileges": "publish"}'),
	call('grant_channel', '{"channel": "methods", "grantee": "REGRESS_METHOD_APP", "privileges": "publish"}'),
	call('grant_channel', '{"channel": "methods", "grantee": 10, "privileges": "publish"}'),
	call('revoke_channel', '{"channel": "methods", "grantee": "regress Method Other", "privileges": "all"}'),
	call('create_subscription', '{"channel": "methods", "subscription": "second", "start": "latest", "ordered": true}'),
	call('create_subscription', '{"channel": "methods", "subscription": "third", "start": "someday"}'),
	call('pause', '{"channel": "methods", "subscription": "second"}'),
	call('resume', '{"channel": "methods", "subscription": "second"}'),
	call('resume', '{"channel": "methods", "subscription": "none"}'));
SELECT same(reply) FROM send(call('ping', '{}'));

-- a channel that says nothing has the session's ttl and compression
SET message_bus.default_ttl = '3 hours';
SET message_bus.default_compression = 'none';
SELECT same(reply) FROM send(call('create_channel', '{"channel": "methods plain"}'));
RESET message_bus.default_ttl;
RESET message_bus.default_compression;
SET SESSION AUTHORIZATION DEFAULT;
SELECT channel, ttl, lease, max_payload, compression, owner FROM message_bus.channels WHERE channel LIKE 'methods%' ORDER BY channel;
SET SESSION AUTHORIZATION regress_method_login;
SET message_bus.relay_role = 'regress_method_app';
SELECT same(reply) FROM send(call('drop_channel', '{"channel": "methods plain"}'), call('drop_channel', '{"channel": "methods plain"}'),
	call('drop_channel', '{"channel": "methods plain", "if_exists": true}'));

--
-- Delivery
--
SELECT session, same(reply) FROM send(
	call('publish', '{"channel": "methods", "payload": {"n": 1.10}, "key": "k", "headers": {"h": "é"}}'),
	call('publish', '{"channel": "methods", "payload": "AP8=", "encoding": "base64"}'),
	call('publish_text', '{"channel": "methods", "payload": "täxt", "content_type": "text/plain"}'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_text","params":{"channel":"methods"}}', '[1 ,2]'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_text","params":{"channel":"methods","content_type":"text/plain"}}', '\xff'));
SELECT session, same(reply) FROM send(call('claim', '{"channel": "methods", "batch": 10, "lease_for": 60}'));
SELECT session, same(reply) FROM send(call('claim', '{"channel": "methods"}'));

-- given back, they come a second time: raw
SELECT session, same(reply) FROM (SELECT max(lease) AS lease FROM message_bus.leases) l,
	send(call('nack', format('{"lease": %s, "delay": 0, "reason": "later"}', lease)));
SELECT pg_sleep(0.01);
SELECT same(reply) FROM send(txt('{"jsonrpc":"2.0","id":"b","method":"claim","binary":true,"params":{"channel":"methods","batch":10}}'));
SELECT same(reply) FROM (SELECT max(lease) AS lease FROM message_bus.leases) l,
	send(call('ack', format('{"lease": %s}', lease)));

-- one body too is one of several
SELECT same(reply) FROM send(call('publish', '{"channel": "methods", "payload": 5}'));
SELECT same(reply) FROM send(bin('{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"methods"}}', ''));
SELECT same(reply) FROM (SELECT max(lease) AS lease FROM message_bus.leases) l,
	send(call('ack', format('{"lease": %s}', lease)));

-- part of a lease
SELECT same(reply) FROM send(call('publish_batch', '{"channel": "methods", "messages": [{"payload": 1}, {"payload": 2}, {"payload": 3}]}'));
SELECT * FROM take('part', '{"channel": "methods", "batch": 10}');
SELECT session, same(reply) FROM send(
	call('extend', format('{"lease": %s, "lease_for": 100, "ids": [%s]}', lease('part'), id('part', 1))),
	call('ack', format('{"lease": %s, "ids": [%s, %s]}', lease('part'), id('part', 1), id('part', 1))),
	call('nack', format('{"lease": %s, "ids": [%s], "delay": "0 seconds"}', lease('part'), id('part', 2))),
	call('ack', format('{"lease": %s, "ids": []}', lease('part'))));
SELECT session, same(reply) FROM send(
	call('ack', format('{"lease": %s, "ids": ["1"]}', lease('part'))),
	call('ack', format('{"lease": %s, "ids": [1.0]}', lease('part'))),
	call('ack', format('{"lease": %s, "ids": [null]}', lease('part'))),
	call('ack', format('{"lease": %s, "ids": 1}', lease('part'))),
	call('ack', '{"lease": "1"}'),
	call('ack', '{}'));

-- dead letters
SELECT pg_sleep(0.01);
SELECT * FROM take('again', '{"channel": "methods", "batch": 10}');
SELECT session, same(reply) FROM send(
	call('nack', format('{"lease": %s, "reason": "no stock"}', lease('again'))),
	call('ack', format('{"lease": %s}', lease('part'))));
SELECT * FROM take('dead', '{"channel": "methods dead"}');
SELECT reply->'headers'->'dead_letter'->>'reason' FROM got WHERE tag = 'dead';
SELECT same(reply) FROM send(call('nack', format('{"lease": %s}', lease('dead'))), call('redrive', '{"dead_letter": "methods dead"}'));
SELECT * FROM take('redriven', '{"channel": "methods", "batch": 10}');
SELECT same(reply) FROM send(call('ack', format('{"lease": %s}', lease('redriven'))));

-- from the beginning again, and away with it
SELECT session, same(reply) FROM send(
	call('seek', '{"channel": "methods", "subscription": "default", "start": "latest"}'),
	call('purge_channel', '{"channel": "methods"}'),
	call('purge_channel', '{"channel": "methods dead"}'),
	call('redrive', '{"dead_letter": "methods dead", "max_messages": 0}'));
SELECT same(reply) FROM send(call('claim', '{"channel": "methods", "batch": 10}'));

-- a notification must not claim; what it acks is acked
SELECT same(reply) FROM send(call('publish', '{"channel": "methods", "payload": "note"}'));
SELECT same(reply) FROM send(txt('{"jsonrpc":"2.0","method":"claim","params":{"channel":"methods"}}'));
SELECT * FROM take('note', '{"channel": "methods"}');
SELECT same(reply) FROM send(txt(format('{"jsonrpc":"2.0","method":"ack","params":{"lease":%s}}', lease('note'))));
SELECT same(reply) FROM send(call('ack', format('{"lease": %s}', lease('note'))), call('nack', format('{"lease": %s}', lease('note'))));

--
-- Large bodies
--
SET message_bus.inline_max = '16B';
SELECT same(reply) FROM send(
	call('publish', '{"channel": "methods", "payload": "' || repeat('é', 300) || '"}'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"methods","content_type":"image/png"}}', repeat('x', 20)::bytea || '\xff'),
	call('publish', '{"channel": "methods", "payload": "small"}'));
SELECT same(reply) FROM send(call('claim', '{"channel": "methods", "batch": 3}'));
RESET message_bus.inline_max;
SELECT same(reply) FROM (SELECT max(lease) AS lease FROM message_bus.leases) l,
	send(call('ack', format('{"lease": %s}', lease)));

-- what does not fit into a frame goes by reference; get refuses it
SET message_bus.frame_max = '2kB';
SELECT same(reply) FROM send(call('publish', '{"channel": "methods", "payload": "' || repeat('y', 3000) || '"}'));
SELECT same(reply) FROM send(call('claim', '{"channel": "methods"}'));
SELECT same(reply) FROM (SELECT max(message_id) AS id FROM message_bus.leases) l,
	send(call('get', format('{"id": %s}', id)), call('get_bytes', format('{"id": %s, "max_bytes": 3}', id)));
SELECT same(reply) FROM (SELECT max(lease) AS lease FROM message_bus.leases) l,
	send(call('ack', format('{"lease": %s}', lease)));

-- a batch that does not fit is cut to what does, and nothing of it is lost
SELECT same(reply) FROM send(call('publish_batch', format('{"channel": "methods", "messages": [%s]}',
	(SELECT string_agg(format('{"payload": %s, "headers": {"h": "%s"}}', n, repeat('h', 300)), ',') FROM generate_series(1, 7) n))));
SELECT * FROM take('cut 1', '{"channel": "methods", "batch": 7}');
SELECT * FROM take('cut 2', '{"channel": "methods", "batch": 7}');
SELECT * FROM take('cut 3', '{"channel": "methods", "batch": 7}');
SELECT count(DISTINCT id), max(attempt) FROM (SELECT reply->>'id' AS id, reply->>'attempt' AS attempt FROM got WHERE tag LIKE 'cut%') c;
SELECT max(length(reply)) <= 2048 + 7 FROM send(call('claim', '{"channel": "methods", "subscription": "second", "batch": 7}'));
SELECT same(reply) FROM send(call('ack', format('{"lease": %s}', lease('cut 1'))), call('ack', format('{"lease": %s}', lease('cut 2'))),
	call('ack', format('{"lease": %s}', lease('cut 3'))));

-- one that cannot be sent at all is not claimed
SELECT same(reply) FROM send(call('publish', '{"channel": "methods", "payload": 1, "headers": {"h": "' || repeat('h', 1900) || '"}}'));
SELECT same(reply) FROM send(call('claim', '{"channel": "methods"}'), call('claim', '{"channel": "methods", "batch": 5}'));
SELECT count(*) FROM message_bus.leases WHERE channel = 'methods' AND subscription = 'default';
RESET message_bus.frame_max;
SELECT * FROM take('whole', '{"channel": "methods"}');
SELECT same(reply) FROM send(call('ack', format('{"lease": %s}', lease('whole'))));

-- whatever the limit, a claim is answered within it, and with a message
SELECT same(reply) FROM send(
	call('publish', '{"channel": "methods", "payload": "' || repeat('a', 700) || '"}'),
	call('publish', '{"channel": "methods", "payload": "' || repeat('YmJi', 233) || '", "encoding": "base64"}'),
	call('publish', '{"channel": "methods", "payload": "' || repeat(E'\\"', 100) || '", "key": "k"}'),
	call('publish_batch', '{"channel": "methods", "messages": [{"payload": 1}, {"payload": ""}, {"payload": [1, 2]}]}'));
CREATE FUNCTION pg_temp.claim_within(frame_max int, request bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer bytea;
BEGIN
	PERFORM set_config('message_bus.frame_max', frame_max::text, true);
	SELECT frame INTO answer FROM message_bus.relay('{1}', ARRAY[request]);
	RAISE EXCEPTION '%', CASE WHEN length(answer) - 1 > frame_max THEN 'too long'
		WHEN position('"error"'::bytea IN answer) > 0 THEN 'error'
		WHEN position('"lease"'::bytea IN answer) = 0 THEN 'nothing' ELSE 'fits' END;
EXCEPTION WHEN raise_exception THEN
	RETURN SQLERRM;
END
$$;
SELECT pg_temp.claim_within(n, r), count(*) FROM generate_series(1024, 4600, 13) n,
	LATERAL (VALUES (call('claim', '{"channel": "methods", "batch": 10}')),
		(bin('{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"methods","batch":10}}', '')),
		(txt('[{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"methods","batch":10}}]'))) AS f (r)
GROUP BY 1;
DROP FUNCTION pg_temp.claim_within;
SELECT same(reply) FROM send(call('purge_channel', '{"channel": "methods"}'));

--
-- Waiting: not where others wait for the same call, not past the frame's
-- timeout, and nothing is lost by it
--
SET message_bus.frame_timeout = '2s';
SELECT clock_timestamp() AS started \gset
SELECT same(reply) FROM send(call('claim', '{"channel": "methods", "wait": 60}'), call('ping', '{}'));
SELECT same(reply) FROM send(txt('[{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"methods","wait":60}},{"jsonrpc":"2.0","id":2,"method":"ping"}]'));
SELECT clock_timestamp() - :'started' < '1 s' AS at_once;
SELECT clock_timestamp() AS started \gset
SELECT same(reply) FROM send(call('claim', '{"channel": "methods", "wait": "1 minute"}'));
SELECT clock_timestamp() - :'started' BETWEEN '1.4 s' AND '10 s' AS waited;
-- a frame that the gateway makes itself does not wait for an answer
SELECT clock_timestamp() AS started \gset
SELECT session, same(reply) FROM send('\x0043', call('claim', '{"channel": "methods", "wait": 60}')) WHERE session = 2;
SELECT clock_timestamp() - :'started' BETWEEN '1.4 s' AND '10 s' AS waited;
SELECT clock_timestamp() AS started \gset
SELECT same(reply) FROM send(txt('[{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"methods","wait":60}}]'));
SELECT clock_timestamp() - :'started' BETWEEN '1.4 s' AND '10 s' AS waited;
RESET message_bus.frame_timeout;
BEGIN;
SELECT same(reply) FROM send(call('publish', '{"channel": "methods", "payload": 1, "transaction_id": "never"}'));
SELECT same(reply) FROM send(call('claim', '{"channel": "methods", "wait": 0.2}'));
ROLLBACK;
SELECT same(reply) FROM send(call('get_by_transaction', '{"channel": "methods", "transaction_id": "never"}'));
SELECT same(reply) FROM send(call('claim', '{"channel": "methods", "wait": "2 days"}'), call('claim', '{"channel": "methods", "wait": -1}'));

--
-- A claim that acks the batch before; it does not wait
--
SELECT same(reply) FROM send(call('publish_batch', '{"channel": "methods", "messages": [{"payload": "a"}, {"payload": "b"}]}'));
SELECT take('first', '{"channel": "methods", "ack": null}');
SELECT take('next', format('{"channel": "methods", "wait": 60, "ack": %s}', lease('first')));
SELECT same(reply) FROM send(call('claim', format('{"channel": "methods", "wait": 60, "ack": %s}', lease('next'))),
	call('claim', '{"channel": "methods", "ack": 7}'), call('claim', '{"channel": "methods", "ack": "x"}'));
SELECT same(reply) FROM send(call('ack', format('{"lease": %s}', lease('next'))));

--
-- Receipts
--
SELECT same(reply) FROM send(
	call('publish', '{"channel": "methods", "payload": 1, "transaction_id": "r1", "receipt": true}'),
	call('publish', '{"channel": "methods", "payload": 1, "transaction_id": "r1", "receipt": true}'),
	call('publish', '{"channel": "methods", "payload": 1, "transaction_id": "r1", "receipt": false}'),
	call('publish', '{"channel": "methods", "payload": 1, "receipt": true}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"publish","receipt":true,"params":{"channel":"methods","payload":1,"transaction_id":"r1"}}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"publish","receipt":false,"params":{"channel":"methods","payload":1,"transaction_id":"r1","receipt":null}}'),
	call('publish_text', '{"channel": "methods", "payload": "1", "transaction_id": "r1", "receipt": true}'),
	call('publish', '{"channel": "methods", "payload": "MQ==", "encoding": "base64", "transaction_id": "r1", "receipt": true}'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"methods","transaction_id":"r1","receipt":true}}', '1'),
	call('publish_batch', '{"channel": "methods", "receipt": true, "messages": [{"payload": 2, "transaction_id": "r2"}, {"payload": 1, "transaction_id": "r1"}, {"payload": 2, "transaction_id": "r2"}, {"payload": 3}]}'),
	call('publish_batch', '{"channel": "methods", "receipt": true, "messages": []}'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[1,1],"params":{"channel":"methods","receipt":true,"messages":[{"body":1,"transaction_id":"r4"},{"body":0,"transaction_id":"r1"}]}}', '14'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[1,1],"params":{"channel":"methods","messages":[{"body":0},{"body":1}]}}', '14'));
-- also behind one that failed, and in a batch; others' results are as they were
SELECT same(reply) FROM send(
	call('publish', '{"channel": "methods", "payload": 9, "transaction_id": "r1", "receipt": true}'),
	call('publish', '{"channel": "methods", "payload": 1, "transaction_id": "r1"}'),
	txt('[{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"methods","payload":5,"transaction_id":"r5","receipt":true}},'
		'{"jsonrpc":"2.0","id":2,"method":"publish","params":{"channel":"methods","payload":5,"transaction_id":"r5","receipt":true}},'
		'{"jsonrpc":"2.0","id":3,"method":"publish","params":{"channel":"methods","payload":5,"transaction_id":"r5"}}]'),
	txt('{"jsonrpc":"2.0","id":1,"method":"ping","receipt":true}'));
SELECT same(reply) FROM send(
	call('publish', '{"channel": "methods", "payload": 1, "receipt": 1}'),
	call('publish_batch', '{"channel": "methods", "messages": [], "receipt": "true"}'),
	call('peek', '{"channel": "methods", "receipt": true}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"publish","receipt":1,"params":{"channel":"methods","payload":1}}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"publish","receipt":true,"receipt":true,"params":{"channel":"methods","payload":1}}'));

--
-- Each SQLSTATE and its code
--
RESET SESSION AUTHORIZATION;
SET message_bus.relay_role = 'regress_method_app';
BEGIN;
CREATE OR REPLACE FUNCTION message_bus.delete_message(transaction_id text) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '%', transaction_id USING errcode = transaction_id; END $$;
SELECT state, (substr(reply, 8)::json)->'error'->'code' AS code
FROM (VALUES (1, '28000'), (2, '42501'), (3, '42P01'), (4, '42704'), (5, 'P0002'), (6, '54000'), (7, '53400'), (8, '54001'),
	(9, '23505'), (10, '55000'), (11, 'XX001'), (12, '57000'), (13, '55P03'), (14, '25006'), (15, '22023'), (16, '22P02'),
	(17, '22004'), (18, '22003'), (19, '42710'), (20, '42602'), (21, '25001'), (22, '53200'), (23, '0A000'),
	(24, 'XX000'), (25, '40P01')) AS s (n, state),
	LATERAL send(call('delete_message', format('{"transaction_id": "%s"}', state)))
ORDER BY n;
ROLLBACK;

SELECT same(reply) FROM send(call('drop_subscription', '{"channel": "methods", "subscription": "second"}'),
	call('drop_channel', '{"channel": "methods"}'), call('drop_channel', '{"channel": "methods dead"}'));
RESET message_bus.relay_role;
DROP FUNCTION send, same, call, txt, bin, take, lease, id;
DROP TABLE got;
REVOKE ALL ON FUNCTION message_bus.relay FROM regress_method_login;
REVOKE ALL ON FUNCTION message_bus.create_channel, message_bus.alter_channel, message_bus.drop_channel,
	message_bus.grant_channel, message_bus.revoke_channel, message_bus.create_subscription,
	message_bus.drop_subscription, message_bus.pause, message_bus.resume, message_bus.seek, message_bus.redrive,
	message_bus.purge_channel FROM regress_method_app;
DROP ROLE regress_method_login, regress_method_app, "regress Method Other";
