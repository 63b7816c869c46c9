--
-- the views of what is there and what went wrong: channels, messages, errors, metrics, worker_status
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset null '<null>'

-- every function, view and column of the schema that people use is explained
SELECT p.proname FROM pg_proc p LEFT JOIN pg_description d ON d.objoid = p.oid AND d.classoid = 'pg_proc'::regclass
	WHERE p.pronamespace = 'message_bus'::regnamespace AND d.description IS NULL AND p.prorettype <> 'trigger'::regtype ORDER BY 1;
SELECT c.relname FROM pg_class c LEFT JOIN pg_description d ON d.objoid = c.oid AND d.objsubid = 0 AND d.classoid = 'pg_class'::regclass
	WHERE c.relnamespace = 'message_bus'::regnamespace AND c.relkind IN ('v', 'r', 'p') AND NOT c.relispartition AND c.relname !~ '^(secret|part)_\d+$' AND d.description IS NULL ORDER BY 1;
-- names are the contract: none is overloaded, no parameter is a word that PostgREST has for itself
SELECT proname, count(*) FROM pg_proc WHERE pronamespace = 'message_bus'::regnamespace GROUP BY 1 HAVING count(*) > 1;
SELECT p.proname, a FROM pg_proc p, unnest(p.proargnames) a JOIN pg_get_keywords() k ON k.word = a
	WHERE p.pronamespace = 'message_bus'::regnamespace AND k.catcode IN ('R', 'T');
SELECT p.proname, a FROM pg_proc p, unnest(p.proargnames) a WHERE p.pronamespace = 'message_bus'::regnamespace AND a IN ('limit', 'offset', 'select', 'order');
SELECT table_name, column_name, data_type
	FROM information_schema.columns WHERE table_schema = 'message_bus' AND table_name IN
		('message_bus', 'messages', 'channels', 'subscriptions', 'leases', 'dead_letters', 'segments', 'errors', 'metrics', 'worker_status')
	ORDER BY table_name COLLATE "C", ordinal_position;
\pset format unaligned
SELECT p.proname, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
	FROM pg_proc p WHERE p.pronamespace = 'message_bus'::regnamespace AND p.prorettype <> 'trigger'::regtype ORDER BY p.proname COLLATE "C";
\pset format aligned

-- messages: what is live, with all but the payload
SELECT message_bus.create_channel('v', ttl => '1 hour');
SELECT message_bus.publish_text('v', repeat('text ', 1000), 'text/plain', headers => '{"h": 1}', key => 'k', transaction_id => 'm1', delay => '1 minute') AS id \gset
SELECT channel, expires_at - created_at AS ttl, available_at - created_at AS delay, key, transaction_id, publisher = current_user AS me, subject, session,
		headers, content_type, size, compression, stored_size < size AS smaller, sha256 = sha256(repeat('text ', 1000)::bytea) AS sum
	FROM message_bus.messages WHERE id = :id;
SELECT count(*) FROM message_bus.messages WHERE channel = 'v' AND key = 'k' AND size > 100 AND headers @> '{"h": 1}';
-- nobody changes anything through the views
CREATE ROLE regress_mbus_unlucky;
SET ROLE regress_mbus_unlucky;
SELECT v, pg_temp.fails(format('DELETE FROM message_bus.%I', v)) FROM unnest(ARRAY['messages', 'channels', 'subscriptions', 'leases', 'dead_letters', 'errors', 'metrics', 'segments', 'worker_status']) AS v;

-- errors: each failed call, once, by whom, from where; the message as the caller got it
SELECT pg_backend_pid() AS pid \gset
SELECT pg_temp.fails($$SELECT message_bus.publish('v', '1')$$);
SELECT pg_temp.fails($$SELECT message_bus.peek('no such: ' || repeat(chr(233), 400))$$) IS NOT NULL AS failed;
RESET ROLE;
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('v', '[{"payload": 1, "ttl": "2 hours"}]')$$);
SELECT pg_temp.fails($$SELECT message_bus.create_channel('v')$$);
SELECT pg_temp.wait_for(format('SELECT count(*) >= 4 FROM message_bus.errors WHERE pid = %s', :pid));
SELECT sqlstate, function, replace(role, session_user, 'session_user') AS role, session, message_id, rtrim(left(message, 70), chr(233)) AS message,
		octet_length(message) < 512 AS bounded, at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS just_now
	FROM message_bus.errors WHERE pid = :pid ORDER BY at;
