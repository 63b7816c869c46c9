/*
 * payload.h
 *		Payload bytes: checksum, compression, JSON.
 */
#ifndef MBUS_PAYLOAD_H
#define MBUS_PAYLOAD_H

#include "postgres.h"

#include "base/sha256.h"

#define MBUS_PAYLOAD_MAX (512 * 1024 * 1024)	/* bytes, whatever is set */
#define MBUS_WHOLE_MAX	(1024 * 1024 * 1024 - 64)	/* that are one value */

typedef enum MbusCompression
{
	MBUS_COMPRESS_NONE,
	MBUS_COMPRESS_LZ4,
	MBUS_COMPRESS_ZSTD,
	MBUS_COMPRESS_GZIP,
	MBUS_COMPRESS_UNKNOWN		/* of a row that was damaged */
} MbusCompression;

/* the content type that is stored as NULL */
#define MBUS_CONTENT_JSON	"application/json"

extern bool mbus_compression_known(const char *name);
extern MbusCompression mbus_compression_parse(const char *name);
extern char mbus_compression_code(MbusCompression compression);
extern MbusCompression mbus_compression_of(char code);

extern struct varlena *mbus_payload_alloc(size_t len);
extern struct varlena *mbus_payload_encode(MbusCompression compression,
										   struct varlena *payload,
										   MbusCompression *used);
extern struct varlena *mbus_payload_decode(struct varlena *stored,
										   MbusCompression used, int64 size);
extern bool mbus_content_is_json(const char *content_type);
extern void mbus_json_check(struct varlena *payload);

#endif							/* MBUS_PAYLOAD_H */
