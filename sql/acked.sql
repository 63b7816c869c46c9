--
-- acked: a channel with retention acked, of which nothing goes before every
-- subscription has acked it; when it goes is in tests/t/060_delivery_segments.t
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('acked', ttl => '24 hours', retention => 'acked');
SELECT message_bus.create_subscription('acked', 'one');
SELECT message_bus.create_subscription('acked', 'two');
SELECT message_bus.publish('acked', to_json(n)) IS NOT NULL AS published FROM generate_series(1, 3) AS n;
SELECT * FROM pg_temp.take('one', $$'acked', 'one', batch => 10$$);
SELECT * FROM pg_temp.take('two', $$'acked', 'two', batch => 10$$);
SELECT message_bus.ack(pg_temp.lease('one'));
SELECT count(*) FROM message_bus.peek('acked');
SELECT message_bus.ack(pg_temp.lease('two'), (pg_temp.ids('two'))[1:2]);
SELECT count(*) FROM message_bus.peek('acked');
SELECT lag_messages FROM message_bus.subscriptions WHERE channel = 'acked' ORDER BY subscription;
SELECT message_bus.ack(pg_temp.lease('two'));
-- what is acked by all may be read until its segment goes
SELECT retention FROM message_bus.channels WHERE channel = 'acked';
SELECT message_bus.expire() >= 0 AS looked;
SELECT message_bus.publish('acked', '4') IS NOT NULL AS published;
SELECT payload, message_bus.ack(lease) FROM message_bus.claim('acked', 'one', batch => 10);
SELECT payload, message_bus.ack(lease) FROM message_bus.claim('acked', 'two', batch => 10);
SELECT lag_messages FROM message_bus.subscriptions WHERE channel = 'acked' ORDER BY subscription;
SELECT message_bus.drop_channel('acked');
