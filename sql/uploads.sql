--
-- uploads: large bodies in pieces
--
\getenv here PG_ABS_SRCDIR
\set prelude :here /sql/include/prelude.sql
\i :prelude
\pset format unaligned
\pset tuples_only on

CREATE ROLE regress_up_user;
CREATE ROLE regress_up_other;
CREATE ROLE regress_up_reader;
CREATE ROLE regress_up_monitor;
CREATE ROLE regress_up_anon;
GRANT pg_monitor TO regress_up_monitor;
SELECT message_bus.create_channel('up');
SELECT message_bus.create_channel('up small', max_payload => 1000000);
SELECT message_bus.grant_channel('up', role, 'all') FROM unnest(ARRAY['regress_up_user', 'regress_up_other', 'regress_up_anon']::regrole[]) AS role;
SELECT message_bus.grant_channel('up', 'regress_up_reader', 'consume');

-- uploads by a name, what a call says without their numbers, and bytes
CREATE TABLE up (tag text PRIMARY KEY, n bigint);
GRANT ALL ON up TO PUBLIC;
CREATE FUNCTION pg_temp.u(text) RETURNS bigint LANGUAGE sql AS $$ SELECT n FROM up WHERE tag = $1 $$;
CREATE FUNCTION pg_temp.says(command text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(pg_temp.fails(command), '([Uu]pload) \d+', '\1 N', 'g'), 'at \d{4}-.*\.$', 'at TIME.')
$$;
CREATE FUNCTION pg_temp.bytes(size int, seed text DEFAULT '') RETURNS bytea LANGUAGE sql AS $$
	SELECT substr(string_agg(decode(md5(seed || i), 'hex'), ''::bytea ORDER BY i), 1, size) FROM generate_series(0, size / 16) AS i
$$;
CREATE TABLE body AS SELECT b AS bytes, length(b) AS size, sha256(b) AS sha256 FROM pg_temp.bytes(5 * 262144 + 1000) AS b;
GRANT SELECT ON body TO PUBLIC;
-- appends parts from one on
CREATE FUNCTION pg_temp.part(tag text, first int, parts int DEFAULT 1) RETURNS bigint LANGUAGE sql AS $$
	SELECT message_bus.upload_append(pg_temp.u(tag), first * 262144, substr(bytes, first * 262144 + 1, parts * 262144)) FROM body
$$;
CREATE FUNCTION pg_temp.status(tag text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', state, size, received, complete_to, hashed_to, missing, expires_at > now() + '1 day' - interval '1 minute', message_id IS NOT NULL)
	FROM message_bus.upload_status(pg_temp.u(tag))
$$;

SET ROLE regress_up_user;

-- in order, everything known
INSERT INTO up SELECT 'whole', message_bus.upload_begin('up', 'image/png', size, sha256, 'tx 1', 'key', '{"a": 1}', '1 hour') FROM body;
SELECT pg_temp.status('whole');
SELECT pg_temp.part('whole', 0, 4);
SELECT pg_temp.status('whole');
SELECT pg_temp.part('whole', 4, 2);
SELECT pg_temp.status('whole');
SELECT channel, state, content_type, u.size, reserved = u.size, received, complete_to, hashed_to, own, key, transaction_id, role, subject
FROM message_bus.uploads u;
SELECT id AS whole_id, hashed_to FROM message_bus.upload_commit(pg_temp.u('whole')) \gset
SELECT :hashed_to = size FROM body;
SELECT m.content_type, m.size, m.sha256 = b.sha256, m.key, m.transaction_id, m.headers, m.expires_at - m.created_at
FROM message_bus.messages m, body b WHERE m.id = :whole_id;
SELECT message_bus.get_bytes(:whole_id) = bytes, message_bus.get_bytes(:whole_id, 262140, 10) = substr(bytes, 262141, 10) FROM body;
-- again, as who has lost the answer
SELECT id = :whole_id FROM message_bus.upload_commit(pg_temp.u('whole'));
SELECT message_bus.upload_begin('up', 'image/png', size, sha256, 'tx 1') = pg_temp.u('whole') FROM body;
SELECT pg_temp.status('whole');
SELECT count(*) FROM message_bus.uploads;
SELECT pg_temp.says($$SELECT pg_temp.part('whole', 0)$$) ~ '^55000 upload N was committed \| It is message';
SELECT pg_temp.says($$SELECT message_bus.upload_abort(pg_temp.u('whole'))$$) ~ '^55000 upload N was committed';

-- in another order, nothing known; parts again, others, holes
INSERT INTO up SELECT 'loose', message_bus.upload_begin('up');
SELECT pg_temp.part('loose', 5);
SELECT pg_temp.part('loose', 3);
SELECT pg_temp.part('loose', 1);
SELECT pg_temp.part('loose', 0);
SELECT pg_temp.status('loose');
SELECT pg_temp.part('loose', 0, 4);
SELECT pg_temp.status('loose');
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('loose'), 262144, substr(bytes, 1, 262144)) FROM body$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('loose'), 0, 'short')$$);
SELECT pg_temp.status('loose');
-- behind what ends the body
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('loose'), 6 * 262144, substr(bytes, 1, 262144)) FROM body$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('loose'), 4 * 262144, substr(bytes, 1, 1000)) FROM body$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('loose'))$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('loose'), 5 * 262144)$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('loose'), 6 * 262144)$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('loose'), -1)$$);
SELECT pg_temp.part('loose', 4);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('loose'), sha256 => sha256('x'))$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('loose'), sha256 => 'x')$$);
SELECT id AS loose_id, hashed_to = size AS all FROM body, message_bus.upload_commit(pg_temp.u('loose'), size, sha256) \gset
SELECT :'all';
SELECT m.content_type, m.size, m.sha256 = b.sha256 FROM message_bus.messages m, body b WHERE m.id = :loose_id;
SELECT message_bus.get_bytes(:loose_id) = bytes FROM body;

