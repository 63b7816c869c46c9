--
-- message_bus.message_bus and store_message: the bus as a table, in the SQL
-- that table clients send through PostgREST
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset null '<null>'

CREATE ROLE regress_mbus_client;
SELECT message_bus.create_channel('table', ttl => '48 hours');
SELECT message_bus.grant_channel('table', 'regress_mbus_client', 'all');
SET message_bus.default_channel = 'table';
SET ROLE regress_mbus_client;

/*
 * The life of a row: the client hashes the JSON text it made, inserts it with
 * that checksum, reads it by its transaction id, notes the access, verifies,
 * deletes.
 */
-- POST with Prefer: return=representation; the client tells a size of its own, which is not what is stored
SELECT '{"transaction_id": "tx-1", "session_id": "s-1", "tool_name": "search", "provider_name": "acme", "payload": {"result":"caf\u00e9", "n": 1.10}, "payload_size_bytes": 7, "compression_type": "none", "compressed_size_bytes": 3, "checksum": "CHECKSUM", "status": "complete", "metadata": {"k": [1, 2]}}' AS template \gset
SELECT encode(sha256('{"result":"caf\\u00e9", "n": 1.10}'), 'hex') AS sum \gset
SELECT replace(:'template', 'CHECKSUM', :'sum') AS body \gset
WITH pgrst_source AS (
	INSERT INTO "message_bus"."message_bus"("checksum", "compressed_size_bytes", "compression_type", "metadata", "payload", "payload_size_bytes", "provider_name", "session_id", "status", "tool_name", "transaction_id")
	SELECT "pgrst_body"."checksum", "pgrst_body"."compressed_size_bytes", "pgrst_body"."compression_type", "pgrst_body"."metadata", "pgrst_body"."payload", "pgrst_body"."payload_size_bytes", "pgrst_body"."provider_name", "pgrst_body"."session_id", "pgrst_body"."status", "pgrst_body"."tool_name", "pgrst_body"."transaction_id"
	FROM (SELECT :'body'::json AS json_data) pgrst_payload,
	LATERAL (SELECT CASE WHEN json_typeof(pgrst_payload.json_data) = 'array' THEN pgrst_payload.json_data ELSE json_build_array(pgrst_payload.json_data) END AS val) pgrst_uniform_json,
	LATERAL (SELECT "checksum", "compressed_size_bytes", "compression_type", "metadata", "payload", "payload_size_bytes", "provider_name", "session_id", "status", "tool_name", "transaction_id"
		FROM json_to_recordset(pgrst_uniform_json.val) AS _("checksum" text, "compressed_size_bytes" integer, "compression_type" text, "metadata" jsonb, "payload" json, "payload_size_bytes" integer, "provider_name" text, "session_id" text, "status" text, "tool_name" text, "transaction_id" text) ) pgrst_body
	RETURNING "message_bus"."message_bus".*
)
SELECT '' AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total,
	(coalesce(json_agg(_postgrest_t), '[]')->0)::jsonb - '{id,created_at,expires_at}'::text[] AS body
FROM (SELECT "message_bus".* FROM "pgrst_source" AS "message_bus") _postgrest_t;

-- GET ?select=*&transaction_id=eq.tx-1, with an exact count
WITH pgrst_source AS (
	SELECT "message_bus"."message_bus".* FROM "message_bus"."message_bus"
	WHERE "message_bus"."message_bus"."transaction_id" = 'tx-1' LIMIT 1 OFFSET 0
), pgrst_source_count AS (
	SELECT 1 FROM "message_bus"."message_bus" WHERE "message_bus"."message_bus"."transaction_id" = 'tx-1')
SELECT (SELECT pg_catalog.count(*) FROM pgrst_source_count) AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total,
	(coalesce(json_agg(_postgrest_t), '[]')->0->'payload')::text AS payload, coalesce(json_agg(_postgrest_t), '[]')->0->>'checksum' = :'sum' AS checksum
FROM ( SELECT * FROM pgrst_source ) _postgrest_t;
-- what it verifies: the text of the column hashes to the checksum
SELECT encode(sha256(convert_to(payload::text, 'UTF8')), 'hex') = checksum AS verified, payload_size_bytes = octet_length(payload::text) AS size,
		compressed_size_bytes >= payload_size_bytes AS stored, payload_text, channel, expires_at - created_at AS ttl, accessed_at
	FROM message_bus.message_bus WHERE transaction_id = 'tx-1';

