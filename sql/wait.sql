--
-- wait: CALL message_bus.wait(), and claims that wait
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('wait1', ttl => '1 hour'), message_bus.create_channel('wait2', ttl => '1 hour');
SELECT message_bus.create_subscription('wait1', 'sub'), message_bus.create_subscription('wait2', 'sub');
-- nothing, at once and after a while
SELECT clock_timestamp() AS began \gset
CALL message_bus.wait(ARRAY['wait1', 'wait2'], ARRAY['sub', 'sub'], '0');
SELECT clock_timestamp() - :'began' < '5 seconds' AS at_once;
SELECT clock_timestamp() AS began \gset
CALL message_bus.wait(ARRAY['wait1', 'wait2'], ARRAY['sub', 'sub'], '200 milliseconds');
SELECT clock_timestamp() - :'began' >= '200 milliseconds' AS waited;
SELECT clock_timestamp() AS began \gset
SELECT count(*) FROM message_bus.claim('wait1', 'sub', wait => '200 milliseconds');
SELECT clock_timestamp() - :'began' >= '200 milliseconds' AS waited;
-- something, in the order asked; it claims nothing
SELECT message_bus.publish('wait2', '2') IS NOT NULL AS published;
CALL message_bus.wait(ARRAY['wait1', 'wait2'], ARRAY['sub', 'sub'], '10 seconds');
CALL message_bus.wait(ARRAY['wait1', 'wait2'], ARRAY['sub', 'sub'], '10 seconds');
SELECT message_bus.publish('wait1', '1') IS NOT NULL AS published;
CALL message_bus.wait(ARRAY['wait2', 'wait1'], ARRAY['sub', 'sub'], '10 seconds');
CALL message_bus.wait(ARRAY['wait1', 'wait1'], ARRAY['sub', 'sub'], '10 seconds');
SELECT payload, attempt FROM message_bus.claim('wait1', 'sub', wait => '10 seconds');
SELECT payload, attempt FROM message_bus.claim('wait2', 'sub', wait => '10 seconds');
CALL message_bus.wait(ARRAY['wait1', 'wait2'], ARRAY['sub', 'sub'], '0');
SELECT lag_messages, in_flight, ready FROM message_bus.subscriptions WHERE channel = 'wait1';
-- a "default" that nobody has claimed from is ready
CALL message_bus.wait(ARRAY['wait1'], timeout => '10 seconds');
CALL message_bus.wait(ARRAY['wait1', 'wait2'], ARRAY[NULL, 'sub'], '10 seconds');
SELECT payload, message_bus.ack(lease) FROM message_bus.claim('wait1');
CALL message_bus.wait(ARRAY['wait1'], timeout => '0');
-- what becomes due
SELECT message_bus.publish('wait1', '"delayed"', delay => '200 milliseconds') AS delayed \gset
CALL message_bus.wait(ARRAY['wait1'], timeout => '10 seconds');
SELECT clock_timestamp() >= available_at AS not_early FROM message_bus.messages WHERE id = :delayed;
SELECT message_bus.nack(lease, delay => '200 milliseconds') FROM message_bus.claim('wait1');
CALL message_bus.wait(ARRAY['wait1'], timeout => '10 seconds');
SELECT clock_timestamp() >= retry_at AS not_early FROM message_bus.failure WHERE message_id = :delayed;
SELECT count(*) FROM message_bus.claim('wait1', lease_for => '200 milliseconds');
CALL message_bus.wait(ARRAY['wait1'], timeout => '10 seconds');
SELECT attempt, message_bus.ack(lease) FROM message_bus.claim('wait1');
-- paused ones are not ready
SELECT message_bus.publish('wait1', '"paused"') IS NOT NULL AS published;
SELECT message_bus.pause('wait1', 'default');
CALL message_bus.wait(ARRAY['wait1'], timeout => '100 milliseconds');
SELECT message_bus.resume('wait1', 'default');
CALL message_bus.wait(ARRAY['wait1'], timeout => '10 seconds');
SELECT message_bus.ack(lease) FROM message_bus.claim('wait1');
-- within a transaction it looks, and does not wait
BEGIN;
CALL message_bus.wait(ARRAY['wait1'], timeout => '0');
SELECT pg_temp.fails($$CALL message_bus.wait(ARRAY['wait1'], timeout => '1 second')$$);
COMMIT;
SELECT message_bus.publish('wait1', '"there"') IS NOT NULL AS published;
BEGIN;
CALL message_bus.wait(ARRAY['wait1'], timeout => '1 second');
COMMIT;
SELECT message_bus.ack(lease) FROM message_bus.claim('wait1');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.fails($$CALL message_bus.wait(ARRAY['wait1'], timeout => '0')$$);
ROLLBACK;
BEGIN READ ONLY;
SELECT pg_temp.fails($$CALL message_bus.wait(ARRAY['wait1'], timeout => '0')$$);
ROLLBACK;
-- from a DO block that is no transaction of its own it may wait
DO $$
DECLARE
	ready text[];
