--
-- deaths: all deaths of a message, chains of dead-letter channels, redrive by ids
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude

SELECT message_bus.create_channel('last', ttl => '10 hours'),
	message_bus.create_channel('middle', ttl => '9 hours', max_attempts => 1, dead_letter => 'last'),
	message_bus.create_channel('first', ttl => '8 hours', max_attempts => 2, dead_letter => 'middle', backoff => '0', backoff_max => '0');
CREATE FUNCTION pg_temp.deaths(channel text) RETURNS TABLE (payload text, n bigint, death text) LANGUAGE sql AS $$
	SELECT p.payload::text, d.n, concat_ws(' ', d.v ->> 'channel', d.v ->> 'subscription', d.v ->> 'attempts', d.v ->> 'kind', d.v ->> 'reason')
	FROM message_bus.peek(channel) AS p, jsonb_array_elements(p.headers #> '{dead_letter,deaths}') WITH ORDINALITY AS d (v, n) ORDER BY p.id, d.n
$$;
CREATE FUNCTION pg_temp.die(channel text, reason text) RETURNS TABLE (nacked integer) LANGUAGE sql AS $$
	SELECT message_bus.nack(lease, delay => '0', reason => reason) FROM message_bus.claim(channel)
$$;

/*
 * A dead letter that dies
 */
SELECT message_bus.publish('first', '"m"', headers => '{"own": 1}', key => 'k', transaction_id => 'tid') AS id \gset
SELECT * FROM pg_temp.die('first', 'one');
SELECT * FROM pg_temp.die('first', 'two');
SELECT * FROM pg_temp.deaths('middle');
SELECT p.headers -> 'own' AS own, (p.headers -> 'dead_letter') - 'deaths' = p.headers #> '{dead_letter,deaths,0}' AS same,
	(p.headers #>> '{dead_letter,id}')::bigint = :id AS id FROM message_bus.peek('middle') AS p;
SELECT * FROM pg_temp.die('middle', 'three');
SELECT * FROM pg_temp.deaths('last');
SELECT p.headers -> 'own' AS own, p.headers #>> '{dead_letter,channel}' AS channel, p.headers #>> '{dead_letter,reason}' AS reason, p.key,
	(p.headers #>> '{dead_letter,deaths,0,id}')::bigint = :id AS id, p.headers #>> '{dead_letter,deaths,0,transaction_id}' AS tid,
	p.headers #> '{dead_letter,deaths,0,deaths}' AS nested FROM message_bus.peek('last') AS p;

/*
 * Redriven, and dead again: the message itself, and a copy of one that is gone
 */
SELECT message_bus.publish('middle', '"itself"') IS NOT NULL AS published;
SELECT * FROM pg_temp.die('middle', 'one');
SELECT message_bus.redrive('last', ids => ARRAY(SELECT id FROM message_bus.peek('last') WHERE payload::text = '"itself"'));
SELECT * FROM pg_temp.die('middle', 'two');
SELECT * FROM pg_temp.deaths('last') WHERE payload = '"itself"';
SELECT message_bus.redrive('last', ids => ARRAY(SELECT id FROM message_bus.peek('last') WHERE payload::text = '"itself"'));
SELECT * FROM pg_temp.die('middle', 'three');
SELECT * FROM pg_temp.deaths('last') WHERE payload = '"itself"';
SELECT message_bus.drop_subscription('middle', 'default');
SELECT message_bus.redrive('last');
SELECT payload, headers -> 'own' AS own, headers ? 'dead_letter' AS letter, jsonb_array_length(headers -> 'dead_letter_deaths') AS deaths
	FROM message_bus.peek('middle') WHERE headers ? 'dead_letter_deaths' ORDER BY id;
SELECT message_bus.create_subscription('middle', 'again');
SELECT count(message_bus.nack(lease, reason => 'four')) FROM (SELECT DISTINCT lease FROM message_bus.claim('middle', 'again', batch => 10)) AS c;
SELECT * FROM pg_temp.deaths('last');
SELECT count(*) FROM message_bus.peek('last') WHERE headers ? 'dead_letter_deaths';
-- headers that others have made
SELECT message_bus.publish('middle', '"forged"', headers => h::jsonb) IS NOT NULL AS published FROM unnest(ARRAY['{"dead_letter": 1, "dead_letter_deaths": 2}',
	'{"dead_letter": {"deaths": [1, [2], {"channel": "x"}, null]}}', '{"dead_letter": [], "dead_letter_deaths": ["x", {"kind": "y"}]}', '[1]', '{"dead_letter": {}}']) AS h
	WHERE h <> '[1]';
SELECT count(message_bus.nack(lease, reason => 'five')) FROM (SELECT DISTINCT lease FROM message_bus.claim('middle', 'again', batch => 10)) AS c;
SELECT * FROM pg_temp.deaths('last') WHERE payload = '"forged"';
-- no more than a hundred
SELECT message_bus.publish('middle', '"many"', headers => jsonb_build_object('dead_letter_deaths', (SELECT jsonb_agg(jsonb_build_object('kind', n)) FROM generate_series(1, 200) AS n))) IS NOT NULL AS published;
SELECT count(message_bus.nack(lease, reason => 'six')) FROM message_bus.claim('middle', 'again');
SELECT min(n), max(n), min(death) AS first, max(death) AS last FROM pg_temp.deaths('last') WHERE payload = '"many"';

/*
 * redrive by ids
 */
SELECT message_bus.create_channel('letters', ttl => '2 hours'), message_bus.create_channel('ids', ttl => '1 hour', max_attempts => 1, dead_letter => 'letters');
SELECT message_bus.create_subscription('ids', 'default'), message_bus.create_subscription('ids', 'other');
SELECT count(message_bus.publish('ids', to_json(n))) FROM generate_series(1, 5) AS n;
SELECT message_bus.nack(max(lease)) FROM message_bus.claim('ids', batch => 5);
CREATE FUNCTION pg_temp.letters(VARIADIC payloads text[]) RETURNS bigint[] LANGUAGE sql AS $$
	SELECT array_agg(id) FROM message_bus.peek('letters') WHERE payload::text = ANY (payloads)
$$;
SELECT message_bus.redrive('letters', ids => '{}');
SELECT message_bus.redrive('letters', ids => ARRAY[0, -1, 1, 9223372036854775807]);
-- what is no dead letter of this channel, and one that is named twice
SELECT message_bus.redrive('letters', ids => (SELECT array_agg(id) FROM message_bus.peek('ids')));
SELECT message_bus.redrive('letters', ids => pg_temp.letters('2', '4') || pg_temp.letters('4') || 17);
SELECT payload FROM message_bus.peek('letters');
SELECT payload, attempt, message_bus.ack(lease, ARRAY[id]) FROM message_bus.claim('ids', batch => 5);
SELECT message_bus.redrive('letters', 1, pg_temp.letters('3', '5'));
SELECT message_bus.redrive('letters', ids => pg_temp.letters('1', '3', '5')), (SELECT count(*) FROM message_bus.peek('letters'));
-- once redriven it is none any more
SELECT message_bus.redrive('letters', ids => array_agg(message_id)) FROM message_bus.event e JOIN message_bus.message m ON m.id = e.message_id
	JOIN message_bus.channel c USING (channel_id) WHERE kind = 'deleted' AND c.name = 'letters';
-- those that lie in place, of one subscription or of both
SELECT message_bus.alter_channel('ids', dead_letter => '');
SELECT message_bus.nack(max(lease)) FROM message_bus.claim('ids', batch => 5);
SELECT message_bus.nack(max(lease)) FROM message_bus.claim('ids', 'other', batch => 5);
SELECT message_bus.redrive('ids', ids => ARRAY(SELECT id FROM message_bus.peek('ids') WHERE payload::text IN ('1', '2')));
SELECT payload, message_bus.ack(lease, ARRAY[id]) FROM message_bus.claim('ids', batch => 5);
SELECT payload, message_bus.ack(lease, ARRAY[id]) FROM message_bus.claim('ids', 'other', batch => 5);
SELECT subscription, count(*) FROM message_bus.dead_letters WHERE channel = 'ids' GROUP BY subscription ORDER BY subscription;
SELECT pg_temp.fails($$SELECT message_bus.redrive('ids', ids => ARRAY[1, NULL])$$);
SELECT pg_temp.fails($$SELECT message_bus.redrive('ids', ids => ARRAY[[1, 2]])$$);
SELECT pg_temp.fails($$SELECT message_bus.redrive('ids', ids => (SELECT array_agg(n) FROM generate_series(1, 10001) AS n))$$);

/*
 * Dead-letter channels do not go round
 */
SELECT message_bus.create_channel('a'), message_bus.create_channel('b', dead_letter => 'a'), message_bus.create_channel('c', dead_letter => 'b');
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('a', dead_letter => 'a')$$);
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('a', dead_letter => 'b')$$);
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('a', dead_letter => 'c')$$);
SELECT pg_temp.fails($$SELECT message_bus.create_channel('d', dead_letter => 'd')$$);
-- what is no circle
SELECT message_bus.create_channel('d', dead_letter => 'b');
SELECT message_bus.alter_channel('c', dead_letter => 'a'), message_bus.alter_channel('b', dead_letter => 'c');
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('a', dead_letter => 'd')$$);
-- one that is made under the name of one that was dropped is in no chain
SELECT message_bus.drop_channel('a');
SELECT message_bus.create_channel('a', dead_letter => 'd');
SELECT channel, dead_letter, dead_letter_state FROM message_bus.channels WHERE channel IN ('a', 'c') ORDER BY channel;
SELECT message_bus.alter_channel('c', dead_letter => 'last'), message_bus.alter_channel('a', dead_letter => 'last');
SELECT message_bus.alter_channel('a', dead_letter => ''), message_bus.alter_channel('c', dead_letter => ''), message_bus.alter_channel('a', dead_letter => 'd');
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('c', dead_letter => 'a')$$);
-- a circle that a restore has brought ends no search
UPDATE message_bus.channel c SET dead_letter_id = (SELECT o.channel_id FROM message_bus.channel o WHERE o.name = CASE c.name WHEN 'b' THEN 'd' ELSE 'b' END) WHERE name IN ('b', 'd');
SELECT message_bus.create_channel('e', dead_letter => 'b');
-- a stranger learns no names
CREATE ROLE regress_mbus_stranger;
GRANT EXECUTE ON FUNCTION message_bus.create_channel, message_bus.alter_channel TO regress_mbus_stranger;
SELECT message_bus.grant_channel('b', 'regress_mbus_stranger', 'publish');
SET ROLE regress_mbus_stranger;
SELECT message_bus.create_channel('his');
RESET ROLE;
UPDATE message_bus.channel c SET dead_letter_id = (SELECT o.channel_id FROM message_bus.channel o WHERE o.name = CASE c.name WHEN 'b' THEN 'd' ELSE 'his' END) WHERE name IN ('b', 'd');
SET ROLE regress_mbus_stranger;
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('his', dead_letter => 'b')$$);
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('his', dead_letter => 'd')$$);
RESET ROLE;
SELECT message_bus.drop_channel(channel) FROM message_bus.channels WHERE channel <> 'default' ORDER BY channel;
REVOKE EXECUTE ON FUNCTION message_bus.create_channel, message_bus.alter_channel FROM regress_mbus_stranger;
DROP ROLE regress_mbus_stranger;
