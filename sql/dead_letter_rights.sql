--
-- dead_letter_rights: dead letters go by the channel's number, as long as the
-- channel's owner may publish there; else what dies stays in place
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

CREATE ROLE regress_mbus_a;
CREATE ROLE regress_mbus_b;
CREATE ROLE regress_mbus_c;
CREATE ROLE regress_mbus_monitor;
GRANT pg_monitor TO regress_mbus_monitor;
GRANT EXECUTE ON FUNCTION message_bus.create_channel, message_bus.alter_channel, message_bus.drop_channel, message_bus.grant_channel, message_bus.revoke_channel,
	message_bus.create_subscription, message_bus.redrive, message_bus.purge_channel TO regress_mbus_a, regress_mbus_b;
-- die(channel, payload): a message is published, and claimed and nacked for the last time
CREATE PROCEDURE pg_temp.die(channel text, payload text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM message_bus.publish(channel, to_json(payload));
	COMMIT;
	PERFORM message_bus.nack(c.lease, reason => 'no') FROM message_bus.claim(channel) AS c;
END
$$;
CREATE VIEW pg_temp.state AS SELECT channel, dead_letter, dead_letter_state FROM message_bus.channels WHERE channel <> 'default' ORDER BY channel COLLATE "C";
CREATE VIEW pg_temp.dead AS SELECT channel, dead_letter, dead_letter_id IS NULL AS in_place, not_moved, reason,
	(SELECT m.payload FROM message_bus.message_bus m WHERE m.id = message_id) AS payload FROM message_bus.dead_letters ORDER BY message_id;
GRANT SELECT ON pg_temp.state, pg_temp.dead TO PUBLIC;
CREATE FUNCTION pg_temp.not_moved() RETURNS bigint LANGUAGE sql AS $$SELECT value FROM message_bus.metrics WHERE metric = 'messages_not_moved_total'$$;

/*
 * A dead-letter channel that was dropped, and another one of its name
 */
SET ROLE regress_mbus_a;
SELECT message_bus.create_channel('letters'), message_bus.create_channel('work', max_attempts => 1, dead_letter => 'letters');
SELECT message_bus.create_subscription('work', 'default');
TABLE pg_temp.state;
CALL pg_temp.die('work', 'one');
SELECT payload FROM message_bus.peek('letters');
RESET ROLE;
SELECT pg_temp.not_moved() AS before \gset
SET ROLE regress_mbus_a;
-- while a message is out
SELECT message_bus.publish('work', '"out"') > 0 AS published;
SELECT lease AS lease FROM message_bus.claim('work') \gset
SELECT message_bus.drop_channel('letters');
TABLE pg_temp.state;
SET ROLE regress_mbus_b;
SELECT message_bus.create_channel('letters'), message_bus.grant_channel('letters', 'regress_mbus_a', 'publish');
SET ROLE regress_mbus_a;
TABLE pg_temp.state;
SELECT message_bus.nack(:lease, reason => 'late');
CALL pg_temp.die('work', 'two');
-- it lies in place, is not given out again, and is told of
SELECT count(*) FROM message_bus.claim('work', batch => 10);
TABLE pg_temp.dead;
SELECT payload, status FROM message_bus.message_bus WHERE channel = 'work' ORDER BY id;
SELECT dead, lag_messages FROM message_bus.subscriptions WHERE channel = 'work';
RESET ROLE;
SELECT pg_temp.not_moved() - :before AS not_moved;
SET ROLE regress_mbus_b;
SELECT count(*) FROM message_bus.peek('letters');
-- nobody else hears of the channel, but who monitors
TABLE pg_temp.state;
SELECT channel_id AS number FROM message_bus.channel_rows() WHERE name = 'letters' \gset
SELECT bool_and(t IS NULL) AS nothing FROM generate_series(1, :number - 1) AS n, message_bus.dead_letter_target(n) AS t;
SELECT * FROM message_bus.dead_letter_target(-1);
SELECT * FROM message_bus.dead_letter_target(0);
SELECT * FROM message_bus.dead_letter_target(2147483647);
SET ROLE regress_mbus_monitor;
TABLE pg_temp.state;
SELECT count(*) FROM message_bus.dead_letters;
-- dropping and making it again in one transaction makes it no less another one
SET ROLE regress_mbus_a;
SELECT message_bus.create_channel('own'), message_bus.alter_channel('work', dead_letter => 'own');
SELECT message_bus.publish('work', '"three"') > 0 AS published;
BEGIN;
SELECT message_bus.drop_channel('own');
SELECT message_bus.create_channel('own');
SELECT message_bus.nack(lease) FROM message_bus.claim('work');
SELECT payload, not_moved FROM pg_temp.dead WHERE payload::text = '"three"';
ROLLBACK;
SELECT payload, message_bus.nack(lease, reason => 'no') FROM message_bus.claim('work');
TABLE pg_temp.state;
CALL pg_temp.die('work', 'four');
SELECT payload FROM message_bus.peek('own');
SELECT message_bus.publish('work', '"five"') > 0 AS published;
BEGIN;
SELECT message_bus.drop_channel('own');
SELECT message_bus.create_channel('own');
SELECT message_bus.nack(lease, reason => 'no') FROM message_bus.claim('work');
COMMIT;
SELECT count(*) FROM message_bus.peek('own');
-- to set it again by its name is what brings it back; what lies in place is redriven, and dies anew
SELECT message_bus.alter_channel('work', lease => '20 seconds');
TABLE pg_temp.state;
SELECT message_bus.alter_channel('work', dead_letter => 'own');
TABLE pg_temp.state;
SELECT message_bus.redrive('own');
SELECT message_bus.redrive('work', ids => ARRAY(SELECT message_id FROM message_bus.dead_letters WHERE not_moved = 'dropped'));
TABLE pg_temp.dead;
SELECT count(message_bus.nack(lease, reason => 'again')) FROM (SELECT DISTINCT lease FROM message_bus.claim('work', batch => 10)) AS c;
SELECT p.payload, jsonb_path_query_array(p.headers, '$.dead_letter.deaths[*].reason') AS reasons FROM message_bus.peek('own') p ORDER BY p.id;
SELECT dead_letter, in_place, not_moved, reason FROM pg_temp.dead;
-- '' is none, and nothing is said of one
SELECT message_bus.alter_channel('work', dead_letter => '');
CALL pg_temp.die('work', 'plain');
TABLE pg_temp.state;
SELECT not_moved IS NULL AS nothing_said FROM message_bus.dead_letters ORDER BY message_id DESC LIMIT 1;

/*
 * The right to publish there
 */
SET ROLE regress_mbus_a;
SELECT message_bus.alter_channel('work', dead_letter => 'letters');
SET ROLE regress_mbus_b;
-- a limit of the dead-letter channel does not stop a dead letter
SELECT message_bus.alter_channel('letters', max_payload => 5);
SET ROLE regress_mbus_a;
SELECT pg_temp.fails($$SELECT message_bus.publish('letters', '"longer than that"')$$);
CALL pg_temp.die('work', 'longer than that');
SET ROLE regress_mbus_b;
SELECT payload FROM message_bus.peek('letters');
SELECT message_bus.revoke_channel('letters', 'regress_mbus_a', 'publish');
SET ROLE regress_mbus_a;
TABLE pg_temp.state;
SELECT message_bus.purge_channel('work') > 0 AS purged;
CALL pg_temp.die('work', 'revoked');
TABLE pg_temp.dead;
-- what is purged is not told of any more
SELECT message_bus.purge_channel('work') > 0 AS purged;
TABLE pg_temp.dead;
-- whose right it is: not that of who ends the last attempt, superuser or worker
SELECT message_bus.publish('work', '"by the worker"') > 0 AS published;
SELECT count(*) FROM message_bus.claim('work', lease_for => '10 milliseconds');
SELECT pg_temp.wait_for($$SELECT count(*) = 1 FROM message_bus.dead_letters WHERE channel = 'work' AND not_moved = 'denied'$$);
RESET ROLE;
CALL pg_temp.die('work', 'by a superuser');
SET ROLE regress_mbus_a;
TABLE pg_temp.dead;
SET ROLE regress_mbus_b;
SELECT count(*) FROM message_bus.peek('letters');
-- to consume is not to publish; a role whose member the owner is will do
SELECT message_bus.grant_channel('letters', 'regress_mbus_a', 'consume'), message_bus.grant_channel('letters', 'regress_mbus_a', 'audit'), message_bus.grant_channel('letters', 'regress_mbus_c', 'publish');
SET ROLE regress_mbus_a;
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
RESET ROLE;
GRANT regress_mbus_c TO regress_mbus_a;
SET ROLE regress_mbus_a;
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
CALL pg_temp.die('work', 'by membership');
RESET ROLE;
REVOKE regress_mbus_c FROM regress_mbus_a;
SET ROLE regress_mbus_a;
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
-- revoked in the very transaction, and in a savepoint that is undone
RESET ROLE;
SELECT message_bus.grant_channel('letters', 'regress_mbus_a', 'publish');
SELECT message_bus.publish('work', '"undone"') > 0 AS published;
SELECT message_bus.publish('work', '"in the transaction"') > 0 AS published;
BEGIN;
SAVEPOINT s;
SELECT message_bus.revoke_channel('letters', 'regress_mbus_a', 'publish');
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
ROLLBACK TO s;
SELECT payload, message_bus.nack(lease, reason => 'no') FROM message_bus.claim('work');
SELECT message_bus.revoke_channel('letters', 'regress_mbus_a', 'publish');
SELECT payload, message_bus.nack(lease, reason => 'no') FROM message_bus.claim('work');
COMMIT;
SELECT payload FROM message_bus.peek('letters') ORDER BY id;
SELECT payload, not_moved FROM pg_temp.dead WHERE channel = 'work' AND in_place;
-- the right is back: what lies in place is redriven, and dies anew
SELECT message_bus.grant_channel('letters', 'regress_mbus_a', 'publish');
SELECT message_bus.redrive('work');
SELECT count(message_bus.nack(lease, reason => 'again')) FROM (SELECT DISTINCT lease FROM message_bus.claim('work', batch => 10)) AS c;
SELECT payload, dead_letter, reason FROM pg_temp.dead WHERE channel = 'work';

/*
 * Owners: another one, a renamed one, one that was dropped
 */
-- the new owner's right counts
CREATE ROLE regress_mbus_new;
SELECT message_bus.alter_channel('work', owner => 'regress_mbus_new');
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
SELECT message_bus.grant_channel('letters', 'regress_mbus_new', 'publish');
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
ALTER ROLE regress_mbus_new RENAME TO regress_mbus_newer;
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
-- who sets it may publish there, and so may the owner that the channel has, or gets
SELECT message_bus.create_channel('hers');
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('work', dead_letter => 'hers')$$);
SELECT message_bus.grant_channel('hers', 'regress_mbus_newer', 'publish');
SELECT pg_temp.fails($$SELECT message_bus.alter_channel('work', dead_letter => 'hers', owner => 'regress_mbus_a')$$);
SELECT message_bus.alter_channel('work', dead_letter => 'hers');
SELECT message_bus.alter_channel('work', dead_letter => 'letters', owner => 'regress_mbus_b');
SELECT message_bus.alter_channel('work', owner => 'regress_mbus_newer');
TABLE pg_temp.state;
SET ROLE regress_mbus_a;
SELECT pg_temp.fails($$SELECT message_bus.create_channel('his', dead_letter => 'hers')$$);
RESET ROLE;
-- of one role, which is dropped: it is nobody, and so not the owner of both
SELECT message_bus.alter_channel('letters', owner => 'regress_mbus_newer');
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
DROP ROLE regress_mbus_newer;
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
CALL pg_temp.die('work', 'of nobody');
SELECT pg_temp.wait_for($$SELECT count(owner_missing) = 2 FROM message_bus.channels WHERE channel IN ('work', 'letters')$$);
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
CALL pg_temp.die('work', 'of nobody still');
CREATE ROLE regress_mbus_newer;
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';
DROP ROLE regress_mbus_newer;
SELECT payload, not_moved FROM pg_temp.dead WHERE channel = 'work' AND in_place;
SELECT message_bus.alter_channel('work', owner => 'regress_mbus_a'), message_bus.alter_channel('letters', owner => 'regress_mbus_b');
SELECT dead_letter_state FROM message_bus.channels WHERE channel = 'work';

