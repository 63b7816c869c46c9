--
-- segments: opened for who publishes, closed to everybody else, dropped when
-- all in them has expired; expire() and what it says when it must wait
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

-- what other tests have published would keep segments
SET client_min_messages = warning;
DROP EXTENSION message_bus CASCADE;
RESET client_min_messages;
CREATE EXTENSION message_bus;

CREATE ROLE regress_mbus_stranger;

-- gone(n) tells whether nothing is left of a segment
CREATE FUNCTION pg_temp.gone(n bigint) RETURNS boolean
	LANGUAGE sql VOLATILE AS $$
	SELECT NOT EXISTS (SELECT FROM pg_class WHERE relname ~ ('^(message|event)_' || n || '(_|$)'))
		AND NOT EXISTS (SELECT FROM message_bus.segment WHERE segment_no = n)
$$;

-- what a database may have that must not touch segments: grants to everybody
-- on new tables, and event triggers
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_mbus_stranger, PUBLIC;
CREATE FUNCTION public.regress_mbus_no_ddl() RETURNS event_trigger
	LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('application_name') = 'message_bus worker' THEN
		RAISE EXCEPTION 'an event trigger fired in the worker';
	END IF;
END
$$;
CREATE EVENT TRIGGER regress_mbus_start ON ddl_command_start
	EXECUTE FUNCTION public.regress_mbus_no_ddl();
CREATE EVENT TRIGGER regress_mbus_end ON ddl_command_end
	EXECUTE FUNCTION public.regress_mbus_no_ddl();
CREATE EVENT TRIGGER regress_mbus_drop ON sql_drop
	EXECUTE FUNCTION public.regress_mbus_no_ddl();

-- a channel of a series that nobody has published to, so that it is opened
SELECT message_bus.create_channel('years', ttl => '20 years');
SELECT message_bus.publish('years', '1') > 0 AS published;
SELECT max(id) >> 24 AS years FROM message_bus.message \gset

SELECT state, rows_reserved, size_bytes > 0 AS sized, closed_at,
		expires_at > now() + interval '19 years' AS expires_late
	FROM message_bus.segments WHERE segment_no = :years;

-- nobody has rights on its tables, row security is on, vacuum stays away,
-- and they go with the extension
SELECT regexp_replace(c.relname, '\d+', 'N') AS name, c.relrowsecurity, c.relispartition,
		c.reloptions, d.deptype,
		(SELECT count(*) FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner) AS grants,
		c.relowner = p.relowner AS parents_owner
	FROM pg_class c
		JOIN pg_inherits i ON i.inhrelid = c.oid
		JOIN pg_class p ON p.oid = i.inhparent
		LEFT JOIN pg_depend d ON d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass
	WHERE c.oid IN (('message_bus.message_' || :years)::regclass, ('message_bus.event_' || :years)::regclass)
	ORDER BY 1;
SELECT regexp_replace(indexrelid::regclass::text, '\d+', 'N') AS index, indisunique, indisvalid
	FROM pg_index
	WHERE indrelid IN (('message_bus.message_' || :years)::regclass, ('message_bus.event_' || :years)::regclass)
	ORDER BY 1;
SET ROLE regress_mbus_stranger;
SELECT pg_temp.fails(format('SELECT * FROM message_bus.message_%s', :years)) ~ '42501' AS refused;
SELECT pg_temp.fails('SELECT message_bus.expire()');
SELECT pg_temp.fails('SELECT * FROM message_bus.segments');
RESET ROLE;

-- messages that have expired go, with their segment
SELECT message_bus.create_channel('moment', ttl => '1 second');
SELECT message_bus.publish('moment', '"gone soon"') AS moment \gset
SELECT count(*) FROM message_bus.get(:moment) WHERE id IS NOT NULL;
SELECT pg_sleep(1.1);
SELECT count(*) FROM message_bus.get(:moment) WHERE id IS NOT NULL;
SELECT message_bus.expire() > 0 AS expired;
SELECT pg_temp.gone(:moment >> 24);
SELECT count(*) AS no_message FROM message_bus.get(:moment) WHERE id IS NOT NULL;
SELECT state FROM message_bus.segments WHERE segment_no = :years;

-- with nothing to do it says so
SELECT message_bus.expire();

-- a caller whose own transaction reads the parent is told, and not hung up
SELECT message_bus.publish('moment', '2') AS moment \gset
BEGIN;
SELECT count(*) > 0 AS reads FROM message_bus.message;
SELECT pg_sleep(1.1);
SELECT message_bus.expire();
SELECT state IN ('open', 'closed', 'detaching') AS waits FROM message_bus.segments WHERE segment_no = :moment >> 24;
COMMIT;
SELECT pg_temp.wait_for(format('SELECT pg_temp.gone(%s)', :moment >> 24));

-- so is one that has published to the segment itself
BEGIN;
SELECT message_bus.publish('moment', '3') AS moment \gset
SELECT pg_sleep(1.1);
SELECT message_bus.expire();
COMMIT;
SELECT pg_temp.wait_for(format('SELECT pg_temp.gone(%s)', :moment >> 24));

-- a table that was left detached is dropped too
SELECT message_bus.publish('moment', '4') AS moment \gset
SELECT pg_temp.fails(format('ALTER TABLE message_bus.event DETACH PARTITION message_bus.event_%s', :moment >> 24));
SELECT state FROM message_bus.segments WHERE segment_no = :moment >> 24;
SELECT pg_sleep(1.1);
SELECT message_bus.expire() > 0 AS expired;
SELECT pg_temp.gone(:moment >> 24);

-- the worker had no error in all this
SELECT pid IS NOT NULL AS runs, ready, errors, last_error, last_pass_at > now() - interval '1 minute' AS passes,
		segments_opened > 0 AS opened, segments_retired > 0 AS retired, unfinished_publishes
	FROM message_bus.worker_status;

-- DROP EXTENSION needs no CASCADE, whatever state segments are in, and the
-- next extension starts anew
SELECT message_bus.publish('moment', '5') AS moment \gset
SELECT pg_temp.fails(format('ALTER TABLE message_bus.message DETACH PARTITION message_bus.message_%s', :moment >> 24));
DROP EXTENSION message_bus;
SELECT count(*) FROM pg_class WHERE relname ~ '^(message|event)_\d+';
CREATE EXTENSION message_bus;
SELECT message_bus.publish('default', '6') >> 24 AS first_segment;

DROP EVENT TRIGGER regress_mbus_start;
DROP EVENT TRIGGER regress_mbus_end;
DROP EVENT TRIGGER regress_mbus_drop;
DROP FUNCTION public.regress_mbus_no_ddl();
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM regress_mbus_stranger, PUBLIC;
DROP ROLE regress_mbus_stranger;
