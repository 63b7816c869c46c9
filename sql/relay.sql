--
-- message_bus.relay(): frames of JSON-RPC in, frames out
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS message_bus;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on

CREATE ROLE regress_relay_login LOGIN;
CREATE ROLE regress_relay_app;
CREATE ROLE regress_relay_other;
GRANT regress_relay_app TO regress_relay_login;
GRANT EXECUTE ON FUNCTION message_bus.relay TO regress_relay_login;
SELECT message_bus.create_channel('relay');
SELECT message_bus.grant_channel('relay', 'regress_relay_app', 'all');
SELECT message_bus.create_channel('relay closed');

-- a text frame, a binary frame, what they are answered, and that without what
-- differs from run to run
CREATE FUNCTION peak_kb() RETURNS integer SECURITY DEFINER LANGUAGE sql AS $$
	SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s+(\d+)')::integer $$;
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
-- calls of one method
CREATE FUNCTION call(method text, params text, id text DEFAULT '1') RETURNS bytea IMMUTABLE LANGUAGE sql AS
$$ SELECT txt(format('{"jsonrpc":"2.0","id":%s,"method":"%s","params":%s}', id, method, params)) $$;
-- the ids of replies, and their errors' codes
CREATE FUNCTION answered(VARIADIC frames bytea[]) RETURNS TABLE (frame bigint, answer text) LANGUAGE sql AS $$
	SELECT session, regexp_replace(reply, ',"error":\{"code":(-\d{5}),"message":.*?"hint":null\}\}', ' \1', 'g')
	FROM send(VARIADIC frames)
$$;

SET SESSION AUTHORIZATION regress_relay_login;
SET message_bus.relay_role = 'regress_relay_app';

-- publish and read; ids are echoed as they were sent
SELECT session, same(reply) FROM send(
	call('ping', '{}', '1.0'),
	call('ping', '{}', '"\u00e9"'),
	call('ping', 'null', 'null'),
	call('publish', '{"channel": "relay", "payload": {"a": 1}, "transaction_id": "t1", "key": "k", "headers": {"h": [1]}, "ttl": 3600}', '-1e2'),
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "t1"}'));

-- a payload keeps its exact text
SELECT session, same(reply) FROM send(
	call('publish', '{"transaction_id": "t2", "payload": {"n": 1.10, "z": -0, "e": 1e400, "n": 2, "u": "\u0000\ud800", "i": 12345678901234567890 } , "channel": "relay"}'),
	call('publish', '{"channel": "relay", "payload": null, "transaction_id": "t3"}'));
SELECT (substring(reply FROM '"payload":(.*)}}$')) AS payload
FROM send(
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "t2"}'),
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "t3"}'));

-- bytes: base64 and binary frames
SELECT session, same(reply) FROM send(
	call('publish', '{"channel": "relay", "payload": "AAH/Cg==", "encoding": "base64", "transaction_id": "t4"}'),
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "t4"}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"get_by_transaction","binary":true,"params":{"channel":"relay","transaction_id":"t4"}}'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"relay","transaction_id":"t5","content_type":"text/plain"}}', 'raw'),
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "t5"}'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"relay","transaction_id":"t6","content_type":"application/json"}}', '{"x": 1.10}'),
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "t6"}'));

-- batches of messages
SELECT session, same(reply) FROM send(
	call('publish_batch', '{"channel": "relay", "messages": [{"payload": 1}, {"payload": [2]}]}'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[2,0,3],"params":{"channel":"relay","messages":[{"body":2,"transaction_id":"b2"},{"body":0},{"body":1}]}}', 'aaccc'),
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "b2"}'));
SELECT same(reply) FROM send(txt('{"jsonrpc":"2.0","id":1,"method":"peek","binary":true,"params":{"channel":"relay","max_messages":2}}'));

