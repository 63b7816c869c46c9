--
-- channel_metrics: what is counted of each channel, and how long things take,
-- of what has committed and of nothing else; and all of it as Prometheus' text
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('counted', max_attempts => 2, backoff => '10 milliseconds', lease => '1 second');
SELECT message_bus.create_channel('dead ones');
SELECT message_bus.alter_channel('counted', dead_letter => 'dead ones');
SELECT message_bus.publish('dead ones', 'null') > 0 AS ready;
CREATE TEMP VIEW counted AS
	SELECT published, published_bytes, delivered, delivered_bytes, acked, nacked, lapsed, dead
	FROM message_bus.channel_metrics WHERE channel = 'counted';
SELECT * FROM pg_temp.counted;
CREATE TEMP TABLE before AS SELECT metric, le, count, sum FROM message_bus.latency;

-- what is rolled back is not counted: a transaction, a savepoint; what commits is, also through savepoints
BEGIN;
SELECT message_bus.publish('counted', '1') > 0 AS gone;
ROLLBACK;
BEGIN;
SELECT message_bus.publish('counted', '"in"') > 0 AS stays;
SAVEPOINT a;
SELECT message_bus.publish('counted', '"out"') > 0 AS gone;
ROLLBACK TO a;
SAVEPOINT b;
SELECT message_bus.publish('counted', '"b"') > 0 AS stays;
SAVEPOINT c;
SELECT message_bus.publish('counted', '"c"') > 0 AS stays;
RELEASE b;
SELECT * FROM pg_temp.counted;
COMMIT;
SELECT * FROM pg_temp.counted;
SELECT array_length(message_bus.publish_batch_bytes('counted', ARRAY['12345', '1234567890']::bytea[]), 1) AS published;
-- a repeated one is not stored
SELECT message_bus.publish('counted', '"t"', transaction_id => 't') = message_bus.publish('counted', '"t"', transaction_id => 't') AS same;
SELECT * FROM pg_temp.counted;
SELECT m.metric, m.count - b.count AS calls FROM message_bus.latency m JOIN before b USING (metric, le) WHERE le = 'Infinity' ORDER BY metric;

-- a claim, an ack, a nack, a lease that ends, a death
SELECT count(*) FROM pg_temp.take('a', $$'counted', batch => 4$$);
BEGIN;
SELECT count(*) FROM pg_temp.take('rolled back', $$'counted', batch => 1$$);
ROLLBACK;
SELECT message_bus.ack(pg_temp.lease('a'), (pg_temp.ids('a'))[1:2]);
SELECT message_bus.nack(pg_temp.lease('a'), (pg_temp.ids('a'))[3:3], delay => '0');
SELECT pg_temp.wait_for($$SELECT lapsed = 1 FROM pg_temp.counted$$) AS lapsed;
SELECT * FROM pg_temp.counted;
SELECT count(*) FROM pg_temp.take('b', $$'counted', batch => 2$$);
SELECT attempt FROM taken WHERE tag = 'b';
SELECT message_bus.nack(pg_temp.lease('b'), (pg_temp.ids('b'))[1:1]);
SELECT message_bus.ack(pg_temp.lease('b'), (pg_temp.ids('b'))[2:2]);
SELECT * FROM pg_temp.counted;
SELECT published, delivered FROM message_bus.channel_metrics WHERE channel = 'dead ones';
SELECT m.metric, m.count - b.count AS n, m.sum > b.sum AS took FROM message_bus.latency m JOIN before b USING (metric, le) WHERE le = 'Infinity' ORDER BY metric;

-- buckets: of known bounds, of which each has those of the one below; what took 0.3 s is not in that of 0.25
SELECT array_agg(le ORDER BY le) AS bounds, bool_and(ascending) AS ascending FROM (
	SELECT le, count >= COALESCE(lag(count) OVER (PARTITION BY metric ORDER BY le), 0) AS ascending, metric FROM message_bus.latency) AS t
	WHERE metric = 'publish_seconds';
SELECT count(*) FROM pg_temp.take('c', $$'counted', batch => 1$$);
CREATE TEMP TABLE waited AS SELECT metric, le, count FROM message_bus.latency;
SELECT pg_sleep(0.3);
SELECT message_bus.ack(pg_temp.lease('c'));
SELECT m.le, m.count - w.count AS more FROM message_bus.latency m JOIN waited w USING (metric, le)
	WHERE metric = 'claim_to_ack_seconds' AND le IN (0.25, 'Infinity') ORDER BY le;

