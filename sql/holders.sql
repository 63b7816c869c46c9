--
-- holders: a lease is whose who has claimed; for anybody else there is none
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset format unaligned
\pset tuples_only on

SELECT message_bus.create_channel('h', lease => '1 hour', max_attempts => 3);
CREATE ROLE regress_holder_team;
CREATE ROLE regress_holder_a;
CREATE ROLE regress_holder_b;
CREATE ROLE regress_holder_member;
CREATE ROLE regress_holder_apart NOINHERIT;
CREATE ROLE regress_holder_login LOGIN NOINHERIT;
CREATE ROLE regress_holder_owner;
GRANT regress_holder_a TO regress_holder_member, regress_holder_apart;
GRANT regress_holder_a, regress_holder_b TO regress_holder_login;
GRANT regress_holder_team TO regress_holder_a, regress_holder_b;
GRANT EXECUTE ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session TO regress_holder_login;
SELECT message_bus.grant_channel('h', 'regress_holder_team', 'all');

-- what a lease number brings, without the number
CREATE FUNCTION pg_temp.tries(lease bigint) RETURNS TABLE (call text, outcome text) LANGUAGE plpgsql AS $$
BEGIN
	FOREACH call IN ARRAY ARRAY['ack(%s)', 'ack(%s, ARRAY[1])', 'nack(%s)', 'nack(%s, ARRAY[1], reason => ''x'')', 'extend(%s, ''1 hour'')',
		'extend(%s, ''1 hour'', ARRAY[1])', 'claim(''h'', ack => %s)', 'claim_bytes(''h'', ack => %s)', 'release_lease(%s)'] LOOP
		outcome := replace(pg_temp.fails(format('SELECT * FROM message_bus.' || call, lease)), lease::text, 'N');
		RETURN NEXT;
	END LOOP;
END
$$;
CREATE TEMPORARY TABLE nothing AS SELECT * FROM pg_temp.tries((1::bigint << 52) + 1);
SELECT * FROM nothing;
GRANT SELECT ON nothing TO PUBLIC;
-- as for a lease that does not exist: nothing that differs
CREATE FUNCTION pg_temp.as_nothing(lease bigint) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT n.call || ': ' || t.outcome FROM nothing n JOIN pg_temp.tries(lease) t USING (call) WHERE t.outcome IS DISTINCT FROM n.outcome
$$;
CREATE FUNCTION pg_temp.claimed() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT max(c.lease) FROM message_bus.claim('h', batch => 1, keep => true) c);
END
$$;

SELECT cardinality(message_bus.publish_batch_bytes('h', array_fill('x'::bytea, ARRAY[30])));
SET ROLE regress_holder_a;
SELECT pg_temp.claimed() AS lease \gset
-- another role that may consume, one that may not, the role's own group, a member that does not inherit
SET ROLE regress_holder_b;
SELECT pg_temp.as_nothing(:lease);
SELECT lease = :lease AS seen FROM message_bus.leases;
SET ROLE regress_holder_owner;
SELECT pg_temp.as_nothing(:lease);
SET ROLE regress_holder_team;
SELECT pg_temp.as_nothing(:lease);
SET ROLE regress_holder_apart;
SELECT pg_temp.as_nothing(:lease);
RESET ROLE;
SELECT count(*), min(lease) = :lease AS there FROM message_bus.leases WHERE channel = 'h';
-- the role itself, members of it, a superuser
SET ROLE regress_holder_member;
SELECT message_bus.extend(:lease, '1 hour') > now();
SELECT message_bus.ack(:lease);
SELECT message_bus.ack(:lease);
-- who has not acked does not repeat: that was the member
SET ROLE regress_holder_b;
SELECT pg_temp.as_nothing(:lease);
RESET ROLE;
SELECT message_bus.ack(:lease);
SET ROLE regress_holder_a;
SELECT pg_temp.claimed() AS lease \gset
RESET ROLE;
SELECT message_bus.nack(:lease, delay => '0');
SET ROLE regress_holder_a;
SELECT lease FROM message_bus.claim('h') \gset
SELECT count(*) FROM message_bus.claim('h', ack => :lease);
SET ROLE regress_holder_b;
SELECT pg_temp.as_nothing(:lease);
RESET ROLE;
-- what a superuser has claimed is his
SELECT pg_temp.claimed() AS lease \gset
SET ROLE regress_holder_a;
SELECT pg_temp.as_nothing(:lease);
RESET ROLE;
SELECT message_bus.ack(:lease);