SELECT session, same(reply) FROM send(call('peek', '{"channel": "relay", "max_bytes": 1}'), call('peek', '{"channel": "relay", "max_bytes": 0}'));
-- available_at in place of delay; as RFC 3339, not as a number
SELECT session, same(reply) FROM send(
	call('publish', '{"channel": "relay", "payload": 1, "delay": 1, "available_at": "2001-01-01T00:00:00Z"}'),
	call('publish', '{"channel": "relay", "payload": 1, "delay": null, "available_at": "2001-01-01T00:00:00Z", "transaction_id": "at"}'),
	call('publish', '{"channel": "relay", "payload": 1, "available_at": 5}'),
	call('publish', '{"channel": "relay", "payload": 1, "available_at": "soon"}'),
	call('publish', '{"channel": "relay", "payload": 1, "available_at": "9999-01-01T00:00:00Z"}'),
	call('publish_batch', '{"channel": "relay", "messages": [{"payload": 1, "delay": 1, "available_at": "2001-01-01T00:00:00Z"}]}'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[1],"params":{"channel":"relay","messages":[{"body":0,"delay":1,"available_at":"2001-01-01T00:00:00Z"}]}}', 'a'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[1],"params":{"channel":"relay","messages":[{"body":0,"available_at":"2001-01-01T00:00:00Z"}]}}', 'a'));
-- a large message goes by reference; get_bytes has its ranges
SET message_bus.inline_max = '16B';
SELECT session, same(reply) FROM send(
	call('publish', '{"channel": "relay", "payload": "0123456789abcdef", "transaction_id": "large"}'),
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "large"}'));
RESET message_bus.inline_max;
SELECT substring(reply FROM '"result":\{"id":(\d+)') AS large
FROM send(call('get_by_transaction', '{"channel": "relay", "transaction_id": "large"}')) \gset
SELECT session, same(reply) FROM send(
	call('get_bytes', '{"id": ' || :'large' || ', "from_byte": 1, "max_bytes": 4}'),
	call('get_bytes', '{"id": ' || :'large' || ', "from_byte": 100}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"get_bytes","binary":true,"params":{"id":' || :'large' || ',"from_byte":1,"max_bytes":4}}'));
SET message_bus.frame_max = '1kB';
SELECT session, same(reply) FROM send(
	call('publish', '{"channel": "relay", "payload": "' || repeat('x', 1000) || '", "transaction_id": "larger"}'),
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "larger"}'),
	call('ping', '{}'));
RESET message_bus.frame_max;

-- the default channel is its owner's until it is granted
SELECT session, same(reply) FROM send(call('store_message', '{"transaction_id": "s", "session_id": "s", "tool_name": "t", "provider_name": "p", "payload": 1}'));

-- frames that are no requests
SELECT session, same(reply) FROM send('\x', '\x01', '\x0901', txt('{'), txt('[]'), txt('1'), txt('[1]'), '\x017b22ff227d', '\x02', bin('', ''), bin('[]', ''));
-- what cannot be parsed is answered with its id, where that can be read
SELECT * FROM answered(
	txt('{"jsonrpc":"2.0","id":77,"method":"publish","params":{"channel":"relay","payload":{"mean":NaN}}}'),
	txt('{"jsonrpc":"2.0","method":"ping","params":{"a":[1,],"id":5},"id":"after"}'),
	txt('{"jsonrpc":"2.0",  "\u0069d" : "\u00e9" ,"method":}'),
	txt('{"jsonrpc":"2.0","id":-1.5e3,"params":"no end}'),
	txt('{"jsonrpc":"2.0","id":8,"x":01}{"id":9}'),
	txt('{"id":1,"id":2,'),
	txt('{"id":1,"method":"id":2}'),
	bin('{"jsonrpc":"2.0","id":10,"method":nope}', 'body'),
	'\x02' || convert_to('{"jsonrpc":"2.0","id":11,"method":"publish"}', 'UTF8'),
	'\x01' || convert_to('{"id":12,"x":"', 'UTF8') || '\xff' || convert_to('"}', 'UTF8'),
	call('publish', '{"channel": "relay", "payload": ' || repeat('[', 500000) || repeat('}', 10) || '}', '13'));
