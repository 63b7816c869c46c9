--
-- get, get_by_transaction and peek
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset null '<null>'

SELECT message_bus.create_channel('r', ttl => '1 hour');
SELECT message_bus.create_channel('other', ttl => '1 hour');

-- what is not there is NULL, whatever is asked for
SELECT id, NOT EXISTS (SELECT FROM message_bus.get(id)) AS nothing FROM unnest(ARRAY[NULL, 0, 1, -1, (1::bigint << 53) - 1, 1::bigint << 53,
	9223372036854775807, -9223372036854775808]) AS id;
SELECT NOT EXISTS (SELECT FROM message_bus.get(message_bus.publish('r', '1') + 1)) AS not_yet;
SELECT count(*) FROM message_bus.get(0) AS m;
SELECT NOT EXISTS (SELECT FROM message_bus.get_by_transaction('r', 'no such')) AS nothing, NOT EXISTS (SELECT FROM message_bus.get_by_transaction('r', NULL)) AS null_id,
	NOT EXISTS (SELECT FROM message_bus.get_by_transaction(NULL, 'x')) AS null_channel, NOT EXISTS (SELECT FROM message_bus.get_by_transaction('r', '')) AS empty,
	NOT EXISTS (SELECT FROM message_bus.get_by_transaction('r', repeat('x', 100000))) AS too_long;
SELECT pg_temp.fails($$SELECT message_bus.get_by_transaction('no such', 'x')$$);

-- in the statement and the transaction that published it
SELECT (message_bus.get(message_bus.publish('r', '"same statement"'))).payload;
BEGIN;
SELECT message_bus.publish('r', '"same transaction"', transaction_id => 'st') AS id \gset
SELECT (message_bus.get(:id)).payload, (message_bus.get_by_transaction('r', 'st')).payload;
SELECT message_bus.get_bytes(:id) = '"same transaction"' AS bytes;
SELECT count(*) FROM message_bus.messages WHERE id = :id;
ROLLBACK;
SELECT NOT EXISTS (SELECT FROM message_bus.get(:id)) AS rolled_back;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT message_bus.publish('r', '"repeatable"') AS id \gset
SELECT (message_bus.get(:id)).payload;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT (message_bus.get(:id)).payload;
SELECT payload FROM message_bus.peek('r', :id - 1);
COMMIT;

-- over inline_max a body is by reference, but for get
SET message_bus.inline_max = '10B';
SELECT message_bus.publish('r', '"12345678"', transaction_id => 'ten') AS ten \gset
SELECT message_bus.publish('r', '"123456789"', transaction_id => 'eleven') AS eleven \gset
SELECT size, by_reference, payload FROM message_bus.get_by_transaction('r', 'ten');
SELECT size, by_reference, payload, sha256 = sha256('"123456789"') AS sum FROM message_bus.get_by_transaction('r', 'eleven');
SELECT size, by_reference, payload FROM message_bus.get(:eleven);
SELECT size, by_reference, payload FROM message_bus.peek('r', :ten - 1);
SELECT message_bus.get_bytes(:eleven, 1, 3);
SET message_bus.inline_max = 0;
SELECT by_reference, payload FROM message_bus.get_by_transaction('r', 'ten');
SELECT by_reference FROM message_bus.get(message_bus.publish_bytes('r', ''));
RESET message_bus.inline_max;
SELECT by_reference, payload FROM message_bus.get_by_transaction('r', 'eleven');
SHOW message_bus.inline_max;
-- its default is 1 MiB exactly
SELECT message_bus.publish_bytes('r', convert_to(repeat('x', 1048576 + n), 'UTF8'), transaction_id => 'mib' || n) > 0 AS stored FROM generate_series(0, 1) n;
SELECT (message_bus.get_by_transaction('r', 'mib' || n)).by_reference FROM generate_series(0, 1) n;

-- peek: by id, from after an id, at most so many
SELECT message_bus.publish_batch('other', (SELECT json_agg(json_build_object('payload', n)) FROM generate_series(1, 250) n)) AS ids \gset
SELECT message_bus.publish('r', '"between"') > 0 AS stored;
SELECT message_bus.publish('other', '251') AS last \gset
SELECT (:'ids'::bigint[])[1] AS first \gset
SELECT count(*), min(payload::text::int), max(payload::text::int), bool_and(id > lag) AS ascending
	FROM (SELECT id, payload, lag(id) OVER () FROM message_bus.peek('other')) AS p;
