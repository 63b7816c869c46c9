--
-- channels: made, changed, dropped, granted; every limit and every error
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset null '<null>'

CREATE ROLE regress_mbus_owner;
CREATE ROLE regress_mbus_member;
CREATE ROLE regress_mbus_other;
GRANT regress_mbus_owner TO regress_mbus_member;
GRANT EXECUTE ON FUNCTION message_bus.create_channel, message_bus.alter_channel,
	message_bus.drop_channel, message_bus.grant_channel, message_bus.revoke_channel
	TO regress_mbus_owner, regress_mbus_other;

CREATE VIEW pg_temp.policy AS
	SELECT channel, ttl, max_attempts AS att, lease, backoff, backoff_max, dead_letter AS dead,
		retention, max_payload AS max, compression AS compr
	FROM message_bus.channels;

-- the default channel is there from the start
SELECT channel, ttl, compression, may_publish, may_consume
	FROM message_bus.channels WHERE channel = 'default';

-- defaults, and every option
SELECT message_bus.create_channel('plain');
SELECT message_bus.create_channel('dead');
SELECT message_bus.create_channel(channel => 'full', ttl => '7 days', max_attempts => 1000,
	lease => '7 days', backoff => '0', backoff_max => '365 days', dead_letter => 'dead',
	retention => 'ttl', max_payload => 4611686018427387904, compression => 'zstd',
	if_not_exists => false);
SELECT * FROM pg_temp.policy WHERE channel IN ('plain', 'dead', 'full') ORDER BY channel;
SELECT owner = 'postgres'::regrole OR owner = current_user::regrole AS mine,
		created_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS just_now
	FROM message_bus.channels WHERE channel = 'plain';

