--
-- prelude.sql
--     What the tests share: the extension, and functions of the session.
--
-- fails(command) runs a command and returns how it failed: SQLSTATE, message
-- and detail, with numbers of messages taken out.  wait_for(query) asks until
-- the answer is true, for at most 30 seconds.
--
\set ECHO none
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS message_bus;
RESET client_min_messages;
SET extra_float_digits = 1;
SET timezone = 'UTC';
SET intervalstyle = 'postgres';
SET bytea_output = 'hex';

CREATE FUNCTION pg_temp.fails(command text) RETURNS text
	LANGUAGE plpgsql AS $$
DECLARE
	primary_message text;
	detail text;
BEGIN
	EXECUTE command;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS primary_message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL;
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE || ' ' || primary_message,
			NULLIF(detail, '')), '([Mm]essage) \d+', '\1 N', 'g');
END
$$;

CREATE FUNCTION pg_temp.wait_for(query text) RETURNS boolean
	LANGUAGE plpgsql AS $$
DECLARE
	answer boolean;
	started timestamptz := clock_timestamp();
BEGIN
	LOOP
		EXECUTE query INTO answer;
		IF answer THEN
			RETURN true;
		END IF;
		IF clock_timestamp() > started + interval '30 seconds' THEN
			RETURN false;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
\set ECHO all
