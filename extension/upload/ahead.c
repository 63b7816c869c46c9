/*
 * ahead.c
 *		Hashing on while a body comes.
 *
 * Who appends beside others does not see the part before his own, as long as
 * its transaction has not ended, and cannot store a state: frames of a gateway
 * come so, on two connections.  That would leave the whole body to be hashed
 * by the commit.  So who did not see it hashes on from the last part whose
 * state is known over the parts that are there by then, PARTS_MAX of them, and
 * notes the state in upload_hash.  The next goes on from there.
 *
 * One at a time, by a lock that is taken or not: nobody waits, and no two
 * note the same.  The note is of the transaction that may have written parts
 * it is about, and goes with them.
 */
#include "postgres.h"

#include "body/hash.h"
#include "body/part.h"
#include "body/read.h"
#include "upload/extent.h"
#include "upload/upload.h"

#define PARTS_MAX	64			/* that are read in one call */

static int32 ahead_end(const MbusBody *body, Snapshot snapshot, int32 *known,
					   uint8 *state);

/*
 * mbus_upload_hash_ahead hashes on, as far as the parts are there.
 */
void
mbus_upload_hash_ahead(Oid schema, const MbusBody *body, Snapshot snapshot)
{
	uint8		state[MBUS_SHA256_BYTES];
	MbusBodyHash hash;
	int32		known;
	int32		end;

	if (!mbus_upload_lock_hash(body->body))
		return;
	known = mbus_upload_hashed(schema, body->body, state);
	end = ahead_end(body, snapshot, &known, state);
	if (end == known + 1)
		return;
	mbus_upload_hash_resume(&hash, known, state);
	for (int32 n = known + 1; n < end; n++)
	{
		struct varlena *bytes = mbus_part_read(body, n, MBUS_PART_BYTES, true);

		if (bytes == NULL)
			return;				/* the commit says so */
		mbus_body_hash_part(&hash, VARDATA_ANY(bytes), MBUS_PART_BYTES);
		pfree(bytes);
	}
	mbus_body_hash_state(&hash, state);
	mbus_upload_hash(schema, body->body, end - 1, state);
}

/*
 * ahead_end finds the last part whose state is known, and returns the one
 * behind those that follow on it.
 */
static int32
ahead_end(const MbusBody *body, Snapshot snapshot, int32 *known, uint8 *state)
{
	int32		end = *known + 1;
	const MbusPart *part;
	MbusWalk	walk;

	mbus_walk_begin(&walk, body, end, snapshot);
	while (end - *known <= PARTS_MAX &&
		   (part = mbus_walk_next(&walk)) != NULL && part->n == end &&
		   part->size == MBUS_PART_BYTES)
	{
		if (part->has_state)
		{
			*known = end;
			memcpy(state, part->state, MBUS_SHA256_BYTES);
		}
		end++;
	}
	mbus_walk_end(&walk);
	return end;
}

/*
 * mbus_upload_hash_resume begins a hash behind a part, -1: at the beginning.
 */
void
mbus_upload_hash_resume(MbusBodyHash *hash, int32 known, const uint8 *state)
{
	if (known < 0)
		mbus_body_hash_begin(hash);
	else
		mbus_body_hash_resume(hash, state,
							  ((int64) known + 1) * MBUS_PART_BYTES);
}
