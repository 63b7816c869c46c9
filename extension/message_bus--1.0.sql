/* message_bus--1.0.sql: the whole install script */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION message_bus" to load this file. \quit

DO $$
BEGIN
	IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
		RAISE EXCEPTION USING
			errcode = 'feature_not_supported',
			message = pg_catalog.format('message_bus needs a database with encoding UTF8, not %s',
				pg_catalog.getdatabaseencoding());
	END IF;
END
$$;

CREATE SCHEMA message_bus;
COMMENT ON SCHEMA message_bus IS
'message_bus: durable message bus; every message whole, with a checksum, kept until its TTL';

/*
 * Roles, as tables have them: by OID here, by name in a dump, and missing for good
 * if there is none.
 */

CREATE TYPE message_bus.role;
CREATE FUNCTION message_bus.role_in(cstring) RETURNS message_bus.role
	AS 'MODULE_PATHNAME', 'mbus_role_in' LANGUAGE C STABLE STRICT;
CREATE FUNCTION message_bus.role_out(message_bus.role) RETURNS cstring
	AS 'MODULE_PATHNAME', 'mbus_role_out' LANGUAGE C STABLE STRICT;
CREATE TYPE message_bus.role (INPUT = message_bus.role_in, OUTPUT = message_bus.role_out,
	INTERNALLENGTH = 72, ALIGNMENT = int4);
COMMENT ON TYPE message_bus.role IS
'role: a role that owns or may use something, by its OID. Its text is the name that it has then, or "(missing) " and the name that it had: one that is missing stays so.';

CREATE FUNCTION message_bus.role_cmp(message_bus.role, message_bus.role) RETURNS integer
	AS 'MODULE_PATHNAME', 'mbus_role_cmp' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION message_bus.role_lt(message_bus.role, message_bus.role) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_role_lt' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION message_bus.role_le(message_bus.role, message_bus.role) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_role_le' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION message_bus.role_eq(message_bus.role, message_bus.role) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_role_eq' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION message_bus.role_ge(message_bus.role, message_bus.role) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_role_ge' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION message_bus.role_gt(message_bus.role, message_bus.role) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_role_gt' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION message_bus.role_in IS 'role_in: reads a role''s name, its OID, or "(missing) " and the name that it had.';
