--
-- tokens.sql
--     Sessions of a gateway, in SQL: ask() and says() call a method in one, which
--     control() of control.sql has opened.
--
\set ECHO none
-- with a payload the frame is a binary one
CREATE FUNCTION pg_temp.ask(session bigint, method text, params text, payload bytea DEFAULT NULL) RETURNS json LANGUAGE sql AS $$
	SELECT convert_from(substr(r.frame, 2), 'UTF8')::json
	FROM message_bus.relay(ARRAY[session], ARRAY[CASE WHEN payload IS NULL THEN '\x01'::bytea ELSE '\x02' END
		|| convert_to(format('{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}', method, params), 'UTF8')
		|| COALESCE('\x0a' || payload, '')]) r
$$;
-- a result, or the whole error, without ids and times
CREATE FUNCTION pg_temp.says(session bigint, method text, params text, payload bytea DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(COALESCE(r ->> 'result', (r -> 'error')::text), '\d{8,}|"\d{4}-[^"]*Z"', 'N', 'g') FROM pg_temp.ask(session, method, params, payload) r
$$;
\set ECHO all
