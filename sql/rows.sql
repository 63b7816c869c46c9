--
-- What a row of each kind takes: no more than it needs.  Sizes are those of a
-- row as a value, with a bitmap if something in it is null; one that is stored
-- ends behind its last column that is not, and then often needs none.
--

\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude
SELECT message_bus.create_channel('rows', ttl => '1 hour', compression => 'none');
SELECT message_bus.create_subscription('rows', 'default');
CREATE FUNCTION pg_temp.body(length integer) RETURNS json LANGUAGE sql AS $$ SELECT to_json(repeat('x', length - 2)) $$;

-- a message of 210 bytes in a batch, and alone
SELECT cardinality(message_bus.publish_batch('rows', json_agg(json_build_object('payload', pg_temp.body(210))))) AS batch
	FROM generate_series(1, 1000);
SELECT message_bus.publish('rows', pg_temp.body(210)) AS id \gset
SELECT tableoid::regclass AS leaf FROM message_bus.message WHERE id = :id \gset
SELECT pg_column_size(m) AS bytes, run, count(*) FROM :leaf m JOIN message_bus.channel USING (channel_id)
	WHERE name = 'rows' AND size = 210 GROUP BY 1, 2 ORDER BY 2;
SELECT max(rows) AS rows_of_a_page FROM (SELECT count(*) AS rows FROM :leaf GROUP BY (ctid::text::point)[0] HAVING min(size) = 210) AS page;

-- of the smallest messages more go into a page without a bitmap (70 with one)
SELECT cardinality(message_bus.publish_batch('rows', json_agg(json_build_object('payload', n)))) AS batch
	FROM generate_series(1, 1000) AS n;
SELECT DISTINCT pg_column_size(m) AS bytes FROM :leaf m JOIN message_bus.channel USING (channel_id)
	WHERE name = 'rows' AND size = 4;
SELECT max(rows) AS rows_of_a_page FROM (SELECT count(*) AS rows FROM :leaf GROUP BY (ctid::text::point)[0] HAVING max(size) < 10) AS page;

-- what else a message may have costs its own bytes
CREATE FUNCTION pg_temp.more(id bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	bytes integer;
BEGIN
	EXECUTE format('SELECT pg_column_size(m) FROM %s m WHERE id = %s',
		(SELECT tableoid::regclass FROM message_bus.message m WHERE m.id = more.id), id) INTO bytes;
	RETURN bytes - 322;
END
$$;
SELECT pg_temp.more(message_bus.publish_text('rows', repeat('x', 210), 'text/plain')) AS content_type,
	pg_temp.more(message_bus.publish('rows', pg_temp.body(210), key => 'key')) AS key,
	pg_temp.more(message_bus.publish('rows', pg_temp.body(210), transaction_id => 'rows')) AS transaction_id,
	pg_temp.more(message_bus.publish('rows', pg_temp.body(210), delay => '1 minute')) AS delay,
	pg_temp.more(message_bus.publish('rows', pg_temp.body(210), headers => '{"a": 1}')) AS headers;

-- an ack of a batch, an ack of a message, a failure, an event
SELECT count(*) FROM pg_temp.take('all', $$'rows', batch => 1000$$);
SELECT message_bus.ack(pg_temp.lease('all'));
SELECT count(*) FROM pg_temp.take('one', $$'rows'$$);
SELECT message_bus.ack(pg_temp.lease('one'));
SELECT count(*) FROM pg_temp.take('other', $$'rows'$$);
SELECT message_bus.nack(pg_temp.lease('other'));
SELECT message_bus.record_event(:id, 'accessed', clock_timestamp());
SELECT n, runs IS NULL AS one_run, pg_column_size(a) AS bytes FROM message_bus.ack a
	WHERE lease IN (pg_temp.lease('all'), pg_temp.lease('one')) ORDER BY n DESC;
SELECT kind, pg_column_size(f) AS bytes FROM message_bus.failure f WHERE lease = pg_temp.lease('other');
SELECT kind, pg_column_size(e) AS bytes FROM message_bus.event e WHERE message_id = :id;

SELECT message_bus.drop_channel('rows');
