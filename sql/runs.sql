--
-- Runs: the rows of a batch have one entry in the index by channel, its first
-- row's.  Readers that begin or end in the midst of one miss nothing.
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('r', ttl => '1 hour');
SELECT message_bus.create_channel('other', ttl => '1 hour');
CREATE TEMP TABLE sent (place serial, id bigint);
-- five, two of another channel, one alone, three, one of the other, four of which two have a transaction id
INSERT INTO sent (id) SELECT unnest(message_bus.publish_batch_bytes('r', ARRAY(SELECT 'a'::bytea FROM generate_series(1, 5))));
SELECT cardinality(message_bus.publish_batch_bytes('other', '{x,y}')) AS others;
INSERT INTO sent (id) SELECT message_bus.publish_bytes('r', 'b');
INSERT INTO sent (id) SELECT unnest(message_bus.publish_batch_bytes('r', '{c,d,e}'));
SELECT message_bus.publish_bytes('other', 'z') IS NOT NULL AS others;
INSERT INTO sent (id) SELECT unnest(message_bus.publish_batch_bytes('r', '{f,g,h,i}', transaction_ids => '{NULL,t1,NULL,t2}'));
SELECT place, run FROM sent JOIN message_bus.message USING (id) ORDER BY place;
SELECT count(*) AS missed FROM (SELECT id FROM sent EXCEPT SELECT id FROM message_bus.peek('r')) AS m;

-- from each message on, and as many as there are
SELECT count(*) FILTER (WHERE got = ARRAY(SELECT t.id FROM sent t WHERE t.id > s.id ORDER BY t.id LIMIT most)) AS alike, count(*)
	FROM sent s, generate_series(1, 14) AS most, LATERAL (SELECT ARRAY(SELECT id FROM message_bus.peek('r', s.id, most)) AS got) AS p;
-- claims of each size, from each message on
CREATE PROCEDURE pg_temp.all_from() LANGUAGE plpgsql AS $$
DECLARE
	first bigint;
	size integer;
	got bigint[];
	more bigint[];
	alike integer := 0;
BEGIN
	FOR first, size IN SELECT id, n FROM sent, generate_series(1, 6) AS n LOOP
		PERFORM message_bus.create_subscription('r', 's', start => first::text);
		COMMIT;
		got := '{}';
		LOOP
			more := ARRAY(SELECT id FROM message_bus.claim_bytes('r', 's', batch => size));
			EXIT WHEN more = '{}';
			got := got || more;
		END LOOP;
		alike := alike + (got = ARRAY(SELECT id FROM sent WHERE id >= first ORDER BY id))::integer;
		PERFORM message_bus.drop_subscription('r', 's');
		COMMIT;
	END LOOP;
	RAISE INFO '% alike', alike;
END
$$;
CALL pg_temp.all_from();

-- what is left to a subscription that begins in the midst of the first
SELECT message_bus.create_subscription('r', 'lag', start => id::text) FROM sent WHERE place = 3;
SELECT count(*) FROM message_bus.claim_bytes('r', 'lag', batch => 2);
SELECT lag_messages FROM message_bus.subscriptions WHERE subscription = 'lag';

-- one that was rolled back between two that were not
BEGIN;
SAVEPOINT s;
SELECT cardinality(message_bus.publish_batch_bytes('other', '{gone,gone}'));
ROLLBACK TO s;
SELECT cardinality(message_bus.publish_batch_bytes('other', '{here,here}'));
COMMIT;
SELECT convert_from(message_bus.get_bytes(id), 'UTF8') AS other FROM message_bus.peek('other');

-- a purge counts, and takes, the whole of it
SELECT message_bus.purge_channel('r'), (SELECT count(*) FROM message_bus.peek('r')) AS left_of_it;

-- one call has many runs: a run has at most a thousand rows
SELECT cardinality(message_bus.publish_batch_bytes('r', ARRAY(SELECT 'a'::bytea FROM generate_series(1, 2500)))) AS batch;
SELECT run, count(*) FROM message_bus.message JOIN message_bus.peek('r', 0, 10000) USING (id) GROUP BY run ORDER BY run;

SELECT message_bus.drop_channel(channel) FROM unnest('{r,other}'::text[]) AS channel;