COMMENT ON FUNCTION message_bus.role_out IS 'role_out: a role''s name as it is now, or "(missing) " and the name that it had.';
COMMENT ON FUNCTION message_bus.role_cmp IS 'role_cmp: the order of roles: by OID, those that are missing last, by name.';
COMMENT ON FUNCTION message_bus.role_lt IS 'role_lt: the operator <';
COMMENT ON FUNCTION message_bus.role_le IS 'role_le: the operator <=';
COMMENT ON FUNCTION message_bus.role_eq IS 'role_eq: the operator =';
COMMENT ON FUNCTION message_bus.role_ge IS 'role_ge: the operator >=';
COMMENT ON FUNCTION message_bus.role_gt IS 'role_gt: the operator >';
CREATE OPERATOR message_bus.< (LEFTARG = message_bus.role, RIGHTARG = message_bus.role,
	FUNCTION = message_bus.role_lt, COMMUTATOR = OPERATOR(message_bus.>), NEGATOR = OPERATOR(message_bus.>=),
	RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR message_bus.<= (LEFTARG = message_bus.role, RIGHTARG = message_bus.role,
	FUNCTION = message_bus.role_le, COMMUTATOR = OPERATOR(message_bus.>=), NEGATOR = OPERATOR(message_bus.>),
	RESTRICT = scalarlesel, JOIN = scalarlejoinsel);
CREATE OPERATOR message_bus.= (LEFTARG = message_bus.role, RIGHTARG = message_bus.role,
	FUNCTION = message_bus.role_eq, COMMUTATOR = OPERATOR(message_bus.=), RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR message_bus.>= (LEFTARG = message_bus.role, RIGHTARG = message_bus.role,
	FUNCTION = message_bus.role_ge, COMMUTATOR = OPERATOR(message_bus.<=), NEGATOR = OPERATOR(message_bus.<),
	RESTRICT = scalargesel, JOIN = scalargejoinsel);
CREATE OPERATOR message_bus.> (LEFTARG = message_bus.role, RIGHTARG = message_bus.role,
	FUNCTION = message_bus.role_gt, COMMUTATOR = OPERATOR(message_bus.<), NEGATOR = OPERATOR(message_bus.<=),
	RESTRICT = scalargtsel, JOIN = scalargtjoinsel);
CREATE OPERATOR CLASS message_bus.role_ops DEFAULT FOR TYPE message_bus.role USING btree AS
	OPERATOR 1 message_bus.<, OPERATOR 2 message_bus.<=, OPERATOR 3 message_bus.=,
	OPERATOR 4 message_bus.>=, OPERATOR 5 message_bus.>,
	FUNCTION 1 message_bus.role_cmp(message_bus.role, message_bus.role);

CREATE FUNCTION message_bus.role_of(oid) RETURNS message_bus.role
	AS 'MODULE_PATHNAME', 'mbus_role_from_oid' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION message_bus.role_of IS 'role_of: the role with an OID; missing if there is none.';
CREATE FUNCTION message_bus.role_live(message_bus.role) RETURNS oid
	AS 'MODULE_PATHNAME', 'mbus_role_oid' LANGUAGE C IMMUTABLE STRICT;
COMMENT ON FUNCTION message_bus.role_live IS 'role_live: a role''s OID; 0, which is nobody, for one that is missing.';
CREATE FUNCTION message_bus.role_number(message_bus.role) RETURNS oid
	AS 'MODULE_PATHNAME', 'mbus_role_number' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION message_bus.role_number IS
'role_number: a role''s OID, for views; of one that is missing the one that it had here, or 0 if that is not known or another role''s.';
CREATE FUNCTION message_bus.role_missing(message_bus.role) RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_role_missing' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION message_bus.role_missing IS 'role_missing: the name of a role that is missing; NULL for one that is there.';
CREATE FUNCTION message_bus.role_at(message_bus.role) RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_role_at' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION message_bus.role_at IS 'role_at: this cluster''s system identifier and a role''s OID; NULL for one that is missing.';
CREATE FUNCTION message_bus.role_restored(message_bus.role, at text) RETURNS message_bus.role
	AS 'MODULE_PATHNAME', 'mbus_role_restored' LANGUAGE C STABLE;
COMMENT ON FUNCTION message_bus.role_restored IS
'role_restored: a role that a dump has brought; missing if it was written down in this cluster (at, as role_at has it) for another role of the name.';
CREATE FUNCTION message_bus.role_settled(message_bus.role) RETURNS message_bus.role
	AS 'MODULE_PATHNAME', 'mbus_role_settled' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION message_bus.role_settled IS 'role_settled: a role that was dropped or renamed since it was stored, as it is to be stored now; NULL if nothing has changed.';

CREATE CAST (oid AS message_bus.role) WITH FUNCTION message_bus.role_of(oid) AS ASSIGNMENT;
CREATE CAST (regrole AS message_bus.role) WITH FUNCTION message_bus.role_of(oid) AS ASSIGNMENT;

/*
 * Tables.  Nobody but the extension touches them: all rights are revoked at
 * the end of this script, and row security without a policy stands behind it.
 */

CREATE SEQUENCE message_bus.channel_id AS integer;

CREATE TABLE message_bus.channel (
	channel_id integer PRIMARY KEY DEFAULT pg_catalog.nextval('message_bus.channel_id'),
	name text NOT NULL UNIQUE,
	owner message_bus.role NOT NULL,
	series integer NOT NULL,
	ttl interval NOT NULL,
	max_attempts integer NOT NULL,
	lease interval NOT NULL,
	backoff interval NOT NULL,
	backoff_max interval NOT NULL,
	dead_letter_id integer,					-- channel for dead letters; it may have been dropped
	retention text NOT NULL,
	max_payload bigint,
	compression text NOT NULL,
	created_at timestamp with time zone NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	purged_to bigint NOT NULL DEFAULT 0,	-- messages up to it are gone, ...
	purge_kept bigint[],					-- ... but for these ranges [lo, hi): what a purge did not see
	dead_letter_expired boolean NOT NULL DEFAULT false,
	record_reads boolean NOT NULL DEFAULT false,
	owner_at text,							-- where the owner was written down, see role_at
	buses uuid[] NOT NULL DEFAULT '{}',		-- that know it by its number: of what they have
											-- written its messages are those of that number
	visibility text NOT NULL DEFAULT 'channel',	-- or subject: a publisher's own, and what is addressed to one
	max_lease interval						-- longest lease; NULL: of 7 days, as anywhere
);
COMMENT ON TABLE message_bus.channel IS 'channels and their policies';
CREATE INDEX channel_dead_letter ON message_bus.channel (dead_letter_id) WHERE dead_letter_id IS NOT NULL;

-- No foreign key to channel, nor any between tables that are dumped: they would be
-- there before the rows, and pg_restore loads tables in any order, also at one time.
CREATE TABLE message_bus.channel_grant (
	channel_id integer NOT NULL,
	grantee message_bus.role NOT NULL,
	may_publish boolean NOT NULL,
	may_consume boolean NOT NULL,
	grantee_at text,						-- as owner_at
	may_audit boolean NOT NULL DEFAULT false,
	all_subjects boolean NOT NULL DEFAULT false,
	PRIMARY KEY (channel_id, grantee)
);
COMMENT ON TABLE message_bus.channel_grant IS 'who but its owner may use a channel';

CREATE SEQUENCE message_bus.subscription_id AS integer;

CREATE TABLE message_bus.subscription (
	subscription_id integer PRIMARY KEY DEFAULT pg_catalog.nextval('message_bus.subscription_id'),
	channel_id integer NOT NULL,
	name text NOT NULL,
	owner message_bus.role NOT NULL,
	ordered boolean NOT NULL,
	paused boolean NOT NULL DEFAULT false,
	start_id bigint NOT NULL DEFAULT 0,		-- ids below are not wanted
	start_at timestamp with time zone,		-- nor what was created before
	since_lease bigint NOT NULL DEFAULT 0,	-- facts under leases below do not count
	created_at timestamp with time zone NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	wanted_at timestamp with time zone NOT NULL DEFAULT pg_catalog.clock_timestamp(),
											-- made or moved: what had expired is not missed
	owner_at text,							-- as of channels
	UNIQUE (channel_id, name)
);
COMMENT ON TABLE message_bus.subscription IS 'durable readers of channels';

-- Which subscriptions were made here, and not by a restore: it is not dumped.
CREATE TABLE message_bus.subscription_made (
	subscription_id integer PRIMARY KEY REFERENCES message_bus.subscription ON DELETE CASCADE,
	epoch integer NOT NULL					-- of leases; it had none before
);
COMMENT ON TABLE message_bus.subscription_made IS 'epoch of leases in which a subscription was made';

-- Where a subscription was; written by the worker, saves reading after a restart.
CREATE TABLE message_bus.checkpoint (
	subscription_id integer PRIMARY KEY REFERENCES message_bus.subscription ON DELETE CASCADE,
	at timestamp with time zone NOT NULL,
	since_lease bigint NOT NULL,			-- of the subscription then: an older one is void
	cursor bigint NOT NULL,
	due_at timestamp with time zone NOT NULL,
	retry_at timestamp with time zone NOT NULL,
	ids bigint[] NOT NULL,					-- of its entries
	attempts smallint[] NOT NULL,
	leases bigint[] NOT NULL,				-- 0: not claimed
	skipped bigint[] NOT NULL				-- ranges [lo, hi)
) WITH (fillfactor = 50);
COMMENT ON TABLE message_bus.checkpoint IS 'positions of subscriptions; only saves reading';

-- What goes with its segment before a subscription was done with it; written by the
-- worker before it drops the segment.  What is still there is counted when it is asked for.
CREATE TABLE message_bus.expired (
	subscription_id integer PRIMARY KEY REFERENCES message_bus.subscription ON DELETE CASCADE,
	n bigint NOT NULL,
	at_least boolean NOT NULL				-- n is a lower bound
);
COMMENT ON TABLE message_bus.expired IS 'messages of dropped segments that expired before a subscription was done with them';

-- Names of those who have published, by the numbers that messages have: a role may
-- be renamed or dropped.  A publish adds its name in its own transaction and waits
-- for nobody: two at once add it twice.  Numbers are drawn at random, so that what a
-- restore brings from elsewhere does not meet the number of another name here.
CREATE TABLE message_bus.publisher (
	publisher_id integer PRIMARY KEY,
	name name NOT NULL
);
CREATE INDEX publisher_name_idx ON message_bus.publisher (name);
COMMENT ON TABLE message_bus.publisher IS 'names of publishers; never changed';

-- One row for each segment that exists; written by the worker only.
CREATE TABLE message_bus.segment (
	segment_no integer PRIMARY KEY,
	series integer NOT NULL,
	channel_id integer,						-- whose own series it is of, or NULL
	opened_at timestamp with time zone NOT NULL,
	closed_at timestamp with time zone,		-- NULL: open, or open at a crash
	expires_at timestamp with time zone,	-- latest expiry in it, once closed
	detached boolean NOT NULL DEFAULT false,	-- waits for its drop
	told boolean NOT NULL DEFAULT false,	-- what it has is counted in message_bus.expired
	log_id uuid,							-- the log that the rest is about, see log_state
	log_to bigint,							-- ids below are logged or pending; its end: all are known
	log_pending bigint[],					-- ranges [lo, hi): unfinished when they were passed
	log_facts bigint[]						-- likewise, numbers of facts that it had before
);
COMMENT ON TABLE message_bus.segment IS 'segments: the partitions that hold messages of one time window';

-- Channels that were dropped here, until the worker has let go of their segments: that
-- a channel is not there may also mean that a restore has not brought it yet.
CREATE TABLE message_bus.channel_dropped (
	channel_id integer PRIMARY KEY
);
COMMENT ON TABLE message_bus.channel_dropped IS 'dropped channels whose segments are still there';

-- In which closed segments which transaction ids are: the worker enters them into
-- the tables era_<n>, so that a publish looks into few tables.  All of it can be made
-- anew from the segments: it is not logged, and not dumped.
CREATE UNLOGGED TABLE message_bus.era (
	era_no integer PRIMARY KEY,				-- one that is in use
	series integer NOT NULL,				-- of TTLs such as its segments have
	opened_at timestamp with time zone NOT NULL
);
COMMENT ON TABLE message_bus.era IS 'tables of transaction ids of closed segments; can be made anew';

CREATE UNLOGGED TABLE message_bus.segment_era (
	segment_no integer PRIMARY KEY,
	leaf oid NOT NULL,						-- its table message_<n>: one of that number
	era oid NOT NULL,						-- its ids are all entered here; 0: it has none
	delayed boolean NOT NULL				-- it has messages with a delay
);
COMMENT ON TABLE message_bus.segment_era IS 'segments whose transaction ids are entered';

DO $$
BEGIN
	FOR n IN 1 .. 32 LOOP					-- MBUS_ERAS
		EXECUTE pg_catalog.format('CREATE UNLOGGED TABLE message_bus.era_%s
			(hash integer NOT NULL, segment_no integer NOT NULL)', n);
		EXECUTE pg_catalog.format('CREATE INDEX era_%s_hash_idx ON message_bus.era_%s (hash)', n, n);
		EXECUTE pg_catalog.format('COMMENT ON TABLE message_bus.era_%s IS %L', n,
			'hashes of channel and transaction id, and their segments');
	END LOOP;
END
$$;

-- Segments whose tables are in use and no partitions yet, because the parents
-- were locked when they were made; written by the worker only.
CREATE TABLE message_bus.unattached (
	segment_no integer PRIMARY KEY
);
COMMENT ON TABLE message_bus.unattached IS 'segments whose tables are still to be attached';

-- What must outlive the shared memory of the server; one row.
CREATE TABLE message_bus.server_state (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	timeline bigint NOT NULL DEFAULT 0,		-- that segments were last opened on
	next_segment integer NOT NULL DEFAULT 32,	-- ordinal << 5 | node
	epoch integer NOT NULL DEFAULT 0,		-- of leases
	node smallint,							-- of its ids; NULL before the first segment
	bus uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()	-- in the names of its segments' constraints
);
INSERT INTO message_bus.server_state DEFAULT VALUES;
COMMENT ON TABLE message_bus.server_state IS 'numbering that must survive a crash or a failover';

CREATE TABLE message_bus.error (
	at timestamp with time zone NOT NULL,
	sqlstate text NOT NULL,
	function text NOT NULL,
	role text NOT NULL,
	pid integer NOT NULL,
	session bigint,
	message_id bigint,
	message text NOT NULL,
	transaction_id text,
	channel text,
	subject text,
	detail text
);
CREATE INDEX ON message_bus.error (at);
CREATE INDEX ON message_bus.error (transaction_id) WHERE transaction_id IS NOT NULL;
-- the worker deletes old ones, also where all tables are published
ALTER TABLE message_bus.error REPLICA IDENTITY FULL;
COMMENT ON TABLE message_bus.error IS 'failures of the last seven days';

-- What may be NULL comes last: a row ends behind its last column that is not, and
-- most have none of these.
CREATE TABLE message_bus.message (
	id bigint NOT NULL,
	created_at timestamp with time zone NOT NULL,
	expires_at timestamp with time zone NOT NULL,
	channel_id integer NOT NULL,
	size integer NOT NULL,			-- of the payload as published, in bytes
	publisher_id integer NOT NULL,	-- of message_bus.publisher
	run smallint NOT NULL,			-- so many ids from here on are of this channel; 0: one of them
	encoding "char" NOT NULL,		-- of the stored bytes: lz4, none, zstd, gzip
	sha256 bytea NOT NULL,			-- of the payload as published
	payload bytea NOT NULL,
	content_type text,				-- NULL: application/json
	session bigint,
	subject text,
	key text,
	key_hash bigint,				-- NULL if there is no key
	available_at timestamp with time zone,	-- NULL: at once
	transaction_id text,
	headers jsonb,
	recipient text					-- a subject
) PARTITION BY RANGE (id);
ALTER TABLE message_bus.message ALTER COLUMN payload SET STORAGE EXTERNAL;
COMMENT ON TABLE message_bus.message IS 'every message; partitioned into segments';

-- Facts about messages that are not their own: read through, deleted.
CREATE TABLE message_bus.event (
	message_id bigint NOT NULL,
	at timestamp with time zone NOT NULL,
	no bigint NOT NULL,				-- of the fact; acks and failures count with it
	session bigint,
	kind text NOT NULL,				-- 'accessed' or 'deleted'
	role text NOT NULL,
	subject text
) PARTITION BY RANGE (message_id);
COMMENT ON TABLE message_bus.event IS 'recorded reads and deletions; partitioned as messages are';

-- What a subscription is done with; a row holds the ids lo to hi, or the runs
-- of consecutive ids within: offsets from lo and lengths in turn.
CREATE TABLE message_bus.ack (
	lo bigint NOT NULL,
	hi bigint NOT NULL,
	at timestamp with time zone NOT NULL,
	claimed_at timestamp with time zone NOT NULL,
	lease bigint NOT NULL,
	no bigint NOT NULL,
	session bigint,
	subscription_id integer NOT NULL,
	n integer NOT NULL,				-- how many ids
	attempt smallint NOT NULL,
	outcome text NOT NULL,			-- acked, dead (moved), kept (dead, in place), corrupt
	role text NOT NULL,
	subject text,
	runs integer[]
) PARTITION BY RANGE (lo);
COMMENT ON TABLE message_bus.ack IS 'what subscriptions are done with; partitioned as messages are';

CREATE TABLE message_bus.failure (
	message_id bigint NOT NULL,
	at timestamp with time zone NOT NULL,
	no bigint NOT NULL,
	claimed_at timestamp with time zone,
	retry_at timestamp with time zone,	-- NULL: never
	lease bigint NOT NULL,
	dead_letter_id bigint,
	session bigint,
	key_hash bigint,				-- ordered: the message's, of the one that failed
	subscription_id integer NOT NULL,
	attempt smallint NOT NULL,		-- 0: redriven
	kind text NOT NULL,				-- nacked, released, expired, disconnected, crash, corrupt, redriven
	role text NOT NULL,
	subject text,
	reason text,
	not_moved text					-- dead in place, where there was a dead-letter channel: why
) PARTITION BY RANGE (message_id);
COMMENT ON TABLE message_bus.failure IS 'deliveries that failed; partitioned as messages are';

-- The log: an append-only tree over all messages and facts, extension/log/README.md.
-- Only the worker writes; one row, once there is a log.
CREATE TABLE message_bus.log_state (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	log_id uuid NOT NULL,					-- of this incarnation
	origin text NOT NULL,					-- its name in checkpoints
	prefix text NOT NULL,					-- setting log_origin, when it began
	system_id bigint NOT NULL,				-- of the cluster, when it began
	timeline bigint NOT NULL,
	database oid NOT NULL,
	size bigint NOT NULL,					-- entries
	facts_to bigint NOT NULL,				-- numbers below are logged or pending
	facts_pending bigint[] NOT NULL			-- ranges [lo, hi)
) WITH (fillfactor = 50);
COMMENT ON TABLE message_bus.log_state IS 'the log: its incarnation and how far it is';

-- Hashes: 256 of a tile, or parts of one at the right edge.
CREATE TABLE message_bus.log_tile (
	level integer NOT NULL,
	n bigint NOT NULL,
	from_hash integer NOT NULL,				-- place of the first in the tile
	hashes bytea NOT NULL,
	PRIMARY KEY (level, n, from_hash)
);
ALTER TABLE message_bus.log_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE message_bus.log_tile IS 'the log: hashes of the tree';

-- Which rows the entries are of.
CREATE TABLE message_bus.log_run (
	first_index bigint PRIMARY KEY,
	lo bigint NOT NULL,						-- number of its first row
	segment_no integer NOT NULL,			-- 0: actions
	kind integer NOT NULL,					-- 0 message, 1 event, 2 ack, 3 failure, 4 action
	n integer NOT NULL,						-- entries
	runs integer[]							-- offsets from lo and lengths in turn; NULL: no gap
);
CREATE INDEX log_run_number_idx ON message_bus.log_run (segment_no, kind, lo);
COMMENT ON TABLE message_bus.log_run IS 'the log: which entries are of which rows';

-- What is to be pruned: segments that were dropped, and tiles that may be needed no more.
CREATE TABLE message_bus.log_gone (
	segment_no integer PRIMARY KEY,
	at timestamp with time zone NOT NULL,
	tiles_to bigint NOT NULL DEFAULT 0		-- of its tiles, those below were looked at
);
COMMENT ON TABLE message_bus.log_gone IS 'the log: segments that were dropped, to be pruned';
CREATE TABLE message_bus.log_tile_look (
	n bigint PRIMARY KEY
);
COMMENT ON TABLE message_bus.log_tile_look IS 'the log: tiles that may be needed no more';

-- What is done to the log, and to segments.
CREATE TABLE message_bus.log_action (
	no bigint PRIMARY KEY,					-- of the entry; below 0: it is not logged yet
	at timestamp with time zone NOT NULL,
	kind text NOT NULL,						-- log, drop-segment, gap
	k bytea NOT NULL,						-- what its salts are made of
	segment_no integer,
	entries bigint,							-- of the segment
	continues text							-- origin, size and root in base64
);
CREATE INDEX log_action_at_idx ON message_bus.log_action (at);
COMMENT ON TABLE message_bus.log_action IS 'the log: what happened to it';

CREATE TABLE message_bus.log_checkpoint (
	size bigint PRIMARY KEY,
	at timestamp with time zone NOT NULL,
	origin text NOT NULL,
	root bytea NOT NULL,
	signature text NOT NULL					-- a line of a signed note
);
COMMENT ON TABLE message_bus.log_checkpoint IS 'the log: roots that were signed';

-- Who cosigns checkpoints; set_witnesses() writes it.
CREATE TABLE message_bus.log_witness (
	name text PRIMARY KEY,
	vkey text NOT NULL						-- name+id+key, the key of algorithm 0x04
);
COMMENT ON TABLE message_bus.log_witness IS 'the log: its witnesses';

-- What they have signed; audit_cosign() writes it.  Not dumped: it is of checkpoints here.
CREATE TABLE message_bus.log_cosignature (
	size bigint NOT NULL,					-- of the checkpoint
	name text NOT NULL,
	line text NOT NULL,						-- of a signed note, with its end
	at timestamp with time zone NOT NULL,	-- that the witness has signed
	PRIMARY KEY (size, name)
);
COMMENT ON TABLE message_bus.log_cosignature IS 'the log: checkpoints that witnesses have cosigned';

-- One row, not dumped: a copy of the log has a key of its own.
CREATE TABLE message_bus.log_key (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	seed bytea NOT NULL						-- private key of Ed25519
);
COMMENT ON TABLE message_bus.log_key IS 'the log: what signs its checkpoints';

-- Keys that tokens are verified with; set_jwt_keys() writes it.
CREATE TABLE message_bus.jwt_key (
	position integer PRIMARY KEY,			-- in the order of the JWK Set
	kid text UNIQUE,
	alg text NOT NULL CHECK (alg OPERATOR(pg_catalog.=) ANY (ARRAY['HS256', 'RS256', 'ES256', 'EdDSA'])),
	key bytea NOT NULL						-- HS256: the secret, else SubjectPublicKeyInfo
);
COMMENT ON TABLE message_bus.jwt_key IS 'keys that tokens are verified with';

CREATE FUNCTION message_bus.jwt_key_changed() RETURNS trigger
	AS 'MODULE_PATHNAME', 'mbus_jwt_key_changed' LANGUAGE C;
CREATE TRIGGER jwt_key_changed AFTER INSERT OR UPDATE OR DELETE ON message_bus.jwt_key
	FOR EACH ROW EXECUTE FUNCTION message_bus.jwt_key_changed();
CREATE TRIGGER jwt_key_truncated AFTER TRUNCATE ON message_bus.jwt_key
	FOR EACH STATEMENT EXECUTE FUNCTION message_bus.jwt_key_changed();

-- Sessions that were ended before their time; end_sessions() writes it.
CREATE TABLE message_bus.session_end (
	subject text COLLATE pg_catalog."C",	-- NULL: of any
	role text COLLATE pg_catalog."C",		-- NULL: of any
	ended_at timestamptz NOT NULL,
	UNIQUE NULLS NOT DISTINCT (subject, role)
);
ALTER TABLE message_bus.session_end REPLICA IDENTITY FULL;
COMMENT ON TABLE message_bus.session_end IS 'whose tokens and sessions are good only from a time on';

CREATE FUNCTION message_bus.session_end_changed() RETURNS trigger
	AS 'MODULE_PATHNAME', 'mbus_session_end_changed' LANGUAGE C;
CREATE TRIGGER session_end_changed AFTER INSERT OR UPDATE OR DELETE ON message_bus.session_end
	FOR EACH ROW EXECUTE FUNCTION message_bus.session_end_changed();
CREATE TRIGGER session_end_truncated AFTER TRUNCATE ON message_bus.session_end
	FOR EACH STATEMENT EXECUTE FUNCTION message_bus.session_end_changed();

-- all backends forget the channels and subscriptions they know
CREATE FUNCTION message_bus.channel_changed() RETURNS trigger
	AS 'MODULE_PATHNAME', 'mbus_channel_changed' LANGUAGE C;
CREATE TRIGGER channel_changed AFTER INSERT OR UPDATE OR DELETE ON message_bus.channel
	FOR EACH ROW EXECUTE FUNCTION message_bus.channel_changed();
CREATE TRIGGER channel_truncated AFTER TRUNCATE ON message_bus.channel
	FOR EACH STATEMENT EXECUTE FUNCTION message_bus.channel_changed();
CREATE TRIGGER channel_changed AFTER INSERT OR UPDATE OR DELETE ON message_bus.channel_grant
	FOR EACH ROW EXECUTE FUNCTION message_bus.channel_changed();
CREATE TRIGGER channel_truncated AFTER TRUNCATE ON message_bus.channel_grant
	FOR EACH STATEMENT EXECUTE FUNCTION message_bus.channel_changed();
CREATE TRIGGER channel_changed AFTER INSERT OR UPDATE OR DELETE ON message_bus.subscription
	FOR EACH ROW EXECUTE FUNCTION message_bus.channel_changed();
CREATE TRIGGER channel_truncated AFTER TRUNCATE ON message_bus.subscription
	FOR EACH STATEMENT EXECUTE FUNCTION message_bus.channel_changed();

-- the worker numbers segments above what a restored checkpoint names
CREATE FUNCTION message_bus.checkpoint_made() RETURNS trigger
	AS 'MODULE_PATHNAME', 'mbus_checkpoint_made' LANGUAGE C;
CREATE TRIGGER checkpoint_made AFTER INSERT ON message_bus.checkpoint
	FOR EACH ROW EXECUTE FUNCTION message_bus.checkpoint_made();

-- What two purges leave, each of what it has seen: a purge names all else up to it.
CREATE FUNCTION message_bus.purge_left(purged_to bigint, purge_kept bigint[]) RETURNS int8multirange
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT int8multirange(int8range(purged_to + 1, NULL)) + COALESCE(range_agg(int8range(purge_kept[i], purge_kept[i + 1])), '{}')
	FROM generate_subscripts(purge_kept, 1) AS i WHERE i % 2 = 1
$$;
COMMENT ON FUNCTION message_bus.purge_left IS
'purge_left: the ids that a channel''s purge leaves: above purged_to, and in the ranges that it has kept.';

-- A restored dump brings the default channel that CREATE EXTENSION has made.  What
-- belongs to it by its number may have been restored before it, and stays.
-- It runs for each channel that is made: by an index, also where there were few
-- channels when it was planned.
CREATE FUNCTION message_bus.channel_restored() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, message_bus, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
	made integer;
	before message_bus.channel;
	known uuid[] := NEW.buses;
BEGIN
	DELETE FROM message_bus.channel_dropped d WHERE d.channel_id = NEW.channel_id;
	DELETE FROM message_bus.channel c WHERE c.name = NEW.name
		AND (c.channel_id = NEW.channel_id OR c.channel_id = 1 AND c.created_at > NEW.created_at)
		RETURNING c.* INTO before;
	made := before.channel_id;
	-- a number that another bus means, or that comes again, is another channel's: dead
	-- letters go to 0, which is none; but the default channel's is the same in all
	UPDATE message_bus.channel c SET dead_letter_id = 0
		WHERE c.dead_letter_id = NEW.channel_id AND NEW.channel_id <> 1
		AND NOT c.buses && (known || CASE WHEN made = NEW.channel_id THEN before.buses END);
	IF known <> '{}' AND NEW.dead_letter_id <> 1 AND EXISTS (SELECT FROM message_bus.channel c
			WHERE c.channel_id = NEW.dead_letter_id AND NOT c.buses && known) THEN
		NEW.dead_letter_id := 0;
	END IF;
	-- this bus knows it from now on, and who knew the one of that name and number
	SELECT array_agg(DISTINCT b) INTO NEW.buses
		FROM (SELECT unnest(NEW.buses)
			UNION ALL SELECT s.bus FROM message_bus.server_state s
			UNION ALL SELECT unnest(before.buses) WHERE made = NEW.channel_id) AS k (b);
	NEW.buses := COALESCE(NEW.buses, '{}');
	IF made <> NEW.channel_id THEN
		DELETE FROM message_bus.channel_grant g WHERE g.channel_id = made;
		DELETE FROM message_bus.subscription s WHERE s.channel_id = made;
	ELSIF greatest(before.purged_to, NEW.purged_to) > 0 THEN
		-- each purge has taken what its bus had
		SELECT array_agg(bound ORDER BY bound) INTO NEW.purge_kept
			FROM unnest(message_bus.purge_left(before.purged_to, before.purge_kept)
				* message_bus.purge_left(NEW.purged_to, NEW.purge_kept)
				* int8multirange(int8range(0, greatest(before.purged_to, NEW.purged_to) + 1))) AS kept,
				LATERAL unnest(ARRAY[lower(kept), upper(kept)]) AS bound;
		NEW.purged_to := greatest(before.purged_to, NEW.purged_to);
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER channel_restored BEFORE INSERT ON message_bus.channel
	FOR EACH ROW EXECUTE FUNCTION message_bus.channel_restored();

-- An owner is who had that name where the row was written; in this cluster only if
-- it is the same role.
CREATE FUNCTION message_bus.owner_restored() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, message_bus, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		NEW.owner := message_bus.role_restored(NEW.owner, NEW.owner_at);
	END IF;
	NEW.owner_at := message_bus.role_at(NEW.owner);
	RETURN NEW;
END
$$;
CREATE TRIGGER owner_restored BEFORE INSERT OR UPDATE OF owner ON message_bus.channel
	FOR EACH ROW EXECUTE FUNCTION message_bus.owner_restored();
CREATE TRIGGER owner_restored BEFORE INSERT OR UPDATE OF owner ON message_bus.subscription
	FOR EACH ROW EXECUTE FUNCTION message_bus.owner_restored();

-- So is a grantee.  And grants and subscriptions that the default channel may have got
-- by then.
CREATE FUNCTION message_bus.grant_restored() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, message_bus, pg_temp AS $$
DECLARE
	made message_bus.channel_grant;
BEGIN
	IF TG_OP = 'UPDATE' THEN
		NEW.grantee_at := message_bus.role_at(NEW.grantee);
		RETURN NEW;
	END IF;
	NEW.grantee := message_bus.role_restored(NEW.grantee, NEW.grantee_at);
	NEW.grantee_at := message_bus.role_at(NEW.grantee);
	DELETE FROM message_bus.channel_grant g
		WHERE g.channel_id = 1 AND NEW.channel_id = 1 AND g.grantee = NEW.grantee
		RETURNING * INTO made;
	NEW.may_publish := NEW.may_publish OR COALESCE(made.may_publish, false);
	NEW.may_consume := NEW.may_consume OR COALESCE(made.may_consume, false);
	NEW.may_audit := NEW.may_audit OR COALESCE(made.may_audit, false);
	NEW.all_subjects := NEW.all_subjects OR COALESCE(made.all_subjects, false);
	RETURN NEW;
END
$$;
CREATE TRIGGER grant_restored BEFORE INSERT OR UPDATE OF grantee ON message_bus.channel_grant
	FOR EACH ROW EXECUTE FUNCTION message_bus.grant_restored();

-- lets go, at commit, what shared memory has of a subscription
CREATE FUNCTION message_bus.subscription_let_go(subscription_id integer) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_subscription_let_go' LANGUAGE C STRICT;
COMMENT ON FUNCTION message_bus.subscription_let_go IS
'subscription_let_go: for the triggers of a restore: lets go, at commit, what shared memory has of a subscription.';

-- A restored subscription replaces one of its name that was made here.  Of two that
-- were restored for the default channel, which each bus has, the first one stays.  Of
-- both starts the earlier one holds, or what was waiting here would not be delivered.
-- Another one made here that has its number gets a new one: at random above those
-- that the sequence gives out, which dumps have too.  It takes along what was
-- acknowledged here.
CREATE FUNCTION message_bus.subscription_restored() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, message_bus, pg_temp AS $$
DECLARE
	live message_bus.subscription;
	named message_bus.subscription;
	missed message_bus.expired;
	made integer;
	node integer := COALESCE(current_setting('message_bus.node', true), '0');
	since bigint;
BEGIN
	IF NEW.created_at >= now() THEN		-- it is no restored one
		RETURN NEW;
	END IF;
	DELETE FROM message_bus.subscription s
		WHERE s.created_at > NEW.created_at
			AND s.channel_id = NEW.channel_id AND s.name = NEW.name
			AND EXISTS (SELECT FROM message_bus.subscription_made m
				WHERE m.subscription_id = s.subscription_id)
		RETURNING * INTO named;
	IF FOUND THEN
		PERFORM message_bus.subscription_let_go(named.subscription_id);
		NEW.start_id := least(NEW.start_id, named.start_id);
		NEW.start_at := CASE WHEN NEW.start_at IS NOT NULL AND named.start_at IS NOT NULL
			THEN least(NEW.start_at, named.start_at) END;
	END IF;
	SELECT m.epoch INTO made FROM message_bus.subscription_made m
		WHERE m.subscription_id = NEW.subscription_id;
	SELECT * INTO missed FROM message_bus.expired e WHERE e.subscription_id = NEW.subscription_id;
	DELETE FROM message_bus.subscription s
		WHERE s.created_at > NEW.created_at AND s.subscription_id = NEW.subscription_id
			AND made IS NOT NULL
		RETURNING * INTO live;
	IF FOUND THEN
		live.subscription_id := node * 67108864 + 33554432 + floor(random() * 33554432)::integer;
		INSERT INTO message_bus.subscription SELECT live.*;
		-- one that has facts is not as good as new
		INSERT INTO message_bus.subscription_made VALUES (live.subscription_id, 0);
		INSERT INTO message_bus.expired SELECT live.subscription_id, missed.n, missed.at_least
			WHERE missed.subscription_id IS NOT NULL;
		PERFORM message_bus.subscription_let_go(NEW.subscription_id);
		-- its facts are under leases of here, and in tables that are settled
		since := ((made::bigint >> 11) << 33) | (node::bigint << 28) | ((made::bigint & 2047) << 17);
		UPDATE message_bus.ack f SET subscription_id = live.subscription_id
			WHERE f.subscription_id = NEW.subscription_id AND f.lease >= since
				AND message_bus.lease_node(f.lease) = node
				AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
					AND d.objid = f.tableoid AND d.refclassid = 'pg_extension'::regclass);
		UPDATE message_bus.failure f SET subscription_id = live.subscription_id
			WHERE f.subscription_id = NEW.subscription_id AND f.lease >= since
				AND message_bus.lease_node(f.lease) = node
				AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
					AND d.objid = f.tableoid AND d.refclassid = 'pg_extension'::regclass);
	END IF;
	SELECT * INTO named FROM message_bus.subscription s
		WHERE NEW.channel_id = 1 AND s.channel_id = 1 AND s.name = NEW.name
			AND s.created_at <> NEW.created_at;
	IF NOT FOUND THEN
		RETURN NEW;
	END IF;
	IF NEW.start_id < named.start_id OR named.start_at IS NOT NULL
			AND COALESCE(NEW.start_at < named.start_at, true) THEN
		-- the time tells it from the one that is loaded
		UPDATE message_bus.subscription s SET start_id = least(NEW.start_id, s.start_id),
			start_at = CASE WHEN s.start_at IS NOT NULL AND NEW.start_at IS NOT NULL
				THEN least(NEW.start_at, s.start_at) END,
			created_at = s.created_at + interval '1 microsecond'
			WHERE s.subscription_id = named.subscription_id;
		UPDATE message_bus.subscription_made m SET epoch = 0 WHERE m.subscription_id = named.subscription_id;
		DELETE FROM message_bus.checkpoint c WHERE c.subscription_id = named.subscription_id;
		PERFORM message_bus.subscription_let_go(named.subscription_id);
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER subscription_restored BEFORE INSERT ON message_bus.subscription
	FOR EACH ROW EXECUTE FUNCTION message_bus.subscription_restored();

-- The worker makes rows of restored segments that have none; a dump's are better.
CREATE FUNCTION message_bus.segment_restored() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, message_bus, pg_temp AS $$
BEGIN
	DELETE FROM message_bus.segment s WHERE s.segment_no = NEW.segment_no
		AND s.opened_at > NEW.opened_at;
	-- nor is it of a channel that was dropped here
	IF NEW.opened_at < now() THEN
		DELETE FROM message_bus.channel_dropped d WHERE d.channel_id = NEW.channel_id;
	END IF;
	-- what was counted before is in no dump
	NEW.told := false;
	RETURN NEW;
END
$$;
CREATE TRIGGER segment_restored BEFORE INSERT ON message_bus.segment
	FOR EACH ROW EXECUTE FUNCTION message_bus.segment_restored();

-- A restore may bring a name that is here already.
CREATE FUNCTION message_bus.publisher_restored() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, message_bus, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT FROM message_bus.publisher p
			WHERE p.publisher_id = NEW.publisher_id AND p.name = NEW.name) THEN
		RETURN NULL;
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER publisher_restored BEFORE INSERT ON message_bus.publisher
	FOR EACH ROW EXECUTE FUNCTION message_bus.publisher_restored();

