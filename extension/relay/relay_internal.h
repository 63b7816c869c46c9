/*
 * relay_internal.h
 *		A frame on its way; shared by relay.c and guard.c.
 */
#ifndef MBUS_RELAY_INTERNAL_H
#define MBUS_RELAY_INTERNAL_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

#include "base/compat.h"
#include "base/json_slice.h"
#include "base/settings.h"
#include "door/door.h"
#include "relay/rpc.h"

/* One frame on its way; lives in the frame's context. */
typedef struct MbusRelayed
{
	const char *bytes;
	int			len;
	TimestampTz deadline;		/* 0: none */
	MbusFrame	frame;
	MbusNode	root;
	bool		read;			/* root is the whole frame */
	int			code;			/* of its first error; 0: none */
	int			sqlstate;
	int			nleases;		/* that its reply tells */
	int64		leases[MBUS_RELAY_FRAMES_MAX];
	const MbusNode *element;	/* of a batch, that runs now */
	int			reserve;		/* bytes kept for the elements behind it */
	MbusRequest request;		/* as far as it could be read */
	StringInfoData out;
	bool		binary;			/* the reply is a binary frame */
	bool		control;		/* the frame and its reply are control frames */
	MbusDoor   *door;			/* it is one of the HTTP door; else NULL */
	StringInfoData told;		/* control frame beside the reply, if any */
	Oid			role;			/* that it ran as, if it came so far */
	char	   *subject;		/* of its session then; NULL: none */
	List	   *notices;		/* StringInfo: frames behind the reply */
} MbusRelayed;

/* Whether all frames run as one role, whatever their session is. */
static inline bool
mbus_relay_of_one(void)
{
	return mbus_relay_role && mbus_relay_role[0] != '\0';
}

typedef void (*MbusRelayStep) (MbusRelayed *relayed);

/* guard.c */
extern bool mbus_guard_run(MbusRelayStep step, MbusRelayed *relayed);
extern void mbus_guard_init(void);
extern void mbus_guard_call(void);
extern void mbus_guard_frame(void);
extern void mbus_guard_time_out(void);
extern void mbus_guard_whose(MbusRelayed *relayed);

/* early.c */
extern bool mbus_early_needs(const MbusFrame *frame);
extern void mbus_early_check(const MbusFrame *frame);

/* over_limit.c */
extern bool mbus_is_over_limit(const char *bytes, int len);
pg_noreturn extern void mbus_over_limit(MbusRelayed *relayed);

#endif							/* MBUS_RELAY_INTERNAL_H */
