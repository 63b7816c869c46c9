--
-- claims: claim, ack, nack and extend; attempts, dead letters and redrive
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

/*
 * claim and ack
 */
SELECT message_bus.create_channel('work', ttl => '1 hour', max_attempts => 3, backoff => '20 milliseconds');
SELECT message_bus.publish('work', to_json('m' || n), headers => CASE n WHEN 1 THEN '{"h": [1, "x"]}'::jsonb END,
		key => CASE n WHEN 2 THEN 'k' END) IS NOT NULL AS published FROM generate_series(1, 7) AS n;
-- the subscription "default" is made by the first claim, and is the channel owner's
SELECT count(*) FROM message_bus.subscriptions WHERE channel = 'work';
SELECT * FROM pg_temp.take('a', $$'work', batch => 3$$);
SELECT subscription, owner, ordered, paused FROM message_bus.subscriptions WHERE channel = 'work';
-- who claims next gets others, under a higher lease
SELECT * FROM pg_temp.take('b', $$'work', batch => 2$$);
SELECT * FROM pg_temp.take('c', $$'work'$$);
SELECT pg_temp.lease('a') < pg_temp.lease('b') AND pg_temp.lease('b') < pg_temp.lease('c') AS ascending,
		(SELECT bool_and(leases = 1) FROM (SELECT count(DISTINCT lease) AS leases FROM taken GROUP BY tag) AS t) AS one_each;
SELECT channel, subscription, lease = pg_temp.lease('a') AS a, count(*), bool_and(message_id = ANY (pg_temp.ids('a'))) AS ids,
		min(attempt) AS attempt, min(state) AS state, bool_and(pid = pg_backend_pid()) AS mine, min(role) AS role, min(session) AS session,
		bool_and(deadline - claimed_at BETWEEN '29 seconds' AND '30 seconds') AS channels_lease
	FROM message_bus.leases WHERE lease IN (pg_temp.lease('a'), pg_temp.lease('b')) GROUP BY channel, subscription, lease ORDER BY lease;
CREATE TEMP VIEW state AS
	SELECT lag_messages AS lag, in_flight, redelivered AS again, ready, retrying, delivered, acked, nacked, expired, dead
	FROM message_bus.subscriptions WHERE channel = 'work' AND subscription = 'default';
SELECT s.* FROM pg_temp.state s WHERE subscription = 'default';
SELECT * FROM pg_temp.state;
SELECT oldest_unacked_id = (pg_temp.ids('a'))[1] AS oldest, oldest_unacked_at = m.created_at AS its_time, lag_seconds > 0 AS lags
	FROM message_bus.subscriptions s JOIN message_bus.messages m ON m.id = oldest_unacked_id WHERE s.channel = 'work';

-- what a delivery holds
SELECT message_bus.create_subscription('work', 'columns');
SELECT attempt, c.created_at = m.created_at AND c.expires_at = m.expires_at AS times, c.key, c.headers, c.content_type, c.size,
		c.sha256 = sha256(convert_to(c.payload::text, 'UTF8')) AS sha256, by_reference, payload
	FROM message_bus.claim('work', 'columns', 2) AS c JOIN message_bus.messages m USING (id);
SELECT attempt, key, headers, content_type, size, by_reference, convert_from(payload, 'UTF8') AS payload
	FROM message_bus.claim_bytes('work', 'columns');
SELECT message_bus.drop_subscription('work', 'columns');

-- ack: all of a lease; said again it counts again
SELECT message_bus.ack(pg_temp.lease('a'));
SELECT message_bus.ack(pg_temp.lease('a'));
SELECT message_bus.ack(pg_temp.lease('a'), pg_temp.ids('a'));
SELECT message_bus.ack(pg_temp.lease('a'), (pg_temp.ids('a'))[2:2]);
-- some of it, in any order and more than once
SELECT message_bus.ack(pg_temp.lease('b'), ARRAY[pg_temp.id('b', '"m5"'), pg_temp.id('b', '"m5"')]);
SELECT message_bus.ack(pg_temp.lease('b'), ARRAY[pg_temp.id('b', '"m5"'), pg_temp.id('b', '"m4"')]);
SELECT message_bus.ack(pg_temp.lease('b'));
-- what the lease does not hold is refused, and then nothing is acked
SELECT * FROM pg_temp.take('d', $$'work', batch => 10$$);
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, %L)', pg_temp.lease('c'), pg_temp.ids('c') || pg_temp.ids('d')));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, %L)', pg_temp.lease('c'), pg_temp.ids('c') || pg_temp.ids('a')));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, %L)', pg_temp.lease('a'), pg_temp.ids('a') || 1::bigint));
SELECT count(*) AS still_leased FROM message_bus.leases WHERE lease = pg_temp.lease('c');
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, %L)', pg_temp.lease('d'),
	(SELECT array_agg(n) FROM generate_series(1000001, 1000007) AS n)));
SELECT pg_temp.refused('SELECT message_bus.ack(1)'), pg_temp.refused('SELECT message_bus.ack(1, ARRAY[1])'),
		pg_temp.refused('SELECT message_bus.ack(-1)'), pg_temp.refused('SELECT message_bus.ack(0)');