-- Whoever writes these tables: replication too, which fires no triggers but
-- those that are always enabled, and of these only the ones for each row.
ALTER TABLE message_bus.jwt_key ENABLE ALWAYS TRIGGER jwt_key_changed;
ALTER TABLE message_bus.jwt_key ENABLE ALWAYS TRIGGER jwt_key_truncated;
ALTER TABLE message_bus.session_end ENABLE ALWAYS TRIGGER session_end_changed;
ALTER TABLE message_bus.session_end ENABLE ALWAYS TRIGGER session_end_truncated;
ALTER TABLE message_bus.channel ENABLE ALWAYS TRIGGER channel_changed;
ALTER TABLE message_bus.channel ENABLE ALWAYS TRIGGER channel_truncated;
ALTER TABLE message_bus.channel ENABLE ALWAYS TRIGGER channel_restored;
ALTER TABLE message_bus.channel ENABLE ALWAYS TRIGGER owner_restored;
ALTER TABLE message_bus.subscription ENABLE ALWAYS TRIGGER owner_restored;
ALTER TABLE message_bus.channel_grant ENABLE ALWAYS TRIGGER grant_restored;
ALTER TABLE message_bus.subscription ENABLE ALWAYS TRIGGER subscription_restored;
ALTER TABLE message_bus.checkpoint ENABLE ALWAYS TRIGGER checkpoint_made;
ALTER TABLE message_bus.segment ENABLE ALWAYS TRIGGER segment_restored;
ALTER TABLE message_bus.publisher ENABLE ALWAYS TRIGGER publisher_restored;
ALTER TABLE message_bus.channel_grant ENABLE ALWAYS TRIGGER channel_changed;
ALTER TABLE message_bus.channel_grant ENABLE ALWAYS TRIGGER channel_truncated;
ALTER TABLE message_bus.subscription ENABLE ALWAYS TRIGGER channel_changed;
ALTER TABLE message_bus.subscription ENABLE ALWAYS TRIGGER channel_truncated;

/*
 * Channels
 */

