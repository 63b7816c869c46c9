--
-- record_reads: who has read what, whatever his transaction was
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset format unaligned
\pset null '-'

SELECT message_bus.create_channel('seen', record_reads => true);
SELECT message_bus.create_channel('unseen');
SELECT channel, record_reads FROM message_bus.channels WHERE channel LIKE '%seen' ORDER BY 1;
CREATE ROLE regress_reader;
SELECT message_bus.grant_channel('seen', 'regress_reader', 'consume');
SELECT message_bus.grant_channel('unseen', 'regress_reader', 'consume');
SELECT message_bus.publish('seen', to_json('text'::text), transaction_id => 'r1') AS r1 \gset
SELECT message_bus.publish_bytes('seen', repeat('bytes', 300000)::bytea, transaction_id => 'r2') AS r2 \gset
SELECT message_bus.publish('unseen', '1', transaction_id => 'u1') AS u1 \gset

-- the events since the last look
CREATE TEMPORARY TABLE looked (no bigint);
INSERT INTO looked SELECT COALESCE(max(no), 0) FROM message_bus.event;
CREATE FUNCTION pg_temp.events(wanted integer) RETURNS TABLE (transaction_id text, kind text, role text, subject text, session bigint, n bigint) LANGUAGE plpgsql AS $$
DECLARE
	last bigint := (SELECT max(l.no) FROM looked l);
BEGIN
	PERFORM pg_temp.wait_for(format('SELECT count(*) >= %s FROM message_bus.event e WHERE e.no > %s', wanted, last));
	RETURN QUERY SELECT m.transaction_id, e.kind, replace(e.role, session_user, 'session_user'), e.subject, e.session, count(*)
		FROM message_bus.event e JOIN message_bus.message m ON m.id = e.message_id WHERE e.no > last
		GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5;
	INSERT INTO looked SELECT COALESCE(max(e.no), 0) FROM message_bus.event e;
END
$$;

-- in a transaction that can write it is there with the commit
SELECT count(*) FROM message_bus.get(:r1);
SELECT count(*) FROM message_bus.get_by_transaction('seen', 'r1');
SELECT length(message_bus.get_bytes(:r1));
SELECT * FROM pg_temp.events(3);
SELECT count(*) FROM message_bus.peek('seen');
SELECT * FROM pg_temp.events(2);
-- one that goes by reference is read, too, and each range of it
SELECT by_reference FROM message_bus.get_by_transaction('seen', 'r2');
SELECT length(message_bus.get_bytes(:r2, 0, 5)), length(message_bus.get_bytes(:r2, 5, 5)), length(message_bus.get_bytes(:r2, 9999999));
SELECT * FROM pg_temp.events(4);
SET message_bus.default_channel = 'unseen';
SELECT message_bus.retrieve_message('u1');
SELECT * FROM pg_temp.events(1);

-- in one that cannot, the worker brings it, with whom it was
SET request.jwt.claims = '{"sub": "alice"}';
SET ROLE regress_reader;
BEGIN READ ONLY;
SELECT count(*) FROM message_bus.get(:r1);
SELECT count(*) FROM message_bus.get_by_transaction('seen', 'r1');
SELECT length(message_bus.get_bytes(:r1));
SELECT length(message_bus.get_bytes(:r2, 7, 1));
SELECT count(*) FROM message_bus.peek('seen');
SELECT message_bus.retrieve_message('u1');
COMMIT;
RESET ROLE;
SELECT * FROM pg_temp.events(7);
-- so with the setting, and in REPEATABLE READ and SERIALIZABLE
SET ROLE regress_reader;
SET request.jwt.claims = '{"sub": "bob"}';
SET default_transaction_read_only = on;
SELECT message_bus.retrieve_message('u1');
SELECT count(*) FROM message_bus.get(:r1);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM message_bus.get(:r1);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE;
SELECT message_bus.retrieve_message('u1');
COMMIT;
SET default_transaction_read_only = off;
RESET ROLE;
SELECT * FROM pg_temp.events(4);

-- who rolls back has read all the same: as a whole, to a savepoint, by an error
SET request.jwt.claims = '{"sub": "carol"}';
BEGIN;
SELECT count(*) FROM message_bus.get(:r1);
ROLLBACK;
SELECT * FROM pg_temp.events(1);
BEGIN;
SELECT count(*) FROM message_bus.get(:r1);
SAVEPOINT a;
SELECT message_bus.retrieve_message('u1');
SAVEPOINT b;
SELECT count(*) FROM message_bus.get(:r2);
RELEASE b;
ROLLBACK TO a;
SELECT count(*) FROM message_bus.get_by_transaction('seen', 'r2');
RELEASE a;
COMMIT;
SELECT * FROM pg_temp.events(4);
DO $$
BEGIN
	PERFORM message_bus.get_bytes((SELECT id FROM message_bus.messages WHERE transaction_id = 'r1' AND channel = 'seen'));
	RAISE EXCEPTION 'no';