SELECT message_bus.ack(pg_temp.lease('c'), '{}');
SELECT pg_temp.refused('SELECT message_bus.ack(NULL)');
SELECT pg_temp.refused('SELECT message_bus.ack(1, ARRAY[NULL::bigint])');
SELECT pg_temp.refused('SELECT message_bus.ack(1, ARRAY[[1],[2]])');
SELECT pg_temp.refused('SELECT message_bus.ack(1, (SELECT array_agg(n) FROM generate_series(1, 10001) AS n))');
SELECT message_bus.ack(pg_temp.lease('c')), message_bus.ack(pg_temp.lease('d'));
SELECT * FROM pg_temp.take('e', $$'work', batch => 10$$);
SELECT * FROM pg_temp.state;
SELECT lag_seconds, oldest_unacked_id, oldest_unacked_at FROM message_bus.subscriptions WHERE channel = 'work';
-- acks are rows of ids delivered, and say who, when claimed, which attempt
SELECT a.lo = (pg_temp.ids('a'))[1] AS lo, a.hi = (pg_temp.ids('a'))[3] AS hi, a.n, a.attempt, a.outcome, a.role,
		a.claimed_at < a.at AS claimed_before
	FROM message_bus.ack a WHERE a.lease = pg_temp.lease('a');

-- claim and ack in one command
SELECT message_bus.publish('work', to_json('n' || n)) IS NOT NULL AS published FROM generate_series(1, 3) AS n;
SELECT payload, message_bus.ack(lease) FROM message_bus.claim('work', batch => 3);
SELECT message_bus.publish('work', to_json('n' || n)) IS NOT NULL AS published FROM generate_series(4, 5) AS n;
SELECT payload, message_bus.ack(lease, ARRAY[id]) FROM message_bus.claim('work', batch => 3);
SELECT count(*) FROM message_bus.claim('work', batch => 3);

/*
 * Transactions
 */
-- a claim that is rolled back is none, and no attempt
SELECT message_bus.publish('work', to_json('t' || n)) IS NOT NULL AS published FROM generate_series(1, 3) AS n;
BEGIN;
SELECT * FROM pg_temp.take('none', $$'work', batch => 2$$);
SELECT state, count(*) FROM message_bus.leases WHERE channel = 'work' GROUP BY state;
ROLLBACK;
SELECT ready, in_flight FROM message_bus.subscriptions WHERE channel = 'work';
SELECT * FROM pg_temp.take('t', $$'work', batch => 10$$);
-- an ack that is rolled back is none
BEGIN;
SELECT message_bus.ack(pg_temp.lease('t'));
SELECT state, count(*) FROM message_bus.leases WHERE channel = 'work' GROUP BY state;
SELECT message_bus.ack(pg_temp.lease('t'));
ROLLBACK;
SELECT state, count(*) FROM message_bus.leases WHERE channel = 'work' GROUP BY state;
-- nor one that a savepoint takes back, or that is in a block that fails
BEGIN;
SELECT message_bus.ack(pg_temp.lease('t'), ARRAY[pg_temp.id('t', '"t1"')]);
SAVEPOINT s;
SELECT message_bus.ack(pg_temp.lease('t'), ARRAY[pg_temp.id('t', '"t2"')]);
ROLLBACK TO s;
SELECT message_bus.ack(pg_temp.lease('t'), ARRAY[pg_temp.id('t', '"t1"')]);
DO $$
BEGIN
	PERFORM message_bus.ack(pg_temp.lease('t'), ARRAY[pg_temp.id('t', '"t3"')]);
	RAISE EXCEPTION 'fails';
EXCEPTION WHEN raise_exception THEN
	NULL;
