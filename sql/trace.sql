--
-- trace: the whole life of a message, for who may know of it: trace,
-- trace_transaction, the view deliveries
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude
\pset null '-'

CREATE ROLE regress_mbus_life_consumer;
CREATE ROLE regress_mbus_life_auditor;
CREATE ROLE regress_mbus_life_publisher;
CREATE ROLE regress_mbus_life_stranger;
SELECT message_bus.create_channel('letters', backoff => '0');
SELECT message_bus.create_channel('life', max_attempts => 2, backoff => '0', dead_letter => 'letters', record_reads => true);
SELECT message_bus.create_subscription('life', 'sub'), message_bus.create_subscription('life', 'second'), message_bus.create_subscription('letters', 'sub');
SELECT message_bus.grant_channel('life', 'regress_mbus_life_consumer', 'consume');
SELECT message_bus.grant_channel('life', 'regress_mbus_life_auditor', 'audit');
SELECT message_bus.grant_channel('life', 'regress_mbus_life_publisher', 'publish');
GRANT ALL ON pg_temp.taken, pg_temp.taken_place_seq TO PUBLIC;

-- what a life is told as: ids and times by what they are
CREATE FUNCTION pg_temp.life(query text) RETURNS TABLE (n bigint, message text, event text, channel text, subscription text, attempt integer,
	role text, reason text, detail text, related text, proof text) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format($q$
		SELECT row_number() OVER (), COALESCE((SELECT tag FROM pg_temp.named WHERE id = t.message_id), t.message_id::text), t.event, t.channel, t.subscription, t.attempt,
			replace(t.role, session_user, 'me'), t.reason, regexp_replace(regexp_replace(t.detail, '\d{4}-\S+', 'T'), '[Mm]essage \d+', 'message N'),
			COALESCE((SELECT tag FROM pg_temp.named WHERE id = t.related_id), t.related_id::text), t.kind || CASE WHEN t.no IS NULL THEN ' without' ELSE '' END
		FROM %s AS t$q$, query);
END
$$;
CREATE TEMP TABLE named (id bigint, tag text);
GRANT ALL ON named TO PUBLIC;

-- published, read, failed, given back, dead and followed, redriven, done
SELECT message_bus.publish('life', '{"n": 1}', transaction_id => 'order-1', key => 'k') AS id \gset
INSERT INTO named VALUES (:id, 'message');
SELECT payload FROM message_bus.get(:id);
SELECT * FROM pg_temp.take('one', $$'life', 'sub'$$);
SELECT message_bus.nack(pg_temp.lease('one'), reason => 'no stock');
SELECT * FROM pg_temp.take('two', $$'life', 'sub'$$);
SELECT message_bus.nack(pg_temp.lease('two'), reason => 'still none');
SELECT id AS letter FROM message_bus.messages WHERE channel = 'letters' \gset
INSERT INTO named VALUES (:letter, 'letter');
SELECT * FROM pg_temp.take('letter', $$'letters', 'sub'$$);
SELECT message_bus.release_lease(pg_temp.lease('letter'));
SELECT message_bus.redrive('letters');
SELECT * FROM pg_temp.take('three', $$'life', 'sub'$$);
SELECT message_bus.ack(pg_temp.lease('three'));
SELECT pg_temp.wait_for(format($$SELECT count(*) = 1 FROM message_bus.fact_rows(%s) WHERE what = 'accessed'$$, :id));
SELECT * FROM pg_temp.life(format('message_bus.trace(%s)', :id));
SELECT count(*) FILTER (WHERE at IS NULL) AS timeless, bool_and(at <= clock_timestamp()) AS passed, count(DISTINCT no) = count(no) - 1 AS numbered, count(DISTINCT lease) AS leases FROM message_bus.trace(:id) t;
-- the dead letter is gone, and has its life all the same
SELECT * FROM pg_temp.life(format('message_bus.trace(%s)', :letter));

-- what is out is shown, with who has it
SELECT * FROM pg_temp.take('out', $$'life', 'second'$$);
SELECT subscription, attempt, replace(role, session_user, 'me') AS role, outcome, lease = pg_temp.lease('out') AS lease, claimed_at <= clock_timestamp() AS claimed, ended_at, kind, no, dead
	FROM message_bus.deliveries WHERE message_id = :id AND ended_at IS NULL;
