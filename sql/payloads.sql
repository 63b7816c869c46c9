--
-- payloads: every compression gives back the bytes; ranges; verified reads
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

SELECT message_bus.create_channel(c, compression => c) FROM unnest(ARRAY['none', 'lz4', 'zstd', 'gzip']) AS c;

-- bytes that compress and bytes that do not, of sizes around every border
CREATE TABLE pg_temp.body AS
	SELECT row_number() OVER () AS n, size, kind,
		CASE kind WHEN 'text' THEN convert_to(left(repeat('All work and no play. ', size / 22 + 1), size), 'UTF8')
			ELSE (SELECT substr(string_agg(sha512(convert_to(kind || size || i, 'UTF8')), '' ORDER BY i), 1, size)
				FROM generate_series(0, size / 64) AS i) END AS body
	FROM unnest(ARRAY[0, 1, 126, 127, 1023, 1024, 1025, 1990, 2000, 2048, 8000, 65536, 1048576, 1048577, 3000000]) AS size,
		unnest(ARRAY['text', 'noise']) AS kind;
SELECT count(*) FROM pg_temp.body WHERE length(body) <> size;
CREATE TABLE pg_temp.stored AS
	SELECT n, c AS channel, message_bus.publish_bytes(c, body) AS id
	FROM pg_temp.body, unnest(ARRAY['none', 'lz4', 'zstd', 'gzip']) AS c;
SELECT s.channel, count(*), bool_and(message_bus.get_bytes(s.id) = b.body) AS same,
		bool_and(m.size = b.size AND m.sha256 = sha256(b.body)) AS sum
	FROM pg_temp.stored s JOIN pg_temp.body b USING (n), message_bus.get(s.id) AS m
	GROUP BY s.channel ORDER BY s.channel;
-- what compresses is stored so, what does not is stored as it is, and the row says which
SELECT m.channel, b.kind, m.compression, count(*), bool_and(m.stored_size < b.size) AS smaller
	FROM pg_temp.stored s JOIN pg_temp.body b USING (n) JOIN message_bus.messages m USING (id)
	WHERE b.size >= 1024 GROUP BY m.channel, b.kind, m.compression ORDER BY m.channel, b.kind, m.compression;
SELECT m.compression, count(*) FROM pg_temp.stored s JOIN pg_temp.body b USING (n) JOIN message_bus.messages m USING (id)
	WHERE b.size < 1024 GROUP BY m.compression;

-- a change of the channel's compression is for new messages; the old ones stay readable
SELECT message_bus.alter_channel('zstd', compression => 'gzip');
SELECT message_bus.publish_text('zstd', repeat('x', 5000), 'text/plain') AS id \gset
SELECT compression FROM message_bus.messages WHERE id = :id;
SELECT count(*) FROM pg_temp.stored s JOIN pg_temp.body b USING (n) WHERE channel = 'zstd' AND message_bus.get_bytes(id) = body;
SELECT message_bus.alter_channel('zstd', compression => 'zstd');

-- ranges: any, from 0; empty behind the end
CREATE FUNCTION pg_temp.ranges(body bytea, id bigint) RETURNS TABLE (ranges bigint, same boolean) LANGUAGE sql AS $$
	SELECT count(*), bool_and(message_bus.get_bytes(id, f, m) = substr(body, f::int + 1, LEAST(m, length(body))::int))
	FROM unnest(ARRAY[0, 1, 2, length(body) / 2, length(body) - 1, length(body), length(body) + 1, 1000000000]::bigint[]) AS f,
		unnest(ARRAY[0, 1, 2, 1000, 70000, length(body), length(body) + 1, 9223372036854775807]::bigint[]) AS m
	WHERE f >= 0
$$;
SELECT channel, size, kind, ranges, same FROM pg_temp.stored JOIN pg_temp.body USING (n), pg_temp.ranges(body, id)
	WHERE size IN (0, 127, 2000, 1048577) ORDER BY channel, n;
SELECT message_bus.publish_bytes('lz4', '0123456789') AS id \gset
SELECT convert_from(message_bus.get_bytes(:id), 'UTF8') AS whole, convert_from(message_bus.get_bytes(:id, 3), 'UTF8') AS rest,
	convert_from(message_bus.get_bytes(:id, 3, 2), 'UTF8') AS part, convert_from(message_bus.get_bytes(:id, max_bytes => 2), 'UTF8') AS head,
	convert_from(message_bus.get_bytes(:id, NULL, NULL), 'UTF8') AS nulls, message_bus.get_bytes(:id, 10) AS behind;
SELECT f, m, pg_temp.fails(format('SELECT message_bus.get_bytes(%s, %s, %s)', :id, f, m))
	FROM (VALUES (-1, 1), (0, -1), (-9223372036854775808, 1), (1, -9223372036854775808)) AS r (f, m);
SELECT message_bus.get_bytes(NULL) IS NULL AS null_id, message_bus.get_bytes(0) IS NULL AS zero,
	message_bus.get_bytes(-1) IS NULL AS negative, message_bus.get_bytes(:id + 1000000) IS NULL AS not_there,
	message_bus.get_bytes(9223372036854775807) IS NULL AS no_segment, message_bus.get_bytes(-1, -1) IS NULL AS bad_range_of_nothing;

/*
 * Verified reads.  Stored bytes are changed behind the extension's back, as a
 * bad disk would.
 */