-- and nowhere else: no id, one that is none, one of another object, one that is cut off, or whose place is not sure
SELECT * FROM answered(
	txt('{"jsonrpc":"2.0","method":nope}'),
	txt('{"id":null,}'), txt('{"id":true,}'), txt('{"id":{"id":1},}'), txt('{"id":[1],}'), txt('{"id":01,}'), txt('{"id":1 2}'),
	txt('{"id":"\q",}'),
	txt('{"params":{"id":1},}'),
	txt('{"method":"id":1}'),
	txt('["id":1]'),
	txt('{"jsonrpc":"2.0","id":7'),
	txt('{"a":{"b":],"id":1}}'),
	txt('{"a":{"b":]},"id":1}'),
	txt('{"a":"x"y","id":1,"z":"}'),
	'\x017b226964223a22ff222c7d',
	txt('{"id":"' || repeat('x', 1023) || '",}'));
-- of a batch each id that can be read has its error
SELECT * FROM answered(
	txt('[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"ping"},{"id":"two","params":{"id":0,"x":NaN}},3,{"id":4,"meth'),
	txt('[{"jsonrpc":"2.0","method":"ping"},'),
	txt('[[{"id":1}],{"id":2},'),
	txt('[["x","id":1,2],{"id":2},'),
	txt('[{"id":1},{"id":2,"id":3},{"id":x,"id":4},{"id":5},'));
-- looking for them costs no memory, whatever the bytes are
SELECT peak_kb() AS peak \gset
SELECT * FROM answered(
	txt('{' || repeat('"\na":x,', 250000)),
	txt('{' || repeat('"\u0069d":x,', 200000)),
	txt('[' || repeat('{"id":x},', 200000)));
SELECT peak_kb() - :peak < 80000 AS cheap;
SELECT frame, length(answer), right(answer, 29) FROM answered(
	txt('[' || (SELECT string_agg(format('{"id":%s}', n), ',') FROM generate_series(1, 61) n) || ']'),
	txt('[' || (SELECT string_agg(format('{"id":%s}', n), ',') FROM generate_series(1, 1001) n) || ']'));
-- no reply is longer than the frame's limit (here 3072), and each has its code
SELECT length(frame) - 1 <= 3072 AS fits, json_array_length(reply) AS replies,
	(SELECT count(*) FROM json_array_elements(reply) e WHERE (e->'error'->>'code')::integer = -32601) AS failed
FROM message_bus.relay(ARRAY[1], ARRAY['\x1100000c00'::bytea || convert_to(
		'[' || (SELECT string_agg(format('{"jsonrpc":"2.0","id":%s,"method":"%s"}', n, repeat('x', 60)), ',') FROM generate_series(1, 15) n) || ']', 'UTF8')]),
	LATERAL (SELECT convert_from(substr(frame, 2), 'UTF8')::json AS reply) r;
SELECT length(frame) - 1 <= 1024 AS fits, convert_from(substr(frame, 2), 'UTF8')::json->'error'->'code' AS code
FROM message_bus.relay(ARRAY[1, 1], ARRAY['\x1100000400'::bytea || convert_to(format('{"jsonrpc":"2.0","id":"%s","method":"%s"}', repeat('i', 1000), repeat('x', 60)), 'UTF8'),
	'\x1100000400'::bytea || convert_to(format('{"jsonrpc":"2.0","id":"%s","method":nope}', repeat('i', 1000)), 'UTF8')]);
-- leases are told with the reply that has them, and not with notices again
SELECT count(*) FROM message_bus.relay(ARRAY[1], ARRAY[call('publish', '{"channel": "relay", "payload": 1}')]);
SELECT request, cardinality(leases) AS leases FROM message_bus.relay(ARRAY[1], ARRAY[
	txt('[{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"relay"}},{"jsonrpc":"2.0","method":"nothing"},{"jsonrpc":"2.0","method":"nothing"}]')]);