-- NULL options are the defaults; those of ttl and compression are settings
SET message_bus.default_ttl = '90 minutes';
SET message_bus.default_compression = 'gzip';
SELECT message_bus.create_channel('nulls', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT * FROM pg_temp.policy WHERE channel = 'nulls';
SET message_bus.default_ttl = 'soon';
SELECT pg_temp.fails($$SELECT message_bus.create_channel('soon', ttl => NULL)$$);
SET message_bus.default_ttl = '-1 hour';
SELECT pg_temp.fails($$SELECT message_bus.create_channel('soon', ttl => NULL)$$);
SELECT pg_temp.fails($$SET message_bus.default_ttl = ''$$);
SELECT pg_temp.fails($$SET message_bus.default_compression = 'zip'$$);
RESET message_bus.default_ttl;
RESET message_bus.default_compression;

-- names: 1 to 255 bytes of UTF-8 without control characters
SELECT pg_temp.fails($$SELECT message_bus.create_channel(NULL)$$);
SELECT pg_temp.fails($$SELECT message_bus.create_channel('')$$);
SELECT pg_temp.fails($$SELECT message_bus.create_channel(repeat('x', 255))$$);
SELECT pg_temp.fails($$SELECT message_bus.create_channel(repeat('x', 256))$$);
SELECT pg_temp.fails($$SELECT message_bus.create_channel(repeat(chr(233), 127) || '1')$$) AS bytes_255;
SELECT pg_temp.fails($$SELECT message_bus.create_channel(repeat(chr(233), 128))$$) AS bytes_256;
SELECT pg_temp.fails($$SELECT message_bus.create_channel(repeat(chr(128640), 64))$$) AS bytes_256;
SELECT pg_temp.fails($$SELECT message_bus.create_channel(repeat('x', 100000))$$);
SELECT code, pg_temp.fails(format('SELECT message_bus.create_channel(%L)', 'ab' || chr(code)))
	FROM unnest(ARRAY[1, 9, 10, 13, 27, 31, 127, 128, 133, 159]) AS c (code);
-- what looks odd but is allowed
SELECT code, pg_temp.fails(format('SELECT message_bus.create_channel(%L)', 'ab' || chr(code)))
	FROM unnest(ARRAY[32, 34, 37, 39, 92, 126, 160, 8232, 65279, 128640]) AS c (code);
SELECT message_bus.create_channel(' %s"''; --');
SELECT message_bus.create_channel('Plain');
SELECT count(*) FROM message_bus.channels WHERE lower(channel) = 'plain';
-- the longest are found again by publishers
SELECT message_bus.publish(repeat(chr(233), 127) || '1', '1')
	< message_bus.publish(repeat('x', 255), '2')
	AS published_to_255_bytes;
SELECT payload FROM message_bus.peek(repeat('x', 255));
SELECT pg_temp.fails($$SELECT message_bus.publish(repeat('x', 254), '1')$$) LIKE '42P01 channel "xxx%' AS no_prefix_matches;
SELECT pg_temp.fails($$SELECT message_bus.publish(repeat('x', 256), '1')$$) LIKE '42P01 channel "xxx%' AS not_cut_off;
SELECT payload FROM message_bus.peek(' %s"''; --');

-- names are taken once
SELECT pg_temp.fails($$SELECT message_bus.create_channel('plain')$$);
SELECT pg_temp.fails($$SELECT message_bus.create_channel('plain', if_not_exists => NULL)$$);
\set VERBOSITY sqlstate
SELECT message_bus.create_channel('plain', ttl => '1 hour', if_not_exists => true);
\set VERBOSITY default
SELECT ttl FROM pg_temp.policy WHERE channel = 'plain';
-- a bad policy is an error, whether or not the channel exists
SELECT pg_temp.fails($$SELECT message_bus.create_channel('plain', ttl => '0', if_not_exists => true)$$);

-- every limit
CREATE FUNCTION pg_temp.refuses(options text) RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.fails(format('SELECT message_bus.create_channel(''limits'', %s)', options)) $$;
SELECT options, pg_temp.refuses(options) FROM unnest(ARRAY[
	$$ttl => '0'$$, $$ttl => '-1 second'$$, $$ttl => '36526 days'$$, $$ttl => '178000000 years'$$,
	$$ttl => '-178000000 years'$$,
	$$max_attempts => 0$$, $$max_attempts => -1$$, $$max_attempts => 1001$$,
	$$lease => '0'$$, $$lease => '-1 second'$$, $$lease => '7 days 1 microsecond'$$,
	$$backoff => '-1 second'$$, $$backoff => '366 days'$$,
	$$backoff_max => '-1 second'$$, $$backoff_max => '366 days'$$,
	$$backoff => '2 seconds', backoff_max => '1 second'$$,
	$$dead_letter => 'limits'$$, $$dead_letter => 'nowhere'$$,
	$$retention => 'Acked'$$, $$retention => 'forever'$$, $$retention => ''$$,
	$$max_payload => -1$$,
	$$compression => 'zip'$$, $$compression => ''$$, $$compression => 'LZ4'$$]) AS t (options);
SELECT count(*) AS made_by_refused_calls FROM message_bus.channels WHERE channel = 'limits';
-- their edges
SELECT message_bus.create_channel('edges', ttl => '36525 days', max_attempts => 1, lease => '1 microsecond',
	backoff => '1 second', backoff_max => '1 second', dead_letter => '', max_payload => 0);
SELECT * FROM pg_temp.policy WHERE channel = 'edges';
SELECT message_bus.create_channel('shortest', ttl => '1 microsecond');

-- alter: NULL leaves as it is, '' and 0 remove
SELECT message_bus.alter_channel('full');
SELECT * FROM pg_temp.policy WHERE channel = 'full';
SELECT message_bus.alter_channel('full', ttl => '1 hour', max_attempts => 3, lease => '1 minute',
	backoff => '2 seconds', backoff_max => '3 seconds', dead_letter => 'plain', retention => 'ttl',
	max_payload => 100, compression => 'none');
SELECT * FROM pg_temp.policy WHERE channel = 'full';
SELECT message_bus.alter_channel('full', dead_letter => '', max_payload => 0);
SELECT * FROM pg_temp.policy WHERE channel = 'full';
SELECT options, pg_temp.fails(format('SELECT message_bus.alter_channel(''full'', %s)', options)) FROM unnest(ARRAY[
	$$ttl => '0'$$, $$max_attempts => 0$$, $$lease => '0'$$, $$backoff => '-1 second'$$,
	$$backoff => '4 seconds'$$, $$backoff_max => '1 second'$$,
	$$dead_letter => 'full'$$, $$dead_letter => 'nowhere'$$, $$retention => 'forever'$$,
	$$max_payload => -1$$, $$compression => 'zip'$$]) AS t (options);
SELECT pg_temp.fails($$SELECT message_bus.alter_channel(NULL)$$);
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('nowhere')$$);
SELECT * FROM pg_temp.policy WHERE channel = 'full';

