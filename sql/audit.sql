--
-- audit: who may see what is known of a channel and not what is in it: the
-- privilege audit, and members of pg_monitor
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\set prelude :here /sql/include/delivery.sql
\i :prelude
\pset null '<null>'

CREATE ROLE regress_mbus_auditor;
CREATE ROLE regress_mbus_monitor;
GRANT pg_monitor TO regress_mbus_monitor;
CREATE ROLE regress_mbus_both;
GRANT regress_mbus_auditor TO regress_mbus_both;
GRANT EXECUTE ON FUNCTION message_bus.create_subscription, message_bus.drop_subscription, message_bus.pause, message_bus.resume, message_bus.seek,
	message_bus.redrive, message_bus.purge_channel, message_bus.alter_channel, message_bus.drop_channel, message_bus.grant_channel, message_bus.revoke_channel TO regress_mbus_auditor, regress_mbus_monitor;
SELECT message_bus.create_channel('audited', max_attempts => 1, backoff => '0'), message_bus.create_channel('other');
SELECT message_bus.create_subscription('audited', 'sub'), message_bus.create_subscription('other', 'sub');
SELECT message_bus.publish('audited', '{"confidential": 1}', headers => '{"session_id": "s1", "tool_name": "t1", "metadata": {"m": 1}}', key => 'k1', transaction_id => 'a1') AS id \gset
SELECT message_bus.publish('audited', '{"confidential": 2}', transaction_id => 'a2') AS second \gset
SELECT message_bus.publish('audited', '{"confidential": 3}', transaction_id => 'a3') AS third \gset
SELECT message_bus.publish('other', '{"confidential": 9}', key => 'k9', transaction_id => 'o1') AS other_id \gset
SELECT * FROM pg_temp.take('dead', $$'audited', 'sub'$$);
SELECT message_bus.nack(pg_temp.lease('dead'), reason => 'no stock');
SELECT * FROM pg_temp.take('held', $$'audited', 'sub'$$);
SELECT pg_temp.lease('held') AS lease \gset
GRANT ALL ON pg_temp.taken, pg_temp.taken_place_seq TO PUBLIC;

-- what is granted, and what is not
SELECT p, pg_temp.fails(format('SELECT message_bus.grant_channel(''audited'', ''regress_mbus_auditor'', %L)', p)) FROM unnest(ARRAY['', 'Audit', 'audits', 'audit,consume']) AS p;
SELECT message_bus.grant_channel('audited', 'regress_mbus_auditor', 'audit');
SET ROLE regress_mbus_auditor;
SELECT channel, may_publish, may_consume, may_audit FROM message_bus.channels ORDER BY 1;
SELECT message_bus.may(c.channel_id, 'audit') AS audit, message_bus.may(c.channel_id, 'consume') AS consume, message_bus.may(c.channel_id, 'publish') AS publish, message_bus.may(c.channel_id, 'own') AS own FROM message_bus.channel_rows() c;

-- an auditor sees all that is known, and no payload
SELECT channel, key, transaction_id, publisher IS NOT NULL AS publisher, headers, content_type, size, stored_size > 0 AS stored_size, sha256 = sha256('{"confidential": 1}') AS sha256 FROM message_bus.messages WHERE id = :id;
SELECT count(*) FROM message_bus.messages;
SELECT transaction_id, session_id, tool_name, payload, payload_text, payload_size_bytes, status, metadata FROM message_bus.message_bus ORDER BY id;
SELECT count(*), count(stored) AS payloads FROM message_bus.message_rows();
SELECT count(*) FROM message_bus.message_bus WHERE payload::text ~ 'confidential';
SELECT message_id = :id AS it, attempts, reason, kind, key FROM message_bus.dead_letters;
SELECT channel, subscription, lag_messages, lag_estimated, in_flight, dead FROM message_bus.subscriptions;
SELECT lag_messages, oldest_unacked_id = :second AS oldest FROM message_bus.subscription_lag('audited', 'sub');
SELECT subscription_lag IS NULL AS nothing FROM message_bus.subscription_lag('other', 'sub');
SELECT channel, message_id = :second AS it, lease = :lease AS lease, state FROM message_bus.leases;
SELECT message_bus.delivery_status(:id, channel_id, now()), message_bus.last_access(:id, channel_id) FROM message_bus.channel_rows();