SELECT event, subscription, attempt, replace(role, session_user, 'me') AS role FROM message_bus.trace(:id) t WHERE subscription = 'second';
-- deliveries: a row for each attempt, by the message's index
SELECT subscription, attempt, outcome, replace(ended_by, session_user, 'me') AS ended_by, reason, retry_at IS NOT NULL AS again, dead, dead_letter_id = :letter AS letter, kind, no IS NOT NULL AS no
	FROM message_bus.deliveries WHERE message_id = :id ORDER BY subscription, lease;
EXPLAIN (COSTS OFF) SELECT * FROM message_bus.deliveries WHERE message_id = 1;
SELECT message_bus.ack(pg_temp.lease('out'));

-- and those that have failed
SELECT subscription, attempt, outcome, reason, message_id = :id AS it FROM message_bus.failures(now() - interval '1 hour') WHERE message_id IN (:id, :letter);
SELECT count(*) FROM message_bus.failures(clock_timestamp() + interval '1 hour');

-- of a batch each message has its own; a dropped subscription is not forgotten
SELECT message_bus.publish_batch('life', '[{"payload": 1}, {"payload": 2}, {"payload": 3}]') AS ids \gset
SELECT * FROM pg_temp.take('batch', $$'life', 'second', 10$$);
SELECT message_bus.ack(pg_temp.lease('batch'), (:'ids'::bigint[])[1:1] || (:'ids'::bigint[])[3:3]);
SELECT message_bus.nack(pg_temp.lease('batch'), (:'ids'::bigint[])[2:2]);
SELECT message_bus.drop_subscription('life', 'second');
SELECT array_position(:'ids'::bigint[], message_id) AS place, regexp_replace(subscription, '\d+', 'N') AS subscription, outcome FROM message_bus.deliveries WHERE message_id = ANY (:'ids') ORDER BY 1;

-- over a socket: which, and that it was lost
SELECT message_bus.ack(lease) FROM message_bus.claim('life', 'sub', 10) GROUP BY lease;
SELECT message_bus.publish('life', '{"n": 9}') AS ninth \gset
SET message_bus.relay_role = 'regress_mbus_life_consumer';
SELECT r.code FROM message_bus.relay('{77}', ARRAY['\x01'::bytea || convert_to('{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"life","subscription":"sub"}}', 'UTF8')]) r;
SELECT outcome, role, session, ended_by FROM message_bus.deliveries WHERE message_id = :ninth;
SELECT message_bus.close_session(77);
SELECT pg_temp.wait_for(format($$SELECT count(*) = 1 FROM message_bus.deliveries WHERE message_id = %s AND outcome = 'disconnected'$$, :ninth));
SELECT outcome, role, session, replace(ended_by, session_user, 'me') AS ended_by, reason FROM message_bus.deliveries WHERE message_id = :ninth;
SELECT r.code FROM message_bus.relay('{78}', ARRAY['\x01'::bytea || convert_to('{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"life","subscription":"sub"}}', 'UTF8')]) r;
SELECT lease FROM message_bus.leases WHERE message_id = :ninth \gset
SELECT r.code FROM message_bus.relay('{78}', ARRAY['\x01'::bytea || convert_to(format('{"jsonrpc":"2.0","id":1,"method":"ack","params":{"lease":%s}}', :lease), 'UTF8')]) r;
RESET message_bus.relay_role;
SELECT event, attempt, replace(role, session_user, 'me') AS role, session FROM message_bus.trace(:ninth) t;

