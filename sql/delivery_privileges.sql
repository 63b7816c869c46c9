--
-- delivery_privileges: who may claim, ack and administer; on a server whose
-- default privileges give every new table and function away
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

CREATE ROLE regress_mbus_anon;
CREATE ROLE regress_mbus_authenticated;
CREATE ROLE regress_mbus_service BYPASSRLS;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES
	TO regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS
	TO regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;
DROP EXTENSION message_bus;
CREATE EXTENSION message_bus;
GRANT ALL ON pg_temp.taken, pg_temp.taken_place_seq TO PUBLIC;

SELECT message_bus.create_channel('secret', max_attempts => 1), message_bus.create_channel('open', max_attempts => 1, dead_letter => 'secret');
SELECT message_bus.grant_channel('open', 'regress_mbus_authenticated', 'consume');
SELECT message_bus.publish(c, to_json(c || n)) IS NOT NULL AS published FROM unnest(ARRAY['secret', 'open']) AS c, generate_series(1, 3) AS n;
SELECT message_bus.create_subscription('secret', 'sub'), message_bus.create_subscription('open', 'sub');
SELECT message_bus.nack(lease) FROM message_bus.claim('secret', 'sub');
SELECT * FROM pg_temp.take('secret', $$'secret', 'sub'$$);
SELECT * FROM pg_temp.take('acked', $$'secret', 'sub'$$);
SELECT message_bus.ack(pg_temp.lease('acked'));
SELECT pg_temp.lease('secret') AS secret, pg_temp.lease('acked') AS acked \gset

-- the parts that hold acks and failures are nobody's
SELECT regexp_replace(c.relname, '_\d+', '_<n>') AS part, bool_and(c.relrowsecurity) AS row_security,
		bool_or(EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner)) AS granted
	FROM pg_class c WHERE c.relnamespace = 'message_bus'::regnamespace AND c.relname ~ '^(ack|failure)_\d+$' GROUP BY 1 ORDER BY 1;
CREATE FUNCTION pg_temp.reads(who text) RETURNS TABLE (relation text, answer text) LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT c.oid, c.relname FROM pg_class c WHERE c.relnamespace = 'message_bus'::regnamespace
		AND c.relname ~ '^(ack|failure|subscription|checkpoint)(_\d+)?$' AND c.relkind IN ('r', 'p')
	LOOP
		relation := regexp_replace(r.relname, '_\d+', '_<n>');
		EXECUTE format('SET ROLE %I', who);
		answer := regexp_replace(pg_temp.fails(format('SELECT FROM %s', r.oid::regclass)), '_\d+', '_<n>');
		RESET ROLE;
		RETURN NEXT;
	END LOOP;
END
$$;
SELECT * FROM pg_temp.reads('regress_mbus_anon') GROUP BY relation, answer ORDER BY relation COLLATE "C";
SELECT DISTINCT answer LIKE '42501 %' AS refused FROM pg_temp.reads('regress_mbus_authenticated');
SELECT DISTINCT answer LIKE '42501 %' AS refused FROM pg_temp.reads('regress_mbus_service');

-- every function, as one who has no privilege on the channel
CREATE FUNCTION pg_temp.calls(who text, channel text, lease bigint, acked bigint) RETURNS TABLE (call text, answer text) LANGUAGE plpgsql AS $$
DECLARE
	command text;
BEGIN
	FOREACH call IN ARRAY ARRAY['claim(:c, ''sub'')', 'claim_bytes(:c, ''sub'')', 'claim(:c)', 'ack(:l)', 'ack(:l, ARRAY[1])', 'ack(:a)', 'ack(1)', 'nack(:l)', 'nack(:a)',
		'extend(:l, ''1 hour'')', 'extend(:a, ''1 hour'')', 'release_lease(:l)', 'redrive(:c)', 'purge_channel(:c)',
		'create_subscription(:c, ''mine'')', 'drop_subscription(:c, ''sub'')', 'pause(:c, ''sub'')', 'resume(:c, ''sub'')', 'seek(:c, ''sub'', ''latest'')']
	LOOP
		command := replace(replace(replace(call, ':c', quote_literal(channel)), ':l', lease::text), ':a', acked::text);
		EXECUTE format('SET ROLE %I', who);
		BEGIN
			answer := pg_temp.refused('SELECT message_bus.' || command);
			RAISE sqlstate 'ROLLB';
		EXCEPTION WHEN sqlstate 'ROLLB' THEN
			NULL;
		END;
		RESET ROLE;
		RETURN NEXT;
	END LOOP;
	call := 'CALL wait()';
	EXECUTE format('SET ROLE %I', who);
	answer := pg_temp.refused(format('CALL message_bus.wait(ARRAY[%L], timeout => ''0'')', channel));
	RESET ROLE;
	RETURN NEXT;
END
$$;
SELECT * FROM pg_temp.calls('regress_mbus_anon', 'secret', :secret, :acked);
SELECT bool_and(answer LIKE '42501 %' OR call ~ '^(ack|nack|extend|release_lease)\(' AND answer LIKE '55000 lease % is not held | %') AS refused FROM pg_temp.calls('regress_mbus_authenticated', 'secret', :secret, :acked);
SELECT bool_and(answer LIKE '42501 %' OR call ~ '^(ack|nack|extend|release_lease)\(' AND answer LIKE '55000 lease % is not held | %') AS refused FROM pg_temp.calls('regress_mbus_service', 'secret', :secret, :acked);
-- nothing has come of it
SELECT state, count(*) FROM message_bus.leases WHERE channel = 'secret' GROUP BY state;
SELECT subscription, paused, lag_messages FROM message_bus.subscriptions WHERE channel = 'secret';

