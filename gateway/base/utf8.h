/*
 * utf8.h
 *		Which bytes are UTF-8. See utf8.c.
 */
#ifndef GW_UTF8_H
#define GW_UTF8_H

#include <stdbool.h>
#include <stddef.h>

extern bool gw_utf8_valid(const unsigned char *bytes, size_t length);
extern bool gw_utf8_may_go_on(const unsigned char *bytes, size_t length);
extern size_t gw_utf8_prefix(const unsigned char *bytes, size_t length);

#endif							/* GW_UTF8_H */