SELECT count(*) FROM message_bus.relay(ARRAY[1], ARRAY['\x0043'::bytea]);
SELECT session, same(reply) FROM send(
	txt('{"id":1,"method":"ping"}'),
	txt('{"jsonrpc":"1.0","id":1,"method":"ping"}'),
	txt('{"jsonrpc":"2.0","id":true,"method":"ping"}'),
	txt('{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}'),
	txt('{"jsonrpc":"2.0","id":1}'),
	txt('{"jsonrpc":"2.0","id":1,"method":null}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"ping","binary":1}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"ping","bodies":[]}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"ping","params":1}'),
	txt('{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}'),
	txt('{"extra":[{}],"params":{},"m\u0065thod":"ping","id":1,"jsonrpc":"2.0"}'),
	txt('{"jsonrpc":"2.0","id":"' || repeat('x', 1023) || '","method":"ping"}'),
	call('no_such_method', '{}'),
	call('relay', '{}'),
	call('create_channel', '{"channel": "x"}'));

-- parameters that do not fit
SELECT session, same(reply) FROM send(
	call('publish', '{"channel": "relay"}'),
	call('publish', '{"payload": 1}'),
	call('publish', '{"channel": null, "payload": 1}'),
	call('publish', '{"channel": "relay", "payload": 1, "payload": 2}'),
	call('publish', '{"channel": "relay", "payload": 1, "color": "red"}'),
	call('publish', '{"channel": "relay", "payload": 1, "content_type": "text/plain"}'),
	call('publish', '{"channel": 1, "payload": 1}'),
	call('publish', '{"channel": "a\u0000b", "payload": 1}'),
	call('publish', '{"channel": "relay", "payload": 1, "ttl": "soon"}'),
	call('publish', '{"channel": "relay", "payload": 1, "ttl": 1e400}'),
	call('publish', '{"channel": "relay", "payload": 1, "ttl": true}'),
	call('publish', '{"channel": "relay", "payload": 1, "headers": {"a": "\u0000"}}'),
	call('publish', '{"channel": "relay", "payload": 1, "sha256": "00"}'),
	call('publish', '{"channel": "relay", "payload": "?", "encoding": "base64"}'),
	call('publish', '{"channel": "relay", "payload": 1, "encoding": "base64"}'),
	call('publish', '{"channel": "relay", "payload": "", "encoding": "rot13"}'),
	call('get', '{"id": 1.0}'),
	call('get', '{"id": "1"}'),
	call('get', '{"id": 9223372036854775808}'),
	call('peek', '{"channel": "relay", "max_messages": 2147483648}'),
	call('ping', '{"a": 1}'));
