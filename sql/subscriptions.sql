--
-- subscriptions: create, drop, pause, resume and seek
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('subs', ttl => '1 hour');
SELECT message_bus.publish('subs', to_json(n)) IS NOT NULL AS published FROM generate_series(1, 3) AS n;
CREATE TEMP VIEW subs AS
	SELECT subscription, owner, ordered, paused, created_at <= clock_timestamp() AS created FROM message_bus.subscriptions
	WHERE channel = 'subs';
SELECT message_bus.create_subscription('subs', 'first');
SELECT message_bus.create_subscription('subs', 'ordered', ordered => true);
SELECT message_bus.create_subscription('subs', 'Größe "x" 消息');
SELECT * FROM subs ORDER BY subscription COLLATE "C";
-- one name is one subscription in a channel, not in all
SELECT pg_temp.fails($$SELECT message_bus.create_subscription('subs', 'first')$$);
SELECT message_bus.create_subscription('subs', 'first', if_not_exists => true);
SELECT message_bus.create_subscription('default', 'first');
SELECT message_bus.drop_subscription('default', 'first');
-- bad arguments
SELECT call, pg_temp.fails('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$create_subscription(NULL, 'x')$$, $$create_subscription('subs', NULL)$$, $$create_subscription('subs', 'x', NULL)$$,
	$$create_subscription('nowhere', 'x')$$, $$create_subscription('subs', '')$$, $$create_subscription('subs', E'a\nb')$$,
	$$create_subscription('subs', repeat('x', 256))$$,
	$$create_subscription('subs', 'x', '')$$, $$create_subscription('subs', 'x', 'Latest')$$, $$create_subscription('subs', 'x', '-1')$$,
	$$create_subscription('subs', 'x', '9007199254740992')$$, $$create_subscription('subs', 'x', repeat('9', 100))$$,
	$$create_subscription('subs', 'x', 'infinity')$$, $$create_subscription('subs', 'x', '-infinity')$$, $$create_subscription('subs', 'x', '2026-02-30')$$,
	$$drop_subscription(NULL, 'x')$$, $$drop_subscription('subs', NULL)$$, $$drop_subscription('subs', 'x')$$, $$drop_subscription('nowhere', 'x')$$,
	$$pause(NULL, 'x')$$, $$pause('subs', NULL)$$, $$pause('subs', 'x')$$, $$pause('nowhere', 'x')$$,
	$$resume('subs', 'x')$$, $$resume('nowhere', 'x')$$,
	$$seek('subs', 'x', 'latest')$$, $$seek('nowhere', 'x', 'latest')$$, $$seek('subs', 'first', NULL)$$, $$seek('subs', 'first', 'never')$$,
	$$seek('subs', NULL, 'latest')$$, $$seek('subs', 'first', '9007199254740992')$$, $$seek('subs', 'first', 'infinity')$$]) AS t (call);
SELECT message_bus.drop_subscription('subs', 'x', if_exists => true), message_bus.drop_subscription('nowhere', 'x', if_exists => true);
BEGIN READ ONLY;
SELECT call, pg_temp.fails('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$create_subscription('subs', 'x')$$, $$drop_subscription('subs', 'first')$$, $$pause('subs', 'first')$$,
	$$resume('subs', 'first')$$, $$seek('subs', 'first', 'latest')$$]) AS t (call);
COMMIT;

/*
 * Starts
 */
SELECT id AS second, created_at AS second_at FROM message_bus.peek('subs') WHERE payload::text = '2' \gset
SELECT max(id) + 1000 AS ahead FROM message_bus.peek('subs') \gset
SELECT message_bus.create_subscription('subs', 's_earliest', 'earliest'), message_bus.create_subscription('subs', 's_latest', 'latest'),
		message_bus.create_subscription('subs', 's_id', :'second'), message_bus.create_subscription('subs', 's_zero', '0'),
		message_bus.create_subscription('subs', 's_ahead', :'ahead'), message_bus.create_subscription('subs', 's_time', :'second_at'),
		message_bus.create_subscription('subs', 's_past', '2001-01-01 00:00+00'), message_bus.create_subscription('subs', 's_future', (now() + interval '1 hour')::text);
