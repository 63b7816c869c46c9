/*
 * peer.sql
 *		Makes the empty queue table that messages are compared with: columns,
 *		indexes and statements are those of pgmq 1.5.
 *
 * The statements are in plpgsql without the name of the queue as a parameter,
 * so that they are planned once in a session, not in each call.
 *
 * "plain" is a bare table: what one INSERT of a row with a key costs at least.
 */
DROP SCHEMA IF EXISTS peer CASCADE;
CREATE SCHEMA peer;

CREATE TABLE peer.queue (
	msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	read_ct integer NOT NULL DEFAULT 0,
	enqueued_at timestamp with time zone NOT NULL DEFAULT now(),
	vt timestamp with time zone NOT NULL,
	message jsonb
);
CREATE INDEX ON peer.queue (vt);

CREATE FUNCTION peer.send_batch(messages jsonb[], delay interval DEFAULT '0')
	RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
	visible timestamp with time zone := clock_timestamp() + delay;
BEGIN
	RETURN QUERY
		INSERT INTO peer.queue (vt, message)
		SELECT visible, unnest(messages)
		RETURNING msg_id;
END
$$;

CREATE FUNCTION peer.read(for_seconds integer, most integer)
	RETURNS SETOF peer.queue LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY
		WITH taken AS (
			SELECT q.msg_id FROM peer.queue q
			WHERE q.vt <= clock_timestamp()
			ORDER BY q.msg_id
			LIMIT most
			FOR UPDATE SKIP LOCKED)
		UPDATE peer.queue q
		SET vt = clock_timestamp() + make_interval(secs => for_seconds),
			read_ct = q.read_ct + 1
		FROM taken WHERE q.msg_id = taken.msg_id
		RETURNING q.*;
END
$$;

CREATE FUNCTION peer.remove(ids bigint[])
	RETURNS SETOF bigint LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY
		DELETE FROM peer.queue q WHERE q.msg_id = ANY (ids)
		RETURNING q.msg_id;
END
$$;

CREATE TABLE peer.plain (
	id bigint PRIMARY KEY,
	at timestamp with time zone NOT NULL,
	payload bytea NOT NULL
);
