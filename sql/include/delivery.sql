--
-- delivery.sql
--     What the tests of deliveries share; behind prelude.sql.
--
-- take(tag, arguments) claims, remembers what came under the tag and shows
-- it.  lease(tag), ids(tag) and id(tag, payload) say what that was; nothing
-- that changes from run to run is shown.  refused(command) is as fails(),
-- with all large numbers taken out.  seen(tag) is when the tag's claim
-- returned.
--
\set ECHO none
CREATE TEMP TABLE taken (tag text, place bigserial, at timestamptz DEFAULT clock_timestamp(), id bigint, lease bigint,
	attempt integer, message text);

CREATE FUNCTION pg_temp.take(tag text, arguments text) RETURNS TABLE (message text, attempt integer)
	LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('INSERT INTO pg_temp.taken AS t (tag, id, lease, attempt, message)
		SELECT %L, c.id, c.lease, c.attempt, c.payload::text FROM message_bus.claim(%s) AS c
		RETURNING t.message, t.attempt', tag, arguments);
END
$$;

CREATE FUNCTION pg_temp.lease(tag text) RETURNS bigint LANGUAGE sql AS
	'SELECT max(lease) FROM pg_temp.taken t WHERE t.tag = $1';

CREATE FUNCTION pg_temp.ids(tag text) RETURNS bigint[] LANGUAGE sql AS
	'SELECT array_agg(id ORDER BY place) FROM pg_temp.taken t WHERE t.tag = $1';

CREATE FUNCTION pg_temp.id(tag text, message text) RETURNS bigint LANGUAGE sql AS
	'SELECT id FROM pg_temp.taken t WHERE t.tag = $1 AND t.message = $2';

CREATE FUNCTION pg_temp.seen(tag text) RETURNS timestamptz LANGUAGE sql AS
	'SELECT max(at) FROM pg_temp.taken t WHERE t.tag = $1';

CREATE FUNCTION pg_temp.refused(command text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(pg_temp.fails(command), '\m\d{6,}', 'N', 'g'), 'N(, N)+', 'N, N ...', 'g')
$$;
\set ECHO all