-- and may do nothing, by any function
CREATE FUNCTION pg_temp.calls(id bigint, lease bigint) RETURNS TABLE (call text, answer text) LANGUAGE plpgsql AS $$
DECLARE
	command text;
BEGIN
	FOREACH call IN ARRAY ARRAY['get(:i)', 'get_bytes(:i)', 'get_by_transaction(''audited'', ''a1'')', 'get_by_transaction(''audited'', ''no such'')', 'peek(''audited'')', 'retrieve_message(''a1'')', 'delete_message(''a1'')',
		'record_event(:i, ''accessed'', now())', 'record_event(:i, ''deleted'', now())', 'publish(''audited'', ''1'')', 'publish_text(''audited'', ''1'')', 'publish_bytes(''audited'', ''1'')',
		'publish_batch(''audited'', ''[]'')', 'publish_batch_bytes(''audited'', ARRAY[''1''::bytea])', 'store_message(''t'', ''s'', ''n'', ''p'', ''1'')',
		'claim(''audited'', ''sub'')', 'claim_bytes(''audited'', ''sub'')', 'claim(''audited'')', 'ack(:l)', 'ack(:l, ARRAY[:i])', 'nack(:l)', 'extend(:l, ''1 hour'')', 'redrive(''audited'')', 'purge_channel(''audited'')',
		'create_subscription(''audited'', ''mine'')', 'drop_subscription(''audited'', ''sub'')', 'pause(''audited'', ''sub'')', 'resume(''audited'', ''sub'')', 'seek(''audited'', ''sub'', ''latest'')',
		'alter_channel(''audited'', ttl => ''1 hour'')', 'drop_channel(''audited'')', 'grant_channel(''audited'', current_user::regrole, ''all'')', 'revoke_channel(''audited'', current_user::regrole, ''all'')']
	LOOP
		command := replace(replace(call, ':i', id::text), ':l', lease::text);
		answer := pg_temp.refused('SELECT message_bus.' || command);
		RETURN NEXT;
	END LOOP;
	call := 'wait';
	answer := pg_temp.refused($c$CALL message_bus.wait(ARRAY['audited'], timeout => '0')$c$);
	RETURN NEXT;
	call := 'delete from the view';
	answer := pg_temp.refused('DELETE FROM message_bus.message_bus');
	RETURN NEXT;
	call := 'update of the view';
	answer := pg_temp.refused('UPDATE message_bus.message_bus SET accessed_at = now()');
	RETURN NEXT;
