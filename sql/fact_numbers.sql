--
-- fact_numbers: acks, failures and events have a number
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

-- leases of tests before, which may expire, take no numbers between
SET client_min_messages = error;
DO $$ BEGIN PERFORM message_bus.drop_subscription(channel, subscription) FROM message_bus.subscriptions WHERE in_flight > 0; END $$;
RESET client_min_messages;
SELECT message_bus.create_channel('numbers', ttl => '1 hour', backoff => '0', backoff_max => '0');
SELECT count(message_bus.publish('numbers', to_json(n))) FROM generate_series(1, 200) AS n;
SELECT next AS base FROM message_bus.fact_numbers() \gset
CREATE TEMP VIEW fact AS
	SELECT no, 'ack' AS kind FROM message_bus.ack UNION ALL
	SELECT no, kind FROM message_bus.failure UNION ALL
	SELECT no, kind FROM message_bus.event;

-- one for each row, ascending, of the leases' epoch
SELECT * FROM pg_temp.take('a', $$'numbers'$$);
SELECT message_bus.nack(pg_temp.lease('a'));
SELECT * FROM pg_temp.take('b', $$'numbers'$$);
SELECT message_bus.ack(pg_temp.lease('b'));
SELECT message_bus.record_event((pg_temp.ids('b'))[1], 'accessed', clock_timestamp());
SELECT message_bus.record_event((pg_temp.ids('b'))[1], 'deleted', clock_timestamp());
SELECT no - :base AS n, kind FROM pg_temp.fact WHERE no >= :base ORDER BY no;
SELECT next >> 32 = (SELECT epoch FROM message_bus.server_state) AS epoch, next - :base AS next, unfinished FROM message_bus.fact_numbers();

-- a transaction takes 1, 2, 4 ... at a time; what it does not use is never found
BEGIN;
SELECT count(message_bus.nack(lease, ARRAY[id])) FROM message_bus.claim('numbers', batch => 20);
SELECT next - :base AS next, ARRAY(SELECT u - :base FROM unnest(unfinished) u) AS unfinished FROM message_bus.fact_numbers();
COMMIT;
SELECT next - :base AS next, unfinished FROM message_bus.fact_numbers();
SELECT count(*), count(DISTINCT no), max(no) - :base AS max FROM pg_temp.fact WHERE no >= :base;

-- a function that returns no facts takes no number
BEGIN;
SELECT count(*) FROM message_bus.claim('numbers', batch => 5);
SELECT unfinished FROM message_bus.fact_numbers();
ROLLBACK;

-- a transaction that has taken one cannot be prepared
SELECT max(id) AS last FROM message_bus.messages WHERE channel = 'numbers' \gset
BEGIN;
SELECT message_bus.record_event(:last, 'accessed', clock_timestamp());
PREPARE TRANSACTION 'x';
SELECT unfinished FROM message_bus.fact_numbers();
BEGIN;
SAVEPOINT s;
SELECT message_bus.record_event(:last, 'accessed', clock_timestamp());
ROLLBACK TO s;
PREPARE TRANSACTION 'x';
SELECT unfinished FROM message_bus.fact_numbers();

-- 32 chunks a transaction; then nothing more is written, and all is undone
SET message_bus.facts_per_chunk = 1;
SELECT count(message_bus.nack(lease, ARRAY[id])) FROM message_bus.claim('numbers', batch => 32);
SELECT pg_temp.fails($$SELECT count(message_bus.nack(lease, ARRAY[id])) FROM message_bus.claim('numbers', batch => 33)$$);
RESET message_bus.facts_per_chunk;
SELECT unfinished FROM message_bus.fact_numbers();
SELECT count(message_bus.nack(lease, ARRAY[id])) FROM message_bus.claim('numbers', batch => 33);

-- each table has an index on it
SELECT regexp_replace(indexrelid::regclass::text, '_\d+', '_<n>') AS index, count(*) > 0 AS there
	FROM pg_index WHERE indexrelid::regclass::text ~ '_no_idx$' GROUP BY 1 ORDER BY 1;

-- nobody but an administrator asks
CREATE ROLE regress_mbus_asker;
SET ROLE regress_mbus_asker;
SELECT pg_temp.fails('SELECT message_bus.fact_numbers()');
RESET ROLE;
DROP ROLE regress_mbus_asker;
SELECT message_bus.drop_channel('numbers');