END
$$;
SELECT t.message, l.state FROM taken t JOIN message_bus.leases l ON l.message_id = t.id WHERE tag = 't' ORDER BY 1;
COMMIT;
SELECT t.message, l.state FROM taken t JOIN message_bus.leases l ON l.message_id = t.id WHERE tag = 't' ORDER BY 1;
SELECT message_bus.ack(pg_temp.lease('t'), ARRAY[pg_temp.id('t', '"t2"'), pg_temp.id('t', '"t3"')]);
-- claimed, acked and published in one transaction
SELECT message_bus.publish('work', '"in"') IS NOT NULL AS published;
BEGIN;
SELECT * FROM pg_temp.take('io', $$'work'$$);
SELECT message_bus.publish('work', '"out"') IS NOT NULL AS published;
SELECT message_bus.ack(pg_temp.lease('io'));
-- its own message is not there before its commit
SELECT * FROM pg_temp.take('io', $$'work'$$);
COMMIT;
SELECT * FROM pg_temp.take('io2', $$'work'$$);
BEGIN;
SELECT message_bus.ack(pg_temp.lease('io2'));
COMMIT;
SELECT message_bus.ack(pg_temp.lease('io')), message_bus.ack(pg_temp.lease('io2'));
SELECT * FROM pg_temp.take('io3', $$'work'$$);
-- claimed and acked in a transaction that is rolled back
SELECT message_bus.publish('work', '"both"') IS NOT NULL AS published;
BEGIN;
SELECT * FROM pg_temp.take('both', $$'work'$$);
SELECT message_bus.ack(pg_temp.lease('both'));
ROLLBACK;
BEGIN;
SELECT * FROM pg_temp.take('both', $$'work'$$);
SELECT message_bus.ack(pg_temp.lease('both')) = 1 AS acked;
COMMIT;
SELECT * FROM pg_temp.take('both2', $$'work'$$);
-- deliveries are of this server: a transaction cannot be prepared
SELECT message_bus.publish('work', '"p"') IS NOT NULL AS published;
\set VERBOSITY terse
BEGIN; SELECT * FROM pg_temp.take('none', $$'work'$$); PREPARE TRANSACTION 'regress_mbus';
SELECT * FROM pg_temp.take('p', $$'work'$$);
BEGIN; SELECT message_bus.ack(pg_temp.lease('p')); PREPARE TRANSACTION 'regress_mbus';
BEGIN; SELECT message_bus.nack(pg_temp.lease('p')); PREPARE TRANSACTION 'regress_mbus';
BEGIN; SELECT message_bus.publish('work', '"p"') IS NOT NULL AS published; PREPARE TRANSACTION 'regress_mbus';
BEGIN; SELECT message_bus.seek('work', 'default', 'earliest'); PREPARE TRANSACTION 'regress_mbus';
BEGIN; SELECT message_bus.drop_subscription('work', 'default'); PREPARE TRANSACTION 'regress_mbus';
\set VERBOSITY default
SELECT count(*) FROM pg_prepared_xacts;
SELECT message_bus.ack(pg_temp.lease('p'));
-- nothing of this in read-only transactions
BEGIN READ ONLY;
SELECT call, pg_temp.refused('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$claim('work')$$, $$claim_bytes('work')$$, $$ack(1)$$, $$nack(1)$$, $$extend(1, '1 minute')$$, $$redrive('work')$$]) AS t (call);
COMMIT;
-- REPEATABLE READ: what is there now is claimed, but nothing is waited for
SELECT message_bus.publish('work', '"rr"') IS NOT NULL AS published;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.refused($$SELECT message_bus.claim('work', wait => '1 second')$$);
SELECT * FROM pg_temp.take('rr', $$'work'$$);
SELECT message_bus.ack(pg_temp.lease('rr'));
COMMIT;

/*
 * nack, attempts and backoff
 */
SELECT message_bus.publish('work', '"again"') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('n1', $$'work'$$);
SELECT message_bus.nack(pg_temp.lease('n1'), reason => 'not now');
SELECT pg_temp.refused(format('SELECT message_bus.nack(%s)', pg_temp.lease('n1')));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('n1')));
SELECT retrying, lag_messages FROM message_bus.subscriptions WHERE channel = 'work';
SELECT * FROM pg_temp.take('n2', $$'work', wait => '10 seconds'$$);
SELECT pg_temp.lease('n1') < pg_temp.lease('n2') AS ascending, pg_temp.ids('n1') = pg_temp.ids('n2') AS same;
-- a nack that is rolled back is none
BEGIN;
SELECT message_bus.nack(pg_temp.lease('n2'));
SELECT state FROM message_bus.leases WHERE lease = pg_temp.lease('n2');
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('n2')));
SELECT pg_temp.refused(format('SELECT message_bus.nack(%s)', pg_temp.lease('n2')));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, %L)', pg_temp.lease('n2'), pg_temp.ids('n2')));
SELECT pg_temp.refused(format('SELECT message_bus.extend(%s, ''1 hour'')', pg_temp.lease('n2')));
ROLLBACK;
-- what was acked cannot be given back in the same transaction
BEGIN;
SELECT message_bus.ack(pg_temp.lease('n2'));
SELECT pg_temp.refused(format('SELECT message_bus.nack(%s)', pg_temp.lease('n2')));
SELECT pg_temp.refused(format('SELECT message_bus.extend(%s, ''1 hour'')', pg_temp.lease('n2')));
ROLLBACK;
SELECT state FROM message_bus.leases WHERE lease = pg_temp.lease('n2');
-- an old lease holds nothing, also where its message is out again
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('n1')));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, %L)', pg_temp.lease('n1'), pg_temp.ids('n1')));
SELECT pg_temp.refused(format('SELECT message_bus.extend(%s, ''1 hour'')', pg_temp.lease('n1')));
SELECT message_bus.ack(pg_temp.lease('n2'));
SELECT pg_temp.refused(format('SELECT message_bus.nack(%s)', pg_temp.lease('n2')));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('n1')));
SELECT attempt, kind, reason, role, lease = pg_temp.lease('n1') AS lease, claimed_at < at AS claimed_before, retry_at - at BETWEEN '9 milliseconds' AND '20 milliseconds' AS backoff
	FROM message_bus.failure WHERE message_id = ANY (pg_temp.ids('n1'));
