--
-- errors: what failed is found by its transaction id, channel and subject, with the reason
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset null '-'
\pset format unaligned

SELECT message_bus.create_channel('e', max_payload => 1000);
SELECT message_bus.create_channel('closed');
CREATE ROLE regress_errors_user;
CREATE ROLE regress_errors_login;
GRANT regress_errors_user TO regress_errors_login;
GRANT EXECUTE ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session TO regress_errors_login;
SELECT message_bus.grant_channel('e', 'regress_errors_user', 'all');
SELECT pg_backend_pid() AS pid \gset
-- each failure since the last look, in its order
CREATE TEMPORARY TABLE seen (at timestamptz);
INSERT INTO seen VALUES (clock_timestamp());
CREATE FUNCTION pg_temp.told(n integer, OUT function text, OUT sqlstate text, OUT transaction_id text, OUT channel text, OUT subject text,
	OUT session bigint, OUT detail text) RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.wait_for(format('SELECT count(*) >= %s FROM message_bus.errors e WHERE e.pid = %s AND e.at > %L',
		n, pg_backend_pid(), (SELECT max(s.at) FROM seen s)));
	RETURN QUERY SELECT e.function, e.sqlstate, e.transaction_id, e.channel, e.subject, e.session,
		regexp_replace(e.detail, '([Mm]essage) \d+', '\1 N') FROM message_bus.errors e
		WHERE e.pid = pg_backend_pid() AND e.at > (SELECT max(s.at) FROM seen s) ORDER BY e.at;
	INSERT INTO seen VALUES (clock_timestamp());
END
$$;

