--
-- JSON is stored and returned as the exact text that was sent
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

SELECT message_bus.create_channel('j');
CREATE TABLE pg_temp.document (n serial, doc text);
INSERT INTO pg_temp.document (doc) VALUES
	('1.10'), ('-0'), ('-0.0'), ('1e400'), ('1E+400'), ('-1e-400'), ('9007199254740993'), ('18446744073709551615'),
	('-9223372036854775809'), ('123456789012345678901234567890.123456789'), ('0.1e1'),
	('{"a":1,"a":2,"a":1}'), ('{"b":1,"a":2}'), ('{"":""}'),
	('"\u0000"'), ('"\ud800"'), ('"\udc00\ud800"'), ('"\u00e9\u00E9"'), ('"\ud83d\ude80"'), ('"\/\b\f\n\r\t\\\""'),
	('"' || chr(233) || chr(128640) || chr(8232) || chr(127) || '"'),
	(' 1'), (E'\t[ 1 ,\n 2 ]\r\n '), ('{ "a" : { } , "b":[ ] }'), ('null'), ('true'), ('"x"'), ('""'), ('[]'),
	('{"\u0000":"\u0000"}'), ('{"a":"' || repeat('x', 3000) || '"}'),
	(repeat('[', 5000) || repeat(']', 5000)), (repeat('{"a":', 5000) || '1' || repeat('}', 5000)),
	('[' || repeat('"' || md5('x') || '",', 100000) || '1]');

CREATE FUNCTION pg_temp.same(id bigint, expected text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN m.payload::text COLLATE "C" = expected THEN 'text' END || ' '
			|| CASE WHEN m.size = octet_length(expected) THEN 'size' END || ' '
			|| CASE WHEN m.sha256 = sha256(convert_to(expected, 'UTF8')) THEN 'sum' END || ' '
			|| CASE WHEN message_bus.get_bytes(id) = convert_to(expected, 'UTF8') THEN 'bytes' END
		FROM message_bus.get(id) AS m
$$;
-- by every way in
SELECT pg_temp.same(message_bus.publish('j', doc::json), doc) AS publish, count(*) FROM pg_temp.document GROUP BY 1;
SELECT pg_temp.same(message_bus.publish_text('j', doc), doc) AS publish_text, count(*) FROM pg_temp.document GROUP BY 1;
SELECT pg_temp.same(message_bus.publish_bytes('j', convert_to(doc, 'UTF8'), 'application/json'), doc) AS publish_bytes, count(*)
	FROM pg_temp.document GROUP BY 1;
-- in a batch the text of the value counts, without the space around it
SELECT pg_temp.same((message_bus.publish_batch('j', ('[{"payload" : ' || doc || ' , "key": "k"}]')::json))[1],
		btrim(doc, E' \t\r\n')) AS publish_batch, count(*)
	FROM pg_temp.document GROUP BY 1;
SELECT pg_temp.same(message_bus.store_message('t' || n, 's', 't', 'p', doc::json), doc) AS store_message, count(*)
	FROM pg_temp.document GROUP BY 1;
-- and by every way out
SELECT message_bus.retrieve_message('t' || n)::text COLLATE "C" = doc AS retrieve_message, count(*) FROM pg_temp.document GROUP BY 1;
SELECT (message_bus.get_by_transaction('default', 't' || n)).payload::text COLLATE "C" = doc AS get_by_transaction, count(*)
	FROM pg_temp.document WHERE octet_length(doc) < 1000000 GROUP BY 1;
SELECT v.payload::text COLLATE "C" = doc AS message_bus, count(*)
	FROM pg_temp.document d JOIN message_bus.message_bus v ON v.transaction_id = 't' || n GROUP BY 1;
SELECT p.payload::text COLLATE "C" = doc AS peek, count(*)
	FROM pg_temp.document d JOIN message_bus.peek('default', 0, 10000) p ON p.transaction_id = 't' || n
	WHERE octet_length(doc) < 1000000 GROUP BY 1;
SELECT pg_temp.fails(format($$SELECT message_bus.delete_message('t%s')$$, n)), count(*) FROM pg_temp.document GROUP BY 1;

-- what is no JSON is refused by every way in
CREATE TABLE pg_temp.bad (doc text);
INSERT INTO pg_temp.bad VALUES (''), (' '), ('{'), ('[1,]'), ('{"a":1,}'), ('{a:1}'), ('''x'''), ('01'), ('1.'), ('.5'), ('+1'), ('NaN'),
	('Infinity'), ('True'), ('"' || chr(9) || '"'), (E'"\n"'), ('"\x"'), ('"\u12"'), ('"x'), ('1 2'), ('[1] x'), ('// x'), ('1e'),
	(chr(65279) || '1'), (chr(160) || '1');
SELECT left(pg_temp.fails(format($$SELECT message_bus.publish('j', %L)$$, doc)), 46) COLLATE "C" AS publish, count(*) FROM pg_temp.bad GROUP BY 1 ORDER BY 1;
SELECT left(pg_temp.fails(format($$SELECT message_bus.publish_text('j', %L)$$, doc)), 46) COLLATE "C" AS publish_text, count(*) FROM pg_temp.bad GROUP BY 1 ORDER BY 1;
SELECT left(pg_temp.fails(format($$SELECT message_bus.publish_bytes('j', %L, 'application/json')$$, convert_to(doc, 'UTF8'))), 46) COLLATE "C" AS publish_bytes, count(*)
	FROM pg_temp.bad GROUP BY 1 ORDER BY 1;
SELECT left(pg_temp.fails(format($$SELECT message_bus.publish_batch('j', %L)$$, '[{"payload": ' || doc || '}]')), 46) COLLATE "C" AS publish_batch, count(*)
	FROM pg_temp.bad GROUP BY 1 ORDER BY 1;

-- JSON deeper than the stack is refused, and the session goes on
SELECT left(pg_temp.fails($$SELECT message_bus.publish_text('j', repeat('[', 10000000))$$), 27);
SELECT left(pg_temp.fails($$SELECT message_bus.publish_batch('j', ('[{"payload":' || repeat('[', 10000000))::json)$$), 27);
SELECT message_bus.publish('j', '1') > 0 AS goes_on;

SELECT message_bus.drop_channel('j');