END
$$;
SET message_bus.default_channel = 'audited';
SELECT * FROM pg_temp.calls(:id, :lease);
-- through the relay neither
RESET ROLE;
SET message_bus.relay_role = 'regress_mbus_auditor';
CREATE FUNCTION pg_temp.rpc(method text, params text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(convert_from(substr(r.frame, 2), 'UTF8'), '\d{6,}', 'N', 'g')
	FROM message_bus.relay(ARRAY[1]::bigint[], ARRAY['\x01'::bytea || convert_to(format('{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}', method, params), 'UTF8')]) AS r
$$;
SELECT m, (pg_temp.rpc(m, replace(replace(p, ':i', :'id'), ':l', :'lease'))::json)->'error'->'code' AS code FROM (VALUES
	('get', '{"id": :i}'), ('get_bytes', '{"id": :i}'), ('get_by_transaction', '{"channel": "audited", "transaction_id": "a1"}'), ('peek', '{"channel": "audited"}'), ('retrieve_message', '{"transaction_id": "a1"}'),
	('delete_message', '{"transaction_id": "a1"}'), ('claim', '{"channel": "audited", "subscription": "sub"}'), ('ack', '{"lease": :l}'), ('nack', '{"lease": :l}'), ('extend', '{"lease": :l, "lease_for": 5}'),
	('publish', '{"channel": "audited", "payload": 1}'), ('redrive', '{"dead_letter": "audited"}'), ('create_subscription', '{"channel": "audited", "subscription": "x"}'), ('seek', '{"channel": "audited", "subscription": "sub", "start": "latest"}')) AS t (m, p);
RESET message_bus.relay_role;
-- nothing has come of it
SELECT state, count(*) FROM message_bus.leases WHERE channel = 'audited' GROUP BY 1;
SELECT count(*) FROM message_bus.messages WHERE channel = 'audited';

-- a member of an auditor is one; with consume there are payloads
SET ROLE regress_mbus_both;
SELECT count(*), count(payload) AS payloads FROM message_bus.message_bus;
RESET ROLE;
SELECT message_bus.grant_channel('audited', 'regress_mbus_both', 'consume');
SET ROLE regress_mbus_both;
SELECT count(*), count(payload) AS payloads FROM message_bus.message_bus;
SELECT payload FROM message_bus.get(:third);
RESET ROLE;
-- consume and publish go, audit stays; "all" does not give it, and takes it
SELECT message_bus.grant_channel('audited', 'regress_mbus_auditor', 'all');
SELECT message_bus.revoke_channel('audited', 'regress_mbus_auditor', 'consume'), message_bus.revoke_channel('audited', 'regress_mbus_auditor', 'publish');
SET ROLE regress_mbus_auditor;
SELECT count(*), count(payload) AS payloads FROM message_bus.message_bus;
RESET ROLE;
SELECT message_bus.revoke_channel('audited', 'regress_mbus_auditor', 'audit');
SET ROLE regress_mbus_auditor;
SELECT (SELECT count(*) FROM message_bus.messages) AS messages, (SELECT count(*) FROM message_bus.channels) AS channels, (SELECT count(*) FROM message_bus.dead_letters) AS dead_letters;
RESET ROLE;
SELECT message_bus.grant_channel('audited', 'regress_mbus_auditor', 'all');
SELECT message_bus.revoke_channel('audited', 'regress_mbus_auditor', 'consume');
SET ROLE regress_mbus_auditor;
SELECT count(*) FROM message_bus.messages;
SELECT channel, may_publish, may_consume, may_audit FROM message_bus.channels;
RESET ROLE;
SELECT message_bus.grant_channel('audited', 'regress_mbus_auditor', 'audit');
SELECT message_bus.revoke_channel('audited', 'regress_mbus_auditor', 'all');
SELECT count(*) FROM message_bus.channel_grant WHERE message_bus.role_number(grantee) = 'regress_mbus_auditor'::regrole;

-- pg_monitor sees the figures of all channels, no payload, key, header, reason or lease
SET ROLE regress_mbus_monitor;
SELECT channel, max_attempts, may_publish, may_consume, may_audit FROM message_bus.channels WHERE channel IN ('audited', 'other') ORDER BY 1;
SELECT channel, subscription, lag_messages, in_flight, dead FROM message_bus.subscriptions WHERE channel IN ('audited', 'other') ORDER BY 1;
SELECT lag_messages, retrying FROM message_bus.subscription_lag('other', 'sub');
SELECT channel, message_id = :second AS it, lease, state, role IS NOT NULL AS role FROM message_bus.leases WHERE channel = 'audited';
SELECT (SELECT count(*) FROM message_bus.messages) AS messages, (SELECT count(*) FROM message_bus.message_bus) AS message_bus, (SELECT count(*) FROM message_bus.dead_letters) AS dead_letters,
		(SELECT count(*) FROM message_bus.message_rows()) AS message_rows, (SELECT count(*) FROM message_bus.death_rows()) AS death_rows;
SELECT message_bus.delivery_status(:id, c.channel_id, now()), message_bus.last_access(:id, c.channel_id) FROM message_bus.channel_rows() c WHERE c.name = 'audited';
-- (the views have no row for it that it could change)
SELECT call, answer FROM pg_temp.calls(:id, :lease) WHERE answer NOT LIKE '42501 %';
RESET ROLE;
RESET message_bus.default_channel;

SELECT message_bus.drop_channel('audited'), message_bus.drop_channel('other');
DROP OWNED BY regress_mbus_auditor, regress_mbus_monitor, regress_mbus_both;
DROP ROLE regress_mbus_auditor, regress_mbus_monitor, regress_mbus_both;