/*
 * Redriven: to the channel that it came from, and to no other of its name
 */
SELECT message_bus.create_channel('back'), message_bus.create_channel('first', max_attempts => 1, dead_letter => 'back');
SELECT message_bus.create_subscription('first', 'default');
CALL pg_temp.die('first', 'secret');
SELECT message_bus.drop_channel('first');
SET ROLE regress_mbus_b;
SELECT message_bus.create_channel('first');
RESET ROLE;
SELECT message_bus.redrive('back');
SELECT payload FROM message_bus.peek('back');
SELECT count(*) FROM message_bus.peek('first');
-- a number that is another channel's, that nobody has, that is none
SELECT channel_id AS number FROM message_bus.channel WHERE name = 'letters' \gset
SELECT message_bus.publish('back', '1', headers => jsonb_build_object('dead_letter', jsonb_build_object('channel', 'first', 'subscription', 'x', 'id', 1) || n::jsonb)) > 0 AS published
	FROM unnest(ARRAY['{}', format('{"channel_id": %s}', :number), '{"channel_id": 0}', '{"channel_id": 2147483647}', '{"channel_id": 4294967297}', '{"channel_id": "1"}', '{"channel_id": -1}', '{"channel_id": 1.5}', '{"channel_id": null}']) AS n;
SELECT message_bus.redrive('back');
SELECT count(*) FROM message_bus.peek('first');

