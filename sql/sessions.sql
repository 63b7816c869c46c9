--
-- sessions: tokens, keys, who a frame runs as, and that nothing stays behind
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset format unaligned
\pset tuples_only on

CREATE ROLE regress_session_login LOGIN NOINHERIT;
CREATE ROLE regress_session_anon;
CREATE ROLE regress_session_app;
CREATE ROLE regress_session_service BYPASSRLS;
CREATE ROLE regress_session_super SUPERUSER;
CREATE ROLE regress_session_stranger;
GRANT regress_session_anon, regress_session_app, regress_session_service, regress_session_super
	TO regress_session_login;
SELECT message_bus.create_channel('sessions');
SELECT message_bus.grant_channel('sessions', 'regress_session_app', 'all');

-- base64url, HMAC with SHA-256 (RFC 2104, a secret of up to 64 bytes), tokens
CREATE FUNCTION url(bytea) RETURNS text IMMUTABLE LANGUAGE sql AS
$$ SELECT rtrim(translate(encode($1, 'base64'), E'+/\n', '-_'), '=') $$;
CREATE FUNCTION hmac(secret bytea, data bytea) RETURNS bytea IMMUTABLE LANGUAGE plpgsql AS $$
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
CREATE FUNCTION token(claims text, header text DEFAULT '{"alg":"HS256"}', secret text DEFAULT repeat('s', 32)) RETURNS text
IMMUTABLE LANGUAGE sql AS $$
	SELECT input || '.' || url(hmac(convert_to(secret, 'UTF8'), convert_to(input, 'UTF8')))
	FROM (SELECT url(convert_to(header, 'UTF8')) || '.' || url(convert_to(claims, 'UTF8'))) t (input)
$$;
-- how a token is answered: as whom, or why not
CREATE FUNCTION opened(token text, options json DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
BEGIN
	RETURN message_bus.open_session(1, token, options);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ' ' || message || ': ' || detail;
END
$$;

--
-- Keys
--
SELECT message_bus.set_jwt_keys('{"keys": []}');
SELECT pg_temp.fails(format('SELECT message_bus.set_jwt_keys(%L)', jwks)) FROM (VALUES (1, NULL), (2, '[]'), (3, '{}'),
	(4, '{"keys": [], "keys": []}'), (5, '{"keys": {}}'), (6, '{"keys": [1]}'), (7, '{"keys": [{}]}'),
	(8, '{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}'),
	(9, '{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M="}]}'),
	(10, '{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "alg": "HS512"}]}'),
	(11, '{"keys": [{"kty": "oct", "kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}]}'),
	(12, '{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "kid": 1}]}'),
	(13, '{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "kid": "a"},
		{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "kid": "\u0061"}]}'),
	(14, '{"keys": [{"kty": "RSA", "n": "' || repeat('_', 171) || 'w", "e": "AQAB"}]}'),
	(15, '{"keys": [{"kty": "RSA", "n": "' || repeat('_', 342) || '", "e": "AQ"}]}'),
	(16, '{"keys": [{"kty": "RSA", "n": "' || repeat('_', 4096) || '", "e": "AQAB"}]}'),
	(17, '{"keys": [{"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}]}'),
	(18, '{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}'),
	(19, '{"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
		"y": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}]}'),
	(20, '{"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
		"y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}]}'),
	(21, '{"keys": [{"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'),
	(22, '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qY"}]}'),
	(23, '{"keys": [{"kty": "PQ"}]}'),
	(24, '{"keys": [' || repeat('{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"},', 16)
		|| '{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}]}'),
	(25, '{"keys": [' || repeat('{"kty": "OKP"},', 64) || '{}]}')) t (n, jwks) ORDER BY n;
SELECT count(*) FROM message_bus.jwt_key;
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "RSA", "use": "enc", "alg": "RSA-OAEP"},
	{"kty": "oct", "kid": "h", "alg": "HS256", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}]}');
SELECT position, kid, alg, key FROM message_bus.jwt_key;