SELECT message_bus.publish('subs', '4') IS NOT NULL AS published;
CREATE FUNCTION pg_temp.gets(subscription text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT string_agg(payload::text || CASE WHEN attempt > 1 THEN '(' || attempt || ')' ELSE '' END, ' ' ORDER BY id)
	FROM message_bus.claim('subs', subscription, batch => 100)
$$;
SELECT s AS subscription, pg_temp.gets(s) AS gets FROM unnest(ARRAY['s_earliest', 's_latest', 's_id', 's_zero', 's_ahead', 's_time', 's_past', 's_future']) AS s;
SELECT subscription, lag_messages, in_flight FROM message_bus.subscriptions WHERE channel = 'subs' AND subscription ~ '^s_' ORDER BY 1;

/*
 * seek: to the same starts; acked ones again, attempts anew, old leases gone
 */
SELECT * FROM pg_temp.take('a', $$'subs', 'first', batch => 100$$);
SELECT message_bus.ack(pg_temp.lease('a'), (pg_temp.ids('a'))[1:2]);
SELECT message_bus.nack(pg_temp.lease('a'), (pg_temp.ids('a'))[3:3], delay => '0');
SELECT message_bus.seek('subs', 'first', 'earliest');
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s, %L)', pg_temp.lease('a'), (pg_temp.ids('a'))[4:4]));
SELECT * FROM pg_temp.take('b', $$'subs', 'first', batch => 100$$);
SELECT message_bus.ack(pg_temp.lease('b'));
SELECT start, message_bus.seek('subs', 'first', start) FROM (VALUES ('latest')) AS t (start);
SELECT pg_temp.gets('first') AS latest;
SELECT message_bus.seek('subs', 'first', :'second');
SELECT pg_temp.gets('first') AS second;
SELECT message_bus.seek('subs', 'first', :'second_at');
SELECT pg_temp.gets('first') AS second_at;
SELECT message_bus.seek('subs', 'first', :'ahead');
SELECT pg_temp.gets('first') AS ahead;
SELECT message_bus.publish('subs', '5') IS NOT NULL AS published;
SELECT pg_temp.gets('first') AS ahead;
-- one that is rolled back is none; in its transaction nothing is claimed
BEGIN;
SELECT message_bus.seek('subs', 'first', 'earliest');
SELECT pg_temp.refused($$SELECT message_bus.claim('subs', 'first')$$);
SELECT pg_temp.refused($$SELECT message_bus.seek('subs', 'first', 'latest')$$);
ROLLBACK;
SELECT pg_temp.gets('first') AS nothing;
BEGIN;
SAVEPOINT s;
SELECT message_bus.seek('subs', 'first', 'earliest');
ROLLBACK TO s;
SELECT pg_temp.gets('first') AS nothing;
COMMIT;
-- acks of before a seek that was back to the middle
SELECT message_bus.create_subscription('subs', 'middle');
SELECT payload, message_bus.ack(lease) FROM message_bus.claim('subs', 'middle', batch => 4);
SELECT message_bus.seek('subs', 'middle', :'second');
SELECT pg_temp.gets('middle');

/*
 * pause and resume
 */
SELECT message_bus.create_subscription('subs', 'paused');
SELECT * FROM pg_temp.take('p', $$'subs', 'paused'$$);
SELECT message_bus.pause('subs', 'paused');
SELECT message_bus.pause('subs', 'paused');
SELECT paused FROM message_bus.subscriptions WHERE channel = 'subs' AND subscription = 'paused';
SELECT pg_temp.gets('paused') AS nothing;
SELECT message_bus.ack(pg_temp.lease('p'));
SELECT * FROM pg_temp.take('none', $$'subs', 'paused', wait => '50 milliseconds'$$);
SELECT pg_temp.gets('s_latest') AS others_go_on;
BEGIN;
SELECT message_bus.resume('subs', 'paused');
ROLLBACK;
SELECT pg_temp.gets('paused') AS nothing;
SELECT message_bus.resume('subs', 'paused');
SELECT message_bus.resume('subs', 'paused');
SELECT pg_temp.gets('paused');

/*
 * A transaction's own subscription
 */
BEGIN;
SELECT message_bus.create_subscription('subs', 'own', start => 'latest');
SELECT pg_temp.fails($$SELECT message_bus.claim('subs', 'own')$$);
SELECT message_bus.seek('subs', 'own', 'earliest');
SELECT message_bus.pause('subs', 'own');
SELECT message_bus.resume('subs', 'own');
COMMIT;
SELECT pg_temp.gets('own');
BEGIN;
SELECT message_bus.create_subscription('subs', 'rolled back');
ROLLBACK;
SELECT pg_temp.fails($$SELECT message_bus.claim('subs', 'rolled back')$$);

/*
 * drop
 */