-- it does not keep the store that it had for itself because its size was not known
RESET ROLE;
SELECT s.own FROM message_bus.message m JOIN message_bus.body_store s ON s.store_no = m.body >> 20 WHERE m.id = :loose_id;
SELECT pg_temp.wait_for($$SELECT to_regclass('message_bus.part_' || (pg_temp.u('loose') >> 20)) IS NULL$$);
SET ROLE regress_up_user;
SELECT id = :loose_id FROM message_bus.upload_commit(pg_temp.u('loose'));
-- hashed in slices: the first part came last
INSERT INTO up SELECT 'sliced', message_bus.upload_begin('up', size => size) FROM body;
SELECT pg_temp.part('sliced', 1, 3), pg_temp.part('sliced', 4, 2), pg_temp.part('sliced', 0);
SET message_bus.upload_slice = 0;
SELECT id IS NULL, hashed_to FROM message_bus.upload_commit(pg_temp.u('sliced'));
SELECT id IS NULL, hashed_to FROM message_bus.upload_commit(pg_temp.u('sliced'));
SELECT pg_temp.status('sliced');
RESET message_bus.upload_slice;
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('sliced'), sha256 => sha256('x'))$$);
SELECT id AS sliced_id FROM message_bus.upload_commit(pg_temp.u('sliced')) \gset
SELECT m.sha256 = b.sha256 FROM body b, message_bus.messages m WHERE m.id = :sliced_id;
-- a state that follows on a short part would lie
INSERT INTO up SELECT 'lie', message_bus.upload_begin('up');
SELECT message_bus.upload_append(pg_temp.u('lie'), 0, 'short');
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('lie'), 262144, 'behind')$$);
SELECT message_bus.upload_abort(pg_temp.u('lie')), message_bus.upload_abort(pg_temp.u('lie'));
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('lie'), 0, 'short')$$) ~ '^55000 upload N (was aborted|does not exist)';
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('lie'))$$) ~ '^55000 upload N (was aborted|does not exist)';