BEGIN
	CALL message_bus.wait(ARRAY['wait1'], timeout => '50 milliseconds', ready => ready);
	RAISE NOTICE 'ready: %', ready;
END
$$;
-- nor does it look again and again when all of a key is done
SELECT message_bus.create_channel('keys', ttl => '1 hour');
SELECT message_bus.create_subscription('keys', 'ordered', ordered => true);
SELECT message_bus.publish('keys', to_json(n), key => 'k') IS NOT NULL AS published FROM generate_series(1, 2) AS n;
SELECT payload, message_bus.ack(lease) FROM message_bus.claim('keys', 'ordered', batch => 10);
SELECT payload, message_bus.ack(lease) FROM message_bus.claim('keys', 'ordered', batch => 10);
-- (hundredths of a second of processor time that this session has used)
CREATE FUNCTION pg_temp.used() RETURNS integer LANGUAGE sql AS $$
	SELECT f[12]::integer + f[13]::integer FROM string_to_array(regexp_replace(pg_read_file('/proc/self/stat'), '^.*\) ', ''), ' ') AS f
$$;
SELECT pg_temp.used() AS used \gset
CALL message_bus.wait(ARRAY['keys'], ARRAY['ordered'], '2 seconds');
SELECT pg_temp.used() - :used < 30 AS slept;
SELECT message_bus.drop_channel('keys');
-- bad arguments
SELECT call, pg_temp.fails('CALL message_bus.' || call) FROM unnest(ARRAY[
	$$wait(NULL)$$, $$wait('{}')$$, $$wait(ARRAY[NULL])$$, $$wait(ARRAY[['wait1'], ['wait2']])$$, $$wait(ARRAY['nowhere'])$$,
	$$wait(ARRAY['wait1'], ARRAY['nobody'])$$, $$wait(ARRAY['wait1'], ARRAY['a', 'b'])$$, $$wait(ARRAY['wait1', 'wait2'], ARRAY['a'])$$,
	$$wait(ARRAY['wait1'], timeout => NULL)$$, $$wait(ARRAY['wait1'], timeout => '-1 second')$$]) AS t (call);
\set VERBOSITY sqlstate
CALL message_bus.wait(array_fill('wait1'::text, ARRAY[257]), timeout => '1 second');
\set VERBOSITY default
-- it can be canceled, and leaves nothing behind
SET statement_timeout = '200ms';
\set VERBOSITY sqlstate
CALL message_bus.wait(ARRAY['wait1'], timeout => '30 seconds');
SELECT count(*) FROM message_bus.claim('wait1', wait => '30 seconds');
\set VERBOSITY default
RESET statement_timeout;
CALL message_bus.wait(ARRAY['wait1'], timeout => '50 milliseconds');
SELECT message_bus.drop_channel('wait1'), message_bus.drop_channel('wait2');