-- some of a lease
SELECT message_bus.publish('work', to_json('some' || n)) IS NOT NULL AS published FROM generate_series(1, 3) AS n;
SELECT * FROM pg_temp.take('s', $$'work', batch => 3$$);
SELECT message_bus.nack(pg_temp.lease('s'), ARRAY[pg_temp.id('s', '"some2"')], delay => '0');
SELECT pg_temp.refused(format('SELECT message_bus.nack(%s, %L)', pg_temp.lease('s'), pg_temp.ids('s')));
SELECT * FROM pg_temp.take('s2', $$'work', batch => 3$$);
SELECT message_bus.ack(pg_temp.lease('s')), message_bus.ack(pg_temp.lease('s2'));
-- a delay
SELECT message_bus.publish('work', '"later"') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('l1', $$'work'$$);
SELECT message_bus.nack(pg_temp.lease('l1'), delay => '300 milliseconds');
SELECT * FROM pg_temp.take('l2', $$'work'$$);
SELECT * FROM pg_temp.take('l3', $$'work', wait => '10 seconds'$$);
SELECT retry_at - at BETWEEN '200 milliseconds' AND '300 milliseconds' AS delay, pg_temp.seen('l3') >= retry_at AS not_early
	FROM message_bus.failure WHERE lease = pg_temp.lease('l1');
SELECT message_bus.ack(pg_temp.lease('l3'));
-- backoff doubles up to its maximum, less up to a half
SELECT message_bus.create_channel('backoff', max_attempts => 100, backoff => '8 milliseconds', backoff_max => '28 milliseconds');
SELECT message_bus.publish('backoff', '"b"') AS id \gset
SELECT count(message_bus.nack(lease)) FROM message_bus.claim('backoff');
SELECT count(message_bus.nack(lease)) FROM message_bus.claim('backoff', wait => '10 seconds');
SELECT count(message_bus.nack(lease)) FROM message_bus.claim('backoff', wait => '10 seconds');
SELECT count(message_bus.nack(lease)) FROM message_bus.claim('backoff', wait => '10 seconds');
SELECT count(message_bus.ack(lease)) FROM message_bus.claim('backoff', wait => '10 seconds');
SELECT f.attempt, most, retry_at - at BETWEEN most / 2 - interval '1 millisecond' AND most AS within
	FROM message_bus.failure f, LATERAL (SELECT LEAST(interval '8 milliseconds' * 2 ^ (f.attempt - 1), '28 milliseconds') AS most) AS t
	WHERE message_id = :id ORDER BY f.attempt;
-- bad arguments
SELECT pg_temp.refused($$SELECT message_bus.nack(NULL)$$);
SELECT pg_temp.refused($$SELECT message_bus.nack(1)$$);
SELECT pg_temp.refused($$SELECT message_bus.nack(1, delay => '-1 second')$$);
SELECT pg_temp.refused($$SELECT message_bus.nack(1, delay => '200 years')$$);
SELECT pg_temp.refused($$SELECT message_bus.nack(1, ARRAY[NULL::bigint])$$);
SELECT message_bus.nack(1, '{}');

/*
 * Leases: extend, expiry
 */
SELECT message_bus.publish('work', to_json('e' || n)) IS NOT NULL AS published FROM generate_series(1, 2) AS n;
SELECT * FROM pg_temp.take('x', $$'work', batch => 2, lease_for => '10 minutes'$$);
SELECT DISTINCT deadline - claimed_at BETWEEN '599 seconds' AND '600 seconds' AS asked_for FROM message_bus.leases WHERE channel = 'work';
SELECT message_bus.extend(pg_temp.lease('x'), '1 hour') - message_bus.clock() BETWEEN '3590 seconds' AND '3600 seconds' AS one_hour;
SELECT message_bus.extend(pg_temp.lease('x'), '20 seconds', ARRAY[pg_temp.id('x', '"e1"')]) - message_bus.clock() BETWEEN '10 seconds' AND '20 seconds' AS shortened;
SELECT t.message, l.deadline - clock_timestamp() > '1 minute' AS long FROM taken t JOIN message_bus.leases l ON l.message_id = t.id WHERE tag = 'x' ORDER BY place;
SELECT pg_temp.refused(format('SELECT message_bus.extend(%s, ''1 hour'', %L)', pg_temp.lease('x'), pg_temp.ids('x') || 1000001::bigint));
SELECT call, pg_temp.refused('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$extend(NULL, '1 hour')$$, $$extend(1, NULL)$$, $$extend(1, '0')$$, $$extend(1, '-1 second')$$, $$extend(1, '8 days')$$,
	$$extend(1, '1 hour')$$, $$extend(1, '1 hour', ARRAY[NULL::bigint])$$]) AS t (call);
