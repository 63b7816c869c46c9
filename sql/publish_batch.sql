--
-- publish_batch and publish_batch_bytes: all of a call is stored, or nothing
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset null '<null>'

SELECT message_bus.create_channel('b', ttl => '1 hour');

-- every member; the ids come in the order of the array
SELECT encode(sha256('{"n":  1.10}'), 'hex') AS sum \gset
SELECT message_bus.publish_batch('b', format('[
	{"payload": {"n":  1.10}, "headers": {"h": 1.0}, "key": "k", "transaction_id": "t1", "ttl": "30 minutes", "delay": "1 minute",
	 "sha256": "%s"},
	{"ttl": 1800, "payload":null , "delay": 0.5, "sha256": "%s"},
	{"payload": [ ], "headers": null, "key": null, "transaction_id": null, "ttl": null, "delay": null, "sha256": null},
	{"payload": "\u0000\ud800", "transaction_id": "\u00e4\n\"", "key": "\ud83d\ude80", "ttl": 36e2, "delay": "PT1S"}]',
	:'sum', upper(encode(sha256('null'), 'hex')))::json) AS ids \gset
SELECT m.id - (:'ids'::bigint[])[1] AS n, key, transaction_id, headers, size, expires_at - created_at AS ttl,
		available_at - created_at AS delay, sha256 = sha256(convert_to(payload::text, 'UTF8')) AS sum, payload
	FROM unnest(:'ids'::bigint[]) WITH ORDINALITY AS i (id, n), message_bus.get(i.id) AS m ORDER BY i.n;

-- none, and many
SELECT message_bus.publish_batch('b', '[]');
SELECT message_bus.publish_batch('b', ' [ ] ');
SELECT array_length(ids, 1), ids[5000] - ids[1] AS in_a_row
	FROM message_bus.publish_batch('b', (SELECT json_agg(json_build_object('payload', n)) FROM generate_series(1, 5000) n)) AS ids;
SELECT count(*), min(payload::text::int), max(payload::text::int)
	FROM message_bus.peek('b', (:'ids'::bigint[])[4], 10000);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('b',
	('[' || repeat('{"payload":1},', 1000000) || '{"payload":1}]')::json)$$);

-- what is no array of objects with these members is an error that names the element, and nothing is stored
SELECT message_bus.create_channel('none');
CREATE FUNCTION pg_temp.batch_fails(messages text) RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.fails(format('SELECT message_bus.publish_batch(''none'', %L)', messages)) $$;
SELECT messages, pg_temp.batch_fails(messages) FROM unnest(ARRAY[
	'{}', '1', 'null', '"x"', '', '[', '[1]', '[null]', '[[]]', '[{}]', '[{"payload": 1}, 2]', '[{"payload": 1}, {}]',
	'[{"payload": 1}, {"payload": 2, "foo": 3}]', '[{"payload": 1, "payload": 2}]', '[{"payload": 1, "key": "a", "key": "a"}]',
	'[{"payload": 1, "p\u0061yload": 2}]', '[{"payload": 1, "channel": "none"}]', '[{"payload": 1, "Key": "a"}]',
	'[{"payload": 1}, {"payload": 2, "key": 3}]', '[{"payload": 1, "key": ""}]', '[{"payload": 1, "key": "\u0000"}]',
	'[{"payload": 1, "key": "\ud800"}]', '[{"payload": 1, "transaction_id": []}]', '[{"payload": 1, "transaction_id": ""}]',
	'[{"payload": 1, "headers": []}]', '[{"payload": 1, "headers": "x"}]', '[{"payload": 1, "headers": {"a": "\u0000"}}]',
	'[{"payload": 1, "headers": {"a": "\ud800"}}]', '[{"payload": 1, "headers": {"a": 1e400000}}]',
	'[{"payload": 1, "ttl": true}]', '[{"payload": 1, "ttl": {}}]', '[{"payload": 1, "ttl": "soon"}]', '[{"payload": 1, "ttl": 0}]',
	'[{"payload": 1, "ttl": -1}]', '[{"payload": 1, "ttl": 1e400}]', '[{"payload": 1, "ttl": 1e12}]', '[{"payload": 1, "ttl": "49 hours"}]',
	'[{"payload": 1, "delay": -1}]', '[{"payload": 1, "delay": "48 hours"}]', '[{"payload": 1, "delay": "x"}]',
	'[{"payload": 1, "ttl": 10, "delay": 10}]',
	'[{"payload": 1, "sha256": 5}]', '[{"payload": 1, "sha256": "00"}]', '[{"payload": 1, "sha256": ""}]',
	'[{"payload": 1}, {"payload": 1, "sha256": "0000000000000000000000000000000000000000000000000000000000000000"}]']) AS messages;
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('none', NULL)$$), pg_temp.fails($$SELECT message_bus.publish_batch(NULL, '[]')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('no such', '[]')$$);
SELECT pg_temp.fails(format($$SELECT message_bus.publish_batch('none', '[{"payload": 1}, {"payload": 2, "key": "%s"}]')$$, repeat('x', 256)));
SELECT count(*) FROM message_bus.peek('none');
SELECT count(*) FROM message_bus.messages WHERE channel = 'none';

