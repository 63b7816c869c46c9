/*
 * pages.h
 *		The pages of the admin port. See pages.c.
 */
#ifndef GW_PAGES_H
#define GW_PAGES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

extern bool gw_pages_read(const char *directory, char *why, size_t size);
extern bool gw_page_put(const char *path, GwBuffer *body, const char **type);

#endif							/* GW_PAGES_H */
