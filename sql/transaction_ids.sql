--
-- transaction ids: used once in a channel, while the first message's segment exists
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

SELECT message_bus.create_channel('t', ttl => '1 hour');
SELECT message_bus.create_channel('u', ttl => '1 hour');

-- the same bytes are the same message, by whatever function they come; nothing else of the call counts
SELECT message_bus.publish('t', '{"n":1}', transaction_id => 'a', headers => '{"first": true}') AS id \gset
SELECT message_bus.publish('t', '{"n":1}', transaction_id => 'a') = :id AS publish,
	message_bus.publish('t', '{"n":1}', transaction_id => 'a', headers => '{"second": true}', key => 'k', ttl => '1 minute') = :id AS others_differ,
	message_bus.publish_text('t', '{"n":1}', 'text/plain', transaction_id => 'a') = :id AS publish_text,
	message_bus.publish_bytes('t', '{"n":1}', transaction_id => 'a') = :id AS publish_bytes,
	message_bus.publish_batch('t', '[{"payload": {"n":1}, "transaction_id": "a"}]') = ARRAY[:id]::bigint[] AS publish_batch,
	message_bus.publish_batch_bytes('t', ARRAY['{"n":1}'::bytea], transaction_ids => ARRAY['a']) = ARRAY[:id]::bigint[] AS publish_batch_bytes;
SELECT count(*), min(headers::text) FROM message_bus.peek('t');
-- other bytes are refused, however alike they look
SELECT doc, pg_temp.fails(format($$SELECT message_bus.publish('t', %L, transaction_id => 'a')$$, doc))
	FROM unnest(ARRAY['{"n":2}', '{"n": 1}', '{"n":1.0}', '{"n":1} ', '1']) AS doc;
-- a transaction id is exact
SELECT message_bus.publish('t', '2', transaction_id => tid) <> :id AS another
	FROM unnest(ARRAY['A', 'a ', ' a', 'b', 'a' || chr(769), 'aa']) AS tid;
-- the same in two channels is two messages
SELECT message_bus.publish('u', '{"n":1}', transaction_id => 'a') <> :id AS another, message_bus.publish('u', '3', transaction_id => 'z') > 0 AS stored;
SELECT message_bus.publish('t', '4', transaction_id => 'z') > 0 AS stored;

-- within a transaction, and after a part of it was rolled back
BEGIN;
SELECT message_bus.publish('t', '5', transaction_id => 'tx') AS first \gset
SELECT message_bus.publish('t', '5', transaction_id => 'tx') = :first AS same;
SELECT pg_temp.fails($$SELECT message_bus.publish('t', '6', transaction_id => 'tx')$$);
SAVEPOINT s;
SELECT message_bus.publish('t', '7', transaction_id => 'undone') > :first AS stored;
ROLLBACK TO s;
SELECT message_bus.publish('t', '8', transaction_id => 'undone') > :first AS stored_with_other_bytes;
SAVEPOINT s;
SELECT message_bus.publish('t', '5', transaction_id => 'tx') = :first AS same;
SELECT message_bus.publish('t', '8', transaction_id => 'undone') > :first AS same;
RELEASE s;
COMMIT;
SELECT payload FROM message_bus.get_by_transaction('t', 'undone');
BEGIN;
SELECT message_bus.publish('t', '9', transaction_id => 'all undone') > 0 AS stored;
ROLLBACK;
SELECT NOT EXISTS (SELECT FROM message_bus.get_by_transaction('t', 'all undone')) AS nothing;
SELECT message_bus.publish('t', '10', transaction_id => 'all undone') > 0 AS stored;
-- duplicates use up no memory of the transaction and leave no rows
DO $$
DECLARE
	id bigint := message_bus.publish('t', '11', transaction_id => 'often');
BEGIN
	FOR i IN 1 .. 2000 LOOP
		IF message_bus.publish('t', '11', transaction_id => 'often') <> id THEN
			RAISE EXCEPTION 'another id';
		END IF;
	END LOOP;
END
$$;
SELECT count(*) FROM message_bus.messages WHERE transaction_id = 'often';
SELECT value >= 2000 AS counted FROM message_bus.metrics WHERE metric = 'duplicates_total';

-- of a message that has expired, or was deleted, it is not free yet, and the error says which
SELECT message_bus.publish('t', '12', transaction_id => 'short', ttl => '1 millisecond') > 0 AS stored;
SELECT pg_sleep(0.01);
SELECT pg_temp.fails($$SELECT message_bus.publish('t', '12', transaction_id => 'short')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('t', '13', transaction_id => 'short')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('t', '[{"payload": 1}, {"payload": 12, "transaction_id": "short"}]')$$);
SET message_bus.default_channel = 't';
SELECT message_bus.publish('t', '14', transaction_id => 'deleted') > 0 AS stored;
SELECT message_bus.delete_message('deleted');
SELECT pg_temp.fails($$SELECT message_bus.publish('t', '14', transaction_id => 'deleted')$$);
SELECT pg_temp.fails($$SELECT message_bus.store_message('deleted', 's', 'n', 'p', '14')$$);
-- a deletion that is rolled back was none
SELECT message_bus.publish('t', '15', transaction_id => 'kept') AS id \gset
BEGIN;
SELECT message_bus.delete_message('kept');
SELECT pg_temp.fails($$SELECT message_bus.publish('t', '15', transaction_id => 'kept')$$);
ROLLBACK;
SELECT message_bus.publish('t', '15', transaction_id => 'kept') = :id AS same;
RESET message_bus.default_channel;

-- a dropped channel's are free
SELECT message_bus.drop_channel('u');
SELECT message_bus.create_channel('u', ttl => '1 hour');
SELECT message_bus.publish('u', '16', transaction_id => 'a') > 0 AS stored;

