--
-- own_transaction: what is told in a transaction, or in a part of it that is rolled back, fits what commits
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('dead', ttl => '2 hours'), message_bus.create_channel('own', ttl => '1 hour', max_attempts => 2, dead_letter => 'dead', backoff => '0', backoff_max => '0');
SELECT message_bus.create_subscription('own', 'sub');
-- what the tables, the views and the readers say of a message
CREATE FUNCTION pg_temp.told(id bigint) RETURNS TABLE (got json, bytes text, viewed bigint, acks bigint, failures bigint) LANGUAGE sql AS $$
	SELECT (SELECT payload FROM message_bus.get(id)), convert_from(message_bus.get_bytes(id), 'UTF8'),
		(SELECT count(*) FROM message_bus.messages m WHERE m.id = $1),
		(SELECT count(*) FROM message_bus.ack a WHERE a.lo = $1), (SELECT count(*) FROM message_bus.failure f WHERE f.message_id = $1)
$$;

/*
 * Published and read in one transaction
 */
BEGIN;
SELECT message_bus.publish('own', '{"n": 1}', transaction_id => 't1', headers => '{"h": 1}') AS id \gset
SELECT * FROM pg_temp.told(:id);
SELECT id = :id AS same, transaction_id, headers, publisher = current_user AS mine, size, sha256 = sha256('{"n": 1}') AS sound, expires_at - created_at AS ttl
	FROM message_bus.get_by_transaction('own', 't1');
-- a peek stops before what has not committed, and a claim does not see it
SELECT count(*) FROM message_bus.peek('own');
SELECT count(*) FROM message_bus.claim('own', 'sub');
COMMIT;
SELECT * FROM pg_temp.told(:id);
SELECT count(*) FROM message_bus.peek('own');
BEGIN;
SELECT message_bus.publish('own', '{"n": 2}', transaction_id => 't2') AS gone \gset
SELECT got FROM pg_temp.told(:gone);
ROLLBACK;
SELECT * FROM pg_temp.told(:gone);
SELECT count(*) FROM message_bus.get_by_transaction('own', 't2');
-- the same in REPEATABLE READ
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM message_bus.messages WHERE channel = 'own';
SELECT message_bus.publish('own', '{"n": 3}', transaction_id => 't3') AS id3 \gset
SELECT got, bytes, viewed FROM pg_temp.told(:id3);
SELECT id = :id3 AS same FROM message_bus.get_by_transaction('own', 't3');
COMMIT;
SELECT got, bytes, viewed FROM pg_temp.told(:id3);
-- published in a savepoint
BEGIN;
SAVEPOINT s;
SELECT message_bus.publish('own', '{"n": 4}', transaction_id => 't4') AS gone \gset
SELECT got, viewed FROM pg_temp.told(:gone);
ROLLBACK TO s;
SELECT got, viewed FROM pg_temp.told(:gone);
SELECT count(*) FROM message_bus.get_by_transaction('own', 't4');
SELECT repeated FROM message_bus.publish_once('own', '{"n": 4, "again": true}', transaction_id => 't4');
SAVEPOINT s;
SELECT repeated FROM message_bus.publish_once('own', '{"n": 4, "again": true}', transaction_id => 't4');
SELECT repeated FROM message_bus.publish_once('own', '{"n": 5}', transaction_id => 't5');
ROLLBACK TO s;
SELECT repeated FROM message_bus.publish_once('own', '{"n": 5}', transaction_id => 't5');
RELEASE s;
COMMIT;
SELECT payload FROM message_bus.get_by_transaction('own', 't4');
SELECT repeated FROM message_bus.publish_once('own', '{"n": 5}', transaction_id => 't5');

/*
 * Deliveries in savepoints that are rolled back
 */