-- PATCH ?transaction_id=eq.tx-1 {"accessed_at": ...}, with return=minimal, and with return=representation
SELECT created_at + interval '1 second' AS accessed FROM message_bus.message_bus WHERE transaction_id = 'tx-1' \gset
SELECT json_build_object('accessed_at', :'accessed') AS body \gset
WITH pgrst_source AS (
	UPDATE "message_bus"."message_bus" SET "accessed_at" = "pgrst_body"."accessed_at"
	FROM (SELECT :'body'::json AS json_data) pgrst_payload,
	LATERAL (SELECT CASE WHEN json_typeof(pgrst_payload.json_data) = 'array' THEN pgrst_payload.json_data ELSE json_build_array(pgrst_payload.json_data) END AS val) pgrst_uniform_json,
	LATERAL (SELECT "accessed_at" FROM json_to_recordset(pgrst_uniform_json.val) AS _("accessed_at" timestamp with time zone) ) pgrst_body
	WHERE "message_bus"."message_bus"."transaction_id" = 'tx-1' RETURNING 1)
SELECT '' AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total FROM (SELECT 1 FROM "pgrst_source") _postgrest_t;
SELECT accessed_at = :'accessed' AS noted FROM message_bus.message_bus WHERE transaction_id = 'tx-1';
WITH pgrst_source AS (
	UPDATE "message_bus"."message_bus" SET "accessed_at" = "pgrst_body"."accessed_at"
	FROM (SELECT '{"accessed_at": "2001-01-01T00:00:00Z"}'::json AS json_data) pgrst_payload,
	LATERAL (SELECT "accessed_at" FROM json_to_record(pgrst_payload.json_data) AS _("accessed_at" timestamp with time zone) ) pgrst_body
	WHERE "message_bus"."message_bus"."transaction_id" = 'tx-1' RETURNING "message_bus"."message_bus".*)
SELECT pg_catalog.count(_postgrest_t) AS page_total, min(accessed_at) = :'accessed' AS the_latest_counts, min(checksum) = :'sum' AS checksum, min(payload::text) AS payload
	FROM (SELECT "message_bus".* FROM "pgrst_source" AS "message_bus") _postgrest_t;
SELECT accessed_at = :'accessed' AS the_latest_counts FROM message_bus.message_bus WHERE transaction_id = 'tx-1';

-- DELETE ?transaction_id=eq.tx-1, with return=representation; then it is gone
WITH pgrst_source AS (DELETE FROM "message_bus"."message_bus" WHERE "message_bus"."message_bus"."transaction_id" = 'tx-1' RETURNING "message_bus"."message_bus".*)
SELECT '' AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total, min(transaction_id) AS transaction_id, min(payload::text) AS payload
	FROM (SELECT "message_bus".* FROM "pgrst_source" AS "message_bus") _postgrest_t;
WITH pgrst_source AS (DELETE FROM "message_bus"."message_bus" WHERE "message_bus"."message_bus"."transaction_id" = 'tx-1' RETURNING 1)
SELECT pg_catalog.count(_postgrest_t) AS page_total FROM (SELECT 1 FROM "pgrst_source") _postgrest_t;
SELECT count(*) FROM message_bus.message_bus WHERE transaction_id = 'tx-1';

-- a bulk insert: an array with members of different objects
WITH pgrst_source AS (
	INSERT INTO "message_bus"."message_bus"("payload", "status", "error_message", "transaction_id")
	SELECT "pgrst_body"."payload", "pgrst_body"."status", "pgrst_body"."error_message", "pgrst_body"."transaction_id"
	FROM (SELECT '[{"transaction_id": "b1", "payload": {"n": 1}}, {"transaction_id": "b2", "payload": [2], "status": "pending"}, {"transaction_id": "b3", "payload": "three", "status": "error", "error_message": "it broke"}]'::json AS json_data) pgrst_payload,
	LATERAL (SELECT "payload", "status", "error_message", "transaction_id" FROM json_to_recordset(pgrst_payload.json_data) AS _("payload" json, "status" text, "error_message" text, "transaction_id" text) ) pgrst_body
	RETURNING "message_bus"."message_bus"."id", "message_bus"."message_bus"."transaction_id", "message_bus"."message_bus"."status", "message_bus"."message_bus"."error_message", "message_bus"."message_bus"."payload")