-- expired, deleted and purged it is told as long as it is there
SELECT message_bus.publish('life', '{"n": 4}', ttl => '0.2 seconds') AS brief \gset
INSERT INTO named VALUES (:brief, 'brief');
SELECT pg_temp.wait_for(format('SELECT count(*) = 0 FROM message_bus.messages WHERE id = %s', :brief));
SELECT * FROM pg_temp.life(format('message_bus.trace(%s)', :brief));
SET message_bus.default_channel = 'life';
SELECT message_bus.delete_message('order-1');
RESET message_bus.default_channel;
SELECT event, replace(role, session_user, 'me') AS role, kind FROM message_bus.trace(:id) t WHERE message_id = :id AND event IN ('published', 'deleted', 'acked') ORDER BY at;
SELECT key, headers, sha256, stored, live FROM message_bus.message_rows_kept() WHERE id = :id;
SELECT message_bus.publish('life', '{"n": 5}') AS swept \gset
SELECT message_bus.purge_channel('life') > 0 AS purged;
INSERT INTO named VALUES (:swept, 'swept');
SELECT * FROM pg_temp.life(format('message_bus.trace(%s)', :swept));

-- by transaction id, with what was refused
SELECT pg_temp.fails($$SELECT message_bus.publish('life', '{"n": 6}', transaction_id => 'order-6', sha256 => '\x00')$$);
SELECT message_bus.publish('life', '{"n": 6}', transaction_id => 'order-6') AS sixth \gset
INSERT INTO named VALUES (:sixth, 'sixth');
SELECT pg_temp.fails($$SELECT message_bus.publish('life', '{"n": 7}', transaction_id => 'order-6')$$);
SELECT pg_temp.wait_for($$SELECT count(*) = 2 FROM message_bus.refusal_rows('life', 'order-6')$$);
SELECT * FROM pg_temp.life($$message_bus.trace_transaction('life', 'order-6')$$);
-- also of one that is deleted
SELECT count(*) > 5 AS told FROM message_bus.trace_transaction('life', 'order-1');

-- not dead letters: what they say leads nowhere, or to what one may see anyway
SELECT message_bus.publish('life', '1', headers => '{"dead_letter": {"id": "x"}}') AS a \gset
SELECT message_bus.publish('life', '1', headers => '{"dead_letter": {"id": 99999999999999999999}}') AS b \gset
SELECT message_bus.publish('life', '1', headers => format('{"dead_letter": {"id": %s}}', :a)::jsonb) AS c \gset
SELECT count(*) FROM message_bus.trace(:a);
SELECT count(*) FROM message_bus.trace(:b);
SELECT count(*) FROM message_bus.trace(:c);
SELECT count(*) FROM message_bus.trace(0);
SELECT count(*) FROM message_bus.trace(-1);
SELECT count(*) FROM message_bus.trace(9223372036854775807);
SELECT count(*) FROM message_bus.trace(NULL);
SELECT count(*) FROM message_bus.fact_rows(:id + 1000);

-- who may know it
CREATE FUNCTION pg_temp.known(id bigint) RETURNS TABLE (lives bigint, by_transaction bigint, deliveries bigint, refusals bigint, leases boolean) LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM message_bus.trace($1)), (SELECT count(*) FROM message_bus.trace_transaction('life', 'order-6')),
		(SELECT count(*) FROM message_bus.deliveries WHERE message_id = $1), (SELECT count(*) FROM message_bus.refusal_rows('life', 'order-6')),
		(SELECT count(lease) > 0 FROM message_bus.trace($1))