SELECT message_bus.ack(pg_temp.lease('x'));
SELECT pg_temp.refused(format('SELECT message_bus.extend(%s, ''1 hour'')', pg_temp.lease('x')));
-- a lease that is not ended in time expires; the message comes again, and the old lease is worth nothing
SELECT message_bus.publish('work', '"slow"') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('slow', $$'work', lease_for => '100 milliseconds'$$);
SELECT * FROM pg_temp.take('slow2', $$'work', wait => '10 seconds'$$);
SELECT pg_temp.seen('slow2') >= claimed_at + interval '100 milliseconds' AS not_early, attempt, kind, reason, retry_at <= at AS at_once, f.role
	FROM message_bus.failure f WHERE lease = pg_temp.lease('slow');
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('slow')));
SELECT pg_temp.refused(format('SELECT message_bus.nack(%s)', pg_temp.lease('slow')));
SELECT pg_temp.refused(format('SELECT message_bus.extend(%s, ''1 hour'')', pg_temp.lease('slow')));
SELECT message_bus.ack(pg_temp.lease('slow2'));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('slow')));
-- but not while an ack or nack of it is open
SELECT message_bus.publish('work', '"slower"') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('slow3', $$'work', lease_for => '100 milliseconds'$$);
BEGIN;
SELECT message_bus.ack(pg_temp.lease('slow3'));
SELECT pg_sleep(0.3);
SELECT state, deadline < clock_timestamp() AS over FROM message_bus.leases WHERE lease = pg_temp.lease('slow3');
COMMIT;
SELECT * FROM pg_temp.take('slow4', $$'work', wait => '100 milliseconds'$$);
SELECT count(*) AS failures FROM message_bus.failure WHERE lease = pg_temp.lease('slow3');
-- nor while the claim itself is open; the worker sleeps all the same
SELECT message_bus.publish('work', '"slowest"') IS NOT NULL AS published;
BEGIN;
SELECT * FROM pg_temp.take('slow5', $$'work', lease_for => '50 milliseconds'$$);
SELECT pg_sleep(0.2);
SELECT passes FROM message_bus.worker_status \gset
SELECT pg_sleep(2);
SELECT passes - :passes < 12 AS sleeps FROM message_bus.worker_status;
COMMIT;
SELECT * FROM pg_temp.take('slow6', $$'work', wait => '10 seconds'$$);
SELECT message_bus.ack(pg_temp.lease('slow6'));

/*
 * What a claim may bring
 */
-- bad arguments
SELECT call, pg_temp.refused('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$claim(NULL)$$, $$claim('work', NULL)$$, $$claim('nowhere')$$, $$claim('work', 'nobody')$$, $$claim('work', '')$$,
	$$claim('work', batch => 0)$$, $$claim('work', batch => -1)$$, $$claim('work', batch => 10001)$$,
	$$claim('work', lease_for => '0')$$, $$claim('work', lease_for => '-1 second')$$, $$claim('work', lease_for => '8 days')$$,
	$$claim('work', wait => '-1 second')$$, $$claim('work', wait => '2 days')$$,
	$$claim('work', max_bytes => 0)$$, $$claim('work', max_bytes => -1)$$,
	$$claim_bytes('nowhere')$$, $$claim_bytes('work', batch => 0)$$]) AS t (call);
SELECT count(*) AS nulls_are_defaults FROM message_bus.claim('work', batch => NULL, lease_for => NULL, wait => NULL, max_bytes => NULL);
-- max_bytes: as many as fit, and always one
SELECT message_bus.publish('work', to_json(repeat(n::text, 98))) IS NOT NULL AS published FROM generate_series(1, 4) AS n;
SELECT left(message, 3) AS message FROM pg_temp.take('bytes1', $$'work', batch => 10, max_bytes => 10$$);
SELECT left(message, 3) AS message FROM pg_temp.take('bytes2', $$'work', batch => 10, max_bytes => 299$$);
SELECT left(message, 3) AS message FROM pg_temp.take('bytes3', $$'work', batch => 10, max_bytes => 100$$);
SELECT message_bus.ack(lease) FROM taken WHERE tag ~ '^bytes' GROUP BY lease ORDER BY lease;
-- large payloads by reference
SET message_bus.inline_max = '100B';
SELECT message_bus.publish('work', to_json(repeat('i', 98))) IS NOT NULL AS published;
SELECT message_bus.publish('work', to_json(repeat('r', 99))) IS NOT NULL AS published;
BEGIN;
SELECT size, by_reference, payload IS NULL AS absent, message_bus.get_bytes(id) = convert_to('"' || repeat('r', 99) || '"', 'UTF8') AS get_bytes
	FROM message_bus.claim('work', batch => 2);
ROLLBACK;
SELECT size, by_reference, payload IS NULL AS absent, sha256(message_bus.get_bytes(id)) = sha256 AS get_bytes, message_bus.ack(lease)
	FROM message_bus.claim_bytes('work', batch => 2);
RESET message_bus.inline_max;
-- payloads that are not JSON
SELECT message_bus.publish_text('work', 'not {JSON', 'text/plain') IS NOT NULL AS text, message_bus.publish_bytes('work', '\x00ff') IS NOT NULL AS bytes,
		message_bus.publish('work', '{"a": 1, "a": 1.0, "\u0000": "\ud800"}') IS NOT NULL AS odd_json;
