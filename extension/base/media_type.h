/*
 * media_type.h
 *		Media types: RFC 9110, 8.3.1.
 */
#ifndef MBUS_MEDIA_TYPE_H
#define MBUS_MEDIA_TYPE_H

#include "postgres.h"

extern void mbus_content_type_check(const char *content_type);

#endif							/* MBUS_MEDIA_TYPE_H */
