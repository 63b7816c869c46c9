--
-- tokens.sql
--     Sessions of a gateway, in SQL: control(claims) is the frame that opens one
--     with a token of these claims, ask() and says() call a method in one.
--     set_jwt_keys() must have been given the key, 32 times the letter s.
--
\set ECHO none
CREATE FUNCTION pg_temp.url(bytea) RETURNS text IMMUTABLE LANGUAGE sql AS
$$ SELECT rtrim(translate(encode($1, 'base64'), E'+/\n', '-_'), '=') $$;
CREATE FUNCTION pg_temp.hmac(secret bytea, data bytea) RETURNS bytea IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
	inside bytea := decode(repeat('36', 64), 'hex');
	outside bytea := decode(repeat('5c', 64), 'hex');
BEGIN
	FOR i IN 0 .. length(secret) - 1 LOOP
		inside := set_byte(inside, i, get_byte(inside, i) # get_byte(secret, i));
		outside := set_byte(outside, i, get_byte(outside, i) # get_byte(secret, i));
	END LOOP;
	RETURN sha256(outside || sha256(inside || data));
END
$$;
CREATE FUNCTION pg_temp.control(claims text) RETURNS bytea IMMUTABLE LANGUAGE sql AS $$
	SELECT '\x004f'::bytea || convert_to(input || '.' || pg_temp.url(pg_temp.hmac(convert_to(repeat('s', 32), 'UTF8'), convert_to(input, 'UTF8'))), 'UTF8')
	FROM (SELECT pg_temp.url('{"alg":"HS256"}') || '.' || pg_temp.url(convert_to(claims, 'UTF8'))) t (input)
$$;
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
