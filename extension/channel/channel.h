/*
 * channel.h
 *		Channels as publishers and readers see them.
 */
#ifndef MBUS_CHANNEL_H
#define MBUS_CHANNEL_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"

#include "base/payload.h"

#define MBUS_CHANNEL_NAME_MAX 255	/* bytes */

typedef enum MbusPrivilege
{
	MBUS_PUBLISH = 1,
	MBUS_CONSUME = 2
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
	int			ngrants;
	MbusGrant  *grant;
	char		name[MBUS_CHANNEL_NAME_MAX + 1];
} MbusChannel;

extern void mbus_channel_init(void);
extern const MbusChannel *mbus_channel_by_name(Oid schema, const char *name);
extern const MbusChannel *mbus_channel_by_id(Oid schema, int32 channel_id);
extern bool mbus_channel_allows(const MbusChannel *channel,
								MbusPrivilege privilege);
extern void mbus_channel_check(const MbusChannel *channel,
							   MbusPrivilege privilege);
extern const MbusChannel *mbus_channel_open(Oid schema, text *name,
											MbusPrivilege privilege);
extern Oid	mbus_schema(void);
extern Oid	mbus_relation(Oid schema, const char *name);

/* channel_admin.c: what administration shares */
extern text *mbus_required_text(FunctionCallInfo fcinfo, int argno,
								const char *name);
extern void mbus_name_check(const char *kind, const char *name);
extern const MbusChannel *mbus_channel_owned(Oid schema, text *name);
extern int	mbus_run_as_owner(Oid schema, const char *command, int nargs,
							  const Oid *types, Datum *values,
							  const char *nulls);

/* time to live */
extern int64 mbus_interval_us(const Interval *interval);
extern int32 mbus_series_for_ttl(int64 ttl_us);
extern int32 mbus_own_series(void);
extern int64 mbus_series_window_us(int32 series);
extern int64 mbus_ttl_check(const Interval *interval);

#endif							/* MBUS_CHANNEL_H */
