--
-- actions: who has changed channels, grants, subscriptions and keys; audit_log
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude
\pset format unaligned
\pset tuples_only on

CREATE ROLE regress_act_owner;
CREATE ROLE regress_act_reader;
CREATE ROLE regress_act_auditor;
CREATE ROLE regress_act_stranger;
CREATE ROLE regress_act_monitor IN ROLE pg_monitor;
GRANT EXECUTE ON FUNCTION message_bus.create_channel, message_bus.alter_channel, message_bus.drop_channel, message_bus.grant_channel,
	message_bus.revoke_channel, message_bus.purge_channel, message_bus.create_subscription, message_bus.drop_subscription,
	message_bus.pause, message_bus.resume, message_bus.seek, message_bus.set_jwt_keys, message_bus.end_sessions TO regress_act_owner;
-- what is changed before the worker gives out numbers has none yet
SELECT pg_temp.wait_for($$SELECT next IS NOT NULL FROM message_bus.fact_numbers()$$);
SELECT coalesce(max(no), 0) AS base FROM message_bus.log_action \gset
CREATE TEMP TABLE base AS SELECT :base::bigint AS base, clock_timestamp() AS at;
CREATE TEMP VIEW act AS
	SELECT no, kind, details::jsonb ->> 'change' AS change, role, subject, session, details::jsonb - 'change' AS details, octet_length(k) AS k
	FROM message_bus.log_action WHERE no > (SELECT base FROM pg_temp.base)
	AND at > (SELECT at FROM pg_temp.base);	-- what was changed before may get its number late
-- what is shown of details that differ from run to run
CREATE FUNCTION pg_temp.shown(details jsonb, VARIADIC names text[] DEFAULT ARRAY['name', 'owner', 'ttl', 'to', 'privileges', 'grantee', 'may_publish', 'may_consume', 'paused', 'messages', 'keys', 'subject', 'role']) RETURNS jsonb
	LANGUAGE sql AS $$ SELECT jsonb_object_agg(key, value) FROM jsonb_each(details) WHERE key = ANY (names) $$;

-- one row for each change, by whom, in the change's transaction
SET ROLE regress_act_owner;
SET request.jwt.claims = '{"sub": "ada"}';
SET timezone = 'Asia/Tokyo';
SET intervalstyle = 'iso_8601';
SELECT message_bus.create_channel('act', ttl => '36 hours');
SELECT message_bus.create_channel('act', if_not_exists => true);
SELECT message_bus.alter_channel('act', ttl => '2 days');
SELECT message_bus.grant_channel('act', 'regress_act_reader', 'all');
SELECT message_bus.grant_channel('act', 'regress_act_auditor', 'audit');
SELECT message_bus.revoke_channel('act', 'regress_act_reader', 'publish');
SELECT message_bus.revoke_channel('act', 'regress_act_stranger', 'publish');
SELECT message_bus.create_subscription('act', 'sub', 'earliest');
SELECT message_bus.create_subscription('act', 'sub', if_not_exists => true);
SELECT message_bus.pause('act', 'sub');
SELECT message_bus.resume('act', 'sub');
SELECT message_bus.seek('act', 'sub', 'latest');
SELECT message_bus.publish('act', '1') IS NOT NULL;
SELECT message_bus.purge_channel('act');
SELECT message_bus.drop_subscription('act', 'sub');
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "kid": "a", "k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"},
	{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}');
