/*
 * unread.h
 *		Segments with rows that cannot be read.
 */
#ifndef MBUS_UNREAD_H
#define MBUS_UNREAD_H

#include "postgres.h"

#include "log/log.h"
#include "log/spans.h"

/* So often it was tried: then a segment goes without what is not read. */
#define MBUS_UNREAD_TRIES	4

extern bool mbus_unread_failed(MbusLog *log, const char *error);
extern const MbusUnread *mbus_unread_find(const MbusLog *log, int32 segment);
extern bool mbus_unread_due(const MbusLog *log);
extern void mbus_unread_try(MbusLog *log);
extern MbusSpans mbus_unread_without(const MbusLog *log, MbusSpans unfinished);
extern void mbus_unread_passed(MbusLog *log, bool all);
extern void mbus_unread_forget(MbusLog *log, int32 segment);
extern MbusSpans mbus_unread_spans(const MbusUnread *unread, bool facts);

#endif							/* MBUS_UNREAD_H */