-- retention acked: a series of segments to itself, until it is altered or dropped
CREATE VIEW pg_temp.own AS
	SELECT name, ttl, retention, series > 9 AS own, row_number() OVER (ORDER BY series) AS place
	FROM message_bus.channel WHERE name ~ '^acked';
SELECT message_bus.create_channel('acked' || n, retention => 'acked') FROM generate_series(1, 3) AS n;
SELECT * FROM pg_temp.own ORDER BY name;
SELECT series AS second FROM message_bus.channel WHERE name = 'acked2' \gset
SELECT message_bus.alter_channel('acked2', ttl => '1 hour');
SELECT message_bus.alter_channel('acked3', retention => 'acked', ttl => '1 hour');
SELECT * FROM pg_temp.own ORDER BY name;
SELECT message_bus.alter_channel('acked2', retention => 'ttl');
SELECT ttl, retention, series FROM message_bus.channel WHERE name = 'acked2';
SELECT message_bus.create_channel('acked4', retention => 'acked');
SELECT series = :second AS freed FROM message_bus.channel WHERE name = 'acked4';
SELECT message_bus.alter_channel('acked2', retention => 'acked');
SELECT message_bus.alter_channel('acked1', retention => 'ttl', ttl => '7 days');
SELECT name, ttl, retention, series FROM message_bus.channel WHERE name = 'acked1';
SELECT count(DISTINCT series) AS series, count(*) AS channels FROM message_bus.channel WHERE retention = 'acked' AND name ~ '^acked';
\set VERBOSITY sqlstate
SELECT message_bus.create_channel('acked2', retention => 'acked', if_not_exists => true);
\set VERBOSITY default
SELECT message_bus.publish('acked2', '1') > 0 AS published;
SELECT payload FROM message_bus.peek('acked2');
-- there are 55
BEGIN;
SELECT pg_temp.fails($$SELECT message_bus.create_channel('acked_' || n, retention => 'acked') FROM generate_series(1, 56) AS n$$);
ROLLBACK;
SELECT message_bus.drop_channel(name) FROM message_bus.channel WHERE name ~ '^acked' ORDER BY name;

-- a change is seen by this session at once, and undone with its transaction
BEGIN;
SELECT message_bus.alter_channel('plain', max_payload => 3);
SAVEPOINT s;
SELECT pg_temp.fails($$SELECT message_bus.publish('plain', '1234')$$);
SELECT message_bus.alter_channel('plain', max_payload => 4);
SELECT pg_temp.fails($$SELECT message_bus.publish('plain', '1234')$$);
ROLLBACK TO s;
SELECT pg_temp.fails($$SELECT message_bus.publish('plain', '1234')$$);
ROLLBACK;
SELECT pg_temp.fails($$SELECT message_bus.publish('plain', '12345')$$);
BEGIN;
SELECT message_bus.create_channel('undone');
SELECT message_bus.publish('undone', '1') > 0 AS published;
ROLLBACK;
SELECT pg_temp.fails($$SELECT message_bus.publish('undone', '1')$$);

