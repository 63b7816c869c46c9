--
-- time to live: gone to the moment, also in an open transaction; expire() returns the space
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

SELECT message_bus.create_channel('ttl', ttl => '5 minutes');
SET message_bus.default_channel = 'ttl';

-- now() stands still in a transaction; a message's life does not
CREATE FUNCTION pg_temp.seen(id bigint, transaction_id text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT concat_ws(' ',
		CASE WHEN EXISTS (SELECT FROM message_bus.get(id)) THEN 'get' END,
		CASE WHEN message_bus.get_bytes(id) IS NOT NULL THEN 'get_bytes' END,
		CASE WHEN EXISTS (SELECT FROM message_bus.get_by_transaction('ttl', transaction_id)) THEN 'get_by_transaction' END,
		CASE WHEN EXISTS (SELECT FROM message_bus.peek('ttl') p WHERE p.id = seen.id) THEN 'peek' END,
		CASE WHEN message_bus.retrieve_message(transaction_id) IS NOT NULL THEN 'retrieve_message' END,
		CASE WHEN EXISTS (SELECT FROM message_bus.messages m WHERE m.id = seen.id) THEN 'messages' END,
		CASE WHEN EXISTS (SELECT FROM message_bus.message_bus v WHERE v.id = seen.id) THEN 'message_bus' END,
		(SELECT v.status || ' ' || COALESCE(v.payload::text, 'no payload') FROM message_bus.message_bus v WHERE v.id = seen.id))
$$;
SELECT message_bus.publish('ttl', '"short"', transaction_id => 's', ttl => '1500 milliseconds') AS id \gset
SELECT message_bus.publish('ttl', '"long"', transaction_id => 'l') AS long \gset
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.seen(:id, 's');
SELECT pg_sleep(extract(epoch FROM expires_at - clock_timestamp())) FROM message_bus.get(:id) WHERE expires_at > clock_timestamp();
SELECT pg_temp.seen(:id, 's');
SELECT expires_at > now() AND expires_at <= clock_timestamp() AS now_stands_still FROM message_bus.message_bus WHERE id = :id;
SELECT payload FROM message_bus.peek('ttl');
COMMIT;
SELECT pg_temp.seen(:id, 's');
SELECT pg_temp.seen(:long, 'l');
-- what has expired can be neither deleted nor read, and does not come back
SELECT message_bus.delete_message('s');
SELECT message_bus.record_event(:id, 'accessed', now());
DELETE FROM message_bus.message_bus WHERE id = :id;
SELECT status FROM message_bus.message_bus WHERE id = :id;
SELECT message_bus.alter_channel('ttl', ttl => '10 minutes');
SELECT pg_temp.seen(:id, 's');
-- the least that can be has expired before anybody reads it
SELECT NOT EXISTS (SELECT FROM message_bus.get(message_bus.publish('ttl', '1', ttl => '1 microsecond'))) AS gone;

-- expire() leaves what lives
SELECT message_bus.expire() >= 0 AS done;
SELECT pg_temp.seen(:long, 'l');
RESET message_bus.default_channel;

/*
 * expire() drops whole segments when all in them has expired.  A series of
 * its own: no other test has channels of that TTL.
 */
SELECT message_bus.create_channel('space', ttl => '300 days');
SELECT array_length(message_bus.publish_batch('space', (SELECT json_agg(json_build_object('payload', repeat(md5(n::text), 10),
	'ttl', 0.5, 'transaction_id', 'x' || n)) FROM generate_series(1, 500) n)), 1);
SELECT max(id) >> 24 AS segment FROM message_bus.message_bus WHERE channel = 'space' \gset
SELECT state, rows_reserved, size_bytes > 100000 AS has_size FROM message_bus.segments WHERE segment_no = :segment;
SELECT pg_temp.wait_for($$SELECT count(*) = 0 FROM message_bus.messages WHERE channel = 'space'$$);
SELECT count(*) AS still_listed, min(status) AS status, count(payload) AS payloads FROM message_bus.message_bus WHERE channel = 'space';
SELECT message_bus.expire() > 0 AS dropped;
SELECT count(*) FROM message_bus.segments WHERE segment_no = :segment;
SELECT to_regclass('message_bus.message_' || :segment) IS NULL AND to_regclass('message_bus.event_' || :segment) IS NULL AS tables_gone;
SELECT count(*) FROM message_bus.message_bus WHERE channel = 'space';
-- with it the transaction ids are free again
SELECT message_bus.publish('space', '"again"', transaction_id => 'x1') >> 24 > :segment AS in_a_newer_segment;
SELECT message_bus.expire() >= 0 AS done;
SELECT payload FROM message_bus.peek('space');

SELECT message_bus.drop_channel('ttl'), message_bus.drop_channel('space');