-- nobody but an administrator
SET ROLE regress_session_service;
SELECT pg_temp.fails(command) FROM (VALUES ('SELECT message_bus.set_jwt_keys(''{"keys": []}'')'),
	('SELECT message_bus.open_session(1)'), ('SELECT message_bus.close_session(1)'),
	('TABLE message_bus.jwt_key')) t (command);
RESET ROLE;
GRANT EXECUTE ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session TO regress_session_login;

--
-- The examples of RFC 7515 (A.1 HS256, A.2 RS256, A.3 ES256) and RFC 8037
-- (A.4 Ed25519).  Their signatures fit, which their claims tell: the first
-- three expired in 2011, the last is no JSON.
--
\set payload 'eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ'
\set a1 'eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.' :payload '.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk'
\set a2 'eyJhbGciOiJSUzI1NiJ9.' :payload '.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw'
\set a3 'eyJhbGciOiJFUzI1NiJ9.' :payload '.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q'
\set a4 'eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg'
SELECT message_bus.set_jwt_keys('{"keys": [
	{"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
	{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
	{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
	{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}');
SELECT opened(:'a1'), opened(:'a2'), opened(:'a3'), opened(:'a4');
-- keys of a transaction that is rolled back were never there
BEGIN;
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}]}');
SELECT opened(:'a1'), opened(token('{"iat": ""}'));
ROLLBACK;
SELECT opened(:'a1'), opened(token('{"iat": ""}'));
-- with one bit changed they do not fit
SELECT n, opened(regexp_replace(t, '\.(.)([^.]*)$', CASE WHEN t ~ '\.A[^.]*$' THEN '.B\2' ELSE '.A\2' END))
FROM (VALUES (1, :'a1'), (2, :'a2'), (3, :'a3'), (4, :'a4')) v (n, t) ORDER BY n;
SELECT n, opened(replace(t, '.eyJpc3MiOiJq', '.eyJpc3MiOiJr'))
FROM (VALUES (1, :'a1'), (2, :'a2'), (3, :'a3')) v (n, t) ORDER BY n;

--
-- Opening
--
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "kid": "h", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}]}');
SET SESSION AUTHORIZATION regress_session_login;
SET message_bus.anonymous_role = 'regress_session_anon';
SELECT message_bus.open_session(1);
SELECT message_bus.open_session(1, '');
SELECT message_bus.open_session(9007199254740991, token('{}'));
SELECT message_bus.open_session(2, token('{"role": "regress_session_app", "sub": "u \"1\"", "exp": 253402300799.5}'));
SELECT message_bus.open_session(3, token('{"role": "regress_session_service"}', '{"alg":"HS256","typ":"at+JWT","kid":"h"}'));
SELECT pg_temp.fails(format('SELECT message_bus.open_session(%s)', args)) FROM (VALUES (1, 'NULL'), (2, '0'), (3, '-1'),
	(4, '9007199254740992'), (5, '1, NULL, ''[]'''), (6, '1, NULL, ''{"skew": 301}'''), (7, '1, NULL, ''{"skew": "1"}'''),
	(8, '1, NULL, ''{"skew": 1.5}'''), (9, '1, NULL, ''{"issuer": 1}'''), (10, '1, NULL, ''{"color": "red"}'''),
	(11, '1, NULL, ''{"skew": 1, "skew": 1}'''), (12, '1, NULL, ''{"anonymous": ""}'''),
	(13, '1, NULL, ''{"anonymous": "regress_session_service"}'''), (14, '1, NULL, ''{"anonymous": "no such"}''')) t (n, args) ORDER BY n;
-- the role a token names
SELECT role, opened(token(format('{"role": %s}', role))) FROM (VALUES (1, '"regress_session_super"'), (2, '"regress_session_stranger"'),
	(3, '"regress_session_login"'), (4, '"postgres"'), (5, '"no such"'), (6, '"none"'), (7, '"public"'), (8, '""'), (9, '"\"regress_session_app\""'),
	(10, '"regress_session_app\u0000"'), (11, '["regress_session_app"]'), (12, 'null'), (13, '1'), (14, '"Regress_session_app"'),
	(15, '"' || repeat('r', 64) || '"')) t (n, role) ORDER BY n;