SELECT session, same(reply) FROM send(
	bin('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"relay","payload":1}}', ''),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"relay","content_type":"application/json"}}', '{'),
	bin('{"jsonrpc":"2.0","id":1,"method":"ping"}', 'x'),
	bin('{"jsonrpc":"2.0","id":1,"method":"get","params":{"id":1}}', 'x'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish","bodies":[1],"params":{"channel":"relay"}}', 'x'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[2],"params":{"channel":"relay","messages":[{"body":0}]}}', 'x'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[1],"params":{"channel":"relay","messages":[{"body":0}]}}', 'xx'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[1],"params":{"channel":"relay","messages":[]}}', 'x'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[1],"params":{"channel":"relay","messages":[{"body":1}]}}', 'x'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[-1],"params":{"channel":"relay","messages":[{"body":0}]}}', 'x'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[1],"params":{"channel":"relay","messages":[{"body":0,"size":1}]}}', 'x'),
	bin('{"jsonrpc":"2.0","id":1,"method":"publish_batch","bodies":[1],"params":{"channel":"relay","messages":[{"payload":0}]}}', 'x'));

-- errors of the functions, each with its code
SELECT session, same(reply) FROM send(
	call('get', '{"id": 1}'),
	call('get_bytes', '{"id": 1}'),
	call('get_by_transaction', '{"channel": "relay", "transaction_id": "none"}'),
	call('publish', '{"channel": "no such", "payload": 1}'),
	call('publish', '{"channel": "relay closed", "payload": 1}'),
	call('publish', '{"channel": "relay", "payload": 2, "transaction_id": "t1"}'),
	call('publish', '{"channel": "relay", "payload": 1, "sha256": "' || repeat('0', 64) || '"}'));
SET message_bus.enabled = off;
SELECT session, same(reply) FROM send(call('publish', '{"channel": "relay", "payload": 1}'));
RESET message_bus.enabled;
SET default_transaction_read_only = on;
SELECT session, same(reply) FROM send(call('publish', '{"channel": "relay", "payload": 1}'), call('ping', '{}'));
RESET default_transaction_read_only;

-- notifications have no reply, a failed one is told of; batches have one
SELECT session, same(reply) FROM send(
	txt('{"jsonrpc":"2.0","method":"ping"}'),
	txt('{"jsonrpc":"2.0","method":"get","params":{"id":1}}'),
	txt('[{"jsonrpc":"2.0","method":"ping"}]'),
	txt('[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"ping"},{"jsonrpc":"2.0","id":2,"method":"pong"},7]'));
SELECT session, left(reply, 200) FROM send(txt('[' || repeat('{"jsonrpc":"2.0","id":1,"method":"ping"},', 60) || '1]'));

-- one bad frame among 60 disturbs no other
SELECT count(*) AS replies, count(*) FILTER (WHERE reply ~ '"result":\d+}$') AS published,
	string_agg(same(reply), '') FILTER (WHERE reply LIKE '%error%') AS failed
FROM (SELECT array_agg(call('publish', format('{"channel": "relay", "payload": %s, "transaction_id": "n%s"}', n,
	CASE n WHEN 30 THEN '29' ELSE n::text END))) AS frames FROM generate_series(1, 60) n) AS f, send(VARIADIC frames);

-- nesting: 5,000 levels work, more than the stack holds is refused
SELECT same(reply) FROM send(
	call('publish', '{"channel": "relay", "transaction_id": "deep", "payload": ' || repeat('[', 5000) || repeat(']', 5000) || '}'),
	call('publish', '{"channel": "relay", "payload": ' || repeat('[', 500000) || repeat(']', 500000) || '}'));
SELECT position(repeat('[', 5000) || repeat(']', 5000) IN reply) > 0 AS whole
FROM send(call('get_by_transaction', '{"channel": "relay", "transaction_id": "deep"}'));

-- who may
SET message_bus.relay_role = 'regress_relay_other';
SELECT session, same(reply) FROM send(call('ping', '{}', '"mine"'));
SET message_bus.relay_role = 'regress_relay_nobody';
SELECT session, same(reply) FROM send(call('ping', '{}'));
SET message_bus.relay_role = '';
SELECT session, same(reply) FROM send(call('ping', '{}'));
RESET SESSION AUTHORIZATION;
ALTER ROLE regress_relay_app BYPASSRLS;
SET message_bus.relay_role = 'regress_relay_app';
SELECT session, same(reply) FROM send(call('ping', '{}'));
ALTER ROLE regress_relay_app NOBYPASSRLS;
BEGIN;
REVOKE EXECUTE ON FUNCTION message_bus.get FROM PUBLIC;
SELECT session, same(reply) FROM send(call('get', '{"id": 1}'));
ROLLBACK;

-- A function that does what it likes, in the place of a real one: what it
-- leaves behind is gone with its frame.
BEGIN;
CREATE FUNCTION cancel_self() RETURNS boolean SECURITY DEFINER LANGUAGE sql AS
$$ SELECT pg_cancel_backend(pg_backend_pid()) $$;
CREATE OR REPLACE FUNCTION message_bus.delete_message(transaction_id text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	CASE transaction_id
	WHEN 'settings' THEN
		PERFORM set_config('message_bus.relay_role', 'postgres', false), set_config('search_path', 'public', false);
	WHEN 'role' THEN
		EXECUTE 'SET ROLE regress_relay_login';
	WHEN 'temporary' THEN
		EXECUTE 'CREATE TEMPORARY TABLE t (a int)';
	WHEN 'user' THEN
		RAISE EXCEPTION '% as %', session_user, current_user USING detail = current_setting('search_path');
	WHEN 'interrupt' THEN
		PERFORM public.cancel_self();
		PERFORM pg_sleep(60);
	WHEN 'sleep' THEN
		PERFORM pg_sleep(60);
	WHEN 'text' THEN
		RAISE EXCEPTION E'a "quoted"\ttext' USING errcode = 'XX001', hint = 'hint';
	WHEN 'memory' THEN
		RAISE EXCEPTION 'out of memory' USING errcode = '53200';
	WHEN 'shutdown' THEN
		RAISE EXCEPTION 'shutdown' USING errcode = '57P01';
	WHEN 'cancel' THEN
		RAISE EXCEPTION 'canceled' USING errcode = '57014';
	END CASE;
	RETURN true;
END
$$;
SET LOCAL SESSION AUTHORIZATION regress_relay_login;
SELECT session, same(reply) FROM send(
	call('delete_message', '{"transaction_id": "settings"}'),
	call('delete_message', '{"transaction_id": "role"}'),
	call('delete_message', '{"transaction_id": "temporary"}'),
	call('delete_message', '{"transaction_id": "user"}'),
	call('delete_message', '{"transaction_id": "text"}'),
	call('delete_message', '{"transaction_id": "memory"}'),
	call('ping', '{}'));
SHOW message_bus.relay_role;
SELECT current_user, session_user;

-- the timeout of a frame ends it alone, and the rest of its batch
SET LOCAL message_bus.frame_timeout = '100ms';
SELECT session, same(reply) FROM send(
	call('publish', '{"channel": "relay", "payload": 1}'),
	call('delete_message', '{"transaction_id": "sleep"}', '"slow"'),
	txt('[{"jsonrpc":"2.0","id":1,"method":"delete_message","params":{"transaction_id":"sleep"}},{"jsonrpc":"2.0","id":2,"method":"ping"}]'),
	call('ping', '{}'));
SET LOCAL message_bus.frame_timeout = 0;

-- what is meant for the whole call ends it
SAVEPOINT before;
SET LOCAL statement_timeout = '100ms';
SELECT session, same(reply) FROM send(call('delete_message', '{"transaction_id": "sleep"}'), call('ping', '{}'));
ROLLBACK TO before;
SET LOCAL message_bus.frame_timeout = '60s';
SELECT session, same(reply) FROM send(call('delete_message', '{"transaction_id": "interrupt"}'), call('ping', '{}'));
ROLLBACK TO before;
SELECT session, same(reply) FROM send(call('delete_message', '{"transaction_id": "shutdown"}'), call('ping', '{}'));
ROLLBACK TO before;
SELECT session, same(reply) FROM send(call('delete_message', '{"transaction_id": "cancel"}'), call('ping', '{}'));
ROLLBACK;

-- the call itself
SELECT * FROM message_bus.relay(NULL, '{}');
SELECT * FROM message_bus.relay('{}', '{}');
SELECT * FROM message_bus.relay('{1}', '{}');
SELECT * FROM message_bus.relay('{1}', '{NULL}');
SELECT * FROM message_bus.relay('{{1}}', '{{""}}');
SELECT count(*) FROM message_bus.relay(array_fill(1::bigint, ARRAY[61]), array_fill(call('ping', '{}'), ARRAY[61]));
SET ROLE regress_relay_app;
SELECT * FROM message_bus.relay('{}', '{}');
RESET ROLE;

-- the session's number is stored with its message
SELECT DISTINCT substring(convert_from(r2.frame, 'UTF8') FROM '"session":(\d+)') AS session
FROM message_bus.relay('{4711}', ARRAY[call('publish', '{"channel": "relay", "payload": 1, "transaction_id": "numbered"}')]) r1,
	LATERAL message_bus.relay('{1}', ARRAY[call('get_by_transaction', '{"channel": "relay", "transaction_id": "numbered"}')]) r2;

RESET message_bus.relay_role;
SELECT message_bus.drop_channel('relay');
SELECT message_bus.drop_channel('relay closed');
DROP FUNCTION answered, send, same, call, txt, bin, peak_kb;
REVOKE ALL ON FUNCTION message_bus.relay FROM regress_relay_login;
DROP ROLE regress_relay_login, regress_relay_app, regress_relay_other;
