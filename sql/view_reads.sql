--
-- view_reads: what a query over the views messages and message_bus reads: only
-- what it selects, by an index where its conditions allow, and of other
-- people's channels nothing
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset null '<null>'
-- the sessions of PL/pgSQL plan anew for each value
SET plan_cache_mode = force_custom_plan;

SELECT message_bus.create_channel('own', compression => 'none'), message_bus.create_channel('secret', compression => 'none'), message_bus.create_channel('tiny', ttl => '1 hour');
SELECT count(message_bus.publish('own', to_json(repeat(md5(n::text), 16000)), key => 'k' || n % 3, transaction_id => 'own' || n)) FROM generate_series(1, 20) AS n;
SELECT count(message_bus.publish('secret', to_json('secret' || n), key => 'k' || n % 3, transaction_id => 'secret' || n, headers => '{"session_id": "s"}')) FROM generate_series(1, 50) AS n;
SELECT count(message_bus.publish_batch('tiny', '[{"payload": 1}, {"payload": 2, "transaction_id": "t2"}, {"payload": 3, "delay": 60}]')) FROM generate_series(1, 1);

CREATE FUNCTION pg_temp.plan(query text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
	answer json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, VERBOSE, FORMAT JSON) ' || query INTO answer;
	RETURN answer->0->'Plan';
END
$$;
-- blocks of tables that were looked at; the first time also for the catalog
CREATE FUNCTION pg_temp.blocks(query text) RETURNS bigint LANGUAGE sql AS $$
	SELECT (p->>'Shared Hit Blocks')::bigint + (p->>'Shared Read Blocks')::bigint
	FROM pg_temp.plan(query) AS warm, pg_temp.plan(query) AS p
$$;
CREATE FUNCTION pg_temp.nodes(plan json) RETURNS SETOF json LANGUAGE sql AS $$
	WITH RECURSIVE n (node) AS (SELECT plan UNION ALL SELECT json_array_elements(n.node->'Plans') FROM n)
	SELECT node FROM n
$$;

/*
 * A payload that is not selected is not read.
 */
SELECT pg_temp.blocks('SELECT count(*) FROM message_bus.messages WHERE id > 0') AS messages \gset
SELECT pg_temp.blocks('SELECT count(*) FROM message_bus.message_bus WHERE id > 0') <= 1.2 * :messages AS as_messages;
SELECT pg_temp.blocks('SELECT count(*) FROM message_bus.message_bus') <= 1.2 * pg_temp.blocks('SELECT count(*) FROM message_bus.messages') AS as_messages;
-- but where it is selected: 20 of half a megabyte
SELECT pg_temp.blocks('SELECT max(length(payload::text)) FROM message_bus.message_bus') > :messages + 1000 AS payloads_are_read;
-- each of the other columns
SELECT a.attname, pg_temp.blocks(format('SELECT count(%I) FROM message_bus.message_bus', a.attname)) > :messages + 1000 AS reads_payloads
	FROM pg_attribute a WHERE a.attrelid = 'message_bus.message_bus'::regclass AND a.attnum > 0 AND a.attname <> 'payload'
	AND pg_temp.blocks(format('SELECT count(%I) FROM message_bus.message_bus', a.attname)) > :messages + 1000;
SELECT count(*), count(checksum), min(status) FROM message_bus.message_bus WHERE channel = 'own' AND compressed_size_bytes > 500000;
-- nor are the sizes of segments asked for by who only counts them
SELECT node->'Output' FROM pg_temp.nodes(pg_temp.plan('SELECT count(*) FROM message_bus.segments')) AS node WHERE node->>'Output' ~ 'size';

/*
 * Conditions on id, channel and transaction id are looked up, and all say what
 * they would say of all rows.
 */
