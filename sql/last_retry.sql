--
-- last_retry: a retry that would come after the message has expired is its last failure
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('dead', ttl => '10 hours'), message_bus.create_channel('brief', ttl => '1 hour', dead_letter => 'dead');
CREATE FUNCTION pg_temp.letters() RETURNS TABLE (payload text, kind text, attempts text, reason text) LANGUAGE sql AS $$
	SELECT p.payload::text, p.headers #>> '{dead_letter,kind}', p.headers #>> '{dead_letter,attempts}', p.headers #>> '{dead_letter,reason}'
	FROM message_bus.peek('dead') AS p ORDER BY p.id
$$;

/*
 * nack with a delay
 */
SELECT count(message_bus.publish('brief', to_json(m))) FROM unnest(ARRAY['a', 'b', 'c']) AS m;
SELECT * FROM pg_temp.take('1', $$'brief', batch => 3$$);
SELECT message_bus.nack(pg_temp.lease('1'), ARRAY[pg_temp.id('1', '"a"')], delay => '1 hour');
SELECT message_bus.nack(pg_temp.lease('1'), ARRAY[pg_temp.id('1', '"b"')], delay => '100 years', reason => 'no stock');
-- one that comes in time is not the last
SELECT message_bus.nack(pg_temp.lease('1'), ARRAY[pg_temp.id('1', '"c"')], delay => '58 minutes', reason => 'later');
SELECT * FROM pg_temp.letters();
SELECT channel, attempts, kind, reason, dead_letter FROM message_bus.dead_letters;
SELECT lag_messages, retrying, dead FROM message_bus.subscriptions WHERE channel = 'brief';
-- rolled back nothing is dead
SELECT message_bus.publish('brief', '"back"') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('back', $$'brief'$$);
BEGIN;
SELECT message_bus.nack(pg_temp.lease('back'), delay => '2 hours');
ROLLBACK;
SELECT count(*) FROM pg_temp.letters();
SELECT message_bus.ack(pg_temp.lease('back'));
-- redriven it has all its attempts
SELECT message_bus.redrive('dead');
SELECT * FROM pg_temp.take('2', $$'brief', batch => 3$$);
SELECT message_bus.ack(pg_temp.lease('2'));
-- a long reason is kept as it was
SELECT message_bus.publish('brief', '"long"') IS NOT NULL AS published;
SELECT message_bus.nack(lease, delay => '1 hour', reason => repeat('x', 9000)) FROM message_bus.claim('brief');
SELECT left(reason, 3) AS begins, right(reason, 70) AS ends FROM pg_temp.letters();
SELECT message_bus.redrive('dead');
SELECT message_bus.ack(lease) FROM message_bus.claim('brief');

/*
 * The message's own TTL, and the channel's backoff
 */
SELECT message_bus.alter_channel('brief', backoff => '4 hours', backoff_max => '4 hours');
SELECT message_bus.publish('brief', '"backoff"') IS NOT NULL AS published;
SELECT message_bus.nack(lease) FROM message_bus.claim('brief');
SELECT message_bus.alter_channel('brief', backoff => '1 minute');
SELECT message_bus.publish('brief', '"own ttl"', ttl => '20 seconds') IS NOT NULL AS published;
SELECT message_bus.nack(lease, reason => 'slow') FROM message_bus.claim('brief');
SELECT * FROM pg_temp.letters();
-- a session that is gone: its backoff
SELECT message_bus.publish('brief', '"gone"', ttl => '20 seconds') IS NOT NULL AS published;
CREATE ROLE regress_mbus_client;
SELECT message_bus.grant_channel('brief', 'regress_mbus_client', 'all');
SELECT message_bus.open_session(7, options => '{"anonymous": "regress_mbus_client"}') IS NOT NULL AS open;
SELECT count(*) FROM message_bus.relay(ARRAY[7], ARRAY[convert_to(E'\x01{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"brief"}}', 'UTF8')]);
SELECT message_bus.close_session(7);
SELECT pg_temp.wait_for($$SELECT count(*) = 3 FROM pg_temp.letters()$$);
SELECT * FROM pg_temp.letters() WHERE kind = 'disconnected';

