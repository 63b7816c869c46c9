/*
 * write.h
 *		Writes a body that is in memory.
 */
#ifndef MBUS_BODY_WRITE_H
#define MBUS_BODY_WRITE_H

#include "postgres.h"

#include "base/payload.h"
#include "body/body.h"

extern void mbus_body_write(const MbusBody *body, MbusCompression compression,
							const char *bytes, int64 size, uint8 *sha256);

#endif							/* MBUS_BODY_WRITE_H */
