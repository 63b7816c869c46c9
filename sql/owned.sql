--
-- owned: how many channels and subscriptions a role may own
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset format unaligned
\pset tuples_only on

CREATE ROLE regress_owned_a;
CREATE ROLE regress_owned_b;
GRANT EXECUTE ON FUNCTION message_bus.create_channel, message_bus.alter_channel, message_bus.drop_channel, message_bus.create_subscription, message_bus.drop_subscription TO regress_owned_a, regress_owned_b;
SET message_bus.max_channels_per_role = 3;
SET message_bus.max_subscriptions_per_role = 3;

-- channels
SET ROLE regress_owned_a;
SELECT message_bus.create_channel('owned ' || i) FROM generate_series(1, 3) i;
SELECT pg_temp.fails($$SELECT message_bus.create_channel('owned 4')$$);
SELECT message_bus.create_channel('owned 3', if_not_exists => true);
SELECT pg_temp.fails($$SELECT message_bus.create_channel('owned 3')$$);
-- the setting is not its own to change
SELECT pg_temp.fails($$SET message_bus.max_channels_per_role = 4$$);
-- others do not notice
SET ROLE regress_owned_b;
SELECT message_bus.create_channel('owned b');
-- nor is there a way around by giving them away
RESET ROLE;
GRANT regress_owned_a TO regress_owned_b;
SET ROLE regress_owned_b;
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('owned b', owner => 'regress_owned_a')$$);
SELECT message_bus.alter_channel('owned 1', owner => 'regress_owned_a', ttl => '1 hour');
-- what is dropped makes room, in the same transaction too
SET ROLE regress_owned_a;
BEGIN;
SELECT message_bus.drop_channel('owned 1');
SELECT message_bus.create_channel('owned 4');
SELECT pg_temp.fails($$SELECT message_bus.create_channel('owned 5')$$);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 1;
SELECT pg_temp.fails($$SELECT message_bus.create_channel('owned 5')$$);
ROLLBACK;
-- a superuser may own any number
RESET ROLE;
SELECT message_bus.create_channel('owned super ' || i) FROM generate_series(1, 5) i;

-- subscriptions
SET ROLE regress_owned_a;
SELECT message_bus.create_subscription('owned 1', 's' || i) FROM generate_series(1, 3) i;
SELECT pg_temp.fails($$SELECT message_bus.create_subscription('owned 2', 's')$$);
SELECT message_bus.create_subscription('owned 1', 's1', if_not_exists => true);
SELECT pg_temp.fails($$SELECT * FROM message_bus.claim('owned 2')$$);
SET ROLE regress_owned_b;
SELECT message_bus.create_subscription('owned b', 's');
SET ROLE regress_owned_a;
SELECT message_bus.drop_subscription('owned 1', 's1');
SELECT count(*) FROM message_bus.claim('owned 2');
SELECT pg_temp.fails($$SELECT message_bus.create_subscription('owned 1', 's1')$$);

-- leases that a channel bounds
RESET ROLE;
SELECT message_bus.create_channel('bounded', lease => '1 hour', max_lease => '10 minutes');
SELECT message_bus.create_subscription('bounded', 's');
SELECT max_lease FROM message_bus.channels WHERE channel = 'bounded';
SELECT message_bus.publish('bounded', to_json(i)) > 0 FROM generate_series(1, 3) i;
SELECT lease FROM message_bus.claim('bounded', 's') \gset
SELECT deadline < now() + interval '11 minutes' FROM message_bus.leases WHERE lease = :lease;
SELECT pg_temp.fails($$SELECT * FROM message_bus.claim('bounded', 's', lease_for => '10 minutes 1 second')$$);
SELECT count(*) FROM message_bus.claim('bounded', 's', lease_for => '10 minutes');
SELECT pg_temp.fails(format($$SELECT message_bus.extend(%s, '1 hour')$$, :lease));
SELECT message_bus.extend(:lease, '5 minutes') < now() + interval '6 minutes';
SELECT message_bus.alter_channel('bounded', max_lease => '0');
SELECT max_lease IS NULL FROM message_bus.channels WHERE channel = 'bounded';
SELECT message_bus.extend(:lease, '1 hour') > now() + interval '50 minutes';
SELECT pg_temp.fails(format($$SELECT message_bus.extend(%s, '8 days')$$, :lease));
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('bounded', max_lease => '8 days')$$);
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('bounded', max_lease => '-1 second')$$);
SELECT message_bus.ack(lease) FROM (SELECT DISTINCT lease FROM message_bus.leases WHERE channel = 'bounded') l;

SELECT message_bus.drop_channel(channel) FROM message_bus.channels WHERE channel LIKE 'owned %' OR channel = 'bounded';
REVOKE ALL ON FUNCTION message_bus.create_channel, message_bus.alter_channel, message_bus.drop_channel, message_bus.create_subscription, message_bus.drop_subscription FROM regress_owned_a, regress_owned_b;
DROP ROLE regress_owned_a, regress_owned_b;