CREATE FUNCTION message_bus.create_channel(channel text, ttl interval DEFAULT '48 hours',
	max_attempts integer DEFAULT 5, lease interval DEFAULT '30 seconds',
	backoff interval DEFAULT '1 second', backoff_max interval DEFAULT '10 minutes',
	dead_letter text DEFAULT NULL, retention text DEFAULT 'ttl', max_payload bigint DEFAULT NULL,
	compression text DEFAULT 'lz4', if_not_exists boolean DEFAULT false,
	dead_letter_expired boolean DEFAULT false, record_reads boolean DEFAULT false,
	visibility text DEFAULT 'channel', max_lease interval DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_create_channel' LANGUAGE C;
COMMENT ON FUNCTION message_bus.create_channel IS
'create_channel: makes a channel owned by the current user. channel: 1 to 255 bytes of UTF-8 without control characters. ttl: longest life of a message, up to 100 years (NULL: message_bus.default_ttl). max_attempts, lease, backoff, backoff_max, dead_letter: for deliveries; dead-letter channels must not lead back, and the owner must be allowed to publish there, also when a message dies: else that stays in place. dead_letter_expired: what a subscription has not got becomes a dead letter before it expires. retention: ttl, or acked: space is returned when every subscription has acked, at most 55 channels. max_payload: bytes (NULL: message_bus.max_payload). compression: lz4, zstd, gzip or none. record_reads: each read by get, get_by_transaction, get_bytes, peek and retrieve_message is an event "accessed", by role and subject; they fail where it cannot be. visibility: channel, or subject: who may consume sees, reads and deletes only what his own role and subject has published or what is addressed to his subject (recipient), unless he has all_subjects or owns the channel; to claim takes all_subjects. max_lease: longest time that messages may be leased or a lease extended to, up to 7 days (NULL or 0: 7 days). Errors: 42710 exists, 42602 bad name, 22023 bad value, 42P01 no such dead-letter channel, 53400 too many channels with retention acked, or the current user owns as many as message_bus.max_channels_per_role says, 25006 read-only.';

CREATE FUNCTION message_bus.alter_channel(channel text, ttl interval DEFAULT NULL,
	max_attempts integer DEFAULT NULL, lease interval DEFAULT NULL,
	backoff interval DEFAULT NULL, backoff_max interval DEFAULT NULL,
	dead_letter text DEFAULT NULL, retention text DEFAULT NULL, max_payload bigint DEFAULT NULL,
	compression text DEFAULT NULL, dead_letter_expired boolean DEFAULT NULL,
	record_reads boolean DEFAULT NULL, owner regrole DEFAULT NULL,
	visibility text DEFAULT NULL, max_lease interval DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_alter_channel' LANGUAGE C;
COMMENT ON FUNCTION message_bus.alter_channel IS
'alter_channel: changes what is not NULL, for messages published from now on; visibility for all that are there. dead_letter '''', max_payload 0 and max_lease 0 remove these; a shorter max_lease lets leases that are out go on. owner: to whom the channel belongs from now on; the caller owns the channel and may set that role, or has the rights of the owner of the extension (a channel whose owner is missing is a superuser''s and his). Errors: 42P01 no such channel, 42501 not its owner, or may not set the role, 42704 no such role, 22023 bad value, 53400 too many channels with retention acked, or of the new owner, 25006 read-only.';

CREATE FUNCTION message_bus.drop_channel(channel text, if_exists boolean DEFAULT false) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_drop_channel' LANGUAGE C;
COMMENT ON FUNCTION message_bus.drop_channel IS
'drop_channel: removes a channel and its subscriptions; its messages can no longer be reached, and their space is returned by their TTL. Errors: 42P01 no such channel, 42501 not its owner, 25006 read-only.';

CREATE FUNCTION message_bus.grant_channel(channel text, grantee regrole, privileges text) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_grant_channel' LANGUAGE C;
COMMENT ON FUNCTION message_bus.grant_channel IS
'grant_channel: lets a role use a channel. privileges: publish, consume, all (both), audit: to see in the views all that consumers see there but payloads, and nothing else; or all_subjects, which gives nothing by itself: where visibility is subject, that consume and audit are for all messages, and that one may claim. Errors: 42P01 no such channel, 42501 not its owner, 22023 unknown privilege, 42704 no such role.';

CREATE FUNCTION message_bus.revoke_channel(channel text, grantee regrole, privileges text) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_revoke_channel' LANGUAGE C;
COMMENT ON FUNCTION message_bus.revoke_channel IS
'revoke_channel: takes back what grant_channel gave. grantee: ''-'' for all roles that are missing. privileges: publish, consume, audit, all_subjects, or all of these. Errors: as grant_channel.';

CREATE FUNCTION message_bus.may(channel_id integer, privilege text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_may' LANGUAGE C STRICT STABLE COST 10;
COMMENT ON FUNCTION message_bus.may IS
'may: whether the current user may publish, consume, audit (or consume), has all_subjects of, or owns (any other word) a channel.';

/*
 * Publishing
 */

CREATE FUNCTION message_bus.publish(channel text, payload json, headers jsonb DEFAULT NULL,
	key text DEFAULT NULL, transaction_id text DEFAULT NULL, ttl interval DEFAULT NULL,
	delay interval DEFAULT NULL, sha256 bytea DEFAULT NULL,
	available_at timestamp with time zone DEFAULT NULL, recipient text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'mbus_publish' LANGUAGE C;
COMMENT ON FUNCTION message_bus.publish IS
'publish: stores a JSON message, its text unchanged, and returns its id. headers: an object of the publisher''s. key: orders messages. transaction_id: the publisher''s idempotency key; a live message of the channel with the same id and bytes is returned instead. ttl: not above the channel''s. delay: before it is delivered. sha256: expected checksum, 32 bytes or 64 hex digits. available_at: when it is delivered, in place of delay (both are refused); before it expires, at once if the time has passed. recipient: a subject that it is addressed to, up to 16 KiB (above 255 bytes it is kept as subjects are: cut, with a digest); who that is may see it where the channel''s visibility is subject. A transaction id that somebody else has used there is 23505, whatever the bytes. Errors: 42P01 no such channel, 42501 no privilege, 22023 bad ttl, delay, available_at or checksum, 23505 transaction id used before, 54000 too large, 25006 read-only, 55000 not ready, 57000 disabled.';

CREATE FUNCTION message_bus.publish_once(channel text, payload json, headers jsonb DEFAULT NULL,
	key text DEFAULT NULL, transaction_id text DEFAULT NULL, ttl interval DEFAULT NULL,
	delay interval DEFAULT NULL, sha256 bytea DEFAULT NULL,
	available_at timestamp with time zone DEFAULT NULL, recipient text DEFAULT NULL, OUT id bigint, OUT repeated boolean)
	AS 'MODULE_PATHNAME', 'mbus_publish_once' LANGUAGE C;
COMMENT ON FUNCTION message_bus.publish_once IS
'publish_once: as publish, and tells whether it was a repeat. repeated: a live message of the channel has the transaction id and these bytes already: id is its, and nothing was stored. Without a transaction id nothing is a repeat. Errors: as publish.';

CREATE FUNCTION message_bus.publish_text(channel text, payload text,
	content_type text DEFAULT 'application/json', headers jsonb DEFAULT NULL,
	key text DEFAULT NULL, transaction_id text DEFAULT NULL, ttl interval DEFAULT NULL,
	delay interval DEFAULT NULL, sha256 bytea DEFAULT NULL,
	available_at timestamp with time zone DEFAULT NULL, recipient text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'mbus_publish_text' LANGUAGE C;
COMMENT ON FUNCTION message_bus.publish_text IS
'publish_text: as publish, for text of any content type; JSON content types must hold JSON (22P02).';

CREATE FUNCTION message_bus.publish_bytes(channel text, payload bytea,
	content_type text DEFAULT 'application/octet-stream', headers jsonb DEFAULT NULL,
	key text DEFAULT NULL, transaction_id text DEFAULT NULL, ttl interval DEFAULT NULL,
	delay interval DEFAULT NULL, sha256 bytea DEFAULT NULL,
	available_at timestamp with time zone DEFAULT NULL, recipient text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'mbus_publish_bytes' LANGUAGE C;
COMMENT ON FUNCTION message_bus.publish_bytes IS
'publish_bytes: as publish, for bytes of any content type; JSON content types must hold JSON in UTF-8 (22P02).';

CREATE FUNCTION message_bus.publish_batch(channel text, messages json) RETURNS bigint[]
	AS 'MODULE_PATHNAME', 'mbus_publish_batch' LANGUAGE C;
COMMENT ON FUNCTION message_bus.publish_batch IS
'publish_batch: stores all messages of an array or none. messages: objects with payload, and optionally headers, key, transaction_id, ttl, delay (interval text or seconds), available_at (text), recipient, sha256. Returns the ids in their order. Errors: as publish; 22023 names the element.';

CREATE FUNCTION message_bus.publish_batch_bytes(channel text, payloads bytea[],
	content_type text DEFAULT 'application/octet-stream', headers jsonb[] DEFAULT NULL,
	keys text[] DEFAULT NULL, transaction_ids text[] DEFAULT NULL, recipients text[] DEFAULT NULL) RETURNS bigint[]
	AS 'MODULE_PATHNAME', 'mbus_publish_batch_bytes' LANGUAGE C;
COMMENT ON FUNCTION message_bus.publish_batch_bytes IS
'publish_batch_bytes: stores all payloads or none; the other arrays, where given, have as many elements. Returns the ids in their order. Errors: as publish.';

/*
 * Reading
 */

CREATE TYPE message_bus.stored_message AS (
	id bigint, channel text, created_at timestamp with time zone,
	expires_at timestamp with time zone, available_at timestamp with time zone,
	key text, transaction_id text, publisher text, subject text, session bigint,
	headers jsonb, content_type text, size bigint, sha256 bytea,
	by_reference boolean, payload json);
COMMENT ON TYPE message_bus.stored_message IS
'stored_message: payload is NULL where it is by_reference or its content type is not JSON; get_bytes has it.';

CREATE FUNCTION message_bus.get(id bigint) RETURNS SETOF message_bus.stored_message
	AS 'MODULE_PATHNAME', 'mbus_get' LANGUAGE C ROWS 1;
COMMENT ON FUNCTION message_bus.get IS
'get: one message with its whole payload; no row if there is none, it has expired, was deleted or purged, or is not the caller''s in a channel with visibility subject (so with all functions that read). Errors: 42501 no privilege to consume, XX001 stored bytes do not match.';

CREATE FUNCTION message_bus.get_by_transaction(channel text, transaction_id text)
	RETURNS SETOF message_bus.stored_message
	AS 'MODULE_PATHNAME', 'mbus_get_by_transaction' LANGUAGE C ROWS 1;
COMMENT ON FUNCTION message_bus.get_by_transaction IS
'get_by_transaction: the message with that transaction id, its payload by reference above message_bus.inline_max; no row if there is none. Errors: 42P01 no such channel, 42501 no privilege, XX001 stored bytes do not match.';

CREATE FUNCTION message_bus.get_bytes(id bigint, from_byte bigint DEFAULT 0,
	max_bytes bigint DEFAULT NULL) RETURNS bytea
	AS 'MODULE_PATHNAME', 'mbus_get_bytes' LANGUAGE C;
COMMENT ON FUNCTION message_bus.get_bytes IS
'get_bytes: a range of a message''s bytes, counted from 0; empty behind the end, NULL if there is no such message. Errors: as get; 22023 negative range.';

CREATE FUNCTION message_bus.peek(channel text, after_id bigint DEFAULT 0,
	max_messages integer DEFAULT 100, max_bytes bigint DEFAULT NULL) RETURNS SETOF message_bus.stored_message
	AS 'MODULE_PATHNAME', 'mbus_peek' LANGUAGE C;
COMMENT ON FUNCTION message_bus.peek IS
'peek: messages with ids above after_id, ascending, at most max_messages (1 to 10000), with at most max_bytes of payloads, but for a first message that is larger; stops before the first publish that has not ended, so that nothing is skipped. Errors: 42P01 no such channel, 42501 no privilege, 22023 bad number, 25006 on a standby.';

CREATE FUNCTION message_bus.retrieve_message(transaction_id text) RETURNS json
	AS 'MODULE_PATHNAME', 'mbus_retrieve_message' LANGUAGE C;
COMMENT ON FUNCTION message_bus.retrieve_message IS
'retrieve_message: payload of the message with that transaction id on message_bus.default_channel; NULL if there is none. The access is always recorded, in a READ ONLY transaction or one that is rolled back by the worker, within message_bus.worker_interval. Errors: as get; 25006 on a standby, 55000 the worker does not record reads.';

CREATE FUNCTION message_bus.delete_message(transaction_id text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_delete_message' LANGUAGE C;
COMMENT ON FUNCTION message_bus.delete_message IS
'delete_message: hides the message with that transaction id on message_bus.default_channel, at commit; false if there is none. Needs the privileges to publish and to consume. Errors: 42501, 25006.';

CREATE FUNCTION message_bus.record_event(id bigint, kind text, happened_at timestamp with time zone) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_record_event' LANGUAGE C STRICT;
COMMENT ON FUNCTION message_bus.record_event IS
'record_event: records that a message was accessed or deleted; false if there is no such message. Errors: 42501, 22023, 25006.';

CREATE FUNCTION message_bus.store_message(transaction_id text, session_id text, tool_name text,
	provider_name text, payload json, metadata jsonb DEFAULT '{}') RETURNS bigint
	LANGUAGE sql SET search_path = pg_catalog, message_bus, pg_temp AS $$
	SELECT message_bus.publish(current_setting('message_bus.default_channel'), payload,
		headers => jsonb_strip_nulls(jsonb_build_object('session_id', session_id,
			'tool_name', tool_name, 'provider_name', provider_name))
			|| CASE WHEN metadata IS NULL THEN '{}' ELSE jsonb_build_object('metadata', metadata) END,
		transaction_id => transaction_id)
$$;
COMMENT ON FUNCTION message_bus.store_message IS
'store_message: publishes to message_bus.default_channel and returns the id; session, tool, provider and metadata become headers. Errors: as publish.';

CREATE FUNCTION message_bus.stored_json(payload bytea, encoding text, size integer,
	content_type text, sha256 bytea) RETURNS json
	AS 'MODULE_PATHNAME', 'mbus_stored_json' LANGUAGE C STRICT STABLE COST 100;
COMMENT ON FUNCTION message_bus.stored_json IS
'stored_json: a stored row''s payload as json; NULL if it is not JSON or does not match its checksum.';

CREATE FUNCTION message_bus.compression_name(encoding "char") RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_compression_name_of' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION message_bus.compression_name IS
'compression_name: lz4, zstd, gzip or none, of a stored row''s encoding; NULL if it is none of these.';

CREATE FUNCTION message_bus.json_text(payload json, VARIADIC path text[] DEFAULT '{}') RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_json_text_value' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION message_bus.json_text IS
'json_text: the value at a path in a payload, as text; the whole for no path, NULL if there is none or it is null. path: names of members, numbers of elements (from 0; negative from the end). As #>>, but raises no error for what a payload holds: \u0000 and half of a surrogate pair (RFC 8259, section 8.2) are given as U+FFFD.';

/*
 * Delivery
 */

CREATE FUNCTION message_bus.create_subscription(channel text, subscription text,
	start text DEFAULT 'earliest', ordered boolean DEFAULT false, if_not_exists boolean DEFAULT false) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_create_subscription' LANGUAGE C;
COMMENT ON FUNCTION message_bus.create_subscription IS
'create_subscription: makes a durable reader of a channel, owned by the current user, who needs the privilege to consume. subscription: 1 to 255 bytes of UTF-8 without control characters. start: earliest (all messages there are), latest (none that was committed before), digits (an id, the first that is delivered; one not given out yet is as the next one), else a timestamp with time zone (what was created from then on). ordered: messages of one key one after the other. Errors: 42P01 no such channel, 42501 no privilege, 42602 bad name, 42710 exists, 22023 or 22007 bad start, 53400 the current user owns as many as message_bus.max_subscriptions_per_role says, 25006 read-only, 55000 not ready.';

CREATE FUNCTION message_bus.drop_subscription(channel text, subscription text,
	if_exists boolean DEFAULT false) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_drop_subscription' LANGUAGE C;
COMMENT ON FUNCTION message_bus.drop_subscription IS
'drop_subscription: removes a subscription; its leases end at commit. Errors: 42P01 no such channel or subscription, 42501 neither its owner nor the channel''s, 25006 read-only.';

CREATE FUNCTION message_bus.pause(channel text, subscription text) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_pause' LANGUAGE C;
COMMENT ON FUNCTION message_bus.pause IS
'pause: claims from the subscription get nothing from the commit on; what is claimed can still be acked. Errors: as drop_subscription.';

CREATE FUNCTION message_bus.resume(channel text, subscription text) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_resume' LANGUAGE C;
COMMENT ON FUNCTION message_bus.resume IS
'resume: ends a pause and wakes who waits for the channel. Errors: as drop_subscription.';

CREATE FUNCTION message_bus.seek(channel text, subscription text, start text) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_seek' LANGUAGE C;
COMMENT ON FUNCTION message_bus.seek IS
'seek: moves a subscription to start (as create_subscription has it); messages from there on are delivered, again if they were acked before, and count attempts anew. Its leases end at commit. Until then claims from it get 55000. Errors: as drop_subscription; 22023 or 22007 bad start, 55000 another seek is open.';

CREATE TYPE message_bus.delivery AS (
	id bigint, lease bigint, attempt integer, created_at timestamp with time zone,
	expires_at timestamp with time zone, key text, headers jsonb, content_type text,
	size bigint, sha256 bytea, by_reference boolean, payload json);
COMMENT ON TYPE message_bus.delivery IS
'delivery: payload is NULL where it is by_reference (above message_bus.inline_max) or its content type is not JSON; get_bytes has it.';

CREATE TYPE message_bus.delivery_bytes AS (
	id bigint, lease bigint, attempt integer, created_at timestamp with time zone,
	expires_at timestamp with time zone, key text, headers jsonb, content_type text,
	size bigint, sha256 bytea, by_reference boolean, payload bytea);
COMMENT ON TYPE message_bus.delivery_bytes IS
'delivery_bytes: as delivery, with the payload''s bytes; NULL where it is by_reference.';

CREATE FUNCTION message_bus.claim(channel text, subscription text DEFAULT 'default',
	batch integer DEFAULT 1, lease_for interval DEFAULT NULL, wait interval DEFAULT '0',
	max_bytes bigint DEFAULT NULL, ack bigint DEFAULT NULL, keep boolean DEFAULT false) RETURNS SETOF message_bus.delivery
	AS 'MODULE_PATHNAME', 'mbus_claim' LANGUAGE C ROWS 100;
COMMENT ON FUNCTION message_bus.claim IS
'claim: takes messages to work on, by id, those to be tried again first. channel; subscription ("default" is made at the first claim). batch: how many at most, 1 to 10000. lease_for: how long they are the caller''s, at most the channel''s max_lease (NULL: its lease). wait: how long to wait for the first one, at most a day; a waiting call holds a snapshot, CALL message_bus.wait() does not. max_bytes: payload bytes at most, but for a first message that is larger. ack: a lease that is acked first, with all it holds, as by ack(lease): of whatever channel or subscription, if the caller may consume there (NULL: none); both take effect when the transaction commits. If the ack is refused nothing is claimed. With ack the call does not wait, so that the ack can be committed; what follows in the keys of acked messages of an ordered subscription can be claimed from then on. keep: over a gateway, the lease does not end with the socket. All rows have one lease, for ack, nack and extend; it takes effect when the transaction commits, and does not end before it does. Errors: 42P01 no such channel or subscription, 42501 no privilege to consume, 22023 bad argument, 22004 NULL, 53400 the subscription, its channel, the role with its subject, or the session may hold no more messages, too many subscriptions are in use, or the channel''s owner may own no more, 55000 a seek has not ended, the worker does not answer or the lease of ack is not held (as ack), 25001 waiting in REPEATABLE READ, 25006 read-only.';

CREATE FUNCTION message_bus.claim_bytes(channel text, subscription text DEFAULT 'default',
	batch integer DEFAULT 1, lease_for interval DEFAULT NULL, wait interval DEFAULT '0',
	max_bytes bigint DEFAULT NULL, ack bigint DEFAULT NULL, keep boolean DEFAULT false) RETURNS SETOF message_bus.delivery_bytes
	AS 'MODULE_PATHNAME', 'mbus_claim_bytes' LANGUAGE C ROWS 100;
COMMENT ON FUNCTION message_bus.claim_bytes IS
'claim_bytes: as claim, with the payload''s exact bytes, whatever its content type.';

CREATE FUNCTION message_bus.ack(lease bigint, ids bigint[] DEFAULT NULL) RETURNS integer
	AS 'MODULE_PATHNAME', 'mbus_ack' LANGUAGE C;
COMMENT ON FUNCTION message_bus.ack IS
'ack: says that claimed messages are done with, and returns how many. lease: of the claim. ids: at most 10000 of its messages (NULL: all it holds); one given twice counts once. Until its transaction ends a deadline that passes does nothing. Messages acked before under the same lease count again. A lease belongs to who has claimed: a gateway''s client of the same role and subject, in SQL whoever has the privileges of the role, but with claims that name another subject. Errors: 55000 the lease is not held, not the caller''s, does not hold one of the ids (they are named; nothing is acked) or is in use by another transaction, 42501 no privilege to consume, 22004 NULL, 54000 too many ids, 25006 read-only.';

CREATE FUNCTION message_bus.nack(lease bigint, ids bigint[] DEFAULT NULL,
	delay interval DEFAULT NULL, reason text DEFAULT NULL) RETURNS integer
	AS 'MODULE_PATHNAME', 'mbus_nack' LANGUAGE C;
COMMENT ON FUNCTION message_bus.nack IS
'nack: gives claimed messages back, at commit, and returns how many. lease, ids: as in ack. delay: until they are delivered again, up to 100 years (NULL: the channel''s backoff, doubled with each attempt up to backoff_max, of which a random part up to one half is left out). reason: kept with the failure, up to 8000 bytes; of a longer one the beginning and its length. A message that has had max_attempts goes to the channel''s dead-letter channel, or stays as dead where there is none, or the channel''s owner may not publish there. Errors: 55000 as ack (one acked or given back before is not held), 42501 no privilege to consume, 22004 NULL, 22023 bad delay, 54000 too many ids, 25006 read-only.';

CREATE FUNCTION message_bus.extend(lease bigint, lease_for interval,
	ids bigint[] DEFAULT NULL) RETURNS timestamp with time zone
	AS 'MODULE_PATHNAME', 'mbus_extend' LANGUAGE C;
COMMENT ON FUNCTION message_bus.extend IS
'extend: moves the end of a lease, or of some of its messages, to lease_for from now, later or earlier, and returns that time. lease_for: more than 0, at most the channel''s max_lease, or 7 days. ids: at most 10000 (NULL: all it holds). Takes effect at once, also if the transaction is rolled back. Errors: 55000 the lease is not held or does not hold all the ids (nothing is extended), 42501 no privilege to consume, 22004 NULL, 22023 bad lease_for, 54000 too many ids, 25006 read-only.';

CREATE FUNCTION message_bus.release_lease(lease bigint) RETURNS integer
	AS 'MODULE_PATHNAME', 'mbus_release_lease' LANGUAGE C;
COMMENT ON FUNCTION message_bus.release_lease IS
'release_lease: gives all messages of a lease back, at commit, whose ever the lease is, and returns how many; for the channel''s owner. They are delivered again at once; the attempt counts, and has failed (released). Errors: 55000 the lease is not held, or is one of a channel that the current user does not own, or is in use by another transaction; 22004 NULL, 25006 read-only.';

CREATE FUNCTION message_bus.redrive(dead_letter text, max_messages integer DEFAULT NULL,
	ids bigint[] DEFAULT NULL) RETURNS integer
	AS 'MODULE_PATHNAME', 'mbus_redrive' LANGUAGE C;
COMMENT ON FUNCTION message_bus.redrive IS
'redrive: gives dead messages back, at commit, with all their attempts, and returns how many. dead_letter: a dead-letter channel, or a channel whose dead messages lie in place. max_messages: at least 1 (NULL: all); the oldest first. ids: only these, at most 10000 (NULL: all): of dead letters, or of messages dead in place; what is not dead is left out. A message that still lives goes to the subscription it died for; otherwise its dead letter is published again to the channel it came from, and left alone if that is gone (another of its name is not taken for it). The dead letter is deleted. Needs the privilege to consume dead_letter and to publish to the channels the messages came from; one without that is left alone, with a warning. Errors: 42P01 no such channel, 42501 no privilege, 22004 NULL, 22023 bad max_messages, 25006 read-only, 54000 too many ids, 53400 too many subscriptions, 55000 not ready.';

CREATE FUNCTION message_bus.purge_channel(channel text) RETURNS bigint
	AS 'MODULE_PATHNAME', 'mbus_purge_channel' LANGUAGE C;
COMMENT ON FUNCTION message_bus.purge_channel IS
'purge_channel: hides all messages of a channel for good, as if they were deleted, at commit; those of publishes that have not ended, its own transaction''s too, stay. Returns how many live ones it has hidden. Errors: 42P01 no such channel, 42501 not its owner, 25006 read-only, 55000 not ready.';

CREATE PROCEDURE message_bus.wait(channels text[], subscriptions text[] DEFAULT NULL,
	timeout interval DEFAULT '60 seconds', INOUT ready text[] DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'mbus_wait' LANGUAGE C;
COMMENT ON PROCEDURE message_bus.wait IS
'wait: waits until a claim may find something in one of the channels. channels: at most 256 names. subscriptions: one for each channel; NULL is ''default'' (for all or one). timeout: longest wait; 0 only looks. Sets ready to the channels that have something, in the order given; empty when the time is over; others may claim it first. A subscription default that does not exist yet is ready: the first claim makes it. Needs the privilege to consume on each channel. Ends its transaction first, and sleeps without a snapshot: CALL it outside of transaction blocks. Errors: 42P01, 42501, 22004, 22023 (also if the arrays differ in length), 2202E, 54000 more than 256 channels, 25001 if it would have to sleep inside a transaction block, a function or a subtransaction, or in REPEATABLE READ, 25006, 55000.';

/*
 * Views.  Their rows come from functions that look at the rights of the current
 * user first: conditions of a query, whatever they are, never see another row.
 */

CREATE FUNCTION message_bus.ack_covers(lo bigint, runs integer[], hi bigint, id bigint) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_ack_covers' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION message_bus.ack_covers IS
'ack_covers: whether a row of message_bus.ack holds an id. runs: NULL if it holds all from lo to hi. Errors: 22023 runs are not pairs of an offset and a length.';

/*
 * The bus's time.
 */

CREATE FUNCTION message_bus.clock() RETURNS timestamp with time zone
	AS 'MODULE_PATHNAME', 'mbus_clock' LANGUAGE C PARALLEL SAFE;
COMMENT ON FUNCTION message_bus.clock IS
'clock: the time that expiry, delays and leases go by: the server''s, but it is never set back, and does not follow a jump forward by more than message_bus.clock_jump until clock_accept() is called or an hour has passed.';

CREATE FUNCTION message_bus.clock_off() RETURNS interval
	AS 'MODULE_PATHNAME', 'mbus_clock_off' LANGUAGE C PARALLEL SAFE;
COMMENT ON FUNCTION message_bus.clock_off IS
'clock_off: by how much the server''s clock is ahead of message_bus.clock() (negative: behind); NULL if by no more than message_bus.clock_jump.';

CREATE FUNCTION message_bus.clock_accept() RETURNS timestamp with time zone
	AS 'MODULE_PATHNAME', 'mbus_clock_accept' LANGUAGE C;
COMMENT ON FUNCTION message_bus.clock_accept IS
'clock_accept: has the bus go by the server''s clock although it has jumped forward; returns the bus''s time. What has expired by it is dropped then. A clock that was set back is not followed.';

CREATE FUNCTION message_bus.channel_rows() RETURNS SETOF message_bus.channel
	AS 'MODULE_PATHNAME', 'mbus_channel_rows' LANGUAGE C STABLE COST 1000 ROWS 100;
COMMENT ON FUNCTION message_bus.channel_rows IS
'channel_rows: the channels that the current user may publish to, consume, audit or monitor (pg_monitor). For the view channels.';

CREATE FUNCTION message_bus.subscription_rows() RETURNS SETOF message_bus.subscription
	AS 'MODULE_PATHNAME', 'mbus_subscription_rows' LANGUAGE C STABLE COST 1000 ROWS 100;
COMMENT ON FUNCTION message_bus.subscription_rows IS
'subscription_rows: the subscriptions of the channels that the current user may consume, audit or monitor. For the views subscriptions and leases.';

CREATE FUNCTION message_bus.death_rows(OUT subscription_id integer, OUT message_id bigint, OUT attempts smallint,
	OUT reason text, OUT kind text, OUT died_at timestamp with time zone, OUT dead_letter_id bigint,
	OUT dead_letter text, OUT claimed_at timestamp with time zone, OUT role text, OUT key text,
	OUT size integer, OUT content_type text, OUT not_moved text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_death_rows' LANGUAGE C STABLE COST 10000 ROWS 100;
COMMENT ON FUNCTION message_bus.death_rows IS
'death_rows: the messages that died for subscriptions of channels that the current user may consume or audit, and that he may see, as long as they can be redriven. For the view dead_letters.';

CREATE FUNCTION message_bus.message_rows(OUT id bigint, OUT channel_id integer, OUT channel text,
	OUT created_at timestamp with time zone, OUT expires_at timestamp with time zone, OUT live boolean,
	OUT available_at timestamp with time zone, OUT key text, OUT transaction_id text, OUT publisher text,
	OUT subject text, OUT session bigint, OUT headers jsonb, OUT content_type text, OUT size integer,
	OUT encoding "char", OUT stored_size integer, OUT sha256 bytea, OUT stored bytea, OUT recipient text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_message_rows' LANGUAGE C STABLE COST 10000 ROWS 10000;
COMMENT ON FUNCTION message_bus.message_rows IS
'message_rows: the messages of the channels that the current user may consume or audit, live or not; stored: the payload''s bytes as they are stored, NULL to who may not consume. Of channels with visibility subject only what is from the current user or for him, unless he has all_subjects. For the views messages and message_bus.';

CREATE FUNCTION message_bus.dead_letter_target(channel_id integer, OUT dead_letter text, OUT state text)
	AS 'MODULE_PATHNAME', 'mbus_dead_letter_target' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION message_bus.dead_letter_target IS
'dead_letter_target: the name of a channel''s dead-letter channel, and whether dead letters go there: ready, dropped or denied; NULL where there is none, or the current user does not see the channel. For the view channels.';

CREATE VIEW message_bus.channels AS
	SELECT c.name AS channel, message_bus.role_number(c.owner)::pg_catalog.regrole AS owner, c.ttl, c.max_attempts, c.lease, c.backoff, c.backoff_max,
		d.dead_letter, c.retention, c.max_payload, c.compression, c.created_at,
		message_bus.may(c.channel_id, 'publish') AS may_publish,
		message_bus.may(c.channel_id, 'consume') AS may_consume,
		message_bus.may(c.channel_id, 'audit') AS may_audit,
		c.dead_letter_expired, c.record_reads, message_bus.role_missing(c.owner) AS owner_missing,
		c.visibility, message_bus.may(c.channel_id, 'all_subjects') AS all_subjects,
		c.max_lease, d.state AS dead_letter_state
	FROM message_bus.channel_rows() c
	CROSS JOIN LATERAL message_bus.dead_letter_target(c.channel_id) AS d;
COMMENT ON VIEW message_bus.channels IS 'channels that the current user may use, and their policies; all to members of pg_monitor';
COMMENT ON COLUMN message_bus.channels.may_audit IS 'the views show its messages, without payloads; consumers may, too';
COMMENT ON COLUMN message_bus.channels.visibility IS 'channel: who may consume sees all messages; subject: only what is from him or for him, without all_subjects';
COMMENT ON COLUMN message_bus.channels.dead_letter_state IS 'ready: dead letters go to the dead-letter channel; dropped: that is not there any more, denied: the channel''s owner may not publish there, and what dies stays in place; NULL: there is none';
COMMENT ON COLUMN message_bus.channels.owner IS 'of one that is missing the OID that it had here, or -';
COMMENT ON COLUMN message_bus.channels.owner_missing IS 'name of an owner that is missing: it was dropped, or not there when the channel was restored; else NULL';

CREATE VIEW message_bus.grants WITH (security_barrier) AS
	SELECT c.name AS channel, message_bus.role_number(g.grantee)::pg_catalog.regrole AS grantee,
		g.may_publish, g.may_consume, g.may_audit, message_bus.role_missing(g.grantee) AS grantee_missing,
		g.all_subjects
	FROM message_bus.channel_grant g
	JOIN message_bus.channel c ON c.channel_id OPERATOR(pg_catalog.=) g.channel_id
	WHERE message_bus.may(c.channel_id, 'own');
COMMENT ON VIEW message_bus.grants IS 'who but its owner may use the channels that the current user owns';
COMMENT ON COLUMN message_bus.grants.grantee IS 'of one that is missing the OID that it had here, or -';
COMMENT ON COLUMN message_bus.grants.grantee_missing IS 'name of a role that is missing: it was dropped, or not there when the grant was restored; nobody has what it had. Else NULL';

CREATE VIEW message_bus.messages AS
	SELECT m.id, m.channel, m.created_at, m.expires_at, m.available_at, m.key,
		m.transaction_id, m.publisher, m.subject, m.session, m.headers, m.content_type,
		m.size, message_bus.compression_name(m.encoding) AS compression,
		m.stored_size, m.sha256, m.recipient
	FROM message_bus.message_rows() m
	WHERE m.live;
COMMENT ON VIEW message_bus.messages IS 'live messages of the channels that the current user may consume or audit, without payloads; of those with visibility subject without all_subjects only what is from him or for him';

CREATE FUNCTION message_bus.subscription_status(subscription_id integer,
	OUT lag_messages bigint, OUT lag_seconds double precision, OUT in_flight integer,
	OUT redelivered bigint, OUT oldest_unacked_id bigint,
	OUT oldest_unacked_at timestamp with time zone, OUT ready integer, OUT retrying bigint,
	OUT delivered bigint, OUT acked bigint, OUT nacked bigint, OUT expired bigint,
	OUT dead bigint, OUT cursor bigint, OUT lag_estimated boolean)
	AS 'MODULE_PATHNAME', 'mbus_subscription_status' LANGUAGE C STRICT COST 10000;
COMMENT ON FUNCTION message_bus.subscription_status IS
'subscription_status: where a subscription is, see the view subscriptions; NULL if it is not loaded or the current user may not consume, audit or monitor its channel, or not all its messages.';

CREATE FUNCTION message_bus.subscription_lag(channel text, subscription text,
	OUT lag_messages bigint, OUT lag_seconds double precision, OUT oldest_unacked_id bigint,
	OUT oldest_unacked_at timestamp with time zone, OUT retrying bigint)
	AS 'MODULE_PATHNAME', 'mbus_subscription_lag' LANGUAGE C STRICT COST 100000;
COMMENT ON FUNCTION message_bus.subscription_lag IS
'subscription_lag: how far a subscription is behind, exactly; the columns are those of the view subscriptions. It counts message by message, some 0.3 s for a million. NULL if there is no such subscription, it is not loaded, or the current user may not consume, audit or monitor its channel.';

CREATE FUNCTION message_bus.expired_status(subscription_id integer, budget bigint,
	OUT expired bigint, OUT expired_at_least boolean)
	AS 'MODULE_PATHNAME', 'mbus_expired_status' LANGUAGE C STRICT COST 1000;
COMMENT ON FUNCTION message_bus.expired_status IS
'expired_status: messages that expired before a subscription was done with them, see the view subscriptions; NULL if there is none or the current user may not consume, audit or monitor its channel. budget: how many rows of messages are read at most; what is told where more would have to be read is marked as a lower bound.';

CREATE FUNCTION message_bus.subscription_expired(channel text, subscription text,
	OUT expired bigint, OUT expired_at_least boolean)
	AS 'MODULE_PATHNAME', 'mbus_subscription_expired' LANGUAGE C STRICT COST 100000;
COMMENT ON FUNCTION message_bus.subscription_expired IS
'subscription_expired: messages that expired before a subscription was done with them, all that there are; the columns are those of the view subscriptions. expired_at_least: more have expired in segments that the worker dropped before it could count them. NULL if there is no such subscription or the current user may not consume, audit or monitor its channel.';

CREATE VIEW message_bus.subscriptions AS
	SELECT c.name AS channel, s.name AS subscription, message_bus.role_number(s.owner)::pg_catalog.regrole AS owner,
		s.ordered, s.paused, s.created_at,
		t.lag_messages, t.lag_seconds, t.in_flight, t.redelivered, t.oldest_unacked_id,
		t.oldest_unacked_at, t.ready, t.retrying, t.delivered, t.acked, t.nacked, t.expired AS leases_expired,
		t.dead, t.cursor, t.lag_estimated, e.expired, e.expired_at_least,
		message_bus.role_missing(s.owner) AS owner_missing
	FROM message_bus.subscription_rows() s
	JOIN message_bus.channel_rows() c ON c.channel_id OPERATOR(pg_catalog.=) s.channel_id
	CROSS JOIN LATERAL message_bus.subscription_status(s.subscription_id) AS t
	CROSS JOIN LATERAL message_bus.expired_status(s.subscription_id, 500) AS e;
COMMENT ON VIEW message_bus.subscriptions IS
'subscriptions of the channels that the current user may consume, audit or monitor, and how far each is behind. What is counted is NULL where the worker has not loaded a subscription yet, on a standby, and to who may not see all messages of the channel. A lag of more than some hundred messages is estimated; subscription_lag() counts it.';
COMMENT ON COLUMN message_bus.subscriptions.lag_messages IS 'live messages that it still has to get, has out, or that wait for a retry or for their delay';
COMMENT ON COLUMN message_bus.subscriptions.lag_seconds IS 'age of the oldest of these, since it was published; 0 if there is none';
COMMENT ON COLUMN message_bus.subscriptions.in_flight IS 'messages that are claimed now; see leases';
COMMENT ON COLUMN message_bus.subscriptions.redelivered IS 'deliveries of an attempt above the first since the server started';
COMMENT ON COLUMN message_bus.subscriptions.oldest_unacked_id IS 'lowest id of those that lag_messages counts';
COMMENT ON COLUMN message_bus.subscriptions.oldest_unacked_at IS 'when that was published';
COMMENT ON COLUMN message_bus.subscriptions.ready IS 'messages of claims that were rolled back or leases that are to be given out again; the next claim takes them';
COMMENT ON COLUMN message_bus.subscriptions.retrying IS 'messages that failed and are to be delivered again';
COMMENT ON COLUMN message_bus.subscriptions.delivered IS 'deliveries since the server started, also of claims that were rolled back';
COMMENT ON COLUMN message_bus.subscriptions.acked IS 'messages acknowledged since the server started';
COMMENT ON COLUMN message_bus.subscriptions.nacked IS 'messages given back since the server started';
COMMENT ON COLUMN message_bus.subscriptions.leases_expired IS 'messages whose lease passed its deadline since the server started';
COMMENT ON COLUMN message_bus.subscriptions.expired IS 'messages that expired before it was done with them, since it was made, also over restarts (a restore begins anew for segments that are gone); not what had expired before it was made or moved by seek, was deleted, or is claimed';
COMMENT ON COLUMN message_bus.subscriptions.expired_at_least IS 'expired is a lower bound: there is more to read than is read for the view (subscription_expired() reads all), or than the worker reads when it drops a segment';
COMMENT ON COLUMN message_bus.subscriptions.dead IS 'messages that used up their attempts since the server started';
COMMENT ON COLUMN message_bus.subscriptions.lag_estimated IS 'not all messages were looked at: lag_messages is an estimate, retrying at least so many, and the oldest that of those looked at';
COMMENT ON COLUMN message_bus.subscriptions.cursor IS 'id up to which it has read the channel';
COMMENT ON COLUMN message_bus.subscriptions.owner_missing IS 'as of channels';

CREATE FUNCTION message_bus.lease_rows(subscription_id integer,
	OUT lease bigint, OUT message_id bigint, OUT attempt integer,
	OUT claimed_at timestamp with time zone, OUT deadline timestamp with time zone,
	OUT state text, OUT pid integer, OUT role text, OUT session bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_lease_rows' LANGUAGE C STRICT COST 1000 ROWS 100;
COMMENT ON FUNCTION message_bus.lease_rows IS
'lease_rows: what a subscription has out, see the view leases; nothing if the current user may not consume, audit or monitor its channel.';

CREATE VIEW message_bus.leases AS
	SELECT l.lease, c.name AS channel, s.name AS subscription, l.message_id, l.attempt,
		l.claimed_at, l.deadline, l.state, l.pid, l.role, l.session
	FROM message_bus.subscription_rows() s
	JOIN message_bus.channel_rows() c ON c.channel_id OPERATOR(pg_catalog.=) s.channel_id
	CROSS JOIN LATERAL message_bus.lease_rows(s.subscription_id) AS l;
COMMENT ON VIEW message_bus.leases IS
'messages that are claimed now, of the channels that the current user may consume or audit, with all their messages, or monitor; a row for each message';
COMMENT ON COLUMN message_bus.leases.lease IS 'what ack, nack and extend take, of its holder, and release_lease of the channel''s owner; NULL to who only monitors';
COMMENT ON COLUMN message_bus.leases.deadline IS 'when the message goes back, unless it is acked or extended';
COMMENT ON COLUMN message_bus.leases.state IS 'held (the claim has not committed), leased, acking or nacking (by a transaction that has not ended)';
COMMENT ON COLUMN message_bus.leases.pid IS 'process that claimed; it may be gone';
COMMENT ON COLUMN message_bus.leases.role IS 'who claimed, whose the lease is';
COMMENT ON COLUMN message_bus.leases.session IS 'socket of the gateway that claimed, or NULL';

CREATE VIEW message_bus.dead_letters AS
	SELECT c.name AS channel, s.name AS subscription, d.message_id, d.attempts, d.reason, d.kind,
		d.died_at, d.dead_letter_id, d.dead_letter, d.claimed_at, d.role, d.key, d.size, d.content_type,
		d.not_moved
	FROM message_bus.death_rows() d
	JOIN message_bus.subscription_rows() s ON s.subscription_id OPERATOR(pg_catalog.=) d.subscription_id
	JOIN message_bus.channel_rows() c ON c.channel_id OPERATOR(pg_catalog.=) s.channel_id;
COMMENT ON VIEW message_bus.dead_letters IS
'messages that used up their attempts, or whose bytes do not match, of the channels that the current user may consume or audit; as long as they can be redriven';
COMMENT ON COLUMN message_bus.dead_letters.message_id IS 'the message that died; it may have expired';
COMMENT ON COLUMN message_bus.dead_letters.attempts IS 'how often it was delivered';
COMMENT ON COLUMN message_bus.dead_letters.reason IS 'of the last failure';
COMMENT ON COLUMN message_bus.dead_letters.kind IS 'how the last attempt failed: nacked, released, expired (with reason expired: the message would have, unclaimed), disconnected, crash or corrupt';
COMMENT ON COLUMN message_bus.dead_letters.dead_letter_id IS 'its copy in the dead-letter channel; NULL: it stays where it is';
COMMENT ON COLUMN message_bus.dead_letters.dead_letter IS 'the dead-letter channel of that copy';
COMMENT ON COLUMN message_bus.dead_letters.not_moved IS 'why it stays where it is although its channel had a dead-letter channel: dropped (that was not there any more), denied (the channel''s owner might not publish there)';
COMMENT ON COLUMN message_bus.dead_letters.claimed_at IS 'when the last attempt began';
COMMENT ON COLUMN message_bus.dead_letters.role IS 'who ended the last attempt';

CREATE VIEW message_bus.errors WITH (security_barrier) AS
	SELECT e.at, e.sqlstate, e.function, e.role, e.pid, e.session, e.message_id, e.message,
		e.transaction_id, e.channel, e.subject, e.detail
	FROM message_bus.error e;
COMMENT ON VIEW message_bus.errors IS 'failed calls and failed checks of the last seven days; for pg_monitor';
COMMENT ON COLUMN message_bus.errors.function IS 'what failed: a function, a method of JSON-RPC, relay (a frame of which no method could be read), verify (a stored message does not match its checksum), errors (how many failures of a role, a subject or a session were left out: of a second 100, 50 and 50 are here, and the first 10 of each subject whatever its role has)';
COMMENT ON COLUMN message_bus.errors.message_id IS 'the message that does not match its checksum';
COMMENT ON COLUMN message_bus.errors.transaction_id IS 'the transaction id of the message that the call was about; up to 255 bytes, as given';
COMMENT ON COLUMN message_bus.errors.channel IS 'the channel that the call was about, as given';
COMMENT ON COLUMN message_bus.errors.subject IS 'the subject that the caller''s claims name';
COMMENT ON COLUMN message_bus.errors.detail IS 'the error''s detail, up to 511 bytes; NULL where that might quote what a client has sent';

CREATE FUNCTION message_bus.counters(OUT metric text, OUT value bigint, OUT help text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_counters' LANGUAGE C;
COMMENT ON FUNCTION message_bus.counters IS 'counters: what the view metrics shows';

CREATE FUNCTION message_bus.expired_total(OUT expired bigint, OUT expired_at_least boolean)
	AS 'MODULE_PATHNAME', 'mbus_expired_total' LANGUAGE C;
COMMENT ON FUNCTION message_bus.expired_total IS
'expired_total: what subscriptions.expired tells, of all subscriptions of this database together; NULL where no worker has run. For the view metrics.';

CREATE VIEW message_bus.metrics AS
	SELECT metric, value, help FROM message_bus.counters()
	UNION ALL
	SELECT 'messages_expired_total', expired,
		'Messages that expired before a subscription was done with them, once for each, also before the start; at least so many.'
	FROM message_bus.expired_total() WHERE expired IS NOT NULL;
COMMENT ON VIEW message_bus.metrics IS 'counters of this database since the server''s start, but for messages_expired_total, which goes on over restarts; for pg_monitor';

CREATE FUNCTION message_bus.pool_rows(OUT pool text, OUT database oid, OUT channel_id integer,
	OUT subscription_id integer, OUT role oid, OUT subject text, OUT session bigint,
	OUT held integer, OUT may_hold integer) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_pool_rows' LANGUAGE C;
COMMENT ON FUNCTION message_bus.pool_rows IS 'pool_rows: what the view pools shows';

CREATE VIEW message_bus.pools AS
	SELECT p.pool, d.datname AS database, c.name AS channel, s.name AS subscription, p.held, p.may_hold,
		p.role::pg_catalog.regrole AS role, p.subject, p.session
	FROM message_bus.pool_rows() p
	LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) p.database
	LEFT JOIN message_bus.subscription s ON s.subscription_id OPERATOR(pg_catalog.=) p.subscription_id
	LEFT JOIN message_bus.channel c ON c.channel_id OPERATOR(pg_catalog.=) p.channel_id;
COMMENT ON VIEW message_bus.pools IS
'who holds the shared memory of the server: all together, each database, and the subscriptions, channels, roles and sessions of this one that hold something; for pg_monitor';
COMMENT ON COLUMN message_bus.pools.pool IS 'messages: that are claimed or wait to be claimed again (message_bus.max_leases); subscriptions: that are loaded (message_bus.max_subscriptions); skipped ranges: of publishes that have not ended; a subscription that holds all it may waits in front of the next';
COMMENT ON COLUMN message_bus.pools.database IS 'NULL: all databases';
COMMENT ON COLUMN message_bus.pools.channel IS 'NULL: whatever the channel';
COMMENT ON COLUMN message_bus.pools.subscription IS 'NULL: all of the channel, or of the database';
COMMENT ON COLUMN message_bus.pools.role IS 'that has claimed what it holds; NULL: whoever it was';
COMMENT ON COLUMN message_bus.pools.subject IS 'of its token, in SQL of request.jwt.claims, the first 16 digits of its SHA-256; NULL: none';
COMMENT ON COLUMN message_bus.pools.session IS 'of a gateway; NULL: all of the role and subject';
COMMENT ON COLUMN message_bus.pools.held IS 'how many it has';
COMMENT ON COLUMN message_bus.pools.may_hold IS 'how many it may have, as long as the others have what they have';

/*
 * The table-shaped face: what a client sees that takes message_bus for a
 * table of its own.
 */

CREATE FUNCTION message_bus.delivery_status(message_id bigint, channel_id integer,
	created_at timestamp with time zone) RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_delivery_status' LANGUAGE C STRICT STABLE COST 200;
COMMENT ON FUNCTION message_bus.delivery_status IS
'delivery_status: error if a message is dead for a subscription of its channel, pending if one has not acked it, else complete; NULL if the current user may not consume or audit the channel. For the view message_bus.';

CREATE FUNCTION message_bus.last_access(message_id bigint, channel_id integer) RETURNS timestamp with time zone
	AS 'MODULE_PATHNAME', 'mbus_last_access' LANGUAGE C STRICT STABLE COST 200;
COMMENT ON FUNCTION message_bus.last_access IS
'last_access: when a message was last acked or recorded to have been read; NULL if it never was, or if the current user may not consume or audit its channel. For the view message_bus.';

CREATE VIEW message_bus.message_bus AS
	SELECT m.id, m.channel, m.transaction_id,
		m.headers OPERATOR(pg_catalog.->>) 'session_id' AS session_id,
		m.headers OPERATOR(pg_catalog.->>) 'tool_name' AS tool_name,
		m.headers OPERATOR(pg_catalog.->>) 'provider_name' AS provider_name,
		CASE WHEN m.live THEN
			message_bus.stored_json(m.stored, message_bus.compression_name(m.encoding), m.size,
				m.content_type, m.sha256)
		END AS payload,
		NULL::text AS payload_text,
		m.size AS payload_size_bytes,
		message_bus.compression_name(m.encoding) AS compression_type,
		m.stored_size AS compressed_size_bytes,
		pg_catalog.encode(m.sha256, 'hex') AS checksum,
		CASE WHEN NOT m.live THEN 'expired'
			WHEN m.headers OPERATOR(pg_catalog.->>) 'status' OPERATOR(pg_catalog.=) 'error' THEN 'error'
			ELSE message_bus.delivery_status(m.id, m.channel_id, m.created_at)
		END AS status,
		m.headers OPERATOR(pg_catalog.->>) 'error_message' AS error_message,
		m.created_at,
		message_bus.last_access(m.id, m.channel_id) AS accessed_at,
		m.expires_at,
		COALESCE(m.headers OPERATOR(pg_catalog.->) 'metadata', '{}') AS metadata
	FROM message_bus.message_rows() m;
COMMENT ON VIEW message_bus.message_bus IS
'message_bus: messages as a plain table. INSERT publishes to channel (or message_bus.default_channel), UPDATE may touch accessed_at, DELETE hides the message. checksum is the SHA-256 in hex; on INSERT it is checked over payload_text (the exact text, write-only) if given, else over the JSON text as received.';
COMMENT ON COLUMN message_bus.message_bus.payload IS 'read only where it is selected; NULL where it is not JSON, does not match its checksum or has expired, and to who may audit the channel but not consume it';
COMMENT ON COLUMN message_bus.message_bus.status IS 'expired; error (inserted so, or dead for a subscription); pending (a subscription has not acked it yet); else complete';
COMMENT ON COLUMN message_bus.message_bus.accessed_at IS 'the latest of its acks and of the accesses recorded';

CREATE FUNCTION message_bus.table_insert() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, message_bus, pg_temp AS $$
DECLARE
	body text := COALESCE(NEW.payload_text, NEW.payload::text);
	stored_id bigint;
	stored message_bus.message_bus;
BEGIN
	IF body IS NULL THEN
		RAISE EXCEPTION USING errcode = 'null_value_not_allowed',
			message = 'payload must not be null';
	END IF;
	IF NEW.expires_at <= message_bus.clock() THEN
		RAISE EXCEPTION USING errcode = 'invalid_parameter_value',
			message = format('expires_at %s is not in the future', NEW.expires_at);
	END IF;
	IF NEW.status NOT IN ('pending', 'complete', 'error') THEN
		RAISE EXCEPTION USING errcode = 'invalid_parameter_value',
			message = format('cannot insert a message with status "%s"', NEW.status),
			detail = 'It is pending, complete or error.';
	END IF;

	stored_id := message_bus.publish_text(
		COALESCE(NEW.channel, current_setting('message_bus.default_channel')), body,
		headers => jsonb_strip_nulls(jsonb_build_object('session_id', NEW.session_id,
			'tool_name', NEW.tool_name, 'provider_name', NEW.provider_name,
			'status', CASE WHEN NEW.status = 'error' THEN 'error' END,
			'error_message', NEW.error_message))
			|| CASE WHEN NEW.metadata IS NULL THEN '{}' ELSE jsonb_build_object('metadata', NEW.metadata) END,
		transaction_id => NEW.transaction_id,
		ttl => NEW.expires_at - message_bus.clock(),
		sha256 => convert_to(NEW.checksum, 'UTF8'));

	-- one who may only publish does not see the row
	SELECT * INTO stored FROM message_bus.message_bus m WHERE m.id = stored_id;
	IF FOUND THEN
		RETURN stored;
	END IF;
	NEW.id := stored_id;
	RETURN NEW;
END
$$;

CREATE FUNCTION message_bus.table_update() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, message_bus, pg_temp AS $$
BEGIN
	IF ROW(NEW.id, NEW.channel, NEW.transaction_id, NEW.session_id, NEW.tool_name, NEW.provider_name,
			NEW.payload::text, NEW.payload_text, NEW.payload_size_bytes, NEW.compression_type,
			NEW.compressed_size_bytes, NEW.checksum, NEW.status, NEW.error_message, NEW.created_at,
			NEW.expires_at, NEW.metadata)
		IS DISTINCT FROM ROW(OLD.id, OLD.channel, OLD.transaction_id, OLD.session_id, OLD.tool_name, OLD.provider_name,
			OLD.payload::text, OLD.payload_text, OLD.payload_size_bytes, OLD.compression_type,
			OLD.compressed_size_bytes, OLD.checksum, OLD.status, OLD.error_message, OLD.created_at,
			OLD.expires_at, OLD.metadata) THEN
		RAISE EXCEPTION USING errcode = 'feature_not_supported',
			message = 'messages cannot be changed',
			detail = 'Only accessed_at may be updated.';
	END IF;
	IF NEW.accessed_at IS NULL AND OLD.accessed_at IS NOT NULL THEN
		RAISE EXCEPTION USING errcode = 'null_value_not_allowed',
			message = 'accessed_at must not be set to null';
	END IF;
	IF NEW.accessed_at IS DISTINCT FROM OLD.accessed_at THEN
		IF NOT message_bus.record_event(OLD.id, 'accessed', NEW.accessed_at) THEN
			RETURN NULL;
		END IF;
		NEW.accessed_at := GREATEST(OLD.accessed_at, NEW.accessed_at);
	END IF;
	RETURN NEW;
END
$$;

CREATE FUNCTION message_bus.table_delete() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, message_bus, pg_temp AS $$
BEGIN
	IF NOT message_bus.record_event(OLD.id, 'deleted', message_bus.clock()) THEN
		RETURN NULL;
	END IF;
	RETURN OLD;
END
$$;

CREATE TRIGGER table_insert INSTEAD OF INSERT ON message_bus.message_bus
	FOR EACH ROW EXECUTE FUNCTION message_bus.table_insert();
CREATE TRIGGER table_update INSTEAD OF UPDATE ON message_bus.message_bus
	FOR EACH ROW EXECUTE FUNCTION message_bus.table_update();
CREATE TRIGGER table_delete INSTEAD OF DELETE ON message_bus.message_bus
	FOR EACH ROW EXECUTE FUNCTION message_bus.table_delete();

/*
 * Ids tell their node.
 */

CREATE FUNCTION message_bus.id_node(id bigint) RETURNS integer
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN CASE WHEN id_node.id OPERATOR(pg_catalog.>) 0
			AND id_node.id OPERATOR(pg_catalog.<) 9007199254740992
		THEN ((id_node.id OPERATOR(pg_catalog.>>) 24) OPERATOR(pg_catalog.&) 31)::integer END;
COMMENT ON FUNCTION message_bus.id_node(bigint) IS
'id_node: the node, 0 to 31, that gave out a message''s id: message_bus.node of that server. NULL for what is no id (not above 0, or not below 2^53). Errors: none.';

CREATE FUNCTION message_bus.lease_node(lease bigint) RETURNS integer
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN CASE WHEN lease_node.lease OPERATOR(pg_catalog.>) 0
			AND lease_node.lease OPERATOR(pg_catalog.<) 9007199254740992
		THEN ((lease_node.lease OPERATOR(pg_catalog.>>) 28) OPERATOR(pg_catalog.&) 31)::integer END;
COMMENT ON FUNCTION message_bus.lease_node(bigint) IS
'lease_node: the node, 0 to 31, that gave out a lease. NULL for what is no lease (not above 0, or not below 2^53). Errors: none.';

/*
 * Segments and the worker.
 */

CREATE FUNCTION message_bus.audit_checkpoint() RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_audit_checkpoint' LANGUAGE C STRICT;
COMMENT ON FUNCTION message_bus.audit_checkpoint IS
'audit_checkpoint: the newest checkpoint of the log, a signed note of C2SP with the line of the log and those of its witnesses; NULL before the first. It is on disk, and on synchronous standbys.';

CREATE FUNCTION message_bus.audit_key() RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_audit_key' LANGUAGE C STRICT;
COMMENT ON FUNCTION message_bus.audit_key IS
'audit_key: the key that the log signs its checkpoints with, as a verifier key of signed notes; NULL while there is no log.';

CREATE FUNCTION message_bus.audit_entry(id bigint, kind text DEFAULT 'message') RETURNS bytea
	AS 'MODULE_PATHNAME', 'mbus_audit_entry' LANGUAGE C;
COMMENT ON FUNCTION message_bus.audit_entry IS
'audit_entry: the exact bytes of the entry that the log has, or will have, of a message, by its id, or of an ack, failure, redrive, access or delete, by the number of the fact. It is made anew, and compared with the log if that has it. NULL where there is none that one may see: a message is for whom get() gives it to; a fact for whom may audit the channel of its message, or may consume it while get() gives him that message; for pg_monitor all of it, as long as the segment is there, and log, drop-segment and gap, of which NULL is the newest. Errors: 42501, 22023; XX001 if what is stored is not what was logged.';

CREATE FUNCTION message_bus.audit_proof(id bigint, kind text DEFAULT 'message') RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_audit_proof' LANGUAGE C;
COMMENT ON FUNCTION message_bus.audit_proof IS
'audit_proof: the proof that an entry is in the log, a tlog-proof of C2SP, of the newest checkpoint that a witness has cosigned if it covers the entry, else of the newest; "extra" has the entry, an empty line, and for each of its commitments a line "name salt value" that opens it, but for pg_monitor who could not read these values otherwise. Arguments and who may as for audit_entry. Errors: 42501, 22023; 55000 if no checkpoint covers it yet; XX001 if what is stored is not what was logged.';

CREATE FUNCTION message_bus.audit_consistency(old_size bigint, new_size bigint) RETURNS SETOF bytea
	AS 'MODULE_PATHNAME', 'mbus_audit_consistency' LANGUAGE C;
COMMENT ON FUNCTION message_bus.audit_consistency IS
'audit_consistency: the hashes that prove that the log of the first size is the beginning of that of the second (RFC 6962, 2.1.2); none if they are equal or the first is 0. Errors: 22023 if the second is above the newest checkpoint.';

CREATE FUNCTION message_bus.set_witnesses(vkeys text[]) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_set_witnesses' LANGUAGE C;
COMMENT ON FUNCTION message_bus.set_witnesses(text[]) IS
'set_witnesses: replaces the witnesses of the log, who cosign its checkpoints; for administrators. vkeys: verifier keys of C2SP''s tlog-cosignature, "name+id+key" with a key of algorithm 0x04, at most 15, each of another name; {} is none. Lines of who is no witness any more are kept and not shown. Errors: 22023 a key that cannot be used, 22004 NULL, 25006 read-only.';

CREATE FUNCTION message_bus.audit_cosign(size bigint, signature text) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_audit_cosign' LANGUAGE C;
COMMENT ON FUNCTION message_bus.audit_cosign(bigint, text) IS
'audit_cosign: keeps a witness'' signature of the checkpoint of that size: a line of C2SP''s tlog-cosignature, with or without its end, in place of an older one of the same witness; for pg_monitor. Errors: 22023 if it is not that of a witness (see set_witnesses) to a checkpoint of that size, 22004 NULL, 25006 read-only.';

CREATE FUNCTION message_bus.audit_verify(from_index bigint DEFAULT 0, to_index bigint DEFAULT NULL)
RETURNS TABLE (entry_index bigint, kind text, id bigint, segment_no integer, fault text)
	AS 'MODULE_PATHNAME', 'mbus_audit_verify' LANGUAGE C PARALLEL UNSAFE;
COMMENT ON FUNCTION message_bus.audit_verify(bigint, bigint) IS
'audit_verify: compares what is stored with the log and returns a row for each fault; none: all is well. For pg_monitor; can be cancelled; the view audit_progress shows how far it is. from_index, to_index: of the entries from the first on, up to but without the second (NULL: all); rows that are in no entry are looked for only if that is the whole log.
entry_index: the entry, NULL where it is about none. kind, id: message, event, ack, failure or action, as the tables, and the number of the row; tile, checkpoint, cosignature and what is its number. segment_no: whose row it is.
fault: payload (stored bytes and their SHA-256 differ, or cannot be read), changed (a row is not what was logged), removed (logged and not there), added (there, and not logged although all around it is), unreadable (a row, or NULL any row, of a table), segment (gone, and the log does not say so), tile (hashes do not have the hash above them, or are missing; rows are not compared with them), run (entries of which nothing says whose they are, or twice), checkpoint (root or signature are not those of the log). Errors: 22023 numbers that are no range.';

CREATE FUNCTION message_bus.verifying(OUT pid integer, OUT from_index bigint, OUT to_index bigint,
	OUT at_index bigint, OUT faults bigint, OUT started_at timestamp with time zone)
RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_verifying' LANGUAGE C PARALLEL RESTRICTED;
COMMENT ON FUNCTION message_bus.verifying() IS 'verifying: what the view audit_progress shows';

CREATE VIEW message_bus.audit_progress AS
	SELECT pid, from_index, to_index, at_index, faults, started_at FROM message_bus.verifying();
COMMENT ON VIEW message_bus.audit_progress IS
'who runs audit_verify() in this database: process, the entries from from_index on up to to_index, at_index of which it is at, the faults it has found so far, and since when; of 8 calls in the server at most; for pg_monitor';


CREATE FUNCTION message_bus.expire() RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mbus_expire';
COMMENT ON FUNCTION message_bus.expire() IS
'Drops now, instead of at the worker''s next pass, every segment whose messages have all expired. Returns the number of segments dropped. Expired messages are never returned, dropped or not. Of segments that take messages and were opened less than message_bus.segment_interval ago it takes 100, and then one more in each such time: segment numbers are not used twice. A WARNING tells how many had to wait because open transactions publish to them or read the tables. Errors: 55000 if the worker does not answer within 60 seconds, 25006 on a standby.';

CREATE FUNCTION message_bus.open_segments(
	OUT segment_no integer, OUT series integer,
	OUT opened_at timestamp with time zone, OUT rows_reserved integer,
	OUT rows_max integer, OUT payload_bytes bigint,
	OUT expires_at timestamp with time zone)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mbus_open_segments';
COMMENT ON FUNCTION message_bus.open_segments() IS
'The segments that take messages now, as the server''s memory has them; see the view message_bus.segments.';

CREATE FUNCTION message_bus.fact_numbers(since bigint DEFAULT 0, OUT next bigint,
	OUT unfinished bigint[], OUT touched integer[])
RETURNS record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mbus_fact_numbers';
COMMENT ON FUNCTION message_bus.fact_numbers(bigint) IS
'fact_numbers: what the server''s memory knows of the numbers (column no) of acks, failures and events; for administrators. next: the lowest that was not given out. unfinished: ranges below it of transactions that have not ended, lo and behind the last in turn; to be read before the snapshot under which rows are looked for. touched: segments that such rows were written to since the number "since" (NULL: any may be). Errors: 55000 not ready.';

CREATE FUNCTION message_bus.worker_status_row(
	OUT pid integer, OUT started_at timestamp with time zone,
	OUT last_pass_at timestamp with time zone, OUT last_pass_ms double precision,
	OUT ready boolean, OUT passes bigint, OUT errors bigint,
	OUT last_error text, OUT last_error_at timestamp with time zone,
	OUT segments_opened bigint, OUT segments_retired bigint,
	OUT unfinished_publishes integer, OUT channels_followed integer,
	OUT interval_ms integer, OUT node integer, OUT segments_used double precision,
	OUT epochs_used double precision, OUT warning text,
	OUT disk_full_since timestamp with time zone)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mbus_worker_status_row';
COMMENT ON FUNCTION message_bus.worker_status_row() IS
'What the background worker of this database tells of itself; see the view message_bus.worker_status.';

CREATE FUNCTION message_bus.tables_size(tables oid[]) RETURNS bigint
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
	SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_total_relation_size(t.relid::pg_catalog.regclass)), 0)::bigint
	FROM pg_catalog.unnest(tables_size.tables) AS t (relid)
$$;
COMMENT ON FUNCTION message_bus.tables_size IS
'tables_size: size on disk of tables, with their indexes. For the view segments: it is asked only where a query looks at the size.';

CREATE VIEW message_bus.segments AS
SELECT s.segment_no, s.series,
	CASE
		WHEN o.segment_no IS NOT NULL THEN 'open'
		WHEN s.closed_at IS NULL AND r.standby THEN 'open'
		WHEN EXISTS (
			SELECT FROM pg_catalog.pg_class c
			WHERE c.oid OPERATOR(pg_catalog.=) ANY (t.relids) AND NOT c.relispartition
			AND NOT EXISTS (SELECT FROM message_bus.unattached u
				WHERE u.segment_no OPERATOR(pg_catalog.=) s.segment_no)
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
				WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
				AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.objsubid OPERATOR(pg_catalog.=) 0
				AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass)) THEN 'foreign'
		WHEN s.detached OR EXISTS (
			SELECT FROM pg_catalog.pg_class c
			LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) c.oid
			WHERE c.oid OPERATOR(pg_catalog.=) ANY (t.relids)
			AND COALESCE(i.inhdetachpending, true)
			AND NOT EXISTS (SELECT FROM message_bus.unattached u
				WHERE u.segment_no OPERATOR(pg_catalog.=) s.segment_no)) THEN 'detaching'
		ELSE 'closed'
	END AS state,
	s.opened_at, s.closed_at,
	COALESCE(s.expires_at, o.expires_at) AS expires_at,
	o.rows_reserved, o.rows_max,
	message_bus.tables_size(t.relids) AS size_bytes
FROM message_bus.segment AS s
LEFT JOIN message_bus.open_segments() AS o ON o.segment_no OPERATOR(pg_catalog.=) s.segment_no
CROSS JOIN LATERAL (
	SELECT pg_catalog.array_remove(ARRAY[
		pg_catalog.to_regclass('message_bus.message_' OPERATOR(pg_catalog.||) s.segment_no)::pg_catalog.oid,
		pg_catalog.to_regclass('message_bus.event_' OPERATOR(pg_catalog.||) s.segment_no)::pg_catalog.oid,
		pg_catalog.to_regclass('message_bus.ack_' OPERATOR(pg_catalog.||) s.segment_no)::pg_catalog.oid,
		pg_catalog.to_regclass('message_bus.failure_' OPERATOR(pg_catalog.||) s.segment_no)::pg_catalog.oid], NULL)
) AS t (relids)
-- volatile: among the columns it would have all of them made for each row
CROSS JOIN (SELECT pg_catalog.pg_is_in_recovery()) AS r (standby);
COMMENT ON VIEW message_bus.segments IS
'The physical parts that messages lie in; one is dropped whole when all its messages have expired';
COMMENT ON COLUMN message_bus.segments.segment_no IS 'number; the messages'' ids are segment_no << 24 and up; segment_no is ordinal << 5 | node';
COMMENT ON COLUMN message_bus.segments.series IS 'series of segments: channels with about the same TTL share one';
COMMENT ON COLUMN message_bus.segments.state IS 'open (takes messages), closed, detaching (expired, waits for readers to be dropped), or foreign (restored without the channels that its messages are of: nobody can read them)';
COMMENT ON COLUMN message_bus.segments.expires_at IS 'when the last of its messages expires';
COMMENT ON COLUMN message_bus.segments.rows_reserved IS 'ids given out so far, if open; NULL on a standby';
COMMENT ON COLUMN message_bus.segments.rows_max IS 'ids it has, if open; NULL on a standby';
COMMENT ON COLUMN message_bus.segments.size_bytes IS 'size on disk of its tables, with indexes';

CREATE FUNCTION message_bus.listed_databases() RETURNS text[]
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mbus_databases_listed';
COMMENT ON FUNCTION message_bus.listed_databases() IS
'listed_databases: the names in the setting message_bus.databases; see the view message_bus.worker_status.';

CREATE VIEW message_bus.worker_status AS
SELECT pid, started_at, last_pass_at, last_pass_ms, interval_ms, ready, passes, errors,
	last_error, last_error_at, segments_opened, segments_retired, unfinished_publishes,
	channels_followed, node, segments_used, epochs_used, warning,
	message_bus.clock_off() AS clock_off,
	ARRAY(SELECT n FROM pg_catalog.unnest(message_bus.listed_databases()) AS n
		WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_database d
			WHERE d.datname OPERATOR(pg_catalog.=) n)
		ORDER BY n) AS unknown_databases,
	disk_full_since
FROM message_bus.worker_status_row();
COMMENT ON VIEW message_bus.worker_status IS
'The background worker of this database; no row where none has run since the server started';
COMMENT ON COLUMN message_bus.worker_status.pid IS 'process, NULL if none runs now';
COMMENT ON COLUMN message_bus.worker_status.last_pass_ms IS 'how long its last pass took';
COMMENT ON COLUMN message_bus.worker_status.interval_ms IS 'longest pause between passes: message_bus.worker_interval';
COMMENT ON COLUMN message_bus.worker_status.ready IS 'segments are numbered, publishing is possible';
COMMENT ON COLUMN message_bus.worker_status.clock_off IS 'by how much the server''s clock has jumped and is not believed, NULL: it has not; see clock_accept()';
COMMENT ON COLUMN message_bus.worker_status.passes IS 'passes since the server started';
COMMENT ON COLUMN message_bus.worker_status.errors IS 'tasks that failed since the server started; each is in the server''s log';
COMMENT ON COLUMN message_bus.worker_status.unfinished_publishes IS 'ranges of ids of transactions that have not ended';
COMMENT ON COLUMN message_bus.worker_status.unknown_databases IS 'names in message_bus.databases that are no databases';
COMMENT ON COLUMN message_bus.worker_status.channels_followed IS 'channels whose newest id the server''s memory knows: those published to lately';
COMMENT ON COLUMN message_bus.worker_status.node IS 'the server''s: message_bus.node';
COMMENT ON COLUMN message_bus.worker_status.segments_used IS 'percent of the segment numbers that are used up';
COMMENT ON COLUMN message_bus.worker_status.epochs_used IS 'percent of the epochs of leases that are used up';
COMMENT ON COLUMN message_bus.worker_status.disk_full_since IS 'since when there has been no room for message_bus.disk_reserve, so that nothing is published; NULL: there is';
COMMENT ON COLUMN message_bus.worker_status.warning IS 'the server is another node than the database, or numbers are used up to 80 percent; NULL if all is well';

/*
 * The gateway's entry, and who its clients are.
 */

CREATE FUNCTION message_bus.set_jwt_keys(jwks json) RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mbus_set_jwt_keys';
COMMENT ON FUNCTION message_bus.set_jwt_keys(json) IS
'set_jwt_keys: replaces the keys that clients'' tokens are verified with and returns how many there are; for administrators.
jwks: a JWK Set (RFC 7517), {"keys": [...]}, at most 64 keys and 16 of an algorithm. Kinds: oct (HS256, a secret of 32 to 1024 bytes), RSA (RS256, 2048 to 8192 bits), EC with P-256 (ES256), OKP with Ed25519 (EdDSA), public keys without their private part. A key is used for that algorithm only. A token that names a kid needs the key of that kid; one that names none, any key of its algorithm. Keys with "use" other than sig are passed over.
A session whose token was signed by a key that is not in the set ends at once; others stay open until their token expires. {"keys": []} removes all keys: no token is valid then.
Errors: 22023 a key that cannot be used (its number in the detail), 22004 NULL, 25006 read-only.';

CREATE FUNCTION message_bus.end_sessions(subject text DEFAULT NULL, role text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mbus_end_sessions';
COMMENT ON FUNCTION message_bus.end_sessions(text, text) IS
'end_sessions: ends the sessions of a subject, of a role, or of a subject with a role, on every connection, and what their tokens would open: tokens that were issued (iat) until now, or do not say when, are refused from now on; for administrators.
Frames of such a session are refused with 28000 until its client brings a newer token; a claim that waits gets nothing any more, and is refused within a second. A session without a token is ended if it was opened, on whatever connection, until now. What it has claimed it keeps until its socket closes or the lease ends.
How many there were is not known: sessions are in the memory of backends. What has been ended is kept in message_bus.session_end until an end that says as much for more subjects or roles takes its place, or message_bus.token_max_age is over.
Errors: 22004 both are NULL, 42704 no such role, 25006 read-only.';

CREATE FUNCTION message_bus.open_session(session bigint, token text DEFAULT NULL, options json DEFAULT NULL)
RETURNS json
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mbus_open_session';
COMMENT ON FUNCTION message_bus.open_session(bigint, text, json) IS
'open_session: verifies a token (RFC 7519) and lets frames of this session run, in this database connection, as the role it names; for a gateway''s login.
session: the gateway''s number of the socket, above 0 and below 2^53; one that is open is opened anew. token: NULL or empty for the anonymous role. options: {"issuer": text (several separated by commas), "audience": text, "anonymous": role without a role claim, "skew": seconds up to 300}, each in place of the setting message_bus.token_issuer, token_audience, anonymous_role, token_skew.
The login must be a member of the role, which is no superuser; it bypasses row security only if the token names it.
Returns {"session", "role", "sub", "expires_at": RFC 3339 or null, "expires_ms": since 1970, or null}.
Errors: 28000 the token is not valid (why, in the detail), or there is no anonymous role; 22023 bad session or option, 22004 NULL session.';

CREATE FUNCTION message_bus.close_session(session bigint) RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mbus_close_session';
COMMENT ON FUNCTION message_bus.close_session(bigint) IS
'close_session: forgets a session in this database connection and gives back the leases taken under it by any connection, but for those that were claimed with keep; returns how many messages. Each was an attempt, which has failed (disconnected), and comes again after the channel''s backoff. What an open transaction has claimed or is acknowledging is left to it. For a gateway''s login.
Errors: 22023 bad session, 22004 NULL.';

CREATE FUNCTION message_bus.relay(sessions bigint[], frames bytea[])
RETURNS TABLE (session bigint, frame bytea, request integer, code integer, sqlstate text, leases bigint[])
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 60
SET search_path = pg_catalog, message_bus, pg_temp
AS 'MODULE_PATHNAME', 'mbus_relay';
COMMENT ON FUNCTION message_bus.relay(bigint[], bytea[]) IS
'runs WebSocket frames of JSON-RPC 2.0 and returns the frames to send back.
sessions: the gateway''s number of each frame''s socket. frames: as many, at most 60, in order of arrival; the first byte of a frame, in and out, is its RFC 6455 opcode, 1 text or 2 binary; with 16 added in, four bytes follow it, the largest reply that the client wants (else message_bus.client_frame_max). A frame has at most one reply, behind it a notification "error" for each notification of a batch that failed.
A claim waits only if its frame is the only one of the call (but for frames of opcode 0) and its request the only one of the frame, and for no longer than message_bus.frame_timeout leaves it time to answer.
Each frame runs as the role of its session in a subtransaction of its own; its error is its reply and does not end the call. If message_bus.relay_role is set, all frames run as that role and there are no sessions.
request: which frame of the call (from 1) a row is for. code: 0, or the JSON-RPC code of its first error, with its sqlstate; NULL where a row is the gateway''s own. leases: of the claims that a reply tells.
Control frames are made by the gateway, their first byte is 0. In: 0 O token opens the session (as open_session with the settings as options), 0 C closes it, with the WebSocket''s close code and the leases that were not written, 0 L tells of a frame that was over the gateway''s limit. Out: 0 {"open": ...} as open_session returns it, with the token if the method authenticate opened the session; or 0 {"refused": {"message", "detail", "sqlstate"}}. A refused session is closed.
Errors: 22023 arrays differ in length, 22004 NULL, 54000 more than 60 frames, 57014 the whole call was canceled.';

CREATE FUNCTION message_bus.gateway_fault(role name, authenticates boolean) RETURNS text
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE
		WHEN login.oid IS NULL THEN
			'the login role was not found'
		WHEN login.rolsuper OR login.rolbypassrls THEN
			'the login role is a superuser or has BYPASSRLS, which the gateway refuses'
		WHEN NOT pg_catalog.has_function_privilege(login.oid, 'message_bus.relay(bigint[], bytea[])', 'EXECUTE') THEN
			'the login role may not execute message_bus.relay()'
		WHEN gateway_fault.authenticates AND NOT (
			pg_catalog.has_function_privilege(login.oid, 'message_bus.open_session(bigint, text, json)', 'EXECUTE') AND
			pg_catalog.has_function_privilege(login.oid, 'message_bus.close_session(bigint)', 'EXECUTE')) THEN
			'the login role may not execute message_bus.open_session() and close_session(), which authentication needs'
		WHEN run.oid IS NULL THEN
			pg_catalog.format('the role named by %s does not exist', setting.name)
		WHEN run.rolsuper OR run.rolbypassrls THEN
			pg_catalog.format('the role named by %s is a superuser or has BYPASSRLS', setting.name)
		WHEN NOT pg_catalog.pg_has_role(login.oid, run.oid, 'MEMBER') THEN
			pg_catalog.format('the login role is not a member of the role named by %s', setting.name)
	END
	FROM (SELECT CASE WHEN gateway_fault.authenticates THEN 'MESSAGE_BUS_ANON_ROLE' ELSE 'MESSAGE_BUS_ROLE' END)
		AS setting (name)
	LEFT JOIN pg_catalog.pg_roles login ON login.rolname OPERATOR(pg_catalog.=) SESSION_USER
	LEFT JOIN pg_catalog.pg_roles run ON run.rolname OPERATOR(pg_catalog.=) gateway_fault.role
$$;
COMMENT ON FUNCTION message_bus.gateway_fault(name, boolean) IS
'gateway_fault: what keeps a gateway that logs in as the session''s user from working; NULL if nothing does.
role: the role that frames without a token run as. authenticates: whether clients authenticate; the role is then that of MESSAGE_BUS_ANON_ROLE, otherwise that of MESSAGE_BUS_ROLE.
The login must be no superuser and have no BYPASSRLS, may execute relay, and open_session and close_session where clients authenticate, and is a member of the role, which exists and is no superuser and has no BYPASSRLS.
Runs with the caller''s rights, and tells of the role only to a login that may execute relay.';

CREATE FUNCTION message_bus.bus_fault() RETURNS text
LANGUAGE c VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mbus_bus_fault';
COMMENT ON FUNCTION message_bus.bus_fault() IS
'bus_fault: why nothing can be published in this database; NULL if nothing is known that stands against it: the server is a standby or read-only, the database is not in message_bus.databases or of another node, no worker has run for ten seconds or it is not ready, the disk is full. A gateway asks it once a second.
Tells it to who may execute relay, and to members of pg_monitor; to others NULL.';

/*
 * Rights: nobody has any but by name here.  Default privileges (Supabase has
 * some for anon and authenticated) may have given rights while this script
 * ran; they are taken back.
 */

DO $$
DECLARE
	item record;
BEGIN
	FOR item IN
		SELECT pg_catalog.format('REVOKE ALL ON %s %s FROM %s',
				CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::pg_catalog.regclass,
				CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END) AS command
			FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
			WHERE c.relnamespace OPERATOR(pg_catalog.=) 'message_bus'::pg_catalog.regnamespace
				AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'v', 'S']::pg_catalog."char"[]) AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
		UNION ALL
		SELECT pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM %s', p.oid::pg_catalog.regprocedure,
				CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END)
			FROM pg_catalog.pg_proc p,
				pg_catalog.aclexplode(COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
			WHERE p.pronamespace OPERATOR(pg_catalog.=) 'message_bus'::pg_catalog.regnamespace
				AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
		UNION ALL
		SELECT pg_catalog.format('REVOKE ALL ON SCHEMA message_bus FROM %s',
				CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END)
			FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
			WHERE n.oid OPERATOR(pg_catalog.=) 'message_bus'::pg_catalog.regnamespace
				AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner
		UNION ALL
		SELECT pg_catalog.format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', c.oid::pg_catalog.regclass)
			FROM pg_catalog.pg_class c
			WHERE c.relnamespace OPERATOR(pg_catalog.=) 'message_bus'::pg_catalog.regnamespace
				AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p']::pg_catalog."char"[])
	LOOP
		EXECUTE item.command;
	END LOOP;
END
$$;

GRANT USAGE ON SCHEMA message_bus TO PUBLIC;

-- these check the channel's privileges themselves
GRANT EXECUTE ON FUNCTION message_bus.publish, message_bus.publish_once, message_bus.publish_text, message_bus.publish_bytes,
	message_bus.publish_batch, message_bus.publish_batch_bytes, message_bus.get, message_bus.get_by_transaction,
	message_bus.get_bytes, message_bus.peek, message_bus.store_message, message_bus.retrieve_message,
	message_bus.delete_message, message_bus.record_event, message_bus.may, message_bus.role_of,
	message_bus.role_number, message_bus.role_missing, message_bus.stored_json, message_bus.json_text,
	message_bus.compression_name,
	message_bus.claim, message_bus.claim_bytes, message_bus.ack, message_bus.nack, message_bus.extend,
	message_bus.release_lease TO PUBLIC;
GRANT EXECUTE ON PROCEDURE message_bus.wait TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.id_node, message_bus.lease_node TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.gateway_fault TO PUBLIC;	-- tells of the caller's login
GRANT EXECUTE ON FUNCTION message_bus.bus_fault TO PUBLIC;		-- tells gateways only
GRANT SELECT ON message_bus.channels, message_bus.grants, message_bus.messages, message_bus.subscriptions, message_bus.leases,
	message_bus.dead_letters TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.channel_rows, message_bus.subscription_rows, message_bus.death_rows,
	message_bus.message_rows, message_bus.dead_letter_target TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.subscription_status, message_bus.expired_status, message_bus.subscription_expired, message_bus.subscription_lag,
	message_bus.lease_rows, message_bus.clock, message_bus.clock_off, message_bus.delivery_status,
	message_bus.last_access TO PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON message_bus.message_bus TO PUBLIC;
GRANT SELECT ON message_bus.errors, message_bus.metrics, message_bus.segments, message_bus.worker_status,
	message_bus.pools, message_bus.audit_progress TO pg_monitor;
GRANT EXECUTE ON FUNCTION message_bus.audit_entry, message_bus.audit_proof TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.audit_checkpoint, message_bus.audit_key, message_bus.audit_consistency,
	message_bus.audit_cosign, message_bus.audit_verify, message_bus.verifying,
	message_bus.counters, message_bus.expired_total, message_bus.pool_rows, message_bus.open_segments,
	message_bus.tables_size, message_bus.worker_status_row,
	message_bus.listed_databases TO pg_monitor;

/*
 * The default channel, owned by who creates the extension.
 */

SELECT message_bus.create_channel('default', ttl => NULL, compression => NULL);

-- without this, and with wal_level = minimal, a crash would set it back to 1;
-- each node numbers channels and subscriptions in a range of its own
SELECT pg_catalog.setval('message_bus.channel_id', GREATEST(1, n.first)),
	pg_catalog.setval('message_bus.subscription_id', GREATEST(1, n.first), n.first OPERATOR(pg_catalog.>) 0)
FROM (SELECT COALESCE(pg_catalog.current_setting('message_bus.node', true), '0')::integer
	OPERATOR(pg_catalog.*) 67108864) AS n (first);

/*
 * What a dump must hold beside the segments, which are dumped as tables.
 */

SELECT pg_catalog.pg_extension_config_dump('message_bus.channel', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.channel_grant', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.channel_id', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.subscription', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.subscription_id', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.publisher', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.segment', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.unattached', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.error', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.log_witness', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.jwt_key', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.session_end', '');
