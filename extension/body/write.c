/*
 * write.c
 *		Writes a body that is in memory.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "base/sha256.h"
#include "body/hash.h"
#include "body/part.h"
#include "body/write.h"
#include "state/clock.h"

/*
 * mbus_body_write writes all parts of a new body, and gives the hash of the
 * whole.
 */
void
mbus_body_write(const MbusBody *body, MbusCompression compression,
				const char *bytes, int64 size, uint8 *sha256)
{
	MbusPartWriter *writer = mbus_part_writer(body, compression);
	MbusPart	part = {.at = mbus_now(),.has_state = true};
	MbusBodyHash hash;

	mbus_body_hash_begin(&hash);
	for (int64 at = 0; at < size; at += part.size, part.n++)
	{
		CHECK_FOR_INTERRUPTS();
		part.size = (int32) Min(size - at, MBUS_PART_BYTES);
		mbus_sha256(bytes + at, part.size, part.sha256);
		mbus_body_hash_next(&hash, bytes + at, part.size, part.state);
		mbus_part_write(writer, &part, bytes + at);
	}
	mbus_part_writer_end(writer);
	mbus_body_hash_end(&hash, sha256);
}