-- a publish that is refused for its checksum, however it was made
SELECT pg_temp.fails($$SELECT message_bus.publish('e', '{"a": 1}', transaction_id => 'sum 1', sha256 => sha256('b'))$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_text('e', 'text', 'text/plain', transaction_id => 'sum 2', sha256 => sha256('b'))$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_bytes('e', 'text', transaction_id => 'sum 3', sha256 => sha256('b'))$$);
SELECT pg_temp.fails(format($$SELECT message_bus.publish_batch('e', '[{"payload": 1, "transaction_id": "good"},
	{"payload": 2, "transaction_id": "sum 4", "sha256": "%s"}, {"payload": 3, "transaction_id": "behind"}]')$$, repeat('0', 64)));
SET message_bus.default_channel = 'e';
SELECT pg_temp.fails(format($$INSERT INTO message_bus.message_bus (transaction_id, payload, checksum) VALUES ('sum 5', '1', '%s')$$, repeat('0', 64)));
SELECT pg_temp.fails($$SELECT message_bus.store_message('too large', 's', 't', 'p', to_json(repeat('x', 2000)))$$);
SELECT * FROM pg_temp.told(6);

-- and whatever else is wrong with it, as soon as the transaction id is known
SELECT message_bus.publish('e', '1', transaction_id => 'taken') > 0 AS published;
SELECT pg_temp.fails($$SELECT message_bus.publish('e', '2', transaction_id => 'taken')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('e', NULL, transaction_id => 'null')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('no such', '1', transaction_id => 'nowhere')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('e', '1', transaction_id => 'ttl', ttl => '3 years')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('e', '1', transaction_id => repeat('long', 100))$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('e', '1', transaction_id => '')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('e', '[{"payload": 1, "transaction_id": "b1"}, {"payload": 1, "transaction_id": "b2", "color": 1}]')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('e', '[{"payload": 1, "transaction_id": "b3"}, {"payload": 1, "transaction_id": "b4", "headers": 1}]')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('e', '[{"payload": 1, "transaction_id": "b5"}, {"payload": 1, "ttl": "3 years"}]')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('e', '[{"payload": 1, "transaction_id": "b6"}, {"payload": 2, "transaction_id": "taken"}, {"payload": 1}]')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch_bytes('e', ARRAY['a', repeat('b', 2000)::bytea], transaction_ids => ARRAY['b7', 'b8'])$$);
SELECT function, sqlstate, left(transaction_id, 10) AS transaction_id, length(transaction_id), channel, detail FROM pg_temp.told(11);

-- a detail that may quote the payload is not kept
SELECT pg_temp.fails($$SELECT message_bus.publish_text('e', '{"secret": NaN}', transaction_id => 'quote')$$);
SELECT function, sqlstate, transaction_id, detail FROM pg_temp.told(1);

-- reads: by what was asked for, or the message that is not for the caller; and the subject
SELECT message_bus.publish('closed', '1', transaction_id => 'hidden') AS id \gset
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_errors_user;
SELECT pg_temp.fails($$SELECT * FROM message_bus.get_by_transaction('closed', 'hidden')$$);
SELECT pg_temp.fails(format($$SELECT * FROM message_bus.get(%s)$$, :id));
SELECT pg_temp.fails(format($$SELECT message_bus.get_bytes(%s)$$, :id));
SET message_bus.default_channel = 'closed';
SELECT pg_temp.fails($$SELECT message_bus.retrieve_message('hidden')$$);
SELECT pg_temp.fails($$SELECT message_bus.delete_message('hidden')$$);
SELECT pg_temp.fails($$SELECT * FROM message_bus.peek('closed')$$);
SELECT pg_temp.fails($$SELECT * FROM message_bus.claim('closed')$$);
RESET ROLE;
RESET request.jwt.claims;
SET message_bus.default_channel = 'e';
SELECT function, sqlstate, transaction_id, channel, subject, detail FROM pg_temp.told(7);
-- bytes that do not match
SELECT message_bus.publish('e', '{"n": 1}', transaction_id => 'broken') AS id \gset
UPDATE message_bus.message SET payload = '{"n": 2}' WHERE id = :id;
SELECT pg_temp.fails($$SELECT message_bus.retrieve_message('broken')$$);
SELECT pg_temp.fails(format('SELECT * FROM message_bus.get(%s)', :id));
SELECT * FROM pg_temp.told(4);

-- administration names its channel
SELECT pg_temp.fails($$SELECT message_bus.create_channel('e')$$);
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('e', ttl => '-1 s')$$);
SELECT pg_temp.fails($$SELECT message_bus.drop_channel('no such')$$);
SELECT pg_temp.fails($$SELECT message_bus.purge_channel('no such')$$);
SELECT pg_temp.fails($$SELECT message_bus.drop_subscription('e', 'none')$$);
SELECT pg_temp.fails($$SELECT message_bus.redrive('no such')$$);
SELECT pg_temp.fails($$SELECT message_bus.drop_channel(NULL)$$);
SELECT function, sqlstate, transaction_id, channel, detail FROM pg_temp.told(7);

-- frames: what was refused before the function began, too
CREATE FUNCTION pg_temp.frame(request text) RETURNS bytea LANGUAGE sql AS $$ SELECT '\x01'::bytea || convert_to(request, 'UTF8') $$;
CREATE FUNCTION pg_temp.run(VARIADIC frames bytea[]) RETURNS TABLE (code integer) LANGUAGE sql AS $$
	SELECT r.code FROM message_bus.relay(array_fill(7::bigint, ARRAY[cardinality(frames)]), frames) r
$$;
SET message_bus.relay_role = 'regress_errors_user';
SELECT * FROM pg_temp.run(
	pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"e","payload":1,"transaction_id":"f1","sha256":"' || repeat('0', 64) || '"}}'),
	pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"e","payload":1,"transaction_id":"f\u0032","color":"red"}}'),
	pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"e","payload":1,"transaction_id":"f3","ttl":"soon"}}'),
	pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"paint","params":{"channel":"e","payload":1,"transaction_id":"f4"}}'),
	pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"ping","params":{"color":"red"}}'),
	pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"e","payload":NaN,"transaction_id":"f5"}}'),
	pg_temp.frame('[{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"e","payload":1,"transaction_id":"f6","delay":"3 years"}},
		{"jsonrpc":"2.0","id":1,"method":"get","params":{"id":"x"}}]'));