-- a claim that is not committed, and one that another transaction is acking: told to nobody else
SET ROLE regress_holder_a;
BEGIN;
SELECT pg_temp.claimed() AS lease \gset
SET LOCAL ROLE regress_holder_b;
SELECT pg_temp.as_nothing(:lease);
ROLLBACK;
RESET ROLE;

-- SECURITY DEFINER: the function's owner claims and acks
CREATE FUNCTION public.regress_holder_take() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS
	$$ SELECT max(c.lease) FROM message_bus.claim('h') c $$;
CREATE FUNCTION public.regress_holder_done(lease bigint) RETURNS integer LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS
	$$ SELECT message_bus.ack(lease) $$;
ALTER FUNCTION public.regress_holder_take() OWNER TO regress_holder_a;
ALTER FUNCTION public.regress_holder_done(bigint) OWNER TO regress_holder_a;
SET ROLE regress_holder_b;
SELECT public.regress_holder_take() AS lease \gset
SELECT pg_temp.as_nothing(:lease);
SELECT public.regress_holder_done(:lease);
RESET ROLE;
DROP FUNCTION public.regress_holder_take(), public.regress_holder_done(bigint);

-- claims of PostgREST: another subject of the same role is another
SET ROLE regress_holder_a;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT pg_temp.claimed() AS lease \gset
SET request.jwt.claims = '{"sub": "bob"}';
SELECT pg_temp.as_nothing(:lease);
SET request.jwt.claims = '{"sub": "alice"}';
SELECT message_bus.extend(:lease, '1 hour') > now();
SELECT message_bus.ack(:lease);
SELECT message_bus.ack(:lease);
SET request.jwt.claims = '{"sub": "bob"}';
SELECT pg_temp.as_nothing(:lease);
-- and with none it is a session of the role
SET request.jwt.claims = '{"sub": "alice"}';
SELECT pg_temp.claimed() AS lease \gset
RESET request.jwt.claims;
SELECT message_bus.ack(:lease);
SELECT pg_temp.claimed() AS lease \gset
SET request.jwt.claims = '{"sub": "bob"}';
SELECT pg_temp.as_nothing(:lease);
RESET request.jwt.claims;
SELECT message_bus.ack(:lease);
RESET ROLE;

-- frames: role and subject of the token, on whatever socket and connection
\set control :here /sql/include/control.sql
\i :control
CREATE FUNCTION pg_temp.ask(session bigint, request text) RETURNS text LANGUAGE sql AS $$
	SELECT convert_from(substr(r.frame, 2), 'UTF8') FROM message_bus.relay(ARRAY[session], ARRAY['\x01'::bytea || convert_to(request, 'UTF8')]) r
$$;
CREATE FUNCTION pg_temp.says(session bigint, method text, params text) RETURNS text LANGUAGE sql AS $$
	SELECT COALESCE(r::json ->> 'result', (r::json -> 'error' ->> 'code') || ' ' || regexp_replace(r::json -> 'error' ->> 'message', '\d+', 'N'))
	FROM pg_temp.ask(session, format('{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}', method, params)) r
$$;
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "alg": "HS256"}]}');
SET message_bus.anonymous_role = 'regress_holder_a';
SET SESSION AUTHORIZATION regress_holder_login;
SELECT count(*) FROM message_bus.relay('{1,2,3,4,5,6}', ARRAY[pg_temp.control('{"role": "regress_holder_a", "sub": "alice"}'),
	pg_temp.control('{"role": "regress_holder_a", "sub": "bob"}'), pg_temp.control('{"role": "regress_holder_b", "sub": "alice"}'),
	pg_temp.control('{"role": "regress_holder_a"}'), '\x004f', pg_temp.control('{"role": "regress_holder_a", "sub": "alice"}')]);
