--
-- retries: many that are due at one time cost as little as new ones, and fill a batch
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

-- rows of the tables of failures that 20 single claims, each acknowledged, read in one transaction
CREATE FUNCTION pg_temp.failures_read(channel text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
	after bigint;
	counted text := 'SELECT coalesce(sum(idx_tup_fetch), 0) FROM pg_catalog.pg_stat_xact_all_tables'
		' WHERE schemaname = ''message_bus'' AND relname LIKE ''failure_%''';
BEGIN
	EXECUTE counted INTO before;
	FOR n IN 1 .. 20 LOOP
		PERFORM message_bus.ack(lease) FROM message_bus.claim(channel);
	END LOOP;
	EXECUTE counted INTO after;
	RETURN after - before;
END
$$;
CREATE FUNCTION pg_temp.fill(channel text, n int) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM message_bus.publish_batch(channel, (SELECT json_agg(json_build_object('payload', i)) FROM generate_series(1, n) AS i))
$$;

/*
 * One nack of 2,000
 */
SELECT message_bus.create_channel('again', ttl => '1 hour');
SELECT message_bus.create_subscription('again', 'default');
SELECT pg_temp.fill('again', 2000);
SELECT message_bus.nack(lease, delay => '0') FROM (SELECT min(lease) AS lease FROM message_bus.claim('again', batch => 2000)) AS c;
SELECT count(DISTINCT retry_at) FROM message_bus.failure WHERE lease = (SELECT max(lease) FROM message_bus.failure);
SELECT n BETWEEN 20 AND 600 AS few, CASE WHEN n > 600 THEN n END AS too_many FROM pg_temp.failures_read('again') AS n;
SELECT max(lease) AS low FROM message_bus.claim('again') \gset
SELECT count(*) FROM message_bus.claim('again', batch => 10);
SELECT message_bus.nack(:low, delay => '0');
-- all come, each once
CREATE TEMP TABLE got AS SELECT * FROM message_bus.claim('again', batch => 5000);
SELECT count(*), count(DISTINCT id), max(attempt) FROM got;
SELECT message_bus.ack(lease) FROM got GROUP BY lease;
SELECT count(*) FROM message_bus.claim('again', batch => 5000);

/*
 * 2,000 dead letters redriven
 */
SELECT message_bus.create_channel('dead', ttl => '1 hour');
SELECT message_bus.create_channel('alive', ttl => '1 hour', max_attempts => 1, dead_letter => 'dead');
SELECT message_bus.create_subscription('alive', 'default');
SELECT pg_temp.fill('alive', 2000);
SELECT message_bus.nack(lease) FROM (SELECT min(lease) AS lease FROM message_bus.claim('alive', batch => 2000)) AS c;
SELECT message_bus.redrive('dead');
SELECT n BETWEEN 20 AND 600 AS few, CASE WHEN n > 600 THEN n END AS too_many FROM pg_temp.failures_read('alive') AS n;
SELECT count(*), count(DISTINCT id), max(attempt) FROM message_bus.claim('alive', batch => 5000);

/*
 * A quarter of a batch is kept for new messages, and not wasted: 1,000 that failed, and ten or none new ones
 */
SELECT message_bus.create_channel('full', ttl => '1 hour');
SELECT message_bus.create_subscription('full', 'default');
SELECT pg_temp.fill('full', 1000);
SELECT message_bus.nack(lease, delay => '0') FROM (SELECT min(lease) AS lease FROM message_bus.claim('full', batch => 1000)) AS c;
SELECT pg_temp.fill('full', 40);
SELECT count(*), count(*) FILTER (WHERE attempt = 1) AS new FROM message_bus.claim('full', batch => 100);
SELECT count(*), count(*) FILTER (WHERE attempt = 1) AS new FROM message_bus.claim('full', batch => 100);
SELECT count(*), count(*) FILTER (WHERE attempt = 1) AS new FROM message_bus.claim('full', batch => 100);
-- ids that others have taken are no new messages
BEGIN;
SELECT message_bus.publish('full', '1') IS NOT NULL AS published;
ROLLBACK;
SELECT count(*), count(*) FILTER (WHERE attempt = 1) AS new FROM message_bus.claim('full', batch => 100);
-- delayed ones fill it up likewise
SELECT message_bus.create_channel('later', ttl => '1 hour');
SELECT message_bus.create_subscription('later', 'default');
SELECT count(message_bus.publish('later', '1', delay => '1 millisecond')) FROM generate_series(1, 300);
SELECT pg_sleep(0.01);
SELECT count(*) FROM message_bus.claim('later', batch => 1);
SELECT pg_temp.fill('later', 10);
SELECT count(*) FROM message_bus.claim('later', batch => 100);
SELECT count(*) FROM message_bus.claim('later', batch => 1000);
