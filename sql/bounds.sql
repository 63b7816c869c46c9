--
-- bounds: what one call may cost, and what is not done for nothing
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

CREATE ROLE regress_mbus_bounds;
SELECT message_bus.create_channel('bounds', compression => 'none');
SELECT message_bus.grant_channel('bounds', 'regress_mbus_bounds', 'all');
SELECT message_bus.grant_channel('default', 'regress_mbus_bounds', 'all');
CREATE FUNCTION pg_temp.noise(seed text, size integer) RETURNS bytea LANGUAGE sql AS $$
	SELECT substr(string_agg(sha512(convert_to(seed || i, 'UTF8')), '' ORDER BY i), 1, size) FROM generate_series(0, size / 64) AS i
$$;

-- a frame that cannot be answered is refused before the payload is read
CREATE FUNCTION pg_temp.toast_reads() RETURNS numeric LANGUAGE sql AS $$
	SELECT sum(toast_blks_read + toast_blks_hit) FROM pg_statio_all_tables WHERE schemaname = 'message_bus'
$$;
CREATE FUNCTION pg_temp.ask(method text, params json, opcode text DEFAULT '\x01') RETURNS text LANGUAGE sql AS $$
	SELECT left(regexp_replace(convert_from(substr(frame, 2, 300), 'UTF8'), '\d{12,}', 'ID', 'g'), 200)
	FROM message_bus.relay('{1}', ARRAY[opcode::bytea ||
		convert_to(json_build_object('jsonrpc', '2.0', 'id', 1, 'method', method, 'params', params)::text, 'UTF8') ||
		CASE opcode WHEN '\x02' THEN '\x0a'::bytea ELSE '' END])
$$;
SELECT message_bus.publish_bytes('bounds', pg_temp.noise('large', 900000)) AS id \gset
SELECT message_bus.publish('default', to_json(encode(pg_temp.noise('kept', 300000), 'hex')), transaction_id => 'kept') > 0 AS stored;
SET message_bus.relay_role = 'regress_mbus_bounds';
SET message_bus.client_frame_max = 500000;
SELECT pg_stat_force_next_flush();
SELECT pg_temp.toast_reads() AS before \gset
SELECT pg_temp.ask('get', json_build_object('id', :id));
SELECT pg_temp.ask('get_bytes', json_build_object('id', :id));
SELECT pg_temp.ask('get_bytes', json_build_object('id', :id, 'from_byte', 100000, 'max_bytes', 400000));
SELECT pg_temp.ask('retrieve_message', json_build_object('transaction_id', 'kept'));
SELECT pg_stat_force_next_flush();
SELECT pg_temp.toast_reads() - :before AS blocks_read;
-- what fits is read
SELECT left(pg_temp.ask('get_bytes', json_build_object('id', :id, 'from_byte', 100000, 'max_bytes', 300000)), 40);
SELECT pg_stat_force_next_flush();
SELECT pg_temp.toast_reads() - :before > 100 AS blocks_read;
-- as raw bytes more fits than as base64
RESET message_bus.client_frame_max;
SET message_bus.client_frame_max = 1000000;
SELECT pg_temp.ask('get_bytes', json_build_object('id', :id)) ~ '-32004' AS refused;
RESET message_bus.client_frame_max;
RESET message_bus.relay_role;
SELECT length(payload) FROM (SELECT message_bus.get_bytes(:id)) AS whole(payload);

-- what others have published is passed over where it lies, and not read
SELECT message_bus.create_channel('bounds apart', visibility => 'subject');
SELECT message_bus.grant_channel('bounds apart', 'regress_mbus_bounds', 'all');
SET ROLE regress_mbus_bounds;
SET request.jwt.claims = '{"sub": "others"}';
SELECT count(message_bus.publish('bounds apart', '1', headers => jsonb_build_object('h', encode(pg_temp.noise('h' || i, 50000), 'hex')))) FROM generate_series(1, 20) AS i;
SET request.jwt.claims = '{"sub": "own"}';
SELECT message_bus.publish('bounds apart', '2') > 0 AS published;
SELECT pg_stat_force_next_flush();
SELECT pg_temp.toast_reads() AS before \gset
SELECT payload FROM message_bus.peek('bounds apart');
SELECT pg_stat_force_next_flush();
SELECT pg_temp.toast_reads() - :before AS blocks_read;
SET request.jwt.claims = '{"sub": "others"}';
SELECT count(*) FROM message_bus.peek('bounds apart');
SELECT pg_stat_force_next_flush();
SELECT pg_temp.toast_reads() - :before > 100 AS blocks_read;
RESET request.jwt.claims;
RESET ROLE;
SELECT message_bus.drop_channel('bounds apart');

