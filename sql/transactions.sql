--
-- transactions: what is rolled back, read-only, prepared; databases that are not served
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

SELECT message_bus.create_channel('tx', ttl => '1 hour');

-- parts of a transaction
BEGIN;
SELECT message_bus.publish('tx', '1') AS first \gset
SAVEPOINT a;
SELECT message_bus.publish('tx', '2') > 0 AS stored;
SAVEPOINT b;
SELECT message_bus.publish('tx', '3') > 0 AS stored;
RELEASE b;
ROLLBACK TO a;
SELECT message_bus.publish('tx', '4') > 0 AS stored;
SAVEPOINT c;
SELECT message_bus.publish_batch('tx', '[{"payload": 5}, {"payload": 6}]') IS NOT NULL AS stored;
RELEASE c;
COMMIT;
SELECT payload, id > lag(id) OVER (ORDER BY id) AS above FROM message_bus.peek('tx', :first - 1);
-- an error undoes its own part only
DO $$
BEGIN
	PERFORM message_bus.publish('tx', '7');
	BEGIN
		PERFORM message_bus.publish('tx', '8');
		PERFORM message_bus.publish('tx', '9', ttl => '-1 second');
	EXCEPTION WHEN invalid_parameter_value THEN
		PERFORM message_bus.publish('tx', '10');
	END;
END
$$;
SELECT payload FROM message_bus.peek('tx', :first) WHERE payload::text::int >= 7;
-- many subtransactions, each publishing, half of them undone
BEGIN;
DO $$
BEGIN
	FOR i IN 1001 .. 1300 LOOP
		BEGIN
			PERFORM message_bus.publish('tx', to_json(i));
			IF i % 2 = 0 THEN
				RAISE EXCEPTION 'undone';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END
$$;
SELECT count(*) AS before_the_end FROM message_bus.peek('tx', :first) WHERE payload::text::int > 1000;
COMMIT;
SELECT count(*), bool_and(payload::text::int % 2 = 1) AS odd, bool_and(above) AS ascending
	FROM (SELECT payload, payload::text::int > lag(payload::text::int, 1, 0) OVER (ORDER BY id) AS above FROM message_bus.peek('tx', :first, 10000)
		WHERE payload::text::int > 1000) AS p;
-- a cursor that is held, and one row by row
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT payload FROM message_bus.peek('tx', :first - 1, 2);
COMMIT;
FETCH ALL FROM c;
CLOSE c;
-- many channels in one transaction
SELECT count(message_bus.create_channel('tx ' || n)::text) FROM generate_series(1, 100) n;
SELECT count(message_bus.publish('tx ' || n, to_json(n))) FROM generate_series(1, 100) n;
SELECT count(p.payload) FROM generate_series(1, 100) n, message_bus.peek('tx ' || n) p;
SELECT count(message_bus.drop_channel('tx ' || n)::text) FROM generate_series(1, 100) n;

-- read-only
BEGIN READ ONLY;
SELECT call, pg_temp.fails('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$publish('tx', '1')$$, $$publish_text('tx', '1')$$, $$publish_bytes('tx', '1')$$, $$publish_batch('tx', '[{"payload": 1}]')$$,
	$$publish_batch('tx', '[]')$$, $$publish_batch_bytes('tx', ARRAY['1'::bytea])$$, $$store_message('t', 's', 'n', 'p', '1')$$,
	$$delete_message('t')$$, $$record_event(1, 'deleted', now())$$]) AS t (call);
SELECT pg_temp.fails($$INSERT INTO message_bus.message_bus (payload) VALUES ('1')$$);
SELECT count(*) > 0 AS reading_goes_on FROM message_bus.peek('tx');
COMMIT;
-- PREPARE TRANSACTION is refused after a publish, also after one that was undone, and leaves nothing
BEGIN;
SELECT message_bus.publish('tx', '"prepared"') > 0 AS stored;
\set VERBOSITY sqlstate
PREPARE TRANSACTION 'regress_mbus';
BEGIN;
SAVEPOINT s;
SELECT message_bus.publish('tx', '"prepared"') > 0 AS stored;
ROLLBACK TO s;
PREPARE TRANSACTION 'regress_mbus';
\set VERBOSITY default
SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'regress_mbus';
SELECT payload FROM message_bus.peek('tx', :first, 10000) WHERE payload::text LIKE '%prepared%';
SELECT message_bus.publish('tx', '"afterwards"') AS last \gset
SELECT payload FROM message_bus.peek('tx', :last - 1);

-- a database that is not served: the extension can be there, publishing says what to do
SELECT current_database() AS served \gset
CREATE DATABASE regress_mbus_unlisted TEMPLATE template0;
\c regress_mbus_unlisted
CREATE EXTENSION message_bus;
SELECT message_bus.create_channel('here');
DO $$
DECLARE
	hint text;
BEGIN
	PERFORM message_bus.publish('here', '1');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RAISE NOTICE '% % | %', SQLSTATE, SQLERRM, hint;
END
$$;
SELECT NOT EXISTS (SELECT FROM message_bus.get(1)) AS nothing, message_bus.retrieve_message('x') IS NULL AS nothing_either;
SELECT count(*) FROM message_bus.messages;
SELECT count(*) FROM message_bus.metrics;
SELECT count(*) FROM message_bus.worker_status;
SELECT count(*) FROM message_bus.segments;
DROP EXTENSION message_bus;
\c :served
DROP DATABASE regress_mbus_unlisted;

SELECT message_bus.drop_channel('tx');