$$;
SET ROLE regress_mbus_life_consumer;
SELECT * FROM pg_temp.known(:id);
SET ROLE regress_mbus_life_auditor;
SELECT * FROM pg_temp.known(:id);
SET ROLE regress_mbus_life_publisher;
SELECT * FROM pg_temp.known(:id);
-- not even of what he has published
SELECT message_bus.publish('life', '{"n": 10}') AS own \gset
RESET ROLE;
SELECT message_bus.ack(lease) FROM message_bus.claim('life', 'sub', 10) GROUP BY lease;
SELECT count(*) FROM message_bus.fact_rows(:own);
SET ROLE regress_mbus_life_publisher;
SELECT count(*) FROM message_bus.fact_rows(:own);
SELECT count(*) FROM message_bus.trace(:own);
-- but what he was refused himself
SELECT pg_temp.fails($$SELECT message_bus.publish('life', '{"n": 8}', transaction_id => 'order-6')$$);
SELECT pg_temp.wait_for($$SELECT count(*) = 1 FROM message_bus.refusal_rows('life', 'order-6')$$);
SELECT event, message_id, sqlstate FROM message_bus.trace_transaction('life', 'order-6') t, LATERAL (SELECT left(detail, 5)) AS d (sqlstate);
SET ROLE regress_mbus_life_stranger;
SELECT * FROM pg_temp.known(:id);
SELECT count(*) FROM message_bus.trace_transaction('no such', 'order-6');
SELECT count(*) FROM message_bus.fact_rows(:id);
SELECT count(*) FROM message_bus.failure_ids('-infinity');
SELECT pg_temp.fails($$SELECT message_bus.publish('life', '{"n": 8}', transaction_id => 'order-6')$$);
SELECT pg_temp.wait_for($$SELECT count(*) = 0 FROM message_bus.refusal_rows('life', 'order-6')$$);
RESET ROLE;
SELECT pg_temp.wait_for($$SELECT count(*) = 4 FROM message_bus.refusal_rows('life', 'order-6')$$);
-- the consumer does not see the dead-letter channel: it ends there
SET ROLE regress_mbus_life_consumer;
SELECT DISTINCT channel, related_id = :letter AS letter FROM message_bus.trace(:id) t WHERE event = 'dead';
SELECT count(*) FROM message_bus.trace(:letter);
RESET ROLE;

-- where subjects are kept apart each sees his own, and not who else had it
SELECT message_bus.create_channel('apart', visibility => 'subject', backoff => '0');
SELECT message_bus.create_subscription('apart', 'sub');
SELECT message_bus.grant_channel('apart', 'regress_mbus_life_publisher', p) FROM unnest(ARRAY['publish', 'consume']) AS p;
SET ROLE regress_mbus_life_publisher;
SET request.jwt.claims = '{"sub": "ann"}';
SELECT message_bus.publish('apart', '1', transaction_id => 'ann-1') AS ann \gset
SET request.jwt.claims = '{"sub": "bob"}';
SELECT message_bus.publish('apart', '2', transaction_id => 'bob-1') AS bob \gset
RESET ROLE;
SET request.jwt.claims = '{"sub": "worker-9"}';
SELECT message_bus.ack(lease) FROM message_bus.claim('apart', 'sub', 1);
SELECT message_bus.nack(lease, reason => 'busy') FROM message_bus.claim('apart', 'sub', 1);
SELECT event, subject, lease IS NOT NULL AS lease FROM message_bus.trace(:ann) t;
SET ROLE regress_mbus_life_publisher;
SET request.jwt.claims = '{"sub": "ann"}';
SELECT event, subject, lease IS NOT NULL AS lease FROM message_bus.trace(:ann) t;
SELECT count(*) FROM message_bus.trace(:bob);
SELECT count(*) FROM message_bus.fact_rows(:bob);
SELECT count(*) FROM message_bus.message_rows_kept() WHERE id = :bob;
SELECT count(*) FROM message_bus.failure_ids('-infinity');
SELECT count(*) FROM message_bus.failures('-infinity');
SELECT DISTINCT message_id = :ann AS own FROM message_bus.deliveries;
SELECT pg_temp.fails($$SELECT message_bus.publish('apart', '9', transaction_id => 'bob-1')$$);
SELECT pg_temp.fails($$SELECT message_bus.publish('apart', '9', transaction_id => 'ann-1')$$);
SELECT pg_temp.wait_for($$SELECT count(*) = 1 FROM message_bus.refusal_rows('apart', 'ann-1')$$);
SELECT count(*) FROM message_bus.refusal_rows('apart', 'bob-1');
SET request.jwt.claims = '{"sub": "bob"}';
SELECT count(*) FROM message_bus.refusal_rows('apart', 'ann-1');
SELECT count(*) FROM message_bus.refusal_rows('apart', 'bob-1');
SELECT event FROM message_bus.trace_transaction('apart', 'bob-1');
SELECT message_id = :bob AS own FROM message_bus.failures('-infinity');
RESET ROLE;
RESET request.jwt.claims;

SELECT message_bus.drop_channel('life'), message_bus.drop_channel('letters'), message_bus.drop_channel('apart');
DROP ROLE regress_mbus_life_consumer, regress_mbus_life_auditor, regress_mbus_life_publisher, regress_mbus_life_stranger;