-- the reason of a nack is kept with each message: of many it is less
SELECT message_bus.create_channel('reasons', max_attempts => 2, dead_letter => 'bounds');
CREATE FUNCTION pg_temp.nacked(messages integer, why text) RETURNS TABLE (rows bigint, longest integer, total bigint, said text) LANGUAGE plpgsql AS $$
DECLARE
	taken bigint;
BEGIN
	SELECT lease INTO taken FROM message_bus.claim('reasons', batch => messages);
	PERFORM message_bus.nack(taken, delay => '1 hour', reason => why);
	RETURN QUERY SELECT count(*), max(octet_length(reason)), sum(octet_length(reason)), min(right(reason, 20)) FROM message_bus.failure WHERE lease = taken;
END
$$;
SELECT cardinality(message_bus.publish_batch('reasons', (SELECT json_agg(json_build_object('payload', i)) FROM generate_series(1, 20000) AS i)));
SELECT * FROM pg_temp.nacked(1, repeat('x', 8000));
SELECT * FROM pg_temp.nacked(131, repeat('x', 8000));
SELECT * FROM pg_temp.nacked(1000, repeat('x', 8000));
SELECT * FROM pg_temp.nacked(1000, repeat(U&'\00e9', 4000));
SELECT * FROM pg_temp.nacked(1000, repeat('x', 1000));
SELECT * FROM pg_temp.nacked(8000, repeat('x', 8000));
SELECT * FROM pg_temp.nacked(8000, NULL);

-- that a message was verified says nothing of another that gets its id
SET message_bus.inline_max = 1000;
BEGIN;
SELECT message_bus.publish_bytes('bounds', pg_temp.noise('first', 50000)) AS first \gset
SELECT length(message_bus.get_bytes(:first, 0, 10));
ROLLBACK;
SELECT message_bus.publish_bytes('bounds', pg_temp.noise('second', 50000)) AS second \gset
SELECT :first = :second AS same_id;
UPDATE message_bus.message SET payload = pg_temp.noise('third', 50000) WHERE id = :second;
SELECT replace(pg_temp.fails(format('SELECT message_bus.get_bytes(%s, 0, 10)', :second)), :second::text, 'N');
RESET message_bus.inline_max;

-- what one call returns has a bound, however many frames it has
SELECT message_bus.publish('bounds', to_json(repeat('x', 60000))) AS id \gset
SET message_bus.relay_role = 'regress_mbus_bounds';
SET message_bus.frame_max = 200000;
SELECT count(*) AS frames, sum(length(frame)) < 5.5 * 200000 AS bounded, count(nullif(code, 0)) BETWEEN 40 AND 50 AS failed, min(code) AS code
FROM message_bus.relay(array_fill(1::bigint, ARRAY[60]), array_fill('\x01'::bytea ||
	convert_to(format('{"jsonrpc":"2.0","id":1,"method":"get","params":{"id":%s}}', :id), 'UTF8'), ARRAY[60]));
RESET message_bus.frame_max;
RESET message_bus.relay_role;

-- who may not send a large frame is told before it is parsed: its end is broken
CREATE ROLE regress_mbus_nobody;
SELECT message_bus.create_channel('bounds closed');
CREATE FUNCTION pg_temp.broken(role text, front text, size integer, back text, opcode text DEFAULT '\x01') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('message_bus.relay_role', role, true);
	RETURN (SELECT left(convert_from(substr(frame, 2), 'UTF8'), 230)
		FROM message_bus.relay('{1}', ARRAY[opcode::bytea || convert_to(front || repeat('1', size) || back || '}', 'UTF8')]));
END
$$;
\set head '''{"jsonrpc":"2.0","id":7,"method":"publish","params":{"channel":"bounds closed","payload":'''
\set open '''{"jsonrpc":"2.0","id":7,"method":"publish","params":{"channel":"bounds","payload":'''
\set late '''{"jsonrpc":"2.0","id":7,"params":{"payload":'''
\set read '''{"jsonrpc":"2.0","id":7,"method":"g\\u0065t","params":{"x":'''
SELECT role, frame, pg_temp.broken('regress_mbus_' || role, front, size, ',"method":"publish"')
FROM unnest(ARRAY['bounds', 'nobody']) AS role,
	(VALUES (1, 'closed', :head, 100000), (2, 'open', :open, 5000), (3, 'open', :open, 100000),
		(4, 'method behind', :late, 1200000), (5, 'escaped', :read, 100000),
		(6, 'batch', '[{"jsonrpc":"2.0","id":7,"method":"ping"},' || :head, 100000),
		(7, 'authenticate', '{"jsonrpc":"2.0","id":7,"method":"authenticate","params":{"token":', 100000)) AS frames(n, frame, front, size)