-- the sizes of an append
INSERT INTO up SELECT 'sizes', message_bus.upload_begin('up', size => 1400000);
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('sizes'), 0, '')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('sizes'), 0, substr(bytes, 1, 1000)) FROM body$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('sizes'), 1000, substr(bytes, 1, 262144)) FROM body$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('sizes'), -262144, substr(bytes, 1, 262144)) FROM body$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('sizes'), 1310720, substr(bytes, 1, 262144)) FROM body$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('sizes'), 9223372036854513664, substr(bytes, 1, 262144)) FROM body$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(pg_temp.u('sizes'), 0, convert_to(repeat('x', 4194305), 'UTF8'))$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(NULL, 0, 'x')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(1, 0, 'x')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_append(-1, 0, 'x')$$);
SELECT pg_temp.says($$SELECT * FROM message_bus.upload_status(9223372036854775807)$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('sizes'), 1400001)$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('sizes'))$$);
SELECT message_bus.upload_abort(pg_temp.u('sizes')), message_bus.upload_abort(1), message_bus.upload_abort(0);

-- what begin refuses
SELECT pg_temp.says($$SELECT message_bus.upload_begin(NULL)$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up nowhere')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', 'no media type')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', size => -1)$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', size => 1024 * 1024 * 1024 + 1)$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', sha256 => 'x')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', transaction_id => '')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', key => repeat('k', 256))$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', headers => '[]')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', ttl => '1 year')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', ttl => '1 hour', delay => '2 hours')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', size => 5, transaction_id => 'tx 1')$$) ~ '^23505 .*other bytes';
SELECT pg_temp.says($$SET LOCAL transaction_read_only = on; SELECT message_bus.upload_begin('up')$$);
RESET ROLE;
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up small', size => 1000001)$$);
-- nor does a commit take what has become too much
INSERT INTO up SELECT 'large', message_bus.upload_begin('up small');
SELECT message_bus.upload_append(pg_temp.u('large'), 0, 'large');
SELECT message_bus.alter_channel('up small', max_payload => 4);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('large'))$$);
SELECT message_bus.alter_channel('up small', max_payload => 1000000);
SELECT id > 0 FROM message_bus.upload_commit(pg_temp.u('large'));
SET message_bus.enabled = off;
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up')$$);
RESET message_bus.enabled;

-- up to 1 MiB it is a message as any
SET ROLE regress_up_user;
INSERT INTO up SELECT 'json', message_bus.upload_begin('up', 'application/json', 12, key => 'small');
SELECT message_bus.upload_append(pg_temp.u('json'), 0, '{"small": 1}');
SELECT id AS json_id FROM message_bus.upload_commit(pg_temp.u('json')) \gset
SELECT payload, size FROM message_bus.get(:json_id), LATERAL (SELECT convert_from(message_bus.get_bytes(:json_id), 'UTF8')) AS b;
SELECT id = :json_id FROM message_bus.upload_commit(pg_temp.u('json'));
INSERT INTO up SELECT 'bad', message_bus.upload_begin('up', 'application/json', 12);
SELECT message_bus.upload_append(pg_temp.u('bad'), 0, '{"small": 1 ');
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('bad'))$$);
SELECT pg_temp.status('bad');
INSERT INTO up SELECT 'empty', message_bus.upload_begin('up');
SELECT message_bus.get_bytes(id) = '', hashed_to FROM message_bus.upload_commit(pg_temp.u('empty'));
-- large JSON that came in pieces was not parsed
INSERT INTO up SELECT 'not json', message_bus.upload_begin('up', 'application/json', size) FROM body;
SELECT pg_temp.part('not json', 0, 6);
SELECT id AS not_json_id FROM message_bus.upload_commit(pg_temp.u('not json')) \gset
SELECT payload IS NULL, size = length(message_bus.get_bytes(:not_json_id)) FROM message_bus.get(:not_json_id);

