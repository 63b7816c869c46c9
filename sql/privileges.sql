--
-- privileges: who may do what, on a server whose default privileges give
-- every new table and function away, as Supabase's do
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

CREATE ROLE regress_mbus_anon;
CREATE ROLE regress_mbus_authenticated;
CREATE ROLE regress_mbus_service BYPASSRLS;
CREATE ROLE regress_mbus_monitor;
GRANT pg_monitor TO regress_mbus_monitor;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES
	TO regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES
	TO regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS
	TO regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS
	TO regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;

-- the extension is made anew under them, and opens a segment
DROP EXTENSION message_bus;
CREATE EXTENSION message_bus;
SELECT message_bus.create_channel('secret');
SELECT message_bus.create_channel('open');
SELECT message_bus.grant_channel('open', 'regress_mbus_authenticated', 'all');
SELECT message_bus.publish('secret', '"secret"', transaction_id => 's1') AS secret_id \gset
SELECT message_bus.publish('open', '"open"', transaction_id => 'o1') AS open_id \gset

CREATE VIEW pg_temp.relation AS
	SELECT regexp_replace(c.relname, '_\d+', '_<n>', 'g') AS relation, c.oid, c.relkind,
		c.relrowsecurity AS row_security, c.relowner, c.relacl
	FROM pg_class c
	WHERE c.relnamespace = 'message_bus'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S');

-- tables and sequences are nobody's; the parts of a partitioned table too
SELECT relation, relkind, row_security, count(*) AS n,
		count(*) FILTER (WHERE EXISTS (SELECT FROM aclexplode(relacl) a WHERE a.grantee <> relowner)) AS granted,
		count(*) FILTER (WHERE EXISTS (SELECT FROM pg_depend d
			WHERE d.objid = r.oid AND d.refclassid = 'pg_extension'::regclass)) AS of_extension
	FROM pg_temp.relation r WHERE relkind <> 'v'
	GROUP BY relation, relkind, row_security ORDER BY relation COLLATE "C";
-- views, for whom
SELECT relation, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
		string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type) AS privileges
	FROM pg_temp.relation r, aclexplode(relacl) a
	WHERE relkind = 'v' AND a.grantee <> relowner
	GROUP BY relation, a.grantee ORDER BY relation COLLATE "C";
-- functions, for whom
SELECT p.proname AS function, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
	FROM pg_proc p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
	WHERE p.pronamespace = 'message_bus'::regnamespace AND a.grantee <> p.proowner
	ORDER BY p.proname COLLATE "C", grantee;
-- no function runs with its owner's rights
SELECT count(*) FROM pg_proc WHERE pronamespace = 'message_bus'::regnamespace AND prosecdef;
-- nobody makes anything in the schema
SELECT rolname, has_schema_privilege(oid, 'message_bus', 'usage') AS usage,
		has_schema_privilege(oid, 'message_bus', 'create') AS create
	FROM pg_roles WHERE rolname ~ '^regress_mbus_' ORDER BY rolname COLLATE "C";

-- and a grant on all tables, by mistake, gives nothing away
CREATE FUNCTION pg_temp.reads(who text) RETURNS TABLE (relation text, answer text) LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT c.relation AS name, c.oid FROM pg_temp.relation c
		WHERE c.relkind IN ('r', 'p') ORDER BY c.relation COLLATE "C", c.oid
	LOOP
		relation := r.name;
		EXECUTE format('SET ROLE %I', who);
		answer := pg_temp.fails(format('DO %L', format(
			'BEGIN PERFORM FROM %s; IF FOUND THEN RAISE EXCEPTION ''sees rows''; END IF; END', r.oid::regclass)));
		RESET ROLE;
		answer := regexp_replace(answer, '_\d+', '_<n>', 'g');
		RETURN NEXT;
	END LOOP;