SELECT * FROM pg_temp.take('a', $$'own', 'sub', batch => 10$$);
BEGIN;
SAVEPOINT s;
SELECT message_bus.ack(pg_temp.lease('a'), ARRAY[:id]);
SELECT acks FROM pg_temp.told(:id);
SELECT state, count(*) FROM message_bus.leases WHERE channel = 'own' GROUP BY state ORDER BY state;
ROLLBACK TO s;
SELECT state, count(*) FROM message_bus.leases WHERE channel = 'own' GROUP BY state ORDER BY state;
COMMIT;
SELECT acks, failures FROM pg_temp.told(:id);
-- it is held as before, and can be acked: once
SELECT message_bus.ack(pg_temp.lease('a'), ARRAY[:id]);
SELECT acks FROM pg_temp.told(:id);
SELECT acked FROM message_bus.subscriptions WHERE channel = 'own';
-- nack
BEGIN;
SAVEPOINT s;
SELECT message_bus.nack(pg_temp.lease('a'), ARRAY[:id3], reason => 'undone');
SELECT failures FROM pg_temp.told(:id3);
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, ARRAY[%s]::bigint[])', pg_temp.lease('a'), :id3));
ROLLBACK TO s;
SELECT message_bus.ack(pg_temp.lease('a'), ARRAY[:id3]);
COMMIT;
SELECT acks, failures FROM pg_temp.told(:id3);
SELECT nacked, retrying FROM message_bus.subscriptions WHERE channel = 'own';
-- an ack that is rolled back, and a nack that is not
SELECT id AS id4 FROM message_bus.get_by_transaction('own', 't4') \gset
BEGIN;
SAVEPOINT s;
SELECT message_bus.ack(pg_temp.lease('a'), ARRAY[:id4]);
ROLLBACK TO s;
SELECT message_bus.nack(pg_temp.lease('a'), ARRAY[:id4], delay => '0', reason => 'true');
COMMIT;
SELECT acks, failures FROM pg_temp.told(:id4);
-- extend takes effect at once, whatever becomes of the transaction
SELECT deadline AS before FROM message_bus.leases WHERE channel = 'own' LIMIT 1 \gset
BEGIN;
SAVEPOINT s;
SELECT message_bus.extend(pg_temp.lease('a'), '2 hours') AS extended \gset
ROLLBACK TO s;
SELECT deadline = :'extended' AS extended, deadline > :'before' AS later FROM message_bus.leases WHERE channel = 'own';
ROLLBACK;
SELECT deadline = :'extended' AS extended FROM message_bus.leases WHERE channel = 'own';
SELECT message_bus.ack(pg_temp.lease('a'));
-- a claim gives back, with no attempt counted
BEGIN;
SAVEPOINT s;
SELECT payload, attempt FROM message_bus.claim('own', 'sub', batch => 10);
ROLLBACK TO s;
SELECT count(*) FROM message_bus.leases WHERE channel = 'own';
SELECT * FROM pg_temp.take('b', $$'own', 'sub', batch => 10$$);
COMMIT;
-- and what acks another lease first undoes both
BEGIN;
SAVEPOINT s;
SELECT count(*) FROM message_bus.claim('own', 'sub', ack => pg_temp.lease('b'));
ROLLBACK TO s;
COMMIT;
SELECT acks FROM pg_temp.told(:id4);
SELECT state FROM message_bus.leases WHERE channel = 'own';
-- the last attempt's nack: no dead letter
BEGIN;
SAVEPOINT s;
SELECT message_bus.nack(pg_temp.lease('b'), reason => 'undone');
SELECT count(*) FROM message_bus.messages WHERE channel = 'dead';
ROLLBACK TO s;
SELECT count(*) FROM message_bus.messages WHERE channel = 'dead';
COMMIT;
SELECT count(*) FROM message_bus.dead_letters WHERE channel = 'own';
SELECT message_bus.nack(pg_temp.lease('b'), reason => 'true');
SELECT reason FROM message_bus.dead_letters WHERE channel = 'own';

/*
 * redrive
 */
BEGIN;
SAVEPOINT s;
SELECT message_bus.redrive('dead');
SELECT count(*) FROM message_bus.peek('dead');
SELECT count(*) FROM message_bus.dead_letters WHERE channel = 'own';
ROLLBACK TO s;
SELECT count(*) FROM message_bus.peek('dead');
SELECT count(*) FROM message_bus.dead_letters WHERE channel = 'own';
COMMIT;
SELECT count(*) FROM message_bus.claim('own', 'sub');
BEGIN;
SELECT message_bus.redrive('dead');
ROLLBACK;
SELECT count(*) FROM message_bus.claim('own', 'sub');
SELECT message_bus.redrive('dead');
SELECT payload, attempt, message_bus.ack(lease) FROM message_bus.claim('own', 'sub');

/*
 * Deletions
 */
SET message_bus.default_channel = 'own';
BEGIN;
SAVEPOINT s;
SELECT message_bus.delete_message('t1');
SELECT got, viewed FROM pg_temp.told(:id);
SELECT message_bus.delete_message('t1');
ROLLBACK TO s;
SELECT got, viewed FROM pg_temp.told(:id);
COMMIT;
SELECT got, viewed FROM pg_temp.told(:id);
BEGIN;
SELECT message_bus.delete_message('t1');
SAVEPOINT s;
SELECT pg_temp.fails($$SELECT message_bus.publish('own', '{"n": 1}', transaction_id => 't1')$$);
ROLLBACK TO s;
ROLLBACK;
SELECT repeated FROM message_bus.publish_once('own', '{"n": 1}', transaction_id => 't1');
BEGIN;
SAVEPOINT s;
DELETE FROM message_bus.message_bus WHERE id = :id;
ROLLBACK TO s;
SAVEPOINT s;
SELECT message_bus.purge_channel('own') > 0 AS purged;
SELECT got FROM pg_temp.told(:id);
ROLLBACK TO s;
COMMIT;
SELECT got, viewed FROM pg_temp.told(:id);
RESET message_bus.default_channel;

/*
 * A deletion that is rolled back: a claim beside it has not passed the message over
 */
SELECT message_bus.create_channel('undone'), message_bus.create_subscription('undone', 'sub');
SET message_bus.default_channel = undone;
SELECT message_bus.publish('undone', '"kept"', transaction_id => 'u1') AS id \gset
SELECT message_bus.publish('undone', '"later"', transaction_id => 'u2', delay => '1 second') AS later \gset
BEGIN;
SELECT message_bus.delete_message('u1'), message_bus.delete_message('u2');
SELECT count(*) FROM message_bus.get(:id);
SELECT count(*) FROM message_bus.claim('undone', 'sub', 10);
ROLLBACK;
SELECT payload, attempt FROM message_bus.claim('undone', 'sub', 10, wait => '10 seconds');
SELECT payload, attempt FROM message_bus.claim('undone', 'sub', 10, wait => '10 seconds');
RESET message_bus.default_channel;
SELECT message_bus.drop_channel('undone');
SELECT message_bus.drop_channel('own'), message_bus.drop_channel('dead');
