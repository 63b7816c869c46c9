/*
 * channel.h
 *		Channels as publishers and readers see them.
 */
#ifndef MBUS_CHANNEL_H
#define MBUS_CHANNEL_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"

#include "base/limits.h"
#include "base/payload.h"

typedef enum MbusPrivilege
{
	MBUS_PUBLISH = 1,
	MBUS_CONSUME = 2,
	MBUS_AUDIT = 4,				/* to see all but payloads */
	MBUS_SEE = MBUS_CONSUME | MBUS_AUDIT,	/* one of these */
	MBUS_ALL_SUBJECTS = 8,		/* messages of all, where a channel keeps
								 * subjects apart */
	MBUS_WHOLE = 16,			/* not granted: with others, for a channel
								 * whose messages one may see all */
	MBUS_CLAIM = MBUS_CONSUME | MBUS_WHOLE,
	MBUS_SEE_WHOLE = MBUS_SEE | MBUS_WHOLE
} MbusPrivilege;

typedef struct MbusGrant
{
	Oid			grantee;
	int			privileges;		/* of MbusPrivilege */
} MbusGrant;

/* A channel's row; borrowed from the backend's cache, see channel.c. */
typedef struct MbusChannel
{
	int32		channel_id;
	Oid			owner;
	int32		series;
	int64		ttl_us;
	int64		max_payload;	/* bytes; 0: no limit of its own */
	MbusCompression compression;
	bool		record_reads;	/* each is a row of message_bus.event */
	bool		by_subject;		/* visibility: see visibility.c */
	int			ngrants;
	MbusGrant  *grant;
	char		name[MBUS_CHANNEL_NAME_MAX + 1];
} MbusChannel;

/* A channel's policy on deliveries; borrowed, as MbusChannel. */
typedef struct MbusPolicy
{
	int32		max_attempts;
	int64		lease_us;		/* not above the next */
	int64		max_lease_us;
	int64		backoff_us;
	int64		backoff_max_us;
	bool		acked;			/* retention */
	int64		purged_to;		/* ids at or below are gone, but for kept */
	int			nkept;			/* of pairs */
	const int64 *kept;			/* lo, behind the last */
	bool		dead_letters;	/* it has a channel for them ... */
	int32		dead_letter_id; /* ... which may have been dropped */
} MbusPolicy;

extern void mbus_channel_init(void);
extern const MbusChannel *mbus_channel_by_name(Oid schema, const char *name);
extern const MbusChannel *mbus_channel_named(Oid schema, text *name);
extern const MbusChannel *mbus_channel_by_id(Oid schema, int32 channel_id);
extern bool mbus_channel_allows(const MbusChannel *channel,
								MbusPrivilege privilege);
extern bool mbus_channel_allows_role(const MbusChannel *channel, Oid role,
									 MbusPrivilege privilege);
extern bool mbus_channel_any(Oid schema);
extern bool mbus_monitors(void);
extern void mbus_channel_check(const MbusChannel *channel,
							   MbusPrivilege privilege);
extern const MbusChannel *mbus_channel_open(Oid schema, text *name,
											MbusPrivilege privilege);
extern void mbus_channel_lease_check(Oid schema, int32 channel_id,
									 int64 lease_us);
extern const MbusPolicy *mbus_channel_policy(Oid schema, int32 channel_id);

#endif							/* MBUS_CHANNEL_H */
