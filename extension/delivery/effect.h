/*
 * effect.h
 *		The list of what an open transaction has done to entries.
 *
 * Shared by effect.c, which keeps it and ends it with the transaction, and
 * hold.c, which takes hold of a lease's entries.
 */
#ifndef MBUS_EFFECT_H
#define MBUS_EFFECT_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef enum EffectKind
{
	EFFECT_CLAIM,
	EFFECT_PIN,
	EFFECT_SEEK,
	EFFECT_DROP,
	EFFECT_WAKE,
	EFFECT_REDRIVE
} EffectKind;

typedef struct Pinned
{
	uint32		entry;
	TimestampTz deadline;
} Pinned;

typedef struct Effect
{
	EffectKind	kind;
	SubTransactionId subid;
	uint32		lease;			/* CLAIM, PIN */
	int64		number;			/* the lease's: it may be gone before */
	bool		woken;			/* waiters of channel_id are to be woken */
	uint32		slot;			/* SEEK, DROP, REDRIVE */
	uint32		generation;		/* of the slot then */
	int32		channel_id;		/* WAKE */
	int64		start_id;		/* SEEK */
	TimestampTz at;				/* SEEK: start_at; REDRIVE: retry_at */
	uint32		redriven;		/* PIN: the subscription's count then */
	int64		since_lease;
	int			npinned;
	Pinned	   *pinned;
} Effect;

extern void mbus_effect_init(void);
extern void mbus_effects_check(void);
extern void mbus_effect_prepare(int n);
extern void mbus_effect_claim(uint32 lease);
extern void mbus_effect_seek(uint32 slot, int64 start_id,
							 TimestampTz start_at, int64 since_lease);
extern void mbus_effect_drop(uint32 slot, Oid schema, int32 subscription_id);
extern void mbus_effect_wake(int32 channel_id);
extern bool mbus_effect_redrive(uint32 slot, Oid schema,
								int32 subscription_id, TimestampTz at);
extern Effect *mbus_effect_pin(uint32 lease, int64 number);
extern void mbus_effect_unpin(void);
extern uint32 mbus_effect_last_claim(void);

#endif							/* MBUS_EFFECT_H */
