/*
 * part.h
 *		Rows of a table of parts.
 */
#ifndef MBUS_PART_H
#define MBUS_PART_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "base/payload.h"
#include "body/body.h"
#include "body/part_row.h"

typedef struct MbusPartWriter MbusPartWriter;

extern MbusPartWriter *mbus_part_writer(const MbusBody *body,
										MbusCompression compression);
extern void mbus_part_write(MbusPartWriter *writer, const MbusPart *part,
							const char *bytes);
extern void mbus_part_writer_end(MbusPartWriter *writer);

extern bool mbus_part_find(const MbusBody *body, int32 n, Snapshot snapshot,
						   MbusPart *part);
extern int	mbus_parts_list(const MbusBody *body, int32 from,
							Snapshot snapshot, MbusPart *parts, int max);
extern bool mbus_part_last(const MbusBody *body, Snapshot snapshot,
						   MbusPart *part);
extern bool mbus_parts_since(const MbusBody *body, TimestampTz since);
extern TimestampTz mbus_parts_last_at(const MbusBody *body);

#endif							/* MBUS_PART_H */
