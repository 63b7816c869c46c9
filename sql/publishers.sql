--
-- Publishers: a message keeps the name its publisher had, by a number that no
-- other name has.
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude

SELECT message_bus.create_channel('p', ttl => '1 hour');
CREATE ROLE regress_publisher_a;
CREATE ROLE regress_publisher_b;
SELECT message_bus.grant_channel('p', role, 'publish') FROM unnest('{regress_publisher_a,regress_publisher_b}'::regrole[]) AS role;
CREATE TEMP VIEW names AS SELECT name, count(*) FROM message_bus.publisher WHERE name LIKE 'regress_publisher%' GROUP BY name ORDER BY name;

-- a name comes with the first message, and goes with it
BEGIN;
SET LOCAL ROLE regress_publisher_a;
SAVEPOINT s;
SELECT message_bus.publish('p', '"gone"') IS NOT NULL AS published;
ROLLBACK TO s;
RESET ROLE;
SELECT * FROM names;
SET LOCAL ROLE regress_publisher_a;
SELECT message_bus.publish('p', '1') IS NOT NULL AS published;
SELECT message_bus.publish('p', '2') IS NOT NULL AS published;
RESET ROLE;
SELECT * FROM names;
ROLLBACK;
SELECT * FROM names;

-- it has one number for all of its messages
SET ROLE regress_publisher_a;
SELECT message_bus.publish('p', '3') IS NOT NULL AS published FROM generate_series(1, 3);
SET ROLE regress_publisher_b;
SELECT cardinality(message_bus.publish_batch('p', '[{"payload": 4}, {"payload": 5}]'));
RESET ROLE;
SELECT * FROM names;
SELECT publisher, count(*) FROM message_bus.messages WHERE channel = 'p' GROUP BY publisher ORDER BY publisher;
SELECT publisher, payload FROM message_bus.peek('p');

-- renamed and dropped: what was published keeps the name of then, and a role of the same name is the same publisher
ALTER ROLE regress_publisher_a RENAME TO regress_publisher_c;
SET ROLE regress_publisher_c;
SELECT message_bus.publish('p', '6') IS NOT NULL AS published;
RESET ROLE;
SELECT message_bus.revoke_channel('p', role, 'all') FROM unnest('{regress_publisher_b,regress_publisher_c}'::regrole[]) AS role;
DROP ROLE regress_publisher_b, regress_publisher_c;
CREATE ROLE regress_publisher_d;
SELECT message_bus.grant_channel('p', 'regress_publisher_d', 'publish');
SET ROLE regress_publisher_d;
SELECT message_bus.publish('p', '7') IS NOT NULL AS published;
RESET ROLE;
SELECT publisher, count(*) FROM message_bus.messages WHERE channel = 'p' GROUP BY publisher ORDER BY publisher;
SELECT * FROM names;

-- a restore brings what is here already; a number that is another's is refused
INSERT INTO message_bus.publisher SELECT * FROM message_bus.publisher;
SELECT pg_temp.fails('INSERT INTO message_bus.publisher SELECT publisher_id, ''x'' FROM message_bus.publisher') LIKE '23505 %' AS refused;
SELECT * FROM names;

SELECT message_bus.drop_channel('p');
DROP ROLE regress_publisher_d;
