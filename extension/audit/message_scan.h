/*
 * message_scan.h
 *		The messages that the current user may see, one by one.
 */
#ifndef MBUS_MESSAGE_SCAN_H
#define MBUS_MESSAGE_SCAN_H

#include "postgres.h"

#include "utils/snapshot.h"

/* Columns of message_rows(), by their numbers. */
enum
{
	MBUS_SEEN_ID = 1,
	MBUS_SEEN_CHANNEL_ID,
	MBUS_SEEN_CHANNEL,
	MBUS_SEEN_CREATED_AT,
	MBUS_SEEN_EXPIRES_AT,
	MBUS_SEEN_LIVE,
	MBUS_SEEN_AVAILABLE_AT,
	MBUS_SEEN_KEY,
	MBUS_SEEN_TRANSACTION_ID,
	MBUS_SEEN_PUBLISHER,
	MBUS_SEEN_SUBJECT,
	MBUS_SEEN_SESSION,
	MBUS_SEEN_HEADERS,
	MBUS_SEEN_CONTENT_TYPE,
	MBUS_SEEN_SIZE,
	MBUS_SEEN_ENCODING,
	MBUS_SEEN_STORED_SIZE,
	MBUS_SEEN_SHA256,
	MBUS_SEEN_STORED,
	MBUS_SEEN_RECIPIENT,
	MBUS_SEEN_BODY,
	MBUS_SEEN_COLUMNS = MBUS_SEEN_BODY
};

#define MBUS_SEEN(column)	(((uint32) 1) << (column))
#define MBUS_SEEN_ALL		PG_UINT32_MAX

/* Which are wanted.  Those that are not may be among what comes all the same. */
typedef struct MbusMessageFilter
{
	bool		none;			/* nothing is */
	bool		ordered;		/* by ascending id */
	bool		gone;			/* also what was deleted or purged */
	uint32		columns;		/* of these, MBUS_SEEN(); others come as NULL */
	int64		lo;				/* ids from lo to hi, inclusive */
	int64		hi;
	int			nids;			/* -1: any; else of these, */
	int64	   *ids;			/* ascending, each once */
	text	   *channel;		/* or NULL: any */
	text	   *transaction_id; /* or NULL: any */
} MbusMessageFilter;

typedef struct MbusMessageScan MbusMessageScan;

extern void mbus_message_filter_init(MbusMessageFilter *filter,
									 uint32 columns);
extern MbusMessageScan *mbus_message_scan_begin(const MbusMessageFilter *filter,
												Snapshot snapshot);
extern bool mbus_message_scan_next(MbusMessageScan *scan, Datum *values,
								   bool *isnull);
extern void mbus_message_scan_end(MbusMessageScan *scan);

#endif							/* MBUS_MESSAGE_SCAN_H */
