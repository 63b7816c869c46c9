/*
 * queue_indexed.sql
 *		The queue table as most make it: with an index on the visibility time.
 *
 * "done" is what the kind "plain" of take.c writes to.
 */
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.queue (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	visible_at timestamp with time zone NOT NULL DEFAULT now(),
	created_at timestamp with time zone NOT NULL DEFAULT now(),
	attempts integer NOT NULL DEFAULT 0,
	payload bytea NOT NULL
) WITH (
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
	autovacuum_vacuum_insert_threshold = -1,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000,
	autovacuum_vacuum_cost_delay = 0);
CREATE INDEX ON bench.queue (visible_at);
CREATE TABLE bench.done (
	lo bigint NOT NULL,
	hi bigint NOT NULL
);
