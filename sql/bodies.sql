--
-- bodies: messages over 1 MiB, published in one piece: their parts, all readers, copies, damage
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel(c, ttl => '3 hours', compression => c) FROM unnest(ARRAY['none', 'lz4', 'zstd', 'gzip']) AS c;
-- bytes that do not compress, each 64 of their own
CREATE FUNCTION pg_temp.noise(size integer) RETURNS bytea LANGUAGE sql AS $$
	SELECT substr(string_agg(sha512(convert_to(i::text, 'UTF8')), '' ORDER BY i), 1, size) FROM generate_series(0, size / 64) AS i
$$;
-- the parts of a message, in order
CREATE FUNCTION pg_temp.parts(id bigint) RETURNS TABLE (n integer, size integer, encoding "char", stored bigint, sha256 bytea, state bytea)
	LANGUAGE plpgsql AS $$
DECLARE
	number bigint := (SELECT body FROM message_bus.message m WHERE m.id = parts.id);
BEGIN
	IF number IS NOT NULL THEN
		RETURN QUERY EXECUTE format('SELECT p.n, p.size, p.encoding, length(p.bytes)::bigint, p.sha256, p.state FROM message_bus.part_%s p WHERE body = %s ORDER BY n', number >> 20, number);
	END IF;
END
$$;
CREATE FUNCTION pg_temp.change(id bigint, change text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	number bigint := (SELECT body FROM message_bus.message m WHERE m.id = change.id);
BEGIN
	EXECUTE format(change, format('message_bus.part_%s', number >> 20), 'body = ' || number);
END
$$;

/*
 * Sizes around 1 MiB and the borders of parts
 */
CREATE TABLE pg_temp.stored AS
	SELECT size, message_bus.publish_bytes('none', substr(b.body, 1, size)) AS id, substr(b.body, 1, size) AS body
	FROM (SELECT pg_temp.noise(2 * 1048576 + 1) AS body OFFSET 0) AS b,
		unnest(ARRAY[0, 1048575, 1048576, 1048577, 5 * 262144 - 1, 5 * 262144, 5 * 262144 + 1, 2 * 1048576 + 1]) AS size;
SELECT s.size, m.body IS NOT NULL AS in_parts, length(m.payload) AS in_row, m.encoding, message_bus.get_bytes(s.id) = s.body AS same,
		m.size = s.size AND m.sha256 = sha256(s.body) AS sum, (SELECT count(*) FROM pg_temp.parts(s.id)) AS parts, (SELECT sum(p.size) FROM pg_temp.parts(s.id) p) AS bytes,
		(SELECT bool_and(p.sha256 = sha256(substr(s.body, p.n * 262144 + 1, p.size))) FROM pg_temp.parts(s.id) p) AS part_sums,
		(SELECT state FROM pg_temp.parts(s.id) p ORDER BY n DESC LIMIT 1) = m.sha256 AS state_is_hash
	FROM pg_temp.stored s JOIN message_bus.message m USING (id) ORDER BY s.size;
-- the preview is what it begins with; views have no size of what is stored
SELECT bool_and(m.payload = substr(s.body, 1, 1024)) FROM pg_temp.stored s JOIN message_bus.message m USING (id) WHERE s.size > 1048576;
SELECT size, compression, stored_size FROM message_bus.messages JOIN (SELECT id FROM pg_temp.stored) AS s USING (id) WHERE size >= 1048576 ORDER BY size LIMIT 2;
-- each part is compressed for itself, if that saves something
SELECT c, p.encoding, count(*), bool_and(p.stored < p.size) AS smaller, message_bus.get_bytes(id) = body AS same
	FROM (SELECT c, body, message_bus.publish_bytes(c, body) AS id FROM unnest(ARRAY['none', 'lz4', 'zstd', 'gzip']) AS c,
		(SELECT convert_to(repeat('All work and no play. ', 50000), 'UTF8') || pg_temp.noise(1048576) AS body OFFSET 0) AS b OFFSET 0) AS s,
	LATERAL pg_temp.parts(id) AS p GROUP BY c, p.encoding, id, body ORDER BY c, p.encoding;

/*
 * Ranges: within a part, over borders, all parts, at the end and behind it
 */
SELECT count(*), bool_and(message_bus.get_bytes(id, f, n) = substr(body, f + 1, n)) AS same
	FROM pg_temp.stored, unnest(ARRAY[0, 1, 1023, 262143, 262144, 262145, 524288, 1048575, 1310719, 1310720, 2097152, 2097153]) AS f,
		unnest(ARRAY[0, 1, 2, 4096, 262143, 262144, 262145, 524289, 1048577, 2097153]) AS n WHERE size IN (1048577, 5 * 262144, 2097153);
SELECT length(message_bus.get_bytes(id, 2097153)) AS at_end, length(message_bus.get_bytes(id, 9000000000000)) AS behind,
	length(message_bus.get_bytes(id, 2097152)) AS last, length(message_bus.get_bytes(id, 0, 9000000000000)) AS whole, length(message_bus.get_bytes(id)) AS again
	FROM pg_temp.stored WHERE size = 2097153;
SELECT pg_temp.fails(format('SELECT message_bus.get_bytes(%s, %s)', id, range)) FROM pg_temp.stored, unnest(ARRAY['-1', '0, -1', '-1, 5']) AS range WHERE size = 2097153;

/*
 * JSON is whole wherever it is asked for, by reference where it is large
 */
SELECT message_bus.create_channel('json', ttl => '3 hours', max_attempts => 20);
SELECT message_bus.create_subscription('json', 'default');
SELECT '{"a": "' || repeat('ä', 700000) || '", "n": 1.10}' AS big \gset
SELECT message_bus.publish('json', :'big'::json, key => 'k', transaction_id => 'big') AS id \gset
SELECT m.encoding, m.body IS NOT NULL AS in_parts FROM message_bus.message m WHERE id = :id;
SELECT size, by_reference, payload::text = :'big' AS same FROM message_bus.get(:id);
SELECT size, by_reference, payload FROM message_bus.get_by_transaction('json', 'big');
SELECT size, by_reference, payload FROM message_bus.peek('json');
SELECT payload::text = :'big' AS same, payload_size_bytes, compression_type, compressed_size_bytes, length(checksum) AS checksum FROM message_bus.message_bus WHERE id = :id;
SELECT message_bus.body_json(:id)::text = :'big' AS same;
SET message_bus.inline_max = '2MB';
SELECT by_reference, payload::text = :'big' AS same FROM message_bus.get_by_transaction('json', 'big');
SELECT by_reference, payload::text = :'big' AS same FROM message_bus.peek('json');
SELECT by_reference, payload::text = :'big' AS same, message_bus.nack(lease, delay => '0') FROM message_bus.claim('json');
SELECT by_reference, convert_from(payload, 'UTF8') = :'big' AS same, message_bus.nack(lease, delay => '0') FROM message_bus.claim_bytes('json');
RESET message_bus.inline_max;
SELECT size, by_reference, payload, message_bus.nack(lease, delay => '0') FROM message_bus.claim('json');
SELECT size, by_reference, payload, message_bus.nack(lease, delay => '0') FROM message_bus.claim_bytes('json');
-- what nobody has looked at is not given as JSON: as if it had been uploaded
UPDATE message_bus.message SET encoding = 'n' WHERE id = :id;
SELECT by_reference, payload FROM message_bus.get(:id);
SELECT payload, payload_size_bytes FROM message_bus.message_bus WHERE id = :id;
SELECT message_bus.body_json(:id);
SET message_bus.inline_max = '2MB';
SELECT by_reference, payload FROM message_bus.get_by_transaction('json', 'big');
SELECT by_reference, payload FROM message_bus.peek('json');
SELECT by_reference, payload, message_bus.nack(lease, delay => '0') FROM message_bus.claim('json');
SELECT by_reference, convert_from(payload, 'UTF8') = :'big' AS same, message_bus.nack(lease, delay => '0') FROM message_bus.claim_bytes('json');
RESET message_bus.inline_max;
UPDATE message_bus.message SET encoding = 'j' WHERE id = :id;
-- on the default channel
SELECT message_bus.store_message('large', 's', 't', 'p', :'big'::json) IS NOT NULL AS stored;
SELECT message_bus.retrieve_message('large')::text = :'big' AS same;
SELECT message_bus.delete_message('large');
INSERT INTO message_bus.message_bus (channel, transaction_id, payload) VALUES ('json', 'table', :'big'::json) RETURNING payload::text = :'big' AS same;
DELETE FROM message_bus.message_bus WHERE transaction_id = 'table';

/*
 * What is refused stores nothing; what repeats stores no second body
 */
CREATE FUNCTION pg_temp.all_parts() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	name text;
	n bigint;
	total bigint := 0;
BEGIN
	FOR name IN SELECT relname FROM pg_class WHERE relnamespace = 'message_bus'::regnamespace AND relname ~ '^part_[0-9]+$' LOOP
		EXECUTE format('SELECT count(*) FROM message_bus.%I', name) INTO n;
		total := total + n;
	END LOOP;
	RETURN total;
END
$$;
SELECT pg_temp.all_parts() AS before \gset
SELECT message_bus.publish('json', :'big'::json, transaction_id => 'big') = :id AS same_id;
SELECT o.id = :id AS same_id, o.repeated FROM message_bus.publish_once('json', :'big'::json, transaction_id => 'big') AS o;
SELECT pg_temp.fails(format($$SELECT message_bus.publish('json', %L::json, transaction_id => 'big')$$, :'big' || ' '));
SELECT pg_temp.fails(format($$SELECT message_bus.publish_text('json', %L)$$, '{' || :'big'));
SELECT pg_temp.fails(format($$SELECT message_bus.publish('json', %L::json, sha256 => sha256('x'))$$, :'big'));
SELECT message_bus.alter_channel('json', max_payload => 1048577);
SELECT pg_temp.fails(format($$SELECT message_bus.publish('json', %L::json)$$, :'big'));
SELECT message_bus.alter_channel('json', max_payload => 0);
SELECT pg_temp.all_parts() = :before AS none;
-- a batch: small and large, and one that is there; a later one that is wrong undoes all
SELECT message_bus.publish_batch('json', ('[{"payload": 1}, {"payload": ' || :'big' || ', "transaction_id": "other"}, {"payload": ' || :'big' || ', "transaction_id": "big"}, {"payload": '
	|| :'big' || ', "key": "k2"}, {"payload": 2}]')::json) AS ids \gset
SELECT n, m.size, b.body IS NOT NULL AS in_parts, m.id = :id AS known, m.payload::text = :'big' AS same
	FROM unnest(:'ids'::bigint[]) WITH ORDINALITY AS i (id, n), LATERAL message_bus.get(i.id) AS m JOIN message_bus.message b USING (id) ORDER BY n;
SELECT pg_temp.all_parts() - :before AS parts;
SELECT message_bus.publish_batch_bytes('none', ARRAY[pg_temp.noise(1048577), 'small', pg_temp.noise(1048577)], transaction_ids => ARRAY['b1', NULL, 'b2']) AS bytes \gset
SELECT n, m.size, message_bus.get_bytes(m.id) = pg_temp.noise(1048577) AS same FROM unnest(:'bytes'::bigint[]) WITH ORDINALITY AS i (id, n), LATERAL message_bus.get(i.id) AS m ORDER BY n;
SELECT pg_temp.all_parts() AS before \gset
SELECT pg_temp.fails(format($$SELECT message_bus.publish_batch('json', %L)$$, '[{"payload": ' || :'big' || '}, {"payload": 1, "transaction_id": "big"}]'));
SELECT pg_temp.all_parts() = :before AS none;
-- as large as it is repeated in one call: one message
SELECT cardinality(ids) AS ids, ids[1] = ids[2] AS same FROM message_bus.publish_batch_bytes('none', ARRAY[pg_temp.noise(1048577), pg_temp.noise(1048577)], transaction_ids => ARRAY['b3', 'b3']) AS ids;
BEGIN;
SELECT message_bus.publish('json', :'big'::json, transaction_id => 'undone') IS NOT NULL AS published;
ROLLBACK;
SELECT count(*) FROM message_bus.get_by_transaction('json', 'undone');

/*
 * Rights: of a body those of its message
 */
CREATE ROLE regress_bodies_reader;
CREATE ROLE regress_bodies_auditor;
CREATE ROLE regress_bodies_other;
SELECT message_bus.grant_channel('json', 'regress_bodies_reader', 'consume'), message_bus.grant_channel('json', 'regress_bodies_auditor', 'audit');
SELECT format('SELECT bytes FROM message_bus.part_%s', body >> 20) AS part FROM message_bus.message WHERE id = :id \gset
SET ROLE regress_bodies_reader;
SELECT length(message_bus.get_bytes(:id, 262143, 2)) AS bytes, message_bus.body_json(:id) IS NOT NULL AS json;
SELECT pg_temp.fails(:'part') ~ '^42501 permission denied for table part_' AS closed;
SELECT pg_temp.fails(format('SELECT count(*) FROM message_bus.%I', t)) FROM unnest(ARRAY['body_store', 'body_hold', 'body_moved']) AS t;
SET ROLE regress_bodies_auditor;
SELECT payload, payload_size_bytes > 1048576 AS large FROM message_bus.message_bus WHERE id = :id;
SELECT message_bus.body_json(:id);
SELECT pg_temp.fails(format('SELECT message_bus.get_bytes(%s, 0, 1)', :id));
SET ROLE regress_bodies_other;
SELECT message_bus.body_json(:id);
SELECT pg_temp.fails(format('SELECT message_bus.get_bytes(%s, 0, 1)', :id));
RESET ROLE;
SELECT message_bus.drop_channel('json');
SELECT message_bus.get_bytes(:id, 0, 1);
DROP ROLE regress_bodies_reader, regress_bodies_auditor, regress_bodies_other;

/*
 * Dead letters and redrive: the same body, and no byte is read
 */
SELECT message_bus.create_channel('dead', ttl => '5 hours', max_attempts => 1);
SELECT message_bus.create_channel('work', ttl => '4 hours', max_attempts => 1, dead_letter => 'dead');
SELECT message_bus.create_subscription('work', 'default');
SELECT message_bus.publish('work', :'big'::json, key => 'k', headers => '{"own": 1}') AS id \gset
SELECT pg_temp.all_parts() AS before \gset
SELECT message_bus.nack(lease, reason => 'no') FROM message_bus.claim('work');
SELECT id AS letter, size, content_type, key, by_reference FROM message_bus.peek('dead') \gset
SELECT :'size' AS size, :'content_type' AS content_type, :'key' AS key, :'by_reference' AS by_reference;
SELECT l.body = m.body AS same_body, l.sha256 = m.sha256 AS sum, l.encoding, l.payload = m.payload AS preview,
	(SELECT count(*) FROM message_bus.body_hold h WHERE h.message_id = l.id AND h.store_no = l.body >> 20 AND h.until = l.expires_at) AS holds
	FROM message_bus.message l, message_bus.message m WHERE l.id = :letter AND m.id = :id;
SELECT pg_temp.all_parts() = :before AS none;
SELECT payload::text = :'big' AS same FROM message_bus.get(:letter);
SELECT size FROM message_bus.dead_letters WHERE channel = 'work';
-- in place while the message lives; else a copy, of the same body again
SELECT message_bus.redrive('dead');
SELECT count(*) FROM message_bus.peek('dead');
SELECT message_bus.nack(lease, reason => 'no') FROM message_bus.claim('work');
SELECT message_bus.drop_subscription('work', 'default');
SELECT message_bus.redrive('dead');
SELECT p.id AS copy FROM message_bus.peek('work') AS p WHERE p.id <> :id \gset
SELECT c.body = m.body AS same_body, (SELECT count(*) FROM message_bus.body_hold h WHERE h.message_id = c.id) AS holds
	FROM message_bus.message c, message_bus.message m WHERE c.id = :copy AND m.id = :id;
SELECT payload::text = :'big' AS same, headers -> 'own' AS own, headers ? 'dead_letter' AS letter FROM message_bus.get(:copy);
SELECT pg_temp.all_parts() = :before AS none;

/*
 * Damage: what is read tells, a range only of its parts; the whole is hashed
 */
CREATE FUNCTION pg_temp.damaged(change text) RETURNS TABLE (step text, answer text) LANGUAGE plpgsql AS $$
DECLARE
	number bigint := message_bus.publish('none', to_json(repeat('some text ', 120000)));
	i integer := 0;
	question text;
BEGIN
	PERFORM pg_temp.change(number, damaged.change);
	FOREACH question IN ARRAY ARRAY['SELECT message_bus.get(%s)', 'SELECT message_bus.get_bytes(%s)', 'SELECT message_bus.get_bytes(%s, 0, 262144)',
		'SELECT message_bus.get_bytes(%s, 262144, 1)', 'SELECT message_bus.get_bytes(%s, 262143, 262146)', 'SELECT message_bus.get_bytes(%s, 1200000, 10)'] LOOP
		step := format(question, 'N');
		answer := pg_temp.fails(format(question, number));
		RETURN NEXT;
	END LOOP;
	step := 'view';
	answer := (SELECT coalesce(length(payload::text)::text, 'NULL') FROM message_bus.message_bus v WHERE v.id = number);
	RETURN NEXT;
	step := 'scrub_message';
	answer := message_bus.scrub_message(number);
	RETURN NEXT;
	step := 'quarantined';
	answer := (SELECT concat_ws(' ', q.kind, q.detail) FROM message_bus.quarantined q WHERE q.message_id = number);
	RETURN NEXT;
	PERFORM message_bus.record_event(number, 'deleted', clock_timestamp());
END
$$;
SELECT * FROM pg_temp.damaged('UPDATE %s SET bytes = overlay(bytes PLACING ''!'' FROM 100) WHERE %s AND n = 1');
SELECT * FROM pg_temp.damaged('DELETE FROM %s WHERE %s AND n = 1');
-- a part and its checksum, changed alike: a range is compared with its parts alone, the whole with the message
SELECT * FROM pg_temp.damaged('UPDATE %s SET bytes = overlay(bytes PLACING ''!'' FROM 100), sha256 = sha256(overlay(bytes PLACING ''!'' FROM 100)) WHERE %s AND n = 1');
SELECT step, answer FROM pg_temp.damaged('UPDATE %s SET size = size - 1 WHERE %s AND n = 4') WHERE step IN ('SELECT message_bus.get(N)', 'quarantined');
SELECT step, answer FROM pg_temp.damaged('UPDATE %s SET encoding = ''z'' WHERE %s AND n = 0') WHERE step IN ('SELECT message_bus.get(N)', 'quarantined');
SELECT step, answer FROM pg_temp.damaged('UPDATE %1$s SET (bytes, sha256) = (SELECT o.bytes, o.sha256 FROM %1$s o WHERE o.n = 1 AND o.%2$s) WHERE %2$s AND n = 2')
	WHERE step IN ('SELECT message_bus.get(N)', 'SELECT message_bus.get_bytes(N, 0, 262144)', 'quarantined');
-- all that have a body are damaged with it, and what is in quarantine dies in place; what was deleted is damaged no more
SELECT pg_temp.change(:copy, 'UPDATE %s SET bytes = set_byte(bytes, 99, get_byte(bytes, 99) # 1) WHERE %s AND n = 3');
SELECT message_bus.scrub_message(:letter) AS deleted, message_bus.scrub_message(:copy) AS copy, message_bus.scrub_message(:id) AS message;
SELECT message_bus.create_subscription('work', 'default');
SELECT count(*) FROM message_bus.claim('work', batch => 10);
SELECT pg_temp.wait_for('SELECT count(*) = 2 FROM message_bus.dead_letters WHERE channel = ''work'' AND kind = ''corrupt''');
SELECT kind, dead_letter, size FROM message_bus.dead_letters WHERE channel = 'work';
-- mended, and let out again
SELECT pg_temp.change(:copy, 'UPDATE %s SET bytes = set_byte(bytes, 99, get_byte(bytes, 99) # 1) WHERE %s AND n = 3');
SELECT message_bus.scrub_message(:copy);

SELECT message_bus.drop_channel(c) FROM unnest(ARRAY['work', 'dead', 'none', 'lz4', 'zstd', 'gzip']) AS c;