-- drop
SELECT message_bus.publish('dead', '"to be dropped"') AS id \gset
SELECT message_bus.drop_channel('dead');
SELECT NOT EXISTS (SELECT FROM message_bus.get(:id)) AS unreachable, message_bus.get_bytes(:id) IS NULL AS bytes_too;
SELECT count(*) FROM message_bus.messages WHERE id = :id;
SELECT count(*) FROM message_bus.message_bus WHERE id = :id;
SELECT pg_temp.fails($$SELECT message_bus.publish('dead', '1')$$);
SELECT pg_temp.fails($$SELECT message_bus.peek('dead')$$);
SELECT pg_temp.fails($$SELECT message_bus.drop_channel('dead')$$);
SELECT pg_temp.fails($$SELECT message_bus.drop_channel(NULL)$$);
SELECT pg_temp.fails($$SELECT message_bus.drop_channel('dead', if_exists => NULL)$$);
SELECT message_bus.drop_channel('dead', if_exists => true);
-- one of the same name has none of the messages of the first
SELECT message_bus.create_channel('dead');
SELECT count(*) FROM message_bus.peek('dead');
SELECT NOT EXISTS (SELECT FROM message_bus.get(:id)) AS still_unreachable;
SELECT message_bus.drop_channel('dead', if_exists => true);