SELECT opened(token('{"sub": "u"}'), '{"anonymous": "regress_session_service"}');
SELECT opened(token('{"sub": "u"}'), '{"anonymous": ""}');
-- claims that are compared
SELECT claims, opened(token(claims), json) FROM (VALUES
	(1, '{"iss": "a"}', '{"issuer": "a", "audience": ""}'), (2, '{"iss": "b"}', '{"issuer": "a"}'), (3, '{}', '{"issuer": "a"}'),
	(4, '{"iss": 1}', NULL), (5, '{"aud": "a"}', '{"audience": "a"}'), (6, '{"aud": ["b", "a"]}', '{"audience": "a"}'),
	(7, '{"aud": ["b"]}', '{"audience": "a"}'), (8, '{"aud": []}', '{"audience": "a"}'), (9, '{}', '{"audience": "a"}'),
	(10, '{"aud": 1}', NULL), (11, '{"aud": ["a", 1]}', '{"audience": "a"}'), (12, '{"aud": {"a": "a"}}', '{"audience": "a"}'),
	(13, '{"exp": "9999999999"}', NULL), (14, '{"exp": 1}', NULL), (15, '{"exp": null}', NULL), (16, '{"exp": 1e400}', NULL),
	(17, '{"exp": 253402300800}', NULL), (18, '{"exp": -1}', NULL), (19, '{"nbf": 9999999999}', NULL), (20, '{"nbf": "1"}', NULL),
	(21, '{"nbf": 1, "iat": 1}', NULL), (22, '{"iat": true}', NULL), (23, '{"sub": 1}', NULL), (24, '{"sub": "a", "sub": "a"}', NULL),
	(25, '{"sub": "a", "\u0073ub": "b"}', NULL), (26, '{"a": {"sub": 1, "sub": 2}}', NULL), (27, '[]', NULL), (28, '1', NULL), (29, '{', NULL)
	) t (n, claims, options) CROSS JOIN LATERAL (SELECT options::json) o (json) ORDER BY n;
SET message_bus.token_issuer = 'from the settings';
SET message_bus.token_audience = 'a';
SELECT opened(token('{"iss": "from the settings", "aud": "a"}')), opened(token('{"aud": "a"}')), opened(token('{"aud": "a"}'), '{"issuer": ""}');
RESET message_bus.token_issuer;
RESET message_bus.token_audience;
-- an end can be demanded, and the login cannot do without
SET message_bus.token_must_expire = off;
RESET SESSION AUTHORIZATION;
SET message_bus.token_must_expire = on;
SET SESSION AUTHORIZATION regress_session_login;
SELECT opened(token('{}')), opened(token('{"exp": 9999999999}'));
SELECT message_bus.open_session(1);
RESET SESSION AUTHORIZATION;
RESET message_bus.token_must_expire;
SET SESSION AUTHORIZATION regress_session_login;

--
-- Frames
--
RESET SESSION AUTHORIZATION;
CREATE FUNCTION call(method text, params text DEFAULT '{}', id text DEFAULT '1') RETURNS bytea IMMUTABLE LANGUAGE sql AS
$$ SELECT '\x01' || convert_to(format('{"jsonrpc":"2.0","id":%s,"method":"%s","params":%s}', id, method, params), 'UTF8') $$;
CREATE FUNCTION control(what text, token text DEFAULT '') RETURNS bytea IMMUTABLE LANGUAGE sql AS
$$ SELECT '\x00'::bytea || convert_to(what || token, 'UTF8') $$;
CREATE FUNCTION send(sessions bigint[], VARIADIC frames bytea[]) RETURNS TABLE (session bigint, reply text) LANGUAGE sql AS $$
	SELECT r.session, get_byte(r.frame, 0) || ' ' || regexp_replace(regexp_replace(convert_from(substr(r.frame, 2), 'UTF8'), '"eyJ[^"]*"', 'TOKEN'),
		'"since":\d+', '"since":TIME')
	FROM message_bus.relay(sessions, frames) r
