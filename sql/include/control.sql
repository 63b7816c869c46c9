--
-- control.sql
--     control(claims) is the frame of a gateway that opens a session with a token
--     of these claims. set_jwt_keys() must have been given the key, 32 times the
--     letter s.
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
\set ECHO all