BEGIN;
SELECT content_type, size, by_reference, payload FROM message_bus.claim('work', batch => 10);
ROLLBACK;
SELECT content_type, size, by_reference, payload, message_bus.ack(lease, ARRAY[id]) FROM message_bus.claim_bytes('work', batch => 10);
-- expired, deleted and purged messages are not delivered
SELECT message_bus.publish('work', '"expires"', ttl => '400 milliseconds') IS NOT NULL AS published;
SELECT message_bus.publish('work', '"deleted"', transaction_id => 'd') IS NOT NULL AS published;
SELECT message_bus.publish('work', '"expires out"', ttl => '400 milliseconds') AS expires \gset
SELECT message_bus.publish('work', '"deleted out"') AS deleted \gset
SELECT message_bus.create_subscription('work', 'gone');
SELECT message_bus.create_subscription('work', 'gone2');
SELECT * FROM pg_temp.take('g', $$'work', batch => 10$$);
SELECT count(*) FROM message_bus.claim('work', 'gone', batch => 1000, lease_for => '10 milliseconds');
BEGIN;
DELETE FROM message_bus.message_bus WHERE channel = 'work' AND (transaction_id = 'd' OR id = :deleted);
COMMIT;
SELECT pg_sleep(extract(epoch FROM expires_at - clock_timestamp())) FROM message_bus.messages WHERE id = :expires;
SELECT message_bus.ack(pg_temp.lease('g'), ARRAY[:expires, :deleted]);
SELECT message_bus.nack(pg_temp.lease('g'), delay => '0');
SELECT * FROM pg_temp.take('g2', $$'work', batch => 10$$);
SELECT bool_or(payload::text ~ 'expires|deleted') AS some FROM message_bus.claim('work', 'gone', batch => 1000, wait => '10 seconds');
SELECT bool_or(payload::text ~ 'expires|deleted') AS some FROM message_bus.claim('work', 'gone2', batch => 1000);
SELECT lag_messages FROM message_bus.subscriptions WHERE channel = 'work' AND subscription = 'default';
SELECT message_bus.publish('work', to_json('purged' || n)) IS NOT NULL AS published FROM generate_series(1, 3) AS n;
SELECT * FROM pg_temp.take('pu', $$'work'$$);
SELECT message_bus.purge_channel('work') > 0 AS purged;
SELECT * FROM pg_temp.take('pu2', $$'work', batch => 10$$);
SELECT message_bus.nack(pg_temp.lease('pu'), delay => '0');
SELECT * FROM pg_temp.take('pu2', $$'work', batch => 10$$);
SELECT message_bus.publish('work', '"behind the purge"') IS NOT NULL AS published;
SELECT * FROM pg_temp.take('pu3', $$'work', batch => 10$$);
SELECT message_bus.ack(pg_temp.lease('pu3'));
SELECT subscription, lag_messages FROM message_bus.subscriptions WHERE channel = 'work' ORDER BY 1;

/*
 * The last attempt, without a dead-letter channel: the message stays
 */
SELECT message_bus.create_channel('kept', max_attempts => 2, backoff => '0', backoff_max => '0');
SELECT message_bus.publish('kept', to_json('k' || n), key => 'key') IS NOT NULL AS published FROM generate_series(1, 2) AS n;
SELECT * FROM pg_temp.take('k1', $$'kept', batch => 2$$);
SELECT message_bus.nack(pg_temp.lease('k1'), reason => 'first');
SELECT * FROM pg_temp.take('k2', $$'kept', wait => '10 seconds'$$);
SELECT message_bus.nack(pg_temp.lease('k2'), reason => 'second', delay => '1 hour');
SELECT * FROM pg_temp.take('k3', $$'kept', lease_for => '50 milliseconds'$$);
SELECT pg_temp.wait_for($$SELECT count(*) = 2 FROM message_bus.dead_letters WHERE channel = 'kept'$$);
SELECT * FROM pg_temp.take('none', $$'kept', batch => 10$$);
CREATE TEMP VIEW dead AS
	SELECT channel, subscription, attempts, reason, kind, died_at > claimed_at AS died, dead_letter_id IS NULL AS in_place, dead_letter, role, key, size, content_type,
		message_id = ANY (ARRAY(SELECT id FROM taken)) AS known
	FROM message_bus.dead_letters;
SELECT * FROM pg_temp.dead WHERE channel = 'kept' ORDER BY reason;
SELECT lag_messages, retrying, nacked, leases_expired, dead FROM message_bus.subscriptions WHERE channel = 'kept';
SELECT message, status FROM message_bus.message_bus m JOIN taken t USING (id) WHERE tag = 'k1' ORDER BY place;
SELECT DISTINCT a.outcome, a.n, a.attempt FROM message_bus.ack a JOIN message_bus.failure f ON f.lease = a.lease AND f.message_id = a.lo JOIN taken t ON t.id = a.lo WHERE t.tag = 'k1';
-- the lease that was the last acks nothing
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('k2')));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('k3')));
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, %L)', pg_temp.lease('k3'), pg_temp.ids('k3')));
-- another subscription has nothing to do with it
SELECT message_bus.create_subscription('kept', 'other');
SELECT payload, attempt, message_bus.ack(lease) FROM message_bus.claim('kept', 'other', batch => 10);
-- redrive: all attempts anew
SELECT message_bus.redrive('kept', 1);
SELECT count(*) FROM pg_temp.dead WHERE channel = 'kept';
-- of a redrive that is rolled back nothing remains
BEGIN;
SELECT message_bus.redrive('kept');
SELECT * FROM pg_temp.take('k3b', $$'kept', batch => 10$$);
ROLLBACK;
SELECT count(*) FROM pg_temp.dead WHERE channel = 'kept';
SELECT * FROM pg_temp.take('k4', $$'kept', batch => 10$$);
SELECT message_bus.redrive('kept');
SELECT message_bus.redrive('kept');
SELECT * FROM pg_temp.take('k5', $$'kept', batch => 10$$);
SELECT count(*) FROM pg_temp.dead WHERE channel = 'kept';
SELECT message_bus.nack(pg_temp.lease('k4')), message_bus.nack(pg_temp.lease('k5'));
SELECT * FROM pg_temp.take('k6', $$'kept', batch => 10, wait => '10 seconds'$$);
SELECT message_bus.ack(pg_temp.lease('k6'));
SELECT * FROM pg_temp.take('none', $$'kept', batch => 10$$);
SELECT message_bus.redrive('kept');
SELECT count(*) FROM message_bus.claim('kept', 'other', batch => 10);
SELECT lag_messages, dead FROM message_bus.subscriptions WHERE channel = 'kept' ORDER BY subscription;