/*
 * Across segments.  With small segments each batch fills one, and the worker
 * opens the next.
 */
ALTER SYSTEM SET message_bus.segment_max_rows = 16;
SELECT pg_reload_conf();
-- who connects now comes after the server has told its processes; the worker reads it at the start of a pass
\c -
\i :prelude
SHOW message_bus.segment_max_rows;
SELECT passes + 2 AS passes FROM message_bus.worker_status \gset
SELECT pg_temp.wait_for(format('SELECT passes >= %s FROM message_bus.worker_status', :passes));
SELECT message_bus.create_channel('rolls', ttl => '20 hours');
SELECT message_bus.publish('rolls', '"first"', transaction_id => 'across') AS id \gset
SELECT array_length(message_bus.publish_batch('rolls', (SELECT json_agg(json_build_object('payload', n)) FROM generate_series(1, 60) n)), 1);
SELECT count(DISTINCT id >> 24) > 3 AS segments, count(*) FROM message_bus.peek('rolls');
SELECT message_bus.publish('rolls', '"first"', transaction_id => 'across') = :id AS same_message;
SELECT pg_temp.fails($$SELECT message_bus.publish('rolls', '"other"', transaction_id => 'across')$$);
SELECT payload, id = :id AS same FROM message_bus.get_by_transaction('rolls', 'across');
-- in one call with new ones
SELECT ids[1] > :id AS new, ids[2] = :id AS known, ids[3] > ids[1] AS new_too
	FROM message_bus.publish_batch('rolls', '[{"payload": 1, "transaction_id": "x1"}, {"payload": "first", "transaction_id": "across"},
		{"payload": 2, "transaction_id": "x2"}]') AS ids;
-- a batch over several segments, twice, in two orders
SELECT message_bus.publish_batch('rolls', (SELECT json_agg(json_build_object('payload', n, 'transaction_id', 'w' || n) ORDER BY n)
	FROM generate_series(1, 50) n)) AS ids \gset
SELECT message_bus.publish_batch('rolls', (SELECT json_agg(json_build_object('payload', n, 'transaction_id', 'w' || n) ORDER BY n)
	FROM generate_series(1, 50) n)) = :'ids'::bigint[] AS same_ids;
SELECT array_agg(id ORDER BY n) = :'ids'::bigint[] AS same_ids
	FROM unnest(message_bus.publish_batch('rolls', (SELECT json_agg(json_build_object('payload', n, 'transaction_id', 'w' || n) ORDER BY n DESC)
		FROM generate_series(1, 50) n))) WITH ORDINALITY AS d (id, m), LATERAL (SELECT 51 - m) AS o (n);
SELECT count(*), count(DISTINCT transaction_id) FROM message_bus.messages WHERE channel = 'rolls' AND transaction_id LIKE 'w%';
-- one bad element, and nothing of any segment is stored
SELECT pg_temp.fails(format($$SELECT message_bus.publish_batch('rolls', %L)$$, (SELECT json_agg(json_build_object('payload', n, 'transaction_id',
	CASE WHEN n = 50 THEN 'across' ELSE 'v' || n END)) FROM generate_series(1, 50) n)));
SELECT count(*) FROM message_bus.messages WHERE channel = 'rolls' AND transaction_id LIKE 'v%';
SELECT message_bus.drop_channel(c) FROM unnest(ARRAY['rolls', 't', 'u']) AS c;
ALTER SYSTEM RESET message_bus.segment_max_rows;
SELECT pg_reload_conf();

-- publish_once tells of a repeat, as a receipt of the relay does
SELECT message_bus.create_channel('once', ttl => '1 hour');
SELECT id FROM message_bus.publish_once('once', '1', transaction_id => 'o1') \gset
SELECT id = :id AS same, repeated FROM message_bus.publish_once('once', '1', transaction_id => 'o1');
SELECT id <> :id AS another, repeated FROM message_bus.publish_once('once', '1', transaction_id => 'o2');
SELECT repeated FROM message_bus.publish_once('once', '1'), generate_series(1, 2);
SELECT (message_bus.publish_once('once', '2', '{"h": 1}', 'k', 'o3', '1 minute', '1 second', sha256('2'))).repeated;
SELECT key, headers, expires_at - created_at AS ttl, available_at > created_at AS later FROM message_bus.get_by_transaction('once', 'o3');
SELECT pg_temp.fails($$SELECT message_bus.publish_once('once', '3', transaction_id => 'o1')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_once('nowhere', '3', transaction_id => 'o1')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_once(NULL, '3')$$), pg_temp.fails($$SELECT message_bus.publish_once('once', NULL)$$);
-- rolled back, it was no first one; and in a savepoint
BEGIN;
SELECT repeated FROM message_bus.publish_once('once', '4', transaction_id => 'o4');
SELECT repeated FROM message_bus.publish_once('once', '4', transaction_id => 'o4');
SAVEPOINT s;
SELECT repeated FROM message_bus.publish_once('once', '5', transaction_id => 'o5');
ROLLBACK TO s;
SELECT repeated FROM message_bus.publish_once('once', '5', transaction_id => 'o5');
ROLLBACK;
SELECT repeated FROM message_bus.publish_once('once', '5', transaction_id => 'o5');
SELECT count(*) FROM message_bus.peek('once');
-- who may not publish may not do so once
CREATE ROLE regress_mbus_once;
SET ROLE regress_mbus_once;
SELECT pg_temp.fails($$SELECT message_bus.publish_once('once', '1', transaction_id => 'o1')$$);
RESET ROLE;
DROP ROLE regress_mbus_once;