$$;
SET SESSION AUTHORIZATION regress_session_login;
SELECT token('{"role": "regress_session_app", "sub": "alice"}') AS alice, token('{"role": "regress_session_app", "sub": "bob"}') AS bob,
	token('{"role": "regress_session_service", "sub": "service"}') AS service, token('{"role": "regress_session_stranger"}') AS stranger \gset

-- a session is not open before it is opened, and not after it is closed or refused
SELECT * FROM send('{11,11,11,11,11,12,11,11,11}', call('ping'), control('O', :'alice'), call('ping'), control('C'), call('ping'),
	control('O'), control('O', :'stranger'), call('ping'), control('O', :'alice'));
SELECT * FROM send('{11,11,11,12}', control('O', 'no token'), call('ping'), control('O', :'alice'), call('ping'));
SELECT * FROM send('{11,11,11,0,0}', control('X'), control(''), control('C', 'more'), control('O', :'alice'), call('ping'));

-- authenticate: a new identity, the old one if it fails
SELECT * FROM send('{21,21,21,21}', call('publish', '{"channel": "sessions", "payload": 1}'),
	call('authenticate', format('{"token": "%s"}', :'alice')), call('ping'), call('authenticate', format('{"token": "%s"}', :'stranger')));
SELECT * FROM send('{21,21,21,21,21,21,21}', call('ping'), call('authenticate'), call('authenticate', '{"token": 1}'),
	call('authenticate', '{"token": "a", "color": "red"}'), call('authenticate', '{"token": "a\u0000"}'),
	'\x027b226a736f6e727063223a22322e30222c226964223a312c226d6574686f64223a2261757468656e746963617465227d0a00',
	call('authenticate', '{"token": ""}'));
-- in a batch, and as a notification
SELECT * FROM send('{22,22,22}', '\x01' || convert_to(format('[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"authenticate","params":{"token":"%s"}},{"jsonrpc":"2.0","id":3,"method":"ping"}]', :'bob'), 'UTF8'),
	'\x01' || convert_to(format('{"jsonrpc":"2.0","method":"authenticate","params":{"token":"%s"}}', :'alice'), 'UTF8'), call('ping'));

-- with one role for all frames there are no sessions
SET message_bus.relay_role = 'regress_session_app';
SELECT * FROM send('{31,31,31,32}', control('O', :'alice'), call('authenticate', '{"token": ""}'), control('C'), call('ping'));
SET message_bus.relay_role = '';
SELECT * FROM send('{31,32}', call('ping'), call('ping'));

-- expiry is looked at with each frame
SELECT message_bus.open_session(41, token(format('{"role": "regress_session_app", "exp": %s}',
	extract(epoch FROM clock_timestamp()) + 1.5)), '{"skew": 0}') IS NOT NULL AS opened;
SELECT * FROM send('{41}', call('ping'));
SELECT pg_sleep(1.6);
SELECT * FROM send('{41,41,41}', call('ping'), call('authenticate', format('{"token": "%s"}', :'alice')), call('ping'));

-- who logged in as another does not find the first one's sessions
RESET SESSION AUTHORIZATION;
SELECT * FROM send('{41}', call('ping'));

-- what can change is looked at with each frame
SELECT * FROM send('{51,52,53}', control('O', :'alice'), control('O', :'service'), control('O'));
CREATE FUNCTION check_roles() RETURNS TABLE (session bigint, reply text) LANGUAGE sql AS
$$ SELECT * FROM send('{51,52,53}', call('ping'), call('ping'), call('ping')) $$;
SET SESSION AUTHORIZATION regress_session_login;
SELECT * FROM send('{51,52,53}', control('O', :'alice'), control('O', :'service'), control('O'));
SELECT * FROM check_roles();
RESET SESSION AUTHORIZATION;
BEGIN;
REVOKE regress_session_service FROM regress_session_login;
ALTER ROLE regress_session_app SUPERUSER;
ALTER ROLE regress_session_anon BYPASSRLS;
SET LOCAL SESSION AUTHORIZATION regress_session_login;
SELECT * FROM check_roles();
ROLLBACK;
SET SESSION AUTHORIZATION regress_session_login;
SELECT * FROM check_roles();
RESET SESSION AUTHORIZATION;