EXCEPTION WHEN OTHERS THEN
	NULL;
END
$$;
BEGIN READ ONLY;
SELECT message_bus.retrieve_message('u1');
ROLLBACK;
SELECT * FROM pg_temp.events(2);
-- more of them than room is kept for
BEGIN;
SELECT count(*) FROM generate_series(1, 3000) i, message_bus.get(:r1 + 0 * i);
ROLLBACK;
SELECT * FROM pg_temp.events(3000);
BEGIN;
SELECT count(*) FROM generate_series(1, 300) i, message_bus.get(:r1 + 0 * i);
COMMIT;
SELECT * FROM pg_temp.events(300);
RESET request.jwt.claims;

-- many at once
SELECT cardinality(message_bus.publish_batch_bytes('seen', array_fill('x'::bytea, ARRAY[10000])));
BEGIN READ ONLY;
SELECT count(*) FROM message_bus.peek('seen', max_messages => 10000);
COMMIT;
SELECT pg_temp.wait_for('SELECT count(*) = 10000 FROM message_bus.event e WHERE e.no > (SELECT max(no) FROM looked)') AS all_recorded;
INSERT INTO looked SELECT max(no) FROM message_bus.event;
SELECT count(*) FROM message_bus.peek('seen', after_id => :r2, max_messages => 1000);
SELECT pg_temp.wait_for('SELECT count(*) = 1000 FROM message_bus.event e WHERE e.no > (SELECT max(no) FROM looked)') AS all_recorded;
INSERT INTO looked SELECT max(no) FROM message_bus.event;

-- what is not returned is not read
SET ROLE regress_reader;
SELECT count(*) FROM message_bus.get(1);
SELECT count(*) FROM message_bus.get_by_transaction('seen', 'none');
SELECT message_bus.retrieve_message('none');
SELECT count(*) FROM message_bus.peek('seen', after_id => 9007199254740991);
SELECT pg_temp.fails(format('SELECT message_bus.get_bytes(%s, -1)', :r1));
-- nor recorded where nobody has asked for it
SELECT count(*) FROM message_bus.get(:u1);
SELECT count(*) FROM message_bus.peek('unseen');
RESET ROLE;
SELECT pg_sleep(1.2);
SELECT * FROM pg_temp.events(0);

-- a frame that fails has brought nothing
CREATE FUNCTION pg_temp.frame(request text) RETURNS bytea LANGUAGE sql AS $$ SELECT '\x01'::bytea || convert_to(request, 'UTF8') $$;
SET message_bus.relay_role = 'regress_reader';
SELECT r.code FROM message_bus.relay('{7,7,7}', ARRAY[
	pg_temp.frame(format('{"jsonrpc":"2.0","id":1,"method":"get","params":{"id":%s}}', :r1)),
	'\x1100000800' || convert_to(format('{"jsonrpc":"2.0","id":1,"method":"get","params":{"id":%s}}', :r2), 'UTF8'),
	pg_temp.frame('{"jsonrpc":"2.0","id":1,"method":"retrieve_message","params":{"transaction_id":"u1"}}')]) r;
RESET message_bus.relay_role;
SELECT * FROM pg_temp.events(2);

-- it can be switched
SELECT message_bus.alter_channel('seen', record_reads => false);
SELECT message_bus.alter_channel('seen', lease => '1 minute');
SELECT count(*) FROM message_bus.get(:r1);
SELECT message_bus.alter_channel('unseen', record_reads => true);
SELECT count(*) FROM message_bus.get(:u1);
SELECT * FROM pg_temp.events(1);
SELECT channel, record_reads FROM message_bus.channels WHERE channel LIKE '%seen' ORDER BY 1;
-- the view sums it up
SELECT transaction_id, accessed_at IS NOT NULL AS accessed FROM message_bus.message_bus WHERE transaction_id IN ('r1', 'u1') ORDER BY 1;

RESET message_bus.default_channel;
SELECT message_bus.drop_channel('seen');
SELECT message_bus.drop_channel('unseen');
DROP ROLE regress_reader;