SELECT pg_temp.ask(1, '{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"h","keep":true}}')::json -> 'result' -> 0 ->> 'lease' AS lease \gset
SELECT s, m, pg_temp.says(s, m, format('{"lease": %s%s}', :lease, CASE m WHEN 'extend' THEN ', "lease_for": 60' ELSE '' END))
	FROM unnest(ARRAY[2, 3, 4, 5]) s, unnest(ARRAY['ack', 'nack', 'extend', 'release_lease']) m;
SELECT s, pg_temp.says(s, 'claim', format('{"channel": "h", "ack": %s}', :lease)) FROM unnest(ARRAY[2, 3, 4, 5]) s;
-- not by SQL as the same role either, with claims of another subject; and so with those of the same, or none
SET ROLE regress_holder_a;
SET request.jwt.claims = '{"sub": "bob"}';
SELECT pg_temp.as_nothing(:lease);
SET request.jwt.claims = '{"sub": "alice"}';
SELECT message_bus.extend(:lease, '1 hour') > now();
RESET request.jwt.claims;
SELECT message_bus.extend(:lease, '1 hour') > now();
SET SESSION AUTHORIZATION regress_holder_login;
SELECT pg_temp.says(6, 'ack', format('{"lease": %s}', :lease)), pg_temp.says(1, 'ack', format('{"lease": %s}', :lease)),
	pg_temp.says(2, 'ack', format('{"lease": %s}', :lease));
-- a client without a subject: the role's
SELECT pg_temp.ask(4, '{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"h"}}')::json -> 'result' -> 0 ->> 'lease' AS lease \gset
SELECT pg_temp.says(1, 'ack', format('{"lease": %s}', :lease)), pg_temp.says(3, 'ack', format('{"lease": %s}', :lease)),
	pg_temp.says(5, 'ack', format('{"lease": %s}', :lease));
-- what a session of SQL has claimed is not a client's
RESET SESSION AUTHORIZATION;
SET ROLE regress_holder_a;
SELECT pg_temp.claimed() AS lease \gset
SET SESSION AUTHORIZATION regress_holder_login;
SELECT pg_temp.says(1, 'ack', format('{"lease": %s}', :lease)), pg_temp.says(3, 'ack', format('{"lease": %s}', :lease));
RESET SESSION AUTHORIZATION;
RESET message_bus.anonymous_role;
SELECT message_bus.set_jwt_keys('{"keys": []}');
SELECT message_bus.ack(:lease);

-- release_lease: for the channel's owner
SET ROLE regress_holder_a;
SELECT pg_temp.claimed() AS lease \gset
RESET ROLE;
SELECT pg_temp.fails('SELECT message_bus.release_lease(NULL)');
BEGIN;
SELECT message_bus.release_lease(:lease);
ROLLBACK;
BEGIN READ ONLY;
SELECT pg_temp.fails('SELECT message_bus.release_lease(1)');
COMMIT;
SELECT message_bus.release_lease(:lease);
SELECT replace(pg_temp.fails(format('SELECT message_bus.release_lease(%s)', :lease)), :'lease', 'N');
SET ROLE regress_holder_a;
SELECT pg_temp.as_nothing(:lease);
SELECT attempt, lease <> :lease FROM message_bus.claim('h');
RESET ROLE;
SELECT kind, attempt, reason, retry_at <= now() AS at_once FROM message_bus.failure WHERE lease = :lease;
SET ROLE regress_holder_b;
SELECT pg_temp.fails('SELECT message_bus.release_lease(' || (SELECT max(lease) FROM message_bus.leases) || ')') LIKE '55000 lease % is not held%';
RESET ROLE;
SELECT message_bus.release_lease((SELECT max(lease) FROM message_bus.leases WHERE channel = 'h'));

SELECT message_bus.drop_channel('h');
REVOKE ALL ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session FROM regress_holder_login;
DROP ROLE regress_holder_team, regress_holder_a, regress_holder_b, regress_holder_member, regress_holder_apart, regress_holder_login,
	regress_holder_owner;