-- so is whether a token must have an end; there is none without a token
RESET SESSION AUTHORIZATION;
BEGIN;
SET LOCAL message_bus.token_must_expire = on;
SET LOCAL SESSION AUTHORIZATION regress_session_login;
SELECT * FROM check_roles();
ROLLBACK;

-- a key that is gone ends the sessions whose tokens it has signed, no others
SET SESSION AUTHORIZATION regress_session_login;
SELECT * FROM check_roles();
RESET SESSION AUTHORIZATION;
BEGIN;
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "kid": "other", "k": "dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ"}]}');
SET LOCAL SESSION AUTHORIZATION regress_session_login;
SELECT * FROM check_roles();
ROLLBACK;
BEGIN;
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "kid": "other", "k": "dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ"},
	{"kty": "oct", "kid": "another name", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}]}');
SET LOCAL SESSION AUTHORIZATION regress_session_login;
SELECT * FROM check_roles();
ROLLBACK;

-- sessions that are ended, of a subject, of a role, or of both
CREATE FUNCTION ended(subject text, role text) RETURNS TABLE (session bigint, reply text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM message_bus.end_sessions(subject, role);
	SET LOCAL SESSION AUTHORIZATION regress_session_login;
	RETURN QUERY SELECT * FROM check_roles();
	-- the token opens nothing, a newer one does
	RETURN QUERY SELECT * FROM send('{51,51,51}', control('O', token('{"role": "regress_session_app", "sub": "alice"}')), call('ping'),
		control('O', token(format('{"role": "regress_session_app", "sub": "alice", "iat": %s}', extract(epoch FROM clock_timestamp())::bigint + 1))));
END
$$;
BEGIN;
SELECT session, regexp_replace(reply, '"session":.*', '') FROM ended('alice', NULL);
ROLLBACK;
SET SESSION AUTHORIZATION regress_session_login;
SELECT reply LIKE '%"open"%' AS opened FROM send('{51}', control('O', :'alice'));
RESET SESSION AUTHORIZATION;
BEGIN;
SELECT session, regexp_replace(reply, '"session":.*', '') FROM ended('alice', 'regress_session_service');
ROLLBACK;
BEGIN;
SELECT session, regexp_replace(reply, '"session":.*', '') FROM ended(NULL, 'regress_session_service');
ROLLBACK;
BEGIN;
SELECT session, regexp_replace(reply, '"session":.*', '') FROM ended(NULL, 'regress_session_anon');
SET LOCAL SESSION AUTHORIZATION DEFAULT;
SELECT message_bus.end_sessions('alice');
SELECT subject, role, ended_at > now() FROM message_bus.session_end ORDER BY subject;
ROLLBACK;
SET SESSION AUTHORIZATION regress_session_login;
SELECT reply LIKE '%"open"%' AS opened FROM send('{51}', control('O', :'alice'));
SELECT pg_temp.fails('SELECT message_bus.end_sessions(''alice'')');
RESET SESSION AUTHORIZATION;
SELECT pg_temp.fails('SELECT message_bus.end_sessions()');
SELECT pg_temp.fails('SELECT message_bus.end_sessions(''alice'', ''regress_session_nobody'')');
-- what is said of more takes the place of what is said of less
BEGIN;
SELECT message_bus.end_sessions(s, r) FROM (VALUES ('alice', 'regress_session_app'), ('alice', 'regress_session_service'), ('bob', 'regress_session_app'),
	('bob', NULL), ('carol', 'regress_session_app'), ('alice', 'regress_session_app')) AS t (s, r);
SELECT subject, role FROM message_bus.session_end ORDER BY 1, 2;
SELECT message_bus.end_sessions('alice');
SELECT subject, role FROM message_bus.session_end ORDER BY 1, 2;
SELECT message_bus.end_sessions(NULL, 'regress_session_app');
SELECT subject, role FROM message_bus.session_end ORDER BY 1, 2;
ROLLBACK;
-- and what is older than any token may be is removed
SELECT extract(epoch FROM clock_timestamp())::bigint AS epoch \gset
SELECT message_bus.open_session(57, token(format('{"role": "regress_session_app", "iat": %s}', :epoch - 7000))) IS NOT NULL AS opened;
ALTER SYSTEM SET message_bus.token_max_age = '1 h';
SELECT pg_reload_conf();
SELECT pg_sleep(0.5), 'a command reads the file when the one before has ended';
SHOW message_bus.token_max_age;
SET SESSION AUTHORIZATION regress_session_login;
SELECT regexp_replace(opened(token(claims)), ',"sub".*', '') FROM (VALUES ('{"role": "regress_session_app"}'), (format('{"role": "regress_session_app", "iat": %s}', :epoch - 3640)),
	(format('{"role": "regress_session_app", "iat": %s}', :epoch - 3600))) AS t (claims);
RESET SESSION AUTHORIZATION;
SELECT reply FROM send('{57}', call('ping'));
SET SESSION AUTHORIZATION regress_session_login;
SELECT reply FROM send('{58,58,59,59}', '\x0041' || int8send((:epoch - 946684800 - 3640) * 1000000::bigint), call('ping'),
	'\x0041' || int8send((:epoch - 946684800 - 3000) * 1000000::bigint), call('ping'));
RESET SESSION AUTHORIZATION;
BEGIN;
INSERT INTO message_bus.session_end VALUES ('old', NULL, clock_timestamp() - interval '66 minutes'), ('young', NULL, clock_timestamp() - interval '64 minutes');
SELECT message_bus.end_sessions('now');
SELECT subject, role FROM message_bus.session_end ORDER BY 1, 2;
ROLLBACK;
ALTER SYSTEM RESET message_bus.token_max_age;
SELECT pg_reload_conf();
-- one without a token is as old as where it was opened first, and not from the future
BEGIN;
SELECT (extract(epoch FROM clock_timestamp() - '2000-01-01Z'::timestamptz) * 1e6)::bigint AS since \gset
SELECT message_bus.end_sessions(NULL, 'regress_session_anon');
SET LOCAL SESSION AUTHORIZATION regress_session_login;
SELECT * FROM send('{54,54,55,55,56,56}', '\x0041' || int8send(:since - 1000), call('ping'), control('O'), call('ping'),
	'\x0041' || int8send(9000000000000000000), call('ping'));
SET LOCAL SESSION AUTHORIZATION DEFAULT;
SELECT message_bus.end_sessions(NULL, 'regress_session_anon');
SET LOCAL SESSION AUTHORIZATION regress_session_login;
SELECT * FROM send('{56,56}', call('ping'), '\x0041');
ROLLBACK;

-- rights are those of each frame's role, to functions and to channels
BEGIN;
REVOKE EXECUTE ON FUNCTION message_bus.peek FROM PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.peek TO regress_session_app;
SET LOCAL SESSION AUTHORIZATION regress_session_login;
SELECT session, left(reply, 100) FROM send('{51,53,51,53,52}', call('peek', '{"channel": "sessions"}'), call('peek', '{"channel": "sessions"}'),
	call('peek', '{"channel": "sessions"}'), call('publish', '{"channel": "sessions", "payload": 1}'),
	call('publish', '{"channel": "sessions", "payload": 1}'));
ROLLBACK;

-- a gateway that closes nothing: the sessions not used for longest go
SET SESSION AUTHORIZATION regress_session_login;
SELECT count(message_bus.open_session(n)) FROM generate_series(1000, 66540) n;
SELECT * FROM send('{52,53,1000,66540}', call('ping'), call('ping'), call('ping'), call('ping'));
SELECT * FROM send('{1005,1006}', call('ping'), call('ping'));
SELECT session, regexp_replace(reply, '"headers":.*(?="sqlstate")', '') FROM send('{1000}', '\x0048' || convert_to('{"n": 1, "max": 0, "method": "GET", "path": "/v1/messages/1"}', 'UTF8'));
RESET SESSION AUTHORIZATION;

--
-- One backend, many roles: nothing of a frame is there in the next.  A
-- function in the place of a real one does what it likes.
--
CREATE TABLE secrets (owner name, secret text);
INSERT INTO secrets SELECT r, 'of ' || r FROM unnest('{regress_session_app,regress_session_anon,regress_session_service}'::name[]) r;
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secrets USING (owner = current_user);
GRANT SELECT ON secrets TO regress_session_app, regress_session_anon, regress_session_service;
BEGIN;
CREATE OR REPLACE FUNCTION message_bus.delete_message(transaction_id text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	CASE transaction_id
	WHEN 'who' THEN
		RAISE EXCEPTION '% as %', session_user, current_user USING
			detail = format('claims %s, sub %s, app.mine %L, request.mine %L, search_path %s, work_mem %s, temporary %s, secrets %s',
				current_setting('request.jwt.claims', true),
				current_setting('request.jwt.claims', true)::jsonb ->> 'sub',
				current_setting('app.mine', true), current_setting('request.mine', true),
				current_setting('search_path'), current_setting('work_mem'), to_regclass('pg_temp.t'),
				(SELECT string_agg(secret, ', ' ORDER BY secret COLLATE "C") FROM public.secrets));
	WHEN 'settings' THEN
		PERFORM set_config('app.mine', 'left', false), set_config('request.mine', 'left', false),
			set_config('search_path', 'public', false), set_config('work_mem', '64kB', false),
			set_config('message_bus.anonymous_role', 'regress_session_service', false),
			set_config('message_bus.relay_role', 'regress_session_app', false),
			set_config('request.jwt.claims', '{"sub": "forged"}', false);
	WHEN 'settings and error' THEN
		PERFORM set_config('app.mine', 'left', false), set_config('request.jwt.claims', '{"sub": "forged"}', false);
		RAISE EXCEPTION 'on purpose';
	WHEN 'role' THEN
		EXECUTE 'SET ROLE regress_session_service';
	WHEN 'role setting' THEN
		PERFORM set_config('role', 'regress_session_service', false);
	WHEN 'authorization' THEN
		EXECUTE 'SET SESSION AUTHORIZATION regress_session_service';
	WHEN 'temporary' THEN
		EXECUTE 'CREATE TEMPORARY TABLE t (a int)';
	WHEN 'prepare' THEN
		EXECUTE 'PREPARE left_behind AS SELECT 1';
	WHEN 'listen' THEN
		EXECUTE 'LISTEN left_behind';
	WHEN 'open' THEN
		PERFORM message_bus.open_session(61, '');
	WHEN 'forge' THEN
		PERFORM set_config('request.jwt.claims', '{"sub": "forged"}', false),
			message_bus.publish('sessions', '"forged?"', transaction_id => 'forged');
	WHEN 'claim' THEN
		PERFORM FROM message_bus.claim('sessions', 's', 2, lease_for => '1 day');
	END CASE;
	RETURN true;
END
$$;
GRANT EXECUTE ON FUNCTION message_bus.open_session TO regress_session_app;
CREATE FUNCTION what(transaction_id text) RETURNS bytea IMMUTABLE LANGUAGE sql AS
$$ SELECT call('delete_message', format('{"transaction_id": "%s"}', transaction_id)) $$;
SET LOCAL SESSION AUTHORIZATION regress_session_login;
SELECT * FROM send('{61,62,63}', control('O', :'alice'), control('O', :'service'), control('O'));
SELECT session, regexp_replace(reply, '"jsonrpc":"2.0","id":1,', '') FROM send('{61,62,63,61}', what('who'), what('who'), what('who'), what('who'));
SELECT session, regexp_replace(reply, '"jsonrpc":"2.0","id":1,', '') FROM send('{61,63,61,62,61,63,61,63,61,63,61,63,61,63,61,63,61,61,63}',
	what('settings'), what('who'), what('settings and error'), what('who'), what('role'), what('who'), what('role setting'), what('who'),
	what('authorization'), what('who'), what('temporary'), what('who'), what('prepare'), what('who'), what('listen'), what('who'),
	what('open'), what('who'), what('who'));
SELECT current_user, session_user, current_setting('app.mine', true), current_setting('request.jwt.claims', true),
	current_setting('message_bus.relay_role'), current_setting('message_bus.anonymous_role'), current_setting('search_path');

-- who published it is who was verified, whatever a setting says
SELECT * FROM send('{61}', what('forge'));
SELECT subject, publisher, session FROM message_bus.messages WHERE transaction_id = 'forged';
RESET SESSION AUTHORIZATION;
COMMIT;
SELECT convert_from(payload, 'UTF8') AS payload, subject, name::text AS publisher, session
	FROM message_bus.message JOIN message_bus.publisher USING (publisher_id) WHERE transaction_id = 'forged';
SELECT name FROM pg_prepared_statements WHERE name = 'left_behind';
SELECT pg_listening_channels();

--
-- Closing gives back what was claimed, by any connection
--
SELECT message_bus.create_subscription('sessions', 's');
SELECT count(message_bus.publish('sessions', to_json(n))) FROM generate_series(1, 4) n;
SET SESSION AUTHORIZATION regress_session_login;
SELECT * FROM send('{71,72,71}', control('O', :'alice'), control('O', :'bob'), what('claim'));
SELECT * FROM send('{72}', what('claim'));
RESET SESSION AUTHORIZATION;
SELECT l.session, count(*), min(l.attempt) AS attempt FROM message_bus.leases l WHERE l.session IN (71, 72) GROUP BY l.session ORDER BY l.session;
-- an open transaction keeps what it has pinned, until it is rolled back
SELECT min(l.lease) AS lease FROM message_bus.leases l WHERE l.session = 72 \gset
BEGIN;
SELECT message_bus.ack(:lease);
SELECT message_bus.close_session(72), message_bus.close_session(73);
ROLLBACK;
\c -
SELECT message_bus.close_session(71), message_bus.close_session(74);
SELECT message_bus.close_session(0);
DO $$
BEGIN
	FOR i IN 1 .. 1500 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM message_bus.leases l WHERE l.session IN (71, 72));
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
SELECT l.session, count(*) FROM message_bus.leases l WHERE l.session IN (71, 72) GROUP BY l.session ORDER BY l.session;
-- also what was claimed in the very call that closes it
SELECT count(message_bus.publish('sessions', to_json(n))) FROM generate_series(5, 6) n;
SET SESSION AUTHORIZATION regress_session_login;
SET message_bus.anonymous_role = 'regress_session_anon';
SELECT * FROM send('{75,75,75,75}', control('O', :'alice'), what('claim'), control('C'), call('ping'));
RESET SESSION AUTHORIZATION;
DO $$
BEGIN
	FOR i IN 1 .. 1500 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM message_bus.leases l WHERE l.session = 75);
		PERFORM pg_sleep(0.02);
	END LOOP;
END
$$;
SELECT count(*) FROM message_bus.leases l WHERE l.session = 75;
SELECT f.kind, count(*) FROM message_bus.failure f JOIN message_bus.messages m ON m.id = f.message_id
	WHERE m.channel = 'sessions' GROUP BY f.kind;

SELECT message_bus.set_jwt_keys('{"keys": []}');
SELECT message_bus.drop_channel('sessions');
CREATE OR REPLACE FUNCTION message_bus.delete_message(transaction_id text) RETURNS boolean
	AS '$libdir/message_bus', 'mbus_delete_message' LANGUAGE C;
DROP TABLE secrets;
DROP FUNCTION call, control, send, check_roles, what, token, hmac, url, opened;
REVOKE ALL ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session FROM regress_session_login;
REVOKE ALL ON FUNCTION message_bus.open_session FROM regress_session_app;
DROP ROLE regress_session_login, regress_session_anon, regress_session_app, regress_session_service, regress_session_super,
	regress_session_stranger;
