/*
 * visibility.h
 *		Whose a message is, in a channel that keeps subjects apart.
 */
#ifndef MBUS_VISIBILITY_H
#define MBUS_VISIBILITY_H

#include "postgres.h"

extern bool mbus_visible(Oid schema, int32 publisher_id, const text *subject,
						 const text *recipient);

#endif							/* MBUS_VISIBILITY_H */