-- as one who may consume
SET ROLE regress_mbus_authenticated;
SELECT * FROM pg_temp.take('other', $$'open', 'sub'$$);
RESET ROLE;
SELECT pg_temp.lease('other') AS other \gset
SELECT * FROM pg_temp.calls('regress_mbus_authenticated', 'open', :other, :other);
SET ROLE regress_mbus_authenticated;
SELECT payload FROM message_bus.claim('open', 'sub');
SELECT count(*) FROM message_bus.claim('open', batch => 10);
-- the last nack brings a copy where its caller may not publish
SELECT message_bus.nack(:other, reason => 'no');
RESET ROLE;
SELECT subscription, owner FROM message_bus.subscriptions WHERE channel = 'open' ORDER BY 1;
SELECT p.payload, p.publisher, p.headers #>> '{dead_letter,channel}' AS of FROM message_bus.peek('secret') p WHERE p.headers ? 'dead_letter';

-- views: rows of channels that one may consume
SET ROLE regress_mbus_authenticated;
SELECT channel, count(*) FROM message_bus.subscriptions GROUP BY channel;
SELECT channel, count(*) FROM message_bus.leases GROUP BY channel;
SELECT channel, count(*) FROM message_bus.dead_letters GROUP BY channel;
SELECT channel, status, count(*), bool_or(accessed_at IS NOT NULL) AS accessed FROM message_bus.message_bus GROUP BY channel, status ORDER BY status;
RESET ROLE;
CREATE FUNCTION pg_temp.leak(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
$$ BEGIN RAISE NOTICE 'saw %', value; RETURN true; END $$;
SET ROLE regress_mbus_authenticated;
SELECT count(*) FROM message_bus.subscriptions WHERE pg_temp.leak(channel);
SELECT count(*) FROM message_bus.leases WHERE pg_temp.leak(channel);
SELECT count(*) FROM message_bus.dead_letters WHERE pg_temp.leak(channel);
SET ROLE regress_mbus_anon;
SELECT (SELECT count(*) FROM message_bus.subscriptions) AS subscriptions, (SELECT count(*) FROM message_bus.leases) AS leases,
		(SELECT count(*) FROM message_bus.dead_letters) AS dead_letters;
-- nor do the functions behind them tell
RESET ROLE;
SELECT s.subscription_id AS sub, c.channel_id AS chan FROM message_bus.subscription s JOIN message_bus.channel c USING (channel_id) WHERE c.name = 'secret' \gset
SELECT id AS message_id FROM taken WHERE tag = 'acked' \gset
SET ROLE regress_mbus_anon;
SELECT s IS NULL AS nothing FROM message_bus.subscription_status(:sub) AS s;
SELECT count(*) FROM message_bus.lease_rows(:sub);
SELECT message_bus.delivery_status(:message_id::bigint, :chan, now()) IS NULL AS nothing,
		message_bus.last_access(:message_id::bigint, :chan) IS NULL AS nothing;
RESET ROLE;
-- not of a message that is said to be of a channel of one's own either
SELECT channel_id AS open FROM message_bus.channel WHERE name = 'open' \gset
SELECT message_bus.publish('secret', '"read"') AS read \gset
SELECT message_bus.record_event(:read, 'accessed', clock_timestamp());
SELECT message_bus.last_access(:read, :chan) IS NOT NULL AS accessed;
SET ROLE regress_mbus_authenticated;
SELECT message_bus.last_access(:read, :open) IS NULL AS nothing;
RESET ROLE;
-- a dead letter that says it came from where its reader may not publish is left alone, and stops no other
SELECT message_bus.create_channel('letters'), message_bus.create_channel('dies', max_attempts => 1, dead_letter => 'letters');
SELECT message_bus.create_subscription('dies', 'sub');
SELECT message_bus.grant_channel('letters', 'regress_mbus_authenticated', 'all'), message_bus.grant_channel('dies', 'regress_mbus_authenticated', 'all');
GRANT EXECUTE ON FUNCTION message_bus.redrive TO regress_mbus_authenticated;
SELECT id AS of_secret FROM message_bus.peek('secret') LIMIT 1 \gset
SELECT channel_id AS secret_id FROM message_bus.channel WHERE name = 'secret' \gset
SET ROLE regress_mbus_authenticated;
SELECT message_bus.publish('letters', '"forged"', headers => jsonb_build_object('dead_letter',
	jsonb_build_object('channel', 'secret', 'channel_id', :secret_id, 'subscription', 'sub', 'id', :of_secret::bigint))) IS NOT NULL AS published;
SELECT message_bus.publish('dies', to_json(n)) IS NOT NULL AS published FROM generate_series(1, 2) AS n;
SELECT payload, message_bus.nack(lease, ARRAY[id]) FROM message_bus.claim('dies', 'sub', batch => 2);
\set VERBOSITY sqlstate
SELECT message_bus.redrive('letters');
\set VERBOSITY default
SELECT payload, attempt FROM message_bus.claim('dies', 'sub', batch => 10);
SELECT payload FROM message_bus.peek('letters');
RESET ROLE;
SELECT count(*) AS forged FROM message_bus.peek('secret') WHERE payload::text ~ 'forged';
SELECT state, count(*) FROM message_bus.leases WHERE channel = 'secret' GROUP BY state;

ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES
	FROM regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service, PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS
	FROM regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;
SELECT message_bus.drop_channel('secret'), message_bus.drop_channel('open'), message_bus.drop_channel('letters'), message_bus.drop_channel('dies');
DROP OWNED BY regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;
DROP ROLE regress_mbus_anon;
DROP ROLE regress_mbus_authenticated;
DROP ROLE regress_mbus_service;
