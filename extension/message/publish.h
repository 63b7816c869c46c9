/*
 * publish.h
 *		Messages on their way into a segment.
 */
#ifndef MBUS_PUBLISH_H
#define MBUS_PUBLISH_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"

#include "channel/channel.h"
#include "message/draft.h"
#include "message/stored.h"

extern void mbus_draft_copy(MbusDraft *draft, const MbusStored *original,
							bool publisher);
extern void mbus_publish_body(Oid schema, const MbusChannel *channel,
							  MbusDraft *draft, const MbusBody *body);
extern int64 mbus_publish_waived(Oid schema, const MbusChannel *channel,
								 MbusDraft *draft);

#endif							/* MBUS_PUBLISH_H */