CREATE FUNCTION pg_temp.found_by(condition text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(node->>'Found By', ' ') FROM pg_temp.nodes(pg_temp.plan('SELECT FROM message_bus.messages m WHERE ' || condition)) AS node
$$;
CREATE FUNCTION pg_temp.same(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	picked bigint[];
	all_of bigint[];
BEGIN
	EXECUTE 'SELECT array_agg(m.id ORDER BY m.id) FROM message_bus.messages m WHERE ' || condition INTO picked;
	EXECUTE 'SELECT array_agg(m.id ORDER BY m.id) FROM (SELECT * FROM message_bus.messages OFFSET 0) m WHERE ' || condition INTO all_of;
	RETURN picked IS NOT DISTINCT FROM all_of;
END
$$;
SELECT min(id) AS lo, max(id) AS hi FROM message_bus.messages WHERE channel = 'own' \gset
SELECT replace(replace(c, ':lo', 'LO'), ':hi', 'HI') AS condition, pg_temp.found_by(d), pg_temp.same(d) FROM unnest(ARRAY[
	$$id = :lo$$, $$:lo = id$$, $$id = :lo AND id = :hi$$, $$id IN (:lo, :hi)$$, $$id IN (:lo, :hi, :lo, 1)$$, $$id = ANY (ARRAY[:hi, NULL, :lo])$$, $$id = ANY ('{}'::bigint[])$$,
	$$id = ANY (ARRAY[:lo, :hi]) AND id > :lo$$, $$id = ALL (ARRAY[:lo]::bigint[])$$, $$id <> ALL (ARRAY[:lo])$$, $$id = NULL$$, $$id > :hi$$, $$id >= :hi$$, $$id < :lo$$, $$id <= :lo$$,
	$$id BETWEEN :lo AND :hi$$, $$:hi > id$$, $$id > 5$$, $$id < 5$$, $$id > '-1'::smallint$$, $$id >= 9223372036854775807$$, $$id > 9223372036854775807$$, $$id < -9223372036854775808$$, $$id = 0$$,
	$$id = :lo + 1$$, $$id = :lo::numeric$$, $$id + 0 = :lo$$, $$id = (SELECT max(n) FROM generate_series(:lo, :lo + 3) n)$$, $$id = :lo OR id = :hi$$,
	$$channel = 'own'$$, $$channel = 'own' AND id > :lo$$, $$channel = 'no such'$$, $$channel IN ('own', 'tiny')$$, $$channel LIKE 'o%'$$, $$channel = 'own' AND channel = 'tiny'$$, $$channel = NULL$$,
	$$transaction_id = 'own3'$$, $$transaction_id = 'own3' AND channel = 'secret'$$, $$transaction_id = 'no such'$$, $$transaction_id = ''$$, $$transaction_id = 't2' AND id > :lo$$, $$transaction_id IS NULL$$,
	$$EXISTS (SELECT FROM (VALUES (:lo), (:hi), (5)) v (i) WHERE v.i = m.id)$$, $$m.id IN (SELECT i FROM (VALUES (:lo), (:hi), (5)) v (i))$$, $$m.id NOT IN (VALUES (:lo))$$,
	$$m.id = (SELECT n.id FROM message_bus.messages n WHERE n.transaction_id = m.transaction_id)$$, $$m.transaction_id = (SELECT n.transaction_id FROM message_bus.messages n WHERE n.id = m.id + 1)$$]) AS c,
	replace(replace(c, ':lo', :'lo'), ':hi', :'hi') AS d;
-- an index is used: few blocks, and no lock is left
SELECT pg_temp.blocks('SELECT size FROM message_bus.messages WHERE id = ' || :lo) < 20 AS few;
BEGIN;
SELECT count(size) FILTER (WHERE channel IN ('own', 'secret', 'tiny')) FROM message_bus.messages;
SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE l.pid = pg_backend_pid() AND c.relname ~ '^(message|event)_\d+';
-- a payload that is not read yet keeps its segment
SELECT count(payload) FILTER (WHERE channel IN ('own', 'secret', 'tiny')) FROM message_bus.message_bus;
SELECT count(*) > 0 AS locked FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE l.pid = pg_backend_pid() AND c.relname ~ '^message_\d+$';
COMMIT;
-- in the order of ids nothing is sorted, whatever is wanted, and a page reads no further
SELECT c AS condition, bool_or(node->>'Node Type' ~ 'Sort') AS sorted FROM unnest(ARRAY['true', $$channel = 'own'$$, $$channel IN ('own', 'tiny')$$, $$transaction_id LIKE 'own%'$$]) AS c,
	pg_temp.nodes(pg_temp.plan('SELECT id FROM message_bus.messages WHERE ' || c || ' ORDER BY id LIMIT 5')) AS node GROUP BY c ORDER BY c COLLATE "C";
SELECT count(*), bool_and(id > before) AS ascending FROM (SELECT id, lag(id) OVER () AS before FROM (SELECT id FROM message_bus.messages WHERE channel IN ('own', 'secret', 'tiny') ORDER BY id LIMIT 1000) m) m;
SELECT pg_temp.blocks('SELECT id FROM message_bus.messages ORDER BY id LIMIT 1') < 15 AS few;
-- joins by id look each one up
SELECT string_agg(node->>'Node Type', ' > ' ORDER BY node->>'Node Type') AS plan, string_agg(node->>'Found By', '') AS found_by
	FROM pg_temp.nodes(pg_temp.plan('SELECT m.size FROM (VALUES (1), (2)) v (i) JOIN message_bus.messages m ON m.id = v.i')) AS node;
SELECT v.place, m.transaction_id FROM (VALUES (1, :lo), (2, :hi), (3, 1)) v (place, i) LEFT JOIN message_bus.messages m ON m.id = v.i ORDER BY 1;
SELECT v.place, m.transaction_id FROM (VALUES (1, :lo), (2, :hi), (3, 1)) v (place, i) LEFT JOIN LATERAL (SELECT * FROM message_bus.messages n WHERE n.id = v.i LIMIT 1) m ON true ORDER BY 1;

/*
 * Rows as one value, cursors, prepared statements, sets, modifications.
 */
SELECT count(m), count(to_json(m)->>'sha256') FROM message_bus.messages m WHERE m.channel = 'own';
SELECT (m).transaction_id FROM (SELECT m FROM message_bus.messages m WHERE id = :lo) AS r;
SELECT m.channel, count(*) FROM (SELECT * FROM message_bus.messages WHERE channel = 'own' UNION ALL SELECT * FROM message_bus.messages WHERE channel = 'tiny') m GROUP BY 1 ORDER BY 1;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT transaction_id FROM message_bus.messages WHERE channel = 'own' ORDER BY id;
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
FETCH LAST FROM c;
DECLARE d SCROLL CURSOR FOR SELECT transaction_id FROM message_bus.messages WHERE channel = 'own';
FETCH 3 FROM d;
FETCH BACKWARD 2 FROM d;
SAVEPOINT s;
FETCH 1 FROM d;
ROLLBACK TO s;
COMMIT;
DECLARE h CURSOR WITH HOLD FOR SELECT transaction_id, left(payload::text, 5) AS payload FROM message_bus.message_bus WHERE channel = 'own';
FETCH 1 FROM h;
CLOSE h;
SET plan_cache_mode = force_generic_plan;
PREPARE p (bigint, text) AS SELECT transaction_id FROM message_bus.messages WHERE id = $1 AND channel = $2;
EXECUTE p (:lo, 'own');
EXECUTE p (:hi, 'own');
EXECUTE p (:hi, 'tiny');
EXECUTE p (NULL, 'own');
DEALLOCATE p;
SET plan_cache_mode = force_custom_plan;
CREATE TABLE pg_temp.noted (id bigint, size bigint);
INSERT INTO pg_temp.noted VALUES (:lo), (5);
UPDATE pg_temp.noted t SET size = m.size FROM message_bus.messages m WHERE m.id = t.id RETURNING t.size;
SELECT t.size FROM pg_temp.noted t JOIN message_bus.messages m USING (id) FOR UPDATE;
SELECT count(*) FILTER (WHERE channel IN ('own', 'secret', 'tiny')) FROM message_bus.message_rows() WITH ORDINALITY;
SELECT count(*) FILTER (WHERE channel IN ('own', 'secret', 'tiny')), count(r) FILTER (WHERE channel IN ('own', 'secret', 'tiny')) FROM ROWS FROM (message_bus.message_rows(), generate_series(1, 2)) r;
-- in a subtransaction that fails, and again
DO $$
BEGIN
	PERFORM 1 / (m.size - m.size) FROM message_bus.messages m;
EXCEPTION WHEN division_by_zero THEN
	RAISE NOTICE 'failed';
END
$$;
SELECT count(*) FROM message_bus.messages WHERE channel = 'tiny';

/*
 * What is gone.
 */
SET message_bus.default_channel = 'own';
SELECT message_bus.delete_message('own7');
BEGIN;
SELECT message_bus.delete_message('own8');
SELECT count(*) FROM message_bus.messages WHERE channel = 'own';
ROLLBACK;
SELECT count(*), count(*) FILTER (WHERE transaction_id = 'own7') AS deleted FROM message_bus.messages WHERE channel = 'own';
SELECT count(*) FROM message_bus.messages WHERE transaction_id = 'own7';
SELECT message_bus.publish('tiny', '4', ttl => '10 milliseconds') AS short \gset
SELECT pg_sleep(0.02);
SELECT status, payload FROM message_bus.message_bus WHERE id = :short;
SELECT count(*) FROM message_bus.messages WHERE id = :short;
SELECT message_bus.purge_channel('tiny');
SELECT count(*) FROM message_bus.messages WHERE channel = 'tiny';
RESET message_bus.default_channel;

/*
 * Other people's channels.  Operators that leak nothing are pushed down as far
 * as they go: no row that one may not see may come there.
 */
CREATE ROLE regress_mbus_reader;
CREATE ROLE regress_mbus_stranger;
SELECT message_bus.grant_channel('own', 'regress_mbus_reader', 'consume');
SELECT message_bus.create_channel('letters'), message_bus.create_channel('dies', max_attempts => 1, dead_letter => 'letters');
SELECT message_bus.create_subscription('secret', 'sub'), message_bus.create_subscription('dies', 'sub'), message_bus.create_subscription('own', 'sub');
SELECT message_bus.publish('dies', '1', key => 'k1') > 0 AS published;
SELECT message_bus.nack(lease, reason => 'no') FROM message_bus.claim('dies', 'sub');
SELECT count(*) FROM message_bus.claim('secret', 'sub', batch => 10);
CREATE FUNCTION pg_temp.seen(query text) RETURNS bigint LANGUAGE sql AS $$
	SELECT max((node->>'Actual Rows')::bigint + COALESCE((node->>'Rows Removed by Filter')::bigint, 0) + COALESCE((node->>'Rows Removed by Join Filter')::bigint, 0))
	FROM pg_temp.nodes(pg_temp.plan(query)) AS node
$$;
GRANT ALL ON pg_temp.noted TO PUBLIC;
CREATE TABLE pg_temp.attack (view text, condition text);
INSERT INTO pg_temp.attack VALUES ('messages', 'true'), ('messages', $$key = 'k1'$$), ('messages', $$transaction_id = 'secret1'$$), ('messages', $$publisher = session_user::text$$), ('messages', $$content_type = 'application/json'$$),
	('messages', $$channel = 'secret'$$), ('messages', 'size > 1'), ('messages', $$sha256 = sha256('"secret1"')$$), ('messages', 'id > 0'), ('message_bus', 'true'), ('message_bus', $$transaction_id = 'secret1'$$),
	('message_bus', $$session_id = 's'$$), ('message_bus', $$checksum = encode(sha256('"secret1"'), 'hex')$$), ('message_bus', $$channel = 'secret'$$), ('channels', 'true'), ('channels', $$channel = 'secret'$$),
	('subscriptions', 'true'), ('subscriptions', $$channel = 'secret'$$), ('subscriptions', $$subscription = 'sub'$$), ('subscriptions', 'lag_messages > 0'), ('leases', 'true'), ('leases', $$channel = 'secret'$$),
	('leases', 'lease > 0'), ('leases', 'message_id > 0'), ('dead_letters', 'true'), ('dead_letters', $$key = 'k1'$$), ('dead_letters', $$channel = 'dies'$$), ('dead_letters', $$dead_letter = 'letters'$$), ('dead_letters', 'message_id > 0');
GRANT SELECT ON pg_temp.attack TO PUBLIC;
-- all there is
SELECT view, condition, pg_temp.seen(format('SELECT * FROM message_bus.%s WHERE %s', view, condition)) > 0 AS sees FROM pg_temp.attack WHERE view <> 'channels' AND condition = 'true';
SET ROLE regress_mbus_stranger;
SELECT view, condition, pg_temp.seen(format('SELECT * FROM message_bus.%s WHERE %s', view, condition)) AS sees FROM pg_temp.attack
	WHERE pg_temp.seen(format('SELECT * FROM message_bus.%s WHERE %s', view, condition)) > 0;
-- one node counts all its rows; those of one's own channel at most
SET ROLE regress_mbus_reader;
SELECT view, condition, pg_temp.seen(format('SELECT * FROM message_bus.%s WHERE %s', view, condition)) AS sees FROM pg_temp.attack
	WHERE pg_temp.seen(format('SELECT * FROM message_bus.%s WHERE %s', view, condition)) > CASE WHEN view IN ('messages', 'message_bus') THEN 19 ELSE 1 END;
SELECT pg_temp.seen('SELECT * FROM message_bus.messages') AS own;
-- nor are the pages of others' messages read, by which they could be counted
SELECT node->>'Shared Hit Blocks' AS hit, node->>'Shared Read Blocks' AS read FROM pg_temp.nodes(pg_temp.plan('SELECT id FROM message_bus.messages WHERE channel = ''secret''')) AS node;
-- no table is in the plans, whose sizes and estimates would tell
SELECT DISTINCT view, node->>'Relation Name' AS relation FROM pg_temp.attack, pg_temp.nodes(pg_temp.plan('SELECT * FROM message_bus.' || view)) AS node WHERE node->>'Relation Name' IS NOT NULL;
-- what the planner believes says nothing of what there is
RESET ROLE;
CREATE FUNCTION pg_temp.believes(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer json;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT JSON) SELECT id FROM message_bus.messages WHERE ' || condition INTO answer;
	RETURN answer->0->'Plan'->>'Plan Rows';
END
$$;
SET ROLE regress_mbus_reader;
SELECT pg_temp.believes($$key = 'k1'$$) = pg_temp.believes($$key = 'no such'$$) AS same;
-- functions that are told of what others have
SELECT count(*) FROM message_bus.message_rows() WHERE channel <> 'own';
SELECT count(*) FROM message_bus.channel_rows() WHERE name <> 'own';
SELECT count(*) FROM message_bus.subscription_rows();
SELECT count(*) FROM message_bus.death_rows();
RESET ROLE;
-- what is asked for may be made of rows that the view is lateral to
SELECT count(*), count(k) FROM generate_series(1, 2) AS a LEFT JOIN LATERAL (SELECT COALESCE(m.key, a::text) AS k FROM message_bus.messages m WHERE m.channel = 'own') AS s ON true;
SELECT count(*), count(k) FROM (SELECT id, row_number() OVER () AS n FROM message_bus.messages WHERE channel = 'own' OFFSET 0) AS a
	LEFT JOIN LATERAL (SELECT COALESCE(m.key, a.n::text) || m.size AS k FROM message_bus.message_bus b JOIN message_bus.messages m USING (id) WHERE m.id = a.id) AS s ON true;
-- without EXECUTE neither the node nor the function runs
BEGIN;
REVOKE EXECUTE ON FUNCTION message_bus.message_rows FROM PUBLIC;
SET ROLE regress_mbus_reader;
SELECT pg_temp.fails('SELECT id FROM message_bus.messages');
SELECT pg_temp.fails('SELECT m FROM message_bus.messages m');
ROLLBACK;

SELECT message_bus.drop_channel(c) FROM unnest(ARRAY['own', 'secret', 'tiny', 'dies', 'letters']) AS c;
SELECT count(*) FROM message_bus.messages WHERE channel IN ('own', 'secret', 'tiny', 'dies', 'letters');
DROP TABLE pg_temp.noted, pg_temp.attack;
DROP ROLE regress_mbus_reader, regress_mbus_stranger;