-- a transaction id that another upload, or another's, has
INSERT INTO up SELECT 'tx', message_bus.upload_begin('up', size => 2000000, transaction_id => 'tx 2');
SELECT message_bus.upload_begin('up', size => 2000000, transaction_id => 'tx 2') = pg_temp.u('tx');
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', size => 2000001, transaction_id => 'tx 2')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', size => 2000000, transaction_id => 'tx 2', recipient => 'somebody')$$);
SET ROLE regress_up_other;
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', size => 2000000, transaction_id => 'tx 2')$$);
SET ROLE regress_up_user;
SELECT message_bus.upload_abort(pg_temp.u('tx'));
SELECT message_bus.upload_begin('up', size => 2000000, transaction_id => 'tx 2') <> pg_temp.u('tx');
-- a message got it meanwhile: the same bytes, and others
INSERT INTO up SELECT 'same', message_bus.upload_begin('up', 'text/plain', 4, transaction_id => 'tx 3');
INSERT INTO up SELECT 'else', message_bus.upload_begin('up', 'text/plain', 4, transaction_id => 'tx 4');
SELECT message_bus.publish_text('up', 'same', 'text/plain', transaction_id => 'tx 3') AS same_id,
	message_bus.publish_text('up', 'else', 'text/plain', transaction_id => 'tx 4') AS else_id \gset
SELECT message_bus.upload_append(pg_temp.u('same'), 0, 'same'), message_bus.upload_append(pg_temp.u('else'), 0, 'what');
SELECT id = :same_id FROM message_bus.upload_commit(pg_temp.u('same'));
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('else'))$$);
SELECT message_bus.upload_abort(pg_temp.u('else')), message_bus.upload_abort(pg_temp.u('bad'));

-- two in one statement, and what a transaction does not see of others
INSERT INTO up SELECT 'twice', message_bus.upload_begin('up', 'text/plain', 4);
SELECT message_bus.upload_append(pg_temp.u('twice'), 0, 'same') FROM generate_series(1, 2);
SELECT count(DISTINCT c.id) FROM generate_series(1, 2) AS i, LATERAL message_bus.upload_commit(pg_temp.u('twice') + i * 0) AS c;

-- whose an upload is
INSERT INTO up SELECT 'mine', message_bus.upload_begin('up', size => 2000000);
SET ROLE regress_up_other;
SELECT pg_temp.says($$SELECT pg_temp.part('mine', 0)$$);
SELECT pg_temp.says($$SELECT * FROM message_bus.upload_status(pg_temp.u('mine'))$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('mine'))$$);
SELECT message_bus.upload_abort(pg_temp.u('mine'));
SELECT count(*) FROM message_bus.uploads;
SET ROLE regress_up_user;
SET request.jwt.claims = '{"sub": "alice"}';
SELECT pg_temp.says($$SELECT pg_temp.part('mine', 0)$$);
INSERT INTO up SELECT 'hers', message_bus.upload_begin('up', size => 2000000);
SELECT pg_temp.part('hers', 0);
SELECT role, subject, received FROM message_bus.uploads;
SET request.jwt.claims = '{"sub": "bob"}';
SELECT pg_temp.says($$SELECT pg_temp.part('hers', 0)$$);
SELECT count(*) FROM message_bus.uploads;
SET request.jwt.claims = '{"sub": ["alice"]}';
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up')$$);
SELECT count(*) FROM message_bus.uploads;
RESET request.jwt.claims;
SELECT state, subject FROM message_bus.uploads WHERE state = 'open' AND reserved = 2000000 ORDER BY upload;
SET ROLE regress_up_reader;
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up')$$);
SET ROLE regress_up_monitor;
SELECT count(DISTINCT role), bool_or(subject = 'alice') FROM message_bus.uploads;
SELECT bool_and(parts >= 0 AND bytes >= 0 AND held_bytes >= 0 AND size_bytes > 0), bool_or(own), bool_or(state = 'open'), bool_or(held_bytes > 1000000)
FROM message_bus.body_stores;
SET ROLE regress_up_user;
SELECT pg_temp.says($$SELECT * FROM message_bus.body_stores$$);
SELECT pg_temp.says($$SELECT * FROM message_bus.upload$$);
-- who is nobody in particular
RESET ROLE;
SET message_bus.anonymous_role = 'regress_up_anon';
SET ROLE regress_up_anon;
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up')$$);
SELECT count(*) FROM message_bus.uploads;
SET request.jwt.claims = '{"sub": "carol"}';
SELECT message_bus.upload_abort(message_bus.upload_begin('up', size => 5));
RESET request.jwt.claims;
RESET ROLE;
RESET message_bus.anonymous_role;

