/*
 * acked_read.h
 *		A segment of a channel with retention "acked" that is looked at.
 *
 * Shared by acked.c, which decides, and acked_read.c, which reads.
 */
#ifndef MBUS_ACKED_READ_H
#define MBUS_ACKED_READ_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "channel/channel.h"

/* A message's last redrive. */
typedef struct MbusRedriven
{
	int64		id;
	int64		lease;
} MbusRedriven;

/* A subscription of the channel. */
typedef struct MbusReader
{
	int32		subscription_id;
	int64		start_id;
	TimestampTz start_at;
	int64		since_lease;
	uint8	   *acked;			/* bitmap of the segment's rows */
	int			nredriven;
	int			maxredriven;
	MbusRedriven *redriven;		/* by ascending id */
} MbusReader;

/* A segment that is looked at. */
typedef struct MbusLook
{
	Oid			schema;
	int32		segment;
	int32		channel_id;
	const MbusPolicy *policy;	/* NULL: the channel has gone */
	int64		first;
	int64		last;			/* highest id in it */
	Snapshot	snapshot;
	TimestampTz now;
	uint8	   *deleted;		/* bitmap */
	int			nreaders;
	MbusReader *reader;
} MbusLook;

/* Why a segment was not let go when it was last read. */
typedef struct MbusWanted
{
	int32		segment;
	int32		subscription_id;	/* 0: another channel's */
	int64		id;
	TimestampTz created_at;
	TimestampTz expires_at;
} MbusWanted;

/* acked_read.c */
extern bool mbus_still_wanted(const MbusLook *look, const MbusWanted *why);
extern bool mbus_wanted_read(const MbusLook *look, MbusWanted *why);

#endif							/* MBUS_ACKED_READ_H */
