/*
 * verify.h
 *		What is stored, compared with the log: inside of verify*.c.
 */
#ifndef MBUS_VERIFY_H
#define MBUS_VERIFY_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/hsearch.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "log/entry.h"
#include "log/row.h"
#include "log/spans.h"
#include "log/store.h"
#include "log/tree.h"

#define MBUS_VERIFY_TILES	32	/* of a part */
#define MBUS_VERIFY_PART	(MBUS_VERIFY_TILES * MBUS_TILE_WIDTH)

/* What is known of a tile of the lowest level. */
typedef enum MbusTileState
{
	MBUS_TILE_GOOD,				/* the hash above it is its root */
	MBUS_TILE_BAD,				/* not, and told */
	MBUS_TILE_MISSING,			/* pruned, if it is of nothing that is there */
	MBUS_TILE_EDGE				/* the last one, not full: see the checkpoints */
} MbusTileState;

/* A segment that a run is of; in a hash table. */
typedef struct MbusVerifySegment
{
	int32		segment;		/* key */
	bool		there;			/* it has a row in message_bus.segment */
	bool		ours;			/* and the rest is of this log */
	bool		gone;			/* its tables are not there, and that is told
								 * or is as it should be */
	bool		secret_known;
	uint8		secret[MBUS_SECRET_BYTES];
	int64		to;
	MbusSpans	pending;
	MbusSpans	facts;
	int64		found[MBUS_LOG_KINDS];	/* rows that entries are of */
} MbusVerifySegment;

/* Entries that stand together, of rows whose numbers do. */
typedef struct MbusVerifySpan
{
	int64		index;
	int64		number;
	int32		n;
	int32		segment;
	int			kind;
} MbusVerifySpan;

/* An entry at the edge that differs from its row. */
typedef struct MbusEdgeDoubt
{
	int64		index;
	int32		segment;
	int			kind;
	int64		number;
} MbusEdgeDoubt;

/* A call of audit_verify(). */
typedef struct MbusVerify
{
	Oid			schema;
	Snapshot	snapshot;
	MbusLogState state;
	int64		from;
	int64		to;

	/* results */
	Tuplestorestate *result;
	TupleDesc	desc;
	int64		faults;
	int			slot;			/* where it is shown */

	HTAB	   *segments;		/* MbusVerifySegment */
	HTAB	   *doubted;		/* tiles, by level and number */
	HTAB	   *dropped;		/* segments of which the log says so; or NULL */
	HTAB	   *orphans;		/* hashes of entries that no run has */
	bool		expired_known;
	int64		expired_to;		/* of entries below it actions may have been
								 * removed */
	bool		too_many;		/* of these: what is added cannot be told */

	/* the part that is looked at */
	MemoryContext part;
	int64		first_tile;
	int			ntiles;
	MbusTileState tile[MBUS_VERIFY_TILES];
	MbusHash   *hash;			/* of its entries */
	MbusVerifySpan *span;
	int			nspans;
	int			room;
	int64		covered;		/* entries below it have a run */

	MemoryContext lasting;		/* of the call */
	MemoryContext row;			/* reset with each row */
	MbusEntry	entry;
	MbusEdgeDoubt *edge;
	int			nedge;
} MbusVerify;

/* verify.c */
extern bool mbus_verify_try(void (*work) (void *arg), void *arg);
extern void mbus_verify_fault(MbusVerify *v, int64 index, const char *kind,
							  int64 id, int32 segment, const char *fault);
extern const char *mbus_verify_kind(int kind);
extern MbusVerifySegment *mbus_verify_segment(MbusVerify *v, int32 segment);
extern Relation mbus_verify_table(MbusVerify *v, int kind, int32 segment);

/* verify_tree.c */
extern void mbus_verify_tiles(MbusVerify *v);
extern void mbus_verify_upper(MbusVerify *v);
extern void mbus_verify_checkpoints(MbusVerify *v);

extern void mbus_verify_tile_fault(MbusVerify *v, int level, int64 n);

/* verify_run.c */
extern void mbus_verify_runs(MbusVerify *v, int64 from, int64 to);

/* verify_row.c */
extern const char *mbus_verify_row(MbusVerify *v, MbusVerifySegment *segment,
								   int kind, HeapTuple tuple, TupleDesc desc,
								   MbusHash *hash);
extern bool mbus_verify_payload(Oid schema, HeapTuple tuple, TupleDesc desc);

/* verify_part.c */
extern void mbus_verify_rows(MbusVerify *v);

/* verify_rest.c */
extern void mbus_verify_gone(MbusVerify *v, MbusVerifySegment *segment,
							 int64 index);
extern bool mbus_verify_expired(MbusVerify *v, int64 index);
extern void mbus_verify_added(MbusVerify *v);

/* verify_state.c */
extern void mbus_verify_state(MbusVerify *v);

#endif							/* MBUS_VERIFY_H */
