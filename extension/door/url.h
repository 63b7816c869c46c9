/*
 * url.h
 *		Links to messages.
 */
#ifndef MBUS_BODY_URL_H
#define MBUS_BODY_URL_H

#include "postgres.h"

extern char *mbus_body_link(int64 id);

#endif							/* MBUS_BODY_URL_H */
