/*
 * queue_indexed.sql
 *		Makes the empty queue table of queue.sql the one that most have: with
 *		an index on the visibility time and no fillfactor.
 *
 * "done" is what the kind "plain" of take.c writes to.
 */
ALTER TABLE bench.queue RESET (fillfactor);
CREATE INDEX ON bench.queue (visible_at);
CREATE TABLE bench.done (
	lo bigint NOT NULL,
	hi bigint NOT NULL
);