SELECT message_bus.create_subscription('subs', 'gone');
SELECT * FROM pg_temp.take('g', $$'subs', 'gone'$$);
BEGIN;
SELECT message_bus.drop_subscription('subs', 'gone');
SELECT pg_temp.fails($$SELECT message_bus.claim('subs', 'gone')$$);
ROLLBACK;
SELECT message_bus.extend(pg_temp.lease('g'), '1 minute') IS NOT NULL AS held;
SELECT message_bus.drop_subscription('subs', 'gone');
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('g')));
SELECT pg_temp.fails($$SELECT message_bus.claim('subs', 'gone')$$);
SELECT count(*) FROM message_bus.leases WHERE subscription = 'gone';
-- another of its name knows nothing of it
SELECT message_bus.create_subscription('subs', 'gone');
SELECT pg_temp.gets('gone');
-- also after a seek in the same transaction
SELECT message_bus.seek('subs', 'gone', 'earliest');
SELECT * FROM pg_temp.take('h', $$'subs', 'gone', batch => 100$$);
BEGIN;
SELECT message_bus.seek('subs', 'gone', 'latest');
SELECT message_bus.drop_subscription('subs', 'gone');
COMMIT;
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('h')));
SELECT pg_temp.fails($$SELECT message_bus.claim('subs', 'gone')$$);
SELECT count(*) FROM message_bus.leases WHERE subscription = 'gone';
SELECT message_bus.create_subscription('subs', 'gone');
SELECT pg_temp.gets('gone');
SELECT in_flight, ready, retrying FROM message_bus.subscriptions WHERE channel = 'subs' AND subscription = 'gone';
-- and of a seek and a drop that are rolled back nothing remains
BEGIN;
SELECT message_bus.seek('subs', 'gone', 'latest');
SELECT message_bus.drop_subscription('subs', 'gone');
ROLLBACK;
SELECT count(*) FROM message_bus.leases WHERE subscription = 'gone';
SELECT message_bus.publish('subs', '6') IS NOT NULL AS published;
SELECT pg_temp.gets('gone');
-- they go with their channel
SELECT message_bus.drop_channel('subs');
SELECT count(*) FROM message_bus.subscriptions WHERE channel = 'subs';
SELECT count(*) FROM message_bus.subscription s WHERE NOT EXISTS (SELECT FROM message_bus.channel c WHERE c.channel_id = s.channel_id);
SELECT pg_temp.refused(format('SELECT message_bus.ack(%s)', pg_temp.lease('p')));

/*
 * Who may: a subscription is made by who may consume, and changed by its
 * owner and the channel's
 */
CREATE ROLE regress_mbus_owner;
CREATE ROLE regress_mbus_consumer;
CREATE ROLE regress_mbus_other;
GRANT EXECUTE ON FUNCTION message_bus.create_channel, message_bus.create_subscription, message_bus.drop_subscription,
	message_bus.pause, message_bus.resume, message_bus.seek TO regress_mbus_owner, regress_mbus_consumer, regress_mbus_other;
SET ROLE regress_mbus_owner;
SELECT message_bus.create_channel('owned');
SELECT message_bus.publish('owned', '1') IS NOT NULL AS published;
RESET ROLE;
SELECT message_bus.grant_channel('owned', 'regress_mbus_consumer', 'consume'), message_bus.grant_channel('owned', 'regress_mbus_other', 'consume');
SET ROLE regress_mbus_consumer;
SELECT message_bus.create_subscription('owned', 'c');
SELECT count(*) FROM message_bus.claim('owned');
RESET ROLE;
SELECT subscription, owner FROM message_bus.subscriptions WHERE channel = 'owned' ORDER BY 1;
CREATE FUNCTION pg_temp.tries(who text, what text) RETURNS TABLE (call text, answer text) LANGUAGE plpgsql AS $$
BEGIN
	FOR call IN SELECT unnest(ARRAY[format('pause(''owned'', %L)', what), format('resume(''owned'', %L)', what),
		format('seek(''owned'', %L, ''earliest'')', what), format('drop_subscription(''owned'', %L)', what)])
	LOOP
		EXECUTE format('SET ROLE %I', who);
		BEGIN
			answer := pg_temp.fails('SELECT message_bus.' || call);
			RAISE sqlstate 'ROLLB';
		EXCEPTION WHEN sqlstate 'ROLLB' THEN
			NULL;
		END;
		RESET ROLE;
		RETURN NEXT;
	END LOOP;
END
$$;
SELECT * FROM pg_temp.tries('regress_mbus_other', 'c');
SELECT * FROM pg_temp.tries('regress_mbus_consumer', 'c');
SELECT * FROM pg_temp.tries('regress_mbus_owner', 'c');
SELECT * FROM pg_temp.tries('regress_mbus_consumer', 'default');
-- the privilege may be taken back
SELECT message_bus.revoke_channel('owned', 'regress_mbus_consumer', 'consume');
SET ROLE regress_mbus_consumer;
SELECT pg_temp.fails($$SELECT message_bus.claim('owned', 'c')$$), pg_temp.fails($$SELECT message_bus.create_subscription('owned', 'd')$$);
SELECT count(*) FROM message_bus.subscriptions;
SELECT message_bus.drop_subscription('owned', 'c');
RESET ROLE;
-- an owner that is gone disturbs nobody
SET ROLE regress_mbus_other;
SELECT message_bus.create_subscription('owned', 'orphan');
RESET ROLE;
SELECT message_bus.revoke_channel('owned', 'regress_mbus_other', 'consume');
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA message_bus FROM regress_mbus_owner, regress_mbus_consumer, regress_mbus_other;
DROP ROLE regress_mbus_other;
SELECT payload FROM message_bus.claim('owned', 'orphan');
SELECT subscription, owner::text ~ '^\d+$' AS gone FROM message_bus.subscriptions WHERE channel = 'owned' ORDER BY 1;
SELECT message_bus.drop_channel('owned');
DROP ROLE regress_mbus_owner;
DROP ROLE regress_mbus_consumer;