-- privilege and channel, taken away meanwhile
SELECT message_bus.revoke_channel('up', 'regress_up_user', 'publish');
SET ROLE regress_up_user;
SELECT pg_temp.says($$SELECT pg_temp.part('mine', 0)$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('mine'))$$);
RESET ROLE;
SELECT message_bus.grant_channel('up', 'regress_up_user', 'publish');
SELECT message_bus.create_channel('up gone');
INSERT INTO up SELECT 'gone', message_bus.upload_begin('up gone', size => 2000000);
SELECT message_bus.drop_channel('up gone');
SELECT message_bus.create_channel('up gone');
SELECT pg_temp.says($$SELECT pg_temp.part('gone', 0)$$);
SELECT channel IS NULL, state FROM message_bus.uploads WHERE upload = pg_temp.u('gone');
SELECT message_bus.upload_abort(pg_temp.u('gone'));

-- the quota: open ones, and bytes
SELECT pg_temp.says($$SET LOCAL message_bus.max_uploads = 1; SET LOCAL ROLE regress_up_user; SELECT message_bus.upload_begin('up', size => 1)$$);
SET ROLE regress_up_other;
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', size => 1)$$);
RESET ROLE;
SELECT pg_temp.says($$SET LOCAL message_bus.max_upload_bytes = '1GB'; SET LOCAL ROLE regress_up_other; SELECT message_bus.upload_begin('up')$$);
SET message_bus.max_upload_bytes = '20MB';
SET ROLE regress_up_reader;
SELECT pg_temp.says($$SET message_bus.max_upload_bytes = '40MB'$$);
RESET ROLE;
SELECT message_bus.grant_channel('up', 'regress_up_reader', 'publish');
SET ROLE regress_up_reader;
-- what was aborted counts what was sent, and a MiB at least
SELECT message_bus.upload_abort(message_bus.upload_begin('up', size => 18 * 1024 * 1024)) FROM generate_series(1, 3);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', size => 18 * 1024 * 1024)$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up', size => 17 * 1024 * 1024)$$);
RESET ROLE;
RESET message_bus.max_upload_bytes;

-- its message is not there any more: deleted, purged, expired, or was published in one piece
SELECT message_bus.create_channel('up left');
INSERT INTO up SELECT tag, message_bus.upload_begin('up left', 'text/plain', 4, transaction_id => tag) FROM unnest(ARRAY['deleted', 'purged']) AS tag;
SELECT message_bus.upload_append(n, 0, 'left') FROM up WHERE tag IN ('deleted', 'purged');
SELECT count(c.id) FROM up, LATERAL message_bus.upload_commit(n) AS c WHERE tag IN ('deleted', 'purged');
DELETE FROM message_bus.message_bus WHERE channel = 'up left' AND transaction_id = 'deleted';
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up left', 'text/plain', 4, transaction_id => 'deleted')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('deleted'))$$);
SELECT message_bus.upload_begin('up left', 'text/plain', 4, transaction_id => 'purged') = pg_temp.u('purged');
SELECT message_bus.purge_channel('up left');
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up left', 'text/plain', 4, transaction_id => 'purged')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('purged'))$$);
INSERT INTO up SELECT 'expired', message_bus.upload_begin('up left', 'text/plain', 4, transaction_id => 'expired', ttl => '1 second');
SELECT message_bus.upload_append(pg_temp.u('expired'), 0, 'left');
SELECT c.id > 0 FROM message_bus.upload_commit(pg_temp.u('expired')) AS c;
SELECT pg_temp.wait_for($$SELECT NOT EXISTS (SELECT FROM message_bus.get_by_transaction('up left', 'expired'))$$);
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up left', 'text/plain', 4, transaction_id => 'expired')$$);
SELECT pg_temp.says($$SELECT message_bus.upload_commit(pg_temp.u('expired'))$$);
SELECT message_bus.publish_text('up left', 'left', 'text/plain', transaction_id => 'published') > 0;
SELECT message_bus.purge_channel('up left');
SELECT pg_temp.says($$SELECT message_bus.upload_begin('up left', 'text/plain', 4, transaction_id => 'published')$$);

