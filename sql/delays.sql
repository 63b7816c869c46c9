--
-- delays: a delayed message comes when it is due, never before
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('delays', ttl => '1 hour');
SELECT message_bus.create_subscription('delays', 'before');
SELECT message_bus.publish('delays', '"at 2 s"', delay => '2 seconds') IS NOT NULL AS published;
SELECT message_bus.publish('delays', '"at 1 s"', delay => '1 second') IS NOT NULL AS published;
SELECT message_bus.publish('delays', '"now"') IS NOT NULL AS published;
SELECT message_bus.publish('delays', '"in half an hour"', delay => '30 minutes') IS NOT NULL AS published;
SELECT message_bus.publish('delays', '"no delay"', delay => '0') IS NOT NULL AS published;
SELECT payload, available_at > created_at AS delayed FROM message_bus.peek('delays');
SELECT * FROM pg_temp.take('a', $$'delays', 'before', batch => 10$$);
-- in the order in which they are due
SELECT * FROM pg_temp.take('b', $$'delays', 'before', batch => 10, wait => '10 seconds'$$);
SELECT * FROM pg_temp.take('c', $$'delays', 'before', batch => 10, wait => '10 seconds'$$);
SELECT t.message, t.at >= m.available_at AS not_early, t.at < m.available_at + interval '5 seconds' AS not_late
	FROM taken t JOIN message_bus.messages m USING (id) ORDER BY place;