-- who sees what
CREATE ROLE regress_mbus_uncounted;
SET ROLE regress_mbus_uncounted;
SELECT count(*) FROM message_bus.channel_metrics WHERE channel = 'counted';
SELECT count(*) FROM message_bus.channel_counters(0);
SELECT count(*) FROM message_bus.channel_metrics;
SELECT pg_temp.fails('SELECT * FROM message_bus.latency');
SELECT pg_temp.fails('SELECT message_bus.metrics_text()');
RESET ROLE;
DROP ROLE regress_mbus_uncounted;

-- as Prometheus' text: each line is one, each family is told once, before its samples, names are quoted
SELECT message_bus.create_channel(E'quoted " and \\');
SELECT message_bus.publish(E'quoted " and \\', '1') > 0 AS published;
CREATE TEMP TABLE line AS SELECT n, line, CASE WHEN line LIKE '# %' THEN split_part(line, ' ', 3)
		ELSE regexp_replace(substring(line FROM '^[a-z_]+'), '^(message_bus_(?:publish|publish_to_claim|claim_to_ack)_seconds)_(?:bucket|sum|count)$', '\1') END AS family
	FROM string_to_table(message_bus.metrics_text(), E'\n') WITH ORDINALITY AS t (line, n) WHERE line <> '';
SELECT line FROM line WHERE line !~ '^# HELP [a-z_]+ [^\\]+$' AND line !~ '^# TYPE [a-z_]+ (counter|histogram)$'
	AND line !~ '^[a-z_]+(\{(le|channel)="([^"\\\n]|\\["\\n])*"\})? [0-9.e+-]+$';
SELECT family FROM line GROUP BY family HAVING count(*) FILTER (WHERE line LIKE '# TYPE %') <> 1
	OR count(*) FILTER (WHERE line LIKE '# HELP %') <> 1 OR count(*) - 1 <> max(n) - min(n) OR NOT bool_or(line NOT LIKE '#%');
SELECT count(*) AS buckets FROM line WHERE family = 'message_bus_publish_seconds' AND line ~ '_bucket';
SELECT (SELECT split_part(line, ' ', 2) FROM line WHERE line LIKE 'message\_bus\_publish\_seconds\_bucket{le="+Inf"}%')
	= (SELECT split_part(line, ' ', 2) FROM line WHERE line LIKE 'message\_bus\_publish\_seconds\_count%') AS all_in_the_last;
SELECT line FROM line WHERE line LIKE '%quoted%' ORDER BY n;

-- what is redriven has waited before: it is claimed again, and how long that took is not counted
SELECT message_bus.create_channel('redriven', max_attempts => 1);
SELECT message_bus.publish('redriven', '1') > 0 AS published;
SELECT count(*) FROM pg_temp.take('d', $$'redriven'$$);
SELECT message_bus.nack(pg_temp.lease('d'));
CREATE TEMP TABLE first AS SELECT metric, le, count FROM message_bus.latency;
SELECT message_bus.redrive('redriven');
SELECT count(*) FROM pg_temp.take('e', $$'redriven'$$);
SELECT message_bus.ack(pg_temp.lease('e'));
SELECT m.metric, m.count - f.count AS n FROM message_bus.latency m JOIN first f USING (metric, le) WHERE le = 'Infinity' ORDER BY metric;

-- what was counted of a channel that is dropped is counted on, with the others
CREATE TEMP TABLE others AS SELECT published, acked FROM message_bus.channel_metrics WHERE channel IS NULL;
SELECT message_bus.drop_channel('counted');
SELECT m.published - o.published AS published, m.acked - o.acked AS acked FROM message_bus.channel_metrics m, others o WHERE channel IS NULL;
SELECT message_bus.drop_channel(c) FROM unnest(ARRAY['dead ones', 'redriven', E'quoted " and \\']) AS c;

-- a channel that is used and dropped in one transaction keeps no place
UPDATE others SET published = m.published, acked = m.acked FROM message_bus.channel_metrics m WHERE channel IS NULL;
SELECT message_bus.create_channel('brief');
BEGIN;
SELECT message_bus.publish('brief', '1') > 0 AS published;
SELECT message_bus.drop_channel('brief');
COMMIT;
SELECT m.published - o.published AS published FROM message_bus.channel_metrics m, others o WHERE channel IS NULL;
