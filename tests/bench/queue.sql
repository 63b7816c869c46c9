/*
 * queue.sql
 *		The base of the delivery benches: a queue table as a careful user
 *		would make it.
 *
 * Claims go by the primary key and filter by visible_at, which no index has:
 * so an UPDATE of it writes no index entry (fillfactor leaves the room that
 * takes) and what is claimed but not yet deleted costs a look at its row.  An
 * index on visible_at was slower in every bench.
 */
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.queue (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	visible_at timestamp with time zone NOT NULL DEFAULT now(),
	created_at timestamp with time zone NOT NULL DEFAULT now(),
	attempts integer NOT NULL DEFAULT 0,
	payload bytea NOT NULL
) WITH (fillfactor = 50,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
	autovacuum_vacuum_insert_threshold = -1,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000,
	autovacuum_vacuum_cost_delay = 0);