-- JSON-RPC: by base64, by a binary frame
\set control :here /sql/include/control.sql
\i :control
\set tokens :here /sql/include/tokens.sql
\i :tokens
CREATE ROLE regress_up_login LOGIN NOINHERIT;
GRANT regress_up_other, regress_up_anon TO regress_up_login;
GRANT EXECUTE ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session TO regress_up_login;
SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "alg": "HS256"}]}');
SET SESSION AUTHORIZATION regress_up_login;
SET message_bus.relay_role = 'regress_up_other';
INSERT INTO up SELECT 'rpc', (pg_temp.ask(1, 'upload_begin', '{"channel":"up","content_type":"text/plain","size":7}') ->> 'result')::bigint;
SELECT pg_temp.says(1, 'upload_append', format('{"upload":%s,"from_byte":0,"payload":"YWJjZGVmZw==","encoding":"base64"}', pg_temp.u('rpc')));
SELECT pg_temp.says(1, 'upload_append', format('{"upload":%s,"from_byte":0,"payload":"YWJjZGVmZw=="}', pg_temp.u('rpc')));
SELECT pg_temp.says(1, 'upload_append', format('{"upload":%s,"from_byte":0,"payload":"%s"}', pg_temp.u('rpc'), repeat('0a', 32)));
SELECT pg_temp.says(1, 'upload_append', format('{"upload":%s,"from_byte":0}', pg_temp.u('rpc')), 'abcdefg');
SELECT pg_temp.says(1, 'upload_append', format('{"upload":%s,"from_byte":0}', pg_temp.u('rpc')), 'abcdefG');
SELECT pg_temp.says(1, 'upload_append', format('{"upload":%s,"from_byte":0}', pg_temp.u('rpc')));
SELECT pg_temp.says(1, 'upload_status', format('{"upload":%s}', pg_temp.u('rpc')));
SELECT pg_temp.says(1, 'upload_commit', format('{"upload":%s}', pg_temp.u('rpc')));
SELECT pg_temp.says(1, 'upload_abort', '{"upload":1}');
SELECT pg_temp.says(1, 'upload_status', '{"upload":1}');
RESET message_bus.relay_role;

-- sessions: 1 alice, 2 bob, 3 nobody in particular, 4 another role's alice, 5 alice again
SET message_bus.anonymous_role = 'regress_up_anon';
SELECT count(*) FROM message_bus.relay('{1,2,3,4,5}', ARRAY[pg_temp.control('{"role": "regress_up_other", "sub": "alice"}'),
	pg_temp.control('{"role": "regress_up_other", "sub": "bob"}'), '\x004f', pg_temp.control('{"role": "regress_up_anon", "sub": "alice"}'),
	pg_temp.control('{"role": "regress_up_other", "sub": "alice"}')]);
INSERT INTO up SELECT 'session', (pg_temp.ask(1, 'upload_begin', '{"channel":"up","content_type":"text/plain","size":7,"transaction_id":"mine"}') ->> 'result')::bigint;
SELECT s, pg_temp.says(s, 'upload_append', format('{"upload":%s,"from_byte":0}', pg_temp.u('session')), 'abcdefg') FROM generate_series(1, 5) s;
SELECT s, pg_temp.says(s, 'upload_begin', '{"channel":"up","content_type":"text/plain","size":7,"transaction_id":"mine"}') FROM unnest(ARRAY[2, 3, 4, 5]) s;
SELECT s, pg_temp.says(s, 'upload_abort', format('{"upload":%s}', pg_temp.u('session'))) FROM unnest(ARRAY[2, 3, 4]) s;
SELECT pg_temp.says(5, 'upload_commit', format('{"upload":%s}', pg_temp.u('session')));
RESET SESSION AUTHORIZATION;
RESET message_bus.anonymous_role;
SELECT publisher, subject, size FROM message_bus.messages WHERE transaction_id = 'mine';

SET client_min_messages = warning;
SELECT message_bus.set_jwt_keys('{"keys": []}');
SELECT message_bus.drop_channel(channel) FROM message_bus.channels WHERE channel LIKE 'up%';
DROP TABLE up, body;
REVOKE ALL ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session FROM regress_up_login;
DROP ROLE regress_up_user, regress_up_other, regress_up_reader, regress_up_monitor, regress_up_anon, regress_up_login;
