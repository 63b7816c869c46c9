/*
 * relay.h
 *		What the rest of the extension sees of message_bus.relay().
 */
#ifndef MBUS_RELAY_H
#define MBUS_RELAY_H

#include "postgres.h"

/* number the gateway gave the socket whose frame is running; 0: none */
extern int64 mbus_relay_session;

/* a relay call runs; it records the errors of its frames itself */
extern bool mbus_in_relay;

#endif							/* MBUS_RELAY_H */