-- ownership: the owner and its members, and superusers
SET ROLE regress_mbus_owner;
SELECT message_bus.create_channel('owned');
SELECT owner FROM message_bus.channels WHERE channel = 'owned';
SET ROLE regress_mbus_other;
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('owned', ttl => '1 hour')$$);
SELECT pg_temp.fails($$SELECT message_bus.drop_channel('owned')$$);
SELECT pg_temp.fails($$SELECT message_bus.drop_channel('owned', if_exists => true)$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', 'regress_mbus_other', 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.revoke_channel('owned', 'regress_mbus_owner', 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.create_channel('owned')$$);
SELECT pg_temp.fails($$SELECT message_bus.create_channel('owned', if_not_exists => true)$$);
SELECT count(*) FROM message_bus.channels WHERE channel = 'owned';
SET ROLE regress_mbus_member;
SELECT message_bus.alter_channel('owned', ttl => '1 hour');
SELECT message_bus.publish('owned', '"of a member"') > 0 AS published;
SELECT payload, publisher FROM message_bus.peek('owned');
RESET ROLE;
SELECT message_bus.alter_channel('owned', ttl => '2 hours');
SELECT ttl FROM message_bus.channels WHERE channel = 'owned';

-- grants: publish, consume, all; they add up and are taken back one by one
CREATE FUNCTION pg_temp.as_owner(call text, who text DEFAULT 'regress_mbus_other') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	SET ROLE regress_mbus_owner;
	EXECUTE 'SELECT message_bus.' || call;
	EXECUTE format('SET ROLE %I', who);
	SELECT concat_ws(' ',
			CASE WHEN pg_temp.fails('SELECT message_bus.publish(''owned'', ''1'')') = 'no error' THEN 'publish' END,
			CASE WHEN pg_temp.fails('SELECT message_bus.peek(''owned'')') = 'no error' THEN 'consume' END,
			'(' || (SELECT concat_ws(' ', CASE WHEN may_publish THEN 'publish' END, CASE WHEN may_consume THEN 'consume' END)
				FROM message_bus.channels WHERE channel = 'owned') || ')')
		INTO answer;
	RESET ROLE;
	RETURN answer;
END
$$;
SELECT pg_temp.as_owner($$grant_channel('owned', 'regress_mbus_other', 'publish')$$);
SELECT pg_temp.as_owner($$grant_channel('owned', 'regress_mbus_other', 'publish')$$);
SELECT pg_temp.as_owner($$grant_channel('owned', 'regress_mbus_other', 'consume')$$);
SELECT pg_temp.as_owner($$revoke_channel('owned', 'regress_mbus_other', 'publish')$$);
SELECT pg_temp.as_owner($$revoke_channel('owned', 'regress_mbus_other', 'all')$$);
SELECT pg_temp.as_owner($$revoke_channel('owned', 'regress_mbus_other', 'all')$$);
SELECT pg_temp.as_owner($$grant_channel('owned', 'regress_mbus_other', 'all')$$);
-- a grant is no ownership
SET ROLE regress_mbus_other;
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', 'regress_mbus_member', 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.drop_channel('owned')$$);
RESET ROLE;
-- privileges of a role are those of its members
SELECT pg_temp.as_owner($$revoke_channel('owned', 'regress_mbus_other', 'all')$$);
CREATE ROLE regress_mbus_group;
GRANT regress_mbus_group TO regress_mbus_other;
SELECT pg_temp.as_owner($$grant_channel('owned', 'regress_mbus_group', 'consume')$$);
REVOKE regress_mbus_group FROM regress_mbus_other;
SELECT pg_temp.as_owner($$grant_channel('owned', 'regress_mbus_group', 'consume')$$);
ALTER ROLE regress_mbus_other NOINHERIT;
GRANT regress_mbus_group TO regress_mbus_other;
SELECT pg_temp.as_owner($$grant_channel('owned', 'regress_mbus_group', 'all')$$) AS no_inherit;
ALTER ROLE regress_mbus_other INHERIT;
-- bad arguments
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', 'regress_mbus_other', 'own')$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', 'regress_mbus_other', '')$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', 'regress_mbus_other', 'publish, consume')$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', 'regress_mbus_other', NULL)$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', NULL, 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', 0::oid::regrole, 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', '-', 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', 'regress_mbus_nobody', 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('owned', 4294967295::oid::regrole, 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel(NULL, 'regress_mbus_other', 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.grant_channel('nowhere', 'regress_mbus_other', 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.revoke_channel('owned', 'regress_mbus_other', 'own')$$);
SELECT pg_temp.fails($$SELECT message_bus.revoke_channel('owned', NULL, 'all')$$);
SELECT pg_temp.fails($$SELECT message_bus.revoke_channel('owned', 'regress_mbus_other', NULL)$$);
SELECT pg_temp.fails($$SELECT message_bus.revoke_channel('nowhere', 'regress_mbus_other', 'all')$$);

-- a role that is gone has no privileges, and disturbs nobody
SELECT message_bus.grant_channel('owned', 'regress_mbus_group', 'all');
DROP ROLE regress_mbus_group;
SELECT pg_temp.as_owner($$alter_channel('owned')$$) AS without_group;
SELECT message_bus.publish('owned', '2') > 0 AS published;
DROP OWNED BY regress_mbus_owner, regress_mbus_other;
DROP ROLE regress_mbus_owner;
SELECT count(*) FROM message_bus.channels WHERE channel = 'owned';
SELECT message_bus.drop_channel('owned');
DROP ROLE regress_mbus_member;
DROP ROLE regress_mbus_other;

-- read-only transactions
BEGIN READ ONLY;
SELECT call, pg_temp.fails('SELECT message_bus.' || call) FROM unnest(ARRAY[
	$$create_channel('x')$$, $$alter_channel('plain')$$, $$drop_channel('plain')$$,
	$$grant_channel('plain', 'postgres', 'all')$$, $$revoke_channel('plain', 'postgres', 'all')$$]) AS t (call);
COMMIT;

SELECT count(message_bus.drop_channel(channel)::text) > 0 AS dropped
	FROM message_bus.channels WHERE channel <> 'default';
SELECT channel FROM message_bus.channels;

-- a change by whatever replicates is seen as any other
SELECT message_bus.create_channel('replica');
SELECT message_bus.publish('replica', '1') > 0 AS published;
SET session_replication_role = replica;
UPDATE message_bus.channel SET name = 'replicated' WHERE name = 'replica';
RESET session_replication_role;
SELECT pg_temp.fails($$SELECT message_bus.publish('replica', '1')$$);
SELECT message_bus.publish('replicated', '1') > 0 AS published;
SELECT message_bus.drop_channel('replicated');
SELECT t.tgrelid::regclass, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	WHERE c.relnamespace = 'message_bus'::regnamespace AND c.relkind <> 'v' AND NOT t.tgisinternal AND t.tgenabled <> 'A';