SELECT message_bus.create_channel('v', compression => c) FROM unnest(ARRAY['none']) AS c;
SELECT message_bus.publish('v', '{"n": 1}', transaction_id => 'v1') AS id \gset
SELECT message_bus.publish('v', '{"n": 2}', transaction_id => 'v2') AS good \gset
UPDATE message_bus.message SET payload = '{"n": 9}' WHERE id = :id;
CREATE FUNCTION pg_temp.no_number(answer text, id bigint) RETURNS text LANGUAGE sql AS $$ SELECT replace(answer, id::text, 'N') $$;
SELECT call, pg_temp.no_number(pg_temp.fails(format('SELECT message_bus.' || call, :id)), :id) FROM unnest(ARRAY[
	'get(%s)', 'get_bytes(%s)', 'get_bytes(%s, 1, 2)', 'get_bytes(%s, 8)',
	$$get_by_transaction('v', 'v1')$$]) AS call;
-- one that is damaged stops nobody from reading on: peek has it by reference
SELECT transaction_id, by_reference, payload FROM message_bus.peek('v');
SET message_bus.default_channel = 'v';
SELECT pg_temp.no_number(pg_temp.fails($$SELECT message_bus.retrieve_message('v1')$$), :id);
SELECT message_bus.retrieve_message('v2');
RESET message_bus.default_channel;
-- the other is not disturbed, no view fails
SELECT payload FROM message_bus.get(:good);
SELECT transaction_id, payload, status FROM message_bus.message_bus WHERE channel = 'v' ORDER BY id;
SELECT count(*) FROM message_bus.messages WHERE channel = 'v';
-- each failure is recorded
SELECT pg_temp.wait_for(format('SELECT count(*) >= 7 FROM message_bus.errors WHERE message_id = %s', :id)) AS recorded;
SELECT sqlstate, function, role = session_user AS me, pid = pg_backend_pid() AS here, session, pg_temp.no_number(message, :id) AS message, count(*)
	FROM message_bus.errors WHERE message_id = :id GROUP BY 1, 2, 3, 4, 5, 6;
SELECT value >= 7 AS counted FROM message_bus.metrics WHERE metric = 'checksum_failures_total';
-- not verified, it is delivered as it lies there
SET message_bus.verify_on_read = off;
SELECT payload FROM message_bus.get(:id);
SELECT convert_from(message_bus.get_bytes(:id, 5), 'UTF8');
SELECT transaction_id, payload FROM message_bus.peek('v');
SELECT count(*) AS null_in_the_view FROM message_bus.message_bus WHERE id = :id AND payload IS NULL;
RESET message_bus.verify_on_read;
-- a read without verifying is none for later reads with it
SELECT left(pg_temp.fails(format('SELECT message_bus.get_bytes(%s)', :id)), 5);
UPDATE message_bus.message SET payload = '{"n": 1}' WHERE id = :id;
SELECT message_bus.scrub_message(:id) AS looked_at;
SELECT payload FROM message_bus.get(:id);

-- other bytes, shorter, longer, empty; a wrong size; a wrong checksum; wrong compressed data
CREATE FUNCTION pg_temp.broken(channel text, change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	number bigint := message_bus.publish(channel, to_json(repeat('some text ', 300)));
	answer text;
BEGIN
	EXECUTE format('UPDATE message_bus.message SET %s WHERE id = %s', change, number);
	answer := concat_ws('; ', pg_temp.no_number(pg_temp.fails(format('SELECT message_bus.get(%s)', number)), number),
		pg_temp.no_number(pg_temp.fails(format('SELECT message_bus.get_bytes(%s)', number)), number),
		pg_temp.no_number(pg_temp.fails(format('SELECT payload FROM message_bus.message_bus WHERE id = %s', number)), number),
		(SELECT 'NULL' FROM message_bus.message_bus v WHERE v.id = number AND v.payload IS NULL));
	EXECUTE format('DELETE FROM message_bus.message WHERE id = %s', number);
	RETURN answer;
END
$$;
SELECT c, change, pg_temp.broken(c, change) FROM (VALUES
	('none', 'payload = payload || ''\x00'''), ('none', 'payload = substr(payload, 2)'), ('none', 'payload = ''\x'''),
	('none', 'size = size + 1'), ('none', 'size = -1'), ('none', 'size = 0'),
	('none', 'sha256 = sha256(''x'')'), ('none', 'sha256 = ''\x'''), ('none', 'sha256 = substr(sha256, 1, 31)'),
	('lz4', 'payload = ''"x"'''), ('lz4', 'encoding = ''none'', size = 3'), ('none', 'encoding = ''zstd'''), ('none', 'encoding = ''gzip'''),
	('none', 'encoding = ''x'''), ('zstd', 'payload = substr(payload, 1, 20)'), ('zstd', 'payload = ''\x'''), ('zstd', 'size = size - 1'),
	('zstd', 'size = -1'), ('zstd', 'size = 2000000000'),
	('gzip', 'payload = substr(payload, 1, 20)'), ('gzip', 'payload = ''\x'''), ('gzip', 'size = size + 1'), ('gzip', 'size = -1'),
	('none', 'content_type = ''text/plain''')) AS t (c, change);

-- a size that is wrong is an error also where reads are not verified: ranges are cut by it
SET message_bus.verify_on_read = off;
SELECT c, change, pg_temp.broken(c, change) FROM (VALUES
	('none', 'size = size + 1'), ('none', 'payload = substr(payload, 2)'), ('zstd', 'payload = ''\x'''),
	('none', 'size = -1')) AS t (c, change);
RESET message_bus.verify_on_read;
-- what the view calls makes no text of what is none
SELECT message_bus.stored_json('\x22ff22', 'none', 3, 'application/json', sha256('\x22ff22')) IS NULL AS no_utf8,
	message_bus.stored_json('\x3132', 'none', 2, 'application/json', sha256('\x3132')) AS number;

SELECT message_bus.drop_channel(c) FROM unnest(ARRAY['none', 'lz4', 'zstd', 'gzip', 'v']) AS c;