SELECT pg_catalog.count(_postgrest_t) AS page_total, (json_agg(_postgrest_t)::jsonb #- '{0,id}') #- '{1,id}' #- '{2,id}' AS body
	FROM (SELECT "message_bus".* FROM "pgrst_source" AS "message_bus") _postgrest_t;
-- order, range, and a filter on every kind of column
SELECT transaction_id, status FROM message_bus.message_bus WHERE channel = 'table' ORDER BY created_at DESC, id DESC LIMIT 2 OFFSET 1;
SELECT transaction_id FROM message_bus.message_bus WHERE status = 'error' AND payload->>0 IS NULL AND created_at > now() - interval '1 hour' AND metadata = '{}' ORDER BY id;
SELECT count(*) FROM message_bus.message_bus WHERE channel = 'table' AND accessed_at IS NULL AND compression_type = 'none' AND expires_at > now();
-- limited update and delete
WITH pgrst_source AS (
	WITH pgrst_update_body AS (SELECT "pgrst_body"."accessed_at" FROM (SELECT '{"accessed_at": "2030-01-01T00:00:00Z"}'::json AS json_data) pgrst_payload,
		LATERAL (SELECT "accessed_at" FROM json_to_record(pgrst_payload.json_data) AS _("accessed_at" timestamp with time zone) LIMIT 1) pgrst_body ),
	pgrst_affected_rows AS (SELECT "message_bus"."message_bus"."id" FROM "message_bus"."message_bus" WHERE "message_bus"."message_bus"."channel" = 'table' ORDER BY "message_bus"."message_bus"."id" LIMIT 2 OFFSET 0)
	UPDATE "message_bus"."message_bus" SET "accessed_at" = (SELECT "accessed_at" FROM pgrst_update_body) FROM pgrst_affected_rows
	WHERE "message_bus"."message_bus"."id" = "pgrst_affected_rows"."id" RETURNING "message_bus"."message_bus"."transaction_id")
SELECT transaction_id FROM pgrst_source ORDER BY 1;
SELECT transaction_id, accessed_at FROM message_bus.message_bus WHERE channel = 'table' ORDER BY id;
WITH pgrst_affected_rows AS (SELECT "message_bus"."message_bus"."id" FROM "message_bus"."message_bus" WHERE channel = 'table' ORDER BY "message_bus"."message_bus"."id" LIMIT 2 OFFSET 0)
	DELETE FROM "message_bus"."message_bus" USING pgrst_affected_rows WHERE "message_bus"."message_bus"."id" = "pgrst_affected_rows"."id" RETURNING transaction_id;
SELECT transaction_id FROM message_bus.message_bus WHERE channel = 'table';

/*
 * Checksums.
 */
-- over payload_text where it is given: a client that serialises otherwise than it hashes
SELECT transaction_id, payload, payload_text, checksum = encode(sha256(' {"a" : 1} '), 'hex') AS of_the_text
	FROM message_bus.message_bus WHERE false;
INSERT INTO message_bus.message_bus (transaction_id, payload, payload_text, checksum)
	VALUES ('c1', '{"a":1}', ' {"a" : 1} ', encode(sha256(' {"a" : 1} '), 'hex')) RETURNING payload, payload_text, payload_size_bytes;
INSERT INTO message_bus.message_bus (transaction_id, payload_text) VALUES ('c2', '[1]') RETURNING payload, checksum = encode(sha256('[1]'), 'hex') AS computed;
INSERT INTO message_bus.message_bus (transaction_id, payload, checksum) VALUES ('c3', '1', upper(encode(sha256('1'), 'hex'))) RETURNING checksum = encode(sha256('1'), 'hex') AS computed;
SELECT what, pg_temp.fails(format('INSERT INTO message_bus.message_bus (payload, checksum) VALUES (''{"a": 1}'', %L)', sum)) FROM (VALUES
	('of other text', encode(sha256('{"a":1}'), 'hex')), ('no checksum', 'zz'), ('empty', ''), ('md5', md5('x')),
	('32 letters', repeat('x', 32)), ('64 letters', repeat('x', 64))) AS t (what, sum);
SELECT pg_temp.fails(format('INSERT INTO message_bus.message_bus (payload_text, payload, checksum) VALUES (''{"a": 1}'', ''{"a":1}'', %L)', encode(sha256('{"a":1}'), 'hex')));
DO $$
DECLARE
	hint text;
BEGIN
	INSERT INTO message_bus.message_bus (payload, checksum) VALUES ('1', encode(sha256('2'), 'hex'));
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RAISE NOTICE '%', hint;
END
$$;

/*
 * Inserts that cannot be, and what is ignored.
 */
SELECT command, pg_temp.fails('INSERT INTO message_bus.message_bus ' || command) FROM unnest(ARRAY[
	$$DEFAULT VALUES$$, $$(payload) VALUES (NULL)$$, $$(payload_text) VALUES ('{bad')$$, $$(payload) VALUES ('{bad')$$,
	$$(payload, channel) VALUES ('1', 'no such')$$, $$(payload, channel) VALUES ('1', 'default')$$,
	$$(payload, expires_at) VALUES ('1', '2001-01-01')$$,
	$$(payload, status) VALUES ('1', 'expired')$$, $$(payload, status) VALUES ('1', 'x')$$,
	$$(payload, transaction_id) VALUES ('1', '')$$, $$(payload, transaction_id) VALUES ('9', 'c1')$$,
	$$(payload) VALUES ('1'), ('{bad')$$]) AS command;
SELECT left(pg_temp.fails($$INSERT INTO message_bus.message_bus (payload, expires_at) VALUES ('1', now() + interval '3 days')$$), 12) AS over_the_ttl;
SELECT pg_temp.fails($$INSERT INTO message_bus.message_bus (payload, expires_at) VALUES ('1', 'infinity')$$) ~ '^22(008|023) ' AS not_for_ever;
SELECT count(*) FROM message_bus.message_bus WHERE payload::text = '1' AND transaction_id IS NULL;
INSERT INTO message_bus.message_bus (transaction_id, payload, metadata) VALUES ('i0', '0', '{"a": null, "b": {"c": null}}') RETURNING metadata;
-- id, times and sizes are the database's
INSERT INTO message_bus.message_bus (id, transaction_id, payload, created_at, accessed_at, payload_size_bytes, compressed_size_bytes, compression_type)
	VALUES (5, 'i1', '1', '2001-01-01', '2001-01-01', 99, 99, 'zip')
	RETURNING id > 5 AS id, created_at > now() - interval '1 minute' AS created_at, accessed_at, payload_size_bytes, compressed_size_bytes, compression_type;
-- expires_at shortens the life
INSERT INTO message_bus.message_bus (transaction_id, payload, expires_at) VALUES ('i2', '1', now() + interval '1 hour');
SELECT expires_at - created_at BETWEEN interval '59 minutes' AND interval '60 minutes 1 second' AS an_hour FROM message_bus.message_bus WHERE transaction_id = 'i2';
-- the same row again is the same message
INSERT INTO message_bus.message_bus (transaction_id, payload) VALUES ('i1', '1');
SELECT count(*) FROM message_bus.message_bus WHERE transaction_id = 'i1';
-- what large ones take is told
INSERT INTO message_bus.message_bus (transaction_id, payload) SELECT 'i3', json_build_object('text', repeat('x', 100000))
	RETURNING payload_size_bytes, compression_type, compressed_size_bytes < 10000 AS smaller;
-- a message that is no JSON is listed without payload
SELECT message_bus.publish_bytes('table', '\xff00', 'image/png', transaction_id => 'png') > 0 AS stored;
SELECT transaction_id, payload, payload_size_bytes, status FROM message_bus.message_bus WHERE transaction_id = 'png';

/*
 * Updates: accessed_at only.
 */
SELECT command, pg_temp.fails('UPDATE message_bus.message_bus SET ' || command || $$ WHERE transaction_id = 'c1'$$) FROM unnest(ARRAY[
	$$payload = '2'$$, $$payload = NULL$$, $$payload = '{"a": 1}'$$, $$payload_text = '2'$$, $$id = 5$$, $$channel = 'default'$$, $$transaction_id = 'x'$$,
	$$session_id = 'x'$$, $$tool_name = 'x'$$, $$provider_name = 'x'$$, $$status = 'error'$$, $$error_message = 'x'$$,
	$$checksum = repeat('0', 64)$$, $$payload_size_bytes = 1$$, $$compressed_size_bytes = 1$$, $$compression_type = 'gzip'$$,
	$$created_at = now()$$, $$expires_at = 'infinity'$$, $$metadata = '{"a": 1}'$$, $$accessed_at = now(), status = 'error'$$,
	$$payload = payload, status = status, metadata = metadata$$, $$accessed_at = accessed_at$$, $$accessed_at = NULL$$]) AS command;
SELECT transaction_id, payload, status, accessed_at FROM message_bus.message_bus WHERE transaction_id = 'c1';
UPDATE message_bus.message_bus SET accessed_at = '2031-01-01', status = 'complete', payload = payload WHERE transaction_id = 'c1' RETURNING accessed_at;
UPDATE message_bus.message_bus SET accessed_at = '2029-01-01' WHERE transaction_id = 'c1' RETURNING accessed_at;
SELECT pg_temp.fails($$UPDATE message_bus.message_bus SET accessed_at = NULL WHERE transaction_id = 'c1'$$);

/*
 * store_message, retrieve_message, delete_message.
 */
-- nulls are kept in what is the caller's, and left out in what is not given
SELECT message_bus.store_message('f1', 's', 'tool', 'provider', ' {"z" : 1.0}', '{"m": null, "n": 1}') AS id \gset
SELECT message_bus.store_message('f2', NULL, NULL, NULL, '2', NULL) - :id AS next_id;
SELECT message_bus.store_message(NULL, 's', 't', 'p', '3') > :id AS without_transaction_id;
SELECT transaction_id, session_id, tool_name, provider_name, payload, metadata, status, accessed_at FROM message_bus.message_bus WHERE id >= :id ORDER BY id;
SELECT headers FROM message_bus.messages WHERE id >= :id ORDER BY id;
SELECT message_bus.store_message('f1', 's', 'tool', 'provider', ' {"z" : 1.0}') = :id AS same;
SELECT pg_temp.fails($$SELECT message_bus.store_message('f1', 's', 'tool', 'provider', '{"z":1.0}')$$);
SELECT pg_temp.fails($$SELECT message_bus.store_message('f9', 's', 'tool', 'provider', NULL)$$);
SELECT message_bus.retrieve_message('f1'), message_bus.retrieve_message('f1');
SELECT accessed_at > created_at AND accessed_at <= clock_timestamp() AS access_recorded FROM message_bus.message_bus WHERE id = :id;
SELECT message_bus.retrieve_message('no such'), message_bus.retrieve_message(NULL), message_bus.retrieve_message('png');
BEGIN READ ONLY;
SELECT message_bus.retrieve_message('f2');
SELECT pg_temp.fails($$SELECT message_bus.delete_message('f2')$$);
SELECT pg_temp.fails($$DELETE FROM message_bus.message_bus$$);
SELECT pg_temp.fails($$UPDATE message_bus.message_bus SET accessed_at = now()$$);
COMMIT;
SELECT accessed_at FROM message_bus.message_bus WHERE transaction_id = 'f2';
BEGIN;
SELECT message_bus.delete_message('f2'), message_bus.retrieve_message('f2');
ROLLBACK;
SELECT message_bus.retrieve_message('f2');
SELECT message_bus.delete_message('f2'), message_bus.delete_message('f2'), message_bus.delete_message('no such'), message_bus.delete_message(NULL);
SELECT message_bus.retrieve_message('f2');
SELECT count(*) FROM message_bus.message_bus WHERE transaction_id = 'f2';
SELECT kind, pg_temp.fails(format('SELECT message_bus.record_event(%s, %L, now())', :id, kind)) FROM unnest(ARRAY['seen', '', 'Deleted', 'accessed']) AS kind;
SELECT message_bus.record_event(NULL, 'deleted', now()) IS NULL AS strict, message_bus.record_event(0, 'deleted', now());
SET message_bus.default_channel = 'no such';
SELECT pg_temp.fails($$SELECT message_bus.store_message('f1', 's', 't', 'p', '1')$$);
SELECT pg_temp.fails($$SELECT message_bus.retrieve_message('f1')$$);
SELECT pg_temp.fails($$SELECT message_bus.delete_message('f1')$$);
SELECT pg_temp.fails($$INSERT INTO message_bus.message_bus (payload) VALUES ('1')$$);

RESET ROLE;
RESET message_bus.default_channel;
SELECT message_bus.drop_channel('table');
DROP ROLE regress_mbus_client;
