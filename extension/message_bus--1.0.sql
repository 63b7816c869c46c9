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
	log_facts bigint[],						-- likewise, numbers of facts that it had before
	log_again boolean NOT NULL DEFAULT false,	-- the log had some of it before it came
	log_fault text							-- why some of it cannot be read for the log
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
	next_store integer NOT NULL DEFAULT 32,	-- likewise
	epoch integer NOT NULL DEFAULT 0,		-- of leases
	node smallint,							-- of its ids; NULL before the first segment
	bus uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()	-- in the names of its segments' constraints
);
INSERT INTO message_bus.server_state DEFAULT VALUES;
COMMENT ON TABLE message_bus.server_state IS 'numbering that must survive a crash or a failover';

-- Large bodies lie in tables part_<store_no> that the worker makes and drops; the
-- rows here go with them.
CREATE TABLE message_bus.body_store (
	store_no integer PRIMARY KEY,
	series integer NOT NULL,				-- whose bodies it takes; 0: it is for one body alone
	own boolean NOT NULL,
	opened_at timestamp with time zone NOT NULL,
	closed_at timestamp with time zone,		-- NULL: open, or an own one
	expires_at timestamp with time zone		-- once closed, of the bodies that are not held
);
COMMENT ON TABLE message_bus.body_store IS 'stores: the tables that hold large bodies';

-- Numbers of stores of one body each, which are used again when the table is gone, so
-- that they last.  Not dumped: they are this server's.
CREATE TABLE message_bus.body_number (
	store_no integer PRIMARY KEY,
	used integer NOT NULL					-- bodies that have had a number in it
);
COMMENT ON TABLE message_bus.body_number IS 'numbers of stores of one body, and how often they were used';

CREATE TABLE message_bus.body_hold (
	store_no integer NOT NULL,
	until timestamp with time zone NOT NULL,
	message_id bigint NOT NULL
);
CREATE INDEX body_hold_store_idx ON message_bus.body_hold (store_no);
-- the worker deletes them, also where all tables are published
ALTER TABLE message_bus.body_hold REPLICA IDENTITY FULL;
COMMENT ON TABLE message_bus.body_hold IS 'messages whose bodies a store must keep, beyond what it says itself';

CREATE TABLE message_bus.body_moved (
	body bigint PRIMARY KEY,
	to_body bigint NOT NULL
);
COMMENT ON TABLE message_bus.body_moved IS 'bodies that were moved to another store, so that theirs could be dropped';

-- Uploads of those who made them: open ones have no row of upload_end.
CREATE TABLE message_bus.upload (
	body bigint PRIMARY KEY,				-- body >> 20 is its store
	begun_at timestamp with time zone NOT NULL,
	channel_id integer NOT NULL,
	role_oid oid NOT NULL,					-- whose it is, who has this and ...
	role text NOT NULL COLLATE "C",			-- ... that name
	subject text COLLATE "C",
	reserved bigint NOT NULL,				-- bytes, for the quota
	own boolean NOT NULL,					-- it has a store of its own
	done boolean NOT NULL,					-- committed: it counts no more
	size bigint,							-- NULL: not known
	sha256 bytea,
	content_type text NOT NULL,
	transaction_id text COLLATE "C",
	key text,
	recipient text,
	headers jsonb,
	ttl bigint,								-- microseconds, as the next
	delay bigint
);
CREATE INDEX upload_owner_idx ON message_bus.upload (role, subject) WHERE NOT done;
CREATE INDEX upload_transaction_idx ON message_bus.upload (channel_id, transaction_id) WHERE transaction_id IS NOT NULL;
COMMENT ON TABLE message_bus.upload IS 'uploads that were begun, until their store goes; of small ones that ended and of committed ones until upload_ttl after';

CREATE TABLE message_bus.upload_end (
	body bigint PRIMARY KEY,
	at timestamp with time zone NOT NULL,
	kind "char" NOT NULL,					-- c committed, a aborted
	message_id bigint,						-- of a committed one
	bytes bigint NOT NULL					-- of the message; of an aborted one what was there
);
COMMENT ON TABLE message_bus.upload_end IS 'how uploads ended';

CREATE TABLE message_bus.upload_hash (
	body bigint NOT NULL,
	n integer NOT NULL,						-- the part that it is behind
	state bytea NOT NULL,					-- as part_<n>.state
	PRIMARY KEY (body, n)
);
COMMENT ON TABLE message_bus.upload_hash IS 'how far the hash of an upload that came out of order is';

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
	size bigint NOT NULL,			-- of the payload as published, in bytes
	channel_id integer NOT NULL,
	publisher_id integer NOT NULL,	-- of message_bus.publisher
	run smallint NOT NULL,			-- so many ids from here on are of this channel; 0: one of them
	encoding "char" NOT NULL,		-- of the stored bytes: lz4, none, zstd, gzip; of a body: json (checked), none
	sha256 bytea NOT NULL,			-- of the payload as published
	payload bytea NOT NULL,			-- of a body its first bytes
	content_type text,				-- NULL: application/json
	session bigint,
	subject text,
	key text,
	key_hash bigint,				-- NULL if there is no key
	available_at timestamp with time zone,	-- NULL: at once
	transaction_id text,
	headers jsonb,
	recipient text,					-- a subject
	body bigint						-- NULL: the bytes are in payload
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

-- What is personal is not in statistics, whose old rows stay in pg_statistic long after
-- a segment has gone; leaves have the same (worker/segment_open.c).
ALTER TABLE message_bus.message ALTER sha256 SET STATISTICS 0, ALTER payload SET STATISTICS 0, ALTER session SET STATISTICS 0, ALTER subject SET STATISTICS 0, ALTER key SET STATISTICS 0, ALTER key_hash SET STATISTICS 0, ALTER transaction_id SET STATISTICS 0, ALTER headers SET STATISTICS 0, ALTER recipient SET STATISTICS 0;
ALTER TABLE message_bus.event ALTER session SET STATISTICS 0, ALTER subject SET STATISTICS 0;
ALTER TABLE message_bus.ack ALTER session SET STATISTICS 0, ALTER subject SET STATISTICS 0;
ALTER TABLE message_bus.failure ALTER session SET STATISTICS 0, ALTER key_hash SET STATISTICS 0, ALTER subject SET STATISTICS 0, ALTER reason SET STATISTICS 0, ALTER not_moved SET STATISTICS 0;
-- Messages whose bytes are not those published, as long as their segments are there.
CREATE TABLE message_bus.quarantine (
	message_id bigint PRIMARY KEY,
	channel_id integer NOT NULL,			-- 0: its row could not be read
	found_at timestamp with time zone NOT NULL,
	kind text NOT NULL,						-- checksum, compression, row, unreadable
	detail text								-- unreadable: the error; of a body: which part
);
COMMENT ON TABLE message_bus.quarantine IS 'messages that are damaged and not delivered';