-- a limit that the channel has by now does not stop a copy that comes back
SELECT message_bus.create_channel('small', max_attempts => 1, dead_letter => 'back');
SELECT message_bus.create_subscription('small', 'default');
CALL pg_temp.die('small', 'was not too large');
SELECT message_bus.drop_subscription('small', 'default'), message_bus.alter_channel('small', max_payload => 5);
SELECT message_bus.redrive('back');
SELECT payload, headers ? 'dead_letter_deaths' AS copy FROM message_bus.peek('small') ORDER BY id;

/*
 * A channel that keeps subjects apart, and a chain
 */
SELECT message_bus.drop_channel('first'), message_bus.create_channel('last'), message_bus.create_channel('middle', max_attempts => 1, dead_letter => 'last', visibility => 'subject'),
	message_bus.create_channel('first', max_attempts => 1, dead_letter => 'middle', visibility => 'subject');
SELECT message_bus.create_subscription('first', 'default'), message_bus.create_subscription('middle', 'default');
SELECT message_bus.grant_channel('first', 'regress_mbus_a', 'consume'), message_bus.grant_channel('first', 'regress_mbus_a', 'publish');
SELECT message_bus.alter_channel('first', owner => 'regress_mbus_c');
SET ROLE regress_mbus_a;
SELECT message_bus.publish('first', '"mine"') > 0 AS published;
RESET ROLE;
SELECT message_bus.nack(lease) FROM message_bus.claim('first');
-- only his own is told to who does not see all
CALL pg_temp.die('first', 'of another');
SET ROLE regress_mbus_a;
SELECT payload, not_moved FROM pg_temp.dead WHERE channel = 'first';
RESET ROLE;
SELECT message_bus.grant_channel('middle', 'regress_mbus_c', 'publish');
SELECT message_bus.drop_channel('last');
SELECT message_bus.redrive('first');
SELECT count(message_bus.nack(lease)) FROM (SELECT DISTINCT lease FROM message_bus.claim('first', batch => 10)) AS c;
SELECT count(message_bus.nack(lease)) FROM (SELECT DISTINCT lease FROM message_bus.claim('middle', batch => 10)) AS c;
SELECT channel, payload, dead_letter, not_moved FROM pg_temp.dead WHERE channel IN ('first', 'middle');
SELECT message_bus.drop_channel('middle');
SELECT channel, payload, dead_letter, not_moved FROM pg_temp.dead WHERE channel IN ('first', 'middle');

