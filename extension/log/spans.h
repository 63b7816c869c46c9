/*
 * spans.h
 *		Sets of numbers, as ranges.
 */
#ifndef MBUS_SPANS_H
#define MBUS_SPANS_H

#include "postgres.h"

typedef struct MbusSpan
{
	int64		lo;
	int64		hi;				/* behind the last */
} MbusSpan;

/* By ascending number, apart from each other; palloc'd. */
typedef struct MbusSpans
{
	int			n;
	int			room;
	MbusSpan   *span;
} MbusSpans;

extern void mbus_spans_add(MbusSpans *spans, int64 lo, int64 hi);
extern MbusSpans mbus_spans_union(const MbusSpans *a, const MbusSpans *b);
extern MbusSpans mbus_spans_minus(const MbusSpans *a, const MbusSpans *b);
extern MbusSpans mbus_spans_below(const MbusSpans *spans, int64 end);
extern bool mbus_spans_have(const MbusSpans *spans, int64 number);
extern bool mbus_spans_equal(const MbusSpans *a, const MbusSpans *b);
extern Datum mbus_spans_array(const MbusSpans *spans);
extern MbusSpans mbus_spans_read(Datum array, bool isnull);

#endif							/* MBUS_SPANS_H */