-- Where the scrubber was, when it last wrote it down; the worker only.
CREATE TABLE message_bus.scrub_state (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	cycle bigint NOT NULL,
	started_at timestamp with time zone NOT NULL,
	ended_at timestamp with time zone,
	next_id bigint NOT NULL,
	messages bigint NOT NULL,
	bytes bigint NOT NULL,
	bad bigint NOT NULL,
	unread bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE message_bus.scrub_state IS 'place of the scrubber; only saves reading';

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
	facts_pending bigint[] NOT NULL,		-- ranges [lo, hi)
	bus uuid NOT NULL,						-- server_state.bus of who writes it
	actions_pending bigint[]				-- likewise: of actions, from before the log
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

-- Who has changed what; and what is done to the log, and to segments.
CREATE TABLE message_bus.log_action (
	no bigint PRIMARY KEY,					-- of facts; of the first three kinds the place in the log;
											-- below 0: it has none yet
	at timestamp with time zone NOT NULL,
	kind text NOT NULL,						-- log, drop-segment, gap; channel, grant, subscription, purge, keys
	k bytea NOT NULL,						-- what its salts are made of
	segment_no integer,
	entries bigint,							-- of the segment
	continues text,							-- origin, size and root in base64
	reason text,							-- for which it goes on anew
	channel_id integer,
	role text,
	subject text,
	session bigint,
	details text							-- a JSON object: "change", and the row
);
CREATE INDEX log_action_at_idx ON message_bus.log_action (at);
COMMENT ON TABLE message_bus.log_action IS 'who has changed what, and what was done to the log';

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

-- What links to messages and tickets of downloads are made with; one row, not dumped. rotate_body_keys() replaces it.
CREATE TABLE message_bus.body_key (
	number bigint PRIMARY KEY,
	secret bytea NOT NULL CHECK (pg_catalog.length(secret) OPERATOR(pg_catalog.=) 32),
	made_at timestamp with time zone NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE message_bus.body_key IS 'secret that links to messages are made with';
INSERT INTO message_bus.body_key (number, secret)
	SELECT 1, pg_catalog.sha256(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()) OPERATOR(pg_catalog.||)
		pg_catalog.uuid_send(pg_catalog.gen_random_uuid()) OPERATOR(pg_catalog.||)
		pg_catalog.uuid_send(pg_catalog.gen_random_uuid()));

CREATE FUNCTION message_bus.body_key_changed() RETURNS trigger
	AS 'MODULE_PATHNAME', 'mbus_body_key_changed' LANGUAGE C;
CREATE TRIGGER body_key_changed AFTER INSERT OR UPDATE OR DELETE ON message_bus.body_key
	FOR EACH ROW EXECUTE FUNCTION message_bus.body_key_changed();
CREATE TRIGGER body_key_truncated AFTER TRUNCATE ON message_bus.body_key
	FOR EACH STATEMENT EXECUTE FUNCTION message_bus.body_key_changed();

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
	-- what the log has of it its runs tell
	NEW.log_to := NULL;
	RETURN NEW;
END
$$;
CREATE TRIGGER segment_restored BEFORE INSERT ON message_bus.segment
	FOR EACH ROW EXECUTE FUNCTION message_bus.segment_restored();

-- A dump has the log.  Where there is one already that is this bus's own, its rows
-- are left out: two logs cannot be one.  The worker writes its own: log/brought.c.
CREATE FUNCTION message_bus.log_restored() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'mbus_log_restored';
CREATE TRIGGER log_restored BEFORE INSERT ON message_bus.log_state
	FOR EACH ROW EXECUTE FUNCTION message_bus.log_restored();
CREATE TRIGGER log_restored BEFORE INSERT ON message_bus.log_tile
	FOR EACH ROW EXECUTE FUNCTION message_bus.log_restored();
CREATE TRIGGER log_restored BEFORE INSERT ON message_bus.log_run
	FOR EACH ROW EXECUTE FUNCTION message_bus.log_restored();
CREATE TRIGGER log_restored BEFORE INSERT ON message_bus.log_gone
	FOR EACH ROW EXECUTE FUNCTION message_bus.log_restored();
CREATE TRIGGER log_restored BEFORE INSERT ON message_bus.log_tile_look
	FOR EACH ROW EXECUTE FUNCTION message_bus.log_restored();
CREATE TRIGGER log_restored BEFORE INSERT ON message_bus.log_action
	FOR EACH ROW EXECUTE FUNCTION message_bus.log_restored();
CREATE TRIGGER log_restored BEFORE INSERT ON message_bus.log_checkpoint
	FOR EACH ROW EXECUTE FUNCTION message_bus.log_restored();

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
ALTER TABLE message_bus.body_key ENABLE ALWAYS TRIGGER body_key_changed;
ALTER TABLE message_bus.body_key ENABLE ALWAYS TRIGGER body_key_truncated;
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
ALTER TABLE message_bus.log_state ENABLE ALWAYS TRIGGER log_restored;
ALTER TABLE message_bus.log_tile ENABLE ALWAYS TRIGGER log_restored;
ALTER TABLE message_bus.log_run ENABLE ALWAYS TRIGGER log_restored;
ALTER TABLE message_bus.log_gone ENABLE ALWAYS TRIGGER log_restored;
ALTER TABLE message_bus.log_tile_look ENABLE ALWAYS TRIGGER log_restored;
ALTER TABLE message_bus.log_action ENABLE ALWAYS TRIGGER log_restored;
ALTER TABLE message_bus.log_checkpoint ENABLE ALWAYS TRIGGER log_restored;

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
'publish: stores a JSON message, its text unchanged, and returns its id. headers: an object of the publisher''s. key: orders messages. transaction_id: the publisher''s idempotency key; a live message of the channel with the same id and bytes is returned instead. ttl: not above the channel''s. delay: before it is delivered. sha256: expected checksum, 32 bytes or 64 hex digits. available_at: when it is delivered, in place of delay (both are refused); before it expires, at once if the time has passed. recipient: a subject that it is addressed to, up to 16 KiB (above 255 bytes it is kept as subjects are: cut, with a digest); who that is may see it where the channel''s visibility is subject. A transaction id that somebody else has used there is 23505, whatever the bytes. Errors: 42P01 no such channel, 42501 no privilege, 22023 bad ttl, delay, available_at or checksum, 23505 transaction id used before, 54000 too large, 25006 read-only, 53100 the disk is full, 53400 too many bodies over own_body_min, 55000 not ready, 57000 disabled.';

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
'publish_text: as publish, for text of any content type; JSON content types must hold JSON (22P02). content_type: a media type of RFC 9110, 8.3.1, of at most 255 bytes (22023).';

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
 * Large bodies, in pieces
 */

CREATE FUNCTION message_bus.upload_begin(channel text, content_type text DEFAULT NULL,
	size bigint DEFAULT NULL, sha256 bytea DEFAULT NULL, transaction_id text DEFAULT NULL,
	key text DEFAULT NULL, headers jsonb DEFAULT NULL, ttl interval DEFAULT NULL,
	delay interval DEFAULT NULL, recipient text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'mbus_upload_begin' LANGUAGE C;
COMMENT ON FUNCTION message_bus.upload_begin IS
'upload_begin: begins to upload a message in pieces, and returns the upload''s number. content_type: application/octet-stream if NULL. size, sha256 (32 bytes or 64 hex digits): of the whole; if NULL, given at the commit or not at all. transaction_id: the same caller, channel, transaction id, size, sha256 and recipient get the same number again, of an upload that is open or was committed (23505 if the message has expired, was deleted or purged). ttl, delay: count from the commit. The others as publish. An upload is its role''s and subject''s; it expires message_bus.upload_ttl after its last part and 30 days after its begin (up to message_bus.own_body_min: upload_ttl after its begin). Errors: as publish; 42501 also who is anonymous, 23505 the transaction id is that of another upload (another caller, size, sha256 or recipient) or of a message with other bytes, 54000 size over the channel''s max_payload or message_bus.max_body, 53400 over message_bus.max_uploads, max_upload_bytes or max_own_stores, 53100 less than 5 percent of the disk would be free, 55P03 another transaction of the same role and subject begins one.';

CREATE FUNCTION message_bus.upload_append(upload bigint, from_byte bigint, payload bytea) RETURNS bigint
	AS 'MODULE_PATHNAME', 'mbus_upload_append' LANGUAGE C;
COMMENT ON FUNCTION message_bus.upload_append IS
'upload_append: stores bytes of an upload, from a byte on that is a multiple of 262144, and returns the first byte of it that is missing. payload: up to 4194304 bytes, a multiple of 262144 but where the body ends. In any order, and in parallel; the same bytes again do nothing. All of a call is stored when its transaction commits, or none. Errors: 55000 no such upload of the caller''s, it has ended, or another transaction writes the same part, commits or aborts: try again; 22023 from_byte or the payload''s size fit no part, other bytes are there, or it goes behind the end; 54000 payload too large, or over what was reserved where no size was given; 42P01 the channel was dropped, 42501 no privilege any more, 53100 disk full, 25006 read-only, 57000 disabled.';

CREATE FUNCTION message_bus.upload_status(upload bigint, OUT state text, OUT size bigint, OUT received bigint,
	OUT complete_to bigint, OUT hashed_to bigint, OUT missing bigint[], OUT expires_at timestamp with time zone,
	OUT message_id bigint)
	AS 'MODULE_PATHNAME', 'mbus_upload_status' LANGUAGE C;
COMMENT ON FUNCTION message_bus.upload_status IS
'upload_status: how far an upload is. state: open, committed, aborted or expired. size: NULL if not known. received: bytes that are there. complete_to: the first byte that is missing. hashed_to: bytes that a commit need not read. missing: first bytes of the parts of 262144 that are missing, up to 1000; where no size was given those before the last one that is there. expires_at: unless more is appended. message_id: of what was committed. Errors: 55000 no such upload of the caller''s.';

CREATE FUNCTION message_bus.upload_commit(upload bigint, size bigint DEFAULT NULL, sha256 bytea DEFAULT NULL,
	OUT id bigint, OUT hashed_to bigint)
	AS 'MODULE_PATHNAME', 'mbus_upload_commit' LANGUAGE C;
COMMENT ON FUNCTION message_bus.upload_commit IS
'upload_commit: publishes what was uploaded, and returns the message''s id. size, sha256: if upload_begin was not given them; with neither the body ends where the last part does. What did not come in order has to be hashed: for message_bus.upload_slice a call at most; then id is NULL and hashed_to tells how far it is: call again. Repeated, also upload_ttl after, it returns the same id. Up to 1 MiB the message is as if it had been published; above it is never given as JSON, whatever its content type: by reference and by get_bytes. Errors: as publish; 55000 no such upload of the caller''s, it has ended, or another transaction appends, commits or aborts: try again; 22023 a byte is missing (which one), more than size bytes are there, or the checksum is another: the upload goes on; XX001 a part is damaged.';

CREATE FUNCTION message_bus.upload_abort(upload bigint) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_upload_abort' LANGUAGE C;
COMMENT ON FUNCTION message_bus.upload_abort IS
'upload_abort: gives an upload up. Returns whether there was an open one of the caller''s. Above message_bus.own_body_min, and of unknown size, its space comes back within seconds; else with that of its neighbours. Errors: 55000 it was committed, or another transaction appends, commits or aborts: try again.';

CREATE FUNCTION message_bus.upload_rows(OUT upload bigint, OUT channel text, OUT state text, OUT content_type text,
	OUT size bigint, OUT reserved bigint, OUT received bigint, OUT complete_to bigint, OUT hashed_to bigint,
	OUT begun_at timestamp with time zone, OUT expires_at timestamp with time zone, OUT own boolean,
	OUT key text, OUT transaction_id text, OUT role text, OUT subject text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_upload_rows' LANGUAGE C;
COMMENT ON FUNCTION message_bus.upload_rows IS 'upload_rows: what the view uploads shows: the caller''s, and to members of pg_monitor all.';

CREATE VIEW message_bus.uploads AS SELECT * FROM message_bus.upload_rows();
COMMENT ON VIEW message_bus.uploads IS 'uploads of the current role and subject that are not committed, as long as they count for message_bus.max_upload_bytes; to members of pg_monitor those of all';
COMMENT ON COLUMN message_bus.uploads.channel IS 'NULL: it was dropped';
COMMENT ON COLUMN message_bus.uploads.state IS 'open, aborted or expired';
COMMENT ON COLUMN message_bus.uploads.size IS 'of the whole; NULL: not known';
COMMENT ON COLUMN message_bus.uploads.reserved IS 'what an open or expired one counts for message_bus.max_upload_bytes; one that was aborted counts what was sent of it, 1 MiB at least, until its space is returned';
COMMENT ON COLUMN message_bus.uploads.received IS 'bytes that are there';
COMMENT ON COLUMN message_bus.uploads.complete_to IS 'the first byte that is missing';
COMMENT ON COLUMN message_bus.uploads.hashed_to IS 'bytes that a commit need not read';
COMMENT ON COLUMN message_bus.uploads.expires_at IS 'unless more is appended';
COMMENT ON COLUMN message_bus.uploads.own IS 'it has a store of its own, whose space comes back as soon as it has ended';

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
'stored_message: payload is NULL where it is by_reference (so is JSON over 1 MiB that was uploaded: nobody has looked whether it is JSON) or its content type is not JSON; get_bytes has it.';

CREATE FUNCTION message_bus.get(id bigint) RETURNS SETOF message_bus.stored_message
	AS 'MODULE_PATHNAME', 'mbus_get' LANGUAGE C ROWS 1;
COMMENT ON FUNCTION message_bus.get IS
'get: one message with its whole payload; no row if there is none, it has expired, was deleted or purged, or is not the caller''s in a channel with visibility subject (so with all functions that read). Errors: 42501 no privilege to consume, XX001 stored bytes do not match, 55000 it has gone while it was read (over 1 MiB).';

CREATE FUNCTION message_bus.get_by_transaction(channel text, transaction_id text)
	RETURNS SETOF message_bus.stored_message
	AS 'MODULE_PATHNAME', 'mbus_get_by_transaction' LANGUAGE C ROWS 1;
COMMENT ON FUNCTION message_bus.get_by_transaction IS
'get_by_transaction: the message with that transaction id, its payload by reference above message_bus.inline_max; no row if there is none. Errors: 42P01 no such channel, 42501 no privilege, XX001 stored bytes do not match.';

CREATE FUNCTION message_bus.get_bytes(id bigint, from_byte bigint DEFAULT 0,
	max_bytes bigint DEFAULT NULL) RETURNS bytea
	AS 'MODULE_PATHNAME', 'mbus_get_bytes' LANGUAGE C;
COMMENT ON FUNCTION message_bus.get_bytes IS
'get_bytes: a range of a message''s bytes, counted from 0; empty behind the end, NULL if there is no such message. Over 1 MiB only the parts that the range needs are read, and each is compared with its own checksum; the whole with the message''s. Errors: as get; 22023 negative range, 54000 more than 1 GB - 64 bytes at once.';

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

CREATE FUNCTION message_bus.stored_json(payload bytea, encoding text, size bigint,
	content_type text, sha256 bytea) RETURNS json
	AS 'MODULE_PATHNAME', 'mbus_stored_json' LANGUAGE C STRICT STABLE COST 100;
COMMENT ON FUNCTION message_bus.stored_json IS
'stored_json: a stored row''s payload as json; NULL if it is not JSON or does not match its checksum.';

CREATE FUNCTION message_bus.compression_name(encoding "char") RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_compression_name_of' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION message_bus.compression_name IS
'compression_name: lz4, zstd, gzip or none, of a stored row''s encoding; NULL if it is none of these.';

CREATE FUNCTION message_bus.body_json(id bigint) RETURNS json
	AS 'MODULE_PATHNAME', 'mbus_body_json' LANGUAGE C STRICT STABLE COST 10000;
COMMENT ON FUNCTION message_bus.body_json IS
'body_json: the payload of a message that is stored in parts, as json; NULL if it is not JSON, was not checked to be (it was uploaded), does not match its checksum, or the current user may not read it. For the view message_bus.';

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
'delivery: payload is NULL where it is by_reference (above message_bus.inline_max, or uploaded JSON over 1 MiB) or its content type is not JSON; get_bytes has it.';

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
	OUT size bigint, OUT content_type text, OUT not_moved text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_death_rows' LANGUAGE C STABLE COST 10000 ROWS 100;
COMMENT ON FUNCTION message_bus.death_rows IS
'death_rows: the messages that died for subscriptions of channels that the current user may consume or audit, and that he may see, as long as they can be redriven. For the view dead_letters.';

CREATE FUNCTION message_bus.message_rows(OUT id bigint, OUT channel_id integer, OUT channel text,
	OUT created_at timestamp with time zone, OUT expires_at timestamp with time zone, OUT live boolean,
	OUT available_at timestamp with time zone, OUT key text, OUT transaction_id text, OUT publisher text,
	OUT subject text, OUT session bigint, OUT headers jsonb, OUT content_type text, OUT size bigint,
	OUT encoding "char", OUT stored_size integer, OUT sha256 bytea, OUT stored bytea, OUT recipient text, OUT body bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_message_rows' LANGUAGE C STABLE COST 10000 ROWS 10000;
COMMENT ON FUNCTION message_bus.message_rows IS
'message_rows: the messages of the channels that the current user may consume or audit, live or not; stored: the payload''s bytes as they are stored, where there is a body the first 1,024 of them, NULL to who may not consume. Of channels with visibility subject only what is from the current user or for him, unless he has all_subjects. For the views messages and message_bus.';

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
		m.size, CASE WHEN m.body IS NULL THEN message_bus.compression_name(m.encoding) END AS compression,
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
COMMENT ON COLUMN message_bus.dead_letters.key IS 'NULL also while the message is in quarantine: its row may be damaged; so is content_type';

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

CREATE FUNCTION message_bus.channel_counters(channel_id integer,
	OUT published bigint, OUT published_bytes bigint, OUT delivered bigint, OUT delivered_bytes bigint,
	OUT acked bigint, OUT nacked bigint, OUT lapsed bigint, OUT dead bigint,
	OUT since timestamp with time zone) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_channel_counters' LANGUAGE C STRICT ROWS 1;
COMMENT ON FUNCTION message_bus.channel_counters IS
'channel_counters: what happened in a channel since the server started, see the view channel_metrics; 0: in all channels that are not counted by themselves. No row where the current user may not consume or audit all its messages, or monitor.';

CREATE VIEW message_bus.channel_metrics AS
	SELECT c.name AS channel, t.published, t.published_bytes, t.delivered, t.delivered_bytes, t.acked, t.nacked,
		t.lapsed, t.dead, t.since
	FROM message_bus.channel_rows() c CROSS JOIN LATERAL message_bus.channel_counters(c.channel_id) AS t
	UNION ALL
	SELECT NULL, t.published, t.published_bytes, t.delivered, t.delivered_bytes, t.acked, t.nacked,
		t.lapsed, t.dead, t.since
	FROM message_bus.channel_counters(0) AS t;
COMMENT ON VIEW message_bus.channel_metrics IS
'what has happened in each channel since the server started, by transactions that committed: of the channels all of whose messages the current user may consume or audit; to pg_monitor of all. Of message_bus.max_channel_metrics channels; NULL where a channel is counted among the others';
COMMENT ON COLUMN message_bus.channel_metrics.channel IS 'NULL, to pg_monitor: all that were dropped, and all others that are not counted by themselves, together';
COMMENT ON COLUMN message_bus.channel_metrics.published IS 'messages stored';
COMMENT ON COLUMN message_bus.channel_metrics.published_bytes IS 'of their payloads';
COMMENT ON COLUMN message_bus.channel_metrics.delivered IS 'messages given out by claims, each time';
COMMENT ON COLUMN message_bus.channel_metrics.delivered_bytes IS 'of their payloads, also where these went by reference';
COMMENT ON COLUMN message_bus.channel_metrics.acked IS 'deliveries acknowledged';
COMMENT ON COLUMN message_bus.channel_metrics.nacked IS 'deliveries given back, by nack or release_lease';
COMMENT ON COLUMN message_bus.channel_metrics.lapsed IS 'deliveries whose lease, session or server ended before they were acknowledged';
COMMENT ON COLUMN message_bus.channel_metrics.dead IS 'messages given up: they used up their attempts, would have expired, or are damaged';
COMMENT ON COLUMN message_bus.channel_metrics.since IS 'when the server started, and all were 0';

CREATE FUNCTION message_bus.latency_rows(OUT metric text, OUT le double precision, OUT count bigint,
	OUT sum double precision) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_latency_rows' LANGUAGE C ROWS 60;
COMMENT ON FUNCTION message_bus.latency_rows IS 'latency_rows: what the view latency shows';

CREATE VIEW message_bus.latency AS
	SELECT metric, le, count, sum FROM message_bus.latency_rows();
COMMENT ON VIEW message_bus.latency IS
'histograms of this database since the server started, of what has committed, as Prometheus has them: for pg_monitor';
COMMENT ON COLUMN message_bus.latency.metric IS 'publish_seconds: a call that publishes, without the commit; publish_to_claim_seconds: from when a message could be had to its first claim, each subscription''s; claim_to_ack_seconds: from the claim to the ack, of each message';
COMMENT ON COLUMN message_bus.latency.le IS 'upper bound in seconds; Infinity: any';
COMMENT ON COLUMN message_bus.latency.count IS 'how many took so long or less';
COMMENT ON COLUMN message_bus.latency.sum IS 'seconds that all of them took together, the same in each row of a metric';

CREATE FUNCTION message_bus.metrics_text() RETURNS text
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	WITH family (place, name, kind, help) AS (
		SELECT 1, 'message_bus_' || metric, 'counter', help FROM message_bus.metrics
		UNION ALL SELECT 2, 'message_bus_' || n, 'histogram', h FROM (VALUES
			('publish_seconds', 'Calls that publish, without the commit.'),
			('publish_to_claim_seconds', 'From when a message could be had to its first claim.'),
			('claim_to_ack_seconds', 'From a claim to its ack, of each message.')) AS v (n, h)
		UNION ALL SELECT 3, 'message_bus_channel_' || n || '_total', 'counter', h FROM (VALUES
			('published', 'Messages stored in a channel.'), ('published_bytes', 'Bytes of their payloads.'),
			('delivered', 'Messages given out by claims.'), ('delivered_bytes', 'Bytes of their payloads.'),
			('acked', 'Deliveries acknowledged.'), ('nacked', 'Deliveries given back.'),
			('lapsed', 'Deliveries whose lease, session or server ended.'), ('dead', 'Messages given up.')) AS v (n, h)
	), sample (name, place, n, line) AS (
		SELECT 'message_bus_' || metric, '', 0::double precision, 'message_bus_' || metric || ' ' || value FROM message_bus.metrics
		UNION ALL SELECT 'message_bus_' || metric, '', le, format('message_bus_%s_bucket{le="%s"} %s', metric,
			CASE le WHEN 'Infinity' THEN '+Inf' ELSE le::text END, count) FROM message_bus.latency
		UNION ALL SELECT 'message_bus_' || metric, 'total', u.n, format(u.f, metric, u.v)
			FROM message_bus.latency AS l, LATERAL (VALUES
				(1, 'message_bus_%s_sum %s', sum::text), (2, 'message_bus_%s_count %s', count::text)) AS u (n, f, v)
			WHERE le = 'Infinity'
		UNION ALL SELECT 'message_bus_channel_' || u.n || '_total', COALESCE(channel, ''), 0,
			format('message_bus_channel_%s_total{channel="%s"} %s', u.n,
				replace(replace(replace(COALESCE(channel, ''), E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n'), u.v)
			FROM message_bus.channel_metrics, LATERAL (VALUES ('published', published),
				('published_bytes', published_bytes), ('delivered', delivered), ('delivered_bytes', delivered_bytes),
				('acked', acked), ('nacked', nacked), ('lapsed', lapsed), ('dead', dead)) AS u (n, v)
			WHERE u.v > 0
	)
	SELECT string_agg(format(E'# HELP %s %s\n# TYPE %s %s\n', f.name, f.help, f.name, f.kind) || s.lines, '' ORDER BY f.place, f.name COLLATE "C")
	FROM family f JOIN (SELECT name, string_agg(line || E'\n', '' ORDER BY place COLLATE "C", n) AS lines FROM sample GROUP BY name) AS s
		USING (name)
$$;
COMMENT ON FUNCTION message_bus.metrics_text IS
'metrics_text: the views metrics, latency and channel_metrics in Prometheus'' text format, for an exporter; for pg_monitor. Names begin with message_bus_. Of channels only what is not 0; channel="" is those that are not counted by themselves.';

CREATE FUNCTION message_bus.scrub(channel text DEFAULT NULL,
	OUT messages bigint, OUT bytes bigint, OUT bad bigint, OUT found bigint, OUT unread bigint)
	AS 'MODULE_PATHNAME', 'mbus_scrub' LANGUAGE C COST 1000000;
COMMENT ON FUNCTION message_bus.scrub IS
'scrub: reads all live messages of a channel again, or of all channels (NULL, for pg_monitor), and compares each with its SHA-256. What is damaged is put into quarantine, what is sound again let out, when the transaction commits; on a standby or in a read-only transaction it only counts.
channel: one whose messages the current user may consume or audit, all of them, or pg_monitor.
Returns messages and bytes (of payload) read, how many of the messages are bad, how many of these were not in quarantine before (found), and how many segments could not be read to their end (unread).
Errors: 42P01 no such channel, 42501 no privilege, 55000 a segment has other columns or indexes than it was made with.';

CREATE FUNCTION message_bus.scrub_message(id bigint) RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_scrub_message' LANGUAGE C STRICT COST 1000;
COMMENT ON FUNCTION message_bus.scrub_message IS
'scrub_message: looks at one message as scrub() does and returns sound, or what is damaged: checksum (the bytes are not those published), compression (they cannot be decompressed), row (lengths in its row are wrong), unreadable (reading it is an error of classes 22, 58, XX; of 58 twice). Another error is raised. One that is sound is let out of quarantine. NULL: there is no such live message, or the current user may not see all messages of its channel and is not in pg_monitor.
Errors: 55000 the segment has other columns or indexes than it was made with.';

CREATE FUNCTION message_bus.is_quarantined(id bigint) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_is_quarantined' LANGUAGE C STRICT STABLE;
COMMENT ON FUNCTION message_bus.is_quarantined IS
'is_quarantined: whether a message is in quarantine, of a channel that the current user may consume, audit or monitor; else false. For the view message_bus.';

CREATE FUNCTION message_bus.quarantine_rows() RETURNS SETOF message_bus.quarantine
	AS 'MODULE_PATHNAME', 'mbus_quarantine_rows' LANGUAGE C STABLE;
COMMENT ON FUNCTION message_bus.quarantine_rows IS
'quarantine_rows: messages in quarantine, of the channels all of whose messages the current user may consume or audit, or that he may monitor. For the view quarantined.';

CREATE VIEW message_bus.quarantined AS
	SELECT c.name AS channel, q.message_id, q.found_at, q.kind, q.detail
	FROM message_bus.quarantine_rows() q
	LEFT JOIN message_bus.channel_rows() c ON c.channel_id OPERATOR(pg_catalog.=) q.channel_id;
COMMENT ON VIEW message_bus.quarantined IS
'messages that are damaged, of the channels all of whose messages the current user may consume or audit, or that he may monitor: they are not delivered, and reading one is XX001, until scrub_message() or the scrubber finds them sound; as long as their segments are there';
COMMENT ON COLUMN message_bus.quarantined.channel IS 'NULL: it could not be read, or was dropped';
COMMENT ON COLUMN message_bus.quarantined.kind IS 'as scrub_message() returns it';
COMMENT ON COLUMN message_bus.quarantined.detail IS 'of what is unreadable: the error; of a large message: which part of its body, from 0';

CREATE FUNCTION message_bus.scrub_status_row(OUT cycle bigint, OUT state text,
	OUT started_at timestamp with time zone, OUT ended_at timestamp with time zone,
	OUT next_at timestamp with time zone, OUT segment_no integer, OUT next_id bigint,
	OUT messages bigint, OUT bytes bigint, OUT bad bigint, OUT unread bigint, OUT rate bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_scrub_status_row' LANGUAGE C;
COMMENT ON FUNCTION message_bus.scrub_status_row IS 'scrub_status_row: what the view scrub_status shows';

CREATE VIEW message_bus.scrub_status AS
	SELECT s.*, (SELECT pg_catalog.count(*) FROM message_bus.quarantine) AS quarantined
	FROM message_bus.scrub_status_row() s;
COMMENT ON VIEW message_bus.scrub_status IS 'where the scrubber is; no row where it has not begun; for pg_monitor';
COMMENT ON COLUMN message_bus.scrub_status.cycle IS 'how often all messages have been read, with this time';
COMMENT ON COLUMN message_bus.scrub_status.state IS 'running, off (message_bus.scrub_rate is 0), or paused until the next cycle';
COMMENT ON COLUMN message_bus.scrub_status.next_at IS 'when the next cycle begins at the earliest';
COMMENT ON COLUMN message_bus.scrub_status.segment_no IS 'that is being read; NULL: paused';
COMMENT ON COLUMN message_bus.scrub_status.next_id IS 'messages with lower ids have been read';
COMMENT ON COLUMN message_bus.scrub_status.messages IS 'read in this cycle, or the last';
COMMENT ON COLUMN message_bus.scrub_status.bytes IS 'of their payloads';
COMMENT ON COLUMN message_bus.scrub_status.bad IS 'of them, damaged';
COMMENT ON COLUMN message_bus.scrub_status.unread IS 'segments that were not read to their end: their index is damaged, or they were locked for long';
COMMENT ON COLUMN message_bus.scrub_status.rate IS 'bytes a second: message_bus.scrub_rate';
COMMENT ON COLUMN message_bus.scrub_status.quarantined IS 'messages that are in quarantine now';

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
 * Lives: what has happened to a message, from its facts and from memory.
 */

CREATE FUNCTION message_bus.message_rows_kept(OUT id bigint, OUT channel_id integer, OUT channel text,
	OUT created_at timestamp with time zone, OUT expires_at timestamp with time zone, OUT live boolean,
	OUT available_at timestamp with time zone, OUT key text, OUT transaction_id text, OUT publisher text,
	OUT subject text, OUT session bigint, OUT headers jsonb, OUT content_type text, OUT size bigint,
	OUT encoding "char", OUT stored_size integer, OUT sha256 bytea, OUT stored bytea, OUT recipient text, OUT body bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_message_rows_kept' LANGUAGE C STABLE COST 10000 ROWS 10000;
COMMENT ON FUNCTION message_bus.message_rows_kept IS
'message_rows_kept: as message_rows(), but also what was deleted or purged, as long as its segment is there: without key, headers, checksum and payload, and not live. For the view deliveries and trace().';

CREATE FUNCTION message_bus.fact_rows(message_id bigint, OUT kind text, OUT no bigint, OUT at timestamp with time zone,
	OUT subscription text, OUT what text, OUT attempt smallint, OUT lease bigint,
	OUT claimed_at timestamp with time zone, OUT retry_at timestamp with time zone, OUT dead_letter_id bigint,
	OUT not_moved text, OUT reason text, OUT role text, OUT subject text, OUT session bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_fact_rows' LANGUAGE C STRICT STABLE COST 200 ROWS 3;
COMMENT ON FUNCTION message_bus.fact_rows IS
'fact_rows: the acks, failures, redrives, recorded reads (access) and deletions (delete) of a message that the current user may see, live or not; kind and no are what audit_proof() takes. Without lease, subject and session to who sees only his own messages of the channel. For the view deliveries and trace().';

CREATE VIEW message_bus.deliveries AS
	SELECT m.id AS message_id, m.channel, f.subscription, f.attempt::integer AS attempt, f.claimed_at,
		CASE WHEN f.what OPERATOR(pg_catalog.=) ANY (ARRAY['acked', 'nacked']) THEN f.role END AS role,
		CASE WHEN f.what OPERATOR(pg_catalog.=) ANY (ARRAY['acked', 'nacked']) THEN f.subject END AS subject,
		CASE WHEN f.what OPERATOR(pg_catalog.=) ANY (ARRAY['acked', 'nacked']) THEN f.session END AS session,
		f.lease, f.what AS outcome, f.at AS ended_at, f.role AS ended_by, f.reason, f.retry_at,
		f.kind OPERATOR(pg_catalog.=) 'failure' AND f.retry_at IS NULL AS dead, f.dead_letter_id, f.not_moved, f.kind, f.no
	FROM message_bus.message_rows_kept() m
	CROSS JOIN LATERAL message_bus.fact_rows(m.id) AS f
	-- other acks close what a failure tells; and what would have expired unclaimed was not out
	WHERE (f.kind OPERATOR(pg_catalog.=) 'ack' AND f.what OPERATOR(pg_catalog.=) 'acked')
		OR (f.kind OPERATOR(pg_catalog.=) 'failure' AND NOT (f.what OPERATOR(pg_catalog.=) 'expired'
			AND COALESCE(f.reason OPERATOR(pg_catalog.=) 'expired', false)))
	UNION ALL
	SELECT l.message_id, c.name, s.name, l.attempt::integer, l.claimed_at, l.role, NULL, l.session, l.lease, 'claimed',
		NULL, NULL, NULL, NULL, false, NULL, NULL, NULL, NULL
	FROM message_bus.subscription_rows() s
	JOIN message_bus.channel_rows() c ON c.channel_id OPERATOR(pg_catalog.=) s.channel_id
		AND message_bus.may(c.channel_id, 'audit')
	CROSS JOIN LATERAL message_bus.lease_rows(s.subscription_id) AS l;
COMMENT ON VIEW message_bus.deliveries IS
'a row for each message, subscription and attempt that is out or has ended, of the messages that the current user may see of channels that he may consume or audit, also those that have expired, were deleted or purged, as long as their segment is there. Conditions on message_id and channel are found by an index. What is out is in memory: an attempt that ends while it is asked may be missing.';
COMMENT ON COLUMN message_bus.deliveries.subscription IS 'its name, or "(dropped) " and its number';
COMMENT ON COLUMN message_bus.deliveries.attempt IS 'from 1; begins again with a redrive';
COMMENT ON COLUMN message_bus.deliveries.claimed_at IS 'when it was given out; NULL where a crash has lost it';
COMMENT ON COLUMN message_bus.deliveries.role IS 'who claimed it, as subject and session; known of what is claimed, acked or nacked, else NULL';
COMMENT ON COLUMN message_bus.deliveries.subject IS 'of the token; NULL: none, or (as session and lease) for who sees only his own messages of the channel';
COMMENT ON COLUMN message_bus.deliveries.session IS 'the gateway''s number of the socket; NULL: none';
COMMENT ON COLUMN message_bus.deliveries.outcome IS 'acked; nacked, released, expired (the lease), disconnected, crash or corrupt: it failed; claimed: it is out';
COMMENT ON COLUMN message_bus.deliveries.ended_by IS 'the role that said so: of what expired or was lost in a crash the worker''s';
COMMENT ON COLUMN message_bus.deliveries.retry_at IS 'failed: when it is given out again; NULL: never';
COMMENT ON COLUMN message_bus.deliveries.dead IS 'failed for the last time';
COMMENT ON COLUMN message_bus.deliveries.dead_letter_id IS 'its copy in the dead-letter channel';
COMMENT ON COLUMN message_bus.deliveries.not_moved IS 'dead, but there is no copy although there was to be one: why';
COMMENT ON COLUMN message_bus.deliveries.kind IS 'ack or failure, and no, are what audit_proof(no, kind) and audit_entry() take; NULL: it is out';

CREATE FUNCTION message_bus.failure_ids(since timestamp with time zone) RETURNS SETOF bigint
	AS 'MODULE_PATHNAME', 'mbus_failure_ids' LANGUAGE C STRICT STABLE COST 10000 ROWS 100;
COMMENT ON FUNCTION message_bus.failure_ids IS
'failure_ids: messages that had a failed delivery since a time, of those that the current user may see, 10,000 of the newest segments at most; one may come more than once. For failures().';

CREATE FUNCTION message_bus.failures(since timestamp with time zone) RETURNS SETOF message_bus.deliveries
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, message_bus, pg_temp AS $$
	SELECT * FROM message_bus.deliveries d
	WHERE d.message_id = ANY (ARRAY(SELECT DISTINCT message_bus.failure_ids(failures.since)))
		AND d.kind = 'failure' AND d.ended_at >= failures.since
	ORDER BY d.ended_at, d.message_id
$$;
COMMENT ON FUNCTION message_bus.failures IS
'failures: the deliveries that have failed since a time, in order, as the view deliveries has them, which takes long to find them among many messages. since: up to 10,000 of the newest messages. Errors: none.';

CREATE FUNCTION message_bus.refusal_rows(channel text, transaction_id text, OUT at timestamp with time zone, OUT sqlstate text,
	OUT message text, OUT detail text, OUT function text, OUT role text, OUT subject text, OUT session bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_refusal_rows' LANGUAGE C STRICT STABLE COST 1000 ROWS 3;
COMMENT ON FUNCTION message_bus.refusal_rows IS
'refusal_rows: the newest 100 failures of the last seven days about a transaction id of a channel, see the view errors: to who may consume or audit all of the channel, and pg_monitor, all; to who else may use it, those of his own role and subject. For trace_transaction().';

CREATE TYPE message_bus.life_event AS (at timestamp with time zone, message_id bigint, event text, channel text,
	subscription text, attempt integer, role text, subject text, session bigint, lease bigint, reason text, detail text,
	related_id bigint, kind text, no bigint);
COMMENT ON TYPE message_bus.life_event IS 'life_event: a row of trace() and trace_transaction()';

CREATE FUNCTION message_bus.life_ids(ids bigint[]) RETURNS bigint[]
	LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, message_bus, pg_temp AS $$
DECLARE
	new bigint[] := ids;
BEGIN
	-- each step asks only for what the one before has found
	FOR step IN 1 .. 8 LOOP
		SELECT array_agg(DISTINCT r.id) INTO new FROM (
			SELECT f.dead_letter_id FROM unnest(new) AS n (id), LATERAL message_bus.fact_rows(n.id) f
			UNION ALL
			SELECT message_bus.copy_of(m.headers) FROM message_bus.message_rows_kept() m WHERE m.id = ANY (new)
		) AS r (id) WHERE r.id IS NOT NULL AND r.id <> ALL (ids);
		EXIT WHEN new IS NULL OR cardinality(ids) >= 64;
		ids := ids || new;
	END LOOP;
	RETURN ids[1:64];
END
$$;
COMMENT ON FUNCTION message_bus.life_ids IS
'life_ids: these messages, their dead letters, and what they say they are copies of, in 8 steps; 64 at most. For trace().';

CREATE FUNCTION message_bus.copy_of(headers jsonb) RETURNS bigint
	LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE WHEN said.id ~ '^[0-9]{1,16}$' THEN said.id::bigint END
	FROM (SELECT COALESCE(headers #>> '{dead_letter,id}', headers #>> '{dead_letter_deaths,-1,id}')) AS said (id)
$$;
COMMENT ON FUNCTION message_bus.copy_of IS
'copy_of: of which message a dead letter, or one that was brought back, says it is a copy; NULL: of none. For trace().';

CREATE FUNCTION message_bus.life_events(ids bigint[]) RETURNS TABLE (at timestamp with time zone, message_id bigint,
		event text, channel text, subscription text, attempt integer, role text, subject text, session bigint, lease bigint,
		reason text, detail text, related_id bigint, kind text, no bigint, step integer)
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, message_bus, pg_temp AS $$
	WITH m AS MATERIALIZED (
		SELECT k.id, k.channel, k.created_at, k.expires_at, k.available_at, k.live, k.publisher, k.subject, k.session,
			k.size, k.content_type, k.headers
		FROM message_bus.message_rows_kept() k WHERE k.id = ANY (life_events.ids)),
	f AS MATERIALIZED (
		SELECT m.id, m.channel, r.* FROM m CROSS JOIN LATERAL message_bus.fact_rows(m.id) AS r),
	d AS MATERIALIZED (
		SELECT * FROM message_bus.deliveries v WHERE v.message_id = ANY (life_events.ids))
	SELECT m.created_at, m.id, 'published', m.channel, NULL, NULL::integer, m.publisher, m.subject, m.session, NULL::bigint, NULL,
		format('%s bytes of %s', m.size, m.content_type)
			|| CASE WHEN m.available_at > m.created_at THEN format(', delayed to %s', to_json(m.available_at) #>> '{}') ELSE '' END,
		message_bus.copy_of(m.headers), 'message', m.id, 1
	FROM m
	UNION ALL
	SELECT d.claimed_at, d.message_id, 'claimed', d.channel, d.subscription, d.attempt, d.role, d.subject, d.session, d.lease,
		NULL, NULL, NULL, NULL, NULL, 2
	FROM d WHERE d.claimed_at IS NOT NULL
	UNION ALL
	SELECT d.ended_at, d.message_id, CASE WHEN d.outcome = 'expired' THEN 'lease_expired' ELSE d.outcome END,
		d.channel, d.subscription, d.attempt, d.ended_by, d.subject, d.session, d.lease, d.reason,
		CASE WHEN d.retry_at IS NOT NULL THEN format('again from %s on', to_json(d.retry_at) #>> '{}') END, NULL, d.kind, d.no, 3
	FROM d WHERE d.outcome <> 'claimed'
	UNION ALL
	SELECT f.at, f.id, 'dead', f.channel, f.subscription, f.attempt, f.role, f.subject, f.session, f.lease, f.reason,
		CASE WHEN f.not_moved IS NOT NULL THEN format('not moved: %s', f.not_moved)
			WHEN f.dead_letter_id IS NULL THEN 'stays in place' END, f.dead_letter_id, f.kind, f.no, 4
	FROM f WHERE f.kind = 'failure' AND f.retry_at IS NULL
	UNION ALL
	SELECT f.at, f.id, CASE f.kind WHEN 'redrive' THEN 'redriven' WHEN 'access' THEN 'read' ELSE 'deleted' END,
		f.channel, f.subscription, NULL, f.role, f.subject, f.session, NULL, f.reason, NULL, NULL, f.kind, f.no, 5
	FROM f WHERE f.kind IN ('redrive', 'access', 'delete')
	UNION ALL
	SELECT m.expires_at, m.id, 'expired', m.channel, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 6
	FROM m WHERE m.expires_at <= message_bus.clock()
	UNION ALL
	SELECT NULL, m.id, 'purged', m.channel, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 7
	FROM m WHERE NOT m.live AND m.expires_at > message_bus.clock()
		AND NOT EXISTS (SELECT FROM f WHERE f.id = m.id AND f.kind = 'delete')
$$;
COMMENT ON FUNCTION message_bus.life_events IS
'life_events: what has happened to these messages, see trace(); step: the order of what happened at one time.';

CREATE FUNCTION message_bus.trace(id bigint) RETURNS SETOF message_bus.life_event
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, message_bus, pg_temp AS $$
	SELECT e.at, e.message_id, e.event, e.channel, e.subscription, e.attempt, e.role, e.subject, e.session, e.lease,
		e.reason, e.detail, e.related_id, e.kind, e.no
	FROM message_bus.life_events(message_bus.life_ids(ARRAY[trace.id])) e
	ORDER BY e.at, e.message_id, e.step
$$;
COMMENT ON FUNCTION message_bus.trace IS
'trace: the life of a message in order, with those of its dead letters and of what it is a copy of (64 messages at most); no row for what the current user may not see. id: of the message.
event: published, claimed, acked, nacked, released, lease_expired, disconnected, crash, corrupt, dead, redriven, read (recorded), deleted, purged (at NULL: when is not known), expired (its TTL). role, subject, session: who did it; of claims known only where they were acked or nacked, or are out. reason: that a consumer gave. related_id: of dead its dead letter, of published what it is a copy of. kind and no: what audit_proof(no, kind) takes, of what the log has. What has expired, was deleted or purged is told until its segment goes. Errors: none.';

CREATE FUNCTION message_bus.trace_transaction(channel text, transaction_id text) RETURNS SETOF message_bus.life_event
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, message_bus, pg_temp AS $$
	SELECT e.at, e.message_id, e.event, e.channel, e.subscription, e.attempt, e.role, e.subject, e.session, e.lease,
		e.reason, e.detail, e.related_id, e.kind, e.no
	FROM (
		SELECT * FROM message_bus.life_events(message_bus.life_ids(ARRAY(
			SELECT m.id FROM message_bus.message_rows_kept() m
			WHERE m.channel = trace_transaction.channel AND m.transaction_id = trace_transaction.transaction_id
			ORDER BY m.id DESC LIMIT 16)))
		UNION ALL
		SELECT r.at, NULL, CASE WHEN r.function ~ '^(publish|store_message|relay)' THEN 'refused' ELSE 'failed' END, trace_transaction.channel,
			NULL, NULL, r.role, r.subject, r.session, NULL, r.message, concat_ws(', ', r.sqlstate, r.function, r.detail),
			NULL, NULL, NULL, 0
		FROM message_bus.refusal_rows(trace_transaction.channel, trace_transaction.transaction_id) r
	) AS e
	ORDER BY e.at, e.message_id, e.step
$$;
COMMENT ON FUNCTION message_bus.trace_transaction IS
'trace_transaction: as trace(), of the messages of a channel that were published with a transaction id (the newest 16 that are still there), and what failed about it in the last seven days (the newest 100 failures): refused, a publish, or failed, whatever else; reason is the error''s message, detail its SQLSTATE, the function and more. A failure is told to who may consume or audit all of the channel, to others of the channel their own. No row for what the current user may not see, or that does not exist. Errors: none.';

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
		CASE WHEN m.live AND NOT message_bus.is_quarantined(m.id) THEN
			CASE WHEN m.body IS NULL THEN message_bus.stored_json(m.stored, message_bus.compression_name(m.encoding), m.size,
					m.content_type, m.sha256)
				ELSE message_bus.body_json(m.id) END
		END AS payload,
		NULL::text AS payload_text,
		m.size AS payload_size_bytes,
		CASE WHEN m.body IS NULL THEN message_bus.compression_name(m.encoding) END AS compression_type,
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
COMMENT ON COLUMN message_bus.message_bus.payload IS 'read only where it is selected; NULL where it is not JSON, was uploaded in parts and is over 1 MiB, does not match its checksum or has expired, and to who may audit the channel but not consume it';
COMMENT ON COLUMN message_bus.message_bus.compression_type IS 'NULL where the payload is over 1 MiB: each of its parts has its own';
COMMENT ON COLUMN message_bus.message_bus.compressed_size_bytes IS 'NULL where the payload is over 1 MiB';
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

CREATE FUNCTION message_bus.audit_restart(reason text) RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_audit_restart' LANGUAGE C STRICT
	SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION message_bus.audit_restart IS
'audit_restart: the log goes on under a new origin, which it returns, or begins, if a restore has brought only a part of one; for administrators. To be called when a disk was set back by a snapshot: what was shown since contradicts what comes, and must not come under the same name. The next entry, log, says what is continued, and commits to the reason, of at most 1000 bytes. Nothing is logged until the transaction ends. Errors: 22023 a reason that is too long, 25006 on a standby, 42501. NULL: there was only a part of a log, or its edge was damaged, and it is removed; another one begins.';

CREATE FUNCTION message_bus.audit_entry(id bigint, kind text DEFAULT 'message') RETURNS bytea
	AS 'MODULE_PATHNAME', 'mbus_audit_entry' LANGUAGE C;
COMMENT ON FUNCTION message_bus.audit_entry IS
'audit_entry: the exact bytes of the entry that the log has, or will have, of a message, by its id, or of an ack, failure, redrive, access or delete, by the number of the fact. It is made anew, and compared with the log if that has it. NULL where there is none that one may see: a message is for whom get() gives it to; a fact for whom may audit the channel of its message, or may consume it while get() gives him that message; for pg_monitor all of it, as long as the segment is there, and log, drop-segment and gap, of which NULL is the newest. What was changed, by the number that audit_log has: channel, subscription and purge, for who may consume or audit all of the channel; grant for its owner; keys for pg_monitor, as all of these. Errors: 42501, 22023; XX001 if what is stored is not what was logged.';

CREATE FUNCTION message_bus.audit_proof(id bigint, kind text DEFAULT 'message') RETURNS text
	AS 'MODULE_PATHNAME', 'mbus_audit_proof' LANGUAGE C;
COMMENT ON FUNCTION message_bus.audit_proof IS
'audit_proof: the proof that an entry is in the log, a tlog-proof of C2SP, of the newest checkpoint that a witness has cosigned if it covers the entry, else of the newest; "extra" has the entry, an empty line, and for each of its commitments a line "name salt value" that opens it, but for pg_monitor who could not read these values otherwise. Arguments and who may as for audit_entry. Errors: 42501, 22023; 55000 if no checkpoint covers it yet; XX001 if what is stored is not what was logged.';

CREATE FUNCTION message_bus.audit_consistency(old_size bigint, new_size bigint) RETURNS SETOF bytea
	AS 'MODULE_PATHNAME', 'mbus_audit_consistency' LANGUAGE C;
COMMENT ON FUNCTION message_bus.audit_consistency IS
'audit_consistency: the hashes that prove that the log of the first size is the beginning of that of the second (RFC 6962, 2.1.2); none if they are equal or the first is 0. Errors: 22023 if the second is above the newest checkpoint.';

CREATE FUNCTION message_bus.audit_lookup(entry bytea, OUT kind text, OUT number bigint, OUT logged boolean, OUT entry_index bigint,
	OUT status text, OUT at timestamp with time zone, OUT expires_at timestamp with time zone, OUT channel_id integer,
	OUT subscription_id integer, OUT role text, OUT size bigint, OUT content_type text, OUT attempt integer, OUT outcome text,
	OUT claimed_at timestamp with time zone)
	AS 'MODULE_PATHNAME', 'mbus_audit_lookup' LANGUAGE C STRICT;
COMMENT ON FUNCTION message_bus.audit_lookup IS
'audit_lookup: what an entry says, whose bytes the caller has (audit_entry() gave them, or the proof''s extra), and whether the log has exactly these: also when message and segment have gone. entry: at most 65,535 bytes.
number: the id of a message, else the number of the fact. logged: a checkpoint covers an entry of that number with the hash of these bytes; entry_index is its place. status: stored (its segment is there), dropped (it has gone), pruned (the log had an entry of that number, and its hash has been pruned: logged is NULL), unknown (the log has no such entry, or not with these bytes, or no checkpoint covers it yet, or all of it has been pruned). at: when it was published, or happened. size: of the payload, in bytes. NULL: what the entry does not say. Commitments are opened by audit_opening().
Everybody may call it: an entry has 16 random bytes, so only who has been given it has it. It is no proof; audit_proof() gives one while the message is there. Errors: 22023 it is no entry.';

CREATE FUNCTION message_bus.audit_opening(entry bytea, opening text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'mbus_audit_opening' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION message_bus.audit_opening IS
'audit_opening: whether a line "name salt value" (hex, base64) opens the commitment of that name in an entry: SHA-256(salt || value) is what the entry has. Of a payload the value is the 32 bytes of its SHA-256. It looks nothing up. opening: of at most 16 MiB. Errors: 22023 it is no entry, 54000.';

/*
 * Who did what.
 */

CREATE FUNCTION message_bus.audit_log_rows(since timestamp with time zone DEFAULT NULL, OUT no bigint,
	OUT at timestamp with time zone, OUT kind text, OUT what text, OUT channel text, OUT subscription text,
	OUT message_id bigint, OUT role text, OUT subject text, OUT session bigint, OUT details text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'mbus_audit_log_rows' LANGUAGE C STABLE COST 10000 ROWS 10000;
COMMENT ON FUNCTION message_bus.audit_log_rows IS
'audit_log_rows: the rows of the view audit_log from a time on (NULL: all), in no order. Changes are found by an index; facts of messages are read through, so that a short time saves memory and not all of the reading.';

CREATE VIEW message_bus.audit_log AS
	SELECT r.at, r.kind, r.what,
		COALESCE(r.channel, CASE WHEN r.kind OPERATOR(pg_catalog.=) 'channel' THEN
			r.details::pg_catalog.jsonb OPERATOR(pg_catalog.->>) 'name' END) AS channel,
		r.subscription, r.message_id, r.role, r.subject, r.session,
		r.details::pg_catalog.jsonb AS details, r.no
	FROM message_bus.audit_log_rows() r;
COMMENT ON VIEW message_bus.audit_log IS 'who did what, when: changes of channels, grants, subscriptions and keys, and what became of messages, as far as the current user may see it. Changes of a channel and its subscriptions, and facts: who may consume or audit all of its messages; grants: who owns it; all changes, also of dropped channels, keys, and what was done to the log: pg_monitor';
COMMENT ON COLUMN message_bus.audit_log.kind IS 'channel, grant, subscription, purge, keys; ack, failure, redrive, access, delete; log, drop-segment, gap. It is the kind of audit_entry() and audit_proof()';
COMMENT ON COLUMN message_bus.audit_log.what IS 'channel: created, altered, dropped; grant: granted, revoked; subscription: created, paused, resumed, moved (seek), dropped; purge: purged; keys: keys set, sessions ended; ack: acked, dead, kept, corrupt; failure: as view dead_letters has it; access: accessed; delete: deleted';
COMMENT ON COLUMN message_bus.audit_log.channel IS 'its name now; of one that was dropped the name that it had, where the row is about the channel itself, else NULL (details have the channel_id)';
COMMENT ON COLUMN message_bus.audit_log.subscription IS 'of facts; its name now. Of changes it is in the details';
COMMENT ON COLUMN message_bus.audit_log.message_id IS 'of an ack the first; details have the last (to_id) and how many';
COMMENT ON COLUMN message_bus.audit_log.details IS 'of a change: the row as it is behind it (of a drop: was before), without what is null, times in UTC. Of keys: kid, alg and SHA-256; of a secret that of bytes nobody is shown and the secret';
COMMENT ON COLUMN message_bus.audit_log.no IS 'number of the fact, for audit_entry() and audit_proof(); NULL of what has none yet';
CREATE FUNCTION message_bus.set_witnesses(vkeys text[]) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_set_witnesses' LANGUAGE C;
COMMENT ON FUNCTION message_bus.set_witnesses(text[]) IS
'set_witnesses: replaces the witnesses of the log, who cosign its checkpoints; for administrators. vkeys: verifier keys of C2SP''s tlog-cosignature, "name+id+key" with a key of algorithm 0x04, at most 15, each of another name; {} is none. Lines of who is no witness any more are kept and not shown. Errors: 22023 a key that cannot be used, 22004 NULL, 25006 read-only.';

CREATE FUNCTION message_bus.audit_cosign(size bigint, signature text) RETURNS void
	AS 'MODULE_PATHNAME', 'mbus_audit_cosign' LANGUAGE C;
COMMENT ON FUNCTION message_bus.audit_cosign(bigint, text) IS
'audit_cosign: keeps a witness'' signature of the checkpoint of that size: a line of C2SP''s tlog-cosignature, with or without its end, in place of an older one of the same witness; for pg_monitor. Errors: 22023 if it is not that of a witness (see set_witnesses) to a checkpoint of that size, 22004 NULL, 25006 read-only, 40001 the checkpoint has been thinned out meanwhile or is newer than the snapshot.';

CREATE FUNCTION message_bus.audit_verify(from_index bigint DEFAULT 0, to_index bigint DEFAULT NULL)
RETURNS TABLE (entry_index bigint, kind text, id bigint, segment_no integer, fault text)
	AS 'MODULE_PATHNAME', 'mbus_audit_verify' LANGUAGE C PARALLEL UNSAFE;
COMMENT ON FUNCTION message_bus.audit_verify(bigint, bigint) IS
'audit_verify: compares what is stored with the log and returns a row for each fault; none: all is well. For pg_monitor; can be cancelled; the view audit_progress shows how far it is. from_index, to_index: of the entries from the first on, up to but without the second (NULL: all); rows that are in no entry, and channels, are looked at only if that is the whole log.
entry_index: the entry, NULL where it is about none. kind, id: message, event, ack, failure or action, as the tables, and the number of the row; tile, checkpoint, cosignature, channel and what is its number; log: of its state. segment_no: whose row it is.
fault: payload (stored bytes and their SHA-256 differ, or cannot be read), changed (a row is not what was logged), removed (logged and not there), added (there, and not logged although all around it is), unreadable (a row, or NULL any row, of a table), segment (gone, and the log does not say so), tile (hashes do not have the hash above them, or are missing; rows are not compared with them), run (entries of which nothing says whose they are, or twice), checkpoint (root or signature are not those of the log), state (a channel is not as it was last changed, or there and dropped, or not there and not dropped; the log has another size than its state says, or no state). Errors: 22023 numbers that are no range, 55000 there is no log.';

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
	message_bus.tables_size(t.relids) AS size_bytes,
	s.log_fault
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
COMMENT ON COLUMN message_bus.segments.log_fault IS 'why some of its rows cannot be read, so that the log has no entries of them; NULL: all can be';

CREATE FUNCTION message_bus.body_store_use(store_no integer, OUT parts bigint, OUT bytes bigint, OUT held_bytes bigint)
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'mbus_body_store_use';
COMMENT ON FUNCTION message_bus.body_store_use IS
'body_store_use: how many parts a store has, their bytes as they were sent, and those of bodies that are held by messages; NULL if it has gone. It reads the rows of all parts, without their bytes.';

CREATE VIEW message_bus.body_stores AS
SELECT s.store_no, s.series, s.own,
	CASE WHEN s.own THEN 'own' WHEN s.closed_at IS NULL THEN 'open' ELSE 'closed' END AS state,
	s.opened_at, s.closed_at, s.expires_at,
	message_bus.tables_size(ARRAY[t.relid]) AS size_bytes,
	u.parts, u.bytes, u.held_bytes
FROM message_bus.body_store AS s
CROSS JOIN LATERAL (SELECT pg_catalog.to_regclass('message_bus.part_' OPERATOR(pg_catalog.||) s.store_no)::pg_catalog.oid) AS t (relid)
CROSS JOIN LATERAL message_bus.body_store_use(s.store_no) AS u;
COMMENT ON VIEW message_bus.body_stores IS
'The tables that large bodies lie in, in parts; one is dropped whole when nothing in it is wanted any more. It reads all rows of parts, without their bytes';
COMMENT ON COLUMN message_bus.body_stores.store_no IS 'number; the bodies'' numbers are store_no << 20 and up; the table is part_<store_no>';
COMMENT ON COLUMN message_bus.body_stores.series IS 'series of segments whose messages'' bodies it takes; 0: it is for one body';
COMMENT ON COLUMN message_bus.body_stores.own IS 'it is for one body, over message_bus.own_body_min or of unknown size, and goes with that; without parts: it was made ahead';
COMMENT ON COLUMN message_bus.body_stores.state IS 'open (takes bodies), closed, or own';
COMMENT ON COLUMN message_bus.body_stores.expires_at IS 'of one that is closed: when the last of its bodies expires that is not held';
COMMENT ON COLUMN message_bus.body_stores.size_bytes IS 'size on disk of its table, with index';
COMMENT ON COLUMN message_bus.body_stores.bytes IS 'of its parts, as they were sent';
COMMENT ON COLUMN message_bus.body_stores.held_bytes IS 'of bodies that are held: by messages of an own store, by dead letters and redriven messages, and by what was uploaded';

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
 * Health: a row for each check.  Another check is one more SELECT of its name, whether
 * it is an error, whether it is a warning, the figure, and what to do.
 */

CREATE VIEW message_bus.health_segment AS
	SELECT g.segment_no, g.opened_at, g.closed_at, g.expires_at, g.log_to, g.log_fault,
		EXISTS (SELECT FROM message_bus.unattached u WHERE u.segment_no OPERATOR(pg_catalog.=) g.segment_no) AS unattached
	FROM message_bus.segment g;
COMMENT ON VIEW message_bus.health_segment IS 'what health() looks at of segments; for pg_monitor';

CREATE VIEW message_bus.health_log AS
	SELECT st.size, st.facts_to, (SELECT pg_catalog.max(c.size) FROM message_bus.log_checkpoint c) AS covered,
		(SELECT pg_catalog.max(c.at) FROM message_bus.log_checkpoint c) AS covered_at
	FROM message_bus.log_state st;
COMMENT ON VIEW message_bus.health_log IS 'what health() looks at of the log; for pg_monitor';

CREATE FUNCTION message_bus.health() RETURNS TABLE (check_name text, state text, figure text, action text)
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
WITH w AS (SELECT * FROM message_bus.worker_status_row()),
s AS (
	SELECT g.*, (g.segment_no::bigint << 24) AS first_id,
		(SELECT count(*) FROM unnest(ARRAY['message_', 'event_', 'ack_', 'failure_']) AS t (name)
			WHERE to_regclass('message_bus.' || t.name || g.segment_no) IS NOT NULL) AS tables,
		to_regclass('message_bus.secret_' || g.segment_no) IS NOT NULL AS secret
	FROM message_bus.health_segment g),
l AS (
	SELECT g.*, COALESCE(current_setting('message_bus.log', true)::boolean, false) AS turned_on,
		COALESCE(current_setting('message_bus.log_interval', true)::interval, '10 seconds') AS every
	FROM (SELECT) AS one LEFT JOIN message_bus.health_log g ON true),
-- what is not logged: ids below what is reserved, and numbers of facts, of this epoch
behind AS (
	SELECT (SELECT COALESCE(sum(GREATEST(0, s.first_id + o.rows_reserved - COALESCE(s.log_to, s.first_id))), 0)
			FROM message_bus.open_segments() o JOIN s ON s.segment_no = o.segment_no)
		+ CASE WHEN (SELECT w.ready FROM w) AND current_database() = ANY (message_bus.listed_databases()) THEN (SELECT LEAST(GREATEST(0, n.next - COALESCE(l.facts_to, 0)), n.next & 4294967295)
			FROM message_bus.fact_numbers(0) AS n, l) ELSE 0 END AS entries),
e AS (
	SELECT count(*) AS n,
		count(*) FILTER (WHERE left(x.sqlstate, 2) = ANY (ARRAY['53', '58', 'XX']) AND x.function <> 'errors') AS grave
	FROM message_bus.errors x
	WHERE x.at > clock_timestamp() - interval '1 hour'),
checks (name, error, warning, figure, action) AS (
	SELECT 'publishing', message_bus.bus_fault() IS NOT NULL AND NOT pg_is_in_recovery(), false, COALESCE(message_bus.bus_fault(), 'possible'),
		'Do what the figure says is missing; the README''s section on operating tells of each.'
	UNION ALL
	SELECT 'worker', NOT EXISTS (SELECT FROM w WHERE w.pid IS NOT NULL) AND NOT pg_is_in_recovery(),
		EXISTS (SELECT FROM w WHERE w.last_pass_at < clock_timestamp() - GREATEST(interval '10 seconds',
			interval '3 milliseconds' * w.interval_ms)),
		(SELECT format('pid %s, last pass %s', w.pid, w.last_pass_at) FROM w),
		'See that the database is in message_bus.databases and the library preloaded; look into the server''s log.'
	UNION ALL
	SELECT 'worker errors', false, EXISTS (SELECT FROM w WHERE w.last_error_at > clock_timestamp() - interval '1 hour'),
		(SELECT CASE WHEN w.errors > 0 THEN format('%s since the start, the last at %s: %s', w.errors, w.last_error_at, w.last_error) ELSE '0' END FROM w),
		'A task of the worker has failed in the last hour and is tried again; if it goes on, remove the cause that the figure names.'
	UNION ALL
	SELECT 'disk', EXISTS (SELECT FROM w WHERE w.disk_full_since IS NOT NULL), false,
		(SELECT COALESCE('full since ' || w.disk_full_since::text, 'there is room for message_bus.disk_reserve') FROM w),
		'Make room: nothing is published until then.'
	UNION ALL
	SELECT 'numbers', EXISTS (SELECT FROM w WHERE GREATEST(w.segments_used, w.epochs_used) >= 95),
		EXISTS (SELECT FROM w WHERE GREATEST(w.segments_used, w.epochs_used) >= 80),
		(SELECT format('%s %% of the segments'' numbers, %s %% of the epochs', round(w.segments_used::numeric, 2), round(w.epochs_used::numeric, 2)) FROM w),
		'Move to a new database before they are used up.'
	UNION ALL
	SELECT 'node', false, EXISTS (SELECT FROM w WHERE w.warning IS NOT NULL), (SELECT COALESCE(w.warning, 'node ' || w.node::text) FROM w),
		'Set message_bus.node to that of the database, and restart.'
	UNION ALL
	SELECT 'clock', false, message_bus.clock_off() IS NOT NULL, COALESCE(message_bus.clock_off()::text, '0'),
		'Set the server''s clock right, or, if it is, call clock_accept().'
	UNION ALL
	SELECT 'databases', false, count(*) > 0, COALESCE(string_agg(n, ', '), '0'),
		'message_bus.databases names what is no database; take the names out.'
	FROM unnest(message_bus.listed_databases()) AS n
	WHERE NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = n)
	UNION ALL
	SELECT 'segments', count(*) FILTER (WHERE s.tables < 4) > 0, false,
		format('%s, %s without all of their tables', count(*), count(*) FILTER (WHERE s.tables < 4)),
		'Tables of segments were dropped by hand; restore them from a backup, or let the segment expire.'
	FROM s
	UNION ALL
	SELECT 'unattached', false, count(*) > 0, count(*)::text,
		'Something holds a lock on message_bus.message or its like; these segments are in use all the same.'
	FROM s WHERE s.unattached
	UNION ALL
	SELECT 'restores', false, count(*) FILTER (WHERE v.state = 'foreign') > 0,
		count(*) FILTER (WHERE v.state = 'foreign')::text,
		'These segments were restored without their channels: restore the rest of the dump, or drop their tables.'
	FROM message_bus.segments v
	UNION ALL
	SELECT 'retiring', false, count(*) > 0,
		CASE WHEN count(*) = 0 THEN '0' ELSE format('%s segments expired more than 5 minutes ago, %s of them not logged, the oldest snapshot is %s old',
			count(*), count(*) FILTER (WHERE (SELECT l.turned_on FROM l) AND COALESCE(s.log_to < s.first_id + 16777216, true)),
			(SELECT COALESCE(max(clock_timestamp() - a.xact_start), interval '0') FROM pg_stat_activity a WHERE a.backend_xmin IS NOT NULL)) END,
		'End old transactions and readers; where segments are not logged see the check log.'
	FROM s WHERE s.closed_at IS NOT NULL AND s.expires_at < message_bus.clock() - interval '5 minutes'
	UNION ALL
	SELECT 'secrets', count(*) FILTER (WHERE NOT s.secret AND s.tables > 0) > 0, false,
		count(*) FILTER (WHERE NOT s.secret AND s.tables > 0)::text,
		'The log cannot take in segments whose secret is missing: restore the tables secret_<n> with the rest of the dump.'
	FROM s
	UNION ALL
	SELECT 'log', false, l.turned_on AND (behind.entries > 1000000
			OR l.size > COALESCE(l.covered, 0) AND COALESCE(l.covered_at < clock_timestamp()
				- (interval '10 seconds' + 3 * l.every), false)
			OR behind.entries > 0 AND COALESCE(l.covered_at < clock_timestamp() - (interval '10 minutes' + 3 * l.every), false)
			OR l.size IS NULL AND EXISTS (SELECT FROM s WHERE s.opened_at < clock_timestamp() - interval '1 minute')),
		CASE WHEN NOT l.turned_on THEN 'off' ELSE format('%s entries, %s to be logged, the newest checkpoint of %s', COALESCE(l.size, 0), behind.entries, COALESCE(l.covered_at::text, 'never')) END,
		'The log is behind: see the check worker errors for what stops it. Segments that are not logged are not dropped.'
	FROM l, behind
	UNION ALL
	SELECT 'log faults', false, count(*) > 0, COALESCE(string_agg(format('segment %s: %s', f.segment_no, f.log_fault), ', '), '0'),
		'The log leaves out what cannot be read of these segments: restore their tables, or wait for their TTL.'
	FROM (SELECT * FROM s WHERE s.log_fault IS NOT NULL ORDER BY s.segment_no LIMIT 5) AS f
	UNION ALL
	SELECT 'pools', false, count(*) > 0,
		COALESCE(string_agg(format('%s%s: %s of %s', p.pool, ' in ' || p.channel, p.held, p.may_hold), ', '), '0'),
		'See the view pools for who holds them; raise message_bus.max_leases, or have consumers claim less at a time.'
	FROM (SELECT * FROM message_bus.pools x WHERE x.held > 0 AND x.role IS NULL AND x.session IS NULL
		AND x.held::bigint * 10 >= x.may_hold::bigint * 8 ORDER BY x.held DESC LIMIT 5) AS p
	UNION ALL
	SELECT 'dead letters', false, count(*) > 0, COALESCE(string_agg(c.said, ', '), '0'),
		'Dead letters of these channels stay in place: make the dead-letter channel again, or grant the channel''s owner to publish there.'
	FROM (SELECT format('%s (%s)', x.channel, x.dead_letter_state) AS said FROM message_bus.channels x
		WHERE x.dead_letter_state = ANY (ARRAY['dropped', 'denied']) ORDER BY x.channel LIMIT 5) AS c
	UNION ALL
	SELECT 'errors', false, e.grave > 0, format('%s in the last hour, %s of them of the server', e.n, e.grave),
		'See the view errors: SQLSTATE 53 is something full, 58 and XX are damage.'
	FROM e
	UNION ALL
	SELECT 'quarantine', count(*) > 0, false, count(*)::text,
		'Stored messages are damaged: see the view quarantined, and the machine''s disks and memory. Who has repaired one calls scrub_message().'
	FROM message_bus.quarantined
	UNION ALL
	SELECT 'checksums', false, c.value > 0, c.value::text,
		'Since the server''s start stored bytes did not match their checksum: see the view errors, function verify, audit_verify(), and the machine''s disks and memory.'
	FROM message_bus.counters() AS c WHERE c.metric = 'checksum_failures_total'
)
SELECT c.name, CASE WHEN c.error THEN 'error' WHEN c.warning THEN 'warning' ELSE 'ok' END,
	COALESCE(c.figure, 'unknown'), CASE WHEN c.error OR c.warning THEN c.action END
FROM checks c
$$;
COMMENT ON FUNCTION message_bus.health() IS
'health: a row for each check of this database. check_name: what is looked at. state: ok, warning or error. figure: what was found. action: what to do; NULL where all is well. A standby needs no worker and is well without. It reads the catalog and memory, not messages. For pg_monitor. Errors: 42501.';

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

CREATE FUNCTION message_bus.rotate_body_keys() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mbus_rotate_body_keys';
COMMENT ON FUNCTION message_bus.rotate_body_keys() IS
'rotate_body_keys: replaces the secret that body_url and the tickets of downloads are made with, and returns the new one''s number; for administrators.
From its commit on every link that was made before is refused, and downloads that are under way end short.
Errors: 25006 read-only.';

CREATE FUNCTION message_bus.body_url(id bigint, valid_for interval DEFAULT '1 hour') RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mbus_body_url';
COMMENT ON FUNCTION message_bus.body_url(bigint, interval) IS
'body_url: a URL of a gateway''s HTTP door, with which whoever has it can read this one message; NULL if there is no such message. For who may consume its channel.
id: of the message. valid_for: how long, at most message_bus.body_url_max; rounded up so that links of one minute are the same. It begins with message_bus.body_url_prefix, or with /v1/ if that is empty.
It ends before that when the message is gone, the role that made it may not consume the channel any more or is dropped, or rotate_body_keys() is called. In a channel with visibility "subject" the maker must see the message when he makes it. Tell it like a password: it is in browsers'' histories and proxies'' logs.
Errors: 22023 valid_for, 42501 no privilege, 55000 there is no key.';

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
	message_bus.get_bytes, message_bus.body_url, message_bus.peek, message_bus.store_message, message_bus.retrieve_message,
	message_bus.delete_message, message_bus.record_event, message_bus.may, message_bus.role_of,
	message_bus.role_number, message_bus.role_missing, message_bus.stored_json, message_bus.body_json, message_bus.json_text,
	message_bus.compression_name,
	message_bus.claim, message_bus.claim_bytes, message_bus.ack, message_bus.nack, message_bus.extend,
	message_bus.release_lease,
	message_bus.upload_begin, message_bus.upload_append, message_bus.upload_status, message_bus.upload_commit,
	message_bus.upload_abort, message_bus.upload_rows TO PUBLIC;
GRANT EXECUTE ON PROCEDURE message_bus.wait TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.id_node, message_bus.lease_node TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.gateway_fault TO PUBLIC;	-- tells of the caller's login
GRANT EXECUTE ON FUNCTION message_bus.bus_fault TO PUBLIC;		-- tells gateways only
GRANT SELECT ON message_bus.channels, message_bus.grants, message_bus.messages, message_bus.subscriptions, message_bus.leases,
	message_bus.dead_letters, message_bus.quarantined, message_bus.uploads TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.scrub, message_bus.scrub_message, message_bus.is_quarantined,
	message_bus.quarantine_rows TO PUBLIC;
GRANT SELECT ON message_bus.scrub_status, message_bus.latency TO pg_monitor;
GRANT EXECUTE ON FUNCTION message_bus.scrub_status_row, message_bus.latency_rows, message_bus.metrics_text TO pg_monitor;
GRANT SELECT ON message_bus.channel_metrics TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.channel_counters TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.channel_rows, message_bus.subscription_rows, message_bus.death_rows,
	message_bus.message_rows, message_bus.dead_letter_target TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.subscription_status, message_bus.expired_status, message_bus.subscription_expired, message_bus.subscription_lag,
	message_bus.lease_rows, message_bus.clock, message_bus.clock_off, message_bus.delivery_status,
	message_bus.last_access TO PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON message_bus.message_bus TO PUBLIC;
-- lives: the C functions among these look at rights themselves, the others have the caller's
GRANT EXECUTE ON FUNCTION message_bus.trace, message_bus.trace_transaction, message_bus.message_rows_kept, message_bus.fact_rows,
	message_bus.life_ids, message_bus.copy_of, message_bus.life_events, message_bus.refusal_rows,
	message_bus.failure_ids, message_bus.failures TO PUBLIC;
GRANT SELECT ON message_bus.deliveries TO PUBLIC;
GRANT SELECT ON message_bus.errors, message_bus.metrics, message_bus.segments, message_bus.body_stores, message_bus.worker_status,
	message_bus.pools, message_bus.health_segment, message_bus.health_log,
	message_bus.audit_progress TO pg_monitor;
GRANT EXECUTE ON FUNCTION message_bus.audit_entry, message_bus.audit_proof, message_bus.audit_lookup,
	message_bus.audit_opening, message_bus.audit_log_rows TO PUBLIC;
GRANT SELECT ON message_bus.audit_log TO PUBLIC;
GRANT EXECUTE ON FUNCTION message_bus.audit_checkpoint, message_bus.audit_key, message_bus.audit_consistency,
	message_bus.audit_cosign, message_bus.audit_verify, message_bus.verifying,
	message_bus.counters, message_bus.expired_total, message_bus.pool_rows, message_bus.open_segments, message_bus.body_store_use,
	message_bus.tables_size, message_bus.worker_status_row, message_bus.fact_numbers, message_bus.health,
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
SELECT pg_catalog.pg_extension_config_dump('message_bus.body_store', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.body_hold', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.body_moved', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.upload', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.upload_end', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.upload_hash', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.log_state', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.log_tile', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.log_run', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.log_gone', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.log_tile_look', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.log_action', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.log_checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.error', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.log_witness', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.jwt_key', '');
SELECT pg_catalog.pg_extension_config_dump('message_bus.session_end', '');