SELECT message_bus.end_sessions('bob', 'regress_act_reader');
SELECT message_bus.set_jwt_keys('{"keys": []}');
RESET ROLE;
RESET timezone;
RESET intervalstyle;
SELECT kind, change, role, subject, session, k, pg_temp.shown(details - 'keys') FROM pg_temp.act ORDER BY no;
SELECT details ->> 'created_at' LIKE '%+00:00', details ->> 'lease' FROM pg_temp.act WHERE change = 'created' AND kind = 'channel';
SELECT count(DISTINCT k) = count(*) FROM message_bus.log_action;
-- of keys no key: of a public one its hash, of a secret one that cannot be tried
SELECT key - 'sha256', key ->> 'sha256' = encode(sha256('\x302a300506032b6570032100' || decode('11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=', 'base64')), 'hex') AS public,
	key ->> 'sha256' = encode(sha256(a.k || decode('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'hex')), 'hex') AS secret
	FROM message_bus.log_action a, jsonb_array_elements(details::jsonb -> 'keys') AS key WHERE no > :base;

-- numbers are those of facts, and only grow
SELECT bool_and(no >> 32 = (SELECT epoch FROM message_bus.server_state)) FROM pg_temp.act;
BEGIN;
SELECT message_bus.create_channel('act 2');
SAVEPOINT s;
SELECT message_bus.alter_channel('act 2', ttl => '1 hour');
ROLLBACK TO s;
SELECT message_bus.grant_channel('act 2', 'regress_act_reader', 'consume');
COMMIT;
SELECT kind, change, pg_temp.shown(details) FROM pg_temp.act WHERE no > (SELECT max(no) FROM pg_temp.act WHERE kind = 'keys') ORDER BY no;
BEGIN;
SELECT message_bus.create_channel('act 3');
PREPARE TRANSACTION 'x';
SELECT count(*) FROM pg_temp.act WHERE details ->> 'name' = 'act 3';
-- what has failed is not told
SELECT pg_temp.fails($$SELECT message_bus.create_channel('act')$$);
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('act', backoff => '1 hour')$$);
SELECT message_bus.drop_channel('act 2');
SELECT kind, change, pg_temp.shown(details, 'name') FROM pg_temp.act ORDER BY no DESC LIMIT 1;

-- the view: who may see what
SELECT message_bus.publish('act', '1') AS id \gset
SELECT message_bus.create_subscription('act', 'sub');
SELECT message_bus.nack(lease, reason => 'no "good"') FROM message_bus.claim('act', 'sub');
UPDATE message_bus.channel SET backoff = '0' WHERE name = 'act';
CREATE FUNCTION pg_temp.seen() RETURNS TABLE (kind text, what text, channel text, subscription text, n bigint) LANGUAGE sql AS $$
	SELECT kind, what, channel, subscription, count(*) FROM message_bus.audit_log
	WHERE no > (SELECT base FROM pg_temp.base) AND at > (SELECT at FROM pg_temp.base) GROUP BY 1, 2, 3, 4 ORDER BY min(no) $$;
GRANT SELECT ON pg_temp.base TO PUBLIC;
SET ROLE regress_act_owner;
SELECT * FROM pg_temp.seen();
SELECT a.kind, a.role, a.message_id = :id, a.details - 'lease' FROM message_bus.audit_log a WHERE message_id = :id;
SET ROLE regress_act_reader;
SELECT * FROM pg_temp.seen();
SET ROLE regress_act_auditor;
SELECT * FROM pg_temp.seen();
SET ROLE regress_act_stranger;
SELECT * FROM pg_temp.seen();
SET ROLE regress_act_monitor;
SELECT * FROM pg_temp.seen();
RESET ROLE;
-- no longer who is kept apart
SELECT message_bus.alter_channel('act', visibility => 'subject');
SET ROLE regress_act_reader;
SELECT * FROM pg_temp.seen();
SET ROLE regress_act_owner;
SELECT count(*) FROM message_bus.audit_log WHERE channel = 'act' AND kind <> 'failure';
RESET ROLE;
-- from a time on
SELECT max(at) AS last FROM message_bus.audit_log WHERE channel = 'act' \gset
SELECT kind, what, channel FROM message_bus.audit_log_rows(:'last') WHERE channel = 'act';
SELECT count(*) FROM message_bus.audit_log_rows('infinity');
SELECT (SELECT count(*) FROM message_bus.audit_log_rows()) = (SELECT count(*) FROM message_bus.audit_log);

-- entries
SELECT no AS channel_no FROM message_bus.audit_log WHERE channel = 'act' AND what = 'created' AND kind = 'channel' \gset
SELECT no AS grant_no FROM message_bus.audit_log WHERE channel = 'act' AND kind = 'grant' ORDER BY no LIMIT 1 \gset
SELECT max(no) AS keys_no FROM message_bus.audit_log WHERE kind = 'keys' \gset
CREATE FUNCTION pg_temp.entry(no bigint, kind text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(convert_from(message_bus.audit_entry(no, kind), 'UTF8'), '[0-9a-f]{32,}', 'HEX', 'g'), '(no|channel|at) \d+', '\1 N', 'g') $$;
SELECT pg_temp.entry(:channel_no, 'channel');
SELECT pg_temp.entry(:keys_no, 'keys');
SELECT pg_temp.entry(:channel_no, 'grant') IS NULL, pg_temp.entry(:channel_no, 'log') IS NULL, pg_temp.entry(NULL, 'channel') IS NULL, pg_temp.entry(-1, 'channel') IS NULL;
SET ROLE regress_act_owner;
SELECT pg_temp.entry(:channel_no, 'channel') IS NOT NULL, pg_temp.entry(:grant_no, 'grant') IS NOT NULL, pg_temp.entry(:keys_no, 'keys') IS NULL;
SET ROLE regress_act_reader;
SELECT pg_temp.entry(:channel_no, 'channel') IS NULL, pg_temp.entry(:grant_no, 'grant') IS NULL;
SET ROLE regress_act_monitor;
SELECT pg_temp.entry(:channel_no, 'channel') IS NOT NULL, pg_temp.entry(:grant_no, 'grant') IS NOT NULL, pg_temp.entry(:keys_no, 'keys') IS NOT NULL;
SET ROLE regress_act_stranger;
SELECT pg_temp.entry(:channel_no, 'channel') IS NULL;
RESET ROLE;

-- the table is closed, and what a superuser writes is no action
SET ROLE regress_act_owner;
SELECT pg_temp.fails($$SELECT FROM message_bus.log_action$$);
RESET ROLE;
SELECT count(*) AS before FROM message_bus.log_action \gset
UPDATE message_bus.channel SET ttl = '3 days' WHERE name = 'act';
SELECT count(*) - :before FROM message_bus.log_action;

SELECT message_bus.drop_channel('act');
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA message_bus FROM regress_act_owner;
DROP ROLE regress_act_owner, regress_act_reader, regress_act_auditor, regress_act_stranger, regress_act_monitor;