-- also of a transaction that was rolled back, and more than the ring holds: those are counted
SELECT value AS lost FROM message_bus.metrics WHERE metric = 'errors_unrecorded_total' \gset
SELECT value AS errors FROM message_bus.metrics WHERE metric = 'errors_total' \gset
BEGIN;
DO $$
BEGIN
	FOR i IN 1 .. 1000 LOOP
		BEGIN
			PERFORM message_bus.publish('nowhere at all', '1');
		EXCEPTION WHEN undefined_table THEN
			NULL;
		END;
	END LOOP;
	-- who fails once meanwhile is not lost behind who fails often
	SET LOCAL ROLE regress_mbus_unlucky;
	PERFORM message_bus.publish('somewhere else', '1');
EXCEPTION WHEN undefined_table THEN
	NULL;
END
$$;
ROLLBACK;
SELECT value - :errors AS counted FROM message_bus.metrics WHERE metric = 'errors_total';
SELECT pg_temp.wait_for(format($$SELECT (SELECT count(*) FROM message_bus.errors WHERE message LIKE '%%nowhere at all%%')
	+ (SELECT value FROM message_bus.metrics WHERE metric = 'errors_unrecorded_total') - %s = 1000$$, :lost)) AS recorded_or_counted;
SELECT pg_temp.wait_for($$SELECT count(*) = 1 FROM message_bus.errors WHERE message LIKE '%somewhere else%' AND role = 'regress_mbus_unlucky'$$) AS the_other_too;
SELECT count(*) BETWEEN 90 AND 900 AS some FROM message_bus.errors WHERE message LIKE '%nowhere at all%';
-- and the next one tells how many were left out
SELECT pg_sleep(1);
SELECT pg_temp.fails($$SELECT message_bus.publish('nowhere', '1')$$);
SELECT pg_temp.wait_for($$SELECT sum(substring(message FROM '^(\d+) more failures of this role in one second were left out$')::integer)
	+ (SELECT count(*) FROM message_bus.errors WHERE message LIKE '%nowhere at all%') = 1000
	FROM message_bus.errors WHERE function = 'errors' AND pid = pg_backend_pid()$$) AS told;
-- that a message is damaged is not lost behind what the same role fails for
SELECT message_bus.publish('v', '{"n": 1}', transaction_id => 'damaged') AS damaged \gset
UPDATE message_bus.message SET payload = '{"n": 2}' WHERE id = :damaged;
SELECT set_config('regress.damaged', :'damaged', false) IS NOT NULL AS known;
DO $$
BEGIN
	FOR i IN 1 .. 300 LOOP
		BEGIN
			PERFORM message_bus.publish('nowhere else', '1');
		EXCEPTION WHEN undefined_table THEN
			NULL;
		END;
	END LOOP;
	PERFORM * FROM message_bus.get(current_setting('regress.damaged')::bigint);
EXCEPTION WHEN data_corrupted THEN
	NULL;
END
$$;
SELECT pg_temp.wait_for(format('SELECT count(*) = 1 FROM message_bus.errors WHERE message_id = %s AND function = %L', :damaged, 'verify')) AS damaged_too;
DROP ROLE regress_mbus_unlucky;

-- metrics: names as Prometheus wants them, each explained, counting what happens
SELECT metric, help FROM message_bus.metrics ORDER BY metric COLLATE "C";
CREATE TABLE pg_temp.before AS SELECT * FROM message_bus.metrics;
SELECT message_bus.publish_batch('v', '[{"payload": "12345678"}, {"payload": "12345678", "transaction_id": "c"}, {"payload": "12345678", "transaction_id": "c"}]') IS NOT NULL AS published;
SELECT payload FROM message_bus.get_by_transaction('v', 'c');
SET message_bus.default_channel = 'v';
SELECT message_bus.delete_message('c');
RESET message_bus.default_channel;
SELECT metric, m.value - b.value AS grown FROM message_bus.metrics m JOIN pg_temp.before b USING (metric)
	WHERE m.value <> b.value AND metric NOT LIKE 'worker%' AND metric NOT LIKE 'segment%' ORDER BY metric COLLATE "C";

-- worker_status and segments
SELECT pid IS NOT NULL AS runs, ready, started_at <= last_pass_at AS passes, interval_ms, passes > 0 AS has_passed, errors >= 0 AS errors,
		segments_opened > 0 AS opened, unfinished_publishes
	FROM message_bus.worker_status;
SELECT pg_temp.wait_for('SELECT last_pass_at > clock_timestamp() - interval ''5 seconds'' FROM message_bus.worker_status') AS goes_on;
BEGIN;
SELECT message_bus.publish('v', '1') > 0 AS published;
SELECT unfinished_publishes FROM message_bus.worker_status;
COMMIT;
SELECT unfinished_publishes FROM message_bus.worker_status;
SELECT state, rows_reserved > 0 AS rows, rows_max, size_bytes > 0 AS size, opened_at < clock_timestamp() AS opened, closed_at, expires_at > clock_timestamp() AS expires
	FROM message_bus.segments WHERE segment_no = :id >> 24;

SELECT message_bus.drop_channel('v');