/*
 * Restored: a number is a channel's in the buses that know it by it
 */
CREATE FUNCTION pg_temp.restore(name text, number integer, letters integer, VARIADIC buses uuid[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO message_bus.channel (channel_id, name, owner, series, ttl, max_attempts, lease, backoff, backoff_max, dead_letter_id, retention, compression, created_at, buses)
	SELECT number, restore.name, c.owner, c.series, c.ttl, 1, c.lease, c.backoff, c.backoff_max, letters, c.retention, c.compression, c.created_at, restore.buses
	FROM message_bus.channel c WHERE c.name = 'default'
$$;
SELECT bus AS here, gen_random_uuid() AS there FROM message_bus.server_state \gset
SELECT last_value + 1000 AS n FROM message_bus.channel_id \gset
SELECT message_bus.drop_channel(channel) FROM message_bus.channels WHERE channel <> 'default' ORDER BY channel COLLATE "C";
SELECT message_bus.create_channel('mine'), message_bus.create_channel('ours', dead_letter => 'mine');
SELECT channel_id AS mine FROM message_bus.channel WHERE name = 'mine' \gset
-- both, in either order; the dead-letter channel only, which was dropped here since
SELECT pg_temp.restore('r1', :n + 1, :n + 2, :'there'), pg_temp.restore('r2', :n + 2, NULL, :'there');
SELECT pg_temp.restore('r4', :n + 4, NULL, :'there'), pg_temp.restore('r3', :n + 3, :n + 4, :'there');
SELECT message_bus.drop_channel('mine');
TABLE pg_temp.state;
SELECT pg_temp.restore('mine', :mine, NULL, :'here');
TABLE pg_temp.state;
-- another bus's channel of the number of one that was dropped, or is here
SELECT message_bus.drop_channel('mine');
SELECT pg_temp.restore('mine', :mine, NULL, :'there');
SELECT pg_temp.restore('r5', :n + 5, :mine, :'there'), pg_temp.restore('r6', :n + 6, :mine, gen_random_uuid());
TABLE pg_temp.state;
-- the default channel is the same in all
SELECT pg_temp.restore('r7', :n + 7, 1, :'there');
-- a number that a sequence which was set back gives again
SELECT pg_temp.restore('r8', :n + 8, :n + 9, :'here');
SELECT setval('message_bus.channel_id', :n + 8) > 0 AS set;
SELECT message_bus.create_channel('new');
SELECT channel_id - :n AS number FROM message_bus.channel WHERE name = 'new';
TABLE pg_temp.state;

SELECT message_bus.drop_channel(channel) FROM message_bus.channels WHERE channel <> 'default' ORDER BY channel COLLATE "C";
DROP OWNED BY regress_mbus_a, regress_mbus_b, regress_mbus_c, regress_mbus_monitor;
DROP ROLE regress_mbus_a, regress_mbus_b, regress_mbus_c, regress_mbus_monitor;
