--
-- claim_ack: a claim that acks what was claimed before
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

CREATE ROLE regress_mbus_consumer;
SELECT message_bus.create_channel('joined', ttl => '1 hour', backoff => '0', backoff_max => '0');
SELECT message_bus.publish('joined', to_json('m' || n)) IS NOT NULL AS published FROM generate_series(1, 9) AS n;
CREATE FUNCTION pg_temp.outstanding(OUT in_flight bigint, OUT acked bigint, OUT lag bigint) LANGUAGE sql AS
	'SELECT in_flight, acked, lag_messages FROM message_bus.subscriptions WHERE channel = ''joined'' AND subscription = ''default''';

-- one call ends a batch and takes the next; the first one has nothing to ack
SELECT * FROM pg_temp.take('a', $$'joined', batch => 2, ack => NULL$$);
SELECT * FROM pg_temp.take('b', format($$'joined', batch => 2, ack => %s$$, pg_temp.lease('a')));
SELECT pg_temp.lease('a') < pg_temp.lease('b') AS another, outstanding.* FROM pg_temp.outstanding();
SELECT lo = (pg_temp.ids('a'))[1] AND hi = (pg_temp.ids('a'))[2] AS ids, n, outcome, role = current_user AS role
	FROM message_bus.ack WHERE lease = pg_temp.lease('a');
-- claim_bytes as well
SELECT convert_from(payload, 'UTF8') AS payload FROM message_bus.claim_bytes('joined', ack => pg_temp.lease('b'));
-- what is acked again, with the same lease, is acked
SELECT * FROM pg_temp.take('c', format($$'joined', ack => %s$$, pg_temp.lease('b')));
SELECT * FROM pg_temp.outstanding();

-- a lease that is not held: nothing is claimed, and the error is that of ack
SELECT message_bus.nack(pg_temp.lease('c'));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('c')));
SELECT pg_temp.refused(format($$SELECT * FROM message_bus.claim('joined', ack => %s)$$, pg_temp.lease('c')));
SELECT pg_temp.refused($$SELECT * FROM message_bus.claim('joined', ack => 1)$$),
	pg_temp.refused($$SELECT * FROM message_bus.claim('joined', ack => 0)$$),
	pg_temp.refused($$SELECT * FROM message_bus.claim_bytes('joined', ack => -5)$$);
SELECT * FROM pg_temp.outstanding();

-- nor is anything acked where the claim is refused
SELECT * FROM pg_temp.take('d', $$'joined'$$);
SELECT pg_temp.refused(format($$SELECT * FROM message_bus.claim('nosuch', ack => %s)$$, pg_temp.lease('d')));
SELECT pg_temp.refused(format($$SELECT * FROM message_bus.claim('joined', 'nosuch', ack => %s)$$, pg_temp.lease('d')));
SELECT pg_temp.refused(format($$SELECT * FROM message_bus.claim('joined', batch => 0, ack => %s)$$, pg_temp.lease('d')));
SELECT count(*) AS held FROM message_bus.leases WHERE lease = pg_temp.lease('d');

-- rolled back, both are undone
BEGIN;
SELECT * FROM pg_temp.take('e', format($$'joined', ack => %s$$, pg_temp.lease('d')));
ROLLBACK;
SELECT count(*) AS held FROM message_bus.leases WHERE lease = pg_temp.lease('d');
BEGIN;
SAVEPOINT s;
SELECT payload FROM message_bus.claim('joined', ack => pg_temp.lease('d'));
ROLLBACK TO s;
SELECT state FROM message_bus.leases WHERE lease = pg_temp.lease('d');
COMMIT;
-- what the same transaction has claimed it can ack and go on
BEGIN;
SELECT * FROM pg_temp.take('f', format($$'joined', ack => %s$$, pg_temp.lease('d')));
SELECT * FROM pg_temp.take('g', format($$'joined', ack => %s$$, pg_temp.lease('f')));
COMMIT;
SELECT DISTINCT lease = pg_temp.lease('g') AS g FROM message_bus.leases WHERE channel = 'joined' AND subscription = 'default' AND lease >= pg_temp.lease('d');

-- a lease of another subscription, or channel, that the caller may ack
SELECT message_bus.create_subscription('joined', 'other');
SELECT payload FROM message_bus.claim('joined', 'other', ack => pg_temp.lease('g'));
SELECT count(*) AS held FROM message_bus.leases WHERE lease = pg_temp.lease('g');

-- one of a channel that the caller may not consume
SELECT message_bus.create_channel('theirs', ttl => '1 hour');
SELECT message_bus.publish('theirs', '"t"') IS NOT NULL AS published;
SELECT message_bus.grant_channel('joined', 'regress_mbus_consumer', 'consume');
SELECT * FROM pg_temp.take('theirs', $$'theirs'$$);
GRANT ALL ON taken, taken_place_seq TO PUBLIC;
SET ROLE regress_mbus_consumer;
SELECT pg_temp.refused(format($$SELECT * FROM message_bus.claim('joined', 'other', ack => %s)$$, pg_temp.lease('theirs')));
RESET ROLE;
SELECT count(*) AS held FROM message_bus.leases WHERE lease = pg_temp.lease('theirs');

-- it does not wait, so that the ack is committed; without an ack the call after does
SELECT count(*) FROM message_bus.claim('theirs', wait => '1 minute', ack => pg_temp.lease('theirs'));
SELECT count(*) FROM message_bus.claim('theirs', wait => '1 minute', ack => pg_temp.lease('theirs'));
SELECT clock_timestamp() AS begun \gset
SELECT count(*) FROM message_bus.claim('theirs', wait => '0.2 seconds');
SELECT clock_timestamp() - :'begun' BETWEEN '0.2 seconds' AND '30 seconds' AS waited;

-- ordered: the next of a key is there when the ack has committed
SELECT message_bus.create_channel('keyed', ttl => '1 hour');
SELECT message_bus.create_subscription('keyed', 'default', ordered => true);
SELECT message_bus.publish('keyed', to_json('k' || n), key => 'one') IS NOT NULL AS published FROM generate_series(1, 2) AS n;
SELECT * FROM pg_temp.take('k1', $$'keyed', batch => 5$$);
SELECT * FROM pg_temp.take('k2', format($$'keyed', batch => 5, wait => '1 minute', ack => %s$$, pg_temp.lease('k1')));
SELECT * FROM pg_temp.take('k3', $$'keyed', batch => 5$$);

-- no new fact in a transaction that is read-only
BEGIN READ ONLY;
SELECT pg_temp.refused(format($$SELECT * FROM message_bus.claim('keyed', ack => %s)$$, pg_temp.lease('k3')));
ROLLBACK;

SELECT message_bus.drop_channel(c) FROM unnest(ARRAY['joined', 'theirs', 'keyed']) AS c;
DROP ROLE regress_mbus_consumer;
