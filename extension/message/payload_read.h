/*
 * payload_read.h
 *		Payloads of stored messages, read and verified.
 */
#ifndef MBUS_PAYLOAD_READ_H
#define MBUS_PAYLOAD_READ_H

#include "postgres.h"

#include "message/stored.h"

extern struct varlena *mbus_message_payload(Oid schema,
											const MbusStored *message);
extern struct varlena *mbus_message_range(Oid schema,
										  const MbusStored *message,
										  int64 from, int64 count);
extern struct varlena *mbus_payload_read(Oid schema,
										 const MbusStored *message);
extern void mbus_message_damaged(int64 id, bool known);

#endif							/* MBUS_PAYLOAD_READ_H */