END
$$;
SELECT * FROM pg_temp.reads('regress_mbus_anon') GROUP BY relation, answer ORDER BY relation COLLATE "C";
SELECT DISTINCT answer LIKE '42501 %' AS refused FROM pg_temp.reads('regress_mbus_service');
SELECT DISTINCT answer LIKE '42501 %' AS refused FROM pg_temp.reads('regress_mbus_authenticated');
SELECT DISTINCT answer LIKE '42501 %' AS refused FROM pg_temp.reads('regress_mbus_monitor');
BEGIN;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA message_bus TO regress_mbus_anon;
SELECT * FROM pg_temp.reads('regress_mbus_anon') GROUP BY relation, answer ORDER BY relation COLLATE "C";
SET ROLE regress_mbus_anon;
SELECT pg_temp.fails('INSERT INTO message_bus.channel_grant SELECT 1, current_user::regrole, true, true');
UPDATE message_bus.channel SET owner = current_user::regrole;
DELETE FROM message_bus.message;
ROLLBACK;
BEGIN;
GRANT pg_read_all_data TO regress_mbus_anon;
SELECT DISTINCT answer FROM pg_temp.reads('regress_mbus_anon');
ROLLBACK;

-- a role without privileges: every client function says so
SET ROLE regress_mbus_anon;
SELECT call, pg_temp.fails('SELECT message_bus.' || replace(call, ':secret_id', :'secret_id')) FROM unnest(ARRAY[
	$$publish('secret', '1')$$, $$publish_text('secret', '1')$$, $$publish_bytes('secret', '1')$$,
	$$publish_batch('secret', '[{"payload": 1}]')$$, $$publish_batch_bytes('secret', ARRAY['1'::bytea])$$,
	$$publish_batch('secret', '[]')$$,
	$$store_message('t', 's', 'n', 'p', '1')$$,
	$$get(:secret_id)$$, $$get_bytes(:secret_id)$$,
	$$get_by_transaction('secret', 's1')$$, $$get_by_transaction('secret', 'no such')$$, $$peek('secret')$$,
	$$retrieve_message('s1')$$, $$delete_message('s1')$$,
	$$record_event(:secret_id, 'deleted', now())$$, $$record_event(:secret_id, 'accessed', now())$$]) AS t (call);
-- administration, the gateway's entry and what the views call are not for it
SELECT call, pg_temp.fails('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$create_channel('mine')$$, $$alter_channel('open')$$, $$drop_channel('open')$$,
	$$grant_channel('open', 'regress_mbus_anon', 'all')$$, $$revoke_channel('open', 'regress_mbus_anon', 'all')$$,
	$$expire()$$, $$relay(ARRAY[1], ARRAY['\x00'::bytea])$$, $$counters()$$, $$open_segments()$$,
	$$worker_status_row()$$, $$pool_rows()$$]) AS t (call);
SELECT v, pg_temp.fails('SELECT * FROM message_bus.' || v) FROM unnest(ARRAY[
	'channels', 'messages', 'message_bus', 'errors', 'metrics', 'segments', 'worker_status', 'pools']) AS v;
SELECT count(*) FROM message_bus.channels;
SELECT count(*) FROM message_bus.messages;
SELECT count(*) FROM message_bus.message_bus;
SELECT pg_temp.fails($$INSERT INTO message_bus.message_bus (channel, payload) VALUES ('secret', '1')$$);
UPDATE message_bus.message_bus SET accessed_at = now();
DELETE FROM message_bus.message_bus;
-- what is not there is nothing, whoever asks
SELECT NOT EXISTS (SELECT FROM message_bus.get(1)) AS nothing;

