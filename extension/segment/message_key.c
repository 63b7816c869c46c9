/*
 * message_key.c
 *		The key of a stored message.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "utils/rel.h"

#include "base/ids.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "segment/message_key.h"

/*
 * mbus_message_key_hash returns the hash of a message's key; 0 if it has none,
 * or is gone.
 */
int64
mbus_message_key_hash(Oid schema, int64 id, Snapshot snapshot)
{
	Relation	leaf = mbus_leaf_open(schema, MbusSegmentOf(id), MBUS_MESSAGE,
									  AccessShareLock);
	int64		key_hash = 0;
	MbusLeafScan rows;
	HeapTuple	tuple;

	if (leaf == NULL)
		return 0;
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, id, id);
	mbus_leaf_scan_begin(&rows, snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, MBUS_COL_KEY_HASH,
										 RelationGetDescr(leaf), &isnull);

		key_hash = isnull ? 0 : DatumGetInt64(value);
	}
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return key_hash;
}
