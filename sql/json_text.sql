--
-- json_text: a value within a payload, whatever the payload holds
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

-- where #>> works, it is the same
CREATE TABLE pg_temp.document (doc json);
INSERT INTO pg_temp.document VALUES
	('1.10'), ('-0'), ('1e400'), ('"x"'), ('""'), ('null'), ('true'), ('false'), ('[]'), ('{}'), (E' \t[ 1 ,\n "2" , null]\r\n '),
	('{"a":1,"a":"2","a":{"b":[1,{"c":"d"}]}}'), ('{"a":{"b":[[],[[1.50]],{"":"empty"}]},"0":"zero","":3}'),
	('{"\u00e9\n\"\\\/":"\ud83d\ude80\b\f\r\t", "é": 1}'), ('[{"a":[{"b":"x"}]},"y",[[["z"]]]]'), (('{"a":"' || repeat('x', 3000) || '"}')::json),
	((repeat('[', 5000) || repeat(']', 5000))::json);
CREATE TABLE pg_temp.step (path text[]);
INSERT INTO pg_temp.step VALUES ('{}'), ('{a}'), ('{a,b}'), ('{a,b,0}'), ('{a,b,1}'), ('{a,b,-1}'), ('{a,b,1,c}'), ('{a,b,1,0,0}'), ('{a,b,2,""}'),
	('{0}'), ('{1}'), ('{2}'), ('{3}'), ('{-1}'), ('{-3}'), ('{-4}'), ('{0,a}'), ('{0,a,0,b}'), ('{-1,0,0,0}'), ('{""}'), (ARRAY[E'é\n"\\/']), ('{é}'),
	('{" 0"}'), ('{1x}'), ('{99999999999999999999}'), ('{-2147483648}'), ('{a,NULL}'), (ARRAY[NULL]);
SELECT message_bus.json_text(doc, VARIADIC path) COLLATE "C" IS NOT DISTINCT FROM (doc #>> path) AS same, count(*), count(doc #>> path) AS found
	FROM pg_temp.document, pg_temp.step GROUP BY 1;
SELECT path, left(doc::text, 40) AS doc, message_bus.json_text(doc, VARIADIC path), doc #>> path AS others
	FROM pg_temp.document, pg_temp.step WHERE message_bus.json_text(doc, VARIADIC path) COLLATE "C" IS DISTINCT FROM (doc #>> path);

-- where it raises an error
CREATE FUNCTION pg_temp.points(value text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(to_hex(ascii(c)), ' ') FROM regexp_split_to_table(value, '') AS c
$$;
SELECT doc, pg_temp.points(message_bus.json_text(doc, 'a')) AS a, message_bus.json_text(doc, 'b') AS b, pg_temp.fails(format('SELECT %L::json ->> %L', doc, 'b')) AS others
	FROM (VALUES ('{"a":"\u0000","b":"ok"}'::json), ('{"a":"x\u0000y","b":"ok"}'), ('{"a":"\ud800","b":"ok"}'), ('{"a":"\udc00\ud800","b":"ok"}'),
		('{"a":"\ud83dx","b":"ok"}'), ('{"a":"\ud83d\n","b":"ok"}'), ('{"a":"\ud83d\u0041","b":"ok"}'), ('{"a":"\uD83D\uDE80","b":"ok"}'),
		('{"\u0000":1,"b":"ok"}')) AS v (doc);
SELECT message_bus.json_text('{"a\u0000":1}', U&'a\FFFD') AS by_what_it_is_given_as;
SELECT message_bus.json_text('"whole"'), message_bus.json_text(NULL, 'a') IS NULL AS no_json, message_bus.json_text('{"a":1}', VARIADIC NULL) IS NULL AS no_path;

-- a hundred thousand members, each with an escape in its name, take no memory to speak of
CREATE FUNCTION pg_temp.used() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT sum(used_bytes) FROM pg_backend_memory_contexts);
END
$$;
SELECT v, after - before > 30000000 AS grows
	FROM (SELECT pg_temp.used() AS before, message_bus.json_text(doc, 'x') AS v, pg_temp.used() AS after
		FROM (SELECT ('{' || repeat('"\n":1,', 100000) || '"x":2}')::json AS doc OFFSET 0) AS d OFFSET 0) AS t;

-- in a query over messages one such payload disturbs nothing
SELECT message_bus.create_channel('j');
SELECT count(message_bus.publish('j', p::json)) FROM unnest(ARRAY['{"tool":"a","out":"\u0000"}', '{"tool":"b","out":"\ud800"}', '[1]', '"x"']) AS p;
SELECT message_bus.json_text(payload, 'tool') AS tool, length(message_bus.json_text(payload, 'out')) AS out
	FROM message_bus.message_bus WHERE channel = 'j' ORDER BY id;

SELECT message_bus.drop_channel('j');