SELECT * FROM pg_temp.told(8);
-- one that the gateway has refused for its size, as far as it has come
SELECT * FROM pg_temp.run('\x004c00010000' || pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"e","transaction_id":"l\u0031","payload":"xxxx'),
	'\x004c00010000' || pg_temp.frame('[{"id":1,"method":"ping"},{"id":2,"params":{"headers":{"channel":"no"},"transaction_id":"l2","channel":"e","payload":["'),
	'\x004c00010000' || '\x02'::bytea || convert_to(E'{"id":1,"method":"publish","params":{"channel":"e","transaction_id":"l3"}}\n,"channel":"x",', 'UTF8'),
	'\x004c00010000' || pg_temp.frame('{"payload":{"channel":"x","payload":{"transaction_id":"y"},"method":"z"}'),
	'\x004c000100000122ff'::bytea, '\x004c00010000'::bytea, '\x004c0001'::bytea);
SELECT * FROM pg_temp.told(7);
RESET message_bus.relay_role;

-- the token of a session that was refused: frames behind it get the reason
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "alg": "HS256"}]}') AS keys;
SET message_bus.anonymous_role = 'regress_errors_user';
SET SESSION AUTHORIZATION regress_errors_login;
SELECT convert_from(substr(r.frame, 2), 'UTF8') AS reply FROM message_bus.relay(ARRAY[8, 8, 8, 8, 9, 8, 8]::bigint[], ARRAY['\x004f612e622e63',
	pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"ping"}'),
	pg_temp.frame('{"jsonrpc":"2.0","id":2,"method":"publish","params":{"channel":"e","payload":1,"transaction_id":"t1"}}'),
	'\x004c00010000' || pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"e","transaction_id":"t2","payload":"xxxx'),
	pg_temp.frame('{"jsonrpc":"2.0","id":3,"method":"ping"}'),
	'\x0043', pg_temp.frame('{"jsonrpc":"2.0","id":4,"method":"ping"}')]) r;
-- one that is good is whom the failure is of
SELECT convert_from(substr(r.frame, 2), 'UTF8') LIKE '%"open"%' AS opened FROM message_bus.relay(ARRAY[8, 8]::bigint[], ARRAY['\x004f',
	'\x004c00010000' || pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"publish","params":{"channel":"e","transaction_id":"t3","payload":"xxxx')]) r;
RESET SESSION AUTHORIZATION;
SELECT * FROM pg_temp.told(7);
SELECT role FROM message_bus.errors WHERE transaction_id = 't3' AND at > now() - interval '1 minute';
RESET message_bus.anonymous_role;
SELECT message_bus.set_jwt_keys('{"keys": []}') AS keys;

-- refused sessions take no room from others
SET SESSION AUTHORIZATION regress_errors_login;
SELECT count(*) FROM message_bus.relay(array_fill(8::bigint, ARRAY[60]), array_fill('\x004f612e622e63'::bytea, ARRAY[60]));
SELECT sum(n) FROM (SELECT (SELECT count(*) FROM message_bus.relay(ARRAY(SELECT 60 * i + s FROM generate_series(100, 159) s),
	array_fill('\x004f612e622e63'::bytea, ARRAY[60]))) FROM generate_series(1, 20) i) AS t (n);
SELECT convert_from(substr(r.frame, 2), 'UTF8') LIKE '%token is not valid%' AS first, n FROM message_bus.relay(ARRAY[160, 1359]::bigint[], array_fill(pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"ping"}'), ARRAY[2]))
	WITH ORDINALITY r (session, frame, request, code, sqlstate, leases, n);
RESET SESSION AUTHORIZATION;

-- found by the index
SET enable_seqscan = off;
EXPLAIN (COSTS off) SELECT * FROM message_bus.errors WHERE transaction_id = 't1';
RESET enable_seqscan;

RESET message_bus.default_channel;
SELECT message_bus.drop_channel('e');
SELECT message_bus.drop_channel('closed');
REVOKE ALL ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session FROM regress_errors_login;
DROP ROLE regress_errors_user, regress_errors_login;
