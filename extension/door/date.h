/*
 * date.h
 *		Dates of RFC 9110.
 */
#ifndef MBUS_HTTP_DATE_H
#define MBUS_HTTP_DATE_H

#include "postgres.h"

#define MBUS_HTTP_DATE_BYTES 30 /* with its end */

extern bool mbus_http_date_read(const char *value, int64 now, int64 *seconds);
extern void mbus_http_date_write(int64 seconds, char *date);

#endif							/* MBUS_HTTP_DATE_H */