SELECT count(*), max(payload::text::int) FROM message_bus.peek('other', max_messages => 10000);
SELECT payload FROM message_bus.peek('other', max_messages => 1);
SELECT payload FROM message_bus.peek('other', :first, 2);
SELECT payload FROM message_bus.peek('other', :last - 2, 10);
SELECT payload FROM message_bus.peek('other', :last);
SELECT after, count(*), min(payload::text::int) FROM unnest(ARRAY[NULL, 0, -1, -9223372036854775808, 9223372036854775807]) AS after,
	message_bus.peek('other', after) GROUP BY after ORDER BY after;
SELECT count(*) FROM message_bus.peek('other', 0, NULL);
SELECT count(*) FROM message_bus.peek(NULL);
SELECT n, pg_temp.fails(format('SELECT count(*) FROM message_bus.peek(''other'', 0, %s)', n)) FROM unnest(ARRAY[0, -1, 10000, 10001, 2147483647, -2147483648]) AS n;
SELECT pg_temp.fails($$SELECT message_bus.peek('no such')$$);
-- and so many bytes, but for a first message that is larger, as a claim; 250 of 1 to 3 bytes, and one of 3
SELECT b, count(*), sum(size), max(payload::text::int) FROM unnest(ARRAY[1, 2, 9, 10, 11, 12, 13, 300, 100000, 9223372036854775807, NULL]) AS b, message_bus.peek('other', max_bytes => b, max_messages => 1000) GROUP BY b ORDER BY b;
SELECT count(*), sum(size) FROM message_bus.peek('other', max_bytes => 12, max_messages => 3);
SELECT count(*), sum(size), max(payload::text::int) FROM message_bus.peek('other', :last - 3, max_bytes => 1);
SELECT n, pg_temp.fails(format('SELECT count(*) FROM message_bus.peek(''other'', max_bytes => %s)', n)) FROM unnest(ARRAY[0, -1, -9223372036854775808]) AS n;
-- page after page gives each message once
WITH RECURSIVE page (after, ids) AS (
	SELECT 0::bigint, '{}'::bigint[]
	UNION ALL
	SELECT n.ids[array_length(n.ids, 1)], n.ids FROM page, LATERAL (
		SELECT array_agg(id ORDER BY id) FROM message_bus.peek('other', after, 7)) AS n (ids)
	WHERE n.ids IS NOT NULL)
SELECT count(*), count(DISTINCT id), count(DISTINCT page.ids) AS pages FROM page, unnest(page.ids) AS id;
-- deleted ones are left out and do not count
SET message_bus.default_channel = 'other';
SELECT message_bus.record_event(id, 'deleted', now()) AS deleted, count(*)
	FROM unnest((:'ids'::bigint[])[1:250]) WITH ORDINALITY AS i (id, n) WHERE n % 2 = 1 GROUP BY 1;
SELECT payload FROM message_bus.peek('other', max_messages => 3);
SELECT count(*) FROM message_bus.peek('other', max_messages => 10000);
RESET message_bus.default_channel;
-- a transaction's own publishes have not ended: peek stops before them
BEGIN;
SELECT message_bus.publish('other', '252') > :last AS stored;
SELECT payload FROM message_bus.peek('other', :last - 1);
COMMIT;
SELECT payload FROM message_bus.peek('other', :last - 1);
-- what a savepoint undid leaves a gap in the ids, nothing else
BEGIN;
SELECT message_bus.publish('other', '253') > 0 AS stored;
SAVEPOINT s;
SELECT message_bus.publish('other', '"undone"') > 0 AS stored;
ROLLBACK TO s;
SELECT message_bus.publish('other', '254') > 0 AS stored;
COMMIT;
SELECT payload FROM message_bus.peek('other', :last);

-- stored_message is a row type as others are
SELECT jsonb_object_keys(to_jsonb(m)) FROM message_bus.get(:ten) AS m;
SELECT (m).id = :ten AS id, (m).channel FROM (SELECT message_bus.get(:ten)) AS s (m);
SELECT count(*) FROM (SELECT message_bus.peek('other', :last)) AS s (m) WHERE (m).channel = 'other';
SELECT x.id - :ten AS id FROM (VALUES (:ten::bigint), (:eleven)) AS v (i), LATERAL message_bus.get(i) AS x;
PREPARE p (bigint) AS SELECT payload FROM message_bus.get($1);
EXECUTE p (:ten);
EXECUTE p (NULL);
DEALLOCATE p;
CREATE TABLE pg_temp.copy AS SELECT * FROM message_bus.peek('other', :last);
SELECT count(*) FROM pg_temp.copy;

SELECT message_bus.drop_channel('r'), message_bus.drop_channel('other');