ORDER BY role, n;
-- in whatever order the members come, and whatever is in front; a batch behind blanks is one
SELECT frame, substring(pg_temp.broken('regress_mbus_bounds', front, 100000, back) FROM '"code":-\d+,"message":"[^"]*\\?"?') AS told
FROM (VALUES (1, 'payload first', '{"jsonrpc":"2.0","id":7,"method":"publish","params":{"payload":', ',"channel":"bounds closed"}'),
	(2, 'params first', '{"params":{"channel":"bounds closed","payload":', '},"method":"publish"'),
	(3, 'channel beside', '{"channel":"bounds","method":"publish","params":{"channel":"bounds closed","payload":', '}'),
	(4, 'channel in the payload', '{"method":"publish","params":{"payload":{"channel":"bounds closed"},"channel":"bounds","x":', '}'),
	(5, 'blanks', E' \n\t' || :head, ''),
	(6, 'batch', '[' || :head, ''),
	(7, 'batch behind blanks', E' \n\t\r[' || :head, '')) AS frames(n, frame, front, back)
ORDER BY n;
-- bytes of a binary frame are not parsed, only its line
SELECT regexp_replace(pg_temp.broken('regress_mbus_nobody', '{"jsonrpc":"2.0","id":7,"method":"publish","params":{"channel":"bounds"}}' || E'\n', 100000, '', '\x02'), '"detail".*', '');
-- what that costs: a scan once, until channels or roles change; none where there was a privilege the last time
CREATE FUNCTION pg_temp.scans(role text) RETURNS TABLE (code text, scans bigint, loads boolean) LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
	loaded bigint;
BEGIN
	SELECT sum(x.seq_scan), sum(x.idx_scan) INTO before, loaded FROM pg_stat_xact_all_tables x
		WHERE x.schemaname = 'message_bus' AND x.relname IN ('channel', 'channel_grant');
	FOR i IN 1 .. 5 LOOP
		code := substring(pg_temp.broken('regress_mbus_' || role, '{"id":7,"method":"get","params":{"x":', 100000, '') FROM '"code":(-\d+)');
	END LOOP;
	RETURN QUERY SELECT code, sum(x.seq_scan)::bigint - before, sum(x.idx_scan) - loaded > 20 FROM pg_stat_xact_all_tables x
		WHERE x.schemaname = 'message_bus' AND x.relname IN ('channel', 'channel_grant');
END
$$;
SELECT count(message_bus.create_channel('bounds ' || i)) FROM generate_series(1, 50) AS i;
SELECT * FROM pg_temp.scans('nobody');
SELECT * FROM pg_temp.scans('nobody');
SELECT * FROM pg_temp.scans('bounds');
SELECT message_bus.alter_channel('bounds 1', ttl => '1 hour');
SELECT * FROM pg_temp.scans('bounds');
SELECT * FROM pg_temp.scans('nobody');
GRANT regress_mbus_bounds TO regress_mbus_nobody;
SELECT * FROM pg_temp.scans('nobody');
REVOKE regress_mbus_bounds FROM regress_mbus_nobody;
SELECT * FROM pg_temp.scans('nobody');
SELECT message_bus.grant_channel('bounds 2', 'regress_mbus_nobody', 'audit');
SELECT * FROM pg_temp.scans('nobody');
SELECT message_bus.revoke_channel('bounds 2', 'regress_mbus_nobody', 'audit');
SELECT * FROM pg_temp.scans('nobody');
SELECT count(message_bus.drop_channel('bounds ' || i)) FROM generate_series(1, 50) AS i;
SELECT message_bus.drop_channel('bounds closed');
DROP ROLE regress_mbus_nobody;

SELECT message_bus.drop_channel(c) FROM unnest(ARRAY['reasons', 'bounds']) AS c;
SELECT message_bus.revoke_channel('default', 'regress_mbus_bounds', 'all');
DROP ROLE regress_mbus_bounds;