-- transaction ids twice in a batch: the same bytes are one message, others are refused
SELECT message_bus.create_channel('twice');
SELECT ids[1] = ids[3] AS first_is_third, ids[1] < ids[2] AS second_is_another
	FROM message_bus.publish_batch('twice', '[{"payload": 1, "transaction_id": "x"}, {"payload": 2}, {"payload": 1, "transaction_id": "x"}]') AS ids;
SELECT payload, transaction_id FROM message_bus.peek('twice');
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('twice',
	'[{"payload": 3, "transaction_id": "y"}, {"payload": 4}, {"payload": 5, "transaction_id": "y"}]')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish_batch('twice', '[{"payload": 6}, {"payload": 1.0, "transaction_id": "x"}]')$$);
SELECT payload, transaction_id FROM message_bus.peek('twice');
-- in any order of the ids
SELECT ids[1] < ids[2] AND ids[2] < ids[3] AS ascending, ids[4] = ids[1] AND ids[5] = ids[2] AS duplicates
	FROM message_bus.publish_batch('twice', '[{"payload": "c", "transaction_id": "c"}, {"payload": "b", "transaction_id": "b"},
		{"payload": "a", "transaction_id": "a"}, {"payload": "c", "transaction_id": "c"}, {"payload": "b", "transaction_id": "b"}]') AS ids;
SELECT payload, transaction_id FROM message_bus.peek('twice');

-- publish_batch_bytes
SELECT message_bus.publish_batch_bytes('b', ARRAY['\x00', '', '\xff']::bytea[], 'image/png',
	ARRAY['{"a": 1}', NULL, '{}']::jsonb[], ARRAY['k1', NULL, 'k3'], ARRAY['b1', 'b2', NULL]) AS ids \gset
SELECT m.id - (:'ids'::bigint[])[1] AS n, key, transaction_id, headers, content_type, size, message_bus.get_bytes(m.id)
	FROM unnest(:'ids'::bigint[]) WITH ORDINALITY AS i (id, n), message_bus.get(i.id) AS m ORDER BY i.n;
SELECT (message_bus.get(id)).payload
	FROM unnest(message_bus.publish_batch_bytes('b', ARRAY['1', ' {"a" : 1}']::bytea[], 'application/json')) AS id;
SELECT message_bus.publish_batch_bytes('b', '{}'), message_bus.publish_batch_bytes('b', '{}', 'x', '{}', '{}', '{}');
SELECT array_length(message_bus.publish_batch_bytes('b', array_agg(sha256(n::text::bytea)), transaction_ids => array_agg('many ' || n)), 1)
	FROM generate_series(1, 3000) n;
SELECT call, pg_temp.fails('SELECT message_bus.publish_batch_bytes(' || call || ')') FROM unnest(ARRAY[
	$$NULL, ARRAY['x'::bytea]$$, $$'none', NULL$$, $$'none', ARRAY['x'::bytea], NULL$$, $$'none', ARRAY['x'::bytea], ''$$,
	$$'none', ARRAY['x'::bytea, NULL]$$, $$'none', ARRAY[ARRAY['x'::bytea], ARRAY['y'::bytea]]$$,
	$$'none', ARRAY['x', 'y']::bytea[], headers => ARRAY['{}']::jsonb[]$$,
	$$'none', ARRAY['x', 'y']::bytea[], headers => '{}'$$,
	$$'none', ARRAY['x', 'y']::bytea[], headers => ARRAY['{}', '[]']::jsonb[]$$,
	$$'none', ARRAY['x', 'y']::bytea[], keys => ARRAY['a', 'b', 'c']$$,
	$$'none', ARRAY['x', 'y']::bytea[], transaction_ids => ARRAY['a']$$,
	$$'none', ARRAY['x', 'y']::bytea[], transaction_ids => ARRAY[ARRAY['a', 'b']]$$,
	$$'none', ARRAY['x', 'y']::bytea[], transaction_ids => ARRAY['a', '']$$,
	$$'none', ARRAY['x', 'y']::bytea[], transaction_ids => ARRAY['a', 'a']$$,
	$$'none', ARRAY['x', 'y']::bytea[], keys => ARRAY['a', repeat('x', 256)]$$,
	$$'none', ARRAY['1', '{']::bytea[], 'application/json'$$,
	$$'none', ARRAY['1', '\xff']::bytea[], 'application/json'$$]) AS t (call);
SELECT count(*) FROM message_bus.messages WHERE channel = 'none';
-- arrays whose bounds are not from 1 are arrays
SELECT array_length(message_bus.publish_batch_bytes('none', '[0:1]={x,y}', keys => '[5:6]={a,b}'), 1);

SELECT message_bus.drop_channel('b'), message_bus.drop_channel('none'), message_bus.drop_channel('twice');
