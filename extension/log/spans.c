/*
 * spans.c
 *		Sets of numbers, as ranges.
 *
 * Results are new, in the current memory context; what they are made of stays
 * as it is.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"

#include "log/sound.h"
#include "log/spans.h"

/*
 * mbus_spans_add adds a range that begins at or behind all that is there, or
 * in the last one.
 */
void
mbus_spans_add(MbusSpans *spans, int64 lo, int64 hi)
{
	MbusSpan   *last = spans->n > 0 ? &spans->span[spans->n - 1] : NULL;

	if (lo >= hi)
		return;
	if (last && lo <= last->hi)
	{
		last->hi = Max(last->hi, hi);
		return;
	}
	if (spans->n == spans->room)
	{
		spans->room = Max(2 * spans->room, 8);
		spans->span = spans->span ?
			repalloc(spans->span, spans->room * sizeof(MbusSpan)) :
			palloc(spans->room * sizeof(MbusSpan));
	}
	spans->span[spans->n].lo = lo;
	spans->span[spans->n++].hi = hi;
}

/*
 * mbus_spans_union returns what is in one of them.
 */
MbusSpans
mbus_spans_union(const MbusSpans *a, const MbusSpans *b)
{
	MbusSpans	both = {0};
	int			i = 0;
	int			k = 0;

	while (i < a->n || k < b->n)
	{
		const MbusSpan *next;

		if (k == b->n || (i < a->n && a->span[i].lo <= b->span[k].lo))
			next = &a->span[i++];
		else
			next = &b->span[k++];
		mbus_spans_add(&both, next->lo, next->hi);
	}
	return both;
}

/*
 * mbus_spans_minus returns what is in a and not in b.
 */
MbusSpans
mbus_spans_minus(const MbusSpans *a, const MbusSpans *b)
{
	MbusSpans	left = {0};
	int			k = 0;

	for (int i = 0; i < a->n; i++)
	{
		int64		at = a->span[i].lo;
		int64		end = a->span[i].hi;

		/* those before this range are before the next ones, too */
		while (k < b->n && b->span[k].hi <= at)
			k++;
		for (int j = k; j < b->n && b->span[j].lo < end; j++)
		{
			mbus_spans_add(&left, at, b->span[j].lo);
			at = Max(at, b->span[j].hi);
		}
		mbus_spans_add(&left, at, end);
	}
	return left;
}

/*
 * mbus_spans_below returns what is below a number.
 */
MbusSpans
mbus_spans_below(const MbusSpans *spans, int64 end)
{
	MbusSpans	below = {0};

	for (int i = 0; i < spans->n; i++)
		mbus_spans_add(&below, spans->span[i].lo,
					   Min(spans->span[i].hi, end));
	return below;
}

/*
 * mbus_spans_have tells whether a number is among them.
 */
bool
mbus_spans_have(const MbusSpans *spans, int64 number)
{
	int			lo = 0;
	int			hi = spans->n;

	while (lo < hi)
	{
		int			at = (lo + hi) / 2;

		if (number >= spans->span[at].hi)
			lo = at + 1;
		else
			hi = at;
	}
	return lo < spans->n && number >= spans->span[lo].lo;
}

/*
 * mbus_spans_equal tells whether two are the same.
 */
bool
mbus_spans_equal(const MbusSpans *a, const MbusSpans *b)
{
	return a->n == b->n &&
		(a->n == 0 || memcmp(a->span, b->span, a->n * sizeof(MbusSpan)) == 0);
}

/*
 * mbus_spans_array returns them as a bigint[]: lo and hi in turn.
 */
Datum
mbus_spans_array(const MbusSpans *spans)
{
	Datum	   *ends = palloc((2 * spans->n + 1) * sizeof(Datum));

	for (int i = 0; i < spans->n; i++)
	{
		ends[2 * i] = Int64GetDatum(spans->span[i].lo);
		ends[2 * i + 1] = Int64GetDatum(spans->span[i].hi);
	}
	return PointerGetDatum(construct_array(ends, 2 * spans->n, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/*
 * mbus_spans_read reads such an array; NULL is none.  XX001 if it is damaged.
 */
MbusSpans
mbus_spans_read(Datum array, bool isnull)
{
	MbusSpans	spans = {0};
	ArrayType  *sound;
	Datum	   *ends;
	int			n;

	if (isnull)
		return spans;
	sound = mbus_sound_array(array, INT8OID);
	if (sound == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("ranges of numbers are damaged")));
	deconstruct_array(sound, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &ends, NULL, &n);
	for (int i = 0; i + 1 < n; i += 2)
		mbus_spans_add(&spans, DatumGetInt64(ends[i]),
					   DatumGetInt64(ends[i + 1]));
	return spans;
}