-- a role with privileges on one channel sees that one
SET ROLE regress_mbus_authenticated;
SELECT channel, may_publish, may_consume FROM message_bus.channels;
SELECT channel, transaction_id FROM message_bus.messages;
SELECT channel, transaction_id, payload FROM message_bus.message_bus;
SELECT (message_bus.get(:open_id)).payload;
SELECT pg_temp.fails(format('SELECT message_bus.get(%s)', :secret_id));
-- conditions of its own do not see the others either
CREATE FUNCTION pg_temp.leak(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
$$ BEGIN RAISE NOTICE 'saw %', value; RETURN true; END $$;
SELECT count(*) FROM message_bus.messages WHERE pg_temp.leak(transaction_id);
SELECT count(*) FROM message_bus.message_bus WHERE pg_temp.leak(payload::text);
SELECT count(*) FROM message_bus.channels WHERE pg_temp.leak(channel);

-- publishing without consuming, and the other way round
RESET ROLE;
SELECT message_bus.revoke_channel('open', 'regress_mbus_authenticated', 'consume');
SET ROLE regress_mbus_authenticated;
SELECT message_bus.publish('open', '2') > :open_id AS published;
SELECT message_bus.publish('open', '"open"', transaction_id => 'o1') = :open_id AS told_its_id;
SELECT pg_temp.fails(format('SELECT message_bus.get(%s)', :open_id));
SELECT pg_temp.fails($$SELECT message_bus.peek('open')$$);
SELECT count(*) FROM message_bus.messages;
INSERT INTO message_bus.message_bus (channel, payload) VALUES ('open', '3') RETURNING id > :open_id AS stored, payload;
DELETE FROM message_bus.message_bus;
SELECT channel, may_publish, may_consume FROM message_bus.channels;
RESET ROLE;
SELECT message_bus.revoke_channel('open', 'regress_mbus_authenticated', 'publish');
SELECT message_bus.grant_channel('open', 'regress_mbus_authenticated', 'consume');
SET ROLE regress_mbus_authenticated;
SELECT pg_temp.fails($$SELECT message_bus.publish('open', '4')$$);
SELECT payload FROM message_bus.peek('open');
-- to delete is to take from others: it needs both
SELECT pg_temp.fails($$DELETE FROM message_bus.message_bus$$);
SET message_bus.default_channel = 'open';
SELECT pg_temp.fails($$SELECT message_bus.delete_message('o1')$$);
RESET message_bus.default_channel;
SELECT pg_temp.fails(format('SELECT message_bus.record_event(%s, ''deleted'', now())', :open_id));
UPDATE message_bus.message_bus SET accessed_at = now() WHERE id = :open_id;
RESET ROLE;

-- monitoring sees no message
SET ROLE regress_mbus_monitor;
SELECT count(*) > 0 AS metrics FROM message_bus.metrics;
SELECT count(*) > 0 AS segments FROM message_bus.segments;
SELECT ready FROM message_bus.worker_status;
SELECT count(*) >= 0 AS errors FROM message_bus.errors;
SELECT count(*) FROM message_bus.messages;
RESET ROLE;

-- settings that raise limits are not for everybody
SET ROLE regress_mbus_anon;
SELECT pg_temp.fails('SET message_bus.max_payload = 1000000');
SELECT pg_temp.fails('SET message_bus.databases = ''x''');
RESET ROLE;

/*
 * A role's own operators and functions, found before the server's, never run
 * with the rights of the tables' owner.
 */
CREATE ROLE regress_mbus_attacker;
CREATE SCHEMA regress_mbus_evil AUTHORIZATION regress_mbus_attacker;
GRANT EXECUTE ON FUNCTION message_bus.create_channel, message_bus.alter_channel,
	message_bus.drop_channel, message_bus.grant_channel, message_bus.revoke_channel
	TO regress_mbus_attacker;
SET ROLE regress_mbus_attacker;
CREATE FUNCTION regress_mbus_evil.whoami() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'
		AND CURRENT_USER OPERATOR(pg_catalog.<>) 'regress_mbus_attacker' THEN
		RAISE EXCEPTION 'attacker''s function runs as %', CURRENT_USER;
	END IF;
	RETURN NULL;
END
$$;
DO $$
DECLARE
	op text;
	type text;
BEGIN
	FOREACH type IN ARRAY ARRAY['text', 'name', 'integer', 'bigint', 'oid', 'regrole', 'interval', 'timestamptz', 'boolean', 'bytea', 'jsonb', '"char"']
	LOOP
		EXECUTE format('CREATE FUNCTION regress_mbus_evil.compare(%1$s, %1$s) RETURNS boolean LANGUAGE plpgsql AS
			''BEGIN RETURN regress_mbus_evil.whoami(); END''', type);
		FOREACH op IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>=']
		LOOP
			EXECUTE format('CREATE OPERATOR regress_mbus_evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = regress_mbus_evil.compare)',
				op, type, type);
		END LOOP;
	END LOOP;
END
$$;
CREATE FUNCTION regress_mbus_evil.concat(text, text) RETURNS text LANGUAGE plpgsql AS
	'BEGIN RETURN regress_mbus_evil.whoami(); END';
CREATE OPERATOR regress_mbus_evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_mbus_evil.concat);
CREATE FUNCTION regress_mbus_evil.concat(jsonb, text) RETURNS text LANGUAGE plpgsql AS
	'BEGIN RETURN regress_mbus_evil.whoami(); END';
CREATE OPERATOR regress_mbus_evil.->> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = regress_mbus_evil.concat);
CREATE FUNCTION regress_mbus_evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
	'BEGIN PERFORM regress_mbus_evil.whoami(); RETURN NULL; END';
CREATE FUNCTION regress_mbus_evil.current_setting(text) RETURNS text LANGUAGE plpgsql AS
	'BEGIN PERFORM regress_mbus_evil.whoami(); RETURN NULL; END';
CREATE FUNCTION regress_mbus_evil.convert_to(text, name) RETURNS bytea LANGUAGE plpgsql AS
	'BEGIN PERFORM regress_mbus_evil.whoami(); RETURN NULL; END';
CREATE FUNCTION regress_mbus_evil.jsonb_strip_nulls(jsonb) RETURNS jsonb LANGUAGE plpgsql AS
	'BEGIN PERFORM regress_mbus_evil.whoami(); RETURN NULL; END';
CREATE FUNCTION regress_mbus_evil.nextval(regclass) RETURNS bigint LANGUAGE plpgsql AS
	'BEGIN PERFORM regress_mbus_evil.whoami(); RETURN NULL; END';
SET search_path = regress_mbus_evil, pg_catalog;
SELECT 1 = 1 AS evil_is_found_first, current_setting('role') AS so_are_functions;
SELECT message_bus.create_channel('evil', ttl => '1 hour', dead_letter => '', max_payload => 0);
SELECT message_bus.create_channel('evil', if_not_exists => true);
SELECT message_bus.alter_channel('evil', ttl => '2 hours', dead_letter => '', max_payload => 0);
SELECT message_bus.grant_channel('evil', 'regress_mbus_anon', 'all');
SELECT message_bus.grant_channel('evil', 'regress_mbus_anon', 'publish');
SELECT message_bus.revoke_channel('evil', 'regress_mbus_anon', 'all');
SET message_bus.default_channel = 'evil';
SELECT message_bus.publish('evil', '1', transaction_id => 'e1') IS NOT NULL AS published;
SELECT message_bus.publish_batch('evil', '[{"payload": 2, "headers": {"a": 1}}]') IS NOT NULL AS published;
SELECT message_bus.store_message('e2', 's', 'n', 'p', '{"a": 1}') IS NOT NULL AS stored;
SELECT message_bus.retrieve_message('e2');
INSERT INTO message_bus.message_bus (transaction_id, payload, checksum, session_id, expires_at)
	VALUES ('e3', '3', '4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce', 's', pg_catalog.now() + '1 hour')
	RETURNING transaction_id, payload, session_id, status;
UPDATE message_bus.message_bus SET accessed_at = pg_catalog.now();
SELECT transaction_id, payload, session_id, status, accessed_at IS NOT NULL AS accessed FROM message_bus.message_bus ORDER BY id USING OPERATOR(pg_catalog.<);
DELETE FROM message_bus.message_bus WHERE transaction_id OPERATOR(pg_catalog.=) 'e3';
SELECT message_bus.delete_message('e2');
SELECT payload FROM message_bus.peek('evil');
SELECT message_bus.drop_channel('evil');
RESET search_path;
RESET message_bus.default_channel;
RESET ROLE;

-- the path is the caller's again after each call, also after one that failed
SET search_path = public, pg_temp;
SELECT message_bus.create_channel('path');
SHOW search_path;
SELECT pg_temp.fails($$SELECT message_bus.create_channel('path')$$);
SHOW search_path;
SELECT current_user = session_user AS same_user;
RESET search_path;

DROP VIEW pg_temp.relation;
SET client_min_messages = warning;
DROP OWNED BY regress_mbus_attacker CASCADE;
RESET client_min_messages;
DROP ROLE regress_mbus_attacker;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES
	FROM regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service, PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES
	FROM regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS
	FROM regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS
	FROM regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;
DROP EXTENSION message_bus;
DROP OWNED BY regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service;
DROP ROLE regress_mbus_anon, regress_mbus_authenticated, regress_mbus_service, regress_mbus_monitor;
