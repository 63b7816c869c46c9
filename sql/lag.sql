--
-- lag: how far subscriptions are behind, without counting to the end
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset null '<null>'

CREATE FUNCTION pg_temp.blocks(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	answer json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || query INTO answer;
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || query INTO answer;
	RETURN (answer->0->'Plan'->>'Shared Hit Blocks')::bigint + (answer->0->'Plan'->>'Shared Read Blocks')::bigint;
END
$$;
-- the estimate beside the exact count: "near" is within a tenth
CREATE VIEW pg_temp.behind AS
	SELECT s.channel, s.subscription, s.lag_estimated AS estimated, CASE WHEN NOT s.lag_estimated THEN s.lag_messages END AS counted,
		abs(s.lag_messages - l.lag_messages) <= l.lag_messages / 10 AS near, s.oldest_unacked_id IS NOT DISTINCT FROM l.oldest_unacked_id AS same_oldest,
		s.oldest_unacked_at IS NOT DISTINCT FROM l.oldest_unacked_at AS same_time, l.lag_messages AS exact
	FROM message_bus.subscriptions s CROSS JOIN LATERAL message_bus.subscription_lag(s.channel, s.subscription) AS l;

SELECT message_bus.create_channel('lag', compression => 'none', backoff => '0'), message_bus.create_channel('beside', compression => 'none'), message_bus.create_channel('late', compression => 'none');
SELECT message_bus.create_subscription('lag', 's' || n) FROM generate_series(1, 20) AS n;
SELECT message_bus.create_subscription('lag', 'ordered', ordered => true), message_bus.create_subscription('late', 'sub');
SELECT pg_temp.wait_for($$SELECT bool_and(lag_messages IS NOT NULL) FROM message_bus.subscriptions WHERE channel IN ('lag', 'late')$$) AS loaded;
SELECT * FROM pg_temp.behind WHERE subscription IN ('s1', 'ordered', 'sub') ORDER BY 1, 2;

-- a few hundred are counted
CREATE FUNCTION pg_temp.publish(channel text, n integer) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(i) FROM unnest(message_bus.publish_batch_bytes(channel, array_fill('\x31'::bytea, ARRAY[n]))) AS i
$$;
SELECT pg_temp.publish('lag', 400);
SELECT * FROM pg_temp.behind WHERE subscription IN ('s1', 'ordered') ORDER BY 1, 2;
-- more are estimated, beside the publishes of others, one by one and in runs
SELECT sum(pg_temp.publish('lag', 100) + pg_temp.publish('beside', 10 + n % 7)) > 0 AS published FROM generate_series(1, 300) AS n;
SELECT count(message_bus.publish('lag', '1', key => 'k' || n % 10)) FROM generate_series(1, 2000) AS n;
SELECT * FROM pg_temp.behind WHERE subscription IN ('s1', 'ordered') ORDER BY 1, 2;
SELECT count(*), bool_and(near) AS near, bool_and(estimated) AS estimated FROM pg_temp.behind WHERE channel = 'lag';
SELECT lag_messages, retrying FROM message_bus.subscription_lag('lag', 's1');
-- which costs little of what counting costs
SELECT pg_temp.blocks($$SELECT lag_messages FROM message_bus.subscriptions WHERE channel = 'lag' AND subscription = 's1'$$) AS estimate, pg_temp.blocks($$SELECT lag_messages FROM message_bus.subscription_lag('lag', 's1')$$) AS exact \gset
SELECT :estimate < :exact / 10 AS cheaper;

-- what is out, was acked, failed, deleted
SELECT count(message_bus.ack(lease, ARRAY[id])) FROM (SELECT * FROM message_bus.claim('lag', 's2', batch => 2000) OFFSET 0) AS c;
SELECT count(*) FROM message_bus.claim('lag', 's3', batch => 1500);
SELECT count(*) FROM (SELECT message_bus.nack(lease, delay => '1 hour') FROM (SELECT DISTINCT lease FROM message_bus.claim('lag', 's4', batch => 300)) AS c) AS n;
SELECT subscription, estimated, near, same_oldest, exact FROM pg_temp.behind WHERE subscription IN ('s2', 's3', 's4') ORDER BY 1;
SELECT subscription, in_flight, retrying > 0 AS retrying, retrying <= 300 AS at_least FROM message_bus.subscriptions WHERE channel = 'lag' AND subscription IN ('s3', 's4') ORDER BY 1;
SELECT lag_messages, retrying FROM message_bus.subscription_lag('lag', 's4');
SELECT min(id) AS lo FROM message_bus.messages WHERE channel = 'lag' \gset
SELECT count(message_bus.record_event(id, 'deleted', clock_timestamp())) > 10000 AS deleted FROM (SELECT id FROM message_bus.messages WHERE channel = 'lag' AND id % 3 = 0) AS m;
SELECT subscription, estimated, near, same_oldest FROM pg_temp.behind WHERE subscription IN ('s1', 's2', 'ordered') ORDER BY 1;

-- delayed ones that were passed
SELECT count(message_bus.publish('late', '1', delay => '1 hour'::interval + n * interval '1 second')) FROM generate_series(1, 3000) AS n;
SELECT message_bus.publish('late', '1') > 0 AS published;
SELECT count(message_bus.ack(lease)) FROM message_bus.claim('late', 'sub');
SELECT * FROM pg_temp.behind WHERE channel = 'late';
-- all is done: exact again
SELECT message_bus.seek('lag', 's1', 'latest');
SELECT * FROM pg_temp.behind WHERE subscription = 's1';
SELECT message_bus.purge_channel('lag') > 0 AS purged;
SELECT * FROM pg_temp.behind WHERE subscription IN ('s2', 'ordered') ORDER BY 1, 2;

-- what there is not is nothing
SELECT subscription_lag IS NULL AS nothing FROM message_bus.subscription_lag('lag', 'no such');
SELECT subscription_lag IS NULL AS nothing FROM message_bus.subscription_lag('no such', 's1');
SELECT message_bus.subscription_lag(NULL, 's1') IS NULL AS nothing;
CREATE ROLE regress_mbus_stranger;
SET ROLE regress_mbus_stranger;
SELECT subscription_lag IS NULL AS nothing FROM message_bus.subscription_lag('lag', 's1');
RESET ROLE;
DROP ROLE regress_mbus_stranger;

SELECT message_bus.drop_channel('lag'), message_bus.drop_channel('beside'), message_bus.drop_channel('late');