/*
 * A lease that outlasts the message: expired, it is not lost
 */
SELECT message_bus.publish('brief', '"lease"', ttl => '2 seconds', headers => '{"own": 1}', key => 'k') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('lease', $$'brief', lease_for => '2.2 seconds'$$);
SELECT pg_temp.wait_for($$SELECT count(*) = 4 FROM pg_temp.letters()$$);
SELECT * FROM pg_temp.letters() WHERE kind = 'expired';
SELECT key, headers -> 'own' AS own FROM message_bus.peek('dead') WHERE headers #>> '{dead_letter,kind}' = 'expired';
-- also by a nack that comes too late, at whatever attempt
SELECT message_bus.publish('brief', '"late"', ttl => '1 second') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('late', $$'brief', lease_for => '1 minute'$$);
SELECT pg_sleep(1.1);
SELECT message_bus.nack(pg_temp.lease('late'), delay => '0');
SELECT message_bus.alter_channel('brief', max_attempts => 1);
SELECT message_bus.publish('brief', '"last"', ttl => '1 second') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('last', $$'brief', lease_for => '1 minute'$$);
SELECT pg_sleep(1.1);
SELECT message_bus.nack(pg_temp.lease('last'), reason => 'mine');
SELECT * FROM pg_temp.letters() ORDER BY payload DESC LIMIT 4;
-- but not what was deleted
SELECT message_bus.publish('brief', '"deleted"', transaction_id => 'deleted') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('deleted', $$'brief'$$);
DELETE FROM message_bus.message_bus WHERE channel = 'brief' AND transaction_id = 'deleted';
SELECT message_bus.nack(pg_temp.lease('deleted'), delay => '2 hours');
SELECT count(*) FROM pg_temp.letters() WHERE payload = '"deleted"';

/*
 * Without a dead-letter channel it stays, dead; its key goes on
 */
SELECT message_bus.create_channel('keys', ttl => '1 hour');
SELECT message_bus.create_subscription('keys', 'sub', ordered => true);
SELECT count(message_bus.publish('keys', to_json(m), key => 'k')) FROM unnest(ARRAY['k1', 'k2']) AS m;
SELECT * FROM pg_temp.take('k1', $$'keys', 'sub', batch => 5$$);
SELECT message_bus.nack(pg_temp.lease('k1'), delay => '1 day', reason => 'first');
SELECT * FROM pg_temp.take('k2', $$'keys', 'sub', batch => 5$$);
SELECT attempts, kind, reason, dead_letter FROM message_bus.dead_letters WHERE channel = 'keys';
SELECT message_bus.redrive('keys');
SELECT message_bus.ack(pg_temp.lease('k2'));
-- over the WebSocket's methods likewise
SELECT message_bus.grant_channel('keys', 'regress_mbus_client', 'all');
SET ROLE regress_mbus_client;
SELECT lease AS k3 FROM message_bus.claim('keys', 'sub', batch => 5) \gset
RESET ROLE;
SELECT message_bus.open_session(8, options => '{"anonymous": "regress_mbus_client"}') IS NOT NULL AS open;
SELECT convert_from(substr(frame, 2), 'UTF8') AS reply FROM message_bus.relay(ARRAY[8], ARRAY[convert_to(E'\x01' ||
	format('{"jsonrpc":"2.0","id":1,"method":"nack","params":{"lease":%s,"delay":7200}}', :k3), 'UTF8')]);
SELECT count(*) FROM message_bus.dead_letters WHERE channel = 'keys';
SELECT message_bus.close_session(8);
SELECT message_bus.drop_channel('brief'), message_bus.drop_channel('dead'), message_bus.drop_channel('keys');
DROP ROLE regress_mbus_client;