/*
 * With one: a copy goes there, with its origin and the reason
 */
SELECT message_bus.create_channel('letters', ttl => '1 hour', max_payload => 5);
SELECT message_bus.create_channel('dies', max_attempts => 1, dead_letter => 'letters', ttl => '2 hours');
SELECT message_bus.publish('dies', '"{\u0000 longer}"', headers => '{"own": 1, "dead_letter": "mine"}', key => 'k', transaction_id => 'tid') AS id \gset
SELECT * FROM pg_temp.take('d1', $$'dies'$$);
SELECT message_bus.nack(pg_temp.lease('d1'), reason => 'bad "one"');
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('d1')));
SELECT * FROM pg_temp.dead WHERE channel = 'dies';
SELECT p.payload, p.key, p.transaction_id, p.content_type, p.headers -> 'own' AS own, p.publisher,
		jsonb_pretty((p.headers -> 'dead_letter') - ARRAY['id', 'channel_id', 'created_at', 'failed_at', 'deaths']) AS dead_letter,
		(p.headers #>> '{dead_letter,id}')::bigint = :id AS id,
		(p.headers #>> '{dead_letter,channel_id}')::integer = (SELECT channel_id FROM message_bus.channel WHERE name = 'dies') AS channel_id,
		(p.headers #>> '{dead_letter,created_at}')::timestamptz = m.created_at AS created_at,
		p.sha256 = m.sha256 AS same_bytes, p.expires_at - p.created_at AS ttl
	FROM message_bus.peek('letters') p, message_bus.messages m WHERE m.id = :id;
SELECT dead_letter_id = p.id AS dead_letter FROM message_bus.dead_letters d, message_bus.peek('letters') p WHERE d.channel = 'dies';
SELECT status FROM message_bus.message_bus WHERE id = :id;
SELECT outcome FROM message_bus.ack WHERE lo = :id;
-- it is not in place, and so not redriven by its own channel's name
SELECT message_bus.redrive('dies');
SELECT message_bus.redrive('letters');
SELECT count(*) FROM pg_temp.dead WHERE channel = 'dies';
SELECT count(*) FROM message_bus.peek('letters');
SELECT * FROM pg_temp.take('d2', $$'dies'$$);
SELECT id = :id AS itself FROM taken WHERE tag = 'd2';
-- an expired lease at the last attempt, and a nack that is rolled back
BEGIN;
SELECT message_bus.nack(pg_temp.lease('d2'));
ROLLBACK;
SELECT count(*) FROM message_bus.peek('letters');
SELECT message_bus.extend(pg_temp.lease('d2'), '10 milliseconds') IS NOT NULL AS shortened;
SELECT pg_temp.wait_for($$SELECT count(*) = 1 FROM message_bus.peek('letters')$$);
SELECT p.headers #>> '{dead_letter,kind}' AS kind, p.headers #> '{dead_letter,reason}' AS reason, p.headers #> '{dead_letter,attempts}' AS attempts
	FROM message_bus.peek('letters') p;
-- dead letters are messages themselves; one whose subscription has gone comes back as a new message
SELECT message_bus.drop_subscription('dies', 'default');
SELECT message_bus.redrive('letters');
SELECT payload, key, headers -> 'own' AS own, headers ? 'dead_letter' AS dead_letter, id = :id AS itself FROM message_bus.peek('dies') ORDER BY id;
SELECT payload, attempt, message_bus.ack(lease) FROM message_bus.claim('letters', batch => 10);
-- what is no dead letter is left alone
SELECT message_bus.publish('letters', '1') IS NOT NULL AS a, message_bus.publish('letters', '2', headers => '{"dead_letter": 1}') IS NOT NULL AS b,
		message_bus.publish('letters', '3', headers => '{"dead_letter": {"channel": "nowhere", "subscription": "x", "id": 1}}') IS NOT NULL AS c;
SELECT message_bus.redrive('letters');
-- a dead-letter channel that was dropped
SELECT message_bus.drop_channel('letters');
SELECT payload, message_bus.nack(lease) FROM message_bus.claim('dies');
SELECT attempts, in_place, dead_letter FROM pg_temp.dead WHERE channel = 'dies';
SELECT pg_temp.refused($$SELECT message_bus.redrive('letters')$$);
SELECT pg_temp.refused($$SELECT message_bus.redrive(NULL)$$);
SELECT pg_temp.refused($$SELECT message_bus.redrive('dies', 0)$$);
-- one of before the place that its subscription was moved to comes back as a new message, too
SELECT message_bus.create_channel('letters', ttl => '1 hour'), message_bus.create_channel('moves', max_attempts => 1, dead_letter => 'letters', ttl => '2 hours');
SELECT message_bus.create_subscription('moves', 'sub');
SELECT message_bus.publish('moves', '"before an id"') AS id \gset
SELECT payload, message_bus.nack(lease) FROM message_bus.claim('moves', 'sub');
SELECT message_bus.seek('moves', 'sub', 'latest');
SELECT message_bus.redrive('letters');
SELECT payload, attempt, id > :id AS copy, message_bus.ack(lease) FROM message_bus.claim('moves', 'sub', batch => 10);
SELECT message_bus.publish('moves', '"before a time"') AS id \gset
SELECT payload, message_bus.nack(lease) FROM message_bus.claim('moves', 'sub');
SELECT message_bus.seek('moves', 'sub', clock_timestamp()::text);
SELECT message_bus.redrive('letters');
SELECT payload, attempt, id > :id AS copy, message_bus.ack(lease) FROM message_bus.claim('moves', 'sub', batch => 10);
SELECT count(*) FROM message_bus.peek('letters');
-- fewer attempts than a message has had
SELECT message_bus.create_channel('fewer', max_attempts => 5, backoff => '0', backoff_max => '0');
SELECT message_bus.publish('fewer', '1') IS NOT NULL AS published;
SELECT count(message_bus.nack(lease)) FROM message_bus.claim('fewer');
SELECT attempt AS second, message_bus.nack(lease, delay => '0') FROM message_bus.claim('fewer', wait => '10 seconds');
SELECT message_bus.alter_channel('fewer', max_attempts => 1);
SELECT attempt AS third, message_bus.nack(lease, delay => '0') FROM message_bus.claim('fewer', wait => '10 seconds');
SELECT count(*) FROM message_bus.claim('fewer');
SELECT attempts FROM message_bus.dead_letters WHERE channel = 'fewer';

/*
 * A message whose bytes do not match is left out, and given up
 */
SELECT message_bus.create_channel('corrupt');
SELECT message_bus.publish('corrupt', to_json('c' || n)) IS NOT NULL AS published FROM generate_series(1, 3) AS n;
SELECT id FROM message_bus.peek('corrupt') WHERE payload::text = '"c2"' \gset
UPDATE message_bus.message SET sha256 = sha256('x') WHERE id = :id;
SELECT * FROM pg_temp.take('co', $$'corrupt', batch => 10$$);
SELECT pg_temp.wait_for($$SELECT count(*) = 1 FROM message_bus.dead_letters WHERE channel = 'corrupt'$$);
SELECT kind, message_id = :id AS it, dead_letter_id FROM message_bus.dead_letters WHERE channel = 'corrupt';
SELECT message_bus.ack(pg_temp.lease('co'));
SELECT * FROM pg_temp.take('none', $$'corrupt', batch => 10$$);
SELECT lag_messages FROM message_bus.subscriptions WHERE channel = 'corrupt';
SELECT message_bus.redrive('corrupt');
-- an ack of its lease is about the messages that were delivered
SELECT message_bus.publish('corrupt', to_json('d' || n)) IS NOT NULL AS published FROM generate_series(1, 3) AS n;
SELECT id FROM message_bus.peek('corrupt') WHERE payload::text = '"d2"' \gset
UPDATE message_bus.message SET sha256 = sha256('x') WHERE id = :id;
BEGIN;
SELECT * FROM pg_temp.take('co2', $$'corrupt', batch => 10$$);
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, %L)', pg_temp.lease('co2'), pg_temp.ids('co2') || :id::bigint));
SELECT message_bus.ack(pg_temp.lease('co2'));
COMMIT;
SELECT message_bus.ack(pg_temp.lease('co2')) AS again;
SELECT pg_temp.wait_for($$SELECT count(*) = 2 FROM message_bus.dead_letters WHERE channel = 'corrupt'$$);
SELECT outcome, sum(n) FROM message_bus.ack a JOIN message_bus.messages m ON m.id = a.lo WHERE m.channel = 'corrupt' AND a.lo >= (pg_temp.ids('co2'))[1]
	GROUP BY outcome ORDER BY outcome;
SELECT kind FROM message_bus.failure WHERE message_id = :id;
SELECT lag_messages, in_flight FROM message_bus.subscriptions WHERE channel = 'corrupt';

-- a reason of any length is kept as far as there is room, and never in the way
SELECT message_bus.create_channel('reasons', max_attempts => 1);
SELECT message_bus.publish('reasons', to_json(n)) IS NOT NULL AS published FROM generate_series(1, 6) AS n;
SELECT message_bus.nack(lease, ARRAY[id], reason => (ARRAY[repeat('x', 8000), repeat('x', 8001), repeat('é', 4001), repeat('€', 100000), repeat('xé', 1000000), ''])[payload::text::integer])
	FROM message_bus.claim('reasons', batch => 6);
SELECT octet_length(reason) AS bytes, left(reason, 2) AS begins, right(reason, 24) AS ends FROM message_bus.dead_letters WHERE channel = 'reasons' ORDER BY message_id;

SELECT metric, value > 0 AS counted FROM message_bus.metrics
	WHERE metric ~ 'claimed|redelivered|acked|nacked|deliveries_expired|dead|redriven|corrupt' ORDER BY metric COLLATE "C";
SELECT count(message_bus.drop_channel(channel)::text) AS dropped FROM message_bus.channels
	WHERE channel IN ('work', 'backoff', 'kept', 'dies', 'letters', 'moves', 'fewer', 'corrupt', 'reasons');