SELECT * FROM pg_temp.take('d', $$'delays', 'before', batch => 10$$);
SELECT lag_messages, in_flight, ready, retrying FROM message_bus.subscriptions WHERE channel = 'delays';
-- for one that comes later they are due already
SELECT message_bus.create_subscription('delays', 'after');
SELECT * FROM pg_temp.take('e', $$'delays', 'after', batch => 10$$);
SELECT * FROM pg_temp.take('f', $$'delays', 'after', batch => 10$$);
-- many, with the same time and with others, in small batches: each once
SELECT message_bus.create_channel('many', ttl => '1 hour');
SELECT message_bus.create_subscription('many', 'sub');
SELECT array_length(message_bus.publish_batch('many', json_agg(json_build_object('payload', n, 'delay', 0.3 + (n % 5) * 0.1))), 1) FROM generate_series(1, 500) AS n;
CREATE TEMP TABLE got (id bigint, lease bigint, attempt integer, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION pg_temp.got() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO got (id, lease, attempt) SELECT c.id, c.lease, c.attempt FROM message_bus.claim('many', 'sub', batch => 37) AS c;
	RETURN (SELECT count(*) >= 500 FROM got);
END
$$;
SELECT pg_temp.wait_for('SELECT pg_temp.got()');
SELECT count(*), count(DISTINCT g.id) AS different, max(attempt) AS attempt, bool_and(g.at >= m.available_at) AS not_early FROM got g JOIN message_bus.messages m USING (id);
SELECT count(*) FROM message_bus.claim('many', 'sub', batch => 1000);
-- delays that are far away use no memory
SELECT array_length(message_bus.publish_batch('many', json_agg(json_build_object('payload', n, 'delay', 3000))), 1) FROM generate_series(1, 5000) AS n;
SELECT count(*) FROM message_bus.claim('many', 'sub', batch => 1000);
SELECT l.lag_messages, abs(s.lag_messages - l.lag_messages) < 550 AS near, s.lag_estimated, in_flight, ready, s.retrying FROM message_bus.subscriptions s, message_bus.subscription_lag(s.channel, s.subscription) l WHERE s.channel = 'many';
-- available_at says when, instead of how long: not both; what has passed is now
SELECT message_bus.create_channel('times', ttl => '1 hour');
SELECT message_bus.publish('times', '"soon"', available_at => clock_timestamp() + interval '1 second') > 0 AS published;
SELECT message_bus.publish_text('times', '"in half an hour"', available_at => date_trunc('second', clock_timestamp()) + interval '30 minutes') > 0 AS published;
SELECT message_bus.publish_bytes('times', '"long ago"', 'application/json', available_at => '2001-01-01') > 0 AS published;
SELECT message_bus.publish('times', '"in 2000"', available_at => '2000-01-01 00:00:00+00') > 0 AS published;
SELECT message_bus.publish('times', '"null"', available_at => NULL, delay => NULL) > 0 AS published;
SELECT cardinality(message_bus.publish_batch('times', json_build_array(json_build_object('payload', 'of a batch', 'available_at', clock_timestamp() + interval '20 minutes'),
	json_build_object('payload', 'null', 'available_at', null, 'delay', null), json_build_object('payload', 'before', 'available_at', '1999-12-31T23:59:59+05:00')))) AS published;
SELECT payload, available_at > created_at AS delayed, extract(microseconds FROM available_at)::int % 1000000 = 0 AS on_the_second, available_at < expires_at AS lives FROM message_bus.peek('times');
SELECT * FROM pg_temp.take('times', $$'times', batch => 10$$);
SELECT * FROM pg_temp.take('times2', $$'times', batch => 10, wait => '10 seconds'$$);
SELECT bool_and(pg_temp.seen('times2') >= available_at) AS not_before FROM message_bus.messages WHERE channel = 'times' AND id = pg_temp.id('times2', '"soon"');
SELECT c, regexp_replace(pg_temp.fails('SELECT message_bus.publish' || c), 'available_at \d.* is', 'available_at TIME is') FROM unnest(ARRAY[
	$$('times', '1', delay => '1 second', available_at => now())$$, $$('times', '1', delay => '0', available_at => now())$$, $$_text('times', '1', delay => '1 second', available_at => '2001-01-01')$$,
	$$_bytes('times', '1', delay => '1 second', available_at => now())$$, $$_batch('times', '[{"payload": 1, "delay": 1, "available_at": "2001-01-01"}]')$$,
	$$('times', '1', available_at => 'infinity')$$, $$('times', '1', available_at => '-infinity')$$, $$('times', '1', available_at => now() + interval '1 hour 1 minute')$$,
	$$('times', '1', available_at => now() + interval '10 minutes', ttl => '9 minutes')$$, $$('times', '1', available_at => '290000-01-01')$$,
	$$_batch('times', '[{"payload": 1, "available_at": 5}]')$$, $$_batch('times', '[{"payload": 1, "available_at": "soon"}]')$$, $$_batch('times', '[{"payload": 1, "available_at": {}}]')$$]) AS c;
-- a repeated transaction id is the first message, whenever it is due
SELECT message_bus.publish('times', '1', transaction_id => 't', available_at => now() + interval '5 minutes') = message_bus.publish('times', '1', transaction_id => 't') AS same;
SELECT message_bus.drop_channel('times');

-- a delayed message that is given back, and one that is acked
SELECT message_bus.publish('delays', '"again"', delay => '100 milliseconds') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('g', $$'delays', 'before', wait => '10 seconds'$$);
SELECT message_bus.nack(pg_temp.lease('g'), delay => '100 milliseconds');
SELECT * FROM pg_temp.take('h', $$'delays', 'before', wait => '10 seconds'$$);
SELECT pg_temp.seen('h') >= f.retry_at AS not_early FROM message_bus.failure f WHERE f.lease = pg_temp.lease('g');
SELECT message_bus.ack(pg_temp.lease('h'));
SELECT * FROM pg_temp.take('i', $$'delays', 'before', batch => 10$$);
-- a seek finds those that are due, and the others when they are
SELECT message_bus.publish('delays', '"due after the seek"', delay => '1 second') IS NOT NULL AS published;
SELECT message_bus.seek('delays', 'before', 'earliest');
SELECT * FROM pg_temp.take('j', $$'delays', 'before', batch => 10$$);
SELECT * FROM pg_temp.take('k', $$'delays', 'before', batch => 10, wait => '10 seconds'$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('delays', '1', delay => '1 hour')$$);
-- claims of one message, of which every fourth looks for fresh ones first: whichever comes when it is due finds it
SELECT message_bus.create_channel('turns', ttl => '1 hour');
SELECT message_bus.publish('turns', '"first"') IS NOT NULL AS published;
CREATE FUNCTION pg_temp.turns(subscription text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT string_agg(c.payload::text || message_bus.ack(c.lease), ' ') FROM message_bus.claim('turns', subscription) AS c
$$;
SELECT n AS turn, message_bus.create_subscription('turns', 'turn' || n) FROM generate_series(1, 4) AS n;
SELECT n AS turn, count(pg_temp.turns('turn' || n)) FROM generate_series(1, 4) AS n, generate_series(1, n) AS claims GROUP BY n ORDER BY n;
SELECT message_bus.publish('turns', '"delayed"', delay => '300 milliseconds') AS id \gset
SELECT pg_temp.wait_for('SELECT available_at < clock_timestamp() FROM message_bus.messages WHERE id = ' || :id);
SELECT n AS turn, pg_temp.turns('turn' || n) AS gets FROM generate_series(1, 4) AS n;
SELECT subscription, lag_messages FROM message_bus.subscriptions WHERE channel = 'turns' ORDER BY 1;
-- the same, where one waits between
SELECT message_bus.publish('turns', '"waited for"', delay => '300 milliseconds') AS id \gset
SELECT n AS turn, pg_temp.turns('turn' || n) AS gets FROM generate_series(1, 4) AS n;
SELECT pg_temp.wait_for('SELECT available_at < clock_timestamp() FROM message_bus.messages WHERE id = ' || :id);
CALL message_bus.wait(array_fill('turns'::text, ARRAY[4]), ARRAY['turn1', 'turn2', 'turn3', 'turn4'], '0');
SELECT n AS turn, pg_temp.turns('turn' || n) AS gets FROM generate_series(1, 4) AS n;
-- many at two times, taken by claims of one message, of seven and of more, some of which are rolled back
SELECT message_bus.create_channel('campaign', ttl => '1 hour');
SELECT message_bus.publish('campaign', '0') IS NOT NULL AS published;
SELECT message_bus.create_subscription('campaign', s) FROM unnest(ARRAY['ones', 'sevens', 'mixed']) AS s;
CREATE TEMP TABLE campaign_taken (subscription text, id bigint);
CREATE FUNCTION pg_temp.take_in(subscription text, batch int) RETURNS bigint LANGUAGE sql VOLATILE AS $$
	WITH claimed AS (
		INSERT INTO campaign_taken SELECT subscription, c.id FROM message_bus.claim('campaign', subscription, batch => batch) AS c,
			message_bus.ack(c.lease, ARRAY[c.id]) RETURNING 1)
	SELECT count(*) FROM claimed
$$;
SELECT cardinality(message_bus.publish_batch('campaign', json_agg(json_build_object('payload', i,
	'delay', CASE WHEN i % 3 = 0 THEN '600 milliseconds' ELSE '400 milliseconds' END)))) FROM generate_series(1, 300) AS i;
SELECT pg_temp.take_in(s, 10) FROM unnest(ARRAY['ones', 'sevens', 'mixed']) AS s;
SELECT count(DISTINCT available_at) FROM message_bus.messages WHERE channel = 'campaign' AND available_at > created_at;
SELECT pg_temp.wait_for($$SELECT max(available_at) < clock_timestamp() FROM message_bus.messages WHERE channel = 'campaign'$$);
DO $$
BEGIN
	FOR i IN 1 .. 310 LOOP
		PERFORM pg_temp.take_in('ones', 1);
		COMMIT;
		PERFORM pg_temp.take_in('sevens', 7);
		COMMIT;
		PERFORM pg_temp.take_in('mixed', 1 + i % 40);
		IF i % 3 = 1 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END
$$;
SELECT subscription, count(*), count(DISTINCT id) FROM campaign_taken GROUP BY 1 ORDER BY 1;
SELECT subscription, lag_messages FROM message_bus.subscriptions WHERE channel = 'campaign' ORDER BY 1;
SELECT message_bus.drop_channel('campaign');
-- a seek before a claim that looks for fresh ones first
SELECT message_bus.create_channel('sought', ttl => '1 hour');
SELECT message_bus.create_subscription('sought', 's');
SELECT message_bus.publish('sought', to_json(i)) IS NOT NULL AS published FROM generate_series(1, 4) AS i;
SELECT count(message_bus.ack(lease)) FROM generate_series(1, 3) AS i, LATERAL message_bus.claim('sought', 's', batch => sign(i)::int);
SELECT message_bus.seek('sought', 's', 'earliest');
SELECT payload FROM generate_series(1, 4) AS i, LATERAL message_bus.claim('sought', 's', batch => sign(i)::int);
SELECT message_bus.drop_channel('sought');
SELECT message_bus.drop_channel('delays'), message_bus.drop_channel('many'), message_bus.drop_channel('turns');
