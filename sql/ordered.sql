--
-- ordered: messages of one key one after the other, in order
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('ordered', ttl => '2 hours', max_attempts => 2, backoff => '0', backoff_max => '0');
SELECT message_bus.create_subscription('ordered', 'sub', ordered => true);
SELECT message_bus.create_subscription('ordered', 'plain');
CREATE FUNCTION pg_temp.publish(VARIADIC messages text[]) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(message_bus.publish('ordered', to_json(m), key => NULLIF(left(m, 1), '-'))) FROM unnest(messages) AS m
$$;
SELECT pg_temp.publish('a1', 'a2', '-1', 'b1', 'a3', '-2', 'b2', 'c1');
-- one of each key, and all without
SELECT * FROM pg_temp.take('1', $$'ordered', 'sub', batch => 100$$);
SELECT * FROM pg_temp.take('2', $$'ordered', 'sub', batch => 100$$);
-- by id, where nothing is ordered
SELECT string_agg(payload::text, ' ') AS plain FROM message_bus.claim('ordered', 'plain', batch => 100);
-- the next of a key when the one before is acked
SELECT message_bus.ack(pg_temp.lease('1'), ARRAY[pg_temp.id('1', '"b1"')]);
SELECT * FROM pg_temp.take('3', $$'ordered', 'sub', batch => 100$$);
-- given back: it comes again, before the next, which nothing overtakes
SELECT message_bus.nack(pg_temp.lease('1'), ARRAY[pg_temp.id('1', '"a1"')], delay => '1 hour');
SELECT pg_temp.publish('a4', 'b3', 'd1');
SELECT * FROM pg_temp.take('4', $$'ordered', 'sub', batch => 100$$);
SELECT retrying FROM message_bus.subscriptions WHERE channel = 'ordered' AND subscription = 'sub';
SELECT message_bus.ack(pg_temp.lease('1')), message_bus.ack(pg_temp.lease('3'));
SELECT message_bus.nack(pg_temp.lease('4'), delay => '1 second');
SELECT * FROM pg_temp.take('5', $$'ordered', 'sub', batch => 1$$);
SELECT * FROM pg_temp.take('6', $$'ordered', 'sub', batch => 1, wait => '10 seconds'$$);
-- the last attempt: dead, and the next of its key goes on
SELECT pg_temp.publish('d2');
SELECT * FROM pg_temp.take('7', $$'ordered', 'sub', batch => 100$$);
SELECT message_bus.nack(pg_temp.lease('6'), reason => 'twice');
SELECT * FROM pg_temp.take('8', $$'ordered', 'sub', batch => 100$$);
SELECT message_id = pg_temp.id('6', '"d1"') AS d1, attempts, key FROM message_bus.dead_letters WHERE channel = 'ordered';
-- redriven, it comes again when its key is free
SELECT message_bus.redrive('ordered');
SELECT * FROM pg_temp.take('9', $$'ordered', 'sub', batch => 100$$);
SELECT message_bus.ack(pg_temp.lease('8'));
SELECT * FROM pg_temp.take('10', $$'ordered', 'sub', batch => 100$$);
-- seek: all from the beginning, one after the other
SELECT message_bus.seek('ordered', 'sub', 'earliest');
CREATE FUNCTION pg_temp.rounds() RETURNS TABLE (messages text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 20 LOOP
		SELECT string_agg(c.payload::text || CASE WHEN message_bus.ack(c.lease) > 0 THEN '' END, ' ' ORDER BY c.id) INTO messages
			FROM message_bus.claim('ordered', 'sub', batch => 100) AS c;
		EXIT WHEN messages IS NULL;
		RETURN NEXT;
	END LOOP;
END
$$;
-- (within one transaction an ack frees no key)
SELECT * FROM pg_temp.rounds();
SELECT * FROM pg_temp.rounds();
SELECT * FROM pg_temp.rounds();
SELECT * FROM pg_temp.rounds();
SELECT * FROM pg_temp.rounds();
SELECT lag_messages, in_flight, ready, retrying FROM message_bus.subscriptions WHERE channel = 'ordered' AND subscription = 'sub';
-- a delayed message takes its place when it is due
SELECT message_bus.publish('ordered', '"e1"', key => 'e', delay => '1 second') IS NOT NULL AS published;
SELECT pg_temp.publish('e2', 'e3');
SELECT * FROM pg_temp.take('e', $$'ordered', 'sub', batch => 1$$);
SELECT pg_sleep(1.05);
SELECT message_bus.ack(pg_temp.lease('e'));
SELECT * FROM pg_temp.take('e2', $$'ordered', 'sub', batch => 100$$);
SELECT message_bus.ack(pg_temp.lease('e2'));
SELECT * FROM pg_temp.take('e3', $$'ordered', 'sub', batch => 100$$);
SELECT message_bus.ack(pg_temp.lease('e3'));
-- deleted and expired messages hold up nobody
SELECT pg_temp.publish('f1', 'f2', 'f4');
SELECT message_bus.publish('ordered', '"f3"', key => 'f', ttl => '100 milliseconds') IS NOT NULL AS published;
SELECT pg_temp.publish('f5');
SELECT * FROM pg_temp.take('f', $$'ordered', 'sub', batch => 100$$);
DELETE FROM message_bus.message_bus WHERE channel = 'ordered' AND payload::text = '"f2"';
SELECT pg_sleep(0.15);
SELECT message_bus.ack(pg_temp.lease('f'));
SELECT * FROM pg_temp.take('f2', $$'ordered', 'sub', batch => 100$$);
SELECT message_bus.ack(pg_temp.lease('f2'));
SELECT * FROM pg_temp.take('f3', $$'ordered', 'sub', batch => 100$$);
SELECT message_bus.ack(pg_temp.lease('f3'));
-- one hot key with many behind it costs one entry, and others pass
SELECT message_bus.publish_batch_bytes('ordered', array_agg('x'::bytea), 'text/plain', keys => array_agg('hot'::text)) IS NOT NULL AS published FROM generate_series(1, 20000);
SELECT pg_temp.publish('z1');
SELECT key, count(*) FROM message_bus.claim('ordered', 'sub', batch => 10000) GROUP BY key ORDER BY key;
SELECT in_flight, ready, s.retrying, l.lag_messages, abs(s.lag_messages - l.lag_messages) < 2000 AS near, lag_estimated FROM message_bus.subscriptions s, message_bus.subscription_lag(channel, subscription) l WHERE channel = 'ordered' AND subscription = 'sub';
SELECT message_bus.drop_channel('ordered');
-- a message whose bytes do not match is given up, and the next of its key goes on
SELECT message_bus.create_channel('damaged', ttl => '1 hour');
SELECT message_bus.create_subscription('damaged', 'sub', ordered => true);
SELECT message_bus.publish('damaged', to_json(n), key => 'k') IS NOT NULL AS published FROM generate_series(1, 4) AS n;
UPDATE message_bus.message SET sha256 = sha256('x') WHERE id = (SELECT min(id) FROM message_bus.peek('damaged'));
SELECT * FROM pg_temp.take('damaged1', $$'damaged', 'sub', batch => 10$$);
SELECT pg_temp.wait_for($$SELECT count(*) = 1 FROM message_bus.dead_letters WHERE channel = 'damaged'$$);
SELECT * FROM pg_temp.take('damaged2', $$'damaged', 'sub', batch => 10, wait => '10 seconds'$$);
-- (the worker has looked at them)
SELECT message_bus.expire() >= 0 AS looked;
SELECT message_bus.ack(pg_temp.lease('damaged2'));
SELECT * FROM pg_temp.take('damaged3', $$'damaged', 'sub', batch => 10$$);
SELECT message_bus.expire() >= 0 AS looked;
SELECT message_bus.ack(pg_temp.lease('damaged3'));
SELECT * FROM pg_temp.take('damaged4', $$'damaged', 'sub', batch => 10$$);
SELECT message_bus.expire() >= 0 AS looked;
SELECT message_bus.ack(pg_temp.lease('damaged4'));
SELECT * FROM pg_temp.take('none', $$'damaged', 'sub', batch => 10$$);
SELECT kind, message_id = (SELECT min(id) FROM message_bus.messages WHERE channel = 'damaged') AS first FROM message_bus.dead_letters WHERE channel = 'damaged';
SELECT lag_messages, in_flight, ready, retrying FROM message_bus.subscriptions WHERE channel = 'damaged';
SELECT message_bus.drop_channel('damaged');
-- a redrive: what waits to be tried again and fills a claim hides nothing
SELECT message_bus.create_channel('reread', ttl => '1 hour', max_attempts => 2);
SELECT message_bus.create_subscription('reread', 'sub', ordered => true);
SELECT message_bus.publish('reread', to_json(k), key => k) IS NOT NULL AS published FROM unnest(ARRAY['a', 'b', 'c']) AS k;
SELECT payload, message_bus.nack(lease, ARRAY[id], delay => '0') FROM message_bus.claim('reread', 'sub');
SELECT payload, message_bus.nack(lease, ARRAY[id], delay => '0') FROM message_bus.claim('reread', 'sub');
SELECT payload, message_bus.nack(lease, ARRAY[id], delay => '0') FROM message_bus.claim('reread', 'sub');
SELECT message_bus.redrive('reread');
SELECT payload, attempt FROM generate_series(1, 3) AS i, LATERAL message_bus.claim('reread', 'sub', batch => sign(i)::int);
SELECT message_bus.drop_channel('reread');
